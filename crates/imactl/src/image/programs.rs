//! What it takes to run a file system's own programs on an image.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ima::fault::{Cause, Code, Fault};

use crate::Result;
use crate::file::{unreadable, unwritable};
use crate::tree::{Content, Piece};

/// Copies the image to an empty file of that name, its holes as holes.
pub(super) fn copy(path: &Path, to: &Path, file: &mut File) -> Result<()> {
    let len = std::fs::metadata(path)
        .map_err(|error| unreadable(path, &error))?
        .len();
    let content = Content::Host {
        path: path.to_owned(),
        len,
    };
    let failed = |error: std::io::Error| unwritable(to, &error);
    file.set_len(len).map_err(failed)?;
    let mut at = 0;
    content.read(&mut |piece| {
        at += match piece {
            Piece::Hole(len) => len,
            Piece::Data(data) => {
                file.write_all_at(data, at).map_err(failed)?;
                data.len() as u64
            }
        };
        Ok(())
    })
}

/// The fault of a program that could not be started.
pub(super) fn missing_tool(program: &str, package: &str, error: &std::io::Error) -> Fault {
    Fault::new(Code::ToolMissing, format!("{program}: {error}"))
        .because(Cause::IMAGE_PROGRAM_MISSING.with(&[program, package]))
}

/// Debian has these programs where a user's PATH does not look.
pub(super) fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}
