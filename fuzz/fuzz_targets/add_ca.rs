//! A kernel, vmlinux, bzImage or zImage, with any bytes in any places: certificates put into it, and those in it listed.
#![no_main]

use std::io::Write as _;
use std::process::Command;
use std::sync::LazyLock;

use imactl::kernel::add_ca::{add_ca, authorities};

static IMAGES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let source = ".data\n.type system_extra_cert, @object\n.size system_extra_cert, 512\n.fill 100, 1, 0\n\
                  system_extra_cert:\n.fill 512, 1, 0\nsystem_extra_cert_used:\n.int 0\n.align 8\n\
                  system_certificate_list_size:\n.quad 100\n";
    std::fs::write(directory.path().join("a.s"), source).expect("a file");
    let made = Command::new("sh")
        .args(["-c", "as a.s -o a.o && ld --entry=0 a.o -o vmlinux"])
        .current_dir(directory.path())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "binutils are needed");
    let elf = std::fs::read(directory.path().join("vmlinux")).expect("the kernel");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&elf).expect("memory");
    let mut payload = gzip.finish().expect("memory");
    // The header and the table of arch/arm/boot/compressed/head.S and vmlinux.lds.S; a kernel of Arm has no ELF headers there.
    let mut zimage = vec![0; 256];
    let end = zimage.len() + payload.len() - 4;
    let words = [
        (0x24, 0x016f_2818),
        (0x30, 0x0403_0201),
        (0x34, 0x4545_4545),
        (0x38, 0x80),
        (0x80, 6),
        (0x84, 0x5a53_4c4b),
        (0x88, end as u32),
    ];
    for (at, word) in words {
        zimage[at..at + 4].copy_from_slice(&u32::to_le_bytes(word));
    }
    zimage.extend(&payload);
    payload.extend((elf.len() as u32).to_le_bytes());
    // The setup header of Documentation/arch/x86/boot.rst, with one sector of set-up code.
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    [elf, image, zimage]
});

// The first byte chooses the image and whether it is cut off; then, over and over: two bytes of a place, one of a length, and
// that many bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let mut image = IMAGES[usize::from(choice & 3).min(2)].clone();
    while let [high, low, length, more @ ..] = rest {
        let place = (usize::from(*high) << 8 | usize::from(*low)) % image.len();
        let length = more.len().min(usize::from(*length)).min(image.len() - place);
        let (bytes, left) = more.split_at(length);
        image[place..place + length].copy_from_slice(bytes);
        rest = left;
    }
    if choice & 4 != 0 {
        image.truncate(usize::from(choice >> 3) << 7);
    }
    if let Ok(outcome) = add_ca(&image, &[], None) {
        assert_eq!(outcome.image.len(), image.len());
    }
    let _ = authorities(&image, None);
});
