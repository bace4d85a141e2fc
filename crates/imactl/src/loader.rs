//! The dynamic loader: which files of a root it maps for a program. Each loader's rules are in a module of its own.

pub mod cache;
mod glibc;
mod musl;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use ima::elf::{self, Dynamic, Elf};

use crate::tree::{Content, Inode, Kind, Piece, Tree};

/// The largest program or library that is looked into.
const MAX_FILE: u64 = 256 << 20;

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
            files: Files {
                tree,
                objects: RefCell::default(),
            },
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

/// An ELF file, as far as loaders look at it.
#[derive(Debug)]
struct Object {
    elf: Elf,
    interpreter: Option<Vec<u8>>,
    dynamic: Dynamic,
}

impl Object {
    fn parse(file: &[u8]) -> Option<Self> {
        let elf = Elf::parse(file.get(..elf::HEADER_LENGTH).unwrap_or(file))?;
        let part = |extent: elf::Extent| {
            let start = usize::try_from(extent.offset).ok()?;
            file.get(start..start.checked_add(extent.length)?)
        };
        let interpreter = part(elf.program_headers())
            .and_then(|headers| elf.interpreter(headers).ok().flatten())
            .and_then(part)
            .and_then(|name| name.split(|byte| *byte == 0).next());
        Some(Self {
            elf,
            interpreter: interpreter.map(<[u8]>::to_vec),
            dynamic: Dynamic::parse(file).unwrap_or_default(),
        })
    }
}

/// The files of a root, as loaders see them.
#[derive(Debug)]
struct Files<'a> {
    tree: &'a Tree,
    objects: RefCell<HashMap<Vec<u8>, Option<Rc<Object>>>>,
}

/// What lies where a loader looks for a library.
enum Candidate {
    /// Nothing, or nothing that it could open.
    Absent,
    /// A regular file and its first bytes.
    File(Vec<u8>),
    /// Something else.
    Special,
}

impl<'a> Files<'a> {
    fn candidate(&self, path: &[u8]) -> Candidate {
        match self.tree.resolve(path) {
            None => Candidate::Absent,
            Some((_, inode)) => match &inode.kind {
                Kind::File(content) => {
                    Candidate::File(content.head(elf::HEADER_LENGTH).unwrap_or_default())
                }
                _ => Candidate::Special,
            },
        }
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        let found = self.tree.resolve(path);
        found.is_some_and(|(_, inode)| matches!(inode.kind, Kind::Directory))
    }

    fn text(&self, path: &[u8], limit: usize) -> Option<Vec<u8>> {
        match &self.tree.resolve(path)?.1.kind {
            Kind::File(content) => content.head(limit).ok(),
            _ => None,
        }
    }

    fn cache(&self, big_endian: bool) -> Option<cache::Cache> {
        let file = self.text(b"etc/ld.so.cache", cache::MAX_CACHE)?;
        cache::Cache::parse(&file, big_endian)
    }

    /// A file as it is mapped on behalf of `by`; nothing if it is not an ELF file.
    fn load(&self, path: &[u8], by: Option<usize>) -> Option<Loaded<'a>> {
        let (name, inode) = self.tree.resolve(path)?;
        let Kind::File(content) = &inode.kind else {
            return None;
        };
        let known = self.objects.borrow().get(&name).cloned();
        let object = known.unwrap_or_else(|| {
            let object = read(content).and_then(|file| Object::parse(&file));
            let object = object.map(Rc::new);
            self.objects
                .borrow_mut()
                .insert(name.clone(), object.clone());
            object
        })?;
        Some(Loaded {
            path: path.to_vec(),
            inode,
            names: BTreeSet::new(),
            object,
            by,
        })
    }
}

fn read(content: &Content) -> Option<Vec<u8>> {
    if content.len() > MAX_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    content
        .read(&mut |piece| {
            match piece {
                Piece::Data(data) => bytes.extend_from_slice(data),
                Piece::Hole(length) => {
                    let length = usize::try_from(length).unwrap_or(0);
                    bytes.resize(bytes.len().saturating_add(length), 0);
                }
            }
            Ok(())
        })
        .ok()?;
    Some(bytes)
}

/// A file that is mapped.
#[derive(Debug, Clone)]
struct Loaded<'a> {
    /// Where it was found.
    path: Vec<u8>,
    inode: &'a Inode,
    /// The names that it is known by.
    names: BTreeSet<Vec<u8>>,
    object: Rc<Object>,
    /// What it was loaded for.
    by: Option<usize>,
}

impl Loaded<'_> {
    /// The directory that `$ORIGIN` stands for.
    fn origin(&self) -> &[u8] {
        let slash = self.path.iter().rposition(|byte| *byte == b'/');
        self.path
            .get(..slash.unwrap_or_default())
            .unwrap_or_default()
    }
}

/// What a search for a library ended with.
enum Search {
    At(Vec<u8>),
    Unusable(Vec<u8>, &'static str),
    Nowhere,
}

/// The rules of one loader.
trait Rules {
    /// Libraries that are loaded before those that the program needs, by name; the program runs without them.
    fn preloaded(&self) -> Vec<Vec<u8>>;

    /// The name of a needed library as it is searched for.
    fn expand(&self, by: &Loaded<'_>, name: &[u8]) -> Vec<u8>;

    /// Which of the loaded files a name already means.
    fn known(&self, loaded: &[Loaded<'_>], name: &[u8]) -> Option<usize>;

    /// Looks for a library on behalf of a loaded file.
    fn find(&self, loaded: &[Loaded<'_>], by: usize, name: &[u8]) -> Search;
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

/// A path as it is opened by a process whose working directory is the root.
fn absolute(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        path.to_vec()
    } else {
        [b"/", path].concat()
    }
}

#[cfg(test)]
pub(crate) mod tests;
