//! Checking signatures by asking the kernel, with the code that it appraises files with.

use ima::certificate::{Certificate, PublicKey};
use ima::hash::HashAlgorithm;
use ima::verify::{VerifyError, check_digest};
use linux_keyutils::{Key, KeyRing, KeyRingIdentifier, KeySerialId};
use nix::errno::Errno;

use crate::syscalls::{Keyring, add_certificate, can_verify, verify};

/// Checks that `signature` is one of `digest`, computed with `algo`, by the key of `certificate`: RSA with PKCS #1 and ECDSA
/// encoded with DER. The kernel has to know the algorithms, and not to have the certificate on its blacklist; whether it trusts the
/// certificate does not matter. While it verifies, the certificate is on the keyring of this process.
///
/// # Errors
///
/// [`VerifyError`]; [`VerifyError::Unsupported`] if the kernel cannot say.
pub fn verify_digest(
    certificate: &Certificate,
    algo: HashAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    check_digest(certificate, algo, digest)?;
    if signature.is_empty() {
        return Err(VerifyError::Mismatch);
    }
    let key = certificate.key();
    let unsupported = || VerifyError::Unsupported(format!("signatures by {key}"));
    // As crypto/asymmetric_keys/public_key.c, software_key_determine_akcipher, names them.
    let encoding = match key {
        PublicKey::Rsa { .. } => "pkcs1",
        PublicKey::Ec { .. } => "x962",
        PublicKey::MlDsa(_) | PublicKey::Other { .. } => return Err(unsupported()),
    };
    let refused =
        |errno: Errno| VerifyError::Unsupported(format!("it: the kernel says {}", errno.desc()));
    let key = add_certificate(certificate.der(), Keyring::Process).map_err(refused)?;
    let info = std::ffi::CString::new(format!("enc={encoding} hash={algo}"));
    let info = info.map_err(|_| unsupported())?;
    let verified = can_verify(key, &info).map(|()| verify(key, &info, digest, signature));
    // A boot may go on after a refusal, and nothing that was not trusted stays within reach then.
    let _ = KeyRing::from_special_id(KeyRingIdentifier::Process, false)
        .and_then(|ring| ring.unlink_key(Key::from_id(KeySerialId::new(key.get()))));
    match verified.map_err(refused)? {
        Ok(()) => Ok(()),
        // Another digest; no encoding of one; a length that such a key's signatures do not have, or a malformed pair of numbers.
        Err(Errno::EKEYREJECTED | Errno::EBADMSG | Errno::EINVAL) => Err(VerifyError::Mismatch),
        Err(errno) => Err(refused(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> Vec<u8> {
        let directory = env!("CARGO_MANIFEST_DIR");
        std::fs::read(format!("{directory}/../ima/testdata/{name}")).unwrap()
    }

    /// The kernel and the code of the host tools say the same of the same signatures.
    #[test]
    fn the_kernel_agrees_with_the_software() {
        for name in ["rsa2048", "rsa3072", "p256", "p384"] {
            let certificate = Certificate::parse(&data(&format!("{name}.der"))).unwrap();
            // On the session keyring, so that the other one is left to the function.
            if add_certificate(certificate.der(), Keyring::Session).is_err() {
                // A container without keys.
                return;
            }
            for algo in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
                let digest = algo.digest(&data("content")).unwrap();
                let value = data(&format!("{name}.{algo}.sig"));
                let value = ima::signature::ImaXattr::parse(&value).unwrap();
                let good = value.signature().unwrap().signature.clone();
                if let Err(VerifyError::Unsupported(_)) =
                    verify_digest(&certificate, algo, &digest, &good)
                {
                    // A kernel without the algorithm.
                    continue;
                }
                let mut other = digest.clone();
                other[0] ^= 1;
                let mut changed = good.clone();
                *changed.last_mut().unwrap() ^= 1;
                let longer = [&good[..], &[0]].concat();
                for (digest, signature) in [
                    (&digest, &good[..]),
                    (&other, &good),
                    (&digest, &changed),
                    (&digest, &longer),
                    (&digest, &good[1..]),
                    (&digest, &[]),
                ] {
                    let found = verify_digest(&certificate, algo, digest, signature);
                    let expected =
                        ima::verify::verify_digest(&certificate, algo, digest, signature);
                    assert_eq!(found, expected, "{name} {algo} {}", signature.len());
                    // It is there once something was put on it.
                    let left = crate::content(Keyring::Process).unwrap_or_default();
                    assert_eq!(left, [], "{name} {algo}");
                }
            }
        }
    }

    #[test]
    fn what_the_kernel_is_not_asked() {
        let certificate = Certificate::parse(&data("p256.der")).unwrap();
        let found = verify_digest(&certificate, HashAlgorithm::Sha512, &[0; 32], &[0; 70]);
        assert!(
            matches!(found, Err(VerifyError::DigestLength { .. })),
            "{found:?}"
        );
        let certificate = Certificate::parse(&data("ed25519.der")).unwrap();
        let found = verify_digest(&certificate, HashAlgorithm::Sha256, &[0; 32], &[0; 64]);
        assert!(
            matches!(found, Err(VerifyError::Unsupported(_))),
            "{found:?}"
        );
    }
}
