//! A stub or a signed unified kernel image with any bytes in any places: sections added to it, its parts and its signature read.
#![no_main]

use std::sync::LazyLock;

use ima::certificate::Certificate;
use imactl::key::{FileKey, KeyKind};
use imactl::uki::pe::{Image, NewSection, add_sections};
use imactl::uki::{Builder, UnifiedKernelImage, authenticode};
use imactl::x509::Template;

#[allow(dead_code)]
#[path = "../../crates/imactl/src/uki/testing.rs"]
mod testing;

/// A signed image, and the certificate of its key.
static SIGNED: LazyLock<(Vec<u8>, Certificate)> = LazyLock::new(|| {
    let key = FileKey::generate(KeyKind::Rsa(2048)).expect("a key");
    let certificate = Template::leaf("db")
        .sign(&key, None, None)
        .expect("a certificate");
    let image = Builder::new(testing::stub(), testing::kernel())
        .initramfs(b"initramfs")
        .command_line("root=/dev/vda ro")
        .build()
        .expect("an image");
    let image = authenticode::sign(&image, &key, &certificate).expect("a signature");
    (image, certificate)
});

// The first byte chooses the file and whether it is cut off; then, over and over: two bytes of a place, one of a length, and that
// many bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let (signed, certificate) = &*SIGNED;
    let mut image = if choice & 1 == 0 {
        testing::stub()
    } else {
        signed.clone()
    };
    while let [high, low, length, more @ ..] = rest {
        let place = (usize::from(*high) << 8 | usize::from(*low)) % image.len();
        let length = more
            .len()
            .min(usize::from(*length))
            .min(image.len() - place);
        let (bytes, left) = more.split_at(length);
        image[place..place + length].copy_from_slice(bytes);
        rest = left;
    }
    if choice & 2 != 0 {
        image.truncate(usize::from(choice >> 2) << 8);
    }
    let section = NewSection {
        name: ".x",
        content: b"content",
        size: 9,
        code: false,
    };
    if let Ok(made) = add_sections(&image, &[section]) {
        let made = Image::parse(&made).expect("what was made");
        let last = made.sections().last().expect("the section");
        assert!(last.name == ".x" && last.size == 9 && last.content.starts_with(b"content"));
    }
    let Ok(read) = Image::parse(&image) else {
        return;
    };
    let _ = UnifiedKernelImage::parse(&image);
    assert!(authenticode::verify(&read, &[]).is_err());
    if authenticode::verify(&read, std::slice::from_ref(certificate)).is_ok() {
        // All that the signature covers is as it was.
        let original = Image::parse(signed).expect("the image");
        assert_eq!(read.digest(), original.digest());
    }
});
