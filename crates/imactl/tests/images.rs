//! Images with large files: what is read of them, and in how much room.

mod common;

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use common::{Ended, need_root, shell, with_keys};

/// 512 MiB of addresses, no file of more than 64 KiB, 10 seconds of processor time.
const LIMITS: &str = "ulimit -v 524288; ulimit -f 128; ulimit -t 10";

/// How each kind of image is made of `root`.
const IMAGES: [(&str, &str); 8] = [
    ("ext4", "mke2fs -q -t ext4 -d root ext4 16M"),
    ("erofs", "mkfs.erofs --quiet --chunksize=1048576 erofs root"),
    ("erofs.lz4", "mkfs.erofs --quiet -zlz4 erofs.lz4 root"),
    ("squashfs", "mksquashfs root squashfs -quiet >log"),
    (
        "squashfs.xz",
        "mksquashfs root squashfs.xz -quiet -comp xz >log",
    ),
    (
        "squashfs.zstd",
        "mksquashfs root squashfs.zstd -quiet -comp zstd >log",
    ),
    (
        "squashfs.lz4",
        "mksquashfs root squashfs.lz4 -quiet -comp lz4 >log",
    ),
    (
        "tar",
        "tar --xattrs --xattrs-include='*' --format=pax --sparse -C root -cf tar .",
    ),
];

/// Makes `root` with a signed file, one that changed, and one of so many zeros without a signature; and an image of each kind.
fn images(at: &Path, zeros: &str) {
    need_root();
    let script = "mkdir root; seq 100000 >root/signed; seq 300000 >root/changed
         $IMACTL sign --key keys/ima.key --cert keys/ima.der root/signed root/changed
         # Writing keeps the attribute.
         echo >>root/changed";
    shell(&format!("{script}; truncate -s {zeros} root/large"), at).good();
    for (name, command) in IMAGES {
        let ended = shell(command, at);
        assert_eq!(ended.code, 0, "{name}: {ended:?}");
    }
}

fn limited(command: &str, at: &Path) -> Ended {
    shell(&format!("{LIMITS}; exec $IMACTL {command}"), at)
}

#[test]
fn content_is_read_only_where_a_digest_is_needed() {
    let directory = with_keys("p256");
    let at = directory.path();
    images(at, "2G");
    std::fs::write(
        at.join("policy"),
        "appraise func=FILE_CHECK appraise_type=imasig\n",
    )
    .unwrap();
    for (name, _) in IMAGES {
        let ended = limited(
            &format!("verify --cert keys/ima.der --json --image {name}"),
            at,
        );
        assert_eq!(ended.code, 6, "{name}: {ended:?}");
        let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let counts = json["counts"].as_object().unwrap();
        for verdict in ["good", "changed", "unsigned"] {
            assert_eq!(counts[verdict], 1, "{name}: {verdict}: {json}");
        }
        let ended = limited(
            &format!("policy simulate --root {name} --cert keys/ima.der --json policy"),
            at,
        );
        assert_eq!(ended.code, 1, "{name}: {ended:?}");
        let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let denied = json["denied"].as_array().unwrap();
        let paths: Vec<&str> = denied
            .iter()
            .filter_map(|file| file["path"].as_str())
            .collect();
        assert_eq!(paths, ["/changed", "/large"], "{name}: {json}");
    }
}

#[test]
fn an_archive_with_a_large_file_is_read_in_place() {
    let directory = with_keys("p256");
    let at = directory.path();
    // An entry of 4 GiB that is data to the archive, and a hole only to the file system that it lies in.
    shell(": >large; tar --format=ustar -cf archive large", at).good();
    let archive = std::fs::File::options()
        .read(true)
        .write(true)
        .open(at.join("archive"))
        .unwrap();
    let mut header = [0; 512];
    archive.read_exact_at(&mut header, 0).unwrap();
    header[124..136].copy_from_slice(b"40000000000\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive.write_all_at(&header, 0).unwrap();
    archive.set_len((4 << 30) + 3 * 512).unwrap();
    let ended = limited("verify --cert keys/ima.der --json --image archive", at);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.out.contains("\"unsigned\": 1"), "{ended:?}");
    // The same file cut off.
    archive.set_len(4 << 30).unwrap();
    limited("verify --cert keys/ima.der --image archive", at).refused("IMA-918");
}

#[test]
fn digests_of_large_files_are_made_in_bounded_memory() {
    let directory = with_keys("p256");
    let at = directory.path();
    images(at, "600M");
    let mut manifests = Vec::new();
    for (name, _) in IMAGES {
        let script = format!(
            "ulimit -v 524288; ulimit -f 128
             exec $IMACTL manifest make --from {name} --out {name}.manifest"
        );
        shell(&script, at).good();
        manifests.push(std::fs::read(at.join(format!("{name}.manifest"))).unwrap());
    }
    assert!(manifests.iter().all(|manifest| *manifest == manifests[0]));
}
