//! How an initramfs is compressed, against running kernels: what imactl says that the kernel does not unpack must not start, and
//! all else must.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ima_testbed::Machine;
use imactl::initramfs::InitramfsBuilder;
use imactl::kernel::check::KernelConfig;

use crate::built::{Kernel, PROGRAMS, scratch};
use crate::setup::TIME_LIMIT;

/// The output of a program that is given the bytes.
fn through(command: &str, input: &[u8]) -> Vec<u8> {
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().expect("a program"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let mut writer = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let thread = std::thread::spawn(move || writer.write_all(&input));
    let output = child.wait_with_output().expect("the program");
    thread.join().expect("a thread").expect("its input");
    assert!(output.status.success(), "{command}");
    output.stdout
}

/// What keeps a kernel of that configuration from unpacking the initramfs, as imactl sees it.
fn refused(image: &[u8], kernel: &KernelConfig) -> Option<String> {
    let builder = match InitramfsBuilder::from_image(image) {
        Ok(builder) => builder,
        Err(fault) => return Some(fault.to_string()),
    };
    let lacking = builder
        .packings()
        .find(|packing| !kernel.is_builtin(packing.initramfs_option()))?;
    Some(format!("CONFIG_{} is not set", lacking.initramfs_option()))
}

/// Whether the kernel unpacks the initramfs and starts its init.
fn starts(image: &[u8]) -> bool {
    let (_, path) = tempfile::NamedTempFile::new_in(scratch())
        .and_then(|file| Ok(file.keep()?))
        .expect("an initramfs");
    std::fs::write(&path, image).expect("the initramfs");
    let outcome = Machine::new(Kernel::Full.without_ca())
        .initramfs(&path)
        .append("audit=0 quiet panic=-1")
        .time_limit(TIME_LIMIT)
        .start()
        .expect("the machine starts")
        .finish();
    std::fs::remove_file(&path).expect("the initramfs");
    outcome.console.contains("ima-testbed guest: ")
}

/// The kernel says that unpacking failed, and goes on with what it has; what stood behind the damage is missing, so imactl refuses it.
const STARTS_ANYWAY: &str = "gzip, and text behind";

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn initramfs_as_the_kernel_unpacks_it() {
    let archive = InitramfsBuilder::new()
        .file("init", 0o755, PROGRAMS.guest.clone())
        .unchecked()
        .build()
        .expect("an initramfs");
    let plain = match ima::cpio::entries(&archive).next() {
        Some(Ok(_)) => archive,
        _ => through("gzip -dc", &archive),
    };
    let (first, second) = plain.split_at(plain.len() / 2);
    // A small archive, as processors' microcode has.
    let other = InitramfsBuilder::new()
        .file(
            "kernel/x86/microcode/AuthenticAMD.bin",
            0o644,
            vec![7; 4096],
        )
        .unchecked()
        .build()
        .expect("an initramfs");
    let other = match ima::cpio::entries(&other).next() {
        Some(Ok(_)) => other,
        _ => through("gzip -dc", &other),
    };
    let packed = |command: &str| through(command, &plain);
    let images = [
        ("plain", plain.clone()),
        ("gzip", packed("gzip -c")),
        ("zstd", packed("zstd -qc")),
        ("zstd, 19, ultra", packed("zstd -qc -22 --ultra")),
        ("xz as the kernel wants it", packed("xz -c --check=crc32")),
        ("xz without a check", packed("xz -c --check=none")),
        ("xz with its own check", packed("xz -c --check=crc64")),
        ("xz with SHA-256", packed("xz -c --check=sha256")),
        ("lzma", packed("xz -c --format=lzma")),
        ("lz4 as the kernel wants it", packed("lz4 -qlc")),
        ("lz4 in its frames", packed("lz4 -qc")),
        ("bzip2", packed("bzip2 -c")),
        ("lzo", packed("lzop -c")),
        ("plain, then plain", [other.clone(), plain.clone()].concat()),
        (
            "plain, then zstd",
            [other.clone(), packed("zstd -qc")].concat(),
        ),
        (
            "gzip, then xz",
            [through("gzip -c", &other), packed("xz -c --check=crc32")].concat(),
        ),
        (
            "two streams of gzip",
            [through("gzip -c", first), through("gzip -c", second)].concat(),
        ),
        (
            "two frames of zstd",
            [through("zstd -qc", first), through("zstd -qc", second)].concat(),
        ),
        (
            "gzip, and zeros behind",
            [packed("gzip -c"), vec![0; 1024]].concat(),
        ),
        (
            STARTS_ANYWAY,
            [packed("gzip -c"), b"signed by nobody".to_vec()].concat(),
        ),
        ("half of a gzip", packed("gzip -c")[..20_000].to_vec()),
        ("half of an archive", first.to_vec()),
        ("text", b"#!/bin/sh\nexec /sbin/init\n".to_vec()),
    ];
    let kernel = Kernel::Full.configuration();
    let mut wrong = Vec::new();
    for (name, image) in images {
        let refused = refused(&image, &kernel);
        let starts = starts(&image);
        println!(
            "{name}: {}, {}",
            if starts { "starts" } else { "does not start" },
            refused.as_deref().unwrap_or("taken")
        );
        if starts == refused.is_some() && name != STARTS_ANYWAY {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join(", "));
}
