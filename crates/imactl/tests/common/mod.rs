//! What the tests of the commands share: running programs, and keys to run them with.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const IMACTL: &str = env!("CARGO_BIN_EXE_imactl");

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Ended with that fault and the exit status of an error.
    #[track_caller]
    pub fn refused(self, code: &str) -> Self {
        assert_eq!(self.code, 2, "{self:?}");
        assert!(self.err.contains(code), "not {code}: {self:?}");
        assert!(
            self.err.contains("cause: ") && self.err.contains("remedy: "),
            "{self:?}"
        );
        self
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program, which must be there, without a terminal and without the caller's password.
pub fn run<I, S>(program: &str, arguments: I, directory: &Path) -> Ended
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env_remove("EVMCTL_KEY_PASSWORD")
        .env_remove("SOURCE_DATE_EPOCH")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
    ended(output)
}

/// Runs imactl with arguments separated by blanks.
pub fn imactl(arguments: &str, directory: &Path) -> Ended {
    run(IMACTL, arguments.split_whitespace(), directory)
}

/// Runs a shell script, in which `$IMACTL` is the program.
pub fn shell(script: &str, directory: &Path) -> Ended {
    run(
        "sh",
        ["-euc", &format!("IMACTL={IMACTL}\n{script}")],
        directory,
    )
}

/// Runs a shell script as a user without privilege, with a copy of the program: where it was built may be closed to them.
pub fn shell_as_nobody(script: &str, directory: &Path) -> Ended {
    need_root();
    let open = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let program = open.path().join("imactl");
    std::fs::copy(IMACTL, &program).unwrap();
    let arguments = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-euc",
    ];
    let script = format!("IMACTL={}\n{script}", program.display());
    run(
        "setpriv",
        arguments.into_iter().chain([script.as_str()]),
        directory,
    )
}

/// Writing security.ima takes privilege, and a test that did not try has shown nothing.
#[track_caller]
pub fn need_root() {
    let uid = run("id", ["-u"], Path::new("/")).good().out;
    assert_eq!(
        uid.trim(),
        "0",
        "this test writes security.ima and must run as root"
    );
}

/// A directory everybody may enter, with unencrypted keys of that kind in it.
pub fn with_keys(kind: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    shell("chmod 755 .", directory.path()).good();
    imactl(
        &format!("keygen --out keys --unencrypted --type {kind} --ca-type p256"),
        directory.path(),
    )
    .good();
    directory
}

/// What is in a directory.
pub fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    names.sort();
    names
}

/// A measurement list of two entries of template ima-ng, and what PCR 10 holds after it.
pub struct MeasurementList {
    pub list: Vec<u8>,
    pub sha1: Vec<u8>,
    pub sha256: Vec<u8>,
    /// Of the SHA-256 bank where a kernel extends SHA-1 digests with zeros.
    pub padded: Vec<u8>,
}

/// Made by hand: `boot_aggregate`, the digest of ten PCRs as [`pcrs_with_10`] has them, and `/init`.
pub fn measurement_list() -> MeasurementList {
    use sha1::Digest as _;
    let mut made = MeasurementList {
        list: Vec::new(),
        sha1: vec![0; 20],
        sha256: vec![0; 32],
        padded: vec![0; 32],
    };
    let mut aggregate = sha2::Sha256::new();
    for number in 0..10 {
        aggregate.update([number; 32]);
    }
    for (name, content) in [
        ("boot_aggregate", aggregate.finalize().to_vec()),
        ("/init", vec![7; 32]),
    ] {
        let digest = [b"sha256:\0", &content[..]].concat();
        let mut data = Vec::new();
        for field in [digest, [name.as_bytes(), &[0]].concat()] {
            data.extend((field.len() as u32).to_le_bytes());
            data.extend(field);
        }
        let template = sha1::Sha1::digest(&data);
        let list = &mut made.list;
        list.extend(10_u32.to_le_bytes());
        list.extend(template);
        list.extend(6_u32.to_le_bytes());
        list.extend(b"ima-ng");
        list.extend((data.len() as u32).to_le_bytes());
        list.extend(&data);
        made.sha1 = sha1::Sha1::digest([&made.sha1[..], &template[..]].concat()).to_vec();
        let sha256 = sha2::Sha256::digest(&data);
        made.sha256 = sha2::Sha256::digest([&made.sha256[..], &sha256[..]].concat()).to_vec();
        let padded = [&made.padded[..], &template[..], &[0; 12]].concat();
        made.padded = sha2::Sha256::digest(padded).to_vec();
    }
    made
}

/// PCRs as the kernel prints those of a TPM 1.2: each holds its own number in every byte, PCR 10 `value`.
pub fn pcrs_with_10(value: &[u8]) -> String {
    (0..24)
        .map(|number| {
            let own = vec![number; value.len()];
            let bytes = if number == 10 { value } else { &own };
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("PCR-{number:02}: {}\n", bytes.join(" "))
        })
        .collect()
}
