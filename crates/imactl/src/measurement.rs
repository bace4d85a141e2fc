//! Measurement lists that are read entry by entry: a machine that runs for months has lists of any length.

mod comparison;
mod difference;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::measurement::{Bank, ByteOrder, Decoder, Entry, FieldId, Template};
use ima::signature::ImaXattr;

use crate::Result;
use crate::file::unreadable;
use crate::verifier::verify_any;

pub use comparison::{Aggregate, ComparedPcr, Comparison};
pub use difference::Difference;

/// The kernel's own list.
pub const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// Bytes read at once.
const PIECE: usize = 1 << 18;
/// The longest entry that is waited for. The kernel's own are bounded by the buffers it measures: a certificate, a command line, a
/// policy.
const MAX_ENTRY: usize = 64 << 20;

/// A list that is in one or more files: what was taken out of the kernel piece by piece (CONFIG_IMA_STAGING,
/// Documentation/security/IMA-export-delete.rst), and what it still had then.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// The files, in the order in which they were measured. Each is binary or ASCII.
    pub paths: &'a [PathBuf],
    /// The bank whose template digests binary files have.
    pub bank: Bank,
    /// The byte order of the machine.
    pub order: ByteOrder,
}

impl Lists<'_> {
    /// Opens the first of the files.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`].
    pub fn open(&self) -> Result<ListReader> {
        let Some((first, rest)) = self.paths.split_first() else {
            return Err(self.empty());
        };
        let mut reader = ListReader::open(first, self.bank, self.order)?;
        reader.following = rest.iter().cloned().collect();
        Ok(reader)
    }

    /// What is wrong with a list without entries.
    #[must_use]
    pub fn empty(&self) -> Fault {
        let paths: Vec<String> = self
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Fault::new(Code::MeasurementsMalformed, paths.join(", ")).because(Cause::NO_ENTRIES)
    }
}

/// A list of which one entry after the other is read.
#[derive(Debug)]
pub struct ListReader {
    path: PathBuf,
    file: File,
    /// The bank of binary files.
    bank: Bank,
    decoder: Decoder,
    /// The files in which the list goes on.
    following: VecDeque<PathBuf>,
    buffer: Vec<u8>,
    /// What of the buffer was taken.
    taken: usize,
    /// Whether the file was read to its end.
    end: bool,
}

impl ListReader {
    /// Opens a list, binary with the template digests of `bank`, or ASCII.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`].
    pub fn open(path: &Path, bank: Bank, order: ByteOrder) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Self::new(file, path, bank, order)
    }

    /// Reads an open list; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`].
    pub fn new(file: File, path: &Path, bank: Bank, order: ByteOrder) -> Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            file,
            bank,
            decoder: Decoder::binary(bank, order),
            following: VecDeque::new(),
            buffer: Vec::new(),
            taken: 0,
            end: false,
        };
        reader.fill()?;
        // A binary list begins with the number of a PCR, which has a zero byte in it; text has none.
        let head = reader.buffer.get(..4).unwrap_or(&reader.buffer);
        if !head.is_empty()
            && head
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ')
        {
            reader.decoder = Decoder::ascii(order);
        }
        Ok(reader)
    }

    /// The bank whose template digests the list carries, as far as it is known.
    #[must_use]
    pub fn bank(&self) -> Bank {
        self.decoder.bank()
    }

    /// The next entry; nothing at the end.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] if the file cannot be read, [`Code::MeasurementsMalformed`] if the list is malformed or
    /// ends in an entry.
    pub fn read(&mut self) -> Result<Option<Entry>> {
        loop {
            let whole = self.buffer.get(self.taken..).unwrap_or_default();
            let mut rest = whole;
            let last = self.end || whole.len() > MAX_ENTRY;
            let entry = self.decoder.take(&mut rest, last).map_err(|error| {
                let detail = format!("{}: {error}", self.path.display());
                Fault::new(Code::MeasurementsMalformed, detail)
            })?;
            let taken = whole.len().saturating_sub(rest.len());
            self.taken += taken;
            if entry.is_some() {
                return Ok(entry);
            }
            if !last {
                self.fill()?;
            } else if !self.go_on()? {
                return Ok(None);
            }
        }
    }

    /// Opens the next file; `false` if there is none.
    fn go_on(&mut self) -> Result<bool> {
        let Some(path) = self.following.pop_front() else {
            return Ok(false);
        };
        let following = std::mem::take(&mut self.following);
        *self = Self {
            following,
            ..Self::open(&path, self.bank, self.decoder.order())?
        };
        Ok(true)
    }

    /// Reads more of the file.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let before = self.buffer.len();
        // As much again, so that a long entry is not gone over for each piece of it.
        let more = before.max(PIECE) as u64;
        (&self.file)
            .take(more)
            .read_to_end(&mut self.buffer)
            .map_err(|error| unreadable(&self.path, &error))?;
        self.end = self.buffer.len() == before;
        Ok(())
    }
}

/// The verdict on a signature that is good.
pub const GOOD: &str = "good";

/// Why it is not certain what the fields of an entry hold. The template digest is of the fields and their lengths, and not of the
/// template's name (security/integrity/ima/ima_crypto.c, `ima_calc_field_array_hash_tfm`): whoever changes the name could have a
/// signature pass for a buffer, or a buffer for a signature.
#[must_use]
pub fn ambiguity(entry: &Entry) -> Option<String> {
    let template = entry.template().name();
    let is_built_in = Template::BUILT_IN.iter().any(|(name, _)| *name == template);
    if !is_built_in && !is_plain(entry.template()) {
        return Some(format!(
            "its template `{template}` is not one of the kernel's"
        ));
    }
    let buffer = entry.field(FieldId::Buffer)?;
    // The kernel hashes the buffer as it records it (`process_buffer_measurement`).
    let is_of_buffer = entry.file_digest().is_some_and(|found| {
        HashAlgorithm::from_name(found.algorithm)
            .and_then(|algo| algo.digest(buffer))
            .is_some_and(|digest| digest == found.digest)
    });
    (!is_of_buffer).then(|| "its digest is not that of its buffer".to_owned())
}

/// Whether a format of one's own (`ima_template_fmt=`) has one digest, one name, at most one signature, and nothing else, in which a
/// signature could be hidden.
fn is_plain(template: &Template) -> bool {
    let count = |wanted: &[FieldId]| {
        let fields = template.fields().unwrap_or_default().iter();
        fields.filter(|field| wanted.contains(field)).count()
    };
    let digests = count(&[FieldId::Digest, FieldId::DigestNg, FieldId::DigestNgV2]);
    let names = count(&[FieldId::Name, FieldId::NameNg]);
    let signatures = count(&[FieldId::Signature]);
    let all = template.fields().map_or(0, <[FieldId]>::len);
    (digests, names) == (1, 1) && signatures <= 1 && digests + names + signatures == all
}

/// What the signature in an entry is worth, over the digest in the entry; nothing where it has none, or no certificate is given.
#[must_use]
pub fn signature_verdict(entry: &Entry, certificates: &[Certificate]) -> Option<&'static str> {
    if certificates.is_empty() {
        return None;
    }
    if ambiguity(entry).is_some() {
        return Some("ambiguous");
    }
    let value = entry.signature()?;
    let verdict = match (ImaXattr::parse(value), entry.file_digest()) {
        (
            Ok(value @ (ImaXattr::Signature(_) | ImaXattr::SignatureV3(_) | ImaXattr::Verity(_))),
            Some(digest),
        ) if value.signature().is_some_and(|signature| {
            HashAlgorithm::from_name(digest.algorithm) == Some(signature.algo)
        }) =>
        {
            let key_id = value.signature().map(|signature| signature.key_id);
            let mut by_key = certificates
                .iter()
                .filter(|certificate| Some(certificate.key_id()) == key_id)
                .peekable();
            if by_key.peek().is_none() {
                "unknown-key"
            } else if by_key
                .any(|certificate| verify_any(certificate, digest.digest, &value).is_ok())
            {
                GOOD
            } else {
                "changed"
            }
        }
        (Ok(_), _) => "unsupported",
        (Err(_), _) => "malformed",
    };
    Some(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of template `n-ng` with a name of that length.
    fn entry(length: usize) -> Vec<u8> {
        let name = [vec![b'x'; length], vec![0]].concat();
        let field = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        [
            &10_u32.to_le_bytes()[..],
            &[1; 20],
            &field(b"n-ng"),
            &field(&field(&name)),
        ]
        .concat()
    }

    fn read(list: &[u8]) -> Result<Vec<usize>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), list).unwrap();
        let mut reader = ListReader::open(file.path(), Bank::Sha1, ByteOrder::Little)?;
        let mut lengths = Vec::new();
        while let Some(entry) = reader.read()? {
            lengths.push(entry.name().unwrap().len());
        }
        Ok(lengths)
    }

    #[test]
    fn entries_of_any_length_come_whole() {
        let lengths = [5, PIECE - 100, 0, 3 * PIECE, 17, PIECE, 1];
        let list: Vec<u8> = lengths.into_iter().flat_map(entry).collect();
        assert_eq!(read(&list).unwrap(), lengths);
        let fault = read(&list[..list.len() - 1]).unwrap_err();
        assert_eq!(fault.code(), Code::MeasurementsMalformed);
        assert!(fault.to_string().contains("entry 7"), "{fault}");
        assert_eq!(read(b"").unwrap(), [] as [usize; 0]);
    }

    #[test]
    fn a_list_goes_on_in_further_files() {
        let directory = tempfile::tempdir().unwrap();
        let pieces = [entry(1), Vec::new(), [entry(2), entry(3)].concat()];
        let paths: Vec<PathBuf> = (0..pieces.len())
            .map(|number| directory.path().join(number.to_string()))
            .collect();
        for (path, piece) in paths.iter().zip(&pieces) {
            std::fs::write(path, piece).unwrap();
        }
        let read = |paths: &[PathBuf]| -> Result<Vec<usize>> {
            let (bank, order) = (Bank::Sha1, ByteOrder::Little);
            let mut reader = Lists { paths, bank, order }.open()?;
            let mut lengths = Vec::new();
            while let Some(entry) = reader.read()? {
                lengths.push(entry.name().unwrap().len());
            }
            Ok(lengths)
        };
        assert_eq!(read(&paths).unwrap(), [1, 2, 3]);
        assert_eq!(read(&[]).unwrap_err().code(), Code::MeasurementsMalformed);
        std::fs::write(&paths[1], &pieces[2][..9]).unwrap();
        let fault = read(&paths).unwrap_err();
        let path = paths[1].display().to_string();
        assert!(fault.to_string().contains(&path), "{fault}");
        std::fs::remove_file(&paths[2]).unwrap();
        std::fs::write(&paths[1], b"").unwrap();
        assert_eq!(read(&paths).unwrap_err().code(), Code::InputUnreadable);
    }

    #[test]
    fn text_is_told_from_bytes() {
        let line = |number: usize| format!("{number:2} {} n-ng name\n", "01".repeat(20));
        let text: String = [line(10), "\n".to_owned(), line(9)].concat();
        assert_eq!(read(text.as_bytes()).unwrap(), [4, 4]);
        assert_eq!(read(line(9).as_bytes()).unwrap(), [4]);
    }
}
