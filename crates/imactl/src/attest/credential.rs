//! The verifier's challenge: a secret that a TPM decrypts only if an attestation key is in the same TPM as an endorsement key
//! (`TPM2_MakeCredential`; TPM 2.0 Library, part 1, 24 and annexes B.10.4 and C.6.4).

use std::path::Path;

use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::{hmac, rand};
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use tpm2_protocol::data::{
    Tpm2bEccParameter, Tpm2bEncryptedSecret, Tpm2bIdObject, TpmAlgId, TpmEccCurve, TpmsEccPoint,
    TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits,
};
use tpm2_protocol::{TpmError, TpmUnmarshal as _};

use super::key::sec1;
use super::{PublicArea, malformed};
use crate::Result;
use crate::file::{in_file, read_bounded};
use crate::tpm::encoded;

/// The length of the secret in bytes: the digest of an endorsement key's hash algorithm, SHA-256, is the most that it takes.
const SECRET: usize = 32;

/// What a challenge begins with in a file, and the version (tpm2-tools, lib/files.c, `MAGIC`; tools/tpm2_makecredential.c).
const MAGIC: u32 = 0xbadc_c0de;
const VERSION: u32 = 1;

/// The longest file, in bytes.
const MAX_FILE: u64 = 4096;

const LABEL: &[u8] = b"IDENTITY\0";

/// A challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub(super) blob: Tpm2bIdObject,
    pub(super) secret: Tpm2bEncryptedSecret,
}

impl Challenge {
    /// Makes a challenge for the attestation key in the TPM of that endorsement key, which is one of the TCG's templates for RSA or
    /// P-256 with SHA-256 and AES-128. Returns it with the secret, which only that TPM decrypts.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`] for keys of other kinds, and for an attestation key that cannot attest.
    pub fn make(attestation: &PublicArea, endorsement: &PublicArea) -> Result<(Self, Vec<u8>)> {
        attestation.check_attests()?;
        endorsement.check_endorses()?;
        let mut secret = vec![0; SECRET];
        let failed = |_| Fault::new(Code::AttestationInput, "the challenge cannot be encrypted");
        rand::fill(&mut secret).map_err(failed)?;
        let (seed, encrypted) = seed_for(endorsement)?;
        let name = attestation.name()?;
        let sealed = seal(&secret, &seed, &name).map_err(failed)?;
        let no_place = |error: TpmError| malformed(error.to_string());
        let challenge = Self {
            blob: Tpm2bIdObject::try_from(&sealed[..]).map_err(no_place)?,
            secret: Tpm2bEncryptedSecret::try_from(&encrypted[..]).map_err(no_place)?,
        };
        Ok((challenge, secret))
    }

    /// Reads a challenge from a file, as [`encode`](Self::encode) and tpm2_makecredential write it.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::AttestationInput`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_bounded(path, MAX_FILE)?).map_err(|fault| in_file(fault, path))
    }

    /// Decodes a challenge.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let rest = bytes
            .strip_prefix(&MAGIC.to_be_bytes())
            .and_then(|rest| rest.strip_prefix(&VERSION.to_be_bytes()))
            .ok_or_else(|| malformed("no challenge"))?;
        let decode = || -> std::result::Result<Option<Self>, TpmError> {
            let (blob, rest) = Tpm2bIdObject::unmarshal(rest)?;
            let (secret, rest) = Tpm2bEncryptedSecret::unmarshal(rest)?;
            Ok(rest.is_empty().then_some(Self { blob, secret }))
        };
        match decode() {
            Ok(Some(challenge)) => Ok(challenge),
            Ok(None) => Err(malformed("something follows the challenge")),
            Err(error) => Err(malformed("no challenge").with_cause(error.to_string())),
        }
    }

    /// The challenge in bytes, as tpm2_makecredential writes it.
    ///
    /// # Errors
    ///
    /// None; both parts have an encoding.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let part = |bytes: tpm2_protocol::TpmResult<Vec<u8>>| {
            bytes.map_err(|error| malformed(error.to_string()))
        };
        Ok([
            &MAGIC.to_be_bytes()[..],
            &VERSION.to_be_bytes(),
            &part(encoded(&self.blob))?,
            &part(encoded(&self.secret))?,
        ]
        .concat())
    }
}

/// A seed, and how the endorsement key's TPM gets it (annex B.10.4 for RSA, C.6.4 for elliptic curves).
fn seed_for(endorsement: &PublicArea) -> Result<(Vec<u8>, Vec<u8>)> {
    let public = endorsement.inner();
    let unsupported =
        || malformed("the endorsement key is none of the TCG's templates for RSA or P-256");
    let symmetric = match public.parameters {
        TpmuPublicParms::Rsa(parameters) => parameters.symmetric,
        TpmuPublicParms::Ecc(parameters) => parameters.symmetric,
        _ => return Err(unsupported()),
    };
    let is_aes_128 = matches!(symmetric.key_bits, TpmuSymKeyBits::Aes(bits) if bits.value() == 128);
    if public.name_alg != TpmAlgId::Sha256 || !is_aes_128 {
        return Err(unsupported());
    }
    let failed = |_| unsupported();
    match (public.parameters, &public.unique) {
        (TpmuPublicParms::Rsa(_), TpmuPublicId::Rsa(_)) => {
            let mut seed = vec![0; SECRET];
            rand::fill(&mut seed).map_err(failed)?;
            let der = endorsement.to_der()?;
            let encrypt = || -> std::result::Result<Vec<u8>, Unspecified> {
                let key = PublicEncryptingKey::from_der(&der).map_err(|_| Unspecified)?;
                let key = OaepPublicEncryptingKey::new(key)?;
                let mut encrypted = vec![0; key.ciphertext_size()];
                let written =
                    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut encrypted, Some(LABEL))?;
                Ok(written.to_vec())
            };
            let encrypted = encrypt().map_err(failed)?;
            Ok((seed, encrypted))
        }
        (TpmuPublicParms::Ecc(parameters), TpmuPublicId::Ecc(point))
            if parameters.curve_id == TpmEccCurve::NistP256 =>
        {
            let theirs = sec1(point, SECRET).ok_or_else(unsupported)?;
            let agree = || -> std::result::Result<(Vec<u8>, Vec<u8>), Unspecified> {
                let ephemeral = PrivateKey::generate(&ECDH_P256)?;
                let ours = ephemeral.compute_public_key()?;
                let peer = UnparsedPublicKey::new(&ECDH_P256, &theirs);
                let shared =
                    agreement::agree(&ephemeral, peer, Unspecified, |shared| Ok(shared.to_vec()))?;
                Ok((shared, ours.as_ref().to_vec()))
            };
            let (shared, ours) = agree().map_err(failed)?;
            let (x, y) = coordinates(&ours).ok_or_else(unsupported)?;
            let (their_x, _) = coordinates(&theirs).ok_or_else(unsupported)?;
            // KDFe (part 1, 11.4.10.3): one digest is as long as the seed.
            let input = [&1_u32.to_be_bytes(), &shared[..], LABEL, x, their_x].concat();
            let seed = HashAlgorithm::Sha256
                .digest(&input)
                .ok_or_else(unsupported)?;
            let parameter = |number: &[u8]| Tpm2bEccParameter::try_from(number);
            let encode = || -> std::result::Result<Vec<u8>, TpmError> {
                encoded(&TpmsEccPoint {
                    x: parameter(x)?,
                    y: parameter(y)?,
                })
            };
            let point = encode().map_err(|error| malformed(error.to_string()))?;
            Ok((seed, point))
        }
        _ => Err(unsupported()),
    }
}

/// The coordinates of an uncompressed point on P-256.
fn coordinates(point: &[u8]) -> Option<(&[u8], &[u8])> {
    point.strip_prefix(&[4])?.split_at_checked(SECRET)
}

/// The secret, encrypted and authenticated for the key of that name (part 1, 24.4 to 24.6): an HMAC with its length, and the
/// encrypted secret.
fn seal(secret: &[u8], seed: &[u8], name: &[u8]) -> std::result::Result<Vec<u8>, Unspecified> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| Unspecified);
    let key = kdf_a(seed, b"STORAGE\0", name, 128);
    let key = UnboundCipherKey::new(&AES_128, key.get(..16).ok_or(Unspecified)?)?;
    let mut encrypted = [&length(secret)?.to_be_bytes(), secret].concat();
    EncryptingKey::cfb128(key)?.less_safe_encrypt(
        &mut encrypted,
        EncryptionContext::Iv128(FixedLength::from([0; 16])),
    )?;
    let key = kdf_a(seed, b"INTEGRITY\0", &[], 256);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, &[&encrypted[..], name].concat());
    let tag = tag.as_ref();
    Ok([&length(tag)?.to_be_bytes(), tag, &encrypted].concat())
}

/// KDFa with SHA-256 (part 1, 11.4.10.2), of which one block is enough: `label` ends in a zero byte, and there is no `contextV`.
fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let input = [&1_u32.to_be_bytes(), label, context, &bits.to_be_bytes()].concat();
    hmac::sign(&key, &input).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn challenges_round_trip(blob in proptest::collection::vec(any::<u8>(), 0..132), secret in proptest::collection::vec(any::<u8>(), 0..300)) {
            let challenge = Challenge {
                blob: Tpm2bIdObject::try_from(&blob[..]).unwrap(),
                secret: Tpm2bEncryptedSecret::try_from(&secret[..]).unwrap(),
            };
            let bytes = challenge.encode().unwrap();
            prop_assert_eq!(Challenge::parse(&bytes).unwrap(), challenge);
            for len in 0..bytes.len() {
                prop_assert!(Challenge::parse(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = Challenge::parse(&bytes);
        }
    }
}
