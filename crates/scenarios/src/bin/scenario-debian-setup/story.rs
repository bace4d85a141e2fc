//! The stages, and what each must show.

use std::process::Command;
use std::time::Instant;

use ima::audit::IntegrityRecord;
use serde_json::Value;

use crate::session::{Session, good};
use crate::{Error, Options};

/// One boot and what is done in it.
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Whether it is done when no stage is named.
    pub usual: bool,
    act: fn(&mut Session) -> Result<(), Error>,
}

/// In the order in which they follow one another.
pub const STAGES: [Stage; 7] = [
    Stage {
        name: "install",
        about: "a stock Debian; the packages by apt, imactl setup, and again",
        usual: true,
        act: install,
    },
    Stage {
        name: "log",
        about: "nothing is denied, what would be is logged; imactl setup --enforce",
        usual: true,
        act: log,
    },
    Stage {
        name: "enforced",
        about: "what is not signed is denied, and a server works",
        usual: true,
        act: enforced,
    },
    Stage {
        name: "packages",
        about: "packages with and without signatures, upgrades of one with scripts and of the C library; the initramfs is made again",
        usual: false,
        act: packages,
    },
    Stage {
        name: "kernel",
        about: "what was upgraded works after a boot; a newer kernel is installed",
        usual: false,
        act: kernel,
    },
    Stage {
        name: "undo",
        about: "enforced still; imactl setup --undo",
        usual: false,
        act: undo,
    },
    Stage {
        name: "undone",
        about: "as before ima-init",
        usual: false,
        act: undone,
    },
];

/// All stages that were asked for.
pub fn tell(options: &Options) -> Result<(), Error> {
    for stage in &options.stages {
        let started = Instant::now();
        println!("\n{}: {}", stage.name, stage.about);
        let result = one(options, stage);
        result.map_err(|error| format!("{}: {error}", stage.name))?;
        println!("  ({:.0} s)", started.elapsed().as_secs_f64());
        if let Some(directory) = &options.keep {
            std::fs::create_dir_all(directory)?;
            let status = Command::new("cp")
                .args(["--sparse=always", "--reflink=auto"])
                .arg(&options.disk)
                .arg(directory.join(format!("{}.img", stage.name)))
                .status()?;
            if !status.success() {
                return Err(format!("cp: {status}").into());
            }
        }
    }
    Ok(())
}

fn one(options: &Options, stage: &Stage) -> Result<(), Error> {
    let mut session = Session::start(options)?;
    (stage.act)(&mut session)?;
    let console = match &options.console {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            Some(directory.join(format!("{}.console", stage.name)))
        }
        None => None,
    };
    session.switch_off(console.as_deref())
}

/// A point that was shown.
fn shown(session: &Session, what: &str) {
    println!("  {:>4.0} s  {what}", session.elapsed().as_secs_f64());
}

/// The key that imactl setup makes, its certificate where it puts it, and its password.
const KEY: &str = "/etc/ima-init/private/ima.key";
const CERTIFICATE: &str = "/etc/keys/ima/x509_ima_local.der";
const PASSWORD: &str = "a password of the test";
/// A hook that some package brings.
const HOOK: &str = "/etc/initramfs-tools/hooks/record";

fn up(session: &mut Session) -> Result<(), Error> {
    let said = session.run("systemctl is-system-running --wait")?;
    let failed = session.must("systemctl --failed --plain --no-legend")?;
    if said.output.trim() != "running" || !failed.trim().is_empty() {
        let log = session
            .run("journalctl -b -p warning --no-pager | tail -n 60")?
            .output;
        return Err(format!(
            "the system is {}\nfailed: {failed}\n{log}",
            said.output.trim()
        )
        .into());
    }
    shown(
        session,
        "the default target is reached, and no unit has failed",
    );
    Ok(())
}

fn install(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    session.must_long("apt-get install -y /root/packages/*.deb")?;
    shown(session, "the packages are installed by apt");
    session.must(&format!(
        "printf '#!/bin/sh\\nenv >/run/hook\\n' >{HOOK}; chmod 755 {HOOK}"
    ))?;
    let said = session.asked(
        "imactl setup",
        &[
            ("Go on? [y/N] ", "y"),
            ("Password for the new private keys: ", PASSWORD),
            ("Once more: ", PASSWORD),
            ("[leave it]: ", ""),
        ],
    )?;
    let said = good(said)?;
    expect(&said, "Nothing is denied;")?;
    expect(
        &said,
        "/etc/ima-init/private/ca.key is still on this system",
    )?;
    shown(session, "imactl setup");
    let environment = session.must(&format!("cat /run/hook; rm {HOOK}"))?;
    expect(&environment, "DESTDIR=")?;
    if environment.contains(PASSWORD) {
        return Err(format!("a hook of update-initramfs has the password:\n{environment}").into());
    }
    shown(
        session,
        "hooks of update-initramfs are not given the key's password",
    );
    let said = session.asked(
        "imactl setup",
        &[
            ("Go on? [y/N] ", "y"),
            ("ima.key: ", PASSWORD),
            ("[leave it]: ", "/mnt"),
        ],
    )?;
    let said = good(said)?;
    session
        .must("test -e /mnt/ca.key && ! test -e /etc/ima-init/private/ca.key && rm /mnt/ca.key")?;
    shown(session, "the key of the CA is moved off the system");
    expect(&said, "signed 0 files")?;
    if said.contains("imactl keygen --out") {
        return Err(format!("the second time makes new keys:\n{said}").into());
    }
    shown(
        session,
        "imactl setup a second time, which makes no keys and signs nothing",
    );
    Ok(())
}

fn log(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    under(session, "permissive", "ima_appraise=log")?;
    serve(session)?;
    records(session)?;
    session.must("cp /usr/bin/printf /usr/local/bin/tool")?;
    session.must_say("/usr/local/bin/tool '%s %s\\n' not denied", "not denied")?;
    session.must_say("dmesg | grep type=1800", "name=\"/usr/local/bin/tool\"")?;
    shown(
        session,
        "an unsigned program runs, and the kernel's log has it",
    );
    session.must("cp /usr/bin/printf /home/tool")?;
    let said = good(session.asked(
        "imactl setup --enforce --sign /usr/local/bin",
        &[("Go on? [y/N] ", "y"), ("ima.key: ", PASSWORD)],
    )?)?;
    expect(&said, "/usr/local/bin/tool: IMA-signature-required")?;
    shown(
        session,
        "imactl setup --enforce names it; --sign signs it, and nothing in /home",
    );
    Ok(())
}

fn enforced(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    under(session, "required", "")?;
    serve(session)?;
    session.must_say(
        "/usr/local/bin/tool '%s %s\\n' signed by-setup",
        "signed by-setup",
    )?;
    session.must_fail("/home/tool ''", 126, "Permission denied")?;
    shown(
        session,
        "what setup was told to sign runs, and what it was not told of does not",
    );
    denied_until_signed(session)?;
    another_key(session)?;
    records(session)
}

fn packages(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    under(session, "required", "")?;
    denied(session)?;
    session.must_long("apt-get update")?;

    // Signed where it was built, by a key whose certificate is in the initramfs.
    session.must(&format!("mv {KEY} /root/away.key"))?;
    let said = session.must_long("apt-get install -y greeting=1.0")?;
    expect(
        &said,
        "1 of 1 packages carry signatures that this system takes",
    )?;
    session.must_say("greeting", "greeting 1.0, configured 1.0")?;
    shown(
        session,
        "apt installs a package with signatures, and its program runs; no key is on the system",
    );

    let status = "cp /var/lib/dpkg/status /root/status";
    session.must(status)?;
    session.must_fail("apt-get install -y unsigned", 100, "IMA-960")?;
    session.must(
        "cmp /var/lib/dpkg/status /root/status && test ! -e /usr/bin/unsigned && test -z \"$(dpkg --audit)\"",
    )?;
    session.must_fail("apt-get install -y greeting=1.1", 100, "IMA-960")?;
    session
        .must("cmp /var/lib/dpkg/status /root/status && test -z \"$(dpkg --verify greeting; dpkg --audit)\"")?;
    session.must_say("greeting", "greeting 1.0, configured 1.0")?;
    shown(
        session,
        "without a key, packages without signatures are refused (IMA-960), and nothing has changed",
    );

    session.must(&format!("mv /root/away.key {KEY}"))?;
    apt(session, "unsigned")?;
    session.must_say("unsigned", "not signed where it was built")?;
    shown(
        session,
        "with the key, a package without signatures is signed on the system, and its program runs",
    );
    apt(session, "greeting=1.1")?;
    session.must_say("greeting", "greeting 1.1, configured 1.1")?;
    session.must_say("cat /etc/greeting.conf", "of 1.1")?;
    shown(
        session,
        "so is the upgrade of one with control scripts and a configuration file",
    );

    let before = session.must("dpkg-query -W -f '${Version}' libc6")?;
    let said = apt(session, "libc6")?;
    expect(&said, "+ima")?;
    let after = session.must("dpkg-query -W -f '${Version}' libc6")?;
    if !after.contains("+ima") || before.contains("+ima") {
        return Err(format!("libc6 was {before} and is {after}").into());
    }
    session.must("test -z \"$(dpkg --audit)\" && systemctl restart cron ssh")?;
    denied(session)?;
    shown(session, "the C library is upgraded");
    session.must_long("update-initramfs -u")?;
    shown(session, "the initramfs is made again, under enforcement");
    Ok(())
}

fn kernel(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    under(session, "required", "")?;
    session.must_say("greeting", "greeting 1.1, configured 1.1")?;
    serve(session)?;
    denied(session)?;
    let running = session.must("uname -r")?;
    let newer = session.must("apt-cache search --names-only '^linux-image-6.*-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -n 1")?;
    let newer = newer.trim();
    if newer.contains(running.trim()) {
        return Err(format!("there is no newer kernel than {running} to install").into());
    }
    apt(session, newer)?;
    let release = newer.trim_start_matches("linux-image-");
    session.must(&format!(
        "lsinitramfs /boot/initrd.img-{release} | grep -x usr/lib/ima-init/run-init"
    ))?;
    session.must_say("grep -m 1 '^[[:space:]]linux' /boot/grub/grub.cfg", release)?;
    shown(
        session,
        &format!("apt installs {newer}, its initramfs has ima-init, and GRUB starts it next"),
    );
    Ok(())
}

/// `apt-get install` of a package that is signed on the system; its key's password is asked for.
fn apt(session: &mut Session, package: &str) -> Result<String, Error> {
    let said = good(session.asked(
        &format!("DEBIAN_FRONTEND=noninteractive apt-get install -y {package}"),
        &[("ima.key: ", PASSWORD)],
    )?)?;
    expect(&said, "packages signed on this system")?;
    Ok(said)
}

fn expect(text: &str, part: &str) -> Result<(), Error> {
    if text.contains(part) {
        return Ok(());
    }
    Err(format!("it does not say “{part}”:\n{text}").into())
}

fn undo(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    under(session, "required", "")?;
    denied(session)?;
    let said = good(session.asked("imactl setup --undo", &[("Go on? [y/N] ", "y")])?)?;
    expect(&said, "The next boot is as it was before ima-init")?;
    // The policy is in force until the machine is switched off.
    denied(session)?;
    shown(session, "imactl setup --undo, for the next boot");
    Ok(())
}

fn undone(session: &mut Session) -> Result<(), Error> {
    up(session)?;
    session.must("test ! -e /run/ima-init")?;
    let line = kernel_line(session)?;
    if line.contains("ima_") {
        return Err(format!("the command line still has: {line}").into());
    }
    session.must("cp /usr/bin/printf /usr/local/bin/undone")?;
    session.must_say("/usr/local/bin/undone '%s %s\\n' not denied", "not denied")?;
    // grep ends with 1 where it finds nothing, and with 2 where it cannot look.
    session.must_fail("dmesg | grep -e type=1800 -e ima-init:", 1, "")?;
    session.must("now=/boot/initrd.img-$(uname -r); ! lsinitramfs $now | grep ima-init")?;
    // A kernel that was installed since has no initramfs of before.
    session.must(
        "! test -e $now.before-ima-init || diff <(lsinitramfs $now) <(lsinitramfs $now.before-ima-init)",
    )?;
    shown(
        session,
        "no trace of ima-init in the boot, and none in the initramfs",
    );
    Ok(())
}

/// A program without a signature is denied.
fn denied(session: &mut Session) -> Result<(), Error> {
    session.must("cp /usr/bin/printf /usr/local/bin/unsigned")?;
    session.must_fail("/usr/local/bin/unsigned ''", 126, "Permission denied")?;
    session.must("rm /usr/local/bin/unsigned")?;
    shown(session, "an unsigned program is denied");
    Ok(())
}

/// The command line of the kernel itself: /proc/cmdline has what the init lets through of it.
fn kernel_line(session: &mut Session) -> Result<String, Error> {
    session.must("dmesg | sed -n 's/.*Kernel command line: //p'")
}

/// How the boot came about: by ima-init with this enforcement, and this on the command line (or nothing about appraisal).
fn under(session: &mut Session, enforce: &str, parameter: &str) -> Result<(), Error> {
    let report = session.must(&format!("cat {}", ima::layout::REPORT))?;
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
    session.must_say("uname -r", &session.release.clone())?;
    shown(
        session,
        &format!(
            "ima-init brought it up, {enforce}, by GRUB's first entry ({})",
            session.command_line.clone()
        ),
    );
    Ok(())
}

/// What a server does.
fn serve(session: &mut Session) -> Result<(), Error> {
    session.must("test -e .ssh/id_ed25519 || { ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519 && cp .ssh/id_ed25519.pub .ssh/authorized_keys; }")?;
    session.must_say(
        "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new localhost 'echo over-ssh-$((6*7)); loginctl list-sessions --no-legend'",
        "over-ssh-42",
    )?;
    shown(session, "ssh");
    session.must(
        "systemctl restart ssh cron systemd-networkd systemd-logind systemd-journald systemd-udevd dbus.socket",
    )?;
    let states = session.must("systemctl is-active ssh cron systemd-networkd systemd-logind systemd-journald systemd-udevd dbus")?;
    if states.split_whitespace().any(|state| state != "active") {
        return Err(format!("a unit is not active after its restart:\n{states}").into());
    }
    shown(session, "units are restarted");
    session.must_long("/usr/lib/systemd/systemd-networkd-wait-online --timeout=60")?;
    session.must_say("networkctl --no-legend", "routable")?;
    session.must_say("loginctl list-sessions --no-legend", "ttyS0")?;
    session.must_say("journalctl -b -u ssh --no-pager", "Accepted publickey")?;
    session.must("modprobe dummy && ip link add d0 type dummy && udevadm settle")?;
    session.must_say("udevadm info /sys/class/net/d0", "ID_NET_NAME")?;
    session.must("ip link del d0 && modprobe -r dummy")?;
    shown(
        session,
        "networkd with an address, logind, the journal, a module and udev",
    );
    session.must("run-parts --report /etc/cron.daily")?;
    session.must_long("apt-get update")?;
    shown(
        session,
        "apt-get update from a directory, the jobs of each day",
    );
    // The job of each minute waits for a reader.
    session.must("mkfifo /run/minute")?;
    let ran = session.must_long("timeout 200 cat /run/minute; rm /run/minute")?;
    if !ran.contains("cron ran") {
        return Err("the job of each minute did not run".into());
    }
    shown(session, "the cron job of each minute");
    Ok(())
}

/// What is new has no signature, and is denied until it has one; a file that was changed is denied again.
fn denied_until_signed(session: &mut Session) -> Result<(), Error> {
    let hello = "/usr/local/bin/new '%s %s\\n' now runs";
    session.must("cp /usr/bin/printf /usr/local/bin/new")?;
    session.must_fail(hello, 126, "Permission denied")?;
    session.must_say("dmesg | tail -n 20", "name=\"/usr/local/bin/new\"")?;
    let as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let with_capabilities = "setpriv --reuid=nobody --inh-caps=+all --ambient-caps=+all";
    for by in [as_nobody, with_capabilities] {
        session.must_fail(
            &format!("{by} /usr/local/bin/new ''"),
            126,
            "Permission denied",
        )?;
    }
    sign(session, "/usr/local/bin/new")?;
    session.must_say(hello, "now runs")?;
    for by in [as_nobody, with_capabilities] {
        session.must_say(&format!("{by} {hello}"), "now runs")?;
    }
    session.must("echo changed >>/usr/local/bin/new")?;
    session.must_fail(hello, 126, "Permission denied")?;
    session.must("rm /usr/local/bin/new")?;
    shown(
        session,
        "a new program is denied to root, to a user and to a user with capabilities, runs once it is signed, and is denied when it is changed",
    );
    // The C library is mapped by every program: its copy has all that is needed but a signature.
    session.must("cp /lib/x86_64-linux-gnu/libc.so.6 /usr/local/lib/libnew.so")?;
    session.must_fail(
        "LD_PRELOAD=/usr/local/lib/libnew.so /usr/bin/true 2>&1; false",
        1,
        "cannot be preloaded",
    )?;
    sign(session, "/usr/local/lib/libnew.so")?;
    let said = session.run("LD_PRELOAD=/usr/local/lib/libnew.so /usr/bin/true")?;
    if said.says("cannot be preloaded") {
        return Err(format!("the signed library is still denied:\n{}", said.output).into());
    }
    session.must("rm /usr/local/lib/libnew.so")?;
    shown(
        session,
        "a new library is denied, and mapped once it is signed",
    );
    session.must("cp $(modinfo -n dummy) /root/dummy.ko")?;
    session.must_fail("insmod /root/dummy.ko", 1, "ermission denied")?;
    sign(session, "/root/dummy.ko")?;
    session.must("insmod /root/dummy.ko && rmmod dummy && rm /root/dummy.ko")?;
    shown(session, "the same for a module");
    Ok(())
}

/// What another key has signed is denied until its certificate is on the keyring.
fn another_key(session: &mut Session) -> Result<(), Error> {
    session.must_say("imactl keys", "_ima")?;
    session.must("imactl keygen --out /root/other --type rsa2048 --unencrypted")?;
    session.must("cp /usr/bin/printf /usr/local/bin/other")?;
    session.must("imactl sign --key other/ima.key --cert other/ima.der /usr/local/bin/other")?;
    let runs = "/usr/local/bin/other '%s %s\\n' another key";
    session.must_fail(runs, 126, "Permission denied")?;
    // Debian's kernel has no .ima.
    session.must_fail("imactl import other/ima.der", 2, "IMA-501")?;
    session.must_fail(runs, 126, "Permission denied")?;
    session.must("imactl import --keyring _ima other/ima.der")?;
    session.must_say("imactl keys", "Local IMA")?;
    session.must_say(runs, "another key")?;
    session.must("rm -r other /usr/local/bin/other")?;
    shown(
        session,
        "imactl keys and import: what another key has signed is denied until its certificate is on _ima",
    );
    Ok(())
}

fn sign(session: &mut Session, path: &str) -> Result<(), Error> {
    let command = format!("imactl sign --key {KEY} --cert {CERTIFICATE} {path}");
    good(session.asked(&command, &[("ima.key: ", PASSWORD)])?).map(drop)
}

/// Every record of a denial since power-on, each kind once: who was denied what, and why.
fn records(session: &mut Session) -> Result<(), Error> {
    let log = session.must("dmesg | grep -e type=1800 -e suppressed; true")?;
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
