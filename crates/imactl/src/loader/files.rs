//! The files of a root, as loaders see them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use ima::elf::{self, Dynamic, Elf};

use super::cache;
use crate::tree::{Content, Inode, Kind, Piece, Tree};

/// The largest program or library that is looked into.
const MAX_FILE: u64 = 256 << 20;

/// An ELF file, as far as loaders look at it.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) elf: Elf,
    pub(super) interpreter: Option<Vec<u8>>,
    pub(super) dynamic: Dynamic,
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
pub(super) struct Files<'a> {
    tree: &'a Tree,
    objects: RefCell<HashMap<Vec<u8>, Option<Rc<Object>>>>,
}

/// What lies where a loader looks for a library.
pub(super) enum Candidate {
    /// Nothing, or nothing that it could open.
    Absent,
    /// A regular file and its first bytes.
    File(Vec<u8>),
    /// Something else.
    Special,
}

impl<'a> Files<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            objects: RefCell::default(),
        }
    }

    pub(super) fn candidate(&self, path: &[u8]) -> Candidate {
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

    pub(super) fn is_directory(&self, path: &[u8]) -> bool {
        let found = self.tree.resolve(path);
        found.is_some_and(|(_, inode)| matches!(inode.kind, Kind::Directory))
    }

    pub(super) fn text(&self, path: &[u8], limit: usize) -> Option<Vec<u8>> {
        match &self.tree.resolve(path)?.1.kind {
            Kind::File(content) => content.head(limit).ok(),
            _ => None,
        }
    }

    pub(super) fn cache(&self, big_endian: bool) -> Option<cache::Cache> {
        let file = self.text(b"etc/ld.so.cache", cache::MAX_CACHE)?;
        cache::Cache::parse(&file, big_endian)
    }

    /// A file as it is mapped on behalf of `by`; nothing if it is not an ELF file.
    pub(super) fn load(&self, path: &[u8], by: Option<usize>) -> Option<Loaded<'a>> {
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
pub(super) struct Loaded<'a> {
    /// Where it was found.
    pub(super) path: Vec<u8>,
    pub(super) inode: &'a Inode,
    /// The names that it is known by.
    pub(super) names: BTreeSet<Vec<u8>>,
    pub(super) object: Rc<Object>,
    /// What it was loaded for.
    pub(super) by: Option<usize>,
}

impl Loaded<'_> {
    /// The directory that `$ORIGIN` stands for.
    pub(super) fn origin(&self) -> &[u8] {
        let slash = self.path.iter().rposition(|byte| *byte == b'/');
        self.path
            .get(..slash.unwrap_or_default())
            .unwrap_or_default()
    }
}

/// A path as it is opened by a process whose working directory is the root.
pub(super) fn absolute(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        path.to_vec()
    } else {
        [b"/", path].concat()
    }
}
