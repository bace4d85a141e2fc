//! The certificates that the kernel would take onto its keyrings: the init's own order and demands ([`ima::offer`]), answered from
//! the CAs in the kernel.

use ima::certificate::{Certificate, LeafDefect};
use ima::config::{self, Config};
use ima::dm_verity::signed::{KEYRING_SINCE, leaves_keyring_unsealed};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::layout::{self, Purpose};
use ima::offer::{self, CertificateFile, MAX_FILE, MAX_FILES, Offering, Source};
use ima::revocation::Revocations;
use ima::verify::{VerifyError, signature_digest, too_old};

use super::{Findings, Inputs};
use crate::Result;
use crate::initramfs::signatures::parsed;
use crate::initramfs::{InitramfsBuilder, leaf_fault};
use crate::tree::{Kind, Tree};
use crate::verifier::verify_certificate;
use crate::x509::now;

impl Findings {
    /// The certificates that the kernel would take onto the IMA keyring.
    pub(super) fn keys(
        &mut self,
        initramfs: &InitramfsBuilder,
        inputs: &Inputs<'_>,
        config: &Config,
        appraises: bool,
    ) -> Vec<Certificate> {
        let trusted = config.keyring == config::Keyring::Trusted;
        let files = initramfs.certificate_files(Purpose::Ima);
        if trusted && (appraises || !files.is_empty()) {
            let lacking = inputs
                .kernel
                .is_some_and(|kernel| !kernel.is_builtin("INTEGRITY_TRUSTED_KEYRING"));
            if lacking {
                self.faults.push(Fault::new(
                    Code::NoImaKeyring,
                    "CONFIG_INTEGRITY_TRUSTED_KEYRING is not set",
                ));
            }
        }
        if files.is_empty() && appraises {
            self.faults
                .push(Fault::new(Code::NoCertificate, layout::KEYS));
        }
        let authorities = inputs.authorities.filter(|_| trusted);
        let mut certificates = self.required(files, inputs, authorities, trusted, &config.revoked);
        // Onto _ima the init offers none of the disk's: nothing would check who signed them.
        if let Some(root) = inputs.root.filter(|_| trusted && config.root_certificates) {
            // What the secondary keyring would take vouches for others.
            let mut all = authorities.map(<[Certificate]>::to_vec);
            let files = root_files(&root.tree, Purpose::Secondary);
            let vouching = self.optional(files, true, inputs, all.as_deref(), &config.revoked);
            if let Some(all) = &mut all {
                all.extend(vouching);
            }
            let files = root_files(&root.tree, Purpose::Ima);
            certificates.extend(self.optional(
                files,
                false,
                inputs,
                all.as_deref(),
                &config.revoked,
            ));
        }
        certificates
    }

    /// The certificates for signed root hashes, or why the kernel would not take them.
    pub(super) fn verity_keys(
        &mut self,
        initramfs: &InitramfsBuilder,
        inputs: &Inputs<'_>,
        revoked: &Revocations,
    ) {
        let files = initramfs.certificate_files(Purpose::Verity);
        if files.is_empty() {
            return;
        }
        match inputs.no_verity_keyring() {
            Some(cause) => self
                .faults
                .push(Fault::new(Code::VerityKeyringClosed, layout::KEYS).because(cause)),
            None => {
                let keyring = Simulated {
                    trusted: false,
                    authority: false,
                    authorities: None,
                    inputs,
                    for_files: false,
                    faults: &mut self.faults,
                };
                let result = Offering::new(keyring, revoked, now()).required(files);
                self.add(result);
            }
        }
    }

    /// Those of the initramfs for one keyring, of which one must be taken.
    pub(super) fn required(
        &mut self,
        files: Vec<CertificateFile>,
        inputs: &Inputs<'_>,
        authorities: Option<&[Certificate]>,
        trusted: bool,
        revoked: &Revocations,
    ) -> Vec<Certificate> {
        let keyring = Simulated {
            trusted,
            authority: false,
            authorities,
            inputs,
            for_files: true,
            faults: &mut self.faults,
        };
        let mut offering = Offering::new(keyring, revoked, now());
        let result = offering.required(files);
        let taken = offering.usable();
        self.add(result);
        taken
    }

    /// Those of the root for one keyring.
    fn optional(
        &mut self,
        files: Vec<CertificateFile>,
        authority: bool,
        inputs: &Inputs<'_>,
        authorities: Option<&[Certificate]>,
        revoked: &Revocations,
    ) -> Vec<Certificate> {
        let keyring = Simulated {
            trusted: true,
            authority,
            authorities,
            inputs,
            for_files: true,
            faults: &mut self.faults,
        };
        let mut offering = Offering::new(keyring, revoked, now());
        offering.optional(files);
        offering.usable()
    }
}

impl Inputs<'_> {
    /// The certificates of the initramfs for signed root hashes, if the kernel takes them, as far as its configuration, release and
    /// command line are known.
    #[must_use]
    pub fn verity_certificates(&self) -> Vec<Certificate> {
        match (self.initramfs, self.no_verity_keyring()) {
            (Some(initramfs), None) => parsed(initramfs, Purpose::Verity),
            _ => Vec::new(),
        }
    }

    /// Why it does not take them.
    fn no_verity_keyring(&self) -> Option<Cause> {
        let lacks = |option: &str| self.kernel.is_some_and(|kernel| !kernel.is_builtin(option));
        let is_older = self.number().is_some_and(|number| number < KEYRING_SINCE);
        if is_older || lacks("DM_VERITY_VERIFY_ROOTHASH_SIG") {
            return Some(Cause::NO_VERITY_KEYRING);
        }
        let is_sealed = self
            .command_line
            .is_some_and(|line| !leaves_keyring_unsealed(line));
        (is_sealed || lacks("DM_VERITY")).then_some(Cause::VERITY_KEYRING_SEALED)
    }
}

/// A keyring of a kernel that has these CAs, if they are known.
struct Simulated<'a> {
    /// Whether it takes only what a CA signed.
    trusted: bool,
    /// Whether it takes certificates that are a CA's, as that of secondary keys does.
    authority: bool,
    authorities: Option<&'a [Certificate]>,
    inputs: &'a Inputs<'a>,
    /// Whether its keys verify signatures of files.
    for_files: bool,
    faults: &'a mut Vec<Fault>,
}

impl offer::Keyring for Simulated<'_> {
    fn add(&mut self, path: &str, certificate: &Certificate) -> Result<()> {
        // The parser refuses a curve that it does not know, whatever the keyring.
        let algo = signature_digest(certificate).unwrap_or(HashAlgorithm::Sha256);
        let too_old = self
            .inputs
            .number()
            .and_then(|kernel| too_old(kernel, certificate.key(), algo));
        if let Some(why) = too_old {
            let detail = format!("{path} ({})", certificate.subject());
            return Err(Fault::new(Code::CertificateRefused, detail)
                .because(Cause::KERNEL_TOO_OLD.with(&[&why])));
        }
        if !self.trusted {
            return Ok(());
        }
        let refused =
            leaf_fault(path, certificate).filter(|_| !self.authority && is_refused(certificate));
        match refused.or_else(|| issuer_fault(path, certificate, self.authorities, self.inputs)) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn add_unparsed(&mut self, _: &[u8]) -> bool {
        false
    }

    fn record(&mut self, _: &CertificateFile, _: Option<&Certificate>, _: Option<&Fault>) {}

    fn warn(&mut self, warning: Fault) {
        self.faults.push(warning);
    }

    fn is_for_files(&self) -> bool {
        self.for_files
    }
}

/// The certificate files of the root for that purpose, in the init's order.
fn root_files(tree: &Tree, purpose: Purpose) -> Vec<CertificateFile> {
    let mut found: Vec<CertificateFile> = tree
        .names()
        .filter_map(|(path, index)| {
            let name = path.strip_prefix(b"etc/keys/")?;
            let Kind::File(content) = &tree.inode(index).kind else {
                return None;
            };
            let wanted = !name.contains(&b'/') && purpose.has(name);
            wanted.then(|| CertificateFile {
                path: format!("the root's /{}", String::from_utf8_lossy(path)),
                source: Source::Root,
                content: content.head(MAX_FILE).map_err(|fault| fault.to_string()),
            })
        })
        .collect();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found.truncate(MAX_FILES);
    found
}

fn signed_by_any(certificate: &Certificate, issuers: &[Certificate]) -> bool {
    issuers
        .iter()
        .any(|issuer| verify_certificate(certificate, issuer).is_ok())
}

/// Whether the kernel refuses the certificate, whoever signed it.
fn is_refused(certificate: &Certificate) -> bool {
    let mut defects = certificate.leaf_defects().into_iter();
    defects.any(LeafDefect::is_refused)
}

fn issuer_fault(
    path: &str,
    certificate: &Certificate,
    authorities: Option<&[Certificate]>,
    inputs: &Inputs<'_>,
) -> Option<Fault> {
    let authorities = authorities?;
    if signed_by_any(certificate, authorities) {
        return None;
    }
    let known: Vec<String> = authorities.iter().map(Certificate::subject).collect();
    let named = authorities
        .iter()
        .any(|issuer| certificate.names_issuer(issuer));
    let fault = Fault::new(
        Code::CertificateRefused,
        format!("{path} ({})", certificate.subject()),
    );
    let owner_s = inputs.owner_keys.iter();
    let refused = owner_s
        .filter(|key| verify_certificate(certificate, key).is_ok())
        .find_map(|key| inputs.owner_key_refused(key));
    if let Some(cause) = refused {
        return Some(fault.because(cause));
    }
    let unverifiable =
        authorities
            .iter()
            .find_map(|issuer| match verify_certificate(certificate, issuer) {
                Err(VerifyError::NoKernel(why)) => Some((issuer, why)),
                _ => None,
            });
    if let Some((issuer, why)) = unverifiable {
        let cause = Cause::CA_CANNOT_VERIFY.with(&[&issuer.subject(), &why.to_string()]);
        return Some(fault.because(cause));
    }
    Some(if named {
        fault.because(Cause::ISSUER_IN_NAME_ONLY)
    } else {
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => known.join("; "),
        };
        fault.because(Cause::ISSUER_NOT_IN_KERNEL.with(&[&certificate.issuer(), &known]))
    })
}
