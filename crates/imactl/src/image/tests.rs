use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use ima::hash::HashAlgorithm;
use ima::policy::Policy;

use super::*;
use crate::digest::DigestOf;
use crate::key::{FileKey, KeyKind};
use crate::select::FileSystem;
use crate::tree::Timestamp;
use crate::x509::Template;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// e2fsprogs' own checker, which changes nothing with -n and exits with 0 only if there is nothing to say.
fn fsck(image: &Path) {
    run("e2fsck", &["-fn", image.to_str().unwrap()]);
}

fn debugfs(image: &Path, request: &str) -> String {
    run("debugfs", &["-R", request, image.to_str().unwrap()])
}

fn identity() -> (Identity, ima::certificate::Certificate) {
    let key = FileKey::generate(KeyKind::P256).unwrap();
    let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
    (
        Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap(),
        certificate,
    )
}

fn build(builder: ImageBuilder) -> (tempfile::TempDir, std::path::PathBuf, Summary) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.img");
    let summary = builder.build(&path).unwrap();
    fsck(&path);
    (directory, path, summary)
}

fn xattr_of(image: &Path, path: &str, name: &str) -> Vec<u8> {
    let out = tempfile::NamedTempFile::new().unwrap();
    debugfs(
        image,
        &format!("ea_get -f {} {path} {name}", out.path().display()),
    );
    std::fs::read(out.path()).unwrap()
}

fn content_of(image: &Path, path: &str) -> Vec<u8> {
    let out = tempfile::NamedTempFile::new().unwrap();
    debugfs(image, &format!("dump {path} {}", out.path().display()));
    std::fs::read(out.path()).unwrap()
}

#[test]
fn an_empty_image() {
    let (_directory, image, summary) = build(ImageBuilder::default());
    assert_eq!(summary.signed, 0);
    assert!(debugfs(&image, "ls -p /").contains("lost+found"));
}

#[test]
fn every_kind_of_entry_is_kept() {
    let (identity, certificate) = identity();
    let long_target = "x/".repeat(100);
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let mut dated = Inode::new(Kind::File(Content::Bytes(Arc::from(&b"later"[..]))), 0o600);
    dated.mtime = Timestamp {
        seconds: 4_000_000_000,
        nanoseconds: 123_456_789,
    };
    let builder = ImageBuilder::default()
        .signed_file("usr/bin/program", 0o4755, b"program".to_vec(), &identity)
        .hard_link("bin/program", "usr/bin/program")
        .file("etc/passwd", 0o644, b"root:x:0:0".to_vec())
        .owner("etc/passwd", 100_000, 70_000)
        .xattr("etc/passwd", "security.capability", capability)
        .xattr("etc/passwd", "system.posix_acl_access", acl.clone())
        .xattr("etc/passwd", "user.note", b"a note".to_vec())
        .file("etc/many", 0o644, b"".to_vec())
        .xattr("etc/many", "user.large", vec![7; 3000])
        .xattr("etc/many", "security.ima", vec![3; 520])
        .symlink("short", "target")
        .symlink("long", &long_target)
        .entry("dev/null", Inode::new(Kind::CharacterDevice(1, 3), 0o666))
        .entry(
            "dev/large",
            Inode::new(Kind::BlockDevice(259, 70_000), 0o660),
        )
        .entry("run/pipe", Inode::new(Kind::Fifo, 0o600))
        .entry("run/socket", Inode::new(Kind::Socket, 0o600))
        .entry("dated", dated)
        .directory("tmp", 0o1777)
        .label("test root")
        .uuid([0x11; 16]);
    let (_directory, image, _) = build(builder);

    let signature = xattr_of(&image, "/usr/bin/program", "security.ima");
    let ima::signature::ImaXattr::Signature(signature) =
        ima::signature::ImaXattr::parse(&signature).unwrap()
    else {
        panic!()
    };
    let digest = HashAlgorithm::Sha256.digest(b"program").unwrap();
    assert_eq!(
        ima::verify::verify_signature(
            ima::verify::verify_digest,
            &certificate,
            &digest,
            &signature
        ),
        Ok(())
    );
    for (path, needles) in [
        ("/usr/bin/program", &["Mode:  04755", "Links: 2"][..]),
        ("/bin/program", &["Mode:  04755", "Links: 2"]),
        ("/etc/passwd", &["User: 100000", "Group: 70000", "Size: 10"]),
        ("/short", &["Type: symlink", "Fast link dest: \"target\""]),
        ("/long", &["Type: symlink", "Size: 200"]),
        ("/dev/null", &["Type: character special", "01:03"]),
        ("/dev/large", &["Type: block special", "259:70000"]),
        ("/run/pipe", &["Type: FIFO"]),
        ("/run/socket", &["Type: socket"]),
        ("/dated", &["mtime: 0xee6b2800:1d6f3455"]),
        ("/tmp", &["Mode:  01777", "Type: directory"]),
    ] {
        let shown = debugfs(&image, &format!("stat {path}"));
        for needle in needles {
            assert!(shown.contains(needle), "{path}: no `{needle}` in {shown}");
        }
    }
    assert_eq!(
        xattr_of(&image, "/etc/passwd", "security.capability"),
        capability
    );
    // debugfs gives 0 where there is no id; getfacl does not look at it.
    let without_ids: Vec<u8> = acl
        .iter()
        .map(|&byte| if byte == 255 { 0 } else { byte })
        .collect();
    assert_eq!(
        xattr_of(&image, "/etc/passwd", "system.posix_acl_access"),
        without_ids
    );
    assert_eq!(xattr_of(&image, "/etc/passwd", "user.note"), b"a note");
    assert_eq!(xattr_of(&image, "/etc/many", "user.large"), vec![7; 3000]);
    assert_eq!(xattr_of(&image, "/etc/many", "security.ima"), vec![3; 520]);
    assert_eq!(content_of(&image, "/etc/passwd"), b"root:x:0:0");
    let stats = debugfs(&image, "stats");
    assert!(
        stats.contains("test root") && stats.contains("11111111-1111-1111-1111-111111111111"),
        "{stats}"
    );
}

#[test]
fn contents_of_every_shape() {
    let noise: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    // Every other block is a hole: more extents than an inode or one block of the extent tree holds.
    let mut striped = vec![0; 4096 * 2000];
    for block in (0..2000).step_by(2) {
        striped[block * 4096] = 1;
    }
    let zeros = vec![0; 5_000_000];
    let mut tail = vec![0; 10_001];
    tail[10_000] = 9;
    let builder = ImageBuilder::default()
        .file("noise", 0o644, noise.clone())
        .file("striped", 0o644, striped.clone())
        .file("zeros", 0o644, zeros.clone())
        .file("tail", 0o644, tail.clone())
        .file("empty", 0o644, Vec::new())
        .file("block", 0o644, vec![5; 4096]);
    let (_directory, image, _) = build(builder);
    for (path, content) in [
        ("/noise", noise),
        ("/striped", striped),
        ("/zeros", zeros),
        ("/tail", tail),
        ("/empty", vec![]),
        ("/block", vec![5; 4096]),
    ] {
        assert!(content_of(&image, path) == content, "{path}");
    }
    assert!(debugfs(&image, "stat /zeros").contains("Blockcount: 0"));
}

#[test]
fn more_than_one_block_group_and_large_directories() {
    let mut tree = Tree::new();
    for number in 0..5000 {
        let content = Content::Bytes(Arc::from(format!("file {number}").into_bytes()));
        let name = format!("usr/share/a-directory-with-many-files/file-number-{number:08}");
        tree.insert(name.as_bytes(), Inode::new(Kind::File(content), 0o644))
            .unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    let file = std::fs::File::create(&large).unwrap();
    // 150 MiB of data are more than one group holds.
    let chunk: Vec<u8> = (0..1 << 20).map(|at: u32| (at >> 3) as u8 | 1).collect();
    for at in 0..150 {
        std::os::unix::fs::FileExt::write_all_at(&file, &chunk, at << 20).unwrap();
    }
    let sparse = directory.path().join("sparse");
    let file = std::fs::File::create(&sparse).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 4 << 30).unwrap();
    for (path, len) in [(&large, 150 << 20), (&sparse, (4 << 30) + 3)] {
        let content = Content::Host {
            path: path.clone(),
            len,
        };
        let name = path.file_name().unwrap().as_encoded_bytes();
        tree.insert(name, Inode::new(Kind::File(content), 0o644))
            .unwrap();
    }
    let (_image_directory, image, summary) = build(ImageBuilder::new(tree));
    assert!(summary.size < 250 << 20, "{summary:?}");
    let stat = debugfs(&image, "stat /sparse");
    assert!(
        stat.contains("Size: 4294967299") && stat.contains("(1048576)"),
        "{stat}"
    );
    assert_eq!(
        content_of(
            &image,
            "/usr/share/a-directory-with-many-files/file-number-00004999"
        ),
        b"file 4999"
    );
    let dumped = directory.path().join("dumped");
    debugfs(&image, &format!("dump /large {}", dumped.display()));
    run("cmp", &[large.to_str().unwrap(), dumped.to_str().unwrap()]);
}

#[test]
fn twice_the_same_bytes() {
    // RSA, because an ECDSA signature is another each time.
    let key = FileKey::generate(KeyKind::Rsa(2048)).unwrap();
    let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
    let identity = Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap();
    let source = tempfile::tempdir().unwrap();
    for number in 0..200 {
        std::fs::write(
            source.path().join(format!("file{number}")),
            vec![number as u8; number * 1000],
        )
        .unwrap();
    }
    let image = || {
        let tree = Tree::from_directory(source.path()).unwrap();
        let (_directory, path, summary) =
            build(ImageBuilder::new(tree).sign(Signing::All(identity.clone())));
        assert_eq!((summary.signed, summary.unsigned), (200, 0));
        std::fs::read(path).unwrap()
    };
    assert!(image() == image());
}

#[test]
fn a_small_image_takes_less_than_a_second() {
    let (identity, _) = identity();
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut builder = ImageBuilder::default().size(16 << 20);
    for number in 0..50 {
        builder = builder.signed_file(
            &format!("bin/program{number}"),
            0o755,
            vec![number; 100_000],
            &identity,
        );
    }
    builder.build(&directory.path().join("image")).unwrap();
    assert!(start.elapsed().as_secs_f64() < 1.0, "{:?}", start.elapsed());
    fsck(&directory.path().join("image"));
    assert_eq!(
        std::fs::metadata(directory.path().join("image"))
            .unwrap()
            .len(),
        16 << 20
    );
}

#[test]
fn what_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let noise = vec![1; 3 << 20];
    for (name, builder, code) in [
        (
            "too small",
            ImageBuilder::default()
                .file("a", 0o644, noise.clone())
                .size(2 << 20),
            Code::ImageTooSmall,
        ),
        (
            "much too small",
            ImageBuilder::default().size(4096),
            Code::ImageTooSmall,
        ),
        (
            "no room for the journal",
            ImageBuilder::default()
                .file("a", 0o644, vec![1; 5 << 20])
                .size(8 << 20),
            Code::ImageTooSmall,
        ),
        (
            "a long label",
            ImageBuilder::default().label("seventeen letters"),
            Code::Usage,
        ),
        (
            "a long name",
            ImageBuilder::default().file(&"n".repeat(256), 0o644, vec![]),
            Code::ImageContent,
        ),
        (
            "out of the tree",
            ImageBuilder::default().file("../a", 0o644, vec![]),
            Code::ImageContent,
        ),
        (
            "below a file",
            ImageBuilder::default()
                .file("a", 0o644, vec![])
                .file("a/b", 0o644, vec![]),
            Code::ImageContent,
        ),
        (
            "a link to nothing",
            ImageBuilder::default().hard_link("a", "b"),
            Code::ImageContent,
        ),
        (
            "a link too long",
            ImageBuilder::default().symlink("a", &"t".repeat(4096)),
            Code::ImageContent,
        ),
        (
            "attributes too large",
            ImageBuilder::default()
                .file("a", 0o644, vec![])
                .xattr("a", "user.a", vec![1; 5000]),
            Code::ImageContent,
        ),
        (
            "an attribute of no class",
            ImageBuilder::default()
                .file("a", 0o644, vec![])
                .xattr("a", "nonsense", vec![1]),
            Code::ImageContent,
        ),
        (
            "an attribute of nothing",
            ImageBuilder::default().xattr("a", "user.a", vec![1]),
            Code::ImageContent,
        ),
    ] {
        let fault = builder.build(&path).unwrap_err();
        assert_eq!(fault.code(), code, "{name}: {fault}");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "{name} left something"
        );
    }
    let fault = ImageBuilder::default()
        .build(Path::new("/nonexistent/image"))
        .unwrap_err();
    assert_eq!(fault.code(), Code::OutputUnwritable);
}

#[test]
fn only_what_the_policy_appraises_is_signed() {
    let (identity, _) = identity();
    let policy = Policy::parse(b"appraise func=BPRM_CHECK appraise_type=imasig\n").unwrap();
    let appraisal = Appraisal::new(policy, FileSystem::default());
    let builder = ImageBuilder::default()
        .file("bin/program", 0o755, b"#!/bin/sh".to_vec())
        .file("etc/text", 0o644, b"text".to_vec())
        .hard_link("etc/other", "etc/text")
        .sign(Signing::ForPolicy(identity, Box::new(appraisal)));
    let (_directory, image, summary) = build(builder);
    assert_eq!((summary.signed, summary.unsigned), (1, 1));
    assert!(!xattr_of(&image, "/bin/program", "security.ima").is_empty());
    assert!(!debugfs(&image, "ea_list /etc/text").contains("security.ima"));
}

#[test]
fn tar_archives_keep_everything() {
    let directory = tempfile::tempdir().unwrap();
    let script = "set -e; mkdir -p root/bin root/dev; cd root; echo program >bin/program; \
                  ln bin/program bin/link; ln -s bin/program soft; mkfifo pipe; chown 1000:1001 bin/program; chmod 4755 bin/program; \
                  setfattr -n security.ima -v 0x0301 bin/program; setfattr -n user.note -v text bin/program; \
                  mknod dev/null c 1 3; truncate -s 50M sparse; echo end >>sparse; touch -d @1234567890 bin/program; \
                  printf 'x' > \"$(printf 'not-utf8-\\377')\"; \
                  tar --xattrs --xattrs-include='*' --format=pax -S -cf ../plain.tar . ; \
                  tar --xattrs --xattrs-include='*' --format=pax -czf ../packed.tar.gz .; \
                  zstd -q ../plain.tar -o ../packed.tar.zst; xz -k ../plain.tar; tar --format=gnu -S -cf ../gnu.tar .";
    run(
        "sh",
        &[
            "-c",
            &format!("cd {}; {script}", directory.path().display()),
        ],
    );
    for (archive, xattrs) in [
        ("plain.tar", true),
        ("packed.tar.gz", true),
        ("packed.tar.zst", true),
        ("plain.tar.xz", true),
        ("gnu.tar", false),
    ] {
        let file = std::fs::File::open(directory.path().join(archive)).unwrap();
        let tree = Tree::from_tar(file).unwrap_or_else(|fault| panic!("{archive}: {fault}"));
        let program = tree.get(b"bin/program").unwrap();
        assert_eq!(
            (
                program.mode,
                program.uid,
                program.gid,
                program.mtime.seconds
            ),
            (0o4755, 1000, 1001, 1_234_567_890),
            "{archive}"
        );
        assert_eq!(
            program.xattrs.contains_key(&b"user.note"[..]),
            xattrs,
            "{archive}"
        );
        if xattrs {
            assert_eq!(program.xattrs[&b"security.ima"[..]], [3, 1], "{archive}");
        }
        assert!(tree.get(b"not-utf8-\xff").is_some(), "{archive}");
        let (_directory, image, _) = build(ImageBuilder::new(tree));
        assert!(
            debugfs(&image, "stat /bin/link").contains("Links: 2"),
            "{archive}"
        );
        assert!(
            debugfs(&image, "stat /dev/null").contains("01:03"),
            "{archive}"
        );
        assert!(debugfs(&image, "stat /pipe").contains("FIFO"), "{archive}");
        let sparse = content_of(&image, "/sparse");
        assert_eq!(
            (sparse.len(), sparse.ends_with(b"end\n")),
            (50 * (1 << 20) + 4, true),
            "{archive}"
        );
        assert!(
            std::fs::metadata(&image).unwrap().len() < 20 << 20,
            "{archive}"
        );
    }
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"no archive"),
        ("cut", &[0x1f, 0x8b, 8]),
    ] {
        assert_eq!(
            Tree::from_tar(bytes).unwrap_err().code(),
            Code::SourceMalformed,
            "{name}"
        );
    }
    let whole = std::fs::read(directory.path().join("plain.tar")).unwrap();
    assert_eq!(
        Tree::from_tar(&whole[..1100]).unwrap_err().code(),
        Code::SourceMalformed
    );
}

#[test]
fn squashfs_and_tar_hold_the_same() {
    let (identity, certificate) = identity();
    let signature = identity.sign(b"program").unwrap();
    let long = format!("usr/share/{}/file", "long".repeat(40));
    let builder = || {
        let mut dated = Inode::new(Kind::File(Content::Bytes(Arc::from(&b"dated"[..]))), 0o600);
        dated.mtime = Timestamp {
            seconds: 1_234_567_890,
            nanoseconds: 5,
        };
        ImageBuilder::default()
            .file_with_ima(
                "bin/program",
                0o4755,
                b"program".to_vec(),
                signature.clone(),
            )
            .hard_link("bin/zlink", "bin/program")
            .file(&long, 0o644, vec![7; 100_000])
            .owner(&long, 100_000, 3_000_000)
            .xattr(&long, "user.note", vec![0, 1, 2, 10, 61, 255])
            .symlink("link", &"target/".repeat(20))
            .entry("dev/null", Inode::new(Kind::CharacterDevice(1, 3), 0o666))
            .entry("pipe", Inode::new(Kind::Fifo, 0o600))
            .entry("dated", dated)
            .file("empty", 0o644, vec![])
    };
    let directory = tempfile::tempdir().unwrap();
    let build = |format, name: &str| {
        let path = directory.path().join(name);
        builder().format(format).build(&path).unwrap();
        path
    };
    let tar = build(Format::Tar, "a.tar");
    assert!(std::fs::read(&tar).unwrap() == std::fs::read(build(Format::Tar, "b.tar")).unwrap());
    let squashfs = build(Format::Squashfs, "a.squashfs");
    // The time of the newest file, not the present one.
    let root = run("unsquashfs", &["-lln", squashfs.to_str().unwrap()]);
    let root = root.lines().find(|line| line.ends_with("squashfs-root"));
    assert!(
        root.is_some_and(|root| root.starts_with("drwxr-xr-x 0/0") && root.contains("2009-02-1")),
        "{root:?}"
    );
    assert!(
        std::fs::read(&squashfs).unwrap()
            == std::fs::read(build(Format::Squashfs, "b.squashfs")).unwrap()
    );
    // Back again by GNU tar, by unsquashfs and by our own reader.
    let unpack = |command: &str, to: &str| {
        run(
            "sh",
            &[
                "-c",
                &format!(
                    "cd {} && mkdir {to} && {command}",
                    directory.path().display()
                ),
            ],
        );
        Tree::from_directory(&directory.path().join(to)).unwrap()
    };
    let own = Tree::from_tar(std::fs::File::open(&tar).unwrap()).unwrap();
    let gnu = unpack("tar --xattrs --xattrs-include='*' -C gnu -xpf a.tar", "gnu");
    let unsquashed = unpack("unsquashfs -q -n -f -d sq a.squashfs", "sq");
    for (name, tree) in [("own", own), ("gnu", gnu), ("squashfs", unsquashed)] {
        let program = tree.get(b"bin/program").unwrap();
        assert_eq!((program.mode, program.uid), (0o4755, 0), "{name}");
        let value = &program.xattrs[SECURITY_IMA.as_bytes()];
        let ima::signature::ImaXattr::Signature(signature) =
            ima::signature::ImaXattr::parse(value).unwrap()
        else {
            panic!("{name}")
        };
        let digest = HashAlgorithm::Sha256.digest(b"program").unwrap();
        assert_eq!(
            ima::verify::verify_signature(
                ima::verify::verify_digest,
                &certificate,
                &digest,
                &signature
            ),
            Ok(()),
            "{name}"
        );
        let file = tree.get(long.as_bytes()).unwrap();
        assert_eq!((file.uid, file.gid), (100_000, 3_000_000), "{name}");
        assert_eq!(
            file.xattrs[&b"user.note"[..]],
            [0, 1, 2, 10, 61, 255],
            "{name}"
        );
        let mut content = Vec::new();
        let Kind::File(file) = &file.kind else {
            panic!("{name}")
        };
        file.read(&mut |piece| {
            if let Piece::Data(data) = piece {
                content.extend_from_slice(data);
            }
            Ok(())
        })
        .unwrap();
        assert!(content == vec![7; 100_000], "{name}");
        assert!(
            matches!(&tree.get(b"link").unwrap().kind, Kind::Symlink(target) if target.len() == 140),
            "{name}"
        );
        assert!(
            matches!(
                tree.get(b"dev/null").unwrap().kind,
                Kind::CharacterDevice(1, 3)
            ),
            "{name}"
        );
        assert!(
            matches!(tree.get(b"pipe").unwrap().kind, Kind::Fifo),
            "{name}"
        );
        assert_eq!(
            tree.get(b"dated").unwrap().mtime.seconds,
            1_234_567_890,
            "{name}"
        );
        let links: Vec<_> = tree
            .names()
            .filter(|(path, _)| path.starts_with(b"bin/"))
            .map(|(_, index)| index)
            .collect();
        assert!(links.len() == 2 && links[0] == links[1], "{name}");
    }
    let fault = ImageBuilder::default()
        .entry("socket", Inode::new(Kind::Socket, 0o600))
        .format(Format::Tar)
        .build(&directory.path().join("c.tar"))
        .unwrap_err();
    assert_eq!(fault.code(), Code::ImageContent);
    assert!(!directory.path().join("c.tar").exists());
}

/// Whether two trees are the same: names, properties, attributes, links, content.
pub(crate) fn assert_same(found: &Tree, expected: &Tree, what: &str) {
    let names = |tree: &Tree| -> Vec<String> {
        tree.names()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    };
    assert_eq!(names(found), names(expected), "{what}");
    let mut pairs = HashMap::new();
    for ((name, index), (_, other)) in found.names().zip(expected.names()) {
        let what = format!("{what}: /{}", String::from_utf8_lossy(name));
        assert_eq!(*pairs.entry(index).or_insert(other), other, "links: {what}");
        let (found, expected) = (found.inode(index), expected.inode(other));
        assert_eq!(found.mode, expected.mode, "{what}");
        assert_eq!(
            (found.uid, found.gid),
            (expected.uid, expected.gid),
            "{what}"
        );
        assert_eq!(found.mtime, expected.mtime, "{what}");
        assert_eq!(found.xattrs, expected.xattrs, "{what}");
        match (&found.kind, &expected.kind) {
            (Kind::File(found), Kind::File(expected)) => {
                assert_eq!(found.len(), expected.len(), "{what}");
                let limit = 128 << 20;
                assert!(
                    found.head(limit).unwrap() == expected.head(limit).unwrap(),
                    "{what}: other content"
                );
            }
            (found, expected) => {
                assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{what}");
            }
        }
    }
    assert_eq!(
        pairs.len(),
        pairs.values().collect::<BTreeSet<_>>().len(),
        "links: {what}"
    );
}

/// Something of everything that a root may hold: the sizes at which layouts change, many names, holes, all classes of
/// attributes that every format keeps.
fn something_of_everything() -> ImageBuilder {
    let mut builder = ImageBuilder::default()
        .file("usr/bin/program", 0o4755, vec![5; 100_000])
        .xattr("usr/bin/program", "security.ima", vec![3; 520])
        .xattr(
            "usr/bin/program",
            "security.capability",
            vec![1, 0, 0, 2, 0, 32],
        )
        .xattr("usr/bin/program", "trusted.overlay.opaque", b"y".to_vec())
        .hard_link("bin/program", "usr/bin/program")
        .owner("usr/bin/program", 100_000, 70_000)
        .file("empty", 0o640, b"".to_vec())
        .xattr("empty", "user.large", vec![7; 3000])
        .directory("private", 0o2750)
        .owner("private", 5, 6)
        .xattr("private", "user.of-a-directory", b"1".to_vec())
        .symlink("short", "target")
        .symlink("long", &"x/".repeat(100))
        .entry("dev/null", Inode::new(Kind::CharacterDevice(1, 3), 0o666))
        .entry(
            "dev/large",
            Inode::new(Kind::BlockDevice(259, 70_000), 0o600),
        )
        .entry("pipe", Inode::new(Kind::Fifo, 0o600));
    for size in [1, 511, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 70_001] {
        builder = builder.file(&format!("sizes/{size}"), 0o644, vec![b'a'; size]);
    }
    for number in 0..700 {
        builder = builder.file(
            &format!("many/{number}-{}", "n".repeat(number % 200)),
            0o600,
            b"".to_vec(),
        );
    }
    let mut sparse = vec![0; 5 << 20];
    sparse[1 << 20] = 1;
    *sparse.last_mut().unwrap() = 2;
    builder = builder
        .file("sparse", 0o600, sparse)
        .file("zeros", 0o600, vec![0; 10_000]);
    let mut dated = Inode::new(Kind::File(Content::Bytes(Arc::from(&b"dated"[..]))), 0o600);
    dated.mtime.seconds = 1_234_567_890;
    // mksquashfs gives the root directory of an archive the time of the newest file.
    let mut root = Inode::new(Kind::Directory, 0o751);
    root.mtime = dated.mtime;
    builder.entry("dated", dated).entry("", root)
}

#[test]
fn an_image_read_back_is_the_tree_it_was_made_of() {
    for (format, size) in [
        (Format::Ext4, Some(16 << 20)),
        (Format::Ext4, Some(64 << 20)),
        (Format::Erofs, None),
        (Format::Squashfs, None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let mut builder = something_of_everything().format(format);
        if let Some(size) = size {
            builder = builder.size(size);
        }
        let expected = builder.tree.clone();
        builder.build(&image).unwrap();
        let read = read(&image).unwrap();
        let kind = read.superblocks.as_ref().unwrap()[0].kind.name();
        assert_eq!(kind, format!("{format:?}").to_lowercase());
        assert_same(&read.tree, &expected, kind);
        // And into every other kind, from there.
        for (format, name) in [
            (Format::Ext4, "ext4"),
            (Format::Erofs, "erofs"),
            (Format::Squashfs, "squashfs"),
            (Format::Tar, "tar"),
        ] {
            let other = directory.path().join(name);
            ImageBuilder::new(read.tree.clone())
                .format(format)
                .build(&other)
                .unwrap();
            let again = super::read(&other).unwrap();
            assert_same(&again.tree, &expected, &format!("{kind} to {name}"));
        }
        fsck(&directory.path().join("ext4"));
        run(
            "fsck.erofs",
            &[directory.path().join("erofs").to_str().unwrap()],
        );
    }
}

#[test]
fn acls_and_fine_times_are_kept_where_the_format_has_them() {
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    for (name, seconds) in [
        ("old", -1_000_000),
        ("now", 1_800_000_000),
        ("new", 4_000_000_000),
    ] {
        let mut inode = Inode::new(Kind::File(Content::Bytes(Arc::from(&b"text"[..]))), 0o640);
        inode.mtime = Timestamp {
            seconds,
            nanoseconds: 123_456_789,
        };
        inode
            .xattrs
            .insert(b"system.posix_acl_access".to_vec(), acl.clone());
        tree.insert(name.as_bytes(), inode).unwrap();
    }
    for format in [Format::Ext4, Format::Erofs, Format::Tar] {
        let image = directory.path().join("image");
        // An archive as this program writes it has no times before 1970.
        let mut expected = tree.clone();
        if format == Format::Tar {
            expected.get_mut(b"old").unwrap().mtime.seconds = 0;
        }
        ImageBuilder::new(expected.clone())
            .format(format)
            .build(&image)
            .unwrap();
        assert_same(
            &read(&image).unwrap().tree,
            &expected,
            &format!("{format:?}"),
        );
    }
}

#[test]
fn erofs_images_are_the_same_each_time_and_pass_its_own_checker() {
    let directory = tempfile::tempdir().unwrap();
    let build = |name: &str| {
        let path = directory.path().join(name);
        something_of_everything()
            .format(Format::Erofs)
            .label("root")
            .uuid([7; 16])
            .entry("socket", Inode::new(Kind::Socket, 0o600))
            .xattr("empty", "system.posix_acl_access", vec![2, 0, 0, 0])
            .build(&path)
            .unwrap();
        path
    };
    let image = build("a");
    assert!(std::fs::read(&image).unwrap() == std::fs::read(build("b")).unwrap());
    let found = &read(&image).unwrap().superblocks.unwrap()[0];
    assert_eq!(found.label.as_deref(), Some("root"));
    assert_eq!(
        found.uuid.as_deref(),
        Some("07070707-0707-0707-0707-070707070707")
    );
    // It reads every file, and takes them out.
    let out = directory.path().join("out");
    run(
        "fsck.erofs",
        &[
            &format!("--extract={}", out.display()),
            image.to_str().unwrap(),
        ],
    );
    assert_eq!(std::fs::read(out.join("sizes/4033")).unwrap(), [b'a'; 4033]);
    // Its holes take no room: nearly all of the 5 MiB are.
    let size = std::fs::metadata(&image).unwrap().len();
    assert!(size < 1 << 20, "{size}");
}

#[test]
fn what_erofs_does_not_keep_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    for (what, builder) in [
        (
            "a class",
            ImageBuilder::default()
                .file("a", 0o644, vec![])
                .xattr("a", "system.nfs4_acl", vec![1]),
        ),
        (
            "a value",
            ImageBuilder::default()
                .file("a", 0o644, vec![])
                .xattr("a", "user.a", vec![1; 65_536]),
        ),
        (
            "a target",
            ImageBuilder::default().symlink("a", &"t".repeat(4096)),
        ),
    ] {
        let fault = builder.format(Format::Erofs).build(&path).unwrap_err();
        assert_eq!(fault.code(), Code::ImageContent, "{what}");
        assert!(!path.exists(), "{what}");
    }
}

#[test]
fn compressed_images_of_other_tools_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    let content: Vec<u8> = (0..300_000_u32)
        .flat_map(|number| (number / 7).to_le_bytes())
        .collect();
    std::fs::write(root.join("usr/bin/program"), &content).unwrap();
    std::os::unix::fs::symlink("usr/bin/program", root.join("link")).unwrap();
    let image = directory.path().join("image");
    let (root, path) = (root.to_str().unwrap(), image.to_str().unwrap());
    // squashfs has whole seconds only.
    let touch = format!("find {root} -depth -exec touch -h -d @1234567890 {{}} +");
    run("sh", &["-c", &touch]);
    let expected = Tree::from_directory(root.as_ref()).unwrap();
    for (program, arguments) in [
        ("mkfs.erofs", vec!["-zlz4hc", path, root]),
        ("mkfs.erofs", vec!["-zlz4", "-C65536", path, root]),
        ("mkfs.erofs", vec!["--chunksize=4096", path, root]),
        ("mksquashfs", vec![root, path, "-comp", "gzip", "-quiet"]),
        ("mksquashfs", vec![root, path, "-comp", "xz", "-quiet"]),
        ("mksquashfs", vec![root, path, "-comp", "zstd", "-quiet"]),
        ("mksquashfs", vec![root, path, "-comp", "lz4", "-quiet"]),
        // Those the program reads.
        ("mksquashfs", vec![root, path, "-comp", "lzo", "-quiet"]),
        ("mksquashfs", vec![root, path, "-comp", "lzma", "-quiet"]),
        (
            "mksquashfs",
            vec![root, path, "-comp", "xz", "-Xbcj", "x86", "-quiet"],
        ),
        ("mksquashfs", vec![root, path, "-b", "4096", "-quiet"]),
        (
            "mksquashfs",
            vec![root, path, "-no-fragments", "-noI", "-noD", "-quiet"],
        ),
    ] {
        run(program, &arguments);
        let read = read(&image).unwrap();
        assert_same(&read.tree, &expected, &format!("{program} {arguments:?}"));
        std::fs::remove_file(&image).unwrap();
    }
}

/// Makes the root that the tests of reading squashfs and erofs have images of.
fn varied(root: &Path) {
    std::fs::create_dir_all(root.join("many")).unwrap();
    std::fs::create_dir_all(root.join("deep/er/still")).unwrap();
    for number in 0..2000 {
        // Long names and an odd number of bytes: lists of entries and inodes lie over the ends of blocks.
        let name = format!("many/{number}-{}", "n".repeat(number % 200));
        std::fs::write(root.join(name), vec![number as u8; number % 3000]).unwrap();
    }
    let noise: Vec<u8> = (0..40_000_u32)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    // Blocks of data, holes between them, and an end that lies in a fragment.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for at in [0, 1 << 20, (5 << 20) + 4096] {
        sparse.write_all_at(&noise, at).unwrap();
    }
    sparse.set_len((9 << 20) + 77).unwrap();
    // More blocks than one block of metadata has lengths of.
    std::fs::write(root.join("long"), noise.repeat(100)).unwrap();
    std::fs::write(root.join("empty"), b"").unwrap();
    std::fs::hard_link(root.join("sparse"), root.join("deep/link")).unwrap();
    std::os::unix::fs::symlink("er/../still", root.join("deep/symlink")).unwrap();
    for (name, attribute, value) in [
        ("sparse", "user.one", vec![7; 3000]),
        ("long", "user.one", vec![7; 3000]),
        ("long", "user.two", b"".to_vec()),
        ("deep", "user.three", b"three".to_vec()),
        ("empty", "user.one", vec![7; 3000]),
    ] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join(name), attribute, &value, flags).unwrap();
    }
    let touch = format!(
        "find {} -depth -exec touch -h -d @1234567890 {{}} +",
        root.display()
    );
    run("sh", &["-c", &touch]);
}

#[test]
fn every_shape_of_file_is_read_from_squashfs_and_erofs() {
    let directory = tempfile::tempdir().unwrap();
    let (root, image) = (
        directory.path().join("root"),
        directory.path().join("image"),
    );
    varied(&root);
    let expected = Tree::from_directory(&root).unwrap();
    let (root, path) = (root.to_str().unwrap(), image.to_str().unwrap());
    let mut commands: Vec<Vec<&str>> = ["gzip", "xz", "zstd", "lz4"]
        .map(|compressor| vec!["mksquashfs", root, path, "-quiet", "-comp", compressor])
        .to_vec();
    commands.push(vec!["mksquashfs", root, path, "-quiet", "-b", "4096"]);
    commands.push(vec![
        "mksquashfs",
        root,
        path,
        "-quiet",
        "-b",
        "1M",
        "-noI",
        "-noX",
    ]);
    commands.push(vec!["mkfs.erofs", "--quiet", path, root]);
    commands.push(vec!["mkfs.erofs", "--quiet", "-zlz4", path, root]);
    commands.push(vec![
        "mkfs.erofs",
        "--quiet",
        "--chunksize=4096",
        path,
        root,
    ]);
    commands.push(vec![
        "mkfs.erofs",
        "--quiet",
        "--chunksize=1048576",
        path,
        root,
    ]);
    for command in commands {
        run(command[0], &command[1..]);
        let read = read(&image).unwrap();
        assert_same(&read.tree, &expected, &format!("{command:?}"));
        // From the first byte to the last, holes as holes.
        for (name, index) in read.tree.names() {
            let (found, expected) = (read.tree.inode(index), expected.get(name).unwrap());
            if let (Kind::File(found), Kind::File(expected)) = (&found.kind, &expected.kind) {
                let digest = |content: &Content| {
                    content
                        .digest(DigestOf::Content, HashAlgorithm::Sha256)
                        .unwrap()
                };
                assert_eq!(digest(found), digest(expected), "{command:?} {name:?}");
            }
        }
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn damaged_images_are_refused_and_never_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    // Not to be compressed to nothing.
    let noise: Vec<u8> = (0..40_u8)
        .flat_map(|number| Sha256::digest([number]).to_vec())
        .collect();
    for format in [Format::Ext4, Format::Erofs, Format::Squashfs] {
        ImageBuilder::default()
            .file("usr/bin/program", 0o755, noise.repeat(8))
            .xattr("usr/bin/program", "security.ima", vec![3; 520])
            .symlink("link", "usr")
            .format(format)
            .build(&path)
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in (96..whole.len().min(8192)).step_by(16) {
            let mut bytes = whole.clone();
            bytes[at..at + 16].fill(0xff);
            std::fs::write(&path, &bytes).unwrap();
            // What comes of it is a tree or a fault, and comes soon.
            if let Err(fault) = read(&path) {
                assert_eq!(fault.code(), Code::SourceMalformed, "{format:?} {at}");
                refused += 1;
            }
        }
        assert!(refused > 5, "{format:?}: {refused}");
        std::fs::write(&path, &whole[..whole.len() / 5]).unwrap();
        let fault = read(&path).unwrap_err();
        assert_eq!(fault.code(), Code::SourceMalformed, "{format:?}");
    }
}

#[test]
fn what_is_no_image_is_not_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for content in [&b""[..], &[0; 4096]] {
        std::io::Write::write_all(&mut file, content).unwrap();
        assert_eq!(
            read_ext4(file.path()).unwrap_err().code(),
            Code::SourceMalformed
        );
    }
}

#[test]
fn layers_of_an_overlay_make_no_composefs() {
    let directory = tempfile::tempdir().unwrap();
    let whiteout = Inode::new(Kind::CharacterDevice(0, 0), 0o600);
    for builder in [
        ImageBuilder::default().entry("gone", whiteout),
        ImageBuilder::default()
            .directory("a", 0o755)
            .xattr("a", "trusted.overlay.redirect", b"/b"),
        ImageBuilder::default().file("a", 0o755, vec![1]).xattr(
            "a",
            "trusted.overlay.metacopy",
            b"",
        ),
    ] {
        let builder = builder.format(Format::Erofs);
        let image = directory.path().join("root.cfs");
        let built = builder.objects(directory.path().join("o")).build(&image);
        assert_eq!(built.unwrap_err().code(), Code::ImageContent);
        assert!(!image.exists());
    }
}

/// A block of ext4 holds no signature of ML-DSA-87, and no two of ML-DSA-65; all else holds what the kernel takes.
#[test]
fn signatures_of_ml_dsa_where_there_is_room() {
    use crate::verify::{Verdict, VerifyOptions, verify_tree};
    use ima::certificate::MlDsa;
    for (set, format, evm, fits) in [
        (MlDsa::MlDsa44, Format::Ext4, false, true),
        (MlDsa::MlDsa65, Format::Ext4, false, true),
        (MlDsa::MlDsa65, Format::Ext4, true, false),
        (MlDsa::MlDsa87, Format::Ext4, false, false),
        (MlDsa::MlDsa87, Format::Erofs, true, true),
        (MlDsa::MlDsa87, Format::Squashfs, true, true),
        (MlDsa::MlDsa87, Format::Tar, true, true),
    ] {
        let key = FileKey::generate(KeyKind::MlDsa(set)).unwrap();
        let certificate = Template::leaf("test").sign(&key, None, None).unwrap();
        let identity = Identity::new(Arc::new(key), &certificate, HashAlgorithm::Sha256).unwrap();
        let mut builder = ImageBuilder::default()
            .file("usr/bin/program", 0o755, b"program".to_vec())
            .sign(Signing::All(identity.clone()))
            .format(format);
        if evm {
            builder = builder.evm(identity);
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("root");
        let built = builder.build(&image);
        if !fits {
            let fault = built.unwrap_err();
            assert_eq!(fault.code(), Code::ImageContent, "{set} {format:?}");
            assert!(fault.to_string().contains("erofs or squashfs"), "{fault}");
            continue;
        }
        built.unwrap();
        let tree = read(&image).unwrap().tree;
        let options = VerifyOptions {
            certificates: vec![certificate.clone()],
            evm: if evm { vec![certificate] } else { Vec::new() },
            appraisal: None,
            place: crate::sign::Place::Xattr,
            kernel: Some("7.2".parse().unwrap()),
        };
        let verdicts = verify_tree(&tree, &options, &|_| ());
        assert!(
            matches!(verdicts[..], [(b"usr/bin/program", Verdict::GoodV3(_))]),
            "{set} {format:?}: {verdicts:?}"
        );
    }
}
