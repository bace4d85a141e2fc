//! An image of a root, ext4 or erofs, with any bytes in any places, read with all its files.
#![no_main]

use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::LazyLock;

use imactl::image::{Format, ImageBuilder};
use imactl::tree::{Kind, Tree};

static IMAGES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [Format::Ext4, Format::Erofs].map(|format| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("image");
        ImageBuilder::new(Tree::new())
            .file("usr/bin/program", 0o755, vec![b'x'; 10_000])
            .file("etc/small", 0o644, "text")
            .symlink("bin", "usr/bin")
            .hard_link("usr/bin/again", "usr/bin/program")
            .xattr("usr/bin/program", "security.ima", vec![3; 300])
            .format(format)
            .build(&path)
            .expect("an image");
        std::fs::read(path).expect("the image")
    })
});

// The first byte chooses the image; then, over and over: three bytes of a place, one of a length, and that many bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let image = &IMAGES[usize::from(choice & 1)];
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("a file");
    while let [a, b, c, length, more @ ..] = rest {
        let place = (u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c)) % image.len() as u64;
        let (bytes, left) = more.split_at(more.len().min(usize::from(*length)));
        file.seek(SeekFrom::Start(place)).expect("a place");
        file.write_all(bytes).expect("a file");
        rest = left;
    }
    if let Ok(source) = imactl::image::read(file.path()) {
        for (_, index) in source.tree.names() {
            if let Kind::File(content) = &source.tree.inode(index).kind {
                // A file of holes may have any length.
                let _ = content.head(1 << 16);
            }
        }
    }
});
