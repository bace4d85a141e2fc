//! EVM's HMAC key, sealed with a master key; both from the initramfs.

use std::ffi::CString;
use std::path::Path;

use ima::evm_key::{Blob, DESCRIPTION, MAX_BLOB, MasterKind};
use ima::fault::{Cause, Code, Fault};
use ima::keyring::Serial;
use ima::layout;
use ima::settings::EvmFiles;
use ima_keyring::{Keyring, add_key};
use linux_keyutils::{Key, KeyRing, KeyRingIdentifier, KeySerialId};

use crate::errno::{Errno, describe, from_io, from_nix};
use crate::files::{self, Initramfs, OpenError};

/// The key is on a keyring where the kernel finds it when EVM is switched on. EVM then has its own copy; when this value is
/// dropped, the key and its master key are invalidated, so that nobody can seal another key with them.
#[derive(Debug)]
pub struct Loaded {
    path: String,
    keys: Vec<Serial>,
}

impl Loaded {
    /// The file that it is from.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        for serial in &self.keys {
            if let Err(error) = Key::from_id(KeySerialId::new(serial.get())).invalidate() {
                log::warn!("keys: EVM: a key was not invalidated: {error:?}");
            }
        }
    }
}

/// Loads the key if the initramfs has one; `None` if it has none and none is named.
///
/// # Errors
///
/// [`Code::EvmKeyRefused`].
pub fn load(named: &EvmFiles, initramfs: &Initramfs) -> Result<Option<Loaded>, Fault> {
    let path = named.key.as_deref().unwrap_or(layout::EVM_KEY);
    let bytes = match read(initramfs, path) {
        Ok(bytes) => bytes,
        Err(OpenError::Missing(Errno::NOENT)) if named.key.is_none() => return Ok(None),
        Err(error) => return Err(Fault::new(Code::EvmKeyRefused, format!("{path}: {error}"))),
    };
    let blob = Blob::parse(&bytes)
        .map_err(|error| Fault::new(Code::EvmKeyRefused, format!("{path}: {error}")))?;
    let mut loaded = Loaded {
        path: path.to_owned(),
        keys: Vec::new(),
    };
    // Creates the user session keyring if there is none: the kernel searches it for keys of PID 1.
    KeyRing::from_special_id(KeyRingIdentifier::UserSession, true).map_err(|error| {
        Fault::new(
            Code::EvmKeyRefused,
            format!("the user session keyring: {error:?}"),
        )
    })?;
    loaded.keys.extend(master(named, &blob, initramfs)?);
    let payload = format!("load {}", blob.text);
    let added = add("encrypted", DESCRIPTION, payload.as_bytes());
    let serial = added.map_err(|errno| {
        let fault = Fault::new(Code::EvmKeyRefused, format!("{path}: {}", describe(errno)));
        let master = format!("{}:{}", blob.kind.name(), blob.master);
        match errno {
            Errno::NOKEY => {
                let file = layout::master_key(blob.kind);
                fault.because(Cause::MASTER_KEY_MISSING.with(&[&master, file]))
            }
            Errno::BADMSG | Errno::INVAL => {
                fault.because(Cause::MASTER_KEY_DIFFERS.with(&[&master]))
            }
            Errno::NODEV => fault.because(Cause::NO_ENCRYPTED_KEYS),
            _ => fault,
        }
    })?;
    loaded.keys.push(serial);
    Ok(Some(loaded))
}

/// Loads the master key, unless the initramfs has no file of it: dracut's module `masterkey` may have loaded it.
fn master(named: &EvmFiles, blob: &Blob, initramfs: &Initramfs) -> Result<Option<Serial>, Fault> {
    let path = named
        .master
        .as_deref()
        .unwrap_or_else(|| layout::master_key(blob.kind));
    let refused = |why: String| Fault::new(Code::EvmKeyRefused, format!("{path}: {why}"));
    let mut bytes = match read(initramfs, path) {
        Ok(bytes) => bytes,
        Err(OpenError::Missing(Errno::NOENT)) if named.master.is_none() => return Ok(None),
        Err(error) => return Err(refused(error.to_string())),
    };
    // dracut's module reads the file with the shell, which removes newlines at the end.
    while bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if blob.kind == MasterKind::Trusted {
        bytes.splice(..0, *b"load ");
    }
    add(blob.kind.name(), &blob.master, &bytes)
        .map(Some)
        .map_err(|errno| {
            let fault = refused(describe(errno));
            match (blob.kind, errno) {
                (_, Errno::NODEV) => {
                    fault.because(Cause::NO_KEYS_OF_THE_TYPE.with(&[blob.kind.name()]))
                }
                (MasterKind::Trusted, _) => fault.because(Cause::MASTER_KEY_SEALED),
                _ => fault,
            }
        })
}

fn add(kind: &str, description: &str, payload: &[u8]) -> Result<Serial, Errno> {
    let text = |text: &str| CString::new(text).map_err(|_| Errno::INVAL);
    add_key(
        &text(kind)?,
        &text(description)?,
        payload,
        Keyring::UserSession,
    )
    .map_err(from_nix)
}

fn read(initramfs: &Initramfs, path: &str) -> Result<Vec<u8>, OpenError> {
    let file = initramfs.file(Path::new(path))?;
    files::read(&file, MAX_BLOB).map_err(|error| OpenError::Failed(from_io(&error)))
}
