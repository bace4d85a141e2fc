//! `/etc/ld.so.cache`, as ldconfig writes it and glibc's loader reads it (sysdeps/generic/dl-cache.h, elf/dl-cache.c).
//!
//! Two formats: that of Linux's first ldconfig (`ld.so-1.7.0`), and glibc's own (`glibc-ld.so.cache1.1`), which may follow the
//! first in the same file and then counts. The second may end with the names of `glibc-hwcaps` directories, to which entries refer.

/// The longest cache that is read, in bytes.
pub const MAX_CACHE: usize = 64 << 20;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Magic, padded, and the number of entries.
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const NEW_HEADER: usize = 48;
const NEW_ENTRY: usize = 24;

/// One library in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name that it is needed by.
    pub name: Vec<u8>,
    /// Where it is.
    pub path: Vec<u8>,
    /// Which kind of machine it is for.
    pub flags: u32,
    /// Which processors it is for.
    pub processors: Processors,
}

/// The processors that a library in the cache is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processors {
    /// All.
    All,
    /// Those of this `glibc-hwcaps` directory.
    Level(Vec<u8>),
    /// Those with the capabilities of this mask (before glibc 2.37).
    Mask(u64),
}

/// The libraries in a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache(Vec<Entry>);

impl Cache {
    /// Reads a cache; nothing if the loader would not use it. An entry that points outside of the file is passed over, as the
    /// loader does (`_dl_cache_verify_ptr`).
    #[must_use]
    pub fn parse(file: &[u8], big_endian: bool) -> Option<Self> {
        if file.len() > MAX_CACHE {
            return None;
        }
        if file.starts_with(NEW_MAGIC) {
            return Self::new_format(file, 0, big_endian);
        }
        if !file.starts_with(OLD_MAGIC) {
            return None;
        }
        let number = |at| number(file, at, big_endian);
        let count = usize::try_from(number(12)?).ok()?;
        let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
        let entries = file.get(OLD_HEADER..end)?;
        let embedded = end.checked_next_multiple_of(8)?;
        if file
            .get(embedded..)
            .is_some_and(|rest| rest.starts_with(NEW_MAGIC))
        {
            return Self::new_format(file, embedded, big_endian);
        }
        let strings = file.get(end..)?;
        let entries = entries.chunks_exact(OLD_ENTRY).filter_map(|entry| {
            Some(Entry {
                flags: self::number(entry, 0, big_endian)?,
                name: string(strings, self::number(entry, 4, big_endian)?)?,
                path: string(strings, self::number(entry, 8, big_endian)?)?,
                processors: Processors::All,
            })
        });
        Some(Self(entries.collect()))
    }

    fn new_format(file: &[u8], start: usize, big_endian: bool) -> Option<Self> {
        /// The bit of an entry that refers to a `glibc-hwcaps` directory (`DL_CACHE_HWCAP_EXTENSION`).
        const EXTENSION: u32 = 1 << 30;
        /// Of the header's flags: which byte order the file is in; zero where it does not say.
        const LITTLE: u8 = 2;
        const BIG: u8 = 3;
        let cache = file.get(start..)?;
        let order = cache.get(28)? & 3;
        if order != 0 && order != if big_endian { BIG } else { LITTLE } {
            return None;
        }
        let count = usize::try_from(number(cache, 20, big_endian)?).ok()?;
        let end = count.checked_mul(NEW_ENTRY)?.checked_add(NEW_HEADER)?;
        let levels = levels(file, number(cache, 32, big_endian)?, big_endian);
        let entries = cache.get(NEW_HEADER..end)?.chunks_exact(NEW_ENTRY);
        let entries = entries.filter_map(|entry| {
            let number = |at| number(entry, at, big_endian);
            // A number of 64 bits, of which the upper half says what the lower one is.
            let (low, high) = if big_endian {
                (number(20)?, number(16)?)
            } else {
                (number(16)?, number(20)?)
            };
            let processors = match (high, low) {
                (0, 0) => Processors::All,
                (EXTENSION, index) => {
                    let index = usize::try_from(index).ok()?;
                    Processors::Level(levels.get(index)?.clone())
                }
                (high, low) => Processors::Mask(u64::from(high) << 32 | u64::from(low)),
            };
            Some(Entry {
                flags: number(0)?,
                name: string(cache, number(4)?)?,
                path: string(cache, number(8)?)?,
                processors,
            })
        });
        Some(Self(entries.collect()))
    }

    /// The entries of a library of that name, in the order of the file.
    pub fn of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a Entry> + 'a {
        self.0.iter().filter(move |entry| entry.name == name)
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }
}

/// The names of `glibc-hwcaps` directories in the extension of the cache (`cache_extension_load`); none if there is no extension.
/// The loader takes the offsets of names from the beginning of the file, where ldconfig counts from that of the cache in it: with
/// both formats in one file no name is right, and no processor has such a level.
fn levels(file: &[u8], offset: u32, big_endian: bool) -> Vec<Vec<u8>> {
    const MAGIC: u32 = 0xeaa4_2174;
    const LEVELS: u32 = 1;
    /// The most sections and names that are looked at.
    const MAX: usize = 64;
    let find = || {
        let start = usize::try_from(offset).ok().filter(|start| *start != 0)?;
        let extension = file.get(start..)?;
        let number = |at| number(extension, at, big_endian);
        if number(0)? != MAGIC {
            return None;
        }
        let count = usize::try_from(number(4)?).ok()?.min(MAX);
        let section = extension
            .get(8..)?
            .chunks_exact(16)
            .take(count)
            .find(|section| self::number(section, 0, big_endian) == Some(LEVELS))?;
        let start = usize::try_from(self::number(section, 8, big_endian)?).ok()?;
        let length = usize::try_from(self::number(section, 12, big_endian)?).ok()?;
        let names = file.get(start..start.checked_add(length)?)?;
        let names = names.chunks_exact(4).take(MAX).map(|name| {
            self::number(name, 0, big_endian)
                .and_then(|at| string(file, at))
                .unwrap_or_default()
        });
        Some(names.collect())
    };
    find().unwrap_or_default()
}

fn number(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let bytes = *bytes.get(at..)?.first_chunk()?;
    Some(if big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    })
}

/// A NUL-terminated string of at most a path's length.
fn string(bytes: &[u8], at: u32) -> Option<Vec<u8>> {
    const MAX_PATH: usize = 4096;
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    let rest = rest.get(..MAX_PATH.min(rest.len()))?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    rest.get(..end).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A directory that ldconfig looks into, and its cache in each format that it writes.
    fn written(format: &str) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        let library = crate::loader::tests::Made::library()
            .soname("libone.so.1")
            .build();
        for directory in ["etc", "lib", "lib/glibc-hwcaps/x86-64-v3"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["lib/libone.so.1", "lib/glibc-hwcaps/x86-64-v3/libone.so.1"] {
            std::fs::write(root.path().join(file), &library).unwrap();
        }
        let ended = std::process::Command::new("/sbin/ldconfig")
            .args(["-X", "-c", format, "-r"])
            .arg(root.path())
            .output()
            .expect("ldconfig");
        let cache = std::fs::read(root.path().join("etc/ld.so.cache"));
        cache.unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    #[test]
    fn caches_of_ldconfig() {
        for format in ["new", "compat", "old"] {
            let cache = Cache::parse(&written(format), false).unwrap();
            let found: Vec<&Entry> = cache.of(b"libone.so.1").collect();
            let [level, all] = found.as_slice() else {
                panic!("{format}: {found:?}");
            };
            let right = match (&level.processors, format) {
                // The old format cannot say which processors an entry is for.
                (processors, "old") => *processors == Processors::All,
                (Processors::Level(name), "new") => name == b"x86-64-v3",
                (Processors::Level(name), _) => name != b"x86-64-v3",
                _ => false,
            };
            assert!(right, "{format}: {level:?}");
            assert_eq!(level.path, b"/lib/glibc-hwcaps/x86-64-v3/libone.so.1");
            assert_eq!(all.path, b"/lib/libone.so.1", "{format}");
            assert_eq!(all.processors, Processors::All, "{format}");
        }
        let cache = written("new");
        assert_eq!(Cache::parse(&cache, true), None, "the other byte order");
    }

    proptest! {
        #[test]
        fn a_damaged_cache_names_only_what_is_in_it(
            at in any::<prop::sample::Index>(), value in any::<[u8; 4]>(), cut in any::<prop::sample::Index>(), compat in any::<bool>(),
        ) {
            use std::sync::LazyLock;
            static CACHES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [written("new"), written("compat")]);
            let mut file = CACHES[usize::from(compat)].clone();
            let at = at.index(file.len() - 4);
            file[at..at + 4].copy_from_slice(&value);
            file.truncate(cut.index(file.len()) + 1);
            if let Some(cache) = Cache::parse(&file, false) {
                for entry in cache.entries() {
                    for text in [&entry.name, &entry.path] {
                        prop_assert!(!text.contains(&0));
                        prop_assert!(text.is_empty() || file.windows(text.len()).any(|window| window == text.as_slice()));
                    }
                }
            }
        }
    }
}
