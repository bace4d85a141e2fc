//! EVM's HMAC key as the kernel gives and takes it: an encrypted key, sealed with a master key.
//!
//! Format: Documentation/security/keys/trusted-encrypted.rst and security/keys/encrypted-keys/encrypted.c
//! (`datablob_parse`), what `keyctl print` writes: `[FORMAT] trusted:NAME|user:NAME LENGTH HEXADECIMAL`.

use std::fmt;

use crate::hex;

/// The description under which EVM looks for its key (security/integrity/evm/evm_crypto.c, `evm_init_key`).
pub const DESCRIPTION: &str = "evm-key";

/// The longest blob that the kernel takes, in bytes (encrypted.c, `encrypted_instantiate`).
pub const MAX_BLOB: usize = 32_767;

/// What kind of key the master key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterKind {
    /// Sealed by the TPM, or another trust source of the kernel's.
    Trusted,
    /// Bytes that whoever made the key knows.
    User,
}

impl MasterKind {
    /// The name of the key type in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::User => "user",
        }
    }
}

/// An encrypted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The blob as the kernel takes it, without blanks around it.
    pub text: String,
    /// The kind of the master key that it is sealed with.
    pub kind: MasterKind,
    /// The description of that master key.
    pub master: String,
}

impl Blob {
    /// Reads a blob.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a phrase; only the kernel, which has the master key, can check whether its content is intact.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlobError> {
        if bytes.len() > MAX_BLOB {
            return Err(BlobError("longer than any that the kernel takes"));
        }
        let text = std::str::from_utf8(bytes)
            .ok()
            .map(str::trim)
            .filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            .ok_or(BlobError("not one line of text, as keyctl print writes it"))?;
        let mut words = text.split(' ').peekable();
        // Of the formats only those of plain keys: that of eCryptfs wants another description.
        words.next_if(|word| matches!(*word, "default" | "enc32"));
        let (kind, master) =
            words
                .next()
                .and_then(|word| word.split_once(':'))
                .ok_or(BlobError(
                    "no master key is named, as trusted:NAME or user:NAME",
                ))?;
        let kind = [MasterKind::Trusted, MasterKind::User]
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or(BlobError("the master key is neither trusted nor user"))?;
        if master.is_empty() {
            return Err(BlobError("the master key has no name"));
        }
        let (length, content) = (words.next(), words.next());
        if !length.is_some_and(|length| length.parse::<u16>().is_ok_and(|length| length >= 20)) {
            return Err(BlobError(
                "the length of the key is not a number of at least 20",
            ));
        }
        let is_hex = |text: &str| !text.is_empty() && hex::decode(text).is_some();
        if !content.is_some_and(is_hex) || words.next().is_some() {
            return Err(BlobError("its content is not hexadecimal"));
        }
        Ok(Self {
            text: text.to_owned(),
            kind,
            master: master.to_owned(),
        })
    }
}

/// Why a blob is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobError(&'static str);

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BlobError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keyctl_prints_is_read() {
        let blob = Blob::parse(b"default user:kmk-user 32 c6217ede\n").unwrap();
        assert_eq!(
            (blob.kind, blob.master.as_str()),
            (MasterKind::User, "kmk-user")
        );
        assert_eq!(blob.text, "default user:kmk-user 32 c6217ede");
        let blob = Blob::parse(b"trusted:kmk 64 00ff").unwrap();
        assert_eq!(
            (blob.kind, blob.master.as_str()),
            (MasterKind::Trusted, "kmk")
        );
    }

    #[test]
    fn refusals() {
        for (text, why) in [
            ("", "no master key"),
            ("default", "no master key"),
            ("ecryptfs user:kmk 32 00", "no master key"),
            ("default logon:kmk 32 00", "neither trusted nor user"),
            ("default user: 32 00", "has no name"),
            ("default user:kmk 3x 00", "not a number"),
            ("default user:kmk 19 00", "not a number"),
            ("default user:kmk 32", "hexadecimal"),
            ("default user:kmk 32 0", "hexadecimal"),
            ("default user:kmk 32 0g", "hexadecimal"),
            ("default user:kmk 32 00 00", "hexadecimal"),
            ("default user:kmk 32 00\nupdate", "one line"),
        ] {
            let error = Blob::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Blob::parse(&[0xff, 0xfe]).is_err());
        assert!(Blob::parse(&vec![b'0'; MAX_BLOB + 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
            text in "(default |enc32 |)(trusted|user|x):[a-z]{0,4} [0-9]{0,7} [0-9a-fg]{0,20}",
        ) {
            let _ = Blob::parse(&bytes);
            if let Ok(blob) = Blob::parse(text.as_bytes()) {
                proptest::prop_assert!(text.contains(&blob.master) && text.contains(&blob.text));
            }
        }
    }
}
