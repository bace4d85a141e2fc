//! SWUpdate writes a signed root into the second slot, which is booted then; the first is booted again if the init refuses the second.

use std::path::{Path, PathBuf};
use std::process::Command;

use ima_testbed::Outcome;

use crate::media::blank;
use crate::partitions::{Partition, disk, guid};
use crate::scripted::{add_program, add_script, assert_results};
use crate::setup::{Setup, console_tail};
use crate::tree::{Format, INIT};

const SWUPDATE: &str = "/usr/bin/swupdate";

/// Makes a bundle with this image for the second slot, signed by a key of the updater's, and the certificate of that.
const BUNDLE: &str = r#"
    cd "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -subj /CN=updates \
        -addext extendedKeyUsage=emailProtection -days 100 2>/dev/null
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
    printf '%s\n' sw-description sw-description.sig root.img.gz | cpio --quiet -o -H crc >bundle.swu
"#;

/// A device with two slots, of which the first has the updater and a bundle with the image of `next`.
struct Device {
    setup: Setup,
    disk: PathBuf,
}

impl Device {
    fn with_update(next: &Setup) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let image = next.image();
        std::fs::copy(&image, file("root.img")).expect("a copy");
        let size = std::fs::metadata(&image).expect("the image").len();
        std::fs::remove_file(image).expect("the image");
        let made = Command::new("sh")
            .args(["-euc", BUNDLE, "sh"])
            .arg(directory.path())
            .status();
        assert!(made.expect("sh").success());

        let mut setup = Setup::new();
        setup.format = Format::Squashfs;
        add_program(&mut setup.root, SWUPDATE);
        add_script(
            &mut setup.root,
            "echo 'slot 1'
mount -t tmpfs tmpfs /tmp
try update /usr/bin/swupdate -k /certificate.pem -H board:1.0 -i /bundle.swu",
        );
        for name in ["bundle.swu", "certificate.pem"] {
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

#[test]
fn swupdate_writes_the_second_slot_which_is_booted() {
    let mut device = Device::with_update(&next());
    let outcome = device.boot();
    assert_results(&outcome, &[("update", true, "SWUPDATE successful")]);
    device.setup.append("ima_init.slot=2");
    let outcome = device.boot();
    assert_results(&outcome, &[("second", true, "")]);
}

/// An image whose init nobody signed is refused however the bundle is signed, and the boot falls back to the first slot.
#[test]
fn an_update_that_is_not_signed_for_ima_falls_back() {
    let mut next = next();
    next.root.unsign(INIT);
    let mut device = Device::with_update(&next);
    let outcome = device.boot();
    assert_results(&outcome, &[("update", true, "SWUPDATE successful")]);
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
