//! A signer behind a command: a token, a signing service, whatever has the private key.
//!
//! The protocol: the command is run once for each signature, several at a time, with two arguments after its own: the name of
//! the hash algorithm (`sha256`, `sha384`, `sha512`, `sha3-256`, `sha3-384`, `sha3-512`) and the digest in hexadecimal. It
//! writes the signature to standard output and nothing else: for RSA the bare EMSA-PKCS1-v1_5 signature, as long as the modulus,
//! for ECDSA the DER of `SEQUENCE { r, s }`. It ends with status 0; with any other, what it wrote to standard error is shown.
//! Each signature is checked against the certificate before it is used.

use std::process::{Command, Stdio};

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::hash::HashAlgorithm;
use ima::verify::verify_digest;

use super::kind::{KeyKind, check_signs_digests};
use super::signer::Signer;
use crate::Result;

/// A signer that runs a command.
#[derive(Debug)]
pub struct CommandSigner {
    program: String,
    arguments: Vec<String>,
    certificate: Certificate,
    kind: KeyKind,
}

impl CommandSigner {
    /// A signer with the key of `certificate`. `command` is a program and its arguments, separated by blanks; no shell looks at
    /// it.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] for an empty command, [`Code::CertificateUnusable`] for a certificate whose key is of a kind that is
    /// not used, [`Code::SigningFailed`] for one that signs no digests.
    pub fn new(command: &str, certificate: &Certificate) -> Result<Self> {
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or_else(|| {
            Fault::new(Code::Usage, "an empty signing command").because(Cause::EMPTY_COMMAND)
        })?;
        let kind = KeyKind::of(certificate)?;
        check_signs_digests(kind)?;
        Ok(Self {
            program,
            arguments: words.collect(),
            certificate: certificate.clone(),
            kind,
        })
    }
}

impl Signer for CommandSigner {
    fn public_key(&self) -> &[u8] {
        self.certificate.public_key_bytes()
    }

    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        let failed = |cause: Explanation| {
            Fault::new(Code::SigningFailed, self.program.clone()).because(cause)
        };
        let output = Command::new(&self.program)
            .args(&self.arguments)
            .arg(algo.name())
            .arg(crate::hex::encode(digest))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(Cause::COMMAND_NOT_RUN.with(&[&error.to_string()])))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let status = output.status.to_string();
            return Err(failed(Cause::COMMAND_FAILED.with(&[&status, said.trim()])));
        }
        verify_digest(&self.certificate, algo, digest, &output.stdout)
            .map_err(|error| failed(Cause::COMMAND_SIGNATURE_BAD.with(&[&error.to_string()])))?;
        Ok(output.stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::FileKey;
    use crate::x509::Template;

    /// A signing service of openssl and the shell: key, algorithm, digest.
    const SERVICE: &str = r#"#!/bin/sh
        set -eu
        printf '%s' "$3" | sed 's/../\\x&/g' | xargs -0 printf | openssl pkeyutl -sign -inkey "$1" -pkeyopt "digest:$2"
    "#;

    #[test]
    fn signatures_by_a_command() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("service"), SERVICE).unwrap();
        for kind in [
            KeyKind::Rsa(2048),
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
        ] {
            let key = FileKey::generate(kind).unwrap();
            let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
            std::fs::write(at("key"), key.to_pem(None).unwrap()).unwrap();
            let command = format!("sh {} {}", at("service").display(), at("key").display());
            let signer = CommandSigner::new(&command, &certificate).unwrap();
            assert_eq!(
                (signer.kind(), signer.public_key()),
                (kind, key.public_key())
            );
            for algo in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
                let digest = algo.digest(b"content").unwrap();
                let signature = signer.sign_digest(algo, &digest).unwrap();
                assert_eq!(
                    verify_digest(&certificate, algo, &digest, &signature),
                    Ok(()),
                    "{kind} {algo}"
                );
                if matches!(kind, KeyKind::Rsa(_)) {
                    assert_eq!(signature, key.sign_digest(algo, &digest).unwrap());
                }
            }
            let digest = [7; 32];
            for (name, command) in [
                ("not there", "/nonexistent/program"),
                ("fails", "false"),
                ("says nothing", "true"),
                ("says something else", "echo"),
            ] {
                let signer = CommandSigner::new(command, &certificate).unwrap();
                let fault = signer
                    .sign_digest(HashAlgorithm::Sha256, &digest)
                    .unwrap_err();
                assert_eq!(fault.code(), Code::SigningFailed, "{name}");
            }
            assert_eq!(
                CommandSigner::new(" ", &certificate).unwrap_err().code(),
                Code::Usage
            );
        }
    }
}
