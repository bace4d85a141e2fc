use std::sync::Arc;

use ima::certificate::Certificate;
use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;

use super::*;
use crate::identity::Identity;
use crate::image::{Signing, read};
use crate::key::{FileKey, KeyKind};
use crate::select::Pattern;
use crate::tree::{Inode, Kind};
use crate::x509::Template;

fn run(script: &str, directory: &Path) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .env("PATH", path_with_sbin())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}{errors}");
    text
}

/// RSA, whose signatures are the same each time.
fn identity() -> (Identity, Certificate) {
    let key = FileKey::generate(KeyKind::Rsa(2048)).unwrap();
    let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
    (
        Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap(),
        certificate,
    )
}

fn tree() -> ImageBuilder {
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20] = 7;
    ImageBuilder::default()
        .file("usr/bin/program", 0o4755, b"program".to_vec())
        .hard_link("bin/program", "usr/bin/program")
        .owner("usr/bin/program", 1000, 70_000)
        .xattr(
            "usr/bin/program",
            "security.capability",
            vec![1, 0, 0, 2, 0, 32],
        )
        .xattr(
            "usr/bin/program",
            "security.selinux",
            b"system_u:object_r:bin_t:s0\0".to_vec(),
        )
        .file("with \"quotes\" and blanks", 0o644, b"quoted".to_vec())
        .file("skipped", 0o644, b"skipped".to_vec())
        .file("sparse", 0o600, sparse)
        .symlink("link", "usr")
        .entry("null", Inode::new(Kind::CharacterDevice(1, 3), 0o666))
}

fn is_good(value: Option<&Vec<u8>>, content: &[u8], certificate: &Certificate) -> bool {
    let Some(Ok(ImaXattr::Signature(signature))) = value.map(|value| ImaXattr::parse(value)) else {
        return false;
    };
    let digest = signature.algo.digest(content).unwrap();
    ima::verify::verify_signature(ima::verify::verify_digest, certificate, &digest, &signature)
        .is_ok()
}

/// Signs all but one, and looks whether nothing else has changed.
fn sign_and_compare(image: &Path) -> Vec<u8> {
    let (identity, certificate) = identity();
    let before = read(image).unwrap();
    let out = image.with_extension("signed");
    let sign = |out: &Path| {
        let prepare = |builder: ImageBuilder| {
            builder
                .sign(Signing::All(identity.clone()))
                .unsigned([Pattern::new("skipped")])
                .evm(identity.clone())
        };
        sign_image(image, out, prepare, &|| ()).unwrap()
    };
    let summary = sign(&out);
    assert_eq!((summary.signed, summary.unsigned), (3, 1));
    let mut after = read(&out).unwrap();
    assert_eq!(after.superblocks, before.superblocks);
    let program = after.tree.get(b"usr/bin/program").unwrap();
    let value = |inode: &Inode, name: &str| inode.xattrs.get(name.as_bytes()).cloned();
    assert!(is_good(
        value(program, SECURITY_IMA).as_ref(),
        b"program",
        &certificate
    ));
    assert!(value(program, SECURITY_EVM).is_some());
    let skipped = after.tree.get(b"skipped").unwrap();
    assert_eq!(value(skipped, SECURITY_IMA), None);
    let names: Vec<Vec<u8>> = after.tree.names().map(|(name, _)| name.to_vec()).collect();
    for name in &names {
        let inode = after.tree.get_mut(name).unwrap();
        inode.xattrs.remove(SECURITY_IMA.as_bytes());
        inode.xattrs.remove(SECURITY_EVM.as_bytes());
    }
    super::super::tests::assert_same(&after.tree, &before.tree, &out.display().to_string());
    // The same image and key give the same bytes, under another name and over itself.
    let bytes = std::fs::read(&out).unwrap();
    let again = image.with_extension("again");
    sign(&again);
    assert!(std::fs::read(&again).unwrap() == bytes);
    std::fs::copy(image, &again).unwrap();
    let prepare = |builder: ImageBuilder| {
        builder
            .sign(Signing::All(identity.clone()))
            .unsigned([Pattern::new("skipped")])
            .evm(identity.clone())
    };
    sign_image(&again, &again, prepare, &|| ()).unwrap();
    assert!(std::fs::read(&again).unwrap() == bytes);
    bytes
}

#[test]
fn squashfs_and_erofs_are_made_anew_with_the_same_in_them() {
    let directory = tempfile::tempdir().unwrap();
    for (format, name) in [(Format::Erofs, "erofs"), (Format::Squashfs, "squashfs")] {
        let image = directory.path().join(name);
        let builder = tree().format(format);
        let builder = if format == Format::Erofs {
            builder.label("root").uuid([5; 16])
        } else {
            builder
        };
        builder.build(&image).unwrap();
        sign_and_compare(&image);
    }
    // As it was compressed before.
    run(
        "sqfs2tar -r . squashfs | tar2sqfs -q -c zstd -b 65536 other",
        directory.path(),
    );
    let signed = sign_and_compare(&directory.path().join("other"));
    assert_eq!(
        (&signed[12..16], signed[20]),
        (&65_536_u32.to_le_bytes()[..], 6)
    );
}

#[test]
fn an_ext4_image_of_mke2fs_keeps_everything_else() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    // With checksums, 64-bit block numbers, hashed directories and a journal, as mke2fs makes it, filled by debugfs.
    tree()
        .format(Format::Tar)
        .build(&directory.path().join("tar"))
        .unwrap();
    run(
        "mkdir root; tar -C root --xattrs --xattrs-include='*' -xpf tar; \
         mke2fs -q -t ext4 -L label -d root image 40M; e2fsck -fn image",
        directory.path(),
    );
    let inodes = |name: &str| {
        let list = "debugfs -R 'ls -p /' {} && debugfs -R 'ls -p /usr/bin' {}".replace("{}", name);
        run(&list, directory.path())
    };
    assert!(inodes("image").contains("/program/"));
    let header = |name: &str| -> Vec<String> {
        run(&format!("dumpe2fs -h {name} 2>/dev/null"), directory.path())
            .lines()
            .filter(|line| !line.starts_with("Free blocks") && !line.starts_with("Checksum"))
            .map(str::to_owned)
            .collect()
    };
    sign_and_compare(&image);
    assert_eq!(header("image"), header("image.signed"));
    assert!(
        header("image")
            .iter()
            .any(|line| line.contains("metadata_csum"))
    );
    assert_eq!(inodes("image"), inodes("image.signed"));
}

#[test]
fn what_cannot_be_signed_is_said_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let (identity, _) = identity();
    let sign = |name: &str| {
        let path = directory.path().join(name);
        sign_image(
            &path,
            &directory.path().join("out"),
            |builder| builder.sign(Signing::All(identity.clone())),
            &|| (),
        )
        .unwrap_err()
    };
    // No free block, and no room in inodes of 128 bytes.
    run(
        "mkdir root; for n in 1 2 3 4 5 6 7 8; do echo $n >root/$n; done; \
         mke2fs -q -t ext4 -I 128 -O ^has_journal -m 0 -d root full 160K; \
         debugfs -R 'stats' full 2>/dev/null | sed -n 's/^Free blocks: *//p' >free; \
         head -c 16M /dev/zero | tr '\\0' x >filler; debugfs -w -R 'write filler filler' full 2>/dev/null || true; \
         e2fsck -fy full >/dev/null || true; e2fsck -fn full",
        directory.path(),
    );
    let fault = sign("full");
    assert_eq!(fault.code(), Code::ImageTooSmall, "{fault}");
    // Damaged before.
    run(
        "mke2fs -q -t ext4 damaged 8M; debugfs -w -R 'clri <2>' damaged 2>/dev/null",
        directory.path(),
    );
    let fault = sign("damaged");
    assert_eq!(fault.code(), Code::SourceMalformed, "{fault}");
    // No image.
    std::fs::write(directory.path().join("text"), "text").unwrap();
    assert_eq!(sign("text").code(), Code::SourceMalformed);
    assert_eq!(sign("absent").code(), Code::InputUnreadable);
    assert!(!directory.path().join("out").exists());
    let left = run("ls -A", directory.path());
    assert!(!left.contains(".imactl-"), "{left}");
}
