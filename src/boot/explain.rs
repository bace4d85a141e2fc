//! Why the kernel refused: worked out from the certificate, the file and the keyrings. It decides nothing.

use std::fs::File;
use std::io::Read as _;

use ima::certificate::Certificate;
use ima::fault::{Cause, Explanation};
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
pub(super) fn denial(file: &File, keys: &KeysLoaded, log: &mut KernelLog) -> Option<Explanation> {
    let found = attributes(file, keys);
    let said = log
        .denial()
        .map(|words| Cause::DENIAL_LOGGED.with(&[&words]));
    match (found, said) {
        (Some(found), Some(said)) => Some(found.and(said)),
        (found, said) => found.or(said),
    }
}

/// What is wrong with a file's security.ima.
fn attributes(file: &File, keys: &KeysLoaded) -> Option<Explanation> {
    if keys.evm() && rustix::fs::fgetxattr(file, "security.evm", &mut [0_u8; 0][..]).is_err() {
        return Some(Cause::NO_SECURITY_EVM.into());
    }
    let certificates = keys.certificates();
    let mut value = vec![0; MAX_XATTR];
    let length = match rustix::fs::fgetxattr(file, "security.ima", &mut value[..]) {
        Ok(length) => length,
        Err(RustixErrno::NODATA) => return Some(Cause::UNSIGNED.into()),
        Err(RustixErrno::OPNOTSUPP) => return Some(Cause::NO_XATTRS.into()),
        Err(errno) => return Some(Cause::SIGNATURE_UNREADABLE.with(&[&errno.to_string()])),
    };
    value.truncate(length);
    match ImaXattr::parse(&value) {
        Err(error) => Some(Cause::SIGNATURE_MALFORMED.with(&[&error.to_string()])),
        Ok(ImaXattr::Digest { .. }) => Some(Cause::HASH_ONLY.into()),
        Ok(ImaXattr::Signature(signature)) => signature_denial(file, &signature, certificates),
        Ok(_) => Some(Cause::SIGNATURE_KIND.into()),
    }
}

fn signature_denial(
    file: &File,
    signature: &SignatureV2,
    certificates: &[Certificate],
) -> Option<Explanation> {
    let Some(signer) = certificates
        .iter()
        .find(|certificate| certificate.key_id() == signature.key_id)
    else {
        let known: Vec<String> = certificates
            .iter()
            .map(|certificate| certificate.key_id().to_string())
            .collect();
        let known = match known.as_slice() {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        let id = signature.key_id.to_string();
        return Some(Cause::SIGNER_NOT_ON_KEYRING.with(&[&id, &known]));
    };
    let mut hasher = Hasher::new(signature.algo)?;
    let mut buffer = vec![0; 1 << 16];
    let mut file = file;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(buffer.get(..length).unwrap_or_default()),
            Err(error) => return Some(Cause::FILE_UNREADABLE.with(&[&error.to_string()])),
        }
    }
    match verify::verify_signature(signer, &hasher.finish(), signature) {
        Ok(()) => None,
        Err(VerifyError::Mismatch) => Some(Cause::CHANGED_AFTER_SIGNING.into()),
        Err(error) => Some(Cause::SIGNATURE_UNVERIFIABLE.with(&[&error.to_string()])),
    }
}
