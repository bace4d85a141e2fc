//! What a kernel lets root do beside what IMA appraises, option by option: change a program below the file system or in
//! memory, change the kernel, or start another.
//!
//! None of it keeps ima-init from booting. What is `required` ends the promise for whoever is root: the kernel's memory can be
//! written, or another kernel be started, by documented interfaces. docs/explanation/threat-model.md has the whole.

use ima::config::{Lockdown, lists_lockdown};
use ima::policy::cover::On;
use ima::policy::{Hook, Query};

use super::check::{Finding, Findings, KernelConfig, Wanted};
use super::command_line::FixedBy;

/// FUSE_SUPER_MAGIC (include/uapi/linux/magic.h).
const FUSE: u64 = 0x6573_5546;

/// Whether an option should be on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Should {
    BeOn,
    BeOff,
}
use Should::{BeOff, BeOn};

/// What closes it beside the option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Else {
    Nothing,
    /// `lockdown=integrity`.
    Lockdown,
}

struct Row {
    option: &'static str,
    should: Should,
    /// It matters only where one of these is on; empty: always.
    with: &'static [&'static str],
    closed_by: Else,
    required: bool,
    reason: &'static str,
}

const fn row(option: &'static str, should: Should, reason: &'static str) -> Row {
    Row {
        option,
        should,
        with: &[],
        closed_by: Else::Nothing,
        required: false,
        reason,
    }
}

const fn locked(option: &'static str, reason: &'static str) -> Row {
    Row {
        closed_by: Else::Lockdown,
        ..row(option, BeOff, reason)
    }
}

const ROWS: &[Row] = &[
    row(
        "BLK_DEV_LOOP",
        BeOff,
        "root can mount a file and then change a program in it below the mount; the kernel goes on using its verdict on the old \
         content. Policy rules with digest_type=verity close it",
    ),
    row(
        "BLK_DEV_NBD",
        BeOff,
        "root can mount a device that a program serves, which may answer differently the second time",
    ),
    Row {
        required: true,
        ..locked(
            "DEVKMEM",
            "root can write to the kernel's memory through /dev/kmem",
        )
    },
    Row {
        should: BeOn,
        with: &["DEVMEM"],
        required: true,
        ..locked(
            "STRICT_DEVMEM",
            "root can write to the kernel's memory through /dev/mem",
        )
    },
    Row {
        should: BeOn,
        with: &["DEVMEM"],
        ..locked(
            "IO_STRICT_DEVMEM",
            "root can write to registers of devices that a driver uses through /dev/mem, and have a device write to memory",
        )
    },
    locked(
        "DEVPORT",
        "root can write to I/O ports through /dev/port, and have a device write to memory",
    ),
    locked(
        "X86_IOPL_IOPERM",
        "root can write to I/O ports by iopl and ioperm, and have a device write to memory",
    ),
    locked(
        "X86_MSR",
        "root can write to the processor's registers through /dev/cpu/*/msr, and so change the kernel",
    ),
    locked(
        "ACPI_CONFIGFS",
        "root can load ACPI tables, whose code the kernel runs",
    ),
    locked(
        "ACPI_CUSTOM_METHOD",
        "root can replace ACPI methods, whose code the kernel runs",
    ),
    row(
        "EFI_CUSTOM_SSDT_OVERLAYS",
        BeOff,
        "efivar_ssdt= on the command line has the kernel load an ACPI table from an EFI variable, which root can write",
    ),
    locked(
        "KGDB",
        "the kernel's debugger writes to its memory, from the serial console or by SysRq-g",
    ),
    locked(
        "BPF_EVENTS",
        "root can change the memory of running programs with BPF (bpf_probe_write_user)",
    ),
    row(
        "BPF_KPROBE_OVERRIDE",
        BeOff,
        "root can have functions of the kernel return what it likes with BPF",
    ),
    row(
        "FAIL_FUNCTION",
        BeOff,
        "root can have functions of the kernel return what it likes, through debugfs",
    ),
    Row {
        with: &["BPF_SYSCALL"],
        ..row(
            "BPF_UNPRIV_DEFAULT_OFF",
            BeOn,
            "every user can load BPF programs into the kernel until kernel.unprivileged_bpf_disabled is set",
        )
    },
    row(
        "PROC_MEM_NO_FORCE",
        BeOn,
        "root can write to the code of a running program through /proc/PID/mem, for which a signed shell and dd are enough \
         (Linux 6.12 and later has the option)",
    ),
    row(
        "SECURITY_YAMA",
        BeOn,
        "root can change a running program with ptrace until kernel.yama.ptrace_scope=3 is set",
    ),
    row(
        "IMA_APPRAISE_BOOTPARAM",
        BeOff,
        "ima_appraise=off, log and fix are taken from the command line; ima-init refuses such a boot, and this kernel needs not \
         understand them",
    ),
];

/// Goes through the options; what is closed by the policy or by the configuration of the init is not in the answer.
#[must_use]
pub fn check(kernel: &KernelConfig, wanted: &Wanted<'_>) -> Vec<Finding> {
    let mut findings = Findings::new(kernel);
    let available = |option: &str| kernel.is_available(option);
    let lockdown = wanted.config.lockdown;
    let locked = lockdown > Lockdown::No && kernel.is_builtin("SECURITY_LOCKDOWN_LSM");

    // Off, and known to the kernel: before Linux 6.8 the device was open for writing without it.
    if available("BLOCK") && kernel.is_unless_set_off("BLK_DEV_WRITE_MOUNTED") {
        findings.add(
            "BLK_DEV_WRITE_MOUNTED",
            "n",
            false,
            "root can change a program on the device of a mounted file system; the kernel goes on using its verdict on the old \
             content. With it off (Linux 6.8 and later) the device cannot be opened for writing; the whole disk of a mounted \
             partition still can, which only fs-verity and dm-verity close",
        );
    }
    let standard = kernel.value("PM_STD_PARTITION").trim_matches('"');
    if available("HIBERNATION") && !["n", ""].contains(&standard) {
        findings.add(
            "PM_STD_PARTITION",
            "\"\"",
            true,
            "the kernel resumes from this partition before it starts the init: whoever writes the disk has it run another kernel",
        );
    }
    if !locked && available("HIBERNATION") {
        findings.add(
            "HIBERNATION",
            "n",
            false,
            "root, or resume= on the command line, replaces the running kernel by an image on the disk, which nobody verifies; \
             nohibernate on a command line that the boot chain verifies closes it, and lockdown=integrity in ima-init.conf \
             closes it for root",
        );
    }
    // Of a kernel that the policy does not appraise, the checks of the boot report.
    let kexec = ["KEXEC_FILE", "KEXEC"]
        .into_iter()
        .find(|option| available(option));
    let appraised = wanted.policies.iter().any(|policy| {
        let gap = policy.gap(&[Hook::KexecKernelCheck], On::Any, wanted.config.cover);
        gap.is_none()
    });
    if let (Some(option), true, true) = (kexec, wanted.config.kexec, appraised) {
        findings.add(
            option,
            "n",
            false,
            "root can start any signed kernel without the initramfs that ima-init is in, and so without a policy; kexec=no in \
             ima-init.conf closes it",
        );
    }
    let serves = |hook| {
        let query = Query::by_root(hook, FUSE, "fuse");
        wanted
            .policies
            .iter()
            .any(|policy| policy.appraisal(&query).is_some_and(|rule| !rule.verity))
    };
    if available("FUSE_FS") && (serves(Hook::BprmCheck) || serves(Hook::MmapCheck)) {
        findings.add(
            "FUSE_FS",
            "n",
            false,
            "the program that serves a FUSE file system can show one content when a file is appraised and another when it is \
             executed; rules with fsname=fuse digest_type=verity, as in policy/ima_policy.default, close it",
        );
    }
    for row in ROWS {
        let matters = row.with.is_empty() || row.with.iter().any(|option| available(option));
        let right = match row.should {
            BeOn => kernel.is_builtin(row.option),
            BeOff => !available(row.option),
        };
        if !matters || right || (locked && row.closed_by == Else::Lockdown) {
            continue;
        }
        let wanted = match row.should {
            BeOn => "y",
            BeOff => "n",
        };
        let mut reason = row.reason.to_owned();
        if row.closed_by == Else::Lockdown {
            reason.push_str("; lockdown=integrity in ima-init.conf closes it");
        }
        findings.add(row.option, wanted, row.required, reason);
    }
    if FixedBy::of(Some(kernel), wanted.line_in_image) == FixedBy::Nothing {
        let option = if available("X86") {
            "CMDLINE_OVERRIDE"
        } else {
            "CMDLINE_FORCE"
        };
        findings.add(
            option,
            "y",
            false,
            "rdinit= on the command line leaves out ima-init; build the line into the kernel, unless what verifies the kernel \
             verifies the line too (a unified kernel image, a signed FIT configuration)",
        );
    }
    if lockdown > Lockdown::No {
        let reason = format!("ima-init.conf says lockdown={}", lockdown.name());
        findings.builtin("SECURITY_LOCKDOWN_LSM", reason.clone());
        if locked && !names_lockdown(kernel, None) {
            findings.required("LSM", "a list with lockdown", reason);
        }
        if available("MODULES") && !kernel.is_builtin("MODULE_SIG_ALL") {
            findings.add(
                "MODULE_SIG_ALL",
                "y",
                false,
                "under lockdown the kernel loads only modules with a signature of its own, beside the one in security.ima; \
                 those that ima-init loads come before",
            );
        }
    }
    findings.list
}

/// Whether lockdown is among the security modules, by the last `lsm=` of the command line or by `CONFIG_LSM`.
pub(crate) fn names_lockdown(kernel: &KernelConfig, lsm: Option<&str>) -> bool {
    kernel.is_builtin("SECURITY_LOCKDOWN_LSM_EARLY")
        || lists_lockdown(lsm.unwrap_or_else(|| kernel.value("LSM").trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ima::config::Config;
    use ima::policy::Policy;

    const POLICY: &str = "appraise func=MMAP_CHECK fsname=fuse digest_type=verity appraise_type=sigv3\n\
        appraise func=BPRM_CHECK fsname=fuse digest_type=verity appraise_type=sigv3\n\
        appraise func=MMAP_CHECK appraise_type=imasig\nappraise func=BPRM_CHECK appraise_type=imasig\n\
        appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n";

    /// Of linux-image-6.1.0-56-amd64 (Debian 12), the options that are looked at.
    const DEBIAN: &str = "CONFIG_X86=y\nCONFIG_BLOCK=y\nCONFIG_MODULES=y\nCONFIG_BLK_DEV_LOOP=m\nCONFIG_BLK_DEV_NBD=m\n\
        CONFIG_HIBERNATION=y\nCONFIG_PM_STD_PARTITION=\"\"\nCONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG=y\n\
        CONFIG_DEVMEM=y\nCONFIG_STRICT_DEVMEM=y\nCONFIG_IO_STRICT_DEVMEM=y\nCONFIG_DEVPORT=y\nCONFIG_X86_IOPL_IOPERM=y\n\
        CONFIG_X86_MSR=m\n# CONFIG_ACPI_CONFIGFS is not set\nCONFIG_EFI_CUSTOM_SSDT_OVERLAYS=y\n# CONFIG_KGDB is not set\n\
        CONFIG_BPF_SYSCALL=y\nCONFIG_BPF_UNPRIV_DEFAULT_OFF=y\nCONFIG_BPF_EVENTS=y\nCONFIG_FUSE_FS=m\n\
        CONFIG_PROC_MEM_ALWAYS_FORCE=y\nCONFIG_SECURITY_YAMA=y\nCONFIG_IMA_APPRAISE_BOOTPARAM=y\n\
        # CONFIG_CMDLINE_BOOL is not set\nCONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_ALL=y\n\
        CONFIG_LSM=\"landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,tomoyo,bpf\"\n";

    /// Nothing is left open.
    const CLOSED: &str = "CONFIG_BLOCK=y\n# CONFIG_BLK_DEV_WRITE_MOUNTED is not set\nCONFIG_PROC_MEM_NO_FORCE=y\n\
        CONFIG_SECURITY_YAMA=y\nCONFIG_CMDLINE_FORCE=y\n";

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
    fn what_kernels_leave_open() {
        let closed = |more: &str| CLOSED.to_owned() + more;
        let everywhere = [
            ("BLK_DEV_WRITE_MOUNTED", false),
            ("BLK_DEV_LOOP", false),
            ("BLK_DEV_NBD", false),
            ("EFI_CUSTOM_SSDT_OVERLAYS", false),
            ("PROC_MEM_NO_FORCE", false),
            ("IMA_APPRAISE_BOOTPARAM", false),
            ("CMDLINE_OVERRIDE", false),
        ];
        let unlocked = [
            ("BLK_DEV_WRITE_MOUNTED", false),
            ("HIBERNATION", false),
            ("BLK_DEV_LOOP", false),
            ("BLK_DEV_NBD", false),
            ("DEVPORT", false),
            ("X86_IOPL_IOPERM", false),
            ("X86_MSR", false),
            ("EFI_CUSTOM_SSDT_OVERLAYS", false),
            ("BPF_EVENTS", false),
            ("PROC_MEM_NO_FORCE", false),
            ("IMA_APPRAISE_BOOTPARAM", false),
            ("CMDLINE_OVERRIDE", false),
        ];
        let without_fuse: String = POLICY
            .lines()
            .skip(2)
            .map(|line| line.to_owned() + "\n")
            .collect();
        // Name, kernel configuration, policy, the init's configuration, findings and whether they are required.
        type Case<'a> = (&'a str, String, &'a str, &'a str, &'a [(&'a str, bool)]);
        let rows: &[Case<'_>] = &[
            ("nothing open", closed(""), POLICY, "", &[]),
            ("Debian", DEBIAN.to_owned(), POLICY, "", &unlocked),
            (
                "Debian, locked down",
                DEBIAN.to_owned(),
                POLICY,
                "lockdown=integrity",
                &everywhere,
            ),
            (
                "a kernel that does not know the option",
                closed("").replace("# CONFIG_BLK_DEV_WRITE_MOUNTED is not set\n", ""),
                POLICY,
                "",
                &[("BLK_DEV_WRITE_MOUNTED", false)],
            ),
            (
                "memory as a file",
                closed("CONFIG_DEVMEM=y\n"),
                POLICY,
                "",
                &[("STRICT_DEVMEM", true), ("IO_STRICT_DEVMEM", false)],
            ),
            (
                "a partition to resume from",
                closed("CONFIG_HIBERNATION=y\nCONFIG_PM_STD_PARTITION=\"/dev/sda2\"\n"),
                POLICY,
                "",
                &[("PM_STD_PARTITION", true), ("HIBERNATION", false)],
            ),
            (
                "kexec disabled",
                closed("CONFIG_KEXEC=y\n"),
                POLICY,
                "",
                &[],
            ),
            (
                "kexec of signed kernels",
                closed("CONFIG_KEXEC_FILE=y\n"),
                POLICY,
                "kexec=yes",
                &[("KEXEC_FILE", false)],
            ),
            (
                "FUSE without rules for it",
                closed("CONFIG_FUSE_FS=m\n"),
                &without_fuse,
                "",
                &[("FUSE_FS", false)],
            ),
            (
                "FUSE with rules for it",
                closed("CONFIG_FUSE_FS=m\n"),
                POLICY,
                "",
                &[],
            ),
            (
                "no lockdown where it is configured",
                closed(""),
                POLICY,
                "lockdown=integrity",
                &[("SECURITY_LOCKDOWN_LSM", true)],
            ),
            (
                "lockdown left out of the list",
                closed("CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_LSM=\"yama,bpf\"\n"),
                POLICY,
                "lockdown=confidentiality",
                &[("LSM", true)],
            ),
            (
                "lockdown before any list",
                closed(
                    "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\nCONFIG_MODULES=y\n",
                ),
                POLICY,
                "lockdown=integrity",
                &[("MODULE_SIG_ALL", false)],
            ),
        ];
        for (name, config, policy, init, expected) in rows {
            let expected: Vec<(String, bool)> = expected
                .iter()
                .map(|(option, required)| ((*option).to_owned(), *required))
                .collect();
            assert_eq!(findings(config, policy, init), expected, "{name}");
        }
    }

    #[test]
    fn a_finding_says_what_closes_it() {
        let kernel = KernelConfig::parse(DEBIAN.as_bytes()).unwrap();
        for finding in check(&kernel, &Wanted::default()) {
            assert!(finding.reason.len() > 40, "{finding:?}");
            let name = finding.option.trim_start_matches("CONFIG_");
            let row = ROWS.iter().find(|row| row.option == name);
            if row.is_some_and(|row| row.closed_by == Else::Lockdown) {
                assert!(finding.reason.contains("lockdown=integrity"), "{finding:?}");
            }
        }
    }
}
