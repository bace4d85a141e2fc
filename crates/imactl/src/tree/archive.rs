//! Reads tar archives: POSIX ustar and PAX, and GNU's long names and sparse files.
//!
//! Formats: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files". Values of extended attributes may hold any byte, newlines among them, so records are cut by the
//! lengths they announce.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ima::fault::{Cause, Code, Fault};

use base64ct::{Base64Unpadded, Encoding as _};

use super::content::{Content, PIECE, Run};
use super::{Inode, Kind, Timestamp, Tree, Whiteout, clean};
use crate::Result;
use crate::packed::Packing;
use crate::percent::unescape;

const RECORD: usize = 512;
/// The longest extended header or long name.
const MAX_EXTENDED: u64 = 16 << 20;

fn malformed(detail: impl Into<String>) -> Fault {
    Fault::new(Code::SourceMalformed, detail)
}

fn unreadable(error: std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            malformed("the archive ends in the middle of an entry")
        }
        _ => malformed(error.to_string()),
    }
}

fn spool_error(error: std::io::Error) -> Fault {
    Fault::new(Code::OutputUnwritable, format!("temporary file: {error}"))
}

/// What extended headers say of the next entry.
#[derive(Debug, Default, Clone)]
struct Extended {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse_version: Vec<u8>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    acl: bool,
}

/// What an archive is read from.
pub trait Source: Read {
    /// Passes over so many bytes, which must be there.
    fn skip(&mut self, len: u64) -> std::io::Result<()>;

    /// The file that the archive lies in, and where its next byte is, if the data of entries can stay there.
    fn place(&self) -> Option<(&Arc<File>, u64)>;
}

/// An archive that is read once, from its beginning to its end.
#[derive(Debug)]
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Stream<R> {
    fn skip(&mut self, len: u64) -> std::io::Result<()> {
        match std::io::copy(&mut self.0.by_ref().take(len), &mut std::io::sink())? {
            passed if passed == len => Ok(()),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn place(&self) -> Option<(&Arc<File>, u64)> {
        None
    }
}

/// An archive in a regular file. The data of its entries stays where it is.
#[derive(Debug)]
pub struct InPlace {
    file: Arc<File>,
    at: u64,
    len: u64,
}

impl InPlace {
    /// Begins at the first byte of a file that is `len` bytes long.
    pub fn new(file: File, len: u64) -> Self {
        Self {
            file: Arc::new(file),
            at: 0,
            len,
        }
    }
}

impl Read for InPlace {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

impl Source for InPlace {
    fn skip(&mut self, len: u64) -> std::io::Result<()> {
        match self.at.checked_add(len) {
            Some(end) if end <= self.len => {
                self.at = end;
                Ok(())
            }
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn place(&self) -> Option<(&Arc<File>, u64)> {
        Some((&self.file, self.at))
    }
}

impl Tree {
    /// Reads a tar archive, plain or compressed with gzip, zstd or xz. Extended attributes are taken from PAX records
    /// `SCHILY.xattr.*`, as `tar --xattrs` writes them, and `LIBARCHIVE.xattr.*`. Whiteouts of an OCI image's layer are not files;
    /// [`overlay`](Self::overlay) applies them.
    ///
    /// # Errors
    ///
    /// [`Code::SourceMalformed`] for a malformed archive, [`Code::OutputUnwritable`] if there is no room for its content in
    /// the temporary directory.
    pub fn from_tar(archive: impl Read) -> Result<Self> {
        let unpacked = unpacked(archive)
            .map_err(|error| Fault::new(Code::SourceMalformed, error.to_string()))?;
        read(Stream(unpacked))
    }

    /// Reads a tar archive as [`from_tar`](Self::from_tar) does. The content of files stays in the archive if that is a regular
    /// file and not compressed.
    ///
    /// # Errors
    ///
    /// As [`from_tar`](Self::from_tar).
    pub fn from_tar_file(file: File) -> Result<Self> {
        let failed = |error: std::io::Error| Fault::new(Code::SourceMalformed, error.to_string());
        let meta = file.metadata().map_err(failed)?;
        let mut head = [0; 6];
        if meta.is_file()
            && file.read_exact_at(&mut head, 0).is_ok()
            && Packing::of(&head).is_none()
        {
            return read(InPlace::new(file, meta.len()));
        }
        Self::from_tar(std::io::BufReader::new(file))
    }
}

/// Unpacks a stream by what its first bytes are.
fn unpacked<'a>(mut archive: impl Read + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    archive.by_ref().take(6).read_to_end(&mut head)?;
    let whole = std::io::Cursor::new(head.clone()).chain(archive);
    Ok(match Packing::of(&head) {
        Some(Packing::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Some(Packing::Zstd) => Box::new(zstd::Decoder::new(whole)?),
        Some(Packing::Xz) => {
            let mut plain = tempfile::tempfile()?;
            lzma_rs::xz_decompress(&mut std::io::BufReader::new(whole), &mut plain)
                .map_err(|error| std::io::Error::other(format!("malformed xz data ({error:?})")))?;
            plain.rewind()?;
            Box::new(plain)
        }
        Some(other) => {
            return Err(std::io::Error::other(format!(
                "it is compressed with {}, and archives are read plain or compressed with gzip, zstd or xz",
                other.name()
            )));
        }
        None => Box::new(whole),
    })
}

/// Reads an archive, which must be uncompressed.
fn read(mut archive: impl Source) -> Result<Tree> {
    let spool = Arc::new(tempfile::tempfile().map_err(spool_error)?);
    let mut offset = 0;
    let mut tree = Tree::new();
    let mut global = Extended::default();
    let mut extended: Option<Extended> = None;
    let mut entries = 0_u64;
    loop {
        let mut header = [0; RECORD];
        archive
            .read_exact(&mut header)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof if entries == 0 => {
                    malformed("no tar archive, or an empty one")
                }
                std::io::ErrorKind::UnexpectedEof => {
                    malformed("the archive has no end: it was truncated")
                }
                _ => unreadable(error),
            })?;
        if header == [0; RECORD] {
            break;
        }
        check_sum(&header)?;
        let size = number(&header[124..136])?;
        match header[156] {
            b'x' | b'g' => {
                let records = take(&mut archive, size)?;
                if header[156] == b'g' {
                    global.read(&records)?;
                } else {
                    extended
                        .get_or_insert_with(|| global.clone())
                        .read(&records)?;
                }
                continue;
            }
            b'L' | b'K' => {
                let mut name = take(&mut archive, size)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                let extended = extended.get_or_insert_with(|| global.clone());
                *(if header[156] == b'L' {
                    &mut extended.path
                } else {
                    &mut extended.target
                }) = Some(name);
                continue;
            }
            _ => {}
        }
        entries += 1;
        let extended = extended.take().unwrap_or_else(|| global.clone());
        if extended.acl {
            return Err(malformed("an entry with an ACL as text").because(Cause::ACL_AS_TEXT));
        }
        let size = extended.size.unwrap_or(size);
        let path = extended
            .sparse_name
            .clone()
            .or_else(|| extended.path.clone())
            .unwrap_or_else(|| name(&header));
        let target = extended
            .target
            .clone()
            .unwrap_or_else(|| text(&header[157..257]).to_vec());
        let id = |given: Option<u32>, field: &[u8]| -> Result<u32> {
            match given {
                Some(id) => Ok(id),
                None => u32::try_from(number(field)?)
                    .map_err(|_| malformed("a user or group number above 2^32")),
            }
        };
        let device = || -> Result<(u32, u32)> {
            let part = |field| {
                u32::try_from(number(field)?).map_err(|_| malformed("a device number above 2^32"))
            };
            Ok((part(&header[329..337])?, part(&header[337..345])?))
        };
        let mut input = Entry {
            archive: &mut archive,
            left: size,
        };
        match whiteout(&path)? {
            Marker::None => {}
            Marker::Metadata => {
                input.finish(size)?;
                continue;
            }
            Marker::Whiteout(found) => {
                // AUFS makes all whiteouts hard links to one file.
                if !matches!(header[156], b'0' | 0 | b'7' | b'1') || size != 0 {
                    return Err(not_a_whiteout(&path, "it is not an empty file"));
                }
                tree.whiteouts.push(found);
                continue;
            }
        }
        let kind = match header[156] {
            b'0' | 0 | b'7' if header[156] == 0 && path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => {
                let (pieces, len) = match extended.sparse_len()? {
                    Some(len) => (sparse_map(&mut input)?, len),
                    None => (vec![(0, size)], size),
                };
                let content = spool_pieces(&mut input, &spool, offset, &pieces, len)?;
                offset += len;
                Kind::File(content)
            }
            b'S' => {
                let len = number(&header[483..495])?;
                let pieces = gnu_sparse_map(&header, input.archive)?;
                let content = spool_pieces(&mut input, &spool, offset, &pieces, len)?;
                offset += len;
                Kind::File(content)
            }
            b'1' => {
                input.finish(size)?;
                tree.link(&path, &target)?;
                continue;
            }
            b'2' => Kind::Symlink(target),
            b'3' => {
                let (major, minor) = device()?;
                Kind::CharacterDevice(major, minor)
            }
            b'4' => {
                let (major, minor) = device()?;
                Kind::BlockDevice(major, minor)
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let path = String::from_utf8_lossy(&path).into_owned();
                return Err(malformed(format!(
                    "{path}: an entry of type `{}`",
                    char::from(other).escape_default()
                )));
            }
        };
        // Links and directories have no data, whatever their size says; GNU tar passes over it too.
        input.finish(size)?;
        let seconds = i64::try_from(number(&header[136..148])?).unwrap_or(i64::MAX);
        let inode = Inode {
            kind,
            mode: (number(&header[100..108])? & 0o7777) as u16,
            uid: id(extended.uid, &header[108..116])?,
            gid: id(extended.gid, &header[116..124])?,
            mtime: extended.mtime.unwrap_or(Timestamp {
                seconds,
                nanoseconds: 0,
            }),
            xattrs: extended.xattrs,
        };
        tree.insert(&path, inode)?;
    }
    if entries == 0 {
        return Err(malformed("the archive has no entries"));
    }
    Ok(tree)
}

/// What an entry is to a layer of an OCI image.
enum Marker {
    /// A file.
    None,
    /// What AUFS keeps for itself at the top of a layer.
    Metadata,
    /// Something that it takes away from the layers below.
    Whiteout(Whiteout),
}

/// Tells whiteouts by their names (OCI image specification, layer.md, "Whiteouts"), which no other file may have.
fn whiteout(path: &[u8]) -> Result<Marker> {
    let path = clean(path)?;
    let mut components = path.split(|&byte| byte == b'/');
    let last = components.next_back().unwrap_or_default();
    let above = components.clone();
    let first = components.next().unwrap_or(last);
    if first.starts_with(b".wh..wh.") && first != b".wh..wh..opq" {
        return Ok(Marker::Metadata);
    }
    if above
        .into_iter()
        .any(|component| component.starts_with(b".wh."))
    {
        return Err(not_a_whiteout(&path, "it is in a directory of such a name"));
    }
    let directory = path
        .get(..path.len().saturating_sub(last.len() + 1))
        .unwrap_or_default();
    match last.strip_prefix(b".wh.") {
        None => Ok(Marker::None),
        Some(b".wh..opq") => Ok(Marker::Whiteout(Whiteout::Content(directory.to_vec()))),
        Some(b"" | b"." | b"..") => Err(not_a_whiteout(&path, "it names no file")),
        Some(name) if name.starts_with(b".wh.") => Err(not_a_whiteout(
            &path,
            "the OCI image specification has none of that name",
        )),
        Some(name) => {
            let hidden = match directory {
                b"" => name.to_vec(),
                _ => [directory, b"/", name].concat(),
            };
            Ok(Marker::Whiteout(Whiteout::Name(hidden)))
        }
    }
}

fn not_a_whiteout(path: &[u8], why: &str) -> Fault {
    malformed(String::from_utf8_lossy(path).escape_debug().to_string())
        .because(Cause::NOT_A_WHITEOUT.with(&[why]))
}

/// The data of an entry.
struct Entry<'a, R> {
    archive: &'a mut R,
    left: u64,
}

impl<R: Source> Entry<'_, R> {
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(buffer.len() as u64)
            .ok_or_else(longer)?;
        self.archive.read_exact(buffer).map_err(unreadable)
    }

    /// Passes over what is left of the data, and over what fills its last record.
    fn finish(&mut self, size: u64) -> Result<()> {
        let padding = size.next_multiple_of(RECORD as u64) - size;
        let left = self.left.saturating_add(padding);
        self.left = 0;
        self.archive.skip(left).map_err(unreadable)
    }

    /// Passes over data.
    fn skip(&mut self, len: u64) -> Result<()> {
        self.left = self.left.checked_sub(len).ok_or_else(longer)?;
        self.archive.skip(len).map_err(unreadable)
    }
}

fn longer() -> Fault {
    malformed("a sparse file whose map is longer than its data")
}

impl Extended {
    /// Reads records `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut records: &[u8]) -> Result<()> {
        let bad = || malformed("a malformed PAX record");
        while !records.is_empty() {
            let space = records
                .iter()
                .position(|&byte| byte == b' ')
                .ok_or_else(bad)?;
            let len = records
                .get(..space)
                .and_then(decimal)
                .and_then(|len| usize::try_from(len).ok())
                .ok_or_else(bad)?;
            let (record, rest) = records.split_at_checked(len).ok_or_else(bad)?;
            let record = record
                .get(space + 1..)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(bad)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(bad)?;
            let (key, value) = (
                record.get(..equals).unwrap_or_default(),
                record.get(equals + 1..).unwrap_or_default(),
            );
            self.set(key, value).ok_or_else(bad)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"uid" => self.uid = Some(u32::try_from(decimal(value)?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(decimal(value)?).ok()?),
            b"size" => self.size = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(timestamp(value)?),
            b"GNU.sparse.major" | b"GNU.sparse.minor" => {
                self.sparse_version.extend_from_slice(value)
            }
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.sparse_size = Some(decimal(value)?),
            // The forms 0.0 and 0.1 of sparse files, which have no version.
            b"GNU.sparse.size" | b"GNU.sparse.map" | b"GNU.sparse.numblocks" => {
                self.sparse_version = b"0".to_vec()
            }
            // ACLs as text (tar --acls, bsdtar). The mode's group bits are then the ACL's mask: without it the group could do more.
            b"SCHILY.acl.access" | b"SCHILY.acl.default" | b"SCHILY.acl.ace" => self.acl = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // libarchive, archive_write_set_format_pax.c: the name with `%` escapes, the value in base64.
                    let name = unescape(std::str::from_utf8(name).ok()?)?;
                    let value = std::str::from_utf8(value).ok()?.trim_end_matches('=');
                    self.xattrs
                        .insert(name, Base64Unpadded::decode_vec(value).ok()?);
                }
            }
        }
        Some(())
    }

    /// The length of the file if it is sparse.
    fn sparse_len(&self) -> Result<Option<u64>> {
        match (self.sparse_version.as_slice(), self.sparse_size) {
            (b"", _) => Ok(None),
            (b"10", Some(len)) => Ok(Some(len)),
            _ => Err(malformed("a sparse file").because(Cause::OLD_SPARSE_FORM)),
        }
    }
}

/// Reads the data of an extended header, padding included.
fn take(archive: &mut impl Read, size: u64) -> Result<Vec<u8>> {
    if size > MAX_EXTENDED {
        return Err(malformed(format!("an extended header of {size} bytes")));
    }
    let mut data = vec![0; size.next_multiple_of(RECORD as u64) as usize];
    archive.read_exact(&mut data).map_err(unreadable)?;
    data.truncate(size as usize);
    Ok(data)
}

/// The map at the beginning of a sparse file's data: the number of pieces and then the offset and length of each, in decimal
/// lines, filled up to a whole record.
fn sparse_map<R: Source>(entry: &mut Entry<'_, R>) -> Result<Vec<(u64, u64)>> {
    let bad = || malformed("a sparse file with a malformed map");
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut record = [0; RECORD];
    loop {
        entry.read_exact(&mut record)?;
        for &byte in &record {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            numbers.push(decimal(&line).ok_or_else(bad)?);
            line.clear();
            let pieces = numbers.first().copied().unwrap_or(0);
            if pieces > 1 << 24 {
                return Err(bad());
            }
            if numbers.len() as u64 == 2 * pieces + 1 {
                return Ok(numbers
                    .get(1..)
                    .unwrap_or_default()
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect());
            }
        }
        if line.len() > 20 {
            return Err(bad());
        }
    }
}

/// The map of GNU's own format: four pieces in the header, 21 in each record that follows.
fn gnu_sparse_map(header: &[u8; RECORD], archive: &mut impl Read) -> Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut add = |fields: &[u8]| -> Result<()> {
        for field in fields.chunks_exact(24) {
            if field[0] != 0 {
                pieces.push((number(&field[..12])?, number(&field[12..])?));
            }
        }
        Ok(())
    };
    add(&header[386..482])?;
    let mut more = header[482] != 0;
    let mut records = 0;
    while more {
        let mut record = [0; RECORD];
        archive.read_exact(&mut record).map_err(unreadable)?;
        add(&record[..504])?;
        more = record[504] != 0;
        records += 1;
        if records > 1 << 20 {
            return Err(malformed("a sparse file with a map without end"));
        }
    }
    Ok(pieces)
}

/// Takes the pieces of a file of `len` bytes; between them it is zero. If they cannot stay where they are, they are copied to the
/// spool, without those blocks that are all zeros.
fn spool_pieces<R: Source>(
    entry: &mut Entry<'_, R>,
    spool: &Arc<File>,
    offset: u64,
    pieces: &[(u64, u64)],
    len: u64,
) -> Result<Content> {
    let end = offset
        .checked_add(len)
        .ok_or_else(|| malformed("files of more than 2^64 bytes"))?;
    let stays = entry.archive.place().map(|(file, _)| Arc::clone(file));
    if stays.is_none() {
        // The length an archive announces costs nothing until there is data: the spool is sparse.
        spool.set_len(end).map_err(spool_error)?;
    }
    let mut buffer = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    for &(start, mut left) in pieces {
        if start.checked_add(left).is_none_or(|end| end > len) {
            return Err(malformed("a sparse file with a piece beyond its end"));
        }
        if runs.last().is_some_and(|last| start < last.end()) {
            return Err(malformed("a sparse file with pieces out of order"));
        }
        let from = match entry.archive.place() {
            Some((_, from)) => from,
            None => offset.saturating_add(start),
        };
        runs.push(Run {
            at: start,
            from,
            len: left,
        });
        if stays.is_some() {
            entry.skip(left)?;
            continue;
        }
        buffer.resize(PIECE, 0);
        let mut at = from;
        while left > 0 {
            let take = left.min(PIECE as u64);
            let piece = buffer.get_mut(..take as usize).unwrap_or_default();
            entry.read_exact(piece)?;
            for (block, place) in piece.chunks(4096).zip((at..).step_by(4096)) {
                if block.iter().any(|byte| *byte != 0) {
                    spool.write_all_at(block, place).map_err(spool_error)?;
                }
            }
            at += take;
            left -= take;
        }
    }
    Ok(Content::Mapped {
        file: stays.unwrap_or_else(|| Arc::clone(spool)),
        runs: runs.into(),
        len,
    })
}

/// The sum of the header's bytes, those of the sum itself taken as blanks. Some programs took the bytes as signed.
fn check_sum(header: &[u8; RECORD]) -> Result<()> {
    let bytes = || {
        header
            .iter()
            .enumerate()
            .map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte })
    };
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    let found = number(&header[148..156])
        .ok()
        .and_then(|sum| i64::try_from(sum).ok());
    if found == Some(unsigned) || found == Some(signed) {
        return Ok(());
    }
    Err(malformed(
        "no tar archive, or a damaged one: a header's checksum is wrong",
    ))
}

/// Octal digits, or the big-endian number that GNU tar writes after a byte of 0x80.
fn number(field: &[u8]) -> Result<u64> {
    let bad = || malformed("a malformed number in a header");
    if let Some((&first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // Negative ones, which only times can be, become zero.
        if first == 0xff {
            return Ok(0);
        }
        return rest
            .iter()
            .try_fold(u64::from(first & 0x7f), |number, &byte| {
                number.checked_mul(256)?.checked_add(u64::from(byte))
            })
            .ok_or_else(bad);
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 8).ok())
        .ok_or_else(bad)
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, perhaps negative.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // -1.25 is a quarter before -1.
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
        _ => Timestamp {
            seconds,
            nanoseconds,
        },
    })
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name in the header: POSIX puts what does not fit before it.
fn name(header: &[u8; RECORD]) -> Vec<u8> {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small archive with a PAX header, a file, a link and its end.
    fn sample() -> Vec<u8> {
        let mut tree = Tree::new();
        let mut file = Inode::new(
            Kind::File(Content::Bytes(Arc::from(&b"content"[..]))),
            0o644,
        );
        file.xattrs
            .insert(b"security.ima".to_vec(), b"\x03\n\0=".to_vec());
        tree.insert(b"a/file", file).unwrap();
        tree.link(b"a/link", b"a/file").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        crate::image::ImageBuilder::new(tree)
            .format(crate::image::Format::Tar)
            .build(&path)
            .unwrap();
        std::fs::read(path).unwrap()
    }

    /// Reads an archive as a stream and in place, which must make no difference.
    fn both(archive: &[u8]) -> Result<Tree> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, archive).unwrap();
        let stream = read(Stream(archive));
        let place = read(InPlace::new(file, archive.len() as u64));
        match (&stream, &place) {
            (Ok(one), Ok(other)) => {
                crate::image::tests::assert_same(other, one, "in place");
            }
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            _ => panic!("{stream:?} as a stream, {place:?} in place"),
        }
        stream
    }

    #[test]
    fn attributes_with_any_bytes() {
        let tree = read(Stream(&sample()[..])).unwrap();
        assert_eq!(
            tree.get(b"a/file").unwrap().xattrs[&b"security.ima"[..]],
            b"\x03\n\0="
        );
    }

    #[test]
    fn an_archive_cut_anywhere_is_no_archive() {
        let whole = sample();
        let end = whole.len() - 2 * RECORD;
        for len in (0..=end).step_by(256) {
            assert_eq!(
                read(Stream(&whole[..len])).unwrap_err().code(),
                Code::SourceMalformed,
                "{len} of {end}"
            );
        }
    }

    #[test]
    fn times() {
        for (text, seconds, nanoseconds) in [
            ("5", 5, 0),
            ("5.25", 5, 250_000_000),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
            ("1.0000000009", 1, 0),
        ] {
            assert_eq!(
                timestamp(text.as_bytes()),
                Some(Timestamp {
                    seconds,
                    nanoseconds
                }),
                "{text}"
            );
        }
        assert_eq!(timestamp(b"x"), None);
    }

    /// An entry of an archive: its type, name, PAX records and data.
    fn entry(kind: u8, name: &str, records: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
        let header = |kind: u8, name: &str, len: usize| {
            let mut header = [0; RECORD];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000644\0");
            header[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
            header[156] = kind;
            header[257..263].copy_from_slice(b"ustar\0");
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            header
        };
        let padded = |data: &[u8]| {
            let mut data = data.to_vec();
            data.resize(data.len().next_multiple_of(RECORD), 0);
            data
        };
        let mut archive = Vec::new();
        if !records.is_empty() {
            let mut data = Vec::new();
            for (key, value) in records {
                let rest = key.len() + value.len() + 3;
                // The length counts its own digits.
                let len = (rest + 1..)
                    .find(|len| rest + len.to_string().len() == *len)
                    .unwrap();
                data.extend_from_slice(format!("{len} {key}=").as_bytes());
                data.extend_from_slice(value);
                data.push(b'\n');
            }
            archive.extend(header(b'x', "pax", data.len()));
            archive.extend(padded(&data));
        }
        archive.extend(header(kind, name, data.len()));
        archive.extend(padded(data));
        archive
    }

    fn layer(entries: &[Vec<u8>]) -> Result<Tree> {
        let archive = [&entries.concat()[..], &[0; 2 * RECORD]].concat();
        both(&archive)
    }

    fn names(tree: &Tree) -> Vec<String> {
        let text = |(name, _): (&[u8], _)| String::from_utf8_lossy(name).into_owned();
        tree.names().skip(1).map(text).collect()
    }

    /// The examples of the OCI image specification, layer.md, "Whiteouts".
    #[test]
    fn whiteouts_take_away_what_is_below() {
        let base = || {
            let file = |name: &str| entry(b'0', name, &[], b"base");
            layer(&["a/b/c/bar", "a/b/d", "a/bx", "bin/my-app", "z"].map(file)).unwrap()
        };
        let file = |name: &str| entry(b'0', name, &[], b"");
        for (upper, expected) in [
            (
                vec![file("a/.wh.b")],
                vec!["a", "a/bx", "bin", "bin/my-app", "z"],
            ),
            // In whichever order: what the layer has itself is not hidden.
            (
                vec![file("a/b/c/foo"), file("a/.wh.b")],
                vec![
                    "a",
                    "a/b",
                    "a/b/c",
                    "a/b/c/foo",
                    "a/bx",
                    "bin",
                    "bin/my-app",
                    "z",
                ],
            ),
            (
                vec![file("a/.wh..wh..opq"), file("a/b/c/foo")],
                vec!["a", "a/b", "a/b/c", "a/b/c/foo", "bin", "bin/my-app", "z"],
            ),
            (vec![file(".wh..wh..opq"), file("new")], vec!["new"]),
            (
                vec![
                    file("./.wh.a"),
                    file(".wh.nosuch"),
                    file(".wh..wh.plnk/5.6"),
                    file(".wh..wh.aufs"),
                ],
                vec!["bin", "bin/my-app", "z"],
            ),
            // A hard link to another whiteout, as AUFS has it.
            (
                vec![file(".wh.a"), entry(b'1', "bin/.wh.my-app", &[], b"")],
                vec!["bin", "z"],
            ),
        ] {
            let mut tree = base();
            tree.overlay(layer(&upper).unwrap()).unwrap();
            assert_eq!(names(&tree), expected);
        }
        // Below the lowest layer there is nothing to take away.
        let lowest = layer(&[file("a/.wh.b"), file("c")]).unwrap();
        assert_eq!(names(&lowest), ["c"]);
    }

    #[test]
    fn what_is_named_as_a_whiteout_and_is_none_is_refused() {
        for (name, kind, data) in [
            ("a/.wh.b", b'0', &b"x"[..]),
            ("a/.wh.b", b'5', b""),
            ("a/.wh.b/c", b'0', b""),
            ("a/.wh.", b'0', b""),
            ("a/.wh..", b'0', b""),
            ("a/.wh...", b'0', b""),
            ("a/.wh..wh.other", b'0', b""),
        ] {
            let fault = layer(&[entry(kind, name, &[], data)]).unwrap_err();
            assert_eq!(fault.code(), Code::SourceMalformed, "{name}");
            assert!(fault.cause().contains("whiteouts"), "{fault}");
        }
    }

    #[test]
    fn attributes_as_libarchive_writes_them() {
        let tree = layer(&[entry(
            b'0',
            "file",
            &[
                ("LIBARCHIVE.xattr.security.ima", b"AwIEBQ"),
                ("LIBARCHIVE.xattr.user.a%20b%25", b"eA=="),
                ("SCHILY.xattr.user.c", b"plain"),
            ],
            b"",
        )])
        .unwrap();
        let xattrs = &tree.get(b"file").unwrap().xattrs;
        let value = |name: &str| xattrs.get(name.as_bytes()).map(Vec::as_slice);
        assert_eq!(value("security.ima"), Some(&[3, 2, 4, 5][..]));
        assert_eq!(value("user.a b%"), Some(&b"x"[..]));
        assert_eq!(value("user.c"), Some(&b"plain"[..]));
        assert_eq!(xattrs.len(), 3);
        for (key, value) in [
            ("LIBARCHIVE.xattr.user.a", &b"A"[..]),
            ("LIBARCHIVE.xattr.user.a", b"A*=="),
            ("LIBARCHIVE.xattr.user.a%2", b"eA=="),
            ("SCHILY.acl.access", b"user::rw-,group::r--,other::r--"),
        ] {
            let fault = layer(&[entry(b'0', "file", &[(key, value)], b"")]).unwrap_err();
            assert_eq!(fault.code(), Code::SourceMalformed, "{key}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(both(&bytes).is_err());
        }

        #[test]
        fn damaged_headers_never_panic(at in 0usize..512, value in any::<u8>(), record in 0usize..5) {
            let mut archive = sample();
            let start = record * RECORD;
            archive[start + at] = value;
            // A header with the right sum gets further than one without.
            let sum: u32 = archive[start..start + RECORD].iter().enumerate()
                .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte })).sum();
            archive[start + 148..start + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let _ = both(&archive);
        }

        /// No value of an attribute is changed on its way through base64.
        #[test]
        fn attributes_of_libarchive_round_trip(value in proptest::collection::vec(any::<u8>(), 0..200), padded: bool) {
            let mut text = Base64Unpadded::encode_string(&value);
            while padded && text.len() % 4 != 0 {
                text.push('=');
            }
            let records = [("LIBARCHIVE.xattr.user.a", text.as_bytes())];
            let tree = layer(&[entry(b'0', "file", &records, b"")]).unwrap();
            prop_assert_eq!(&tree.get(b"file").unwrap().xattrs[&b"user.a"[..]], &value);
        }

        /// A layer takes away what its whiteouts name and what is in it, and nothing else.
        #[test]
        fn whiteouts_take_away_nothing_else(below in proptest::collection::btree_set("[ab](/[ab]){0,3}", 1..12), hidden in "[ab](/[ab]){0,2}", opaque: bool) {
            let mut tree = Tree::new();
            for name in &below {
                tree.insert(name.as_bytes(), Inode::new(Kind::Directory, 0o755)).unwrap();
            }
            let before = names(&tree);
            let (above, last) = hidden.rsplit_once('/').unwrap_or(("", &hidden));
            let marker = match opaque {
                true => format!("{hidden}/.wh..wh..opq"),
                false => format!("{above}/.wh.{last}"),
            };
            tree.overlay(layer(&[entry(b'0', &marker, &[], b"")]).unwrap()).unwrap();
            let inside = format!("{hidden}/");
            let expected: Vec<String> = before
                .into_iter()
                .filter(|name| !name.starts_with(&inside) && (opaque || *name != hidden))
                .collect();
            prop_assert_eq!(names(&tree), expected);
        }
    }
}
