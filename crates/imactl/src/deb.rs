//! Debian packages that carry signatures: a member `_ima` with a [`Manifest`], which dpkg passes over, and what puts these
//! signatures onto the files while dpkg unpacks them.
//!
//! In the manifest the files of the package stand under their paths, and its control scripts under `DEBIAN/`. Formats: deb(5),
//! where members whose names begin with an underscore are those that a program may pass over; ar(5).

pub mod archive;
pub mod unpack;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;

use crate::Result;
use crate::digest::DigestOf;
use crate::file::{Output, in_file, unreadable, unwritable};
use crate::manifest::Manifest;
use crate::select::Appraisal;
use crate::sign::ImaValue;
use crate::tree::{Content, Kind, Tree};

use archive::{Member, members};

/// dpkg's own program, not what goes before it on the path.
pub const DPKG_DEB: &str = "/usr/bin/dpkg-deb";
/// The member with the signatures.
const SIGNATURES: &str = "_ima";
/// The directory of the control scripts in manifests, named as `dpkg-deb --build` wants it.
pub const CONTROL: &[u8] = b"DEBIAN/";
/// The most bytes of signatures that are read: a kernel with ten thousand modules has 15 MiB with RSA-4096.
const MAX_SIGNATURES: u64 = 256 << 20;

/// A package's file.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    file: File,
    members: Vec<Member>,
}

impl Package {
    /// Opens a package.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::PackageMalformed`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let members = members(&file).map_err(|fault| in_file(fault, path))?;
        let first = members.first().map(|member| member.name.as_str());
        if first != Some("debian-binary") {
            return Err(Fault::new(
                Code::PackageMalformed,
                format!("{}: the first member is not debian-binary", path.display()),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            members,
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The signatures it carries; none if it carries none.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::ManifestMalformed`], [`Code::PackageMalformed`].
    pub fn signatures(&self) -> Result<Option<Manifest>> {
        let Some(member) = self.members.iter().find(|member| member.name == SIGNATURES) else {
            return Ok(None);
        };
        if member.len > MAX_SIGNATURES {
            return Err(Fault::new(
                Code::PackageMalformed,
                format!(
                    "{}: {} bytes of signatures",
                    self.path.display(),
                    member.len
                ),
            ));
        }
        let mut bytes = Vec::new();
        member
            .content(&self.file)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&self.path, &error))?;
        Manifest::parse(&bytes)
            .map(Some)
            .map_err(|fault| in_file(fault, &self.path))
    }

    /// The digests of its files and control scripts, or of those that `appraisal` has appraised.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::OutputUnwritable`] if there is no room for its content in the temporary directory,
    /// [`Code::SigningFailed`], [`Code::SourceMalformed`], [`Code::PackageMalformed`], [`Code::PackageTool`].
    pub fn digests(&self, appraisal: Option<&Appraisal>, algo: HashAlgorithm) -> Result<Manifest> {
        let mut tree = self.unpack("--fsys-tarfile")?;
        if tree.get(b"DEBIAN").is_some() {
            return Err(Fault::new(
                Code::PackageMalformed,
                format!("{}: it has a file /DEBIAN", self.path.display()),
            ));
        }
        let control = self.unpack("--ctrl-tarfile")?;
        for (name, index) in control.names() {
            let inode = control.inode(index);
            if matches!(inode.kind, Kind::File(_)) {
                tree.insert(&[CONTROL, name].concat(), inode.clone())?;
            }
        }
        Manifest::of_tree(&tree, appraisal, DigestOf::Content, algo, &|| ())
    }

    /// Whether these signatures, by one of the certificates' keys, are over all files of `digests`.
    ///
    /// # Errors
    ///
    /// [`Code::VerificationFailed`] with the first that has none, or another's; [`Code::FileChanged`] for one over another
    /// content.
    pub fn covered(
        digests: &Manifest,
        signatures: &Manifest,
        certificates: &[Certificate],
    ) -> Result<()> {
        signatures.check(certificates)?;
        for file in &digests.files {
            let shown = || String::from_utf8_lossy(&file.path).into_owned();
            let found = signatures
                .files
                .binary_search_by(|signed| signed.path.cmp(&file.path))
                .ok()
                .and_then(|at| signatures.files.get(at))
                .ok_or_else(|| {
                    Fault::new(Code::VerificationFailed, shown())
                        .because(Cause::PACKAGE_LACKS_SIGNATURE)
                })?;
            if signatures.algo == digests.algo && found.digest != file.digest {
                return Err(Fault::new(Code::FileChanged, shown())
                    .because(Cause::PACKAGE_SIGNATURE_OUTDATED));
            }
        }
        Ok(())
    }

    /// Signs what [`Package::digests`] finds.
    ///
    /// # Errors
    ///
    /// Those of [`Package::digests`] and [`Manifest::sign`].
    pub fn sign(&self, appraisal: Option<&Appraisal>, mark: &ImaValue) -> Result<Manifest> {
        let mut manifest = self.digests(appraisal, mark.algo())?;
        manifest.sign(mark, &|| ())?;
        Ok(manifest)
    }

    /// Writes the package with these signatures in the place of any it had, byte for byte the same otherwise.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::OutputUnwritable`].
    pub fn write(&self, signatures: &Manifest, out: &Path) -> Result<()> {
        let mut output = Output::create(out)?;
        let full = |error: std::io::Error| unwritable(out, &error);
        let target = output.file();
        target.write_all(archive::MAGIC).map_err(full)?;
        for member in self.members.iter().filter(|it| it.name != SIGNATURES) {
            target.write_all(&member.header).map_err(full)?;
            let copied = std::io::copy(&mut member.content(&self.file), target).map_err(full)?;
            if copied != member.len {
                return Err(Fault::new(
                    Code::InputUnreadable,
                    format!("{}: it became shorter meanwhile", self.path.display()),
                ));
            }
            target.write_all(archive::padding(copied)).map_err(full)?;
        }
        let bytes = signatures.encode()?;
        let len = bytes.len() as u64;
        target
            .write_all(&archive::header(SIGNATURES, len))
            .and_then(|()| target.write_all(&bytes))
            .and_then(|()| target.write_all(archive::padding(len)))
            .map_err(full)?;
        output.finish(0o644, true)
    }

    /// The SHA-256 of the file, by which signatures that were made for it on this system are found.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`] if it changes meanwhile.
    pub fn digest(&self) -> Result<String> {
        let meta = self
            .file
            .metadata()
            .map_err(|error| unreadable(&self.path, &error))?;
        let content = Content::Host {
            path: self.path.clone(),
            len: meta.len(),
        };
        let digest = content.digest(DigestOf::Content, HashAlgorithm::Sha256)?;
        Ok(crate::hex::encode(&digest))
    }

    /// One of the two archives in the package, as dpkg-deb unpacks it.
    fn unpack(&self, which: &str) -> Result<Tree> {
        let mut command = Command::new(DPKG_DEB);
        command.arg(which).arg(&self.path).stdin(Stdio::null());
        packed_tree(&mut command, &format!("dpkg-deb {which}"), &self.path)
    }
}

/// The tree of the tar archive that a command, `shown` in messages, prints of a package.
pub(crate) fn packed_tree(command: &mut Command, shown: &str, package: &Path) -> Result<Tree> {
    let failed = |why: String| {
        let detail = format!("{shown} {}: {why}", package.display());
        Fault::new(Code::PackageTool, detail)
    };
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stream = child
        .stdout
        .take()
        .ok_or_else(|| failed("no output".to_owned()))?;
    let tree = Tree::from_tar(&mut stream);
    // What follows the archive's end is padding; the program must get rid of it to end well.
    let drained = std::io::copy(&mut stream, &mut std::io::sink());
    drop(stream);
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    drained.map_err(|error| failed(error.to_string()))?;
    tree.map_err(|fault| in_file(fault, package))
}
