//! What there is to see.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ima::audit::IntegrityRecord;
use ima::layout::REPORT;
use ima::mountinfo;
use ima_testbed::report::{Keyring, Mount, Report, encode_hex};
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::mount::{MountFlags, mount};

const KMSG: &str = "/dev/kmsg";
const SECURITYFS: &str = "/sys/kernel/security";
/// What programs measured into the TPM.
const PROGRAMS_LOG: &str = "/run/log/systemd/tpm2-measure.log";
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const EFIVARS: &str = "/sys/firmware/efi/efivars";
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The name of an I/O error: `EACCES`.
pub fn errno_name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", Errno::from_raw(code)),
        None => error.to_string(),
    }
}

/// A parameter of the kernel's command line.
pub fn parameter(name: &str) -> Option<String> {
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

/// Whether something is mounted at a point.
pub fn mounted(point: &str) -> bool {
    mounts(&mut Vec::new())
        .iter()
        .any(|mount| mount.point == point)
}

/// Where the kernel's IMA files are; securityfs is mounted if it is not.
pub fn ima_directory(problems: &mut Vec<String>) -> Option<PathBuf> {
    let directory = Path::new(SECURITYFS).join("ima");
    if !directory.exists()
        && let Err(error) = mount(
            "securityfs",
            SECURITYFS,
            "securityfs",
            MountFlags::empty(),
            None,
        )
    {
        problems.push(format!("cannot mount securityfs: {error}"));
    }
    directory.exists().then_some(directory)
}

/// Fills in the report, except for the attempts and the state of systemd.
pub fn fill(report: &mut Report) {
    let mut problems = std::mem::take(&mut report.problems);
    report.pid = std::process::id();
    match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => report.peak_memory = usage.max_rss().try_into().unwrap_or_default(),
        Err(error) => problems.push(format!("getrusage: {error}")),
    }
    report.arguments = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    report.environment = std::env::vars_os()
        .map(|(key, value)| {
            (
                key.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    report.command_line = text(Path::new("/proc/cmdline"), &mut problems)
        .trim_end()
        .to_owned();
    for name in ["printk_devkmsg", "printk_ratelimit"] {
        let value = text(&Path::new("/proc/sys/kernel").join(name), &mut problems);
        report
            .log_limits
            .insert(name.to_owned(), value.trim_end().to_owned());
    }
    report.kernel = text(Path::new("/proc/sys/kernel/osrelease"), &mut problems)
        .trim_end()
        .to_owned();
    report.mounts = mounts(&mut problems);
    report.secure_boot = secure_boot(&mut problems);
    report.keyrings = keyrings(&mut problems);

    // The PCRs before the list: what is measured in between is then at its end.
    let tpm = Path::new("/sys/class/tpm/tpm0");
    report.tpm = tpm.exists();
    if report.tpm {
        pcrs(tpm, report, &mut problems);
    }
    if Path::new(PROGRAMS_LOG).exists() {
        report.programs_log = text(Path::new(PROGRAMS_LOG), &mut problems);
    }
    if let Some(ima) = ima_directory(&mut problems) {
        // securityfs is mounted by then.
        if Path::new(FIRMWARE_LOG).exists() {
            report.firmware_log = encode_hex(&bytes(Path::new(FIRMWARE_LOG), &mut problems));
        }
        report.ima = true;
        report.measurements_binary = fs::read(ima.join("binary_runtime_measurements"))
            .map(|bytes| encode_hex(&bytes))
            .unwrap_or_else(|error| {
                problems.push(format!("binary_runtime_measurements: {error}"));
                String::new()
            });
        report.measurements_ascii = text(&ima.join("ascii_runtime_measurements"), &mut problems);
        match fs::read(ima.join("policy")) {
            Ok(policy) => report.policy = Some(String::from_utf8_lossy(&policy).into_owned()),
            Err(error) => report.policy_unreadable = Some(errno_name(&error)),
        }
    }
    if Path::new(REPORT).exists() {
        report.init = serde_json::from_str(&text(Path::new(REPORT), &mut problems))
            .map_err(|error| problems.push(format!("{REPORT}: {error}")))
            .ok();
    }
    report.problems = problems;
    read_kernel_log(report);
}

/// Reads the firmware's variable that says whether Secure Boot is enabled; efivarfs is mounted if it is not.
fn secure_boot(problems: &mut Vec<String>) -> Option<bool> {
    let directory = Path::new(EFIVARS);
    if !directory.exists() {
        return None;
    }
    let variable = directory.join(SECURE_BOOT);
    if !variable.exists()
        && let Err(error) = mount("efivarfs", EFIVARS, "efivarfs", MountFlags::empty(), None)
    {
        problems.push(format!("cannot mount efivarfs: {error}"));
    }
    // Four bytes of attributes, then the value.
    bytes(&variable, problems).get(4).map(|value| *value == 1)
}

/// Reads the lines of the kernel log that concern integrity.
pub fn read_kernel_log(report: &mut Report) {
    report.kernel_log = kernel_log(&mut report.problems)
        .into_iter()
        .filter(|line| {
            [
                "ima",
                "IMA",
                "integrity",
                "audit",
                "evm:",
                "appraise",
                "Loading X.509",
            ]
            .iter()
            .any(|word| line.contains(word))
        })
        .collect();
}

/// The list of files that are reported as they are, a path a line.
const RECORD: &str = "/record";

/// Adds the files that [`RECORD`] names to the report.
pub fn record(report: &mut Report) {
    let Ok(list) = fs::read_to_string(RECORD) else {
        return;
    };
    for path in list.lines() {
        if path == KMSG {
            let records = kernel_records(&mut report.problems).concat();
            report
                .files
                .insert(path.to_owned(), encode_hex(records.as_bytes()));
            continue;
        }
        let inside = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = inside.map(|entry| entry.path()).collect();
        paths.push(path.into());
        for path in paths {
            // Many files of sysfs can only be written.
            if let Ok(content) = fs::read(&path) {
                let path = path.to_string_lossy().into_owned();
                report.files.insert(path, encode_hex(&content));
            }
        }
    }
}

/// The kernel's records of denials so far, as it wrote them.
pub fn denials(problems: &mut Vec<String>) -> Vec<String> {
    let denial = |line: &String| IntegrityRecord::find(line).is_some_and(|it| it.is_denial());
    kernel_log(problems).into_iter().filter(denial).collect()
}

fn text(path: &Path, problems: &mut Vec<String>) -> String {
    String::from_utf8_lossy(&bytes(path, problems)).into_owned()
}

fn bytes(path: &Path, problems: &mut Vec<String>) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| {
        problems.push(format!("{}: {error}", path.display()));
        Vec::new()
    })
}

fn mounts(problems: &mut Vec<String>) -> Vec<Mount> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    let mounts = bytes(Path::new("/proc/self/mountinfo"), problems);
    mountinfo::mounts(&mounts)
        .map(|mount| {
            let mut line = Mount::default();
            line.point = String::from_utf8_lossy(&mount.point).into_owned();
            line.options = list(&mount.options);
            line.fstype = mount.fstype;
            line.source = mount.source;
            line.super_options = list(&mount.super_options);
            line
        })
        .collect()
}

/// The keyrings whose names begin with a dot or `_`, and what is on them. /proc/keys lists all keys, but not which keyring
/// holds them: that the keyring itself says, as serials.
fn keyrings(problems: &mut Vec<String>) -> BTreeMap<String, Keyring> {
    let list = ima_keyring::list().unwrap_or_else(|error| {
        problems.push(format!("/proc/keys: {error}"));
        String::new()
    });
    let mut found = BTreeMap::new();
    for key in ima::keyring::keys(&list) {
        let name = key.description.split(':').next().unwrap_or_default();
        let confirmed = || ima_keyring::named(&list, name).any(|(serial, _)| serial == key.serial);
        if !name.starts_with(['.', '_']) || name.starts_with("_uid") || !confirmed() {
            continue;
        }
        let content = ima_keyring::content(ima_keyring::Keyring::Serial(key.serial));
        let content = content.unwrap_or_else(|error| {
            problems.push(format!("keyring {name}: {error}"));
            Vec::new()
        });
        let described = content.into_iter().map(|link| {
            ima::keyring::keys(&list)
                .find(|key| key.serial == link)
                .map_or_else(
                    || format!("{:08x}", link.get()),
                    |key| key.description.to_owned(),
                )
        });
        let mut keyring = Keyring::default();
        keyring.serial = format!("{:08x}", key.serial.get());
        keyring.keys = described.collect();
        found.insert(name.to_owned(), keyring);
    }
    found
}

fn pcrs(tpm: &Path, report: &mut Report, problems: &mut Vec<String>) {
    for bank in ["sha1", "sha256", "sha384", "sha512"] {
        let directory = tpm.join(format!("pcr-{bank}"));
        if !directory.exists() {
            continue;
        }
        let mut read = |number: u32| {
            text(&directory.join(number.to_string()), problems)
                .trim()
                .to_ascii_lowercase()
        };
        report.pcr10.insert(bank.to_owned(), read(10));
        report
            .pcrs
            .insert(bank.to_owned(), (0..24).map(read).collect());
    }
}

/// The texts of all records of the kernel's log with their times, as dmesg shows them.
fn kernel_log(problems: &mut Vec<String>) -> Vec<String> {
    kernel_records(problems)
        .iter()
        .filter_map(|record| {
            let (head, text) = record.split_once(';')?;
            let time: u64 = head
                .split(',')
                .nth(2)
                .and_then(|time| time.parse().ok())
                .unwrap_or_default();
            let text = text.lines().next().unwrap_or_default();
            Some(format!(
                "[{:5}.{:06}] {text}",
                time / 1_000_000,
                time % 1_000_000
            ))
        })
        .collect()
}

/// All records of /dev/kmsg, without waiting for more: "priority,sequence,microseconds,flags;text", and perhaps more lines.
fn kernel_records(problems: &mut Vec<String>) -> Vec<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = match fs::File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(KMSG)
    {
        Ok(file) => file,
        Err(error) => {
            problems.push(format!("{KMSG}: {error}"));
            return Vec::new();
        }
    };
    let mut records = Vec::new();
    let mut record = [0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(length) => {
                records.push(String::from_utf8_lossy(&record[..length]).into_owned());
            }
            // Records that were overwritten before they were read.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    problems.push(format!("{KMSG}: {error}"));
                }
                return records;
            }
        }
    }
}
