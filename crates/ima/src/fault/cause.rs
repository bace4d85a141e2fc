//! The causes that are found out: what the catalogue says of a code's cause once the machine, the file or the option was
//! looked at.
//!
//! Each is listed with the codes that it explains and, where the code's own remedy does not fit, with one that does. Words in
//! braces stand for the values that were met; [`Cause::with`] fills them in.

use std::borrow::Cow;
use std::fmt;

use super::{Code, explanation};

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
        debug_assert!(
            names.len() == values.len() || !cfg!(feature = "explanations"),
            "{self:?}"
        );
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
    #[inline(never)]
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
                    text: explanation($text),
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
    (@remedy $remedy:literal) => { Some(explanation($remedy)) };
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
    NO_UBI [RootMissing] {
        cause: "the kernel has no UBI: CONFIG_MTD_UBI is not set, it is a module that the initramfs does not load, or initcall_blacklist= leaves it out"
        remedy: "boot a kernel with CONFIG_MTD_UBI=y, or load its module: imactl initramfs --module"
    }
    NO_UBI_DEVICE [RootMissing] {
        cause: "UBI has no device of the number {number}: no flash device is attached to it, or the kernel found no UBI on the one that ubi.mtd= names"
        remedy: "add ubi.mtd=NAME to the kernel command line, with the name or the number of the flash device in /proc/mtd; see the kernel's messages above if it is there"
    }
    NO_UBI_VOLUME [RootMissing] {
        cause: "the UBI device is there and has no such volume"
        remedy: "correct the name in root=, or make the volume (ubinize, ubimkvol)"
    }
    ROOT_NOT_VERIFIED [RootSyntax] {
        cause: "verity= or luks= is set, and both need a block device: a UBI volume, a shared directory or one of NFS is none"
        remedy: "name a block device, for UBI that of a volume with a read-only file system (ubi.block=0,NAME root=/dev/ubiblock0_0); or take these keys out of ima-init.conf"
    }
    SHARED_ROOT_ON_COMMAND_LINE [RootSyntax] {
        cause: "a directory that the host or an NFS server shares is taken from the configuration alone: who serves it can answer each read differently, and so run what is not signed"
        remedy: "set root= in ima-init.conf, for development"
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
    NETWORK_NOT_SET_UP [RootMount] {
        cause: "the kernel has no network: ip= is not on its command line"
        remedy: "add ip=dhcp, or ip= with the addresses; the kernel needs CONFIG_IP_PNP and the driver of the network card built in"
    }
    FILE_SYSTEM_UNKNOWN [RootMount OverlayRefused] {
        cause: "the kernel does not know the file system {type}"
        remedy: "build it into the kernel, or pack its module: imactl initramfs --module {type}.ko"
    }

    // A composefs root.
    COMPOSEFS_FILE_SYSTEM_UNKNOWN [ComposefsKernel] {
        cause: "the kernel does not know the file system {type}"
        remedy: "build it into the kernel (CONFIG_OVERLAY_FS=y, CONFIG_EROFS_FS=y), or pack its module: imactl initramfs --module {type}.ko"
    }
    COMPOSEFS_NOT_FROM_A_FILE [ComposefsKernel] {
        cause: "the kernel mounts erofs from block devices only"
        remedy: "boot a kernel from 6.12 on with CONFIG_EROFS_FS_BACKED_BY_FILE=y"
    }
    COMPOSEFS_OVERLAY_OPTION [ComposefsKernel] {
        cause: "its overlayfs does not take the option {option}"
        remedy: "boot a kernel from 6.12 on"
    }
    COMPOSEFS_OTHER_DIGEST [ComposefsDigest] {
        cause: "its fs-verity digest is {found}: image and initramfs are not of the same build, or somebody made another image"
        remedy: "set composefs_digest= to the digest of this image, if it is the right one; or write the right image"
    }
    COMPOSEFS_WITHOUT_VERITY [ComposefsDigest] {
        cause: "fs-verity is not enabled on it"
        remedy: "enable it: fsverity enable IMAGE; the same for each object"
    }
    COMPOSEFS_VERITY_UNSUPPORTED [ComposefsDigest] {
        cause: "the file system has no fs-verity, or the kernel was built without CONFIG_FS_VERITY"
        remedy: "use ext4 with the feature verity (tune2fs -O verity), btrfs or f2fs, and a kernel with CONFIG_FS_VERITY=y"
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
        cause: "the kernel takes no such certificate for signing files: {defect}"
        remedy: "use a certificate of its own for signing files: keyUsage digitalSignature alone, no CA bit (imactl keygen makes one)"
    }
    ISSUER_NOT_TRUSTED [CertificateRefused] {
        cause: "its issuer, {issuer}, is not among the CAs that this kernel trusts: {trusted}"
    }
    ISSUER_ON_PLATFORM [CertificateRefused] {
        cause: "its issuer, {issuer}, is on the keyring .platform alone, whose keys vouch for no other certificate: there are the keys of the firmware's db, and the machine owner keys (MOK) that CONFIG_INTEGRITY_CA_MACHINE_KEYRING keeps off .machine"
        remedy: "give the CA a certificate with CA:TRUE and keyCertSign, and without digitalSignature for CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX, and enrol that; or put it into the kernel (imactl kernel add-ca)"
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
        cause: "the kernel cannot parse an extension of it: {defect}"
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
    EVM_SIGV3_UNKNOWN [EvmOff] {
        cause: "evm_sigv3=yes in ima-init.conf, and this kernel, older than 7.1, has no such mode of EVM"
        remedy: "boot a kernel from 7.1 on, or set evm_sigv3=no"
    }
    MASTER_KEY_MISSING [EvmKeyRefused] {
        cause: "its master key {master} is not in the initramfs"
        remedy: "put it there as {file}, or have dracut's module masterkey load it"
    }
    MASTER_KEY_DIFFERS [EvmKeyRefused] {
        cause: "it was sealed with another master key of the name {master}, or it is damaged"
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
    SYSTEMD_IS_RUNNING [NoScriptControl] {
        cause: "the systemd of the initramfs is PID 1 already, and the init cannot set the bits of another process"
        remedy: "make the initramfs without systemd (omit_dracutmodules in dracut.conf), or take script_control= out of ima-init.conf and set SecureBits= in the units of the real system"
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
        cause: "its security.ima is not a signature: {error}"
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

    // imactl: keys, tokens and signatures.
    OLD_KEY_ENCRYPTION [PrivateKeyMalformed] {
        cause: "the key is encrypted in a form that imactl does not decrypt"
        remedy: "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"
    }
    PUBLIC_HALF_UNKNOWN [PrivateKeyMalformed] {
        cause: "the private key file lacks the public key, or the key is of a kind that imactl does not use (it uses RSA, P-256, P-384 and P-521)"
        remedy: "give the key's certificate, or put the public key into the token too"
    }
    PIN_WRONG [KeyPassword] {
        cause: "the PIN is wrong; the token locks itself after a few wrong ones"
        remedy: "give it with pin-source= in the URI, or at the prompt"
    }
    PIN_LOCKED [KeyPassword] {
        cause: "the token has locked itself after too many wrong PINs"
        remedy: "set a new PIN with the security officer's: pkcs11-tool --init-pin"
    }
    KEYS_DIFFER [KeyMismatch] {
        cause: "the private key is {kind}, and its public key is another"
    }
    TRIAL_SIGNATURE_BAD [KeyMismatch] {
        cause: "a trial signature is not one by the certificate's key: {error}"
    }
    KEY_KIND_UNUSED [CertificateUnusable] {
        cause: "its key is {kind}; imactl uses {used}"
    }
    KEY_NOT_VERIFIABLE [CertificateUnusable] {
        cause: "the kernel verifies no signature of this key: {defect}"
        remedy: "sign with another key: imactl keygen --type rsa3072, or p256"
    }
    SHORT_SKID [CertificateUnusable] {
        cause: "it has no subject key identifier of four bytes or more"
    }
    NOT_A_CA [CertificateUnusable] {
        cause: "what is built into the kernel decides which certificates it accepts; a leaf can sign none"
        remedy: "give the certificate of the CA that signed it"
    }
    NO_CERTIFICATE_FILES [CertificateUnusable] {
        cause: "no file in the directory ends in .der, .pem, .crt or .cer"
    }
    ONLY_CAS [CertificateUnusable] {
        cause: "all of them are CA certificates, and no CA signs files"
        remedy: "give the signing key's certificate, the CA that signed it, and those between them"
    }
    NO_CHAIN [CertificateUnusable] {
        cause: "no chain leads from them to a CA that was given: {reason}"
        remedy: "give the signing key's certificate, the CA that signed it, and those between them"
    }
    DIGEST_TOO_WEAK [SigningFailed] {
        cause: "it is too weak: two contents with the same digest can be made"
    }
    DIGEST_NOT_COMPUTED [SigningFailed] {
        cause: "imactl does not compute digests of this algorithm"
    }
    DIGEST_LENGTH [SigningFailed] {
        cause: "a digest of {algorithm} has {length} bytes"
    }
    DIGEST_NOT_OF_VERITY [SigningFailed] {
        cause: "the kernel's fs-verity has sha256 and sha512"
        remedy: "use sha256 or sha512"
    }
    COMMAND_NOT_RUN [SigningFailed] {
        cause: "the signing command cannot be run: {error}"
        remedy: "run the command by hand with an algorithm and a digest, such as: sha256 followed by 64 digits"
    }
    COMMAND_FAILED [SigningFailed] {
        cause: "the signing command ended with {status}: {words}"
        remedy: "run the command by hand with an algorithm and a digest, such as: sha256 followed by 64 digits"
    }
    COMMAND_SIGNATURE_BAD [SigningFailed] {
        cause: "what the signing command wrote is not a signature by the certificate's key: {error}"
        remedy: "run the command by hand with an algorithm and a digest, such as: sha256 followed by 64 digits"
    }
    TOKEN_DOES_NOT_SIGN [SigningFailed] {
        cause: "the token says: {error}"
        remedy: "look what the token can do: pkcs11-tool --module MODULE --list-mechanisms; does the key want its PIN each time?"
    }
    BUILT_WITHOUT_PKCS11 [TokenUnusable] {
        cause: "this imactl was built without the feature pkcs11"
        remedy: "build it with the feature, or sign with a command"
    }
    MODULE_NOT_LOADED [TokenUnusable] {
        cause: "the token's module cannot be loaded: {error}"
        remedy: "name the token's module in the URI: ?module-path=/usr/lib/softhsm/libsofthsm2.so"
    }
    NO_TOKEN [TokenUnusable] {
        cause: "the module has no token that is initialized"
        remedy: "plug it in, or see that this user may use it: pkcs11-tool --module MODULE --list-slots"
    }
    OTHER_TOKENS [TokenUnusable] {
        cause: "there is: {labels}"
        remedy: "name one of them in the URI: pkcs11:token=LABEL"
    }
    SEVERAL_TOKENS [TokenUnusable] {
        cause: "the URI fits several: {labels}"
        remedy: "name one in the URI: pkcs11:token=LABEL;serial=NUMBER"
    }
    NO_PRIVATE_KEY [TokenUnusable] {
        cause: "it has no private key of that label or id"
        remedy: "list them: pkcs11-tool --module MODULE --login --list-objects --type privkey"
    }
    SEVERAL_PRIVATE_KEYS [TokenUnusable] {
        cause: "the URI fits {number} private keys"
        remedy: "name one in the URI: object=LABEL or id=%01"
    }

    // imactl: the kernel and its keyrings, as the host sees them.
    CA_CANNOT_VERIFY [CertificateRefused] {
        cause: "the kernel cannot verify what `{issuer}` signed: {reason}"
    }
    ISSUER_IN_NAME_ONLY [CertificateRefused] {
        cause: "it names a CA of the kernel's as its issuer, but the signature in it is not of that CA's key"
    }
    ISSUER_NOT_IN_KERNEL [CertificateRefused] {
        cause: "its issuer, {issuer}, is not among the CAs of this kernel: {known}"
    }
    MOK_NO_KEYRING [CertificateRefused SetupUnfit] {
        cause: "this kernel takes no machine owner key (MOK) as a CA: it was built without CONFIG_{option}"
        remedy: "use a kernel that was built with it, or put the CA into the kernel: imactl kernel add-ca"
    }
    MOK_NOT_TAKEN [CertificateRefused SetupUnfit] {
        cause: "this kernel does not take the machine owner key (MOK) `{subject}` as a CA: {why}"
        remedy: "enrol a CA with basicConstraints CA and the keyUsage keyCertSign alone, as imactl keygen makes it"
    }
    KERNEL_TOO_OLD [CertificateRefused] {
        cause: "this kernel is too old for it: {reason}"
        remedy: "use a newer kernel, or another kind of key"
    }
    LEAF_NOT_TAKEN [CertificateRefused] {
        cause: "the kernel takes it on no trusted keyring: {defect}"
    }
    LEAF_VERIFIES_NOTHING [CertificateRefused] {
        cause: "the kernel takes it and verifies no signature with it: {defect}"
    }
    ROOT_ONLY [CertificateRefused] {
        cause: "only root may write this keyring"
        remedy: "run it as root"
    }
    KEYRING_PERMISSIONS [CertificateRefused] {
        cause: "the permissions of the keyring do not let this process write it"
        remedy: "see its permissions in /proc/keys; a keyring of another session is written from there"
    }
    KEYRING_NOT_BUILT_IN [KeyringUnusable] {
        cause: "this kernel was built without it; only the kernel makes keyrings whose name begins with a dot"
        remedy: "see what there is with imactl keys; imactl kernel check says what the kernel lacks"
    }
    NO_SUCH_KEYRING [KeyringUnusable] {
        cause: "there is no keyring of that name that this user can see"
        remedy: "make it: keyctl newring {name} @u"
    }
    INITCALL_LEFT_OUT [NoSecurityfs NoIma NoImaKeyring CertificateRefused RootMissing RootMount VerityTarget LuksTarget ComposefsKernel] {
        cause: "the command line keeps the kernel from initialising it"
        remedy: "remove it from initcall_blacklist="
    }
    SYMBOLS_OF_OTHER_KERNEL [KernelImage] {
        cause: "the description of the room belongs to another kernel"
    }
    NOT_A_KERNEL_IMAGE [KernelImage] {
        cause: "imactl reads vmlinux, bzImage of x86, Image and Image.gz of arm64 and RISC-V, and zImage of 32-bit Arm"
        remedy: "give the vmlinux of the build, or its bzImage, Image, Image.gz or zImage; imactl check takes a unified kernel image with --uki, and objcopy -O binary --only-section=.linux takes the kernel out of one"
    }
    KERNEL_NOT_GZIP [KernelImage] {
        cause: "only gzip is packed again so that it fits in the old room"
        remedy: "build the kernel with CONFIG_KERNEL_GZIP=y"
    }
    NO_SYMBOLS [KernelImage] {
        cause: "the room is found by the kernel's symbols, or by the description of it that the build left"
        remedy: "give the description that the kernel's build left, extra-cert.json"
    }
    NOT_A_CONFIGURATION [KernelConfiguration] {
        cause: "the file is not a kernel configuration, plain or compressed with gzip"
        remedy: "give a .config file"
    }
    KERNEL_FOR_CONFIGURATION [KernelConfiguration] {
        cause: "the file is not a kernel configuration, plain or compressed with gzip"
        remedy: "give the kernel's .config, which scripts/extract-ikconfig takes out of a kernel with CONFIG_IKCONFIG; imactl check takes vmlinux, bzImage, Image and Image.gz too, and a unified kernel image with --uki; objcopy -O binary --only-section=.linux takes the kernel out of one"
    }
    NO_RUNNING_CONFIGURATION [InputUnreadable] {
        cause: "there is neither /proc/config.gz (CONFIG_IKCONFIG_PROC) nor a file in /boot"
        remedy: "give the kernel's .config"
    }

    // imactl: modules.
    NOT_A_MODULE [InputUnreadable] {
        cause: "the file is not a kernel module, or cannot be unpacked"
        remedy: "give a .ko file"
    }
    NO_SUCH_MODULE [InputUnreadable] {
        cause: "the name is wrong, or the module is built into the kernel (see modules.builtin) and need not be loaded"
        remedy: "leave it out if it is built in"
    }
    MODULE_DEPENDENCY_MISSING [InitramfsRefused] {
        cause: "another module needs it, and it was not given"
        remedy: "give the modules that a module depends on too"
    }
    MODULE_DEPENDS_ON_ITSELF [InitramfsRefused] {
        cause: "it depends on itself"
        remedy: "take the modules from the build of one kernel"
    }
    MODULE_NOT_UNPACKED [ModuleRefused] {
        cause: "it cannot be unpacked: {error}"
    }
    MODULE_WITHOUT_SUFFIX [ModuleRefused] {
        cause: "it is compressed with {packing}, and its name does not end in .gz, .xz or .zst"
    }
    MODULE_SUFFIX_WRONG [ModuleRefused] {
        cause: "its name ends in {suffix}, and it is not compressed so"
    }
    MODULE_DECOMPRESSION [ModuleRefused] {
        cause: "it is compressed, and CONFIG_{option} is not set"
    }
    MODULE_TRUNCATED [ModuleRefused] {
        cause: "it is not a kernel module, or it was cut short"
    }
    NO_MODULES [ModuleRefused] {
        cause: "this kernel takes no modules: CONFIG_MODULES is not set"
    }
    MODULE_UNSIGNED [ModuleRefused] {
        cause: "it has no signature, and CONFIG_MODULE_SIG_FORCE is set"
    }
    MODULE_ORDER [ModuleRefused] {
        cause: "it needs the module {module}, which is not before it in modules="
    }
    MODULE_VERMAGIC [ModuleRefused] {
        cause: "it is made for `{magic}`, and this kernel is `{kernel}`"
    }

    // imactl: images.
    LAYER_OF_AN_OVERLAY [ImageContent] {
        cause: "it is a whiteout, or has an attribute of overlayfs: in a composefs it would hide or exchange a file"
        remedy: "take what the overlay shows, not its layers: copy the files from where it is mounted"
    }

    // imactl: the root and its disk.
    NO_PARTITION_OF_THIS_NAME [RootMissing] {
        cause: "no partition of the image answers to that name"
        remedy: "correct root=, or the names of the partitions"
    }
    WHOLE_DISK [RootUnknown] {
        cause: "the file systems are in its partitions"
        remedy: "name a partition: the number behind the disk's name, or PARTUUID="
    }
    SEVERAL_FILE_SYSTEMS [Usage] {
        cause: "it has more than one file system, and nothing says which is the root"
        remedy: "give the kernel command line with root=PARTUUID=..."
    }
    NO_BLOCK_DEVICE_IN_PARTITIONS [Usage] {
        cause: "root= names no block device, and this is the image of a disk with a partition table"
        remedy: "give the directory or the archive that the root is made of, and the type of its file system"
    }
    DEVICE_NUMBER_UNKNOWN [Usage] {
        cause: "device numbers with this major are assigned in the order in which devices appear, so an image cannot show which device has this number"
        remedy: "name the partition by PARTUUID=, or give an image of it alone"
    }
    DRIVER_NOT_SET [RootMissing RootMount VerityTarget OverlayRefused LuksTarget ComposefsKernel] {
        cause: "CONFIG_{option} is not set"
    }
    DRIVER_NOT_LOADED [RootMissing RootMount VerityTarget OverlayRefused LuksTarget ComposefsKernel] {
        cause: "CONFIG_{option} is m, and the initramfs does not load the module {module}"
    }
    VERITY_HASH_NOT_SET [VerityTable] {
        cause: "CONFIG_{option} is not set: the kernel does not have the hash algorithm of the tree"
        remedy: "build the kernel with it, or make the tree with another algorithm (SHA-256 is the usual one)"
    }
    VERITY_TREE_UNREADABLE [VeritySuperblock] {
        cause: "the device of the hash tree could not be read"
        remedy: "see the kernel's messages above; replace the medium"
    }
    VERITY_NOT_IN_KERNEL [VerityTarget] {
        cause: "CONFIG_DM_VERITY is not set, or it is a module that the initramfs does not load"
    }
    VERITY_OTHER_ALGORITHM [VeritySuperblock] {
        cause: "digests of {algorithm} have {length} bytes, and the configured root hash has {configured}"
        remedy: "set verity= to the root hash that was printed when this tree was made"
    }
    VERITY_DATA_TOO_SHORT [VeritySuperblock] {
        cause: "the tree is for {bytes} bytes, and there are {room}"
        remedy: "write image and tree to the disk again, whole and from the same run"
    }
    VERITY_TREE_CUT [VeritySuperblock] {
        cause: "the tree ends at byte {end}, and the device has {length}"
        remedy: "write image and tree to the disk again, whole and from the same run"
    }
    VERITY_PARTITION [VerityTreeMissing] {
        cause: "no partition or more than one has the name of the hash tree's"
        remedy: "correct verity_hash=, or the names of the partitions"
    }
    SIGNER_WITHOUT_CERTIFICATE [Usage] {
        cause: "the certificate of the key is part of the signature"
        remedy: "give the certificate too"
    }
    PROCESSOR_WITHOUT_PARTITION_TYPE [VeritySignatureMissing] {
        cause: "the Discoverable Partitions Specification has no type for partitions of this processor's architecture"
        remedy: "name the partition or disk of the signed root hash with verity_signature= in ima-init.conf"
    }
    SIGNED_ROOT_HASH_UNREADABLE [VeritySignature] {
        cause: "the device of the signed root hash could not be read"
        remedy: "see the kernel's messages above; replace the medium"
    }
    SIGNER_REVOKED [VeritySignature] {
        cause: "{revoked}"
        remedy: "sign the root hash with another key"
    }
    SIGNATURE_OF_ANOTHER_ROOT_HASH [VerityUntrusted] {
        cause: "the signature is not one of this root hash: {error}"
        remedy: "write image, tree and signature of the same run to the disk"
    }
    SIGNER_UNKNOWN [VerityUntrusted] {
        cause: "the signature is by {signer}, and no certificate on the kernel's built-in, secondary or .dm-verity keyring is its own or its issuer's"
    }
    NO_VERITY_KEYRING [VerityKeyringClosed] {
        cause: "the kernel has no keyring .dm-verity: it is older than Linux 7.0, or was built without CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG, or dm-verity is a module that the initramfs does not load"
        remedy: "boot Linux 7.0 or later with CONFIG_DM_VERITY=y and CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG=y, and dm_verity.keyring_unsealed=1 on the command line; or have the CA in the kernel sign the certificate of the signer, and remove these files"
    }
    VERITY_KEYRING_SEALED [VerityKeyringClosed] {
        cause: "the kernel sealed .dm-verity when it made it: dm_verity.keyring_unsealed=1 is not on the command line, or dm-verity is a module, which gets no parameters from there"
        remedy: "boot a kernel with CONFIG_DM_VERITY=y, and add dm_verity.keyring_unsealed=1 to its command line; the init seals the keyring when it has added the certificates"
    }
    VERITY_KEYRING_NOT_SEALED [KeyringUnusable] {
        cause: "the kernel left .dm-verity unsealed, and the init could not seal it, so that root could add certificates to it; another program put a restriction on it before the init, or the kernel does not show it"
        remedy: "take dm_verity.keyring_unsealed= off the kernel command line, and start nothing in the initramfs before the init"
    }
    VERITY_KEYRING_NOT_EMPTY [KeyringUnusable] {
        cause: "there were keys on .dm-verity before the init added any: another program added them, and root hashes that they signed would be accepted"
        remedy: "start nothing in the initramfs before the init; give it the certificates (imactl initramfs --verity-cert)"
    }
    SIGNATURES_NOT_IN_KERNEL [VerityTarget] {
        cause: "the kernel was built without CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG, and verity=signed is set"
        remedy: "boot a kernel with CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG=y"
    }
    FEC_NOT_IN_KERNEL [VerityTarget] {
        cause: "the kernel was built without CONFIG_DM_VERITY_FEC, and verity_fec= or verity_fec_offset= is set"
        remedy: "boot a kernel with CONFIG_DM_VERITY_FEC=y, or take these keys out of ima-init.conf"
    }
    FEC_NOT_IN_BLOCKS [VerityTable] {
        cause: "verity_fec_offset= is not a multiple of the length of a block, or lies before the end of the hash tree on the same device"
        remedy: "set it to what veritysetup format was given as --fec-offset="
    }
    ROOT_OF_A_SLOT [CmdlineIgnored] {
        cause: "slots= in ima-init.conf is set: the root is that of a slot"
        remedy: "choose the slot on the command line with ima_init.slot="
    }
    UNKNOWN_SLOT [CmdlineInvalid] {
        cause: "slots= in ima-init.conf has no such name, but {names}"
        remedy: "have the boot loader give one of these names"
    }
    OVERLAY_WITHOUT_XATTRS [OverlayRefused] {
        cause: "this file system keeps no extended attributes, in which overlayfs marks what is deleted"
        remedy: "use ext4, xfs, btrfs or f2fs for the layer"
    }
    OVERLAY_WITHOUT_DIRECTORY [OverlayRefused] {
        cause: "it is not a directory, but a link or a file that somebody put there"
        remedy: "find out who wrote to this file system; make it anew, or set overlay_wipe=yes"
    }
    OVERLAY_ELSEWHERE [VerityElsewhere] {
        cause: "overlay= and slots= in ima-init.conf are for an initramfs whose /init is ima-init"
        remedy: "make the initramfs with imactl initramfs; or take these keys out of ima-init.conf"
    }
    REFUSED_ROOT_IN_USE [RootMount] {
        cause: "the root of another slot was refused before, and it could not be unmounted"
        remedy: "see above why that root was refused; boot the other slot first: ima_init.slot="
    }
    LUKS_CONTAINER [RootUnknown] {
        cause: "it is a LUKS container, and imactl does not look inside"
        remedy: "give the image or directory that is encrypted in it; what luks=yes needs of the kernel is checked all the same"
    }
    LUKS_TOKEN_MALFORMED [LuksToken] {
        cause: "the token of the type systemd-tpm2 is not as systemd-cryptenroll writes it for a policy over PCRs, or was sealed for the TPM on another machine"
    }
    LUKS_TOKEN_DEMANDS [LuksToken] {
        cause: "the init cannot ask for a PIN and has no signatures of PCR values: it unlocks only with a policy over the values of PCRs"
    }
    LUKS_OTHER_TPM [LuksPolicy] {
        cause: "the key was sealed by another TPM, or this one was cleared since, or the token is damaged"
    }
    LUKS_TPM_REFUSES [LuksPolicy] {
        cause: "the TPM refused a command: it may be locked after failed authorizations (0x921), the owner hierarchy may have a password, or the storage root key was removed"
    }
    NO_TPM_2 [NotMeasured] {
        cause: "only a TPM 2.0 that has a driver has this device: there is none, it is disabled in the firmware, it is a TPM 1.2, or its driver is a module"
    }
    ROOT_IS_VERIFIED [CmdlineIgnored] {
        cause: "the root is verified or encrypted: only ima-init.conf says what is mounted, and how"
        remedy: "take it off the command line; set rootfstype= or rootflags= in ima-init.conf if needed"
    }
    NO_IMAGE_FILE [ImageContent] {
        cause: "a hash tree is made over the image of a file system"
        remedy: "give the image's file"
    }
    NOT_WHOLE_BLOCKS [ImageContent] {
        cause: "dm-verity verifies whole blocks, and the rest would be cut off"
        remedy: "lengthen it: truncate -s %4096 {image}"
    }
    NO_TREE_OF_IT [ImageContent] {
        cause: "no hash tree for dm-verity can be made with these parameters"
        remedy: "give an image with content, and a salt of at most 256 bytes"
    }
    PARTITION_TABLE_NOT_SET [RootMissing] {
        cause: "CONFIG_{option} is not set: the kernel makes no partitions of the disk"
    }
    FEATURE_NOT_SET [RootMount] {
        cause: "{feature}, needs CONFIG_{option}, which is not set"
        remedy: "build the kernel with what is missing, or make the file system without it"
    }
    BLOCKS_LARGER_THAN_PAGES [RootMount] {
        cause: "its blocks have {size} bytes, and a page of this kernel's memory has {page}"
        remedy: "build the kernel with what is missing, or make the file system without it"
    }
    OTHER_TYPE [RootMount] {
        cause: "the root's file system is of another type than rootfstype= says"
        remedy: "correct rootfstype=, or leave it out: the type is recognised"
    }
    DAMAGED_OR_NEWER [RootMount] {
        cause: "the image is damaged, or newer than the kernel"
    }
    MOUNT_OPTION [RootMount] {
        cause: "the kernel refuses this mount option: {reason}"
        remedy: "correct rootflags="
    }
    SYSTEMD_RULE [SystemdPolicy] {
        cause: "the kernel refuses a rule: {error}"
    }
    SYSTEMD_POLICY_NOT_GOOD [SystemdPolicy] {
        cause: "the policy in force appraises policies, and this one is not good: {verdict}"
    }
    SYSTEMD_POLICY_WITHOUT_NEWLINE [SystemdPolicy] {
        cause: "the kernel takes no policy whose last line has no newline"
    }
    SYSTEMD_STOPS [SystemdPolicy] {
        cause: "systemd stops the boot: Failed to load IMA policy"
    }
    INTERPRETER_NOT_PACKED [InitramfsRefused] {
        cause: "it needs {interpreter}, which is not in the initramfs; the kernel would panic"
    }

    // imactl: files, archives and images.
    TOO_LONG [InputUnreadable] {
        cause: "it is longer than {limit} bytes, the most that imactl reads"
    }
    NO_INODE_GENERATIONS [InputUnreadable] {
        cause: "the file system has no inode generations"
    }
    DPKG_STOPPED [OutputUnwritable] {
        cause: "dpkg, which unpacks the package, does not read on"
        remedy: "see what dpkg printed"
    }
    PRIVATE_KEY_THERE [OutputUnwritable] {
        cause: "a private key that is overwritten is lost"
        remedy: "choose another directory"
    }
    TARGET_THERE [OutputUnwritable] {
        cause: "it is there already"
        remedy: "name another directory"
    }
    IMMUTABLE [XattrUnwritable] {
        cause: "the file is immutable or append-only (chattr +i, +a): nobody can change anything of it, not even root"
        remedy: "take the attribute away while it is signed: chattr -i -a FILE"
    }
    NO_CAPABILITY [XattrUnwritable] {
        cause: "writing security.ima needs CAP_SYS_ADMIN"
    }
    NO_SUCH_XATTRS [XattrUnwritable] {
        cause: "the file system has no extended attributes, or none of that name"
    }
    READ_ONLY [XattrUnwritable] {
        cause: "the file system is mounted read-only"
    }
    NO_ROOM_FOR_XATTR [XattrUnwritable] {
        cause: "there is no room for the attribute: the file system is full, its inodes are too small, or the signature is too long for it"
        remedy: "make room; ext4 takes signatures of ML-DSA-87, and both attributes of ML-DSA-65, only with the feature ea_inode: tune2fs -O ea_inode"
    }
    ACL_AS_TEXT [SourceMalformed] {
        cause: "imactl reads ACLs as extended attributes only; an image without them would let the group do more"
        remedy: "make the archive with: tar --xattrs --xattrs-include='*', not --acls"
    }
    NOT_A_WHITEOUT [SourceMalformed] {
        cause: "names that begin with .wh. are those of whiteouts in the layers of an OCI image, and this is none: {reason}"
        remedy: "take it out of the archive, or give it another name"
    }
    OLD_SPARSE_FORM [SourceMalformed] {
        cause: "it is stored in an old form of the PAX format"
        remedy: "make the archive with --sparse-version=1.0, or without --sparse"
    }
    TYPE_NOT_READ [SourceMalformed] {
        cause: "imactl does not read file systems of this type without mounting them"
        remedy: "mount it and give the directory, or a tar archive of it (tar --xattrs --xattrs-include='*' --format=pax)"
    }
    NOT_AN_IMAGE [SourceMalformed] {
        cause: "it is not an image of a file system that imactl knows"
        remedy: "give an image of ext4, squashfs or erofs; a directory is signed with imactl sign"
    }
    SEVERAL_SUPERBLOCKS [SourceMalformed] {
        cause: "an older file system's superblock was not wiped when this one was made"
        remedy: "wipe the old one (wipefs)"
    }
    DAMAGED [SourceMalformed] {
        cause: "it is damaged, or uses something of {type} that imactl does not read"
        remedy: "check it with {command}; if that finds nothing, mount it and give the directory"
    }
    CHECK_FINDS_ERRORS [SourceMalformed] {
        cause: "it says: {words}"
        remedy: "repair it first (e2fsck -fy for ext4), and see all of it with: {command}"
    }
    JOURNAL_NOT_REPLAYED [SourceMalformed] {
        cause: "it was not unmounted cleanly, and e2fsck says: {words}"
        remedy: "repair it: e2fsck -fy IMAGE"
    }
    EXTERNAL_JOURNAL [SourceMalformed] {
        cause: "a journal on a device of its own has no files"
        remedy: "mount it and give the directory"
    }
    UNKNOWN_FEATURES [SourceMalformed] {
        cause: "it is damaged, or made for a newer kernel: no kernel up to 6.12 mounts it"
        remedy: "mount it and give the directory"
    }
    TOO_MANY_ATTRIBUTES [SourceMalformed] {
        cause: "this is a limit of imactl, far above what an image has"
        remedy: "mount it and give the directory"
    }
    ENCRYPTED_FILES [SourceMalformed] {
        cause: "the names and the content of encrypted files are to be had only with their key, by the kernel"
        remedy: "mount it and give the directory"
    }
    IMAGE_PROGRAM_MISSING [ToolMissing] {
        cause: "{program} writes or checks images of this kind"
        remedy: "install {package}"
    }
    NO_ROOM_FOR_SIGNATURES [ImageTooSmall] {
        cause: "a signature that does not fit into its inode takes a block of its own: {words}"
        remedy: "make the image larger first: truncate -s SIZE IMAGE, then resize2fs IMAGE; or make it anew with imactl image --from IMAGE, which gives inodes the room"
    }
    HOLES_IN_ARCHIVE [ImageContent] {
        cause: "an archive has the holes of files as zeros"
        remedy: "make an image of ext4 or erofs, which have room for holes"
    }
    SOCKET [ImageContent] {
        cause: "it is a socket, which a tar archive cannot hold"
        remedy: "leave it out: programs make their sockets when they start"
    }
    TOO_MANY_LINKS [ImageContent] {
        cause: "ext4 allows 65000 hard links"
    }
    LINK_TARGET_TOO_LONG [ImageContent] {
        cause: "its target is longer than 4095 bytes"
    }
    XATTR_NAME [ImageContent] {
        cause: "ext4 has no place for an attribute of this name"
    }
    XATTRS_TOO_LARGE [ImageContent] {
        cause: "ext4 has one block of 4096 bytes for the attributes of a file; a signature of ML-DSA-87 has 4627, one of ML-DSA-65 3309"
        remedy: "make an image of erofs or squashfs, which have room for them; or sign with smaller signatures"
    }
    LABEL_TOO_LONG [Usage] {
        cause: "a label of {type} has at most 16 bytes"
        remedy: "choose a shorter label"
    }

    // imactl: unified kernel images.
    PE_MALFORMED [UkiStub UkiMalformed] {
        cause: "its headers are not those of a UEFI program: {why}"
    }
    PE_32_BIT [UkiStub UkiMalformed] {
        cause: "it is a program for 32 bits (PE32), and imactl makes and reads those for 64 bits (PE32+)"
    }
    PE_LAYOUT [UkiStub UkiMalformed] {
        cause: "its section {name} overlaps the one before it, or leaves a gap in the file, over which programs that sign and verify disagree"
    }
    PE_TOO_LARGE [UkiInput UkiMalformed] {
        cause: "with it, the image would be larger than 2 GiB"
        remedy: "pack less into the initramfs"
    }
    STUB_SIGNED [UkiStub] {
        cause: "it is signed; the signature does not hold any more when sections are added"
        remedy: "give the stub without a signature, as systemd's build makes it"
    }
    STUB_NO_ROOM [UkiStub] {
        cause: "its headers have room for {room} more sections, and {wanted} are to be added"
        remedy: "leave out sections, or give a stub with larger headers: that of a newer systemd"
    }
    STUB_NOT_SYSTEMDS [UkiStub] {
        cause: "it has no section .sdmagic with the text \"LoaderInfo: systemd-stub\""
    }
    STUB_HAS_SECTION [UkiStub] {
        cause: "it has a section {name}: it is a unified kernel image already"
    }
    UKI_SECTION_TWICE [UkiInput UkiMalformed] {
        cause: "the section {name} is there twice, and which of them is booted depends on the stub"
    }
    UKI_SECTION_PREFIX [UkiInput UkiMalformed] {
        cause: "the stub of systemd 252 takes the section {section} for {name}, since its name begins so"
        remedy: "give it another name"
    }
    UKI_SECTION_NAME [UkiInput] {
        cause: "the name of a section begins with a dot and has at most 8 letters, digits, dots and underscores"
        remedy: "choose another name"
    }
    UKI_SECTION_OWN [UkiInput] {
        cause: "the stub's own section {name} is kept as it is"
        remedy: "leave out this section"
    }
    UKI_SECTION_EMPTY [UkiInput] {
        cause: "the section {name} would be empty, and the stub takes an empty one for none"
        remedy: "leave it out, or give a file that is not empty"
    }
    UKI_SECTION_MISSING [UkiMalformed] {
        cause: "it has no section {name}"
    }
    KERNEL_WITHOUT_EFI_STUB [UkiInput] {
        cause: "the kernel is not a program for UEFI"
        remedy: "give a kernel that was built with CONFIG_EFI_STUB=y: bzImage, or Image on arm64"
    }
    UKI_MACHINES_DIFFER [UkiInput] {
        cause: "the stub is for {stub} and the kernel for {kernel}"
        remedy: "give the stub for the kernel's processor"
    }
    UKI_COMMAND_LINE [UkiInput UkiMalformed] {
        cause: "a command line is text in UTF-8 without control characters"
        remedy: "give the parameters on one line, with blanks between them"
    }
    UKI_UNSIGNED [UkiUntrusted CommandLineOpen] {
        cause: "it has no signature"
    }
    UKI_CHANGED [UkiUntrusted CommandLineOpen] {
        cause: "it is not what was signed: it was changed after it was signed, or damaged"
    }
    UKI_OTHER_KEY [UkiUntrusted CommandLineOpen] {
        cause: "it was signed with the key of `{subject}`, which no given certificate is of, and none signed"
    }
    UKI_REVOKED [UkiUntrusted CommandLineOpen] {
        cause: "its digest {digest} is among those that the firmware refuses (dbx)"
        remedy: "make and sign another image, without what it was revoked for"
    }
    UKI_SIGNER_REVOKED [UkiUntrusted CommandLineOpen] {
        cause: "the certificate `{subject}`, of its signer or of an issuer, is among those that the firmware refuses (dbx)"
        remedy: "sign it with another key whose certificate is in db: imactl uki sign --key KEY --cert CERTIFICATE FILE"
    }
    UKI_GENERATION_REVOKED [UkiUntrusted CommandLineOpen] {
        cause: "shim refuses it by its list of generations (SBAT): its {component} is of generation {generation}, and the oldest that starts is {oldest}"
        remedy: "make it with the stub of a newer systemd"
    }
    UKI_NO_GENERATIONS [UkiUntrusted CommandLineOpen] {
        cause: "it has no section .sbat, and shim starts no such program"
        remedy: "make it with the stub of systemd 252 or newer as the distribution ships it"
    }
    DATABASE_OF_ANOTHER_KIND [SecureBootDatabase] {
        cause: "it is neither EFI signature lists nor a list of SBAT, certificates or SHA-256 digests in hexadecimal: {why}"
    }
    DATABASE_CERTIFICATE [SecureBootDatabase] {
        cause: "a certificate in it cannot be read: {why}"
    }
    DATABASE_GENERATION [SecureBootDatabase] {
        cause: "the generation of {component} in the list of SBAT is not a number"
    }
    UKI_SIGNATURE_MALFORMED [UkiUntrusted CommandLineOpen] {
        cause: "its signature cannot be used: {why}"
    }
    UKI_NOT_VERIFIED [CommandLineOpen] {
        cause: "it is not known whether the firmware verifies it: no certificate of the firmware's database (db) was given"
        remedy: "give the certificate: --secure-boot-cert FILE"
    }
    UKI_WITHOUT_COMMAND_LINE [CommandLineOpen] {
        cause: "the unified kernel image has no command line, and its stub takes the one that the boot loader or the firmware's boot entry gives"
        remedy: "put one in: imactl uki build --cmdline TEXT"
    }
    SECURE_BOOT_KEY [SigningFailed] {
        cause: "firmware verifies signatures of RSA with 2048, 3072 or 4096 bits over SHA-256"
        remedy: "use such a key, and --hash sha256: openssl req -new -x509 -newkey rsa:2048 -nodes -keyout db.key -out db.crt"
    }

    // imactl: manifests and packages.
    EMPTY_MANIFEST [ManifestMalformed] {
        cause: "the root has no regular file, or the policy appraises none of them"
        remedy: "give the root and the policy that the files are signed for"
    }
    MANIFEST_NOT_SIGNED [ManifestMalformed] {
        cause: "the manifest is not signed"
        remedy: "sign it: imactl manifest sign --key KEY --cert CERTIFICATE MANIFEST --out SIGNED"
    }
    MANIFEST_OF_OTHER_DIGESTS [Usage] {
        cause: "they are of {algorithm} over the {content}"
    }
    MANIFEST_SIGNATURE_OF_OTHER_DIGEST [VerificationFailed] {
        cause: "its signature is over another digest than the manifest's"
    }
    MANIFEST_SIGNATURE_BAD [VerificationFailed] {
        cause: "the manifest is not signed, or by another key"
        remedy: "sign it: imactl manifest sign"
    }
    CHANGED_SINCE_MANIFEST [FileChanged] {
        cause: "since the manifest was made: {change}"
        remedy: "make the manifest again and have it signed"
    }
    PACKAGE_LACKS_SIGNATURE [VerificationFailed] {
        cause: "the package carries signatures, but none of this file"
        remedy: "sign the package again: imactl deb sign, or imactl rpm sign"
    }
    PACKAGE_SIGNATURE_OUTDATED [FileChanged] {
        cause: "the package's signature is over another content"
        remedy: "sign the package again: imactl deb sign, or imactl rpm sign"
    }
    PACKAGE_WITHOUT_SIGNATURES [VerificationFailed] {
        cause: "the package carries no signatures of its files"
        remedy: "sign it: imactl rpm sign"
    }
    PACKAGE_DIGEST_OUTDATED [PackageMalformed] {
        cause: "what the package unpacks to is not what the digest in its header says: it is damaged, or was changed"
        remedy: "build the package again, or get it again from where it came"
    }

    // imactl: measurements.
    FILE_WITHOUT_PCRS [PcrsUnreadable] {
        cause: "no line of the file is a PCR of {bank}, such as `0: {digest}`"
    }
    TPM_WITHOUT_PCRS [PcrsUnreadable] {
        cause: "its answers name no PCR of a bank that imactl knows: it has none, or is not a TPM 2.0"
    }
    NO_PCR_COMPARED [PcrsUnreadable] {
        cause: "the list extends none of the PCRs that were read: nothing was compared"
    }
    NO_ENTRIES [MeasurementsMalformed] {
        cause: "it has no entries; the kernel's list begins with boot_aggregate"
        remedy: "copy the list again, as root"
    }

    // imactl: attestation.
    HIERARCHY_WITH_PASSWORD [TpmCommand] {
        cause: "the hierarchy or object has a password, and imactl gives the empty one"
        remedy: "clear the password of the owner and of the endorsement hierarchy (tpm2_changeauth -c owner -p PASSWORD, -c endorsement)"
    }
    NO_OBJECT_IN_TPM [TpmCommand] {
        cause: "the TPM has no key at that handle"
        remedy: "make the key first: imactl attest key; give its handle with --handle"
    }
    HANDLE_IN_USE [TpmCommand] {
        cause: "the TPM has another object at that handle"
        remedy: "give another handle with --handle, or remove what is there: tpm2_evictcontrol -c HANDLE"
    }
    PCRS_RESTLESS [TpmCommand] {
        cause: "PCRs were extended again and again between reading and quoting them"
        remedy: "quote when less is being measured; a policy that measures everything that is read keeps PCR 10 moving"
    }
    CHALLENGE_FOR_OTHER [TpmCommand] {
        cause: "the challenge was made for another attestation key, or for the endorsement key of another TPM"
        remedy: "make it with the files that imactl attest key wrote on this machine, and give the kind of the endorsement key with --ek"
    }
    KEY_WITHOUT_ATTRIBUTE [AttestationInput] {
        cause: "the key is not {attribute}"
        remedy: "use the keys that imactl attest key makes, or tpm2_createek and tpm2_createak"
    }
    CERTIFICATE_OF_OTHER_EK [AttestationInput] {
        cause: "the certificate is for another key than the endorsement key"
        remedy: "give the files that imactl attest key wrote on the same machine in one run"
    }
    EK_CERTIFICATE_WITHOUT_CHAIN [AttestationInput] {
        cause: "none of the certificates given as --ca leads to the endorsement key's"
        remedy: "give the manufacturer's root certificate and those between it and the endorsement key's; without them, nothing says that the key is in a TPM"
    }
    QUOTE_BY_OTHER_KEY [AttestationRefused] {
        cause: "the quote is not signed by the key that was given: {why}"
        remedy: "give the key that this machine was enrolled with; if it is that, the evidence was made elsewhere or changed"
    }
    QUOTE_OF_SOMETHING_ELSE [AttestationRefused] {
        cause: "what the key signed is not a quote: {why}"
    }
    QUOTE_OF_OTHER_NONCE [AttestationRefused] {
        cause: "the quote is over another nonce: it is an old one, or one for another verifier"
        remedy: "ask for new evidence with a nonce that was never used; if it comes again with another nonce, somebody replays old evidence"
    }
    PCRS_NOT_QUOTED [AttestationRefused] {
        cause: "the values of the PCRs in the evidence are not those that the TPM signed"
    }
    PCR_OTHER_THAN_REFERENCE [AttestationRefused] {
        cause: "PCR {pcr} of {bank} has another value than expected"
        remedy: "if firmware, boot loader or kernel were updated, take the values of a boot that is trusted again; what was measured is in the logs (imactl events)"
    }
    PCR_NOT_SELECTED [AttestationRefused] {
        cause: "PCR {pcr} is not among those that the TPM quoted"
        remedy: "quote without --pcrs and --bank, or name this PCR, and the bank of boot_aggregate, as well"
    }
    PCR_NEVER_EXTENDED [AttestationRefused] {
        cause: "PCR 10 of {bank} is as after a reset, and the measurement list has entries: the TPM was reset after them, or the list is of another boot"
    }
    LIST_MALFORMED [AttestationRefused] {
        cause: "the measurement list is malformed: {why}"
    }
    LIST_ENTRY_CHANGED [AttestationRefused] {
        cause: "entry {entry} of the measurement list was changed: its digest is not that of its data"
    }
    LIST_ENTRY_UNJUDGED [AttestationRefused] {
        cause: "entry {entry} of the measurement list cannot be judged: {why}"
        remedy: "have the kernel use its own templates (ima_template=ima-sig) and PCR 10; if it does, the list was changed"
    }
    LIST_NOT_REPLAYED [AttestationRefused] {
        cause: "PCR 10 of {bank} is the replay of no beginning of the measurement list: entries were removed, added, changed or put in another order"
    }
    AGGREGATE_MISSING [AttestationRefused] {
        cause: "the measurement list does not begin with boot_aggregate"
    }
    AGGREGATE_DIFFERS [AttestationRefused] {
        cause: "boot_aggregate is not the digest of the PCRs of the firmware: the list is of another boot, or the TPM was reset"
    }
    LOG_MALFORMED [AttestationRefused] {
        cause: "the log of the {whose} is malformed: {why}"
    }
    LOG_NOT_REPLAYED [AttestationRefused] {
        cause: "PCR {pcr} of {bank} is not the replay of the logs: a log was changed, or something was measured that no log has"
    }
    CONCLUSION_CHANGED [AttestationRefused] {
        cause: "record {record} of the programs' log was changed: its digests are not those of the init's text, or one of a quoted bank is missing"
    }
    CONCLUSIONS_NOT_REPLAYED [AttestationRefused] {
        cause: "PCR {pcr} of {bank} does not hold the init's conclusions: they were forged, or are of another boot"
    }
    NO_CONCLUSION [AttestationRefused] {
        cause: "the evidence has no conclusion of the init about a policy"
        remedy: "have the init measure what it concludes: measure_pcr= in ima-init.conf"
    }
    CONCLUSION_OF_REFUSAL [AttestationRefused] {
        cause: "the init refused the boot ({refusal}) and then started a shell"
    }
    OTHER_POLICY [AttestationRefused] {
        cause: "the policy in force has the SHA-256 digest {found}, and the one expected has {expected}"
    }
    LIST_SIGNATURES_BAD [AttestationRefused] {
        cause: "{count} entries of the measurement list have no good signature by a key of the certificates, the first of {first}"
    }
    LIST_WITHOUT_SIGNATURES [AttestationRefused] {
        cause: "no quoted entry of the measurement list has a signature: nothing was checked"
        remedy: "leave out --cert, or have the kernel record signatures (ima_template=ima-sig)"
    }
    FILES_NOT_IN_MANIFEST [AttestationRefused] {
        cause: "{count} measured files are in no manifest, the first of them {first}"
        remedy: "give the manifest of each image that the machine runs, and of its initramfs"
    }
    TPM_WAS_RESET [AttestationRefused] {
        cause: "the TPM was reset {found} times, and {expected} were expected: the machine was started again, or the TPM alone was reset"
    }
    BANK_NOT_ALLOCATED [TpmCommand] {
        cause: "the TPM has no bank of PCRs for {bank}"
        remedy: "leave out --bank; tpm2_pcrallocate changes the banks, from the next boot on"
    }

    // imactl: its command line and the set-up.
    NOTHING_CHECKED [Usage] {
        cause: "nothing was checked"
        remedy: "give what is signed, and the policy that the kernel will load"
    }
    NO_SIGNED_ENTRY [Usage] {
        cause: "nothing was checked"
        remedy: "give no certificates, or have the kernel record signatures (ima_template=ima-sig)"
    }
    EMPTY_COMMAND [Usage] {
        cause: "there is no program in it"
        remedy: "give a program, with arguments if it needs any"
    }
    PKCS11_URI [Usage] {
        cause: "the URI of a key in a token has attributes of RFC 7512, each at most once"
        remedy: "write it as pkcs11:token=TOKEN;object=LABEL?module-path=MODULE&pin-source=FILE (RFC 7512)"
    }
    NO_SUCH_CODE [Usage] {
        cause: "codes have the form IMA- and three digits"
        remedy: "see all of them: imactl explain"
    }
    NO_KEY [Usage] {
        cause: "there is nothing to sign with"
        remedy: "give a key and its certificate, or a command that signs"
    }
    ML_DSA_DIGEST [SigningFailed] {
        cause: "ML-DSA signs messages, not digests: it is used for signatures of version 3 and for certificates, with a key in a file"
        remedy: "use a key in a file there, and an RSA or ECDSA key for everything else"
    }
    SIGV3_ELSEWHERE [Usage] {
        cause: "signatures of version 3 are those of security.ima and security.evm"
        remedy: "leave --sigv3 out"
    }
    NO_CERTIFICATE_FOR_COMMAND [Usage] {
        cause: "the certificate identifies the key that the command signs with"
        remedy: "give the certificate too"
    }
    NO_PASSWORD [Usage] {
        cause: "none was given, and there is no terminal to ask on"
        remedy: "give one, or have the keys written unencrypted"
    }
    PASSWORDS_DIFFER [Usage] {
        cause: "the two that were typed are not the same"
        remedy: "try again"
    }
    PASSWORD_EMPTY [Usage] {
        cause: "the one given is empty, and protects nothing"
        remedy: "give a password, or have the keys written unencrypted"
    }
    NOT_A_TIME [Usage] {
        cause: "it is not a number of seconds since 1970"
        remedy: "unset it, or set it to a number"
    }
    NO_SUCH_FILE_SYSTEM [Usage] {
        cause: "imactl knows no file system of that name"
        remedy: "use ext4, squashfs, erofs, btrfs, xfs, f2fs, ubifs, virtiofs, 9p, nfs4, overlay or tmpfs"
    }
    DIGEST_FORM [Usage] {
        cause: "a digest is given as its algorithm, a colon and all its bytes in hexadecimal"
        remedy: "write it as sha256:HEX"
    }
    INITRAMFS_WITHOUT_EVM_SIGNATURES [Usage] {
        cause: "with a certificate for .evm, the kernel denies every file of the initramfs that has no portable signature"
        remedy: "give the key for portable signatures too: --evm-key"
    }
    NO_COLON [Usage] {
        cause: "there is no colon in it"
        remedy: "write it as SOURCE:PATH"
    }
    NO_SECTION_COLON [Usage] {
        cause: "there is no colon in it"
        remedy: "write it as NAME:FILE, such as .splash:logo.bmp"
    }
    ALGORITHM_UNFIT [Usage] {
        cause: "it is too weak to show damage by an attacker, or imactl does not compute it"
        remedy: "use sha256, sha384, sha512, sha3-256, sha3-384 or sha3-512"
    }
    PACKAGE_NOT_INSTALLED [SetupUnfit] {
        cause: "the package {package} is not installed"
        remedy: "apt install {package}"
    }
    NO_INITRAMFS_TOOL [SetupUnfit] {
        cause: "neither initramfs-tools nor dracut is installed"
        remedy: "apt install initramfs-tools"
    }
    NO_APPRAISAL_IN_KERNEL [SetupUnfit] {
        cause: "without it nothing can be appraised, and a boot of it would be refused"
        remedy: "install a kernel that has it, or remove this one"
    }
    NO_KERNEL_WITH_INITRAMFS [SetupUnfit] {
        cause: "there is no /boot/initrd.img-RELEASE with a /boot/config-RELEASE beside it"
        remedy: "apt install linux-image-amd64"
    }
    SETUP_NOT_AS_ROOT [SetupUnfit] {
        cause: "it writes to /etc and /boot, and signs files of root"
        remedy: "run it as root"
    }
    BOOT_NOT_OBSERVED [SetupUnfit] {
        cause: "what enforcement would deny is not known before a boot that logs it"
        remedy: "run imactl setup, boot, use the system, then run imactl setup --enforce"
    }
    NO_TERMINAL [SetupUnfit] {
        cause: "without an answer nothing is done"
        remedy: "run it on a terminal"
    }
    MOKUTIL_MISSING [SetupStep] {
        cause: "mokutil leaves the request for shim, and could not be started"
        remedy: "install mokutil and run imactl setup --enrol-ca again"
    }
    LOG_NOT_READ [SetupStep] {
        cause: "what enforcement would deny is not known without it"
        remedy: "install {program} and run imactl setup --enforce again"
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
