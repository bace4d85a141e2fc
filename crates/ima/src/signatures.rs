//! The signatures of another initramfs's programs, which its archive cannot carry as attributes: `imactl initramfs signatures`
//! writes the list, and the init puts it onto the files once they are on a tmpfs.
//!
//! The list is text. Its first line is `ima-init signatures 1`; each further line is a regular file:
//!
//! ```text
//! 030204c0ffee... - usr/bin/busybox
//! 030204c0ffee... 050204c0ffee... usr/lib/x86_64-linux-gnu/libc.so.6
//! ```
//!
//! First the value of `security.ima`, then that of `security.evm` or `-`, both in hexadecimal; then the path, relative to the
//! root of the initramfs. In a path, a percent sign and every byte that is not a visible ASCII character stand as `%25`, `%0a`.
//! The lines are sorted by path, and each path stands once.

use core::fmt;
use std::collections::BTreeMap;

use crate::hex;
use crate::signature::ImaXattr;

/// The longest list that is read, in bytes: 30 000 files with RSA-4096 signatures.
pub const MAX_LIST: usize = 32 << 20;

/// The most files of a list.
pub const MAX_FILES: usize = 1 << 16;

/// The longest value of an attribute in a list, in bytes.
pub const MAX_VALUE: usize = 8192;

/// The longest path, in bytes: PATH_MAX.
const MAX_PATH: usize = 4096;

const HEADER: &str = "ima-init signatures 1";

/// The attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The value of `security.ima`: a signature of the content.
    pub ima: Vec<u8>,
    /// The value of `security.evm`: a portable signature.
    pub evm: Option<Vec<u8>>,
}

/// A list: attributes by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signatures {
    files: BTreeMap<Vec<u8>, Attributes>,
}

/// Why a list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignaturesError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, as a phrase.
    pub why: &'static str,
}

impl fmt::Display for SignaturesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for SignaturesError {}

impl Signatures {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// The first line that is not exactly as described.
    pub fn parse(text: &[u8]) -> Result<Self, SignaturesError> {
        let wrong = |line: usize, why| SignaturesError { line, why };
        if text.len() > MAX_LIST {
            return Err(wrong(1, "the list is longer than 32 MiB"));
        }
        let text = text
            .strip_suffix(b"\n")
            .ok_or(wrong(1, "the list does not end with a newline"))?;
        let mut lines = (1_usize..).zip(text.split(|&byte| byte == b'\n'));
        if lines
            .next()
            .is_none_or(|(_, line)| line != HEADER.as_bytes())
        {
            return Err(wrong(1, "it is not `ima-init signatures 1`"));
        }
        let mut files = BTreeMap::new();
        for (number, line) in lines {
            let (path, attributes) = file(line).map_err(|why| wrong(number, why))?;
            if files
                .last_key_value()
                .is_some_and(|(last, _)| *last >= path)
            {
                return Err(wrong(number, "the paths are not sorted"));
            }
            if files.len() == MAX_FILES {
                return Err(wrong(number, "there are more than 65536 files"));
            }
            files.insert(path, attributes);
        }
        Ok(Self { files })
    }

    /// The list as text, which [`Signatures::parse`] reads back.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (path, attributes) in &self.files {
            text.push_str(&hex::encode(&attributes.ima));
            text.push(' ');
            match &attributes.evm {
                Some(evm) => text.push_str(&hex::encode(evm)),
                None => text.push('-'),
            }
            text.push(' ');
            text.push_str(&escape(path));
            text.push('\n');
        }
        text
    }

    /// Adds a file by its path relative to the root of the initramfs, without a leading slash.
    pub fn insert(&mut self, path: Vec<u8>, attributes: Attributes) {
        self.files.insert(path, attributes);
    }

    /// The attributes of the file at that path.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<&Attributes> {
        self.files.get(path)
    }

    /// The files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = (&[u8], &Attributes)> {
        self.files
            .iter()
            .map(|(path, attributes)| (path.as_slice(), attributes))
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn file(line: &[u8]) -> Result<(Vec<u8>, Attributes), &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (Some(ima), Some(evm), Some(escaped), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("it is not three fields with one space between them");
    };
    let ima = unhex(ima).ok_or("security.ima is not hexadecimal, or too long")?;
    if !matches!(
        ImaXattr::parse(&ima),
        Ok(ImaXattr::Signature(_) | ImaXattr::SignatureV3(_))
    ) {
        return Err("security.ima is not a signature of a file");
    }
    let evm = match evm {
        b"-" => None,
        evm => Some(unhex(evm).ok_or("security.evm is not hexadecimal, or too long")?),
    };
    if let Some(evm) = &evm
        && !matches!(
            ImaXattr::parse(evm),
            Ok(ImaXattr::EvmPortable(_) | ImaXattr::EvmPortableV3(_))
        )
    {
        return Err("security.evm is not a portable signature");
    }
    let path = unescape(escaped).ok_or("the path is not escaped as it must be")?;
    if !is_inside(&path) {
        return Err("the path is not one inside the initramfs");
    }
    Ok((path, Attributes { ima, evm }))
}

/// Whether it is a relative path without `.` and `..`.
fn is_inside(path: &[u8]) -> bool {
    path.len() <= MAX_PATH
        && !path.contains(&0)
        && path
            .split(|&byte| byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b".."))
}

/// The bytes of lower-case digits: each value has one form.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty()
        || text.len() > MAX_VALUE.saturating_mul(2)
        || text.iter().any(u8::is_ascii_uppercase)
    {
        return None;
    }
    hex::decode(text)
}

fn escape(path: &[u8]) -> String {
    let mut text = String::new();
    for byte in path {
        match byte {
            b'%' | ..=b' ' | 0x7f.. => {
                text.push('%');
                text.push_str(&hex::encode(&[*byte]));
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            path.extend(unhex(digits)?);
            rest = after;
        } else {
            path.push(*byte);
        }
    }
    // Each path has one form.
    (escape(&path).as_bytes() == text).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A signature of no file.
    const IMA: &str = "030204aabbccdd0002beef";
    const EVM: &str = "050204aabbccdd0002beef";

    fn parsed(lines: &str) -> Result<Signatures, &'static str> {
        Signatures::parse(format!("{HEADER}\n{lines}").as_bytes()).map_err(|error| error.why)
    }

    #[test]
    fn a_list_is_read() {
        let list = parsed(&format!("{IMA} - bin/a%20b\n{IMA} {EVM} usr/bin/busybox\n")).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list.get(b"bin/a b").unwrap().evm, None);
        assert_eq!(list.get(b"usr/bin/busybox").unwrap().ima[..3], [3, 2, 4]);
        assert!(list.get(b"/usr/bin/busybox").is_none());
        assert!(parsed("").unwrap().is_empty());
    }

    #[test]
    fn lists_that_are_refused() {
        for (lines, why) in [
            (format!("{IMA} - a"), "newline"),
            (format!("{IMA} - a\n\n"), "three fields"),
            (format!("{IMA} a\n"), "three fields"),
            (format!("{IMA} - a b\n"), "three fields"),
            (format!("{IMA}  - a\n"), "three fields"),
            (format!("{IMA} - /a\n"), "inside the initramfs"),
            (format!("{IMA} - a/../b\n"), "inside the initramfs"),
            (format!("{IMA} - a//b\n"), "inside the initramfs"),
            (format!("{IMA} - a/./b\n"), "inside the initramfs"),
            (format!("{IMA} - a%00\n"), "inside the initramfs"),
            (format!("{IMA} - \n"), "inside the initramfs"),
            (
                format!("{IMA} - {}\n", "a".repeat(4097)),
                "inside the initramfs",
            ),
            (format!("{IMA} - %61\n"), "escaped"),
            (format!("{IMA} - a%2F\n"), "escaped"),
            (format!("{IMA} - a%2\n"), "escaped"),
            (format!("{IMA} - a\u{e9}\n"), "escaped"),
            (format!("{IMA} - b\n{IMA} - a\n"), "sorted"),
            (format!("{IMA} - a\n{IMA} - a\n"), "sorted"),
            (format!("{} - a\n", IMA.to_uppercase()), "hexadecimal"),
            (format!("{}0 - a\n", IMA), "hexadecimal"),
            (format!("{} - a\n", "00".repeat(MAX_VALUE + 1)), "too long"),
            ("- - a\n".to_owned(), "hexadecimal"),
            ("0401aa - a\n".to_owned(), "not a signature of a file"),
            (format!("{EVM} - a\n"), "not a signature of a file"),
            (format!("{IMA} {IMA} a\n"), "not a portable signature"),
        ] {
            let error = parsed(&lines).unwrap_err();
            assert!(error.contains(why), "{lines}: {error}");
        }
        for text in ["", "\n", "ima-init signatures 2\n", "ima-init signatures 1"] {
            assert_eq!(Signatures::parse(text.as_bytes()).unwrap_err().line, 1);
        }
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        let name = proptest::collection::vec(1_u8.., 1..8)
            .prop_map(|name| {
                name.into_iter()
                    .map(|byte| if byte == b'/' { b'_' } else { byte })
                    .collect()
            })
            .prop_filter("a name", |name: &Vec<u8>| {
                !matches!(name.as_slice(), b"." | b"..")
            });
        proptest::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
    }

    fn value(first: u8) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..40).prop_map(move |signature| {
            let length = u16::try_from(signature.len()).unwrap().to_be_bytes();
            [&[first, 2, 4, 1, 2, 3, 4][..], &length, &signature].concat()
        })
    }

    proptest! {
        #[test]
        fn every_list_round_trips(
            files in proptest::collection::vec((path(), value(3), proptest::option::of(value(5))), 0..8)
        ) {
            let mut list = Signatures::default();
            for (path, ima, evm) in files {
                list.insert(path, Attributes { ima, evm });
            }
            prop_assert_eq!(Signatures::parse(list.to_text().as_bytes()), Ok(list));
        }

        #[test]
        fn hostile_bytes_are_refused_or_are_exactly_a_list(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            line in "(0302[0-9a-f]{0,12}|030204aabbccdd0002beef) (-|0502[0-9a-f]{0,20}) [a-z%/. 0-9]{0,12}\n{0,2}",
        ) {
            prop_assert!(Signatures::parse(&bytes).is_err());
            let text = format!("{HEADER}\n{line}");
            if let Ok(list) = Signatures::parse(text.as_bytes()) {
                prop_assert_eq!(list.to_text(), text);
                for (path, attributes) in list.files() {
                    prop_assert!(is_inside(path) && attributes.ima.len() <= MAX_VALUE);
                }
            }
        }
    }
}
