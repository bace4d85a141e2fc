//! Attacks by root in the running system: what holds, and what does not. docs/explanation/threat-model.md names each of these tests.
//!
//! The root's init is a script, run by a signed busybox: what is done needs no program of the attacker's. The guest program's
//! tools (`guest tool`) stand for signed programs that make the system calls which busybox does not make.

use ima_testbed::Outcome;

use crate::built::{Kernel, PROGRAMS, busybox};
use crate::formats::policy_for_1001;
use crate::keys::RSA;
use crate::partitions::Table;
use crate::setup::{DEFAULT_POLICY, POLICY, Setup, console_tail};
use crate::tree::{Format, INIT, Tree};

/// The applets that the scripts call.
const APPLETS: [&str; 24] = [
    "awk", "cat", "chmod", "chroot", "cp", "cut", "dd", "echo", "grep", "head", "kill", "losetup",
    "mkdir", "mkfifo", "mount", "mv", "poweroff", "printf", "sh", "sleep", "sync", "umount",
    "unshare", "devmem",
];

const PRELUDE: &str = "#!/bin/busybox sh
export PATH=/bin
exec </dev/null >/dev/kmsg 2>&1
mount -t tmpfs tmpfs /tmp
# One record of the kernel's log, which is on the console.
say() { echo \"attack: $*\"; }
";

/// The program whose exit status shows what is executed: 0 as it was signed, 7 when it was changed.
const VICTIM: &str = "usr/bin/victim";

/// The same as a library: `guest tool call` maps it and calls its function.
const LIBRARY: &str = "usr/lib/library.so";

fn victim() -> Vec<u8> {
    // Another content than that of the tools, to be found on the disk.
    [PROGRAMS.guest.as_slice(), b"victim"].concat()
}

/// `mov eax, 0; ret`, in a page of its own.
fn library() -> Vec<u8> {
    let mut code = vec![0xb8, 0, 0, 0, 0, 0xc3];
    code.resize(4096, 0);
    code.extend(b"library");
    code
}

/// A root in which this script runs as the init.
pub fn attacked_by(script: &str) -> Setup {
    let mut setup = Setup::new();
    run_by_init(&mut setup, script);
    setup
}

/// Puts this script in the place of the root's init, with the programs that it calls.
pub fn run_by_init(setup: &mut Setup, script: &str) {
    let root = &mut setup.root;
    root.add_signed("bin/busybox", 0o755, &busybox(), &RSA);
    for applet in APPLETS {
        root.link(&format!("bin/{applet}"), "busybox");
    }
    root.add_signed("bin/guest", 0o755, &PROGRAMS.guest, &RSA);
    root.add_signed(VICTIM, 0o755, &victim(), &RSA);
    root.add_signed(LIBRARY, 0o755, &library(), &RSA);
    root.remove(INIT);
    let script = format!("{PRELUDE}{script}\npoweroff -f\n");
    root.add_signed(INIT, 0o755, script.as_bytes(), &RSA);
    setup.append("printk.devkmsg=on");
}

/// What the script said, in order.
pub fn said(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.console.lines();
    lines
        .filter_map(|line| Some(line.split_once("attack: ")?.1.trim()))
        .collect()
}

pub fn assert_said(setup: &Setup, expected: &[&str]) {
    let outcome = setup.boot();
    assert_eq!(said(&outcome), expected, "{}", console_tail(&outcome));
}

/// Overwrites the victim where it lies on $device, below the file system that it was executed from.
const OVERWRITE: &str = r#"
# Open, so that the file's inode stays, and with it the kernel's verdict.
exec 4<$victim
$victim tool status; say "before: $?"
at=$(guest tool find $device $victim) || say "not found: $at"
if printf 7 | dd of=$device bs=1 seek=$at conv=notrunc,fsync 2>/tmp/error; then say "written"; else say "$(cut -d: -f3 /tmp/error)"; fi
echo 1 >/proc/sys/vm/drop_caches
$victim tool status 2>/tmp/error; say "after: $?"
"#;

/// With CONFIG_BLK_DEV_WRITE_MOUNTED off, the device that a file system is mounted from is not opened for writing.
#[test]
fn disk_written_under_the_mounted_root() {
    let setup = attacked_by(&format!("device=/dev/vda victim=/{VICTIM}{OVERWRITE}"));
    assert_said(
        &setup,
        &["before: 0", "Device or resource busy", "after: 0"],
    );
}

/// The whole disk is another device than the partition that is mounted.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn disk_written_through_the_whole_disk_of_a_partition_is_not_detected() {
    let mut setup = attacked_by(&format!("device=/dev/vda victim=/{VICTIM}{OVERWRITE}"));
    setup.table = Table::Gpt;
    setup.root_name = Some("/dev/vda2".to_owned());
    assert_said(&setup, &["before: 0", "written", "after: 7"]);
}

/// A file system in a file of root's: the file is written below it.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn file_written_under_a_loop_mount_is_not_detected() {
    let setup = with_loop_mount();
    assert_said(&setup, &["before: 0", "written", "after: 7"]);
}

fn with_loop_mount() -> Setup {
    let script = format!(
        "cp /image /tmp/image; mkdir /tmp/mount
        losetup /dev/loop0 /tmp/image; mount -t ext4 /dev/loop0 /tmp/mount
        device=/tmp/image victim=/tmp/mount/{VICTIM}{OVERWRITE}"
    );
    let mut setup = attacked_by(&script);
    let mut inner = Tree::default();
    inner.add_signed(VICTIM, 0o755, &victim(), &RSA);
    let image = inner.image(&Format::Ext4 {
        uuid: [1; 16],
        label: "inner",
    });
    let content = std::fs::read(&image).expect("the image");
    std::fs::remove_file(image).expect("the image");
    setup.root.add("image", 0o644, &content);
    setup
}

/// fs-verity checks each page as it is read: what was changed below the file system is not executed.
#[test]
fn disk_written_under_a_program_with_fs_verity() {
    let script = format!(
        "guest tool verity /{VICTIM} || say 'no verity'
        sync
        device=/dev/vda victim=/{VICTIM}{OVERWRITE}"
    );
    let mut setup = attacked_by(&script);
    setup.root.verity = true;
    let file = setup.root.file(VICTIM);
    file.owner = 1001;
    file.signature = Some(RSA.sign_verity(&victim()));
    setup.drop_file(DEFAULT_POLICY);
    setup.put(
        POLICY,
        policy_for_1001("digest_type=verity appraise_type=sigv3"),
    );
    setup.table = Table::Gpt;
    setup.root_name = Some("/dev/vda2".to_owned());
    setup.append("rw");
    assert_said(&setup, &["before: 0", "written", "after: 135"]);
}

/// A library that somebody has open for writing is appraised when it is first mapped, and not when it is written to then.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn library_written_while_it_is_mapped_is_not_detected() {
    let script = "mkdir /tmp/lib; guest copy /usr/lib /tmp/lib
        library=/tmp/lib/library.so
        exec 5<>$library
        guest tool call $library mmap; say \"before: $?\"
        printf '\\007' | dd of=$library bs=1 seek=1 conv=notrunc
        guest tool call $library mmap; say \"while it is open for writing: $?\"
        exec 5>&-
        say \"after: $(guest tool call $library mmap)\"";
    assert_said(
        &attacked_by(script),
        &[
            "before: 0",
            "while it is open for writing: 7",
            "after: EACCES",
        ],
    );
}

/// Tries to start an unsigned kernel, one without a file, and a signed one without the initramfs that has the policy.
fn kexec(config: &str) -> Outcome {
    let mut setup = attacked_by(
        "say \"unsigned: $(guest tool kexec /boot/unsigned - x)\"
        say \"kexec_load: $(guest tool kexec-load)\"
        say \"signed: $(guest tool kexec /boot/kernel - 'console=ttyS0 root=/dev/vda init=/evil')\"",
    );
    setup.configure(config);
    let kernel = std::fs::read(setup.kernel.with_ca()).expect("the kernel");
    setup.root.add("boot/unsigned", 0o644, &kernel);
    setup.root.add_signed("boot/kernel", 0o644, &kernel, &RSA);
    setup.root.add("evil", 0o755, &PROGRAMS.guest);
    setup.boot()
}

#[test]
fn kexec_is_disabled() {
    let outcome = kexec("kexec=no");
    let refused = ["unsigned: EPERM", "kexec_load: EPERM", "signed: EPERM"];
    assert_eq!(said(&outcome), refused, "{}", console_tail(&outcome));
    assert!(!outcome.guest_ran(), "{}", console_tail(&outcome));
}

/// Where the configuration allows kexec, the policy denies unsigned kernels. A signed one, started without the initramfs, has no
/// policy, and runs what its command line says.
#[test]
fn kexec_of_a_signed_kernel_without_an_initramfs_is_not_detected() {
    let outcome = kexec("kexec=yes");
    let refused = ["unsigned: EACCES", "kexec_load: EACCES"];
    assert_eq!(said(&outcome), refused, "{}", console_tail(&outcome));
    assert!(outcome.guest_ran(), "{}", console_tail(&outcome));
}

/// What root reads of the machine's memory, on a kernel that has /dev/mem.
fn memory_under(lockdown: &str) -> Setup {
    let mut setup = attacked_by(
        "mount -t devtmpfs devtmpfs /dev
        if dd if=/dev/mem of=/tmp/memory bs=16 count=1 2>/tmp/error; then say read; else say \"$(cut -d: -f3 /tmp/error)\"; fi
        guest tool status; say \"signed program: $?\"",
    );
    setup.kernel = Kernel::Lockdown;
    setup.configure(&format!("lockdown={lockdown}"));
    setup
}

#[test]
fn memory_of_the_machine_under_lockdown() {
    let expected = ["Operation not permitted", "signed program: 0"];
    assert_said(&memory_under("integrity"), &expected);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn memory_of_the_machine_without_lockdown_is_not_protected() {
    assert_said(&memory_under("no"), &["read", "signed program: 0"]);
}

/// Programs that the kernel starts by itself are appraised like others.
#[test]
fn unsigned_helpers_of_the_kernel() {
    let setup = attacked_by(
        "printf '#!/bin/busybox sh\\necho attack: a helper ran >/dev/kmsg\\n' >/tmp/helper; chmod 755 /tmp/helper
        mkdir /tmp/signed; guest copy /usr/libexec /tmp/signed
        mkdir /tmp/cgroup; mount -t cgroup -o none,name=attack none /tmp/cgroup
        for helper in /tmp/helper /tmp/signed/helper; do
            say \"$helper\"
            echo $helper >/proc/sys/kernel/modprobe
            mount -t nosuchfs none /tmp 2>/tmp/error
            echo \"|$helper\" >/proc/sys/kernel/core_pattern
            sh -c 'kill -SEGV $$'
            echo $helper >/tmp/cgroup/release_agent; mkdir -p /tmp/cgroup/x; echo 1 >/tmp/cgroup/x/notify_on_release
            sh -c 'echo $$ >/tmp/cgroup/x/cgroup.procs'
            # The release agent is started by a thread of the kernel, after this.
            [ $helper = /tmp/helper ] && continue
            until [ -s /tmp/ran ] && [ $(cat /tmp/ran | grep -c ran) = 3 ]; do :; done
        done",
    );
    let mut setup = setup;
    let helper = b"#!/bin/busybox sh\necho attack: a helper ran >/dev/kmsg\necho ran >>/tmp/ran\n";
    setup
        .root
        .add_signed("usr/libexec/helper", 0o755, helper, &RSA);
    let ran = "a helper ran";
    assert_said(
        &setup,
        &["/tmp/helper", "/tmp/signed/helper", ran, ran, ran],
    );
}

/// Ways to get unsigned code of a file into executable memory, beside mmap(2).
#[test]
fn ways_to_map_an_unsigned_library() {
    let setup = attacked_by(
        "mkdir /tmp/lib; guest copy /usr/lib /tmp/lib
        cp /usr/lib/library.so /tmp/unsigned.so
        for how in mmap shared mprotect personality remap; do
            for library in /tmp/lib/library.so /tmp/unsigned.so; do
                error=$(guest tool call $library $how); say \"$how $library: $? $error\"
            done
        done",
    );
    assert_said(
        &setup,
        &[
            "mmap /tmp/lib/library.so: 0",
            "mmap /tmp/unsigned.so: 99 EACCES",
            "shared /tmp/lib/library.so: 0",
            "shared /tmp/unsigned.so: 99 EACCES",
            "mprotect /tmp/lib/library.so: 99 EPERM",
            "mprotect /tmp/unsigned.so: 99 EPERM",
            "personality /tmp/lib/library.so: 0",
            "personality /tmp/unsigned.so: 99 EACCES",
            "remap /tmp/lib/library.so: 99 EINVAL",
            "remap /tmp/unsigned.so: 99 EINVAL",
        ],
    );
}

const MEMORY: &str = r#"
mkfifo /tmp/input
for way in mem ptrace; do
    victim tool status wait </tmp/input >/tmp/address & exec 6>/tmp/input
    until [ -s /tmp/address ]; do :; done
    at=$(cat /tmp/address)
    case $way in
        mem) printf 7 | dd of=/proc/$!/mem bs=1 seek=$at conv=notrunc 2>/tmp/error && error=written || error=$(cut -d: -f3 /tmp/error) ;;
        ptrace) error=$(guest tool poke $! $at) && error=written ;;
    esac
    echo >&6; exec 6>&-
    wait $!; say "$way: $error, status $?"
    : >/tmp/address
done
"#;

fn with_memory_written() -> Setup {
    attacked_by(&MEMORY.replace("victim tool", &format!("/{VICTIM} tool")))
}

/// Root writes to the code of a program that runs.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn code_of_a_running_program_written_is_not_detected() {
    let setup = with_memory_written();
    assert_said(
        &setup,
        &["mem: written, status 7", "ptrace: written, status 7"],
    );
}

/// A user namespace in which the attacker is root, with a tmpfs of its own, where no signature can be set.
#[test]
fn unsigned_program_in_a_user_namespace() {
    let setup = attacked_by(
        "unshare -U -r -m sh -c 'mount -t tmpfs own /tmp; cp /bin/guest /tmp/guest; chmod 755 /tmp/guest
            /tmp/guest ok; echo \"attack: unsigned: $?\"; /bin/guest ok; echo \"attack: signed: $?\"'",
    );
    assert_said(&setup, &["unsigned: 126", "signed: 0"]);
}

/// An overlay over a signed program: changed in the lower layer after it was executed, and in the upper one.
#[test]
fn program_changed_in_an_overlay() {
    let script = format!(
        "mkdir /tmp/low /tmp/up /tmp/work /tmp/all; guest copy /usr/bin /tmp/low
        mount -t overlay -o lowerdir=/tmp/low,upperdir=/tmp/up,workdir=/tmp/work overlay /tmp/all
        /tmp/all/victim tool status; say \"before: $?\"
        at=$(guest tool find /{VICTIM} /{VICTIM})
        printf 7 | dd of=/tmp/low/victim bs=1 seek=$at conv=notrunc
        /tmp/all/victim tool status; say \"lower: $?\"
        printf 0 | dd of=/tmp/low/victim bs=1 seek=$at conv=notrunc
        /tmp/all/victim tool status; say \"lower as it was: $?\"
        printf 7 | dd of=/tmp/all/victim bs=1 seek=$at conv=notrunc
        /tmp/all/victim tool status; say \"upper: $?\""
    );
    assert_said(
        &attacked_by(&script),
        &[
            "before: 0",
            "lower: 126",
            "lower as it was: 0",
            "upper: 126",
        ],
    );
}
