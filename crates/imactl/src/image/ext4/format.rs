//! What the writer and the reader of ext4 have in common: numbers of the format, and the conversions of attributes
//! (fs/ext4/ext4.h, fs/ext4/xattr.h, fs/ext4/acl.h).

/// The inode of the root directory.
pub(super) const ROOT: u32 = 2;
/// Begins the attributes in an inode, and a block of attributes.
pub(super) const XATTR_MAGIC: u32 = 0xea02_0000;
/// Begins each node of an extent tree.
pub(super) const EXTENT_MAGIC: u16 = 0xf30a;
/// The most blocks an initialised extent covers; a longer one is allocated and reads as zeros.
pub(super) const MAX_EXTENT: u16 = 32_768;
/// The inode's blocks are found by an extent tree.
pub(super) const EXTENTS_FLAG: u32 = 0x8_0000;

/// Names of attributes, shortened (`ext4_xattr_handler_map`): the number of the prefix, and what it stands for. ACLs have no
/// rest.
pub(super) const XATTR_PREFIXES: [(u8, &[u8]); 7] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (8, b"system.richacl"),
    (7, b"system."),
];

/// Whether an attribute is an ACL, which is stored in another form than it is shown.
pub(super) const fn is_acl(prefix: u8) -> bool {
    matches!(prefix, 2 | 3)
}

/// The tags of ACL entries that name a user or a group.
const fn names_someone(tag: u8) -> bool {
    matches!(tag, 0x02 | 0x08)
}

/// An ACL as it is stored, version 1 with ids only where they mean something, of the form that the kernel shows: version 2 with
/// an id in every entry (fs/ext4/acl.c, `ext4_acl_to_disk`). Nothing if it is malformed.
pub(super) fn acl_to_disk(shown: &[u8]) -> Option<Vec<u8>> {
    let (entries, []) = shown.strip_prefix(&2_u32.to_le_bytes())?.as_chunks::<8>() else {
        return None;
    };
    let mut stored = 1_u32.to_le_bytes().to_vec();
    for entry @ [tag, ..] in entries {
        let len = if names_someone(*tag) { 8 } else { 4 };
        stored.extend(entry.get(..len).unwrap_or_default());
    }
    Some(stored)
}

/// The other way round (`ext4_acl_from_disk`).
pub(super) fn acl_from_disk(stored: &[u8]) -> Option<Vec<u8>> {
    let mut rest = stored.strip_prefix(&1_u32.to_le_bytes())?;
    let mut shown = 2_u32.to_le_bytes().to_vec();
    while let Some(&tag) = rest.first() {
        let named = names_someone(tag);
        let (entry, after) = rest.split_at_checked(if named { 8 } else { 4 })?;
        shown.extend_from_slice(entry);
        if !named {
            shown.extend_from_slice(&u32::MAX.to_le_bytes());
        }
        rest = after;
    }
    Some(shown)
}

/// CRC-32C (Castagnoli, reflected) carried on from `crc`, without the inversion at the end, as ext4 has it.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ if value & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(crc, |crc, byte| {
        (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_acl_is_shown_with_an_id_in_each_entry() {
        let stored = [
            &[1, 0, 0, 0][..],
            &[1, 0, 6, 0],
            &[2, 0, 4, 0, 232, 3, 0, 0],
        ]
        .concat();
        let shown = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 232, 3, 0, 0],
        ]
        .concat();
        assert_eq!(acl_from_disk(&stored), Some(shown.clone()));
        assert_eq!(acl_to_disk(&shown), Some(stored.clone()));
        assert_eq!(acl_from_disk(&stored[..stored.len() - 1]), None, "cut off");
        assert_eq!(acl_to_disk(&shown[..shown.len() - 1]), None, "cut off");
        assert_eq!((acl_from_disk(b""), acl_to_disk(b"")), (None, None));
    }

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_is_shown_of_a_stored_acl_is_stored_as_that_acl(entries in proptest::collection::vec(any::<u8>(), 0..200)) {
            let stored = [&1_u32.to_le_bytes()[..], &entries].concat();
            if let Some(shown) = acl_from_disk(&stored) {
                prop_assert_eq!(acl_to_disk(&shown), Some(stored));
            }
        }
    }
}
