//! Room on the file systems: a build that fills one fails with errors of many kinds, half an hour later.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the programs, kernels and images of a run take, in bytes, rounded up: from an empty cache and an empty target directory.
const NEEDED: u64 = 16 << 30;

/// Says which of the directories that a run fills has too little room, once for each file system.
///
/// # Errors
///
/// The directory, its room, and what helps.
pub fn check(directories: &[PathBuf]) -> Result<(), String> {
    let mut by_device = BTreeMap::new();
    for directory in directories {
        // What does not exist is made on the file system of its nearest parent.
        let Some(existing) = directory.ancestors().find(|path| path.exists()) else {
            continue;
        };
        let unreadable = |error: io::Error| format!("{}: {error}", existing.display());
        let device = existing.metadata().map_err(unreadable)?.dev();
        let numbers = rustix::fs::statvfs(existing).map_err(|error| unreadable(error.into()))?;
        let free = numbers.f_bavail.saturating_mul(numbers.f_frsize);
        by_device.entry(device).or_insert((directory, free));
    }
    by_device
        .values()
        .try_for_each(|(directory, free)| enough(directory, *free))
}

fn enough(directory: &Path, free: u64) -> Result<(), String> {
    if free >= NEEDED {
        return Ok(());
    }
    Err(format!(
        "{} has {} GiB free, and a run needs up to {} GiB: remove what is not needed (target directories, \
         the cache), or give another place with IMA_INIT_CACHE, CARGO_TARGET_DIR or TMPDIR",
        directory.display(),
        free >> 30,
        NEEDED >> 30
    ))
}

/// The directories that a run fills: the target directory, the cache, and the one of temporary files.
pub fn filled() -> Vec<PathBuf> {
    // target/debug/steps
    let program = env::current_exe().unwrap_or_default();
    let target = program.ancestors().nth(2).map(Path::to_owned);
    let cache = env::var_os("IMA_INIT_CACHE").map(PathBuf::from);
    target
        .into_iter()
        .chain(cache)
        .chain([env::temp_dir()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_with_the_remedy() {
        assert_eq!(enough(Path::new("/x"), NEEDED), Ok(()));
        let text = enough(Path::new("/x"), NEEDED - 1).unwrap_err();
        assert!(text.starts_with("/x has 15 GiB free"), "{text}");
        assert!(text.contains("IMA_INIT_CACHE"), "{text}");
    }

    #[test]
    fn what_is_not_there_counts_as_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        // Whether it has room or not, the file system is found.
        let missing = check(&[directory.path().join("a/b")]);
        assert_eq!(
            missing.is_ok(),
            check(&[directory.path().to_owned()]).is_ok()
        );
    }
}
