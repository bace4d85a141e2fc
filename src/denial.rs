//! Why appraisal denied a file: found from the file's signature, the certificates and the kernel's log. The kernel has decided
//! already; this only explains it.

use std::fs::File;
use std::io::Read as _;

use ima::certificate::Certificate;
use ima::fault::{Cause, Explanation};
use ima::hash::Hasher;
use ima::signature::ImaXattr;
use ima::verify::{self, VerifyError};

use crate::errno::{Errno, describe};
use crate::features::{self, Feature};
use crate::kernel_log::KernelLog;

/// The largest security.ima that is read: a signature with ML-DSA-87 has 4636 bytes.
const MAX_XATTR: usize = 8192;

/// What the kernel appraises files with.
#[derive(Debug, Clone, Default)]
pub struct AppraisalKeys {
    /// The certificates on the keyring of appraisal.
    pub certificates: Vec<Certificate>,
    /// Whether EVM is on.
    pub evm: bool,
}

/// Why appraisal denied a file: from its attributes and the certificates on the keyring, and from what the kernel logged since
/// `log` was begun. `None` if the attributes are in order and the kernel logged nothing.
pub fn explain(file: &File, keys: &AppraisalKeys, log: &mut KernelLog) -> Option<Explanation> {
    let found = attributes(file, keys);
    let logged = log
        .denial()
        .map(|cause| Cause::DENIAL_LOGGED.with(&[&cause]));
    match (found, logged) {
        (Some(found), Some(logged)) => Some(found.and(logged)),
        (found, logged) => found.or(logged),
    }
}

/// What is wrong with a file's security.evm or security.ima.
fn attributes(file: &File, keys: &AppraisalKeys) -> Option<Explanation> {
    if keys.evm && rustix::fs::fgetxattr(file, "security.evm", &mut [0_u8; 0][..]).is_err() {
        return Some(Cause::NO_SECURITY_EVM.into());
    }
    let mut value = vec![0; MAX_XATTR];
    let length = match rustix::fs::fgetxattr(file, "security.ima", &mut value[..]) {
        Ok(length) => length,
        Err(Errno::NODATA) => return Some(Cause::UNSIGNED.into()),
        Err(Errno::OPNOTSUPP) => return Some(Cause::NO_XATTRS.into()),
        Err(errno) => return Some(Cause::SIGNATURE_UNREADABLE.with(&[&describe(errno)])),
    };
    value.truncate(length);
    match ImaXattr::parse(&value) {
        Err(error) => Some(Cause::SIGNATURE_MALFORMED.with(&[&error.to_string()])),
        Ok(ImaXattr::Digest { .. }) => Some(Cause::HASH_ONLY.into()),
        Ok(value @ (ImaXattr::Signature(_) | ImaXattr::SignatureV3(_))) => {
            signature_defect(file, &value, &keys.certificates)
        }
        Ok(_) => Some(Cause::SIGNATURE_KIND.into()),
    }
}

/// Why a signature does not verify.
fn signature_defect(
    file: &File,
    value: &ImaXattr,
    certificates: &[Certificate],
) -> Option<Explanation> {
    let signature = value.signature()?;
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
    if !features::is_built_in(Feature::Diagnosis) {
        return None;
    }
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
    match verify::verify_value(ima_keyring::verify_digest, signer, &hasher.finish(), value) {
        Ok(()) => None,
        Err(VerifyError::Mismatch) => Some(Cause::CHANGED_AFTER_SIGNING.into()),
        Err(error) => Some(Cause::SIGNATURE_UNVERIFIABLE.with(&[&error.to_string()])),
    }
}
