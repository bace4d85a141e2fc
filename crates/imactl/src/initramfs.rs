//! Initramfs images: a reproducible newc archive with what the init needs, checked as the init would check it.

mod directory;
mod place;
mod scripts;
pub mod signatures;
mod uboot;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;

use ima::certificate::Certificate;
use ima::config::{self, Config};
use ima::cpio::{self, Metadata, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG};
use ima::elf::{Elf, Extent, HEADER_LENGTH};
use ima::evm_key::Blob;
use ima::fault::{Cause, Code, Fault};
use ima::feature::Feature;
use ima::layout::{self, Purpose};
use ima::offer::{CertificateFile, MAX_FILES, Source};
use ima::policy::Policy;
use ima::settings::EvmFiles;
use ima::signature::ImaXattr;
use ima::signatures::Signatures;
use ima::verify::VerifyError;

use crate::Result;
use crate::kernel;
use crate::nearest;
use crate::packed::Packing;
use crate::tree::{Content, Inode, Kind, Timestamp, Tree};
use crate::verifier::verify_any;
pub use place::Place;

/// The most that an initramfs may unpack to when it is read back, in bytes.
const MAX_UNPACKED: u64 = 1 << 30;

/// The program that the kernel runs to load a module, unless it was built with another (CONFIG_MODPROBE_PATH).
const MODPROBE: &str = "sbin/modprobe";

/// How many links are followed to the init.
const MAX_LINKS: usize = 8;

/// How an image is compressed. All are reproducible; the kernel must have the matching `CONFIG_RD_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip: every kernel can read it.
    #[default]
    Gzip,
    /// zstd, level 19.
    Zstd,
    /// Not at all.
    None,
}

/// The names of each file of an archive, by its inode number.
type Links = HashMap<u32, Vec<Vec<u8>>>;

/// A file of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    metadata: Metadata,
    data: Vec<u8>,
}

/// An initramfs in the making. Paths are relative to its root, with or without a leading slash; a later entry of the same
/// path replaces an earlier one; directories above an entry are made as needed.
#[derive(Debug, Clone)]
pub struct InitramfsBuilder {
    entries: BTreeMap<Vec<u8>, Entry>,
    modules: Vec<String>,
    compression: Compression,
    /// How it was compressed, if it was read back.
    packings: BTreeSet<Packing>,
    mtime: u32,
    unchecked: bool,
    /// The directory that it is to be packed from, if only a part of that was taken in.
    directory: Option<Tree>,
}

impl Default for InitramfsBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl InitramfsBuilder {
    /// An initramfs with the mount points and the console the init needs, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Self {
            entries: BTreeMap::new(),
            modules: Vec::new(),
            compression: Compression::default(),
            packings: BTreeSet::new(),
            mtime: 0,
            unchecked: false,
            directory: None,
        };
        for directory in ["dev", "proc", "sys", "run", "rootfs", "etc/ima", "etc/keys"] {
            builder = builder.directory(directory, 0o755);
        }
        // The kernel opens it as the init's standard input and output before the init can mount anything
        // (console_on_rootfs in init/main.c).
        builder.character_device("dev/console", 0o600, 5, 1)
    }

    /// Adds the init.
    #[must_use]
    pub fn init(self, program: impl Into<Vec<u8>>) -> Self {
        self.file("init", 0o755, program)
    }

    /// Adds a certificate for `.ima` under `/etc/keys/NAME`; the init takes names of the form `x509_ima*.der` and
    /// `x509_ima*.pem`.
    #[must_use]
    pub fn certificate(self, name: &str, certificate: impl Into<Vec<u8>>) -> Self {
        self.file(format!("{}/{name}", layout::KEYS), 0o644, certificate)
    }

    /// Adds the custom policy.
    #[must_use]
    pub fn policy(self, policy: impl Into<Vec<u8>>) -> Self {
        self.file(layout::POLICY, 0o644, policy)
    }

    /// Adds the default policy.
    #[must_use]
    pub fn default_policy(self, policy: impl Into<Vec<u8>>) -> Self {
        self.file(layout::DEFAULT_POLICY, 0o644, policy)
    }

    /// Adds the configuration.
    #[must_use]
    pub fn config(self, config: impl Into<Vec<u8>>) -> Self {
        self.file(config::PATH, 0o644, config)
    }

    /// Adds an uncompressed kernel module as `/lib/modules/NAME` and to the configuration's `modules=`. Modules are loaded in
    /// the order in which they are added; [`crate::modules`] finds it.
    #[must_use]
    pub fn module(mut self, name: &str, module: impl Into<Vec<u8>>) -> Self {
        let path = format!("lib/modules/{name}");
        self.modules.push(format!("/{path}"));
        self.file(path, 0o644, module)
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        self.entry(
            path.as_ref(),
            Metadata {
                mode: S_IFREG | mode,
                ..Metadata::default()
            },
            data.into(),
        )
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(
            path.as_ref(),
            Metadata {
                mode: S_IFDIR | mode,
                ..Metadata::default()
            },
            Vec::new(),
        )
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl Into<Vec<u8>>) -> Self {
        self.entry(
            path.as_ref(),
            Metadata {
                mode: S_IFLNK | 0o777,
                ..Metadata::default()
            },
            target.into(),
        )
    }

    /// Adds a character device.
    #[must_use]
    pub fn character_device(
        self,
        path: impl AsRef<[u8]>,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Self {
        let metadata = Metadata {
            mode: S_IFCHR | mode,
            rdev_major: major,
            rdev_minor: minor,
            ..Metadata::default()
        };
        self.entry(path.as_ref(), metadata, Vec::new())
    }

    /// Takes an entry away, and everything below it.
    #[must_use]
    pub fn without(mut self, path: impl AsRef<[u8]>) -> Self {
        let path = relative(path.as_ref());
        self.entries.retain(|name, _| {
            name != path
                && !name
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with(b"/"))
        });
        self
    }

    /// Sets the compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the modification time of every entry, seconds since 1970; 0 otherwise.
    #[must_use]
    pub fn mtime(mut self, seconds: u32) -> Self {
        self.mtime = seconds;
        self
    }

    /// Builds even what the init would refuse. For tests.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }

    /// The archive, compressed. The same entries give the same bytes.
    ///
    /// # Errors
    ///
    /// The fault the init would end with; [`Code::InitramfsRefused`] for an init that cannot run, [`Code::ImageContent`] for
    /// a name the format has no place for, [`Code::OutputUnwritable`] if the compressor fails.
    pub fn build(mut self) -> Result<Vec<u8>> {
        self.list_modules();
        if !self.unchecked {
            self.check()?;
        }
        let mut writer = cpio::Writer::new();
        for (name, entry) in &self.with_parents() {
            let metadata = Metadata {
                mtime: self.mtime,
                ..entry.metadata
            };
            writer
                .entry(name, &metadata, &entry.data)
                .map_err(|error| Fault::new(Code::ImageContent, error.to_string()))?;
        }
        compress(&writer.finish(), self.compression)
    }

    /// What the init would refuse in this initramfs, in the init's words and with its codes.
    ///
    /// # Errors
    ///
    /// The first such fault.
    pub fn check(&self) -> Result<()> {
        self.check_init()?;
        self.check_place()?;
        let config = self.configuration()?;
        if let Some(fault) = self.missing_modules(&config).into_iter().next() {
            return Err(fault);
        }
        self.check_certificates()?;
        self.chosen_policy()?;
        self.check_policy_signature().map(drop)
    }

    /// Whether a signature is packed beside the policy, for kernels that take only a signed one; if there is one it must be a
    /// good one by a key whose certificate is in the initramfs.
    ///
    /// # Errors
    ///
    /// [`Code::PolicySignature`] for one that the kernel would refuse, and what is wrong with the policy itself.
    pub fn check_policy_signature(&self) -> Result<bool> {
        let text = |path| self.data(path).map(<[u8]>::to_vec);
        let (path, text, _) = layout::policy(text(layout::POLICY), text(layout::DEFAULT_POLICY))?;
        let signature_path = format!("{path}{}", layout::SIGNATURE);
        let Some(value) = self.data(&signature_path).filter(|value| !value.is_empty()) else {
            return Ok(false);
        };
        let refused =
            |why: String| Fault::new(Code::PolicySignature, format!("{signature_path}: {why}"));
        let value = match ImaXattr::parse(value) {
            Ok(value @ (ImaXattr::Signature(_) | ImaXattr::SignatureV3(_))) => value,
            Ok(_) => return Err(refused("it is not a signature of a file".to_owned())),
            Err(error) => return Err(refused(format!("it is malformed: {error}"))),
        };
        let Some(signature) = value.signature() else {
            return Ok(false);
        };
        let digest = signature
            .algo
            .digest(&text)
            .ok_or_else(|| refused(format!("it is over a {} digest", signature.algo)))?;
        let mut problem = format!(
            "it is by key {}, whose certificate is not in the initramfs",
            signature.key_id
        );
        for (_, parsed) in self.certificates(Purpose::Ima) {
            for certificate in parsed.unwrap_or_default() {
                match verify_any(&certificate, &digest, &value) {
                    Ok(()) => return Ok(true),
                    Err(VerifyError::OtherKey { .. }) => {}
                    Err(error) => problem = error.to_string(),
                }
            }
        }
        Err(refused(problem))
    }

    /// Whose initramfs the init is in, by the files that the hook of initramfs-tools or the module of dracut has left.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of(|path| self.entries.contains_key(relative(path.as_bytes())))
    }

    /// Refuses an initramfs of an older hook or module, in which nothing is in force when the init is started.
    ///
    /// # Errors
    ///
    /// [`Code::PolicyNotLoaded`].
    pub fn check_place(&self) -> Result<()> {
        let older = place::MADE_BY_HOOKS
            .into_iter()
            .find(|path| self.entries.contains_key(path.as_bytes()));
        match older.filter(|_| self.place() == Place::Alone) {
            Some(path) => Err(Fault::new(
                Code::PolicyNotLoaded,
                format!("/{path} is there, and {} is not", layout::FRONTED_INIT),
            )),
            None => Ok(()),
        }
    }

    /// Whether the init moves it into a tmpfs, where its files have signatures.
    pub(crate) fn is_moved(&self) -> bool {
        self.place() != Place::Alone || self.data(layout::SIGNATURES).is_some()
    }

    /// Whether `/init` is a program that the kernel can start.
    ///
    /// # Errors
    ///
    /// [`Code::InitramfsRefused`].
    pub fn check_init(&self) -> Result<()> {
        let refused = |detail: &str| Fault::new(Code::InitramfsRefused, detail);
        let name = "init";
        let init = self
            .init_entry()
            .ok_or_else(|| refused(&format!("it has no /{name}")))?;
        if init.metadata.mode & cpio::S_IFMT != S_IFREG || init.metadata.mode & 0o111 == 0 {
            return Err(refused(&format!("/{name} is not an executable file")));
        }
        let header = init.data.get(..HEADER_LENGTH).unwrap_or(&init.data);
        if let Some(elf) = Elf::parse(header) {
            let malformed = || refused(&format!("/{name} is a malformed or truncated ELF program"));
            let headers = part(&init.data, elf.program_headers()).ok_or_else(malformed)?;
            let interpreter = elf.interpreter(headers).map_err(|_| malformed())?;
            if let Some(at) = interpreter {
                let path = part(&init.data, at).ok_or_else(malformed)?;
                let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
                if self.data(path).is_none() {
                    return Err(refused(&format!("/{name} is not static")).because(
                        Cause::INTERPRETER_NOT_PACKED.with(&[&String::from_utf8_lossy(path)]),
                    ));
                }
            }
        } else if self.place() != Place::Alone || !init.data.starts_with(b"#!") {
            return Err(refused(&format!("/{name} is not an ELF program")));
        }
        Ok(())
    }

    /// The machine that the init is made for; nothing if it is not an ELF program.
    #[must_use]
    pub fn machine(&self) -> Option<ima::elf::Machine> {
        Elf::parse(&self.init_entry()?.data).map(|elf| elf.machine())
    }

    /// The architecture of the init, named as Rust names it; that of another program in the initramfs if the init is a script.
    #[must_use]
    pub fn architecture(&self) -> Option<&'static str> {
        self.init_entry()
            .into_iter()
            .chain(self.entries.values())
            .find_map(|entry| Elf::parse(&entry.data)?.architecture())
    }

    /// Whether the init was built without a feature.
    pub(crate) fn init_lacks(&self, feature: Feature) -> bool {
        self.init_entry()
            .is_some_and(|init| feature.is_missing_in(&init.data))
    }

    /// The init, which may be a link to its program.
    fn init_entry(&self) -> Option<&Entry> {
        let mut path = b"init".to_vec();
        for _ in 0..MAX_LINKS {
            let entry = self.entries.get(&path)?;
            if entry.metadata.mode & cpio::S_IFMT != S_IFLNK {
                return Some(entry);
            }
            path = match (
                entry.data.first(),
                path.iter().rposition(|&byte| byte == b'/'),
            ) {
                (Some(b'/'), _) | (_, None) => relative(&entry.data).to_vec(),
                (_, Some(end)) => [path.get(..=end)?, &entry.data].concat(),
            };
        }
        None
    }

    /// Every certificate must be one that the kernel could take, which is more than the init asks for: it goes on if one
    /// is taken.
    fn check_certificates(&self) -> Result<()> {
        let ima = self.certificates(Purpose::Ima);
        if ima.is_empty() {
            return Err(Fault::new(
                Code::NoCertificate,
                format!("nothing like {}/x509_ima.der", layout::KEYS),
            ));
        }
        let revoked = self.configuration()?.revoked;
        for (path, parsed) in ima.into_iter().chain(self.certificates(Purpose::Evm)) {
            for certificate in parsed? {
                let fault = leaf_fault(&path, &certificate);
                if let Some(fault) = fault.or_else(|| revoked.refusal(&path, &certificate)) {
                    return Err(fault);
                }
            }
        }
        // The kernel takes these without a condition.
        for (path, parsed) in self.certificates(Purpose::Verity) {
            for certificate in parsed? {
                if let Some(fault) = revoked.refusal(&path, &certificate) {
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// The configuration, or that of an empty file if there is none.
    ///
    /// # Errors
    ///
    /// [`Code::ConfigInvalid`].
    pub fn configuration(&self) -> Result<Config> {
        let text = self.data(config::PATH).unwrap_or_default();
        Config::parse(text).map_err(|error| {
            let error = nearest::with(&error, nearest::in_configuration(&error));
            Fault::new(Code::ConfigInvalid, format!("{}: {error}", config::PATH))
        })
    }

    /// The policy that the init will load.
    ///
    /// # Errors
    ///
    /// [`Code::PolicyMissing`], [`Code::PolicyEmpty`], [`Code::PolicyInvalid`].
    pub fn chosen_policy(&self) -> Result<Policy> {
        let text = |path| self.data(path).map(<[u8]>::to_vec);
        layout::policy(text(layout::POLICY), text(layout::DEFAULT_POLICY))
            .map(|(.., policy)| policy)
    }

    /// The path of that policy.
    pub(crate) fn policy_path(&self) -> &'static str {
        match self.data(layout::POLICY) {
            Some(_) => layout::POLICY,
            None => layout::DEFAULT_POLICY,
        }
    }

    /// EVM's HMAC key that the init will load, if it has one; which file that is, the command line may say.
    ///
    /// # Errors
    ///
    /// [`Code::EvmKeyRefused`] for one that is none, or that is named and missing.
    pub fn evm_key(&self, named: &EvmFiles) -> Result<Option<Blob>> {
        let path = named.key.as_deref().unwrap_or(layout::EVM_KEY);
        let refused = |why: &str| Fault::new(Code::EvmKeyRefused, format!("{path}: {why}"));
        match self.data(path) {
            None if named.key.is_none() => Ok(None),
            None => Err(refused("not in the initramfs")),
            Some(bytes) => Blob::parse(bytes)
                .map(Some)
                .map_err(|error| refused(&error.to_string())),
        }
    }

    /// Modules that the configuration lists and the initramfs does not have.
    #[must_use]
    pub fn missing_modules(&self, config: &Config) -> Vec<Fault> {
        let missing = config
            .modules
            .iter()
            .filter(|module| self.data(module).is_none());
        missing
            .map(|module| {
                Fault::new(
                    Code::ModuleUnreadable,
                    format!("{module}: not in the initramfs"),
                )
            })
            .collect()
    }

    /// The modules that the configuration lists, in order, as they lie in the initramfs; those that are not there are left out.
    pub(crate) fn modules<'a>(
        &'a self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let paths = config.modules.iter();
        paths.filter_map(|path| Some((path.as_str(), self.data(path)?)))
    }

    /// The names of the modules that are loaded before the root is mounted: those that the configuration lists, with those that a
    /// signed modprobe can load for the kernel; or where another program loads them, all that are in the initramfs. Nothing if
    /// that is not known.
    #[must_use]
    pub fn module_names(&self, config: &Config) -> Option<BTreeSet<String>> {
        let name_of = |path: &str| {
            let file_name = path.rsplit('/').next().unwrap_or(path);
            crate::modules::name_of(file_name)
        };
        if self.place() == Place::Alone {
            let listed = config.modules.iter().map(|path| name_of(path));
            return Some(listed.chain(self.loaded_on_demand()).collect());
        }
        let names: BTreeSet<String> = self
            .entries
            .keys()
            .map(|path| String::from_utf8_lossy(path))
            .filter(|path| path.contains("lib/modules/") && path.contains(".ko"))
            .map(|path| name_of(&path))
            .collect();
        // A directory that is to become an initramfs is not read whole.
        (!names.is_empty()).then_some(names)
    }

    /// The modules that the kernel can have loaded by the program that it runs for that (kernel/module/kmod.c,
    /// `call_modprobe`), once the policy is in force: those with a signature, if the program has one.
    fn loaded_on_demand(&self) -> impl Iterator<Item = String> {
        let list = self.data(layout::SIGNATURES);
        let list = list.and_then(|text| Signatures::parse(text).ok());
        let list = list.filter(|list| list.get(MODPROBE.as_bytes()).is_some());
        let paths: Vec<Vec<u8>> = list
            .iter()
            .flat_map(Signatures::files)
            .map(|(path, _)| path.to_vec())
            .filter(|path| path.starts_with(b"lib/modules/"))
            .collect();
        paths.into_iter().map(|path| {
            let path = String::from_utf8_lossy(&path);
            crate::modules::name_of(path.rsplit('/').next().unwrap_or(&path))
        })
    }

    /// The certificate files that the init offers to the keyring of that purpose, in its order.
    #[must_use]
    pub fn certificate_files(&self, purpose: Purpose) -> Vec<CertificateFile> {
        let keys = relative(layout::KEYS.as_bytes());
        let of = |path: &[u8]| {
            let name = path.strip_prefix(keys)?.strip_prefix(b"/")?;
            let inner = purpose
                .directory()
                .and_then(|directory| name.strip_prefix(directory.as_bytes())?.strip_prefix(b"/"));
            let nested = inner.is_some_and(|name| !name.contains(&b'/'));
            let direct = !name.contains(&b'/') && purpose.has(name);
            (nested || direct).then_some(nested)
        };
        let mut found: Vec<(bool, &[u8], &Entry)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.metadata.mode & cpio::S_IFMT == S_IFREG)
            .filter_map(|(path, entry)| Some((of(path)?, path.as_slice(), entry)))
            .collect();
        found.sort_by_key(|&(nested, path, _)| (nested, path));
        found
            .into_iter()
            .take(MAX_FILES)
            .map(|(_, path, entry)| CertificateFile {
                path: format!("/{}", String::from_utf8_lossy(path)),
                source: Source::Initramfs,
                content: Ok(entry.data.clone()),
            })
            .collect()
    }

    /// The certificate file that the command line names.
    #[must_use]
    pub fn certificate_file(&self, path: &str) -> CertificateFile {
        let data = self.data(path);
        CertificateFile {
            path: path.to_owned(),
            source: Source::Initramfs,
            content: data
                .map(<[u8]>::to_vec)
                .ok_or_else(|| "not in the initramfs".to_owned()),
        }
    }

    /// The same files, each with its certificates or [`Code::CertificateInvalid`].
    pub fn certificates(&self, purpose: Purpose) -> Vec<(String, Result<Vec<Certificate>>)> {
        let files = self.certificate_files(purpose).into_iter();
        files
            .map(|file| {
                let bytes = file.content.unwrap_or_default();
                let parsed = Certificate::parse_all(&bytes).map_err(|error| {
                    Fault::new(Code::CertificateInvalid, format!("{}: {error}", file.path))
                });
                (file.path, parsed)
            })
            .collect()
    }

    /// Reads an image back as the kernel unpacks it (init/initramfs.c, `unpack_to_rootfs`): cpio archives one after the other, each
    /// plain or compressed (microcode first, plain, and the rest behind it). Each compressed stream holds whole archives. A header
    /// of U-Boot's, which does not give it to the kernel, is passed over.
    ///
    /// # Errors
    ///
    /// [`Code::SourceMalformed`] if it is none, or one that the kernel would not unpack.
    pub fn from_image(image: &[u8]) -> Result<Self> {
        let bad = |why: String| Fault::new(Code::SourceMalformed, format!("initramfs: {why}"));
        let image = uboot::content(image).map_err(bad)?;
        let mut builder = Self::new();
        builder.entries.clear();
        let mut at: usize = 0;
        loop {
            let rest = image.get(at..).unwrap_or_default();
            at += match rest.iter().position(|&byte| byte != 0) {
                Some(zeros) => zeros,
                None if builder.entries.is_empty() => return Err(bad("empty".to_owned())),
                None => return Ok(builder),
            };
            let rest = image.get(at..).unwrap_or_default();
            if let Some(packing) = Packing::of(rest) {
                let name = packing.name();
                let (archive, taken) = packing
                    .unpack(rest, MAX_UNPACKED)
                    .map_err(|error| bad(format!("{name} at byte {at}: {error}")))?;
                let mut links = Links::new();
                for entry in cpio::entries(&archive) {
                    let entry = entry.map_err(|error| match error {
                        cpio::ReadError::Truncated(_) => bad(format!(
                            "the {name} data at byte {at} ends within an archive; the kernel unpacks each stream of compressed data by itself, so compress the archive in one"
                        )),
                        error => bad(format!("{name} at byte {at}: {error}")),
                    })?;
                    builder.take(&entry, &mut links);
                }
                builder.share(links)?;
                builder.packings.insert(packing);
                at += taken;
                continue;
            }
            if at == 0 && !rest.starts_with(b"07070") {
                return Err(match kernel::kind(image) {
                    Some(kind) => bad(format!("it is {kind}")),
                    None => bad(
                        "it is neither a cpio archive nor compressed as the kernel knows it"
                            .to_owned(),
                    ),
                });
            }
            let mut links = Links::new();
            let mut end = image.len();
            for entry in cpio::entries(rest) {
                match entry {
                    Ok(entry) => builder.take(&entry, &mut links),
                    // What follows an archive: another one, compressed.
                    Err(cpio::ReadError::Magic(behind)) if behind > 0 => {
                        end = at + behind;
                        let next = image.get(end..).unwrap_or_default();
                        if Packing::of(next).is_none() || end % 4 != 0 {
                            return Err(bad(format!(
                                "what begins at byte {end} is neither a cpio archive nor a compressed one at a multiple of four bytes"
                            )));
                        }
                        break;
                    }
                    Err(error) => return Err(bad(error.to_string())),
                }
            }
            builder.share(links)?;
            at = end;
        }
    }

    /// How an image that was read back is compressed.
    pub fn packings(&self) -> impl Iterator<Item = Packing> + '_ {
        self.packings.iter().copied()
    }

    fn take(&mut self, entry: &cpio::Entry<'_>, links: &mut Links) {
        let taken = Entry {
            metadata: entry.metadata,
            data: entry.data.to_vec(),
        };
        let name = relative(entry.name).to_vec();
        if entry.metadata.mode & cpio::S_IFMT == S_IFREG {
            links.entry(entry.inode).or_default().push(name.clone());
        }
        self.entries.insert(name, taken);
    }

    /// Gives the content of a file to its other names: the archive has it with one of them. All of it together must not be longer
    /// than what is unpacked.
    fn share(&mut self, links: Links) -> Result<()> {
        let mut left = MAX_UNPACKED;
        for names in links.into_values().filter(|names| names.len() > 1) {
            let data = names
                .iter()
                .filter_map(|name| self.entries.get(name))
                .map(|entry| &entry.data)
                .find(|data| !data.is_empty())
                .cloned();
            for name in names {
                if let (Some(entry), Some(data)) = (self.entries.get_mut(&name), &data)
                    && entry.data.is_empty()
                {
                    left = left.checked_sub(data.len() as u64).ok_or_else(|| {
                        Fault::new(
                            Code::SourceMalformed,
                            format!("initramfs: hard links to more than {MAX_UNPACKED} bytes"),
                        )
                    })?;
                    entry.data.clone_from(data);
                }
            }
        }
        Ok(())
    }

    /// All files of the initramfs.
    ///
    /// # Errors
    ///
    /// [`Code::ImageContent`] for names that no file can have.
    pub fn tree(&self) -> Result<Tree> {
        if let Some(directory) = &self.directory {
            return Ok(directory.clone());
        }
        let mut tree = Tree::new();
        for (name, entry) in self.with_parents() {
            let metadata = entry.metadata;
            let device = (metadata.rdev_major, metadata.rdev_minor);
            let kind = match metadata.mode & cpio::S_IFMT {
                S_IFREG => Kind::File(Content::Bytes(entry.data.into())),
                S_IFDIR => Kind::Directory,
                S_IFLNK => Kind::Symlink(entry.data),
                S_IFCHR => Kind::CharacterDevice(device.0, device.1),
                _ => continue,
            };
            let mode = u16::try_from(metadata.mode & 0o7777).unwrap_or_default();
            let inode = Inode {
                uid: metadata.uid,
                gid: metadata.gid,
                mtime: Timestamp::default(),
                ..Inode::new(kind, mode)
            };
            tree.insert(&name, inode)?;
        }
        Ok(tree)
    }

    /// Puts the modules added into the configuration, unless it lists modules itself.
    fn list_modules(&mut self) {
        if self.modules.is_empty() {
            return;
        }
        let mut text = self.data(config::PATH).unwrap_or_default().to_vec();
        let listed = Config::parse(&text).is_ok_and(|config| !config.modules.is_empty());
        if listed {
            return;
        }
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend(format!("modules={}\n", self.modules.join(" ")).as_bytes());
        let metadata = Metadata {
            mode: S_IFREG | 0o644,
            ..Metadata::default()
        };
        self.entries.insert(
            relative(config::PATH.as_bytes()).to_vec(),
            Entry {
                metadata,
                data: text,
            },
        );
    }

    /// The entries, each after the directory it is in.
    fn with_parents(&self) -> BTreeMap<Vec<u8>, Entry> {
        let mut entries = self.entries.clone();
        for path in self.entries.keys() {
            for (at, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
                let parent = path.get(..at).unwrap_or_default().to_vec();
                let metadata = Metadata {
                    mode: S_IFDIR | 0o755,
                    ..Metadata::default()
                };
                entries.entry(parent).or_insert(Entry {
                    metadata,
                    data: Vec::new(),
                });
            }
        }
        entries
    }

    fn entry(mut self, path: &[u8], metadata: Metadata, data: Vec<u8>) -> Self {
        self.entries
            .insert(relative(path).to_vec(), Entry { metadata, data });
        self
    }

    pub(crate) fn data(&self, path: impl AsRef<[u8]>) -> Option<&[u8]> {
        let entry = self.entries.get(relative(path.as_ref()))?;
        (entry.metadata.mode & cpio::S_IFMT == S_IFREG).then_some(&entry.data)
    }
}

/// What would keep the kernel from taking a certificate or from using it, whoever signed it.
#[must_use]
pub fn leaf_fault(path: &str, certificate: &Certificate) -> Option<Fault> {
    let defects = certificate.leaf_defects();
    let defect = defects.first()?;
    let detail = format!("{path} ({})", certificate.subject());
    let effect = if defect.is_refused() {
        Cause::LEAF_NOT_TAKEN
    } else {
        Cause::LEAF_VERIFIES_NOTHING
    };
    let cause = effect.with(&[&defect.to_string()]);
    Some(Fault::new(Code::CertificateRefused, detail).because(cause))
}

/// That part of a file, if the file has it.
fn part(file: &[u8], extent: Extent) -> Option<&[u8]> {
    let start = usize::try_from(extent.offset).ok()?;
    file.get(start..start.checked_add(extent.length)?)
}

fn relative(path: &[u8]) -> &[u8] {
    let start = path
        .iter()
        .position(|&byte| byte != b'/')
        .unwrap_or(path.len());
    let path = path.get(start..).unwrap_or_default();
    let end = path
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(0, |last| last.saturating_add(1));
    path.get(..end).unwrap_or_default()
}

fn compress(archive: &[u8], compression: Compression) -> Result<Vec<u8>> {
    let failed =
        |error: std::io::Error| Fault::new(Code::OutputUnwritable, format!("compressing: {error}"));
    match compression {
        // flate2 writes no name and no time into the header, so the result depends on the content alone.
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(archive).map_err(failed)?;
            encoder.finish().map_err(failed)
        }
        Compression::Zstd => zstd::bulk::compress(archive, 19).map_err(failed),
        Compression::None => Ok(archive.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::{BasicConstraints, Template};

    const POLICY: &[u8] = b"appraise func=BPRM_CHECK appraise_type=imasig\n";

    fn certificate(change: impl FnOnce(&mut Template)) -> Vec<u8> {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let mut template = Template::leaf("test");
        change(&mut template);
        template.sign(&key, None, None).unwrap().der().to_vec()
    }

    fn good() -> InitramfsBuilder {
        InitramfsBuilder::new()
            .init(&b"#!/bin/sh\n"[..])
            .certificate("x509_ima.der", certificate(|_| ()))
            .default_policy(POLICY)
    }

    #[test]
    fn what_the_init_would_refuse() {
        let truncated = certificate(|_| ())[..100].to_vec();
        let ca = certificate(|template| template.basic_constraints = BasicConstraints::Ca);
        for (name, builder, code) in [
            ("no init", good().without("init"), Code::InitramfsRefused),
            (
                "an init that is text",
                good().init(&b"hello"[..]),
                Code::InitramfsRefused,
            ),
            (
                "an init that may not be executed",
                good().file("init", 0o644, &b"#!/bin/sh\n"[..]),
                Code::InitramfsRefused,
            ),
            (
                "no certificate",
                good().without("etc/keys/x509_ima.der"),
                Code::NoCertificate,
            ),
            (
                "only an EVM certificate",
                good()
                    .without("etc/keys/x509_ima.der")
                    .certificate("x509_evm.der", certificate(|_| ())),
                Code::NoCertificate,
            ),
            (
                "an empty certificate",
                good().certificate("x509_ima.der", []),
                Code::CertificateInvalid,
            ),
            (
                "a truncated certificate",
                good().certificate("x509_ima2.der", truncated),
                Code::CertificateInvalid,
            ),
            (
                "a CA as leaf",
                good().certificate("ima/ca.pem", ca),
                Code::CertificateRefused,
            ),
            (
                "no policy",
                good().without(layout::DEFAULT_POLICY),
                Code::PolicyMissing,
            ),
            (
                "a policy of comments",
                good().policy(&b"# nothing\n"[..]),
                Code::PolicyEmpty,
            ),
            (
                "a policy with a bad rule",
                good().policy([POLICY, b"appraise funk=BPRM_CHECK\n"].concat()),
                Code::PolicyInvalid,
            ),
            (
                "a configuration with an unknown key",
                good().config(&b"color=blue\n"[..]),
                Code::ConfigInvalid,
            ),
            (
                "a module that is not there",
                good().config(&b"modules=/lib/modules/a.ko\n"[..]),
                Code::ModuleUnreadable,
            ),
        ] {
            assert_eq!(builder.clone().build().unwrap_err().code(), code, "{name}");
            assert!(builder.unchecked().build().is_ok(), "{name}, unchecked");
        }
        good().build().unwrap();
        good().policy([]).build().unwrap();
    }

    #[test]
    fn a_dynamic_init_is_refused_without_its_interpreter() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let fault = good().init(program.clone()).build().unwrap_err();
        assert_eq!(fault.code(), Code::InitramfsRefused);
        assert!(fault.to_string().contains("ld-linux"), "{fault}");
        good()
            .init(program)
            .file("lib64/ld-linux-x86-64.so.2", 0o755, &b"loader"[..])
            // The test's own program has a hundred megabytes, which take minutes to compress.
            .compression(Compression::None)
            .build()
            .unwrap();
    }

    #[test]
    fn a_signature_beside_the_policy_must_be_a_good_one() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
        let identity = crate::identity::Identity::new(
            std::sync::Arc::new(key),
            &certificate,
            ima::hash::HashAlgorithm::Sha256,
        )
        .unwrap();
        let path = "etc/ima/ima_policy.default.sig";
        let with = |signature: Vec<u8>| good().file(path, 0o644, signature);
        let signature = identity.sign(POLICY).unwrap();
        let known = with(signature.clone()).certificate("x509_ima-2.der", certificate.der());
        assert_eq!(known.check_policy_signature(), Ok(true));
        known.clone().build().unwrap();
        assert_eq!(good().check_policy_signature(), Ok(false));
        let of_another = identity.sign(b"another policy").unwrap();
        for (name, builder) in [
            ("an unknown key", with(signature)),
            (
                "of another policy",
                known.clone().file(path, 0o644, of_another),
            ),
            ("malformed", known.clone().file(path, 0o644, &b"text"[..])),
        ] {
            assert_eq!(
                builder.build().unwrap_err().code(),
                Code::PolicySignature,
                "{name}"
            );
        }
    }

    #[test]
    fn modules_are_listed_in_order() {
        let archive = good()
            .config(&b"root=/dev/vda"[..])
            .module("b.ko", &b"\x7fELF b"[..])
            .module("a.ko", &b"\x7fELF a"[..])
            .compression(Compression::None)
            .build()
            .unwrap();
        let config = cpio::entries(&archive)
            .map(|entry| entry.unwrap())
            .find(|entry| entry.name == relative(config::PATH.as_bytes()))
            .unwrap();
        assert_eq!(
            config.data,
            b"root=/dev/vda\nmodules=/lib/modules/b.ko /lib/modules/a.ko\n"
        );
    }

    #[test]
    fn twice_the_same_bytes_and_readable() {
        use std::io::Read as _;
        let one = good();
        let plain = one.clone().compression(Compression::None).build().unwrap();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let image = one.clone().compression(compression).build().unwrap();
            assert_eq!(image, one.clone().compression(compression).build().unwrap());
            let unpacked = match compression {
                Compression::Gzip => {
                    let mut unpacked = Vec::new();
                    flate2::read::GzDecoder::new(&image[..])
                        .read_to_end(&mut unpacked)
                        .unwrap();
                    unpacked
                }
                Compression::Zstd => zstd::decode_all(&image[..]).unwrap(),
                Compression::None => image,
            };
            assert_eq!(unpacked, plain, "{compression:?}");
        }
        let names: Vec<String> = cpio::entries(&plain)
            .map(|entry| String::from_utf8_lossy(entry.unwrap().name).into_owned())
            .collect();
        let mut seen = std::collections::HashSet::new();
        for name in &names {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(seen.contains(parent), "{name} before its directory");
            }
            seen.insert(name.clone());
        }
        for needed in ["init", "dev/console", "proc", "sys", "run", "rootfs"] {
            assert!(seen.contains(needed), "{needed}");
        }
    }
}
