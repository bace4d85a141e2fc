//! The image of a whole disk: the partition that the init would find on it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use ima::cmdline::RootName;
use ima::device::{self, Number};
use ima::fault::{Cause, Code, Fault};
use ima::filesystem::{self, Filesystem};
use ima::partition::{self, Kind, Partition, Table};

use crate::Result;
use crate::file::read_at;

/// The sizes of logical blocks that disks have: the image does not say which size its disk will have.
const BLOCK_SIZES: [u64; 2] = [512, 4096];

/// A file system for a person: its type, label and UUID.
pub(super) fn describe(found: &Filesystem) -> String {
    let label = found.label.as_ref().map(|label| format!(" LABEL={label}"));
    let uuid = found.uuid.as_ref().map(|uuid| format!(" UUID={uuid}"));
    format!(
        "{}{}{}",
        found.kind,
        label.unwrap_or_default(),
        uuid.unwrap_or_default()
    )
}

/// The image of a disk with a partition table.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    table: Table,
}

impl Disk {
    /// Opens the image; nothing if there is no partition table on it. `gpt_is_forced` is [`partition::gpt_is_forced`].
    pub(super) fn open(path: &Path, gpt_is_forced: bool) -> std::io::Result<Option<Self>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        // What a file system lies over is not a table: FAT's boot sector, and an image of one that begins with a boot loader.
        let head = read_at(&file, 0, filesystem::PROBE_LENGTH)?;
        if !filesystem::probe(&head).is_empty() {
            return Ok(None);
        }
        let read = |offset, length| read_at(&file, offset, length).ok();
        let mut tables = BLOCK_SIZES.into_iter().filter_map(|block_size| {
            let disk = partition::Disk {
                length,
                block_size,
                gpt_is_forced,
            };
            Table::read(disk, read)
        });
        let first = tables.next();
        let table = match first {
            Some(table) if table.partitions.is_empty() => {
                let other = tables.find(|other| !other.partitions.is_empty());
                Some(other.unwrap_or(table))
            }
            first => first,
        };
        Ok(table.map(|table| Self { file, table }))
    }

    /// The kind of its table.
    pub(super) const fn kind(&self) -> Kind {
        self.table.kind
    }

    /// The partition that the init would mount.
    ///
    /// # Errors
    ///
    /// The init's own, if it would find none or several; [`Code::Usage`] if nothing says which is meant.
    pub(super) fn find(&self, name: Option<&RootName>) -> Result<&Partition> {
        let chosen: Vec<&Partition> = match name {
            Some(name) => self.named(name)?,
            None => {
                let holding = |entry: &&Partition| !self.superblocks(entry).is_empty();
                self.table.partitions.iter().filter(holding).collect()
            }
        };
        match (chosen.as_slice(), name) {
            ([entry], _) => Ok(entry),
            ([], Some(name)) => Err(Fault::new(
                Code::RootMissing,
                format!("{name}; the disk has {}", self.list()),
            )
            .because(Cause::NO_PARTITION_OF_THIS_NAME)),
            ([], None) => Err(Fault::new(
                Code::RootUnknown,
                format!("the disk has {}", self.list()),
            )),
            (several, Some(name)) => {
                let numbers: Vec<String> = several
                    .iter()
                    .map(|entry| entry.number.to_string())
                    .collect();
                let detail = format!("{name} is partition {}", numbers.join(" and partition "));
                Err(Fault::new(Code::RootAmbiguous, detail))
            }
            (_, None) => Err(
                Fault::new(Code::Usage, format!("the disk has {}", self.list()))
                    .because(Cause::SEVERAL_FILE_SYSTEMS),
            ),
        }
    }

    /// The partitions with that name, as the init looks for them.
    fn named(&self, name: &RootName) -> Result<Vec<&Partition>> {
        let filter = |holds: &dyn Fn(&Partition) -> bool| -> Vec<&Partition> {
            let all = self.table.partitions.iter();
            all.filter(|partition| holds(partition)).collect()
        };
        Ok(match name {
            RootName::Device(device) => self.numbered(name, device::split(device).1)?,
            RootName::Number { major, minor } => match device::number(*major, *minor) {
                Number::Disk => self.numbered(name, None)?,
                Number::Partition(number) => self.numbered(name, Some(number))?,
                Number::Unknown => {
                    let detail = format!("root={major}:{minor}");
                    return Err(
                        Fault::new(Code::Usage, detail).because(Cause::DEVICE_NUMBER_UNKNOWN)
                    );
                }
            },
            RootName::Uuid(uuid) => filter(&|partition| {
                self.superblocks(partition).iter().any(|found| {
                    let found = found.uuid.as_ref();
                    found.is_some_and(|found| found.eq_ignore_ascii_case(uuid))
                })
            }),
            RootName::Label(label) => filter(&|partition| {
                let mut found = self.superblocks(partition).into_iter();
                found.any(|found| found.label.as_ref() == Some(label))
            }),
            RootName::Ubi(_) | RootName::Shared { .. } | RootName::Nfs { .. } => {
                let fault = Fault::new(Code::Usage, format!("root={name}"));
                return Err(fault.because(Cause::NO_BLOCK_DEVICE_IN_PARTITIONS));
            }
            RootName::PartUuid { .. } | RootName::PartLabel(_) | RootName::PartType(_) => {
                let numbers = self.table.named(name);
                filter(&|partition| numbers.contains(&partition.number))
            }
        })
    }

    /// The partition of that number, where `name` is not the disk itself.
    fn numbered(&self, name: &RootName, number: Option<u32>) -> Result<Vec<&Partition>> {
        let number = number.ok_or_else(|| {
            Fault::new(Code::RootUnknown, format!("{name} is the whole disk"))
                .because(Cause::WHOLE_DISK)
        })?;
        let all = self.table.partitions.iter();
        Ok(all.filter(|partition| partition.number == number).collect())
    }

    fn superblocks(&self, partition: &Partition) -> Vec<Filesystem> {
        let most = filesystem::PROBE_LENGTH.min(usize::try_from(partition.length).unwrap_or(0));
        let head = read_at(&self.file, partition.start, most).unwrap_or_default();
        filesystem::probe(&head)
    }

    /// The partitions for a person.
    fn list(&self) -> String {
        if self.table.partitions.is_empty() {
            return "no partitions".to_owned();
        }
        let describe = |partition: &Partition| {
            let mut words = vec![format!("partition {}", partition.number)];
            let label = partition.label.as_ref();
            words.extend(label.map(|label| format!("PARTLABEL={label}")));
            let uuid = partition.uuid.as_ref();
            words.extend(uuid.map(|uuid| format!("PARTUUID={uuid}")));
            words.extend(self.superblocks(partition).iter().map(describe));
            words.join(" ")
        };
        let all: Vec<String> = self.table.partitions.iter().map(describe).collect();
        all.join(", ")
    }

    /// The image.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

/// A part of a file as a file of its own. What is zeros in it takes no room.
pub(super) fn extract(
    file: &File,
    start: u64,
    length: u64,
) -> std::io::Result<tempfile::NamedTempFile> {
    const PIECE: usize = 1 << 20;
    let mut result = tempfile::Builder::new().prefix("partition-").tempfile()?;
    let end = start.saturating_add(length);
    for offset in (start..end).step_by(PIECE) {
        let length = usize::try_from(end - offset).map_or(PIECE, |left| left.min(PIECE));
        let bytes = read_at(file, offset, length)?;
        for (block, at) in bytes.chunks(4096).zip((offset - start..).step_by(4096)) {
            if block.iter().any(|byte| *byte != 0) {
                result.seek(SeekFrom::Start(at))?;
                result.write_all(block)?;
            }
        }
    }
    result.as_file().set_len(length)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use crate::check::{Root, RootChoice};
    use crate::initramfs::InitramfsBuilder;
    use crate::select::FileSystem;

    /// The superblock of an ext4 of 1 MiB with this UUID's byte and label.
    fn superblock(byte: u8, label: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        let block = &mut bytes[1024..];
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0x68..0x78].fill(byte);
        block[0x78..0x78 + label.len()].copy_from_slice(label);
        bytes
    }

    /// A disk as sfdisk makes it: three partitions of 1 MiB, of which the second and the third hold a file system.
    fn disk(directory: &Path) -> PathBuf {
        let path = directory.join("disk.img");
        let file = File::create(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        let mut child = Command::new("sfdisk")
            .args(["--quiet", "--no-tell-kernel"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sfdisk (package fdisk)");
        let script = "label: gpt\n\
            size=1MiB, name=\"boot\", uuid=11111111-0000-4000-8000-000000000001\n\
            size=1MiB, name=\"root\", uuid=11111111-0000-4000-8000-000000000002\n\
            size=1MiB, name=\"root\", uuid=11111111-0000-4000-8000-000000000003\n";
        let mut input = child.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        let file = File::options().write(true).open(&path).unwrap();
        for (number, byte, label) in [(2, 0xaa, b"one"), (3, 0xbb, b"two")] {
            file.write_all_at(&superblock(byte, label), number << 20)
                .unwrap();
        }
        path
    }

    fn found(disk: &Disk, name: &str) -> std::result::Result<u32, Code> {
        let name = RootName::parse(name).unwrap();
        disk.find(Some(&name))
            .map(|partition| partition.number)
            .map_err(|fault| fault.code())
    }

    #[test]
    fn a_partition_is_found_as_the_init_would() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(&disk(directory.path()), false).unwrap().unwrap();
        for (name, expected) in [
            ("PARTUUID=11111111-0000-4000-8000-000000000002", Ok(2)),
            (
                "PARTUUID=11111111-0000-4000-8000-000000000001/PARTNROFF=1",
                Ok(2),
            ),
            (
                "PARTUUID=11111111-0000-4000-8000-000000000003/PARTNROFF=-1",
                Ok(2),
            ),
            (
                "PARTUUID=11111111-0000-4000-8000-000000000003/PARTNROFF=1",
                Err(Code::RootMissing),
            ),
            (
                "PARTUUID=11111111-0000-4000-8000-000000000004",
                Err(Code::RootMissing),
            ),
            ("PARTLABEL=boot", Ok(1)),
            ("PARTLABEL=root", Err(Code::RootAmbiguous)),
            ("LABEL=two", Ok(3)),
            ("LABEL=boot", Err(Code::RootMissing)),
            ("UUID=AAAAAAAA-aaaa-aaaa-aaaa-aaaaaaaaaaaa", Ok(2)),
            ("/dev/vda2", Ok(2)),
            ("/dev/nvme0n1p3", Ok(3)),
            ("/dev/vda4", Err(Code::RootMissing)),
            ("/dev/vda", Err(Code::RootUnknown)),
            ("/dev/mmcblk0", Err(Code::RootUnknown)),
            ("254:2", Ok(2)),
            ("8:19", Ok(3)),
            ("179:10", Ok(2)),
            ("179:8", Err(Code::RootUnknown)),
            ("259:2", Err(Code::Usage)),
        ] {
            assert_eq!(found(&disk, name), expected, "{name}");
        }
        let unnamed = disk.find(None).map_err(|fault| fault.code());
        assert_eq!(unnamed.unwrap_err(), Code::Usage);
    }

    #[test]
    fn the_partition_s_file_is_what_lies_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = disk(directory.path());
        let disk = Disk::open(&path, false).unwrap().unwrap();
        let name = RootName::parse("LABEL=two").unwrap();
        let part = disk.find(Some(&name)).unwrap();
        let file = extract(disk.file(), part.start, part.length).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), whole[3 << 20..4 << 20]);
    }

    #[test]
    fn what_the_init_would_not_find_is_known_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let path = disk(directory.path());
        let of = |name: &str| {
            let choice = RootChoice {
                name: RootName::parse(name),
                ..RootChoice::default()
            };
            let root = Root::read(&path, FileSystem::default(), &choice).unwrap();
            root.unmountable.map(|fault| fault.code())
        };
        assert_eq!(of("PARTLABEL=third"), Some(Code::RootMissing));
        assert_eq!(of("PARTLABEL=root"), Some(Code::RootAmbiguous));
        assert_eq!(of("PARTLABEL=boot"), Some(Code::RootUnknown));
        // Superblocks of nothing: the kernel would not mount them.
        assert_eq!(of("LABEL=one"), Some(Code::RootMount));
    }

    #[test]
    fn a_signed_root_hash_is_looked_for_by_the_architecture_of_the_init() {
        const SECOND: &str = "11111111-0000-4000-8000-000000000002";
        let directory = tempfile::tempdir().unwrap();
        let path = disk(directory.path());
        let aarch64 = ima::dm_verity::signed::partition_type("aarch64").unwrap();
        let status = Command::new("sfdisk")
            .args(["--quiet", "--no-tell-kernel", "--part-type"])
            .args([path.as_os_str(), "2".as_ref(), aarch64.as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
        // The header of a program that this machine does not run need not have more behind it.
        let init = |machine: u8| {
            let mut header = vec![0; 64];
            header[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (header[16], header[18], header[54], header[56]) = (2, machine, 56, 1);
            header
        };
        let script = b"#!/bin/busybox sh\n".to_vec();
        let found = |init: Vec<u8>, busybox: Vec<u8>, named: &str| {
            let initramfs = InitramfsBuilder::new()
                .init(init)
                .file("bin/busybox", 0o755, busybox)
                .config(format!("verity=signed\n{named}"));
            let choice = RootChoice::new(&initramfs, Some("root=LABEL=two"));
            let root = Root::read(&path, FileSystem::default(), &choice).unwrap();
            let fault = root.unmountable.unwrap();
            (fault.code(), fault.found())
        };
        // What lies in that partition is not a signed root hash.
        let malformed = found(init(183), Vec::new(), "");
        assert_eq!(malformed.0, Code::VeritySignature);
        assert_eq!(found(script, init(183), ""), malformed);
        let named = format!("verity_signature=PARTUUID={SECOND}\n");
        assert_eq!(found(init(62), Vec::new(), &named), malformed);
        let missing = (Code::VeritySignatureMissing, None);
        assert_eq!(found(init(62), Vec::new(), ""), missing);
        // PowerPC, for which the init knows no type.
        let unknown = Some(Cause::PROCESSOR_WITHOUT_PARTITION_TYPE);
        let unknown = (Code::VeritySignatureMissing, unknown);
        assert_eq!(found(init(20), Vec::new(), ""), unknown);
    }

    #[test]
    fn a_first_table_that_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = disk(directory.path());
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 512], 512).unwrap();
        let damaged = Disk::open(&path, false).unwrap().unwrap();
        assert_eq!(found(&damaged, "LABEL=one"), Err(Code::RootMissing));
        let copy = Disk::open(&path, true).unwrap().unwrap();
        assert_eq!(found(&copy, "LABEL=one"), Ok(2));
        file.write_all_at(&[0; 512], 0).unwrap();
        assert!(
            Disk::open(&path, false).unwrap().is_none(),
            "without its MBR"
        );
    }
}
