//! An image of a root, ext4 (of imactl and of mke2fs), erofs or squashfs, with any bytes in any places, read with all its files.
#![no_main]

use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;
use std::sync::LazyLock;

use imactl::image::{Format, ImageBuilder};
use imactl::tree::{Kind, Tree};

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("image");
    let mut images = Vec::new();
    for format in [Format::Ext4, Format::Erofs, Format::Squashfs] {
        ImageBuilder::new(Tree::new())
            .file("usr/bin/program", 0o755, vec![b'x'; 10_000])
            .file("etc/small", 0o644, "text")
            .symlink("bin", "usr/bin")
            .hard_link("usr/bin/again", "usr/bin/program")
            .xattr("usr/bin/program", "security.ima", vec![3; 300])
            .format(format)
            .build(&path)
            .expect("an image");
        images.push(std::fs::read(&path).expect("the image"));
    }
    // Without checksums, so that what is changed reaches what is behind them.
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("usr/bin")).expect("a directory");
    std::fs::write(root.join("usr/bin/program"), vec![b'x'; 300_000]).expect("a file");
    std::fs::write(root.join("usr/small"), "text").expect("a file");
    for features in [
        "inline_data,ea_inode,large_dir",
        "extents,64bit",
        "meta_bg,^resize_inode",
    ] {
        let made = Command::new("/usr/sbin/mke2fs")
            .args([
                "-qF", "-t", "ext2", "-b", "1024", "-I", "256", "-O", features, "-d",
            ])
            .args([root.as_os_str(), path.as_os_str(), "1M".as_ref()])
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "mke2fs is needed"
        );
        images.push(std::fs::read(&path).expect("the image"));
        std::fs::remove_file(&path).expect("the image");
    }
    images
});

// The first byte chooses the image; then, over and over: three bytes of a place, one of a length, and that many bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let image = &IMAGES[usize::from(*choice) % IMAGES.len()];
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
