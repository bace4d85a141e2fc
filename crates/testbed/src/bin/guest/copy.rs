//! Copying a tree with its modes, links and security.ima, which no program of an initramfs does.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

use crate::system;

/// Copies what is in `from` into `to`. A file system without extended attributes goes without.
pub fn tree(from: Option<&String>, to: Option<&String>) -> ExitCode {
    let result = match (from, to) {
        (Some(from), Some(to)) => directory(Path::new(from), Path::new(to)),
        _ => Err(io::Error::other("copy FROM TO")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            system::log(&format!("cannot copy: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn directory(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if metadata.is_dir() {
            if !to.is_dir() {
                fs::create_dir(&to)?;
            }
            directory(&from, &to)?;
            fs::set_permissions(
                &to,
                fs::Permissions::from_mode(metadata.permissions().mode()),
            )?;
        } else {
            fs::copy(&from, &to)?;
            attribute(&from, &to)?;
        }
    }
    Ok(())
}

fn attribute(from: &Path, to: &Path) -> io::Result<()> {
    let mut value = vec![0; 8192];
    let length = match lgetxattr(from, "security.ima", &mut value[..]) {
        Ok(length) => length,
        Err(Errno::NODATA) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    match lsetxattr(to, "security.ima", &value[..length], XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
