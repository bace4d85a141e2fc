//! Partition tables around an image, written byte by byte: MBR, and GPT (UEFI specification, section 5.3).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::built::scratch;

const SECTOR: u64 = 512;
/// First sector of the partition that comes before the root's, and of the root's.
const FIRST: u64 = 2048;
const ROOT: u64 = 4096;

/// Where the root is on its disk. With a table, it is the second partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    #[default]
    None,
    /// With this disk signature.
    Mbr { signature: u32 },
    /// With the root in the second of two logical partitions, number 6: the first, number 5, is small.
    Logical { signature: u32 },
    /// As `Gpt`, but of the table at the beginning nothing is left.
    GptCopy,
    /// The partitions have the GUIDs `guid(1)` and `guid(2)` and the names `first` and `second`.
    Gpt,
}

/// A GUID as it stands in the table, and as text: the first three groups are little-endian on disk.
pub fn guid(number: u8) -> ([u8; 16], String) {
    let mut bytes = [0x11; 16];
    bytes[0] = number;
    bytes[15] = 0xfe;
    (
        bytes,
        format!("111111{number:02x}-1111-1111-1111-1111111111fe"),
    )
}

/// A disk with this table and `image` as its second partition.
pub fn around(image: &Path, table: Table) -> PathBuf {
    if table == Table::None {
        return image.to_owned();
    }
    let mut content = Vec::new();
    File::open(image)
        .and_then(|mut file| file.read_to_end(&mut content))
        .expect("the image");
    let sectors = (content.len() as u64).div_ceil(SECTOR);
    let total = ROOT + sectors + 2048;
    let (mut disk, path) = tempfile::NamedTempFile::new_in(scratch())
        .expect("a disk")
        .keep()
        .expect("a disk");
    disk.set_len(total * SECTOR).expect("room for the disk");
    let mut put = |sector: u64, bytes: &[u8]| {
        disk.seek(SeekFrom::Start(sector * SECTOR)).expect("a seek");
        disk.write_all(bytes).expect("a write");
    };
    put(ROOT, &content);
    match table {
        Table::None => {}
        Table::Mbr { signature } => {
            let entries = [
                mbr_entry(0x83, FIRST, ROOT - FIRST),
                mbr_entry(0x83, ROOT, sectors),
            ];
            put(0, &mbr(signature, &entries));
        }
        Table::Logical { signature } => {
            // An extended partition from FIRST on, with a table before each logical one.
            let (first, second) = (FIRST + 8, ROOT - FIRST - 8);
            let entries = [
                mbr_entry(0x83, 64, 64),
                mbr_entry(0x0f, FIRST, ROOT + sectors - FIRST),
            ];
            put(0, &mbr(signature, &entries));
            let entries = [
                mbr_entry(0x83, first - FIRST, 64),
                mbr_entry(0x05, second, sectors + 8),
            ];
            put(FIRST, &mbr(0, &entries));
            put(FIRST + second, &mbr(0, &[mbr_entry(0x83, 8, sectors)]));
        }
        Table::Gpt | Table::GptCopy => {
            put(0, &mbr(0, &[mbr_entry(0xee, 1, total - 1)]));
            let mut entries = vec![0; 128 * 128];
            for (index, (first, last, name)) in [
                (FIRST, ROOT - 1, "first"),
                (ROOT, ROOT + sectors - 1, "second"),
            ]
            .into_iter()
            .enumerate()
            {
                let entry = &mut entries[index * 128..][..128];
                gpt_entry(entry, guid(index as u8 + 1).0, [first, last], name);
            }
            if table == Table::Gpt {
                put(1, &gpt_header(1, total - 1, 2, total, &entries));
                put(2, &entries);
            }
            put(total - 33, &entries);
            put(
                total - 1,
                &gpt_header(total - 1, 1, total - 33, total, &entries),
            );
        }
    }
    path
}

/// A partition of a disk that [`disk`] makes.
pub struct Partition<'a> {
    pub image: &'a Path,
    /// As it is written.
    pub uuid: [u8; 16],
    /// As it is written; the type of Linux's file systems if there is none.
    pub kind: Option<&'static str>,
    /// PARTLABEL.
    pub name: &'a str,
}

/// A disk with a GPT of these partitions, and where each begins, in bytes.
pub fn disk(partitions: &[Partition<'_>]) -> (PathBuf, Vec<u64>) {
    let (disk, path) = tempfile::NamedTempFile::new_in(scratch())
        .expect("a disk")
        .keep()
        .expect("a disk");
    let mut entries = vec![0; 128 * 128];
    let mut end = FIRST;
    let mut places = Vec::new();
    let put = |sector: u64, bytes: &[u8]| {
        disk.write_all_at(bytes, sector * SECTOR).expect("a write");
    };
    for (partition, entry) in partitions.iter().zip(entries.chunks_exact_mut(128)) {
        let content = std::fs::read(partition.image).expect("an image");
        let sectors = (content.len() as u64).div_ceil(SECTOR);
        put(end, &content);
        places.push(end * SECTOR);
        let uuid = little_endian(partition.uuid);
        gpt_entry(entry, uuid, [end, end + sectors - 1], partition.name);
        if let Some(kind) = partition.kind {
            let digits = kind.replace('-', "");
            let kind = ima_testbed::report::decode_hex(&digits).expect("a type");
            entry[..16].copy_from_slice(&little_endian(kind.try_into().expect("16 bytes")));
        }
        end += sectors.next_multiple_of(FIRST);
    }
    let total = end + FIRST;
    disk.set_len(total * SECTOR).expect("room for the disk");
    put(0, &mbr(0, &[mbr_entry(0xee, 1, total - 1)]));
    put(1, &gpt_header(1, total - 1, 2, total, &entries));
    put(2, &entries);
    put(total - 33, &entries);
    let copy = gpt_header(total - 1, 1, total - 33, total, &entries);
    put(total - 1, &copy);
    (path, places)
}

/// A UUID as it stands in a GPT, where its first three groups are little-endian.
fn little_endian(mut uuid: [u8; 16]) -> [u8; 16] {
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    uuid
}

fn gpt_entry(entry: &mut [u8], uuid: [u8; 16], [first, last]: [u64; 2], name: &str) {
    // "Linux filesystem data".
    entry[..16].copy_from_slice(&[
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ]);
    entry[16..32].copy_from_slice(&uuid);
    entry[32..40].copy_from_slice(&first.to_le_bytes());
    entry[40..48].copy_from_slice(&last.to_le_bytes());
    for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
}

fn mbr_entry(kind: u8, first: u64, sectors: u64) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&(first as u32).to_le_bytes());
    entry[12..].copy_from_slice(&(sectors as u32).to_le_bytes());
    entry
}

fn mbr(signature: u32, entries: &[[u8; 16]]) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(&signature.to_le_bytes());
    for (entry, place) in entries.iter().zip(sector[446..510].chunks_exact_mut(16)) {
        place.copy_from_slice(entry);
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn gpt_header(here: u64, other: u64, table: u64, total: u64, entries: &[u8]) -> [u8; 92] {
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    for (at, value) in [
        (24, here),
        (32, other),
        (40, 34),
        (48, total - 34),
        (72, table),
    ] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[56..72].copy_from_slice(&guid(0xdd).0);
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

/// CRC-32 of IEEE 802.3.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}
