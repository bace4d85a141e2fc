//! A root that dm-verity verifies, set up with the device mapper's own requests (include/uapi/linux/dm-ioctl.h).
//!
//! Until the real init is executed, a wrong block is an error to whoever reads it, so that this init can say what is wrong
//! and end as the configuration chose. The last thing before that is to load the table anew, with what the kernel does to a
//! running system.

use std::fs::File;
use std::path::Path;

use ima::dm_verity::Corruption;
use ima::dm_verity::{self, Devices, Place, RootHash, SUPERBLOCK_LENGTH, Superblock, TARGET};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::hex;
use ima::settings::{Settings, Verity};
use nix::errno::Errno;

use super::devices::{self, Device};
use crate::boot::kernel_log::KernelLog;
use crate::files::{describe, read_at};
use crate::syscalls::{self, DM_HEADER};
use crate::watch;

const CONTROL: &str = "/dev/mapper/control";

/// The name of the mapped device; `/dev/mapper/root` is made of it by udev, in the real root.
const NAME: &str = "root";

/// The requests' numbers.
const VERSION: u8 = 0;
const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;
const GET_TARGET_VERSION: u8 = 17;

/// Their flags.
const READ_ONLY: u32 = 1 << 0;
/// A file system need not be frozen for a table to be replaced: nobody writes to it.
const SKIP_LOCKFS: u32 = 1 << 10;

/// Where the fields of `struct dm_ioctl` and `struct dm_target_spec` are, and how long they are.
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME_FIELD: usize = 48;
const UUID_FIELD: usize = 176;
const DATA_START: usize = 16;
const SPEC: usize = 40;
const TYPE_LENGTH: usize = 16;

/// A root that is verified: what to ask the kernel about it.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    mapped: Device,
    data: Device,
    tree: Device,
    offset: u64,
    superblock: Superblock,
    root_hash: RootHash,
    corruption: Corruption,
}

impl Verified {
    /// Sets up dm-verity over the device.
    pub(super) fn set_up(
        data: &Device,
        verity: &Verity,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let tree = match &verity.tree {
            None => data.clone(),
            Some(name) => super::wait(name, settings).map_err(|fault| {
                Fault::new(Code::VerityTreeMissing, fault.detail())
                    .with_cause(fault.cause().to_owned())
                    .with_remedy(fault.remedy().to_owned())
            })?,
        };
        let superblock = superblock(data, &tree, verity)?;
        let doing = format!("setting up dm-verity over {}", data.path());
        watch::during(Stage::Root, doing, || {
            let mapped = map(data, &tree, &superblock, verity)?;
            Ok(Self {
                mapped,
                data: data.clone(),
                tree,
                offset: verity.offset,
                superblock,
                root_hash: verity.root_hash.clone(),
                corruption: verity.corruption,
            })
        })
    }

    /// The device to mount.
    pub(super) const fn device(&self) -> &Device {
        &self.mapped
    }

    /// What is verified, for a line in the log.
    pub(super) fn text(&self) -> String {
        format!("dm-verity over {}", self.data.path())
    }

    /// What must come out.
    pub(super) const fn root_hash(&self) -> &RootHash {
        &self.root_hash
    }

    /// The fault of a boot that failed: where the kernel has met a wrong block, that, and not what came of it.
    pub(super) fn closer(&self, fault: Fault) -> Fault {
        match self.has_failed() {
            Ok(true) => self.wrong_block(&format!("[{}] {}", fault.code(), fault.detail())),
            Ok(false) | Err(_) => fault,
        }
    }

    /// Sets what the kernel does from now on, if it has met no wrong block.
    pub(super) fn arm(&self) -> Result<(), Fault> {
        let failed = self
            .has_failed()
            .map_err(|errno| refused("asking for its state", errno, None))?;
        if failed {
            return Err(self.wrong_block("found while the root was mounted"));
        }
        if self.corruption == Corruption::Error {
            return Ok(());
        }
        // The kernel lets a table of dm-verity be replaced by another one of its (DM_TARGET_IMMUTABLE; drivers/md/dm-ioctl.c,
        // `table_load`).
        load(&self.control()?, &self.table(self.corruption))
    }

    fn control(&self) -> Result<File, Fault> {
        open_control().map_err(|error| refused(CONTROL, error, None))
    }

    fn table(&self, corruption: Corruption) -> Table {
        table(
            &self.data,
            &self.tree,
            &self.superblock,
            self.offset,
            &self.root_hash,
            corruption,
        )
    }

    /// Whether the kernel has met a wrong block (drivers/md/dm-verity-target.c, `verity_status`: `V` or `C`).
    fn has_failed(&self) -> Result<bool, Errno> {
        let mut request = Request::named(0);
        request.room(512);
        request.send(&open_control()?, TABLE_STATUS)?;
        let start = usize::try_from(request.number(DATA_START)).unwrap_or(usize::MAX);
        let status = request.0.get(start.saturating_add(SPEC)..);
        match status.and_then(<[u8]>::first) {
            Some(b'V') => Ok(false),
            _ => Ok(true),
        }
    }

    /// Which fault a wrong block is: of the whole tree, or of one place.
    fn wrong_block(&self, met: &str) -> Fault {
        let top = match self.superblock.levels(self.offset).first() {
            Some(level) => {
                let length = self.superblock.hash_block();
                let place = level.start.saturating_mul(length.into());
                block(&self.tree, place, length)
            }
            None => block(&self.data, 0, self.superblock.data_block()),
        };
        let is_other =
            top.is_some_and(|top| self.superblock.digest(&top) != self.root_hash.bytes());
        let code = match is_other {
            true => Code::VerityRootHash,
            false => Code::VerityCorrupted,
        };
        let detail = format!("{} with {}: {met}", self.data.path(), self.root_hash);
        Fault::new(code, detail)
    }
}

fn block(device: &Device, place: u64, length: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let file = File::open(device.path()).ok()?;
    let filled = read_at(&file, &mut bytes, place).ok()?;
    (filled == bytes.len()).then_some(bytes)
}

/// The superblock of the tree.
fn superblock(data: &Device, tree: &Device, verity: &Verity) -> Result<Superblock, Fault> {
    let path = tree.path();
    let mut bytes = vec![0; SUPERBLOCK_LENGTH];
    let read = || read_at(&File::open(&path)?, &mut bytes, verity.offset);
    let length = watch::during(Stage::Root, format!("reading {path}"), read).map_err(|error| {
        Fault::new(
            Code::VeritySuperblock,
            format!("{path} at byte {}: {error}", verity.offset),
        )
        .because(Cause::VERITY_TREE_UNREADABLE)
    })?;
    let place = Place {
        device: &path,
        length: tree.length(),
        offset: verity.offset,
        data_length: data.length(),
        is_data: verity.tree.is_none(),
    };
    let bytes = bytes.get(..length).unwrap_or_default();
    dm_verity::superblock(bytes, &place, &verity.root_hash)
}

/// Makes the mapped device.
fn map(
    data: &Device,
    tree: &Device,
    superblock: &Superblock,
    verity: &Verity,
) -> Result<Device, Fault> {
    let missing = |errno: Errno| {
        let errno = describe_nix(errno);
        Fault::new(Code::VerityTarget, format!("{CONTROL}: {errno}"))
    };
    let control = open_control().map_err(missing)?;
    Request::new(0).send(&control, VERSION).map_err(missing)?;
    let mut log = KernelLog::from_now();
    let mut create = Request::named(READ_ONLY);
    // As libcryptsetup has it: `veritysetup status` in the real system knows the device by it.
    let uuid = format!("CRYPT-VERITY-{}-{NAME}", hex::encode(superblock.uuid()));
    create.put(UUID_FIELD, uuid.as_bytes());
    create
        .send(&control, DEV_CREATE)
        .map_err(|errno| refused("making the device", errno, Some(&mut log)))?;
    let wanted = table(
        data,
        tree,
        superblock,
        verity.offset,
        &verity.root_hash,
        Corruption::Error,
    );
    if let Err(fault) = load(&control, &wanted) {
        return Err(match has_target(&control) {
            true => fault,
            false => Fault::new(Code::VerityTarget, "there is no target of that name")
                .because(Cause::VERITY_NOT_IN_KERNEL),
        });
    }
    // Of the answer to its making, the number is known; the device has its size only now.
    let number = create.wide(DEVICE);
    let (major, minor) = decode(number);
    let path = format!("/sys/dev/block/{major}:{minor}");
    devices::at(Path::new(&path)).ok_or_else(|| {
        Fault::new(
            Code::VerityTable,
            format!("{path}: the device is not there"),
        )
    })
}

/// A table of one target.
struct Table {
    sectors: u64,
    arguments: String,
}

fn table(
    data: &Device,
    tree: &Device,
    superblock: &Superblock,
    offset: u64,
    root_hash: &RootHash,
    corruption: Corruption,
) -> Table {
    let devices = Devices {
        data: data.number(),
        tree: tree.number(),
    };
    Table {
        sectors: superblock.data_length().checked_div(512).unwrap_or(0),
        arguments: superblock.table(&devices, offset, root_hash, corruption),
    }
}

/// Loads the table and has the device work by it.
fn load(control: &File, table: &Table) -> Result<(), Fault> {
    let mut log = KernelLog::from_now();
    let mut request = Request::named(READ_ONLY);
    request.target(table);
    request
        .send(control, TABLE_LOAD)
        .map_err(|errno| refused("loading the table", errno, Some(&mut log)))?;
    // Without DM_SUSPEND_FLAG this resumes (`dev_suspend`).
    Request::named(SKIP_LOCKFS)
        .send(control, DEV_SUSPEND)
        .map_err(|errno| refused("starting the device", errno, Some(&mut log)))
}

/// Whether the kernel has dm-verity; a kernel that cannot be asked so may have it (before 5.5).
fn has_target(control: &File) -> bool {
    let mut request = Request::new(0);
    request.put(NAME_FIELD, TARGET.as_bytes());
    request.room(512);
    !matches!(
        request.send(control, GET_TARGET_VERSION),
        Err(Errno::EINVAL)
    )
}

fn refused(step: &str, errno: Errno, log: Option<&mut KernelLog>) -> Fault {
    let mut detail = format!("{step}: {}", describe_nix(errno));
    let words = log.map(KernelLog::device_mapper).unwrap_or_default();
    if !words.is_empty() {
        detail.push_str("; the kernel says: ");
        detail.push_str(&words);
    }
    Fault::new(Code::VerityTable, detail)
}

fn open_control() -> Result<File, Errno> {
    File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

fn describe_nix(errno: Errno) -> String {
    describe(rustix::io::Errno::from_raw_os_error(errno as i32))
}

/// A device's number as `new_encode_dev` writes it (include/linux/kdev_t.h).
const fn decode(number: u64) -> (u64, u64) {
    (
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    )
}

/// A request to the device mapper, and its answer.
struct Request(Vec<u8>);

impl Request {
    /// A request about no device.
    fn new(flags: u32) -> Self {
        let mut request = Self(vec![0; DM_HEADER]);
        // DM_VERSION_MAJOR; a kernel takes every older minor number (`check_version`).
        request.put(0, &4_u32.to_ne_bytes());
        let length = u32::try_from(DM_HEADER).unwrap_or_default();
        request.put(DATA_START, &length.to_ne_bytes());
        request.put(FLAGS, &flags.to_ne_bytes());
        request
    }

    /// A request about the root's device.
    fn named(flags: u32) -> Self {
        let mut request = Self::new(flags);
        request.put(NAME_FIELD, NAME.as_bytes());
        request
    }

    /// Writes a field; what follows a string is NUL.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Makes room for an answer.
    fn room(&mut self, length: usize) {
        self.0.resize(self.0.len().saturating_add(length), 0);
    }

    /// Adds the one target of a table: `struct dm_target_spec` and its arguments, with a NUL and in eights.
    fn target(&mut self, table: &Table) {
        self.put(TARGET_COUNT, &1_u32.to_ne_bytes());
        let length = SPEC.saturating_add(table.arguments.len()).saturating_add(1);
        let length = length.next_multiple_of(8);
        let start = self.0.len();
        self.room(length);
        let next = u32::try_from(length).unwrap_or_default();
        let at = |offset: usize| start.saturating_add(offset);
        self.put(at(8), &table.sectors.to_ne_bytes());
        self.put(at(20), &next.to_ne_bytes());
        self.put(at(SPEC.saturating_sub(TYPE_LENGTH)), TARGET.as_bytes());
        self.put(at(SPEC), table.arguments.as_bytes());
    }

    fn send(&mut self, control: &File, number: u8) -> Result<(), Errno> {
        syscalls::device_mapper(control, number, &mut self.0)
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        u32::from_ne_bytes(bytes.copied().unwrap_or_default())
    }

    fn wide(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        u64::from_ne_bytes(bytes.copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices() {
        assert_eq!(decode(0xfe03), (254, 3));
        assert_eq!(decode(0x10_fd05), (253, 261));
    }

    #[test]
    fn a_table_s_target_is_where_the_kernel_looks_for_it() {
        let mut request = Request::named(READ_ONLY);
        request.target(&Table {
            sectors: 16,
            arguments: "1 a b".into(),
        });
        assert_eq!(request.number(0), 4);
        assert_eq!(request.number(DATA_START), 312);
        assert_eq!(request.number(TARGET_COUNT), 1);
        assert_eq!(request.number(FLAGS), 1);
        assert_eq!(&request.0[NAME_FIELD..][..5], b"root\0");
        let spec = &request.0[312..];
        assert_eq!(spec.len(), 48);
        assert_eq!(request.wide(312 + 8), 16);
        assert_eq!(request.number(312 + 20), 48);
        assert_eq!(&spec[24..40], b"verity\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&spec[40..], b"1 a b\0\0\0");
    }
}
