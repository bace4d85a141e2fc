//! Options that several commands share.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ima::bank::Bank;
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::policy::Policy;
use ima::release::Release;
use ima::verify::since;
use imactl::file::{in_file, read_bounded};
use imactl::identity::{Identity, Version};
use imactl::key::{CommandSigner, Signer};
use imactl::select::{Appraisal, FileSystem};
use imactl::uki::Database;
use imactl::uki::database::MAX_DATABASE;

use super::output;

/// The password of every key `keygen --sample` makes.
pub const SAMPLE_PASSWORD: &str = "password";

/// The environment variable that has the password of a key.
pub const PASSWORD_VARIABLE: &str = "EVMCTL_KEY_PASSWORD";

const MAX_TEXT: u64 = 4 << 20;

/// The password of a private key.
#[derive(Debug, Clone, Default, Args)]
pub struct PasswordOptions {
    /// File whose first line is the password of the private key; otherwise EVMCTL_KEY_PASSWORD, otherwise it is asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The password, if it was asked for before.
    #[arg(skip)]
    pub known: Option<Vec<u8>>,
}

impl PasswordOptions {
    /// The password, from wherever it comes; `sample` says that the key is a sample, whose password everybody knows.
    pub fn password(&self, what: &str, sample: bool) -> imactl::Result<Vec<u8>> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        if sample {
            return Ok(SAMPLE_PASSWORD.into());
        }
        prompt(&format!("Password of {what}: "))
    }

    /// A password for a new key, asked for twice.
    pub fn new_password(&self) -> imactl::Result<Vec<u8>> {
        let password = match self.given()? {
            Some(password) => password,
            None => {
                let missing = |_| {
                    Fault::new(Code::Usage, "no password for the new private keys")
                        .because(Cause::NO_PASSWORD)
                };
                let password = prompt("Password for the new private keys: ").map_err(missing)?;
                if prompt("Once more: ").map_err(missing)? != password {
                    return Err(
                        Fault::new(Code::Usage, "no password for the new private keys")
                            .because(Cause::PASSWORDS_DIFFER),
                    );
                }
                password
            }
        };
        if password.is_empty() {
            return Err(
                Fault::new(Code::Usage, "no password for the new private keys")
                    .because(Cause::PASSWORD_EMPTY),
            );
        }
        Ok(password)
    }

    fn given(&self) -> imactl::Result<Option<Vec<u8>>> {
        if self.known.is_some() {
            return Ok(self.known.clone());
        }
        if let Some(path) = &self.password_file {
            return imactl::file::first_line(path).map(Some);
        }
        use std::os::unix::ffi::OsStringExt;
        Ok(std::env::var_os(PASSWORD_VARIABLE).map(OsStringExt::into_vec))
    }
}

/// Asks on the terminal, without showing what is typed.
pub fn prompt(question: &str) -> imactl::Result<Vec<u8>> {
    let missing = || {
        Fault::new(
            Code::KeyPassword,
            "no password was given and there is no terminal to ask on",
        )
    };
    // A script whose input is not a terminal would otherwise wait for somebody to type on the terminal it was started from.
    if !std::io::stdin().is_terminal() {
        return Err(missing());
    }
    rpassword::prompt_password(question)
        .map(String::into_bytes)
        .map_err(|_| missing())
}

/// Who signs.
#[derive(Debug, Args)]
pub struct KeyOptions {
    /// Private key that signs: a file (PKCS#8, PKCS#1 or SEC 1, PEM or DER), or the pkcs11: URI of a key in a token
    #[arg(long, value_name = "KEY")]
    pub key: Option<PathBuf>,
    /// Command that signs in place of a key: run with the algorithm and the digest in hexadecimal, it writes the signature
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "cert",
        conflicts_with = "key"
    )]
    pub sign_command: Option<String>,
    /// Its certificate, DER or PEM: checked against the key, and the source of the key id in signatures
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Hash algorithm: sha256, sha384, sha512, sha3-256, sha3-384 or sha3-512
    #[arg(long, value_name = "ALGO", default_value = "sha256")]
    pub hash: HashAlgorithm,
    /// Make signatures of version 3 in security.ima and security.evm, which appraise_type=sigv3 asks for; kernels before 7.1 refuse
    /// them
    #[arg(long)]
    pub sigv3: bool,
    #[command(flatten)]
    pub password: PasswordOptions,
}

impl KeyOptions {
    /// Returns the options for this key, with SHA-256.
    pub fn of_key(key: PathBuf, cert: PathBuf, password: PasswordOptions) -> Self {
        Self {
            key: Some(key),
            sign_command: None,
            cert: Some(cert),
            hash: HashAlgorithm::Sha256,
            sigv3: false,
            password,
        }
    }

    /// The version of the signatures.
    fn version(&self) -> Version {
        match self.sigv3 {
            true => Version::V3,
            false => Version::V2,
        }
    }

    /// The identity, which must be given.
    pub fn identity(&self) -> imactl::Result<Identity> {
        let identity = self.unversioned()?;
        Ok(identity.with_version(self.version()))
    }

    /// The identity for files that are appraised so: where a rule asks for signatures of version 3, it makes no others.
    pub fn identity_for(&self, appraisal: Option<&Appraisal>) -> imactl::Result<Identity> {
        let identity = self.identity()?;
        Ok(match appraisal.is_some_and(Appraisal::asks_for_v3) {
            true => identity.with_version(Version::V3),
            false => identity,
        })
    }

    fn unversioned(&self) -> imactl::Result<Identity> {
        if let Some(command) = &self.sign_command {
            let certificate = self.certificate()?.ok_or_else(|| {
                Fault::new(Code::Usage, "--sign-command without --cert")
                    .because(Cause::NO_CERTIFICATE_FOR_COMMAND)
            })?;
            let signer = CommandSigner::new(command, &certificate)?;
            return Identity::new(Arc::new(signer), &certificate, self.hash);
        }
        let path = self.key.as_deref().ok_or_else(|| {
            Fault::new(Code::Usage, "nothing to sign with").because(Cause::NO_KEY)
        })?;
        let certificate = self.cert.as_deref().map(certificate).transpose()?;
        let signer = load_key(path, &self.password, certificate.as_ref())?;
        match certificate {
            Some(certificate) => {
                // Kernels in use today are no older than this one, which knows all else.
                const COMMON: Release = Release { major: 6, minor: 1 };
                let since = since(certificate.key(), self.hash).filter(|since| *since > COMMON);
                if let Some(since) = since {
                    output::warn(format_args!(
                        "imactl: {} with {} is verified by the kernel from Linux {since} on",
                        certificate.key(),
                        self.hash
                    ));
                }
                Identity::new(signer, &certificate, self.hash)
            }
            None => {
                output::warn(format_args!(
                    "imactl: without --cert the key id is the SHA-1 of the public key; the kernel looks for the certificate's"
                ));
                Identity::without_certificate(signer, self.hash)
            }
        }
    }

    /// The key and its certificate, which must both be given, for a signature of Secure Boot.
    pub fn signer_and_certificate(&self) -> imactl::Result<(Arc<dyn Signer>, Certificate)> {
        if self.hash != HashAlgorithm::Sha256 {
            let fault = Fault::new(Code::SigningFailed, format!("--hash {}", self.hash));
            return Err(fault.because(Cause::SECURE_BOOT_KEY));
        }
        if self.sigv3 {
            let fault = Fault::new(Code::Usage, "--sigv3 for a signature of Secure Boot");
            return Err(fault.because(Cause::SIGV3_ELSEWHERE));
        }
        if !self.is_given() {
            return Err(Fault::new(Code::Usage, "nothing to sign with").because(Cause::NO_KEY));
        }
        let certificate = self.certificate()?.ok_or_else(|| {
            Fault::new(Code::Usage, "a key without --cert")
                .because(Cause::SIGNER_WITHOUT_CERTIFICATE)
        })?;
        let signer: Arc<dyn Signer> = match (&self.sign_command, &self.key) {
            (None, Some(path)) => load_key(path, &self.password, Some(&certificate))?,
            (command, _) => Arc::new(CommandSigner::new(
                command.as_deref().unwrap_or_default(),
                &certificate,
            )?),
        };
        Ok((signer, certificate))
    }

    /// Whether there is something to sign with.
    pub fn is_given(&self) -> bool {
        self.key.is_some() || self.sign_command.is_some()
    }

    /// The certificate, if one is given.
    pub fn certificate(&self) -> imactl::Result<Option<Certificate>> {
        self.cert.as_deref().map(certificate).transpose()
    }
}

/// Who signs owner, mode and attributes.
#[derive(Debug, Args)]
pub struct EvmOptions {
    /// Write portable EVM signatures (security.evm) too, with this private key
    #[arg(long, value_name = "KEY", requires = "evm_cert")]
    pub evm_key: Option<PathBuf>,
    /// Its certificate
    #[arg(long, value_name = "FILE", requires = "evm_key")]
    pub evm_cert: Option<PathBuf>,
    /// Write EVM signatures for a 32-bit kernel, which takes no others
    #[arg(long = "evm-32-bit", requires = "evm_key")]
    pub evm_32_bit: bool,
}

impl EvmOptions {
    /// The identity, if there is to be one; it has the hash algorithm and the password of the other key.
    pub fn identity(&self, key: &KeyOptions) -> imactl::Result<Option<Identity>> {
        let (Some(path), Some(cert)) = (&self.evm_key, &self.evm_cert) else {
            return Ok(None);
        };
        let certificate = certificate(cert)?;
        let signer = load_key(path, &key.password, Some(&certificate))?;
        let identity = Identity::new(signer, &certificate, key.hash)?;
        let identity = identity.with_version(key.version());
        Ok(Some(match self.evm_32_bit {
            true => identity.for_32_bit_kernel(),
            false => identity,
        }))
    }
}

/// Opens a private key, which must be the certificate's; for a sample certificate the password is known.
pub fn load_key(
    path: &Path,
    password: &PasswordOptions,
    certificate: Option<&Certificate>,
) -> imactl::Result<Arc<dyn Signer>> {
    let sample = certificate.is_some_and(Certificate::is_sample);
    if sample {
        output::warn(format_args!(
            "imactl: warning: this is the SAMPLE KEY, whose private half everybody has"
        ));
    }
    let what = if imactl::key::is_token(path) {
        // Not the URI, which may have a PIN in it.
        "the token".to_owned()
    } else {
        path.display().to_string()
    };
    imactl::key::open(path, &|| password.password(&what, sample), certificate)
}

/// Reads one certificate.
pub fn certificate(path: &Path) -> imactl::Result<Certificate> {
    let bytes = read_bounded(path, MAX_TEXT)?;
    Certificate::parse(&bytes).map_err(|error| {
        in_file(
            Fault::new(Code::CertificateUnusable, error.to_string()),
            path,
        )
    })
}

/// Reads all certificates of a file.
pub fn certificates(path: &Path) -> imactl::Result<Vec<Certificate>> {
    let bytes = read_bounded(path, MAX_TEXT)?;
    Certificate::parse_all(&bytes).map_err(|error| {
        in_file(
            Fault::new(Code::CertificateUnusable, error.to_string()),
            path,
        )
    })
}

/// Reads what Secure Boot refuses whoever signed it; nothing if no file is given.
pub fn revoked(paths: &[PathBuf]) -> imactl::Result<Option<Database>> {
    let mut found = None;
    for path in paths {
        let bytes = read_bounded(path, MAX_DATABASE)?;
        let read = Database::parse(&bytes).map_err(|fault| in_file(fault, path))?;
        found.get_or_insert_with(Database::default).extend(read);
    }
    Ok(found)
}

/// Reads the certificates that Secure Boot starts programs by: files and directories of certificates, and EFI signature lists.
pub fn secure_boot_certificates(paths: &[PathBuf]) -> imactl::Result<Vec<Certificate>> {
    let mut found = Vec::new();
    for path in paths {
        let lists = match path.is_dir() {
            true => None,
            false => Database::of_signature_lists(&read_bounded(path, MAX_DATABASE)?),
        };
        match lists {
            Some(lists) => found.extend(lists.map_err(|fault| in_file(fault, path))?.certificates),
            None => found.extend(certificates_in(std::slice::from_ref(path))?),
        }
    }
    Ok(found)
}

/// Reads all certificates of files and of directories' files, in the order of their names. In a directory every file whose name
/// ends as certificates' do must be one.
pub fn certificates_in(paths: &[PathBuf]) -> imactl::Result<Vec<Certificate>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.extend(certificates(path)?);
            continue;
        }
        let unreadable = |error: std::io::Error| imactl::file::unreadable(path, &error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.path();
            let ending = name.extension().unwrap_or_default();
            if ["der", "pem", "crt", "cer"]
                .iter()
                .any(|known| ending == *known)
            {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(
                Fault::new(Code::CertificateUnusable, path.display().to_string())
                    .because(Cause::NO_CERTIFICATE_FILES),
            );
        }
        names.sort();
        for name in names {
            found.extend(certificates(&name)?);
        }
    }
    Ok(found)
}

/// Reads a policy, which must be right and have rules.
pub fn policy(path: &Path) -> imactl::Result<Policy> {
    let bytes = read_bounded(path, MAX_TEXT)?;
    let policy = Policy::parse(&bytes)
        .map_err(|error| Fault::new(Code::PolicyInvalid, format!("{}: {error}", path.display())))?;
    if policy.is_empty() {
        return Err(Fault::new(Code::PolicyEmpty, path.display().to_string()));
    }
    Ok(policy)
}

/// The time that `SOURCE_DATE_EPOCH` sets, seconds since 1970.
pub fn source_date_epoch() -> imactl::Result<Option<u32>> {
    let Some(epoch) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    epoch
        .to_str()
        .and_then(|epoch| epoch.parse().ok())
        .map(Some)
        .ok_or_else(|| {
            Fault::new(
                Code::Usage,
                format!("SOURCE_DATE_EPOCH={}", epoch.to_string_lossy()),
            )
            .because(Cause::NOT_A_TIME)
        })
}

/// How the result is printed.
#[derive(Debug, Default, Args)]
pub struct OutputOptions {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The tree that the files are in.
#[derive(Debug, Args)]
pub struct TreeOptions {
    /// Directory that will be the root, where a policy's paths begin
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// The file system of a root that is a directory or an archive.
#[derive(Debug, Args)]
pub struct FileSystemOptions {
    /// Type of the root's file system, if the root is a directory or an archive
    #[arg(long, value_name = "TYPE", default_value = "ext4")]
    filesystem: String,
}

impl Default for FileSystemOptions {
    fn default() -> Self {
        Self {
            filesystem: "ext4".to_owned(),
        }
    }
}

impl FileSystemOptions {
    /// The file system of that type.
    pub fn filesystem(&self) -> imactl::Result<FileSystem> {
        let name = &self.filesystem;
        FileSystem::by_name(name).ok_or_else(|| {
            Fault::new(Code::Usage, format!("--filesystem {name}"))
                .because(Cause::NO_SUCH_FILE_SYSTEM)
        })
    }
}

/// What a policy has appraised.
#[derive(Debug, Args)]
pub struct AppraisalOptions {
    /// Only files that this policy will have appraised
    #[arg(long, value_name = "POLICY")]
    pub for_policy: Option<PathBuf>,
    /// Type of the file system the root will be on, for the policy's fsname= and fsmagic=; ext4, or what is made
    #[arg(long, value_name = "TYPE")]
    pub filesystem: Option<String>,
}

impl AppraisalOptions {
    /// The appraisal, if a policy is given.
    pub fn appraisal(
        &self,
        made: &str,
        uuid: Option<[u8; 16]>,
    ) -> imactl::Result<Option<Appraisal>> {
        let Some(path) = &self.for_policy else {
            return Ok(None);
        };
        let name = self.filesystem.as_deref().unwrap_or(made);
        let filesystem = FileSystem::by_name(name).ok_or_else(|| {
            Fault::new(Code::Usage, format!("file system `{name}`"))
                .because(Cause::NO_SUCH_FILE_SYSTEM)
        })?;
        Ok(Some(Appraisal::new(
            policy(path)?,
            FileSystem { uuid, ..filesystem },
        )))
    }
}

/// A size such as `512M` or `1G`, in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a size; write 512M or 1G"))?;
    let shift = match text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(format!("`{text}` is not a size; write 512M or 1G")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// A UUID, in bytes.
pub fn uuid(text: &str) -> Result<[u8; 16], String> {
    ima::filesystem::Uuid::parse(text)
        .map(|uuid| uuid.0)
        .ok_or_else(|| format!("`{text}` is not a UUID"))
}

/// A bank of PCRs by its name.
pub fn bank(name: &str) -> Result<Bank, String> {
    Bank::from_name(name)
        .ok_or_else(|| format!("there are {}", Bank::ALL.map(Bank::name).join(", ")))
}

/// A file with PCRs of a bank: `ALGO,FILE`.
pub fn pcr_file(text: &str) -> Result<(Bank, PathBuf), String> {
    let (name, path) = text
        .split_once(',')
        .ok_or("write ALGO,FILE, such as sha256,pcrs.txt")?;
    Ok((bank(name)?, path.into()))
}
