//! Signing inside an image that is there.
//!
//! An ext4 image is copied, and e2fsprogs' `debugfs` writes the attributes into the copy: inode numbers, features, journal and
//! whatever else the file system has stay as they are. squashfs and erofs cannot be changed, so they are made anew of what was
//! read: with the same names, inodes, attributes and label, not with the same layout. In either case the result is checked
//! with the file system's own checker, read back, and only then gets its name.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use ima::fault::{Cause, Code, Fault};
use ima::filesystem::Kind as FileSystemKind;

use super::programs::{copy, missing_tool, path_with_sbin};
use super::{Format, ImageBuilder, Summary, ext4, source};
use crate::Result;
use crate::file::{Output, unreadable, unwritable};
use crate::tree::{InodeIndex, Tree};
use crate::xattr::{SECURITY_EVM, SECURITY_IMA};

/// Signs the files inside the image `path` and writes it to `out`, which may be the same. `prepare` says what is signed and by
/// whom; `progress` is called once for each file read.
///
/// # Errors
///
/// [`Code::SourceMalformed`] if it is not an image, or a damaged one; [`Code::ToolMissing`] if a program for it is not
/// installed; [`Code::ImageTooSmall`] if an ext4 image has no room for the signatures; and those of [`ImageBuilder::build`].
pub fn sign_image(
    path: &Path,
    out: &Path,
    prepare: impl FnOnce(ImageBuilder) -> ImageBuilder,
    progress: &(dyn Fn() + Sync),
) -> Result<Summary> {
    let superblocks = source::probe_file(path)?;
    let [found] = superblocks.as_slice() else {
        let kinds: Vec<&str> = superblocks.iter().map(|found| found.kind.name()).collect();
        let detail = format!("{}: {}", path.display(), kinds.join(" and "));
        return Err(
            Fault::new(Code::SourceMalformed, detail).because(if kinds.is_empty() {
                Cause::NOT_AN_IMAGE
            } else {
                Cause::SEVERAL_SUPERBLOCKS
            }),
        );
    };
    let label = found.label.clone().unwrap_or_default();
    let uuid = found
        .uuid
        .as_deref()
        .and_then(ima::filesystem::Uuid::parse)
        .map(|uuid| uuid.0);
    match found.kind {
        FileSystemKind::Ext4 => sign_ext4(path, out, prepare, progress),
        FileSystemKind::Erofs => {
            let mut builder = prepare(ImageBuilder::new(source::read(path)?.tree))
                .format(Format::Erofs)
                .label(label);
            builder.uuid = uuid;
            let summary = builder.build_with(out, progress)?;
            check("fsck.erofs", "erofs-utils", &[], out)?;
            Ok(summary)
        }
        FileSystemKind::Squashfs => {
            let mut builder =
                prepare(ImageBuilder::new(source::read(path)?.tree)).format(Format::Squashfs);
            builder.squashfs = squashfs_parameters(path)?;
            builder.build_with(out, progress)
        }
        // Says that it is not read.
        _ => Err(source::read(path)
            .err()
            .unwrap_or_else(|| Fault::new(Code::SourceMalformed, path.display().to_string()))),
    }
}

fn sign_ext4(
    path: &Path,
    out: &Path,
    prepare: impl FnOnce(ImageBuilder) -> ImageBuilder,
    progress: &(dyn Fn() + Sync),
) -> Result<Summary> {
    check("e2fsck", "e2fsprogs", &["-fn"], path)?;
    let (before, numbers) = ext4::read_numbered(path)?;
    let mut builder = prepare(ImageBuilder::new(before.clone()));
    if let Some(fault) = builder.fault.take() {
        return Err(fault);
    }
    let summary = builder.sign_tree(progress)?.summary;
    let changes = changes(&before, &builder.tree);
    let mode = std::fs::metadata(path)
        .map_err(|error| unreadable(path, &error))?
        .permissions()
        .mode();
    let mut output = Output::create(out)?;
    let name = output.path().to_owned();
    copy(path, &name, output.file())?;
    let complaints = write_attributes(path, output.path(), &changes, &numbers)?;
    check("e2fsck", "e2fsprogs", &["-fn"], output.path())?;
    let (after, _) = ext4::read_numbered(output.path())?;
    let missing = changes
        .iter()
        .filter(|change| {
            after.inode(change.index).xattrs.get(change.name.as_bytes()) != Some(&change.value)
        })
        .count();
    if missing > 0 {
        let detail = format!(
            "{}: {missing} of {} signatures could not be written",
            path.display(),
            changes.len()
        );
        return Err(Fault::new(Code::ImageTooSmall, detail).because(
            Cause::NO_ROOM_FOR_SIGNATURES.with(&[complaints
                .lines()
                .next()
                .unwrap_or("debugfs does not say why")]),
        ));
    }
    let size = std::fs::metadata(output.path())
        .map_err(|error| unreadable(output.path(), &error))?
        .len();
    output.finish(mode & 0o777, true)?;
    Ok(Summary { size, ..summary })
}

/// An attribute to be written.
struct Change {
    index: InodeIndex,
    name: &'static str,
    value: Vec<u8>,
}

fn changes(before: &Tree, after: &Tree) -> Vec<Change> {
    let indices: BTreeSet<InodeIndex> = after.names().map(|(_, index)| index).collect();
    let mut changes = Vec::new();
    for index in indices {
        for name in [SECURITY_IMA, SECURITY_EVM] {
            let value = after.inode(index).xattrs.get(name.as_bytes());
            if let Some(value) = value
                && before.inode(index).xattrs.get(name.as_bytes()) != Some(value)
            {
                changes.push(Change {
                    index,
                    name,
                    value: value.clone(),
                });
            }
        }
    }
    changes
}

/// Has `debugfs` write the attributes; what it complained of comes back.
fn write_attributes(
    original: &Path,
    image: &Path,
    changes: &[Change],
    numbers: &HashMap<InodeIndex, u32>,
) -> Result<String> {
    let directory = tempfile::tempdir()
        .map_err(|error| Fault::new(Code::OutputUnwritable, format!("temporary files: {error}")))?;
    // The time of the last write stays what it was, so that the same input gives the same bytes.
    let mut script = format!("set_current_time @{}\n", written_at(original)?);
    for (count, change) in changes.iter().enumerate() {
        let value = directory.path().join(count.to_string());
        std::fs::write(&value, &change.value).map_err(|error| unwritable(&value, &error))?;
        let number = numbers.get(&change.index).copied().unwrap_or_default();
        let _ = writeln!(
            script,
            "ea_set -f {} <{number}> {}",
            value.display(),
            change.name
        );
    }
    let commands = directory.path().join("commands");
    std::fs::write(&commands, script).map_err(|error| unwritable(&commands, &error))?;
    let output = Command::new("debugfs")
        .arg("-w")
        .arg("-f")
        .arg(&commands)
        .arg(image)
        .env("PATH", path_with_sbin())
        .output()
        .map_err(|error| missing_tool("debugfs", "e2fsprogs", &error))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Its own name and version come first.
    Ok(complaints
        .lines()
        .filter(|line| !line.starts_with("debugfs 1."))
        .collect::<Vec<_>>()
        .join("\n"))
}

/// When an ext4 file system was last written to, seconds since 1970 (`s_wtime`).
fn written_at(path: &Path) -> Result<u32> {
    let mut field = [0; 4];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut field, 1024 + 0x30))
        .map_err(|error| unreadable(path, &error))?;
    Ok(u32::from_le_bytes(field))
}

/// Runs a file system's own checker, which changes nothing.
fn check(program: &str, package: &str, arguments: &[&str], image: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .arg(image)
        .env("PATH", path_with_sbin())
        .output()
        .map_err(|error| missing_tool(program, package, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines.len().saturating_sub(3);
    let words = lines.get(last..).unwrap_or_default().join("; ");
    let command = format!("{program} {} {}", arguments.join(" "), image.display());
    let detail = format!("{}: {program} finds errors", image.display());
    Err(Fault::new(Code::SourceMalformed, detail)
        .because(Cause::CHECK_FINDS_ERRORS.with(&[&words, &command])))
}

/// Compressor and block size (`struct squashfs_super_block`: `compression`, `block_size`), as mksquashfs takes them.
fn squashfs_parameters(path: &Path) -> Result<Option<(&'static str, u32)>> {
    let mut head = [0; 22];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut head, 0))
        .map_err(|error| unreadable(path, &error))?;
    let [.., a, b, c, d, _, _, _, _, low, high] = head;
    let compressor = match u16::from_le_bytes([low, high]) {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => return Ok(None),
    };
    Ok(Some((compressor, u32::from_le_bytes([a, b, c, d]))))
}

#[cfg(test)]
mod tests;
