//! The libraries of the init and of what systemd starts: the dynamic loader maps them before the first instruction of the program, and one that is
//! denied ends PID 1 and with it the machine.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_RPATH, DT_RUNPATH};
use elf::endian::AnyEndian;
use ima::fault::Fault;

use super::program::{Examiner, LIBRARY, shown};
use crate::tree::{Content, Kind, Piece};

/// Where the loader looks when neither the program nor ld.so.conf says (ld.so(8)); Debian's multiarch directories are
/// added as the root has them.
const DIRECTORIES: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// The largest program or library that is looked into.
const MAX_FILE: u64 = 256 << 20;

/// The dynamic loader of a root. It remembers what each file needs: many programs need the same libraries.
pub(super) struct Loader<'a> {
    examiner: &'a Examiner<'a>,
    /// Where it looks for what has no path.
    directories: Vec<Vec<u8>>,
    needs: HashMap<Vec<u8>, Option<Rc<Needs>>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(examiner: &'a Examiner<'a>) -> Self {
        Self {
            examiner,
            directories: directories(examiner),
            needs: HashMap::new(),
        }
    }

    /// The faults in what a program links to, directly or through others. A script is none of the loader's business.
    pub(super) fn check(&mut self, program: &[u8]) -> Vec<Fault> {
        let examiner = self.examiner;
        let mut faults = Vec::new();
        let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut todo = VecDeque::from([program.to_vec()]);
        while let Some(path) = todo.pop_front() {
            let Some(needs) = self.needs_of(&path) else {
                continue;
            };
            for library in &needs.libraries {
                if !known.insert(library.clone()) {
                    continue;
                }
                let place = if library.contains(&b'/') {
                    Some(library.clone())
                } else {
                    needs
                        .paths
                        .iter()
                        .chain(&self.directories)
                        .map(|directory| [directory, &b"/"[..], library].concat())
                        .find(|path| examiner.tree.resolve(path).is_some())
                };
                let Some(place) = place else {
                    let detail = format!("{}, which {} needs", shown(library), shown(&path));
                    faults.push(Fault::new(ima::fault::Code::LibraryMissing, detail));
                    continue;
                };
                let allowed = examiner
                    .find(&place, &LIBRARY)
                    .and_then(|(name, _)| examiner.allowed(&name, &place, &LIBRARY));
                match allowed {
                    Ok(()) => todo.push_back(place),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        faults
    }

    fn needs_of(&mut self, path: &[u8]) -> Option<Rc<Needs>> {
        let (name, content) = self.examiner.find(path, &LIBRARY).ok()?;
        if let Some(known) = self.needs.get(&name) {
            return known.clone();
        }
        let found = needs(content).map(|mut needs| {
            let origin = name
                .rsplitn(2, |byte| *byte == b'/')
                .nth(1)
                .unwrap_or_default();
            for path in &mut needs.paths {
                *path = expand(path, origin);
            }
            Rc::new(needs)
        });
        self.needs.insert(name, found.clone());
        found
    }
}

struct Needs {
    libraries: Vec<Vec<u8>>,
    /// Directories that the file names itself.
    paths: Vec<Vec<u8>>,
}

fn needs(content: &Content) -> Option<Needs> {
    let bytes = read(content)?;
    let file = ElfBytes::<AnyEndian>::minimal_parse(&bytes).ok()?;
    let dynamic = file.dynamic().ok()??;
    let (_, strings) = file.dynamic_symbol_table().ok()??;
    let text = |offset: u64| {
        let offset = usize::try_from(offset).ok()?;
        strings.get_raw(offset).ok().map(<[u8]>::to_vec)
    };
    let mut needs = Needs {
        libraries: Vec::new(),
        paths: Vec::new(),
    };
    for entry in dynamic {
        match entry.d_tag {
            DT_NEEDED => needs.libraries.extend(text(entry.d_val())),
            DT_RPATH | DT_RUNPATH => {
                let list = text(entry.d_val()).unwrap_or_default();
                let paths = list
                    .split(|byte| *byte == b':')
                    .filter(|path| !path.is_empty());
                needs.paths.extend(paths.map(<[u8]>::to_vec));
            }
            _ => {}
        }
    }
    Some(needs)
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

/// The loader's directories: those of every root, those that ld.so.conf names in this one, and Debian's.
fn directories(examiner: &Examiner<'_>) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for (name, index) in examiner.tree.names() {
        let configured = name == b"etc/ld.so.conf" || name.starts_with(b"etc/ld.so.conf.d/");
        if let (true, Kind::File(content)) = (configured, &examiner.tree.inode(index).kind) {
            let text = content.head(1 << 16).unwrap_or_default();
            let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            found.extend(
                lines
                    .filter(|line| line.starts_with(b"/"))
                    .map(<[u8]>::to_vec),
            );
        }
    }
    for directory in DIRECTORIES {
        found.push(directory.as_bytes().to_vec());
    }
    found
}

fn expand(path: &[u8], origin: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(path);
    let origin = format!("/{}", String::from_utf8_lossy(origin));
    text.replace("${ORIGIN}", &origin)
        .replace("$ORIGIN", &origin)
        .into_bytes()
}
