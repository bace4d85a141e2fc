//! The room for a CA in a kernel with `CONFIG_SYSTEM_EXTRA_CERTIFICATE`, into which `imactl kernel add-ca` writes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHF_ALLOC, SHT_NOBITS};
use elf::endian::LittleEndian;
use elf::file::Class;

use crate::Error;

type Elf<'a> = ElfBytes<'a, LittleEndian>;

/// Fill the room for a CA in a kernel with bytes that do not pack
///
/// A certificate that is written over them later leaves the rest of the room zero. So the payload of the bzImage or zImage packs smaller
/// than before, and fits into the place that it has in the image. The bytes are the same in each build.
#[derive(Debug, clap::Args)]
pub struct Fill {
    /// The kernel, an ELF file with symbols
    #[arg(long, value_name = "FILE")]
    vmlinux: PathBuf,
    /// The size of the room, in bytes
    #[arg(long, value_name = "BYTES")]
    size: usize,
}

/// Print where the room for a CA is, as JSON for imactl kernel add-ca --symbols
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// The kernel, an ELF file with symbols
    #[arg(long, value_name = "FILE")]
    vmlinux: PathBuf,
    /// The ELF file in the bzImage: the kernel without its symbols [default: the places are those in an Image, which has no headers
    /// of ELF, also that in a zImage]
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// The size of the room, in bytes
    #[arg(long, value_name = "BYTES")]
    size: usize,
}

/// The room itself (`certs/system_certificates.S`).
const ROOM: &str = "system_extra_cert";

/// What `imactl kernel add-ca` writes: the certificate, its size, and the size of the list of certificates.
const SYMBOLS: [&str; 3] = [
    ROOM,
    "system_extra_cert_used",
    "system_certificate_list_size",
];

/// Fills the room. Nothing is written if it is not whole in the file.
pub fn fill(options: &Fill) -> Result<ExitCode, Error> {
    let offset = with_elf(&options.vmlinux, |elf| {
        offset_of(elf, symbol_address(elf, ROOM)?, options.size)
    })?;
    let kernel = File::options().write(true).open(&options.vmlinux)?;
    kernel.write_all_at(&noise(options.size), offset)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints where the room is.
pub fn describe(options: &Describe) -> Result<ExitCode, Error> {
    print!("{}", description(options)?);
    Ok(ExitCode::SUCCESS)
}

fn description(options: &Describe) -> Result<String, Error> {
    let places = |place: &dyn Fn(u64, usize) -> Result<u64, Error>, addresses: &[u64]| {
        let mut text = "{\n".to_owned();
        for (symbol, address) in SYMBOLS.iter().zip(addresses) {
            let size = if *symbol == ROOM { options.size } else { 1 };
            let offset = place(*address, size)?;
            text.push_str(&format!("  \"{symbol}\": {offset},\n"));
        }
        text.push_str(&format!("  \"reserved\": {},\n", options.size));
        Ok(text)
    };
    with_elf(&options.vmlinux, |elf| {
        // How long an `unsigned long` is, and so the size of the list.
        let is_64_bit = elf.ehdr.class == Class::ELF64;
        let address = |symbol| symbol_address(elf, symbol);
        let addresses = SYMBOLS
            .map(address)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let text = match &options.payload {
            Some(payload) => with_elf(payload, |elf| {
                places(&|address, size| offset_of(elf, address, size), &addresses)
            }),
            None => {
                let start = lowest_address(elf)?;
                let place = |address: u64, size| {
                    // In the file too, not in what is only zeros in memory.
                    offset_of(elf, address, size)?;
                    Ok(address.saturating_sub(start))
                };
                places(&place, &addresses)
            }
        }?;
        Ok(format!("{text}  \"is_64_bit\": {is_64_bit}\n}}\n"))
    })
}

/// Returns the virtual address of what `objcopy -O binary` writes first.
fn lowest_address(elf: &Elf<'_>) -> Result<u64, Error> {
    let sections = elf.section_headers().ok_or("it has no sections")?;
    let written = sections.iter().filter(|section| {
        section.sh_flags & u64::from(SHF_ALLOC) != 0
            && section.sh_type != SHT_NOBITS
            && section.sh_size > 0
    });
    let lowest = written.map(|section| section.sh_addr).min();
    lowest.ok_or_else(|| "it has no section that is loaded".into())
}

/// Reads an ELF file. Errors name it.
fn with_elf<T>(path: &Path, read: impl FnOnce(&Elf<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let run = || {
        let bytes = fs::read(path)?;
        let elf = Elf::minimal_parse(&bytes).map_err(malformed)?;
        read(&elf)
    };
    run().map_err(|error: Error| format!("{}: {error}", path.display()).into())
}

fn malformed(error: elf::ParseError) -> Error {
    format!("not an ELF file of this machine's kind: {error}").into()
}

fn symbol_address(elf: &Elf<'_>, name: &str) -> Result<u64, Error> {
    if let Some((symbols, names)) = elf.symbol_table().map_err(malformed)? {
        for symbol in symbols.iter() {
            let at = usize::try_from(symbol.st_name)?;
            if names.get(at).map_err(malformed)? == name {
                return Ok(symbol.st_value);
            }
        }
    }
    Err(format!("it has no symbol {name}: is CONFIG_SYSTEM_EXTRA_CERTIFICATE set?").into())
}

/// Returns the offset in the file of so many bytes at a virtual address.
fn offset_of(elf: &Elf<'_>, address: u64, size: usize) -> Result<u64, Error> {
    let segments = elf.segments().ok_or("it has no segments")?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let Some(from) = address.checked_sub(segment.p_vaddr) else {
            continue;
        };
        let end = from.checked_add(size as u64);
        if end.is_some_and(|end| end <= segment.p_filesz) {
            let offset = segment.p_offset.checked_add(from);
            return offset.ok_or_else(|| "a segment ends beyond 2^64".into());
        }
    }
    Err(format!("no segment has the {size} bytes at {address:#x}").into())
}

/// Returns bytes that do not pack: the key stream of AES-128 in counter mode, key 1, counter 0.
fn noise(size: usize) -> Vec<u8> {
    let cipher = Aes128::new(&1_u128.to_be_bytes().into());
    let mut bytes: Vec<u8> = (0..size.div_ceil(16) as u128)
        .flat_map(|counter| {
            let mut block = counter.to_be_bytes().into();
            cipher.encrypt_block(&mut block);
            block
        })
        .collect();
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Makes a program with the symbols of a kernel, and one without symbols, as vmlinux and the payload of a bzImage.
    fn kernel(size: usize) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("kernel.s");
        let text = format!(
            ".data\n.ascii \"before\"\n.globl {0}\n{0}: .fill {size}, 1, 0x55\n.ascii \"after\"\n\
             .globl {1}\n{1}: .long 0x11111111\n.globl {2}\n{2}: .quad 0x2222222222222222\n\
             .bss\n.globl _start\n_start: .skip 64\n",
            SYMBOLS[0], SYMBOLS[1], SYMBOLS[2]
        );
        fs::write(&source, text).unwrap();
        let [vmlinux, payload] = ["vmlinux", "payload"].map(|name| directory.path().join(name));
        // At an address of a kernel, which is negative as a signed number.
        let link = [
            "-nostdlib",
            "-static",
            "-Wl,--build-id=none",
            "-Wl,-Tdata=0xffffffff82000123",
            "-o",
        ];
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new("gcc").args(link).arg(&vmlinux).arg(&source));
        run(Command::new("strip").arg("-o").arg(&payload).arg(&vmlinux));
        (directory, vmlinux, payload)
    }

    /// Returns the offset of the only place that has these bytes.
    fn place(file: &[u8], bytes: &[u8]) -> usize {
        let mut places = (0..file.len()).filter(|offset| file[*offset..].starts_with(bytes));
        let place = places.next().unwrap();
        assert_eq!(places.next(), None);
        place
    }

    /// The description of the room, whose places are found by the bytes that are there.
    fn expected(file: &[u8]) -> String {
        format!(
            "{{\n  \"system_extra_cert\": {},\n  \"system_extra_cert_used\": {},\n  \
             \"system_certificate_list_size\": {},\n  \"reserved\": 1000,\n  \"is_64_bit\": true\n}}\n",
            place(file, &[0x55; 1000]),
            place(file, b"after\x11\x11\x11\x11") + 5,
            place(file, &[0x22; 8]),
        )
    }

    #[test]
    fn the_room_is_filled_and_nothing_else_changes() {
        let (_directory, vmlinux, _) = kernel(1000);
        let mut expected = fs::read(&vmlinux).unwrap();
        let room = place(&expected, &[0x55; 1000]);
        expected[room..room + 1000].copy_from_slice(&noise(1000));
        fill(&Fill {
            vmlinux: vmlinux.clone(),
            size: 1000,
        })
        .unwrap();
        assert!(fs::read(&vmlinux).unwrap() == expected);
    }

    #[test]
    fn the_description_has_the_offsets_in_the_payload() {
        let (_directory, vmlinux, payload) = kernel(1000);
        let file = fs::read(&payload).unwrap();
        let size = 1000;
        let options = Describe {
            vmlinux,
            payload: Some(payload),
            size,
        };
        assert_eq!(description(&options).unwrap(), expected(&file));
    }

    #[test]
    fn without_a_payload_the_offsets_are_those_in_an_image_without_headers() {
        let (_directory, vmlinux, _) = kernel(1000);
        let image = vmlinux.with_file_name("Image");
        let mut objcopy = Command::new("objcopy");
        objcopy.args(["-O", "binary"]).args([&vmlinux, &image]);
        assert!(objcopy.status().unwrap().success());
        let file = fs::read(&image).unwrap();
        let options = Describe {
            vmlinux,
            payload: None,
            size: 1000,
        };
        assert_eq!(description(&options).unwrap(), expected(&file));
    }

    #[test]
    fn what_has_no_room_is_refused_and_stays() {
        let (_directory, vmlinux, payload) = kernel(1000);
        let before = fs::read(&vmlinux).unwrap();
        for (file, size, why) in [
            (&payload, 1000, "no symbol system_extra_cert"),
            (
                &vmlinux,
                1 << 20,
                "no segment has the 1048576 bytes at 0xffffffff82000129",
            ),
            (&vmlinux.with_file_name("kernel.s"), 1000, "kernel.s: "),
            (&vmlinux.with_file_name("none"), 1000, "No such file"),
        ] {
            let vmlinux = file.clone();
            let error = fill(&Fill { vmlinux, size }).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(fs::read(&vmlinux).unwrap() == before);
    }

    /// Other bytes make another kernel: then change `qemu/make/kernel` too, so that those in the cache are made again.
    #[test]
    fn the_noise_is_that_of_openssl() {
        let script = "head -c 1000 /dev/zero | openssl enc -aes-128-ctr -K 00000000000000000000000000000001 \
             -iv 00000000000000000000000000000000";
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        assert_eq!(output.stdout.len(), 1000);
        assert_eq!(noise(1000), output.stdout);
        assert_eq!(noise(7), output.stdout[..7]);
        assert_eq!(noise(0), []);
    }
}
