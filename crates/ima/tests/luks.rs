//! Containers that `cryptsetup` has made and `systemd-cryptenroll` has sealed to an emulated TPM, opened without a machine.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use ima::fault::{Cause, Code, Fault};
use ima::luks::{Container, VolumeKey};
use ima::tpm::{self, Parent, TpmError};
use proptest::prelude::*;
use tempfile::TempDir;

/// TPM2_PolicyPCR, as it stands in a command.
const POLICY_PCR: [u8; 4] = 0x17f_u32.to_be_bytes();

fn run(command: &mut Command) {
    let output = command.output().expect("the program");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// An emulated TPM, and a container.
struct Host(TempDir);

impl Host {
    fn start() -> Host {
        let host = Host(TempDir::new().expect("a directory"));
        let path = |name: &str| host.path(name).display().to_string();
        std::fs::create_dir(host.path("state")).expect("a directory");
        run(Command::new("swtpm")
            .args(["socket", "--tpm2", "--daemon"])
            .args(["--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &format!("dir={}", path("state"))])
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("tpm.ctrl"))]));
        std::fs::write(host.path("passphrase"), "passphrase").expect("a file");
        std::fs::write(host.path("key"), key()).expect("a file");
        let file = std::fs::File::create(host.path("container")).expect("a file");
        file.set_len(20 << 20).expect("a file");
        run(Command::new("cryptsetup")
            .args(["luksFormat", "--batch-mode", "--type", "luks2"])
            .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
            .arg("--volume-key-file")
            .arg(host.path("key"))
            .arg(host.path("container"))
            .arg(host.path("passphrase")));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn address(&self) -> String {
        format!("swtpm:path={}", self.path("tpm").display())
    }

    fn tool(&self, program: &str, arguments: &[&str]) {
        run(Command::new(program)
            .args(arguments)
            .current_dir(self.0.path())
            .env("TPM2TOOLS_TCTI", self.address()));
    }

    fn enroll(&self, options: &[&str]) {
        run(Command::new("systemd-cryptenroll")
            .arg(format!("--tpm2-device={}", self.address()))
            .args(options)
            .arg(self.path("container"))
            .env("PASSWORD", "passphrase")
            .env("NEWPIN", "1234"));
    }

    /// Transmits a command, again while the TPM has not begun with it (`TPM_RC_RETRY`), as the kernel does
    /// (drivers/char/tpm/tpm-interface.c, `tpm_transmit`).
    fn transmit(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            let response = self.transmit_once(command)?;
            if response.get(6..10) != Some(&[0, 0, 0x09, 0x22]) {
                return Ok(response);
            }
        }
    }

    fn transmit_once(&self, command: &[u8]) -> Result<Vec<u8>, String> {
        let transmit = || -> io::Result<Vec<u8>> {
            let mut stream = UnixStream::connect(self.path("tpm"))?;
            stream.write_all(command)?;
            let mut response = vec![0; tpm::MAX_RESPONSE];
            let length = stream.read(&mut response)?;
            response.truncate(length);
            Ok(response)
        };
        transmit().map_err(|error| error.to_string())
    }

    fn header(&self) -> Result<Container, Fault> {
        Container::read(&mut reader(&self.path("container")))
    }

    /// What the init does, with that transmission.
    fn open(
        &self,
        mut transmit: impl FnMut(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<VolumeKey, TpmError> {
        let container = self.header().expect("a header");
        let tokens = container.tokens().expect("a token");
        let secret = tpm::unseal(&tokens[0].sealed, &mut transmit)?;
        let mut read = reader(&self.path("container"));
        Ok(container
            .open(&tokens[0], &secret, &mut read)
            .expect("a key"))
    }

    fn extend(&self, pcr: u32) {
        self.tool(
            "tpm2_pcrextend",
            &[&format!("{pcr}:sha256={}", "5a".repeat(32))],
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("swtpm_ioctl")
            .args(["-s", "--unix"])
            .arg(self.path("tpm.ctrl"))
            .output();
    }
}

fn key() -> [u8; 64] {
    std::array::from_fn(|at| at as u8 ^ 0xa5)
}

fn reader(path: &Path) -> impl FnMut(u64, usize) -> io::Result<Vec<u8>> + use<> {
    let content = std::fs::read(path).expect("the container");
    move |offset, length| {
        let rest = content.get(offset as usize..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }
}

#[test]
fn the_volume_key_is_the_one_of_the_format() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs=0+7"]);
    let found = host.open(|command| host.transmit(command)).unwrap();
    assert_eq!(found.bytes(), key());
    let table = host.header().unwrap().table("8:1", 20 << 20, 64, "a:b");
    let arguments = "aes-xts-plain64 :64:logon:a:b 0 8:1 32768 1 sector_size:4096";
    assert_eq!(table.unwrap(), (8192, arguments.to_owned()));
}

#[test]
fn a_key_without_pcrs_is_unsealed() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs="]);
    let found = host.open(|command| host.transmit(command)).unwrap();
    assert_eq!(found.bytes(), key());
}

/// IMA extends PCR 10 between PolicyPCR and Unseal.
#[test]
fn a_pcr_that_is_extended_meanwhile_is_one_session_more() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs=7"]);
    let mut sessions = 0;
    let found = host.open(|command| {
        let response = host.transmit(command);
        if command[6..10] == POLICY_PCR {
            sessions += 1;
            if sessions <= 3 {
                host.extend(10);
            }
        }
        response
    });
    assert_eq!(found.unwrap().bytes(), key());
    assert_eq!(sessions, 4);
}

#[test]
fn a_pcr_that_never_rests_is_an_error_in_the_end() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs=7"]);
    let found = host.open(|command| match command[6..10] {
        // TPM_RC_PCR_CHANGED to every Unseal.
        [0, 0, 0x01, 0x5e] => Ok([&[0x80, 0x01, 0, 0, 0, 10][..], &[0, 0, 0x01, 0x28]].concat()),
        _ => host.transmit(command),
    });
    assert_eq!(found.unwrap_err().code(), Some(tpm::PCR_CHANGED));
}

#[test]
fn other_values_of_the_pcrs_are_a_failed_policy() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs=7"]);
    host.extend(7);
    let error = host.open(|command| host.transmit(command)).unwrap_err();
    assert!(error.is_of_policy(), "{error}");
}

#[test]
fn a_key_of_another_tpm_is_not_loaded() {
    let host = Host::start();
    host.enroll(&["--tpm2-pcrs=7"]);
    let other = Host::start();
    let error = host.open(|command| other.transmit(command)).unwrap_err();
    assert!(error.is_of_integrity(), "{error}");
}

/// As systemd writes tokens since version 254: under the persistent storage root key, whose handle the token has.
#[test]
fn a_storage_root_key_that_is_persistent() {
    let host = Host::start();
    let pairs = [
        ("tpm2_createprimary", "-C o -G ecc -c srk -Q"),
        ("tpm2_evictcontrol", "-C o -c srk 0x81000001 -Q"),
        ("tpm2_flushcontext", "-t"),
        ("tpm2_createpolicy", "--policy-pcr -l sha256:7 -L policy -Q"),
        (
            "tpm2_create",
            "-C 0x81000001 -L policy -i key -u public -r private -a fixedtpm|fixedparent -Q",
        ),
    ];
    for (program, arguments) in pairs {
        host.tool(program, &arguments.split(' ').collect::<Vec<_>>());
    }
    let [private, public] =
        ["private", "public"].map(|name| std::fs::read(host.path(name)).unwrap());
    host.enroll(&["--tpm2-pcrs=7"]);
    let mut sealed = host.header().unwrap().tokens().unwrap()[0].sealed.clone();
    sealed.parent = Parent::Persistent(0x8100_0001);
    (sealed.private, sealed.public) = (private, public);
    let secret = tpm::unseal(&sealed, &mut |command| host.transmit(command)).unwrap();
    assert_eq!(secret, key());
}

#[test]
fn tokens_that_the_init_cannot_use() {
    for (options, code, cause) in [
        (&["--tpm2-pcrs=7+10"][..], Code::LuksPcr10, None),
        (
            &["--tpm2-pcrs=7", "--tpm2-with-pin=yes"],
            Code::LuksToken,
            Some(Cause::LUKS_TOKEN_DEMANDS),
        ),
    ] {
        let host = Host::start();
        let none = host.header().unwrap().tokens().unwrap_err();
        assert_eq!(none.code(), Code::LuksToken);
        host.enroll(options);
        let fault = host.header().unwrap().tokens().unwrap_err();
        assert_eq!((fault.code(), fault.found()), (code, cause));
    }
}

/// A header with that JSON, as cryptsetup would write it.
fn header(json: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x4000];
    let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
    put(0, b"LUKS\xba\xbe\x00\x02");
    put(8, &0x4000_u64.to_be_bytes());
    put(72, b"sha256");
    put(168, b"01234567-89ab-cdef-0123-456789abcdef");
    put(4096, json.as_bytes());
    let digest = ima::hash::HashAlgorithm::Sha256.digest(&bytes).unwrap();
    bytes[448..][..32].copy_from_slice(&digest);
    bytes
}

fn parse(bytes: &[u8]) -> Result<Container, Fault> {
    Container::read(&mut |offset, length| {
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    })
}

const SEGMENT: &str = r#"{"type":"crypt","offset":"32768","size":"dynamic","iv_tweak":"0",
    "encryption":"aes-xts-plain64","sector_size":512}"#;

/// Somebody without any key would have an unencrypted file system mounted.
#[test]
fn no_cipher_but_one_is_taken() {
    let of = |segment: &str| parse(&header(&format!(r#"{{"segments":{{"0":{segment}}}}}"#)));
    let container = of(SEGMENT).unwrap();
    assert_eq!(
        container.mapped_uuid("root"),
        "CRYPT-LUKS2-0123456789abcdef0123456789abcdef-root"
    );
    for (from, to) in [
        ("aes-xts-plain64", "cipher_null-ecb"),
        ("aes-xts-plain64", "aes-xts-plain64 0"),
        ("\"crypt\"", "\"linear\""),
        ("512", "513"),
        ("\"32768\"", "\"32769\""),
        ("\"dynamic\"", "\"-512\""),
    ] {
        let fault = of(&SEGMENT.replace(from, to)).unwrap_err();
        assert_eq!(fault.code(), Code::LuksHeader, "{to}");
    }
    let both = format!(r#"{{"segments":{{"0":{SEGMENT},"1":{SEGMENT}}}}}"#);
    assert!(parse(&header(&both)).is_err());
    let demanding = format!(
        r#"{{"segments":{{"0":{SEGMENT}}},"config":{{"requirements":{{"mandatory":["online-reencrypt"]}}}}}}"#
    );
    assert!(parse(&header(&demanding)).is_err());
}

proptest! {
    /// The checksum covers every byte.
    #[test]
    fn a_header_that_is_changed_is_refused(at in 0_usize..0x4000, bit in 0_u8..8) {
        let mut bytes = header(&format!(r#"{{"segments":{{"0":{SEGMENT}}}}}"#));
        prop_assert!(parse(&bytes).is_ok());
        bytes[at] ^= 1 << bit;
        // Behind a shorter checksum's end the field is not looked at.
        prop_assume!(!(480..512).contains(&at));
        prop_assert_eq!(parse(&bytes).unwrap_err().code(), Code::LuksHeader);
    }

    #[test]
    fn a_device_is_never_mapped_behind_its_end(length in 0_u64..1 << 20) {
        let container = parse(&header(&format!(r#"{{"segments":{{"0":{SEGMENT}}}}}"#))).unwrap();
        if let Ok((sectors, _)) = container.table("8:1", length, 64, "a:b") {
            prop_assert!(32768 + sectors * 512 <= length);
        }
    }

    /// Whatever a TPM answers, there is an error or a secret that was in an answer.
    #[test]
    fn any_response_is_an_error_or_has_the_secret(
        responses in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
        is_framed: bool,
    ) {
        let sealed = tpm::Sealed {
            parent: Parent::Ecc,
            private: vec![0, 0],
            public: vec![0, 0],
            pcrs: tpm::Pcrs { bank: ima::bank::Bank::Sha256, mask: 1 << 7 },
        };
        let framed: Vec<Vec<u8>> = responses
            .into_iter()
            .map(|body| match is_framed {
                true => {
                    let length = u32::try_from(body.len() + 10).unwrap();
                    [&[0x80, 1][..], &length.to_be_bytes(), &[0; 4], &body].concat()
                }
                false => body,
            })
            .collect();
        let mut next = framed.iter().cycle();
        let result = tpm::unseal(&sealed, &mut |_| Ok(next.next().unwrap().clone()));
        if let Ok(secret) = result {
            prop_assert!(framed.iter().any(|it| it.windows(secret.len().max(1)).any(|part| part.starts_with(&secret))));
        }
    }
}
