//! Digests of files: of the content, and as fs-verity computes them.

use ima::fault::{Cause, Code, Fault};
use ima::hash::{HashAlgorithm, Hasher};
use ima::verity::VerityHasher;

use crate::Result;
use crate::tree::{Content, OpenFile, Piece};

/// What a digest is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DigestOf {
    /// The content.
    Content,
    /// The Merkle tree of fs-verity, with blocks of 4096 bytes and without salt.
    Verity,
}

impl Content {
    /// The digest; a file that changes meanwhile is an error.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`], [`Code::SigningFailed`] for an algorithm that is not computed.
    pub fn digest(&self, over: DigestOf, algo: HashAlgorithm) -> Result<Vec<u8>> {
        digest(over, algo, |each| self.read(each))
    }
}

impl OpenFile<'_> {
    /// The digest; a file that changes meanwhile is an error.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`], [`Code::SigningFailed`] for an algorithm that is not computed.
    pub fn digest(&self, over: DigestOf, algo: HashAlgorithm) -> Result<Vec<u8>> {
        digest(over, algo, |each| self.read(each))
    }
}

fn digest(
    over: DigestOf,
    algo: HashAlgorithm,
    read: impl FnOnce(&mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()>,
) -> Result<Vec<u8>> {
    match over {
        DigestOf::Content => {
            let mut hasher = Hasher::new(algo).ok_or_else(|| {
                Fault::new(Code::SigningFailed, format!("digests of {algo}"))
                    .because(Cause::DIGEST_NOT_COMPUTED)
            })?;
            read(&mut |piece| {
                match piece {
                    Piece::Data(data) => hasher.update(data),
                    Piece::Hole(len) => hash_zeros(&mut hasher, len),
                }
                Ok(())
            })?;
            Ok(hasher.finish())
        }
        DigestOf::Verity => {
            let mut hasher = VerityHasher::new(algo).ok_or_else(|| {
                Fault::new(Code::SigningFailed, format!("fs-verity digests of {algo}"))
                    .because(Cause::DIGEST_NOT_OF_VERITY)
            })?;
            read(&mut |piece| {
                match piece {
                    Piece::Data(data) => hasher.update(data),
                    Piece::Hole(len) => hasher.update_zeros(len),
                }
                Ok(())
            })?;
            Ok(hasher.finish())
        }
    }
}

/// Hashes so many zeros.
pub(crate) fn hash_zeros(hasher: &mut ima::hash::Hasher, mut len: u64) {
    const ZEROS: &[u8] = &[0; 65_536];
    while len > 0 {
        let take = len.min(ZEROS.len() as u64);
        hasher.update(ZEROS.get(..take as usize).unwrap_or(ZEROS));
        len -= take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Found;
    use std::io::Write as _;
    use std::path::PathBuf;

    #[test]
    fn a_file_of_another_length_than_seen_has_changed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let found = |len| Found {
            path: file.path().to_owned(),
            below_root: PathBuf::new(),
            len,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            recorded: None,
        };
        let whole = HashAlgorithm::Sha256.digest(b"content").unwrap();
        assert_eq!(
            found(7)
                .digest(DigestOf::Content, HashAlgorithm::Sha256)
                .unwrap(),
            whole
        );
        for len in [0, 6, 8] {
            let fault = found(len)
                .digest(DigestOf::Content, HashAlgorithm::Sha256)
                .unwrap_err();
            assert_eq!(fault.code(), Code::FileChanged, "{len}");
        }
        let fault = found(7)
            .digest(DigestOf::Content, HashAlgorithm::Streebog256)
            .unwrap_err();
        assert_eq!(fault.code(), Code::SigningFailed);
    }

    #[test]
    fn a_file_that_is_written_to_while_it_is_read_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 2 << 20]).unwrap();
        let content = Content::Host {
            path: path.clone(),
            len: 2 << 20,
        };
        let mut pieces = 0;
        let read = content.read(&mut |_| {
            pieces += 1;
            if pieces == 2 {
                let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all(b"other").unwrap();
                // The kernel's clock for file times is coarse: without this the change could fall into the tick of the first.
                file.set_modified(std::time::SystemTime::now()).unwrap();
            }
            Ok(())
        });
        assert_eq!(read.unwrap_err().code(), Code::FileChanged);
    }
}
