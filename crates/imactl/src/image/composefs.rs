//! Moves the content of an image's files into objects, each a file of its own, and leaves the attributes in the image by which
//! overlayfs finds and verifies them: see [`ima::composefs`].

use std::collections::BTreeSet;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ima::composefs::{Digest, METACOPY, REDIRECT};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::verity::VerityHasher;

use super::{ImageBuilder, SignedTree};
use crate::Result;
use crate::digest::DigestOf;
use crate::file::unwritable;
use crate::tree::{Content, Inode, InodeIndex, Kind, Piece};

/// What overlayfs's attributes begin with (fs/overlayfs/overlayfs.h).
const OVERLAY: &[u8] = b"trusted.overlay.";

/// The fs-verity digest of a file of the host, as `composefs_digest=` has it.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::FileChanged`].
pub fn digest(path: &Path) -> Result<Digest> {
    let len = std::fs::metadata(path)
        .map_err(|error| crate::file::unreadable(path, &error))?
        .len();
    let path = path.to_owned();
    let content = Content::Host { path, len };
    made(content.digest(DigestOf::Verity, HashAlgorithm::Sha256)?)
}

fn made(digest: Vec<u8>) -> Result<Digest> {
    Digest::new(digest).ok_or_else(|| Fault::new(Code::SigningFailed, "fs-verity digest"))
}

impl ImageBuilder {
    /// Writes every file's content below `directory`, and has the image refer to it.
    pub(super) fn move_content(&mut self, directory: &Path, signed: &mut SignedTree) -> Result<()> {
        let names: Vec<(Vec<u8>, InodeIndex)> = self
            .tree
            .names()
            .map(|(name, index)| (name.to_owned(), index))
            .collect();
        std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
        let nothing = std::fs::File::open("/dev/null").map(Arc::new);
        let nothing = nothing.map_err(|error| unwritable(Path::new("/dev/null"), &error))?;
        let mut seen = BTreeSet::new();
        for (name, index) in names {
            if !seen.insert(index) {
                continue;
            }
            let inode = self.tree.inode(index);
            if is_of_an_overlay(inode) {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(Fault::new(Code::ImageContent, format!("/{name}"))
                    .because(Cause::LAYER_OF_AN_OVERLAY));
            }
            let len = match &inode.kind {
                Kind::File(content) if !content.is_empty() => content.len(),
                _ => continue,
            };
            let digest = self.write_object(directory, index, signed)?;
            let inode = self.tree.inode_mut(index);
            // The image says how long the file is, and has no block of it.
            inode.kind = Kind::File(Content::Mapped {
                file: Arc::clone(&nothing),
                runs: [].into(),
                len,
            });
            for (attribute, value) in [
                (REDIRECT, digest.object().into_bytes()),
                (METACOPY, digest.metacopy()),
            ] {
                inode.xattrs.insert(attribute.as_bytes().to_vec(), value);
            }
            signed.runs.insert(index, Vec::new());
            signed.digests.remove(&index);
        }
        Ok(())
    }

    /// Writes the object of one file, under the name of its digest.
    fn write_object(
        &self,
        directory: &Path,
        index: InodeIndex,
        signed: &SignedTree,
    ) -> Result<Digest> {
        let failed = |error: std::io::Error| unwritable(directory, &error);
        let mut object = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let mut hasher = VerityHasher::new(HashAlgorithm::Sha256)
            .ok_or_else(|| Fault::new(Code::SigningFailed, "fs-verity digest"))?;
        let mut len = 0_u64;
        self.read_again(index, signed.digests.get(&index), &mut |piece| {
            match piece {
                Piece::Data(data) => {
                    hasher.update(data);
                    object.write_all(data).map_err(failed)?;
                    len += data.len() as u64;
                }
                Piece::Hole(hole) => {
                    hasher.update_zeros(hole);
                    len += hole;
                    object.seek(SeekFrom::Start(len)).map_err(failed)?;
                }
            }
            Ok(())
        })?;
        object.as_file().set_len(len).map_err(failed)?;
        let digest = made(hasher.finish())?;
        let path = object_path(directory, &digest);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        // Who may read a file, its mode in the image says.
        let mode = std::fs::Permissions::from_mode(0o644);
        object.as_file().set_permissions(mode).map_err(failed)?;
        object
            .persist(&path)
            .map_err(|error| unwritable(&path, &error.error))?;
        Ok(digest)
    }
}

fn object_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(digest.object().trim_start_matches('/'))
}

/// Whether overlayfs would take the inode for more than a file: by its attributes, or as a whiteout (fs/overlayfs/util.c,
/// `ovl_is_whiteout`).
fn is_of_an_overlay(inode: &Inode) -> bool {
    let whiteout = matches!(inode.kind, Kind::CharacterDevice(0, 0));
    whiteout || inode.xattrs.keys().any(|name| name.starts_with(OVERLAY))
}
