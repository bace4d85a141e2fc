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

/// The paths of the tree in a `use`, such as `a::b` and `a::c` of `a::{b, c}`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.to_owned()];
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
        .flat_map(paths)
        .map(|path| format!("{prefix}{path}"))
        .collect()
}

/// The paths in other places than a `use` that begin with `crate::` or `super::`.
fn inline_paths(code: &str) -> Vec<String> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    code.split(|letter| !is_part(letter))
        .filter(|path| path.starts_with("crate::") || path.starts_with("super::"))
        .map(str::to_owned)
        .collect()
}

/// The names and keywords of a text.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Whether a path begins with a module below this one.
fn is_of_child(path: &str, module: &Module, modules: &BTreeSet<Module>) -> bool {
    let path = path.strip_prefix("self::").unwrap_or(path);
    let mut child = module.clone();
    child.push(
        path.split("::")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
    );
    modules.contains(&child)
}

/// The modules that a module imports.
fn imports_of(module: &Module, source: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let code = code(source);
    let mut found = BTreeSet::new();
    let mut import = |path: &str| {
        let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
        let mut base = module.clone();
        match parts.first() {
            Some(&"crate") => base.clear(),
            Some(&"super") => {
                while parts.first() == Some(&"super") {
                    base.pop();
                    parts.remove(0);
                }
            }
            // Of a module below this one, or of another crate.
            Some(name) => {
                base.push((*name).to_owned());
                if !modules.contains(&base) {
                    return;
                }
            }
            None => return,
        }
        base.extend(
            parts
                .iter()
                .skip(usize::from(parts.first() == Some(&"crate")))
                .map(|part| (*part).to_owned()),
        );
        // What follows the module is an item of it.
        while !base.is_empty() && !modules.contains(&base) {
            base.pop();
        }
        if base != *module {
            found.insert(base);
        }
    };
    let mut rest = String::new();
    let (mut uses, mut reexports) = (Vec::new(), Vec::new());
    for statement in code.split_inclusive(';') {
        let line_with_use = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].lines().last().unwrap_or_default().trim();
            before.is_empty()
                || before == "pub"
                || before.starts_with("pub(") && before.ends_with(')')
        });
        match line_with_use {
            Some(at) if statement.ends_with(';') => {
                let tree = statement[at + 4..].trim_end_matches(';');
                let is_public = statement[..at].trim_end().ends_with("pub");
                let found = paths(tree);
                let (passed_on, used) = found
                    .into_iter()
                    .partition(|path| is_public && is_of_child(path, module, modules));
                reexports.extend::<Vec<String>>(passed_on);
                uses.extend::<Vec<String>>(used);
                rest.push_str(&statement[..at]);
            }
            _ => rest.push_str(statement),
        }
    }
    // What a module only passes on from one below it, it does not need itself.
    uses.extend(reexports.into_iter().filter(|path| {
        let name = path.rsplit("::").next().unwrap_or_default().trim();
        words(&rest).any(|word| word == name)
    }));
    uses.iter().for_each(|path| import(path));
    inline_paths(&rest).iter().for_each(|path| import(path));
    // `mod a;` and then `a::f()`.
    for child in modules
        .iter()
        .filter(|child| child.starts_with(module) && child.len() == module.len() + 1)
    {
        let name = child.last().expect("a name");
        let is_used = rest.match_indices(&format!("{name}::")).any(|(at, _)| {
            !rest[..at].ends_with(|letter: char| {
                letter.is_alphanumeric() || letter == '_' || letter == ':'
            })
        });
        if is_used {
            found.insert(child.clone());
        }
    }
    found
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

fn collect(directory: &Path, parent: &Module, sources: &mut BTreeMap<Module, String>) {
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
        } else if path.extension().is_some_and(|end| end == "rs") && name != "main" {
            if name != "lib" {
                module.push(name);
            }
            sources.insert(
                module,
                std::fs::read_to_string(&path).expect("a source file"),
            );
        }
    }
}

fn imports(sources: &BTreeMap<Module, String>) -> Imports {
    let modules = sources.keys().cloned().collect();
    sources
        .iter()
        .map(|(module, source)| (module.clone(), imports_of(module, source, &modules)))
        .collect()
}

#[test]
fn the_files_of_the_init_import_one_another_without_cycles() {
    let mut sources = BTreeMap::new();
    collect(Path::new("src"), &Module::new(), &mut sources);
    let imports = imports(&sources);
    // The imports are found at all.
    let boot = vec!["boot".to_owned()];
    let keys = vec!["boot".to_owned(), "keys".to_owned()];
    let hmac = vec!["boot".to_owned(), "keys".to_owned(), "hmac".to_owned()];
    assert!(imports[&boot].contains(&keys) && imports[&keys].contains(&hmac));
    assert!(imports[&hmac].contains(&vec!["files".to_owned()]));
    assert_eq!(cycle(&imports), None);
}

#[test]
fn the_files_of_the_library_of_formats_import_one_another_without_cycles() {
    let mut sources = BTreeMap::new();
    collect(Path::new("crates/ima/src"), &Module::new(), &mut sources);
    let imports = imports(&sources);
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    assert!(imports[&module("fault::message")].contains(&module("fault")));
    assert!(imports[&module("config")].contains(&module("composefs")));
    assert!(imports[&module("policy::lint")].contains(&module("policy::cover")));
    assert_eq!(cycle(&imports), None);
}

#[test]
fn a_cycle_is_found() {
    let sources = |files: &[(&str, &str)]| -> BTreeMap<Module, String> {
        let module = |path: &str| path.split("::").map(str::to_owned).collect();
        files
            .iter()
            .map(|(path, source)| (module(path), (*source).to_owned()))
            .collect()
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
        let found = cycle(&imports(&sources(&[("a", a), ("b", b)])));
        assert_eq!(found.expect(a).len(), 2);
        assert_eq!(
            cycle(&imports(&sources(&[("a", a), ("b", "use other::a;")]))),
            None
        );
    }
    // A module may pass on what a module below it has, but not use it.
    let below = ("a::b", "use super::Code;\npub struct Cause(Code);");
    let passes_on = ("a", "mod b;\npub use b::{Cause, Other};\npub struct Code;");
    assert_eq!(cycle(&imports(&sources(&[passes_on, below]))), None);
    let uses = (
        "a",
        "mod b;\npub use b::{Cause, Other};\npub struct Fault(Cause);",
    );
    assert_eq!(
        cycle(&imports(&sources(&[uses, below]))).map(|found| found.len()),
        Some(2)
    );
    let parent = ("a", "mod b;\nfn f() { b::g() }");
    assert!(cycle(&imports(&sources(&[parent, ("a::b", "use super::f;")]))).is_some());
    assert!(cycle(&imports(&sources(&[parent, ("a::b", "// use super::f;")]))).is_none());
}
