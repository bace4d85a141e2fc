//! Whether a kernel's configuration has what a policy and a configuration of the init need, option by option.

use std::collections::BTreeMap;
use std::io::Read as _;

use ima::certificate::{Certificate, Curve, PublicKey};
use ima::config::{Config, Keyring};
use ima::evm::Layout;
use ima::fault::{Cause, Code, Fault};
use ima::policy::cover::On;
use ima::policy::{Action, AppraiseType, Hook, Policy};
use ima::release::Release;
use serde::Serialize;

use crate::Result;

/// The options of a kernel configuration that are set.
#[derive(Debug, Clone, Default)]
pub struct KernelConfig {
    options: BTreeMap<String, String>,
    /// The release that its first lines name.
    release: Option<Release>,
}

impl KernelConfig {
    /// Reads a `.config`, plain or compressed as in `/proc/config.gz`.
    ///
    /// # Errors
    ///
    /// [`Code::KernelConfiguration`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str, cause: Cause| {
            let detail = format!("no kernel configuration: {why}");
            Fault::new(Code::KernelConfiguration, detail).because(cause)
        };
        let mut text = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::GzDecoder::new(bytes)
                .take(16 << 20)
                .read_to_end(&mut text)
                .map_err(|error| {
                    bad(
                        &format!("it cannot be unpacked: {error}"),
                        Cause::NOT_A_CONFIGURATION,
                    )
                })?;
        } else {
            text.extend_from_slice(bytes);
        }
        let text = String::from_utf8_lossy(&text);
        let options: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| match line.strip_prefix("# CONFIG_") {
                Some(unset) => Some((unset.strip_suffix(" is not set")?, "n")),
                None => line.strip_prefix("CONFIG_")?.split_once('='),
            })
            .map(|(option, value)| (option.to_owned(), value.to_owned()))
            .collect();
        if options.is_empty() {
            return Err(match super::kind(bytes) {
                Some(kind) => bad(&format!("it is {kind}"), Cause::KERNEL_FOR_CONFIGURATION),
                None => bad(
                    "it has no line of the form CONFIG_...=...",
                    Cause::NOT_A_CONFIGURATION,
                ),
            });
        }
        // "# Linux/x86 6.12.1 Kernel Configuration"
        let release = text
            .lines()
            .take(5)
            .find_map(|line| line.strip_prefix("# Linux/")?.split(' ').nth(1))
            .and_then(|release| release.parse().ok());
        Ok(Self { options, release })
    }

    /// The configuration that a kernel has inside, with `CONFIG_IKCONFIG` (kernel/configs.c); nothing if it has none.
    ///
    /// # Errors
    ///
    /// [`Code::KernelImage`] if it is not a kernel that can be unpacked.
    pub fn in_image(image: &[u8]) -> Result<Option<Self>> {
        const START: &[u8] = b"IKCFG_ST\x1f\x8b";
        let elf = super::add_ca::unpacked(image)?;
        let found = elf
            .windows(START.len())
            .position(|window| window == START)
            .and_then(|at| elf.get(at + START.len() - 2..));
        // The marker's name may stand elsewhere; what does not unpack is not it.
        Ok(found.and_then(|packed| Self::parse(packed).ok()))
    }

    /// Whether the option is `y`; the name without `CONFIG_`.
    #[must_use]
    pub fn is_builtin(&self, option: &str) -> bool {
        self.options.get(option).is_some_and(|value| value == "y")
    }

    /// How the kernel lays out an inode for portable EVM signatures, by the size of its words; nothing if its options do not say.
    pub(crate) fn evm_layout(&self) -> Option<Layout> {
        /// arch/mips and arch/riscv, arch/arm, arch/x86, arch/powerpc.
        const NARROW: [&str; 4] = ["32BIT", "ARM", "X86_32", "PPC32"];
        if self.is_builtin("64BIT") {
            Some(Layout::Bits64)
        } else {
            let narrow = NARROW.iter().any(|option| self.is_builtin(option));
            narrow.then_some(Layout::Bits32)
        }
    }

    /// Whether the option is on, or not known to this kernel.
    pub(super) fn is_unless_set_off(&self, option: &str) -> bool {
        self.options.get(option).is_none_or(|value| value != "n")
    }

    /// Whether the option is `y` or `m`.
    #[must_use]
    pub fn is_available(&self, option: &str) -> bool {
        self.options
            .get(option)
            .is_some_and(|value| value == "y" || value == "m")
    }

    /// The first two numbers of the release that it is of, if it says so.
    #[must_use]
    pub fn release(&self) -> Option<Release> {
        self.release
    }

    /// The size of a page of memory, in bytes.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        let shift = self.value("PAGE_SHIFT").parse::<u32>().ok();
        let is = |options: [&str; 3]| options.iter().any(|option| self.is_builtin(option));
        match shift {
            Some(shift @ 12..=18) => 1 << shift,
            _ if is(["ARM64_64K_PAGES", "PPC_64K_PAGES", "PAGE_SIZE_64KB"]) => 1 << 16,
            _ if is(["ARM64_16K_PAGES", "PPC_16K_PAGES", "PAGE_SIZE_16KB"]) => 1 << 14,
            _ => 1 << 12,
        }
    }

    /// The value of an option; `n` where it is not set.
    #[must_use]
    pub fn value(&self, option: &str) -> &str {
        self.options.get(option).map_or("n", String::as_str)
    }
}

/// What the kernel is wanted for.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The policies.
    pub policies: Vec<&'a Policy>,
    /// Each of them has a signature packed beside it.
    pub policies_signed: bool,
    /// The init's configuration.
    pub config: Config,
    /// Certificates for `.ima` and `.evm`.
    pub certificates: Vec<&'a Certificate>,
    /// The root's file system type, if it is known.
    pub filesystem: Option<&'a str>,
    /// The firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// The command line is in a unified kernel image whose signature is valid.
    pub line_in_image: bool,
}

/// An option that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name with `CONFIG_`.
    pub option: String,
    /// What it should be.
    pub wanted: &'static str,
    /// What it is: `y`, `m`, `n` or a value.
    pub found: String,
    /// Without it the init refuses to boot or the policy does not hold; otherwise something is merely missed.
    pub required: bool,
    /// Why.
    pub reason: String,
}

/// Goes through every option that the boot and the policy need; what is as it should be is not in the answer.
#[must_use]
pub fn check(kernel: &KernelConfig, wanted: &Wanted<'_>) -> Vec<Finding> {
    let mut findings = Findings::new(kernel);
    let always = [
        ("IMA", "nothing is measured or appraised without it"),
        ("IMA_APPRAISE", "signatures are not checked without it"),
        ("SECURITYFS", "the policy is written to it"),
        ("INTEGRITY_SIGNATURE", "it verifies signatures of files"),
        (
            "INTEGRITY_ASYMMETRIC_KEYS",
            "it verifies signatures by keys in certificates",
        ),
        ("X509_CERTIFICATE_PARSER", "it reads certificates"),
        ("BLK_DEV_INITRD", "the init comes in an initramfs"),
        (
            "PROC_FS",
            "the keyrings and the command line are read from it",
        ),
        ("SYSFS", "devices are found in it"),
        ("DEVTMPFS", "the root device's node is in it"),
        ("TMPFS", "/run is on it"),
        ("CRYPTO_SHA256", "digests are computed with it"),
    ];
    for (option, reason) in always {
        findings.builtin(option, reason);
    }
    match wanted.config.keyring {
        Keyring::Trusted => {
            findings.builtin(
                "INTEGRITY_TRUSTED_KEYRING",
                "the keyring .ima is there only with it; without it use keyring=_ima",
            );
            findings.builtin(
                "SYSTEM_TRUSTED_KEYRING",
                "the CA that certificates for .ima are checked against is on it",
            );
            let none = ["", "\"\"", "n"].contains(&kernel.value("SYSTEM_TRUSTED_KEYS"));
            if none
                && !kernel.is_builtin("SYSTEM_EXTRA_CERTIFICATE")
                && !kernel.is_builtin("INTEGRITY_MACHINE_KEYRING")
            {
                findings.required(
                    "SYSTEM_EXTRA_CERTIFICATE",
                    "y, or SYSTEM_TRUSTED_KEYS a file",
                    "the local CA gets into the kernel by one of them, or as a MOK with INTEGRITY_MACHINE_KEYRING",
                );
            }
        }
        Keyring::Untrusted => {
            findings.builtin("KEYS", "the keyring _ima is made by the init");
            if kernel.is_builtin("INTEGRITY_TRUSTED_KEYRING") {
                findings.required(
                    "INTEGRITY_TRUSTED_KEYRING",
                    "n",
                    "with it the kernel looks at .ima and never at _ima",
                );
            }
        }
    }
    if kernel.is_builtin("IMA_APPRAISE_REQUIRE_POLICY_SIGS") && !wanted.policies_signed {
        findings.required(
            "IMA_APPRAISE_REQUIRE_POLICY_SIGS",
            "n, or a signature packed beside the policy",
            "the kernel takes only a signed policy",
        );
    }
    if wanted.secure_boot && has_policy_rule(kernel) && !wanted.policies_signed {
        findings.required(
            "IMA_ARCH_POLICY",
            "n, or a signature packed beside the policy",
            "under Secure Boot the kernel takes only a signed policy",
        );
    }
    if wanted.config.require_tpm {
        findings.available("TCG_TPM", "the configuration says require_tpm=yes");
    } else if wanted.config.measure_pcr.is_some() {
        findings.builtin("TCG_TPM", "the configuration has measure_pcr=");
    } else {
        findings.advised(
            "TCG_TPM",
            "measurements are not protected without a TPM driver",
        );
    }
    findings.advised(
        "IMA_READ_POLICY",
        "the init proves the policy by reading it back, where it can",
    );
    findings.advised(
        "IMA_WRITE_POLICY",
        "policies of the real root can be added only with it",
    );
    findings.advised("INTEGRITY_AUDIT", "denials are logged with it");
    for certificate in &wanted.certificates {
        match certificate.key() {
            PublicKey::Rsa { .. } => findings.builtin(
                "CRYPTO_RSA",
                format!("the key of `{}` is RSA", certificate.subject()),
            ),
            PublicKey::Ec {
                curve: Curve::P192 | Curve::P256 | Curve::P384 | Curve::P521,
            } => {
                findings.builtin(
                    "CRYPTO_ECDSA",
                    format!("the key of `{}` is ECDSA", certificate.subject()),
                );
            }
            PublicKey::MlDsa(set) => findings.builtin(
                "CRYPTO_MLDSA",
                format!("the key of `{}` is {set}", certificate.subject()),
            ),
            PublicKey::Other { .. } => {}
        }
    }
    for policy in &wanted.policies {
        for line in policy.lines() {
            let rule = &line.rule;
            let because = format!("policy line {}: {}", line.number, line.text);
            if rule.appraise_type == Some(AppraiseType::ImasigOrModsig) {
                findings.builtin("IMA_APPRAISE_MODSIG", because.clone());
            }
            if !rule.lsm.is_empty() {
                findings.builtin("IMA_LSM_RULES", because.clone());
            }
            // Nothing on FUSE has an fs-verity digest: such a rule is meant to deny.
            let on_fuse = matches!(rule.fsname.as_deref(), Some("fuse" | "fuseblk"));
            if rule.verity && !on_fuse {
                findings.builtin("FS_VERITY", because.clone());
            }
            if rule.action == Action::Audit {
                findings.builtin("AUDIT", because.clone());
            }
            if rule.hook == Some(Hook::KeyCheck) {
                findings.builtin("IMA_MEASURE_ASYMMETRIC_KEYS", because.clone());
            }
            for algorithm in &rule.appraise_algos {
                let option = match algorithm.as_str() {
                    "sha1" => "CRYPTO_SHA1",
                    "sha224" | "sha256" => "CRYPTO_SHA256",
                    "sha384" | "sha512" => "CRYPTO_SHA512",
                    "sha3-256" | "sha3-384" | "sha3-512" => "CRYPTO_SHA3",
                    "sm3" => "CRYPTO_SM3_GENERIC",
                    "md4" => "CRYPTO_MD4",
                    "md5" => "CRYPTO_MD5",
                    "rmd160" => "CRYPTO_RMD160",
                    "wp256" | "wp384" | "wp512" => "CRYPTO_WP512",
                    "streebog256" | "streebog512" => "CRYPTO_STREEBOG",
                    // Removed from Linux 5.12; the names stay known.
                    "tgr128" | "tgr160" | "tgr192" => "CRYPTO_TGR192",
                    "rmd128" => "CRYPTO_RMD128",
                    "rmd256" => "CRYPTO_RMD256",
                    _ => "CRYPTO_RMD320",
                };
                findings.builtin(option, because.clone());
            }
        }
    }
    kexec(&mut findings, wanted);
    let options: &[&str] = match wanted.filesystem.or(wanted.config.rootfstype.as_deref()) {
        Some("ext4") => &["EXT4_FS", "EXT4_FS_SECURITY"],
        Some("squashfs") => &["SQUASHFS", "SQUASHFS_XATTR"],
        Some("erofs") => &["EROFS_FS", "EROFS_FS_XATTR", "EROFS_FS_SECURITY"],
        Some("f2fs") => &["F2FS_FS", "F2FS_FS_XATTR", "F2FS_FS_SECURITY"],
        Some("ubifs") => &["UBIFS_FS", "UBIFS_FS_XATTR", "UBIFS_FS_SECURITY"],
        Some("btrfs") => &["BTRFS_FS"],
        Some("xfs") => &["XFS_FS"],
        _ => &[],
    };
    for option in options {
        findings.available(option, "the root's file system and the signatures on it");
    }
    findings.list
}

/// Whether the kernel has a rule of its own under Secure Boot that policies must be signed (security/integrity/ima/ima_efi.c,
/// `sb_arch_rules`).
fn has_policy_rule(kernel: &KernelConfig) -> bool {
    let options = [
        "IMA_ARCH_POLICY",
        "INTEGRITY_MACHINE_KEYRING",
        "IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY",
    ];
    options.iter().all(|option| kernel.is_builtin(option))
}

/// A kernel with kexec starts another kernel, unless the init disables that or the policy appraises it. A rule needs no kexec.
fn kexec(findings: &mut Findings<'_>, wanted: &Wanted<'_>) {
    let closed = |hooks: &[Hook]| {
        wanted
            .policies
            .iter()
            .any(|policy| policy.gap(hooks, On::Any, wanted.config.cover).is_none())
    };
    if !wanted.config.kexec || !wanted.policies.iter().any(|policy| policy.appraises()) {
        return;
    }
    for (option, hooks, without) in [
        (
            "KEXEC",
            &[Hook::KexecKernelCheck][..],
            "n, or kexec=no, or a policy that appraises KEXEC_KERNEL_CHECK",
        ),
        (
            "KEXEC_FILE",
            &[Hook::KexecKernelCheck, Hook::KexecInitramfsCheck],
            "n, or kexec=no, or a policy that appraises KEXEC_KERNEL_CHECK and KEXEC_INITRAMFS_CHECK",
        ),
    ] {
        if findings.kernel.is_builtin(option) && !closed(hooks) {
            findings.required(
                option,
                without,
                "root could start a kernel and an initramfs that nobody signed",
            );
        }
    }
}

pub(super) struct Findings<'a> {
    kernel: &'a KernelConfig,
    pub(super) list: Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(kernel: &'a KernelConfig) -> Self {
        Self {
            kernel,
            list: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        option: &str,
        wanted: &'static str,
        required: bool,
        reason: impl Into<String>,
    ) {
        let option = format!("CONFIG_{option}");
        if self.list.iter().all(|finding| finding.option != option) {
            let found = self
                .kernel
                .value(option.trim_start_matches("CONFIG_"))
                .to_owned();
            self.list.push(Finding {
                option,
                wanted,
                found,
                required,
                reason: reason.into(),
            });
        }
    }

    pub(super) fn required(
        &mut self,
        option: &str,
        wanted: &'static str,
        reason: impl Into<String>,
    ) {
        self.add(option, wanted, true, reason);
    }

    pub(super) fn builtin(&mut self, option: &str, reason: impl Into<String>) {
        if !self.kernel.is_builtin(option) {
            self.add(option, "y", true, reason);
        }
    }

    fn available(&mut self, option: &str, reason: impl Into<String>) {
        if !self.kernel.is_available(option) {
            self.add(
                option,
                "y, or m with the module in the initramfs",
                true,
                reason,
            );
        }
    }

    fn advised(&mut self, option: &str, reason: impl Into<String>) {
        if !self.kernel.is_available(option) {
            self.add(option, "y", false, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "CONFIG_IMA=y\nCONFIG_IMA_APPRAISE=y\nCONFIG_SECURITYFS=y\nCONFIG_INTEGRITY_SIGNATURE=y\n\
        CONFIG_INTEGRITY_ASYMMETRIC_KEYS=y\nCONFIG_X509_CERTIFICATE_PARSER=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_PROC_FS=y\n\
        CONFIG_SYSFS=y\nCONFIG_DEVTMPFS=y\nCONFIG_TMPFS=y\nCONFIG_CRYPTO_SHA256=y\nCONFIG_INTEGRITY_TRUSTED_KEYRING=y\n\
        CONFIG_SYSTEM_TRUSTED_KEYRING=y\nCONFIG_SYSTEM_EXTRA_CERTIFICATE=y\nCONFIG_TCG_TPM=m\nCONFIG_IMA_READ_POLICY=y\n\
        CONFIG_IMA_WRITE_POLICY=y\nCONFIG_INTEGRITY_AUDIT=y\nCONFIG_KEYS=y\n";

    #[test]
    fn a_kernel_may_have_its_configuration_inside() {
        let mut elf = b"\x7fELF the marker's own name, IKCFG_ST, then ".to_vec();
        assert!(KernelConfig::in_image(&elf).unwrap().is_none());
        elf.extend_from_slice(b"IKCFG_ST");
        let mut packed = flate2::write::GzEncoder::new(elf, flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, GOOD.as_bytes()).unwrap();
        let mut elf = packed.finish().unwrap();
        elf.extend_from_slice(b"IKCFG_ED and more");
        let config = KernelConfig::in_image(&elf).unwrap().unwrap();
        assert!(config.is_builtin("IMA_APPRAISE"));
        assert!(!config.is_builtin("FS_VERITY"));
        let fault = KernelConfig::in_image(b"no kernel").unwrap_err();
        assert_eq!(fault.code(), Code::KernelImage);
    }

    fn findings(config: &str, policy: &str, init: &str) -> Vec<(String, bool)> {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let wanted = Wanted {
            policies: vec![&policy],
            config: Config::parse(init.as_bytes()).unwrap(),
            ..Wanted::default()
        };
        check(&KernelConfig::parse(config.as_bytes()).unwrap(), &wanted)
            .into_iter()
            .map(|finding| (finding.option.replace("CONFIG_", ""), finding.required))
            .collect()
    }

    #[test]
    fn options_and_what_asks_for_them() {
        let without = |option: &str| {
            GOOD.replace(
                &format!("CONFIG_{option}=y\n"),
                &format!("# CONFIG_{option} is not set\n"),
            )
        };
        for (name, config, policy, init, expected) in [
            (
                "nothing missing",
                GOOD.to_owned(),
                "appraise func=BPRM_CHECK",
                "",
                vec![],
            ),
            ("no IMA", without("IMA"), "", "", vec![("IMA", true)]),
            (
                "no .ima",
                without("INTEGRITY_TRUSTED_KEYRING"),
                "",
                "",
                vec![("INTEGRITY_TRUSTED_KEYRING", true)],
            ),
            (
                "no .ima, and none wanted",
                without("INTEGRITY_TRUSTED_KEYRING"),
                "",
                "keyring=_ima",
                vec![],
            ),
            (
                "_ima wanted where the kernel looks at .ima",
                GOOD.to_owned(),
                "",
                "keyring=_ima",
                vec![("INTEGRITY_TRUSTED_KEYRING", true)],
            ),
            (
                "no way for a CA",
                without("SYSTEM_EXTRA_CERTIFICATE"),
                "",
                "",
                vec![("SYSTEM_EXTRA_CERTIFICATE", true)],
            ),
            (
                "a CA built in",
                without("SYSTEM_EXTRA_CERTIFICATE") + "CONFIG_SYSTEM_TRUSTED_KEYS=\"ca.pem\"\n",
                "",
                "",
                vec![],
            ),
            (
                "no reading back",
                without("IMA_READ_POLICY"),
                "",
                "",
                vec![("IMA_READ_POLICY", false)],
            ),
            (
                "signed policies only",
                GOOD.to_owned() + "CONFIG_IMA_APPRAISE_REQUIRE_POLICY_SIGS=y\n",
                "",
                "",
                vec![("IMA_APPRAISE_REQUIRE_POLICY_SIGS", true)],
            ),
            (
                "modsig",
                GOOD.to_owned(),
                "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
                "",
                vec![("IMA_APPRAISE_MODSIG", true)],
            ),
            (
                "a label",
                GOOD.to_owned(),
                "measure func=FILE_CHECK obj_type=etc_t",
                "",
                vec![("IMA_LSM_RULES", true)],
            ),
            (
                "an algorithm",
                GOOD.to_owned(),
                "appraise func=BPRM_CHECK appraise_algos=sha256,sha512",
                "",
                vec![("CRYPTO_SHA512", true)],
            ),
            (
                "a TPM",
                GOOD.replace("CONFIG_TCG_TPM=m\n", ""),
                "",
                "require_tpm=yes",
                vec![("TCG_TPM", true)],
            ),
            (
                "kexec of anything",
                GOOD.to_owned() + "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n",
                "appraise func=BPRM_CHECK",
                "kexec=yes",
                vec![("KEXEC", true), ("KEXEC_FILE", true)],
            ),
            (
                "kexec that the init disables",
                GOOD.to_owned() + "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n",
                "appraise func=BPRM_CHECK",
                "",
                vec![],
            ),
            (
                "kexec of an initramfs",
                GOOD.to_owned() + "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n",
                "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig",
                "kexec=yes",
                vec![("KEXEC_FILE", true)],
            ),
            (
                "kexec of what is signed",
                GOOD.to_owned() + "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n",
                "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\nappraise func=KEXEC_INITRAMFS_CHECK appraise_type=imasig",
                "kexec=yes",
                vec![],
            ),
            (
                "rules for kexec and FUSE where the kernel has neither",
                GOOD.to_owned(),
                "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\nappraise func=BPRM_CHECK fsname=fuse digest_type=verity appraise_type=sigv3",
                "",
                vec![],
            ),
            (
                "a file system",
                GOOD.to_owned() + "CONFIG_EXT4_FS=m\n",
                "",
                "rootfstype=ext4",
                vec![("EXT4_FS_SECURITY", true)],
            ),
        ] {
            let expected: Vec<(String, bool)> = expected
                .into_iter()
                .map(|(option, required): (&str, bool)| (option.to_owned(), required))
                .collect();
            assert_eq!(findings(&config, policy, init), expected, "{name}");
        }
        for bytes in [&b""[..], b"text", &[0x1f, 0x8b, 8]] {
            assert_eq!(
                KernelConfig::parse(bytes).unwrap_err().code(),
                Code::KernelConfiguration
            );
        }
    }
}
