//! Which keys of the machine's owner (MOK) a kernel takes from shim as CAs: those that get onto `.machine`.

use ima::certificate::Certificate;
use ima::fault::{Cause, Explanation};

use super::check::KernelConfig;

/// The machine owner keys that vouch for keys on `.ima`, by the options of a kernel (security/integrity/digsig.c,
/// `integrity_init_keyring`; crypto/asymmetric_keys/restrict.c, `restrict_link_by_ca`). The others get onto `.platform`, which vouches
/// for nothing but kernels for kexec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKeys {
    /// None: it has no `.machine`, or does not ask it for keys on `.ima`. The option that is missing.
    None(&'static str),
    /// All.
    All,
    /// CAs that may sign certificates (`CONFIG_INTEGRITY_CA_MACHINE_KEYRING`).
    Authorities,
    /// CAs that may sign certificates and no data (`CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX`).
    AuthoritiesAlone,
}

impl OwnerKeys {
    /// Those that a kernel with this configuration takes.
    #[must_use]
    pub fn of(kernel: &KernelConfig) -> Self {
        let needed = [
            "INTEGRITY_MACHINE_KEYRING",
            "IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY",
        ];
        let missing = needed.into_iter().find(|option| !kernel.is_builtin(option));
        if let Some(missing) = missing {
            return Self::None(missing);
        }
        match ["", "_MAX"]
            .map(|end| kernel.is_builtin(&format!("INTEGRITY_CA_MACHINE_KEYRING{end}")))
        {
            [_, true] => Self::AuthoritiesAlone,
            [true, false] => Self::Authorities,
            [false, false] => Self::All,
        }
    }

    /// Why it does not take this one, or none at all; nothing if it does.
    #[must_use]
    pub fn refusal(self, certificate: Option<&Certificate>) -> Option<Explanation> {
        if let Self::None(option) = self {
            return Some(Cause::MOK_NO_KEYRING.with(&[option]));
        }
        let certificate = certificate?;
        let usage = certificate.key_usage();
        let why = match self {
            Self::None(_) | Self::All => return None,
            Self::Authorities | Self::AuthoritiesAlone if !certificate.is_ca() => {
                "its basicConstraints do not say CA"
            }
            Self::Authorities | Self::AuthoritiesAlone
                if !usage.is_some_and(|usage| usage.key_cert_sign) =>
            {
                "its keyUsage has no keyCertSign"
            }
            Self::AuthoritiesAlone if usage.is_some_and(|usage| usage.digital_signature) => {
                "its keyUsage has digitalSignature, and the kernel was built with CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX"
            }
            Self::Authorities | Self::AuthoritiesAlone => return None,
        };
        Some(Cause::MOK_NOT_TAKEN.with(&[&certificate.subject(), why]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::{BasicConstraints, Template, Usage};

    #[test]
    fn which_certificates_get_onto_the_machine_keyring() {
        let key = FileKey::generate(KeyKind::P256).unwrap();
        let make = |basic_constraints, usage: Option<[bool; 2]>| {
            let template = Template {
                basic_constraints,
                usage: usage.map(|[digital_signature, key_cert_sign]| Usage {
                    digital_signature,
                    key_cert_sign,
                }),
                ..Template::ca("MOK")
            };
            template.sign(&key, None, None).unwrap()
        };
        let certificates = [
            make(BasicConstraints::Ca, Some([false, true])),
            make(BasicConstraints::Ca, Some([true, true])),
            make(BasicConstraints::Ca, Some([true, false])),
            make(BasicConstraints::Ca, None),
            make(BasicConstraints::Leaf, Some([false, true])),
            make(BasicConstraints::Absent, Some([true, false])),
        ];
        let machine = "CONFIG_INTEGRITY_MACHINE_KEYRING=y\n";
        let asked = "CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n";
        let authorities = "CONFIG_INTEGRITY_CA_MACHINE_KEYRING=y\n";
        let alone = "CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX=y\n";
        for (options, keys, taken) in [
            (
                vec![asked],
                OwnerKeys::None("INTEGRITY_MACHINE_KEYRING"),
                [false; 6],
            ),
            (
                vec![machine],
                OwnerKeys::None("IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY"),
                [false; 6],
            ),
            (vec![machine, asked], OwnerKeys::All, [true; 6]),
            (
                vec![machine, asked, authorities],
                OwnerKeys::Authorities,
                [true, true, false, false, false, false],
            ),
            (
                vec![machine, asked, authorities, alone],
                OwnerKeys::AuthoritiesAlone,
                [true, false, false, false, false, false],
            ),
        ] {
            let kernel = KernelConfig::parse(options.concat().as_bytes()).unwrap();
            assert_eq!(OwnerKeys::of(&kernel), keys);
            let found = certificates
                .each_ref()
                .map(|certificate| keys.refusal(Some(certificate)).is_none());
            assert_eq!(found, taken, "{keys:?}");
        }
    }
}
