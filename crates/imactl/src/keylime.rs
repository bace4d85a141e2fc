//! Runtime policies of Keylime: what its verifier accepts in a measurement list (keylime/ima/ima.py, `RUNTIME_POLICY_SCHEMA`
//! and `_process_measurement_list`).

use std::collections::{BTreeMap, BTreeSet};

use base64ct::{Base64, Encoding as _};
use der::{Decode as _, Encode as _};
use ima::certificate::{Certificate, PublicKey};
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::hex;
use serde_json::{Value, json};

use crate::Result;
use crate::prediction::Measured;

/// The algorithms whose digests the schema takes by their length, from 40 to 128 digits.
const ALGORITHMS: [HashAlgorithm; 4] = [
    HashAlgorithm::Sha1,
    HashAlgorithm::Sha256,
    HashAlgorithm::Sha384,
    HashAlgorithm::Sha512,
];

/// Digests in hexadecimal, by the name that the list has for what they are of.
type Digests = BTreeMap<String, BTreeSet<String>>;

/// A runtime policy.
#[derive(Debug, Clone)]
pub struct RuntimePolicy {
    algo: HashAlgorithm,
    files: Digests,
    keyrings: Digests,
    buffers: Digests,
    excludes: Vec<String>,
    keys: Vec<Certificate>,
    /// Names that are not UTF-8.
    left_out: usize,
    /// Whether a file is accepted for its signature.
    signatures: bool,
}

impl RuntimePolicy {
    /// A policy that accepts nothing. `algo` is the one that the kernel measures files with (`ima_hash=`,
    /// `CONFIG_IMA_DEFAULT_HASH`), not the bank of the TPM.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] for an algorithm whose digests Keylime does not take.
    pub fn new(algo: HashAlgorithm) -> Result<Self> {
        if !ALGORITHMS.contains(&algo) {
            let known = ALGORITHMS.map(|algo| algo.to_string()).join(", ");
            return Err(Fault::new(
                Code::Usage,
                format!("Keylime takes no digests of {algo}; it takes {known}"),
            ));
        }
        Ok(Self {
            algo,
            files: Digests::new(),
            keyrings: Digests::new(),
            buffers: Digests::new(),
            excludes: Vec::new(),
            keys: Vec::new(),
            left_out: 0,
            signatures: true,
        })
    }

    /// Accepts no file for its signature, and therefore any key on any keyring: Keylime accepts what the keys of the keyrings that it
    /// verifies have signed (`_validate_ima_buf`).
    #[must_use]
    pub fn with_digests_alone(self) -> Self {
        Self {
            signatures: false,
            ..self
        }
    }

    /// Accepts that this is measured. A name that is not UTF-8 is left out and counted: a policy is JSON.
    pub fn accept(&mut self, measured: Measured<'_>) {
        match measured {
            Measured::File { name, digest, .. } => match std::str::from_utf8(name) {
                Ok(name) => accept(&mut self.files, name, hex::encode(digest)),
                Err(_) => self.left_out = self.left_out.saturating_add(1),
            },
            Measured::Key {
                keyring,
                certificate,
            } => {
                let digest = self.digest(certificate.der());
                accept(&mut self.keyrings, keyring, digest);
            }
            Measured::Buffer { name, content } => {
                let digest = self.digest(content);
                accept(&mut self.buffers, name, digest);
            }
        }
    }

    /// How many names of files were left out because they are not UTF-8.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Accepts this as the `boot_aggregate`, in hexadecimal: of whichever bank the kernel chose.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] if it is not a digest that Keylime takes.
    pub fn accept_boot_aggregate(&mut self, digest: &str) -> Result<()> {
        let bytes = hex::decode(digest).filter(|bytes| {
            let mut lengths = ALGORITHMS.iter().map(|algo| algo.digest_len());
            lengths.any(|length| length == bytes.len())
        });
        let bytes =
            bytes.ok_or_else(|| Fault::new(Code::Usage, format!("`{digest}` is no digest")))?;
        accept(&mut self.files, "boot_aggregate", hex::encode(&bytes));
        Ok(())
    }

    /// Accepts every file that has a good signature by the key of this certificate, whatever its name and content.
    ///
    /// # Errors
    ///
    /// [`Code::CertificateUnusable`] if Keylime does not verify with such keys.
    pub fn accept_signatures(&mut self, certificate: &Certificate) -> Result<()> {
        if !matches!(
            certificate.key(),
            PublicKey::Rsa { .. } | PublicKey::Ec { .. }
        ) {
            return Err(Fault::new(
                Code::CertificateUnusable,
                format!(
                    "`{}`: Keylime verifies signatures of RSA and elliptic curves alone",
                    certificate.subject()
                ),
            ));
        }
        if !self
            .keys
            .iter()
            .any(|known| known.der() == certificate.der())
        {
            self.keys.push(certificate.clone());
        }
        Ok(())
    }

    /// Accepts whatever has a name that this regular expression of Python's matches from its start.
    pub fn exclude(&mut self, expression: &str) {
        self.excludes.push(expression.to_owned());
    }

    /// How many names of files it accepts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it accepts no file by its digest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The policy as Keylime's tenant takes it.
    ///
    /// # Errors
    ///
    /// [`Code::CertificateInvalid`] if the public key of a certificate cannot be taken out of it.
    pub fn to_json(&self) -> Result<Value> {
        let ignored = if self.signatures { &[][..] } else { &["*"] };
        Ok(json!({
            "meta": { "version": 1, "generator": 0 },
            "release": 0,
            "digests": self.files,
            "excludes": self.excludes,
            "keyrings": self.keyrings,
            // The template digests of the list that the agent sends are of SHA-1 (ascii_runtime_measurements).
            "ima": { "ignored_keyrings": ignored, "log_hash_alg": "sha1", "dm_policy": null },
            "ima-buf": self.buffers,
            "verification-keys": self.verification_keys()?,
        }))
    }

    /// Text within the policy (keylime/ima/file_signatures.py, `ImaKeyring.from_string`).
    fn verification_keys(&self) -> Result<String> {
        if self.keys.is_empty() || !self.signatures {
            return Ok(String::new());
        }
        let ids: Vec<u32> = self
            .keys
            .iter()
            .map(|key| u32::from_be_bytes(key.key_id().0))
            .collect();
        let keys: Vec<String> = self.keys.iter().map(public_key).collect::<Result<_>>()?;
        Ok(json!({ "meta": { "version": 1 }, "keyids": ids, "pubkeys": keys }).to_string())
    }

    fn digest(&self, bytes: &[u8]) -> String {
        // `new` takes no algorithm that is not computed.
        hex::encode(&self.algo.digest(bytes).unwrap_or_default())
    }
}

/// The kernel shows a blank in a name as `_` (security/integrity/ima/ima_template_lib.c, `ima_write_template_field_data`).
fn accept(digests: &mut Digests, name: &str, digest: String) {
    let name = name.replace(' ', "_");
    digests.entry(name).or_default().insert(digest);
}

/// DER of the SubjectPublicKeyInfo in Base64.
fn public_key(certificate: &Certificate) -> Result<String> {
    x509_cert::Certificate::from_der(certificate.der())
        .and_then(|parsed| parsed.tbs_certificate().subject_public_key_info().to_der())
        .map(|der| Base64::encode_string(&der))
        .map_err(|error| {
            Fault::new(
                Code::CertificateInvalid,
                format!("`{}`: {error}", certificate.subject()),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind};
    use crate::prediction::files;
    use crate::tree::{Content, Inode, Kind, Tree};
    use crate::x509::Template;

    fn policy() -> RuntimePolicy {
        RuntimePolicy::new(HashAlgorithm::Sha256).unwrap()
    }

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(&HashAlgorithm::Sha256.digest(bytes).unwrap())
    }

    fn certificate(kind: KeyKind) -> Certificate {
        let key = FileKey::generate(kind).unwrap();
        Template::leaf("a key").sign(&key, None, None).unwrap()
    }

    #[test]
    fn files_are_accepted_under_all_their_names() {
        let mut tree = Tree::new();
        let file =
            |text: &str| Inode::new(Kind::File(Content::Bytes(text.as_bytes().into())), 0o644);
        tree.insert(b"usr/bin/one two", file("a")).unwrap();
        tree.link(b"usr/bin/other", b"usr/bin/one two").unwrap();
        tree.insert(b"caf\xe9", file("b")).unwrap();
        let mut policy = policy();
        let mount_points = ["/rootfs".to_owned()];
        let algo = HashAlgorithm::Sha256;
        files(&tree, &mount_points, algo, &|| (), &mut |measured| {
            policy.accept(measured);
            Ok(())
        })
        .unwrap();
        assert_eq!(policy.left_out(), 2);
        let digests = policy.to_json().unwrap()["digests"].clone();
        let names = [
            "/usr/bin/one_two",
            "/usr/bin/other",
            "/rootfs/usr/bin/one_two",
            "/rootfs/usr/bin/other",
        ];
        assert_eq!(digests.as_object().unwrap().len(), names.len());
        for name in names {
            assert_eq!(digests[name], json!([sha256(b"a")]), "{name}");
        }
    }

    #[test]
    fn two_contents_of_a_name_are_both_accepted() {
        let accept = |policy: &mut RuntimePolicy, content: &[u8]| {
            let name = "kexec-cmdline";
            policy.accept(Measured::Buffer { name, content });
        };
        let mut policy = policy();
        accept(&mut policy, b"quiet");
        accept(&mut policy, b"debug");
        accept(&mut policy, b"debug");
        let mut digests = [sha256(b"quiet"), sha256(b"debug")];
        digests.sort();
        assert_eq!(
            policy.to_json().unwrap()["ima-buf"]["kexec-cmdline"],
            json!(digests)
        );
    }

    #[test]
    fn keys_are_as_keylime_reads_them() {
        let mut policy = policy();
        let (rsa, ec) = (certificate(KeyKind::Rsa(2048)), certificate(KeyKind::P256));
        for certificate in [&rsa, &ec, &rsa] {
            policy.accept_signatures(certificate).unwrap();
            policy.accept(Measured::Key {
                keyring: ".ima",
                certificate,
            });
        }
        let json = policy.to_json().unwrap();
        assert_eq!(json["keyrings"][".ima"].as_array().unwrap().len(), 2);
        let alone = policy.clone().with_digests_alone().to_json().unwrap();
        assert_eq!(alone["verification-keys"], "");
        assert_eq!(alone["ima"]["ignored_keyrings"], json!(["*"]));
        assert_eq!(json["ima"]["ignored_keyrings"], json!([]));
        let keys: Value =
            serde_json::from_str(json["verification-keys"].as_str().unwrap()).unwrap();
        let ids = [&rsa, &ec].map(|key| u32::from_be_bytes(key.key_id().0));
        assert_eq!(keys["keyids"], json!(ids));
        for (text, certificate) in keys["pubkeys"].as_array().unwrap().iter().zip([rsa, ec]) {
            let der = Base64::decode_vec(text.as_str().unwrap()).unwrap();
            // It ends with the bits of the key.
            assert!(der.ends_with(certificate.public_key_bytes()));
        }
    }

    #[test]
    fn what_keylime_does_not_take_is_refused() {
        assert_eq!(
            RuntimePolicy::new(HashAlgorithm::Sm3).unwrap_err().code(),
            Code::Usage
        );
        let mut policy = policy();
        for digest in ["", "12", "xy", &"0".repeat(42)] {
            assert_eq!(
                policy.accept_boot_aggregate(digest).unwrap_err().code(),
                Code::Usage,
                "{digest}"
            );
        }
        policy.accept_boot_aggregate(&"AB".repeat(20)).unwrap();
        assert_eq!(
            policy.to_json().unwrap()["digests"]["boot_aggregate"],
            json!(["ab".repeat(20)])
        );
        let kind = KeyKind::MlDsa(ima::certificate::MlDsa::MlDsa44);
        assert_eq!(
            policy
                .accept_signatures(&certificate(kind))
                .unwrap_err()
                .code(),
            Code::CertificateUnusable
        );
    }
}
