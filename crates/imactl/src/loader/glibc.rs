//! glibc's loader (elf/dl-load.c, `_dl_map_object`; elf/dl-cache.c; elf/dl-hwcaps.c): DT_RPATH of what needs the library and of
//! what that was loaded for, DT_RUNPATH of what needs it, the cache, then the directories that the loader was built with. It does
//! not read ld.so.conf, which is ldconfig's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use ima::elf::Elf;

use super::cache::{Cache, Processors};
use super::files::{Candidate, Files, Loaded, Object, absolute};
use super::rules::{Rules as LoaderRules, Search};

/// The largest loader that is looked into for the directories it was built with.
const MAX_LOADER: usize = 16 << 20;

/// How much of `/etc/ld.so.preload` is read.
const MAX_PRELOAD: usize = 1 << 16;

const EM_386: u16 = 3;
const EM_PPC64: u16 = 21;
const EM_S390: u16 = 22;
const EM_ARM: u16 = 40;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// A kind of processor, as far as the loader chooses libraries by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Processor {
    /// Its directories below `glibc-hwcaps`, the preferred first.
    levels: &'static [&'static str],
    /// The directories that loaders before 2.37 look into besides, in every combination of them.
    legacy: &'static [&'static str],
    /// What `$PLATFORM` stands for.
    platform: &'static str,
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.levels.first().unwrap_or(&self.platform))?;
        if self.platform == "haswell" {
            f.write_str(" by Intel")?;
        }
        Ok(())
    }
}

const fn processor(
    levels: &'static [&'static str],
    legacy: &'static [&'static str],
    platform: &'static str,
) -> Processor {
    Processor {
        levels,
        legacy,
        platform,
    }
}

const X86_64: [Processor; 6] = {
    const V4: &[&str] = &["x86-64-v4", "x86-64-v3", "x86-64-v2"];
    const V3: &[&str] = &["x86-64-v3", "x86-64-v2"];
    const LEGACY: &[&str] = &["tls", "x86_64"];
    [
        processor(&[], LEGACY, "x86_64"),
        processor(&["x86-64-v2"], LEGACY, "x86_64"),
        processor(V3, LEGACY, "x86_64"),
        processor(V3, &["tls", "haswell", "x86_64"], "haswell"),
        processor(V4, LEGACY, "x86_64"),
        processor(V4, &["tls", "haswell", "avx512_1", "x86_64"], "haswell"),
    ]
};
const PPC64: [Processor; 3] = [
    processor(&[], &[], "power8"),
    processor(&["power9"], &[], "power9"),
    processor(&["power10", "power9"], &[], "power10"),
];
const S390: [Processor; 5] = [
    processor(&[], &[], "z900"),
    processor(&["z13"], &[], "z13"),
    processor(&["z14", "z13"], &[], "z14"),
    processor(&["z15", "z14", "z13"], &[], "z15"),
    processor(&["z16", "z15", "z14", "z13"], &[], "z16"),
];
const I386: [Processor; 1] = [processor(&[], &["tls"], "i686")];
const AARCH64: [Processor; 1] = [processor(&[], &["tls"], "aarch64")];
const ARM: [Processor; 1] = [processor(&[], &["tls"], "v7l")];
const OTHER: [Processor; 1] = [processor(&[], &["tls"], "")];

/// A loader as it is installed.
#[derive(Debug)]
pub(super) struct Installation {
    /// The directories that it was built with.
    directories: Vec<Vec<u8>>,
    /// What `$LIB` stands for.
    library: Vec<u8>,
    /// Whether it looks into the directories of [`Processor::legacy`].
    legacy: bool,
}

impl Installation {
    pub(super) fn new(files: &Files<'_>, interpreter: &[u8]) -> Self {
        let program = files.text(interpreter, MAX_LOADER).unwrap_or_default();
        let directories = built_in(&program).unwrap_or_else(|| {
            [&b"/lib64"[..], b"/usr/lib64", b"/lib", b"/usr/lib"]
                .map(<[u8]>::to_vec)
                .into()
        });
        let first = directories.first().map_or(&b"lib"[..], Vec::as_slice);
        let library = first
            .strip_prefix(b"/usr/")
            .or_else(|| first.strip_prefix(b"/"));
        /// Of the help that loaders before 2.37 print.
        const LEGACY: &[u8] = b"Legacy HWCAP subdirectories";
        Self {
            library: library.unwrap_or(first).to_vec(),
            legacy: program.windows(LEGACY.len()).any(|part| part == LEGACY),
            directories,
        }
    }

    /// The kinds of processor that run a program.
    pub(super) fn processors(&self, main: &Object) -> &'static [Processor] {
        match main.elf.machine().number() {
            EM_X86_64 if main.elf.is_wide() => &X86_64,
            EM_PPC64 => &PPC64,
            EM_S390 => &S390,
            EM_386 => &I386,
            EM_AARCH64 => &AARCH64,
            EM_ARM => &ARM,
            _ => &OTHER,
        }
    }
}

/// The directories that a loader was built with: `SYSTEM_DIRS`, one string after the other, each with a slash at both ends.
fn built_in(program: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut longest: Vec<Vec<u8>> = Vec::new();
    let mut run: Vec<Vec<u8>> = Vec::new();
    for text in program.split(|byte| *byte == 0) {
        let printable = || text.iter().all(u8::is_ascii_graphic);
        match text {
            [b'/', .., b'/'] if text.len() < 256 && printable() => {
                run.push(text.strip_suffix(b"/").unwrap_or(text).to_vec());
                if run.len() > longest.len() {
                    longest.clone_from(&run);
                }
            }
            _ => run.clear(),
        }
    }
    (!longest.is_empty()).then_some(longest)
}

/// The rules of one loader on one kind of processor.
pub(super) struct Rules<'a> {
    files: &'a Files<'a>,
    installation: &'a Installation,
    cache: Option<&'a Cache>,
    processor: &'static Processor,
    /// The subdirectories that are there, of each directory looked into.
    subdirectories: RefCell<HashMap<Vec<u8>, Vec<Vec<u8>>>>,
    depends: Cell<bool>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        files: &'a Files<'a>,
        installation: &'a Installation,
        cache: Option<&'a Cache>,
        processor: &'static Processor,
    ) -> Self {
        Self {
            files,
            installation,
            cache,
            processor,
            subdirectories: RefCell::default(),
            depends: Cell::new(false),
        }
    }

    /// Whether the search came by anything that other processors have otherwise.
    pub(super) fn depends_on_processor(&self) -> bool {
        self.depends.get()
    }

    /// Opens a candidate (`open_verify`): one of another class or machine is passed over, anything else ends the program.
    fn open(&self, elf: Elf, path: &[u8]) -> Option<Search> {
        const DATA: usize = 5;
        let path = absolute(path);
        let head = match self.files.candidate(&path) {
            Candidate::Absent => return None,
            Candidate::Special => {
                return Some(Search::Unusable(path, "it is not a regular file"));
            }
            Candidate::File(head) => head,
        };
        let class = if elf.is_wide() { 2 } else { 1 };
        let order = if elf.machine().big_endian() { 2 } else { 1 };
        let unusable = |why| Some(Search::Unusable(path.clone(), why));
        match (head.get(..4), head.get(4), head.get(DATA)) {
            (Some(b"\x7fELF"), Some(found), _) if *found != class => None,
            (Some(b"\x7fELF"), _, Some(found)) if *found != order => {
                unusable("its byte order is another")
            }
            (Some(b"\x7fELF"), ..) => match Elf::parse(&head) {
                Some(found) if found.machine() != elf.machine() => None,
                Some(_) => Some(Search::At(path)),
                None => unusable("it is not a shared library"),
            },
            _ => unusable("it is not an ELF file"),
        }
    }

    /// Looks into directories, in each first into those of the processor (`open_path`).
    fn search(&self, elf: Elf, directories: &[Vec<u8>], name: &[u8]) -> Option<Search> {
        directories.iter().find_map(|directory| {
            let subdirectories = self.subdirectories(directory);
            subdirectories
                .iter()
                .find_map(|below| self.open(elf, &[below, name].concat()))
                .or_else(|| self.open(elf, &[directory, &b"/"[..], name].concat()))
        })
    }

    fn subdirectories(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        if let Some(known) = self.subdirectories.borrow().get(directory) {
            return known.clone();
        }
        let mut found = Vec::new();
        if self
            .files
            .is_directory(&[directory, b"/glibc-hwcaps"].concat())
        {
            self.depends.set(true);
            for level in self.processor.levels {
                let below = [directory, b"/glibc-hwcaps/", level.as_bytes(), b"/"].concat();
                found.push(below);
            }
        }
        if self.installation.legacy {
            let names = self.processor.legacy;
            // All of them, then all but the last, and so on down to the last alone.
            for choice in (1..1_u32 << names.len()).rev() {
                let mut below = directory.to_vec();
                for (at, name) in names.iter().rev().enumerate().rev() {
                    if choice >> at & 1 == 1 {
                        below.extend([b"/", name.as_bytes()].concat());
                    }
                }
                if self.files.is_directory(&below) {
                    self.depends.set(true);
                    below.push(b'/');
                    found.push(below);
                }
            }
            // Those of other processors.
            let others = [&b"/haswell"[..], b"/avx512_1", b"/tls"];
            if others
                .iter()
                .any(|other| self.files.is_directory(&[directory, other].concat()))
            {
                self.depends.set(true);
            }
        }
        self.subdirectories
            .borrow_mut()
            .insert(directory.to_vec(), found.clone());
        found
    }

    /// The directories of DT_RPATH or DT_RUNPATH; an empty one is the working directory (`fillin_rpath`).
    fn directories(&self, file: &Loaded<'_>, list: &[u8]) -> Vec<Vec<u8>> {
        if list.is_empty() {
            return Vec::new();
        }
        list.split(|byte| *byte == b':')
            .map(|directory| {
                let directory = absolute(&self.expand(file, directory));
                let end = directory.iter().rposition(|byte| *byte != b'/');
                let length = end.map_or(0, |end| end + 1);
                directory.get(..length).unwrap_or_default().to_vec()
            })
            .collect()
    }

    /// DT_RPATH of a file, which does not count beside DT_RUNPATH (`elf_get_dynamic_info`).
    fn rpath(&self, file: &Loaded<'_>) -> Vec<Vec<u8>> {
        let dynamic = &file.object.dynamic;
        match (&dynamic.rpath, &dynamic.runpath) {
            (Some(list), None) => self.directories(file, list),
            _ => Vec::new(),
        }
    }

    /// The place of a library by the cache (`_dl_load_cache_lookup`): the one for the best level that the processor has, else the
    /// first one for its other capabilities, which the cache sorts, else the one for all.
    fn cached(&self, elf: Elf, name: &[u8]) -> Option<Vec<u8>> {
        let machine = elf.machine().number();
        let fits = |flags: u32| match (machine, elf.is_wide()) {
            (EM_X86_64, true) => flags == 0x0303,
            (EM_X86_64, false) => flags == 0x0803,
            (EM_386, _) => matches!(flags, 1 | 3),
            (EM_AARCH64, true) => flags == 0x0a03,
            (EM_S390, true) => flags == 0x0403,
            // The files themselves decide.
            _ => true,
        };
        let levels = self.processor.levels;
        let mut best: Option<(usize, &[u8])> = None;
        for entry in self.cache?.of(name).filter(|entry| fits(entry.flags)) {
            let rank = match &entry.processors {
                Processors::All => levels.len() + 1,
                Processors::Level(level) => {
                    self.depends.set(true);
                    match levels.iter().position(|own| own.as_bytes() == level) {
                        Some(rank) => rank,
                        None => continue,
                    }
                }
                Processors::Mask(mask) if self.installation.legacy => {
                    self.depends.set(true);
                    let own = self.processor.legacy.iter().map(|name| legacy_bit(name));
                    if mask & !own.fold(0, |all, bit| all | bit) != 0 {
                        continue;
                    }
                    levels.len()
                }
                Processors::Mask(_) => continue,
            };
            if best.is_none_or(|(best, _)| rank < best) {
                best = Some((rank, &entry.path));
            }
        }
        best.map(|(_, path)| path.to_vec())
    }

    fn is_built_in(&self, path: &[u8]) -> bool {
        let mut directories = self.installation.directories.iter();
        directories.any(|directory| {
            path.strip_prefix(directory.as_slice())
                .is_some_and(|rest| rest.starts_with(b"/"))
        })
    }
}

impl LoaderRules for Rules<'_> {
    fn preloaded(&self) -> Vec<Vec<u8>> {
        let text = self.files.text(b"etc/ld.so.preload", MAX_PRELOAD);
        let text = text.unwrap_or_default();
        // Comments, then names separated by blanks and colons (elf/rtld.c, `dl_main`).
        text.split(|byte| *byte == b'\n')
            .filter_map(|line| line.split(|byte| *byte == b'#').next())
            .flat_map(|line| line.split(|byte| b": \t".contains(byte)))
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`, with braces or without (`_dl_dst_substitute`).
    fn expand(&self, by: &Loaded<'_>, name: &[u8]) -> Vec<u8> {
        let mut expanded = Vec::new();
        let mut rest = name;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'$' {
                expanded.push(*byte);
                continue;
            }
            let tokens: [(&[u8], &[u8]); 3] = [
                (b"ORIGIN", by.origin()),
                (b"PLATFORM", self.processor.platform.as_bytes()),
                (b"LIB", &self.installation.library),
            ];
            let found = tokens
                .into_iter()
                .find_map(|(token, value)| Some((token, value, after_token(after, token)?)));
            match found {
                Some((token, value, after)) => {
                    if token == b"PLATFORM" {
                        self.depends.set(true);
                    }
                    expanded.extend_from_slice(value);
                    rest = after;
                }
                None => expanded.push(b'$'),
            }
        }
        expanded
    }

    fn known(&self, loaded: &[Loaded<'_>], name: &[u8]) -> Option<usize> {
        loaded.iter().position(|file| {
            file.names.contains(name) || file.object.dynamic.soname.as_deref() == Some(name)
        })
    }

    fn find(&self, loaded: &[Loaded<'_>], by: usize, name: &[u8]) -> Search {
        let (Some(file), Some(main)) = (loaded.get(by), loaded.first()) else {
            return Search::Nowhere;
        };
        let elf = main.object.elf;
        if name.contains(&b'/') {
            return match (self.open(elf, name), self.files.candidate(&absolute(name))) {
                (Some(found), _) => found,
                (None, Candidate::Absent) => Search::Nowhere,
                (None, _) => Search::Unusable(absolute(name), "it is for another machine"),
            };
        }
        let mut directories = Vec::new();
        let dynamic = &file.object.dynamic;
        if dynamic.runpath.is_none() {
            let mut next = Some(by);
            let mut passed_main = false;
            while let Some((at, file)) = next.and_then(|at| Some((at, loaded.get(at)?))) {
                directories.extend(self.rpath(file));
                passed_main |= at == 0;
                next = file.by;
            }
            if !passed_main {
                directories.extend(self.rpath(main));
            }
        }
        if let Some(list) = &dynamic.runpath {
            directories.extend(self.directories(file, list));
        }
        let own = !dynamic.no_default_directories;
        self.search(elf, &directories, name)
            .or_else(|| {
                let path = self.cached(elf, name)?;
                (own || !self.is_built_in(&path)).then(|| self.open(elf, &path))?
            })
            .or_else(|| {
                let directories = &self.installation.directories;
                own.then(|| self.search(elf, directories, name))?
            })
            .unwrap_or(Search::Nowhere)
    }
}

/// The bit of a directory of [`Processor::legacy`] in an entry of the cache (sysdeps/x86/dl-procinfo.h, dl-cache.h).
fn legacy_bit(name: &str) -> u64 {
    match name {
        "tls" => 1 << 63,
        "haswell" => 1 << 50,
        "avx512_1" => 1 << 2,
        "x86_64" => 1 << 1,
        _ => 0,
    }
}

/// What follows a token, if the text begins with it.
fn after_token<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    if let Some(inner) = text.strip_prefix(b"{") {
        return inner.strip_prefix(token)?.strip_prefix(b"}");
    }
    let rest = text.strip_prefix(token)?;
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    (!rest.first().is_some_and(goes_on)).then_some(rest)
}
