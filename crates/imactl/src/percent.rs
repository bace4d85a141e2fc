//! Bytes as text in which some stand as `%` and two hexadecimal digits (RFC 3986, section 2.1).

use ima::hex;

/// A path as text: `%` and what is not UTF-8 stand as `%` and two hexadecimal digits.
pub(crate) fn escape(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push('%');
            text.push_str(&hex::encode(&[*byte]));
        }
    }
    text
}

/// The bytes of a text in which some stand as `%` and two hexadecimal digits.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend(hex::decode(after.get(..2)?)?);
        rest = after.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_escaped_is_the_same_when_it_is_unescaped(path: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&path)), Some(path));
        }

        #[test]
        fn a_percent_sign_needs_two_digits(before in "[^%]{0,8}", after in "|[0-9a-f]|[g-z][0-9a-f]|[0-9a-f][g-z]") {
            prop_assert_eq!(unescape(&format!("{before}%{after}")), None);
        }
    }
}
