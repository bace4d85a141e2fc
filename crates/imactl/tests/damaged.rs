//! Damaged images and initramfs: whatever they claim, they are read or refused in bounded memory and time.
//!
//! `IMA_INIT_DAMAGE` is the number of cases for each kind of image, 32 if it is not set.

mod common;

use std::sync::{Arc, LazyLock, Once};
use std::time::{Duration, Instant};

use common::{imactl, need_root, shell, with_keys};
use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::policy::Policy;
use imactl::check::{Root, simulate};
use imactl::digest::DigestOf;
use imactl::image::{self, Format, ImageBuilder};
use imactl::initramfs::InitramfsBuilder;
use imactl::manifest::Manifest;
use imactl::select::{Appraisal, FileSystem};
use imactl::sign::Place;
use imactl::tree::{Kind, Tree};
use imactl::verify::{VerifyOptions, verify_tree};
use proptest::prelude::*;

/// Addresses that this process may have: 512 MiB.
const ADDRESSES: u64 = 512 << 20;
/// What a case may take.
const TIME: Duration = Duration::from_secs(10);
/// The longest file whose digest is asked for, or that is put into an archive: a file of holes may have any length, and both take
/// as long as that is.
const LONGEST: u64 = 64 << 20;

/// How each image is made of `root`. Without checksums and compression damage reaches what lies behind them.
const IMAGES: [(&str, &str); 13] = [
    ("ext4", "mke2fs -q -t ext4 -d root ext4 4M"),
    (
        "ext4.plain",
        "mke2fs -q -t ext4 -b 4096 -O ^metadata_csum,^has_journal,inline_data -d root ext4.plain 4M",
    ),
    ("ext2", "mke2fs -q -t ext2 -b 1024 -d root ext2 4M"),
    ("erofs", "mkfs.erofs --quiet erofs root"),
    (
        "erofs.chunks",
        "mkfs.erofs --quiet --chunksize=4096 erofs.chunks root",
    ),
    ("erofs.lz4", "mkfs.erofs --quiet -zlz4 erofs.lz4 root"),
    ("squashfs", "mksquashfs root squashfs -quiet >log"),
    (
        "squashfs.plain",
        "mksquashfs root squashfs.plain -quiet -noI -noD -noF -noX -b 4096 >log",
    ),
    (
        "squashfs.xz",
        "mksquashfs root squashfs.xz -quiet -comp xz >log",
    ),
    (
        "squashfs.lzo",
        "mksquashfs root squashfs.lzo -quiet -comp lzo >log",
    ),
    (
        "tar",
        "tar --xattrs --xattrs-include='*' --format=pax --sparse -C root -cf tar .",
    ),
    ("tar.gz", "tar --format=gnu --sparse -C root -czf tar.gz ."),
    ("cpio", "(cd root; find . | cpio -o -H newc --quiet) >cpio"),
];

/// Images, and what they are checked with.
struct Samples {
    images: Vec<(&'static str, Vec<u8>)>,
    certificate: Certificate,
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "mkdir -p root/bin root/etc; cd root; seq 3000 >bin/program; seq 9 >etc/text; : >etc/empty
         cp /bin/true bin/true; ln bin/program bin/other; ln -s ../bin etc/link; mknod null c 1 3; mkfifo fifo
         truncate -s 1M etc/holes; seq 2000 >>etc/holes; truncate -s 2M etc/holes
         for name in $(seq 40); do echo $name >etc/$name; done
         setfattr -n user.long -v $(seq -s, 90) etc/text",
        at,
    )
    .good();
    imactl(
        "sign --key keys/ima.key --cert keys/ima.der root/bin root/etc",
        at,
    )
    .good();
    let mut images = Vec::new();
    for (name, command) in IMAGES {
        shell(command, at).good();
        images.push((name, std::fs::read(at.join(name)).unwrap()));
    }
    shell("gzip -nc cpio >cpio.gz; xz --check=crc32 -c cpio >cpio.xz; xz --format=lzma -c cpio >cpio.lzma; zstd -qc cpio >cpio.zst; lz4 -lqc cpio >cpio.lz4", at).good();
    for name in ["cpio.gz", "cpio.xz", "cpio.lzma", "cpio.zst", "cpio.lz4"] {
        images.push((name, std::fs::read(at.join(name)).unwrap()));
    }
    let certificate = Certificate::parse(&std::fs::read(at.join("keys/ima.der")).unwrap()).unwrap();
    Samples {
        images,
        certificate,
    }
});

fn limit_addresses() {
    static LIMIT: Once = Once::new();
    LIMIT.call_once(|| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::As).maximum;
        let limit = Rlimit {
            current: Some(ADDRESSES),
            maximum,
        };
        setrlimit(Resource::As, limit).unwrap();
    });
}

/// A number that is put in place of another one.
#[derive(Debug, Clone)]
struct Change {
    place: prop::sample::Index,
    kind: u8,
    value: u32,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (any::<prop::sample::Index>(), 0_u8..7, any::<u32>());
    let change = change.prop_map(|(place, kind, value)| Change { place, kind, value });
    proptest::collection::vec(change, 1..12)
}

/// Puts small, large, existing and random numbers in place of those that are not zero.
fn damage(image: &[u8], changes: &[Change], is_tar: bool) -> Vec<u8> {
    let mut image = image.to_vec();
    let used: Vec<usize> = (0..image.len().saturating_sub(4))
        .step_by(2)
        .filter(|at| image[*at..at + 4] != [0; 4])
        .collect();
    for Change { place, kind, value } in changes {
        let at = used[place.index(used.len())];
        let before = u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        let number = match kind {
            0 => 0,
            1 => u32::MAX,
            2 => value % 40,
            3 => value % 65_536,
            4 => before ^ (1 << (value % 32)),
            5 => before.wrapping_add(value % 17),
            _ => *value,
        };
        image[at..at + 4].copy_from_slice(&number.to_le_bytes());
        // A header with the right sum gets further than one without.
        let record = at / 512 * 512;
        if is_tar && image.len() >= record + 512 && image[record + 257..].starts_with(b"ustar") {
            let header = &mut image[record..record + 512];
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    image
}

/// Whether a file is longer than [`LONGEST`].
fn has_long_files(tree: &Tree) -> bool {
    tree.names().any(|(_, index)| {
        matches!(&tree.inode(index).kind, Kind::File(content) if content.len() > LONGEST)
    })
}

/// Everything that is done with the tree of an image.
fn use_tree(tree: &Tree, samples: &Samples) -> Result<(), Fault> {
    let certificates = vec![samples.certificate.clone()];
    let policy = Policy::parse(b"appraise func=BPRM_CHECK appraise_type=imasig\n").unwrap();
    let filesystem = FileSystem::by_name("ext4").unwrap();
    let long = has_long_files(tree);
    if !long {
        for appraisal in [
            None,
            Some(Appraisal::new(policy.clone(), filesystem.clone())),
        ] {
            let options = VerifyOptions {
                certificates: certificates.clone(),
                evm: certificates.clone(),
                appraisal,
                place: Place::Xattr,
                kernel: None,
            };
            verify_tree(tree, &options, &|_| ());
        }
    }
    let source = image::Source {
        tree: tree.clone(),
        superblocks: None,
    };
    if !long {
        let root = Root::new(source, filesystem);
        simulate(&root, &policy, &certificates, &[], None)?;
        Manifest::of_tree(tree, None, DigestOf::Content, HashAlgorithm::Sha256, &|| ())?;
    }
    Ok(())
}

/// What is done with an image, and then that it was refused as one that is damaged, if it was.
fn use_image(name: &str, image: &[u8], samples: &Samples, format: Format) -> Result<(), Fault> {
    if name.starts_with("cpio") {
        let initramfs = InitramfsBuilder::from_image(image)?;
        return use_tree(&initramfs.tree()?, samples);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, image).unwrap();
    let source = image::read(&path)?;
    use_tree(&source.tree, samples)?;
    let format = match format {
        Format::Tar if has_long_files(&source.tree) => Format::Erofs,
        format => format,
    };
    ImageBuilder::new(source.tree)
        .format(format)
        .build(&directory.path().join("image"))?;
    Ok(())
}

fn check(name: &str, image: Arc<[u8]>, format: Format) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let result = use_image(name, &image, &SAMPLES, format);
    let taken = start.elapsed();
    prop_assert!(taken < TIME, "{} took {:?}", name, taken);
    if let Err(fault) = result {
        let expected = [
            Code::SourceMalformed,
            Code::ImageContent,
            Code::InputUnreadable,
            Code::ImageTooSmall,
        ];
        prop_assert!(expected.contains(&fault.code()), "{}: {}", name, fault);
    }
    Ok(())
}

fn cases() -> u32 {
    let given = std::env::var("IMA_INIT_DAMAGE").ok();
    given.map_or(32, |number| number.parse().unwrap())
}

/// Runs the cases of one kind: each of its images has its share.
fn damaged(kind: &str) {
    let images: Vec<&(&str, Vec<u8>)> = SAMPLES
        .images
        .iter()
        .filter(|(name, _)| name.starts_with(kind))
        .collect();
    assert!(!images.is_empty());
    limit_addresses();
    let config = ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 64,
        ..ProptestConfig::default()
    };
    proptest!(config, |(which in 0..images.len(), changes in changes(), tar: bool)| {
        let (name, image) = images[which];
        let image = damage(image, &changes, name.starts_with("tar"));
        let format = if tar { Format::Tar } else { Format::Erofs };
        check(name, image.into(), format)?;
    });
}

#[test]
fn damaged_ext4_images_are_read_or_refused_in_bounds() {
    damaged("ext");
}

#[test]
fn damaged_erofs_images_are_read_or_refused_in_bounds() {
    damaged("erofs");
}

#[test]
fn damaged_squashfs_images_are_read_or_refused_in_bounds() {
    damaged("squashfs");
}

#[test]
fn damaged_archives_are_read_or_refused_in_bounds() {
    damaged("tar");
}

#[test]
fn damaged_initramfs_are_read_or_refused_in_bounds() {
    damaged("cpio");
}

#[test]
fn sound_samples_are_read() {
    for (name, image) in &SAMPLES.images {
        let used = use_image(name, image, &SAMPLES, Format::Tar);
        assert!(used.is_ok(), "{name}: {used:?}");
    }
}
