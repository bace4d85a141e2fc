//! The block of a PEM file that holds the private key.

use ima::fault::{Code, Fault};

/// The fault of a private key that cannot be read.
pub(super) fn malformed(detail: impl Into<String>) -> Fault {
    Fault::new(Code::PrivateKeyMalformed, detail)
}

/// The first private key of a PEM file, from its BEGIN to its END line.
pub(super) fn private_key_pem(bytes: &[u8]) -> Option<&str> {
    // Text around PEM blocks may be anything; the block itself is ASCII.
    let mut rest = bytes;
    loop {
        let begin = find(rest, b"-----BEGIN ")?;
        rest = rest.get(begin..)?;
        let line_len = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(rest.len());
        let line = rest.get(..line_len)?.trim_ascii_end();
        let end = find(rest, b"-----END ").unwrap_or(rest.len());
        let end_len = rest
            .get(end..)?
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(rest.len() - end);
        let block = rest.get(..end + end_len)?;
        if line.ends_with(b"PRIVATE KEY-----") {
            return std::str::from_utf8(block).ok();
        }
        rest = rest.get(block.len()..)?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
