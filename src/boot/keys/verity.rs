//! The certificates of the initramfs for signed root hashes, added to the kernel's keyring for them, which is then sealed.
//!
//! The keyring `.dm-verity` takes any certificate from root until it is sealed. The kernel makes it empty and seals it at once,
//! unless `dm_verity.keyring_unsealed=1` is on the command line; it uses the keyring only while it is sealed and holds a key
//! (drivers/md/dm-verity-verify-sig.c, `dm_verity_verify_sig_init`, `verity_verify_root_hash`). Any restriction counts as a seal
//! there, also one that lets some certificates in. So the init requires that the keyring is empty before it adds certificates, and
//! that it takes no key afterwards.

use ima::config::Config;
use ima::dm_verity::signed::KEYRING_UNSEALED;
use ima::fault::{Cause, Code, Fault};
use ima::keyring::KeyringName;
use ima::layout::{self, Purpose};
use ima_keyring::{Errno, Keyring, Keyrings, add_key, content, seal};
use log::info;

use crate::errno::{describe, from_nix};
use crate::kernel_files;
use crate::keyrings::{Place, offer};
use crate::report::Report;

const NAME: KeyringName = KeyringName::DmVerity;

/// Adds the certificates, of which one must be taken if there are any and the keyring is open, and seals the keyring. It is sealed
/// also where a certificate is refused, and where there are none.
///
/// # Errors
///
/// [`Code::KeyringUnusable`], [`Code::CertificateInvalid`], [`Code::CertificateRefused`], [`Code::CertificateRevoked`].
pub(super) fn provision(
    place: Place<'_>,
    keyrings: &Keyrings,
    config: &Config,
    report: &mut Report,
) -> Result<(), Fault> {
    let is_open = kernel_files::read(KEYRING_UNSEALED).is_ok_and(|value| value.starts_with(b"Y"));
    let keyring = keyrings.of_root(NAME).map(Keyring::Serial);
    let added = add(place, keyring, is_open, config, report);
    let Some(keyring) = keyring else {
        return added;
    };
    if seal(keyring) == Ok(()) {
        info!("keys: {}: sealed", NAME.as_str());
    }
    // The kernel's answer to a key, because a keyring with another restriction cannot be sealed, and lets some keys in. Those
    // restrictions refuse what is not a certificate with EOPNOTSUPP (crypto/asymmetric_keys/restrict.c), the seal with EPERM
    // (security/keys/keyring.c, `restrict_link_reject`).
    let answer = match add_key(c"user", c"ima-init:sealed", b"?", keyring) {
        Err(Errno::EPERM) => return added,
        Err(errno) => describe(from_nix(errno)),
        Ok(_) => "it takes any key".to_owned(),
    };
    Err(unusable(&answer).because(Cause::VERITY_KEYRING_NOT_SEALED))
}

/// Adds the certificates.
fn add(
    place: Place<'_>,
    keyring: Option<Keyring>,
    is_open: bool,
    config: &Config,
    report: &mut Report,
) -> Result<(), Fault> {
    if let Some(keyring) = keyring {
        let present = content(keyring).map_err(|errno| unusable(&describe(from_nix(errno))))?;
        if !present.is_empty() {
            let fault = unusable(&format!("{} on it", present.len()));
            return Err(fault.because(Cause::VERITY_KEYRING_NOT_EMPTY));
        }
    }
    let paths = place.find(Purpose::Verity)?;
    let cause = match keyring {
        None if is_open => {
            return Err(unusable("not found").because(Cause::VERITY_KEYRING_NOT_SEALED));
        }
        _ if paths.is_empty() => return Ok(()),
        None => Cause::NO_VERITY_KEYRING,
        Some(_) if !is_open => Cause::VERITY_KEYRING_SEALED,
        Some(keyring) => {
            let mut offering = offer(keyring, NAME, config, report);
            return offering.required(paths.iter().map(|path| place.read(path)));
        }
    };
    report.warn(Fault::new(Code::VerityKeyringClosed, layout::KEYS).because(cause));
    Ok(())
}

fn unusable(what: &str) -> Fault {
    Fault::new(Code::KeyringUnusable, format!("{}: {what}", NAME.as_str()))
}
