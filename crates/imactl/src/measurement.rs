//! Measurement lists that are read entry by entry: a machine that runs for months has lists of any length.

mod comparison;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;
use ima::measurement::{Bank, ByteOrder, Decoder, Entry};
use ima::signature::ImaXattr;

use crate::Result;
use crate::file::unreadable;
use crate::verifier::verify_any;

pub use comparison::{Aggregate, ComparedPcr, Comparison};

/// The kernel's own list.
pub const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// Bytes read at once.
const PIECE: usize = 1 << 18;
/// The longest entry that is waited for. The kernel's own are bounded by the buffers it measures: a certificate, a command line, a
/// policy.
const MAX_ENTRY: usize = 64 << 20;

/// A list of which one entry after the other is read.
#[derive(Debug)]
pub struct ListReader {
    path: PathBuf,
    file: File,
    decoder: Decoder,
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
            decoder: Decoder::binary(bank, order),
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
            if entry.is_some() || last {
                return Ok(entry);
            }
            self.fill()?;
        }
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

/// What the signature in an entry is worth, over the digest in the entry; nothing where it has none, or no certificate is given.
#[must_use]
pub fn signature_verdict(entry: &Entry, certificates: &[Certificate]) -> Option<&'static str> {
    let value = entry.signature().filter(|_| !certificates.is_empty())?;
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
    fn text_is_told_from_bytes() {
        let line = |number: usize| format!("{number:2} {} n-ng name\n", "01".repeat(20));
        let text: String = [line(10), "\n".to_owned(), line(9)].concat();
        assert_eq!(read(text.as_bytes()).unwrap(), [4, 4]);
        assert_eq!(read(line(9).as_bytes()).unwrap(), [4]);
    }
}
