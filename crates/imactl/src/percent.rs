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
