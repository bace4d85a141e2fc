//! The keys and certificates of the tests, made once a process.

use std::sync::{Arc, LazyLock};

use ima::certificate::Certificate;
use ima::evm::{Attributes, Layout};
use ima::hash::HashAlgorithm;
use ima::verity::VerityHasher;
use ima_testbed::report::encode_hex;
use imactl::identity::{Identity, Version};
use imactl::key::{FileKey, KeyKind, Signer, no_password};
use imactl::x509::Template;

use crate::built::source;

/// A private key and its certificate.
#[derive(Debug)]
pub struct Pair {
    pub key: Arc<FileKey>,
    pub certificate: Certificate,
    /// What its signatures are over.
    pub algo: HashAlgorithm,
    pub version: Version,
    /// Of the kernel that its values of security.evm are for.
    pub layout: Layout,
}

impl Pair {
    /// A new key with a certificate made from `template`, signed by `issuer` or by itself.
    pub fn new(kind: KeyKind, template: &Template, issuer: Option<&Pair>) -> Pair {
        let key = FileKey::generate(kind).expect("a key");
        Pair::of(key, template, issuer)
    }

    fn of(key: FileKey, template: &Template, issuer: Option<&Pair>) -> Pair {
        let issuer = issuer.map(|issuer| (&*issuer.key as &dyn Signer, &issuer.certificate));
        let certificate = template.sign(&key, issuer, None).expect("a certificate");
        Pair::with(Arc::new(key), certificate)
    }

    /// A key and its certificate, for signatures as most are.
    pub fn with(key: Arc<FileKey>, certificate: Certificate) -> Pair {
        Pair {
            key,
            certificate,
            algo: HashAlgorithm::Sha256,
            version: Version::V2,
            layout: Layout::Bits64,
        }
    }

    /// The key for `imactl`'s own signing.
    pub fn identity(&self) -> Identity {
        let identity = Identity::new(self.key.clone(), &self.certificate, self.algo)
            .expect("an identity")
            .with_version(self.version);
        match self.layout {
            Layout::Bits32 => identity.for_32_bit_kernel(),
            _ => identity,
        }
    }

    /// The same key, whose signatures are of version 3.
    pub fn with_version_3(&self) -> Pair {
        Pair {
            version: Version::V3,
            ..self.copy()
        }
    }

    /// The same key, whose values of security.evm are for 32-bit kernels.
    pub fn for_32_bit_kernel(&self) -> Pair {
        Pair {
            layout: Layout::Bits32,
            ..self.copy()
        }
    }

    fn copy(&self) -> Pair {
        Pair {
            key: self.key.clone(),
            certificate: self.certificate.clone(),
            ..*self
        }
    }

    /// The certificate's serial number in hexadecimal.
    pub fn serial(&self) -> String {
        encode_hex(self.certificate.serial())
    }

    /// Its subject key identifier in hexadecimal.
    pub fn skid(&self) -> String {
        encode_hex(self.certificate.skid().expect("an identifier"))
    }

    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// The value of security.ima for a file with this digest.
    pub fn sign_digest(&self, digest: &[u8]) -> Vec<u8> {
        self.identity().sign_digest(digest).expect("a signature")
    }

    /// The value of security.evm, portable, for a regular file of root's with this mode and security.ima.
    pub fn sign_evm(&self, mode: u16, ima: &[u8]) -> Vec<u8> {
        let attributes = Attributes {
            mode: 0o100_000 | mode,
            uid: 0,
            gid: 0,
        };
        let xattrs = [(b"security.ima".to_vec(), ima.to_vec())].into();
        let signed = self.identity().sign_evm(&attributes, &xattrs);
        signed.expect("a signature")
    }

    /// The value of security.ima for a file with this content.
    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.sign_digest(&self.algo.digest(content).expect("a digest"))
    }

    /// The value of security.ima for a file with this content and fs-verity enabled.
    pub fn sign_verity(&self, content: &[u8]) -> Vec<u8> {
        let mut hasher = VerityHasher::new(self.algo).expect("fs-verity has the algorithm");
        hasher.update(content);
        let signed = self.identity().sign_verity(&hasher.finish());
        signed.expect("a signature")
    }
}

/// The CA in the kernel.
pub static CA: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(KeyKind::P256, &Template::ca("boots CA"), None));

/// A CA of which the kernel knows nothing.
pub static OTHER_CA: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(KeyKind::P256, &Template::ca("another CA"), None));

/// The CA that `Kernel::BuiltInCa` has compiled in. Its key is in the repository, so that the kernel is built once.
pub static BUILT_IN_CA: LazyLock<Pair> = LazyLock::new(|| {
    let read = |name: &str| source(&format!("tests/boots/built-in-ca.{name}"));
    let key = FileKey::from_bytes(&read("key"), &no_password).expect("a key");
    let certificate = Certificate::parse(&read("pem")).expect("a certificate");
    Pair::with(Arc::new(key), certificate)
});

/// A certificate for `.ima` from the CA in the kernel.
pub fn leaf(kind: KeyKind, name: &str) -> Pair {
    Pair::new(kind, &Template::leaf(name), Some(&CA))
}

/// The key that signs the roots unless a test says otherwise.
pub static RSA: LazyLock<Pair> = LazyLock::new(|| leaf(KeyKind::Rsa(2048), "boots RSA"));

/// Another key of another kind.
pub static P256: LazyLock<Pair> = LazyLock::new(|| leaf(KeyKind::P256, "boots P-256"));

/// The certificate as PEM (RFC 7468).
pub fn pem(der: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for group in der.chunks(3) {
        let mut bytes = [0; 3];
        bytes[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for position in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { digit } else { b'=' });
        }
    }
    let mut pem = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in text.chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    pem
}
