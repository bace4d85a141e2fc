//! Runtime policies of Keylime: what its verifier accepts in a measurement list (keylime/ima/ima.py, `RUNTIME_POLICY_SCHEMA`
//! and `_process_measurement_list`).

use std::collections::{BTreeMap, BTreeSet};

use base64ct::{Base64, Encoding as _};
use der::{Decode as _, Encode as _};
use ima::certificate::{Certificate, PublicKey};
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::hex;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::digest::DigestOf;
use crate::tree::{Kind, Tree};

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

    /// Accepts the regular files of a tree under each of their names, and under the same names below each of `mount_points`, such as
    /// `/rootfs`: what the init executes before the tree is the root is listed with that name. `progress` is called once a file.
    /// Returns how many names were left out because they are not UTF-8: a policy is JSON.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`].
    pub fn accept_files(
        &mut self,
        tree: &Tree,
        mount_points: &[String],
        progress: &(dyn Fn() + Sync),
    ) -> Result<usize> {
        let names = tree.names_by_inode();
        let digests: Vec<Option<String>> = names
            .par_iter()
            .map(|(index, _)| {
                let Kind::File(content) = &tree.inode(*index).kind else {
                    return Ok(None);
                };
                progress();
                let digest = content.digest(DigestOf::Content, self.algo)?;
                Ok(Some(hex::encode(&digest)))
            })
            .collect::<Result<_>>()?;
        let mut left_out = 0;
        for (names, digest) in names.values().zip(digests) {
            let Some(digest) = digest else { continue };
            for name in names {
                let Ok(name) = std::str::from_utf8(name) else {
                    left_out += 1;
                    continue;
                };
                for mount_point in
                    std::iter::once("").chain(mount_points.iter().map(String::as_str))
                {
                    accept(
                        &mut self.files,
                        &format!("{mount_point}/{name}"),
                        digest.clone(),
                    );
                }
            }
        }
        Ok(left_out)
    }

    /// Accepts a file of this name and content.
    pub fn accept_content(&mut self, name: &str, content: &[u8]) {
        let digest = self.digest(content);
        accept(&mut self.files, name, digest);
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

    /// Accepts that this certificate is put onto a keyring (`measure func=KEY_CHECK`).
    pub fn accept_key(&mut self, keyring: &str, certificate: &Certificate) {
        let digest = self.digest(certificate.der());
        accept(&mut self.keyrings, keyring, digest);
    }

    /// Accepts these bytes in an entry of the template `ima-buf`, such as `kexec-cmdline`.
    pub fn accept_buffer(&mut self, name: &str, content: &[u8]) {
        let digest = self.digest(content);
        accept(&mut self.buffers, name, digest);
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
    use crate::tree::{Content, Inode};
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
        assert_eq!(
            policy.accept_files(&tree, &mount_points, &|| ()).unwrap(),
            1
        );
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
        let mut policy = policy();
        policy.accept_buffer("kexec-cmdline", b"quiet");
        policy.accept_buffer("kexec-cmdline", b"debug");
        policy.accept_buffer("kexec-cmdline", b"debug");
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
            policy.accept_key(".ima", certificate);
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
