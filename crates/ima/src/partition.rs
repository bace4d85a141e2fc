//! Partition tables: which partitions the kernel makes of a disk, and their names, PARTUUID and PARTLABEL.
//!
//! What is taken and what is not follows block/partitions/efi.c and msdos.c. Partitions within partitions, of BSD, Solaris,
//! Minix and UnixWare, are not read; nor are the tables of other systems.

use crate::cmdline::{self, RootName};
use crate::filesystem::{Uuid, utf16};

/// The largest table of GPT entries that is read, in bytes.
const MAX_ENTRIES: usize = 1 << 20;

/// A disk has at most so many partitions, less one (include/linux/blkdev.h, DISK_MAX_PARTS).
const LIMIT: u32 = 256;

/// The kernel's sectors, in bytes, whatever the disk's are.
const SECTOR: u64 = 512;

/// The kind of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UEFI 2.10, section 5.3
    Gpt,
    /// DOS's, in the master boot record.
    Mbr,
}

impl Kind {
    /// The kernel's option for such tables, without `CONFIG_`.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Gpt => "EFI_PARTITION",
            Self::Mbr => "MSDOS_PARTITION",
        }
    }
}

/// A partition of which the kernel makes a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// PARTUUID, in lower case; an MBR's extended partition has none.
    pub uuid: Option<String>,
    /// PARTLABEL, if it has one.
    pub label: Option<String>,
    /// The type in a GPT, a UUID in lower case.
    pub kind: Option<String>,
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes: not beyond the end of the disk. A GPT may have one of length 0, of which nothing can be read.
    pub length: u64,
}

/// A disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
}

/// A disk that may hold a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its length in bytes.
    pub length: u64,
    /// The size of its logical blocks in bytes, a multiple of 512.
    pub block_size: u64,
    /// Whether `gpt` is on the kernel command line: [`gpt_is_forced`].
    pub gpt_is_forced: bool,
}

/// Whether the command line has the kernel look for a GPT without a protective MBR, and take its copy at the end of the disk
/// where the first is damaged (efi.c, `force_gpt_fn`). The kernel compares the beginning of a parameter (init/main.c,
/// `obsolete_checksetup`).
pub fn gpt_is_forced(line: &(impl AsRef<[u8]> + ?Sized)) -> bool {
    cmdline::parameters(line).any(|parameter| parameter.name.starts_with("gpt"))
}

impl Table {
    /// Reads a disk's table: `read` gives that many bytes from an offset or fewer. Nothing if there is none, or only an MBR without
    /// partitions, as a boot sector is. Of a GPT that the kernel does not take there are no partitions.
    pub fn read(disk: Disk, mut read: impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<Self> {
        let first = sector(&mut read, 0)?;
        let protective = is_protective(&first);
        let gpt = match protective || disk.gpt_is_forced {
            true => gpt(disk, &mut read),
            false => None,
        };
        // Behind a protective MBR nothing else is looked for.
        if let Some(partitions) = gpt.or_else(|| protective.then(Vec::new)) {
            let kind = Kind::Gpt;
            return Some(Self { kind, partitions });
        }
        mbr(disk, &first, &mut read).map(|partitions| Self {
            kind: Kind::Mbr,
            partitions,
        })
    }

    /// The numbers of the partitions that PARTUUID=, PARTLABEL= or PARTTYPE= means; none for a name of another form.
    pub fn named(&self, name: &RootName) -> Vec<u32> {
        let numbers = |holds: &dyn Fn(&Partition) -> bool, offset: i32| {
            let found = self.partitions.iter().filter(|partition| holds(partition));
            found
                .filter_map(|partition| partition.number.checked_add_signed(offset))
                .collect()
        };
        match name {
            RootName::PartUuid { uuid, offset } => {
                numbers(&|it| it.uuid.as_ref() == Some(uuid), *offset)
            }
            RootName::PartLabel(label) => numbers(&|it| it.label.as_ref() == Some(label), 0),
            RootName::PartType(kind) => numbers(&|it| it.kind.as_ref() == Some(kind), 0),
            _ => Vec::new(),
        }
    }
}

fn sector(read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>, number: u64) -> Option<[u8; 512]> {
    let bytes = read(number.checked_mul(SECTOR)?, 512)?;
    bytes.first_chunk().copied()
}

/// The type of the one partition of the MBR before a GPT.
const PROTECTIVE: u8 = 0xee;

/// An entry of an MBR or of an extended partition.
#[derive(Debug, Clone, Copy)]
struct Entry {
    boot: u8,
    kind: u8,
    /// Both in logical blocks.
    start: u32,
    length: u32,
}

impl Entry {
    const fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// The four entries; nothing without the signature at the end.
fn entries(sector: &[u8; 512]) -> Option<[Entry; 4]> {
    let boot: [u8; 2] = sector.last_chunk().copied()?;
    let entry = |at: usize| {
        let bytes: [u8; 16] = sector.get(at..)?.first_chunk().copied()?;
        let [boot, _, _, _, kind, _, _, _, a, b, c, d, e, f, g, h] = bytes;
        Some(Entry {
            boot,
            kind,
            start: u32::from_le_bytes([a, b, c, d]),
            length: u32::from_le_bytes([e, f, g, h]),
        })
    };
    let all = [entry(446)?, entry(462)?, entry(478)?, entry(494)?];
    (boot == [0x55, 0xaa]).then_some(all)
}

/// Whether the sector is the MBR before a GPT: without it the kernel does not look for one (efi.c, `is_pmbr_valid`).
fn is_protective(sector: &[u8; 512]) -> bool {
    let protects = |entry: &Entry| entry.kind == PROTECTIVE && entry.start == 1;
    entries(sector).is_some_and(|entries| entries.iter().any(protects))
}

/// The partitions of an MBR by number (msdos.c, `msdos_partition`). Nothing if the sector is none, belongs to a GPT, or lists no
/// partition.
fn mbr(
    disk: Disk,
    first: &[u8; 512],
    read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>,
) -> Option<Vec<Partition>> {
    let primary = entries(first)?;
    let sound = primary
        .iter()
        .all(|entry| matches!(entry.boot, 0 | 0x80) && entry.kind != PROTECTIVE);
    if !sound {
        return None;
    }
    let signature = u32::from_le_bytes(first.get(440..)?.first_chunk().copied()?);
    let mut made = Made {
        disk,
        signature,
        partitions: Vec::new(),
    };
    let unit = disk.block_size.checked_div(SECTOR)?;
    let sectors = |blocks: u32| u64::from(blocks).saturating_mul(unit);
    let mut next = 5;
    for (entry, number) in primary.iter().zip(1_u32..) {
        let (start, length) = (sectors(entry.start), sectors(entry.length));
        if entry.is_extended() {
            // Room for a boot loader, so that nobody makes a file system over the logical partitions.
            made.put(number, false, start, length.min(unit.max(2)));
            logical(&mut made, &mut next, (start, length), sectors, read);
        } else {
            made.put(number, true, start, length);
        }
    }
    let mut partitions = made.partitions;
    partitions.sort_by_key(|partition| partition.number);
    (!partitions.is_empty()).then_some(partitions)
}

/// The partitions of an MBR as they are found.
struct Made {
    disk: Disk,
    signature: u32,
    partitions: Vec<Partition>,
}

impl Made {
    /// A partition with its place in sectors.
    fn put(&mut self, number: u32, named: bool, start: u64, length: u64) {
        let signature = self.signature;
        let partition = place(self.disk, number, start, length).map(|partition| Partition {
            uuid: named.then(|| format!("{signature:08x}-{number:02x}")),
            ..partition
        });
        self.partitions.extend(partition);
    }
}

/// The logical partitions in an extended one (`parse_extended`): a chain of tables, each with the place of a partition, from that
/// table, and of the next table, from the first.
fn logical(
    made: &mut Made,
    next: &mut u32,
    (first, first_length): (u64, u64),
    sectors: impl Fn(u32) -> u64,
    read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>,
) {
    /// How many tables without a partition may follow one another.
    const MAX_EMPTY: u32 = 100;
    let (mut this, mut this_length) = (first, first_length);
    let mut empty = 0_u32;
    while empty < MAX_EMPTY && *next < LIMIT && first_length > 0 {
        empty = empty.saturating_add(1);
        let Some(table) = sector(read, this).as_ref().and_then(entries) else {
            return;
        };
        for (entry, slot) in table.iter().zip(0_u32..) {
            if entry.length == 0 || entry.is_extended() {
                continue;
            }
            let (offset, length) = (sectors(entry.start), sectors(entry.length));
            let start = this.saturating_add(offset);
            // The third and fourth entry may hold anything.
            let outside = offset.saturating_add(length) > this_length
                || start < first
                || start.saturating_add(length) > first.saturating_add(first_length);
            if slot >= 2 && outside {
                continue;
            }
            made.put(*next, true, start, length);
            empty = 0;
            *next = next.saturating_add(1);
            if *next == LIMIT {
                return;
            }
        }
        let link = |entry: &&Entry| entry.length > 0 && entry.is_extended();
        let Some(link) = table.iter().find(link) else {
            return;
        };
        this = first.saturating_add(sectors(link.start));
        this_length = sectors(link.length);
    }
}

/// A partition without a name, with its place in sectors; nothing if the kernel makes no device of it (core.c,
/// `blk_add_partition`).
fn place(disk: Disk, number: u32, start: u64, length: u64) -> Option<Partition> {
    let start = start.checked_mul(SECTOR)?;
    let length = length.checked_mul(SECTOR)?;
    let room = disk.length.checked_sub(start)?;
    let length = length.min(room);
    (length > 0).then_some(Partition {
        number,
        uuid: None,
        label: None,
        kind: None,
        start,
        length,
    })
}

/// The header of a GPT (UEFI 2.10, section 5.3.2), whose checksum was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GptHeader {
    entries_block: u64,
    entries_length: usize,
    entries_checksum: u32,
}

impl GptHeader {
    /// Parses the logical block that holds the header, which must say that it lies at block `position` of `blocks` (efi.c,
    /// `is_gpt_valid`).
    fn parse(block: &[u8], position: u64, blocks: u64) -> Option<Self> {
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
        let (first_usable, last_usable) = (le64(40)?, le64(48)?);
        let (count, size) = (le32(80)?, le32(84)?);
        let entries_length = usize::try_from(count.checked_mul(size)?).ok()?;
        let sound = le64(24)? == position
            && first_usable <= last_usable
            && last_usable < blocks
            && size == 128
            && (1..=MAX_ENTRIES).contains(&entries_length);
        sound.then_some(Self {
            entries_block: le64(72)?,
            entries_length,
            entries_checksum: le32(88)?,
        })
    }

    /// The partitions, from the bytes that `entries_block` points at; nothing if their checksum is wrong.
    fn partitions(&self, disk: Disk, bytes: &[u8]) -> Option<Vec<Partition>> {
        let bytes = bytes.get(..self.entries_length)?;
        if crc32([bytes, &[], &[]]) != self.entries_checksum {
            return None;
        }
        let (entries, _) = bytes.as_chunks::<128>();
        let used = entries.iter().zip(1..LIMIT);
        Some(
            used.filter_map(|(entry, number)| gpt_partition(disk, number, entry))
                .collect(),
        )
    }
}

/// A partition of a GPT; nothing if the kernel makes no device of it (efi.c, `is_pte_valid`).
fn gpt_partition(disk: Disk, number: u32, entry: &[u8; 128]) -> Option<Partition> {
    let kind: [u8; 16] = entry.first_chunk().copied()?;
    let unique: [u8; 16] = entry.get(16..)?.first_chunk().copied()?;
    let first = u64::from_le_bytes(entry.get(32..)?.first_chunk().copied()?);
    let last = u64::from_le_bytes(entry.get(40..)?.first_chunk().copied()?);
    let blocks = disk.length.checked_div(disk.block_size)?;
    if kind == [0; 16] || first >= blocks || last >= blocks {
        return None;
    }
    let unit = disk.block_size.checked_div(SECTOR)?;
    let partition = match last.checked_sub(first) {
        Some(blocks) => place(
            disk,
            number,
            first.checked_mul(unit)?,
            blocks.checked_add(1)?.checked_mul(unit)?,
        )?,
        // It would have no length.
        None if last.checked_add(1) == Some(first) => return None,
        // The kernel does not check that the end comes after the beginning: the length is negative, and nothing can be read.
        None => Partition {
            number,
            uuid: None,
            label: None,
            kind: None,
            start: first.checked_mul(disk.block_size)?,
            length: 0,
        },
    };
    Some(Partition {
        uuid: Some(Uuid::from_guid(unique).to_string()),
        label: entry.get(56..).and_then(|name| utf16(name, 36)),
        kind: Some(Uuid::from_guid(kind).to_string()),
        ..partition
    })
}

/// The partitions of a disk's GPT. The copy at the end of the disk counts only where the command line says so (efi.c,
/// `find_valid_gpt`).
fn gpt(disk: Disk, read: &mut impl FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<Vec<Partition>> {
    let size = usize::try_from(disk.block_size).ok()?;
    let blocks = disk.length.checked_div(disk.block_size)?;
    let mut at = |position: u64| {
        let header = read(position.checked_mul(disk.block_size)?, size)?;
        let header = GptHeader::parse(&header, position, blocks)?;
        let entries = header.entries_block.checked_mul(disk.block_size)?;
        header.partitions(disk, &read(entries, header.entries_length)?)
    };
    let first = at(1);
    if first.is_none() && disk.gpt_is_forced {
        return at(blocks.checked_sub(1)?);
    }
    first
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

    const UUID: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

    /// A table with one entry, the second, from block 40 to 79.
    fn gpt_entries() -> Vec<u8> {
        let mut entries = vec![0; 128 * 128];
        entries[128..144].copy_from_slice(&[7; 16]);
        entries[144..160]
            .copy_from_slice(b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
        entries[160..168].copy_from_slice(&40_u64.to_le_bytes());
        entries[168..176].copy_from_slice(&79_u64.to_le_bytes());
        let name: Vec<u8> = "root".encode_utf16().flat_map(u16::to_le_bytes).collect();
        entries[184..184 + name.len()].copy_from_slice(&name);
        entries
    }

    fn gpt_header(position: u64, entries: &[u8], entries_block: u64) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, value) in [(24, position), (40, 34), (48, 90), (72, entries_block)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32([entries, &[], &[]]).to_le_bytes());
        let crc = crc32([&header[..92], &[], &[]]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// An entry of an MBR.
    fn entry(kind: u8, start: u32, length: u32) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&length.to_le_bytes());
        entry
    }

    fn put_entries(disk: &mut [u8], sector: usize, entries: &[[u8; 16]]) {
        let sector = &mut disk[sector * 512..][..512];
        for (entry, place) in entries.iter().zip(sector[446..510].chunks_exact_mut(16)) {
            place.copy_from_slice(entry);
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
    }

    /// A disk of 128 blocks with a GPT and its copy.
    fn gpt_disk(block_size: usize) -> Vec<u8> {
        let mut disk = vec![0; 128 * block_size];
        put_entries(&mut disk, 0, &[entry(0xee, 1, 127)]);
        let entries = gpt_entries();
        let blocks = (entries.len() / block_size) as u64;
        for (position, table) in [(1_u64, 2_u64), (127, 127 - blocks)] {
            let header = gpt_header(position, &entries, table);
            disk[position as usize * block_size..][..512].copy_from_slice(&header);
            disk[table as usize * block_size..][..entries.len()].copy_from_slice(&entries);
        }
        disk
    }

    fn read(bytes: &[u8], block_size: u64, gpt_is_forced: bool) -> Option<Table> {
        let disk = Disk {
            length: bytes.len() as u64,
            block_size,
            gpt_is_forced,
        };
        Table::read(disk, |offset, length| {
            let from = usize::try_from(offset).ok()?;
            Some(bytes.get(from..from.checked_add(length)?)?.to_vec())
        })
    }

    /// Number, PARTUUID, and place in sectors.
    fn listed(table: &Table) -> Vec<(u32, String, u64, u64)> {
        let partitions = table.partitions.iter();
        let listed = partitions.map(|it| {
            let uuid = it.uuid.clone().unwrap_or_default();
            (it.number, uuid, it.start / 512, it.length / 512)
        });
        listed.collect()
    }

    #[test]
    fn a_gpt_gives_number_uuid_label_and_place() {
        for (size, unit) in [(512, 1), (4096, 8)] {
            let table = read(&gpt_disk(size), size as u64, false).unwrap();
            assert_eq!(table.kind, Kind::Gpt);
            assert_eq!(listed(&table), [(2, UUID.to_owned(), 40 * unit, 40 * unit)]);
            assert_eq!(table.partitions[0].label.as_deref(), Some("root"));
        }
    }

    /// Behind a protective MBR there is no other table (msdos.c).
    #[test]
    fn a_gpt_that_is_damaged_has_no_partitions() {
        let good = gpt_disk(512);
        let header = 512..512 + 92;
        let mut places: Vec<usize> = header.collect();
        places.extend([1024 + 200, 1024 + 128 * 128 - 1]);
        for at in places {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            assert_eq!(
                read(&damaged, 512, false).unwrap().partitions,
                [],
                "byte {at}"
            );
            // With `gpt` on the command line, the kernel takes the copy.
            assert_eq!(
                read(&damaged, 512, true).unwrap().partitions.len(),
                1,
                "byte {at}"
            );
        }
        assert_eq!(read(&good, 4096, false).unwrap().partitions, []);
    }

    #[test]
    fn without_its_mbr_a_gpt_is_none_unless_it_is_forced() {
        let mut disk = gpt_disk(512);
        disk[..512].fill(0);
        assert_eq!(read(&disk, 512, false), None);
        assert_eq!(read(&disk, 512, true).unwrap().kind, Kind::Gpt);
        // Neither does an entry protect that begins elsewhere; and it hides the table of the MBR.
        put_entries(&mut disk, 0, &[entry(0xee, 2, 1), entry(0x83, 8, 8)]);
        assert_eq!(read(&disk, 512, false), None);
        // What was left of a GPT when the disk got an MBR.
        put_entries(&mut disk, 0, &[entry(0x83, 8, 8), entry(0, 0, 0)]);
        assert_eq!(read(&disk, 512, false).unwrap().kind, Kind::Mbr);
        for (line, forced) in [
            ("gpt root=x", true),
            ("root=gpt-auto", false),
            ("quiet", false),
            ("-- gpt", false),
        ] {
            assert_eq!(gpt_is_forced(line), forced, "{line}");
        }
    }

    /// Three logical partitions behind a primary one, as fdisk makes them, with gaps; and what the kernel passes over.
    fn mbr_disk() -> Vec<u8> {
        let mut disk = vec![0; 256 * 512];
        put_entries(
            &mut disk,
            0,
            &[
                entry(0x83, 8, 8),
                entry(0x05, 32, 200),
                entry(0, 0, 0),
                entry(0x82, 16, 4),
            ],
        );
        disk[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        put_entries(&mut disk, 32, &[entry(0x83, 4, 8), entry(0x05, 32, 40)]);
        put_entries(&mut disk, 64, &[entry(0x83, 4, 8), entry(0x0f, 96, 40)]);
        // Garbage in the third and fourth entry, beyond the extended partition.
        put_entries(
            &mut disk,
            128,
            &[
                entry(0x83, 4, 8),
                entry(0, 0, 0),
                entry(0x83, 0x7000_0000, 9),
                entry(0x83, 190, 9),
            ],
        );
        disk
    }

    #[test]
    fn an_mbr_gives_primary_and_logical_partitions() {
        let table = read(&mbr_disk(), 512, false).unwrap();
        assert_eq!(table.kind, Kind::Mbr);
        let uuid = |number: u32| format!("1a2b3c4d-{number:02x}");
        assert_eq!(
            listed(&table),
            [
                (1, uuid(1), 8, 8),
                (2, String::new(), 32, 2),
                (4, uuid(4), 16, 4),
                (5, uuid(5), 36, 8),
                (6, uuid(6), 68, 8),
                (7, uuid(7), 132, 8),
            ]
        );
        let named = |name: &str| table.named(&RootName::parse(name).unwrap());
        for (name, numbers) in [
            ("PARTUUID=1a2b3c4d-05", &[5][..]),
            ("PARTUUID=1A2B3C4D-06/PARTNROFF=1", &[7]),
            ("PARTUUID=1a2b3c4d-06/PARTNROFF=-2", &[4]),
            ("PARTUUID=1a2b3c4d-02", &[]),
            ("PARTUUID=1a2b3c4d-08", &[]),
            ("PARTUUID=1a2b3c4d-01/PARTNROFF=-2", &[]),
            ("PARTLABEL=root", &[]),
            ("LABEL=root", &[]),
        ] {
            assert_eq!(named(name), numbers, "{name}");
        }
    }

    #[test]
    fn sectors_of_4096_bytes_count_in_eights() {
        let mut disk = vec![0; 64 * 4096];
        put_entries(&mut disk, 0, &[entry(0x83, 8, 8), entry(0x05, 32, 16)]);
        put_entries(&mut disk, 32 * 8, &[entry(0x83, 4, 8)]);
        let table = read(&disk, 4096, false).unwrap();
        let places: Vec<_> = listed(&table)
            .into_iter()
            .map(|it| (it.0, it.2, it.3))
            .collect();
        assert_eq!(places, [(1, 64, 64), (2, 256, 8), (5, 288, 64)]);
    }

    #[test]
    fn partitions_end_with_the_disk() {
        let mut disk = vec![0; 64 * 512];
        put_entries(
            &mut disk,
            0,
            &[
                entry(0x83, 60, 8),
                entry(0x83, 64, 8),
                entry(0x83, u32::MAX, u32::MAX),
            ],
        );
        let table = read(&disk, 512, false).unwrap();
        assert_eq!(listed(&table), [(1, "00000000-01".to_owned(), 60, 4)]);
    }

    #[test]
    fn a_boot_sector_is_no_table() {
        let mut disk = vec![0; 64 * 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(read(&disk, 512, false), None);
        put_entries(&mut disk, 0, &[entry(0x83, 8, 8)]);
        disk[446] = 0x33;
        assert_eq!(read(&disk, 512, false), None);
        disk[446] = 0x80;
        assert!(read(&disk, 512, false).is_some());
        disk[510] = 0;
        assert_eq!(read(&disk, 512, false), None);
        assert_eq!(read(&disk[..100], 512, false), None);
    }

    #[test]
    fn chains_of_logical_partitions_end() {
        let mut disk = vec![0; 64 * 512];
        put_entries(&mut disk, 0, &[entry(0x05, 1, 60)]);
        // A table that links to itself, without and with a partition.
        put_entries(&mut disk, 1, &[entry(0, 0, 0), entry(0x05, 0, 1)]);
        assert_eq!(read(&disk, 512, false).unwrap().partitions.len(), 1);
        put_entries(&mut disk, 1, &[entry(0x83, 1, 1), entry(0x05, 0, 1)]);
        let table = read(&disk, 512, false).unwrap();
        assert_eq!(table.partitions.len(), 1 + 251);
        assert_eq!(table.partitions.last().unwrap().number, 255);
    }

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32([b"1234", b"", b"56789"]), 0xcbf4_3926);
    }

    proptest! {
        /// Whatever the tables say, partitions lie on the disk, and their numbers are different ones below the limit.
        #[test]
        fn partitions_lie_on_the_disk(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            is_mbr: bool, forced: bool, right: bool,
        ) {
            let mut disk = if is_mbr { mbr_disk() } else { gpt_disk(512) };
            for (at, byte) in changes {
                // Among the tables, not in the room between them.
                let at = at.index(if is_mbr { 130 * 512 } else { 8 * 512 });
                disk[at] = byte;
            }
            if right && !is_mbr {
                let header = gpt_header(1, &disk[1024..1024 + 128 * 128], 2);
                disk[512..1024].copy_from_slice(&header);
            }
            if let Some(table) = read(&disk, 512, forced) {
                for (at, partition) in table.partitions.iter().enumerate() {
                    prop_assert!(partition.length > 0 || !is_mbr);
                    prop_assert!(partition.start + partition.length <= disk.len() as u64);
                    prop_assert!((1..256).contains(&partition.number));
                    prop_assert!(at == 0 || table.partitions[at - 1].number < partition.number);
                }
            }
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..2048), size in 0..5_u64, forced: bool) {
            let _ = read(&bytes, size * 512, forced);
        }
    }
}
