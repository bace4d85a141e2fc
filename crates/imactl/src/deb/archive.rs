//! The container of Debian packages: ar archives in the common form, as deb(5) describes it.

use std::fs::File;
use std::io::{Error, Read};
use std::os::unix::fs::FileExt as _;

use ima::fault::{Code, Fault};

use crate::Result;

/// How an archive begins.
pub const MAGIC: &[u8; 8] = b"!<arch>\n";
/// The length of a member's header.
const HEADER: usize = 60;
/// The most members that are read; packages have three or four.
const MAX_MEMBERS: usize = 64;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its header as it stands in the file.
    pub header: [u8; HEADER],
    /// Where its content begins, in bytes from the beginning of the archive.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Member {
    /// Reads its content.
    pub fn content<'a>(&self, file: &'a File) -> impl Read + use<'a> {
        Content {
            file,
            offset: self.offset,
            left: self.len,
        }
    }
}

struct Content<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self
            .file
            .read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.offset)?;
        self.offset = self.offset.saturating_add(count as u64);
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// The members of an archive.
///
/// # Errors
///
/// [`Code::InputUnreadable`], [`Code::PackageMalformed`] for what is not an archive in the common form: another beginning, a
/// header that is none, a member that is longer than the file, more than 64 members.
pub fn members(file: &File) -> Result<Vec<Member>> {
    let unreadable = |error: Error| Fault::new(Code::InputUnreadable, error.to_string());
    let len = file.metadata().map_err(unreadable)?.len();
    parse(len, |buffer, offset| file.read_exact_at(buffer, offset))
}

fn parse(len: u64, read: impl Fn(&mut [u8], u64) -> std::io::Result<()>) -> Result<Vec<Member>> {
    let wrong = |why: &str| Fault::new(Code::PackageMalformed, why);
    let mut magic = [0; MAGIC.len()];
    if len < MAGIC.len() as u64 || read(&mut magic, 0).is_err() || magic != *MAGIC {
        return Err(wrong("it does not begin as an ar archive does"));
    }
    let mut members = Vec::new();
    let mut offset = MAGIC.len() as u64;
    while offset < len {
        if members.len() == MAX_MEMBERS {
            return Err(wrong("more members than any package has"));
        }
        let mut header = [0; HEADER];
        read(&mut header, offset).map_err(|_| wrong("it ends in the middle of a header"))?;
        let [field @ .., b'`', b'\n'] = header.as_slice() else {
            return Err(wrong("a member's header does not end as one does"));
        };
        let text = |from: usize, to: usize| {
            std::str::from_utf8(field.get(from..to).unwrap_or_default())
                .map(str::trim_end)
                .map_err(|_| wrong("a member's header is not text"))
        };
        let name = text(0, 16)?;
        let size = text(48, 58)?;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("the length of a member is not a number"));
        }
        let size: u64 = size
            .parse()
            .map_err(|_| wrong("the length of a member is not a number"))?;
        let content = offset.saturating_add(HEADER as u64);
        let end = content.saturating_add(size);
        if end > len {
            return Err(wrong("a member is longer than the file"));
        }
        members.push(Member {
            // As GNU ar writes it there is a slash behind the name.
            name: name.strip_suffix('/').unwrap_or(name).to_owned(),
            header,
            offset: content,
            len: size,
        });
        offset = end.saturating_add(size & 1);
    }
    Ok(members)
}

/// The header of a member of root's.
#[must_use]
pub fn header(name: &str, len: u64) -> Vec<u8> {
    format!(
        "{name:<16}{:<12}{:<6}{:<6}{:<8}{len:<10}`\n",
        0, 0, 0, 100_644
    )
    .into_bytes()
}

/// What follows a member of this length: members begin at even offsets.
#[must_use]
pub fn padding(len: u64) -> &'static [u8] {
    if len & 1 == 0 { b"" } else { b"\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<Member>> {
        parse(bytes.len() as u64, |buffer, offset| {
            let from = usize::try_from(offset).unwrap();
            let piece = bytes
                .get(from..)
                .and_then(|rest| rest.get(..buffer.len()))
                .ok_or_else(|| Error::from(std::io::ErrorKind::UnexpectedEof))?;
            buffer.copy_from_slice(piece);
            Ok(())
        })
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            bytes.extend(header(name, content.len() as u64));
            bytes.extend(*content);
            bytes.extend(padding(content.len() as u64));
        }
        bytes
    }

    #[test]
    fn members_are_found_by_name_place_and_length() {
        let bytes = archive(&[("debian-binary", b"2.0\n"), ("odd/", b"abc"), ("_ima", b"")]);
        let found = of(&bytes).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|member| (member.name.as_str(), member.len))
            .collect();
        assert_eq!(seen, [("debian-binary", 4), ("odd", 3), ("_ima", 0)]);
        let at = usize::try_from(found[1].offset).unwrap();
        assert_eq!(&bytes[at..at + 3], b"abc");
        assert_eq!(header("x", 3).len(), HEADER);
    }

    #[test]
    fn refusals() {
        let good = archive(&[("debian-binary", b"2.0\n"), ("data.tar", b"abc")]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (why, bytes) in [
            ("empty", Vec::new()),
            ("another magic", changed(0, b'?')),
            ("cut in a header", good[..90].to_vec()),
            ("cut in a member", good[..good.len() - 3].to_vec()),
            ("no end of the header", changed(8 + 59, b' ')),
            ("a length that is none", changed(8 + 48, b'x')),
            ("a negative length", changed(8 + 48, b'-')),
            ("too long", changed(8 + 49, b'9')),
            ("not text", changed(8, 0xff)),
            (
                "many members",
                archive(&vec![("x", &b""[..]); MAX_MEMBERS + 1]),
            ),
        ] {
            assert_eq!(
                of(&bytes).unwrap_err().code(),
                Code::PackageMalformed,
                "{why}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            at in 0_usize..200,
        ) {
            let _ = of(&bytes);
            let mut good = archive(&[("debian-binary", b"2.0\n"), ("data.tar.xz", b"abc"), ("_ima", b"{}")]);
            for (place, byte) in good.iter_mut().skip(at).zip(&bytes).take(12) {
                *place = *byte;
            }
            if let Ok(members) = of(&good) {
                for member in members {
                    proptest::prop_assert!(member.offset + member.len <= good.len() as u64);
                }
            }
        }
    }
}
