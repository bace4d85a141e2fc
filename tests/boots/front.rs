//! ima-init in front of another initramfs: one like initramfs-tools', whose init is a shell script that mounts the root and
//! executes run-init, and one that loads the root's side while its own PID 1 goes on, as systemd does in dracut's.

use ima::cpio::{self, Metadata};
use ima::signatures::{Attributes, Signatures};

use crate::built::{Kernel, PROGRAMS, busybox};
use crate::keys::{P256, Pair, RSA};
use crate::matrix::{Check, SCRIPT, faults};
use crate::setup::{EVM_CERTIFICATE, Setup, assert_booted, console_tail};
use crate::tree::Tree;

pub const FRONTED_INIT: &str = "usr/lib/ima-init/init";
pub const SIGNATURES: &str = "etc/ima/initramfs.signatures";
const PROGRAM: &str = "usr/lib/ima-init/ima-init";

/// The programs of the initramfs that are executed, by their paths there.
pub const EXECUTED: [&str; 2] = ["/usr/bin/busybox", "/usr/lib/ima-init/ima-init"];

/// What initramfs-tools' and dracut's scripts do before they mount anything. What ima-init has mounted, they leave.
const BEGIN: &str = "#!/bin/sh\nexport PATH=/usr/bin\n\
    mount -t sysfs -o nodev,noexec,nosuid sysfs /sys\n\
    [ -d /proc/self ] || mount -t proc -o nodev,noexec,nosuid proc /proc\n\
    mount -t devtmpfs -o nosuid,mode=0755 udev /dev\n\
    [ -d /run/ima-init ] || mount -t tmpfs -o nodev,noexec,nosuid,size=10%,mode=0755 tmpfs /run\n";

/// How initramfs-tools leaves its initramfs.
const RUN_INIT: &str = "mount -o ro /dev/vda /root\nmount -n -o move /dev /root/dev\nmount -n -o move /run /root/run\nmount -n -o move /sys /root/sys\n\
    mount -n -o move /proc /root/proc\nexec /usr/lib/ima-init/run-init /root /sbin/init </root/dev/console >/root/dev/console 2>&1\n";

/// How dracut without systemd leaves its own.
const SWITCH_ROOT: &str = "mount -o ro /dev/vda /sysroot\nmount -n -o move /run /sysroot/run\nexec switch_root /sysroot /sbin/init\n";

/// The script of an initramfs like that of initramfs-tools.
pub fn like_initramfs_tools() -> String {
    format!("{BEGIN}{RUN_INIT}")
}

fn over(setup: &mut Setup, path: &str, mode: u32, data: &[u8]) {
    let metadata = Metadata {
        mode,
        ..Metadata::default()
    };
    setup.over.push((path.to_owned(), metadata, data.to_vec()));
}

fn link(setup: &mut Setup, path: &str, target: &str) {
    over(setup, path, cpio::S_IFLNK | 0o777, target.as_bytes());
}

/// An initramfs with an init of its own, behind ima-init, without its list of signatures.
pub fn unlisted(setup: &mut Setup, script: &str) {
    setup.programs.push((PROGRAM.into(), PROGRAMS.init.clone()));
    setup.programs.push(("usr/bin/busybox".into(), busybox()));
    setup
        .programs
        .push((FRONTED_INIT.into(), script.as_bytes().to_vec()));
    link(setup, "bin", "usr/bin");
    link(setup, "usr/lib/ima-init/run-init", "ima-init");
    link(setup, "usr/bin/switch_root", "../lib/ima-init/ima-init");
    for name in [
        "sh", "mount", "umount", "cat", "mkdir", "sleep", "ls", "cp", "chmod", "echo",
    ] {
        link(setup, &format!("usr/bin/{name}"), "busybox");
    }
    for name in ["root", "sysroot", "tmp"] {
        over(setup, name, cpio::S_IFDIR | 0o755, b"");
    }
}

/// The list of the initramfs's programs, but for its script and those that are named unsigned, with signatures of `key`.
pub fn list(setup: &Setup, key: &Pair, evm: Option<&Pair>) -> Signatures {
    let mut list = Signatures::default();
    for (path, content) in &setup.programs {
        if path == FRONTED_INIT || path.ends_with("unsigned") {
            continue;
        }
        let ima = key.sign(content);
        let evm = evm.map(|evm| evm.sign_evm(0o755, &ima));
        list.insert(path.clone().into_bytes(), Attributes { ima, evm });
    }
    list
}

/// The same with its list.
pub fn fronted(setup: &mut Setup, script: &str) {
    unlisted(setup, script);
    let list = list(setup, &RSA, None);
    setup.put(SIGNATURES, list.to_text());
}

/// A boot through such an initramfs to a root with the attempts.
fn with_attempts(script: &str) -> Setup {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    fronted(&mut setup, script);
    setup
}

fn assert_enforced(outcome: &ima_testbed::Outcome) -> &ima_testbed::report::Report {
    let report = assert_booted(outcome);
    let failed: Vec<_> = report
        .attempts
        .iter()
        .filter(|attempt| !attempt.passed)
        .collect();
    assert!(
        !report.attempts.is_empty() && failed.is_empty(),
        "{failed:#?}"
    );
    report
}

/// Programs of the initramfs run before the root is mounted if they are signed, and only then.
#[test]
fn initramfs_like_that_of_initramfs_tools() {
    let tries = "/usr/bin/signed ok && echo signed: ran\n/usr/bin/unsigned ok && echo unsigned: ran || echo unsigned: denied\n\
        case $(cat /proc/cmdline) in *break=*) echo command line: open ;; *root=*) echo command line: filtered ;; esac\n";
    let mut setup = Setup::new();
    setup.append("break=premount");
    setup.root = Tree::with_attempts(None);
    for name in ["signed", "unsigned"] {
        setup
            .programs
            .push((format!("usr/bin/{name}"), PROGRAMS.guest.clone()));
    }
    fronted(&mut setup, &format!("{BEGIN}{tries}{RUN_INIT}"));
    let outcome = setup.boot();
    let report = assert_enforced(&outcome);
    for line in ["signed: ran", "unsigned: denied", "command line: filtered"] {
        assert!(
            outcome.console_contains(line),
            "{line}: {}",
            console_tail(&outcome)
        );
    }
    assert!(
        !report.command_line.contains("break="),
        "{}",
        report.command_line
    );
    let init = report.init.as_ref().expect("a report of the init's");
    assert_eq!(
        init["policy"]["proofs"],
        serde_json::json!(["canary", "read-back"])
    );
    let first = &init["first_half"];
    assert_eq!(
        first["policy"]["proofs"],
        serde_json::json!(["record", "read-back", "canary"])
    );
    assert_eq!(first["keys"][0]["keyring"], ".ima");
}

#[test]
fn initramfs_like_that_of_dracut_without_systemd() {
    let setup = with_attempts(&format!("{BEGIN}{SWITCH_ROOT}"));
    assert_enforced(&setup.boot());
}

/// The same with its list changed.
fn with_list(setup: &mut Setup, change: impl FnOnce(&mut Signatures)) {
    unlisted(setup, &like_initramfs_tools());
    let mut list = list(setup, &RSA, None);
    change(&mut list);
    setup.put(SIGNATURES, list.to_text());
}

/// The list without one of its files.
fn without(list: &Signatures, path: &str) -> Signatures {
    let mut rest = Signatures::default();
    for (name, attributes) in list.files().filter(|(name, _)| *name != path.as_bytes()) {
        rest.insert(name.to_vec(), attributes.clone());
    }
    rest
}

faults! {
    run_init_on_what_is_not_mounted: "IMA-407", Reboot, SCRIPT, |setup| {
        fronted(setup, &format!("{BEGIN}exec /usr/lib/ima-init/run-init /root /sbin/init\n"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    list_of_signatures_missing: "IMA-109", Halt, Check::Same, |setup| unlisted(setup, BEGIN);
    list_of_signatures_damaged: "IMA-109", Panic, Check::Same, |setup| {
        fronted(setup, BEGIN);
        let list = setup.initramfs[SIGNATURES].clone();
        setup.put(SIGNATURES, &list[..list.len() - 7]);
    };
    list_of_signatures_of_its_own_initramfs_damaged: "IMA-109", Reboot, Check::Same, |setup| setup.put(SIGNATURES, "ima-init\n");
    list_of_signatures_of_other_content: "IMA-622", Poweroff, Check::Same, |setup| {
        with_list(setup, |list| {
            let other = Attributes { ima: RSA.sign(b"another busybox"), evm: None };
            list.insert(b"usr/bin/busybox".to_vec(), other);
        });
    };
    list_of_signatures_of_a_stranger: "IMA-622", Reboot, Check::Same, |setup| {
        unlisted(setup, BEGIN);
        let list = list(setup, &P256, None);
        setup.put(SIGNATURES, list.to_text());
    };
    program_of_the_second_half_unsigned: "IMA-622", Halt, Check::Same, |setup| {
        with_list(setup, |list| *list = without(list, PROGRAM));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    program_of_the_second_half_missing: "IMA-621", Panic, Check::Same, |setup| {
        fronted(setup, BEGIN);
        setup.programs.retain(|(path, _)| path != PROGRAM);
    };
    init_of_the_initramfs_without_its_interpreter: "IMA-621", Poweroff, Check::Same, |setup| {
        fronted(setup, &BEGIN.replace("/bin/sh", "/bin/bash"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_of_the_initramfs_that_is_no_program: "IMA-621", Reboot, Check::Same, |setup| fronted(setup, "text\n");
    initramfs_with_directories_without_end: "IMA-108", Halt, Check::NotAsked("directories deeper than any tool makes"), |setup| {
        fronted(setup, BEGIN);
        for depth in 1..700 {
            over(setup, &vec!["d"; depth].join("/"), cpio::S_IFDIR | 0o755, b"");
        }
    };
}

/// The reports of attempts by these names.
fn attempted<'a>(
    report: &'a ima_testbed::report::Report,
    names: &'a [&str],
) -> impl Iterator<Item = &'a ima_testbed::report::Attempt> {
    names.iter().map(|name| {
        let found = report.attempts.iter().find(|attempt| attempt.name == *name);
        found.unwrap_or_else(|| panic!("{name} was not tried: {:#?}", report.attempts))
    })
}

/// Root detaches `/` in a mount namespace of its own and writes a program to what lies below: the tmpfs that held the initramfs,
/// and rootfs, here a tmpfs too. Both deny it, and run it with a signature.
#[test]
fn root_goes_back_to_the_initramfs_and_to_rootfs() {
    let mut setup = with_attempts(&like_initramfs_tools());
    // With root= the kernel makes rootfs a ramfs, unless rootfstype= names a tmpfs (init/do_mounts.c, `init_rootfs`).
    setup.append("rootfstype=tmpfs");
    let outcome = setup.boot();
    let report = assert_enforced(&outcome);
    let names = [
        "below-root-unsigned",
        "below-root-signed",
        "below-initramfs-unsigned",
        "below-initramfs-signed",
    ];
    for attempt in attempted(report, &names) {
        assert!(attempt.passed, "{attempt:#?}");
    }
}

/// The same where rootfs is a ramfs, which keeps no signature: nothing can be executed there at all.
#[test]
fn root_goes_back_to_a_rootfs_that_is_a_ramfs() {
    let setup = with_attempts(&format!("{BEGIN}{SWITCH_ROOT}"));
    let outcome = setup.boot();
    let report = assert_enforced(&outcome);
    for attempt in attempted(report, &["below-initramfs-unsigned"]) {
        assert!(attempt.passed, "{attempt:#?}");
    }
    let signed = report
        .attempts
        .iter()
        .any(|attempt| attempt.name == "below-initramfs-signed");
    assert!(!signed, "{:#?}", report.attempts);
}

/// With an EVM certificate in the initramfs its programs need a portable signature of owner and mode too.
#[test]
fn initramfs_under_evm() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    setup.root.sign_all_evm(&P256);
    setup.put(EVM_CERTIFICATE, P256.der());
    setup
        .programs
        .push(("usr/bin/signed".into(), PROGRAMS.guest.clone()));
    setup
        .programs
        .push(("usr/bin/without-evm".into(), PROGRAMS.guest.clone()));
    let tries = "/usr/bin/signed ok && echo signed: ran\n/usr/bin/without-evm ok || echo without-evm: denied\n";
    unlisted(&mut setup, &format!("{BEGIN}{tries}{RUN_INIT}"));
    let mut list = list(&setup, &RSA, Some(&P256));
    if let Some(mut attributes) = list.get(b"usr/bin/without-evm").cloned() {
        attributes.evm = None;
        list.insert(b"usr/bin/without-evm".to_vec(), attributes);
    }
    setup.put(SIGNATURES, list.to_text());
    let outcome = setup.boot();
    for line in ["signed: ran", "without-evm: denied"] {
        assert!(
            outcome.console_contains(line),
            "{line}: {}",
            console_tail(&outcome)
        );
    }
    assert_booted(&outcome);
}

/// The kernel takes one policy and shows none: the second half has the canary and the kernel's log.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn initramfs_on_a_kernel_that_takes_one_policy() {
    let mut setup = with_attempts(&like_initramfs_tools());
    setup.kernel = Kernel::WriteOnce;
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let init = report.init.as_ref().expect("a report of the init's");
    assert_eq!(
        init["policy"]["proofs"],
        serde_json::json!(["canary", "record"])
    );
    for attempt in attempted(report, &["signed", "unsigned", "below-root-unsigned"]) {
        assert!(attempt.passed, "{attempt:#?}");
    }
}

/// `_ima` is in the user session keyring of PID 1, and is found for its programs after it has become another one.
#[test]
fn initramfs_with_an_untrusted_keyring() {
    let mut setup = with_attempts(&like_initramfs_tools());
    setup.kernel = Kernel::NoImaKeyring;
    setup.configure("keyring=_ima");
    assert_enforced(&setup.boot());
}

/// As dracut's with systemd: `ima-init load` says whether the root may be booted, and PID 1 changes root itself.
#[test]
fn initramfs_whose_pid_1_goes_on() {
    let lines = "mount -o ro /dev/vda /sysroot\n/usr/lib/ima-init/ima-init load /sysroot || exit\n\
        cat /run/ima-init/report.json\nmount -n -o move /dev /sysroot/dev\n\
        for name in run sys proc; do mount -n -o move /$name /sysroot/$name; done\n\
        cd /sysroot\nexec busybox switch_root -c /dev/console /sysroot /sbin/init\n";
    let setup = with_attempts(&format!("{BEGIN}{lines}"));
    let outcome = setup.boot();
    let report = assert_enforced(&outcome);
    let init = report.init.as_ref().expect("a report of the init's");
    assert!(init["first_half"].is_object());
    assert_eq!(init["switch_root"], "");
}

/// With EVM's HMAC key the kernel seals each file of the initramfs itself, as it gets its signature.
#[test]
fn initramfs_under_evm_with_its_hmac_key() {
    let mut setup = Setup::new();
    crate::initramfs::sealed(&mut setup);
    fronted(&mut setup, &like_initramfs_tools());
    assert_booted(&setup.boot());
}
