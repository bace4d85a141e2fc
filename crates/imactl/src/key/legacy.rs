//! Private keys in OpenSSL's old encrypted PEM form: `Proc-Type: 4,ENCRYPTED` and `DEK-Info` (RFC 1421 section 4.6).
//!
//! Read, never written: the key of the cipher is a single MD5 of password and salt (OpenSSL's `EVP_BytesToKey`), so a guessed
//! password costs an attacker next to nothing.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use der::SecretDocument;
use ima::fault::{Cause, Code, Fault};
use md5::{Digest as _, Md5};

use super::password::PasswordSource;
use super::pem::malformed;
use crate::Result;

/// Whether a PEM block of a private key is in this form.
pub(super) fn is_encrypted(pem: &str) -> bool {
    pem.contains("Proc-Type:") && pem.contains("ENCRYPTED")
}

/// The label of the block, such as `RSA PRIVATE KEY`, and its content in the clear: padding that is right by chance makes
/// nonsense of one wrong password in 256, so the caller says of what cannot be read that the password is wrong.
///
/// # Errors
///
/// [`Code::PrivateKeyMalformed`] for a cipher that is not known or a block that is malformed, [`Code::KeyPassword`] for a
/// wrong password.
pub(super) fn decrypt(pem: &str, password: PasswordSource<'_>) -> Result<(String, SecretDocument)> {
    let mut lines = pem.lines().map(str::trim_end);
    let label = lines
        .next()
        .and_then(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .ok_or_else(|| malformed("malformed PEM"))?
        .to_owned();
    let (mut cipher, mut body) = (None, String::new());
    for line in lines {
        if let Some(info) = line.strip_prefix("DEK-Info:") {
            cipher = info.trim().split_once(',');
        } else if line.starts_with("-----END ") {
            break;
        } else if !line.contains(':') {
            body.push_str(line);
            body.push('\n');
        }
    }
    let (cipher, iv) = cipher.ok_or_else(|| malformed("encrypted PEM without DEK-Info"))?;
    let iv = crate::hex::decode(iv).ok_or_else(|| malformed("DEK-Info without a salt"))?;
    let wrapped = format!("-----BEGIN X-----\n{}\n-----END X-----\n", body.trim());
    let (_, encrypted) = der::pem::decode_vec(wrapped.as_bytes())
        .map_err(|error| malformed(format!("malformed PEM: {error}")))?;
    // Everything that can be found wrong without the password comes before it is asked for.
    let key_len = match cipher {
        "AES-128-CBC" => 16,
        "AES-192-CBC" | "DES-EDE3-CBC" => 24,
        "AES-256-CBC" => 32,
        other => {
            return Err(
                malformed(format!("OpenSSL's old encrypted PEM form with {other}"))
                    .because(Cause::OLD_KEY_ENCRYPTION),
            );
        }
    };
    let key = derive(&password()?, &iv, key_len);
    let plain = match cipher {
        "AES-128-CBC" => open::<cbc::Decryptor<aes::Aes128>>(&key, &iv, &encrypted),
        "AES-192-CBC" => open::<cbc::Decryptor<aes::Aes192>>(&key, &iv, &encrypted),
        "AES-256-CBC" => open::<cbc::Decryptor<aes::Aes256>>(&key, &iv, &encrypted),
        _ => open::<cbc::Decryptor<des::TdesEde3>>(&key, &iv, &encrypted),
    };
    let wrong = || Fault::new(Code::KeyPassword, "the password is wrong");
    let plain = plain.ok_or_else(wrong)?;
    Ok((label, SecretDocument::try_from(plain).map_err(|_| wrong())?))
}

/// OpenSSL's EVP_BytesToKey with MD5, one round, and the first eight bytes of the IV for a salt (crypto/pem/pem_lib.c,
/// `PEM_do_header`).
fn derive(password: &[u8], iv: &[u8], len: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut last = Vec::new();
    while key.len() < len {
        last = Md5::new()
            .chain_update(&last)
            .chain_update(password)
            .chain_update(iv.get(..8).unwrap_or(iv))
            .finalize()
            .to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(len);
    key
}

fn open<C: KeyIvInit + BlockModeDecrypt>(
    key: &[u8],
    iv: &[u8],
    encrypted: &[u8],
) -> Option<Vec<u8>> {
    C::new_from_slices(key, iv)
        .ok()?
        .decrypt_padded_vec::<Pkcs7>(encrypted)
        .ok()
}
