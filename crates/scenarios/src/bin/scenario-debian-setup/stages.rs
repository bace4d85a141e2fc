//! The stages, with the checks of each.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use ima::audit::IntegrityRecord;
use serde_json::Value;

use crate::session::{Session, succeeded};
use crate::{Error, Options};

/// Prints the records of denials in this boot: from the kernel's log, and from auditd's where it runs.
const RECORDS: &str = "{ dmesg; ausearch --input-logs --raw --message INTEGRITY_DATA --start boot </dev/null 2>/dev/null; }";

/// One boot of the system, with what is done and checked in it.
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// Whether the stage runs if none is named.
    pub default: bool,
    run: fn(&mut Session) -> Result<(), Error>,
}

/// In the order in which they follow one another.
pub const STAGES: [Stage; 7] = [
    Stage {
        name: "install",
        about: "a stock Debian; the packages by apt, imactl setup, and again",
        default: true,
        run: install,
    },
    Stage {
        name: "log",
        about: "nothing is denied, what would be is logged; imactl setup --enforce",
        default: true,
        run: log,
    },
    Stage {
        name: "enforced",
        about: "what is not signed is denied, and a server works",
        default: true,
        run: enforced,
    },
    Stage {
        name: "packages",
        about: "packages with and without signatures, upgrades of one with scripts and of the C library; the initramfs is made again",
        default: false,
        run: packages,
    },
    Stage {
        name: "kernel",
        about: "what was upgraded works after a boot; a newer kernel is installed",
        default: false,
        run: kernel,
    },
    Stage {
        name: "undo",
        about: "enforced still; imactl setup --undo",
        default: false,
        run: undo,
    },
    Stage {
        name: "undone",
        about: "as before ima-init",
        default: false,
        run: undone,
    },
];

/// Runs the chosen stages in order.
pub fn run(options: &Options, disk: &Path) -> Result<(), Error> {
    for stage in options.stages() {
        let started = Instant::now();
        println!("\n{}: {}", stage.name, stage.about);
        let result = run_stage(options, disk, stage);
        result.map_err(|error| format!("{}: {error}", stage.name))?;
        println!("  ({:.0} s)", started.elapsed().as_secs_f64());
        if let Some(directory) = &options.keep {
            std::fs::create_dir_all(directory)?;
            let status = Command::new("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(disk)
                .arg(directory.join(format!("{}.img", stage.name)))
                .status()?;
            if !status.success() {
                return Err(format!("cp: {status}").into());
            }
        }
    }
    Ok(())
}

fn run_stage(options: &Options, disk: &Path, stage: &Stage) -> Result<(), Error> {
    let mut session = Session::start(disk, options.verbose)?;
    (stage.run)(&mut session)?;
    let console = match &options.console {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            Some(directory.join(format!("{}.console", stage.name)))
        }
        None => None,
    };
    session.power_off(console.as_deref())
}

/// Prints what has just been shown, with the time since power-on.
fn print_step(session: &Session, what: &str) {
    println!("  {:>4.0} s  {what}", session.elapsed().as_secs_f64());
}

/// The key that imactl setup makes, its certificate where it puts it, and its password.
const KEY: &str = "/etc/ima-init/private/ima.key";
const CERTIFICATE: &str = "/etc/keys/ima/x509_ima_local.der";
const PASSWORD: &str = "a password of the test";
/// A hook that some package brings.
const HOOK: &str = "/etc/initramfs-tools/hooks/record";

fn assert_running(session: &mut Session) -> Result<(), Error> {
    let output = session.run("systemctl is-system-running --wait")?;
    let failed = session.expect_success("systemctl --failed --plain --no-legend")?;
    if output.output.trim() != "running" || !failed.trim().is_empty() {
        let log = session
            .run("journalctl -b -p warning --no-pager | tail -n 60")?
            .output;
        return Err(format!(
            "the system is {}\nfailed: {failed}\n{log}",
            output.output.trim()
        )
        .into());
    }
    print_step(
        session,
        "the default target is reached, and no unit has failed",
    );
    Ok(())
}

fn install(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    session.expect_success_long("apt-get install -y /root/packages/*.deb")?;
    print_step(session, "the packages are installed by apt");
    session.expect_success(&format!(
        "printf '#!/bin/sh\\nenv >/run/hook\\n' >{HOOK}; chmod 755 {HOOK}"
    ))?;
    let output = session.run_with_answers(
        "imactl setup",
        &[
            ("Go on? [y/N] ", "y"),
            ("Password for the new private keys: ", PASSWORD),
            ("Once more: ", PASSWORD),
            ("[leave it]: ", ""),
        ],
    )?;
    let output = succeeded(output)?;
    expect(&output, "Nothing is denied;")?;
    expect(
        &output,
        "/etc/ima-init/private/ca.key is still on this system",
    )?;
    print_step(session, "imactl setup");
    let environment = session.expect_success(&format!("cat /run/hook; rm {HOOK}"))?;
    expect(&environment, "DESTDIR=")?;
    if environment.contains(PASSWORD) {
        return Err(format!("a hook of update-initramfs has the password:\n{environment}").into());
    }
    print_step(
        session,
        "hooks of update-initramfs are not given the key's password",
    );
    let output = session.run_with_answers(
        "imactl setup",
        &[
            ("Go on? [y/N] ", "y"),
            ("ima.key: ", PASSWORD),
            ("[leave it]: ", "/mnt"),
        ],
    )?;
    let output = succeeded(output)?;
    session.expect_success(
        "test -e /mnt/ca.key && ! test -e /etc/ima-init/private/ca.key && rm /mnt/ca.key",
    )?;
    print_step(session, "the key of the CA is moved off the system");
    expect(&output, "signed 0 files")?;
    if output.contains("imactl keygen --out") {
        return Err(format!("the second time makes new keys:\n{output}").into());
    }
    print_step(
        session,
        "imactl setup a second time, which makes no keys and signs nothing",
    );
    Ok(())
}

fn log(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    assert_booted_by_init(session, "permissive", "ima_appraise=log")?;
    assert_services_work(session)?;
    print_denials(session)?;
    session.expect_success("cp /usr/bin/printf /usr/local/bin/tool")?;
    session.expect_output("/usr/local/bin/tool '%s %s\\n' not denied", "not denied")?;
    session.expect_output(
        &format!("{RECORDS} | grep tool"),
        "name=\"/usr/local/bin/tool\"",
    )?;
    print_step(
        session,
        "an unsigned program runs, and the kernel's log has it",
    );
    session.expect_success("cp /usr/bin/printf /home/tool")?;
    let output = succeeded(session.run_with_answers(
        "imactl setup --enforce --sign /usr/local/bin",
        &[("Go on? [y/N] ", "y"), ("ima.key: ", PASSWORD)],
    )?)?;
    expect(&output, "/usr/local/bin/tool: IMA-signature-required")?;
    print_step(
        session,
        "imactl setup --enforce names it; --sign signs it, and nothing in /home",
    );
    Ok(())
}

fn enforced(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    assert_booted_by_init(session, "required", "")?;
    assert_services_work(session)?;
    session.expect_output(
        "/usr/local/bin/tool '%s %s\\n' signed by-setup",
        "signed by-setup",
    )?;
    session.expect_failure("/home/tool ''", 126, "Permission denied")?;
    print_step(
        session,
        "programs that imactl setup was asked to sign run, and others do not",
    );
    assert_denied_until_signed(session)?;
    assert_other_key_denied_until_imported(session)?;
    print_denials(session)
}

fn packages(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    assert_booted_by_init(session, "required", "")?;
    assert_unsigned_denied(session)?;
    session.expect_success_long("apt-get update")?;

    // Signed where it was built, by a key whose certificate is in the initramfs.
    session.expect_success(&format!("mv {KEY} /root/away.key"))?;
    let output = session.expect_success_long("apt-get install -y greeting=1.0")?;
    expect(
        &output,
        "1 of 1 packages carry signatures that this system takes",
    )?;
    session.expect_output("greeting", "greeting 1.0, configured 1.0")?;
    print_step(
        session,
        "apt installs a package with signatures, and its program runs; no key is on the system",
    );

    let status = "cp /var/lib/dpkg/status /root/status";
    session.expect_success(status)?;
    session.expect_failure("apt-get install -y unsigned", 100, "IMA-960")?;
    session.expect_success(
        "cmp /var/lib/dpkg/status /root/status && test ! -e /usr/bin/unsigned && test -z \"$(dpkg --audit)\"",
    )?;
    session.expect_failure("apt-get install -y greeting=1.1", 100, "IMA-960")?;
    session
        .expect_success("cmp /var/lib/dpkg/status /root/status && test -z \"$(dpkg --verify greeting; dpkg --audit)\"")?;
    session.expect_output("greeting", "greeting 1.0, configured 1.0")?;
    print_step(
        session,
        "without a key, packages without signatures are refused (IMA-960), and nothing has changed",
    );

    session.expect_success(&format!("mv /root/away.key {KEY}"))?;
    apt_install(session, "unsigned")?;
    session.expect_output("unsigned", "not signed where it was built")?;
    print_step(
        session,
        "with the key, a package without signatures is signed on the system, and its program runs",
    );
    apt_install(session, "greeting=1.1")?;
    session.expect_output("greeting", "greeting 1.1, configured 1.1")?;
    session.expect_output("cat /etc/greeting.conf", "of 1.1")?;
    print_step(
        session,
        "so is the upgrade of one with control scripts and a configuration file",
    );

    let before = session.expect_success("dpkg-query -W -f '${Version}' libc6")?;
    let output = apt_install(session, "libc6")?;
    expect(&output, "+ima")?;
    let after = session.expect_success("dpkg-query -W -f '${Version}' libc6")?;
    if !after.contains("+ima") || before.contains("+ima") {
        return Err(format!("libc6 was {before} and is {after}").into());
    }
    session.expect_success("test -z \"$(dpkg --audit)\" && systemctl restart cron ssh")?;
    assert_unsigned_denied(session)?;
    print_step(session, "the C library is upgraded");
    session.expect_success_long("update-initramfs -u")?;
    print_step(session, "the initramfs is made again, under enforcement");
    Ok(())
}

fn kernel(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    assert_booted_by_init(session, "required", "")?;
    session.expect_output("greeting", "greeting 1.1, configured 1.1")?;
    assert_services_work(session)?;
    assert_unsigned_denied(session)?;
    let running = session.expect_success("uname -r")?;
    let newer = session.expect_success("apt-cache search --names-only '^linux-image-6.*-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -n 1")?;
    let newer = newer.trim();
    if newer.contains(running.trim()) {
        return Err(format!("there is no newer kernel than {running} to install").into());
    }
    apt_install(session, newer)?;
    let release = newer.trim_start_matches("linux-image-");
    session.expect_success(&format!(
        "lsinitramfs /boot/initrd.img-{release} | grep -x usr/lib/ima-init/run-init"
    ))?;
    session.expect_output("grep -m 1 '^[[:space:]]linux' /boot/grub/grub.cfg", release)?;
    print_step(
        session,
        &format!("apt installs {newer}, its initramfs has ima-init, and GRUB starts it next"),
    );
    Ok(())
}

/// `apt-get install` of a package that is signed on the system; its key's password is asked for.
fn apt_install(session: &mut Session, package: &str) -> Result<String, Error> {
    let output = succeeded(session.run_with_answers(
        &format!("DEBIAN_FRONTEND=noninteractive apt-get install -y {package}"),
        &[("ima.key: ", PASSWORD)],
    )?)?;
    expect(&output, "packages signed on this system")?;
    Ok(output)
}

fn expect(text: &str, part: &str) -> Result<(), Error> {
    if text.contains(part) {
        return Ok(());
    }
    Err(format!("the output does not contain “{part}”:\n{text}").into())
}

fn undo(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    assert_booted_by_init(session, "required", "")?;
    assert_unsigned_denied(session)?;
    let output =
        succeeded(session.run_with_answers("imactl setup --undo", &[("Go on? [y/N] ", "y")])?)?;
    expect(&output, "The next boot is as it was before ima-init")?;
    // The policy is in force until the machine is switched off.
    assert_unsigned_denied(session)?;
    print_step(session, "imactl setup --undo, for the next boot");
    Ok(())
}

fn undone(session: &mut Session) -> Result<(), Error> {
    assert_running(session)?;
    session.expect_success("test ! -e /run/ima-init")?;
    let line = kernel_line(session)?;
    if line.contains("ima_") {
        return Err(format!("the command line still has: {line}").into());
    }
    session.expect_success("cp /usr/bin/printf /usr/local/bin/undone")?;
    session.expect_output("/usr/local/bin/undone '%s %s\\n' not denied", "not denied")?;
    // grep ends with 1 where it finds nothing, and with 2 where it cannot look.
    session.expect_failure(
        &format!("{RECORDS} | grep -e type=1800 -e type=INTEGRITY_DATA -e ima-init:"),
        1,
        "",
    )?;
    session
        .expect_success("now=/boot/initrd.img-$(uname -r); ! lsinitramfs $now | grep ima-init")?;
    // A kernel that was installed since has no initramfs of before.
    session.expect_success(
        "! test -e $now.before-ima-init || diff <(lsinitramfs $now) <(lsinitramfs $now.before-ima-init)",
    )?;
    print_step(
        session,
        "no trace of ima-init in the boot, and none in the initramfs",
    );
    Ok(())
}

/// Checks that a program without a signature is denied.
fn assert_unsigned_denied(session: &mut Session) -> Result<(), Error> {
    session.expect_success("cp /usr/bin/printf /usr/local/bin/unsigned")?;
    session.expect_failure("/usr/local/bin/unsigned ''", 126, "Permission denied")?;
    session.expect_success("rm /usr/local/bin/unsigned")?;
    print_step(session, "an unsigned program is denied");
    Ok(())
}

/// The command line of the kernel itself: /proc/cmdline has what the init lets through of it.
fn kernel_line(session: &mut Session) -> Result<String, Error> {
    session.expect_success("dmesg | sed -n 's/.*Kernel command line: //p'")
}

/// Checks that ima-init booted the system with this enforcement, and that these are the `ima_` parameters of the command line.
fn assert_booted_by_init(
    session: &mut Session,
    enforce: &str,
    parameter: &str,
) -> Result<(), Error> {
    let report = session.expect_success(&format!("cat {}", ima::layout::REPORT))?;
    let report: Value = serde_json::from_str(report.trim())?;
    let canary = report["policy"]["proofs"]
        .as_array()
        .is_some_and(|proofs| proofs.iter().any(|proof| proof == "canary"));
    if report["enforce"] != enforce || (enforce == "required") != canary {
        return Err(format!("the report of this boot is not one of {enforce}: {report}").into());
    }
    let line = kernel_line(session)?;
    let has: Vec<&str> = line
        .split_whitespace()
        .filter(|word| word.starts_with("ima_"))
        .collect();
    if has.join(" ") != parameter {
        return Err(format!("the command line must have “{parameter}”, and is: {line}").into());
    }
    session.expect_output("uname -r", &session.release.clone())?;
    print_step(
        session,
        &format!(
            "ima-init brought it up, {enforce}, by GRUB's first entry ({})",
            session.command_line.clone()
        ),
    );
    Ok(())
}

/// Checks what a server does: ssh, units, network, modules, cron.
fn assert_services_work(session: &mut Session) -> Result<(), Error> {
    session.expect_success("test -e .ssh/id_ed25519 || { ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519 && cp .ssh/id_ed25519.pub .ssh/authorized_keys; }")?;
    session.expect_output(
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new localhost 'echo over-ssh-$((6*7)); loginctl list-sessions --no-legend'",
        "over-ssh-42",
    )?;
    print_step(session, "ssh");
    session.expect_success(
        "systemctl restart ssh cron systemd-networkd systemd-logind systemd-journald systemd-udevd dbus.socket",
    )?;
    let states = session.expect_success("systemctl is-active ssh cron systemd-networkd systemd-logind systemd-journald systemd-udevd dbus")?;
    if states.split_whitespace().any(|state| state != "active") {
        return Err(format!("a unit is not active after its restart:\n{states}").into());
    }
    print_step(session, "units are restarted");
    session.expect_success_long("/usr/lib/systemd/systemd-networkd-wait-online --timeout=60")?;
    session.expect_output("networkctl --no-legend", "routable")?;
    session.expect_output("loginctl list-sessions --no-legend", "ttyS0")?;
    session.expect_output("journalctl -b -u ssh --no-pager", "Accepted publickey")?;
    session.expect_success("modprobe dummy && ip link add d0 type dummy && udevadm settle")?;
    session.expect_output("udevadm info /sys/class/net/d0", "ID_NET_NAME")?;
    session.expect_success("ip link del d0 && modprobe -r dummy")?;
    print_step(
        session,
        "networkd with an address, logind, the journal, a module and udev",
    );
    session.expect_success("run-parts --report /etc/cron.daily")?;
    session.expect_success_long("apt-get update")?;
    print_step(
        session,
        "apt-get update from a directory, the jobs of each day",
    );
    // The job of each minute waits for a reader.
    session.expect_success("mkfifo /run/minute")?;
    let ran = session.expect_success_long("timeout 200 cat /run/minute; rm /run/minute")?;
    if !ran.contains("cron ran") {
        return Err("the job of each minute did not run".into());
    }
    print_step(session, "the cron job of each minute");
    Ok(())
}

/// Checks that a new file is denied until it is signed, and denied again once it is changed.
fn assert_denied_until_signed(session: &mut Session) -> Result<(), Error> {
    let hello = "/usr/local/bin/new '%s %s\\n' now runs";
    session.expect_success("cp /usr/bin/printf /usr/local/bin/new")?;
    session.expect_failure(hello, 126, "Permission denied")?;
    session.expect_output(
        &format!("{RECORDS} | tail -n 20"),
        "name=\"/usr/local/bin/new\"",
    )?;
    let as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let with_capabilities = "setpriv --reuid=nobody --inh-caps=+all --ambient-caps=+all";
    for by in [as_nobody, with_capabilities] {
        session.expect_failure(
            &format!("{by} /usr/local/bin/new ''"),
            126,
            "Permission denied",
        )?;
    }
    sign(session, "/usr/local/bin/new")?;
    session.expect_output(hello, "now runs")?;
    for by in [as_nobody, with_capabilities] {
        session.expect_output(&format!("{by} {hello}"), "now runs")?;
    }
    session.expect_success("echo changed >>/usr/local/bin/new")?;
    session.expect_failure(hello, 126, "Permission denied")?;
    session.expect_success("rm /usr/local/bin/new")?;
    print_step(
        session,
        "a new program is denied to root, to a user and to a user with capabilities, runs once it is signed, and is denied when it is changed",
    );
    // The C library is mapped by every program: its copy has all that is needed but a signature.
    session.expect_success("cp /lib/x86_64-linux-gnu/libc.so.6 /usr/local/lib/libnew.so")?;
    session.expect_failure(
        "LD_PRELOAD=/usr/local/lib/libnew.so /usr/bin/true 2>&1; false",
        1,
        "cannot be preloaded",
    )?;
    sign(session, "/usr/local/lib/libnew.so")?;
    let output = session.run("LD_PRELOAD=/usr/local/lib/libnew.so /usr/bin/true")?;
    if output.contains("cannot be preloaded") {
        return Err(format!("the signed library is still denied:\n{}", output.output).into());
    }
    session.expect_success("rm /usr/local/lib/libnew.so")?;
    print_step(
        session,
        "a new library is denied, and mapped once it is signed",
    );
    session.expect_success("cp $(modinfo -n dummy) /root/dummy.ko")?;
    session.expect_failure("insmod /root/dummy.ko", 1, "ermission denied")?;
    sign(session, "/root/dummy.ko")?;
    session.expect_success("insmod /root/dummy.ko && rmmod dummy && rm /root/dummy.ko")?;
    print_step(session, "the same for a module");
    Ok(())
}

/// Checks that a file signed with another key is denied until the certificate is on the keyring.
fn assert_other_key_denied_until_imported(session: &mut Session) -> Result<(), Error> {
    session.expect_output("imactl keys", "_ima")?;
    session.expect_success("imactl keygen --out /root/other --type rsa2048 --unencrypted")?;
    session.expect_success("cp /usr/bin/printf /usr/local/bin/other")?;
    session.expect_success(
        "imactl sign --key other/ima.key --cert other/ima.der /usr/local/bin/other",
    )?;
    let runs = "/usr/local/bin/other '%s %s\\n' another key";
    session.expect_failure(runs, 126, "Permission denied")?;
    // Debian's kernel has no .ima.
    session.expect_failure("imactl import other/ima.der", 2, "IMA-501")?;
    session.expect_failure(runs, 126, "Permission denied")?;
    session.expect_success("imactl import --keyring _ima other/ima.der")?;
    session.expect_output("imactl keys", "Local IMA")?;
    session.expect_output(runs, "another key")?;
    session.expect_success("rm -r other /usr/local/bin/other")?;
    print_step(
        session,
        "imactl keys and import: what another key has signed is denied until its certificate is on _ima",
    );
    Ok(())
}

fn sign(session: &mut Session, path: &str) -> Result<(), Error> {
    let command = format!("imactl sign --key {KEY} --cert {CERTIFICATE} {path}");
    succeeded(session.run_with_answers(&command, &[("ima.key: ", PASSWORD)])?).map(drop)
}

/// Prints the records of denials since power-on, each kind once: who was denied what, and why.
fn print_denials(session: &mut Session) -> Result<(), Error> {
    let log = session.expect_success(&format!(
        "{RECORDS} | grep -e type=1800 -e type=INTEGRITY_DATA -e suppressed; true"
    ))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut kinds: Vec<String> = log
        .lines()
        .filter_map(IntegrityRecord::find)
        .map(|record| {
            let command = text(&record.command);
            let name = record
                .name
                .map_or_else(|| "?".to_owned(), |name| text(&name));
            let device = record
                .inode
                .map_or_else(|| "?".to_owned(), |(device, _)| text(&device));
            format!("{}: {command}, {name} on {device}", record.cause)
        })
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    println!(
        "  the kernel's records so far, {} lines, {} kinds, {} times more than it writes down:",
        log.lines().count(),
        kinds.len(),
        log.matches("suppressed").count()
    );
    for kind in &kinds {
        println!("           {kind}");
    }
    Ok(())
}
