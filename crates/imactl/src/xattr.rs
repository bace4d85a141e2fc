//! Extended attributes of the host's files.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ima::fault::{Cause, Code, Fault};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::Result;
use crate::tree::OpenFile;

/// The name of IMA's attribute.
pub const SECURITY_IMA: &str = "security.ima";

/// The name of EVM's attribute.
pub const SECURITY_EVM: &str = "security.evm";

/// Reads one attribute of a file, symbolic links followed; `None` if it has no such attribute.
///
/// # Errors
///
/// [`Code::InputUnreadable`]; a file system without extended attributes is a file without one.
pub fn read(path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    value(path, name.as_bytes(), true)
}

/// Reads every attribute of a file this user may read, symbolic links not followed.
///
/// # Errors
///
/// [`Code::InputUnreadable`].
pub fn read_all(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let unreadable = |errno: Errno| crate::file::unreadable(path, &errno.into());
    let mut names = vec![0_u8; 65_536];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(unreadable(errno)),
    };
    let mut xattrs = BTreeMap::new();
    for name in names
        .get(..len)
        .unwrap_or_default()
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if let Some(value) = value(path, name, false)? {
            xattrs.insert(name.to_vec(), value);
        }
    }
    Ok(xattrs)
}

/// As [`read`], of an open file.
///
/// # Errors
///
/// [`Code::InputUnreadable`].
pub fn read_open(file: &OpenFile<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    let get = |value: &mut [u8]| rustix::fs::fgetxattr(file.file(), name, value);
    whole(get).map_err(|errno| crate::file::unreadable(file.path(), &errno.into()))
}

fn value(path: &Path, name: &[u8], follow: bool) -> Result<Option<Vec<u8>>> {
    let name = std::ffi::OsStr::from_bytes(name);
    let get = |value: &mut [u8]| {
        if follow {
            rustix::fs::getxattr(path, name, value)
        } else {
            rustix::fs::lgetxattr(path, name, value)
        }
    };
    match whole(get) {
        Ok(value) => Ok(value),
        // trusted.* is not for everybody.
        Err(Errno::PERM | Errno::ACCESS) if !follow => Ok(None),
        Err(errno) => Err(crate::file::unreadable(path, &errno.into())),
    }
}

/// What `get` writes; `None` if there is no such attribute. Most are short: the 64 KiB that one can have are asked for only where
/// they are needed.
fn whole(
    get: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Option<Vec<u8>>, Errno> {
    let mut short = [0; 1024];
    match get(&mut short) {
        Ok(len) => return Ok(Some(short.get(..len).unwrap_or_default().to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut value = vec![0; 65_536];
    let len = get(&mut value)?;
    value.truncate(len);
    Ok(Some(value))
}

/// Sets an attribute of a file.
///
/// # Errors
///
/// [`Code::XattrUnwritable`], with the cause that the kernel's answer shows.
pub fn write(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
        .map_err(|errno| unwritable(path, errno))
}

/// As [`write()`], of an open file.
///
/// # Errors
///
/// [`Code::XattrUnwritable`].
pub fn write_open(file: &OpenFile<'_>, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(file.file(), name, value, XattrFlags::empty())
        .map_err(|errno| unwritable(file.path(), errno))
}

fn unwritable(path: &Path, errno: Errno) -> Fault {
    let fault = Fault::new(
        Code::XattrUnwritable,
        format!("{}: {}", path.display(), std::io::Error::from(errno)),
    );
    match errno {
        Errno::PERM if is_locked(path) => fault.because(Cause::IMMUTABLE),
        Errno::PERM | Errno::ACCESS => fault.because(Cause::NO_CAPABILITY),
        Errno::OPNOTSUPP => fault.because(Cause::NO_SUCH_XATTRS),
        Errno::ROFS => fault.because(Cause::READ_ONLY),
        Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG => fault.because(Cause::NO_ROOM_FOR_XATTR),
        _ => fault,
    }
}

/// Whether a file is immutable or append-only, as `chattr` makes it.
fn is_locked(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let locked = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.intersects(locked))
}

/// Takes an attribute of a file away, symbolic links not followed; none to take away is fine.
///
/// # Errors
///
/// [`Code::XattrUnwritable`].
pub fn remove(path: &Path, name: &str) -> Result<()> {
    match rustix::fs::lremovexattr(path, name) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(unwritable(path, errno)),
    }
}
