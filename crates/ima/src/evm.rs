//! Portable EVM signatures: what `security.evm` of type 5 covers.
//!
//! `evm_calc_hmac_or_hash` and `hmac_add_misc` of `security/integrity/evm/evm_crypto.c`: the values of the protected
//! attributes that are there, in a fixed order and without their names, and then `struct h_misc` with inode and generation
//! zero, so that the signature holds wherever the file is copied to.

use std::collections::BTreeMap;

use crate::hash::{HashAlgorithm, Hasher};

/// The protected attributes in the order in which the kernel hashes them (`evm_config_default_xattrnames`). For a portable
/// signature those count too that the kernel is not configured to protect otherwise.
pub const PROTECTED: [&str; 8] = [
    "security.selinux",
    "security.SMACK64",
    "security.SMACK64EXEC",
    "security.SMACK64TRANSMUTE",
    "security.SMACK64MMAP",
    "security.apparmor",
    "security.ima",
    "security.capability",
];

/// The properties of an inode that a portable signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Type and permissions, as `st_mode`.
    pub mode: u16,
    /// Owner, in the initial user namespace.
    pub uid: u32,
    /// Group, in the initial user namespace.
    pub gid: u32,
}

/// Why there is nothing to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvmError {
    /// The kernel takes a portable signature only of a file with `security.ima` (EPERM).
    #[error("no security.ima, without which the kernel takes no portable signature")]
    NoIma,
    /// The algorithm is not computed by this crate.
    #[error("cannot compute {0} digests")]
    Algorithm(HashAlgorithm),
}

/// The digest a portable signature is made over, for a 64-bit or a 32-bit kernel (`struct h_misc` has an unsigned long in it, so that
/// the one does not take a signature for the other). `xattrs` are the file's extended attributes by full name; those that are not
/// [`PROTECTED`] do not matter.
///
/// # Errors
///
/// [`EvmError`].
pub fn portable_digest(
    algo: HashAlgorithm,
    attributes: &Attributes,
    xattrs: &BTreeMap<Vec<u8>, Vec<u8>>,
    layout: Layout,
) -> Result<Vec<u8>, EvmError> {
    if !xattrs.contains_key(&b"security.ima"[..]) {
        return Err(EvmError::NoIma);
    }
    let values = PROTECTED
        .iter()
        .filter_map(|name| xattrs.get(name.as_bytes()).map(Vec::as_slice));
    digest(algo, values, &Inode::portable(attributes), layout)
}

/// What of an inode a signature in `security.evm` can cover. A portable one has neither number nor generation nor file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inode {
    /// Inode number.
    pub number: u64,
    /// Inode generation (`FS_IOC_GETVERSION`).
    pub generation: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permissions.
    pub mode: u16,
    /// UUID of the file system, hashed last.
    pub filesystem: Option<[u8; 16]>,
}

impl Inode {
    /// What a portable signature covers.
    #[must_use]
    pub fn portable(attributes: &Attributes) -> Self {
        Self {
            uid: attributes.uid,
            gid: attributes.gid,
            mode: attributes.mode,
            ..Self::default()
        }
    }
}

/// How the inode is laid out for the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `struct h_misc` of a 64-bit kernel, 24 bytes.
    Bits64,
    /// The same of a 32-bit kernel, 20 bytes.
    Bits32,
    /// Owner, group and mode alone, 12 bytes: evmctl's immutable signatures, which no kernel of today verifies.
    Immutable,
}

/// The digest that a value of `security.evm` is made over: the values of the protected attributes in the kernel's order, then the
/// inode (`evm_calc_hmac_or_hash`, `hmac_add_misc`).
///
/// # Errors
///
/// [`EvmError::Algorithm`].
pub fn digest<'a>(
    algo: HashAlgorithm,
    values: impl IntoIterator<Item = &'a [u8]>,
    inode: &Inode,
    layout: Layout,
) -> Result<Vec<u8>, EvmError> {
    let mut hasher = Hasher::new(algo).ok_or(EvmError::Algorithm(algo))?;
    for value in values {
        hasher.update(value);
    }
    // unsigned long ino; u32 generation; uid_t uid; gid_t gid; umode_t mode; two bytes of padding. The kernel hashes its own
    // byte order; the machines it is signed for are little-endian.
    let number = inode.number.to_le_bytes();
    match layout {
        Layout::Bits64 => hasher.update(&number),
        Layout::Bits32 => hasher.update(number.first_chunk::<4>().unwrap_or(&[0; 4])),
        Layout::Immutable => {}
    }
    if layout != Layout::Immutable {
        hasher.update(&inode.generation.to_le_bytes());
    }
    hasher.update(&inode.uid.to_le_bytes());
    hasher.update(&inode.gid.to_le_bytes());
    hasher.update(&inode.mode.to_le_bytes());
    hasher.update(&[0; 2]);
    if let Some(uuid) = inode.filesystem {
        hasher.update(&uuid);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered() {
        let attributes = Attributes {
            mode: 0o100_755,
            uid: 0,
            gid: 0,
        };
        let xattrs = |pairs: &[(&str, &[u8])]| -> BTreeMap<Vec<u8>, Vec<u8>> {
            pairs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect()
        };
        let digest = |attributes: &Attributes, pairs: &[(&str, &[u8])]| {
            let xattrs = xattrs(pairs);
            portable_digest(HashAlgorithm::Sha256, attributes, &xattrs, Layout::Bits64).unwrap()
        };
        let base = digest(&attributes, &[("security.ima", b"i")]);
        // By hand: the value, then 24 bytes.
        let mut data = b"i".to_vec();
        data.extend([0; 20]);
        data.extend([0xed, 0x81, 0, 0]);
        assert_eq!(Some(base.clone()), HashAlgorithm::Sha256.digest(&data));
        assert_eq!(
            digest(&attributes, &[("security.ima", b"i"), ("user.note", b"x")]),
            base
        );
        for (name, other) in [
            (
                "mode",
                digest(
                    &Attributes {
                        mode: 0o100_644,
                        ..attributes
                    },
                    &[("security.ima", b"i")],
                ),
            ),
            (
                "uid",
                digest(
                    &Attributes {
                        uid: 1,
                        ..attributes
                    },
                    &[("security.ima", b"i")],
                ),
            ),
            (
                "gid",
                digest(
                    &Attributes {
                        gid: 1,
                        ..attributes
                    },
                    &[("security.ima", b"i")],
                ),
            ),
            ("ima", digest(&attributes, &[("security.ima", b"j")])),
            (
                "capability",
                digest(
                    &attributes,
                    &[("security.ima", b"i"), ("security.capability", b"c")],
                ),
            ),
        ] {
            assert_ne!(other, base, "{name}");
        }
        assert_eq!(
            digest(
                &attributes,
                &[
                    ("security.capability", b"c"),
                    ("security.ima", b"i"),
                    ("security.selinux", b"s")
                ]
            ),
            digest(
                &attributes,
                &[("security.ima", b"si"), ("security.capability", b"c")]
            ),
            "the order is the kernel's, and names do not count"
        );
        // Of a 32-bit kernel, the number of the inode is four bytes shorter.
        let pairs = xattrs(&[("security.ima", b"i")]);
        let narrow = portable_digest(HashAlgorithm::Sha256, &attributes, &pairs, Layout::Bits32);
        let data = [&data[..1], &data[5..]].concat();
        assert_eq!(narrow.ok(), HashAlgorithm::Sha256.digest(&data));
        let empty = BTreeMap::new();
        let none = portable_digest(HashAlgorithm::Sha256, &attributes, &empty, Layout::Bits64);
        assert_eq!(none, Err(EvmError::NoIma));
        let gost = portable_digest(
            HashAlgorithm::Streebog256,
            &attributes,
            &xattrs(&[("security.ima", b"i")]),
            Layout::Bits64,
        );
        assert_eq!(gost, Err(EvmError::Algorithm(HashAlgorithm::Streebog256)));
    }
}
