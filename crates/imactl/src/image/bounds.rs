//! What is taken from an image, which may be damaged or made to do harm, and the fault of one that is.

use std::path::Path;

use ima::fault::{Cause, Code, Fault};

/// The longest name below the root, PATH_MAX.
pub(super) const MAX_PATH: usize = 4096;
/// The longest target of a symbolic link, PATH_MAX.
pub(super) const MAX_TARGET: u64 = 4096;

/// The fault of an image that cannot be read as what its superblock says.
pub(super) fn damaged(
    path: &Path,
    kind: &str,
    check: &str,
    error: &dyn std::fmt::Display,
) -> Fault {
    Fault::new(
        Code::SourceMalformed,
        format!("{}: {error}", path.display()),
    )
    .because(Cause::DAMAGED.with(&[kind, check]))
}

/// Counts what of an image is kept in memory: names and attributes. Both may lie where others do, so that a short image could
/// hold any number; a sound one has a small part of its length.
pub(super) struct Kept {
    left: u64,
}

impl Kept {
    pub(super) fn for_image(length: u64) -> Self {
        const ALWAYS: u64 = 32 << 20;
        const RATIO: u64 = 16;
        Self {
            left: length.saturating_mul(RATIO).saturating_add(ALWAYS),
        }
    }

    /// Whether there is room for so many bytes, and what goes with them.
    pub(super) fn room(&mut self, bytes: usize) -> bool {
        const EACH: u64 = 128;
        match self.left.checked_sub((bytes as u64).saturating_add(EACH)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Whether there is room for another attribute.
    pub(super) fn attribute(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.room(name.len().saturating_add(value.len()))
    }
}
