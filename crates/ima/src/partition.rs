//! Partition tables, as far as the names of partitions go: PARTUUID and PARTLABEL.
//!
//! The kernel has already made the partitions; here they get their names back. What is taken and what is not follows
//! block/partitions/efi.c and msdos.c.

use crate::filesystem::{Uuid, utf16};

/// The largest table of GPT entries that is read, in bytes.
pub const MAX_ENTRIES: usize = 1 << 20;

/// The disk signature of an MBR (sector 0, offset 440): `PARTUUID` is `%08x-%02x` of it and the partition's number.
/// Nothing if the sector is no MBR, protects a GPT, or carries no signature.
pub fn mbr_signature(sector: &[u8]) -> Option<u32> {
    if mbr_types(sector)?.contains(&PROTECTIVE) {
        return None;
    }
    let signature = u32::from_le_bytes(sector.get(440..)?.first_chunk().copied()?);
    (signature != 0).then_some(signature)
}

/// Whether the sector is the MBR before a GPT: without it the kernel does not look for one (efi.c, `is_pmbr_valid`).
pub fn is_protective(sector: &[u8]) -> bool {
    mbr_types(sector).is_some_and(|types| types.contains(&PROTECTIVE))
}

/// The type of the one partition of the MBR before a GPT.
const PROTECTIVE: u8 = 0xee;

/// The types of an MBR's partitions; nothing if the sector is none.
fn mbr_types(sector: &[u8]) -> Option<[u8; 4]> {
    let boot: [u8; 2] = sector.get(510..)?.first_chunk().copied()?;
    let kind = |at: usize| sector.get(at).copied();
    let types = [kind(450)?, kind(466)?, kind(482)?, kind(498)?];
    (boot == [0x55, 0xaa]).then_some(types)
}

/// The header of a GPT (UEFI 2.10, section 5.3.2), whose checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GptHeader {
    entries_block: u64,
    entry_count: u32,
    entry_size: u32,
    entries_checksum: u32,
}

impl GptHeader {
    /// Parses the logical block that holds the header, which must say that it lies at block `position`.
    pub fn parse(block: &[u8], position: u64) -> Option<Self> {
        let le32 = |at: usize| {
            let bytes = block.get(at..)?.first_chunk().copied()?;
            Some(u32::from_le_bytes(bytes))
        };
        let le64 = |at: usize| {
            let bytes = block.get(at..)?.first_chunk().copied()?;
            Some(u64::from_le_bytes(bytes))
        };
        if !block.starts_with(b"EFI PART") {
            return None;
        }
        let header = block.get(..usize::try_from(le32(12)?).ok()?)?;
        let (before, rest) = header.split_at_checked(16)?;
        let (stored, after) = rest.split_first_chunk::<4>()?;
        if header.len() < 92 || crc32([before, &[0; 4], after]) != u32::from_le_bytes(*stored) {
            return None;
        }
        let header = Self {
            entries_block: le64(72)?,
            entry_count: le32(80)?,
            entry_size: le32(84)?,
            entries_checksum: le32(88)?,
        };
        let sound = le64(24)? == position
            && header.entry_size == 128
            && header
                .entries_length()
                .is_some_and(|length| length <= MAX_ENTRIES);
        sound.then_some(header)
    }

    /// Where the entries begin, in logical blocks.
    pub const fn entries_block(&self) -> u64 {
        self.entries_block
    }

    /// How long the entries are together, in bytes; at most [`MAX_ENTRIES`].
    pub fn entries_length(&self) -> Option<usize> {
        usize::try_from(self.entry_count.checked_mul(self.entry_size)?).ok()
    }

    /// The entries in use, from the bytes that [`GptHeader::entries_block`] points at; nothing if their checksum is
    /// wrong.
    pub fn entries(&self, bytes: &[u8]) -> Option<Vec<GptEntry>> {
        let bytes = bytes.get(..self.entries_length()?)?;
        if crc32([bytes, &[], &[]]) != self.entries_checksum {
            return None;
        }
        let (entries, _) = bytes.as_chunks::<128>();
        let used = entries.iter().zip(1_u32..).filter_map(|(entry, number)| {
            let kind: [u8; 16] = entry.first_chunk().copied()?;
            let unique: [u8; 16] = entry.get(16..)?.first_chunk().copied()?;
            if kind == [0; 16] {
                return None;
            }
            Some(GptEntry {
                number,
                uuid: Uuid::from_guid(unique),
                label: entry.get(56..).and_then(|name| utf16(name, 36)),
                first_block: u64::from_le_bytes(entry.get(32..)?.first_chunk().copied()?),
                last_block: u64::from_le_bytes(entry.get(40..)?.first_chunk().copied()?),
            })
        });
        Some(used.collect())
    }
}

/// A partition of a GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptEntry {
    /// Its number, from 1.
    pub number: u32,
    /// PARTUUID.
    pub uuid: Uuid,
    /// PARTLABEL, if it has one.
    pub label: Option<String>,
    /// Where it begins, in logical blocks.
    pub first_block: u64,
    /// The last logical block that belongs to it.
    pub last_block: u64,
}

/// Reads a disk's GPT: `read` gives that many bytes from an offset or fewer, the disk has `blocks` logical blocks of
/// `block_size` bytes. The copy at the end of the disk serves where the one at its beginning is damaged. Nothing if neither is
/// sound.
pub fn gpt(
    block_size: u64,
    blocks: u64,
    mut read: impl FnMut(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<GptEntry>> {
    let length = usize::try_from(block_size).ok()?;
    let mut at = |position: u64| {
        let header = read(position.checked_mul(block_size)?, length)?;
        let header = GptHeader::parse(&header, position)?;
        let entries = header.entries_block().checked_mul(block_size)?;
        header.entries(&read(entries, header.entries_length()?)?)
    };
    at(1).or_else(|| at(blocks.checked_sub(1)?))
}

/// The CRC-32 of the parts together (ISO 3309, as UEFI 2.10, section 4.2.1 uses it).
fn crc32(parts: [&[u8]; 3]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gpt() -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0; 128 * 128];
        entries[128..144].copy_from_slice(&[7; 16]);
        entries[144..160]
            .copy_from_slice(b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
        entries[160..168].copy_from_slice(&40_u64.to_le_bytes());
        entries[168..176].copy_from_slice(&79_u64.to_le_bytes());
        let name: Vec<u8> = "root".encode_utf16().flat_map(u16::to_le_bytes).collect();
        entries[184..184 + name.len()].copy_from_slice(&name);
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&1_u64.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32([&entries, &[], &[]]).to_le_bytes());
        let crc = crc32([&header[..92], &[], &[]]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        (header, entries)
    }

    #[test]
    fn a_gpt_gives_number_uuid_and_label() {
        let (header, entries) = gpt();
        let header = GptHeader::parse(&header, 1).unwrap();
        assert_eq!(header.entries_block(), 2);
        let entries = header.entries(&entries).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].number, 2);
        assert_eq!(
            entries[0].uuid.to_string(),
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        );
        assert_eq!(entries[0].label.as_deref(), Some("root"));
        assert_eq!((entries[0].first_block, entries[0].last_block), (40, 79));
    }

    #[test]
    fn the_copy_at_the_end_serves() {
        let (header, entries) = gpt();
        let mut disk = [vec![0; 512], header.clone(), entries.clone()].concat();
        let read = |disk: &[u8]| {
            super::gpt(512, disk.len() as u64 / 512, |offset, length| {
                let from = usize::try_from(offset).ok()?;
                Some(disk.get(from..from.checked_add(length)?)?.to_vec())
            })
        };
        assert_eq!(read(&disk).unwrap().len(), 1);
        let mut large = disk.clone();
        large.splice(512..512, vec![0; 4096 - 512]);
        large.splice(4608..4608, vec![0; 4096 - 512]);
        let read_large = super::gpt(4096, 9, |offset, length| {
            let from = usize::try_from(offset).ok()?;
            Some(large.get(from..from.checked_add(length)?)?.to_vec())
        });
        assert_eq!(read_large.unwrap().len(), 1);
        disk[512 + 90] ^= 1;
        assert_eq!(read(&disk), None);
        let last = disk.len() as u64 / 512;
        let mut copy = header;
        copy[24..32].copy_from_slice(&last.to_le_bytes());
        copy[16..20].fill(0);
        let crc = crc32([&copy[..92], &[], &[]]);
        copy[16..20].copy_from_slice(&crc.to_le_bytes());
        disk.extend(copy);
        assert_eq!(read(&disk).unwrap().len(), 1);
    }

    #[test]
    fn damage_is_refused() {
        let (header, entries) = gpt();
        let parsed = GptHeader::parse(&header, 1).unwrap();
        assert_eq!(GptHeader::parse(&header, 2), None, "another position");
        for at in [0, 13, 17, 40, 72, 80, 84, 88] {
            let mut damaged = header.clone();
            damaged[at] ^= 1;
            assert_eq!(GptHeader::parse(&damaged, 1), None, "byte {at}");
        }
        let mut damaged = entries.clone();
        damaged[200] ^= 1;
        assert_eq!(parsed.entries(&damaged), None);
        assert_eq!(parsed.entries(&entries[..100]), None);
    }

    #[test]
    fn an_mbr_has_a_signature_unless_it_protects_a_gpt() {
        let mut sector = vec![0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(mbr_signature(&sector), None);
        sector[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        assert_eq!(mbr_signature(&sector), Some(0x1234_abcd));
        sector[450] = 0xee;
        assert_eq!(mbr_signature(&sector), None);
        assert!(is_protective(&sector));
        assert_eq!(mbr_signature(&sector[..511]), None);
    }

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32([b"1234", b"", b"56789"]), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..1024), position: u64) {
            let mut bytes = bytes;
            if bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"EFI PART");
            }
            if let Some(header) = GptHeader::parse(&bytes, position) {
                prop_assert!(header.entries_length().is_some_and(|length| length <= MAX_ENTRIES));
                let _ = header.entries(&bytes);
            }
            let _ = mbr_signature(&bytes);
            let _ = is_protective(&bytes);
            let _ = super::gpt(512, position, |offset, length| {
                let from = usize::try_from(offset).ok()?;
                Some(bytes.get(from..from.checked_add(length)?)?.to_vec())
            });
        }
    }
}
