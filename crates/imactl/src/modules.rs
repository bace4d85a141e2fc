//! Kernel modules: unpacked, and in the order in which they can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ima::fault::{Cause, Code, Fault};

use crate::Result;
use crate::packed::Packing;

/// The longest module, unpacked, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// A module ready to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// File name, ending in `.ko`.
    pub file_name: String,
    /// Content, uncompressed; a signature at its end is kept.
    pub content: Vec<u8>,
}

/// Reads a module, unpacking `.xz`, `.zst` and `.gz`.
///
/// # Errors
///
/// [`Code::InputUnreadable`] if it cannot be read or unpacked, or is not a module.
pub fn read(path: &Path) -> Result<Module> {
    let packed = crate::file::read_bounded(path, MAX_MODULE)?;
    let unreadable = |why: String| {
        let detail = format!("{}: {why}", path.display());
        Fault::new(Code::InputUnreadable, detail).because(Cause::NOT_A_MODULE)
    };
    let content =
        unpack(packed).map_err(|error| unreadable(format!("it cannot be unpacked: {error}")))?;
    if !content.starts_with(b"\x7fELF") {
        return Err(unreadable("it is not a kernel module".to_owned()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = ["xz", "zst", "gz"].iter().fold(&*name, |name, suffix| {
        name.strip_suffix(suffix)
            .and_then(|name| name.strip_suffix('.'))
            .unwrap_or(name)
    });
    Ok(Module {
        file_name: stem.to_owned(),
        content,
    })
}

/// Unpacks by what the content is, not by what the file is called.
pub(crate) fn unpack(packed: Vec<u8>) -> std::io::Result<Vec<u8>> {
    match Packing::of(&packed) {
        Some(packing) => Ok(packing.unpack(&packed, MAX_MODULE)?.0),
        None => Ok(packed),
    }
}

/// Puts `modules` into an order in which each comes after those it depends on.
///
/// # Errors
///
/// [`Code::InitramfsRefused`] if one depends on a module that is not among them, or they depend on each other in a circle.
pub fn in_order(modules: Vec<Module>) -> Result<Vec<Module>> {
    let mut by_name: BTreeMap<String, Module> = BTreeMap::new();
    let mut given = Vec::new();
    for module in modules {
        let name = name_of(&module.file_name);
        given.push(name.clone());
        by_name.insert(name, module);
    }
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    for name in &given {
        visit(name, &by_name, &mut BTreeSet::new(), &mut done, &mut order)?;
    }
    Ok(order
        .into_iter()
        .filter_map(|name| by_name.remove(&name))
        .collect())
}

fn visit(
    name: &str,
    modules: &BTreeMap<String, Module>,
    above: &mut BTreeSet<String>,
    done: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) -> Result<()> {
    if done.contains(name) {
        return Ok(());
    }
    let refused =
        |cause: Cause| Fault::new(Code::InitramfsRefused, format!("module {name}")).because(cause);
    let module = modules
        .get(name)
        .ok_or_else(|| refused(Cause::MODULE_DEPENDENCY_MISSING))?;
    if !above.insert(name.to_owned()) {
        return Err(refused(Cause::MODULE_DEPENDS_ON_ITSELF));
    }
    for dependency in depends(&module.content) {
        visit(&dependency, modules, above, done, order)?;
    }
    above.remove(name);
    done.insert(name.to_owned());
    order.push(name.to_owned());
    Ok(())
}

/// Finds the modules of those names below a directory such as `/lib/modules/VERSION`, with all they depend on, in order.
///
/// # Errors
///
/// [`Code::InputUnreadable`] if one is not there or cannot be read, [`Code::InitramfsRefused`] for a circle.
pub fn find(directory: &Path, names: &[String]) -> Result<Vec<Module>> {
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.map_err(|error| Fault::new(Code::InputUnreadable, error.to_string()))?;
        let file_name = entry.file_name().to_string_lossy();
        if entry.file_type().is_file() && file_name.contains(".ko") {
            paths
                .entry(name_of(&file_name))
                .or_insert_with(|| entry.path().to_owned());
        }
    }
    let mut wanted: Vec<String> = names.iter().map(|name| name_of(name)).collect();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let path = paths.get(&name).ok_or_else(|| {
            Fault::new(
                Code::InputUnreadable,
                format!("no module {name} below {}", directory.display()),
            )
            .because(Cause::NO_SUCH_MODULE)
        })?;
        let module = read(path)?;
        wanted.extend(depends(&module.content));
        found.push(module);
    }
    found.reverse();
    in_order(found)
}

/// The name the kernel gives a module file: without `.ko` and what follows, dashes as underscores.
pub(crate) fn name_of(file_name: &str) -> String {
    file_name
        .split(".ko")
        .next()
        .unwrap_or(file_name)
        .replace('-', "_")
}

/// A value of `.modinfo`. The section is a run of NUL-terminated `key=value` strings, and no other of a module holds such a one, so
/// it is looked for rather than found through the section headers.
pub(crate) fn info(module: &[u8], key: &str) -> Option<String> {
    let key = [b"\0", key.as_bytes(), b"="].concat();
    let at = module.windows(key.len()).position(|window| window == key)?;
    let value = module.get(at.saturating_add(key.len())..)?;
    let value = value.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Whether it is a module of which nothing is cut off: a relocatable ELF file whose section headers, which stand at its end, are
/// in it (kernel/module/main.c, `elf_validity_cache_copy`).
pub(crate) fn is_whole(module: &[u8]) -> bool {
    const RELOCATABLE: u64 = 1;
    let wide = module.get(4) == Some(&2);
    let big_endian = module.get(5) == Some(&2);
    let number = |at: usize, length: usize| {
        let bytes = module.get(at..at.checked_add(length)?)?;
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if big_endian {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    };
    let place = if wide {
        (number(40, 8), number(58, 2), number(60, 2))
    } else {
        (number(32, 4), number(46, 2), number(48, 2))
    };
    let (Some(offset), Some(size), Some(count)) = place else {
        return false;
    };
    let end = size
        .checked_mul(count)
        .and_then(|size| offset.checked_add(size));
    module.starts_with(b"\x7fELF")
        && number(16, 2) == Some(RELOCATABLE)
        && offset != 0
        && end.is_some_and(|end| end <= module.len() as u64)
}

/// The modules that another one needs.
pub(crate) fn depends(module: &[u8]) -> Vec<String> {
    let value = info(module, "depends").unwrap_or_default();
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(name_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> Module {
        let content = format!("\x7fELF....\0license=GPL\0depends={depends}\0name={name}\0");
        Module {
            file_name: format!("{name}.ko"),
            content: content.into_bytes(),
        }
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules
            .iter()
            .map(|module| module.file_name.as_str())
            .collect()
    }

    #[test]
    fn each_after_what_it_depends_on() {
        let sorted = in_order(vec![
            module("ext4", "mbcache,jbd2"),
            module("virtio-blk", "virtio_ring"),
            module("jbd2", ""),
            module("mbcache", ""),
            module("virtio_ring", ""),
        ])
        .unwrap();
        assert_eq!(
            names(&sorted),
            [
                "mbcache.ko",
                "jbd2.ko",
                "ext4.ko",
                "virtio_ring.ko",
                "virtio-blk.ko"
            ]
        );
        let fault = in_order(vec![module("ext4", "jbd2")]).unwrap_err();
        assert_eq!(fault.code(), Code::InitramfsRefused);
        let fault = in_order(vec![module("a", "b"), module("b", "a")]).unwrap_err();
        assert_eq!(fault.code(), Code::InitramfsRefused);
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let directory = tempfile::tempdir().unwrap();
        let content = module("a", "").content;
        let below = directory.path().join("kernel/drivers");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("a.ko"), &content).unwrap();
        for (command, suffix) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
            let status = std::process::Command::new(command)
                .args(if command == "xz" {
                    &["-k", "--check=crc32"][..]
                } else {
                    &["-k"]
                })
                .arg(below.join("a.ko"))
                .stderr(std::process::Stdio::null())
                .status()
                .expect(command);
            assert!(status.success(), "{command}");
            let read = read(&below.join(format!("a.ko.{suffix}"))).unwrap();
            assert_eq!(
                read,
                Module {
                    file_name: "a.ko".to_owned(),
                    content: content.clone()
                },
                "{suffix}"
            );
        }
        std::fs::write(below.join("b-c.ko"), module("b_c", "a").content).unwrap();
        assert_eq!(
            names(&find(directory.path(), &["b_c".to_owned()]).unwrap()),
            ["a.ko", "b-c.ko"]
        );
        let fault = find(directory.path(), &["d".to_owned()]).unwrap_err();
        assert_eq!(fault.code(), Code::InputUnreadable);
        for (name, bytes) in [
            ("text.ko", &b"text"[..]),
            ("cut.ko.gz", b"\x1f\x8b\x08"),
            ("cut.ko.xz", b"\xfd7zXZ\0\0"),
        ] {
            std::fs::write(below.join(name), bytes).unwrap();
            assert_eq!(
                super::read(&below.join(name)).unwrap_err().code(),
                Code::InputUnreadable,
                "{name}"
            );
        }
    }
}
