//! A root in a LUKS2 container: the TPM unseals the passphrase of a keyslot, and dm-crypt decrypts.
//!
//! The kernel extends PCR 10 while this happens, for each file that IMA measures: see [`ima::tpm`] for what that does to a policy
//! session.

use std::fs::File;
use std::io;
use std::path::Path;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::luks::{Container, TARGET, Token, VolumeKey};
use ima::tpm::{self, TpmError};
use ima_keyring::Keyring;
use linux_keyutils::{Key, KeySerialId};

use super::devices::{self, Device};
use crate::device_mapper::{CONTROL, DeviceMapper, NAME, Table};
use crate::errno::{Errno, describe, from_nix};
use crate::files::read_at;
use crate::kernel_log::KernelLog;
use crate::watch;

/// The description of the volume key on the keyring while the table is loaded.
const KEY: &str = "ima-init:luks";

/// Sets up dm-crypt over the device. Returns the device to mount, and a line for the log.
pub(super) fn unlock(device: &Device) -> Result<(Device, String), Fault> {
    let path = device.path();
    watch::during(Stage::Root, format!("unlocking {path}"), || {
        let unlocked = volume_key(&path).and_then(|(container, token, key)| {
            let mapped = map(device, &container, &key)?;
            let pcrs = token.sealed.pcrs;
            let text = format!("{path} is a LUKS2 container, unlocked by the TPM with {pcrs}");
            Ok((mapped, text))
        });
        unlocked.map_err(|fault| fault.in_file(&path))
    })
}

/// Reads the container and has the TPM give out its key.
fn volume_key(path: &str) -> Result<(Container, Token, VolumeKey), Fault> {
    let mut read =
        |offset, length| -> io::Result<Vec<u8>> { read_at(&File::open(path)?, offset, length) };
    let container = Container::read(&mut read)?;
    let tokens = container.tokens()?;
    let mut tpm = crate::tpm::open().map_err(|error| Fault::new(Code::LuksTpm, error))?;
    let mut last = None;
    for token in tokens {
        let secret = tpm::unseal(&token.sealed, &mut |command| {
            crate::tpm::transmit(&mut tpm, command)
        });
        let opened = secret
            .map_err(|error| refusal(&token, &error))
            .and_then(|secret| container.open(&token, &secret, &mut read));
        match opened {
            Ok(key) => return Ok((container, token, key)),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(Code::LuksToken, "there is none")))
}

/// The fault of a TPM that does not unseal.
fn refusal(token: &Token, error: &TpmError) -> Fault {
    let detail = format!("sealed to {}: {error}", token.sealed.pcrs);
    match error {
        TpmError::Transmission(..) | TpmError::Malformed(_) => Fault::new(Code::LuksTpm, detail),
        error if error.is_of_policy() => Fault::new(Code::LuksPolicy, detail),
        error => Fault::new(Code::LuksPolicy, detail).because(match error.is_of_integrity() {
            true => Cause::LUKS_OTHER_TPM,
            false => Cause::LUKS_TPM_REFUSES,
        }),
    }
}

/// Makes the mapped device.
fn map(device: &Device, container: &Container, key: &VolumeKey) -> Result<Device, Fault> {
    let length = key.bytes().len();
    let (sectors, arguments) = container.table(&device.number(), device.length(), length, KEY)?;
    let table = Table {
        target: TARGET,
        sectors,
        arguments,
        is_read_only: false,
    };
    let mut log = KernelLog::from_now();
    let mut refused = |step: &str, errno: Errno| {
        let mut detail = format!("{step}: {}", describe(errno));
        let words = log.device_mapper();
        if !words.is_empty() {
            detail.push_str("; the kernel says: ");
            detail.push_str(&words);
        }
        Fault::new(Code::LuksTarget, detail)
    };
    let mapper = DeviceMapper::open().map_err(|errno| refused(CONTROL, errno))?;
    let path = mapper
        .create(&container.mapped_uuid(NAME))
        .map_err(|errno| refused("making the device", errno))?;
    let description = std::ffi::CString::new(KEY).unwrap_or_default();
    // A program cannot read a key of this type, only the kernel can (security/keys/user_defined.c, `key_type_logon`).
    let serial = ima_keyring::add_key(c"logon", &description, key.bytes(), Keyring::Session)
        .map_err(|errno| refused("giving it the key", from_nix(errno)))?;
    let loaded = mapper.load(&table);
    // dm-crypt has a copy (drivers/md/dm-crypt.c, `crypt_set_keyring_key`).
    let _ = Key::from_id(KeySerialId(serial.get())).invalidate();
    loaded.map_err(|errno| refused("loading the table", errno))?;
    mapper
        .resume()
        .map_err(|errno| refused("starting the device", errno))?;
    devices::at(Path::new(&path))
        .ok_or_else(|| Fault::new(Code::LuksTarget, format!("{path}: the device is not there")))
}
