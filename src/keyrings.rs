//! Certificate files, and the keyrings of the running kernel that they are offered to.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::config::Config;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::hex;
use ima::keyring::KeyringName;
use ima::layout::{self, Purpose};
use ima::offer::{self, CertificateFile, MAX_FILE, MAX_FILES, Offering, Source};
use ima_keyring::{Kernel, Keyring, Refused};
use log::{info, warn};
use rustix::time::{ClockId, clock_gettime};

use crate::errno::describe;
use crate::features::{self, Feature};
use crate::files::{self, Initramfs};
use crate::report::{KeyRecord, Report};

/// Where certificate files are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In the initramfs.
    Initramfs(&'a Initramfs),
    /// In the mounted root.
    Root {
        /// The root's directory.
        directory: BorrowedFd<'a>,
        /// Where it is mounted, for messages.
        path: &'a Path,
    },
}

impl Place<'_> {
    const fn source(self) -> Source {
        match self {
            Self::Initramfs(_) => Source::Initramfs,
            Self::Root { .. } => Source::Root,
        }
    }

    /// The path of a file there as messages show it: in the root, behind where it is mounted.
    pub fn shown(self, path: &Path) -> String {
        match self {
            Self::Initramfs(_) => path.display().to_string(),
            Self::Root { path: root, .. } => format!("{}{}", root.display(), path.display()),
        }
    }

    /// Reads a certificate file.
    pub fn read(self, path: &Path) -> CertificateFile {
        let opened = match self {
            Self::Initramfs(initramfs) => initramfs.file(path),
            Self::Root { directory, .. } => files::open_in(directory, path),
        };
        let content = opened
            .map_err(|error| error.to_string())
            .and_then(|file| files::read(&file, MAX_FILE).map_err(|error| error.to_string()));
        CertificateFile {
            path: self.shown(path),
            source: self.source(),
            content,
        }
    }

    fn names(self, path: &Path) -> Result<Vec<OsString>, Fault> {
        let (names, code, cause) = match self {
            Self::Initramfs(initramfs) => (
                initramfs.names(path),
                Code::CertificateInvalid,
                Cause::CERTIFICATES_UNREADABLE,
            ),
            Self::Root { directory, .. } => (
                files::names_in(directory, path),
                Code::RootCertificate,
                Cause::ROOT_CERTIFICATES_UNREADABLE,
            ),
        };
        names.map_err(|errno| {
            let detail = format!("{}: {}", self.shown(path), describe(errno));
            Fault::new(code, detail).because(cause)
        })
    }

    /// The certificate files of `etc/keys` for that purpose, sorted; in the initramfs those of the purpose's own directory too.
    ///
    /// # Errors
    ///
    /// A directory cannot be read: [`Code::CertificateInvalid`], in the root [`Code::RootCertificate`].
    pub fn find(self, purpose: Purpose) -> Result<Vec<PathBuf>, Fault> {
        let keys = Path::new(layout::KEYS);
        let mut names = self.names(keys)?;
        names.retain(|name| purpose.has(name.as_bytes()));
        let mut paths: Vec<PathBuf> = names.iter().map(|name| keys.join(name)).collect();
        if let (Some(directory), Self::Initramfs(_)) = (purpose.directory(), self) {
            let directory = keys.join(directory);
            let names = self.names(&directory)?;
            paths.extend(names.iter().map(|name| directory.join(name)));
        }
        if let Some(more) = paths.len().checked_sub(MAX_FILES).filter(|more| *more > 0) {
            warn!(
                "keys: {more} more files {}/{}* are not read: the limit is {MAX_FILES}",
                keys.display(),
                purpose.prefix()
            );
        }
        paths.truncate(MAX_FILES);
        Ok(paths)
    }
}

/// Offers certificates to a keyring of the running kernel; what comes of each is in the report.
pub fn offer<'a>(
    keyring: Keyring,
    name: KeyringName,
    config: &'a Config,
    report: &'a mut Report,
) -> Offering<'a, KernelKeyring<'a>> {
    let keyring = KernelKeyring {
        keyring,
        name,
        report,
    };
    Offering::new(keyring, &config.revoked, now())
}

/// This machine's clock, in seconds since 1970.
///
/// Not by `SystemTime`: of a 32-bit processor with musl that has a clock of 32 bits, and panics from 2038 on.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    u64::try_from(time.tv_sec).unwrap_or_default()
}

/// A keyring of the running kernel.
#[derive(Debug)]
pub struct KernelKeyring<'a> {
    keyring: Keyring,
    name: KeyringName,
    report: &'a mut Report,
}

impl offer::Keyring for KernelKeyring<'_> {
    fn add(&mut self, path: &str, certificate: &Certificate) -> Result<(), Fault> {
        ima_keyring::add_certificate(certificate.der(), self.keyring)
            .map(drop)
            .map_err(|errno| {
                let refused = Refused {
                    path,
                    certificate,
                    keyring: self.name.as_str(),
                    errno,
                };
                match features::is_built_in(Feature::Diagnosis) {
                    true => refused.explained(&Kernel::look()),
                    false => refused.fault(),
                }
            })
    }

    fn add_unparsed(&mut self, bytes: &[u8]) -> bool {
        ima_keyring::add_certificate(bytes, self.keyring).is_ok()
    }

    fn record(
        &mut self,
        file: &CertificateFile,
        certificate: Option<&Certificate>,
        refusal: Option<&Fault>,
    ) {
        let (name, path) = (self.name.as_str(), &file.path);
        let subject = certificate.map(Certificate::subject);
        let key_id = certificate.map(Certificate::key_id);
        let algorithm = certificate.map(|certificate| certificate.key().to_string());
        if refusal.is_none() {
            let what = match (&subject, &key_id, &algorithm) {
                (Some(subject), Some(id), Some(key)) => format!("{subject}, key id {id}, {key}"),
                _ => "a certificate that the init cannot parse".to_owned(),
            };
            info!("keys: {name}: {what} ({path})");
        }
        let content = file.content.as_deref().unwrap_or_default();
        let digest = HashAlgorithm::Sha256.digest(certificate.map_or(content, Certificate::der));
        self.report.keys.push(KeyRecord {
            keyring: self.name,
            path: path.to_owned(),
            sha256: hex::encode(&digest.unwrap_or_default()),
            subject,
            key_id,
            algorithm,
            not_after: certificate.map(Certificate::not_after),
            source: file.source,
            refused: refusal.map(Fault::code),
        });
    }

    fn warn(&mut self, warning: Fault) {
        self.report.warn(warning);
    }

    fn is_for_files(&self) -> bool {
        self.name != KeyringName::DmVerity
    }
}
