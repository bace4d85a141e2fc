//! The certificates of the root, which the kernel takes if a CA that it trusts signed them.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use ima::config;
use ima::fault::{Cause, Code, Fault, Stage};
use ima::keyring::KeyringName;
use ima::layout::Purpose;
use ima::settings::Settings;
use ima_keyring::{Keyring, root_keyring};

use super::keys::KeysLoaded;
use super::root::MountedRoot;
use crate::keyrings::{Place, offer};
use crate::report::Report;
use crate::watch;

/// Offers the root's certificates to the kernel, where the configuration says so.
///
/// Nothing in the root makes it fail, because anybody may have written the root.
pub fn extend(keys: &mut KeysLoaded, settings: &Settings, root: &MountedRoot, report: &mut Report) {
    if settings.config.root_certificates {
        watch::during(Stage::Keys, "reading the root's certificates", || {
            offer_all(keys, settings, root, report);
        });
    }
}

fn offer_all(keys: &mut KeysLoaded, settings: &Settings, root: &MountedRoot, report: &mut Report) {
    let config = &settings.config;
    let place = Place::Root {
        directory: root.directory().as_fd(),
        path: root.path(),
    };
    let read = |paths: Vec<PathBuf>| paths.into_iter().map(|path| place.read(&path));
    let shown = |paths: Vec<PathBuf>| paths.into_iter().map(|path| place.shown(&path));
    // First, because the certificates on the secondary keyring are CAs for those that follow.
    let secondary = KeyringName::SecondaryTrusted;
    let paths = find(place, Purpose::Secondary, report);
    match root_keyring(secondary) {
        Some(serial) => {
            offer(Keyring::Serial(serial), secondary, config, report).optional(read(paths));
        }
        None => not_offered(shown(paths), &absent(secondary), report),
    }
    let paths = find(place, Purpose::Ima, report);
    let name = KeyringName::from(config.keyring);
    match (config.keyring, root_keyring(name)) {
        (config::Keyring::Trusted, Some(serial)) => {
            let mut offering = offer(Keyring::Serial(serial), name, config, report);
            offering.optional(read(paths));
            keys.add(offering.usable());
        }
        (config::Keyring::Trusted, None) => not_offered(shown(paths), &absent(name), report),
        // This keyring takes any certificate: whoever wrote the disk would choose whose signatures are good.
        (config::Keyring::Untrusted, _) => {
            let why = "on _ima nothing would check who signed it";
            not_offered(shown(paths), why, report);
        }
    }
}

fn absent(name: KeyringName) -> String {
    format!("the kernel has no {}", name.as_str())
}

/// Warns of certificates of the root that are not offered to the kernel.
fn not_offered(paths: impl IntoIterator<Item = String>, why: &str, report: &mut Report) {
    for path in paths {
        let fault = Fault::new(Code::RootCertificate, format!("{path}: {why}"))
            .because(Cause::CERTIFICATE_NOT_OFFERED);
        report.warn(fault);
    }
}

/// The root's certificate files for that purpose. Warns of a directory that cannot be read.
fn find(root: Place<'_>, purpose: Purpose, report: &mut Report) -> Vec<PathBuf> {
    root.find(purpose).unwrap_or_else(|fault| {
        report.warn(fault);
        Vec::new()
    })
}
