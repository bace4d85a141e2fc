//! What a value of security.evm covers, from a file and the options that replace parts of it.

use std::os::fd::AsFd as _;
use std::path::Path;

use ima::evm::{Inode, Layout, PROTECTED};
use ima::fault::{Cause, Code, Fault};
use ima::filesystem::{PROBE_LENGTH, Uuid as FilesystemUuid, probe};
use ima::hash::HashAlgorithm;
use imactl::file::unreadable;
use imactl::xattr;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use super::options::{Options, Uuid};
use super::output::{Done, Failed, Output};

/// What evmctl takes without `--smack`.
const WITHOUT_SMACK: [&str; 5] = [
    "security.selinux",
    "security.SMACK64",
    "security.apparmor",
    "security.ima",
    "security.capability",
];

/// The form of a value of security.evm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For this inode of this file system.
    Bound,
    /// For a copy of the file anywhere.
    Portable,
    /// evmctl's `-i`.
    Immutable,
}

/// What is hashed: the values of the attributes in their order, and the inode.
pub struct Covered {
    values: Vec<Vec<u8>>,
    inode: Inode,
    layout: Layout,
}

impl Covered {
    /// Gathers it from `path` and the options.
    pub fn gather(path: &Path, form: Form, options: &Options, output: &mut Output) -> Done<Self> {
        let meta = std::fs::symlink_metadata(path)
            .map_err(|error| output.fault(&unreadable(path, &error)))?;
        let mut inode = Inode {
            number: 0,
            generation: 0,
            uid: options.uid.unwrap_or(meta.uid()),
            gid: options.gid.unwrap_or(meta.gid()),
            mode: options.mode.unwrap_or(meta.mode() as u16),
            filesystem: None,
        };
        if form == Form::Bound {
            inode.number = options.inode.unwrap_or(meta.ino());
            inode.generation = match options.generation {
                Some(generation) => generation,
                None if meta.is_file() => generation(path).map_err(|fault| output.fault(&fault))?,
                None => 0,
            };
            output.err(format_args!("generation: {}", inode.generation));
            inode.filesystem = match options.uuid {
                Uuid::Without => None,
                Uuid::Given(ref text) => match FilesystemUuid::parse(text) {
                    Some(uuid) => Some(uuid.0),
                    None => {
                        output.err(format_args!("wrong UUID format"));
                        return Err(Failed::ERROR);
                    }
                },
                Uuid::Filesystem => Some(filesystem_uuid(meta.dev(), output)?),
            };
        }
        let layout = match (form, options.bits_32) {
            (Form::Immutable, _) => Layout::Immutable,
            (_, true) => Layout::Bits32,
            (_, false) => Layout::Bits64,
        };
        let values = values(path, form, options, output)?;
        Ok(Self {
            values,
            inode,
            layout,
        })
    }

    /// The digest of it.
    pub fn digest(&self, algo: HashAlgorithm, output: &mut Output) -> Done<Vec<u8>> {
        let values = self.values.iter().map(Vec::as_slice);
        ima::evm::digest(algo, values, &self.inode, self.layout).map_err(|error| {
            let fault =
                Fault::new(Code::SigningFailed, "security.evm").with_cause(error.to_string());
            output.fault(&fault)
        })
    }
}

fn values(path: &Path, form: Form, options: &Options, output: &mut Output) -> Done<Vec<Vec<u8>>> {
    let xattrs = xattr::read_all(path).map_err(|fault| output.fault(&fault))?;
    let names: &[&str] = if options.smack {
        &PROTECTED
    } else {
        &WITHOUT_SMACK
    };
    let mut values = Vec::new();
    for &name in names {
        let of_file = |name: &str| xattrs.get(name.as_bytes()).cloned();
        let value = match name {
            "security.selinux" if options.selinux.is_some() => {
                // The label of a file ends in a NUL.
                options.selinux.clone().map(|mut label| {
                    label.push(0);
                    label
                })
            }
            "security.ima" if options.ima.is_some() => options.ima.clone(),
            "security.ima" if form == Form::Portable => {
                let name = options.xattr("ima");
                let Some(value) = of_file(&name) else {
                    output.err(format_args!("EVM portable sig: {name} required"));
                    return Err(Failed::ERROR);
                };
                Some(value)
            }
            "security.capability" if options.caps == Some(None) => continue,
            "security.capability" if options.caps.is_some() => options.caps.clone().flatten(),
            _ => of_file(name),
        };
        match value {
            Some(value) => {
                output.err(format_args!("name: {name}, size: {}", value.len()));
                values.push(value);
            }
            None => output.err(format_args!("no xattr: {name}")),
        }
    }
    Ok(values)
}

fn generation(path: &Path) -> imactl::Result<u32> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    imactl::file::generation(file.as_fd())
        .map_err(|error| unreadable(path, &error).because(Cause::NO_INODE_GENERATIONS))
}

/// The UUID in the super block of the file system on `device`.
fn filesystem_uuid(device: u64, output: &mut Output) -> Done<[u8; 16]> {
    let node = format!(
        "/dev/block/{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let mut head = Vec::new();
    let read = std::fs::File::open(&node)
        .and_then(|file| file.take(PROBE_LENGTH as u64).read_to_end(&mut head));
    let uuid = probe(&head)
        .into_iter()
        .find_map(|found| FilesystemUuid::parse(&found.uuid?));
    match (read, uuid) {
        (Ok(_), Some(uuid)) => Ok(uuid.0),
        _ => {
            output.err(format_args!(
                "Failed to read UUID of {node}. Root access might require. --uuid gives one, -o or --uuid= does without."
            ));
            Err(Failed::ERROR)
        }
    }
}
