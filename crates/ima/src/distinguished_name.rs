//! Distinguished names as text (RFC 4514). x509-cert can write them too, but with the names of all attribute types that IANA has
//! registered: 110 KB in a program, of which certificates use a few.

use core::fmt::{self, Write as _};

use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Encode as _, Tag, Tagged as _};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::Name;

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

/// Displays a name as RFC 4514 writes it.
#[derive(Debug)]
pub(crate) struct DistinguishedName<'a>(pub(crate) &'a Name);

impl fmt::Display for DistinguishedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last one first (section 2.1).
        let relative: Vec<_> = self.0.iter_rdn().collect();
        for (index, attributes) in relative.iter().rev().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            for (index, attribute) in attributes.iter().enumerate() {
                if index > 0 {
                    f.write_char('+')?;
                }
                write_attribute(f, attribute)?;
            }
        }
        Ok(())
    }
}

fn write_attribute(f: &mut fmt::Formatter<'_>, attribute: &AttributeTypeAndValue) -> fmt::Result {
    let name = NAMES.iter().find(|(oid, _)| *oid == attribute.oid);
    if let (Some((_, name)), Some(text)) = (name, text(attribute)) {
        f.write_str(name)?;
        f.write_char('=')?;
        return write_escaped(f, text);
    }
    let value = attribute.value.to_der().or(Err(fmt::Error))?;
    write!(f, "{}=#{}", attribute.oid, crate::hex::encode(&value))
}

fn text(attribute: &AttributeTypeAndValue) -> Option<&str> {
    let value = &attribute.value;
    match value.tag() {
        Tag::PrintableString => PrintableStringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        Tag::Utf8String => Utf8StringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::TeletexString => TeletexStringRef::try_from(value)
            .ok()
            .map(|text| text.as_str()),
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
    use der::asn1::SetOfVec;
    use proptest::prelude::*;
    use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

    fn name(attributes: &[(ObjectIdentifier, &str)]) -> Name {
        let relative = attributes.iter().map(|(oid, text)| {
            let value = der::Any::from(Utf8StringRef::new(text).unwrap());
            let attribute = AttributeTypeAndValue { oid: *oid, value };
            RelativeDistinguishedName::from(SetOfVec::try_from(vec![attribute]).unwrap())
        });
        Name::hazmat_from_rdn_sequence(RdnSequence::from(relative.collect::<Vec<_>>()))
    }

    #[test]
    fn attribute_types_have_their_registered_names() {
        for (oid, short) in NAMES {
            let name = name(&[(oid, "x")]);
            assert_eq!(
                DistinguishedName(&name).to_string(),
                name.to_string(),
                "{short}"
            );
        }
    }

    proptest! {
        #[test]
        fn names_are_written_as_x509_cert_writes_them(texts in proptest::collection::vec((0..NAMES.len(), "[ #a\"+,;<>\\\\\\x00-\\x7fé]{0,5}"), 0..4)) {
            let attributes: Vec<_> = texts.iter().map(|(index, text)| (NAMES[*index].0, text.as_str())).collect();
            let name = name(&attributes);
            prop_assert_eq!(DistinguishedName(&name).to_string(), name.to_string());
        }
    }

    #[test]
    fn unknown_attribute_types_are_numbers() {
        let name = name(&[(ObjectIdentifier::new_unwrap("1.2.3"), "a")]);
        assert_eq!(DistinguishedName(&name).to_string(), "1.2.3=#0c0161");
    }
}
