//! `imactl keygen`

use std::path::PathBuf;

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use imactl::key::{FileKey, KeyKind, Signer};
use imactl::x509::{Template, YEAR};

use super::options::{self, PasswordOptions, SAMPLE_PASSWORD};
use super::{Outcome, Result, output};

/// Make a CA, and certificates for the kernel's .ima and .evm keyrings
///
/// Writes ca.key, ca.der, ca.pem, ima.key, ima.der, ima.pem and with --evm the same for evm into a directory. The CA belongs
/// into the kernel (imactl kernel add-ca, or CONFIG_SYSTEM_TRUSTED_KEYS), ima.der into the initramfs as /etc/keys/x509_ima.der.
/// Private keys are encrypted (PKCS#8, PBES2) and readable by their owner alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl keygen --out keys --password-file password
  imactl keygen --out keys --type rsa3072 --ca-type p384 --evm
  imactl keygen --out new --ca-key keys/ca.key --ca-cert keys/ca.der     another certificate of the same CA
  imactl keygen --out sample --sample                                    for trying out; everybody has these keys")]
pub struct Keygen {
    /// Directory to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Kind of the keys that sign: rsa2048, rsa3072, rsa4096, p256, p384
    #[arg(long = "type", value_name = "KIND", default_value = "rsa2048")]
    kind: KeyKind,
    /// Kind of the CA's key; that of the others if not given
    #[arg(long, value_name = "KIND", conflicts_with = "ca_key")]
    ca_type: Option<KeyKind>,
    /// Private key of a CA that is there
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// Certificate of that CA
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// File whose first line is the password of the CA's private key, if it has another than the new keys
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_password_file: Option<PathBuf>,
    /// Make a certificate for .evm too
    #[arg(long)]
    evm: bool,
    /// Common name; " CA", " IMA" or " EVM" is added to it
    #[arg(long, default_value = "Local")]
    name: String,
    /// Organization
    #[arg(long, default_value = "")]
    organization: String,
    /// Days the certificates are valid; the kernel does not look at it
    #[arg(long, default_value_t = 3650)]
    days: u64,
    /// Start of validity, seconds since 1970; now if not given
    #[arg(long, value_name = "SECONDS")]
    not_before: Option<u64>,
    /// End of validity, seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "days")]
    not_after: Option<u64>,
    /// Mark the certificates as samples and encrypt the keys with the password `password`: for trying out, never to be shipped
    #[arg(long, conflicts_with_all = ["unencrypted", "password_file"])]
    sample: bool,
    /// Leave the private keys unencrypted
    #[arg(long, conflicts_with = "password_file")]
    unencrypted: bool,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    password: PasswordOptions,
}

impl Keygen {
    pub fn run(self) -> Result {
        options::source_date_epoch()?;
        let password = if self.sample {
            Some(SAMPLE_PASSWORD.as_bytes().to_vec())
        } else if self.unencrypted {
            None
        } else {
            Some(self.password.new_password()?)
        };
        std::fs::create_dir_all(&self.out)
            .map_err(|error| imactl::file::unwritable(&self.out, &error))?;
        let mut names = vec!["ima"];
        names.extend(self.evm.then_some("evm"));
        names.extend(self.ca_key.is_none().then_some("ca"));
        self.check_free(&names)?;
        let (ca_key, ca) = self.authority()?;
        if self.ca_key.is_none() {
            self.write("ca", &ca_key, &ca, password.as_deref())?;
        }
        for (name, title) in [("ima", "IMA"), ("evm", "EVM")] {
            if names.contains(&name) {
                let key = FileKey::generate(self.kind)?;
                let template = self.template(Template::leaf(format!("{} {title}", self.name)));
                let certificate = template.sign(&key, Some((&ca_key, &ca)), None)?;
                self.write(name, &key, &certificate, password.as_deref())?;
            }
        }
        if self.sample {
            output::warn(format_args!(
                "imactl: these are SAMPLE KEYS with the password `{SAMPLE_PASSWORD}`: never ship them"
            ));
        }
        Ok(Outcome::Good)
    }

    fn authority(&self) -> Result<(FileKey, Certificate)> {
        if let (Some(key), Some(certificate)) = (&self.ca_key, &self.ca_cert) {
            let certificate = options::certificate(certificate)?;
            if !certificate.is_ca() {
                return Err(Fault::new(
                    Code::CertificateUnusable,
                    format!("`{}` is no CA", certificate.subject()),
                ));
            }
            let password = PasswordOptions {
                password_file: self
                    .ca_password_file
                    .clone()
                    .or_else(|| self.password.password_file.clone()),
            };
            return Ok((
                options::load_key(key, &password, Some(&certificate))?,
                certificate,
            ));
        }
        let key = FileKey::generate(self.ca_type.unwrap_or(self.kind))?;
        let certificate = self
            .template(Template::ca(format!("{} CA", self.name)))
            .sign(&key, None, None)?;
        Ok((key, certificate))
    }

    fn template(&self, template: Template) -> Template {
        let not_before = self.not_before.unwrap_or(template.not_before);
        Template {
            organization: self.organization.clone(),
            sample: self.sample,
            not_before,
            not_after: self
                .not_after
                .unwrap_or_else(|| not_before.saturating_add(self.days.saturating_mul(YEAR / 365))),
            ..template
        }
    }

    /// Nothing is written if anything would be replaced.
    fn check_free(&self, names: &[&str]) -> Result<()> {
        for name in names {
            for suffix in ["key", "der", "pem"] {
                let path = self.out.join(format!("{name}.{suffix}"));
                if !self.force && path.symlink_metadata().is_ok() {
                    return Err(Fault::new(
                        Code::OutputUnwritable,
                        format!("{}: it is there already", path.display()),
                    )
                    .cause("a private key that is overwritten is lost")
                    .remedy("choose another directory, or --force"));
                }
            }
        }
        Ok(())
    }

    fn write(
        &self,
        name: &str,
        key: &FileKey,
        certificate: &Certificate,
        password: Option<&[u8]>,
    ) -> Result<()> {
        let path = |suffix: &str| self.out.join(format!("{name}.{suffix}"));
        imactl::file::write(&path("key"), &key.to_pem(password)?, 0o600, self.force)?;
        imactl::file::write(&path("der"), certificate.der(), 0o644, self.force)?;
        imactl::file::write(
            &path("pem"),
            &imactl::x509::pem(certificate)?,
            0o644,
            self.force,
        )?;
        output::line(format_args!(
            "{}: {} `{}`, key id {}",
            path("der").display(),
            key.kind(),
            certificate.subject(),
            certificate.key_id()
        ))
    }
}
