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
use ima::verify::VerifyError;
use ima_keyring::Keyring;

use super::devices::{self, Device};
use super::waiting;
use crate::device_mapper::{CONTROL, DeviceMapper, NAME, Table};
use crate::errno::{Errno, describe, from_nix};
use crate::features::{self, Feature};
use crate::files::read_at;
use crate::kernel_log::KernelLog;
use crate::watch;

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
            RootHashSource::Signed(configured) => {
                let device = signed::device(configured.as_ref(), signed::PARTITION_TYPE)?;
                signed_root_hash(&device, settings)?
            }
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
        let verified = match features::is_built_in(Feature::Diagnosis) {
            true => signature.verify(ima_keyring::verify_digest),
            false => Ok(()),
        };
        Some(match (verified, errno) {
            (Err(error @ VerifyError::Mismatch), _) => {
                fault.because(Cause::SIGNATURE_OF_ANOTHER_ROOT_HASH.with(&[&error.to_string()]))
            }
            (_, Errno::NOKEY) => {
                fault.because(Cause::SIGNER_UNKNOWN.with(&[&signature.signer().subject()]))
            }
            _ => fault,
        })
    }
}

/// Waits for the device of the signed root hash and reads it.
fn signed_root_hash(name: &RootName, settings: &Settings) -> Result<SignedRootHash, Fault> {
    let device = waiting::wait(name, settings).map_err(|fault| {
        let missing = Fault::new(Code::VeritySignatureMissing, fault.detail());
        if fault.code() == Code::RootAmbiguous {
            // A remedy about copies of a root does not help here.
            return missing;
        }
        missing
            .with_cause(fault.cause().to_owned())
            .with_remedy(fault.remedy().to_owned())
    })?;
    let path = device.path();
    let read = || read_at(&File::open(&path)?, 0, signed::MAX_LENGTH);
    let bytes = watch::during(Stage::Root, format!("reading {path}"), read).map_err(|error| {
        Fault::new(Code::VeritySignature, format!("{path}: {error}"))
            .because(Cause::SIGNED_ROOT_HASH_UNREADABLE)
    })?;
    signed::usable(&bytes, &path, &settings.config.revoked)
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
        let mapper = DeviceMapper::open().map_err(|errno| refused(CONTROL, errno, None))?;
        self.load(&mapper, corruption)
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
            target: TARGET,
            sectors: superblock.data_length().checked_div(512).unwrap_or(0),
            arguments: superblock.table(&devices, root.offset, &root.root_hash, &options),
            is_read_only: true,
        }
    }

    /// Loads the table and has the device work by it.
    fn load(&self, mapper: &DeviceMapper, corruption: Corruption) -> Result<(), Fault> {
        let mut log = KernelLog::from_now();
        mapper.load(&self.table(corruption)).map_err(|errno| {
            let words = log.device_mapper();
            let refusal = self.trusted.refusal(errno, &words);
            refusal.unwrap_or_else(|| refused_with("loading the table", errno, &words))
        })?;
        mapper
            .resume()
            .map_err(|errno| refused("starting the device", errno, Some(&mut log)))
    }

    /// Makes the mapped device.
    fn map(&self) -> Result<Device, Fault> {
        let mapper = DeviceMapper::open().map_err(|errno| {
            let errno = describe(errno);
            Fault::new(Code::VerityTarget, format!("{CONTROL}: {errno}"))
        })?;
        let mut log = KernelLog::from_now();
        // As libcryptsetup has it: `veritysetup status` in the real system knows the device by it.
        let uuid = hex::encode(self.superblock.uuid());
        let path = mapper
            .create(&format!("CRYPT-VERITY-{uuid}-{NAME}"))
            .map_err(|errno| refused("making the device", errno, Some(&mut log)))?;
        self.trusted.lend()?;
        if let Err(fault) = self.load(&mapper, Corruption::Error) {
            return Err(match mapper.has_target(TARGET) {
                true => fault,
                false => Fault::new(Code::VerityTarget, "there is no target of that name")
                    .because(Cause::VERITY_NOT_IN_KERNEL),
            });
        }
        devices::at(Path::new(&path)).ok_or_else(|| {
            Fault::new(
                Code::VerityTable,
                format!("{path}: the device is not there"),
            )
        })
    }

    /// Whether the kernel has met a wrong block (drivers/md/dm-verity-target.c, `verity_status`: `V` or `C`).
    fn has_failed(&self) -> Result<bool, Errno> {
        match DeviceMapper::open()?.status()? {
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
    let length = usize::try_from(length).ok()?;
    let file = File::open(device.path()).ok()?;
    let bytes = read_at(&file, place, length).ok()?;
    (bytes.len() == length).then_some(bytes)
}

/// The superblock of the tree.
fn superblock(data: &Device, tree: &Device, verity: &VerityRoot) -> Result<Superblock, Fault> {
    let path = tree.path();
    let read = || read_at(&File::open(&path)?, verity.offset, SUPERBLOCK_LENGTH);
    let bytes = watch::during(Stage::Root, format!("reading {path}"), read).map_err(|error| {
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
    dm_verity::superblock(&bytes, &place, &verity.root_hash)
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
