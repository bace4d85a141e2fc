//! The fault catalogue: every refusal and warning of the project, once.
//!
//! The init prints from it, `imactl explain CODE` shows it, and `docs/reference/errors.md` is generated from it. A code is
//! stable: it is never given another meaning, and a fault that goes away leaves its number unused ([`Code::RETIRED`]).
//!
//! | range | stage |
//! |---|---|
//! | 1xx | environment |
//! | 2xx | configuration and kernel command line |
//! | 3xx | modules |
//! | 4xx | root |
//! | 5xx | keys |
//! | 6xx | policy |
//! | 7xx | preflight |
//! | 8xx | handover |
//! | 9xx | the host tools |

mod cause;
mod message;
mod page;

use std::fmt;

pub use cause::{Cause, Explanation};
pub use message::Fault;
pub use page::markdown;

/// The stage of the boot (or the tool) that a fault belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// API file systems, the log, the TPM.
    Environment,
    /// `ima-init.conf` and the kernel command line.
    Configuration,
    /// Kernel modules from the initramfs.
    Modules,
    /// Finding and mounting the real root.
    Root,
    /// Certificates onto the kernel's keyrings.
    Keys,
    /// The IMA policy: checked, written, proved.
    Policy,
    /// What the kernel will be asked to execute next.
    Preflight,
    /// Leaving the initramfs.
    Handover,
    /// `imactl` on the build host or the running system.
    Host,
}

impl Stage {
    /// The stage's name as it stands in log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Configuration => "configuration",
            Self::Modules => "modules",
            Self::Root => "root",
            Self::Keys => "keys",
            Self::Policy => "policy",
            Self::Preflight => "preflight",
            Self::Handover => "handover",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The boot (or the command) ends here.
    Refusal,
    /// Said loudly, kept in the report; the boot goes on.
    Warning,
}

impl Severity {
    /// `refusal` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Warning => "warning",
        }
    }
}

/// One row of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// The stable code, `IMA-` and three digits.
    pub id: &'static str,
    /// The stage that finds it.
    pub stage: Stage,
    /// Whether the boot ends.
    pub severity: Severity,
    /// What happened, in a few words.
    pub what: &'static str,
    /// Why, as far as it is known without looking at the machine. Empty without the feature `explanations`, like the remedy.
    pub cause: &'static str,
    /// What to do now.
    pub remedy: &'static str,
}

/// A fault's code. Its text is in [`Code::entry`].
///
/// Like the [causes](Cause), the codes are constants and not the variants of an `enum`, because a program then carries the texts
/// of those that it names and no others: switch_root names few.
#[derive(Clone, Copy)]
pub struct Code(&'static Entry);

/// The text of a cause or a remedy; empty in programs without them.
const fn explanation(text: &'static str) -> &'static str {
    if cfg!(feature = "explanations") {
        text
    } else {
        ""
    }
}

macro_rules! catalogue {
    ($($variant:ident $id:literal $stage:ident $severity:ident
        what: $what:literal
        cause: $cause:literal
        remedy: $remedy:literal)+) => {
        impl Code {
            $(
                #[doc = concat!($id, ": ", $what, ".")]
                #[allow(non_upper_case_globals)] // they read like variants
                pub const $variant: Self = Self(&Entry {
                    id: $id,
                    stage: Stage::$stage,
                    severity: Severity::$severity,
                    what: $what,
                    cause: explanation($cause),
                    remedy: explanation($remedy),
                });
            )+

            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    };
}

catalogue! {
    NotPid1 "IMA-101" Environment Refusal
        what: "the init was not started as PID 1"
        cause: "ima-init mounts, deletes and executes as only the first process of a machine may"
        remedy: "put it into an initramfs as /init (imactl initramfs does); on a running system use imactl"
    ApiMount "IMA-102" Environment Refusal
        what: "an API file system could not be mounted"
        cause: "the kernel was built without it, or the initramfs has no directory to mount it on"
        remedy: "build the kernel with CONFIG_PROC_FS, CONFIG_SYSFS, CONFIG_DEVTMPFS and CONFIG_TMPFS; make the initramfs with imactl initramfs, which has the directories"
    NoSecurityfs "IMA-103" Environment Refusal
        what: "securityfs could not be mounted"
        cause: "the kernel was built without CONFIG_SECURITYFS, and so without IMA"
        remedy: "boot a kernel with CONFIG_IMA=y and CONFIG_IMA_APPRAISE=y (imactl kernel check lists what is missing)"
    NoIma "IMA-104" Environment Refusal
        what: "the kernel has no IMA"
        cause: "there is no ima directory in securityfs: CONFIG_IMA is not set, or lsm= on the command line leaves integrity out"
        remedy: "boot a kernel with CONFIG_IMA=y and CONFIG_IMA_APPRAISE=y (imactl kernel check lists what is missing) and take lsm= off the command line"
    NoTpm "IMA-105" Environment Refusal
        what: "the configuration requires a TPM and there is none"
        cause: "require_tpm=yes in ima-init.conf, and the kernel shows no device in /sys/class/tpm: no TPM, disabled in the firmware, or no driver for it"
        remedy: "enable the TPM in the firmware, build its driver into the kernel (CONFIG_TCG_TIS or CONFIG_TCG_CRB), or set require_tpm=no"
    Internal "IMA-106" Environment Refusal
        what: "a defect in ima-init"
        cause: "the init met a state its authors had ruled out, and stops rather than go on"
        remedy: "report it with the line above, the version of ima-init and the console's output; boot the previous image meanwhile"
    NoMemory "IMA-107" Environment Refusal
        what: "there is not enough memory to boot"
        cause: "the kernel gave the init no more memory: the machine has too little, or the unpacked initramfs takes up most of it"
        remedy: "give the machine more memory (a mem= on the kernel command line takes some away), or pack less into the initramfs"

    InitramfsMove "IMA-108" Environment Refusal
        what: "the initramfs could not be moved into a tmpfs"
        cause: "the kernel was built without CONFIG_TMPFS, or there is not enough memory for its largest file twice"
        remedy: "build the kernel with CONFIG_TMPFS; give the machine more memory, or pack less into the initramfs"
    InitramfsSignatures "IMA-109" Environment Refusal
        what: "the signatures of the initramfs's programs cannot be used"
        cause: "/etc/ima/initramfs.signatures is missing or malformed"
        remedy: "make the initramfs again with imactl installed (update-initramfs -u, dracut --force)"
    NoLockdown "IMA-110" Environment Refusal
        what: "the kernel has no lockdown, which the configuration demands"
        cause: "CONFIG_SECURITY_LOCKDOWN_LSM is not set"
        remedy: "boot a kernel with CONFIG_SECURITY_LOCKDOWN_LSM=y; or take lockdown= out of ima-init.conf, and close what it would close one by one (imactl kernel check lists it)"
    LockdownNotInForce "IMA-111" Environment Refusal
        what: "lockdown is not in force"
        cause: "lsm= on the command line, or CONFIG_LSM, leaves lockdown out; or the kernel did not take the level"
        remedy: "name lockdown in lsm= or CONFIG_LSM, or take lsm= off the command line; CONFIG_SECURITY_LOCKDOWN_LSM_EARLY has it in every case"
    KexecOpen "IMA-112" Environment Refusal
        what: "kexec could not be disabled"
        cause: "the kernel did not take a 1 in /proc/sys/kernel/kexec_load_disabled"
        remedy: "boot a kernel without CONFIG_KEXEC and CONFIG_KEXEC_FILE; or allow kexec with kexec=yes in ima-init.conf, if no kernel is signed or every signed kernel has ima-init built in"

    NotMeasured "IMA-113" Environment Refusal
        what: "the boot could not be measured into the TPM"
        cause: "measure_pcr= is in ima-init.conf, and the TPM did not take a command that extends the PCR"
        remedy: "build the driver of a TPM 2.0 into the kernel (CONFIG_TCG_TIS or CONFIG_TCG_CRB) and enable the TPM in the firmware; or take measure_pcr= out of ima-init.conf if nothing verifies the boot by that PCR"
    NoScriptControl "IMA-114" Environment Refusal
        what: "interpreters could not be told to refuse unsigned scripts"
        cause: "script_control= is in ima-init.conf, and the kernel has no such bits: it is older than Linux 6.14"
        remedy: "boot a kernel from 6.14 on, or take script_control= out of ima-init.conf"

    ConfigUnreadable "IMA-201" Configuration Refusal
        what: "the configuration could not be read"
        cause: "/etc/ima/ima-init.conf is in the initramfs but is not a readable regular file of at most 64 KiB"
        remedy: "make the initramfs again with imactl initramfs --config FILE"
    ConfigInvalid "IMA-202" Configuration Refusal
        what: "the configuration has an error"
        cause: "a line of /etc/ima/ima-init.conf is not key=value, or names a key or value that does not exist"
        remedy: "correct the line; docs/reference/configuration.md lists the keys, and imactl initramfs checks them when it builds"
    CmdlineInvalid "IMA-203" Configuration Refusal
        what: "a parameter on the kernel command line has a bad value"
        cause: "the value cannot be understood, and guessing what to boot is not safe"
        remedy: "correct it in the boot loader; docs/reference/command-line.md lists the parameters and their values"
    AppraiseWeakened "IMA-204" Configuration Refusal
        what: "the kernel command line turns appraisal off"
        cause: "ima_appraise=off, log or fix is on the command line, and the configuration says enforce=required"
        remedy: "take ima_appraise= off the command line; to boot without enforcement on purpose, build an initramfs with enforce=permissive"
    NoRootNamed "IMA-205" Configuration Refusal
        what: "nothing says which root to boot"
        cause: "there is no root= on the command line and none in ima-init.conf (or the configuration does not let the command line set it)"
        remedy: "add root=UUID=..., root=LABEL=..., root=PARTUUID=... or root=/dev/... to the command line or the configuration"
    StartUsage "IMA-206" Configuration Refusal
        what: "the init was started with arguments that it does not understand"
        cause: "it stands in the place of run-init or switch_root, and what started it is not the initramfs-tools or dracut it was made for"
        remedy: "see the line above; ima-init --help shows how it is started"
    ResumeRequested "IMA-207" Configuration Refusal
        what: "the kernel command line names a hibernation image to resume"
        cause: "resume= (or resume_offset=) has the kernel or the initramfs replace the running system by whatever is in the swap area: no policy, no signature and no key of this boot holds there"
        remedy: "take it off the command line and add noresume; a system that must hibernate can only be booted with enforce=permissive"
    CmdlineExposed "IMA-208" Configuration Refusal
        what: "the filtered command line could not be put over /proc/cmdline"
        cause: "the programs behind the init would obey parameters that the configuration does not list under forward="
        remedy: "see the kernel's error in this message: CONFIG_TMPFS must be set, and sysctl.fs.mount-max on the command line may be too small"
    CmdlineProgram "IMA-209" Configuration Refusal
        what: "the kernel command line names a program that the kernel executes by itself"
        cause: "a sysctl parameter sets core_pattern, modprobe, hotplug or poweroff_cmd: the kernel executes it as root, at a moment that the author of the line may choose, with arguments of theirs"
        remedy: "take it off the command line; or list its name in forward= in ima-init.conf if whoever can edit the command line may do that"
    KernelWeakened "IMA-210" Configuration Refusal
        what: "a parameter on the command line undoes a protection that the kernel was built with"
        cause: "with it, root changes programs that the kernel has appraised already, or the kernel itself"
        remedy: "take it off the command line; or set enforce=permissive in ima-init.conf for the time being"
    FeatureMissing "IMA-211" Configuration Refusal
        what: "this ima-init was built without a feature that the configuration needs"
        cause: "the init was built with some of its features only (build/ship --features), to make it smaller"
        remedy: "build it with this feature too, or with all features (build/ship without options)"
    CmdlineIgnored "IMA-251" Configuration Warning
        what: "a parameter on the kernel command line is ignored"
        cause: "the configuration does not list it under cmdline=, because the command line is unsigned and must not decide it"
        remedy: "take it off the command line, or list it in cmdline= in ima-init.conf if whoever can edit the command line may decide it"
    Permissive "IMA-252" Configuration Warning
        what: "enforcement is not required"
        cause: "the configuration says enforce=permissive: this system may run unsigned programs"
        remedy: "build the initramfs with enforce=required once the system boots without denials"
    DebugShell "IMA-253" Configuration Warning
        what: "a failure of this boot opens a shell"
        cause: "the configuration says debug=yes and on_failure=shell: whoever is at the console has the machine"
        remedy: "build the initramfs with debug=no for production"

    CmdlineWithheld "IMA-254" Configuration Warning
        what: "parameters on the kernel command line are kept from userspace"
        cause: "they have the initramfs or the real init run programs, open a shell or start something else than usual, and the configuration does not list them under forward="
        remedy: "take them off the command line; or list them in forward= in ima-init.conf if whoever can edit the command line may use them"

    ModuleUnreadable "IMA-301" Modules Refusal
        what: "a kernel module of the initramfs could not be read"
        cause: "modules= in ima-init.conf names a file that is not in the initramfs"
        remedy: "make the initramfs again with imactl initramfs --module FILE, which packs and lists them together"
    ModuleRefused "IMA-302" Modules Refusal
        what: "the kernel refused a module"
        cause: "the module is of another kernel, is not signed as this kernel demands, or is compressed in a way this kernel cannot unpack"
        remedy: "take the module from this kernel's own build; imactl initramfs packs it unpacked, with its signature kept"

    RootSyntax "IMA-401" Root Refusal
        what: "root= cannot be understood"
        cause: "it is none of /dev/NAME, MAJOR:MINOR, UUID=, LABEL=, PARTUUID= (with /PARTNROFF=), PARTLABEL=, PARTTYPE=, ubiN:NAME, ubiN_VOLUME, virtiofs:TAG, 9p:TAG and nfs:ADDRESS:/PATH"
        remedy: "correct root= in the boot loader or the configuration; docs/reference/command-line.md shows each form"
    RootMissing "IMA-402" Root Refusal
        what: "the root device did not appear"
        cause: "no block device of that name came up in time: it is named wrongly, not connected, or its driver is not in the kernel or the initramfs"
        remedy: "compare root= with the devices listed above; add the driver with imactl initramfs --module, or rootwait if the device is only slow"
    RootUnknown "IMA-403" Root Refusal
        what: "the root's file system was not recognised"
        cause: "its superblock is none of ext4, squashfs, erofs, btrfs, xfs, f2fs and vfat: the device is empty, damaged, encrypted, or the wrong one"
        remedy: "check what is on the device (blkid); name the type with rootfstype= if it is another"
    RootMount "IMA-404" Root Refusal
        what: "the root could not be mounted"
        cause: "the kernel refused; its reason is in this message"
        remedy: "check the file system (fsck), rootfstype= and rootflags=; add its module to the initramfs if the kernel does not know the type"
    RootAmbiguous "IMA-405" Root Refusal
        what: "more than one device answers to the root's name"
        cause: "two file systems or partitions carry the same UUID or label, and booting the wrong one would be silent"
        remedy: "disconnect the copy or give it a new UUID or label; or name the root by PARTUUID= or /dev path"
    RootDevice "IMA-406" Root Refusal
        what: "the root device could not be read"
        cause: "the device is there but reading it failed: a bad medium, cable or controller"
        remedy: "see the kernel's messages above; replace the medium or boot the other copy"
    RootNotMounted "IMA-407" Root Refusal
        what: "the initramfs did not mount the root"
        cause: "the init was started to leave an initramfs that has mounted the real root, and nothing is mounted there"
        remedy: "see the messages of the initramfs above: root= may be wrong, or a driver missing"
    RootSilent "IMA-408" Root Refusal
        what: "the root's device does not answer"
        cause: "what the init asked of the disk was not answered within stall_timeout=: a bad medium, cable or controller, a virtual machine whose host waits for its own disk, or a device far slower than that"
        remedy: "see the kernel's messages above; replace the medium; if the device is only slow, set stall_timeout= in ima-init.conf, or rootwait to wait without end"
    VerityTarget "IMA-409" Root Refusal
        what: "the kernel has no dm-verity, which the configuration demands"
        cause: "CONFIG_BLK_DEV_DM or CONFIG_DM_VERITY is not set, or they are modules that the initramfs does not load, or initcall_blacklist= on the command line leaves them out"
        remedy: "boot a kernel with CONFIG_BLK_DEV_DM=y and CONFIG_DM_VERITY=y, or load the modules: imactl initramfs --module dm-verity"
    VerityTreeMissing "IMA-410" Root Refusal
        what: "the device of the root's hash tree, or of its error correction, was not found"
        cause: "no block device that verity_hash= or verity_fec= names came up in time: it is named wrongly, not connected, or its driver is not in the kernel or the initramfs"
        remedy: "compare verity_hash= and verity_fec= in ima-init.conf with the devices listed above; set verity_hash_offset= if the tree is on the root's own device"
    VeritySuperblock "IMA-411" Root Refusal
        what: "there is no hash tree that fits the root"
        cause: "where verity_hash= and verity_hash_offset= say that the tree is, there is no superblock of veritysetup's format, version 1, or it is damaged"
        remedy: "compare both with what imactl image --verity or veritysetup format printed; write image and tree to the disk again"
    VerityTable "IMA-412" Root Refusal
        what: "the kernel refused to set up dm-verity for the root"
        cause: "the device mapper did not take the device or its table; what the kernel says of it is in its log above"
        remedy: "see the kernel's messages above: it may lack the hash algorithm, or not take blocks of that length; take dm-mod.create= off the command line if the name is taken"
    VerityRootHash "IMA-413" Root Refusal
        what: "the root's hash tree is not the one that the configuration trusts"
        cause: "its topmost block does not have the root hash that verity= in ima-init.conf gives: image and initramfs are not of the same build, or somebody made another tree"
        remedy: "set verity= to the root hash that was printed when this image was made, if it is the right one; or write the right image to the disk"
    VerityCorrupted "IMA-414" Root Refusal
        what: "the root is not what it was when its hash tree was made"
        cause: "a block of the image or of its tree does not have the digest that it should have: the disk was written to, the medium fails, or the image was not written whole"
        remedy: "write image and tree to the disk again, and do not mount the image writable; if that does not help, replace the medium"
    VerityElsewhere "IMA-415" Root Refusal
        what: "the configuration says how the root is mounted, and another initramfs mounts it"
        cause: "verity= in ima-init.conf is for an initramfs whose /init is ima-init; what another initramfs mounts is not known to be verified"
        remedy: "make the initramfs with imactl initramfs; or take verity= out of ima-init.conf and have the other initramfs verify the root (systemd.verity=, roothash=)"
    VeritySignatureMissing "IMA-416" Root Refusal
        what: "the signed root hash was not found"
        cause: "no partition or disk that verity_signature= names came up in time; without that key it is the partition of the type root verity signature (Discoverable Partitions Specification), and there must be one only"
        remedy: "write what imactl image --verity-signature made to a partition of that type, or name its partition or disk with verity_signature= in ima-init.conf"
    VeritySignature "IMA-417" Root Refusal
        what: "the signed root hash cannot be used"
        cause: "what lies there is not a root hash with the PKCS #7 signature of one signer and the signer's certificate, or it is damaged"
        remedy: "write it again: imactl image --verity-signature makes it, and systemd-repart too"
    VerityUntrusted "IMA-418" Root Refusal
        what: "the kernel does not take the signature of the root hash"
        cause: "the signature is not one of this root hash by a certificate that leads to a key on the kernel's built-in, secondary or .dm-verity keyring"
        remedy: "sign the root with a key whose certificate the CA in the kernel signed, or whose certificate is on .dm-verity (imactl initramfs --verity-cert), and write image, tree and signature to the disk together"
    OverlayMissing "IMA-419" Root Refusal
        what: "the device of the overlay was not found"
        cause: "no block device that overlay= names came up in time: it is named wrongly, not connected, or its driver is not in the kernel or the initramfs"
        remedy: "compare overlay= in ima-init.conf with the devices listed above; overlay=tmpfs needs no device"
    OverlayRefused "IMA-420" Root Refusal
        what: "the writable layer could not be laid over the root"
        cause: "the file system of the layer, or overlayfs, was not mounted; what the kernel says is in this message"
        remedy: "check the file system of the layer, or make it anew; build the kernel with CONFIG_OVERLAY_FS=y"
    LuksHeader "IMA-421" Root Refusal
        what: "the root is not a LUKS2 container that the init can open, and the configuration demands one"
        cause: "luks=yes is set in ima-init.conf, and the device that root= names has no LUKS2 header with one segment encrypted in aes-xts-plain64, or both copies of the header are damaged"
        remedy: "compare root= with the devices; see what cryptsetup luksDump says of this one; restore a damaged header from a backup (cryptsetup luksHeaderRestore)"
    LuksToken "IMA-422" Root Refusal
        what: "the LUKS2 container has no token that the init can use"
        cause: "the init unlocks with the TPM only, by a token of the type systemd-tpm2, and none is enrolled"
        remedy: "enroll the TPM from a running system: systemd-cryptenroll --tpm2-device=auto --tpm2-pcrs=7 DEVICE"
    LuksPcr10 "IMA-423" Root Refusal
        what: "the key of the root is sealed to PCR 10, which IMA extends"
        cause: "IMA extends PCR 10 with each file that it measures, so its value differs from boot to boot and no policy over it holds"
        remedy: "enroll the TPM again without PCR 10: systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs=7 DEVICE"
    LuksTpm "IMA-424" Root Refusal
        what: "there is no TPM 2.0 that could unlock the root, or it does not answer"
        cause: "there is no /dev/tpmrm0: no TPM 2.0 is switched on in the firmware, or the kernel has no driver for it (CONFIG_TCG_TIS, CONFIG_TCG_CRB), or as a module that the initramfs does not load"
        remedy: "switch the TPM on in the firmware; boot a kernel with its driver built in; the passphrase of the container opens it from another system"
    LuksPolicy "IMA-425" Root Refusal
        what: "the TPM does not unseal the key of the root"
        cause: "the values of the PCRs that the key is sealed to are not those of the enrollment: firmware, Secure Boot keys, kernel or command line changed, or somebody tampers with the boot"
        remedy: "find out what changed; if it was meant, enroll the TPM again with the container's passphrase from another system: systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs=7 DEVICE"
    LuksKeyslot "IMA-426" Root Refusal
        what: "the keyslot of the root does not open with the key from the TPM"
        cause: "the keyslot is damaged, or was changed since the TPM was enrolled, or is none of PBKDF2 and aes-xts-plain64"
        remedy: "restore the header from a backup (cryptsetup luksHeaderRestore), or enroll the TPM again with the container's passphrase"
    LuksTarget "IMA-427" Root Refusal
        what: "the kernel did not set up dm-crypt for the root"
        cause: "CONFIG_DM_CRYPT, CONFIG_CRYPTO_XTS or CONFIG_CRYPTO_AES is not set, or they are modules that the initramfs does not load, or initcall_blacklist= on the command line leaves them out"
        remedy: "boot a kernel with these options built in, or load the modules: imactl initramfs --module dm-crypt"
    LuksElsewhere "IMA-428" Root Refusal
        what: "the configuration demands an encrypted root, and another initramfs mounts it"
        cause: "luks=yes in ima-init.conf is for an initramfs whose /init is ima-init; what another initramfs mounts is not known to be encrypted"
        remedy: "make the initramfs with imactl initramfs; or take luks= out of ima-init.conf and have the other initramfs unlock the root (crypttab, rd.luks.*)"
    ComposefsKernel "IMA-431" Root Refusal
        what: "the kernel cannot mount the composefs root that the configuration demands"
        cause: "it lacks overlayfs with data-only layers and verity= (Linux 6.8), or erofs from a file (Linux 6.12)"
        remedy: "boot a kernel from 6.12 on with CONFIG_OVERLAY_FS=y, CONFIG_EROFS_FS=y, CONFIG_EROFS_FS_XATTR=y, CONFIG_EROFS_FS_BACKED_BY_FILE=y and CONFIG_FS_VERITY=y"
    ComposefsMissing "IMA-432" Root Refusal
        what: "the composefs image or the directory of its objects was not found"
        cause: "the file system that root= names has no regular file where composefs= says that the image is, or no directory where composefs_objects= says that the objects are"
        remedy: "compare both keys in ima-init.conf with what is on the file system; check that root= names the right one"
    ComposefsDigest "IMA-433" Root Refusal
        what: "the composefs image is not known to be the one that the configuration trusts"
        cause: "the kernel did not say which fs-verity digest it has"
        remedy: "write the image again and enable fs-verity on it: fsverity enable; on ext4 the file system needs the feature verity (tune2fs -O verity)"
    ComposefsMount "IMA-434" Root Refusal
        what: "the kernel refused to mount the composefs image or the overlay"
        cause: "the kernel refused; its reason is in this message"
        remedy: "make the image again with imactl image --objects, and set composefs_digest= to the digest that it prints"
    ComposefsElsewhere "IMA-435" Root Refusal
        what: "the configuration demands a composefs root, and another initramfs mounts the root"
        cause: "composefs= in ima-init.conf is for an initramfs whose /init is ima-init; what another initramfs mounts is not known to be verified"
        remedy: "make the initramfs with imactl initramfs; or take composefs= out of ima-init.conf and have the other initramfs mount the image"
    RootNoXattrs "IMA-451" Root Warning
        what: "the root's file system keeps no extended attributes, or not security.ima"
        cause: "signatures live in security.ima; on this file system no file can have one, so whatever the policy appraises is denied"
        remedy: "use ext4, xfs, btrfs, f2fs, ubifs, squashfs or erofs, built into the kernel with their xattr support"

    NoImaKeyring "IMA-501" Keys Refusal
        what: "the kernel has no keyring of that name"
        cause: "CONFIG_INTEGRITY_TRUSTED_KEYRING is not set (stock Debian kernels do not set it), so there is no .ima"
        remedy: "boot a kernel with CONFIG_INTEGRITY_TRUSTED_KEYRING=y; or set keyring=_ima in ima-init.conf and accept its weaker trust"
    NoCertificate "IMA-502" Keys Refusal
        what: "the initramfs has no certificate for the IMA keyring"
        cause: "neither /etc/keys/x509_ima*.der (or .pem) nor /etc/keys/ima/ has one, so nothing in the real root could be verified"
        remedy: "make the initramfs again with imactl initramfs --cert FILE"
    CertificateInvalid "IMA-503" Keys Refusal
        what: "a certificate cannot be parsed"
        cause: "the file is empty, cut short, or no X.509 certificate in DER or PEM"
        remedy: "check it with openssl x509 -in FILE -noout -text; make the initramfs again with the right file"
    CertificateRefused "IMA-504" Keys Refusal
        what: "the kernel refused a certificate"
        cause: "no CA that this kernel trusts has signed it, or it has a form that the kernel does not take; the kernel's error is in this message"
        remedy: "sign the certificate with a CA that is on .builtin_trusted_keys or .secondary_trusted_keys (imactl kernel add-ca puts one into the kernel)"
    KeyringUnusable "IMA-505" Keys Refusal
        what: "the keyring could not be made or written"
        cause: "the kernel did not let the init make or fill it; its error is in this message"
        remedy: "boot a kernel with CONFIG_KEYS=y; or use keyring=.ima, which the kernel makes itself (CONFIG_INTEGRITY_TRUSTED_KEYRING)"
    EvmKeyRefused "IMA-506" Keys Refusal
        what: "EVM's HMAC key was not loaded"
        cause: "the initramfs has one, and without it the owner, mode and attributes of files would go unchecked"
        remedy: "make the key again as docs/reference/configuration.md says, and put it and its master key into the initramfs; or leave both out"
    EvmOff "IMA-507" Keys Refusal
        what: "EVM is not in force"
        cause: "a certificate for .evm is in the initramfs, and the kernel has no .evm keyring or no securityfs evm file: CONFIG_EVM is not set, or initcall_blacklist= on the command line switches it off; owner, mode and attributes of files would go unchecked"
        remedy: "boot a kernel with CONFIG_EVM=y and take initcall_blacklist= off the command line; or leave the EVM certificates out"
    EvmFix "IMA-508" Keys Refusal
        what: "the kernel command line switches EVM to its fix mode"
        cause: "with evm=fix the kernel lets the attributes of any file be changed and seals them anew, and the initramfs has a key or certificate of EVM's"
        remedy: "take evm=fix off the command line; to label a system, boot it with an initramfs without EVM's keys"
    CertificateRevoked "IMA-509" Keys Refusal
        what: "the initramfs has a revoked certificate"
        cause: "revoked_keys or revoked_serials in ima-init.conf lists it"
        remedy: "take the certificate out of the initramfs, or correct the list"
    SampleKey "IMA-551" Keys Warning
        what: "this system trusts the SAMPLE KEY, whose private half everybody has"
        cause: "the certificate was made by imactl keygen --sample, for demonstration; anyone can sign programs for this machine"
        remedy: "make your own keys with imactl keygen and sign the system again before it leaves your desk"
    CertificateExpired "IMA-552" Keys Warning
        what: "a certificate is outside its validity dates"
        cause: "by this machine's clock the certificate is expired or not yet valid; the kernel does not look at the dates, so it is trusted all the same"
        remedy: "renew the certificate with the same key (signatures stay good), or set the clock"
    RootCertificate "IMA-553" Keys Warning
        what: "a certificate of the real root was not taken"
        cause: "the kernel refused it, it cannot be parsed, it has expired, or keyring=_ima forbids to take any from the disk; programs signed with its key will be denied"
        remedy: "have it signed by a CA the kernel trusts, or remove it from etc/keys in the real root"
    CertificateSkipped "IMA-554" Keys Warning
        what: "a certificate of the initramfs was not taken"
        cause: "the kernel refused it, or it cannot be parsed; another for the same keyring was taken, so the boot goes on"
        remedy: "correct or remove it and make the initramfs again"
    UntrustedKeyring "IMA-555" Keys Warning
        what: "keys are on _ima, which whoever is root can add to"
        cause: "keyring=_ima in ima-init.conf: this kernel does not demand that a key be signed by a trusted CA"
        remedy: "use a kernel with CONFIG_INTEGRITY_TRUSTED_KEYRING=y and keyring=.ima"
    NoEvmKeyring "IMA-556" Keys Warning
        what: "EVM certificates are in the initramfs but EVM could not be used"
        cause: "the kernel has no .evm keyring or no securityfs evm file (CONFIG_EVM is not set, or initcall_blacklist= switches it off), and the configuration says enforce=permissive"
        remedy: "boot a kernel with CONFIG_EVM=y, or leave the EVM certificates out"
    CertificateUseless "IMA-557" Keys Warning
        what: "the kernel can verify no signature with a certificate that it took"
        cause: "the certificate has no subject key identifier, by whose end signatures name their key, or its key has a length that the kernel does not compute with; what its key signed is denied"
        remedy: "make a certificate with the extension subjectKeyIdentifier and a key of a length that the kernel computes with (imactl keygen makes both)"

    RootCertificateRevoked "IMA-558" Keys Warning
        what: "a revoked certificate of the real root was not taken"
        cause: "revoked_keys or revoked_serials in ima-init.conf lists it; what its key signed is denied"
        remedy: "remove it from etc/keys in the real root, and sign again what its key signed"
    VerityKeyringClosed "IMA-559" Keys Warning
        what: "the kernel takes no certificates for signed root hashes"
        cause: "etc/keys in the initramfs has certificates x509_verity*, and the keyring .dm-verity is not there or is sealed; a root that needs them is refused later"
        remedy: "boot Linux 7.0 or later with dm_verity.keyring_unsealed=1 on the command line; or have the CA in the kernel sign the certificate of the signer, and remove these files"

    PolicyMissing "IMA-601" Policy Refusal
        what: "the initramfs has no IMA policy"
        cause: "there is neither /etc/ima/ima_policy nor /etc/ima/ima_policy.default, so nothing would be appraised"
        remedy: "make the initramfs again with imactl initramfs --policy FILE"
    PolicyEmpty "IMA-602" Policy Refusal
        what: "the IMA policy has no rules"
        cause: "every line is blank or a comment; the kernel would take it without a word and appraise nothing"
        remedy: "write at least one rule, or take policy/ima_policy.default"
    PolicyInvalid "IMA-603" Policy Refusal
        what: "the IMA policy has an error"
        cause: "the kernel would refuse the rule and with it the whole policy"
        remedy: "correct the rule; imactl policy check shows every error of the file"
    PolicyRefused "IMA-604" Policy Refusal
        what: "the kernel refused the IMA policy"
        cause: "the rule is beyond this kernel: a keyword, hook or algorithm it was built without"
        remedy: "see the kernel's error in this message; check the policy against this kernel with imactl kernel check"
    PolicyNotInForce "IMA-605" Policy Refusal
        what: "the policy is loaded but not in force"
        cause: "an unsigned program was not denied: ima_appraise= on the command line, or a kernel without CONFIG_IMA_APPRAISE"
        remedy: "take ima_appraise= off the command line; check the kernel with imactl kernel check"
    PolicyReadBack "IMA-606" Policy Refusal
        what: "the kernel's policy is not the one that was written"
        cause: "the rules read back from securityfs do not contain those of the file"
        remedy: "report it with the rules in this message; boot the previous image meanwhile"
    PolicyNotRecorded "IMA-607" Policy Refusal
        what: "the kernel did not take the policy"
        cause: "its log does not say `policy update completed`: one rule failed and the whole policy was discarded"
        remedy: "see the kernel's messages above; check the policy against this kernel with imactl kernel check"
    PolicyClosed "IMA-608" Policy Refusal
        what: "the kernel takes no policy any more"
        cause: "a policy was loaded before and the kernel was built without CONFIG_IMA_WRITE_POLICY, or another process holds the file"
        remedy: "load the policy only once: take it out of whatever loads it before ima-init"
    PolicySignature "IMA-609" Policy Refusal
        what: "the kernel takes only a signed policy"
        cause: "CONFIG_IMA_APPRAISE_REQUIRE_POLICY_SIGS, ima_policy=secure_boot or secure boot with CONFIG_IMA_ARCH_POLICY; the initramfs holds no valid signature for its policy"
        remedy: "sign the policy: imactl sign --sidecar --key KEY --cert CERTIFICATE POLICY; imactl initramfs --policy POLICY packs the POLICY.sig that this makes"
    PolicyUnreadable "IMA-610" Policy Refusal
        what: "the IMA policy could not be read"
        cause: "the file is in the initramfs but is not a readable regular file of at most 1 MiB"
        remedy: "make the initramfs again with imactl initramfs --policy FILE"
    PolicyUncovered "IMA-612" Policy Refusal
        what: "the policy leaves a way for unsigned programs"
        cause: "it does not demand a signature of every program, library, module, policy and kexec image, whoever uses it: a rule is missing, exempts files, or has a condition (euid=, fowner=, fsname= and the like) that whoever writes the disk or has capabilities can avoid"
        remedy: "use policy/ima_policy.default, or add a rule without conditions for this hook: appraise func=HOOK appraise_type=imasig; imactl policy check names every gap; a policy that only measures needs enforce=permissive"
    PolicyNotLoaded "IMA-620" Policy Refusal
        what: "no policy is in force in this initramfs"
        cause: "ima-init was not the first program of this initramfs: it was made by an older hook, or rdinit= is on the kernel command line"
        remedy: "make the initramfs again with the hook or module of this version (update-initramfs -u, dracut --force), and take rdinit= off the command line"
    FrontedInit "IMA-621" Policy Refusal
        what: "the initramfs's own init cannot be executed"
        cause: "/usr/lib/ima-init/init, its interpreter, or the program by which the initramfs is left is missing or is not a program"
        remedy: "make the initramfs again (update-initramfs -u, dracut --force)"
    FrontedInitDenied "IMA-622" Policy Refusal
        what: "the kernel would not run the initramfs's own init"
        cause: "the init, its interpreter, or the program by which the initramfs is left has no valid signature in /etc/ima/initramfs.signatures"
        remedy: "sign the program on the system that the initramfs is made on, and make the initramfs again (update-initramfs -u, dracut --force)"
    RootPolicyRefused "IMA-652" Policy Warning
        what: "a policy of the real root was not taken"
        cause: "the kernel refused it: it is unsigned, changed after it was signed, or has an error; the policy of the initramfs stays in force"
        remedy: "sign it with imactl sign, check it with imactl policy check"
    RootPolicyImpossible "IMA-653" Policy Warning
        what: "policies of the real root cannot be taken"
        cause: "the kernel was built without CONFIG_IMA_WRITE_POLICY and takes one policy only"
        remedy: "put all rules into the initramfs's policy, or set CONFIG_IMA_WRITE_POLICY=y"
    PoliciesUnguarded "IMA-654" Policy Warning
        what: "the policy does not appraise policies"
        cause: "no rule is for POLICY_CHECK, so the kernel would take an unsigned policy: the init offers it none of the real root's, and where the kernel takes further policies (CONFIG_IMA_WRITE_POLICY), root can add rules that exempt what they like"
        remedy: "add to the policy: appraise func=POLICY_CHECK appraise_type=imasig"

    NotEnforced "IMA-655" Policy Warning
        what: "the policy is loaded but not enforced"
        cause: "an unsigned program was not denied (ima_appraise= on the command line, or a kernel without CONFIG_IMA_APPRAISE), and the configuration says enforce=permissive"
        remedy: "build the initramfs with enforce=required once the system boots without denials"
    TmpfsFree "IMA-656" Policy Warning
        what: "the policy frees tmpfs, and with it memory files"
        cause: "a dont_appraise rule without func= exempts the file system of /run, /tmp, /dev/shm and of memfd_create: root can execute anything from there, for as long as the system runs"
        remedy: "for the initramfs alone use dont_appraise fsname=rootfs; for reading alone add func=FILE_CHECK to the rule"
    Uncovered "IMA-657" Policy Warning
        what: "the policy leaves a way for unsigned programs, and the boot goes on"
        cause: "it does not demand a signature of every program, library, module, policy and kexec image, whoever uses it, and the configuration says enforce=permissive"
        remedy: "use policy/ima_policy.default and build the initramfs with enforce=required; imactl policy check names the rules"
    RootOnly "IMA-658" Policy Warning
        what: "the policy holds only the user root to signatures"
        cause: "cover=root in ima-init.conf accepts rules with euid=0: an unsigned program runs under any other user ID, and with capabilities under one (AmbientCapabilities=, security.capability) it can do whatever root can"
        remedy: "use policy/ima_policy.default, which holds everyone to signatures, and take cover=root out of ima-init.conf"

    SwitchRootMissing "IMA-701" Preflight Refusal
        what: "the real root has no switch_root"
        cause: "the file that the configuration names does not exist in the real root"
        remedy: "install ima-init's switch_root as /usr/sbin/switch_root.static and sign it, or set switch_root= to the one that is there"
    SwitchRootInvalid "IMA-702" Preflight Refusal
        what: "the real root's switch_root is not a program"
        cause: "it is not a regular executable ELF file for this machine (a script would need its interpreter from the wrong root)"
        remedy: "install ima-init's switch_root as /usr/sbin/switch_root.static and sign it"
    SwitchRootDynamic "IMA-703" Preflight Refusal
        what: "the real root's switch_root is not static"
        cause: "it names a program interpreter, which would be looked for in the initramfs; the kernel would kill PID 1"
        remedy: "install a statically linked switch_root (ima-init's is) and sign it"
    SwitchRootDenied "IMA-704" Preflight Refusal
        what: "the kernel would not run the real root's switch_root"
        cause: "it is unsigned, signed with a key that is not on the keyring, or changed after it was signed"
        remedy: "sign it: imactl sign --key KEY --cert CERTIFICATE FILE (imactl verify shows which of the causes applies)"
    InitMissing "IMA-711" Preflight Refusal
        what: "the real root has no init"
        cause: "the file that the configuration names does not exist in the real root, or its path leads nowhere inside it"
        remedy: "install an init in the root, or set init= in ima-init.conf to the one that is there"
    InitInvalid "IMA-712" Preflight Refusal
        what: "the real root's init is not a program"
        cause: "it is not a regular executable file that this machine can run"
        remedy: "install an init for this machine, or set init= in ima-init.conf to the right file"
    InitDenied "IMA-713" Preflight Refusal
        what: "the kernel would not run the real root's init"
        cause: "it is unsigned, signed with a key that is not on the keyring, or changed after it was signed"
        remedy: "sign it: imactl sign --key KEY --cert CERTIFICATE FILE (imactl verify shows which of the causes applies)"
    InterpreterMissing "IMA-721" Preflight Refusal
        what: "the interpreter of the real root's init is missing"
        cause: "init names a program interpreter (ld.so, or that of its #! line) that the real root does not have"
        remedy: "install the interpreter in the root"
    InterpreterDenied "IMA-722" Preflight Refusal
        what: "the kernel would not run the interpreter of the real root's init"
        cause: "the dynamic loader or script interpreter is unsigned, signed with a key that is not on the keyring, or changed after it was signed"
        remedy: "sign it: imactl sign --key KEY --cert CERTIFICATE FILE, or the whole root: add --for-policy POLICY --root ROOT and name ROOT"
    InterpreterInvalid "IMA-723" Preflight Refusal
        what: "the interpreter of the real root's init is not a program"
        cause: "it is not a regular executable ELF file for this machine"
        remedy: "install the interpreter for this machine"

    HandoverExec "IMA-801" Handover Refusal
        what: "the real root's switch_root could not be executed"
        cause: "the kernel denied it: it is unsigned, signed with a key that is not on the keyring, or changed after it was signed"
        remedy: "sign it: imactl sign --key KEY --cert CERTIFICATE FILE (imactl verify shows which of the causes applies)"
    SwitchUsage "IMA-811" Handover Refusal
        what: "switch_root was called wrongly"
        cause: "it takes a new root and an init: switch_root NEWROOT INIT [ARGUMENT]..."
        remedy: "see switch_root --help"
    SwitchNotPid1 "IMA-812" Handover Refusal
        what: "switch_root was not started as PID 1"
        cause: "only the init of an initramfs may leave it: everything in the old root is deleted"
        remedy: "execute it from the init itself, with exec"
    SwitchNewRoot "IMA-813" Handover Refusal
        what: "the new root is not a mounted file system of its own"
        cause: "the directory does not exist or is on the same device as the old root; deleting would delete it too"
        remedy: "mount the real root on the directory first"
    SwitchOldRoot "IMA-814" Handover Refusal
        what: "the old root is not an initramfs"
        cause: "/ is neither ramfs nor tmpfs; deleting its content would destroy a real system"
        remedy: "run switch_root only from an initramfs"
    SwitchMove "IMA-815" Handover Refusal
        what: "the new root could not become the root"
        cause: "the kernel refused to move a mount or to change the root directory; its error is in this message"
        remedy: "mount the new root directly, as a mount of its own that is not shared (mount --make-rprivate /), and see that dev, proc, sys and run are directories in it"
    SwitchExec "IMA-816" Handover Refusal
        what: "the real init could not be executed"
        cause: "the kernel denied it or it is not there: unsigned, signed with a key that is not on the keyring, changed after it was signed, or no program"
        remedy: "sign it: imactl sign --key KEY --cert CERTIFICATE FILE; check the whole root with imactl verify"
    InputUnreadable "IMA-901" Host Refusal
        what: "a file could not be read"
        cause: "it is not there, or not readable for this user"
        remedy: "check the path and its permissions"
    OutputUnwritable "IMA-902" Host Refusal
        what: "the output could not be written"
        cause: "the directory is not there or not writable, or the file system is full; nothing was left under the final name"
        remedy: "choose another place, or make room"
    PrivateKeyMalformed "IMA-903" Host Refusal
        what: "no usable private key"
        cause: "the file is not PKCS#8, PKCS#1 or SEC 1 in PEM or DER, is truncated, or holds a kind of key the kernel has no use for"
        remedy: "look at it with: openssl pkey -in FILE -noout -text; make a new one with imactl keygen"
    KeyPassword "IMA-904" Host Refusal
        what: "the private key could not be decrypted"
        cause: "the password is wrong or missing"
        remedy: "give the right one; the password of sample keys is: password"
    KeyMismatch "IMA-905" Host Refusal
        what: "the private key does not belong to the certificate"
        cause: "their public keys differ; the kernel would look for another key than the one that signed"
        remedy: "give the certificate that was made with this key"
    CertificateUnusable "IMA-906" Host Refusal
        what: "the certificate cannot be used"
        cause: "it is malformed, or the kernel would refuse it on this keyring"
        remedy: "look at it with: openssl x509 -in FILE -noout -text; make a new one with imactl keygen"
    SigningFailed "IMA-907" Host Refusal
        what: "a signature could not be made"
        cause: "the key cannot sign digests of this algorithm"
        remedy: "use sha256, sha384, sha512, sha3-256, sha3-384 or sha3-512"
    XattrUnwritable "IMA-908" Host Refusal
        what: "the extended attribute could not be written"
        cause: "writing security.ima needs CAP_SYS_ADMIN and a file system with extended attributes"
        remedy: "run as root on such a file system, write sidecar files, or let imactl image put the signatures into an image without privilege"
    FileChanged "IMA-909" Host Refusal
        what: "a file changed while it was being signed"
        cause: "something else writes to it; a signature made now would be wrong"
        remedy: "end what writes to the tree and sign again"
    VerificationFailed "IMA-910" Host Refusal
        what: "not every file carries a good signature"
        cause: "see the lines above: unsigned, changed after signing, or signed with another key"
        remedy: "sign the files named: imactl sign --key KEY --cert CERTIFICATE FILE..., inside an image: imactl image sign IMAGE; or give the certificate of the key that signed them"
    InitramfsRefused "IMA-911" Host Refusal
        what: "the init would refuse to boot from this initramfs"
        cause: "a file it needs is missing or malformed"
        remedy: "correct the file named"
    ImageTooSmall "IMA-912" Host Refusal
        what: "the content does not fit in the image"
        cause: "the size given is too small for the files, their inodes and the journal"
        remedy: "give a larger size, or none: it is then computed"
    ImageContent "IMA-913" Host Refusal
        what: "an entry cannot be put into the image"
        cause: "the file system has no place for it: a name or link target too long, a parent that is not a directory, or extended attributes that are too large"
        remedy: "change or exclude the entry"
    KernelImage "IMA-914" Host Refusal
        what: "the place for CA certificates in the kernel image was not found"
        cause: "it was built without CONFIG_SYSTEM_EXTRA_CERTIFICATE, or the place of its symbols is not known"
        remedy: "build with CONFIG_SYSTEM_EXTRA_CERTIFICATE=y and CONFIG_KERNEL_GZIP=y as qemu/build-kernel does, and keep extra-cert.json beside the image"
    KernelRoom "IMA-915" Host Refusal
        what: "the CA certificate does not fit in the kernel image"
        cause: "it is longer than the room reserved, or the kernel packed again is longer than before"
        remedy: "use an elliptic-curve CA, which is a third as long, or build with a larger CONFIG_SYSTEM_EXTRA_CERTIFICATE_SIZE filled with noise"
    KernelConfiguration "IMA-916" Host Refusal
        what: "the kernel lacks what the policy and the configuration need"
        cause: "options that something relies on are not set; each is named with its reason"
        remedy: "set the options named in the kernel's configuration and build it again"
    Usage "IMA-917" Host Refusal
        what: "the command line does not make sense"
        cause: "options contradict each other, or one that is needed is missing"
        remedy: "see the command's --help, which has examples"
    SourceMalformed "IMA-918" Host Refusal
        what: "an archive or image cannot be read"
        cause: "it is malformed or truncated, or of a kind that imactl does not read"
        remedy: "make it again (an archive with tar --xattrs --format=pax), or give the directory"
    ToolMissing "IMA-919" Host Refusal
        what: "a program needed for this is not installed"
        cause: "squashfs images are written by mksquashfs (squashfs-tools); those compressed with lzo or lzma, or with xz and its filters, are read by sqfs2tar (squashfs-tools-ng)"
        remedy: "install the program that this message names, or use ext4 or erofs, which need no other program"
    TokenUnusable "IMA-920" Host Refusal
        what: "the token with the private key could not be used"
        cause: "its PKCS #11 module cannot be loaded, or the token or the key is not there"
        remedy: "look what the module has: pkcs11-tool --module MODULE --list-slots, --list-objects; correct the pkcs11: URI"
    ManifestMalformed "IMA-921" Host Refusal
        what: "the manifest cannot be used"
        cause: "it is not lines of JSON as imactl manifest writes them, or not signed yet"
        remedy: "make it again: imactl manifest make; and have it signed: imactl manifest sign"
    FrontedUnsigned "IMA-922" Host Warning
        what: "programs of the initramfs have no valid signature"
        cause: "no file of this system with the same content carries a signature by a key whose certificate is in the initramfs; under the policy the kernel denies these files in the initramfs"
        remedy: "sign the files on this system and make the initramfs again, or give a key: imactl initramfs signatures --key KEY --cert CERTIFICATE"
    LibraryMissing "IMA-930" Host Refusal
        what: "a library of the real root's init is missing"
        cause: "the dynamic loader will not find it, and init will end before it begins: the kernel panics"
        remedy: "install the library in the root"
    LibraryDenied "IMA-931" Host Refusal
        what: "a library of the real root's init would be denied"
        cause: "the dynamic loader may not map it, and init will end before it begins: the kernel panics"
        remedy: "sign the whole root: imactl image --key KEY --cert CERTIFICATE --for-policy POLICY"
    FilesDenied "IMA-932" Host Warning
        what: "files of the root would be denied under the policy"
        cause: "they are appraised when root executes, maps or loads them, and have no valid signature by a key that will be on the keyring"
        remedy: "sign them (imactl sign --for-policy, imactl image --for-policy) or accept that they do not run"
    ServiceDenied "IMA-933" Host Warning
        what: "programs that systemd starts at boot would be denied under the policy"
        cause: "a unit that the default target pulls in names a program that has no valid signature by a key on the keyring, or whose interpreter or libraries have none; the unit fails at each boot"
        remedy: "sign them (imactl sign --for-policy, imactl image --for-policy), or mask the units that are not wanted (systemctl --root ROOT mask UNIT)"
    InitramfsObeysRoot "IMA-934" Host Refusal
        what: "a script of the initramfs takes commands from the real root, or from the kernel command line"
        cause: "what it reads there was written by whoever has the disk; a script that is read is not appraised"
        remedy: "leave out the package or dracut module that brings it, or change the script: omit_dracutmodules+=\" masterkey integrity selinux ecryptfs \""
    InitramfsResumes "IMA-935" Host Refusal
        what: "the initramfs resumes from hibernation"
        cause: "an image of the memory, which nobody has signed, would take the place of this boot with its policy"
        remedy: "leave out what does it: RESUME=none for initramfs-tools, omit_dracutmodules+=\" resume \" for dracut; the file named was put there by another hook or module"
    InitramfsMounts "IMA-936" Host Refusal
        what: "a script of the initramfs mounts what the real root's fstab names, wherever a link of that root leads"
        cause: "a file system of whoever has the disk could be mounted over the initramfs and its scripts"
        remedy: "leave out the package or dracut module that brings it: omit_dracutmodules+=\" fstab-sys \""

    PolicyRuleShadowed "IMA-940" Host Warning
        what: "this rule is never reached"
        cause: "the kernel takes the first rule that matches an access, and an earlier one matches whenever this one does"
        remedy: "put the narrower rule first, or take it out"

    PolicyFreesRamfs "IMA-942" Host Warning
        what: "this exemption holds for every ramfs, after the initramfs too"
        cause: "without func= root can mount a ramfs later and execute anything from it"
        remedy: "write dont_appraise fsname=rootfs, which is the initramfs alone"

    PolicyRuleTooNew "IMA-943" Host Warning
        what: "an older kernel refuses this rule"
        cause: "it does not know the word, and then refuses the whole policy"
        remedy: "leave the rule out for that kernel, or use a newer one"

    PolicyTakesDigests "IMA-944" Host Warning
        what: "this rule takes a digest for a signature"
        cause: "without appraise_type= a file with its own digest in security.ima is let through, and anybody who may write the attribute can make one"
        remedy: "add appraise_type=imasig, unless files that change are meant"

    PolicyAppraisesNothing "IMA-946" Host Warning
        what: "no rule appraises anything"
        cause: "the policy measures or audits, and denies nothing"
        remedy: "none if that is meant; for ima-init, set enforce=permissive"

    PolicyConditional "IMA-948" Host Warning
        what: "this rule leaves a way round appraisal"
        cause: "whoever writes the disk chooses file system, owner and label, and a process with capabilities can have any user ID; what the condition leaves out (or the exemption lets in) needs no signature, and no rule appraises the rest"
        remedy: "take the condition out, or add a rule for the same func= without conditions behind it"

    PolicyHookOpen "IMA-949" Host Warning
        what: "something that leads to unsigned programs is not appraised"
        cause: "no rule is for this hook; a module, a kernel for kexec or a library that nobody signed is taken"
        remedy: "add appraise func=HOOK appraise_type=imasig"

    PolicyWithoutNewline "IMA-947" Host Warning
        what: "the file does not end with a newline"
        cause: "the kernel refuses such a file when it is loaded by its path (ima_read_policy)"
        remedy: "add one; imactl policy fmt does"
    SystemdPolicy "IMA-937" Host Refusal
        what: "systemd would not load the root's /etc/ima/ima-policy"
        cause: "the kernel refuses the policy, and systemd then stops the boot: Failed to load IMA policy"
        remedy: "sign the policy (imactl sign), correct it (imactl policy check), or take it out of the root"
    InitramfsPacking "IMA-980" Host Refusal
        what: "the kernel would not unpack the initramfs"
        cause: "it was built without the decompressor that the initramfs needs: there is no init, and the kernel panics"
        remedy: "build the kernel with the option named, or compress the initramfs in another way (imactl initramfs --compress gzip)"
    SetupUnfit "IMA-950" Host Refusal
        what: "this system cannot be set up as it is"
        cause: "something that is needed is missing or in the way; it is named in this message or above it"
        remedy: "mend it and run imactl setup again; nothing was changed"
    SetupStep "IMA-951" Host Refusal
        what: "a step of the set-up failed"
        cause: "the command said why above; the steps before it are done, those after it are not, and the system boots as before unless the initramfs was made already"
        remedy: "mend the cause and run imactl setup again, which does what is left; or go back with imactl setup --undo"
    KernelOpen "IMA-952" Host Warning
        what: "the kernel leaves root ways around the policy"
        cause: "its configuration has options by which root changes programs below the file system or in memory, or the kernel itself; IMA does not see that"
        remedy: "imactl kernel check says of each option what it opens and what closes it; many are closed by lockdown=integrity in ima-init.conf"

    PackageUnsigned "IMA-960" Host Refusal
        what: "a package brings programs without a signature that this system takes"
        cause: "the boot enforces: what is installed unsigned cannot be executed, and where it takes the place of a library, nothing that needs it can"
        remedy: "have it signed with imactl deb sign, or give this system a key to sign with (--key and --cert in /etc/apt/apt.conf.d/50ima-init); nothing was changed"

    PackageMalformed "IMA-961" Host Refusal
        what: "not a package, or a damaged one"
        cause: "the file is none, or it was truncated or damaged"
        remedy: "fetch or build it again, and look at it with dpkg-deb --info or rpm -qpi"

    PackageTool "IMA-962" Host Refusal
        what: "dpkg-deb or rpm, which reads packages, failed"
        cause: "it printed the reason, or it is not installed"
        remedy: "install dpkg or rpm; if it is installed, correct what it complains of"

    NoPackages "IMA-970" Host Refusal
        what: "there is no record of installed packages"
        cause: "below this root there is neither var/lib/dpkg/status nor a database of rpm"
        remedy: "give the root of a system whose packages dpkg or rpm installed, or name the files to sign"

    PcrsUnreadable "IMA-985" Host Refusal
        what: "no PCRs to compare with"
        cause: "the TPM cannot be reached or does not answer as a TPM 2.0 does, the file names no PCR of that bank, or neither has a PCR that the list extends"
        remedy: "give a TPM (such as device:/dev/tpmrm0) or a file with PCRs of the machine that the list is from"

    MeasurementsMalformed "IMA-986" Host Refusal
        what: "the measurement list is malformed"
        cause: "it is not a measurement list, or one of another bank or byte order"
        remedy: "name the bank if it is another than SHA-1, and the byte order if the list is from a big-endian machine"

    EventLogMalformed "IMA-987" Host Refusal
        what: "the event log is malformed or has no event"
        cause: "it is not the log of a boot: the firmware's (binary_bios_measurements) or that of programs (tpm2-measure.log)"
        remedy: "copy the logs again, as root; the kernel shows the firmware's with CONFIG_TCG_TPM and CONFIG_SECURITYFS"

    TpmCommand "IMA-988" Host Refusal
        what: "the TPM did not do what it was asked for"
        cause: "it cannot be reached, is not a TPM 2.0, or refused the command; its answer is in this message"
        remedy: "see that the TPM is enabled and that this user may open it (/dev/tpmrm0, group tss); tpm2_rc_decode explains its answers"

    AttestationInput "IMA-989" Host Refusal
        what: "a file of an attestation cannot be read"
        cause: "it is another kind of file than this option takes, or it was truncated or damaged"
        remedy: "make it again: imactl attest --help says which command writes it"

    UkiStub "IMA-990" Host Refusal
        what: "the stub cannot be made into a unified kernel image"
        cause: "it is not the UEFI stub of systemd, or its headers have no room for the sections"
        remedy: "give the stub of systemd 252 or newer as the distribution ships it: /usr/lib/systemd/boot/efi/linuxx64.efi.stub (Debian: package systemd-boot-efi), linuxaa64.efi.stub for arm64"

    UkiInput "IMA-991" Host Refusal
        what: "no unified kernel image can be made of these files"
        cause: "the kernel is not one for UEFI or not for the stub's processor, or a section is there twice"
        remedy: "correct the file or option named"

    UkiMalformed "IMA-992" Host Refusal
        what: "not a unified kernel image"
        cause: "it is another kind of file, or it was truncated or damaged"
        remedy: "make it again: imactl uki build; or give kernel and initramfs by themselves: --kernel and --initramfs"

    UkiUntrusted "IMA-993" Host Refusal
        what: "Secure Boot would not let the firmware start the unified kernel image"
        cause: "it is unsigned, changed after it was signed, or signed with a key whose certificate is not in the firmware's database (db)"
        remedy: "sign it: imactl uki sign --key KEY --cert CERTIFICATE FILE; or give the certificate that is in db"

    CommandLineOpen "IMA-994" Host Warning
        what: "whoever writes the disk can change the kernel command line"
        cause: "nothing that the firmware verifies fixes it; rdinit= leaves out ima-init"
        remedy: "make a unified kernel image with a command line (imactl uki build --cmdline TEXT), sign it, have the firmware enforce Secure Boot, and check it with --secure-boot-cert"

    UkiWithoutSbat "IMA-995" Host Warning
        what: "the unified kernel image has no .sbat section"
        cause: "its stub has none; the boot loader shim refuses a program without one, and no list of revoked versions (SBAT) applies to it"
        remedy: "use the stub of systemd 252 or newer as the distribution ships it; if the firmware starts the image without shim, nothing is needed"

    SecureBootDatabase "IMA-996" Host Refusal
        what: "a list of what Secure Boot starts or refuses cannot be read"
        cause: "it is another kind of file, or it was truncated or damaged"
        remedy: "give the variable as the system shows it (/sys/firmware/efi/efivars/dbx-d719b2cb-3d3a-4596-a3bc-dad00e67656f), an .esl or .auth file, the list of SBAT, certificates, or digests"

    AttestationRefused "IMA-997" Host Refusal
        what: "the evidence does not show a boot to be trusted"
        cause: "something in it is not what the TPM signed, or what the TPM signed is not what was expected"
        remedy: "do not trust the machine until the cause is known"
}

impl Code {
    /// The catalogue's row.
    pub const fn entry(self) -> &'static Entry {
        self.0
    }

    /// The stable code, `IMA-` and three digits.
    pub const fn id(self) -> &'static str {
        self.0.id
    }

    /// The ids that are no longer used, each with the code that took its place.
    pub const RETIRED: &'static [(&'static str, Self)] = &[
        ("IMA-651", Self::PolicyUncovered),
        ("IMA-941", Self::TmpfsFree),
        ("IMA-945", Self::PoliciesUnguarded),
    ];

    /// The code of that id, or the one that took its place; letters in either case, the prefix optional.
    pub fn from_id(id: &str) -> Option<Self> {
        let wanted = id.trim();
        let named = |(id, _): &(&str, Self)| {
            id.eq_ignore_ascii_case(wanted) || id.strip_prefix("IMA-") == Some(wanted)
        };
        let used = Self::ALL.iter().map(|code| (code.id(), *code));
        let retired = Self::RETIRED.iter().copied();
        used.chain(retired).find(named).map(|(_, code)| code)
    }
}

/// Codes are equal if their ids are: each id is that of one row.
impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Code {}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_the_range_of_their_stage() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            let entry = code.entry();
            assert!(seen.insert(entry.id), "{} twice", entry.id);
            let digits = entry.id.strip_prefix("IMA-").expect("prefix");
            assert_eq!(digits.len(), 3, "{}", entry.id);
            let range = match entry.stage {
                Stage::Environment => '1',
                Stage::Configuration => '2',
                Stage::Modules => '3',
                Stage::Root => '4',
                Stage::Keys => '5',
                Stage::Policy => '6',
                Stage::Preflight => '7',
                Stage::Handover => '8',
                Stage::Host => '9',
            };
            assert!(digits.starts_with(range), "{} in {}", entry.id, entry.stage);
            assert_eq!(Code::from_id(entry.id), Some(*code));
            assert_eq!(Code::from_id(&digits.to_lowercase()), Some(*code));
        }
        for (id, successor) in Code::RETIRED {
            assert!(seen.insert(id), "{id} is used");
            assert_eq!(Code::from_id(id), Some(*successor));
        }
    }

    #[test]
    fn texts_are_whole_phrases_without_a_final_stop() {
        for code in Code::ALL {
            let entry = code.entry();
            for text in [entry.what, entry.cause, entry.remedy] {
                assert!(text.len() > 10, "{}: {text}", entry.id);
                assert!(
                    !text.ends_with('.') || text.ends_with("..."),
                    "{}: {text}",
                    entry.id
                );
            }
        }
    }
}
