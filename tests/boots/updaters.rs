//! SWUpdate and RAUC write a signed root into the second slot, which is booted then; the first is booted again if the init refuses
//! the second.

use std::path::{Path, PathBuf};
use std::process::Command;

use ima_testbed::Outcome;

use crate::media::blank;
use crate::partitions::{Partition, disk, guid};
use crate::scripted::{add_program, add_script, assert_results};
use crate::setup::{Setup, console_tail};
use crate::tree::{Format, INIT};

/// A program that updates devices.
struct Updater {
    /// What is executed on the device.
    programs: &'static [&'static str],
    /// Commands that make `bundle` in the directory `$1` from `root.img` there, signed with `key.pem`, which belongs to
    /// `certificate.pem`.
    bundle: &'static str,
    /// Further files of the device.
    files: &'static [(&'static str, &'static str)],
    /// Commands of the device that write what is in `/bundle` into the second slot.
    install: &'static str,
    /// What it says then.
    success: &'static str,
}

const SWUPDATE: Updater = Updater {
    programs: &["/usr/bin/swupdate"],
    bundle: r#"
    gzip -n root.img
    cat >sw-description <<END
software = {
    version = "2";
    hardware-compatibility: [ "1.0" ];
    images: ({
        filename = "root.img.gz"; compressed = "zlib"; device = "/dev/vda2"; type = "raw"; installed-directly = true;
        sha256 = "$(sha256sum root.img.gz | cut -d' ' -f1)";
    });
}
END
    openssl cms -sign -in sw-description -out sw-description.sig -signer certificate.pem -inkey key.pem -outform DER -nosmimecap -binary
    printf '%s\n' sw-description sw-description.sig root.img.gz | cpio --quiet -o -H crc >bundle
"#,
    files: &[],
    install: "try update /usr/bin/swupdate -k /certificate.pem -H board:1.0 -i /bundle",
    success: "SWUPDATE successful",
};

/// `rauc install` asks the service, which mounts the bundle by dm-verity; both speak over the system bus.
const RAUC: Updater = Updater {
    programs: &["/usr/bin/rauc", "/usr/bin/dbus-daemon"],
    bundle: r#"
    mkdir content
    mv root.img content/
    cat >content/manifest.raucm <<END
[update]
compatible=board
version=2
[bundle]
format=verity
[image.rootfs]
filename=root.img
END
    rauc bundle --cert=certificate.pem --key=key.pem content bundle >rauc.log 2>&1 || {
        cat rauc.log >&2
        exit 1
    }
"#,
    files: &[
        (
            "etc/rauc/system.conf",
            "[system]
compatible=board
bootloader=noop
statusfile=/run/rauc.status
mountprefix=/run/rauc
[keyring]
path=/certificate.pem
[slot.rootfs.0]
device=/dev/vda1
bootname=one
[slot.rootfs.1]
device=/dev/vda2
bootname=two
",
        ),
        (
            "etc/bus.conf",
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#,
        ),
        ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
    ],
    install: "mount -t tmpfs tmpfs /run
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/bus
/usr/bin/dbus-daemon --config-file=/etc/bus.conf --fork
/usr/bin/rauc --override-boot-slot=one service &
until /usr/bin/rauc status >/dev/null 2>&1; do test -d /proc/$! || break; done
try update /usr/bin/rauc install /bundle",
    success: "Installing `/bundle` succeeded",
};

/// A key of the updater's and its certificate.
const KEY: &str = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -subj /CN=updates \
    -addext extendedKeyUsage=emailProtection -days 100 2>/dev/null";

/// A device with two slots, of which the first has the updater and a bundle with the image of `next`.
struct Device {
    setup: Setup,
    disk: PathBuf,
}

impl Device {
    fn with_update(updater: &Updater, next: &Setup) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let image = next.image();
        std::fs::copy(&image, file("root.img")).expect("a copy");
        let size = std::fs::metadata(&image).expect("the image").len();
        std::fs::remove_file(image).expect("the image");
        let made = Command::new("sh")
            .args([
                "-euc",
                &format!("cd \"$1\"\n{KEY}\n{}", updater.bundle),
                "sh",
            ])
            .arg(directory.path())
            .status();
        assert!(made.expect("sh").success());

        let mut setup = Setup::new();
        setup.format = Format::Squashfs;
        for program in updater.programs {
            add_program(&mut setup.root, program);
        }
        for (path, content) in updater.files {
            setup.root.add(path, 0o644, content.as_bytes());
        }
        add_script(
            &mut setup.root,
            &format!(
                "echo 'slot 1'\nmount -t tmpfs tmpfs /tmp\n{}",
                updater.install
            ),
        );
        for name in ["bundle", "certificate.pem"] {
            let content = std::fs::read(file(name)).expect(name);
            setup.root.add(name, 0o644, &content);
        }
        let (first, second) = (setup.image(), blank(size.div_ceil(1 << 20)));
        let part = |image, number, name| Partition {
            image,
            uuid: guid(number).0,
            kind: None,
            name,
        };
        let disk = disk(&[part(&first, 1, "one"), part(&second, 2, "two")]).0;
        for path in [first, second] {
            std::fs::remove_file(path).expect("an image");
        }
        setup.root_name = None;
        setup.configure("slots=1 2");
        setup.configure("root=/dev/vda{slot}");
        Self { setup, disk }
    }

    /// Boots from the disk, which keeps what is written to it.
    fn boot(&self) -> Outcome {
        let (machine, files) = self.setup.machine_on(&self.disk);
        let outcome = machine.start().expect("the machine starts").finish();
        remove(&files);
        outcome
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        remove(std::slice::from_ref(&self.disk));
    }
}

fn remove(files: &[impl AsRef<Path>]) {
    for file in files {
        std::fs::remove_file(file).expect("a file of the machine");
    }
}

/// The next version of the root.
fn next() -> Setup {
    let mut setup = Setup::new();
    add_script(&mut setup.root, "echo 'slot 2'\ntry second true");
    setup.root.link("bin/true", "busybox");
    setup
}

fn writes_the_second_slot_which_is_booted(updater: &Updater) {
    let mut device = Device::with_update(updater, &next());
    let outcome = device.boot();
    assert_results(&outcome, &[("update", true, updater.success)]);
    device.setup.append("ima_init.slot=2");
    let outcome = device.boot();
    assert_results(&outcome, &[("second", true, "")]);
}

/// An image whose init nobody signed is refused however the bundle is signed, and the boot falls back to the first slot.
fn falls_back_if_the_update_is_not_signed_for_ima(updater: &Updater) {
    let mut next = next();
    next.root.unsign(INIT);
    let mut device = Device::with_update(updater, &next);
    let outcome = device.boot();
    assert_results(&outcome, &[("update", true, updater.success)]);
    device.setup.append("ima_init.slot=2");
    let outcome = device.boot();
    let console = &outcome.console;
    assert!(
        console.contains("slot 2 is refused: [IMA-713]"),
        "{}",
        console_tail(&outcome)
    );
    assert!(
        console.contains("slot 1") && !console.contains("slot 2\n"),
        "{}",
        console_tail(&outcome)
    );
}

#[test]
fn swupdate_writes_the_second_slot_which_is_booted() {
    writes_the_second_slot_which_is_booted(&SWUPDATE);
}

#[test]
fn an_update_by_swupdate_that_is_not_signed_for_ima_falls_back() {
    falls_back_if_the_update_is_not_signed_for_ima(&SWUPDATE);
}

#[test]
fn rauc_writes_the_second_slot_which_is_booted() {
    writes_the_second_slot_which_is_booted(&RAUC);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn an_update_by_rauc_that_is_not_signed_for_ima_falls_back() {
    falls_back_if_the_update_is_not_signed_for_ima(&RAUC);
}
