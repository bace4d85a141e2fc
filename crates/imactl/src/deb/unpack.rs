//! Signatures onto the files of a package while dpkg unpacks it.
//!
//! dpkg runs `dpkg-deb --control` for the control scripts, and executes them from where they lie then; and reads the files from
//! `dpkg-deb --fsys-tarfile` (src/main/unpack.c), each into `NAME.dpkg-new`. Only when that program has ended it renames them
//! (`tar_deferred_extract` in src/main/archives.c). So a program in dpkg-deb's place that ends after both are signed leaves no
//! moment at which a file without its signature is under its name, be it the C library.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use ima::fault::{Cause, Code, Fault};
use rustix::fs::{Mode, OFlags};

use super::{CONTROL, DPKG_DEB, Package};
use crate::Result;
use crate::file::{read_bounded, unreadable};
use crate::manifest::{File, Manifest};

/// Signatures that were made on this system, for packages that carry none: `SHA256.manifest`, by the digest of the package.
pub const PREPARED: &str = "/run/ima-init/packages";
/// What knows where dpkg puts a file that is diverted.
const DPKG_DIVERT: &str = "/usr/bin/dpkg-divert";

/// The name in [`PREPARED`] of a package's signatures that were made on this system.
///
/// # Errors
///
/// [`Code::InputUnreadable`].
pub fn prepared_name(package: &Package) -> Result<String> {
    Ok(format!("{}.manifest", package.digest()?))
}

/// The signatures for a package: those made on this system, otherwise those that it carries.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::ManifestMalformed`], [`Code::PackageMalformed`].
pub fn signatures(package: &Package) -> Result<Option<Manifest>> {
    let directory = Path::new(PREPARED);
    if directory.exists() {
        let path = directory.join(prepared_name(package)?);
        if path.exists() {
            return Manifest::load(&path).map(Some);
        }
    }
    package.signatures()
}

/// Whether this program was started by a dpkg that works on this very system, and not on one in a directory.
#[must_use]
pub fn is_for_dpkg() -> bool {
    let Some(parent) = rustix::process::getppid() else {
        return false;
    };
    let about = |name: &str| {
        let path = format!("/proc/{}/{name}", parent.as_raw_nonzero());
        read_bounded(Path::new(&path), 1 << 20).unwrap_or_default()
    };
    let elsewhere = |word: &[u8]| {
        [&b"--root"[..], b"--instdir", b"--admindir"]
            .iter()
            .any(|option| word.starts_with(option))
    };
    about("comm") == b"dpkg\n"
        && !about("cmdline").split(|&byte| byte == 0).any(elsewhere)
        && std::env::var_os("DPKG_ROOT").is_none_or(|root| root.is_empty())
}

/// Runs dpkg-deb as it was asked for.
///
/// # Errors
///
/// [`Code::PackageTool`] if it cannot be run; its exit status is returned otherwise.
pub fn run(arguments: &[OsString]) -> Result<ExitStatus> {
    Command::new(DPKG_DEB)
        .args(arguments)
        .status()
        .map_err(|error| Fault::new(Code::PackageTool, error.to_string()))
}

/// Signs the control scripts that lie in `directory`.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::XattrUnwritable`], [`Code::FileChanged`] for one that is not what was signed.
pub fn control(directory: &Path, signatures: &Manifest) -> Result<()> {
    for file in &signatures.files {
        if let Some(name) = file.path.strip_prefix(CONTROL) {
            put(signatures, file, &directory.join(OsStr::from_bytes(name)))?;
        }
    }
    Ok(())
}

/// Runs `dpkg-deb --fsys-tarfile` with its output to `pipe`, which dpkg reads, and signs the files below `root` when dpkg has
/// unpacked them and not yet given them their names.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::OutputUnwritable`] if dpkg does not read on, [`Code::XattrUnwritable`],
/// [`Code::FileChanged`] for a file that is not what was signed, [`Code::PackageTool`].
pub fn files(
    arguments: &[OsString],
    pipe: &std::io::Stdout,
    root: &Path,
    signatures: &Manifest,
) -> Result<ExitStatus> {
    let failed = |error: std::io::Error| Fault::new(Code::PackageTool, error.to_string());
    let unread = |error: std::io::Error| {
        Fault::new(Code::OutputUnwritable, format!("dpkg: {error}")).because(Cause::DPKG_STOPPED)
    };
    let mut child = Command::new(DPKG_DEB)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut output = pipe.lock();
    if let Some(mut stream) = child.stdout.take() {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = stream.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            output
                .write_all(buffer.get(..count).unwrap_or_default())
                .map_err(unread)?;
        }
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Ok(status);
    }
    // dpkg reads the archive's end only when every file before it is written, and then all that follows. When more zeros are
    // written than the pipe holds, the end has been read.
    let capacity =
        rustix::pipe::fcntl_getpipe_size(pipe.as_fd()).map_err(|errno| unread(errno.into()))?;
    let zeros = vec![0; capacity.saturating_add(1 << 16)];
    output
        .write_all(&zeros)
        .and_then(|()| output.flush())
        .map_err(unread)?;
    sign_unpacked(root, signatures)?;
    Ok(status)
}

fn sign_unpacked(root: &Path, signatures: &Manifest) -> Result<()> {
    let new = |path: &[u8]| {
        let name = [path, b".dpkg-new"].concat();
        root.join(OsString::from_vec(name))
    };
    for file in &signatures.files {
        if file.path.starts_with(CONTROL) {
            continue;
        }
        let mut place = new(&file.path);
        if place.symlink_metadata().is_err() {
            place = new(&diverted(&file.path)?);
        }
        // Files are left out by dpkg's path-exclude, and where another package has taken them over.
        if place.symlink_metadata().is_ok() {
            put(signatures, file, &place)?;
        }
    }
    Ok(())
}

/// Where dpkg puts this path of the system, which may be elsewhere; both below the root, without the slash before them.
fn diverted(path: &[u8]) -> Result<Vec<u8>> {
    let failed = |why: String| Fault::new(Code::PackageTool, format!("dpkg-divert: {why}"));
    let output = Command::new(DPKG_DIVERT)
        .arg("--truename")
        .arg(Path::new("/").join(OsStr::from_bytes(path)))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let name = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    Ok(name.strip_prefix(b"/").unwrap_or(name).to_vec())
}

/// Puts a file's signature onto it if it is what was signed.
fn put(signatures: &Manifest, file: &File, place: &Path) -> Result<()> {
    let open = rustix::fs::open(
        place,
        // A pipe must not be waited for.
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|errno| unreadable(place, &errno.into()))?;
    signatures.apply_to_file(file, &open.into(), place)
}
