//! musl's loader (ldso/dynlink.c, `load_library`): DT_RUNPATH or DT_RPATH of what needs the library and of what that was loaded
//! for, then `/etc/ld-musl-ARCH.path`, or the three directories that the loader was built with. It is the C library itself.

use ima::elf::Elf;

use super::files::{Candidate, Files, Loaded, absolute};
use super::rules::{Rules as LoaderRules, Search};

/// How much of `/etc/ld-musl-ARCH.path` is read.
const MAX_PATH_FILE: usize = 1 << 20;

/// Names of libraries that are part of the loader.
const OWN: [&[u8]; 7] = [
    b"libc.",
    b"libpthread.",
    b"librt.",
    b"libm.",
    b"libdl.",
    b"libutil.",
    b"libxnet.",
];

/// ARCH of `ld-musl-ARCH.so.1`, the name of the loader; nothing if it is not musl's.
pub(super) fn machine(file_name: &[u8]) -> Option<&[u8]> {
    file_name.strip_prefix(b"ld-musl-")?.strip_suffix(b".so.1")
}

/// The rules of musl's loader in one root.
pub(super) struct Rules<'a> {
    files: &'a Files<'a>,
    directories: Vec<Vec<u8>>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(files: &'a Files<'a>, interpreter: &[u8], machine: &[u8]) -> Self {
        // Beside the directory of the loader, which is `lib` of some prefix.
        let mut parts = interpreter.rsplitn(3, |byte| *byte == b'/');
        let prefix = parts.nth(2).unwrap_or_default();
        let path = [prefix, b"/etc/ld-musl-", machine, b".path"].concat();
        let list = match files.candidate(&path) {
            Candidate::Absent => b"/lib:/usr/local/lib:/usr/lib".to_vec(),
            _ => files.text(&path, MAX_PATH_FILE).unwrap_or_default(),
        };
        Self {
            files,
            directories: split(&list),
        }
    }

    /// The directories of a file's own list (`fixup_rpath`): `$ORIGIN` is replaced, and a list with another `$` does not count.
    fn own(&self, file: &Loaded<'_>) -> Vec<Vec<u8>> {
        let dynamic = &file.object.dynamic;
        let Some(list) = dynamic.runpath.as_ref().or(dynamic.rpath.as_ref()) else {
            return Vec::new();
        };
        let mut expanded = Vec::new();
        let mut rest = list.as_slice();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'$' {
                expanded.push(*byte);
                continue;
            }
            let token = after
                .strip_prefix(b"ORIGIN")
                .or_else(|| after.strip_prefix(b"{ORIGIN}"));
            let Some(after) = token else {
                return Vec::new();
            };
            expanded.extend_from_slice(file.origin());
            rest = after;
        }
        split(&expanded)
    }

    /// Opens a candidate. What it is, the loader looks at when it has chosen it (`map_library`).
    fn open(&self, elf: Elf, path: &[u8]) -> Option<Search> {
        let path = absolute(path);
        let head = match self.files.candidate(&path) {
            Candidate::Absent => return None,
            Candidate::Special => return Some(Search::Unusable(path, "it is not a regular file")),
            Candidate::File(head) => head,
        };
        let same =
            |found: &Elf| found.machine() == elf.machine() && found.is_wide() == elf.is_wide();
        Some(match Elf::parse(&head) {
            Some(found) if same(&found) => Search::At(path),
            Some(_) => Search::Unusable(path, "it is for another machine"),
            None => Search::Unusable(path, "it is not a shared library"),
        })
    }
}

/// A list of directories, separated by colons and newlines (`path_open`).
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|byte| b":\n".contains(byte))
        .filter(|directory| !directory.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

impl LoaderRules for Rules<'_> {
    fn preloaded(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn expand(&self, _: &Loaded<'_>, name: &[u8]) -> Vec<u8> {
        name.to_vec()
    }

    fn known(&self, loaded: &[Loaded<'_>], name: &[u8]) -> Option<usize> {
        const LOADER: usize = 1;
        if OWN.iter().any(|own| name.starts_with(own)) {
            return (loaded.len() > LOADER).then_some(LOADER);
        }
        let mut all = loaded.iter();
        all.position(|file| file.names.contains(name))
    }

    fn find(&self, loaded: &[Loaded<'_>], by: usize, name: &[u8]) -> Search {
        let Some(main) = loaded.first() else {
            return Search::Nowhere;
        };
        let elf = main.object.elf;
        if name.contains(&b'/') {
            return self.open(elf, name).unwrap_or(Search::Nowhere);
        }
        let mut directories = Vec::new();
        let mut next = Some(by);
        while let Some(file) = next.and_then(|at| loaded.get(at)) {
            directories.extend(self.own(file));
            next = file.by;
        }
        directories
            .iter()
            .chain(&self.directories)
            .find_map(|directory| self.open(elf, &[directory, &b"/"[..], name].concat()))
            .unwrap_or(Search::Nowhere)
    }
}
