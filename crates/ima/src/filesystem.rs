//! What file system a block device holds, by its superblock.

use std::fmt::{self, Write as _};

use crate::hex;
use crate::release::Release;

/// How much of a device's beginning [`probe`] looks at, in bytes: up to the end of btrfs's superblock.
pub const PROBE_LENGTH: usize = 0x1_1000;

/// The two parts of it in which superblocks are, which [`probe_parts`] looks at: offsets and lengths in bytes.
pub const PROBED: [(u64, usize); 2] = [(0, 0x2000), (BTRFS as u64, 0x1000)];

/// Where btrfs's superblock is.
const BTRFS: usize = 0x1_0000;

/// TMPFS_MAGIC (include/uapi/linux/magic.h): tmpfs, devtmpfs, memfd, shared memory.
pub const TMPFS_MAGIC: u64 = 0x0102_1994;

/// RAMFS_MAGIC: the initramfs where there is a `root=`.
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// A 128-bit UUID, in the order of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Parses `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, hex digits in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let lengths = [8, 4, 4, 4, 12];
        let groups: Vec<&str> = text.split('-').collect();
        if !groups.iter().map(|group| group.len()).eq(lengths) {
            return None;
        }
        hex::decode(groups.concat())?.try_into().ok().map(Self)
    }

    /// The UUID of a GUID as it is stored in a GPT: the first three fields little-endian (UEFI 2.10, appendix A).
    pub fn from_guid(bytes: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = bytes;
        let [d0, d1, d2, d3, d4, d5, d6, d7] = rest;
        Self([
            a3, a2, a1, a0, b1, b0, c1, c0, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }

    /// Whether all bits are zero.
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, digit) in hex::digits(&self.0).enumerate() {
            if matches!(at, 8 | 12 | 16 | 20) {
                f.write_char('-')?;
            }
            f.write_char(char::from(digit))?;
        }
        Ok(())
    }
}

/// The types that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// ext2, ext3 and ext4, all of which ext4's driver mounts.
    Ext4,
    /// squashfs 4
    Squashfs,
    /// EROFS
    Erofs,
    /// btrfs
    Btrfs,
    /// XFS
    Xfs,
    /// F2FS
    F2fs,
    /// FAT12, FAT16 and FAT32
    Vfat,
}

impl Kind {
    /// The type's name, as `mount -t` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
            Self::F2fs => "f2fs",
            Self::Vfat => "vfat",
        }
    }

    /// Whether a driver of that name mounts it (fs/ext4/super.c, `ext2_fs_type` and `ext3_fs_type`; fs/fat/namei_msdos.c).
    pub fn is_mounted_as(self, fstype: &str) -> bool {
        match self {
            Self::Ext4 => matches!(fstype, "ext2" | "ext3" | "ext4"),
            Self::Vfat => matches!(fstype, "vfat" | "msdos"),
            _ => fstype == self.name(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A recognised file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// The type.
    pub kind: Kind,
    /// The UUID as `blkid` shows it; FAT's is eight hex digits with a dash. Squashfs has none.
    pub uuid: Option<String>,
    /// The label, without padding; nothing if it is empty or no UTF-8.
    pub label: Option<String>,
}

/// The file systems whose superblock is in `head`, the first [`PROBE_LENGTH`] bytes of a device or fewer. More than
/// one means that an older one was not wiped: the bytes do not show which one is meant.
pub fn probe(head: &[u8]) -> Vec<Filesystem> {
    probe_parts([head, head.get(BTRFS..).unwrap_or_default()])
}

/// The same for the parts of the beginning that [`PROBED`] names, each as long as it is or shorter.
pub fn probe_parts([start, far]: [&[u8]; 2]) -> Vec<Filesystem> {
    let near = [ext4, squashfs, erofs, xfs, f2fs, vfat];
    near.into_iter()
        .filter_map(|recognise| recognise(start))
        .chain(btrfs(far))
        .collect()
}

/// What a kernel must have to mount a file system, beside its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// An option of its configuration, without `CONFIG_`, built in or as a part of the driver's module; and what needs it.
    Option(&'static str, &'static str),
    /// Pages of memory of at least so many bytes, unless it is of this release or a later one.
    PageSize(u64, Option<Release>),
}

/// What a kernel must have to mount a device that begins with `head`, judging by the superblock.
pub fn needs(head: &[u8]) -> Vec<Need> {
    let mut needs = Vec::new();
    if ext4(head).is_some() {
        /// EXT4_FEATURE_INCOMPAT_CASEFOLD
        const CASEFOLD: u32 = 0x2_0000;
        /// The first release whose ext4 takes blocks that are larger than a page.
        const LARGE_BLOCKS: Release = Release {
            major: 6,
            minor: 19,
        };
        if le32(head, 1024 + 0x60).unwrap_or_default() & CASEFOLD != 0 {
            needs.push(Need::Option("UNICODE", "its feature casefold"));
        }
        if let Some(log @ 0..=6) = le32(head, 1024 + 0x18) {
            needs.push(Need::PageSize(1024 << log, Some(LARGE_BLOCKS)));
        }
    } else if squashfs(head).is_some() {
        let number = field(head, 20).map_or(0, u16::from_le_bytes);
        needs.extend(squashfs_compressor(number).map(|(option, name)| Need::Option(option, name)));
    } else if erofs(head).is_some() {
        needs.extend(erofs_compressors(head));
        let bits = head.get(1024 + 12).copied().unwrap_or_default();
        needs.push(Need::PageSize(1 << bits.min(16), None));
    }
    needs
}

/// The option and the name of squashfs's compressor (fs/squashfs/squashfs_fs.h; fs/squashfs/decompressor.c), whether it is used or
/// not; nothing for one that no kernel has.
fn squashfs_compressor(number: u16) -> Option<(&'static str, &'static str)> {
    Some(match number {
        1 => ("SQUASHFS_ZLIB", "its compressor, gzip"),
        3 => ("SQUASHFS_LZO", "its compressor, lzo"),
        4 => ("SQUASHFS_XZ", "its compressor, xz"),
        5 => ("SQUASHFS_LZ4", "its compressor, lz4"),
        6 => ("SQUASHFS_ZSTD", "its compressor, zstd"),
        _ => return None,
    })
}

/// The compressors of erofs beside LZ4, whose bit is 1: the bit of each in the superblock, its option and its name
/// (fs/erofs/decompressor.c, `z_erofs_decomp`).
const EROFS_COMPRESSORS: [(u16, &str, &str); 3] = [
    (2, "EROFS_FS_ZIP_LZMA", "its compressor, lzma"),
    (4, "EROFS_FS_ZIP_DEFLATE", "its compressor, deflate"),
    (8, "EROFS_FS_ZIP_ZSTD", "its compressor, zstd"),
];

/// What the compressors need that the superblock names.
fn erofs_compressors(head: &[u8]) -> Vec<Need> {
    let bits = erofs_compressor_bits(head);
    if bits == 0 {
        return Vec::new();
    }
    let mut needs = vec![Need::Option("EROFS_FS_ZIP", "its compression")];
    for (bit, option, name) in EROFS_COMPRESSORS {
        if bits & bit != 0 {
            needs.push(Need::Option(option, name));
        }
    }
    needs
}

/// The bits of the compressors (`z_erofs_parse_cfgs`): without the feature COMPR_CFGS the same field is a distance of LZ4.
fn erofs_compressor_bits(head: &[u8]) -> u16 {
    const COMPRESSORS_LISTED: u32 = 2;
    let bits = field(head, 1024 + 84).map_or(0, u16::from_le_bytes);
    let listed = le32(head, 1024 + 80).unwrap_or_default() & COMPRESSORS_LISTED != 0;
    if listed { bits } else { u16::from(bits != 0) }
}

/// Why no kernel would mount a device of `length` bytes that begins with `head`, judging by the superblock alone; nothing
/// if it might.
pub fn unmountable(head: &[u8], length: u64) -> Option<&'static str> {
    if ext4(head).is_some() {
        return ext4_defect(head, length);
    }
    if squashfs(head).is_some() {
        // fs/squashfs/super.c, `squashfs_fill_super`
        let used = field(head, 40).map_or(0, u64::from_le_bytes);
        let block_log = field(head, 22).map_or(0, u16::from_le_bytes);
        let compressor = field(head, 20).map_or(0, u16::from_le_bytes);
        return match (used, block_log) {
            _ if squashfs_compressor(compressor).is_none() => {
                Some("its compressor is none that the kernel's squashfs has")
            }
            (_, log) if !(12..=20).contains(&log) => {
                Some("its block size is none that squashfs has")
            }
            (used, _) if used > length => Some("it is cut short"),
            _ => None,
        };
    }
    erofs(head)?;
    // fs/erofs/super.c, `erofs_read_superblock`
    let bits = head.get(1024 + 12).copied().unwrap_or_default();
    let known = EROFS_COMPRESSORS.iter().fold(1, |all, row| all | row.0);
    if erofs_compressor_bits(head) & !known != 0 {
        return Some("it has compressors that no kernel knows");
    }
    (!(9..=16).contains(&bits)).then_some("its block size is none that erofs has")
}

/// fs/ext4/super.c, `ext4_load_super`, `ext4_feature_set_ok`, `ext4_check_geometry` and `ext4_check_descriptors`.
fn ext4_defect(head: &[u8], length: u64) -> Option<&'static str> {
    const CHECKSUMS: u32 = 0x400;
    const WIDE: u32 = 0x80;
    /// EXT4_FEATURE_INCOMPAT_SUPP
    const KNOWN: u32 = 0x0003_e7d6;
    let block = head.get(1024..2048)?;
    let number = |at| le32(block, at).unwrap_or_default();
    if number(0x64) & CHECKSUMS != 0 && number(0x3fc) != crc32c(block.get(..0x3fc)?) {
        return Some("the checksum of its superblock is wrong");
    }
    let features = number(0x60);
    if features & !KNOWN != 0 {
        return Some("it has features that no kernel knows");
    }
    let wide = features & WIDE != 0;
    let high = if wide { number(0x150) } else { 0 };
    let blocks = u64::from(number(0x4)) | u64::from(high) << 32;
    let size = match number(0x18) {
        log @ 0..=6 => 1024_u64 << log,
        _ => return Some("its block size is none that ext4 has"),
    };
    if blocks <= u64::from(number(0x14)) {
        return Some("it has no blocks");
    }
    if blocks
        .checked_mul(size)
        .is_none_or(|claimed| claimed > length)
    {
        return Some("it is longer than the device");
    }
    // Block bitmap, inode bitmap and inode table of the first group.
    let table = usize::try_from(size).ok()?.max(2048);
    let outside = (0..3_usize).any(|place| {
        let at = table.saturating_add(place.saturating_mul(4));
        le32(head, at).is_some_and(|place| u64::from(place) >= blocks || place == 0)
    });
    (outside && !wide).then_some("its group descriptors are out of range")
}

/// CRC-32C as ext4 and erofs keep it: without the last inversion.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes
        .get(at..)
        .is_some_and(|bytes| bytes.starts_with(magic))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let uuid = Uuid(field(bytes, at)?);
    (!uuid.is_nil()).then(|| uuid.to_string())
}

/// A label of at most `length` bytes, ended by a NUL or by its length.
fn label(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let bytes = bytes.get(at..)?.get(..length)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// fs/ext4/ext4.h, `struct ext4_super_block`, 1024 bytes in.
fn ext4(head: &[u8]) -> Option<Filesystem> {
    const JOURNAL_DEVICE: u32 = 0x8;
    let block = head.get(1024..)?;
    let incompatible = le32(block, 0x60)?;
    (has(block, 0x38, &[0x53, 0xef]) && incompatible & JOURNAL_DEVICE == 0).then(|| Filesystem {
        kind: Kind::Ext4,
        uuid: uuid(block, 0x68),
        label: label(block, 0x78, 16),
    })
}

/// fs/squashfs/squashfs_fs.h, `struct squashfs_super_block`: magic and, 28 bytes in, the major version.
fn squashfs(head: &[u8]) -> Option<Filesystem> {
    (has(head, 0, b"hsqs") && has(head, 28, &[4, 0])).then_some(Filesystem {
        kind: Kind::Squashfs,
        uuid: None,
        label: None,
    })
}

/// fs/erofs/erofs_fs.h, `struct erofs_super_block`, 1024 bytes in.
fn erofs(head: &[u8]) -> Option<Filesystem> {
    let block = head.get(1024..)?;
    has(block, 0, &0xe0f5_e1e2_u32.to_le_bytes()).then(|| Filesystem {
        kind: Kind::Erofs,
        uuid: uuid(block, 48),
        label: label(block, 64, 16),
    })
}

/// fs/btrfs/fs.h, `struct btrfs_super_block`.
fn btrfs(block: &[u8]) -> Option<Filesystem> {
    has(block, 0x40, b"_BHRfS_M").then(|| Filesystem {
        kind: Kind::Btrfs,
        uuid: uuid(block, 0x20),
        label: label(block, 0x12b, 256),
    })
}

/// fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`.
fn xfs(head: &[u8]) -> Option<Filesystem> {
    has(head, 0, b"XFSB").then(|| Filesystem {
        kind: Kind::Xfs,
        uuid: uuid(head, 32),
        label: label(head, 108, 12),
    })
}

/// include/linux/f2fs_fs.h, `struct f2fs_super_block`, 1024 bytes in; the label is UTF-16LE.
fn f2fs(head: &[u8]) -> Option<Filesystem> {
    let block = head.get(1024..)?;
    has(block, 0, &0xf2f5_2010_u32.to_le_bytes()).then(|| Filesystem {
        kind: Kind::F2fs,
        uuid: uuid(block, 108),
        label: block.get(124..).and_then(|label| utf16(label, 512)),
    })
}

/// The boot sector of FAT (ECMA-107; Microsoft's FAT specification 1.03).
fn vfat(head: &[u8]) -> Option<Filesystem> {
    if !has(head, 510, &[0x55, 0xaa]) {
        return None;
    }
    let (serial_at, label_at) = if has(head, 0x52, b"FAT32   ") {
        (0x43, 0x47)
    } else if has(head, 0x36, b"FAT12   ") || has(head, 0x36, b"FAT16   ") {
        (0x27, 0x2b)
    } else {
        return None;
    };
    let serial = le32(head, serial_at)?;
    let (high, low) = (serial >> 16, serial & 0xffff);
    let name = label(head, label_at, 11)
        .map(|name| name.trim_end().to_owned())
        .filter(|name| !name.is_empty() && name != "NO NAME");
    Some(Filesystem {
        kind: Kind::Vfat,
        uuid: Some(format!("{high:04X}-{low:04X}")),
        label: name,
    })
}

/// A UTF-16LE string of at most `units` code units, ended by a zero.
pub(crate) fn utf16(bytes: &[u8], units: usize) -> Option<String> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs
        .iter()
        .take(units)
        .map(|pair| u16::from_le_bytes(*pair))
        .take_while(|unit| *unit != 0)
        .collect();
    let text = String::from_utf16(&units).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Whether a type of file system has no `security.ima`, and so no signatures. Of `security.*`, NFS has the label of a security
/// module alone (fs/nfs/nfs4proc.c, `nfs4_xattr_get_nfs4_label`).
#[must_use]
pub fn keeps_no_xattrs(fstype: &str) -> bool {
    ["vfat", "msdos", "exfat", "iso9660", "nfs", "nfs4"].contains(&fstype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "0f3c1b2a-1122-3344-5566-778899aabbcc";

    fn block(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (at, field) in fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    #[test]
    fn each_superblock_is_recognised_with_uuid_and_label() {
        let uuid = Uuid::parse(UUID).unwrap().0;
        let utf16: Vec<u8> = "root".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases = [
            (
                Kind::Ext4,
                block(
                    4096,
                    &[(1080, &[0x53, 0xef]), (1128, &uuid), (1144, b"root")],
                ),
            ),
            (
                Kind::Erofs,
                block(
                    4096,
                    &[
                        (1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
                        (1072, &uuid),
                        (1088, b"root"),
                    ],
                ),
            ),
            (
                Kind::Btrfs,
                block(
                    PROBE_LENGTH,
                    &[
                        (0x1_0040, b"_BHRfS_M"),
                        (0x1_0020, &uuid),
                        (0x1_012b, b"root"),
                    ],
                ),
            ),
            (
                Kind::Xfs,
                block(512, &[(0, b"XFSB"), (32, &uuid), (108, b"root")]),
            ),
            (
                Kind::F2fs,
                block(
                    4096,
                    &[
                        (1024, &[0x10, 0x20, 0xf5, 0xf2]),
                        (1132, &uuid),
                        (1148, &utf16),
                    ],
                ),
            ),
        ];
        for (kind, bytes) in cases {
            assert_eq!(
                probe(&bytes),
                [Filesystem {
                    kind,
                    uuid: Some(UUID.to_owned()),
                    label: Some("root".to_owned())
                }]
            );
        }
    }

    #[test]
    fn squashfs_has_neither_and_fat_has_its_own_kind() {
        let squashfs = probe(&block(96, &[(0, b"hsqs"), (28, &[4, 0])]));
        assert_eq!(squashfs[0].kind, Kind::Squashfs);
        assert_eq!((&squashfs[0].uuid, &squashfs[0].label), (&None, &None));
        let fat = probe(&block(
            512,
            &[
                (510, &[0x55, 0xaa]),
                (0x52, b"FAT32   "),
                (0x43, &[0x34, 0x12, 0xcd, 0xab]),
                (0x47, b"ROOT       "),
            ],
        ));
        assert_eq!(fat[0].kind, Kind::Vfat);
        assert_eq!(fat[0].uuid.as_deref(), Some("ABCD-1234"));
        assert_eq!(fat[0].label.as_deref(), Some("ROOT"));
    }

    #[test]
    fn what_is_no_root_is_not_recognised() {
        let journal = block(4096, &[(1080, &[0x53, 0xef]), (1024 + 0x60, &[8])]);
        assert_eq!(probe(&journal), []);
        let old_squashfs = block(96, &[(0, b"hsqs"), (28, &[3, 0])]);
        assert_eq!(probe(&old_squashfs), []);
        assert_eq!(probe(&[]), []);
    }

    #[test]
    fn what_no_kernel_mounts() {
        let le = u32::to_le_bytes;
        let ext4 = |fields: &[(usize, &[u8])]| {
            let sound: [(usize, &[u8]); 6] = [
                (1080, &[0x53, 0xef]),
                (1024 + 0x4, &[16, 0, 0, 0]),
                (1024 + 0x18, &[2, 0, 0, 0]),
                (4096, &[3, 0, 0, 0]),
                (4100, &[4, 0, 0, 0]),
                (4104, &[5, 0, 0, 0]),
            ];
            block(8192, &[&sound[..], fields].concat())
        };
        assert_eq!(unmountable(&ext4(&[]), 65536), None);
        assert!(unmountable(&ext4(&[]), 65535).is_some());
        for (at, value) in [
            (0x4, 0),
            (0x18, 7),
            (0x60, 0x8000_0000),
            (0x64, 0x400),
            (4096 - 1024, 16),
        ] {
            let image = ext4(&[(1024 + at, &le(value))]);
            assert!(unmountable(&image, 65536).is_some(), "{at:#x}");
        }
        let squashfs = |log: u8| {
            block(
                96,
                &[
                    (0, b"hsqs"),
                    (20, &[1, 0]),
                    (28, &[4, 0]),
                    (22, &[log]),
                    (40, &[96]),
                ],
            )
        };
        assert_eq!(unmountable(&squashfs(17), 96), None);
        assert!(unmountable(&squashfs(17), 95).is_some());
        assert!(unmountable(&squashfs(0), 96).is_some());
        assert_eq!(unmountable(&[], 0), None);
        // "123456789", the check value of CRC-32C, inverted again.
        assert_eq!(crc32c(b"123456789"), !0xe306_9283);
    }

    #[test]
    fn two_superblocks_are_both_told() {
        let both = block(
            PROBE_LENGTH,
            &[(1080, &[0x53, 0xef]), (0x1_0040, b"_BHRfS_M")],
        );
        let kinds: Vec<Kind> = probe(&both).into_iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [Kind::Ext4, Kind::Btrfs]);
    }

    #[test]
    fn uuid_text() {
        assert_eq!(Uuid::parse(UUID).unwrap().to_string(), UUID);
        for bad in [
            "",
            "0f3c1b2a-1122-3344-5566-778899aabbc",
            "0f3c1b2a01122-3344-5566-778899aabbcc",
            "zf3c1b2a-1122-3344-5566-778899aabbcc",
        ] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
        let guid =
            Uuid::from_guid(*b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
        assert_eq!(guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    }

    proptest! {
        #[test]
        fn only_the_parts_with_superblocks_are_looked_at(byte in any::<u8>(), at in 0_usize..7) {
            let magics: [(usize, &[u8]); 7] = [
                (1080, &[0x53, 0xef]), (0, b"hsqs"), (1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (0x1_0040, b"_BHRfS_M"),
                (0, b"XFSB"), (1024, &[0x10, 0x20, 0xf5, 0xf2]), (510, &[0x55, 0xaa]),
            ];
            let mut whole = vec![byte; PROBE_LENGTH];
            let (offset, magic) = magics[at];
            whole[offset..offset + magic.len()].copy_from_slice(magic);
            let parts = PROBED.map(|(start, length)| {
                let start = usize::try_from(start).unwrap();
                &whole[start..start + length]
            });
            prop_assert_eq!(probe_parts(parts), probe(&whole));
        }

        #[test]
        fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..5000), at in 0_usize..3) {
            let magics: [(usize, &[u8]); 3] = [(1080, &[0x53, 0xef]), (0, b"XFSB"), (510, &[0x55, 0xaa])];
            let (offset, magic) = magics[at];
            if let Some(place) = bytes.get_mut(offset..offset + magic.len()) {
                place.copy_from_slice(magic);
            }
            let _ = unmountable(&bytes, 1 << 20);
            for found in probe(&bytes) {
                prop_assert!(found.label.is_none_or(|label| !label.is_empty() && label.len() <= 2048));
            }
        }
    }
}
