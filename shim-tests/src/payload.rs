//! Files to move, and their digests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// Writes `size` bytes that no two offsets of a connection share, the same in
/// each run, and gives their SHA-256.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, size: u64) -> Result<String> {
    let context = || path.display().to_string();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(context)?);
    let mut digest = Sha256::new();
    // xorshift64* (Vigna): quick, and incompressible enough to show any mix-up.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0u8; 64 * 1024];
    let mut left = size;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        let n = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        digest.update(&block[..n]);
        file.write_all(&block[..n]).with_context(context)?;
        left -= n as u64;
    }
    file.flush().with_context(context)?;
    Ok(hex(digest))
}

/// The SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let context = || path.display().to_string();
    let mut file = File::open(path).with_context(context)?;
    let mut digest = Sha256::new();
    io::copy(&mut file, &mut digest).with_context(context)?;
    Ok(hex(digest))
}

fn hex(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let written = write(&path, 100_001).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100_001);
        assert_eq!(sha256(&path).unwrap(), written);
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
