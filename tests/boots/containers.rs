//! Containers: what runs in namespaces of its own is held to the host's policy. docs/explanation/containers.md names each of these
//! tests.
//!
//! The container is what a container's runtime makes of the kernel's parts: namespaces of mounts, processes and users, and another
//! root directory.

use crate::attacks::{assert_said, attacked_by, said};
use crate::built::{PROGRAMS, busybox};
use crate::keys::RSA;
use crate::setup::{Setup, console_tail};
use crate::tree::{Format, Tree};

/// Runs a script in a container whose root is the directory, as root of a user namespace.
fn contained(root: &str, script: &str) -> String {
    format!("unshare -U -r -m -p -f chroot {root} /bin/busybox sh -c '{PRELUDE}{script}'\n")
}

/// The same as root of the host.
fn privileged(root: &str, script: &str) -> String {
    format!("unshare -m -p -f chroot {root} /bin/busybox sh -c '{PRELUDE}{script}'\n")
}

const PRELUDE: &str = "PATH=/bin; say() { echo \"attack: $*\"; }\n";

/// A signed program, an unsigned one, and a copy of the signed one that the container makes.
const TRY: &str = "say \"process $$ of user $(busybox id -u)\"
    signed ok; say \"signed: $?\"
    unsigned ok; say \"unsigned: $?\"
    busybox cp /bin/signed /tmp/copy; /tmp/copy ok; say \"copy: $?\"\n";

/// What is in the container's image, below this directory.
fn add_image(tree: &mut Tree, directory: &str) {
    let at = |path: &str| format!("{directory}{path}");
    tree.add_signed(&at("bin/busybox"), 0o755, &busybox(), &RSA);
    tree.add_signed(&at("bin/signed"), 0o755, &PROGRAMS.guest, &RSA);
    tree.add(&at("bin/unsigned"), 0o755, &PROGRAMS.guest);
    tree.add(&at("tmp/x"), 0o644, b"");
}

/// A host that has the image in its root.
fn host(script: &str) -> Setup {
    let mut setup = attacked_by(script);
    add_image(&mut setup.root, "image/");
    setup
}

/// The image with its signatures in a tmpfs.
const ON_TMPFS: &str = "mkdir /tmp/image; guest copy /image /tmp/image || say 'not copied'\n";

const HELD: [&str; 4] = [
    "process 1 of user 0",
    "signed: 0",
    "unsigned: 126",
    "copy: 126",
];

/// The kernel denies what is unsigned, and its record of that is in the host's log.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn unsigned_program_in_a_container() {
    let setup = host(&format!("{ON_TMPFS}{}", contained("/tmp/image", TRY)));
    let outcome = setup.boot();
    assert_eq!(said(&outcome), HELD, "{}", console_tail(&outcome));
    let denied = |line: &str| {
        line.contains("audit: type=1800")
            && line.contains("cause=IMA-signature-required")
            && line.contains("unsigned\"")
    };
    assert!(
        outcome.console.lines().any(denied),
        "{}",
        console_tail(&outcome)
    );
}

/// Root of the host in a container may copy a signature with the file; nothing else is different.
#[test]
fn unsigned_program_in_a_privileged_container() {
    let script = format!(
        "{TRY}busybox mkdir /tmp/signed; signed copy /bin /tmp/signed; /tmp/signed/signed ok; say \"copy with its signature: $?\"\n"
    );
    let setup = host(&format!("{ON_TMPFS}{}", privileged("/tmp/image", &script)));
    let expected = [&HELD[..], &["copy with its signature: 0"]].concat();
    assert_said(&setup, &expected);
}

/// In a user namespace nobody can set security.ima, not even on a tmpfs of their own.
#[test]
fn signature_set_in_a_user_namespace() {
    let script = "busybox mount -t tmpfs own /tmp || say \"no tmpfs\"
        busybox mkdir /tmp/signed
        signed copy /bin /tmp/signed; say \"set: $?\"
        busybox cp /bin/signed /tmp/signed/signed
        /tmp/signed/signed ok; say \"run: $?\"\n";
    let setup = host(&format!("{ON_TMPFS}{}", contained("/tmp/image", script)));
    assert_said(&setup, &["set: 1", "run: 126"]);
}

/// The lower layer's signatures count in an overlay, and are copied up with the file; what the container writes has none.
#[test]
fn image_in_an_overlay() {
    let layers = "mkdir /tmp/up /tmp/work /tmp/all
        mount -t overlay -o lowerdir=/image,upperdir=/tmp/up,workdir=/tmp/work overlay /tmp/all\n";
    let script = format!(
        "{TRY}busybox chmod 700 /bin/signed; signed ok; say \"copied up: $?\"
        echo >>/bin/signed; signed ok; say \"changed: $?\"\n"
    );
    let setup = host(&format!("{layers}{}", contained("/tmp/all", &script)));
    let expected = [&HELD[..], &["copied up: 0", "changed: 126"]].concat();
    assert_said(&setup, &expected);
}

/// An image with a file system of its own, mounted by the host, has its own signatures.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn image_with_its_own_file_system() {
    let mount = "mkdir /tmp/all; mount -t erofs -o ro /image.erofs /tmp/all || say 'not mounted'\n";
    let script = "say \"process $$ of user $(busybox id -u)\"
        signed ok; say \"signed: $?\"
        unsigned ok; say \"unsigned: $?\"\n";
    let mut setup = host(&format!("{mount}{}", contained("/tmp/all", script)));
    let mut tree = Tree::default();
    add_image(&mut tree, "");
    let image = tree.image(&Format::Erofs);
    let content = std::fs::read(&image).expect("the image");
    std::fs::remove_file(image).expect("the image");
    setup.root.add("image.erofs", 0o644, &content);
    assert_said(&setup, &HELD[..3]);
}

/// A container has no policy of its own: securityfs cannot be mounted in a user namespace. Where the host shows it there, and its root
/// is the host's, what it writes there is what the host's root would write: an unsigned policy is refused.
#[test]
fn policy_in_a_user_namespace() {
    let inside = contained(
        "/tmp/image",
        "busybox mount -t securityfs none /tmp || say \"no securityfs: $?\"\n",
    );
    let mut setup = host(&format!(
        "{ON_TMPFS}{inside}mount -t sysfs sysfs /sys; mount -t securityfs none /sys/kernel/security
        unshare -U -r -m sh -c '
            for rules in unsigned signed; do
                if echo /etc/$rules >/sys/kernel/security/ima/policy; then say=taken; else say=refused; fi
                echo \"attack: $rules: $say\"
            done'\n"
    ));
    let rules = b"measure func=BPRM_CHECK\n";
    setup.root.add("etc/unsigned", 0o644, rules);
    setup.root.add_signed("etc/signed", 0o644, rules, &RSA);
    assert_said(
        &setup,
        &["no securityfs: 1", "unsigned: refused", "signed: taken"],
    );
}
