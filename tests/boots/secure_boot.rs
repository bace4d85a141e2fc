//! Machines with UEFI: Secure Boot, unified kernel images, keys of the machine's owner, and the kernel's own policy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use ima::bank::Bank;
use ima::certificate::Certificate;
use ima::eventlog;
use ima::fault::Code;
use ima_testbed::report::{decode_hex, encode_hex};
use ima_testbed::{Disk, Ending, Machine, MachineOutput, Outcome, Tpm, Uefi};
use imactl::key::KeyKind;
use imactl::status::{Item, State};
use imactl::uki::pe::Image;
use imactl::uki::{Builder, Database, UnifiedKernelImage, authenticode};
use imactl::x509::{BasicConstraints, Template, Usage};

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, scratch};
use crate::keys::{CA, OTHER_CA, Pair, RSA};
use crate::luks::sealed_to;
use crate::matrix::Action;
use crate::measured::assert_logs_explain;
use crate::media::blank;
use crate::setup::{DEFAULT_POLICY, Setup, assert_booted, assert_refused, console_tail, root_of};
use crate::status;
use crate::tree::Tree;

/// systemd's stub, of Debian's package systemd-boot-efi.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// shim without a signature, of Debian's package shim-unsigned.
const SHIM: &str = "/usr/lib/shim/shimx64.efi";

/// What firmware starts from a disk, and what shim starts.
pub const FIRST: &str = "BOOTX64.EFI";
const BEHIND_SHIM: &str = "grubx64.efi";

/// The parameters with which the testbed begins the command line of a kernel that QEMU starts.
const CONSOLE: &str = "console=ttyS0 no_timer_check";

/// A parameter that nothing looks at, and what somebody makes of it.
const MARKER: [&str; 2] = ["marker=signed", "marker=change"];

fn self_signed(name: &str) -> Pair {
    Pair::new(KeyKind::Rsa(2048), &Template::leaf(name), None)
}

/// The platform key, and the key in `db`.
static PLATFORM: LazyLock<Pair> = LazyLock::new(|| self_signed("platform"));
static DB: LazyLock<Pair> = LazyLock::new(|| self_signed("db"));
/// A key that is not in `db`.
static OTHER: LazyLock<Pair> = LazyLock::new(|| self_signed("other"));

/// The firmware of a machine, and how it comes to the kernel.
pub struct Firmware {
    uefi: Uefi,
    signer: Option<&'static Pair>,
    /// What is done to the image when it has been signed.
    change: fn(&mut [u8]),
    start: Start,
    /// Whether the digest of the image is in `dbx`.
    revoked: bool,
}

/// What the firmware and shim decide by, as `imactl check` is told of it.
pub struct DecidesBy {
    /// The certificates of the keys whose programs are started; none where Secure Boot is disabled.
    pub trusted: Option<Vec<Certificate>>,
    pub revoked: Database,
    /// What the kernel gets from shim.
    pub owner_keys: Vec<Certificate>,
}

enum Start {
    /// The firmware starts the image from a disk.
    FromDisk,
    /// The firmware starts the image from QEMU, with these load options behind those of the testbed.
    WithOptions(&'static str),
    /// Shim starts the image, and the firmware shim.
    ByShim,
}

impl Firmware {
    /// Secure Boot, with a signed image.
    fn secure() -> Firmware {
        Firmware {
            uefi: Uefi::with_platform_key(&PLATFORM.der()).allow(&DB.der()),
            signer: Some(&DB),
            change: |_| (),
            start: Start::FromDisk,
            revoked: false,
        }
    }

    /// No Secure Boot, and no signature.
    fn insecure() -> Firmware {
        Firmware {
            uefi: Uefi::new(),
            signer: None,
            ..Firmware::secure()
        }
    }

    /// Secure Boot with shim, and this key of the machine's owner.
    fn with_owner_s(key: &Pair) -> Firmware {
        let mut firmware = Firmware::secure();
        firmware.uefi = firmware.uefi.machine_owner_key(&key.der());
        firmware.start = Start::ByShim;
        firmware
    }

    /// The unified kernel image.
    pub fn image(&self, kernel: &Path, initramfs: &Path, command_line: &str) -> Vec<u8> {
        let image = Builder::new(read(STUB), read(kernel))
            .initramfs(read(initramfs))
            .command_line(&format!("{CONSOLE} {command_line}"))
            .build()
            .expect("an image");
        let mut image = match self.signer {
            Some(pair) => sign(&image, pair),
            None => image,
        };
        (self.change)(&mut image);
        image
    }

    /// A machine with this disk that comes to start the image, and the file that has the image.
    pub fn machine(&self, image: &[u8], disk: Disk) -> (Machine, PathBuf) {
        let mut files = vec![(FIRST, image.to_vec())];
        if let Start::ByShim = self.start {
            files = vec![
                (FIRST, sign(&read(SHIM), &DB)),
                (BEHIND_SHIM, image.to_vec()),
            ];
        }
        let (machine, file) = match &self.start {
            Start::WithOptions(options) => {
                let file = blank(0);
                std::fs::write(&file, image).expect("an image");
                let machine = Machine::new(&file).append(*options).disk(disk);
                (machine, file)
            }
            Start::FromDisk | Start::ByShim => {
                let file = system_partition(&files);
                let machine = Machine::from_disk(disk).disk(Disk::new(&file).boot());
                (machine, file)
            }
        };
        let image = Image::parse(image).expect("an image");
        (machine.uefi(self.uefi_for(&image)), file)
    }

    /// The firmware for a machine that comes to start this image.
    fn uefi_for(&self, image: &Image<'_>) -> Uefi {
        match self.revoked {
            true => self.uefi.clone().forbid_program(image.digest()),
            false => self.uefi.clone(),
        }
    }

    /// What it decides by when it comes to start this image.
    pub fn decides_by(&self, image: &UnifiedKernelImage<'_>) -> DecidesBy {
        let uefi = self.uefi_for(image.image());
        let read = |name: &str| {
            let data = uefi.variable(name)?;
            Some(Database::parse(data).expect("a database"))
        };
        let mut of_shim = [Database::default(), Database::default()];
        if let Start::ByShim = self.start {
            of_shim = ["MokList", "SbatLevel"].map(|name| read(name).unwrap_or_default());
        }
        let [owner, generations] = of_shim;
        let db = read("db").map(|db| db.certificates);
        let mut revoked = read("dbx").unwrap_or_default();
        revoked.extend(generations);
        DecidesBy {
            trusted: db.map(|db| [db, owner.certificates.clone()].concat()),
            revoked,
            owner_keys: owner.certificates,
        }
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sign(program: &[u8], pair: &Pair) -> Vec<u8> {
    authenticode::sign(program, &*pair.key, &pair.certificate).expect("a signature")
}

/// A disk that is an EFI system partition with these files in `/EFI/BOOT`.
pub fn system_partition(files: &[(&str, Vec<u8>)]) -> PathBuf {
    let disk = blank(64);
    run(Command::new("mkfs.vfat").arg(&disk));
    run(Command::new("mmd")
        .arg("-i")
        .arg(&disk)
        .args(["::/EFI", "::/EFI/BOOT"]));
    for (name, content) in files {
        let file = tempfile::NamedTempFile::new_in(scratch()).expect("a file");
        std::fs::write(file.path(), content).expect("a file");
        let copy = format!("::/EFI/BOOT/{name}");
        run(Command::new("mcopy")
            .arg("-i")
            .arg(&disk)
            .arg(file.path())
            .arg(copy));
    }
    disk
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Changes a byte in the middle of a section, and nothing else.
pub fn change_byte(image: &mut [u8], section: &str) {
    let parsed = Image::parse(image).expect("an image");
    let content = parsed.content(section).expect("the section");
    let place = content.as_ptr().addr() - image.as_ptr().addr() + content.len() / 2;
    image[place] ^= 1;
}

/// Writes another parameter over the marker on the command line.
fn change_marker(image: &mut [u8]) {
    let [before, after] = MARKER;
    let mut places = image.windows(before.len());
    let place = places.position(|window| window == before.as_bytes());
    let place = place.expect("the marker");
    image[place..place + before.len()].copy_from_slice(after.as_bytes());
}

/// A boot with this firmware.
fn with(firmware: Firmware) -> Setup {
    with_kernel(Kernel::Efi, firmware)
}

/// The same with another kernel.
fn with_kernel(kernel: Kernel, firmware: Firmware) -> Setup {
    let mut setup = Setup::new();
    setup.kernel = kernel;
    setup.append(MARKER[0]);
    setup.firmware = Some(firmware);
    if kernel == Kernel::Strict {
        setup.modules = kernel.modules_for("virtio_blk");
    }
    setup
}

/// A boot with this firmware and the attempts of the guest program.
fn with_attempts(firmware: Firmware) -> Setup {
    with_attempts_on(Kernel::Efi, firmware)
}

/// The same with another kernel.
fn with_attempts_on(kernel: Kernel, firmware: Firmware) -> Setup {
    let mut setup = with_kernel(kernel, firmware);
    setup.root = Tree::with_attempts(Some(&kernel.module("dummy")));
    setup
}

/// `imactl check` warns that the command line is open.
fn assert_warned(setup: &Setup) {
    let found = setup.findings().expect("what the check finds");
    let has = |code| found.faults.iter().any(|fault| fault.code() == code);
    assert!(has(Code::CommandLineOpen), "{:?}", found.faults);
}

pub fn assert_shows(outcome: &Outcome, text: &str) {
    let shown = outcome.console_contains(text);
    assert!(
        shown,
        "“{text}” is not on the console: {}",
        console_tail(outcome)
    );
}

/// The firmware did not start the kernel, for this reason of UEFI's.
pub fn assert_never_started(outcome: &Outcome, reason: &str) {
    assert_eq!(
        outcome.ending,
        Ending::NothingToBoot,
        "{}",
        console_tail(outcome)
    );
    assert_shows(outcome, &format!(": {reason}"));
    // The first is of the kernel's own beginning.
    for text in ["EFI stub:", "Linux version"] {
        assert!(!outcome.console_contains(text), "{}", console_tail(outcome));
    }
    assert!(!outcome.guest_ran(), "{}", console_tail(outcome));
}

/// The policy is enforced under Secure Boot: what is unsigned is denied, what is signed runs.
fn assert_enforced_under_secure_boot(outcome: &Outcome) {
    let report = assert_booted(outcome);
    assert_all_attempts_passed(report);
    assert_eq!(report.secure_boot, Some(true), "{:?}", report.problems);
    assert_shows(outcome, "Secure boot enabled");
}

#[test]
fn signed_image() {
    let mut setup = with_attempts(Firmware::secure());
    setup.tpm = Tpm::Swtpm;
    setup.configure("require_tpm=yes");
    setup.configure("measure_pcr=13");
    setup
        .root
        .add(status::RECORD, 0o644, status::FILES.as_bytes());
    let outcome = setup.boot();
    assert_enforced_under_secure_boot(&outcome);
    let report = assert_booted(&outcome);
    let checks = status::status(report).checks();
    for (item, text) in [
        (Item::Kernel, "in a unified kernel image (systemd-stub "),
        (Item::SecureBoot, "enabled; no lockdown"),
        (Item::CommandLine, "closed: in a unified kernel image"),
        (Item::Measurements, "PCR 10 is their replay"),
    ] {
        let state = match item {
            // This kernel has no lockdown.
            Item::SecureBoot => State::Attention,
            _ => State::Good,
        };
        status::assert_check(&checks, item, state, text);
    }
    let keys = &report.keyrings[".machine"].keys;
    assert_eq!(keys, &[""; 0], "a key of the firmware's is trusted");
    // The firmware measured what it started and the keys by which it decided, the stub the sections, and the init its conclusions.
    let sha256 = &report.pcrs["sha256"];
    for pcr in [4, 7, 11, 13] {
        assert!(sha256[pcr].contains(|digit| digit != '0'), "PCR {pcr}");
    }
    let logs = assert_logs_explain(report);
    assert_eq!(logs.programs.len(), 2);
    let sections_of = |image: &[u8]| {
        let image = UnifiedKernelImage::parse(image).expect("an image");
        logs.stub_sections(image.sections())
            .expect("events of the stub")
    };
    let mut image = setup.unified_kernel_image().expect("an image");
    let sections = sections_of(&image);
    for name in [".linux", ".initrd", ".cmdline"] {
        assert!(sections.contains(&(name.to_owned(), true)), "{sections:?}");
    }
    assert!(sections.iter().all(|(_, matches)| *matches), "{sections:?}");
    change_byte(&mut image, ".initrd");
    let changed = (".initrd".to_owned(), false);
    assert!(sections_of(&image).contains(&changed));
}

/// What `refused_by_the_firmware` has is refused for nothing but the signature.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn changed_image_boots_without_secure_boot() {
    let firmware = Firmware {
        change: change_marker,
        ..Firmware::insecure()
    };
    let setup = with(firmware);
    assert_warned(&setup);
    let outcome = setup.boot();
    assert_eq!(assert_booted(&outcome).secure_boot, Some(false));
    assert_shows(&outcome, MARKER[1]);
}

mod refused_by_the_firmware {
    use super::*;

    fn refuse(firmware: Firmware) {
        refuse_with(firmware, "Access Denied");
    }

    /// Both the firmware and `imactl check` refuse the image.
    fn refuse_with(firmware: Firmware, reason: &str) {
        let setup = with(firmware);
        assert_eq!(setup.checked(), Some("IMA-993"));
        assert_never_started(&setup.boot_unchecked(), reason);
    }

    #[test]
    fn unsigned_image() {
        refuse(Firmware {
            signer: None,
            ..Firmware::secure()
        });
    }

    /// Of QEMU's kernel the firmware shows no reason.
    #[test]
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    fn unsigned_image_from_elsewhere() {
        let firmware = Firmware {
            signer: None,
            start: Start::WithOptions("root=/dev/vda"),
            ..Firmware::secure()
        };
        refuse_with(firmware, "Not Found");
    }

    #[test]
    fn image_with_another_command_line() {
        refuse(Firmware {
            change: change_marker,
            ..Firmware::secure()
        });
    }

    #[test]
    fn image_with_another_initramfs() {
        refuse(Firmware {
            change: |image| change_byte(image, ".initrd"),
            ..Firmware::secure()
        });
    }

    #[test]
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    fn image_with_another_kernel() {
        refuse(Firmware {
            change: |image| change_byte(image, ".linux"),
            ..Firmware::secure()
        });
    }

    #[test]
    #[ignore = "another form of what is tested always; tests/run --all"]
    fn image_that_another_key_signed() {
        refuse(Firmware {
            signer: Some(&OTHER),
            ..Firmware::secure()
        });
    }

    /// As an image with a known hole is revoked.
    #[test]
    fn image_whose_digest_is_revoked() {
        refuse(Firmware {
            revoked: true,
            ..Firmware::secure()
        });
    }

    #[test]
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    fn image_whose_certificate_is_revoked() {
        let firmware = Firmware::secure();
        refuse(Firmware {
            uefi: firmware.uefi.forbid(&DB.der()),
            ..firmware
        });
    }
}

/// The digests with which the firmware extended PCR 7, in hexadecimal, by its log.
fn extended(log: &str) -> Vec<String> {
    let log = decode_hex(log).expect("a log");
    let events = eventlog::parse(&log).expect("a log").into_iter();
    let events = events.filter(|event| event.pcr == 7 && event.extends());
    events
        .map(|event| encode_hex(&event.digests[&Bank::Sha256]))
        .collect()
}

/// The key of an encrypted root that is sealed to PCR 7 is to be had under Secure Boot with these keys, and not without.
#[test]
fn encrypted_root_that_is_sealed_to_secure_boot() {
    let mut setup = with(Firmware::secure());
    setup.tpm = Tpm::Swtpm;
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    sealed_to(&mut setup, &extended(&report.firmware_log));

    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(root_of(report).source, "/dev/dm-0");
    assert_shows(&outcome, "unlocked by the TPM with PCR 7 (sha256)");

    setup.firmware = Some(Firmware::insecure());
    let outcome = setup.boot_unchecked();
    assert_refused(&outcome, "IMA-425", Action::Poweroff);
}

/// The stub ignores load options under Secure Boot if the image has a command line (systemd-stub(7)).
#[test]
fn load_options_have_no_effect() {
    let firmware = Firmware {
        start: Start::WithOptions("root=/dev/vda rdinit=/none"),
        ..Firmware::secure()
    };
    let outcome = with_attempts(firmware).boot();
    assert_enforced_under_secure_boot(&outcome);
    assert!(
        !outcome.console_contains("rdinit"),
        "{}",
        console_tail(&outcome)
    );
}

/// Without Secure Boot the same load options leave the init out: the kernel starts the root's init without a policy.
#[test]
fn load_options_leave_the_init_out_without_secure_boot() {
    let firmware = Firmware {
        start: Start::WithOptions("root=/dev/vda rdinit=/none"),
        ..Firmware::insecure()
    };
    let setup = with_attempts(firmware);
    assert_warned(&setup);
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(report.init, None);
    let succeeded = |name: &str| {
        report
            .attempts
            .iter()
            .any(|it| it.name == name && !it.passed)
    };
    assert!(succeeded("unsigned"), "{:#?}", report.attempts);
}

/// The local CA is a key of the machine's owner and not in the kernel: the kernel takes it from shim.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn ca_of_the_owner() {
    let outcome = assert_vouches(Kernel::Efi, &CA);
    // So is the certificate with which Debian builds its shim.
    assert!(has_key(&outcome, ".machine", "Debian Secure Boot CA"));
}

fn has_key(outcome: &Outcome, keyring: &str, name: &str) -> bool {
    let keys = &assert_booted(outcome).keyrings[keyring].keys;
    keys.iter().any(|key| key.contains(name))
}

/// A kernel without a CA of its own takes this key of the owner's onto `.machine`, and what it vouches for onto `.ima`.
fn assert_vouches(kernel: Kernel, owner: &Pair) -> Outcome {
    let mut setup = with_attempts_on(kernel, Firmware::with_owner_s(owner));
    setup.trusts_ca = false;
    let outcome = setup.boot();
    assert_enforced_under_secure_boot(&outcome);
    assert!(has_key(&outcome, ".machine", "boots CA"));
    assert!(has_key(&outcome, ".ima", "boots RSA"));
    let built_in = &assert_booted(&outcome).keyrings[".builtin_trusted_keys"];
    assert_eq!(built_in.keys, [""; 0]);
    outcome
}

/// Such a kernel does not let this key of the owner's vouch, and `imactl check` says so beforehand.
fn assert_does_not_vouch(kernel: Kernel, owner: &Pair, because: &str) {
    let mut setup = with_kernel(kernel, Firmware::with_owner_s(owner));
    setup.trusts_ca = false;
    assert_eq!(setup.checked(), Some("IMA-504"));
    let outcome = setup.boot();
    assert_refused(&outcome, "IMA-504", Action::Poweroff);
    assert_shows(&outcome, because);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn certificate_of_a_ca_that_is_not_the_owner_s() {
    assert_does_not_vouch(Kernel::Efi, &OTHER_CA, "another CA");
}

/// Another certificate of the key of the tests' CA.
fn ca_with(usage: Usage, basic_constraints: BasicConstraints) -> Pair {
    let template = Template {
        usage: Some(usage),
        basic_constraints,
        ..Template::ca("boots CA")
    };
    let certificate = template.sign(&*CA.key, None, None);
    Pair::with(CA.key.clone(), certificate.expect("a certificate"))
}

/// Why the kernel does not take what such a key of the owner's has signed.
const ON_PLATFORM: &str = "is on the keyring .platform alone";

const CERTIFICATES: Usage = Usage {
    digital_signature: false,
    key_cert_sign: true,
};
const CERTIFICATES_AND_DATA: Usage = Usage {
    digital_signature: true,
    key_cert_sign: true,
};

/// `CONFIG_INTEGRITY_CA_MACHINE_KEYRING` keeps it off `.machine`.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn key_of_the_owner_that_is_no_ca() {
    let owner = ca_with(CERTIFICATES, BasicConstraints::Leaf);
    assert_does_not_vouch(Kernel::Efi, &owner, ON_PLATFORM);
}

/// With this option alone the key may sign data too.
#[test]
#[ignore = "another form of a boot that is tested always; tests/run --all"]
fn ca_of_the_owner_that_signs_more_where_any_ca_is_taken() {
    assert_vouches(
        Kernel::Efi,
        &ca_with(CERTIFICATES_AND_DATA, BasicConstraints::Ca),
    );
}

/// `CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX` takes it.
#[test]
fn ca_of_the_owner_that_signs_nothing_but_certificates() {
    assert_vouches(Kernel::Strict, &CA);
}

/// And not the same CA if its certificate says that it signs data too.
#[test]
fn ca_of_the_owner_that_signs_more_than_certificates() {
    let owner = ca_with(CERTIFICATES_AND_DATA, BasicConstraints::Ca);
    assert_does_not_vouch(Kernel::Strict, &owner, ON_PLATFORM);
}

/// shim trusts the owner's keys as it does those in `db`.
#[test]
#[ignore = "another form of a boot that is tested always; tests/run --all"]
fn image_that_the_owner_signed() {
    let firmware = Firmware {
        signer: Some(&OTHER),
        ..Firmware::with_owner_s(&OTHER)
    };
    let outcome = with(firmware).boot();
    assert_eq!(assert_booted(&outcome).secure_boot, Some(true));
}

/// shim does not start the image.
fn refused_by_shim(firmware: Firmware) {
    let setup = with(firmware);
    assert_eq!(setup.checked(), Some("IMA-993"));
    let (_, outcome) = setup.boot_without_check(|running| {
        let wait = |text: &str, seconds| {
            let shown = |output: &MachineOutput<'_>| output.console.contains(text).then_some(());
            running.wait_for(text, Duration::from_secs(seconds), shown)
        };
        wait("BdsDxe: starting Boot0001", 120).expect("the start of shim");
        // shim shows the refusal until somebody presses a key, and loses keys that come before it waits for one. QEMU may lose some
        // of what it draws, so that is not waited for. The firmware starts shim again when nothing else could be started.
        let ended = (0..30).any(|_| {
            running.send_text("\r").expect("a key");
            wait("No bootable option", 2).is_ok()
        });
        assert!(ended, "{}", running.console());
    });
    assert_never_started(&outcome, "Security Policy Violation");
}

#[test]
#[ignore = "another form of a fault that is tested always; tests/run --all"]
fn image_that_the_owner_did_not_sign() {
    refused_by_shim(Firmware {
        signer: Some(&OTHER),
        ..Firmware::with_owner_s(&CA)
    });
}

/// shim refuses programs of generations that are revoked. Debian 12's stub is of the first.
#[test]
fn image_on_a_revoked_stub() {
    let mut firmware = Firmware::with_owner_s(&OTHER);
    firmware.uefi = firmware.uefi.sbat_level("sbat,1,2099010100\nsystemd,2\n");
    refused_by_shim(firmware);
}

/// A kernel with rules of its own under Secure Boot.
fn with_rules_of_the_kernel(firmware: Firmware) -> Setup {
    let mut setup = with_kernel(Kernel::ArchPolicy, firmware);
    // With these rules, a kernel that verifies modules' own signatures takes no module without one (arch_get_ima_policy), and nothing
    // appends them here.
    setup.root = Tree::with_attempts(None);
    setup
}

fn sign_policy(setup: &mut Setup) {
    let signature = RSA.sign(&setup.initramfs[DEFAULT_POLICY]);
    setup.put(&format!("{DEFAULT_POLICY}.sig"), signature);
}

#[test]
fn signed_policy_beside_the_kernel_s_rules() {
    let mut setup = with_rules_of_the_kernel(Firmware::secure());
    sign_policy(&mut setup);
    let outcome = setup.boot();
    assert_enforced_under_secure_boot(&outcome);
    let policy = assert_booted(&outcome).policy.clone().expect("a policy");
    let rule = "appraise func=POLICY_CHECK appraise_type=imasig";
    assert!(policy.contains(rule), "{policy}");
}

#[test]
fn unsigned_policy_under_the_kernel_s_rules() {
    let setup = with_rules_of_the_kernel(Firmware::secure());
    assert_eq!(setup.checked(), Some("IMA-609"));
    let outcome = setup.boot();
    assert_refused(&outcome, "IMA-609", Action::Poweroff);
}

/// The kernel has no rules of its own without Secure Boot.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn unsigned_policy_without_secure_boot() {
    let setup = with_rules_of_the_kernel(Firmware::insecure());
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    assert_eq!(report.secure_boot, Some(false));
}
