//! Two measurement lists, of two boots or of what was predicted and a boot: what was measured in one of them only.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ima::hash::HashAlgorithm;
use ima::hex;
use ima::measurement::{Entry, FileDigest};

use super::{ListReader, Lists};
use crate::Result;

/// What an entry says was measured: by its length, memory stays in proportion to the number of entries.
type Identity = [u8; 32];

/// What was measured under a name in one list only, in words: digests, or that the entry is a violation.
type Contents = BTreeSet<String>;

/// What differs between two lists. The order of the entries, their templates, and the signatures in them do not matter.
#[derive(Debug, Default)]
pub struct Difference {
    /// By name, what was measured in the first list only.
    pub first: BTreeMap<Vec<u8>, Contents>,
    /// By name, what was measured in the second list only.
    pub second: BTreeMap<Vec<u8>, Contents>,
    /// How much was measured in both.
    pub both: usize,
}

impl Difference {
    /// Compares two lists. Each is read twice; what is added meanwhile at its end is left out.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable),
    /// [`Code::MeasurementsMalformed`](ima::fault::Code::MeasurementsMalformed), also of a list without entries.
    pub fn between(first: &Lists<'_>, second: &Lists<'_>) -> Result<Self> {
        let (identities, length) = read(first)?;
        let (others, other_length) = read(second)?;
        Ok(Self {
            first: only(&mut first.open()?, length, &others)?,
            second: only(&mut second.open()?, other_length, &identities)?,
            both: identities.intersection(&others).count(),
        })
    }

    /// The names under which something was measured in both lists, and not the same.
    pub fn changed(&self) -> impl Iterator<Item = (&[u8], &Contents, &Contents)> {
        self.first.iter().filter_map(|(name, before)| {
            let after = self.second.get(name)?;
            Some((name.as_slice(), before, after))
        })
    }
}

/// The identities of all entries, and the number of entries.
fn read(lists: &Lists<'_>) -> Result<(HashSet<Identity>, usize)> {
    let mut reader = lists.open()?;
    let (mut identities, mut length) = (HashSet::new(), 0);
    while let Some(entry) = reader.read()? {
        identities.insert(identity(&entry));
        length += 1;
    }
    if length == 0 {
        return Err(lists.empty());
    }
    Ok((identities, length))
}

/// What the first `length` entries of a list have that is not among `others`.
fn only(
    reader: &mut ListReader,
    length: usize,
    others: &HashSet<Identity>,
) -> Result<BTreeMap<Vec<u8>, Contents>> {
    let mut found: BTreeMap<Vec<u8>, Contents> = BTreeMap::new();
    for _ in 0..length {
        let Some(entry) = reader.read()? else { break };
        if !others.contains(&identity(&entry)) {
            let name = entry.name().unwrap_or_default().to_vec();
            found.entry(name).or_default().insert(content(&entry));
        }
    }
    Ok(found)
}

fn identity(entry: &Entry) -> Identity {
    let mut data = Vec::new();
    let name = entry.name().unwrap_or_default();
    for field in [
        &entry.pcr().to_be_bytes()[..],
        name,
        content(entry).as_bytes(),
    ] {
        data.extend((field.len() as u64).to_be_bytes());
        data.extend(field);
    }
    let digest = HashAlgorithm::Sha256.digest(&data).unwrap_or_default();
    digest.try_into().unwrap_or_default()
}

/// What was measured, in words.
fn content(entry: &Entry) -> String {
    if entry.is_violation() {
        return "violation".to_owned();
    }
    match entry.file_digest() {
        Some(FileDigest {
            kind: "ima",
            algorithm,
            digest,
        }) => {
            // The first template says no algorithm: SHA-1.
            let algorithm = if algorithm.is_empty() {
                "sha1"
            } else {
                algorithm
            };
            format!("{algorithm}:{}", hex::encode(digest))
        }
        Some(digest) => format!(
            "{}:{}:{}",
            digest.kind,
            digest.algorithm,
            hex::encode(digest.digest)
        ),
        // A template without a digest of a file, or one that is not known.
        None => {
            let fields: Vec<String> = entry
                .fields()
                .iter()
                .map(|field| hex::encode(field))
                .collect();
            format!("{} {}", entry.template().name(), fields.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ima::fault::Code;
    use ima::measurement::{Bank, ByteOrder, Template};
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn entry(template: &str, name: &str, digest: u8) -> Entry {
        let fields = vec![
            [b"sha256:\0".as_slice(), &[digest; 32]].concat(),
            [name.as_bytes(), b"\0"].concat(),
            vec![3, 2, digest],
        ];
        let template = Template::from_name(template);
        let count = template.fields().unwrap().len();
        let fields = fields.into_iter().take(count).collect();
        Entry::new(10, template, fields, Bank::Sha1, ByteOrder::Little)
    }

    /// Writes the ASCII form to files of `directory`, some entries to each.
    fn written(directory: &std::path::Path, name: &str, entries: &[Entry]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (number, entries) in entries.chunks(3).enumerate() {
            let path = directory.join(format!("{name}{number}"));
            let lines = entries
                .iter()
                .map(|entry| entry.to_ascii(ByteOrder::Little));
            std::fs::write(&path, lines.collect::<Vec<_>>().join(&b'\n')).unwrap();
            paths.push(path);
        }
        paths
    }

    fn difference(first: &[Entry], second: &[Entry]) -> Result<Difference> {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = [("a", first), ("b", second)]
            .map(|(name, entries)| written(directory.path(), name, entries));
        let lists = |paths| Lists {
            paths,
            bank: Bank::Sha1,
            order: ByteOrder::Little,
        };
        Difference::between(&lists(&first), &lists(&second))
    }

    #[test]
    fn what_one_list_has_alone() {
        let first = [
            entry("ima-ng", "same", 1),
            entry("ima-ng", "changed", 2),
            entry("ima-ng", "gone", 3),
            entry("ima-ng", "twice", 4),
        ];
        let second = [
            entry("ima-sig", "twice", 4),
            entry("ima-sig", "twice", 4),
            entry("ima-sig", "new", 5),
            entry("ima-sig", "changed", 6),
            entry("ima-sig", "same", 1),
        ];
        let found = difference(&first, &second).unwrap();
        assert_eq!(found.both, 2);
        let names = |map: &BTreeMap<Vec<u8>, Contents>| {
            map.keys()
                .map(|name| String::from_utf8(name.clone()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&found.first), ["changed", "gone"]);
        assert_eq!(names(&found.second), ["changed", "new"]);
        let changed: Vec<_> = found.changed().map(|(name, ..)| name).collect();
        assert_eq!(changed, [b"changed"]);
    }

    proptest! {
        /// Whatever the order, and however the list is cut into files, a list is the same as itself, and what is left out of it is found.
        #[test]
        fn the_order_does_not_matter(digests in proptest::collection::vec(0u8..9, 1..20), left_out in 0usize..20) {
            let entries: Vec<Entry> = digests.iter().map(|digest| entry("ima-ng", &format!("/{digest}"), *digest)).collect();
            let mut other = entries.clone();
            other.reverse();
            let found = difference(&entries, &other).unwrap();
            prop_assert!(found.first.is_empty() && found.second.is_empty());
            let name = other[left_out % other.len()].name().unwrap().to_vec();
            other.retain(|entry| entry.name() != Some(&name));
            let found = match difference(&entries, &other) {
                Ok(found) => found,
                Err(fault) => {
                    // There was one name only.
                    prop_assert!(other.is_empty() && fault.code() == Code::MeasurementsMalformed);
                    return Ok(());
                }
            };
            prop_assert_eq!(found.first.keys().collect::<Vec<_>>(), [&name]);
            prop_assert!(found.second.is_empty());
        }
    }
}
