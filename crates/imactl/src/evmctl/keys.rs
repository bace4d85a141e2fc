//! Keys as evmctl names them: `--key` for signing and for verifying, and what becomes of the key id.

use std::cell::OnceCell;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::signature::{KeyId, v1};
use imactl::file::{read_bounded, write};
use imactl::key::{FileKey, KeyKind, SIGNED, Signer as _, TokenKey, WeakKey, check_verifiable};
use sha1::{Digest as _, Sha1};

use super::options::Options;
use super::output::{Done, Failed, Output};

const MAX_KEY: u64 = 1 << 20;

/// The key that signs, and the id it signs under.
pub struct SigningKey {
    strong: Option<FileKey>,
    /// What the library of `imactl sign` refuses, for old devices.
    weak: Option<WeakKey>,
    token: Option<TokenKey>,
    /// The id that signatures carry.
    pub id: KeyId,
}

impl SigningKey {
    /// The key of the options, or of evmctl's own place.
    pub fn load(options: &Options, algo: HashAlgorithm, output: &mut Output) -> Done<Self> {
        let path = options
            .key
            .as_deref()
            .map_or_else(|| PathBuf::from("/etc/keys/privkey_evm.pem"), PathBuf::from);
        if imactl::key::is_token(&path) {
            // Tools print the URI of the public key, and OpenSSL's engine takes it for the private one of the same name.
            let uri = path
                .to_string_lossy()
                .replace("type=public", "type=private");
            // Not the URI, which may have a PIN in it.
            let pin = || password(options, Path::new("the token"));
            let token = TokenKey::open(&uri, &pin, None).map_err(|fault| output.fault(&fault))?;
            check_verifiable(token.kind()).map_err(|fault| output.fault(&fault))?;
            let id = key_id(options, &[], token.public_key(), output)?;
            return Ok(Self {
                strong: None,
                weak: None,
                token: Some(token),
                id,
            });
        }
        let bytes = read_bounded(&path, MAX_KEY).map_err(|fault| {
            output.err(format_args!("Failed to open keyfile: {}", path.display()));
            output.fault(&fault)
        })?;
        let asked = OnceCell::new();
        let password = || match asked.get() {
            Some(password) => Ok(Vec::clone(password)),
            None => password(options, &path).inspect(|password| {
                let _ = asked.set(password.clone());
            }),
        };
        let strong = FileKey::from_bytes(&bytes, &password);
        let weak = if strong.is_err() || options.version_1 || !SIGNED.contains(&algo) {
            WeakKey::from_pem(&bytes, &password).ok()
        } else {
            None
        };
        let (strong, public) = match (strong, &weak) {
            (Ok(key), _) => {
                let public = key.public_key().to_vec();
                (Some(key), public)
            }
            (Err(_), Some(weak)) => (None, weak.public_key().to_vec()),
            (Err(fault), None) => {
                return Err(output.fault(&imactl::file::in_file(fault, &path)));
            }
        };
        let kind = match (&strong, &weak) {
            (Some(key), _) => Some(key.kind()),
            (None, Some(key)) => key.rsa_bits().map(KeyKind::Rsa),
            (None, None) => None,
        };
        kind.map_or(Ok(()), check_verifiable)
            .map_err(|fault| output.fault(&imactl::file::in_file(fault, &path)))?;
        let id = key_id(options, &bytes, &public, output)?;
        Ok(Self {
            strong,
            weak,
            token: None,
            id,
        })
    }

    /// Signs a digest as `security.ima` holds it.
    pub fn sign(&self, algo: HashAlgorithm, digest: &[u8], output: &mut Output) -> Done<Vec<u8>> {
        if let Some(token) = &self.token {
            let signed = token.sign_any(algo, digest);
            return signed.map_err(|fault| output.fault(&fault));
        }
        let strong = self
            .strong
            .as_ref()
            .map(|key| key.sign_digest(algo, digest));
        let signed = match (strong, &self.weak) {
            (Some(Ok(signature)), _) => Ok(signature),
            (_, Some(weak)) => weak.sign_digest(algo, digest),
            (Some(Err(fault)), None) => Err(fault),
            (None, None) => Err(Fault::new(Code::SigningFailed, "no key")),
        };
        signed.map_err(|fault| output.fault(&fault))
    }

    /// The key as it signs version 1.
    pub fn rsa(&self, output: &mut Output) -> Done<&WeakKey> {
        self.weak.as_ref().ok_or_else(|| {
            output.err(format_args!("read_priv_key: unsupported key type"));
            Failed::ERROR
        })
    }
}

/// The id of a signature: what was given, or the certificate's in the key file, or the SHA-1 of the public key.
fn key_id(options: &Options, key_file: &[u8], public: &[u8], output: &mut Output) -> Done<KeyId> {
    if let Some(id) = options.key_id {
        return Ok(id);
    }
    if let Some(path) = &options.key_id_from {
        let id = read_bounded(path, MAX_KEY).and_then(|bytes| {
            let certificate = Certificate::parse(&bytes)
                .map_err(|error| Fault::new(Code::CertificateUnusable, error.to_string()))?;
            skid(&certificate)
        });
        let id = id.map_err(|fault| {
            output.fault(&imactl::file::in_file(fault, path));
            output.err(format_args!("Error reading keyid."));
            Failed(1)
        })?;
        // As evmctl has it: without the zeros in front.
        let number = u32::from_be_bytes(id.0);
        output.err(format_args!("keyid {number:04x} (from {})", path.display()));
        return Ok(id);
    }
    let has_certificate = key_file
        .windows(CERTIFICATE.len())
        .any(|window| window == CERTIFICATE);
    if has_certificate
        && let Ok(certificates) = Certificate::parse_all(key_file)
        && let Some(certificate) = certificates.first()
    {
        return skid(certificate).map_err(|fault| output.fault(&fault));
    }
    Ok(by_sha1(public))
}

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn skid(certificate: &Certificate) -> imactl::Result<KeyId> {
    certificate
        .skid()
        .and_then(KeyId::from_suffix)
        .ok_or_else(|| {
            Fault::new(
                Code::CertificateUnusable,
                format!("`{}`", certificate.subject()),
            )
            .because(Cause::SHORT_SKID)
        })
}

fn by_sha1(public: &[u8]) -> KeyId {
    KeyId::from_suffix(&Sha1::digest(public)).unwrap_or(KeyId([0; 4]))
}

fn password(options: &Options, path: &Path) -> imactl::Result<Vec<u8>> {
    match &options.password {
        Some(Some(password)) => Ok(password.clone()),
        Some(None) => ask("PEM password: "),
        None => match std::env::var_os("EVMCTL_KEY_PASSWORD") {
            Some(password) => Ok(password.as_bytes().to_vec()),
            None => ask(&format!("Password of {}: ", path.display())),
        },
    }
}

/// Asks on the terminal, or takes the next line of standard input where that is none, as OpenSSL does for evmctl.
fn ask(question: &str) -> imactl::Result<Vec<u8>> {
    const MAX_PASSWORD: u64 = 1024;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return crate::cli::prompt(question);
    }
    let mut line = Vec::new();
    let read = stdin.lock().take(MAX_PASSWORD).read_until(b'\n', &mut line);
    if !matches!(read, Ok(1..)) {
        return Err(Fault::new(
            Code::KeyPassword,
            "no password was given, and standard input has none",
        ));
    }
    line.pop_if(|byte| *byte == b'\n');
    Ok(line)
}

/// The certificates that signatures are checked with.
#[derive(Debug, Default)]
pub struct Certificates {
    certificates: Vec<Certificate>,
    announced: usize,
}

impl Certificates {
    /// Those of `--key`, separated by commas or blanks, or evmctl's own. What is not a certificate is output and passed over.
    pub fn load(options: &Options, output: &mut Output) -> Self {
        let default = std::ffi::OsStr::new("/etc/keys/x509_evm.der");
        let list = options.key.as_deref().unwrap_or(default);
        let mut found = Self::default();
        for name in list.as_bytes().split(|byte| b", \t".contains(byte)) {
            if name.is_empty() {
                continue;
            }
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            let certificate = read_bounded(path, MAX_KEY).and_then(|bytes| {
                Certificate::parse(&bytes)
                    .map_err(|error| Fault::new(Code::CertificateUnusable, error.to_string()))
            });
            match certificate {
                Ok(certificate) => {
                    found.announced += 1;
                    let id = certificate.key_id();
                    output.err(format_args!(
                        "key {}: {id} {}",
                        found.announced,
                        path.display()
                    ));
                    found.certificates.push(certificate);
                }
                // evmctl passes over keys that are not there without a word.
                Err(fault) if fault.code() == Code::InputUnreadable && options.key.is_none() => {}
                Err(fault) => {
                    output.fault(&imactl::file::in_file(fault, path));
                }
            }
        }
        found
    }

    /// Those with this id: by the subject key identifier, as the kernel looks for them, or by the SHA-1 of the key, as evmctl.
    pub fn with_id(&self, id: KeyId) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().filter(move |certificate| {
            certificate.key_id() == id
                || KeyId::from_suffix(&certificate.public_key_sha1()) == Some(id)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }
}

/// An RSA public key in PEM, as signatures of version 1 are checked with.
pub fn rsa_public_key(path: &Path, output: &mut Output) -> Done<rsa::RsaPublicKey> {
    use rsa::pkcs8::DecodePublicKey as _;
    let text = read_bounded(path, MAX_KEY).map_err(|fault| {
        output.fault(&fault);
        Failed(1)
    })?;
    let key = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| rsa::RsaPublicKey::from_public_key_pem(text).ok());
    key.ok_or_else(|| {
        output.err(format_args!(
            "Failed to PEM_read_PUBKEY key file: {}",
            path.display()
        ));
        Failed(1)
    })
}

/// `import`: a certificate onto a keyring; its serial is printed.
pub fn import(options: &Options, output: &mut Output) -> Done {
    if options.version_1 {
        output.err(format_args!(
            "import --rsa is not done here: `evmctl convert KEY` writes what keyctl padd user $(cat KEY.keyid) KEYRING <KEY.bin takes"
        ));
        return Err(Failed::ERROR);
    }
    let path = match options.operands.first() {
        Some(path) => PathBuf::from(path),
        None => "/etc/keys/x509_evm.der".into(),
    };
    let ring = match options.operands.get(1) {
        Some(ring) => ring.to_string_lossy().into_owned(),
        None => "@u".to_owned(),
    };
    let certificate = read_bounded(&path, MAX_KEY).and_then(|bytes| {
        Certificate::parse(&bytes).map_err(|error| {
            imactl::file::in_file(
                Fault::new(Code::CertificateUnusable, error.to_string()),
                &path,
            )
        })
    });
    let certificate = certificate.map_err(|fault| {
        output.fault(&fault);
        Failed(1)
    })?;
    let imported = imactl::keyring::Target::find(&ring).and_then(|keyring| {
        output.err(format_args!(
            "Importing public key {} from file {} into keyring {ring}",
            certificate.key_id(),
            path.display()
        ));
        keyring.import(&path.display().to_string(), &certificate)
    });
    let serial = imported.map_err(|fault| {
        output.err(format_args!("add_key failed"));
        output.fault(&fault)
    })?;
    output.err(format_args!("keyid: {serial}"));
    output.out(format_args!("{serial}"));
    Ok(())
}

/// `convert`: the key of version 1 beside its PEM file, as `.bin` and `.keyid`.
pub fn convert(options: &Options, output: &mut Output) -> Done {
    use rsa::traits::PublicKeyParts as _;
    let path = match options.operands.first() {
        Some(path) => PathBuf::from(path),
        None => "/etc/keys/pubkey_evm.pem".into(),
    };
    let key = rsa_public_key(&path, output)?;
    let key = v1::PublicKey::new(&key.n_bytes(), &key.e_bytes());
    let id = key.key_id().to_string();
    for (extension, content) in [("bin", key.as_bytes()), ("keyid", id.as_bytes())] {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{extension}"));
        let name = PathBuf::from(name);
        output.err(format_args!("Writing to {}", name.display()));
        write(&name, content, 0o644, true).map_err(|fault| output.fault(&fault))?;
    }
    Ok(())
}
