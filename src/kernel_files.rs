//! Files of procfs, sysfs and securityfs. The kernel makes their text when they are read, and for some of them anew with each
//! read(2), so that they are read with few calls; and it never makes one because a program writes to it.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, readlink};
use rustix::path::Arg;

use crate::errno::Errno;
use crate::files::each_name;

/// How much is read at once. Most of these files have no more than a page.
const ROOM: usize = 4096;

/// Reads a file whole.
///
/// # Errors
///
/// What open(2) and read(2) say.
pub fn read(path: impl Arg) -> Result<Vec<u8>, Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = Vec::new();
    // On the stack, because the heap would grow by so much for each of these files, of which most have a few bytes.
    let mut buffer = [MaybeUninit::uninit(); ROOM];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(([], _)) => return Ok(content),
            Ok((more, _)) => content.extend_from_slice(more),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a file whole, as text.
///
/// # Errors
///
/// The same; EILSEQ if it is not UTF-8.
pub fn text(path: impl Arg) -> Result<String, Errno> {
    String::from_utf8(read(path)?).map_err(|_| Errno::ILSEQ)
}

/// Writes to a file with one call, as the kernel takes it.
///
/// # Errors
///
/// What open(2) and write(2) say: ENOENT for a file that is not there; EIO if the kernel took a part.
pub fn write(path: impl Arg, value: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    match rustix::io::write(&file, value)? {
        length if length == value.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// The names in a directory of text, in no order; none if it cannot be read.
pub fn names(path: impl AsRef<Path>) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    let _ = open(path.as_ref(), flags, Mode::empty()).and_then(|directory| {
        each_name(&directory, &mut |name| {
            names.extend(name.to_str().map(str::to_owned));
            Ok(())
        })
    });
    names
}

/// The directory that a link of sysfs leads to, as in `/sys/class`: all of them are relative, with a `..` for each directory below
/// `/sys`. What is no link is a directory itself.
pub fn directory(link: &Path) -> PathBuf {
    let Ok(target) = readlink(link, Vec::new()) else {
        return link.to_owned();
    };
    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
    let below: PathBuf = target
        .components()
        .filter(|component| *component != Component::ParentDir)
        .collect();
    Path::new("/sys").join(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_whole_and_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path), Err(Errno::NOENT));
        assert_eq!(write(&path, b"x"), Err(Errno::NOENT));
        for length in [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM] {
            let content = vec![b'x'; length];
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path), Ok(content), "{length}");
        }
        std::fs::write(&path, b"").unwrap();
        assert_eq!(write(&path, b"\xff"), Ok(()));
        assert_eq!(text(&path), Err(Errno::ILSEQ));
        assert_eq!(names(directory.path()), ["file"]);
        assert_eq!(names(&path), [""; 0]);
    }

    #[test]
    fn a_generated_file_is_read() {
        let mounts = text("/proc/self/mountinfo").unwrap();
        assert!(mounts.ends_with('\n'), "{mounts}");
        assert!(names("/proc/self/fd").iter().any(|name| name == "0"));
    }

    #[test]
    fn links_of_sysfs_lead_to_directories_of_devices() {
        for class in ["/sys/class/mem", "/sys/class/block"] {
            for name in names(class) {
                let link = Path::new(class).join(name);
                assert_eq!(directory(&link), std::fs::canonicalize(&link).unwrap());
            }
        }
        assert_eq!(directory(Path::new("/sys/class")), Path::new("/sys/class"));
    }
}
