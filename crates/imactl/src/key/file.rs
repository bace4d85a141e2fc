//! The backend that reads a private key from a file, and makes new ones.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING,
    ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use der::pem::PemLabel as _;
use der::{Decode as _, SecretDocument};
use ima::certificate::MlDsa;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::oid::{ID_EC_PUBLIC_KEY, ObjectIdentifier, RSA_ENCRYPTION};
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};

use super::ecdsa::DeterministicKey;
use super::kind::{KeyKind, USED, curve_by_oid, no_digests};
use super::password::PasswordSource;
use super::pem::{malformed, private_key_pem};
use super::signer::{Signer, check_digest, digest_of};
use super::{legacy, sha3};
use crate::Result;

/// Rounds of PBKDF2-HMAC-SHA256 for new keys (OWASP's recommendation of 2023).
const PBKDF2_ROUNDS: u32 = 600_000;

/// The longest private key file that is read, in bytes.
const MAX_KEY_FILE: u64 = 1 << 20;

/// A private key in memory, from a file or newly made.
pub struct FileKey {
    key: Key,
    kind: KeyKind,
    public_key: Vec<u8>,
    pkcs8: SecretDocument,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(DeterministicKey),
    MlDsa(Box<PqdsaKeyPair>),
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl FileKey {
    /// Makes a new key. RSA takes a second or so.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] if the library refuses, or for a kind that is not [offered](KeyKind::OFFERED).
    pub fn generate(kind: KeyKind) -> Result<Self> {
        let failed = |_| Fault::new(Code::SigningFailed, format!("no {kind} key could be made"));
        let pkcs8 = match kind {
            KeyKind::Rsa(bits) => {
                let size = match bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    _ => {
                        return Err(Fault::new(
                            Code::SigningFailed,
                            format!("RSA keys of {bits} bits are not made"),
                        ));
                    }
                };
                let pair = RsaKeyPair::generate(size).map_err(failed)?;
                let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?;
                SecretDocument::try_from(der.as_ref())
            }
            KeyKind::MlDsa(set) => {
                let pair = PqdsaKeyPair::generate(ml_dsa_algorithm(set)).map_err(failed)?;
                SecretDocument::try_from(pair.to_pkcs8v1().map_err(failed)?.as_ref())
            }
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
                let pair = EcdsaKeyPair::generate(curve_algorithm(kind)).map_err(failed)?;
                SecretDocument::try_from(pair.to_pkcs8v1().map_err(failed)?.as_ref())
            }
        };
        let pkcs8 = pkcs8.map_err(|error| Fault::new(Code::SigningFailed, error.to_string()))?;
        Self::from_pkcs8(pkcs8)
    }

    /// Reads a key from a file, in any of the forms [`from_bytes`](Self::from_bytes) takes.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::PrivateKeyMalformed`], [`Code::KeyPassword`].
    pub fn load(path: &Path, password: PasswordSource<'_>) -> Result<Self> {
        let bytes = crate::file::read_bounded(path, MAX_KEY_FILE)?;
        Self::from_bytes(&bytes, password).map_err(|fault| crate::file::in_file(fault, path))
    }

    /// Reads a key: PKCS #8, encrypted PKCS #8 (PBES2), PKCS #1 or SEC 1, each in PEM or DER, the latter two in PEM also
    /// encrypted as OpenSSL once did. In a PEM file the first private key counts, whatever else is in it.
    ///
    /// # Errors
    ///
    /// [`Code::PrivateKeyMalformed`] if it is none of these or of a kind that is not used, [`Code::KeyPassword`] if it
    /// cannot be decrypted.
    pub fn from_bytes(bytes: &[u8], password: PasswordSource<'_>) -> Result<Self> {
        if let Some(pem) = private_key_pem(bytes) {
            if legacy::is_encrypted(pem) {
                let (label, document) = legacy::decrypt(pem, password)?;
                return match &*label {
                    "RSA PRIVATE KEY" => Self::from_pkcs1(document.as_bytes()),
                    "EC PRIVATE KEY" => Self::from_sec1(document.as_bytes()),
                    other => return Err(malformed(format!("a PEM block of {other}"))),
                }
                .map_err(|_| Fault::new(Code::KeyPassword, "the password is wrong"));
            }
            let (label, document) = SecretDocument::from_pem(pem)
                .map_err(|error| malformed(format!("malformed PEM: {error}")))?;
            return match label {
                EncryptedPrivateKeyInfoRef::PEM_LABEL => {
                    Self::decrypt(document.as_bytes(), password)
                }
                PrivateKeyInfoRef::PEM_LABEL => Self::from_pkcs8(document),
                "RSA PRIVATE KEY" => Self::from_pkcs1(document.as_bytes()),
                "EC PRIVATE KEY" => Self::from_sec1(document.as_bytes()),
                other => Err(malformed(format!("a PEM block of {other}"))),
            };
        }
        if bytes.starts_with(b"-----BEGIN ") {
            return Err(malformed("a PEM file without a private key"));
        }
        if PrivateKeyInfoRef::from_der(bytes).is_ok() {
            let document =
                SecretDocument::try_from(bytes).map_err(|error| malformed(error.to_string()))?;
            return Self::from_pkcs8(document);
        }
        if EncryptedPrivateKeyInfoRef::try_from(bytes).is_ok() {
            return Self::decrypt(bytes, password);
        }
        Self::from_pkcs1(bytes)
            .or_else(|_| Self::from_sec1(bytes))
            .map_err(|_| malformed("neither PEM nor the DER of a private key"))
    }

    /// The key as PKCS #8 in PEM; encrypted (PBES2: PBKDF2-HMAC-SHA256, AES-256-CBC) if a password is given.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] if the system has no random numbers.
    pub fn to_pem(&self, password: Option<&[u8]>) -> Result<Vec<u8>> {
        let failed = |error: String| Fault::new(Code::SigningFailed, error);
        let pem = match password {
            None => self
                .pkcs8
                .to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF),
            Some(password) => {
                let (mut salt, mut iv) = ([0; 16], [0; 16]);
                for random in [&mut salt, &mut iv] {
                    aws_lc_rs::rand::fill(random)
                        .map_err(|_| failed("no random numbers".to_owned()))?;
                }
                let parameters =
                    pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(PBKDF2_ROUNDS, &salt, iv)
                        .map_err(|error| failed(error.to_string()))?;
                let info = PrivateKeyInfoRef::from_der(self.pkcs8.as_bytes())
                    .map_err(|error| failed(error.to_string()))?;
                let encrypted = info
                    .encrypt_with_params(parameters, password)
                    .map_err(|error| failed(error.to_string()))?;
                encrypted.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            }
        };
        pem.map(|pem| pem.as_bytes().to_vec())
            .map_err(|error| failed(error.to_string()))
    }

    /// The key as unencrypted PKCS #8 in DER.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        self.pkcs8.as_bytes()
    }

    fn decrypt(der: &[u8], password: PasswordSource<'_>) -> Result<Self> {
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| {
            malformed(format!("malformed encrypted PKCS #8, or no PBES2: {error}"))
        })?;
        let password = password()?;
        let plain = encrypted.decrypt(&password).map_err(|error| match error {
            pkcs8::Error::EncryptedPrivateKey(
                pbes2_error @ (pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }
                | pkcs8::pkcs5::Error::NoPbes1CryptSupport),
            ) => malformed(format!("encrypted PKCS #8: {pbes2_error}"))
                .because(Cause::OLD_KEY_ENCRYPTION),
            _ => Fault::new(Code::KeyPassword, "the password is wrong"),
        })?;
        // With one wrong password in 256 the padding happens to be right and only the content is not.
        Self::from_pkcs8(plain).map_err(|_| Fault::new(Code::KeyPassword, "the password is wrong"))
    }

    fn from_pkcs8(pkcs8: SecretDocument) -> Result<Self> {
        let info = PrivateKeyInfoRef::from_der(pkcs8.as_bytes())
            .map_err(|error| malformed(format!("malformed PKCS #8: {error}")))?;
        let curve = info
            .algorithm
            .parameters
            .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
        match (info.algorithm.oid, curve) {
            (RSA_ENCRYPTION, _) => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8.as_bytes())
                    .map_err(|error| malformed(format!("RSA key: {error}")))?;
                Ok(Self::of_rsa(pair, pkcs8))
            }
            (ID_EC_PUBLIC_KEY, Some(curve)) => {
                let kind = curve_by_oid(curve)
                    .ok_or_else(|| malformed(format!("a key on curve {curve}; {USED} are used")))?;
                Self::of_ec(kind, &ec_pair(kind, pkcs8.as_bytes())?, pkcs8)
            }
            (other, _) => {
                let set = MlDsa::from_oid(other).ok_or_else(|| {
                    malformed(format!("a key of algorithm {other}; {USED} are used"))
                })?;
                let pair = PqdsaKeyPair::from_pkcs8(ml_dsa_algorithm(set), pkcs8.as_bytes())
                    .map_err(|error| malformed(format!("{set} key: {error}")))?;
                Ok(Self {
                    kind: KeyKind::MlDsa(set),
                    public_key: pair.public_key().as_ref().to_vec(),
                    key: Key::MlDsa(Box::new(pair)),
                    pkcs8,
                })
            }
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self> {
        let pair =
            RsaKeyPair::from_der(der).map_err(|error| malformed(format!("RSA key: {error}")))?;
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| malformed("RSA key"))?;
        let pkcs8 = SecretDocument::try_from(pkcs8.as_ref())
            .map_err(|error| malformed(error.to_string()))?;
        Ok(Self::of_rsa(pair, pkcs8))
    }

    fn from_sec1(der: &[u8]) -> Result<Self> {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521] {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve_algorithm(kind), der) {
                let pkcs8 = pair.to_pkcs8v1().map_err(|_| malformed("SEC 1 key"))?;
                let pkcs8 = SecretDocument::try_from(pkcs8.as_ref())
                    .map_err(|error| malformed(error.to_string()))?;
                return Self::of_ec(kind, &pair, pkcs8);
            }
        }
        Err(malformed(format!(
            "SEC 1 key on a curve that is not used; {USED} are"
        )))
    }

    fn of_rsa(pair: RsaKeyPair, pkcs8: SecretDocument) -> Self {
        Self {
            kind: KeyKind::Rsa(modulus_bits(&pair)),
            public_key: pair.public_key().as_ref().to_vec(),
            key: Key::Rsa(Box::new(pair)),
            pkcs8,
        }
    }

    fn of_ec(kind: KeyKind, pair: &EcdsaKeyPair, pkcs8: SecretDocument) -> Result<Self> {
        let key = DeterministicKey::new(kind, pair)
            .ok_or_else(|| malformed(format!("{kind} key: not taken by the library")))?;
        Ok(Self {
            kind,
            public_key: pair.public_key().as_ref().to_vec(),
            key: Key::Ec(key),
            pkcs8,
        })
    }
}

impl Signer for FileKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        check_digest(algo, digest)?;
        let failed = |_| {
            Fault::new(
                Code::SigningFailed,
                format!("{} signature of a {algo} digest", self.kind),
            )
        };
        match &self.key {
            Key::Rsa(pair) => {
                let (algorithm, encoding): (&'static Algorithm, &'static dyn RsaEncoding) =
                    match algo {
                        HashAlgorithm::Sha256 => (&SHA256, &RSA_PKCS1_SHA256),
                        HashAlgorithm::Sha384 => (&SHA384, &RSA_PKCS1_SHA384),
                        HashAlgorithm::Sha512 => (&SHA512, &RSA_PKCS1_SHA512),
                        _ => return sha3::sign(self.pkcs8.as_bytes(), algo, digest),
                    };
                let digest = Digest::import_less_safe(digest, algorithm).map_err(failed)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(encoding, &digest, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            Key::Ec(key) => key.sign(algo, digest),
            Key::MlDsa(_) => Err(no_digests(self.kind)),
        }
    }

    fn sign_message(&self, algo: HashAlgorithm, message: &[u8]) -> Result<Vec<u8>> {
        if let Key::MlDsa(pair) = &self.key {
            let mut signature = vec![0; pair.algorithm().signature_len()];
            return match pair.sign(message, &mut signature) {
                Ok(_) => Ok(signature),
                Err(_) => Err(Fault::new(
                    Code::SigningFailed,
                    format!("{} signature", self.kind),
                )),
            };
        }
        self.sign_digest(algo, &digest_of(algo, message)?)
    }

    fn is_quickly_repeated(&self) -> bool {
        // Verifying with ECDSA takes two to three times as long as signing; with RSA it is a tenth.
        matches!(self.key, Key::Ec(_))
    }
}

fn curve_algorithm(kind: KeyKind) -> &'static EcdsaSigningAlgorithm {
    match kind {
        KeyKind::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        KeyKind::P521 => &ECDSA_P521_SHA512_ASN1_SIGNING,
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

fn ml_dsa_algorithm(set: MlDsa) -> &'static PqdsaSigningAlgorithm {
    match set {
        MlDsa::MlDsa44 => &ML_DSA_44_SIGNING,
        MlDsa::MlDsa65 => &ML_DSA_65_SIGNING,
        MlDsa::MlDsa87 => &ML_DSA_87_SIGNING,
    }
}

fn ec_pair(kind: KeyKind, pkcs8: &[u8]) -> Result<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(curve_algorithm(kind), pkcs8)
        .map_err(|error| malformed(format!("{kind} key: {error}")))
}

fn modulus_bits(pair: &RsaKeyPair) -> u32 {
    u32::try_from(pair.public_modulus_len().saturating_mul(8)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::no_password;
    use std::process::Command;

    fn openssl(arguments: &[&str], directory: &Path) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(directory)
            .output()
            .expect("openssl is needed");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs a script in `directory`.
    fn shell(script: &str, directory: &Path) {
        let output = Command::new("sh")
            .args(["-euc", script])
            .current_dir(directory)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }

    /// Every form that openssl writes of a key, by the names of the files.
    const FORMS: &str = "
        openssl pkcs8 -topk8 -in key -nocrypt -out p8
        openssl pkcs8 -topk8 -in key -nocrypt -outform DER -out p8.der
        openssl pkey -in key -traditional -out old
        openssl pkey -in key -traditional -outform DER -out old.der
        openssl pkcs8 -topk8 -in key -passout pass:secret -out encrypted
        openssl pkcs8 -topk8 -in key -passout pass:secret -outform DER -out encrypted.der
        openssl pkcs8 -topk8 -in key -passout pass:secret -scrypt -out encrypted-scrypt
        openssl pkcs8 -topk8 -in key -passout pass:secret -v2 des3 -v2prf hmacWithSHA1 -out encrypted-des3
        for cipher in aes128 aes192 aes256 des3; do
            openssl pkey -in key -traditional -$cipher -passout pass:secret -out encrypted-old-$cipher
            grep -q 'Proc-Type: 4,ENCRYPTED' encrypted-old-$cipher
        done
        rm key";

    #[test]
    fn keys_in_every_form_openssl_writes() {
        for (make, kind) in [
            ("genrsa -out key 2048", KeyKind::Rsa(2048)),
            ("ecparam -genkey -name prime256v1 -out key", KeyKind::P256),
            ("ecparam -genkey -name secp384r1 -out key", KeyKind::P384),
            ("ecparam -genkey -name secp521r1 -out key", KeyKind::P521),
        ] {
            let directory = tempfile::tempdir().unwrap();
            shell(&format!("openssl {make}\n{FORMS}"), directory.path());
            let plain = FileKey::load(&directory.path().join("p8"), &no_password).unwrap();
            assert_eq!(plain.kind(), kind);
            let mut forms = 0;
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                let path = entry.unwrap().path();
                let key = FileKey::load(&path, &|| Ok(b"secret".to_vec()))
                    .unwrap_or_else(|fault| panic!("{kind}: {fault}"));
                assert_eq!(key.public_key(), plain.public_key(), "{}", path.display());
                assert_eq!(key.kind(), kind, "{}", path.display());
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                // Each try takes its time; how a key is encrypted has nothing to do with its kind.
                if name.starts_with("encrypted") && kind == KeyKind::P256 {
                    for source in [
                        &no_password as PasswordSource<'_>,
                        &|| Ok(b"wrong".to_vec()),
                    ] {
                        let fault = FileKey::load(&path, source).unwrap_err();
                        assert_eq!(fault.code(), Code::KeyPassword, "{name}: {fault}");
                    }
                }
                forms += 1;
            }
            assert_eq!(forms, 12);
        }
    }

    #[test]
    fn keys_written_here_are_read_by_openssl() {
        let directory = tempfile::tempdir().unwrap();
        for (name, kind) in [
            ("rsa", KeyKind::Rsa(2048)),
            ("p256", KeyKind::P256),
            ("p384", KeyKind::P384),
            ("p521", KeyKind::P521),
        ] {
            let key = FileKey::generate(kind).unwrap();
            let pem = key.to_pem(Some(b"secret")).unwrap();
            assert!(pem.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"));
            std::fs::write(directory.path().join(name), &pem).unwrap();
            openssl(
                &[
                    "pkey",
                    "-in",
                    name,
                    "-passin",
                    "pass:secret",
                    "-out",
                    "plain",
                    "-check",
                ],
                directory.path(),
            );
            let plain = FileKey::load(&directory.path().join("plain"), &no_password).unwrap();
            assert_eq!(plain.public_key(), key.public_key(), "{name}");
            let again = FileKey::from_bytes(&key.to_pem(None).unwrap(), &no_password).unwrap();
            assert_eq!(again.public_key(), key.public_key());
        }
    }

    #[test]
    fn keys_of_ml_dsa_are_read_as_they_were_written() {
        for set in MlDsa::ALL {
            let key = FileKey::generate(KeyKind::MlDsa(set)).unwrap();
            // How a key is encrypted has nothing to do with its kind, and takes its time.
            let password = (set == MlDsa::MlDsa65).then_some(&b"secret"[..]);
            let pem = key.to_pem(password).unwrap();
            let again = FileKey::from_bytes(&pem, &|| Ok(b"secret".to_vec())).unwrap();
            assert_eq!(again.kind(), KeyKind::MlDsa(set));
            assert_eq!(again.public_key(), key.public_key(), "{set}");
            let algo = HashAlgorithm::Sha256;
            let digest = algo.digest(b"content").unwrap();
            let fault = key.sign_digest(algo, &digest).unwrap_err();
            assert_eq!(fault.code(), Code::SigningFailed, "{set}");
        }
    }

    #[test]
    fn what_is_no_key() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let pem = key.to_pem(None).unwrap();
        let encrypted = key.to_pem(Some(b"secret")).unwrap();
        let rsa_1024 = {
            let directory = tempfile::tempdir().unwrap();
            openssl(&["genrsa", "-out", "key", "1024"], directory.path());
            std::fs::read(directory.path().join("key")).unwrap()
        };
        let k256 = {
            let directory = tempfile::tempdir().unwrap();
            openssl(
                &["ecparam", "-genkey", "-name", "secp256k1", "-out", "key"],
                directory.path(),
            );
            std::fs::read(directory.path().join("key")).unwrap()
        };
        let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: RC2-40-CBC,0011223344556677\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, bytes, code) in [
            ("empty", &b""[..], Code::PrivateKeyMalformed),
            ("text", b"hello", Code::PrivateKeyMalformed),
            (
                "truncated PEM",
                &pem[..pem.len() / 2],
                Code::PrivateKeyMalformed,
            ),
            (
                "truncated DER",
                &key.pkcs8_der()[..40],
                Code::PrivateKeyMalformed,
            ),
            ("a certificate", certificate, Code::PrivateKeyMalformed),
            (
                "the old encryption with RC2",
                old,
                Code::PrivateKeyMalformed,
            ),
            ("RSA-1024", &rsa_1024, Code::PrivateKeyMalformed),
            ("secp256k1", &k256, Code::PrivateKeyMalformed),
            ("wrong password", &encrypted, Code::KeyPassword),
            (
                "truncated encrypted",
                &encrypted[..encrypted.len() / 2],
                Code::PrivateKeyMalformed,
            ),
        ] {
            let fault = FileKey::from_bytes(bytes, &|| Ok(b"wrong".to_vec())).unwrap_err();
            assert_eq!(fault.code(), code, "{name}: {fault}");
        }
        let fault = FileKey::from_bytes(&encrypted, &no_password).unwrap_err();
        assert_eq!(fault.code(), Code::KeyPassword);
        let fault = FileKey::load(Path::new("/nonexistent/key"), &no_password).unwrap_err();
        assert_eq!(fault.code(), Code::InputUnreadable);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_are_no_key(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            proptest::prop_assert!(FileKey::from_bytes(&bytes, &no_password).is_err());
        }

        #[test]
        fn a_damaged_key_does_no_harm(
            at in proptest::prelude::any::<proptest::sample::Index>(),
            value in proptest::prelude::any::<u8>(),
            pem in proptest::prelude::any::<bool>(),
        ) {
            static KEY: std::sync::LazyLock<FileKey> =
                std::sync::LazyLock::new(|| FileKey::generate(KeyKind::P256).unwrap());
            let mut bytes = if pem { KEY.to_pem(None).unwrap() } else { KEY.pkcs8_der().to_vec() };
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(key) = FileKey::from_bytes(&bytes, &no_password) {
                proptest::prop_assert_eq!(key.kind(), KeyKind::P256);
            }
        }
    }

    #[test]
    fn digests_of_every_length() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("content"), b"content").unwrap();
        for kind in [
            KeyKind::Rsa(2048),
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
        ] {
            let key = FileKey::generate(kind).unwrap();
            let certificate = crate::x509::Template::leaf("test")
                .sign(&key, None, None)
                .unwrap();
            for algo in crate::key::SIGNED {
                let digest = algo.digest(b"content").unwrap();
                let signature = key.sign_digest(algo, &digest).unwrap();
                assert_eq!(
                    ima::verify::verify_digest(&certificate, algo, &digest, &signature),
                    Ok(()),
                    "{kind} {algo}"
                );
                // And by somebody else's code.
                std::fs::write(directory.path().join("key"), key.to_pem(None).unwrap()).unwrap();
                std::fs::write(directory.path().join("signature"), &signature).unwrap();
                let digest_option = format!("-{algo}");
                openssl(
                    &[
                        "dgst",
                        &digest_option,
                        "-prverify",
                        "key",
                        "-signature",
                        "signature",
                        "content",
                    ],
                    directory.path(),
                );
            }
            for (algo, len) in [
                (HashAlgorithm::Sha1, 20),
                (HashAlgorithm::Md5, 16),
                (HashAlgorithm::Streebog256, 32),
            ] {
                let fault = key.sign_digest(algo, &vec![0; len]).unwrap_err();
                assert_eq!(fault.code(), Code::SigningFailed, "{algo}");
            }
            let fault = key
                .sign_digest(HashAlgorithm::Sha256, &[0; 31])
                .unwrap_err();
            assert_eq!(fault.code(), Code::SigningFailed);
        }
    }
}
