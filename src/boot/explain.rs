//! Why the kernel refused: worked out from the certificate, the file and the keyrings. It decides nothing.

use std::fs::File;
use std::io::Read as _;

use ima::certificate::{Certificate, LeafDefect};
use ima::fault::{Code, Fault};
use ima::hash::Hasher;
use ima::keyring;
use ima::signature::{ImaXattr, SignatureV2};
use ima::verify::{self, VerifyError};
use nix::errno::Errno;
use rustix::io::Errno as RustixErrno;

use super::keys::KeysLoaded;

/// The largest security.ima that is read: a signature with RSA-4096 has 521 bytes.
const MAX_XATTR: usize = 2048;

/// How many of the trusted keys a message names.
const MAX_SHOWN: usize = 4;

/// The refusal of a certificate by add_key(2).
pub fn certificate(
    path: &str,
    certificate: &Certificate,
    name: &str,
    errno: Errno,
    proc_keys: &str,
) -> Fault {
    let detail = format!(
        "{path} ({}) onto {name}: {} ({errno:?})",
        certificate.subject(),
        errno.desc()
    );
    let fault = Fault::new(Code::CertificateRefused, detail);
    let defects = certificate.leaf_defects();
    let defect = |wanted: &[LeafDefect]| defects.iter().find(|defect| wanted.contains(defect));
    match errno {
        Errno::ENOKEY => {
            let leaf = [
                LeafDefect::CaBit,
                LeafDefect::KeyCertSign,
                LeafDefect::NoDigitalSignature,
            ];
            if let (Some(defect), true) = (defect(&leaf), name != ".secondary_trusted_keys") {
                return fault.cause(format!("{defect}")).remedy(
                    "use a certificate of its own for signing files: keyUsage digitalSignature alone, no CA bit (imactl keygen makes one)",
                );
            }
            fault.cause(format!(
                "its issuer, {}{}, is not among the CAs that this kernel trusts: {}",
                certificate.issuer(),
                certificate
                    .akid()
                    .map(|akid| format!(" (key id {})", hex(akid)))
                    .unwrap_or_default(),
                trusted(proc_keys)
            ))
        }
        Errno::EKEYREJECTED => fault
            .cause("the signature in it is not one of its issuer's key, or the certificate is on the kernel's blacklist")
            .remedy("have the CA sign it again; a CA made anew under the same name has another key"),
        Errno::EBADMSG => match defect(&[LeafDefect::ExplicitCaFalse]) {
            Some(defect) => fault
                .cause(format!("{defect}"))
                .remedy("encode basicConstraints as an empty sequence, as imactl keygen does"),
            None => fault.cause("the kernel cannot parse an extension of it"),
        },
        Errno::ENOPKG => fault
            .cause(format!(
                "the kernel was built without the algorithms of this certificate ({}, or the hash of its signature)",
                certificate.key()
            ))
            .remedy("build CONFIG_CRYPTO_RSA or CONFIG_CRYPTO_ECDSA and the hash into the kernel, or use another kind of key"),
        Errno::EMSGSIZE => fault.cause("a certificate for the kernel has at most 65535 bytes"),
        Errno::EINVAL => fault.cause("the algorithms that the certificate names inside and outside differ"),
        Errno::EPERM => fault.cause("ca_keys= on the kernel command line allows another CA only"),
        Errno::EACCES => fault.cause("the keyring may not be written by this process"),
        Errno::EDQUOT => fault.cause("the quota of keys is used up"),
        Errno::ENODEV => fault.cause("the kernel was built without CONFIG_X509_CERTIFICATE_PARSER"),
        _ => fault,
    }
}

/// The asymmetric keys that the kernel has, for a person.
fn trusted(proc_keys: &str) -> String {
    let keys: Vec<&str> = keyring::keys(proc_keys)
        .filter(|key| key.kind.starts_with("asym"))
        .map(|key| {
            key.description
                .split(": X509")
                .next()
                .unwrap_or(key.description)
        })
        .collect();
    match keys.len() {
        0 => "it has none".to_owned(),
        count => {
            let shown: Vec<&str> = keys.into_iter().take(MAX_SHOWN).collect();
            let more = count.saturating_sub(shown.len());
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{}{rest}", shown.join("; "))
        }
    }
}

/// Why appraisal denies a file, from its security.ima and the certificates on the keyring; nothing if all seems well.
pub fn denial(file: &File, keys: &KeysLoaded) -> Option<String> {
    if keys.evm() && rustix::fs::fgetxattr(file, "security.evm", &mut [0_u8; 0][..]).is_err() {
        return Some(
            "it has no security.evm, and EVM is on (an EVM certificate is in the initramfs)"
                .to_owned(),
        );
    }
    let certificates = keys.certificates();
    let mut value = vec![0; MAX_XATTR];
    let length = match rustix::fs::fgetxattr(file, "security.ima", &mut value[..]) {
        Ok(length) => length,
        Err(RustixErrno::NODATA) => {
            return Some("it is unsigned: it has no security.ima".to_owned());
        }
        Err(RustixErrno::OPNOTSUPP) => {
            return Some(
                "its file system keeps no extended attributes, so it can have no signature"
                    .to_owned(),
            );
        }
        Err(errno) => return Some(format!("its security.ima cannot be read: {errno}")),
    };
    value.truncate(length);
    match ImaXattr::parse(&value) {
        Err(error) => Some(format!("its security.ima is no signature: {error}")),
        Ok(ImaXattr::Digest { .. }) => {
            Some("its security.ima holds a hash only, no signature".to_owned())
        }
        Ok(ImaXattr::Signature(signature)) => signature_denial(file, &signature, certificates),
        Ok(_) => Some("its security.ima is of a kind that this policy does not take".to_owned()),
    }
}

fn signature_denial(
    file: &File,
    signature: &SignatureV2,
    certificates: &[Certificate],
) -> Option<String> {
    let Some(signer) = certificates
        .iter()
        .find(|certificate| certificate.key_id() == signature.key_id)
    else {
        let known: Vec<String> = certificates
            .iter()
            .map(|certificate| certificate.key_id().to_string())
            .collect();
        return Some(format!(
            "it is signed with key id {}, which is not on the keyring (there is {})",
            signature.key_id,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        ));
    };
    let mut hasher = Hasher::new(signature.algo)?;
    let mut buffer = vec![0; 1 << 16];
    let mut file = file;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(buffer.get(..length).unwrap_or_default()),
            Err(error) => return Some(format!("it cannot be read: {error}")),
        }
    }
    match verify::verify_signature(signer, &hasher.finish(), signature) {
        Ok(()) => None,
        Err(VerifyError::Mismatch) => {
            Some("it was changed after it was signed (or the signature is damaged)".to_owned())
        }
        Err(error) => Some(format!("its signature cannot be verified: {error}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
