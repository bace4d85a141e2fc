//! A root that dm-verity verifies, set up with the device mapper's own requests (include/uapi/linux/dm-ioctl.h).
//!
//! Until the real init is executed, a wrong block is an error to whoever reads it, so that this init can say what is wrong
//! and end as the configuration chose. The last thing before that is to load the table anew, with what the kernel does to a
//! running system.

use std::fs::File;
use std::path::Path;

use ima::cmdline::RootName;
use ima::dm_verity::signed::{self, SignedRootHash};
use ima::dm_verity::{
    self, Corruption, Devices, Fec, Place, RootHash, SUPERBLOCK_LENGTH, Superblock, TARGET,
    TableOptions,
};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::hex;
use ima::settings::{RootHashSource, Settings, Verity, VerityRoot};
use ima_keyring::Keyring;

use super::devices::{self, Device};
use super::waiting;
use crate::errno::{Errno, describe, from_io, from_nix};
use crate::files::read_at;
use crate::kernel_log::KernelLog;
use crate::syscalls::{self, DM_HEADER};
use crate::watch;

const CONTROL: &str = "/dev/mapper/control";

/// The name of the mapped device; `/dev/mapper/root` is made of it by udev, in the real root.
const NAME: &str = "root";

/// The requests' numbers.
const VERSION: u8 = 0;
const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
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

/// The name of the key that holds the signature of the root hash while the table is loaded.
const SIGNATURE_KEY: &str = "ima-init:root-hash";

/// A root hash that is trusted, or will be if the kernel takes its signature; and what it verifies.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    root: VerityRoot,
    signature: Option<SignedRootHash>,
}

impl Trusted {
    /// The root hash of the configuration, or the signed one of its device.
    pub(super) fn find(verity: &Verity, settings: &Settings) -> Result<Self, Fault> {
        let signature = match &verity.root_hash {
            RootHashSource::Configured(root_hash) => {
                return Ok(Self {
                    root: verity.with(root_hash),
                    signature: None,
                });
            }
            RootHashSource::Signed(name) => signed_root_hash(name, settings)?,
        };
        Ok(Self {
            root: verity.with(signature.root_hash()),
            signature: Some(signature),
        })
    }

    /// The partition of the root, as the Discoverable Partitions Specification names it.
    pub(super) fn partition(&self) -> RootName {
        let [data, _] = self.root.root_hash.partitions();
        data
    }

    /// Gives the signature to the kernel, for as long as this program runs.
    fn lend(&self) -> Result<(), Fault> {
        let Some(signature) = &self.signature else {
            return Ok(());
        };
        let name = std::ffi::CString::new(SIGNATURE_KEY).unwrap_or_default();
        ima_keyring::add_key(c"user", &name, signature.message(), Keyring::Session)
            .map(|_| ())
            .map_err(|errno| refused("giving it the signature", from_nix(errno), None))
    }

    /// Why the kernel does not take the table, where the reason is an option that it does not have (`verity_parse_opt_args`) or the
    /// signature (`verity_verify_root_hash`; crypto/asymmetric_keys/pkcs7_trust.c).
    fn refusal(&self, errno: Errno, words: &str) -> Option<Fault> {
        let shown = format!("{}: {}", self.root.root_hash, describe(errno));
        // How many arguments there may be depends on what the kernel has too.
        for (message, cause) in [
            (
                "Unrecognized verity feature request: root_hash_sig_key_desc",
                Cause::SIGNATURES_NOT_IN_KERNEL,
            ),
            ("Invalid number of feature args", Cause::FEC_NOT_IN_KERNEL),
        ] {
            if errno == Errno::INVAL && words.contains(message) {
                return Some(Fault::new(Code::VerityTarget, shown).because(cause));
            }
        }
        let signature = self.signature.as_ref()?;
        let of_signature = [
            Errno::NOKEY,
            Errno::KEYREJECTED,
            Errno::KEYREVOKED,
            Errno::BADMSG,
            Errno::NOPKG,
        ];
        if !of_signature.contains(&errno) {
            return None;
        }
        let fault = Fault::new(Code::VerityUntrusted, shown);
        Some(match (signature.verify(), errno) {
            (Err(error), _) => {
                fault.because(Cause::SIGNATURE_OF_ANOTHER_ROOT_HASH.with(&[&error.to_string()]))
            }
            (Ok(()), Errno::NOKEY) => {
                fault.because(Cause::SIGNER_UNKNOWN.with(&[&signature.signer().subject()]))
            }
            (Ok(()), _) => fault,
        })
    }
}

/// Waits for the device of the signed root hash and reads it.
fn signed_root_hash(name: &RootName, settings: &Settings) -> Result<SignedRootHash, Fault> {
    let device = waiting::wait(name, settings).map_err(|fault| {
        let missing = Fault::new(Code::VeritySignatureMissing, fault.detail());
        match fault.code() {
            // How to tell copies of a root apart does not help here.
            Code::RootAmbiguous => missing,
            _ => missing
                .with_cause(fault.cause().to_owned())
                .with_remedy(fault.remedy().to_owned()),
        }
    })?;
    let path = device.path();
    let mut bytes = vec![0; signed::MAX_LENGTH];
    let read = || read_at(&File::open(&path)?, &mut bytes, 0);
    let length = watch::during(Stage::Root, format!("reading {path}"), read).map_err(|error| {
        Fault::new(Code::VeritySignature, format!("{path}: {error}"))
            .because(Cause::SIGNED_ROOT_HASH_UNREADABLE)
    })?;
    signed::usable(
        bytes.get(..length).unwrap_or_default(),
        &path,
        &settings.config.revoked,
    )
}

/// A root that is verified: what to ask the kernel about it.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    mapped: Device,
    data: Device,
    tree: Device,
    superblock: Superblock,
    fec: Option<Fec>,
    trusted: Trusted,
}

impl Verified {
    /// Sets up dm-verity over the device.
    pub(super) fn set_up(
        data: &Device,
        trusted: Trusted,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let wait = |name: &Option<RootName>, otherwise: &Device| match name {
            None => Ok(otherwise.clone()),
            Some(name) => waiting::wait(name, settings).map_err(|fault| {
                Fault::new(Code::VerityTreeMissing, fault.detail())
                    .with_cause(fault.cause().to_owned())
                    .with_remedy(fault.remedy().to_owned())
            }),
        };
        let root = &trusted.root;
        let tree = wait(&root.tree, data)?;
        let superblock = superblock(data, &tree, root)?;
        let fec = root.fec.as_ref().map(|fec| {
            let device = wait(&fec.device, &tree)?;
            let end = match device == tree {
                true => fec.offset,
                false => tree.length(),
            };
            let places = (root.offset, end, fec.offset);
            let found = superblock.fec(device.number(), fec.roots, places);
            found.ok_or_else(|| {
                let detail = format!("{} at byte {}", device.path(), fec.offset);
                Fault::new(Code::VerityTable, detail).because(Cause::FEC_NOT_IN_BLOCKS)
            })
        });
        let fec = fec.transpose()?;
        let doing = format!("setting up dm-verity over {}", data.path());
        let verified = Self {
            mapped: data.clone(),
            data: data.clone(),
            tree,
            superblock,
            fec,
            trusted,
        };
        watch::during(Stage::Root, doing, || {
            let mapped = verified.map()?;
            Ok(Self { mapped, ..verified })
        })
    }

    /// The device to mount.
    pub(super) const fn device(&self) -> &Device {
        &self.mapped
    }

    /// What is verified, for a line in the log.
    pub(super) fn text(&self) -> String {
        let over = format!("dm-verity over {}", self.data.path());
        match &self.trusted.signature {
            None => over,
            Some(signature) => format!("{over}, signed by {}", signature.signer().subject()),
        }
    }

    /// What must come out.
    pub(super) const fn root_hash(&self) -> &RootHash {
        &self.trusted.root.root_hash
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
        let corruption = self.trusted.root.corruption;
        if corruption == Corruption::Error {
            return Ok(());
        }
        // The kernel lets a table of dm-verity be replaced by another one of its (DM_TARGET_IMMUTABLE; drivers/md/dm-ioctl.c,
        // `table_load`).
        self.load(&self.control()?, corruption)
    }

    fn control(&self) -> Result<File, Fault> {
        open_control().map_err(|error| refused(CONTROL, error, None))
    }

    fn table(&self, corruption: Corruption) -> Table {
        let devices = Devices {
            data: self.data.number(),
            tree: self.tree.number(),
        };
        let options = TableOptions {
            fec: self.fec.as_ref(),
            corruption,
            signature_key: self.trusted.signature.as_ref().map(|_| SIGNATURE_KEY),
        };
        let root = &self.trusted.root;
        let superblock = &self.superblock;
        Table {
            sectors: superblock.data_length().checked_div(512).unwrap_or(0),
            arguments: superblock.table(&devices, root.offset, &root.root_hash, &options),
        }
    }

    /// Loads the table and has the device work by it.
    fn load(&self, control: &File, corruption: Corruption) -> Result<(), Fault> {
        let mut log = KernelLog::from_now();
        let mut request = Request::named(READ_ONLY);
        request.target(&self.table(corruption));
        request.send(control, TABLE_LOAD).map_err(|errno| {
            let words = log.device_mapper();
            let refusal = self.trusted.refusal(errno, &words);
            refusal.unwrap_or_else(|| refused_with("loading the table", errno, &words))
        })?;
        // Without DM_SUSPEND_FLAG this resumes (`dev_suspend`).
        Request::named(SKIP_LOCKFS)
            .send(control, DEV_SUSPEND)
            .map_err(|errno| refused("starting the device", errno, Some(&mut log)))
    }

    /// Makes the mapped device.
    fn map(&self) -> Result<Device, Fault> {
        let missing = |errno: Errno| {
            let errno = describe(errno);
            Fault::new(Code::VerityTarget, format!("{CONTROL}: {errno}"))
        };
        let control = open_control().map_err(missing)?;
        Request::new(0).send(&control, VERSION).map_err(missing)?;
        let mut log = KernelLog::from_now();
        let mut create = Request::named(READ_ONLY);
        // As libcryptsetup has it: `veritysetup status` in the real system knows the device by it.
        let uuid = hex::encode(self.superblock.uuid());
        create.put(UUID_FIELD, format!("CRYPT-VERITY-{uuid}-{NAME}").as_bytes());
        create
            .send(&control, DEV_CREATE)
            .map_err(|errno| refused("making the device", errno, Some(&mut log)))?;
        self.trusted.lend()?;
        if let Err(fault) = self.load(&control, Corruption::Error) {
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
        let top = match self.superblock.levels(self.trusted.root.offset).first() {
            Some(level) => {
                let length = self.superblock.hash_block();
                let place = level.start.saturating_mul(length.into());
                block(&self.tree, place, length)
            }
            None => block(&self.data, 0, self.superblock.data_block()),
        };
        let is_other =
            top.is_some_and(|top| self.superblock.digest(&top) != self.root_hash().bytes());
        let code = match is_other {
            true => Code::VerityRootHash,
            false => Code::VerityCorrupted,
        };
        let detail = format!("{} with {}: {met}", self.data.path(), self.root_hash());
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
fn superblock(data: &Device, tree: &Device, verity: &VerityRoot) -> Result<Superblock, Fault> {
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

/// A table of one target.
struct Table {
    sectors: u64,
    arguments: String,
}

/// Whether the kernel has dm-verity; a kernel that cannot be asked so may have it (before 5.5).
fn has_target(control: &File) -> bool {
    let mut request = Request::new(0);
    request.put(NAME_FIELD, TARGET.as_bytes());
    request.room(512);
    !matches!(request.send(control, GET_TARGET_VERSION), Err(Errno::INVAL))
}

fn refused(step: &str, errno: Errno, log: Option<&mut KernelLog>) -> Fault {
    let words = log.map(KernelLog::device_mapper).unwrap_or_default();
    refused_with(step, errno, &words)
}

/// The refusal of a step, with what the kernel's log says of it.
fn refused_with(step: &str, errno: Errno, words: &str) -> Fault {
    let mut detail = format!("{step}: {}", describe(errno));
    if !words.is_empty() {
        detail.push_str("; the kernel says: ");
        detail.push_str(words);
    }
    Fault::new(Code::VerityTable, detail)
}

/// Removes the mapped device, if there is one.
pub(super) fn remove() -> Result<(), Errno> {
    let Ok(control) = open_control() else {
        return Ok(());
    };
    match Request::named(0).send(&control, DEV_REMOVE) {
        Err(Errno::NXIO) => Ok(()),
        result => result,
    }
}

fn open_control() -> Result<File, Errno> {
    File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|error| from_io(&error))
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
