//! ECDSA with the nonces of RFC 6979: a key and a digest have one signature, so that what is signed can be made again bit by bit.
//!
//! aws-lc-rs has no such signatures. Its C library computes with a nonce that is given to it, in constant time and twice as fast
//! as other libraries, in a function that is meant for known answers: whoever used a nonce for two digests, or one that can be
//! guessed, would give the key away. The nonces of RFC 6979 are made of key and digest by HMAC and are never used for another.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_sys as c;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use p256::elliptic_curve::Curve;
use rfc6979::KGenerator;
use rfc6979::hmac::digest::Digest;
use rfc6979::hmac::digest::block_api::BlockSizeUser;
use zeroize::Zeroizing;

use super::kind::KeyKind;
use crate::Result;

/// A private key on one of the three curves.
pub(super) struct DeterministicKey {
    kind: KeyKind,
    /// Big-endian, as long as the curve's order.
    scalar: Zeroizing<Vec<u8>>,
    key: LibraryKey,
}

impl DeterministicKey {
    /// Takes the key of `pair`; nothing if the library does not give it, or `kind` is not on a curve.
    pub(super) fn new(kind: KeyKind, pair: &EcdsaKeyPair) -> Option<Self> {
        let private = pair.private_key();
        let scalar: EcPrivateKeyBin<'_> = private.as_be_bytes().ok()?;
        let scalar = Zeroizing::new(scalar.as_ref().to_vec());
        let key = LibraryKey::new(kind, &scalar)?;
        Some(Self { kind, scalar, key })
    }

    /// Signs `digest`, whose leftmost bits are taken on a curve that is shorter (FIPS 186-5, 6.4.1). The signature is the DER of
    /// `SEQUENCE { r, s }`. The hash of the nonce is that of the digest (RFC 6979 section 3.2).
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`] for an algorithm that is not computed here.
    pub(super) fn sign(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        let failed = || {
            Fault::new(
                Code::SigningFailed,
                format!("{} signature of a {algo} digest", self.kind),
            )
        };
        let nonce = match self.kind {
            KeyKind::P256 => nonce::<p256::NistP256>(algo, &self.scalar, digest),
            KeyKind::P384 => nonce::<p384::NistP384>(algo, &self.scalar, digest),
            KeyKind::P521 => nonce::<p521::NistP521>(algo, &self.scalar, digest),
            KeyKind::Rsa(_) | KeyKind::MlDsa(_) => None,
        };
        let nonce = nonce.ok_or_else(failed)?;
        self.key.sign_with(&nonce, digest).ok_or_else(failed)
    }
}

/// The first nonce of RFC 6979 (section 3.2); nothing for a hash that is not computed here.
fn nonce<C: Curve>(
    algo: HashAlgorithm,
    scalar: &[u8],
    digest: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    fn with<C: Curve, D: BlockSizeUser + Digest>(
        scalar: &[u8],
        digest: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        let mut nonce = Zeroizing::new(vec![0; scalar.len()]);
        let order = C::ORDER;
        KGenerator::<D, C::Uint>::new(scalar, digest, &[], &order).fill_next_k(&mut nonce);
        nonce
    }
    Some(match algo {
        HashAlgorithm::Sha256 => with::<C, sha2::Sha256>(scalar, digest),
        HashAlgorithm::Sha384 => with::<C, sha2::Sha384>(scalar, digest),
        HashAlgorithm::Sha512 => with::<C, sha2::Sha512>(scalar, digest),
        HashAlgorithm::Sha3_256 => with::<C, sha3::Sha3_256>(scalar, digest),
        HashAlgorithm::Sha3_384 => with::<C, sha3::Sha3_384>(scalar, digest),
        HashAlgorithm::Sha3_512 => with::<C, sha3::Sha3_512>(scalar, digest),
        _ => return None,
    })
}

/// The private key as the C library holds it.
struct LibraryKey(NonNull<c::EC_KEY>);

// SAFETY: nothing but `drop` changes the key once it is made, and the library lets several threads sign with one
// (include/openssl/ec_key.h: functions that take a const EC_KEY).
unsafe impl Send for LibraryKey {}
// SAFETY: as above.
unsafe impl Sync for LibraryKey {}

impl LibraryKey {
    fn new(kind: KeyKind, scalar: &[u8]) -> Option<Self> {
        let curve = match kind {
            KeyKind::P256 => c::NID_X9_62_prime256v1,
            KeyKind::P384 => c::NID_secp384r1,
            KeyKind::P521 => c::NID_secp521r1,
            KeyKind::Rsa(_) | KeyKind::MlDsa(_) => return None,
        };
        // SAFETY: the call has no preconditions; the key is this one's to free.
        let key = Self(NonNull::new(unsafe { c::EC_KEY_new_by_curve_name(curve) })?);
        // SAFETY: the pointer and the length are of one slice. The number is freed below, and the key has a copy of it.
        let number =
            NonNull::new(unsafe { c::BN_bin2bn(scalar.as_ptr(), scalar.len(), ptr::null_mut()) })?;
        // SAFETY: both are valid, and the key is nobody else's.
        let set = unsafe { c::EC_KEY_set_private_key(key.0.as_ptr(), number.as_ptr()) };
        // SAFETY: it was made above and is not used any more.
        unsafe { c::BN_clear_free(number.as_ptr()) };
        (set == 1).then_some(key)
    }

    /// Signs with this nonce, big-endian and as long as the curve's order; nothing if it is no number between 1 and the order.
    fn sign_with(&self, nonce: &[u8], digest: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: the key is valid, and each pointer is of a slice of the length beside it.
        let signature = NonNull::new(unsafe {
            c::ECDSA_sign_with_nonce_and_leak_private_key_for_testing(
                digest.as_ptr(),
                digest.len(),
                self.0.as_ptr(),
                nonce.as_ptr(),
                nonce.len(),
            )
        })?;
        let (mut bytes, mut len) = (ptr::null_mut(), 0);
        // SAFETY: the signature is valid, and the others are places for a pointer and a length.
        let encoded = unsafe { c::ECDSA_SIG_to_bytes(&mut bytes, &mut len, signature.as_ptr()) };
        // SAFETY: it was made above and is not used any more.
        unsafe { c::ECDSA_SIG_free(signature.as_ptr()) };
        if encoded != 1 || bytes.is_null() {
            return None;
        }
        // SAFETY: on success the library has allocated so many bytes there.
        let der = unsafe { std::slice::from_raw_parts(bytes, len) }.to_vec();
        // SAFETY: they are the library's, and are not used any more.
        unsafe { c::OPENSSL_free(bytes.cast()) };
        Some(der)
    }
}

impl Drop for LibraryKey {
    fn drop(&mut self) {
        // SAFETY: this is the only owner. The library overwrites the private key.
        unsafe { c::EC_KEY_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;
    use crate::key::{FileKey, Signer as _, no_password};
    use der::Decode as _;
    use der::asn1::UintRef;

    /// A key whose private number is this one: ECPrivateKey (SEC 1, section C.4) without the curve, which the length tells.
    fn key(kind: KeyKind, scalar: &str) -> FileKey {
        let scalar = hex::decode(scalar).unwrap();
        let length = u8::try_from(scalar.len()).unwrap();
        let der = [&[0x30, length + 5, 2, 1, 1, 4, length], &scalar[..]].concat();
        let key = FileKey::from_bytes(&der, &no_password).unwrap();
        assert_eq!(key.kind(), kind);
        key
    }

    /// r and s, without zeros in front.
    fn numbers(signature: &[u8]) -> [String; 2] {
        use der::Reader as _;
        let mut reader = der::SliceReader::new(signature).unwrap();
        let numbers = reader
            .sequence(|reader| {
                Ok::<_, der::Error>([
                    hex::encode(UintRef::decode(reader)?.as_bytes()),
                    hex::encode(UintRef::decode(reader)?.as_bytes()),
                ])
            })
            .unwrap();
        reader.finish().unwrap();
        numbers
    }

    const P256: &str = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    const P384: &str = "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5";
    const P521: &str = "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538";

    #[test]
    fn signatures_of_rfc_6979() {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        // Appendices A.2.5, A.2.6 and A.2.7.
        for (kind, scalar, algo, message, r, s) in [
            (
                KeyKind::P256,
                P256,
                Sha256,
                "sample",
                "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
                "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
            ),
            (
                KeyKind::P256,
                P256,
                Sha384,
                "sample",
                "0eafea039b20e9b42309fb1d89e213057cbf973dc0cfc8f129edddc800ef7719",
                "4861f0491e6998b9455193e34e7b0d284ddd7149a74b95b9261f13abde940954",
            ),
            (
                KeyKind::P256,
                P256,
                Sha512,
                "sample",
                "8496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f00",
                "2362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe",
            ),
            (
                KeyKind::P256,
                P256,
                Sha256,
                "test",
                "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
                "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
            ),
            (
                KeyKind::P384,
                P384,
                Sha256,
                "sample",
                "21b13d1e013c7fa1392d03c5f99af8b30c570c6f98d4ea8e354b63a21d3daa33bde1e888e63355d92fa2b3c36d8fb2cd",
                "f3aa443fb107745bf4bd77cb3891674632068a10ca67e3d45db2266fa7d1feebefdc63eccd1ac42ec0cb8668a4fa0ab0",
            ),
            (
                KeyKind::P384,
                P384,
                Sha384,
                "sample",
                "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
                "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
            ),
            (
                KeyKind::P384,
                P384,
                Sha512,
                "sample",
                "ed0959d5880ab2d869ae7f6c2915c6d60f96507f9cb3e047c0046861da4a799cfe30f35cc900056d7c99cd7882433709",
                "512c8cceee3890a84058ce1e22dbc2198f42323ce8aca9135329f03c068e5112dc7cc3ef3446defceb01a45c2667fdd5",
            ),
            (
                KeyKind::P384,
                P384,
                Sha384,
                "test",
                "8203b63d3c853e8d77227fb377bcf7b7b772e97892a80f36ab775d509d7a5feb0542a7f0812998da8f1dd3ca3cf023db",
                "ddd0760448d42d8a43af45af836fce4de8be06b485e9b61b827c2f13173923e06a739f040649a667bf3b828246baa5a5",
            ),
            (
                KeyKind::P521,
                P521,
                Sha256,
                "sample",
                "01511bb4d675114fe266fc4372b87682baecc01d3cc62cf2303c92b3526012659d16876e25c7c1e57648f23b73564d67f61c6f14d527d54972810421e7d87589e1a7",
                "004a171143a83163d6df460aaf61522695f207a58b95c0644d87e52aa1a347916e4f7a72930b1bc06dbe22ce3f58264afd23704cbb63b29b931f7de6c9d949a7ecfc",
            ),
            (
                KeyKind::P521,
                P521,
                Sha384,
                "sample",
                "01ea842a0e17d2de4f92c15315c63ddf72685c18195c2bb95e572b9c5136ca4b4b576ad712a52be9730627d16054ba40cc0b8d3ff035b12ae75168397f5d50c67451",
                "01f21a3cee066e1961025fb048bd5fe2b7924d0cd797babe0a83b66f1e35eeaf5fde143fa85dc394a7dee766523393784484bdf3e00114a1c857cde1aa203db65d61",
            ),
            (
                KeyKind::P521,
                P521,
                Sha512,
                "sample",
                "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa",
                "00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
            ),
        ] {
            let digest = algo.digest(message.as_bytes()).unwrap();
            let signature = key(kind, scalar).sign_digest(algo, &digest).unwrap();
            let plain = |number: &str| number.trim_start_matches("00").to_owned();
            assert_eq!(
                numbers(&signature).map(|number| plain(&number)),
                [plain(r), plain(s)],
                "{kind} {algo} {message}"
            );
        }
    }

    #[test]
    fn another_digest_or_key_has_another_nonce() {
        let other = FileKey::generate(KeyKind::P256).unwrap();
        let key = key(KeyKind::P256, P256);
        let algo = HashAlgorithm::Sha256;
        let digests: Vec<Vec<u8>> = (0_u8..64)
            .map(|byte| algo.digest(&[byte]).unwrap())
            .collect();
        // r is that of the nonce alone.
        let mut seen = std::collections::BTreeSet::new();
        for digest in &digests {
            for key in [&key, &other] {
                let first = key.sign_digest(algo, digest).unwrap();
                assert_eq!(first, key.sign_digest(algo, digest).unwrap());
                let [r, _] = numbers(&first);
                assert!(seen.insert(r));
            }
        }
    }
}
