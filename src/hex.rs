//! Lower-case hexadecimal, digit by digit: every message of every stream writes some, and `write!` takes three times as long.

/// The lowest `count` digits of a value, 16 at most.
pub(crate) fn digits(value: u64, count: u32) -> impl Iterator<Item = u8> {
    (0..count).rev().map(move |at| b"0123456789abcdef"[(value >> (4 * at) & 15) as usize])
}

/// All digits of a value, without zeros before them.
pub(crate) fn number(value: u64) -> impl Iterator<Item = u8> {
    digits(value, (value | 1).ilog2() / 4 + 1)
}
