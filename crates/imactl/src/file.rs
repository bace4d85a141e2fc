//! Reading and writing whole files: bounded in, atomic out.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ima::fault::{Cause, Code, Fault};

use crate::Result;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
///
/// [`Code::InputUnreadable`], also for a longer file.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(
            Fault::new(Code::InputUnreadable, path.display().to_string())
                .because(Cause::TOO_LONG.with(&[&limit.to_string()])),
        );
    }
    Ok(bytes)
}

/// Up to so many bytes from a place of a file.
///
/// # Errors
///
/// What pread(2) says.
pub fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The first line of a short file, without its end: a password or a PIN.
///
/// # Errors
///
/// [`Code::InputUnreadable`].
pub fn first_line(path: &Path) -> Result<Vec<u8>> {
    let text = read_bounded(path, 4096)?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// The fault of a file that cannot be read.
#[must_use]
pub fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        Code::InputUnreadable,
        format!("{}: {error}", path.display()),
    )
}

/// The fault of a file that cannot be written.
#[must_use]
pub fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        Code::OutputUnwritable,
        format!("{}: {error}", path.display()),
    )
}

/// The same fault with the file it was met in.
#[must_use]
pub fn in_file(fault: Fault, path: &Path) -> Fault {
    fault.in_file(&path.display().to_string())
}

/// A file in the making: written beside its final name, and renamed to it only when it is whole. A run that ends before
/// leaves nothing under the final name.
#[derive(Debug)]
pub struct Output {
    file: tempfile::NamedTempFile,
    path: std::path::PathBuf,
}

impl Output {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`].
    pub fn create(path: &Path) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".imactl-")
            .tempfile_in(directory)
            .map_err(|error| unwritable(path, &error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The name the file has until it is whole.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file its mode and its name. `replace` says whether an existing file may be replaced.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`].
    pub fn finish(self, mode: u32, replace: bool) -> Result<()> {
        let path = self.path;
        let fail = |error: &std::io::Error| unwritable(&path, error);
        self.file
            .as_file()
            .set_permissions(PermissionsExt::from_mode(mode))
            .map_err(|error| fail(&error))?;
        self.file
            .as_file()
            .sync_all()
            .map_err(|error| fail(&error))?;
        let persisted = if replace {
            self.file.persist(&path)
        } else {
            self.file.persist_noclobber(&path)
        };
        persisted.map(drop).map_err(|error| fail(&error.error))
    }
}

/// Writes a whole file, beside its final name first.
///
/// # Errors
///
/// [`Code::OutputUnwritable`].
pub fn write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> Result<()> {
    let mut output = Output::create(path)?;
    output
        .file()
        .write_all(bytes)
        .map_err(|error| unwritable(path, &error))?;
    output.finish(mode, replace)
}

/// The generation of a file's inode (`FS_IOC_GETVERSION`), which distinguishes it from a later one with the same number.
///
/// # Errors
///
/// Those of the system call; `ENOTTY` where the file system has none.
#[allow(unsafe_code)]
pub fn generation(file: std::os::fd::BorrowedFd<'_>) -> std::io::Result<u32> {
    use rustix::ioctl::{Getter, ioctl, opcode};
    // The kernel's number says long, and its file systems write an int (put_user of a __u32 in ext4_ioctl and others).
    const GETVERSION: rustix::ioctl::Opcode = opcode::read::<std::ffi::c_long>(b'v', 1);
    // SAFETY: the request writes a 32-bit number through the pointer, and that is what Getter's is to.
    Ok(unsafe { ioctl(file, Getter::<GETVERSION, u32>::new()) }?)
}
