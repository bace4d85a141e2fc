//! The dynamic loader: which files of a root it maps for a program. Each loader's rules are in a module of its own.

pub mod cache;
mod files;
mod glibc;
mod musl;
mod rules;

use std::collections::HashMap;
use std::rc::Rc;

use crate::tree::Tree;
use files::{Files, Loaded};
use rules::{Rules, Search};

/// What a loader maps for a program, on one kind of processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The kind of processor, where the choice of libraries depends on it.
    pub processor: Option<String>,
    /// The libraries, in the order in which they are mapped; the program and the loader itself are not among them.
    pub libraries: Vec<Library>,
    /// Why the program ends before it begins, if it does.
    pub failures: Vec<Failure>,
}

/// A library that a loader maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The name that it is needed by.
    pub name: Vec<u8>,
    /// Where the loader finds it.
    pub path: Vec<u8>,
    /// Whether the program runs without it: it is in `/etc/ld.so.preload`.
    pub optional: bool,
}

/// A library that a loader cannot map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The name that it is needed by.
    pub name: Vec<u8>,
    /// What needs it.
    pub by: Vec<u8>,
    /// The file at which the loader gives up, and why; nothing if it finds none.
    pub unusable: Option<(Vec<u8>, &'static str)>,
}

/// The loaders of a root. They remember what each file needs: many programs need the same libraries.
#[derive(Debug)]
pub struct Loaders<'a> {
    files: Files<'a>,
    caches: HashMap<bool, Option<Rc<cache::Cache>>>,
    glibc: HashMap<Vec<u8>, Rc<glibc::Installation>>,
}

impl<'a> Loaders<'a> {
    /// Those of a root.
    #[must_use]
    pub fn new(tree: &'a Tree) -> Self {
        Self {
            files: Files::new(tree),
            caches: HashMap::new(),
            glibc: HashMap::new(),
        }
    }

    /// What is mapped for a program: one answer, or one for each kind of processor where the loader looks into directories of
    /// theirs. None for what has no loader: a static program, or what is not a program at all.
    pub fn resolve(&mut self, program: &[u8]) -> Vec<Resolution> {
        let Some(main) = self.files.load(program, None) else {
            return Vec::new();
        };
        let Some(interpreter) = main.object.interpreter.clone() else {
            return Vec::new();
        };
        let file_name = interpreter.rsplit(|byte| *byte == b'/').next();
        if let Some(machine) = file_name.and_then(musl::machine) {
            let rules = musl::Rules::new(&self.files, &interpreter, machine);
            return vec![walk(&self.files, &rules, main, &interpreter)];
        }
        let big_endian = main.object.elf.machine().big_endian();
        let files = &self.files;
        let cache = self
            .caches
            .entry(big_endian)
            .or_insert_with(|| files.cache(big_endian).map(Rc::new))
            .clone();
        let installation = self
            .glibc
            .entry(interpreter.clone())
            .or_insert_with(|| Rc::new(glibc::Installation::new(files, &interpreter)))
            .clone();
        let mut found: Vec<Resolution> = Vec::new();
        for processor in installation.processors(&main.object) {
            let rules = glibc::Rules::new(files, &installation, cache.as_deref(), processor);
            let mut resolution = walk(files, &rules, main.clone(), &interpreter);
            let decided = rules.depends_on_processor();
            resolution.processor = decided.then(|| processor.to_string());
            found.push(resolution);
            if !decided {
                break;
            }
        }
        found
    }
}

/// Loads a program's libraries, those that it needs before those that they need in turn, as both loaders do
/// (`_dl_map_object_deps` of glibc, `load_deps` of musl).
fn walk<'a>(
    files: &Files<'a>,
    rules: &dyn Rules,
    main: Loaded<'a>,
    interpreter: &[u8],
) -> Resolution {
    let mut found = Resolution {
        processor: None,
        libraries: Vec::new(),
        failures: Vec::new(),
    };
    let mut loaded = vec![main];
    if let Some(mut own) = files.load(interpreter, None) {
        own.names.insert(interpreter.to_vec());
        loaded.push(own);
    }
    let mut want = |loaded: &mut Vec<Loaded<'a>>, by: usize, name: Vec<u8>, optional: bool| {
        if let Some(at) = rules.known(loaded, &name) {
            loaded[at].names.insert(name);
            return;
        }
        let mut failure = |unusable| {
            let same = |known: &Failure| known.name == name && known.unusable == unusable;
            let known = found.failures.iter().any(same);
            if !optional && !known {
                found.failures.push(Failure {
                    name: name.clone(),
                    by: loaded[by].path.clone(),
                    unusable,
                });
            }
        };
        let path = match rules.find(loaded, by, &name) {
            Search::At(path) => path,
            Search::Unusable(path, why) => return failure(Some((path, why))),
            Search::Nowhere => return failure(None),
        };
        let by = (!optional).then_some(by);
        let Some(mut library) = files.load(&path, by) else {
            return failure(Some((path, "it is not a shared library")));
        };
        // A file that is mapped already is not mapped again.
        let same = loaded
            .iter()
            .position(|known| std::ptr::eq(known.inode, library.inode));
        if let Some(at) = same {
            loaded[at].names.insert(name);
            return;
        }
        library.names.extend([name.clone(), path.clone()]);
        loaded.push(library);
        found.libraries.push(Library {
            name,
            path,
            optional,
        });
    };
    for name in rules.preloaded() {
        want(&mut loaded, 0, name, true);
    }
    let mut next = 0;
    while let Some(file) = loaded.get(next) {
        let object = Rc::clone(&file.object);
        for name in &object.dynamic.needed {
            let name = rules.expand(&loaded[next], name);
            want(&mut loaded, next, name, false);
        }
        next += 1;
    }
    found
}

#[cfg(test)]
pub(crate) mod tests;
