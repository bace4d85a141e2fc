//! Why the kernel refused: worked out from the certificate, the file and the keyrings. It decides nothing.

use std::fs::File;
use std::io::Read as _;

use ima::certificate::Certificate;
use ima::hash::Hasher;
use ima::signature::{ImaXattr, SignatureV2};
use ima::verify::{self, VerifyError};
use rustix::io::Errno as RustixErrno;

use super::kernel_log::KernelLog;
use super::keys::KeysLoaded;

/// The largest security.ima that is read: a signature with RSA-4096 has 521 bytes.
const MAX_XATTR: usize = 2048;

/// Why appraisal denied a file: from its security.ima and the certificates on the keyring, and what the kernel said since
/// `log` was begun; nothing if all seems well and the kernel says nothing.
pub(super) fn denial(file: &File, keys: &KeysLoaded, log: &mut KernelLog) -> Option<String> {
    let found = attributes(file, keys);
    match (found, log.denial()) {
        (Some(found), Some(said)) => Some(format!("{found}; the kernel says {said}")),
        (None, Some(said)) => Some(format!("the kernel says {said}")),
        (found, None) => found,
    }
}

/// What is wrong with a file's security.ima.
fn attributes(file: &File, keys: &KeysLoaded) -> Option<String> {
    if keys.evm() && rustix::fs::fgetxattr(file, "security.evm", &mut [0_u8; 0][..]).is_err() {
        return Some(
            "it has no security.evm, and EVM is on (the initramfs has a certificate or the HMAC key for it)"
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
