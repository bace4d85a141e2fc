//! What systemd starts on the way to its default target: each program of the units that the target pulls in.
//!
//! Unit files are read as systemd.unit(5) and systemd.service(5) have it, as far as they say what is started: links and
//! drop-ins, `.wants` and `.requires`, templates, what a socket, path or timer triggers. Conditions are taken as met: a unit
//! that this machine would pass over is looked at too.

use std::collections::{BTreeMap, BTreeSet};

use ima::fault::{Cause, Code, Explanation, Fault};
use ima::layout;
use ima::policy::Policy;
use ima::program::{self, Codes};

use super::libraries::Libraries;
use super::program::Examiner;
use crate::tree::{Kind, Tree};

/// Where units are, the first place first (systemd.unit(5), "System Unit Search Path").
const DIRECTORIES: [&[u8]; 4] = [
    b"etc/systemd/system",
    b"usr/local/lib/systemd/system",
    b"usr/lib/systemd/system",
    b"lib/systemd/system",
];

/// Programs that make units at boot, executed before any of them.
const GENERATORS: [&[u8]; 4] = [
    b"etc/systemd/system-generators",
    b"usr/local/lib/systemd/system-generators",
    b"usr/lib/systemd/system-generators",
    b"lib/systemd/system-generators",
];

/// Where a program without a path is looked for (systemd.exec(5), `ExecSearchPath=`).
const PATH: [&[u8]; 4] = [b"usr/local/sbin", b"usr/local/bin", b"usr/sbin", b"usr/bin"];

/// The longest unit file that is read.
const MAX_UNIT: usize = 1 << 20;

const SERVICE: Codes = Codes {
    missing: Code::ServiceDenied,
    invalid: Code::ServiceDenied,
    denied: Code::ServiceDenied,
};

/// A program that systemd starts at boot and that would be denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The unit, or `generator`.
    pub unit: String,
    /// The program as the unit names it.
    pub program: String,
    /// The file that is denied, which may be its interpreter or a library, and why.
    pub cause: String,
}

/// The programs of the default target's units that would be denied; nothing if the root has no systemd.
pub(super) fn check(examiner: &Examiner<'_>, libraries: &mut Libraries<'_>) -> Vec<Denied> {
    let tree = examiner.tree;
    let mut programs: BTreeSet<(String, Vec<u8>)> = BTreeSet::new();
    for directory in GENERATORS {
        let Some((directory, _)) = tree.resolve(directory) else {
            continue;
        };
        for (name, inode) in tree.children(&directory) {
            if inode.mode & 0o111 != 0 {
                let path = [b"/", directory.as_slice(), b"/", name].concat();
                programs.insert(("generator".to_owned(), path));
            }
        }
    }
    let units = Units { tree };
    for (name, unit) in units.closure() {
        for path in unit.programs() {
            programs.insert((String::from_utf8_lossy(&name).into_owned(), path));
        }
    }
    programs
        .into_iter()
        .filter_map(|(unit, path)| {
            let path = if path.starts_with(b"/") {
                path
            } else {
                PATH.iter()
                    .map(|directory| [b"/", *directory, b"/", &path].concat())
                    .find(|path| tree.resolve(path).is_some())?
            };
            // A program that is not there is no matter of appraisal.
            tree.resolve(&path)?;
            let fault = match program::runs(examiner, &path, &SERVICE, &SERVICE) {
                Ok(program) => libraries.check(&program).into_iter().next()?,
                Err(fault) => fault,
            };
            Some(Denied {
                unit,
                program: String::from_utf8_lossy(&path).into_owned(),
                cause: fault.detail().to_owned(),
            })
        })
        .collect()
}

/// The longest policy that is read.
const MAX_POLICY: usize = 1 << 20;

/// Which policies the kernel takes after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Further {
    /// None: it was built without CONFIG_IMA_WRITE_POLICY.
    None,
    /// Any, also from a process that writes its rules.
    Any,
    /// Only those in a file with a good signature: the first one appraises POLICY_CHECK.
    Signed,
}

/// Why systemd, where it is the init, would stop the boot over the policy that it loads: nothing if it would not, or has none.
/// It writes the path of the policy to the kernel, and where that fails, its lines; where they fail too, it stops
/// (src/core/ima-setup.c, `ima_setup`).
pub(super) fn policy(examiner: &Examiner<'_>, init: &[u8], further: Further) -> Option<Fault> {
    let (name, _) = examiner.tree.resolve(init)?;
    if name.rsplit(|byte| *byte == b'/').next() != Some(b"systemd") {
        return None;
    }
    let path = format!("{}/{}", layout::ROOT_POLICIES, layout::SYSTEMD_POLICY);
    let (_, inode) = examiner.tree.resolve(path.as_bytes())?;
    let Kind::File(content) = &inode.kind else {
        return None;
    };
    // Of an empty file it writes no line, which nothing refuses.
    if content.is_empty() {
        return None;
    }
    let refused = |cause: Explanation| {
        let detail = format!("{path} of the root");
        Some(Fault::new(Code::SystemdPolicy, detail).because(cause.and(Cause::SYSTEMD_STOPS)))
    };
    let text = content.head(MAX_POLICY).unwrap_or_default();
    let rules = match Policy::parse(&text) {
        Ok(_) => None,
        Err(error) => Some(Cause::SYSTEMD_RULE.with(&[&error.to_string()])),
    };
    match further {
        Further::None => None,
        Further::Any => rules.and_then(refused),
        Further::Signed => {
            let verdict = examiner.appraised(inode, content);
            if !verdict.is_good() {
                return refused(Cause::SYSTEMD_POLICY_NOT_GOOD.with(&[&verdict.to_string()]));
            }
            if !text.ends_with(b"\n") {
                return refused(Cause::SYSTEMD_POLICY_WITHOUT_NEWLINE.into());
            }
            rules.and_then(refused)
        }
    }
}

struct Units<'a> {
    tree: &'a Tree,
}

/// The assignments of a unit's sections, in order.
#[derive(Debug, Default)]
struct Unit {
    assignments: Vec<(Vec<u8>, Vec<u8>)>,
    /// The names it was found under: its own, and those of links to it.
    names: BTreeSet<Vec<u8>>,
}

impl Units<'_> {
    /// Every unit that `default.target` pulls in, by the name it is pulled in under.
    fn closure(&self) -> BTreeMap<Vec<u8>, Unit> {
        let mut units = BTreeMap::new();
        // Services, sockets and the like depend on the second unless they say otherwise.
        let mut todo: Vec<Vec<u8>> = [&b"default.target"[..], b"sysinit.target", b"basic.target"]
            .map(<[u8]>::to_vec)
            .into();
        while let Some(name) = todo.pop() {
            if units.contains_key(&name) {
                continue;
            }
            let Some(unit) = self.load(&name) else {
                continue;
            };
            for key in [
                &b"Wants"[..],
                b"Requires",
                b"BindsTo",
                b"Upholds",
                b"Sockets",
            ] {
                todo.extend(unit.words(key));
            }
            for suffix in [&b".wants"[..], b".requires", b".upholds"] {
                for name in &unit.names {
                    let directory = [name.as_slice(), suffix].concat();
                    let entries = self.in_directories(&directory);
                    todo.extend(entries.into_iter().map(|(name, _)| name));
                }
            }
            todo.extend(unit.triggers(&name));
            units.insert(name, unit);
        }
        units
    }

    /// The entries of a directory beside the units, in every place: their names and paths.
    fn in_directories(&self, directory: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        for place in DIRECTORIES {
            let path = [place, b"/", directory].concat();
            if let Some((directory, _)) = self.tree.resolve(&path) {
                for (name, _) in self.tree.children(&directory) {
                    let path = [&directory, &b"/"[..], name].concat();
                    found.push((name.to_vec(), path));
                }
            }
        }
        found
    }

    /// The first place that has a unit of that name.
    fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        DIRECTORIES.iter().find_map(|place| {
            let (directory, _) = self.tree.resolve(place)?;
            let path = [&directory, &b"/"[..], name].concat();
            self.tree.get(&path).map(|_| path)
        })
    }

    /// A unit with its drop-ins; nothing if there is none, or it is masked.
    fn load(&self, name: &[u8]) -> Option<Unit> {
        let template = template_of(name);
        let mut unit = Unit::default();
        unit.names.insert(name.to_vec());
        let path = self
            .find(name)
            .or_else(|| self.find(template.as_deref()?))?;
        // A link to /dev/null leads nowhere in an image: the unit is masked.
        let (file, _) = self.tree.resolve(&path)?;
        let own = file.rsplit(|byte| *byte == b'/').next().unwrap_or(&file);
        unit.names.insert(own.to_vec());
        unit.read(self.tree, &file)?;
        let mut drop_ins: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut names = unit.names.clone();
        names.extend(template);
        for name in names {
            let directory = [name.as_slice(), b".d"].concat();
            for (name, path) in self.in_directories(&directory) {
                if name.ends_with(b".conf") {
                    drop_ins.entry(name).or_insert(path);
                }
            }
        }
        for path in drop_ins.into_values() {
            let _ = unit.read(self.tree, &path);
        }
        Some(unit)
    }
}

/// `name@.service` of `name@instance.service`.
fn template_of(name: &[u8]) -> Option<Vec<u8>> {
    let at = name.iter().position(|byte| *byte == b'@')?;
    let dot = name.iter().rposition(|byte| *byte == b'.')?;
    Some([name.get(..=at)?, name.get(dot..)?].concat())
}

impl Unit {
    /// Reads a unit file; nothing if it is none.
    fn read(&mut self, tree: &Tree, path: &[u8]) -> Option<()> {
        let (_, inode) = tree.resolve(path)?;
        let Kind::File(content) = &inode.kind else {
            return None;
        };
        let text = content.head(MAX_UNIT).ok()?;
        let mut joined: Vec<u8> = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if joined.is_empty() && line.first().is_none_or(|byte| b"#;[".contains(byte)) {
                continue;
            }
            // A comment between lines that continue one another does not end them.
            if !joined.is_empty() && line.first().is_some_and(|byte| b"#;".contains(byte)) {
                continue;
            }
            joined.extend_from_slice(line);
            if joined.last() == Some(&b'\\') {
                joined.pop();
                joined.push(b' ');
                continue;
            }
            let whole = std::mem::take(&mut joined);
            let equals = whole.iter().position(|byte| *byte == b'=');
            if let Some((key, value)) = equals.and_then(|at| whole.split_at_checked(at)) {
                let value = value.get(1..).unwrap_or_default().trim_ascii();
                let key = key.trim_ascii().to_vec();
                if value.is_empty() {
                    // An empty value takes back what was said before.
                    self.assignments.retain(|(have, _)| *have != key);
                } else {
                    self.assignments.push((key, value.to_vec()));
                }
            }
        }
        Some(())
    }

    fn values<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.assignments
            .iter()
            .filter(move |(have, _)| have == key)
            .map(|(_, value)| value.as_slice())
    }

    /// The words of every value of a key.
    fn words(&self, key: &[u8]) -> Vec<Vec<u8>> {
        self.values(key)
            .flat_map(|value| value.split(u8::is_ascii_whitespace))
            .filter(|word| !word.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// What a socket, path or timer starts when its time comes.
    fn triggers(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let Some((stem, kind)) = name
            .iter()
            .rposition(|byte| *byte == b'.')
            .and_then(|dot| name.split_at_checked(dot))
        else {
            return Vec::new();
        };
        let (key, accepts) = match kind {
            b".socket" => (&b"Service"[..], true),
            b".path" | b".timer" => (&b"Unit"[..], false),
            _ => return Vec::new(),
        };
        let named = self.words(key);
        if !named.is_empty() {
            return named;
        }
        let each = accepts && self.values(b"Accept").any(|value| value == b"yes");
        let suffix: &[u8] = if each { b"@.service" } else { b".service" };
        vec![[stem, suffix].concat()]
    }

    /// What it starts: the first word of each `Exec...=` that is executed at the start.
    fn programs(&self) -> Vec<Vec<u8>> {
        [
            &b"ExecCondition"[..],
            b"ExecStartPre",
            b"ExecStart",
            b"ExecStartPost",
        ]
        .into_iter()
        .flat_map(|key| self.values(key))
        .filter_map(|line| {
            let line = line
                .trim_ascii_start()
                .iter()
                .position(|byte| !b"@-:+!|".contains(byte))
                .and_then(|start| line.trim_ascii_start().get(start..))?;
            let word = match line {
                [quote @ (b'"' | b'\''), rest @ ..] => rest.split(|byte| byte == quote).next()?,
                _ => line.split(u8::is_ascii_whitespace).next()?,
            };
            // What a specifier stands for is known to systemd alone.
            (!word.is_empty() && !word.contains(&b'%')).then(|| word.to_vec())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Inode};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_units_never_panic(
            text in "(\\[Unit\\]|Wants=|Exec(Start|StartPre)=|@|-|\"|\\\\|%|/usr/bin/x| |\n|[ -~]|\\PC){0,60}",
            name in "[a-z@.%-]{1,20}",
        ) {
            let mut tree = Tree::new();
            for place in ["default.target", name.as_str()] {
                let inode = Inode::new(Kind::File(Content::Bytes(text.as_bytes().into())), 0o644);
                // A name that is none is refused here, as a file system would.
                let _ = tree.insert(format!("etc/systemd/system/{place}").as_bytes(), inode);
            }
            for (name, unit) in (Units { tree: &tree }).closure() {
                let _ = (unit.programs(), unit.triggers(&name));
            }
        }
    }
}
