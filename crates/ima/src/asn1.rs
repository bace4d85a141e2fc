//! Reading DER element by element.
//!
//! The decoders that x509-cert and cms derive for whole structures are several times as large as the init's readers of what it needs
//! of them. None of these functions is inlined, for the same reason.

use core::fmt;

use der::asn1::AnyRef;
use der::{Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

use crate::oid::ObjectIdentifier;

/// Why bytes are not the DER that is expected.
///
/// It is one pointer, because reading an element may return it: an error of der is a dozen numbers, which each caller moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerError(Box<der::Error>);

impl From<der::Error> for DerError {
    #[cold]
    #[inline(never)]
    fn from(error: der::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for DerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DerError {}

/// The tag `[number]` of a constructed element.
pub(crate) const fn context(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    }
}

/// The content of the one element that the bytes are.
#[inline(never)]
pub(crate) fn whole(bytes: &[u8], tag: Tag) -> Result<SliceReader<'_>, DerError> {
    let mut reader = SliceReader::new(bytes)?;
    let content = inner(&mut reader, tag)?;
    end(reader)?;
    Ok(content)
}

/// The content of the next element, to be read.
#[inline(never)]
pub(crate) fn inner<'a>(
    reader: &mut SliceReader<'a>,
    tag: Tag,
) -> Result<SliceReader<'a>, DerError> {
    Ok(SliceReader::new(element(reader, tag)?)?)
}

/// The content of the next element, which must have this tag.
#[inline(never)]
pub(crate) fn element<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> Result<&'a [u8], DerError> {
    let element = AnyRef::decode(reader)?;
    element.tag().assert_eq(tag)?;
    Ok(element.value())
}

/// The content of the next element if it has this tag; the reader stays before another one.
#[inline(never)]
pub(crate) fn optional<'a>(
    reader: &mut SliceReader<'a>,
    tag: Tag,
) -> Result<Option<&'a [u8]>, DerError> {
    match next_is(reader, tag) {
        true => element(reader, tag).map(Some),
        false => Ok(None),
    }
}

/// Whether the next element has this tag.
#[inline(never)]
pub(crate) fn next_is(reader: &SliceReader<'_>, tag: Tag) -> bool {
    Tag::peek(reader).is_ok_and(|next| next == tag)
}

/// The identifier of an algorithm, whose parameters are passed over.
#[inline(never)]
pub(crate) fn algorithm(reader: &mut SliceReader<'_>) -> Result<ObjectIdentifier, DerError> {
    identifier(&mut inner(reader, Tag::Sequence)?)
}

/// The next object identifier.
#[inline(never)]
pub(crate) fn identifier(reader: &mut SliceReader<'_>) -> Result<ObjectIdentifier, DerError> {
    Ok(ObjectIdentifier::decode(reader)?)
}

/// The next element, with its header.
#[inline(never)]
pub(crate) fn with_header<'a>(reader: &mut SliceReader<'a>) -> Result<&'a [u8], DerError> {
    Ok(reader.tlv_bytes()?)
}

/// Requires that everything was read.
#[inline(never)]
pub(crate) fn end(reader: SliceReader<'_>) -> Result<(), DerError> {
    Ok(reader.finish()?)
}
