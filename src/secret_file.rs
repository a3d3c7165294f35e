//! Reads files with secrets and keys. They are small, so a larger file is refused before it fills the memory.

use std::{
    fmt::Display,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// The secret in a file, without one line end at its end: editors and `echo` write one that nobody means.
///
/// # Errors
/// When the file cannot be read, has no secret or PEM, or is larger than 64 KiB. The message names the file, and never its content.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut secret = read(path)?;
    if secret.starts_with(b"-----BEGIN ") {
        // The daemon's public key as a secret would let everybody sign.
        return Err(unusable(
            path,
            &"the file is PEM and not a secret; a public key of tokens belongs to --jwt-public-key",
        ));
    }
    if secret.ends_with(b"\n") {
        let end = if secret.ends_with(b"\r\n") { 2 } else { 1 };
        secret.truncate(secret.len() - end);
    }
    if secret.is_empty() { Err(unusable(path, &"the file is empty")) } else { Ok(secret) }
}

/// The whole content of a file with keys.
///
/// # Errors
/// When the file cannot be read, or is larger than 64 KiB. The message names the file, and never its content.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content));
    read.map_err(|error| unusable(path, &error))?;
    if content.len() as u64 > LARGEST {
        return Err(unusable(path, &"the file is larger than 64 KiB, so it has no secret and no key"));
    }
    Ok(content)
}

/// An error that names the file.
pub fn unusable(path: &Path, reason: &dyn Display) -> io::Error {
    io::Error::other(format!("{}: {reason}", path.display()))
}

/// Far more than any key. Without it `/dev/zero` would fill the memory.
const LARGEST: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_at_the_end_of_a_secret_file_is_not_part_of_the_secret() {
        let path = std::env::temp_dir().join(format!("backend-signal-secret-{}", std::process::id()));
        for (content, secret) in [
            (&b"abc"[..], Some(&b"abc"[..])),
            (b"abc\n", Some(b"abc")),
            (b"abc\r\n", Some(b"abc")),
            (b"abc\n\n", Some(b"abc\n")),
            (b"abc\r", Some(b"abc\r")),
            (b" abc \n", Some(b" abc ")),
            (b"a\nb\n", Some(b"a\nb")),
            (b"\xff\0\n", Some(b"\xff\0")),
            (b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", None),
            (b"", None),
            (b"\n", None),
            (b"\r\n", None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_secret(&path).ok().as_deref(), secret, "{content:?}");
        }
        std::fs::remove_file(&path).unwrap();
        for (path, reason) in [(path.as_path(), "No such file"), (Path::new("/dev/zero"), "larger than 64 KiB")] {
            let error = read_secret(path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: ", path.display())) && error.contains(reason), "{error}");
        }
    }
}
