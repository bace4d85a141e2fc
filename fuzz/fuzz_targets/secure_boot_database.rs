//! A list of what Secure Boot starts or refuses, of any bytes, and a signed image that is compared with it.
#![no_main]

use std::sync::LazyLock;

use imactl::key::{FileKey, KeyKind};
use imactl::uki::{Builder, Database, UnifiedKernelImage, authenticode};
use imactl::x509::Template;

#[allow(dead_code)]
#[path = "../../crates/imactl/src/uki/testing.rs"]
mod testing;

static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = FileKey::generate(KeyKind::Rsa(2048)).expect("a key");
    let certificate = Template::leaf("db")
        .sign(&key, None, None)
        .expect("a certificate");
    let image = Builder::new(testing::stub(), testing::kernel())
        .initramfs(b"initramfs")
        .command_line("root=/dev/vda ro")
        .build()
        .expect("an image");
    authenticode::sign(&image, &key, &certificate).expect("a signature")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(database) = Database::parse(data) else {
        return;
    };
    let image = UnifiedKernelImage::parse(&SIGNED).expect("the image");
    let _ = database.check_not_revoked(&image);
});
