//! `imactl cert`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ima::certificate::{Certificate, LeafDefect, PublicKey};
use ima::hash::HashAlgorithm;
use ima::release::Release;
use ima::verify::{signature_digest, since, too_old};
use imactl::chain;
use serde_json::json;

use super::options::{self, OutputOptions, PasswordOptions};
use super::outcome::{Outcome, Result};
use super::output;

/// Show certificates, and check whether the kernel would take them
///
/// Says for each certificate what keeps it off the keyring, whether the private key is its, and whether a CA signed it: for what
/// a company CA sends back, before it goes into an image. The exit status is 1 if anything is found.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl cert ima.der
  imactl cert ima.pem --key ima.key --ca company.pem
  imactl cert ima.der --kernel 6.1
  imactl cert ca.der --for ca")]
pub struct Cert {
    /// Certificates: DER, PEM with any number of them, or directories of such files
    #[arg(required = true)]
    certificates: Vec<PathBuf>,
    /// What they are for
    #[arg(long = "for", value_enum, default_value_t = Purpose::Signing)]
    purpose: Purpose,
    /// Private key that must be theirs, a file or a pkcs11: URI
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
    /// CA certificates of which one must have signed them, directly or by way of CA certificates among those given
    #[arg(long = "ca", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Release of the oldest kernel that will take them, such as 6.1
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Release>,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    password: PasswordOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purpose {
    /// Keys that sign files, on .ima and .evm
    Signing,
    /// CAs in the kernel or on .secondary_trusted_keys
    Ca,
}

impl Cert {
    pub fn run(self) -> Result {
        let certificates = options::certificates_in(&self.certificates)?;
        let authorities = options::certificates_in(&self.authorities)?;
        let key = match &self.key {
            Some(key) => Some(options::load_key(key, &self.password, None)?),
            None => None,
        };
        let (mut shown, mut good) = (Vec::new(), true);
        for certificate in &certificates {
            let mut findings = self.defects(certificate);
            if key
                .as_ref()
                .is_some_and(|key| key.public_key() != certificate.public_key_bytes())
            {
                findings.push("the private key is not this certificate's".to_owned());
            }
            if !authorities.is_empty() {
                findings.extend(unsigned(certificate, &authorities, &certificates));
            }
            good &= findings.is_empty();
            let id = certificate.skid().map(imactl::hex::encode);
            if self.output.json {
                shown.push(json!({
                    "subject": certificate.subject(),
                    "issuer": certificate.issuer(),
                    "serial": imactl::hex::encode(certificate.serial()),
                    "key": certificate.key().to_string(),
                    "key_id": certificate.key_id().to_string(),
                    "subject_key_identifier": id,
                    "not_before": certificate.not_before(),
                    "not_after": certificate.not_after(),
                    "ca": certificate.is_ca(),
                    "sample": certificate.is_sample(),
                    "findings": findings,
                }));
                continue;
            }
            output::line(format_args!(
                "`{}`, {}, key id {}\n  issuer: `{}`\n  serial: {}\n  subject key identifier: {}",
                certificate.subject(),
                certificate.key(),
                certificate.key_id(),
                certificate.issuer(),
                imactl::hex::encode(certificate.serial()),
                id.as_deref().unwrap_or("none"),
            ))?;
            for finding in &findings {
                output::line(format_args!("  refused: {finding}"))?;
            }
            if let Some(since) = since(certificate.key(), HashAlgorithm::Sha256) {
                output::line(format_args!(
                    "  verified by the kernel from Linux {since} on"
                ))?;
            }
            if imactl::x509::now() > certificate.not_after() {
                output::line(format_args!("  expired, which the kernel does not look at"))?;
            }
            if certificate.is_sample() {
                output::line(format_args!("  a SAMPLE: everybody has the private key"))?;
            }
        }
        if self.output.json {
            output::json(&json!(shown))?;
        }
        Ok(if good {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }

    /// What keeps a certificate off the keyring it is for.
    fn defects(&self, certificate: &Certificate) -> Vec<String> {
        let defects = certificate.leaf_defects();
        let mut findings: Vec<String> = defects
            .iter()
            .filter(|defect| match self.purpose {
                Purpose::Signing => true,
                Purpose::Ca => matches!(
                    defect,
                    LeafDefect::ExplicitCaFalse
                        | LeafDefect::UnsupportedKey
                        | LeafDefect::RsaLength(_)
                ),
            })
            .map(ToString::to_string)
            .collect();
        if self.purpose == Purpose::Ca {
            if !certificate.is_ca() {
                findings.push("it is not a CA certificate".to_owned());
            }
            if certificate
                .key_usage()
                .is_some_and(|usage| !usage.key_cert_sign)
            {
                findings.push("its key usage does not allow keyCertSign".to_owned());
            }
        }
        let algo = signature_digest(certificate).unwrap_or(HashAlgorithm::Sha256);
        findings.extend(
            self.kernel
                .and_then(|kernel| too_old(kernel, certificate.key(), algo)),
        );
        if let PublicKey::Rsa { bits } = certificate.key()
            && *bits < 2048
        {
            findings.push(format!(
                "its key is RSA-{bits}, and RSA keys of fewer than 2048 bits are too weak"
            ));
        }
        findings
    }
}

/// Why none of these CAs signed it, if so.
fn unsigned(
    certificate: &Certificate,
    authorities: &[Certificate],
    others: &[Certificate],
) -> Option<String> {
    if chain::leads_to(certificate, authorities, others) {
        return None;
    }
    let same_name = authorities
        .iter()
        .any(|issuer| issuer.subject() == certificate.issuer());
    Some(if same_name {
        "a CA of its issuer's name is given, and its key made another signature".to_owned()
    } else {
        format!(
            "none of the CAs given is its issuer, `{}`",
            certificate.issuer()
        )
    })
}
