//! What is changed in the Debian systems, by what they are attacked, and what must come of it.

use std::fmt;

use clap::ValueEnum;

/// By which initramfs, and so by which program of it, the real system is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// ima-init in run-init's place
    InitramfsTools,
    /// ima-init in switch_root's place
    Dracut,
    /// ima-init started by the systemd of the initramfs
    DracutSystemd,
    /// initramfs-tools again, with this project's kernel and its keyring .ima
    OwnKernel,
}

impl Variant {
    /// All variants.
    pub const ALL: [Self; 4] = [
        Self::InitramfsTools,
        Self::Dracut,
        Self::DracutSystemd,
        Self::OwnKernel,
    ];

    /// Returns its name: that on the command line, and of its initramfs after `initrd-`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InitramfsTools => "initramfs-tools",
            Self::Dracut => "dracut",
            Self::DracutSystemd => "dracut-systemd",
            Self::OwnKernel => "own-kernel",
        }
    }
}

/// What must come of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A refusal with this code.
    Refused(&'static str),
    /// The system comes up enforced, as if nothing had been.
    Boots,
    /// The initramfs finds no system, and restarts the machine without opening a shell.
    Restart,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused(code) => code,
            Self::Boots => "boots",
            Self::Restart => "restart",
        })
    }
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A byte of this file of the root.
    RootFile(&'static str),
    /// This file of the initramfs has this content instead.
    InitramfsFile(&'static str, &'static str),
}

/// What is attacked, by whoever has the disk or the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// `/usr` of the root is a link to itself, and its fstab has another file system mounted there: over the initramfs's.
    FstabUsrLink,
    /// The swap partition has the image of a hibernated machine of the attacker's.
    Hibernation,
    /// The same, and `resume=`.
    ResumeParameter,
    /// The command line has the initramfs read it as a script.
    BootIsCmdline,
    /// `systemd.run=`.
    SystemdRun,
    /// `systemd.unit=`.
    SystemdUnit,
    /// `/etc/sysconfig/readonly-root` of the root, which an initramfs of dracut's would read as a script.
    ReadonlyRoot,
    /// `/.autofsck` and `/etc/sysconfig/autofsck` of the root, likewise.
    Autofsck,
    /// `/etc/fstab.sys` of the root has another file system mounted over dracut's hooks.
    FstabSys,
    /// The files in `/etc/sysconfig` of the root that dracut's modules for IMA and EVM read.
    SysconfigOfIntegrity,
    /// ima-init's unit is masked by the command line.
    MaskImaInit,
    /// A shell is asked for by the command line.
    DebugShell,
    /// The emergency target is asked for by the command line.
    Emergency,
}

/// One boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub variant: Variant,
    pub name: &'static str,
    pub what: What,
    pub expected: Expected,
}

/// What makes a boot another one than that of the signed system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Changed(Change),
    Attacked(Attack),
}

/// Returns the boots of a variant; with `all`, more of them.
pub fn cases(variant: Variant, all: bool) -> Vec<Case> {
    let changed = changes(variant)
        .into_iter()
        .map(|(of_all, name, change, code)| {
            let what = What::Changed(change);
            (of_all, name, what, Expected::Refused(code))
        });
    let attacked = attacks(variant)
        .iter()
        .map(|(of_all, name, attack, expected)| {
            (*of_all, *name, What::Attacked(*attack), *expected)
        });
    changed
        .chain(attacked)
        .filter(|(of_all, ..)| all || !of_all)
        .map(|(_, name, what, expected)| Case {
            variant,
            name,
            what,
            expected,
        })
        .collect()
}

/// Returns the changes of a variant: whether only the full matrix has it, its name, what is changed, and the code that must come.
fn changes(variant: Variant) -> Vec<(bool, &'static str, Change, &'static str)> {
    let switch_root = Change::RootFile("/usr/sbin/switch_root.static");
    let init = Change::RootFile("/usr/lib/systemd/systemd");
    let loader = Change::RootFile("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    let certificate = Change::InitramfsFile("etc/keys/ima/x509_ima_local.der", "");
    let policy = Change::InitramfsFile("etc/ima/ima_policy", "appraise func=NOTHING\n");
    // What the initramfs of one variant shows, those of the others show with the full matrix.
    let of_the_root = [Variant::InitramfsTools, Variant::DracutSystemd];
    let of_the_initramfs = [Variant::OwnKernel];
    let mut changes = vec![
        (!of_the_root.contains(&variant), "init", init, "IMA-713"),
        (
            !of_the_initramfs.contains(&variant),
            "certificate",
            certificate,
            "IMA-503",
        ),
        (true, "loader", loader, "IMA-722"),
        (true, "policy", policy, "IMA-603"),
    ];
    // Where systemd leaves the initramfs, no switch_root runs.
    if variant != Variant::DracutSystemd {
        changes.push((true, "switch_root", switch_root, "IMA-704"));
    }
    changes
}

/// Returns the attacks on a variant: whether only the full matrix has it, its name, the attack, and what must come of it.
fn attacks(variant: Variant) -> &'static [(bool, &'static str, Attack, Expected)] {
    use Attack::*;
    use Expected::{Boots, Refused, Restart};
    match variant {
        Variant::InitramfsTools => &[
            (false, "fstab-usr-link", FstabUsrLink, Refused("IMA-701")),
            (false, "hibernation", Hibernation, Boots),
            (true, "boot-is-cmdline", BootIsCmdline, Boots),
            (true, "systemd-run", SystemdRun, Boots),
            (true, "systemd-unit", SystemdUnit, Boots),
            (
                true,
                "resume-parameter",
                ResumeParameter,
                Refused("IMA-207"),
            ),
        ],
        Variant::Dracut => &[
            (false, "readonly-root", ReadonlyRoot, Boots),
            (true, "fstab-usr-link", FstabUsrLink, Restart),
            (true, "hibernation", Hibernation, Boots),
            (true, "autofsck", Autofsck, Boots),
            (true, "fstab-sys", FstabSys, Boots),
        ],
        Variant::DracutSystemd => &[
            (true, "sysconfig-of-integrity", SysconfigOfIntegrity, Boots),
            (false, "mask-ima-init", MaskImaInit, Boots),
            (true, "systemd-run", SystemdRun, Boots),
            (true, "debug-shell", DebugShell, Boots),
            (true, "emergency", Emergency, Boots),
        ],
        Variant::OwnKernel => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_names_of_the_variants_are_those_of_the_command_line() {
        for variant in Variant::ALL {
            assert_eq!(Variant::from_str(variant.name(), false), Ok(variant));
        }
        assert_eq!(Variant::value_variants(), Variant::ALL);
    }

    #[test]
    fn each_boot_has_a_name_of_its_own_and_the_full_matrix_has_more() {
        for variant in Variant::ALL {
            let all = cases(variant, true);
            let names: BTreeSet<_> = all.iter().map(|case| case.name).collect();
            assert_eq!(names.len(), all.len());
            let some = cases(variant, false);
            assert!(some.len() < all.len() && some.iter().all(|case| all.contains(case)));
        }
        let count = |all| Variant::ALL.map(|variant| cases(variant, all).len());
        assert_eq!(count(false), [3, 1, 2, 1]);
        assert_eq!(count(true), [11, 10, 9, 5]);
    }
}
