//! The files of a crate import one another without cycles, so that each can be understood with only those that it imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The path of a module, such as `["boot", "policy"]`; empty for `lib.rs`.
type Module = Vec<String>;

/// Each module, with those that it imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Removes comments and the module `tests` at the end.
fn code(source: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let lines: Vec<&str> = source.lines().filter(is_code).collect();
    let all = lines.join("\n");
    all.split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// What a `use` makes known in its module.
struct Use {
    name: String,
    path: String,
    /// Whether other modules can name it through this one.
    is_public: bool,
}

/// The code of a module, without its comments and tests.
struct Source {
    uses: Vec<Use>,
    /// Everything but the `use`s.
    rest: String,
}

impl Source {
    fn parse(text: &str) -> Self {
        let (mut uses, mut rest) = (Vec::new(), String::new());
        for statement in code(text).split_inclusive(';') {
            let found = statement.rfind("use ").and_then(|at| {
                let before = statement[..at].lines().last().unwrap_or_default().trim();
                let is_public =
                    before == "pub" || before.starts_with("pub(") && before.ends_with(')');
                (before.is_empty() || is_public).then_some((at, is_public))
            });
            match (found, statement.strip_suffix(';')) {
                (Some((at, is_public)), Some(whole)) => {
                    let paths = paths(&whole[at + 4..]).into_iter();
                    uses.extend(paths.map(|(path, name)| Use {
                        name,
                        path,
                        is_public,
                    }));
                    rest.push_str(&statement[..at]);
                }
                _ => rest.push_str(statement),
            }
        }
        Self { uses, rest }
    }

    /// The paths in other places than a `use`.
    fn inline_paths(&self) -> impl Iterator<Item = &str> {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
        let paths = self.rest.split(move |letter| !is_part(letter));
        paths.filter(|path| path.contains("::"))
    }

    /// Whether a name is anywhere but in a `use`.
    fn has_word(&self, name: &str) -> bool {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let mut words = self.rest.split(|letter| !is_part(letter));
        words.any(|word| word == name)
    }
}

/// The paths of the tree in a `use` and their names: `a::b` named `b` and `a::c` named `d` of `a::{b, c as d}`.
fn paths(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = path.trim().trim_end_matches("::self");
        let last = path.rsplit("::").next().unwrap_or(path);
        let name = if name.is_empty() { last } else { name.trim() };
        return vec![(path.to_owned(), name.to_owned())];
    };
    let group = group
        .strip_suffix('}')
        .unwrap_or_else(|| panic!("the end of a group: {tree}"));
    let mut depth = 0;
    let parts = group.split(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| paths(&format!("{}{}", prefix.trim(), part.trim())))
        .collect()
}

/// The modules of a crate.
struct Sources(BTreeMap<Module, Source>);

impl Sources {
    /// The module that defines what a path means in a module; nothing if that is another crate.
    fn definition(&self, module: &Module, path: &str) -> Option<Module> {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut base = module.clone();
        match parts[0] {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                while parts.get(1) == Some(&"super") {
                    base.pop();
                    parts.remove(0);
                }
                base.pop();
            }
            name => {
                base.push(name.to_owned());
                if !self.0.contains_key(&base) {
                    return None;
                }
            }
        }
        self.below(base, &parts[1..])
    }

    /// As [`Self::definition`], of a path that begins in a module and may lead through a `use` there.
    fn below(&self, mut base: Module, parts: &[&str]) -> Option<Module> {
        for (at, part) in parts.iter().enumerate() {
            base.push((*part).to_owned());
            if self.0.contains_key(&base) {
                continue;
            }
            base.pop();
            let uses = self.0.get(&base).map_or(&[][..], |source| &source.uses);
            return match uses.iter().find(|found| found.name == *part) {
                Some(found) => {
                    let rest = parts[at + 1..].iter().map(|part| format!("::{part}"));
                    let path = format!("{}{}", found.path, rest.collect::<String>());
                    self.definition(&base, &path)
                }
                None => Some(base),
            };
        }
        Some(base)
    }

    /// The modules that a module imports. What it only passes on from one below it, it does not need itself.
    fn imports_of(&self, module: &Module) -> BTreeSet<Module> {
        let source = &self.0[module];
        let used = source.uses.iter().filter(|found| {
            let is_of_child =
                !found.path.starts_with("crate::") && !found.path.starts_with("super::");
            !(found.is_public && is_of_child) || source.has_word(&found.name)
        });
        let used = used.filter_map(|found| self.definition(module, &found.path));
        let inline = source.inline_paths().filter_map(|path| {
            self.definition(module, path)
                .or_else(|| self.below(module.clone(), &path.split("::").collect::<Vec<_>>()))
        });
        used.chain(inline)
            .filter(|import| import != module)
            .collect()
    }

    fn imports(&self) -> Imports {
        let modules = self.0.keys();
        modules
            .map(|module| (module.clone(), self.imports_of(module)))
            .collect()
    }
}

/// A cycle, if there is one: the modules on it, in order.
fn cycle(imports: &Imports) -> Option<Vec<String>> {
    fn visit<'a>(
        module: &'a Module,
        imports: &'a Imports,
        path: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|other| *other == module) {
            return Some(
                path[start..]
                    .iter()
                    .map(|module| module.join("::"))
                    .collect(),
            );
        }
        if !done.insert(module) {
            return None;
        }
        path.push(module);
        let found = imports
            .get(module)
            .into_iter()
            .flatten()
            .find_map(|import| visit(import, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}

/// Adds the modules in a directory, but not those that hold only tests.
fn collect(directory: &Path, parent: &Module, sources: &mut BTreeMap<Module, Source>) {
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut module = parent.clone();
        if path.is_dir() {
            // The programs are crates of their own.
            if name != "bin" {
                module.push(name);
                collect(&path, &module, sources);
            }
        } else if path.extension().is_some_and(|end| end == "rs")
            && !["main", "tests"].contains(&name.as_str())
        {
            if !["lib", "mod"].contains(&name.as_str()) {
                module.push(name);
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            sources.insert(module, Source::parse(&text));
        }
    }
}

/// The imports of the files below a directory.
fn imports(directory: &str) -> Imports {
    let mut sources = BTreeMap::new();
    collect(Path::new(directory), &Module::new(), &mut sources);
    Sources(sources).imports()
}

fn module(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

#[test]
fn the_files_of_the_init_import_one_another_without_cycles() {
    let imports = imports("src");
    // The imports are found at all.
    assert!(imports[&module("boot")].contains(&module("boot::keys")));
    assert!(imports[&module("boot::keys")].contains(&module("boot::keys::hmac")));
    assert!(imports[&module("boot::keys::hmac")].contains(&module("files")));
    assert_eq!(cycle(&imports), None);
}

#[test]
fn the_files_of_the_library_of_formats_import_one_another_without_cycles() {
    let imports = imports("crates/ima/src");
    assert!(imports[&module("fault::message")].contains(&module("fault")));
    assert!(imports[&module("config")].contains(&module("composefs")));
    assert!(imports[&module("policy::lint")].contains(&module("policy::cover")));
    assert_eq!(cycle(&imports), None);
}

#[test]
fn the_files_of_the_host_tool_import_one_another_without_cycles() {
    let imports = imports("crates/imactl/src");
    assert!(imports[&module("check")].contains(&module("check::findings")));
    assert!(imports[&module("key::file")].contains(&module("key::signer")));
    assert!(imports[&module("cli::sign")].contains(&module("cli::outcome")));
    assert_eq!(cycle(&imports), None);
}

#[test]
fn a_cycle_is_found() {
    let cycle = |files: &[(&str, &str)]| {
        let files = files.iter();
        let sources = files.map(|(path, source)| (module(path), Source::parse(source)));
        let found = cycle(&Sources(sources.collect()).imports());
        found.map(|modules| modules.len())
    };
    for (a, b) in [
        ("use crate::b::{self, X};", "use super::a::Y;"),
        ("use crate::{b::X, c};", "use crate::a;"),
        ("fn f() { crate::b::g() }", "fn g() { super::a::f() }"),
        (
            "pub(crate) use crate::b as c;",
            "use crate::{\n    a::{Y, Z},\n};",
        ),
    ] {
        assert_eq!(cycle(&[("a", a), ("b", b)]), Some(2), "{a}");
        assert_eq!(cycle(&[("a", a), ("b", "use other::a;")]), None, "{a}");
    }
    // A module may pass on what a module below it has, but not use it.
    let below = ("a::b", "use super::Code;\npub struct Cause(Code);");
    let passes_on = ("a", "mod b;\npub use b::{Cause, Other};\npub struct Code;");
    assert_eq!(cycle(&[passes_on, below]), None);
    let uses = (
        "a",
        "mod b;\npub use b::{Cause, Other};\npub struct Fault(Cause);",
    );
    assert_eq!(cycle(&[uses, below]), Some(2));
    let parent = ("a", "mod b;\nfn f() { b::g() }");
    assert_eq!(cycle(&[parent, ("a::b", "use super::f;")]), Some(2));
    assert_eq!(cycle(&[parent, ("a::b", "// use super::f;")]), None);
    // What a module passes on is imported from where it is defined.
    let parent = ("a", "mod b;\nmod c;\npub use b::X;\nfn f() { c::g() }");
    let other = ("a::c", "use crate::a::X;");
    assert_eq!(cycle(&[parent, ("a::b", ""), other]), None);
    assert_eq!(
        cycle(&[parent, ("a::b", "use super::c::Y;"), other]),
        Some(2)
    );
    let through_a_module = ("a::c", "use crate::d;\nfn g() { d::X::new() }");
    let passes_on = ("d", "pub use crate::a::f as X;");
    assert_eq!(cycle(&[parent, through_a_module, passes_on]), Some(2));
}
