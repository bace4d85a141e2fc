//! Encrypted roots: a LUKS2 container that `cryptsetup` has made and `systemd-cryptenroll` has sealed to the TPM.

use std::path::{Path, PathBuf};
use std::process::Command;

use aes::Aes256;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use ima_testbed::Tpm;
use tempfile::TempDir;

use crate::accepted::assert_all_attempts_passed;
use crate::built::scratch;
use crate::matrix::{Check, faults};
use crate::media::blank;
use crate::setup::{Setup, assert_booted, console_tail, overwrite, root_of};
use crate::slots::booted;
use crate::tree::{INIT, Tree, run};

/// Where the data begins in a container, in bytes: what `luksFormat` writes without a choice.
const DATA: u64 = 16 << 20;

const PASSPHRASE: &str = "passphrase";

/// The digest that firmware extends each of the PCRs 0 to 7 with before it starts the kernel: of four bytes 0xff (TCG PC Client
/// Platform Firmware Profile, EV_SEPARATOR; SeaBIOS, src/tcgbios.c).
const SEPARATOR: &str = "ad95131bc0b799c0b1af477fb14fcf26a6a9f76079e48bf090acb7e8367bfd0e";

/// An emulated TPM on the host, whose state a machine is started with afterwards.
struct Host {
    directory: TempDir,
}

impl Host {
    /// As a BIOS leaves it.
    fn start() -> Host {
        let host = Host::new();
        for pcr in 0..8 {
            host.tool("tpm2_pcrextend", &[&format!("{pcr}:sha256={SEPARATOR}")]);
        }
        host
    }

    fn new() -> Host {
        let directory = TempDir::new_in(scratch()).expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::create_dir(directory.path().join("state")).expect("a directory");
        // It is ready when this process ends.
        run(Command::new("swtpm")
            .args(["socket", "--tpm2", "--daemon"])
            .args(["--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", path("state")))
            .arg("--server")
            .arg(format!("type=unixio,path={}", path("tpm")))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", path("tpm.ctrl"))));
        Host { directory }
    }

    /// Its address for programs that use it.
    fn address(&self) -> String {
        let path = self.directory.path().join("tpm");
        format!("swtpm:path={}", path.display())
    }

    /// Ends it; its state, which stays as long as the other files of the boots.
    fn stop(self) -> PathBuf {
        let kept = TempDir::new_in(scratch()).expect("a directory").keep();
        let control = self.directory.path().join("tpm.ctrl");
        run(Command::new("swtpm_ioctl")
            .args(["-s", "--unix"])
            .arg(control));
        for file in std::fs::read_dir(self.directory.path().join("state")).expect("the state") {
            let file = file.expect("the state");
            std::fs::copy(file.path(), kept.join(file.file_name())).expect("the state");
        }
        kept
    }

    fn tool(&self, program: &str, arguments: &[&str]) {
        run(Command::new(program)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", self.address()));
    }

    /// The PIN is asked for with `--tpm2-with-pin=yes` only.
    fn enroll(&self, container: &Path, options: &[&str]) {
        run(Command::new("systemd-cryptenroll")
            .arg(format!("--tpm2-device={}", self.address()))
            .args(options)
            .arg(container)
            .env("PASSWORD", PASSPHRASE)
            .env("NEWPIN", "1234"));
    }
}

/// The state of a TPM that nobody has used yet.
pub fn new_tpm() -> PathBuf {
    Host::new().stop()
}

/// Encrypts with AES-256-XTS, as dm-crypt reads it: the tweak of a sector is its number in units of 512 bytes (plain64).
fn encrypt(key: &[u8; 64], data: &mut [u8], sector_size: usize) {
    let cipher = Aes256::new_from_slice(&key[..32]).expect("a key");
    let tweak = Aes256::new_from_slice(&key[32..]).expect("a key");
    let step = sector_size as u128 / 512;
    for (sector, number) in data.chunks_exact_mut(sector_size).zip(0_u128..) {
        let mut mask = Block::<Aes256>::default();
        mask.copy_from_slice(&(number * step).to_le_bytes());
        tweak.encrypt_block(&mut mask);
        let mut mask = u128::from_le_bytes(mask.as_slice().try_into().expect("a block"));
        for bytes in sector.chunks_exact_mut(16) {
            let block: &[u8; 16] = (&*bytes).try_into().expect("a block");
            let mut block: Block<Aes256> =
                (u128::from_le_bytes(*block) ^ mask).to_le_bytes().into();
            cipher.encrypt_block(&mut block);
            let block = u128::from_le_bytes(block.as_slice().try_into().expect("a block"));
            bytes.copy_from_slice(&(block ^ mask).to_le_bytes());
            mask = (mask << 1) ^ ((mask >> 127) * 0x87);
        }
    }
}

/// A container with the root of the set-up in it, and no TPM.
fn container(setup: &Setup, sector_size: usize) -> PathBuf {
    let key: [u8; 64] = std::array::from_fn(|at| at as u8 ^ 0xa5);
    let image = setup.image();
    let mut data = std::fs::read(&image).expect("the image");
    std::fs::remove_file(image).expect("the image");
    encrypt(&key, &mut data, sector_size);
    let path = blank((DATA + data.len() as u64).div_ceil(1 << 20));
    let [key_file, passphrase] = [&key[..], PASSPHRASE.as_bytes()].map(|content| {
        let file = tempfile::NamedTempFile::new_in(scratch()).expect("a file");
        std::fs::write(&file, content).expect("a file");
        file
    });
    run(Command::new("cryptsetup")
        .args(["luksFormat", "--batch-mode", "--type", "luks2"])
        .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
        .arg(format!("--sector-size={sector_size}"))
        .arg("--volume-key-file")
        .arg(key_file.path())
        .arg(&path)
        .arg(passphrase.path()));
    overwrite(&path, DATA, &data);
    path
}

/// Changes the set-up to a root in a container that is sealed to the TPM with these options of `systemd-cryptenroll`.
fn enrolled(setup: &mut Setup, options: &[&str]) {
    encrypted_in(setup, 4096, |host, container| {
        host.enroll(container, options);
    });
}

fn encrypted_in(setup: &mut Setup, sector_size: usize, enroll: impl FnOnce(&Host, &Path)) {
    encrypted_by(Host::start(), setup, sector_size, enroll);
}

/// The same by a TPM whose PCR 7 was extended with these digests, in hexadecimal.
pub fn sealed_to(setup: &mut Setup, digests: &[String]) {
    sealed_to_pcr(setup, 7, digests);
}

/// The same with another PCR.
pub fn sealed_to_pcr(setup: &mut Setup, pcr: u32, digests: &[String]) {
    encrypted_by(Host::new(), setup, 4096, |host, container| {
        for digest in digests {
            host.tool("tpm2_pcrextend", &[&format!("{pcr}:sha256={digest}")]);
        }
        host.enroll(container, &[&format!("--tpm2-pcrs={pcr}")]);
    });
}

fn encrypted_by(
    host: Host,
    setup: &mut Setup,
    sector_size: usize,
    enroll: impl FnOnce(&Host, &Path),
) {
    let path = container(setup, sector_size);
    enroll(&host, &path);
    setup.container = Some(path);
    setup.tpm = Tpm::Swtpm;
    setup.tpm_state = Some(host.stop());
    setup.configure("luks=yes");
}

fn sealed(setup: &mut Setup) {
    enrolled(setup, &["--tpm2-pcrs=7"]);
}

/// IMA measures and appraises on such a root as on any, and has extended PCR 10 before the TPM is asked.
#[test]
fn unlocked_beside_ima() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    sealed(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    assert_eq!(root_of(report).source, "/dev/dm-0");
    let line = "unlocked by the TPM with PCR 7 (sha256)";
    assert!(outcome.console_contains(line), "{}", console_tail(&outcome));
    let pcr10 = &report.pcr10["sha256"];
    assert!(pcr10.bytes().any(|digit| digit != b'0'), "{pcr10}");
}

/// The first copy of the header is damaged, and sectors have 512 bytes.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn second_copy_of_the_header() {
    let mut setup = Setup::new();
    encrypted_in(&mut setup, 512, |host, container| {
        host.enroll(container, &["--tpm2-pcrs=7"]);
        overwrite(container, 0x1000, &[0xff; 64]);
    });
    let outcome = setup.boot();
    assert_booted(&outcome);
    let line = "unlocked by the TPM with PCR 7 (sha256)";
    assert!(outcome.console_contains(line), "{}", console_tail(&outcome));
}

/// What is written goes to the writable layer, and IMA appraises both.
#[test]
fn unlocked_under_a_writable_layer() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    sealed(&mut setup);
    setup.configure("overlay=tmpfs");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let root = root_of(report);
    assert_eq!(root.fstype, "overlay", "{root:?}");
    assert!(root.options.iter().any(|have| have == "rw"), "{root:?}");
    assert_all_attempts_passed(report);
}

/// Two containers, sealed to the same TPM: that of the first is closed before the second is unlocked.
#[test]
fn second_slot_is_unlocked_if_the_first_is_refused() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    let good = container(&setup, 4096);
    setup.root.unsign(INIT);
    encrypted_in(&mut setup, 4096, |host, container| {
        for container in [container, &good] {
            host.enroll(container, &["--tpm2-pcrs=7"]);
        }
    });
    setup.more_disks.push(good);
    setup.root_name = None;
    setup.configure("slots=a b");
    setup.configure("root=/dev/vd{slot}");
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    let expected = ("b".to_owned(), vec!["a IMA-713".to_owned()]);
    assert_eq!(booted(report), expected);
    assert_all_attempts_passed(report);
}

/// Where the area of the keyslot is that `systemd-cryptenroll` adds to the one that `luksFormat` makes.
const SECOND_KEYSLOT: u64 = 0x8000 + 0x3f000;

const NOT_INSIDE: Check = Check::Silent("the header of a LUKS2 container is not read");
const NO_TPM: Check = Check::Silent("the TPM of the machine is not asked");

faults! {
    root_that_is_not_encrypted: "IMA-421", Reboot, NOT_INSIDE, |setup| {
        setup.configure("luks=yes");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    container_whose_headers_are_damaged: "IMA-421", Halt, NOT_INSIDE, |setup| {
        encrypted_in(setup, 512, |_, container| {
            overwrite(container, 0x1000, &[0xff; 64]);
            overwrite(container, 0x5000, &[0xff; 64]);
        });
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    container_without_a_token: "IMA-422", Reboot, NOT_INSIDE, |setup| {
        encrypted_in(setup, 512, |_, _| {});
    };
    token_that_demands_a_pin: "IMA-422", Poweroff, NOT_INSIDE, |setup| {
        enrolled(setup, &["--tpm2-pcrs=7", "--tpm2-with-pin=yes"]);
    };
    key_sealed_to_ima_s_pcr: "IMA-423", Poweroff, NOT_INSIDE, |setup| {
        enrolled(setup, &["--tpm2-pcrs=7+10"]);
    };
    encrypted_root_without_a_tpm: "IMA-424", Halt, NO_TPM, |setup| {
        sealed(setup);
        setup.tpm = Tpm::None;
    };
    key_sealed_to_another_pcr_7: "IMA-425", Reboot, NO_TPM, |setup| {
        encrypted_in(setup, 4096, |host, container| {
            host.tool("tpm2_pcrextend", &[&format!("7:sha256={SEPARATOR}")]);
            host.enroll(container, &["--tpm2-pcrs=7"]);
        });
    };
    key_sealed_by_another_tpm: "IMA-425", Panic, NO_TPM, |setup| {
        sealed(setup);
        setup.tpm_state = Some(Host::start().stop());
        setup.says = "the key was sealed by another TPM";
    };
    keyslot_that_is_damaged: "IMA-426", Poweroff, NOT_INSIDE, |setup| {
        encrypted_in(setup, 4096, |host, container| {
            host.enroll(container, &["--tpm2-pcrs=7"]);
            overwrite(container, SECOND_KEYSLOT, &[0xff; 4096]);
        });
    };
    kernel_without_dm_crypt: "IMA-427", Reboot, Check::Same, |setup| {
        sealed(setup);
        setup.append("initcall_blacklist=dm_crypt_init");
    };
    encrypted_root_that_another_initramfs_mounts: "IMA-428", Halt, Check::Same, |setup| {
        setup.configure("luks=yes");
        crate::front::fronted(setup, &crate::front::like_initramfs_tools());
    };
}
