//! Machines that boot the guest program as /init, with and without a TPM, disks and all the ways to end.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use ima::cpio::{Metadata, S_IFDIR, S_IFREG, Writer};
use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch, boot_aggregate};
use ima_testbed::attempts::{File, files};
use ima_testbed::report::{Report, decode_hex};
use ima_testbed::{Bus, Disk, Ending, Machine, TestbedError, Tpm, Uefi};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The last line that a script of the project prints: a path.
fn path_of(script: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(project().join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(output.status.success(), "{script}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(
        text.lines()
            .last()
            .unwrap_or_else(|| panic!("{script} printed no path")),
    )
}

/// `IMA_TESTBED_KERNEL`, or the project's test kernel.
fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| match std::env::var_os("IMA_TESTBED_KERNEL") {
        Some(path) => path.into(),
        None => path_of("qemu/build-kernel", &[]).join("bzImage"),
    })
}

/// `IMA_TESTBED_GUEST`, or the guest program as it is shipped.
fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| match std::env::var_os("IMA_TESTBED_GUEST") {
        Some(path) => path.into(),
        None => path_of("build/ship", &["guest"]),
    })
}

fn initramfs(more: &[File]) -> tempfile::TempPath {
    let mut writer = Writer::new();
    let mut entry = |name: &str, mode: u32, data: &[u8]| {
        let metadata = Metadata {
            mode,
            ..Metadata::default()
        };
        writer.entry(name.as_bytes(), &metadata, data).unwrap();
    };
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "usr",
        "usr/lib",
        "usr/lib/ima-testbed",
    ] {
        entry(directory, S_IFDIR | 0o755, b"");
    }
    entry("init", S_IFREG | 0o755, &std::fs::read(guest()).unwrap());
    for file in more {
        entry(&file.path, S_IFREG | file.mode, &file.content);
    }
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&path, writer.finish()).unwrap();
    path
}

fn machine(initramfs: &Path) -> Machine {
    Machine::new(kernel()).initramfs(initramfs)
}

fn disk_image(bytes: u64) -> tempfile::TempPath {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file.into_temp_path()
}

/// The measurement list must be what the TPM holds, in each bank, and its first entry what the firmware left.
fn assert_list_matches_tpm(report: &Report) {
    let bytes = decode_hex(&report.measurements_binary).unwrap();
    let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::Little).unwrap();
    assert_eq!(list.first_wrong_digest(), None);
    let ascii =
        MeasurementList::parse_ascii(report.measurements_ascii.as_bytes(), ByteOrder::Little)
            .unwrap();
    // The ASCII list is read later and may be longer.
    assert_eq!(ascii.entries()[..list.entries().len()], *list.entries());
    assert_eq!(list.to_binary(), bytes);
    let mut compared = 0;
    for bank in Bank::ALL {
        let Some(pcr) = report.pcr10.get(bank.name()) else {
            continue;
        };
        let value = decode_hex(pcr).unwrap();
        assert_ne!(list.match_pcr(bank, 10, &value), PcrMatch::No, "{bank}");
        assert_ne!(value, vec![0; bank.digest_len()], "{bank}");
        compared += 1;
    }
    assert!(compared >= 2, "{:?}", report.pcr10);
    let first = &list.entries()[0];
    assert_eq!(first.name(), Some(&b"boot_aggregate"[..]));
    let digest = first.file_digest().unwrap();
    assert_eq!(digest.algorithm, "sha256");
    let pcrs: Vec<Vec<u8>> = report.pcrs["sha256"]
        .iter()
        .map(|pcr| decode_hex(pcr).unwrap())
        .collect();
    assert_eq!(
        Some(digest.digest.to_vec()),
        boot_aggregate(Bank::Sha256, &pcrs)
    );
}

#[test]
fn tpm_is_measured_into_and_the_list_replays() {
    let image = initramfs(&[]);
    let outcome = machine(&image)
        .tpm(Tpm::Swtpm)
        .append("ima_policy=tcb first.word=1")
        .start()
        .unwrap()
        .finish();
    assert_eq!(outcome.ending, Ending::PowerOff, "{}", outcome.console);
    assert!(outcome.guest_ran());
    assert_eq!(outcome.invalid_messages, [""; 0]);
    let report = outcome.report().unwrap();
    assert_eq!(report.pid, 1);
    assert!(report.command_line.contains("first.word=1"));
    assert!(report.tpm && report.ima, "{:?}", report.problems);
    assert!(
        report
            .policy
            .as_ref()
            .unwrap()
            .contains("measure func=FILE_CHECK")
    );
    assert!(
        report.keyrings.contains_key(".ima"),
        "{:?}",
        report.keyrings
    );
    assert!(
        report
            .mounts
            .iter()
            .any(|mount| mount.point == "/" && mount.fstype == "rootfs")
    );
    assert_list_matches_tpm(report);
}

#[test]
fn without_tpm_the_boot_aggregate_is_zeros() {
    let image = initramfs(&[]);
    let outcome = machine(&image)
        .append("ima_policy=tcb")
        .start()
        .unwrap()
        .finish();
    let report = outcome.report().unwrap();
    assert!(!report.tpm && report.ima);
    let bytes = decode_hex(&report.measurements_binary).unwrap();
    let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::Little).unwrap();
    assert_eq!(list.entries()[0].file_digest().unwrap().digest, [0; 32]);
}

/// Each event by which the guest ends the machine is reported as another ending.
#[test]
fn endings_are_told_apart() {
    let image = initramfs(&[]);
    type Check = fn(&Ending) -> bool;
    let rows: [(&str, Check); 5] = [
        ("testbed.end=poweroff", |ending| *ending == Ending::PowerOff),
        ("testbed.end=reboot", |ending| *ending == Ending::Reboot),
        ("testbed.end=halt", |ending| *ending == Ending::Halt),
        (
            "testbed.end=panic",
            |ending| matches!(ending, Ending::Panic(words) if words.starts_with("Attempted to kill init!")),
        ),
        ("testbed.end=panic panic=-1", |ending| {
            matches!(ending, Ending::Panic(_))
        }),
    ];
    for (parameter, expected) in rows {
        let outcome = machine(&image).append(parameter).start().unwrap().finish();
        assert!(
            expected(&outcome.ending),
            "{parameter}: {}\n{}",
            outcome.ending,
            outcome.console
        );
        assert!(outcome.report().is_some(), "{parameter}");
    }
}

/// A disk without a program for UEFI, under Secure Boot.
#[test]
fn firmware_without_anything_to_boot() {
    let certificate = std::fs::read(project().join("crates/ima/testdata/expired.der")).unwrap();
    let disk = disk_image(1 << 20);
    let outcome = Machine::from_disk(Disk::new(&disk).boot())
        .uefi(Uefi::with_platform_key(&certificate))
        .start()
        .unwrap()
        .finish();
    let (ending, console) = (&outcome.ending, &outcome.console);
    assert_eq!(*ending, Ending::NothingToBoot, "{console}");
    assert!(console.contains("failed to load Boot0001"), "{console}");
}

/// Nothing is enforced here, so that what must be denied is not: the attempts must say so.
#[test]
fn attempts_fail_where_nothing_is_enforced() {
    let program = std::fs::read(guest()).unwrap();
    let image = initramfs(&files(&program, None));
    let machine = machine(&image).signer(|request| {
        assert!(request.path.ends_with("/new"));
        Ok([&[4, 4], &request.sha256[..]].concat())
    });
    let outcome = machine.start().unwrap().finish();
    let report = outcome.report().unwrap();
    assert!(report.attempts.len() >= 13, "{:#?}", report.attempts);
    for attempt in &report.attempts {
        let allowed = attempt.expected == ima_testbed::report::Expected::Allowed;
        assert_eq!(attempt.passed, allowed, "{attempt:#?}");
    }
}

#[test]
fn hotplug_disks_appear_when_they_are_plugged() {
    let image = initramfs(&[]);
    let (first, other) = (disk_image(1 << 20), disk_image(2 << 20));
    let unknown = Machine::new(kernel()).add_disk(Disk::new(&first));
    for bus in [Bus::VirtioBlk, Bus::VirtioScsi] {
        // A guest that waits for ever: no init there.
        let mut machine = machine(&image).append("rdinit=/none root=/dev/none rootwait");
        let present = machine.add_disk(Disk::new(&other).bus(bus));
        let late = machine.add_disk(Disk::new(&first).hotplug().bus(bus).serial("late"));
        let running = machine.start().unwrap();
        let line = running.wait_for_console("Waiting for root device").unwrap();
        assert!(line.contains("/dev/none"), "{line}");
        assert!(!running.console().contains("2048 512-byte logical blocks"));
        running.plug(late).unwrap();
        running
            .wait_for_console("2048 512-byte logical blocks")
            .unwrap();
        assert!(matches!(running.plug(late), Err(TestbedError::Qmp { .. })));
        assert!(matches!(
            running.plug(present),
            Err(TestbedError::NotHotplug { .. })
        ));
        assert!(matches!(
            running.plug(unknown),
            Err(TestbedError::UnknownDisk)
        ));
        assert_eq!(running.kill().ending, Ending::Killed);
    }
}

#[test]
fn what_cannot_start_says_why() {
    let image = initramfs(&[]);
    match Machine::new("/nonexistent").start() {
        Err(TestbedError::Missing { what: "kernel", .. }) => {}
        other => panic!("{other:?}"),
    }
    match machine(&image).qemu_argument("-no-such-option").start() {
        Err(TestbedError::NotStarted { stderr, .. }) => {
            assert!(stderr.contains("no-such-option"), "{stderr}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn time_limits_hold() {
    let image = initramfs(&[]);
    let running = machine(&image)
        .append("rdinit=/none root=/dev/none rootwait")
        .time_limit(Duration::from_secs(6))
        .start()
        .unwrap();
    match running.wait_for_console("never said") {
        Err(TestbedError::TimedOut { .. }) => {}
        other => panic!("{other:?}"),
    }
    let outcome = running.finish();
    assert_eq!(outcome.ending, Ending::TimedOut);
    assert!(
        outcome.duration < Duration::from_secs(9),
        "{:?}",
        outcome.duration
    );
}

/// Nothing is left of a machine whose owner went away: not QEMU, not swtpm.
#[test]
fn dropping_ends_the_machine() {
    let image = initramfs(&[]);
    let marker = format!("marker.{}", std::process::id());
    let running = machine(&image)
        .tpm(Tpm::Swtpm)
        .append(format!("rdinit=/none root=/dev/none rootwait {marker}"))
        .start()
        .unwrap();
    let watched = watch(&marker);
    assert_eq!(watched.len(), 1, "QEMU runs");
    drop(running);
    for pidfd in watched {
        assert_ends(&pidfd);
    }
}

/// Nor when the process that started it is killed and can tidy nothing up.
#[test]
fn killing_the_process_ends_the_machine() {
    let image = initramfs(&[]);
    let marker = format!("killed.{}", std::process::id());
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["run", "--tpm", "--accel", "tcg", "--append"])
        .arg(format!("rdinit=/none root=/dev/none rootwait {marker}"))
        .arg("--kernel")
        .arg(kernel())
        .arg("--initramfs")
        .arg(&image)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let console = BufReader::new(owner.stderr.take().unwrap());
    let waits =
        |line: &std::io::Result<String>| line.as_ref().unwrap().contains("Waiting for root device");
    assert!(console.lines().any(|line| waits(&line)), "the machine runs");
    let watched = watch(&marker);
    assert_eq!(watched.len(), 2, "its owner and QEMU run");
    owner.kill().unwrap();
    owner.wait().unwrap();
    for pidfd in watched {
        assert_ends(&pidfd);
    }
}

fn assert_ends(pidfd: &OwnedFd) {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "it has ended");
}

/// Handles of the processes whose arguments contain this.
fn watch(marker: &str) -> Vec<OwnedFd> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&arguments)
                .contains(marker)
                .then_some(pid)
        })
        .filter_map(|pid| {
            let pid = rustix::process::Pid::from_raw(pid)?;
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        })
        .collect()
}
