//! What the boot of an initramfs and a root can measure, as far as it is known beforehand.

use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::layout::{self, Purpose};
use ima::measurement::{Bank, ByteOrder, DEFAULT_PCR, Entry, FieldId, Template};
use ima::signature::{TYPE_EVM_PORTABLE, TYPE_SIGNATURE, TYPE_VERITY};
use rayon::prelude::*;

use crate::Result;
use crate::digest::DigestOf;
use crate::initramfs::InitramfsBuilder;
use crate::tree::{Inode, Kind, Tree};

/// The extended attribute whose value the templates with signatures record.
const IMA: &[u8] = b"security.ima";
/// The one whose portable signature they record where security.ima holds none.
const EVM: &[u8] = b"security.evm";

/// The name of the entries in which Linux 7.3 measures what is written as a policy (security/integrity/ima/ima_main.c,
/// `ima_measure_raw_policy`).
const POLICY_WRITTEN: &str = "ima_policy_written";

/// Something that can be measured.
#[derive(Debug, Clone, Copy)]
pub enum Measured<'a> {
    /// A regular file.
    File {
        /// Its path, as the kernel writes it.
        name: &'a [u8],
        /// The digest of its content.
        digest: &'a [u8],
        /// The signature that the templates `ima-sig` and `ima-sigv2` record; empty if the file has none.
        signature: &'a [u8],
    },
    /// A certificate that is put onto a keyring (`measure func=KEY_CHECK`).
    Key {
        /// The name of the keyring.
        keyring: &'a str,
        /// The certificate.
        certificate: &'a Certificate,
    },
    /// Bytes that are measured themselves, such as the command line for kexec.
    Buffer {
        /// The name of the event.
        name: &'a str,
        /// The bytes.
        content: &'a [u8],
    },
}

/// Calls `measured` with the regular files of a tree, under each of their names, and under the same names below each of
/// `mount_points`, such as `/rootfs`: what the init executes before the tree is the root is listed with that name. `progress` is called
/// once a file.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::FileChanged`], and the errors of `measured`.
pub fn files(
    tree: &Tree,
    mount_points: &[String],
    algo: HashAlgorithm,
    progress: &(dyn Fn() + Sync),
    measured: &mut dyn FnMut(Measured<'_>) -> Result<()>,
) -> Result<()> {
    let names = tree.names_by_inode();
    let digests: Vec<Option<Vec<u8>>> = names
        .par_iter()
        .map(|(index, _)| {
            let Kind::File(content) = &tree.inode(*index).kind else {
                return Ok(None);
            };
            progress();
            content.digest(DigestOf::Content, algo).map(Some)
        })
        .collect::<Result<_>>()?;
    for ((index, names), digest) in names.iter().zip(digests) {
        let Some(digest) = digest else { continue };
        let signature = recorded_signature(tree.inode(*index));
        for name in names {
            for mount_point in std::iter::once("").chain(mount_points.iter().map(String::as_str)) {
                measured(Measured::File {
                    name: &[mount_point.as_bytes(), b"/", name].concat(),
                    digest: &digest,
                    signature,
                })?;
            }
        }
    }
    Ok(())
}

/// Calls `measured` with what the init does before the root is there: it executes a program that must be denied, puts its certificates
/// onto their keyrings, and writes the policy rule by rule. A policy in the kernel (`ima_policy=tcb`) also has the files of the initramfs measured.
///
/// # Errors
///
/// What the init would refuse: [`Code::ConfigInvalid`], [`Code::CertificateInvalid`], [`Code::PolicyMissing`] and others; and the errors
/// of `measured`.
pub fn initramfs(
    initramfs: &InitramfsBuilder,
    algo: HashAlgorithm,
    measured: &mut dyn FnMut(Measured<'_>) -> Result<()>,
) -> Result<()> {
    let digest_of = |content: &[u8]| algo.digest(content).unwrap_or_default();
    measured(Measured::File {
        name: layout::CANARY.as_bytes(),
        digest: &digest_of(layout::CANARY_CONTENT),
        signature: &[],
    })?;
    let keyring = initramfs.configuration()?.keyring;
    for (purpose, keyring) in [
        (Purpose::Ima, keyring.name()),
        (Purpose::Evm, ".evm"),
        (Purpose::Verity, ".dm-verity"),
    ] {
        for (_, certificates) in initramfs.certificates(purpose) {
            for certificate in &certificates? {
                measured(Measured::Key {
                    keyring,
                    certificate,
                })?;
            }
        }
    }
    files(&initramfs.tree()?, &[], algo, &|| (), measured)?;
    for line in initramfs.chosen_policy()?.lines() {
        measured(Measured::Buffer {
            name: POLICY_WRITTEN,
            content: [&line.text, "\n"].concat().as_bytes(),
        })?;
    }
    Ok(())
}

/// What the field `sig` holds of a file (security/integrity/ima/ima_template_lib.c, `ima_eventsig_init`).
fn recorded_signature(inode: &Inode) -> &[u8] {
    let value = |name: &[u8]| inode.xattrs.get(name).map_or(&[][..], Vec::as_slice);
    let (ima, evm) = (value(IMA), value(EVM));
    match (ima.first(), evm.first()) {
        (Some(&(TYPE_SIGNATURE | TYPE_VERITY)), _) => ima,
        (_, Some(&TYPE_EVM_PORTABLE)) => evm,
        _ => &[],
    }
}

/// A measurement list of what can be measured. Its order says nothing.
#[derive(Debug)]
pub struct PredictedList {
    template: Template,
    algo: HashAlgorithm,
    bank: Bank,
    order: ByteOrder,
}

impl PredictedList {
    /// The templates of files that are predicted: those without fields that depend on the running system.
    pub const TEMPLATES: [&'static str; 4] = ["ima-ng", "ima-sig", "ima-ngv2", "ima-sigv2"];

    /// A list with files in this template, and digests of files by `algo`. The template digests are of `bank`.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] for a template that is not one of [`TEMPLATES`](Self::TEMPLATES).
    pub fn new(template: &str, algo: HashAlgorithm, bank: Bank, order: ByteOrder) -> Result<Self> {
        if !Self::TEMPLATES.contains(&template) {
            let detail = format!("`{template}`: give one of {}", Self::TEMPLATES.join(", "));
            return Err(Fault::new(Code::Usage, detail));
        }
        Ok(Self {
            template: Template::from_name(template),
            algo,
            bank,
            order,
        })
    }

    /// The entry of something that is measured.
    #[must_use]
    pub fn entry(&self, measured: Measured<'_>) -> Entry {
        let digest_of = |content: &[u8]| self.algo.digest(content).unwrap_or_default();
        match measured {
            Measured::File {
                name,
                digest,
                signature,
            } => self.made(self.template.clone(), name, digest, signature, &[]),
            Measured::Key {
                keyring,
                certificate,
            } => self.buffer(keyring, &digest_of(certificate.der()), certificate.der()),
            Measured::Buffer { name, content } => self.buffer(name, &digest_of(content), content),
        }
    }

    fn buffer(&self, name: &str, digest: &[u8], content: &[u8]) -> Entry {
        let template = Template::from_name("ima-buf");
        self.made(template, name.as_bytes(), digest, &[], content)
    }

    fn made(
        &self,
        template: Template,
        name: &[u8],
        digest: &[u8],
        signature: &[u8],
        buffer: &[u8],
    ) -> Entry {
        let fields = template.fields().unwrap_or_default().iter();
        let fields = fields.map(|field| match field {
            FieldId::DigestNg => [self.algo.to_string().as_bytes(), b":\0", digest].concat(),
            FieldId::DigestNgV2 => {
                [b"ima:", self.algo.to_string().as_bytes(), b":\0", digest].concat()
            }
            FieldId::NameNg => {
                // The kernel shows a blank as `_` (`ima_write_template_field_data`).
                let shown = name.iter().map(|byte| match byte {
                    b' ' => b'_',
                    byte => *byte,
                });
                shown.chain([0]).collect()
            }
            FieldId::Signature => signature.to_vec(),
            FieldId::Buffer => buffer.to_vec(),
            // The templates that are made have no others.
            _ => Vec::new(),
        });
        let fields = fields.collect();
        Entry::new(DEFAULT_PCR, template, fields, self.bank, self.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    fn signed(ima: &[u8], evm: &[u8]) -> Inode {
        let mut inode = Inode::new(Kind::File(Content::Bytes(b"a".as_slice().into())), 0o755);
        inode.xattrs.insert(IMA.to_vec(), ima.to_vec());
        inode.xattrs.insert(EVM.to_vec(), evm.to_vec());
        inode
    }

    #[test]
    fn entries_are_those_of_the_kernel() {
        let mut tree = Tree::new();
        tree.insert(b"bin/a b", signed(&[3, 2, 4], &[5, 2]))
            .unwrap();
        let list = PredictedList::new(
            "ima-sig",
            HashAlgorithm::Sha256,
            Bank::Sha1,
            ByteOrder::Little,
        )
        .unwrap();
        let mut lines = Vec::new();
        files(
            &tree,
            &["/rootfs".to_owned()],
            HashAlgorithm::Sha256,
            &|| (),
            &mut |measured| {
                let entry = list.entry(measured);
                lines.push(String::from_utf8(entry.to_ascii(ByteOrder::Little)).unwrap());
                Ok(())
            },
        )
        .unwrap();
        let digest = ima::hex::encode(&HashAlgorithm::Sha256.digest(b"a").unwrap());
        for (line, name) in lines.iter().zip(["/bin/a_b", "/rootfs/bin/a_b"]) {
            let end = format!(" ima-sig sha256:{digest} {name} 030204");
            assert!(line.starts_with("10 ") && line.ends_with(&end), "{line}");
        }
        assert_eq!(lines.len(), 2);
        let buffer = list.entry(Measured::Buffer {
            name: "kexec-cmdline",
            content: b"a",
        });
        let line = String::from_utf8(buffer.to_ascii(ByteOrder::Little)).unwrap();
        assert!(line.ends_with(&format!(" ima-buf sha256:{digest} kexec-cmdline 61")));
        assert!(
            PredictedList::new(
                "evm-sig",
                HashAlgorithm::Sha256,
                Bank::Sha1,
                ByteOrder::Little
            )
            .is_err()
        );
    }

    #[test]
    fn a_hash_is_no_signature() {
        assert_eq!(recorded_signature(&signed(&[4, 4, 1], &[5, 2])), [5, 2]);
        assert_eq!(
            recorded_signature(&signed(&[4, 4, 1], &[2, 2])),
            [] as [u8; 0]
        );
        assert_eq!(recorded_signature(&signed(&[6, 3], &[])), [6, 3]);
    }
}
