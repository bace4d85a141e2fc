//! Trees as PAX tar archives (POSIX.1-2017, `pax`), extended attributes as `SCHILY.xattr.*` records.
//!
//! For those who take a root as an archive, and for `mksquashfs -tar`, which makes an image of one without privilege.

use std::collections::HashSet;
use std::io::Write;

use ima::fault::{Cause, Code, Fault};

use crate::Result;
use crate::tree::{InodeIndex, Kind, Piece, Tree};

const RECORD: usize = 512;
/// The largest number that fits in eight bytes of octal digits.
const MAX_ID: u32 = 0o7_777_777;
/// The same for twelve bytes.
const MAX_LONG: u64 = 0o77_777_777_777;
/// The most that the files of an archive may hold together: it has holes as zeros, and a damaged image may claim any length.
const MAX_CONTENT: u64 = 1 << 40;

/// Hands the content of a regular file to the function it is given, piece by piece.
pub type ReadPieces<'a> =
    dyn FnMut(InodeIndex, &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> + 'a;

/// Writes `tree` to `out`. The same tree gives the same bytes.
///
/// # Errors
///
/// [`Code::OutputUnwritable`] if `out` cannot be written, [`Code::ImageContent`] for a socket, which no archive holds, and
/// what `content` answers.
pub fn write(tree: &Tree, out: &mut dyn Write, content: &mut ReadPieces<'_>) -> Result<()> {
    let failed =
        |error: std::io::Error| Fault::new(Code::OutputUnwritable, format!("the archive: {error}"));
    let inodes: HashSet<InodeIndex> = tree.names().map(|(_, index)| index).collect();
    let sum = inodes.iter().try_fold(0_u64, |sum, index| {
        let Kind::File(file) = &tree.inode(*index).kind else {
            return Some(sum);
        };
        sum.checked_add(file.len())
            .filter(|sum| *sum <= MAX_CONTENT)
    });
    if sum.is_none() {
        return Err(Fault::new(
            Code::ImageContent,
            "files of more than 1 TiB, with their holes",
        )
        .because(Cause::HOLES_IN_ARCHIVE));
    }
    let mut first_names: Vec<Option<&[u8]>> = Vec::new();
    let mut written = HashSet::new();
    for (name, index) in tree.names() {
        if name.is_empty() {
            // The root directory's own properties, as `tar -C root .` has them.
            header(tree, index, b"./", None, out).map_err(failed)?;
            continue;
        }
        if matches!(tree.inode(index).kind, Kind::Socket) {
            return Err(Fault::new(
                Code::ImageContent,
                format!("/{}", String::from_utf8_lossy(name)),
            )
            .because(Cause::SOCKET));
        }
        if first_names.len() <= index.as_usize() {
            first_names.resize(index.as_usize() + 1, None);
        }
        if !written.insert(index) {
            let first = first_names.get(index.as_usize()).copied().flatten();
            header(tree, index, name, first, out).map_err(failed)?;
            continue;
        }
        if let Some(place) = first_names.get_mut(index.as_usize()) {
            *place = Some(name);
        }
        header(tree, index, name, None, out).map_err(failed)?;
        if let Kind::File(file) = &tree.inode(index).kind {
            let mut left = file.len();
            content(index, &mut |piece| match piece {
                Piece::Data(data) => {
                    left = left.saturating_sub(data.len() as u64);
                    out.write_all(data).map_err(failed)
                }
                Piece::Hole(len) => {
                    left = left.saturating_sub(len);
                    zeros(out, len).map_err(failed)
                }
            })?;
            debug_assert_eq!(left, 0);
            zeros(out, file.len().next_multiple_of(RECORD as u64) - file.len()).map_err(failed)?;
        }
    }
    zeros(out, 2 * RECORD as u64).map_err(failed)
}

fn zeros(out: &mut dyn Write, mut len: u64) -> std::io::Result<()> {
    const ZEROS: &[u8] = &[0; 65_536];
    while len > 0 {
        let take = len.min(ZEROS.len() as u64);
        out.write_all(ZEROS.get(..take as usize).unwrap_or(ZEROS))?;
        len -= take;
    }
    Ok(())
}

/// The header of an entry, with a header of PAX records before it where the old fields are too short. `link` makes it a hard
/// link to that name.
fn header(
    tree: &Tree,
    index: InodeIndex,
    name: &[u8],
    link: Option<&[u8]>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let inode = tree.inode(index);
    let (kind, target, size, device) = match (&inode.kind, link) {
        (_, Some(first)) => (b'1', first, 0, (0, 0)),
        (Kind::File(content), None) => (b'0', &[][..], content.len(), (0, 0)),
        (Kind::Symlink(target), None) => (b'2', target.as_slice(), 0, (0, 0)),
        (Kind::CharacterDevice(major, minor), None) => (b'3', &[][..], 0, (*major, *minor)),
        (Kind::BlockDevice(major, minor), None) => (b'4', &[][..], 0, (*major, *minor)),
        (Kind::Directory, None) => (b'5', &[][..], 0, (0, 0)),
        (Kind::Fifo | Kind::Socket, None) => (b'6', &[][..], 0, (0, 0)),
    };
    let mut records = Vec::new();
    if name.len() > 100 || !name.is_ascii() {
        record(&mut records, b"path", name);
    }
    if target.len() > 100 || !target.is_ascii() {
        record(&mut records, b"linkpath", target);
    }
    for (key, id) in [(b"uid", inode.uid), (b"gid", inode.gid)] {
        if id > MAX_ID {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if size > MAX_LONG {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    let seconds = u64::try_from(inode.mtime.seconds)
        .unwrap_or(0)
        .min(MAX_LONG);
    if inode.mtime.nanoseconds > 0 {
        record(
            &mut records,
            b"mtime",
            format!("{seconds}.{:09}", inode.mtime.nanoseconds).as_bytes(),
        );
    }
    if link.is_none() {
        for (key, value) in &inode.xattrs {
            record(
                &mut records,
                &[b"SCHILY.xattr.", key.as_slice()].concat(),
                value,
            );
        }
    }
    if !records.is_empty() {
        out.write_all(&ustar(
            b"PaxHeaders/entry",
            b'x',
            0o644,
            (0, 0),
            records.len() as u64,
            0,
            &[],
            (0, 0),
        ))?;
        out.write_all(&records)?;
        zeros(
            out,
            (records.len().next_multiple_of(RECORD) - records.len()) as u64,
        )?;
    }
    let owner = (inode.uid.min(MAX_ID), inode.gid.min(MAX_ID));
    out.write_all(&ustar(
        name,
        kind,
        inode.mode,
        owner,
        size.min(MAX_LONG),
        seconds,
        target,
        device,
    ))
}

/// `LENGTH KEY=VALUE\n`, the length being that of the whole, its own digits included.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(format!("{len} ").as_bytes());
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

#[allow(
    clippy::too_many_arguments,
    reason = "they are the fields of the header"
)]
fn ustar(
    name: &[u8],
    kind: u8,
    mode: u16,
    (uid, gid): (u32, u32),
    size: u64,
    mtime: u64,
    target: &[u8],
    (major, minor): (u32, u32),
) -> [u8; RECORD] {
    let mut header = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let len = bytes.len().min(room);
        header[at..at + len].copy_from_slice(&bytes[..len]);
    };
    let octal = |number: u64, digits: usize| format!("{number:0digits$o}").into_bytes();
    put(0, name, 100);
    put(100, &octal(mode.into(), 7), 8);
    put(108, &octal(uid.into(), 7), 8);
    put(116, &octal(gid.into(), 7), 8);
    put(124, &octal(size, 11), 12);
    put(136, &octal(mtime, 11), 12);
    put(148, b"        ", 8);
    put(156, &[kind], 1);
    put(157, target, 100);
    put(257, b"ustar\x0000", 8);
    put(329, &octal(major.into(), 7), 8);
    put(337, &octal(minor.into(), 7), 8);
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    let checksum = octal(sum, 6);
    header[148..154].copy_from_slice(&checksum);
    header[154] = 0;
    header
}
