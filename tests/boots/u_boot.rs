//! FIT images made as docs/how-to/u-boot.md says, started by U-Boot in QEMU's machine for arm64.
//!
//! The kernel in them only switches the machine off.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use ima::hash::HashAlgorithm;

use crate::how_to::Use::Run;
use crate::how_to::{Desk, fenced, page};

/// What U-Boot prints when it has nothing left to do (common/cli.c, `secure_boot_cmd`).
const REFUSED: &str = "### ERROR ### Please RESET the board ###";

/// The same when it executes the kernel, and when the signature of the configuration is good, as the page says.
const STARTED: &str = "Starting kernel ...";

const VERIFIED: &str = "Verifying Hash Integrity ... sha256,rsa2048:fit+ OK";

/// Why it does not start it.
const WITHOUT_HASH: &str = "Bad hash value for 'hash' hash node";
const WITHOUT_SIGNATURE: &str = "Failed to verify required signature 'key-fit'";

const INITRAMFS: &[u8] = b"the initramfs of a test ";

/// An image of Linux for arm64 (Documentation/arch/arm64/booting.rst) that calls `SYSTEM_OFF` (PSCI) and does nothing else.
fn kernel() -> Vec<u8> {
    let mut image = Vec::new();
    // b . + 64, and nothing.
    image.extend([0x1400_0010_u32, 0].map(u32::to_le_bytes).concat());
    // Text offset, length of the image, flags: anywhere in memory; three reserved fields.
    image.extend(
        [0_u64, 0x1_0000, 0xa, 0, 0, 0]
            .map(u64::to_le_bytes)
            .concat(),
    );
    image.extend(b"ARM\x64");
    image.extend([0; 4]);
    // movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0
    let code = [0x5280_0100_u32, 0x72b0_8000, 0xd400_0002];
    image.extend(code.map(u32::to_le_bytes).concat());
    image.resize(8192, 0);
    image
}

/// How many blocks of the page make the image, sign it with a token, and close U-Boot; the others check.
const MAKE: usize = 4;
const TOKEN: usize = 1;
const CLOSE: usize = 1;

/// A directory with what the page makes.
static MADE: LazyLock<Desk> = LazyLock::new(|| {
    let mut desk = Desk::empty();
    for (name, content) in [
        ("Image", kernel()),
        ("initramfs.cpio.gz", INITRAMFS.repeat(64)),
        ("image.its", fenced("u-boot", "dts").into_bytes()),
    ] {
        fs::write(desk.path(name), content).expect("a file");
    }
    let blocks = page("u-boot");
    let later = desk.follow(&blocks, &[Run; MAKE]);
    desk.follow(&later[TOKEN..], &[Run; CLOSE]);
    desk
});

/// A directory with copies of it, and the image changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Desk {
    let desk = Desk::empty();
    for file in fs::read_dir(MADE.path("")).expect("a directory") {
        let file = file.expect("a file");
        let name = file.file_name();
        fs::copy(file.path(), desk.path("").join(name)).expect("a file");
    }
    let path = desk.path("image.itb");
    let mut image = fs::read(&path).expect("the image");
    change(&mut image);
    fs::write(path, image).expect("the image");
    desk
}

/// The same, changed by commands.
fn changed_by(commands: &str) -> Desk {
    let mut desk = changed(|_| ());
    desk.run(commands);
    desk
}

/// Writes other bytes over these, which are in the image once.
fn replace(image: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places = image.windows(from.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, bytes)| *bytes == from)
        .map(|(place, _)| place)
        .collect();
    let [place] = places[..] else {
        panic!("in {} places", places.len())
    };
    image[place..place + to.len()].copy_from_slice(to);
}

/// Starts the image with the command of the page, and returns what U-Boot printed until it gave up or QEMU ended.
fn start(desk: &Desk) -> String {
    let blocks = page("u-boot");
    let [_, command, verified] = &blocks[MAKE + TOKEN + CLOSE..] else {
        panic!("the blocks that check: {blocks:?}")
    };
    assert_eq!(verified.trim(), VERIFIED);
    let mut child = Command::new("timeout")
        .args([
            "--foreground",
            "120",
            "bash",
            "-euc",
            &format!("exec {command}"),
        ])
        .current_dir(desk.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("QEMU");
    let mut output = child.stdout.take().expect("its output");
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let (console, refused) = loop {
        let length = output.read(&mut piece).expect("its output");
        bytes.extend(&piece[..length]);
        let console = String::from_utf8_lossy(&bytes).replace('\r', "");
        let refused = console.contains(REFUSED);
        if refused || length == 0 {
            break (console, refused);
        }
    };
    if refused {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }
    let status = child.wait().expect("QEMU");
    assert!(refused || status.success(), "{status}: {console}");
    console
}

/// U-Boot starts the kernel, which switches the machine off.
fn assert_started(desk: &Desk) -> String {
    let console = start(desk);
    assert!(
        console.contains(STARTED) && !console.contains(REFUSED),
        "{console}"
    );
    console
}

/// U-Boot does not start the kernel, for this reason.
fn assert_refused(desk: &Desk, reason: &str) {
    let console = start(desk);
    assert!(
        console.contains(reason) && console.contains(REFUSED),
        "{console}"
    );
    assert!(!console.contains(STARTED), "{console}");
}

#[test]
fn signed_fit_image() {
    let console = assert_started(&MADE);
    // For each of kernel, initramfs and device tree.
    assert_eq!(console.matches(VERIFIED).count(), 3, "{console}");
}

#[test]
fn fit_image_that_a_token_signed() {
    let mut desk = changed(|image| image.clear());
    let token = "export SOFTHSM2_CONF=$PWD/softhsm.conf; mkdir tokens; echo \"directories.tokendir = $PWD/tokens\" >$SOFTHSM2_CONF";
    desk.run(&format!(
        "{token}; softhsm2-util --init-token --free --label fit --so-pin 1234 --pin 1234
        openssl pkcs8 -topk8 -nocrypt -in fit.key -out fit.p8 && rm fit.key fit.crt
        softhsm2-util --import fit.p8 --token fit --label fit --id 01 --pin 1234
        rm fit.p8; {}",
        page("u-boot")[MAKE]
    ));
    let console = assert_started(&desk);
    assert_eq!(console.matches(VERIFIED).count(), 3, "{console}");
}

/// A byte of the kernel behind what is executed.
fn change_kernel(image: &mut [u8]) {
    let before = kernel();
    let mut after = before.clone();
    after[4096] = 1;
    replace(image, &before, &after);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn fit_image_with_another_kernel() {
    assert_refused(&changed(|image| change_kernel(image)), WITHOUT_HASH);
}

#[test]
fn fit_image_with_another_kernel_and_its_hash() {
    let desk = changed(|image| {
        change_kernel(image);
        let mut after = kernel();
        after[4096] = 1;
        let hash = |content: &[u8]| HashAlgorithm::Sha256.digest(content).expect("a digest");
        replace(image, &hash(&kernel()), &hash(&after));
    });
    assert_refused(&desk, WITHOUT_SIGNATURE);
}

#[test]
fn fit_image_with_another_initramfs() {
    let before = INITRAMFS.repeat(64);
    let mut after = before.clone();
    after[0] = b'I';
    assert_refused(
        &changed(|image| replace(image, &before, &after)),
        WITHOUT_HASH,
    );
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn fit_image_without_its_initramfs() {
    let desk = changed_by("fdtput -d image.itb /configurations/board ramdisk");
    assert_refused(&desk, WITHOUT_SIGNATURE);
}

#[test]
fn fit_image_with_other_boot_arguments() {
    let desk = changed(|image| replace(image, b"root=LABEL=root", b"rdinit=/bin//sh"));
    assert_refused(&desk, WITHOUT_HASH);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn fit_image_without_a_signature() {
    let desk = changed_by("fdtput -r image.itb /configurations/board/signature");
    assert_refused(&desk, WITHOUT_SIGNATURE);
}

#[test]
fn fit_image_that_another_key_signed() {
    let [key, .., sign] = &page("u-boot")[..MAKE] else {
        panic!("the blocks that make a key and sign")
    };
    let sign = sign.replace("-K u-boot.dtb", "-K board.dtb");
    let desk = changed_by(&format!("{key}{sign}"));
    assert_refused(&desk, WITHOUT_SIGNATURE);
}

/// What a prompt of U-Boot can do, and an environment that somebody writes: here the control device tree has the commands.
#[test]
fn prompt_of_u_boot_starts_what_is_not_verified() {
    for command in [
        "setenv verify no; bootm",
        "bootm 0x40200000:kernel 0x40200000:initramfs 0x40200000:fdt",
    ] {
        let mut desk = changed(|image| {
            let before = INITRAMFS.repeat(64);
            let mut after = before.clone();
            after[0] = b'I';
            if command.starts_with("setenv") {
                replace(image, &before, &after);
            }
        });
        desk.run(&format!(
            "fdtput -d u-boot.dtb /config bootsecure; fdtput -t s u-boot.dtb /config bootcmd '{command}'
            fdtput -r image.itb /configurations/board/signature"
        ));
        let console = assert_started(&desk);
        assert!(!console.contains(VERIFIED), "{console}");
    }
}
