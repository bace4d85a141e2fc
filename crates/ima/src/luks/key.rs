//! The volume key: from the passphrase of a keyslot through PBKDF2, AES-XTS and the anti-forensic splitter of LUKS (cryptsetup,
//! lib/luks2/luks2_keyslot_luks2.c, lib/luks1/af.c).

use std::fmt;

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use sha2::{Sha256, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Container, Digest, Hash, Kdf, Keyslot, Read, Token};
use crate::fault::{Code, Fault};
use crate::hash::Hasher;

/// The length of a sector that is encrypted at a time in the area of a keyslot, in bytes.
const SECTOR: usize = 512;

/// The key that the data is encrypted with. Its bytes are overwritten when it is dropped.
pub struct VolumeKey(Zeroizing<Vec<u8>>);

impl VolumeKey {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeKey({} bytes)", self.0.len())
    }
}

impl Container {
    /// Opens a keyslot of the token with the secret that the TPM has unsealed.
    ///
    /// # Errors
    ///
    /// [`Code::LuksKeyslot`]: no keyslot is of a kind that can be opened, or what came out is not the volume key.
    pub fn open(
        &self,
        token: &Token,
        secret: &[u8],
        read: &mut Read<'_>,
    ) -> Result<VolumeKey, Fault> {
        let passphrase = Zeroizing::new(Token::passphrase(secret));
        let refused = |detail: String| Fault::new(Code::LuksKeyslot, detail);
        let mut fault = refused(format!(
            "the token's keyslot ({}) is not of a kind that the init can open",
            token.keyslots.join(", ")
        ));
        for keyslot in &self.keyslots {
            let number = &keyslot.number;
            let is_verified = |digest: &&Digest| digest.keyslots.contains(number);
            let Some(digest) = self.digests.iter().find(is_verified) else {
                continue;
            };
            if !token.keyslots.contains(number) {
                continue;
            }
            let stripes = read(keyslot.area, keyslot.stripes_length());
            let stripes = stripes.map_err(|error| refused(format!("keyslot {number}: {error}")))?;
            let key = keyslot.key(passphrase.as_bytes(), stripes);
            match key.filter(|key| digest.is_of(key)) {
                Some(key) => return Ok(VolumeKey(key)),
                None => fault = refused(format!("keyslot {number}")),
            }
        }
        Err(fault)
    }
}

impl Kdf {
    fn derive(&self, secret: &[u8], key: &mut [u8]) {
        match self.hash {
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, &self.salt, self.iterations, key),
            Hash::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(secret, &self.salt, self.iterations, key),
        }
    }
}

impl Digest {
    /// Whether it is the digest of this key.
    fn is_of(&self, key: &[u8]) -> bool {
        let mut digest = vec![0; self.digest.len()];
        self.kdf.derive(key, &mut digest);
        digest == self.digest
    }
}

impl Keyslot {
    /// The length of what is read of its area: whole sectors.
    fn stripes_length(&self) -> usize {
        let length = self.key_length.saturating_mul(self.stripes);
        length.next_multiple_of(SECTOR)
    }

    /// The key in it, right or not; `None` if the area is cut.
    fn key(&self, passphrase: &[u8], stripes: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        let mut stripes = Zeroizing::new(stripes);
        let mut key = Zeroizing::new(vec![0; self.area_key_length]);
        self.kdf.derive(passphrase, &mut key);
        match self.area_key_length {
            32 => decrypt::<Aes128>(&key, &mut stripes)?,
            _ => decrypt::<Aes256>(&key, &mut stripes)?,
        }
        merge(&stripes, self.key_length, self.stripes, self.splitter)
    }
}

/// Decrypts sectors in AES-XTS, whose number from 0 on is their tweak: `aes-xts-plain64` (IEEE Std 1619).
fn decrypt<Cipher>(key: &[u8], sectors: &mut [u8]) -> Option<()>
where
    Cipher: KeyInit + BlockCipherDecrypt + BlockCipherEncrypt,
{
    let half = key.len().checked_div(2)?;
    let (data, tweak) = key.split_at_checked(half)?;
    let data = Cipher::new_from_slice(data).ok()?;
    let tweak = Cipher::new_from_slice(tweak).ok()?;
    for (sector, number) in sectors.chunks_exact_mut(SECTOR).zip(0_u128..) {
        let mut mask = Block::<Cipher>::default();
        mask.copy_from_slice(&number.to_le_bytes());
        tweak.encrypt_block(&mut mask);
        let mut mask = u128::from_le_bytes(mask.as_slice().try_into().ok()?);
        for bytes in sector.chunks_exact_mut(size_of::<u128>()) {
            let block: &mut Block<Cipher> = bytes.try_into().ok()?;
            exclusive_or(block, &mask.to_le_bytes());
            data.decrypt_block(block);
            exclusive_or(block, &mask.to_le_bytes());
            // The next power of x in GF(2^128) with x^128 = x^7 + x^2 + x + 1.
            let carry = mask >> 127;
            mask = (mask << 1) ^ carry.wrapping_mul(0x87);
        }
    }
    Some(())
}

fn exclusive_or(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// Merges the stripes into the key that was split into them.
fn merge(stripes: &[u8], length: usize, count: usize, hash: Hash) -> Option<Zeroizing<Vec<u8>>> {
    let stripes = stripes.get(..length.checked_mul(count)?)?;
    let mut key = Zeroizing::new(vec![0; length]);
    let mut stripes = stripes.chunks_exact(length).peekable();
    while let Some(stripe) = stripes.next() {
        exclusive_or(&mut key, stripe);
        if stripes.peek().is_some() {
            diffuse(&mut key, hash)?;
        }
    }
    Some(key)
}

/// Replaces each part of the block, of the length of a digest, by the digest of its number and of itself.
fn diffuse(block: &mut [u8], hash: Hash) -> Option<()> {
    let algorithm = hash.algorithm();
    for (part, number) in block.chunks_mut(algorithm.digest_len()).zip(0_u32..) {
        let mut hasher = Hasher::new(algorithm)?;
        hasher.update(&number.to_be_bytes());
        hasher.update(part);
        let mut digest = hasher.finish();
        for (to, from) in part.iter_mut().zip(&digest) {
            *to = *from;
        }
        digest.zeroize();
    }
    Some(())
}
