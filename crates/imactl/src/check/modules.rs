//! The modules that the init loads, against the kernel that loads them.

use std::collections::BTreeSet;

use ima::fault::{Cause, Code, Explanation, Fault};

use crate::kernel::check::KernelConfig;
use crate::kernel::release::KernelRelease;
use crate::modules::{depends, info, is_whole, name_of, unpack};
use crate::packed::Packing;

/// What stands at the end of a module that is signed (include/linux/module_signature.h, MODULE_SIG_STRING).
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// Those that the kernel would refuse, of modules that are loaded in this order.
pub(super) fn refused<'a>(
    modules: impl Iterator<Item = (&'a str, &'a [u8])>,
    kernel: Option<&KernelConfig>,
    release: Option<&KernelRelease>,
) -> Vec<Fault> {
    let mut loaded: BTreeSet<String> = BTreeSet::new();
    let mut refused = Vec::new();
    for (path, file) in modules {
        let cause = packing(path, file, kernel).or_else(|| match unpack(file.to_vec()) {
            Ok(module) => refusal(&module, &loaded, kernel, release),
            Err(error) => Some(Cause::MODULE_NOT_UNPACKED.with(&[&error.to_string()])),
        });
        if let Some(cause) = cause {
            refused.push(Fault::new(Code::ModuleRefused, path).because(cause));
        }
        let file_name = path.rsplit('/').next().unwrap_or(path);
        loaded.insert(name_of(file_name));
    }
    refused
}

/// Why the kernel would not unpack a file, if so: the init has it unpack those of these names.
fn packing(path: &str, file: &[u8], kernel: Option<&KernelConfig>) -> Option<Explanation> {
    let packing = Packing::of(file);
    let named = [
        (".gz", Packing::Gzip, "MODULE_COMPRESS_GZIP"),
        (".xz", Packing::Xz, "MODULE_COMPRESS_XZ"),
        (".zst", Packing::Zstd, "MODULE_COMPRESS_ZSTD"),
    ];
    let named = named.iter().find(|(end, ..)| path.ends_with(end));
    match (named, packing) {
        (None, None) => None,
        (None, Some(packing)) => Some(Cause::MODULE_WITHOUT_SUFFIX.with(&[packing.name()])),
        (Some((end, expected, _)), packing) if packing != Some(*expected) => {
            Some(Cause::MODULE_SUFFIX_WRONG.with(&[end]))
        }
        (Some((.., option)), _) => {
            let lacking = ["MODULE_DECOMPRESS", option]
                .into_iter()
                .find(|option| kernel.is_some_and(|kernel| !kernel.is_builtin(option)));
            lacking.map(|option| Cause::MODULE_DECOMPRESSION.with(&[option]))
        }
    }
}

fn refusal(
    module: &[u8],
    loaded: &BTreeSet<String>,
    kernel: Option<&KernelConfig>,
    release: Option<&KernelRelease>,
) -> Option<Explanation> {
    if !is_whole(module) {
        return Some(Cause::MODULE_TRUNCATED.into());
    }
    if let Some(kernel) = kernel {
        if !kernel.is_builtin("MODULES") {
            return Some(Cause::NO_MODULES.into());
        }
        if kernel.is_builtin("MODULE_SIG_FORCE") && !module.ends_with(SIGNED) {
            return Some(Cause::MODULE_UNSIGNED.into());
        }
    }
    if let Some(needed) = depends(module)
        .into_iter()
        .find(|name| !loaded.contains(name))
    {
        return Some(Cause::MODULE_ORDER.with(&[&needed]));
    }
    release.and_then(|release| of_another_kernel(module, kernel, release))
}

fn of_another_kernel(
    module: &[u8],
    kernel: Option<&KernelConfig>,
    release: &KernelRelease,
) -> Option<Explanation> {
    let magic = info(module, "vermagic").unwrap_or_default();
    // The kernel passes over the release where symbols have versions of their own (kernel/module/version.c, `same_magic`).
    let versions = kernel.is_some_and(|kernel| kernel.is_builtin("MODVERSIONS"));
    let split = |magic: &str| {
        let (release, options) = magic.split_once(' ').unwrap_or((magic, ""));
        (release.to_owned(), options.to_owned())
    };
    let found = split(&magic);
    let same = match &release.vermagic {
        Some(expected) => {
            let expected = split(expected);
            found.1 == expected.1 && (versions || found.0 == expected.0)
        }
        None => versions || found.0 == release.name,
    };
    let expected = release.vermagic.as_ref().unwrap_or(&release.name);
    (!same).then(|| Cause::MODULE_VERMAGIC.with(&[magic.trim(), expected.trim()]))
}
