//! A root hash with its signature, as it lies in a partition of its own: the root verity signature partition of the Discoverable
//! Partitions Specification (UAPI.2), which systemd-repart and `imactl image` make.
//!
//! The partition holds a JSON object, and NULs behind it. These members are strings, others are not looked at:
//!
//! | member | value |
//! |---|---|
//! | `rootHash` | the root hash in hexadecimal |
//! | `signature` | a detached PKCS #7 signature in base64, over the hexadecimal digits of the root hash in lower case |
//! | `certificateFingerprint` | the SHA-256 digest of the signer's certificate in hexadecimal; not used here |
//!
//! Nothing of it is trusted before the kernel has verified the signature (drivers/md/dm-verity-verify-sig.c).

use base64ct::{Base64, Encoding as _};

use super::RootHash;
use crate::certificate::Certificate;
use crate::cmdline::{self, RootName};
use crate::fault::{Cause, Code, Fault};
use crate::hash::HashAlgorithm;
use crate::hex;
use crate::json::{JsonError, Value};
use crate::pkcs7::{DetachedSignature, Pkcs7Error};
use crate::release::Release;
use crate::revocation::Revocations;
use crate::verify::{VerifyDigest, VerifyError};

/// How much of the partition is read, in bytes.
pub const MAX_LENGTH: usize = 64 << 10;

/// The length to which a file for the partition is filled up, in bytes: that of a block.
const BLOCK: usize = 4096;

/// The first release with `.dm-verity`, a keyring of certificates for signed root hashes alone.
pub const KEYRING_SINCE: Release = Release::new(7, 0);

/// Where a running kernel says whether it left that keyring open: `Y` or `N`.
pub const KEYRING_UNSEALED: &str = "/sys/module/dm_verity/parameters/keyring_unsealed";

/// Whether the command line has the kernel leave that keyring open, so that certificates can be added to it
/// (drivers/md/dm-verity-verify-sig.c, `dm_verity_verify_sig_init`). The last parameter counts; a value that is none
/// changes nothing (lib/kstrtox.c, `kstrtobool`).
#[must_use]
pub fn leaves_keyring_unsealed(line: &str) -> bool {
    let values = cmdline::parameters(line)
        .filter(|parameter| parameter.is("dm_verity.keyring_unsealed"))
        .filter_map(|parameter| match parameter.value {
            None => Some(true),
            Some(value) => match value.as_bytes() {
                [b'e' | b'E' | b'y' | b'Y' | b't' | b'T' | b'1', ..]
                | [b'o' | b'O', b'n' | b'N', ..] => Some(true),
                [b'd' | b'D' | b'n' | b'N' | b'f' | b'F' | b'0', ..]
                | [b'o' | b'O', b'f' | b'F', ..] => Some(false),
                _ => None,
            },
        });
    values.last().unwrap_or(false)
}

/// The type of the partition in a GPT, for the architecture that this program is built for; none for an architecture that the
/// specification has no type for.
pub const PARTITION_TYPE: Option<&str> = partition_type(std::env::consts::ARCH);

/// The type of the partition for a root of this architecture, named as Rust names it.
#[must_use]
pub const fn partition_type(architecture: &str) -> Option<&'static str> {
    match architecture.as_bytes() {
        b"aarch64" => Some("6db69de6-29f4-4758-a7a5-962190f00ce3"),
        b"arm" => Some("42b0455f-eb11-491d-98d3-56145ba9d037"),
        b"riscv64" => Some("efe0f087-ea8d-4469-821a-4c2a96a8386a"),
        b"x86" => Some("5996fc05-109c-48de-808b-23fa0830b676"),
        b"x86_64" => Some("41092b05-9fc8-4523-994f-2def0408b176"),
        _ => None,
    }
}

/// The device of the signed root hash: the configured one, otherwise the partition of this type.
///
/// # Errors
///
/// [`Code::VeritySignatureMissing`] if none is configured and there is no type for the architecture.
pub fn device(configured: Option<&RootName>, kind: Option<&str>) -> Result<RootName, Fault> {
    let of_type = || kind.map(|kind| RootName::PartType(kind.to_owned()));
    configured.cloned().or_else(of_type).ok_or_else(|| {
        Fault::new(Code::VeritySignatureMissing, "verity_signature= is not set")
            .because(Cause::PROCESSOR_WITHOUT_PARTITION_TYPE)
    })
}

/// Why the content of a partition is not a signed root hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not JSON, or a member is there twice.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is missing, or the value is not an object.
    #[error("the member {0} is missing")]
    Missing(&'static str),
    /// A member has a value of another form.
    #[error("the member {0} is malformed")]
    Malformed(&'static str),
    /// The signature is not of the kind that is taken.
    #[error("the signature: {0}")]
    Signature(Pkcs7Error),
}

/// A root hash and its signature, which is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRootHash {
    root_hash: RootHash,
    message: Vec<u8>,
    signature: DetachedSignature,
}

impl SignedRootHash {
    /// Combines a root hash and a message of PKCS #7 in DER.
    ///
    /// # Errors
    ///
    /// [`Pkcs7Error`].
    pub fn new(root_hash: RootHash, message: Vec<u8>) -> Result<Self, Pkcs7Error> {
        Ok(Self {
            signature: DetachedSignature::parse(&message)?,
            root_hash,
            message,
        })
    }

    /// Parses the beginning of the partition: at most [`MAX_LENGTH`] bytes.
    ///
    /// # Errors
    ///
    /// [`SignedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        let bytes = bytes.get(..MAX_LENGTH).unwrap_or(bytes);
        let text = str::from_utf8(bytes).map_err(|error| JsonError(error.valid_up_to()))?;
        let object =
            Value::parse(text.trim_end_matches(|c: char| c == '\0' || c.is_ascii_whitespace()))?;
        let member = |name| {
            let value = object.get(name).ok_or(SignedError::Missing(name))?;
            value.string().ok_or(SignedError::Malformed(name))
        };
        let root_hash =
            RootHash::parse(member("rootHash")?).ok_or(SignedError::Malformed("rootHash"))?;
        let message = Base64::decode_vec(member("signature")?)
            .map_err(|_| SignedError::Malformed("signature"))?;
        Self::new(root_hash, message).map_err(SignedError::Signature)
    }

    /// The content of the partition: whole blocks of 4096 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let certificate = self.signature.signer().der();
        let fingerprint = HashAlgorithm::Sha256.digest(certificate);
        let text = format!(
            "{{\"rootHash\":\"{}\",\"certificateFingerprint\":\"{}\",\"signature\":\"{}\"}}",
            self.root_hash,
            hex::encode(&fingerprint.unwrap_or_default()),
            Base64::encode_string(&self.message)
        );
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// What is signed: the root hash in hexadecimal, which is how the kernel's table has it.
    #[must_use]
    pub fn signed_text(root_hash: &RootHash) -> String {
        root_hash.to_string()
    }

    /// The root hash.
    #[must_use]
    pub const fn root_hash(&self) -> &RootHash {
        &self.root_hash
    }

    /// The signature as it is given to the kernel: a message of PKCS #7 in DER.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Every certificate of the signature: the signer's, and others, by which the kernel may find a way to a trusted key.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        self.signature.certificates()
    }

    /// The certificate of the signer.
    #[must_use]
    pub const fn signer(&self) -> &Certificate {
        self.signature.signer()
    }

    /// Checks the signature. Whether the signer is to be trusted is not looked at.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify(&self, verify: VerifyDigest) -> Result<(), VerifyError> {
        self.signature
            .verify(verify, Self::signed_text(&self.root_hash).as_bytes())
    }
}

/// The signed root hash that the beginning of the device holds, if none of its certificates is revoked. What is revoked by the
/// configuration is unknown to the kernel, which would take the signature.
///
/// # Errors
///
/// [`Code::VeritySignature`].
pub fn usable(bytes: &[u8], path: &str, revoked: &Revocations) -> Result<SignedRootHash, Fault> {
    let found = SignedRootHash::parse(bytes)
        .map_err(|error| Fault::new(Code::VeritySignature, format!("{path}: {error}")))?;
    let mut certificates = found.certificates().iter();
    match certificates.find_map(|it| Some((it.subject(), revoked.of(it)?))) {
        None => Ok(found),
        Some((subject, revoked)) => Err(Fault::new(
            Code::VeritySignature,
            format!("{path}: {subject}"),
        )
        .because(Cause::SIGNER_REVOKED.with(&[&revoked.to_string()]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: &[u8] = include_bytes!("../../testdata/p256.p7");

    fn sample() -> SignedRootHash {
        let root_hash = RootHash::new(vec![0xab; 32]).unwrap();
        SignedRootHash::new(root_hash, MESSAGE.to_vec()).unwrap()
    }

    #[test]
    fn a_partition_is_read_as_it_is_written() {
        let bytes = sample().to_bytes();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(SignedRootHash::parse(&bytes), Ok(sample()));
        let digits = "ab".repeat(32);
        assert!(bytes.starts_with(format!("{{\"rootHash\":\"{digits}\",").as_bytes()));
        // As another program may write it, with members that are not known.
        let base64 = Base64::encode_string(MESSAGE);
        let other = format!(
            " {{ \"signature\" : \"{base64}\",\n\t\"other\":[\"\",1], \"rootHash\": \"{}\" }}\r\n",
            digits.to_uppercase()
        );
        assert_eq!(SignedRootHash::parse(other.as_bytes()), Ok(sample()));
    }

    #[test]
    fn content_that_is_no_signed_root_hash() {
        let hash = "ab".repeat(32);
        let base64 = Base64::encode_string(MESSAGE);
        let cases = [
            (String::new(), SignedError::Json(JsonError(0))),
            ("\0\0".to_owned(), SignedError::Json(JsonError(0))),
            ("{}".to_owned(), SignedError::Missing("rootHash")),
            ("{\"a\":1}".to_owned(), SignedError::Missing("rootHash")),
            ("[]".to_owned(), SignedError::Missing("rootHash")),
            ("{\"a\":\"\n\"}".to_owned(), SignedError::Json(JsonError(7))),
            ("{\"a\":\"b\",}".to_owned(), SignedError::Json(JsonError(9))),
            (
                "{\"a\":\"b\"} x".to_owned(),
                SignedError::Json(JsonError(10)),
            ),
            (
                format!("{{\"rootHash\":\"{hash}\"}}"),
                SignedError::Missing("signature"),
            ),
            (
                format!("{{\"rootHash\":\"{hash}\",\"rootHash\":\"{hash}\"}}"),
                SignedError::Json(JsonError(156)),
            ),
            (
                "{\"rootHash\":1}".to_owned(),
                SignedError::Malformed("rootHash"),
            ),
            (
                format!("{{\"rootHash\":\"abcd\",\"signature\":\"{base64}\"}}"),
                SignedError::Malformed("rootHash"),
            ),
            (
                format!("{{\"rootHash\":\"{hash}\",\"signature\":\"{base64}!\"}}"),
                SignedError::Malformed("signature"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                SignedRootHash::parse(text.as_bytes()),
                Err(expected),
                "{text}"
            );
        }
        let text = format!("{{\"rootHash\":\"{hash}\",\"signature\":\"AAAA\"}}");
        assert!(matches!(
            SignedRootHash::parse(text.as_bytes()),
            Err(SignedError::Signature(_))
        ));
        let mut long = sample().to_bytes();
        long.resize(MAX_LENGTH, b' ');
        assert_eq!(SignedRootHash::parse(&long), Ok(sample()));
    }

    #[test]
    fn the_command_line_leaves_the_keyring_open() {
        for (line, expected) in [
            ("", false),
            ("root=/dev/vda dm_verity.keyring_unsealed=1 quiet", true),
            ("dm-verity.keyring-unsealed", true),
            ("dm_verity.keyring_unsealed=on", true),
            ("dm_verity.keyring_unsealed=enable", true),
            (
                "dm_verity.keyring_unsealed=Y dm_verity.keyring_unsealed=0",
                false,
            ),
            (
                "dm_verity.keyring_unsealed=Y dm_verity.keyring_unsealed=maybe",
                true,
            ),
            ("dm_verity.keyring_unsealed=", false),
            (
                "dm_verity.keyring_unsealed dm_verity.keyring_unsealed=disable",
                false,
            ),
            ("keyring_unsealed=1 dm_verity.keyring_unsealed=off", false),
            ("-- dm_verity.keyring_unsealed=1", false),
        ] {
            assert_eq!(leaves_keyring_unsealed(line), expected, "{line}");
        }
    }

    #[test]
    fn an_architecture_has_a_type() {
        assert_eq!(partition_type("m68k"), None);
        let types = ["aarch64", "arm", "riscv64", "x86", "x86_64"].map(partition_type);
        for (at, found) in types.iter().enumerate() {
            assert!(found.is_some_and(|found| found.len() == 36));
            assert!(!types[..at].contains(found));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(SignedRootHash::parse(&bytes).is_err());
        }

        /// What a changed partition says is what its text says: written again and read again, it is the same.
        #[test]
        fn changed_partitions(changes in proptest::collection::vec((0..1500_usize, any::<u8>()), 1..4)) {
            let mut bytes = sample().to_bytes();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if let Ok(parsed) = SignedRootHash::parse(&bytes) {
                prop_assert_eq!(SignedRootHash::parse(&parsed.to_bytes()), Ok(parsed));
            }
        }
    }
}
