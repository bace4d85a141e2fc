//! Where things are in the initramfs and in the real root, and which of them count.

use crate::evm_key::MasterKind;
use crate::fault::{Code, Fault};
use crate::policy::Policy;

/// Where the init mounts the real root.
pub const ROOT: &str = "/rootfs";

/// The custom policy in the initramfs, taken if it is there and not empty.
pub const POLICY: &str = "/etc/ima/ima_policy";

/// The default policy in the initramfs.
pub const DEFAULT_POLICY: &str = "/etc/ima/ima_policy.default";

/// What is appended to a policy's path for the file that holds its security.ima, for kernels that take only a signed
/// policy.
pub const SIGNATURE: &str = ".sig";

/// Where the kernel shows its command line; where the init has put a filtered copy, that is seen there.
pub const COMMAND_LINE: &str = "/proc/cmdline";

/// The init's report for the real system; docs/reference/report.md documents its keys.
pub const REPORT: &str = "/run/ima-init/report.json";

/// A directory of the init's that only root may enter, in the running system too.
pub const PRIVATE: &str = "/run/ima-init/private";

/// The kernel's own command line where the init has put a filtered copy over [`COMMAND_LINE`].
pub const TRUE_COMMAND_LINE: &str = "/run/ima-init/private/proc/cmdline";

/// The file by which the init tries whether the kernel denies what is not signed. A measurement list has it by this name, without a
/// directory, because its file system is mounted nowhere.
pub const CANARY: &str = "canary";

/// The content of [`CANARY`]. Printable, so that the kernel looks for no module that could run it (fs/exec.c,
/// `search_binary_handler`).
pub const CANARY_CONTENT: &[u8] = b"ima-init: not a program\n";

/// Reads the kernel's own command line.
///
/// # Errors
///
/// What `read` says of [`COMMAND_LINE`].
pub fn command_line<T, E>(read: impl Fn(&'static str) -> Result<T, E>) -> Result<T, E> {
    read(TRUE_COMMAND_LINE).or_else(|_| read(COMMAND_LINE))
}

/// The init of an initramfs in front of which this one was put. Where it is, `/init` is this one.
pub const FRONTED_INIT: &str = "/usr/lib/ima-init/init";

/// This init's program in such an initramfs, by which that one leaves for the real root.
pub const PROGRAM: &str = "/usr/lib/ima-init/ima-init";

/// The signatures of such an initramfs's programs ([`crate::signatures`]).
pub const SIGNATURES: &str = "/etc/ima/initramfs.signatures";

/// The directory of certificates, in the initramfs and in the real root.
pub const KEYS: &str = "/etc/keys";

/// EVM's HMAC key in the initramfs, where dracut's module `integrity` has it, unless `evmkey=` names another file.
pub const EVM_KEY: &str = "/etc/keys/evm-trusted.blob";

/// The master key in the initramfs with which EVM's HMAC key is sealed, where dracut's module `masterkey` has it, unless
/// `masterkey=` names another file.
pub const fn master_key(kind: MasterKind) -> &'static str {
    match kind {
        MasterKind::Trusted => "/etc/keys/kmk-trusted.blob",
        MasterKind::User => "/etc/keys/kmk-user.blob",
    }
}

/// The directory of the real root's policies.
pub const ROOT_POLICIES: &str = "/etc/ima";

/// The keyring that a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `.ima` (or `_ima`): files.
    Ima,
    /// `.evm`: the metadata of files.
    Evm,
    /// `.secondary_trusted_keys`: other certificates.
    Secondary,
    /// `.dm-verity`: signatures of root hashes.
    Verity,
}

impl Purpose {
    /// The beginning of the names of files directly in [`KEYS`].
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Ima => "x509_ima",
            Self::Evm => "x509_evm",
            Self::Secondary => "x509_secondary_",
            Self::Verity => "x509_verity",
        }
    }

    /// The directory in [`KEYS`] of which every file counts, in the initramfs.
    pub const fn directory(self) -> Option<&'static str> {
        match self {
            Self::Ima => Some("ima"),
            Self::Evm => Some("evm"),
            Self::Secondary => None,
            Self::Verity => Some("verity"),
        }
    }

    /// Whether a file of that name, directly in [`KEYS`], is a certificate for this purpose.
    pub fn has(self, name: &[u8]) -> bool {
        let extensions = [&b".der"[..], b".pem", b".crt", b".cer"];
        name.starts_with(self.prefix().as_bytes())
            && extensions.iter().any(|extension| name.ends_with(extension))
    }
}

/// The policy in [`ROOT_POLICIES`] that systemd loads when it starts (src/core/ima-setup.c).
pub const SYSTEMD_POLICY: &str = "ima-policy";

/// Whether a file of that name in [`ROOT_POLICIES`] is a policy.
pub fn is_root_policy(name: &[u8]) -> bool {
    let own = name.starts_with(b"ima_policy") && !name.ends_with(SIGNATURE.as_bytes());
    own || name == SYSTEMD_POLICY.as_bytes()
}

/// The policy that counts, with its path and text, of the two that an initramfs may have.
///
/// # Errors
///
/// [`Code::PolicyMissing`], [`Code::PolicyEmpty`], [`Code::PolicyInvalid`].
pub fn policy(
    custom: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
) -> Result<(&'static str, Vec<u8>, Policy), Fault> {
    let (path, text) = match (custom, default) {
        (Some(text), _) if !text.is_empty() => (POLICY, text),
        (_, Some(text)) => (DEFAULT_POLICY, text),
        (Some(_), None) => return Err(Fault::new(Code::PolicyEmpty, POLICY)),
        (None, None) => return Err(Fault::new(Code::PolicyMissing, DEFAULT_POLICY)),
    };
    let policy = Policy::parse(&text)
        .map_err(|error| Fault::new(Code::PolicyInvalid, format!("{path}, {error}")))?;
    if policy.is_empty() {
        return Err(Fault::new(Code::PolicyEmpty, path));
    }
    Ok((path, text, policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_custom_policy_counts_unless_it_is_empty() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let cases = [
            (some("measure\n"), some("audit\n"), Ok(POLICY)),
            (some(""), some("audit\n"), Ok(DEFAULT_POLICY)),
            (None, some("audit\n"), Ok(DEFAULT_POLICY)),
            (some("# audit\n"), some("audit\n"), Err(Code::PolicyEmpty)),
            (some(""), None, Err(Code::PolicyEmpty)),
            (None, some(""), Err(Code::PolicyEmpty)),
            (None, None, Err(Code::PolicyMissing)),
            (some("audi\n"), some("audit\n"), Err(Code::PolicyInvalid)),
        ];
        for (custom, default, expected) in cases {
            let chosen = policy(custom.clone(), default).map(|(path, ..)| path);
            assert_eq!(chosen.map_err(|fault| fault.code()), expected, "{custom:?}");
        }
    }

    #[test]
    fn certificates_are_told_by_their_names() {
        assert!(Purpose::Ima.has(b"x509_ima.der") && Purpose::Ima.has(b"x509_ima2.pem"));
        assert!(!Purpose::Ima.has(b"x509_ima.key") && !Purpose::Ima.has(b"x509_evm.der"));
        assert!(Purpose::Secondary.has(b"x509_secondary_a.crt"));
        assert!(Purpose::Verity.has(b"x509_verity-2.pem"));
        assert!(is_root_policy(b"ima_policy") && !is_root_policy(b"ima_policy.default.sig"));
        assert!(is_root_policy(b"ima-policy") && !is_root_policy(b"ima-policy.sig"));
    }
}
