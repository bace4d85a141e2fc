//! Changes of a file system image that its file system does not see.

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Offset of the superblock of ext4, and of its field `s_log_block_size` (`fs/ext4/ext4.h`).
const LOG_BLOCK_SIZE: u64 = 1024 + 24;
/// The largest `s_log_block_size`: blocks of 64 KiB (`EXT4_MAX_BLOCK_LOG_SIZE`).
const MAX_LOG_BLOCK_SIZE: u32 = 6;

/// Flips the lowest bit of the last byte of a file in an ext4 image, as an attacker who has the disk would.
///
/// The byte is changed where it lies on the disk: the attributes and the dates of the file stay as they are. `path` is the
/// path in the image, without spaces. Needs debugfs (e2fsprogs).
///
/// # Errors
///
/// If the image cannot be read or written, or the file is not a regular one with data on the disk.
pub fn flip_last_byte(image: impl AsRef<Path>, path: &str) -> Result<()> {
    let image = image.as_ref();
    let unfit = |why: &str| Error::other(format!("{path}: {why}"));
    let status = debugfs(image, &format!("stat {path}"))?;
    let size = size(&status).ok_or_else(|| unfit("no such file in the image"))?;
    let last = size.checked_sub(1).ok_or_else(|| unfit("it is empty"))?;

    let disk = File::options().read(true).write(true).open(image)?;
    let mut field = [0; 4];
    disk.read_exact_at(&mut field, LOG_BLOCK_SIZE)?;
    let shift = u32::from_le_bytes(field);
    if shift > MAX_LOG_BLOCK_SIZE {
        return Err(Error::other(format!("{}: not ext4", image.display())));
    }
    let block_size = 1024_u64 << shift;

    let number = debugfs(image, &format!("bmap {path} {}", last / block_size))?;
    let block = number
        .trim()
        .parse::<u64>()
        .ok()
        .filter(|block| *block != 0);
    let block = block.ok_or_else(|| unfit("not a regular file with its data on the disk"))?;
    let offset = block * block_size + last % block_size;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, offset)?;
    disk.write_all_at(&[byte[0] ^ 1], offset)?;
    disk.sync_all()
}

/// Returns the size in the output of debugfs' `stat`; nothing for what is not a regular file.
fn size(status: &str) -> Option<u64> {
    if !status.contains("Type: regular") {
        return None;
    }
    let (_, rest) = status.split_once("Size: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Returns what debugfs prints for a request. Its exit status does not say whether that succeeded.
fn debugfs(image: &Path, request: &str) -> Result<String> {
    let output = Command::new("debugfs")
        .args(["-R", request])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::new(error.kind(), format!("debugfs: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(block_size: &str, content: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("usr")).unwrap();
        std::fs::write(tree.join("usr/file"), content).unwrap();
        std::fs::write(tree.join("empty"), "").unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-b", block_size, "-d"])
            .arg(&tree)
            .arg(directory.path().join("image"))
            .arg("4M")
            .status()
            .unwrap();
        assert!(made.success());
        directory
    }

    #[test]
    fn one_bit_of_the_last_byte_changes_and_nothing_else() {
        for (block_size, len) in [("1024", 1), ("1024", 5000), ("4096", 4096), ("4096", 9001)] {
            let mut content = vec![0xa5; len];
            let directory = image(block_size, &content);
            let image = directory.path().join("image");
            let stat = debugfs(&image, "stat /usr/file").unwrap();
            flip_last_byte(&image, "/usr/file").unwrap();
            *content.last_mut().unwrap() ^= 1;
            let dumped = directory.path().join("dumped");
            debugfs(&image, &format!("dump /usr/file {}", dumped.display())).unwrap();
            assert_eq!(
                std::fs::read(dumped).unwrap(),
                content,
                "{block_size} {len}"
            );
            assert_eq!(debugfs(&image, "stat /usr/file").unwrap(), stat);
        }
    }

    #[test]
    fn what_has_no_data_is_an_error() {
        let directory = image("4096", b"text");
        let image = directory.path().join("image");
        let before = std::fs::read(&image).unwrap();
        for (path, why) in [
            ("/missing", "no such file"),
            ("/usr", "no such file"),
            ("/empty", "it is empty"),
        ] {
            let error = flip_last_byte(&image, path).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(std::fs::read(&image).unwrap(), before);
        assert!(flip_last_byte(directory.path().join("none"), "/usr/file").is_err());
    }
}
