//! RSA signatures of SHA-3 digests, which aws-lc-rs does not make.
//!
//! The private operation is the `rsa` crate's, whose timing may leak the key (RUSTSEC-2023-0071). It is blinded with random
//! numbers here, and nobody who could measure it gets to choose what is signed.

use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use rsa::RsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::traits::SignatureScheme as _;

use crate::Result;

/// Signs `digest`, of an algorithm that has a DigestInfo, with the key in `pkcs8`.
///
/// # Errors
///
/// [`Code::SigningFailed`].
pub(super) fn sign(pkcs8: &[u8], algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
    let failed = |why: String| Fault::new(Code::SigningFailed, format!("{algo} digest: {why}"));
    let prefix = algo
        .digest_info_prefix()
        .ok_or_else(|| failed("it has no DigestInfo".to_owned()))?;
    let key = RsaPrivateKey::from_pkcs8_der(pkcs8).map_err(|error| failed(error.to_string()))?;
    rsa::Pkcs1v15Sign {
        hash_len: Some(algo.digest_len()),
        prefix: prefix.into(),
    }
    .sign(Some(&mut Random), &key, digest)
    .map_err(|error| failed(error.to_string()))
}

/// The random numbers of aws-lc-rs.
pub(super) struct Random;

impl TryRng for Random {
    type Error = std::io::Error;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Self::Error> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| std::io::Error::other("no random numbers"))
    }
}

impl TryCryptoRng for Random {}
