//! Distinguished names as text (RFC 4514). x509-cert can write them too, but with the names of all attribute types that IANA has
//! registered: 110 KB in a program, of which certificates use a few.

use core::fmt::{self, Write as _};

use der::asn1::AnyRef;
use der::{Decode as _, Encode as _, Reader as _, Tag, Tagged as _};

use crate::asn1::{DerError, end, identifier, inner, whole};
use crate::oid::{COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT, ObjectIdentifier};

/// The attribute types that are written by name (RFC 4519; RFC 5280 appendix A.1). Others are written as their number.
const NAMES: [(ObjectIdentifier, &str); 19] = {
    const fn oid(number: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(number)
    }
    [
        (COMMON_NAME, "CN"),
        (oid("2.5.4.4"), "SN"),
        (oid("2.5.4.5"), "SERIALNUMBER"),
        (oid("2.5.4.6"), "C"),
        (oid("2.5.4.7"), "L"),
        (oid("2.5.4.8"), "ST"),
        (oid("2.5.4.9"), "STREET"),
        (ORGANIZATION, "O"),
        (ORGANIZATIONAL_UNIT, "OU"),
        (oid("2.5.4.12"), "TITLE"),
        (oid("2.5.4.17"), "POSTALCODE"),
        (oid("2.5.4.42"), "GN"),
        (oid("2.5.4.43"), "INITIALS"),
        (oid("2.5.4.44"), "GENERATIONQUALIFIER"),
        (oid("2.5.4.46"), "DNQUALIFIER"),
        (oid("2.5.4.65"), "PSEUDONYM"),
        (oid("0.9.2342.19200300.100.1.1"), "UID"),
        (oid("0.9.2342.19200300.100.1.25"), "DC"),
        (oid("1.2.840.113549.1.9.1"), "EMAIL"),
    ]
};

/// An attribute of a name.
#[derive(Debug)]
pub(crate) struct Attribute<'a> {
    /// Which of the name's sets it is in. Nearly every set has one attribute.
    set: usize,
    pub(crate) kind: ObjectIdentifier,
    pub(crate) value: AnyRef<'a>,
}

/// A name in DER, which is displayed as RFC 4514 writes it.
#[derive(Debug)]
pub(crate) struct DistinguishedName<'a>(pub(crate) &'a [u8]);

impl<'a> DistinguishedName<'a> {
    /// Its attributes, in the order of the name.
    ///
    /// # Errors
    ///
    /// What is not DER of a name.
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute<'a>>, DerError> {
        let mut sets = whole(self.0, Tag::Sequence)?;
        let mut attributes = Vec::new();
        for set in 0.. {
            if sets.is_finished() {
                break;
            }
            let mut members = inner(&mut sets, Tag::Set)?;
            while !members.is_finished() {
                let mut attribute = inner(&mut members, Tag::Sequence)?;
                let kind = identifier(&mut attribute)?;
                let value = AnyRef::decode(&mut attribute)?;
                end(attribute)?;
                attributes.push(Attribute { set, kind, value });
            }
        }
        Ok(attributes)
    }
}

impl fmt::Display for DistinguishedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attributes = self.attributes().or(Err(fmt::Error))?;
        // The last set first (section 2.1).
        let sets = attributes.chunk_by(|one, next| one.set == next.set);
        for (index, set) in sets.rev().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            for (index, attribute) in set.iter().enumerate() {
                if index > 0 {
                    f.write_char('+')?;
                }
                write_attribute(f, attribute)?;
            }
        }
        Ok(())
    }
}

fn write_attribute(f: &mut fmt::Formatter<'_>, attribute: &Attribute<'_>) -> fmt::Result {
    let name = NAMES.iter().find(|(oid, _)| *oid == attribute.kind);
    if let (Some((_, name)), Some(text)) = (name, text(attribute)) {
        f.write_str(name)?;
        f.write_char('=')?;
        return write_escaped(f, text);
    }
    let value = attribute.value.to_der().or(Err(fmt::Error))?;
    write!(f, "{}=#{}", attribute.kind, crate::hex::encode(&value))
}

fn text<'a>(attribute: &Attribute<'a>) -> Option<&'a str> {
    let value = attribute.value;
    let text = std::str::from_utf8(value.value()).ok()?;
    match value.tag() {
        Tag::Utf8String => Some(text),
        // These have letters of ASCII alone, some more and some fewer.
        Tag::PrintableString | Tag::Ia5String | Tag::TeletexString if text.is_ascii() => Some(text),
        _ => None,
    }
}

/// Escapes what RFC 4514 section 2.4 lists.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        match character {
            '#' if index == 0 => f.write_str("\\#")?,
            ' ' if index == 0 || characters.peek().is_none() => f.write_str("\\ ")?,
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{character}")?,
            '\x00'..='\x1f' | '\x7f' => write!(f, "\\{:02x}", u32::from(character))?,
            _ => f.write_char(character)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::asn1::{SetOfVec, Utf8StringRef};
    use proptest::prelude::*;
    use x509_cert::attr::AttributeTypeAndValue;
    use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

    fn name(attributes: &[(ObjectIdentifier, &str)]) -> Name {
        let relative = attributes.iter().map(|(oid, text)| {
            let value = der::Any::from(Utf8StringRef::new(text).unwrap());
            let attribute = AttributeTypeAndValue { oid: *oid, value };
            RelativeDistinguishedName::from(SetOfVec::try_from(vec![attribute]).unwrap())
        });
        Name::hazmat_from_rdn_sequence(RdnSequence::from(relative.collect::<Vec<_>>()))
    }

    fn written(name: &Name) -> String {
        DistinguishedName(&name.to_der().unwrap()).to_string()
    }

    #[test]
    fn attribute_types_have_their_registered_names() {
        for (oid, short) in NAMES {
            let name = name(&[(oid, "x")]);
            assert_eq!(written(&name), name.to_string(), "{short}");
        }
    }

    proptest! {
        #[test]
        fn names_are_written_as_x509_cert_writes_them(texts in proptest::collection::vec((0..NAMES.len(), "[ #a\"+,;<>\\\\\\x00-\\x7fé]{0,5}"), 0..4)) {
            let attributes: Vec<_> = texts.iter().map(|(index, text)| (NAMES[*index].0, text.as_str())).collect();
            let name = name(&attributes);
            prop_assert_eq!(written(&name), name.to_string());
        }
    }

    #[test]
    fn unknown_attribute_types_are_numbers() {
        let name = name(&[(ObjectIdentifier::new_unwrap("1.2.3"), "a")]);
        assert_eq!(written(&name), "1.2.3=#0c0161");
    }
}
