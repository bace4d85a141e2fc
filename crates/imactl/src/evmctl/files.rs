//! The files a command works on, and the commands that only move attributes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ima::fault::{Code, Fault};
use imactl::file::{read_bounded, unreadable};
use imactl::files::Found;
use imactl::sign::Place;
use imactl::xattr;
use rayon::prelude::*;

use super::options::Options;
use super::output::{Done, Failed, Output};

/// So many files are worked on before what they gave is printed.
const AT_ONCE: usize = 1024;

/// Does `work` with each operand or, with `-r`, each regular file below them, which must be directories, on all cores; what is
/// output is in the order of the names.
pub fn each(
    options: &Options,
    output: &mut Output,
    work: &(dyn Fn(&Path, &mut Output) -> Done + Sync),
) -> Done {
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    // What was output so far comes first.
    std::mem::take(output).print();
    let mut end = Ok(());
    for operand in &options.operands {
        let operand = Path::new(operand);
        if !options.recursive {
            end = end.and(work(operand, output));
            continue;
        }
        // evmctl opens it as a directory, whatever it is (evmctl.c, `find`).
        if let Err(error) = std::fs::read_dir(operand) {
            output.err(format_args!(
                "Failed to open directory {}",
                operand.display()
            ));
            let fault = unreadable(operand, &error)
                .with_remedy("give a directory, or leave out -r for a file");
            end = end.and(Err(output.fault(&fault)));
            continue;
        }
        if options.types.is_some() && !options.has_type('f') {
            // Types without regular files: nothing else can be worked on.
            continue;
        }
        let mut paths = Vec::new();
        let walk = walkdir::WalkDir::new(operand)
            .sort_by_file_name()
            .same_file_system(options.has_type('m'));
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_file() => paths.push(entry.into_path()),
                Ok(_) => {}
                Err(error) => {
                    let fault = Fault::new(Code::InputUnreadable, error.to_string());
                    end = Err(output.fault(&fault));
                }
            }
        }
        for some in paths.chunks(AT_ONCE) {
            let results: Vec<(Output, Done)> = some
                .par_iter()
                .map(|path| {
                    let mut output = Output::default();
                    let done = work(path, &mut output);
                    (output, done)
                })
                .collect();
            for (output, done) in results {
                output.print();
                // evmctl ends with 0 whatever happened below a directory; a file that was not signed is not success here.
                end = end.and(done.map_err(|_| Failed(1)));
            }
        }
    }
    end
}

/// The regular file at `path`, not followed if it is a symbolic link.
pub fn regular(path: &Path, output: &mut Output) -> Done<Found> {
    let meta =
        std::fs::symlink_metadata(path).map_err(|error| output.fault(&unreadable(path, &error)))?;
    if !meta.is_file() {
        output.err(format_args!(
            "Unsupported file type (0x{:x}): {}",
            meta.mode() & 0o170_000,
            path.display()
        ));
        return Err(Failed::ERROR);
    }
    Ok(Found {
        path: path.to_owned(),
        below_root: PathBuf::new(),
        len: meta.len(),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        recorded: None,
    })
}

/// `ima_setxattr`: the content of a .sig file becomes security.ima.
pub fn set(options: &Options, output: &mut Output) -> Done {
    let mut operands = options.operands.iter().map(Path::new);
    let given = if options.sigfile {
        operands.next()
    } else {
        None
    };
    let Some(file) = operands.next() else {
        return Err(options.missing(output));
    };
    let signature = given.map_or_else(|| Place::sidecar(file), Path::to_owned);
    output.err(format_args!("Reading to {}", signature.display()));
    let set = read_bounded(&signature, 65_536)
        .and_then(|value| xattr::write(file, &options.xattr("ima"), &value));
    set.map_err(|fault| output.fault(&fault))
}

/// `ima_clear`: takes security.ima and security.evm away.
pub fn clear(options: &Options, output: &mut Output) -> Done {
    each(options, output, &|path, output| {
        output.err(format_args!("{}", path.display()));
        for name in ["ima", "evm"] {
            xattr::remove(path, &options.xattr(name)).map_err(|fault| output.fault(&fault))?;
        }
        Ok(())
    })
}

/// `ima_fix`: opens files, so that a kernel started with `ima_appraise=fix` labels them.
pub fn fix(options: &Options, output: &mut Output) -> Done {
    each(options, output, &|path, output| {
        output.err(format_args!("{}", path.display()));
        if options.has_type('x') {
            let xattrs = xattr::read_all(path).map_err(|fault| output.fault(&fault))?;
            let has = |name| xattrs.contains_key(options.xattr(name).as_bytes());
            if has("ima") && has("evm") {
                return Ok(());
            }
        }
        std::fs::File::open(path)
            .map(drop)
            .map_err(|error| output.fault(&unreadable(path, &error)))
    })
}
