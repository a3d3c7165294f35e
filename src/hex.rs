//! Lower-case hexadecimal, digit by digit: every message of every stream has some, and `write!` takes three times as long.

/// How many digits a value has, without zeros before them.
pub(crate) fn length(value: u64) -> usize {
    (value | 1).ilog2() as usize / 4 + 1
}

/// Writes the lowest digits of a value; gives how many.
pub(crate) fn write(into: &mut [u8], value: u64, digits: usize) -> usize {
    for (at, byte) in into[..digits].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(value >> (4 * (digits - 1 - at)) & 15) as usize];
    }
    digits
}
