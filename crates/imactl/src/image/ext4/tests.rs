//! Images of e2fsprogs, with every feature it knows, are read as what they were made of; damaged ones do no harm.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use ima::fault::Code;
use proptest::prelude::*;

use super::*;
use crate::image::tests::assert_same;
use crate::tree::{Content, Kind, Tree};

const TIME: &str = "1234567890";

/// The defaults of mke2fs, which distributions change.
static CONFIG: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = "[defaults]
        base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
        blocksize = 4096
        inode_size = 256
        inode_ratio = 16384
        [fs_types]
        ext3 = {
        features = has_journal
        }
        ext4 = {
        features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
        }
        small = {
        }
        ";
    std::fs::write(file.path(), config).unwrap();
    file
});

/// Runs one of e2fsprogs' programs; what it said comes back. Exit code 1 of e2fsck is: corrected.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .env("MKE2FS_CONFIG", CONFIG.path())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let corrected = program == "e2fsck" && output.status.code() == Some(1);
    assert!(
        output.status.success() || corrected,
        "{program} {arguments:?}: {text}"
    );
    text
}

/// Has debugfs do what the script says.
fn debugfs(directory: &Path, script: &str, image: &str) {
    let path = directory.join("script");
    std::fs::write(&path, script).unwrap();
    run("debugfs", &["-w", "-f", path.to_str().unwrap(), image]);
}

/// A directory with something of everything that needs no privilege.
fn source(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    for name in ["etc", "many", "small/er", "lost+found/kept"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::write(root.join("etc/small"), "a few bytes").unwrap();
    std::fs::write(root.join("etc/empty"), "").unwrap();
    std::fs::write(root.join("small/middle"), "x".repeat(100)).unwrap();
    let noise: Vec<u8> = (0..100_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(root.join("noise"), noise).unwrap();
    std::fs::set_permissions(root.join("noise"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::hard_link(root.join("noise"), root.join("etc/again")).unwrap();
    // More extents than an inode, or a block of 1 KiB, has room for; and all levels of block numbers.
    let striped = File::create(root.join("striped")).unwrap();
    for block in 0..300_u64 {
        striped.write_all_at(b"data", block * 131_072).unwrap();
    }
    for number in 0..300 {
        std::fs::write(root.join(format!("many/file-number-{number:04}")), b"1").unwrap();
    }
    std::fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "Latin-1").unwrap();
    std::os::unix::fs::symlink("small", root.join("short")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(40), root.join("long")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(400), root.join("longer")).unwrap();
    let touch = format!("find '{}' -exec touch -h -d @{TIME} {{}} +", root.display());
    run("sh", &["-c", &touch]);
    root
}

/// Makes an image of the directory, and gives some files attributes. The tree has them too.
fn make(directory: &Path, root: &Path, options: &[&str]) -> (PathBuf, Tree) {
    let image = directory.join("image");
    let _ = std::fs::remove_file(&image);
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let path = image.to_str().unwrap();
    let source = ["-q", "-F", "-d", root.to_str().unwrap()];
    run("mke2fs", &[&source, options, &[path]].concat());
    let mut tree = Tree::from_directory(root).unwrap();
    let mut attributes = vec![
        ("etc/small", "security.ima", vec![3; 120]),
        ("etc/small", "user.name", b"value".to_vec()),
        ("etc/small", "user.empty", Vec::new()),
        ("noise", "security.ima", vec![3; 520]),
        ("small", "security.selinux", b"label\0".to_vec()),
        ("long", "security.selinux", b"label\0".to_vec()),
    ];
    if options.contains(&"-r") {
        // Revision 0 has none.
        attributes.clear();
    }
    if options.contains(&"ea_inode") {
        // The most that debugfs takes, and too much for a block of attributes.
        let large = if options.contains(&"1024") {
            1024
        } else {
            4096
        };
        attributes.push(("noise", "user.large", vec![7; large]));
        attributes.push(("etc/empty", "user.large", vec![7; large]));
    }
    let mut script = String::new();
    for (count, (name, attribute, content)) in attributes.into_iter().enumerate() {
        let value = directory.join(format!("value{count}"));
        std::fs::write(&value, &content).unwrap();
        script += &format!("ea_set -f {} /{name} {attribute}\n", value.display());
        let inode = tree.get_mut(name.as_bytes()).unwrap();
        inode.xattrs.insert(attribute.as_bytes().to_vec(), content);
    }
    debugfs(directory, &script, path);
    if options.contains(&"ea_inode") {
        // debugfs miscounts the blocks of values that lie in inodes of their own.
        run("e2fsck", &["-fy", path]);
    }
    (image, tree)
}

/// The features of mke2fs(8) and ext4(5) one by one, block and inode sizes, and what distributions combine.
const OPTIONS: &[&[&str]] = &[
    &["-t", "ext2"],
    &["-t", "ext2", "-r", "0"],
    &["-t", "ext2", "-b", "1024", "-O", "^filetype"],
    &["-t", "ext3"],
    &["-t", "ext4"],
    &["-t", "ext4", "-b", "1024"],
    &["-t", "ext4", "-b", "2048"],
    &["-t", "ext4", "-b", "65536"],
    &["-t", "ext4", "-I", "128"],
    &["-t", "ext4", "-I", "1024"],
    &["-t", "ext4", "-O", "^extents,^64bit"],
    &["-t", "ext4", "-b", "1024", "-O", "^extents,^64bit"],
    &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
    &["-t", "ext4", "-O", "metadata_csum,64bit"],
    // The default since e2fsprogs 1.47.1.
    &[
        "-t",
        "ext4",
        "-O",
        "64bit,metadata_csum,metadata_csum_seed,orphan_file",
    ],
    &["-t", "ext4", "-O", "metadata_csum,^64bit"],
    &["-t", "ext4", "-O", "inline_data"],
    &["-t", "ext4", "-I", "512", "-O", "inline_data,metadata_csum"],
    &["-t", "ext4", "-O", "ea_inode"],
    &["-t", "ext4", "-b", "1024", "-O", "ea_inode"],
    &["-t", "ext4", "-O", "large_dir"],
    &["-t", "ext4", "-O", "casefold"],
    &["-t", "ext4", "-O", "encrypt"],
    &["-t", "ext4", "-O", "casefold,encrypt,metadata_csum"],
    &["-t", "ext4", "-O", "verity"],
    &["-t", "ext4", "-O", "stable_inodes"],
    &["-t", "ext4", "-O", "bigalloc"],
    &["-t", "ext4", "-b", "1024", "-O", "bigalloc"],
    &["-t", "ext4", "-O", "meta_bg,^resize_inode"],
    &[
        "-t",
        "ext4",
        "-b",
        "1024",
        "-O",
        "meta_bg,^resize_inode,metadata_csum",
    ],
    &["-t", "ext4", "-O", "sparse_super2"],
    &["-t", "ext4", "-O", "^sparse_super,^resize_inode"],
    &["-t", "ext4", "-O", "^flex_bg"],
    &["-t", "ext4", "-O", "quota,project"],
    &["-t", "ext4", "-O", "mmp"],
    &["-t", "ext4", "-O", "fast_commit"],
    &["-t", "ext4", "-O", "^has_journal"],
    &["-t", "ext4", "-O", "^dir_index"],
    &["-t", "ext4", "-O", "^huge_file,^dir_nlink,^extra_isize"],
];

#[test]
fn images_with_each_feature_of_mke2fs_are_read_as_what_they_were_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let root = source(directory.path());
    for options in OPTIONS {
        let (image, expected) = make(directory.path(), &root, options);
        let what = options.join(" ");
        assert_same(&read(&image).unwrap(), &expected, &what);
        // Directories get their trees of hashes, or lose them.
        run("e2fsck", &["-fyD", image.to_str().unwrap()]);
        assert_same(&read(&image).unwrap(), &expected, &format!("{what}, -D"));
    }
}

#[test]
fn changes_in_the_journal_are_seen_as_the_kernel_will() {
    let directory = tempfile::tempdir().unwrap();
    let root = source(directory.path());
    let (image, expected) = make(
        directory.path(),
        &root,
        &["-t", "ext4", "-O", "^metadata_csum"],
    );
    // The block of the root directory, changed in the journal alone.
    let path = image.to_str().unwrap();
    let block = run("debugfs", &["-R", "blocks /", path]);
    let block = block.split_whitespace().next().unwrap().to_owned();
    let bytes = std::fs::read(&image).unwrap();
    let at = block.parse::<usize>().unwrap() * 4096;
    let changed = directory.path().join("block");
    let mut content = bytes[at..at + 4096].to_vec();
    let name = content
        .windows(5)
        .position(|word| word == b"short")
        .unwrap();
    content[name..name + 5].copy_from_slice(b"SHORT");
    std::fs::write(&changed, &content).unwrap();
    let script = format!("jo\njw -b {block} {}\njc\n", changed.display());
    debugfs(directory.path(), &script, path);
    let tree = read(&image).unwrap();
    assert!(tree.get(b"short").is_none() && tree.get(b"SHORT").is_some());
    assert_eq!(tree.len(), expected.len());
}

#[test]
fn encrypted_files_and_unknown_features_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = source(directory.path());
    let (image, _) = make(directory.path(), &root, &["-t", "ext4", "-O", "encrypt"]);
    let path = image.to_str().unwrap();
    run(
        "debugfs",
        &["-w", "-R", "sif /etc/small flags 0x80800", path],
    );
    let fault = read(&image).unwrap_err();
    assert_eq!(fault.code(), Code::SourceMalformed);
    assert!(fault.to_string().contains("is encrypted"), "{fault}");
    make(directory.path(), &root, &["-t", "ext2"]);
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[2, 0, 0, 0x80], 1024 + 0x60).unwrap();
    let fault = read(&image).unwrap_err();
    assert_eq!(fault.code(), Code::SourceMalformed);
    assert!(fault.to_string().contains("0x80000000"), "{fault}");
}

#[test]
fn lengths_that_an_image_claims_take_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let root = source(directory.path());
    for (name, length) in [
        ("<2>", 343_597_387_776_u64),
        ("/etc/small", 343_597_387_776),
    ] {
        let (image, _) = make(directory.path(), &root, &["-t", "ext4", "-O", "large_dir"]);
        let path = image.to_str().unwrap();
        run(
            "debugfs",
            &["-w", "-R", &format!("sif {name} size {length}"), path],
        );
        let tree = read(&image).unwrap();
        if name != "<2>" {
            let inode = tree.get(name.as_bytes()).unwrap();
            let Kind::File(content) = &inode.kind else {
                panic!("{inode:?}");
            };
            assert_eq!(content.len(), length);
            assert_eq!(content.head(16).unwrap(), b"a few bytes\0\0\0\0\0");
            // What takes no room is not read, which would take minutes.
            let mut pieces = 0;
            let counted = content.read(&mut |_| {
                pieces += 1;
                Ok(())
            });
            counted.unwrap();
            assert_eq!(pieces, 2);
        }
    }
    for (name, field) in [
        ("etc/small", "size 0xffffffffffff"),
        ("long", "size 1000000"),
        ("<2>", "flags 0x10000000"),
    ] {
        let (image, _) = make(directory.path(), &root, &["-t", "ext4"]);
        let path = image.to_str().unwrap();
        run(
            "debugfs",
            &["-w", "-R", &format!("sif {name} {field}"), path],
        );
        let fault = read(&image).unwrap_err();
        assert_eq!(fault.code(), Code::SourceMalformed, "{name} {field}");
    }
}

/// Two images, one with block numbers and one with extents, both without checksums: damage reaches what is behind them.
static IMAGES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let root = source(directory.path());
    [
        ["-b", "1024", "-O", "ext_attr,inline_data,ea_inode"],
        ["-b", "4096", "-O", "ext_attr,extents"],
    ]
    .map(|options| {
        let options = [&["-t", "ext2"], &options[..]].concat();
        let (image, _) = make(directory.path(), &root, &options);
        // What is zeros stays unread: damage matters only where the image is used.
        std::fs::read(image).unwrap()
    })
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Numbers in the metadata are replaced by small, large and existing ones. What is read then lies in the image.
    #[test]
    fn what_is_read_of_damaged_images_lies_in_them(
        extents: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_u32..6, any::<u32>()), 1..20),
    ) {
        let image = &IMAGES[usize::from(extents)];
        let used: Vec<usize> = (1024..4 << 20)
            .step_by(4)
            .filter(|at| image[*at..at + 4] != [0; 4])
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, image).unwrap();
        for (place, kind, value) in changes {
            let at = used[place.index(used.len())];
            let value = match kind {
                0 => 0,
                1 => u32::MAX,
                2 => value % 40,
                3 => value % 65_536,
                4 => u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) ^ (1 << (value % 32)),
                _ => value,
            };
            file.write_all_at(&value.to_le_bytes(), at as u64).unwrap();
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        match read(Path::new(&path)) {
            Err(fault) => prop_assert_eq!(fault.code(), Code::SourceMalformed),
            Ok(tree) => for (_, index) in tree.names() {
                if let Kind::File(content @ Content::Mapped { runs, len, .. }) = &tree.inode(index).kind {
                    prop_assert!(runs.iter().all(|run| run.from + run.len <= image.len() as u64));
                    prop_assert!(runs.is_sorted_by(|one, other| one.end() <= other.at));
                    prop_assert_eq!(content.head(4096).unwrap().len() as u64, (*len).min(4096));
                }
            }
        }
    }
}
