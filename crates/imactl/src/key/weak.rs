//! Keys and digests that are too weak to be signed with, for the name `evmctl`, whose users may have devices that know no others:
//! RSA below 2048 bits, and digests below SHA-256.
//!
//! The `rsa` crate's private operation has a timing that may leak the key (RUSTSEC-2023-0071). It is blinded with random
//! numbers here, nobody who could measure it chooses what is signed, and the keys are weak to begin with.

use std::fmt;

use der::SecretDocument;
use der::pem::PemLabel as _;
use ima::certificate::Curve;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use pkcs8::{DecodePrivateKey as _, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPublicKey as _};
use rsa::traits::{PublicKeyParts as _, SignatureScheme as _};

use super::legacy;
use super::password::PasswordSource;
use super::pem::{malformed, private_key_pem};
use super::sha3::Random;
use crate::Result;

/// A private key that signs whatever it is given.
pub struct WeakKey {
    key: Key,
    public_key: Vec<u8>,
}

enum Key {
    Rsa(Box<RsaPrivateKey>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl fmt::Debug for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakKey").finish_non_exhaustive()
    }
}

impl WeakKey {
    /// Reads a key in PEM: PKCS #8, encrypted PKCS #8 (PBES2), PKCS #1 or SEC 1, the latter two also encrypted as OpenSSL once
    /// did.
    ///
    /// # Errors
    ///
    /// [`Code::PrivateKeyMalformed`] if it is none of these or neither RSA nor on P-256 or P-384; [`Code::KeyPassword`] if
    /// it cannot be decrypted.
    pub fn from_pem(pem: &[u8], password: PasswordSource<'_>) -> Result<Self> {
        let pem = private_key_pem(pem).ok_or_else(|| malformed("no private key in PEM"))?;
        let (label, document) = if legacy::is_encrypted(pem) {
            legacy::decrypt(pem, password)?
        } else {
            let (label, document) =
                SecretDocument::from_pem(pem).map_err(|error| malformed(error.to_string()))?;
            (label.to_owned(), document)
        };
        let der = document.as_bytes();
        let key = match label.as_str() {
            EncryptedPrivateKeyInfoRef::PEM_LABEL => {
                let wrong = |_| Fault::new(Code::KeyPassword, "the password is wrong");
                let plain = EncryptedPrivateKeyInfoRef::try_from(der)
                    .map_err(|error| malformed(error.to_string()))?
                    .decrypt(password()?)
                    .map_err(wrong)?;
                Key::from_pkcs8(plain.as_bytes())
            }
            PrivateKeyInfoRef::PEM_LABEL => Key::from_pkcs8(der),
            "RSA PRIVATE KEY" => RsaPrivateKey::from_pkcs1_der(der)
                .ok()
                .map(|key| Key::Rsa(Box::new(key))),
            "EC PRIVATE KEY" => Key::from_sec1(der),
            _ => None,
        };
        let key = key.ok_or_else(|| malformed("neither RSA nor on P-256 or P-384"))?;
        let public_key = key.public_key()?;
        Ok(Self { key, public_key })
    }

    /// The public key as it stands in a certificate's BIT STRING.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Signs `digest`, computed with `algo`, as [`Signer`](super::signer::Signer) does.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] for an algorithm that RSA has no DigestInfo of, or a modulus that is too short for it.
    pub fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        match &self.key {
            Key::Rsa(key) => {
                let prefix = algo
                    .digest_info_prefix()
                    .ok_or_else(|| failed(format!("a {algo} digest with RSA")))?;
                let scheme = rsa::Pkcs1v15Sign {
                    hash_len: Some(algo.digest_len()),
                    prefix: prefix.into(),
                };
                scheme
                    .sign(Some(&mut Random), key, digest)
                    .map_err(|error| failed(format!("a {algo} digest: {error}")))
            }
            Key::P256(key) => {
                let signature: p256::ecdsa::Signature = prehash(key, Curve::P256, digest)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Key::P384(key) => {
                let signature: p384::ecdsa::Signature = prehash(key, Curve::P384, digest)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }

    /// Signs 20 bytes with PKCS #1 padding and without a DigestInfo, as signatures of version 1 have it
    /// (`digsig_verify_rsa`, lib/digsig.c).
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`], among others for a key that is not RSA.
    pub fn sign_bare(&self, digest: &[u8; 20]) -> Result<Vec<u8>> {
        let Key::Rsa(key) = &self.key else {
            return Err(failed(
                "a signature of version 1 with a key that is not RSA".to_owned(),
            ));
        };
        rsa::Pkcs1v15Sign::new_unprefixed()
            .sign(Some(&mut Random), key, digest)
            .map_err(|error| failed(error.to_string()))
    }

    /// The length of an RSA key's modulus, in bits.
    #[must_use]
    pub fn rsa_bits(&self) -> Option<u32> {
        match &self.key {
            Key::Rsa(key) => Some(key.n().bits_vartime()),
            _ => None,
        }
    }

    /// Modulus and exponent of an RSA key, big-endian.
    #[must_use]
    pub fn rsa_numbers(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        match &self.key {
            Key::Rsa(key) => Some((key.n_bytes().to_vec(), key.e_bytes().to_vec())),
            _ => None,
        }
    }
}

impl Key {
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let rsa = || RsaPrivateKey::from_pkcs8_der(der).ok().map(Box::new);
        let p256 = || p256::SecretKey::from_pkcs8_der(der).ok();
        let p384 = || p384::SecretKey::from_pkcs8_der(der).ok();
        rsa()
            .map(Self::Rsa)
            .or_else(|| p256().map(|key| Self::P256(key.into())))
            .or_else(|| p384().map(|key| Self::P384(key.into())))
    }

    fn from_sec1(der: &[u8]) -> Option<Self> {
        let p256 = || p256::SecretKey::from_sec1_der(der).ok();
        let p384 = || p384::SecretKey::from_sec1_der(der).ok();
        p256()
            .map(|key| Self::P256(key.into()))
            .or_else(|| p384().map(|key| Self::P384(key.into())))
    }

    fn public_key(&self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Rsa(key) => key
                .to_public_key()
                .to_pkcs1_der()
                .map_err(|error| failed(error.to_string()))?
                .as_bytes()
                .to_vec(),
            Self::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        })
    }
}

/// ECDSA of a digest of any length: cut to the curve's, or led by zeros (FIPS 186-5, 6.4.1).
fn prehash<S>(key: &impl PrehashSigner<S>, curve: Curve, digest: &[u8]) -> Result<S> {
    let len = curve.field_len();
    let mut number = vec![0; len.saturating_sub(digest.len())];
    number.extend(digest.iter().take(len));
    key.sign_prehash(&number)
        .map_err(|error| failed(error.to_string()))
}

fn failed(what: String) -> Fault {
    Fault::new(Code::SigningFailed, what)
}
