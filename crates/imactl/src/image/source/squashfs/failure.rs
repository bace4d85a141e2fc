//! Why a squashfs image was not read.

use std::path::Path;

use ima::fault::Fault;

use crate::file::unreadable;
use crate::image::bounds::damaged;

/// Why an image was not read.
#[derive(Debug)]
pub(super) enum Failure {
    /// Reading it failed.
    Unreadable(std::io::Error),
    /// Something in it cannot be.
    Damaged(String),
    /// From the tree.
    Fault(Fault),
}

impl Failure {
    pub(super) fn fault(self, path: &Path) -> Fault {
        match self {
            Self::Unreadable(error) => unreadable(path, &error),
            Self::Damaged(what) => damaged(path, "squashfs", "unsquashfs -stat", &what),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) type Read<T> = std::result::Result<T, Failure>;

pub(super) fn bad<T>(what: impl Into<String>) -> Read<T> {
    Err(Failure::Damaged(what.into()))
}
