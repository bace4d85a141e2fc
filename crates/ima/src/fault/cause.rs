//! The causes that are found out: what the catalogue says of a code's cause once the machine, the file or the option was
//! looked at.
//!
//! Each is listed with the codes that it explains and, where the code's own remedy does not fit, with one that does. Words in
//! braces stand for the values that were met; [`Cause::with`] fills them in.

use std::borrow::Cow;
use std::fmt;

use super::Code;

/// A specific cause of a fault, from the catalogue.
///
/// The causes are constants and not the variants of an `enum`, because a program then carries the texts of those that it names
/// and no others: the init is small, and most causes are `imactl`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause(&'static Row);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    text: &'static str,
    remedy: Option<&'static str>,
}

impl Cause {
    /// The text, with a name in braces for each value that is filled in.
    pub const fn text(self) -> &'static str {
        self.0.text
    }

    /// What to do about it, where that is not the code's own remedy.
    pub const fn remedy(self) -> Option<&'static str> {
        self.0.remedy
    }

    /// The codes that it explains.
    pub fn codes(self) -> &'static [Code] {
        Self::ALL
            .iter()
            .find(|(_, cause)| *cause == self)
            .map_or(&[], |(codes, _)| codes)
    }

    /// The causes of a code, in the order of the catalogue.
    pub fn of(code: Code) -> impl Iterator<Item = Self> {
        Self::ALL
            .iter()
            .filter(move |(codes, _)| codes.contains(&code))
            .map(|(_, cause)| *cause)
    }

    /// The cause with its values: one for each name in braces, in the order in which the names first occur in the text and then
    /// in the remedy.
    pub fn with(self, values: &[&str]) -> Explanation {
        let mut names = Vec::new();
        let text = fill(self.text(), &mut names, values);
        let remedy = self
            .remedy()
            .map(|remedy| Cow::Owned(fill(remedy, &mut names, values)));
        debug_assert_eq!(names.len(), values.len(), "{self:?}");
        Explanation {
            cause: self,
            text: Cow::Owned(text),
            remedy,
        }
    }
}

/// Puts the values in the place of the names in braces; `names` are those seen so far.
fn fill(template: &'static str, names: &mut Vec<&'static str>, values: &[&str]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').unwrap_or((after, ""));
        let known = names.iter().position(|known| *known == name);
        let at = known.unwrap_or(names.len());
        if known.is_none() {
            names.push(name);
        }
        filled.push_str(before);
        filled.push_str(values.get(at).copied().unwrap_or_default());
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

/// A cause as it was found: its text and its remedy have their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub(super) cause: Cause,
    pub(super) text: Cow<'static, str>,
    pub(super) remedy: Option<Cow<'static, str>>,
}

impl Explanation {
    /// The row of the catalogue that it is made from.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// What to do about it, where that is not the code's own remedy.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The same with a second cause behind it; the second's remedy counts where the first has none.
    #[must_use]
    pub fn and(mut self, other: impl Into<Self>) -> Self {
        let other = other.into();
        let text = self.text.to_mut();
        text.push_str("; ");
        text.push_str(&other.text);
        self.remedy = self.remedy.or(other.remedy);
        self
    }
}

impl From<Cause> for Explanation {
    /// # Panics
    ///
    /// In a build with debug assertions, if the cause has values that [`Cause::with`] must fill in.
    fn from(cause: Cause) -> Self {
        debug_assert!(!cause.text().contains('{'), "{cause:?} lacks its values");
        Self {
            cause,
            text: Cow::Borrowed(cause.text()),
            remedy: cause.remedy().map(Cow::Borrowed),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

macro_rules! causes {
    ($($name:ident [$($code:ident)+] { cause: $text:literal $(remedy: $remedy:literal)? })+) => {
        impl Cause {
            $(
                #[doc = concat!("Of", $(" [`", stringify!($code), "`](Code::", stringify!($code), "),",)+ " because: ", $text, ".")]
                pub const $name: Self = Self(&Row {
                    text: $text,
                    remedy: causes!(@remedy $($remedy)?),
                });
            )+

            /// Every cause with the codes that it explains, in the order of the catalogue.
            const ALL: &'static [(&'static [Code], Self)] =
                &[$((&[$(Code::$code),+], Self::$name)),+];

            /// The names of the constants, in the same order.
            #[cfg(test)]
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
        }
    };
    (@remedy) => { None };
    (@remedy $remedy:literal) => { Some($remedy) };
}

causes! {
    // The environment.
    TMPFS_WITHOUT_XATTRS [InitramfsSignatures] {
        cause: "the kernel's tmpfs keeps no such attributes"
        remedy: "build the kernel with CONFIG_TMPFS_XATTR"
    }
    ATTRIBUTE_NOT_TAKEN [InitramfsSignatures] {
        cause: "the kernel does not take this attribute"
    }

    // The configuration and the kernel command line.
    COMMAND_LINE_UNREADABLE [CmdlineInvalid] {
        cause: "the kernel does not show its command line, so the init does not know what to boot"
        remedy: "see the kernel's messages above; try again"
    }
    CAPABILITIES_DROPPED [StartUsage] {
        cause: "drop_capabilities= is on the kernel command line, and the signed switch_root cannot work without those capabilities"
        remedy: "take it off; systemd drops capabilities with CapabilityBoundingSet= in system.conf"
    }

    // Modules.
    MODULE_COMPRESSED [ModuleRefused] {
        cause: "the module is compressed, and this kernel cannot unpack it (CONFIG_MODULE_DECOMPRESS and its algorithm)"
    }
    MODULE_FOREIGN [ModuleRefused] {
        cause: "the module is of another kernel or damaged"
    }
    MODULE_SYMBOL [ModuleRefused] {
        cause: "it needs a symbol that no module before it in modules= has, or that the kernel has in another version"
    }
    MODULE_SIGNATURE [ModuleRefused] {
        cause: "the module's own signature is missing or wrong, and this kernel demands one"
    }

    // The root.
    ROOT_IN_HEXADECIMAL [RootSyntax] {
        cause: "the init does not take a device number in hexadecimal"
        remedy: "write it in decimal, root={major}:{minor}, if that is what is meant; docs/command-line.md shows each form"
    }
    DEVICE_OF_PROGRAMS [RootMissing] {
        cause: "{origin}; none of them runs in this initramfs"
        remedy: "name the root by its disk or partition (LABEL=, UUID=, PARTUUID=), or use an initramfs with those programs (dracut, initramfs-tools)"
    }
    DEVICE_KIND_ABSENT [RootMissing] {
        cause: "there is no device of the kind {prefix}... at all: its driver, {module}, is not in the kernel or the initramfs, or the disk is not connected"
        remedy: "build {options} into the kernel, or pack the module: imactl initramfs --module"
    }
    NO_BLOCK_DEVICE [RootMissing] {
        cause: "the kernel shows no block device at all: the driver of the disk's controller is not in the kernel or the initramfs"
    }
    NO_DEVICE_OF_THIS_NAME [RootMissing] {
        cause: "no device that is there has this name"
    }
    WITHOUT_DRIVER [RootMissing] {
        cause: "these have no driver: {devices}"
        remedy: "pack the driver: imactl initramfs --module; modprobe --resolve-alias ALIAS names the module of each device without driver"
    }
    PARTITION_ABSENT [RootMissing] {
        cause: "the disk {disk} is there, with a partition table, but the kernel made no such partition of it: it was built without support for the table, or the table has no entry of that number"
        remedy: "set CONFIG_EFI_PARTITION=y (GPT) or CONFIG_MSDOS_PARTITION=y (MBR) in the kernel; compare with the table (sfdisk -d)"
    }
    PARTITION_TABLE_UNUSABLE [RootMissing] {
        cause: "the disk {disk} is there, but its GPT lists no partition, or its checksums are wrong; the kernel takes the copy at the end of the disk only with gpt on its command line"
        remedy: "check and repair the table (sfdisk --verify /dev/{disk}, sgdisk --verify), or write the image again"
    }
    PARTITION_TABLE_ABSENT [RootMissing] {
        cause: "the disk {disk} is there, but has no partition table"
        remedy: "name the whole disk, root=/dev/{disk}, or write the partitioned image to it"
    }
    SUPERBLOCK_LEFT_BEHIND [RootUnknown] {
        cause: "an older file system's superblock was not wiped when this one was made"
        remedy: "name the right one with rootfstype=, or wipe the old one (wipefs)"
    }
    FILE_SYSTEM_UNKNOWN [RootMount] {
        cause: "the kernel does not know the file system {type}"
        remedy: "build it into the kernel, or pack its module: imactl initramfs --module {type}.ko"
    }

    // Certificates and keys.
    CERTIFICATES_UNREADABLE [CertificateInvalid] {
        cause: "the directory of certificates in the initramfs cannot be read, or something is mounted over it"
    }
    ROOT_CERTIFICATES_UNREADABLE [RootCertificate] {
        cause: "the directory of certificates in the real root cannot be read"
        remedy: "check the file system (fsck)"
    }
    CERTIFICATE_NOT_OFFERED [RootCertificate] {
        cause: "the init did not offer it to the kernel"
    }
    ROOT_CERTIFICATE_EXPIRED [CertificateExpired] {
        cause: "by this machine's clock it has expired; the init offers no expired certificate of the real root to the kernel"
    }
    KEY_REVOKED [CertificateRevoked] {
        cause: "revoked_keys lists its key, {key}"
    }
    SERIAL_REVOKED [CertificateRevoked] {
        cause: "revoked_serials lists its serial number, {number}"
    }
    NO_DIGITAL_SIGNATURE [CertificateRefused CertificateUnusable] {
        cause: "its key usage does not allow digitalSignature"
    }
    CA_CERTIFICATE [CertificateRefused CertificateUnusable] {
        cause: "it is a CA certificate"
    }
    KEY_CERT_SIGN [CertificateRefused CertificateUnusable] {
        cause: "its key usage allows keyCertSign"
    }
    EXPLICIT_CA_FALSE [CertificateRefused CertificateUnusable] {
        cause: "its basicConstraints spell out CA:FALSE, which the kernel takes for malformed"
    }
    NO_SKID [CertificateRefused CertificateUnusable CertificateUseless] {
        cause: "it has no subject key identifier, so no signature can name it"
    }
    KEY_KIND_UNSUPPORTED [CertificateRefused CertificateUnusable] {
        cause: "its key is of a kind the kernel has no code for"
    }
    RSA_LENGTH [CertificateRefused CertificateUnusable CertificateUseless] {
        cause: "its key is RSA-{bits}, and the kernel computes with RSA keys of {lengths} bits only"
    }
    TAKEN_IN_VAIN [CertificateUseless] {
        cause: "the kernel took it, and denies what its key signed"
    }
    NOT_FOR_SIGNING_FILES [CertificateRefused] {
        cause: "{defect}"
        remedy: "use a certificate of its own for signing files: keyUsage digitalSignature alone, no CA bit (imactl keygen makes one)"
    }
    ISSUER_NOT_TRUSTED [CertificateRefused] {
        cause: "its issuer, {issuer}, is not among the CAs that this kernel trusts: {trusted}"
    }
    BLACKLISTED [CertificateRefused] {
        cause: "it is on the kernel's own list of revoked certificates (the keyring .blacklist)"
        remedy: "make a new key and certificate, and sign the system again with it; revoked ones are built in or come from the firmware (dbx)"
    }
    ISSUER_HAS_OTHER_KEY [CertificateRefused] {
        cause: "a CA of its issuer's name is trusted, {issuer}, but the signature in it is not of that CA's key; trusted are: {trusted}"
        remedy: "have the CA that is in the kernel sign it again; a CA made anew under the same name has another key"
    }
    CONSTRAINTS_MALFORMED [CertificateRefused] {
        cause: "{defect}"
        remedy: "encode basicConstraints as an empty sequence, as imactl keygen does"
    }
    EXTENSION_MALFORMED [CertificateRefused] {
        cause: "the kernel cannot parse an extension of it"
        remedy: "make it again with the extensions that imactl keygen writes: basicConstraints, keyUsage, the two key identifiers"
    }
    ALGORITHMS_NOT_BUILT_IN [CertificateRefused] {
        cause: "the kernel was built without the algorithms of this certificate ({key}, or the hash of its signature)"
        remedy: "build CONFIG_CRYPTO_RSA or CONFIG_CRYPTO_ECDSA and the hash into the kernel{since}, or use another kind of key"
    }
    ALGORITHMS_LACKING [CertificateRefused] {
        cause: "this kernel has no {algorithms} (see /proc/crypto), which the certificate needs"
        remedy: "build CONFIG_CRYPTO_RSA or CONFIG_CRYPTO_ECDSA and the hash into the kernel{since}, or use another kind of key"
    }
    CERTIFICATE_TOO_LONG [CertificateRefused] {
        cause: "a certificate for the kernel has at most 65535 bytes"
        remedy: "make one with fewer extensions"
    }
    ALGORITHMS_DIFFER [CertificateRefused] {
        cause: "the algorithms that the certificate names inside and outside differ"
        remedy: "it is damaged or was tampered with: take it again from whoever made it"
    }
    OTHER_CA_KEYS [CertificateRefused] {
        cause: "{parameter} on the kernel command line allows another CA only; its issuer is {issuer}"
        remedy: "take ca_keys= off the command line, or give it the key id of this CA: ca_keys=id:..."
    }
    KEYRING_CLOSED [CertificateRefused] {
        cause: "this process may not write the keyring"
        remedy: "nothing else may load keys before this init: see what runs earlier in the initramfs"
    }
    KEY_QUOTA [CertificateRefused] {
        cause: "the quota of keys is used up"
        remedy: "put fewer certificates into the initramfs, or raise kernel.keys.root_maxkeys"
    }
    NO_CERTIFICATE_PARSER [CertificateRefused] {
        cause: "the kernel was built without CONFIG_X509_CERTIFICATE_PARSER"
        remedy: "set CONFIG_X509_CERTIFICATE_PARSER=y and build the kernel again"
    }
    EVM_NOT_ENABLED [EvmKeyRefused] {
        cause: "the kernel has no EVM (CONFIG_EVM), or did not find the key"
    }
    MASTER_KEY_MISSING [EvmKeyRefused] {
        cause: "its master key {master} is not in the initramfs"
        remedy: "put it there as {file}, or have dracut's module masterkey load it"
    }
    MASTER_KEY_DIFFERS [EvmKeyRefused] {
        cause: "it was sealed with another master key {master} than this one, or it is damaged"
    }
    NO_ENCRYPTED_KEYS [EvmKeyRefused] {
        cause: "this kernel has no encrypted keys"
        remedy: "boot a kernel with CONFIG_ENCRYPTED_KEYS=y"
    }
    NO_KEYS_OF_THE_TYPE [EvmKeyRefused] {
        cause: "this kernel has no keys of the type {type}"
        remedy: "boot a kernel with CONFIG_TRUSTED_KEYS=y and the TPM's driver built in"
    }
    MASTER_KEY_SEALED [EvmKeyRefused] {
        cause: "the TPM does not unseal it: another TPM has sealed it, other values are in its PCRs, or it is damaged"
        remedy: "seal a master key on this machine: keyctl add trusted NAME 'new 32 keyhandle=...' @u"
    }

    // The policy.
    RULE_BEYOND_KERNEL [PolicyRefused] {
        cause: "a keyword, hook or algorithm in the rule is beyond this kernel; it read so far: {read}"
    }
    POLICY_SIGNATURE_REFUSED [PolicySignature] {
        cause: "the kernel refused the packed signature: it is of another policy or by a key that is not on the keyring"
    }
    ROOT_POLICIES_UNREADABLE [RootPolicyRefused] {
        cause: "the directory of policies cannot be read"
        remedy: "check the file system (fsck)"
    }
    TOO_MANY_ROOT_POLICIES [RootPolicyRefused] {
        cause: "the init offers at most {most} policies of the real root to the kernel"
        remedy: "put their rules together into fewer files"
    }
    ROOT_POLICY_UNREADABLE [RootPolicyRefused] {
        cause: "it cannot be read, so the init did not offer it to the kernel"
        remedy: "make it a regular file, or remove it; check the file system (fsck)"
    }
    ROOT_POLICY_RULE [RootPolicyRefused] {
        cause: "the kernel refuses one of its rules: {error}"
    }
    ROOT_POLICY_WITHOUT_NEWLINE [RootPolicyRefused] {
        cause: "its last line does not end in a newline, which the kernel demands of a policy named by path"
    }

    // What will be executed next.
    TOO_MANY_SCRIPTS [SwitchRootInvalid InitInvalid InterpreterInvalid FrontedInit] {
        cause: "init is a script, its interpreter is a script too, and so on: the kernel follows five at most"
        remedy: "name a program as the interpreter in the first line of the first script"
    }
    NOT_EXECUTABLE [SwitchRootInvalid InitInvalid InterpreterInvalid FrontedInit] {
        cause: "nobody has permission to execute it"
        remedy: "chmod 755 {path}, and sign it again if security.evm is used"
    }
    PROGRAM_TOO_LONG [SwitchRootInvalid InitInvalid InterpreterInvalid FrontedInit] {
        cause: "no program is so long, and verifying its signature would take hours"
    }
    PROGRAM_UNREADABLE [SwitchRootInvalid InitInvalid InterpreterInvalid FrontedInit] {
        cause: "it could not be read: a bad medium, cable or controller, or a damaged file system"
        remedy: "see the kernel's messages above; check the file system (fsck), replace the medium"
    }
    OTHER_MACHINE [SwitchRootInvalid InitInvalid InterpreterInvalid FrontedInit] {
        cause: "it is made for another machine than this init is"
        remedy: "install the one that is built for this machine, and sign it"
    }
    SWITCH_ROOT_FOREIGN [HandoverExec] {
        cause: "it is not a program for this machine"
        remedy: "install ima-init's switch_root, built for this machine, and sign it"
    }
    INIT_ABSENT [SwitchExec] {
        cause: "the init, or the interpreter it names, is not in the real root"
    }
    INIT_FOREIGN [SwitchExec] {
        cause: "the init is not a program for this machine"
        remedy: "install an init that is built for this machine, and sign it"
    }

    // Why appraisal denies a file.
    ROOT_NOEXEC [SwitchRootDenied InitDenied InterpreterDenied] {
        cause: "rootflags= says noexec, with which the kernel executes nothing of the root"
        remedy: "take noexec out of rootflags="
    }
    NO_SECURITY_EVM [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "it has no security.evm, and EVM is on (the initramfs has a certificate or the HMAC key for it)"
    }
    UNSIGNED [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "it is unsigned: it has no security.ima"
    }
    NO_XATTRS [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its file system keeps no extended attributes, so it can have no signature"
    }
    SIGNATURE_UNREADABLE [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its security.ima cannot be read: {error}"
    }
    SIGNATURE_MALFORMED [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its security.ima is no signature: {error}"
    }
    HASH_ONLY [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its security.ima holds a hash only, no signature"
    }
    SIGNATURE_KIND [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its security.ima is of a kind that this policy does not take"
    }
    SIGNER_NOT_ON_KEYRING [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "it is signed with key id {id}, which is not on the keyring (there is {ids})"
    }
    FILE_UNREADABLE [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "it cannot be read: {error}"
    }
    CHANGED_AFTER_SIGNING [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "it was changed after it was signed (or the signature is damaged)"
    }
    SIGNATURE_UNVERIFIABLE [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "its signature cannot be verified: {error}"
    }
    DENIAL_LOGGED [SwitchRootDenied InitDenied InterpreterDenied FrontedInitDenied HandoverExec RootPolicyRefused] {
        cause: "the kernel says {words}"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::super::Fault;
    use super::*;

    #[test]
    fn every_cause_has_a_code_and_a_text_of_its_own() {
        let mut seen = HashSet::new();
        for ((codes, cause), name) in Cause::ALL.iter().zip(Cause::NAMES) {
            assert!(!codes.is_empty(), "{name}");
            assert!(seen.insert((cause.text(), cause.remedy())), "{name} twice");
            assert_eq!(cause.codes(), *codes, "{name}");
        }
    }

    #[test]
    fn texts_are_whole_phrases_without_a_final_stop() {
        for (_, cause) in Cause::ALL {
            for text in [Some(cause.text()), cause.remedy()].into_iter().flatten() {
                assert!(text.len() > 7, "{text}");
                assert!(!text.ends_with('.') || text.ends_with("..."), "{text}");
                assert!(
                    !text.starts_with(|letter: char| letter.is_ascii_uppercase())
                        || text.starts_with("CONFIG_")
                        || text.chars().nth(1).is_some_and(char::is_uppercase),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn names_in_braces_are_words() {
        for (_, cause) in Cause::ALL {
            for text in [Some(cause.text()), cause.remedy()].into_iter().flatten() {
                for (at, part) in text.split('{').enumerate() {
                    let name = part.split_once('}').map(|(name, _)| name);
                    let is_word = |name: &str| {
                        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
                    };
                    assert_eq!(name.is_some_and(is_word), at > 0, "{text}");
                }
            }
        }
    }

    #[test]
    fn values_are_filled_in_by_the_first_place_of_their_names() {
        let found = Cause::MASTER_KEY_MISSING.with(&["user:kmk", "/etc/keys/kmk"]);
        assert_eq!(
            found.to_string(),
            "its master key user:kmk is not in the initramfs"
        );
        assert_eq!(
            found.remedy(),
            Some("put it there as /etc/keys/kmk, or have dracut's module masterkey load it")
        );
        let again = Cause::PARTITION_TABLE_ABSENT.with(&["vda"]);
        assert_eq!(
            again.remedy(),
            Some("name the whole disk, root=/dev/vda, or write the partitioned image to it")
        );
    }

    #[test]
    fn two_causes_are_joined() {
        let found = Explanation::from(Cause::UNSIGNED).and(Cause::DENIAL_LOGGED.with(&["no"]));
        let fault = Fault::new(Code::InitDenied, "/sbin/init").because(found);
        assert_eq!(
            fault.cause(),
            "it is unsigned: it has no security.ima; the kernel says no"
        );
        assert_eq!(fault.found(), Some(Cause::UNSIGNED));
        assert_eq!(fault.remedy(), Code::InitDenied.entry().remedy);
    }

    #[test]
    #[should_panic(expected = "IMA-602")]
    fn a_cause_is_refused_under_a_code_that_does_not_list_it() {
        let _ = Fault::new(Code::PolicyEmpty, "").because(Cause::UNSIGNED);
    }

    /// The sources of the programs, without this file.
    fn sources(directory: &Path, found: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("fault/cause.rs")
            {
                found.push_str(&std::fs::read_to_string(&path).expect("a source file"));
            }
        }
    }

    #[test]
    fn every_cause_is_named_by_some_program() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut text = String::new();
        for directory in ["src", "crates"] {
            sources(&top.join(directory), &mut text);
        }
        let named: HashSet<&str> = text
            .split("Cause::")
            .skip(1)
            .filter_map(|rest| {
                rest.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric())
                    .next()
            })
            .collect();
        for name in Cause::NAMES {
            assert!(named.contains(name), "no program names Cause::{name}");
        }
    }
}
