//! Reads files that an attacker may have made: with a limit on their size, and in the root never through a link that leads
//! out of it. A file of the initramfs is one on the initramfs's own file system.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};

use crate::errno::{Errno, describe};

/// The most names that are taken from one directory.
const MAX_NAMES: usize = 4096;

/// Why a file could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It does not exist, or its path leads nowhere inside the root.
    Missing(Errno),
    /// It is a directory, device, fifo or socket.
    NotRegular(FileType),
    /// Anything else.
    Failed(Errno),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(errno) | Self::Failed(errno) => write!(f, "{}", describe(*errno)),
            Self::NotRegular(kind) => {
                let kind = match kind {
                    FileType::Directory => "a directory",
                    FileType::Fifo => "a fifo",
                    FileType::Socket => "a socket",
                    FileType::CharacterDevice => "a character device",
                    FileType::BlockDevice => "a block device",
                    _ => "something else",
                };
                write!(f, "not a regular file but {kind}")
            }
        }
    }
}

/// The initramfs, which the boot chain covers. Its files are opened without crossing a mount, because anybody may have written
/// what is mounted below it, such as the root.
#[derive(Debug)]
pub struct Initramfs(OwnedFd);

impl Initramfs {
    /// The initramfs that this process runs in.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn open() -> Result<Self, Errno> {
        directory(Path::new("/")).map(Self)
    }

    /// Opens a regular file of it for reading. Links are followed as long as they stay in it. A path that leads out of it is
    /// [`OpenError::Failed`], and never [`OpenError::Missing`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn file(&self, path: &Path) -> Result<File, OpenError> {
        let missing = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR);
        open(self.0.as_fd(), path, WITHIN, missing)
    }

    /// The names in a directory of it, sorted; none if it is not there.
    ///
    /// # Errors
    ///
    /// What openat2(2) and getdents64(2) say, EXDEV for a directory that is not its own.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>, Errno> {
        names(self.0.as_fd(), path, WITHIN)
    }
}

/// How paths in the real root are resolved.
const BELOW: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The same for the initramfs, without leaving its file system.
const WITHIN: ResolveFlags = BELOW.union(ResolveFlags::NO_XDEV);

/// Removes what is at `name` in a directory, with all that is below it. However deep it is, this takes the same number of
/// descriptors, and no recursion: what is below an entry is moved up, until no entry has anything below.
///
/// # Errors
///
/// What unlinkat(2), openat(2), getdents64(2) and renameat2(2) say. It is not an error if there is nothing at `name`.
pub fn remove_tree(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let parent = parent.as_fd();
    let mut number = 0_u64;
    match remove(parent, &name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY) => {}
        Err(errno) => return Err(errno),
    }
    let top = directory_below(parent, &name)?;
    while !remove_entries(&top, &mut number)? {}
    remove(parent, &name)
}

/// Removes what is in a directory; of what is below its directories, moves them up. Whether the directory is empty then.
fn remove_entries(top: &OwnedFd, number: &mut u64) -> Result<bool, Errno> {
    let mut is_empty = true;
    each_name(&directory_below(top.as_fd(), c".")?, &mut |name| {
        match remove(top.as_fd(), name) {
            Err(Errno::NOTEMPTY) => is_empty = false,
            done => return done,
        }
        let below = directory_below(top.as_fd(), name)?;
        each_name(&below, &mut |inner| match remove(below.as_fd(), inner) {
            Err(Errno::NOTEMPTY) => move_up(&below, inner, top, number),
            done => done,
        })
    })?;
    Ok(is_empty)
}

/// Moves a directory to another one, under the first number from `number` on that is not taken.
fn move_up(from: &OwnedFd, name: &CStr, to: &OwnedFd, number: &mut u64) -> Result<(), Errno> {
    loop {
        let new = number.to_string();
        *number = number.wrapping_add(1);
        match fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
}

/// Removes a file, or a directory that is empty.
fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        // Linux answers EISDIR, POSIX and other drivers EPERM.
        Err(Errno::ISDIR | Errno::PERM) => fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
        done => done,
    }
}

fn directory_below(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// How much of a directory is read at once, in bytes. A name has at most 255, and some more in a few file systems.
const NAMES: usize = 4096;

/// Calls `visit` for each name in a directory that was just opened, but for `.` and `..`, until it fails.
///
/// # Errors
///
/// What getdents64(2) says, and what `visit` returns.
pub fn each_name(
    directory: &OwnedFd,
    visit: &mut dyn FnMut(&CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    // Not by `rustix::fs::Dir`, which clears its buffer for each read: that takes longer than to read a directory.
    let mut buffer = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // The directory was deleted.
            Err(Errno::NOENT) => return Ok(()),
            entry => entry?,
        };
        let name = entry.file_name();
        if name != c"." && name != c".." {
            visit(name)?;
        }
    }
    Ok(())
}

/// Opens a regular file below `root` for reading. Links are followed, but never out of `root`; `..` stops at it. Only a regular
/// file is opened, because opening a device or fifo has effects.
///
/// # Errors
///
/// [`OpenError`].
pub fn open_in(root: impl AsFd, path: &Path) -> Result<File, OpenError> {
    let missing = |errno| {
        matches!(
            errno,
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG
        )
    };
    open(root.as_fd(), path, BELOW, missing)
}

fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    resolve: ResolveFlags,
    missing: impl Fn(Errno) -> bool,
) -> Result<File, OpenError> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place =
        fs::openat2(root, relative, flags, Mode::empty(), resolve).map_err(
            |errno| match missing(errno) {
                true => OpenError::Missing(errno),
                false => OpenError::Failed(errno),
            },
        )?;
    let kind = fs::fstat(&place)
        .map(|stat| FileType::from_raw_mode(stat.st_mode))
        .map_err(OpenError::Failed)?;
    if kind != FileType::RegularFile {
        return Err(OpenError::NotRegular(kind));
    }
    // This path is of the very file that was checked, even if its name leads to another file meanwhile.
    let again = descriptor_path(&place);
    fs::open(&again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(OpenError::Failed)
}

/// The path under which the kernel finds an open file again, links or not.
pub fn descriptor_path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// The magic number of the file system that a file is on (include/uapi/linux/magic.h).
///
/// # Errors
///
/// What fstatfs(2) says.
pub fn magic(file: impl AsFd) -> Result<u64, Errno> {
    // It has 32 bits. Where a word has as many it is signed, and ramfs, btrfs and f2fs have negative numbers.
    fs::fstatfs(file).map(|status| u64::from(status.f_type as u32))
}

/// The directory, as the root that [`open_in`] works in.
///
/// # Errors
///
/// What open(2) says.
pub fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty())
}

/// Opens a directory below `root` as [`open_in`] does a file.
///
/// # Errors
///
/// What openat2(2) says.
pub fn directory_in(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(root, relative, flags, Mode::empty(), BELOW)
}

/// Whether something is mounted on the directory. No link is followed, so that no link in a root leads out of it.
pub fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| {
        let stat = fs::lstat(path).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(stat.st_dev)
    };
    match (device(path), path.parent().and_then(device)) {
        (Some(here), Some(above)) => here != above,
        _ => false,
    }
}

/// The names in a directory below `root`, sorted; none if it is not there or no directory.
///
/// # Errors
///
/// What openat2(2) and getdents64(2) say.
pub fn names_in(root: impl AsFd, path: &Path) -> Result<Vec<OsString>, Errno> {
    names(root.as_fd(), path, BELOW)
}

fn names(root: BorrowedFd<'_>, path: &Path, resolve: ResolveFlags) -> Result<Vec<OsString>, Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut names = Vec::new();
    // Whoever wrote the disk chose how many there are: the rest is not read. No call here fails with this error.
    const ENOUGH: Errno = Errno::TOOBIG;
    let read = each_name(&directory, &mut |name| {
        if names.len() >= MAX_NAMES {
            return Err(ENOUGH);
        }
        names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        Ok(())
    });
    if read != Err(ENOUGH) {
        read?;
    }
    names.sort_unstable();
    Ok(names)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
///
/// What read(2) says; `FileTooLarge` for a larger one.
pub fn read(file: &File, limit: usize) -> std::io::Result<Vec<u8>> {
    // One byte more than there is, so that the next read finds the end.
    let length = usize::try_from(fs::fstat(file)?.st_size).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length.min(limit).saturating_add(1));
    loop {
        bytes.reserve(1);
        match rustix::io::read(file, spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() > limit => return Err(std::io::ErrorKind::FileTooLarge.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads from an offset up to a length, less where the file ends.
///
/// # Errors
///
/// What pread(2) says.
pub fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = u64::try_from(bytes.len())
            .unwrap_or(u64::MAX)
            .saturating_add(offset);
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (std::path::PathBuf, OwnedFd) {
        let name = std::thread::current().name().unwrap().replace("::", "-");
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("etc")).unwrap();
        let root = directory(&path).unwrap();
        (path, root)
    }

    #[test]
    fn links_stay_inside_the_root() {
        let (path, root) = root();
        std::fs::write(path.join("etc/passwd"), "inside").unwrap();
        for (name, target) in [
            ("absolute", "/etc/passwd"),
            ("up", "../../../../etc/passwd"),
        ] {
            symlink(target, path.join("etc").join(name)).unwrap();
            let file = open_in(&root, &Path::new("/etc").join(name)).unwrap();
            assert_eq!(read(&file, 100).unwrap(), b"inside", "{name}");
        }
        symlink("loop", path.join("loop")).unwrap();
        assert_eq!(
            open_in(&root, Path::new("/loop")).unwrap_err(),
            OpenError::Missing(Errno::LOOP)
        );
        symlink("/proc/self/root/etc/passwd", path.join("out")).unwrap();
        assert!(matches!(
            open_in(&root, Path::new("/out")),
            Err(OpenError::Missing(_))
        ));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn nothing_of_the_initramfs_is_beyond_a_mount() {
        let (path, root) = root();
        std::fs::write(path.join("etc/own"), "own").unwrap();
        symlink("/etc/own", path.join("link")).unwrap();
        let initramfs = Initramfs(root);
        for name in ["/etc/own", "/link"] {
            assert!(initramfs.file(Path::new(name)).is_ok(), "{name}");
        }
        assert_eq!(initramfs.names(Path::new("/etc")).unwrap(), ["own"]);
        assert_eq!(initramfs.names(Path::new("/none")).unwrap(), [""; 0]);
        std::fs::remove_dir_all(path).unwrap();
        // Here /proc is another file system.
        let system = Initramfs::open().unwrap();
        assert_eq!(
            system.file(Path::new("/proc/version")).unwrap_err(),
            OpenError::Failed(Errno::XDEV)
        );
        assert_eq!(system.names(Path::new("/proc")), Err(Errno::XDEV));
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
        let (path, root) = root();
        std::fs::write(path.join("etc/file"), "").unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let names = |name: &str| names_in(&root, Path::new(name));
        assert_eq!(names("/etc").unwrap(), ["file"]);
        assert_eq!(names("/none").unwrap(), [""; 0]);
        assert_eq!(names("/etc/file").unwrap(), [""; 0]);
        assert_eq!(names("/loop"), Err(Errno::LOOP));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn no_more_names_are_read_than_the_limit() {
        let (path, root) = root();
        for number in 0..MAX_NAMES + 10 {
            std::fs::write(path.join("etc").join(number.to_string()), "").unwrap();
        }
        let names = names_in(&root, Path::new("/etc"));
        assert_eq!(names.map(|names| names.len()), Ok(MAX_NAMES));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened_and_only_small_ones_read() {
        let (path, root) = root();
        assert!(matches!(
            open_in(&root, Path::new("/etc")),
            Err(OpenError::NotRegular(FileType::Directory))
        ));
        rustix::fs::mkfifoat(&root, "fifo", Mode::RUSR).unwrap();
        assert!(matches!(
            open_in(&root, Path::new("/fifo")),
            Err(OpenError::NotRegular(FileType::Fifo))
        ));
        std::fs::write(path.join("big"), [0; 101]).unwrap();
        let big = open_in(&root, Path::new("/big")).unwrap();
        assert_eq!(
            read(&big, 100).unwrap_err().kind(),
            std::io::ErrorKind::FileTooLarge
        );
        std::fs::remove_dir_all(path).unwrap();
    }

    /// Deeper than a process may have descriptors, with names that the directories moved up get, and a link that leads out.
    #[test]
    fn trees_of_any_depth_are_removed_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("ima-init-remove-{}", std::process::id()));
        let outside = base.join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("file"), "").unwrap();
        let mut deepest = super::directory(&base).unwrap();
        for depth in 0..3000 {
            let name = if depth == 0 { "tree" } else { "1" };
            fs::mkdirat(&deepest, name, Mode::RWXU).unwrap();
            deepest = directory_below(deepest.as_fd(), &CString::new(name).unwrap()).unwrap();
            fs::mkdirat(&deepest, "0", Mode::RWXU).unwrap();
            fs::mkdirat(&deepest, "0/7", Mode::RWXU).unwrap();
            fs::symlinkat(&outside, &deepest, "link").unwrap();
        }
        let parent = super::directory(&base).unwrap();
        remove_tree(&parent, "tree").unwrap();
        remove_tree(&parent, "tree").unwrap();
        assert!(!base.join("tree").exists());
        assert!(outside.join("file").exists());
        remove_tree(&parent, "outside").unwrap();
        std::fs::remove_dir(&base).unwrap();
    }
}
