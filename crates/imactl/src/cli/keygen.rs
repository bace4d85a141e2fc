//! `imactl keygen`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use imactl::key::{FileKey, KeyKind, Signer};
use imactl::x509::{Template, YEAR};

use super::options::{self, PasswordOptions, SAMPLE_PASSWORD};
use super::outcome::{Outcome, Result};
use super::output;

const KIND: (&str, KeyKind) = KeyKind::OFFERED[0];
const NAME: &str = "Local";
const DAYS: u64 = 3650;

/// Make a CA, and certificates for the kernel's .ima and .evm keyrings
///
/// Writes ca.key, ca.der, ca.pem, ima.key, ima.der, ima.pem and with --evm the same for evm into a directory. The CA belongs
/// into the kernel (imactl kernel add-ca, or CONFIG_SYSTEM_TRUSTED_KEYS), ima.der into the initramfs as /etc/keys/x509_ima.der.
/// Private keys are encrypted (PKCS#8, PBES2) and readable by their owner alone. Keys that are there already, in files or
/// tokens, are given with --key and --ca-key; only certificates are then written for them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl keygen --out keys --password-file password
  imactl keygen --out keys --type rsa3072 --ca-type p384 --evm
  imactl keygen --out new --ca-key keys/ca.key --ca-cert keys/ca.der     another certificate of the same CA
  imactl keygen --out new --key ima.key --renew ima.der --ca-key ca.key --ca-cert ca.der   the same key, later dates
  imactl keygen --out request --csr                                      for a CA elsewhere; then: imactl cert
  imactl keygen --out ca --ca-key 'pkcs11:token=ca;object=ca'            a CA whose key is in a token
  imactl keygen --out sample --sample                                    for trying out; everybody has these keys")]
pub struct Keygen {
    /// Directory to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Kind of the keys that sign: rsa2048, rsa3072, rsa4096, p256, p384
    #[arg(long = "type", value_name = "KIND", default_value = KIND.0)]
    kind: KeyKind,
    /// Kind of the CA's key; that of the others if not given
    #[arg(long, value_name = "KIND", conflicts_with = "ca_key")]
    ca_type: Option<KeyKind>,
    /// Private key for ima that is there, a file or a pkcs11: URI, instead of a new one
    #[arg(long, value_name = "KEY", conflicts_with_all = ["kind", "evm"])]
    key: Option<PathBuf>,
    /// Certificate of that key that is to be renewed: subject and key id stay, so what is signed stays good
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca_cert", conflicts_with_all = ["name", "organization", "csr"])]
    renew: Option<PathBuf>,
    /// Write requests (PKCS#10: ima.csr) for a CA elsewhere instead of certificates
    #[arg(long, conflicts_with_all = ["ca_key", "ca_type", "sample", "days", "not_before", "not_after"])]
    csr: bool,
    /// Private key of a CA that is there, a file or a pkcs11: URI; without --ca-cert its certificate is made
    #[arg(long, value_name = "KEY")]
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
    #[arg(long, default_value = NAME)]
    name: String,
    /// Organization
    #[arg(long, default_value = "")]
    organization: String,
    /// Days the certificates are valid; the kernel does not look at it
    #[arg(long, default_value_t = DAYS)]
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
    /// Makes a CA and a key that signs in this directory; without a password the private keys are left unencrypted.
    pub fn with_defaults(out: PathBuf, password: Option<Vec<u8>>) -> Self {
        Self {
            out,
            kind: KIND.1,
            ca_type: None,
            key: None,
            renew: None,
            csr: false,
            ca_key: None,
            ca_cert: None,
            ca_password_file: None,
            evm: false,
            name: NAME.to_owned(),
            organization: String::new(),
            days: DAYS,
            not_before: None,
            not_after: None,
            sample: false,
            unencrypted: password.is_none(),
            force: false,
            password: PasswordOptions {
                known: password,
                ..PasswordOptions::default()
            },
        }
    }

    pub fn run(self) -> Result {
        options::source_date_epoch()?;
        // Without new keys there is nothing to encrypt.
        let new_keys = self.key.is_none() || (self.ca_key.is_none() && !self.csr);
        let password = if self.sample {
            Some(SAMPLE_PASSWORD.as_bytes().to_vec())
        } else if self.unencrypted || !new_keys {
            None
        } else {
            Some(self.password.new_password()?)
        };
        std::fs::create_dir_all(&self.out)
            .map_err(|error| imactl::file::unwritable(&self.out, &error))?;
        let mut names = vec!["ima"];
        names.extend(self.evm.then_some("evm"));
        names.extend((!self.csr && self.ca_cert.is_none()).then_some("ca"));
        self.check_free(&names)?;
        let renewed = self
            .renew
            .as_deref()
            .map(options::certificate)
            .transpose()?;
        // Whatever can be refused is, before anything is written.
        let given = match &self.key {
            Some(key) => Some(options::load_key(key, &self.password, renewed.as_ref())?),
            None => None,
        };
        if let Some(defect) = renewed.as_ref().and_then(|old| {
            old.skid()
                .is_none()
                .then_some(ima::certificate::LeafDefect::NoSkid)
        }) {
            return Err(
                Fault::new(Code::CertificateUnusable, "the certificate to be renewed")
                    .because(defect.cause())
                    .with_remedy("make a new certificate without --renew, and sign anew"),
            );
        }
        let authority = if self.csr {
            None
        } else {
            Some(self.authority(password.as_deref())?)
        };
        for (name, title) in [("ima", "IMA"), ("evm", "EVM")] {
            if !names.contains(&name) {
                continue;
            }
            let made;
            let key: &dyn Signer = match &given {
                Some(key) => &**key,
                None => {
                    made = FileKey::generate(self.kind)?;
                    self.write_key(name, &made, password.as_deref())?;
                    &made
                }
            };
            let template = Template {
                renewed: renewed.clone(),
                ..self.template(Template::leaf(format!("{} {title}", self.name)))
            };
            match &authority {
                Some((ca_key, ca)) => {
                    let certificate = template.sign(key, Some((&**ca_key, ca)), None)?;
                    self.write_certificate(name, key, &certificate)?;
                }
                None => self.write_request(name, key, &template.request(key)?)?,
            }
        }
        if self.sample {
            output::warn(format_args!(
                "imactl: these are SAMPLE KEYS with the password `{SAMPLE_PASSWORD}`: never ship them"
            ));
        }
        Ok(Outcome::Good)
    }

    /// The CA that signs: one that is there, or a new one, which is written.
    fn authority(&self, password: Option<&[u8]>) -> Result<(Arc<dyn Signer>, Certificate)> {
        let template = self.template(Template::ca(format!("{} CA", self.name)));
        let Some(key) = &self.ca_key else {
            let key = FileKey::generate(self.ca_type.unwrap_or(self.kind))?;
            let certificate = template.sign(&key, None, None)?;
            self.write_key("ca", &key, password)?;
            self.write_certificate("ca", &key, &certificate)?;
            return Ok((Arc::new(key), certificate));
        };
        let own_password = PasswordOptions {
            password_file: self
                .ca_password_file
                .clone()
                .or_else(|| self.password.password_file.clone()),
            known: self.password.known.clone(),
        };
        let Some(certificate) = &self.ca_cert else {
            let key = options::load_key(key, &own_password, None)?;
            let certificate = template.sign(&*key, None, None)?;
            self.write_certificate("ca", &*key, &certificate)?;
            return Ok((key, certificate));
        };
        let certificate = options::certificate(certificate)?;
        if !certificate.is_ca() {
            return Err(Fault::new(
                Code::CertificateUnusable,
                format!("`{}` is not a CA", certificate.subject()),
            ));
        }
        let key = options::load_key(key, &own_password, Some(&certificate))?;
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
            for suffix in ["key", "der", "pem", "csr"] {
                let path = self.out.join(format!("{name}.{suffix}"));
                if !self.force && path.symlink_metadata().is_ok() {
                    return Err(Fault::new(
                        Code::OutputUnwritable,
                        format!("{}: it is there already", path.display()),
                    )
                    .because(Cause::PRIVATE_KEY_THERE));
                }
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.out.join(format!("{name}.{suffix}"))
    }

    fn write_key(&self, name: &str, key: &FileKey, password: Option<&[u8]>) -> Result<()> {
        let pem = key.to_pem(password)?;
        imactl::file::write(&self.path(name, "key"), &pem, 0o600, self.force)
    }

    fn write_certificate(
        &self,
        name: &str,
        key: &dyn Signer,
        certificate: &Certificate,
    ) -> Result<()> {
        let der = self.path(name, "der");
        imactl::file::write(&der, certificate.der(), 0o644, self.force)?;
        let pem = imactl::x509::pem(certificate)?;
        imactl::file::write(&self.path(name, "pem"), &pem, 0o644, self.force)?;
        output::line(format_args!(
            "{}: {} `{}`, key id {}",
            der.display(),
            key.kind(),
            certificate.subject(),
            certificate.key_id()
        ))
    }

    fn write_request(&self, name: &str, key: &dyn Signer, request: &[u8]) -> Result<()> {
        let path = self.path(name, "csr");
        let pem = imactl::x509::request_pem(request)?;
        imactl::file::write(&path, &pem, 0o644, self.force)?;
        output::line(format_args!(
            "{}: a request for the {} key; check what the CA makes of it: imactl cert CERTIFICATE --key KEY --ca CA",
            path.display(),
            key.kind()
        ))
    }
}
