//! Why the kernel refused a certificate: worked out from it and from the keyrings. It decides nothing.

use ima::certificate::{Certificate, Curve, LeafDefect, MlDsa, PublicKey};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::hex;
use ima::keyring::{self, KeyringName, Serial};
use ima::layout;
use ima::verify;
use nix::errno::Errno;

/// The keyring with the keys of the firmware's db, and with the machine owner keys that the kernel does not take as CAs
/// (security/integrity/platform_certs/machine_keyring.c, `add_to_machine_keyring`).
const PLATFORM: &str = ".platform";

/// How many of the trusted keys a message names.
const MAX_SHOWN: usize = 4;

/// What the kernel shows of itself, as far as that explains why a certificate was refused.
#[derive(Debug, Default)]
pub struct Kernel {
    /// `/proc/keys`, as far as the kernel confirms it.
    keys: String,
    /// The keys on `.platform`, which vouch for no other certificate.
    platform: Vec<Serial>,
    /// `/proc/crypto`
    crypto: String,
    /// The kernel's own command line.
    command_line: String,
}

impl Kernel {
    /// Looks; what cannot be read is empty.
    pub fn look() -> Self {
        let read = |path: &str| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let keys = crate::list().unwrap_or_default();
        let platform = crate::named(&keys, PLATFORM)
            .find(|(_, uid)| *uid == 0)
            .and_then(|(serial, _)| crate::content(crate::Keyring::Serial(serial)).ok());
        Self {
            keys,
            platform: platform.unwrap_or_default(),
            crypto: read("/proc/crypto"),
            command_line: layout::command_line(std::fs::read_to_string).unwrap_or_default(),
        }
    }

    /// Whether the blacklist has the certificate (certs/blacklist.c: `tbs:` and the digest of the signed part).
    fn blacklists(&self, certificate: &Certificate) -> bool {
        let digests: Vec<String> = [
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha384,
            HashAlgorithm::Sha512,
        ]
        .into_iter()
        .filter_map(|algo| algo.digest(certificate.tbs_der()))
        .map(|digest| format!("tbs:{}", hex::encode(&digest)))
        .collect();
        keyring::keys(&self.keys)
            .filter(|key| key.kind == "blacklist")
            .any(|key| {
                digests
                    .iter()
                    .any(|digest| key.description.starts_with(digest.as_str()))
            })
    }

    /// The algorithms of the certificate that are not among those of the kernel; none where it does not show them.
    fn lacks(&self, certificate: &Certificate) -> Vec<String> {
        let has = |name: &str| {
            self.crypto
                .lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(field, value)| field.trim() == "name" && value.trim() == name)
        };
        let mut wanted = Vec::new();
        match certificate.key() {
            PublicKey::Rsa { .. } => wanted.push("rsa".to_owned()),
            PublicKey::Ec { curve } => wanted.push(format!(
                "ecdsa-nist-{}",
                match curve {
                    Curve::P192 => "p192",
                    Curve::P256 => "p256",
                    Curve::P384 => "p384",
                    Curve::P521 => "p521",
                }
            )),
            PublicKey::MlDsa(set) => wanted.push(
                match set {
                    MlDsa::MlDsa44 => "mldsa44",
                    MlDsa::MlDsa65 => "mldsa65",
                    MlDsa::MlDsa87 => "mldsa87",
                }
                .to_owned(),
            ),
            PublicKey::Other { .. } => {}
        }
        if let Some(algo) = verify::signature_digest(certificate) {
            wanted.push(algo.to_string());
        }
        if self.crypto.is_empty() {
            return Vec::new();
        }
        wanted.retain(|name| !has(name));
        wanted
    }

    /// Whether the key with this identifier is on `.platform`.
    fn has_on_platform(&self, id: Option<&[u8]>) -> bool {
        let Some(id) = id.map(hex::encode) else {
            return false;
        };
        keyring::keys(&self.keys)
            .filter(|key| self.platform.contains(&key.serial))
            .filter_map(|key| key.asymmetric())
            .any(|key| !key.key_id.is_empty() && id.ends_with(key.key_id))
    }

    /// The asymmetric keys that the kernel has and that are not on `.platform`, for a person.
    fn trusted(&self) -> String {
        let keys: Vec<&str> = keyring::keys(&self.keys)
            .filter(|key| key.kind.starts_with("asym") && !self.platform.contains(&key.serial))
            .map(|key| {
                key.description
                    .split(": X509")
                    .next()
                    .unwrap_or(key.description)
            })
            .collect();
        match keys.len() {
            0 => "it has none".to_owned(),
            count => {
                let shown: Vec<&str> = keys.into_iter().take(MAX_SHOWN).collect();
                let more = count.saturating_sub(shown.len());
                let rest = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                format!("{}{rest}", shown.join("; "))
            }
        }
    }

    /// The parameter that narrows down whose certificates are taken.
    fn ca_keys(&self) -> &str {
        self.command_line
            .split_ascii_whitespace()
            .find(|parameter| parameter.starts_with("ca_keys="))
            .unwrap_or("ca_keys=")
    }
}

/// The refusal of a certificate by add_key(2).
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The certificate's file.
    pub path: &'a str,
    /// The certificate.
    pub certificate: &'a Certificate,
    /// The name of the keyring.
    pub keyring: &'a str,
    /// The kernel's error.
    pub errno: Errno,
}

impl Refused<'_> {
    /// The fault, with the kernel's error alone.
    pub fn fault(&self) -> Fault {
        let detail = format!(
            "{} ({}) onto {}: {} ({:?})",
            self.path,
            self.certificate.subject(),
            self.keyring,
            self.errno.desc(),
            self.errno
        );
        Fault::new(Code::CertificateRefused, detail)
    }

    /// The fault with its cause, as far as the certificate and the kernel show it.
    pub fn explained(&self, kernel: &Kernel) -> Fault {
        explained(self, kernel)
    }
}

fn explained(refused: &Refused<'_>, kernel: &Kernel) -> Fault {
    let fault = refused.fault();
    let Refused {
        certificate,
        keyring: name,
        errno,
        ..
    } = *refused;
    let defects = certificate.leaf_defects();
    let defect = |wanted: &[LeafDefect]| defects.iter().find(|defect| wanted.contains(defect));
    let issuer = format!(
        "{}{}",
        certificate.issuer(),
        certificate
            .akid()
            .map(|akid| format!(" (key id {})", hex::encode(akid)))
            .unwrap_or_default()
    );
    match errno {
        Errno::ENOKEY => {
            let leaf = [
                LeafDefect::CaBit,
                LeafDefect::KeyCertSign,
                LeafDefect::NoDigitalSignature,
            ];
            if let (Some(defect), true) = (
                defect(&leaf),
                name != KeyringName::SecondaryTrusted.as_str(),
            ) {
                return fault.because(Cause::NOT_FOR_SIGNING_FILES.with(&[&defect.to_string()]));
            }
            fault.because(match kernel.has_on_platform(certificate.akid()) {
                true => Cause::ISSUER_ON_PLATFORM.with(&[&issuer]),
                false => Cause::ISSUER_NOT_TRUSTED.with(&[&issuer, &kernel.trusted()]),
            })
        }
        Errno::EKEYREJECTED if kernel.blacklists(certificate) => fault.because(Cause::BLACKLISTED),
        Errno::EKEYREJECTED => {
            fault.because(Cause::ISSUER_HAS_OTHER_KEY.with(&[&issuer, &kernel.trusted()]))
        }
        Errno::EBADMSG => match defect(&[LeafDefect::ExplicitCaFalse]) {
            Some(defect) => {
                fault.because(Cause::CONSTRAINTS_MALFORMED.with(&[&defect.to_string()]))
            }
            None => fault.because(Cause::EXTENSION_MALFORMED),
        },
        // ENOENT where the algorithm turns out to be missing while a self-signed one is checked
        // (x509_check_for_self_signed).
        Errno::ENOPKG | Errno::ENOENT => {
            let lacking = kernel.lacks(certificate);
            let (cause, what) = match lacking.as_slice() {
                [] => (
                    Cause::ALGORITHMS_NOT_BUILT_IN,
                    certificate.key().to_string(),
                ),
                lacking => (Cause::ALGORITHMS_LACKING, lacking.join(" and no ")),
            };
            let digest = verify::signature_digest(certificate).unwrap_or(HashAlgorithm::Sha256);
            let since = verify::since(certificate.key(), digest)
                .map_or_else(String::new, |since| {
                    format!(" (it knows them from {since} on)")
                });
            fault.because(cause.with(&[&what, &since]))
        }
        Errno::EMSGSIZE => fault.because(Cause::CERTIFICATE_TOO_LONG),
        Errno::EINVAL => fault.because(Cause::ALGORITHMS_DIFFER),
        Errno::EPERM => fault.because(Cause::OTHER_CA_KEYS.with(&[kernel.ca_keys(), &issuer])),
        Errno::EACCES => fault.because(Cause::KEYRING_CLOSED),
        Errno::EDQUOT => fault.because(Cause::KEY_QUOTA),
        Errno::ENODEV => fault.because(Cause::NO_CERTIFICATE_PARSER),
        _ => fault,
    }
}

#[cfg(test)]
mod tests;
