//! Headers of RPM packages: an index of tags with their values (rpm's docs/manual/format_header.md, lib/header.c).
//!
//! The crate `rpm` reads them too, but it trusts the offsets and lengths in them, and a damaged package makes it panic.

use std::collections::BTreeMap;

/// What a header begins with, and then four bytes that are reserved.
const MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// The length of the fixed part, and of each entry of the index.
pub(super) const FIXED: usize = 16;
/// The most entries, and bytes of values, that rpm takes (lib/header.c, `hdrchkTags`, `hdrchkData`).
const MAX_TAGS: usize = 0xffff;
const MAX_DATA: usize = 0x0fff_ffff;
/// The signature header ends at a multiple of so many bytes of the file.
const ALIGNMENT: usize = 8;

const INT32: u32 = 4;
const BIN: u32 = 7;
const STRING_ARRAY: u32 = 8;

/// A tag's value, as the header holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    kind: u32,
    count: u32,
    bytes: Vec<u8>,
}

/// A header: values by tag, without the tag of its region, which says only where the header ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    values: BTreeMap<u32, Value>,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It does not begin as a header does.
    #[error("there is no header where one should be")]
    Magic,
    /// It is longer than the file, or than rpm allows.
    #[error("the header is cut off, or longer than rpm allows")]
    Length,
    /// A value that is not within the header, of an unknown type, or without its end.
    #[error("the value of tag {0} is not within the header")]
    Value(u32),
    /// A tag twice.
    #[error("tag {0} is there twice")]
    Twice(u32),
}

impl Header {
    /// Reads the header at the beginning of `bytes`, whose region has the tag `region`; also how long it is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], region: u32) -> Result<(Self, usize), HeaderError> {
        let length = Self::length(bytes)?;
        let (tags, _) = numbers(bytes)?;
        let whole = bytes.get(..length).ok_or(HeaderError::Length)?;
        let index = whole.get(FIXED..FIXED * (1 + tags)).unwrap_or_default();
        let data = whole.get(FIXED * (1 + tags)..).unwrap_or_default();
        let mut values = BTreeMap::new();
        for entry in index.chunks_exact(FIXED) {
            let [tag, kind, offset, count] = [0, 4, 8, 12].map(|at| number(entry, at).unwrap_or(0));
            if tag == region {
                continue;
            }
            let bytes = usize::try_from(offset)
                .ok()
                .and_then(|offset| data.get(offset..))
                .and_then(|rest| rest.get(..value_length(kind, count, rest)?))
                .ok_or(HeaderError::Value(tag))?;
            let value = Value {
                kind,
                count,
                bytes: bytes.to_vec(),
            };
            if values.insert(tag, value).is_some() {
                return Err(HeaderError::Twice(tag));
            }
        }
        Ok((Self { values }, length))
    }

    /// How long the header at the beginning of `bytes` is, of which the first 16 are enough.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Magic`], [`HeaderError::Length`].
    pub fn length(bytes: &[u8]) -> Result<usize, HeaderError> {
        let (tags, data) = numbers(bytes)?;
        Ok(FIXED * (1 + tags) + data)
    }

    /// The bytes of zeros that follow a signature header of this length.
    #[must_use]
    pub const fn padding(length: usize) -> usize {
        length.wrapping_neg() % ALIGNMENT
    }

    /// The header as rpm writes it, with a region that spans it (lib/header.c, `headerExport`).
    #[must_use]
    pub fn encode(&self, region: u32) -> Vec<u8> {
        let tags = self.values.len() + 1;
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for (tag, value) in &self.values {
            let alignment = alignment(value.kind);
            data.resize(data.len().next_multiple_of(alignment), 0);
            index.extend(entry(*tag, value.kind, narrow(data.len()), value.count));
            data.extend(&value.bytes);
        }
        // The region's value is an entry too, whose offset leads back to the begin of the index.
        let back = narrow(tags * FIXED).wrapping_neg();
        let of_region = entry(region, BIN, narrow(data.len()), narrow(FIXED));
        data.extend(entry(region, BIN, back, narrow(FIXED)));
        [
            &MAGIC[..],
            &[0; 4],
            &narrow(tags).to_be_bytes(),
            &narrow(data.len()).to_be_bytes(),
            &of_region,
            &index,
            &data,
        ]
        .concat()
    }

    /// Whether it has a tag.
    #[must_use]
    pub fn has(&self, tag: u32) -> bool {
        self.values.contains_key(&tag)
    }

    /// An array of strings, which need not be UTF-8; nothing if there is no such tag, or it has another type.
    #[must_use]
    pub fn strings(&self, tag: u32) -> Option<Vec<&[u8]>> {
        let value = self.of_kind(tag, STRING_ARRAY)?;
        let whole = value.bytes.strip_suffix(&[0]).unwrap_or(&value.bytes);
        if value.count == 0 {
            return Some(Vec::new());
        }
        Some(whole.split(|byte| *byte == 0).collect())
    }

    /// An array of numbers of 16 or 32 bits; nothing if there is no such tag, or it has another type.
    #[must_use]
    pub fn numbers(&self, tag: u32) -> Option<Vec<u32>> {
        let value = self.values.get(&tag)?;
        match alignment(value.kind) {
            2 => Some(
                value
                    .bytes
                    .chunks_exact(2)
                    .filter_map(|bytes| Some(u16::from_be_bytes(*bytes.first_chunk()?).into()))
                    .collect(),
            ),
            4 => Some(
                value
                    .bytes
                    .chunks_exact(4)
                    .filter_map(|bytes| number(bytes, 0))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Puts an array of strings in, in the place of what the tag had. A string ends at a zero byte, and must have none in it.
    pub fn set_strings<'a>(&mut self, tag: u32, strings: impl IntoIterator<Item = &'a [u8]>) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for string in strings {
            bytes.extend(string);
            bytes.push(0);
            count += 1;
        }
        self.set(tag, STRING_ARRAY, count, bytes);
    }

    /// Puts a number in, in the place of what the tag had.
    pub fn set_number(&mut self, tag: u32, number: u32) {
        self.set(tag, INT32, 1, number.to_be_bytes().to_vec());
    }

    fn set(&mut self, tag: u32, kind: u32, count: u32, bytes: Vec<u8>) {
        self.values.insert(tag, Value { kind, count, bytes });
    }

    fn of_kind(&self, tag: u32, kind: u32) -> Option<&Value> {
        self.values.get(&tag).filter(|value| value.kind == kind)
    }
}

/// How many tags a header has, and bytes of values.
fn numbers(bytes: &[u8]) -> Result<(usize, usize), HeaderError> {
    if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
        return Err(HeaderError::Magic);
    }
    let size = |at| number(bytes, at).and_then(|number| usize::try_from(number).ok());
    match (size(8), size(12)) {
        (Some(tags), Some(data)) if tags <= MAX_TAGS && data <= MAX_DATA => Ok((tags, data)),
        _ => Err(HeaderError::Length),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Lengths are bounded where they are read, and the values that are put in are far smaller.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn entry(tag: u32, kind: u32, offset: u32, count: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    for (place, number) in bytes.chunks_exact_mut(4).zip([tag, kind, offset, count]) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// The length of one of a value's items, at a multiple of which the value begins; 1 for strings and bytes.
const fn alignment(kind: u32) -> usize {
    match kind {
        3 => 2,
        INT32 => 4,
        5 => 8,
        _ => 1,
    }
}

/// How many bytes of `rest` a value has; nothing for an unknown type, or for a string without its end.
fn value_length(kind: u32, count: u32, rest: &[u8]) -> Option<usize> {
    let count = usize::try_from(count).ok()?;
    let strings = match kind {
        0 => return Some(0),
        1..=5 | BIN => return count.checked_mul(alignment(kind)),
        6 => 1,
        STRING_ARRAY | 9 => count,
        _ => return None,
    };
    let mut ends = (1..).zip(rest).filter(|(_, byte)| **byte == 0);
    match strings.checked_sub(1) {
        None => Some(0),
        Some(others) => ends.nth(others).map(|(length, _)| length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGION: u32 = 62;

    fn sample() -> Header {
        let mut header = Header::default();
        header.set(1004, BIN, 3, vec![1, 2, 3]);
        header.set(1007, 3, 2, vec![0, 1, 0, 2]);
        header.set_number(1000, 77);
        header.set_strings(274, [&b"ab"[..], b"", b"c"]);
        header.set(100, 6, 1, b"C\0".to_vec());
        header
    }

    #[test]
    fn what_is_written_is_read() {
        let header = sample();
        let bytes = header.encode(REGION);
        let (read, length) = Header::parse(&bytes, REGION).unwrap();
        assert_eq!((read, length), (header, bytes.len()));
        let (read, _) = Header::parse(&bytes, REGION).unwrap();
        assert_eq!(read.strings(274).unwrap(), [&b"ab"[..], b"", b"c"]);
        assert_eq!(read.numbers(1000).unwrap(), [77]);
        assert_eq!(read.numbers(1007).unwrap(), [1, 2]);
        assert_eq!(read.strings(1000), None);
        assert_eq!(read.numbers(1004), None);
        assert!(read.has(1004) && !read.has(1005));
    }

    #[test]
    fn arrays_without_strings() {
        let mut header = Header::default();
        header.set_strings(1, []);
        header.set_strings(2, [&b""[..]]);
        let (read, _) = Header::parse(&header.encode(REGION), REGION).unwrap();
        assert_eq!(read.strings(1).unwrap(), [&b""[..]; 0]);
        assert_eq!(read.strings(2).unwrap(), [b""]);
    }

    #[test]
    fn the_signature_header_is_padded() {
        assert_eq!([16, 17, 23, 24].map(Header::padding), [0, 7, 1, 0]);
    }

    #[test]
    fn damaged_headers() {
        let bytes = sample().encode(REGION);
        let parse = |bytes: &[u8]| Header::parse(bytes, REGION).unwrap_err();
        assert_eq!(parse(&bytes[1..]), HeaderError::Magic);
        assert_eq!(parse(&bytes[..bytes.len() - 1]), HeaderError::Length);
        assert_eq!(parse(&bytes[..12]), HeaderError::Length);
        let changed = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(parse(&changed(8, 1)), HeaderError::Length);
        assert_eq!(parse(&changed(12, 0x7f)), HeaderError::Length);
        // The type, the offset and the count of the first tag that is not the region's.
        let first = FIXED * 2;
        assert_eq!(parse(&changed(first + 7, 99)), HeaderError::Value(100));
        assert_eq!(parse(&changed(first + 8, 0x80)), HeaderError::Value(100));
        // Tag 274 is called 100.
        let mut twice = bytes.clone();
        twice.copy_within(first..first + 4, first + FIXED);
        assert_eq!(parse(&twice), HeaderError::Twice(100));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..300), tags in 0u32..20, data in 0u32..300) {
            let head = [&MAGIC[..], &[0; 4], &tags.to_be_bytes(), &data.to_be_bytes()].concat();
            let bytes = [head, bytes].concat();
            if let Ok((header, length)) = Header::parse(&bytes, REGION) {
                prop_assert!(length <= bytes.len());
                let encoded = header.encode(REGION);
                let (again, length) = Header::parse(&encoded, REGION).unwrap();
                prop_assert_eq!(length, encoded.len());
                prop_assert_eq!(again, header);
            }
        }
    }
}
