//! Directories that take long to make, made once: whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use crate::Error;
use crate::progress::{self, code, say};

/// Make a directory of the cache by a command, unless it exists, and print its path
///
/// The directory is CACHE/NAME/KEY. The command makes it under another name, which stands in its arguments for each `{}`; when
/// it has succeeded, the directory is renamed. When it fails, the directory is removed. Of the directories in CACHE/NAME, the
/// three that were used last are kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is that of the command, 128 and the number of the signal if one ended it, or 127 if it could not be run.

Example:
  script-helper make --cache ~/.cache/ima-init keys 0.1.0 -- imactl keygen --sample --out {}")]
pub struct Options {
    /// The directory of the cache
    #[arg(long, value_name = "DIRECTORY")]
    cache: PathBuf,
    /// Keep all directories in CACHE/NAME
    #[arg(long)]
    keep_all: bool,
    /// Show that the command makes progress, under this title
    #[arg(long, requires = "log")]
    title: Option<String>,
    /// The file for the output of the command; without it, the output goes to standard error
    #[arg(long, value_name = "FILE", requires = "title")]
    log: Option<PathBuf>,
    /// What kind of thing is made
    #[arg(value_parser = name)]
    name: String,
    /// A hash of everything that decides what is made
    #[arg(value_parser = name)]
    key: String,
    /// The command and its arguments; `{}` stands for the directory
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// The name of a directory of the cache. Names that begin with a dot are those of the cache itself.
fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('.') || text.contains('/') {
        return Err(
            "not the name of a directory: it is empty, begins with a dot or has a slash in it",
        );
    }
    Ok(text.to_owned())
}

/// How many directories of a name are kept.
const KEPT: usize = 3;

/// The names of directories that are being made or removed begin with this.
const HALF: &str = ".half.";

/// Makes the directory, and prints its path.
pub fn main(options: &Options) -> Result<ExitCode, Error> {
    if !options.command.iter().any(|word| word.contains("{}")) {
        return Err("the command has no {} for the directory that it makes".into());
    }
    let kind = Kind {
        directory: options.cache.join(&options.name),
        kept: (!options.keep_all).then_some(KEPT),
    };
    match kind.made(&options.key, |directory| command(options, directory))? {
        Made::Directory(path) => {
            println!("{}", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Made::Failed(status) => Ok(ExitCode::from(status)),
    }
}

/// Runs the command that makes a directory. Returns its exit status.
fn command(options: &Options, directory: &Path) -> Result<u8, Error> {
    let directory = directory
        .to_str()
        .ok_or("the path of the cache is not UTF-8")?;
    let words: Vec<String> = options
        .command
        .iter()
        .map(|word| word.replace("{}", directory))
        .collect();
    if let (Some(title), Some(log)) = (&options.title, &options.log) {
        return progress::run(title, log, &words);
    }
    let (program, arguments) = words.split_first().ok_or("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .stdout(io::stderr())
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    Ok(code(status))
}

/// The result of a request for a directory.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    /// It is there.
    Directory(PathBuf),
    /// It could not be made: the exit status of what should have made it.
    Failed(u8),
}

/// The directories of one kind.
#[derive(Debug)]
struct Kind {
    directory: PathBuf,
    /// How many are kept; all if this is nothing.
    kept: Option<usize>,
}

impl Kind {
    /// Returns the directory of this key, which `make` makes at the path that it is given if it is not there. `make` returns an
    /// exit status.
    fn made(
        &self,
        key: &str,
        make: impl FnOnce(&Path) -> Result<u8, Error>,
    ) -> Result<Made, Error> {
        let path = self.directory.join(key);
        fs::create_dir_all(&self.directory)?;
        let lock = File::create(self.directory.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say(&format!(
                    "waiting for another process that makes a directory in {}",
                    self.directory.display()
                ));
                lock.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if !path.is_dir() {
            let status = self.make(&path, make)?;
            if status != 0 {
                return Ok(Made::Failed(status));
            }
        }
        // The date says which were used last.
        File::open(&path)?.set_modified(SystemTime::now())?;
        self.remove_old()?;
        Ok(Made::Directory(path))
    }

    /// Makes a directory while the lock is held.
    fn make(
        &self,
        path: &Path,
        make: impl FnOnce(&Path) -> Result<u8, Error>,
    ) -> Result<u8, Error> {
        // Nobody else is making one: what is there was left by a process that was interrupted.
        for (_, old) in self.entries(|name| name.starts_with(HALF))? {
            fs::remove_dir_all(old)?;
        }
        let half = self.directory.join(format!("{HALF}{}", std::process::id()));
        fs::create_dir(&half)?;
        fs::set_permissions(&half, Permissions::from_mode(0o755))?;
        let status = make(&half);
        if matches!(status, Ok(0)) {
            fs::rename(&half, path)?;
        } else {
            fs::remove_dir_all(&half)?;
        }
        status
    }

    /// Removes all directories but those that were used last.
    fn remove_old(&self) -> io::Result<()> {
        let Some(kept) = self.kept else {
            return Ok(());
        };
        let mut entries = self.entries(|name| !name.starts_with('.'))?;
        entries.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        for (_, old) in entries.into_iter().skip(kept) {
            // Under another name, so that nobody takes what is left of it for a whole one.
            let half = self.directory.join(format!("{HALF}{}", std::process::id()));
            fs::rename(old, &half)?;
            fs::remove_dir_all(half)?;
        }
        Ok(())
    }

    /// Returns the directories whose names are chosen, with the dates of their last use.
    fn entries(&self, chosen: impl Fn(&str) -> bool) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name: OsString = entry.file_name();
            let data = entry.metadata()?;
            if data.is_dir() && name.to_str().is_some_and(&chosen) {
                entries.push((data.modified()?, entry.path()));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    fn kind() -> (TempDir, Kind) {
        let directory = tempfile::tempdir().unwrap();
        let kind = Kind {
            directory: directory.path().join("things"),
            kept: Some(KEPT),
        };
        (directory, kind)
    }

    /// Returns the names in the directory of the kind, but for the lock.
    fn names(kind: &Kind) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&kind.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".lock")
            .collect();
        names.sort();
        names
    }

    fn write(directory: &Path) -> Result<u8, Error> {
        fs::write(directory.join("file"), "whole")?;
        Ok(0)
    }

    /// Runs the command as `main` does.
    fn run(cache: &Path, script: &str) -> Result<ExitCode, Error> {
        main(&Options {
            cache: cache.to_owned(),
            keep_all: false,
            title: None,
            log: None,
            name: "things".to_owned(),
            key: "key".to_owned(),
            command: ["sh", "-c", script, "sh", "{}"].map(str::to_owned).into(),
        })
    }

    #[test]
    fn a_directory_is_made_once() {
        let (_directory, kind) = kind();
        let path = kind.directory.join("key");
        assert_eq!(
            kind.made("key", write).unwrap(),
            Made::Directory(path.clone())
        );
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "whole");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let again = kind.made("key", |_| panic!("it is there"));
        assert_eq!(again.unwrap(), Made::Directory(path));
        assert_eq!(names(&kind), ["key"]);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let (_directory, kind) = kind();
        let failed = kind.made("key", |directory| {
            write(directory)?;
            Ok(3)
        });
        assert_eq!(failed.unwrap(), Made::Failed(3));
        let not_run = kind.made("key", |directory| {
            write(directory)?;
            Err("no such program".into())
        });
        assert_eq!(not_run.unwrap_err().to_string(), "no such program");
        assert_eq!(names(&kind), [""; 0]);
    }

    #[test]
    fn a_command_makes_the_directory_that_stands_for_the_braces() {
        let (directory, kind) = kind();
        let made = run(directory.path(), "echo whole >\"$1/file\"").unwrap();
        assert_eq!(made, ExitCode::SUCCESS);
        let file = kind.directory.join("key/file");
        assert_eq!(fs::read_to_string(file).unwrap(), "whole\n");
    }

    #[test]
    fn a_command_that_fails_leaves_nothing_and_gives_its_status() {
        let (directory, kind) = kind();
        for (script, status) in [
            ("echo half >\"$1/file\"; exit 7", 7),
            ("kill -KILL $$", 137),
        ] {
            assert_eq!(
                run(directory.path(), script).unwrap(),
                ExitCode::from(status)
            );
            assert_eq!(names(&kind), [""; 0]);
        }
    }

    #[test]
    fn a_command_without_a_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            cache: directory.path().to_owned(),
            keep_all: false,
            title: None,
            log: None,
            name: "things".to_owned(),
            key: "key".to_owned(),
            command: vec!["true".to_owned()],
        };
        let error = main(&options).unwrap_err().to_string();
        assert!(error.contains("no {}"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn two_at_once_make_it_once() {
        let (_directory, kind) = kind();
        let made = AtomicUsize::new(0);
        let start = Barrier::new(2);
        let make = || {
            start.wait();
            kind.made("key", |directory| {
                made.fetch_add(1, Ordering::SeqCst);
                write(directory)
            })
            .unwrap()
        };
        std::thread::scope(|scope| {
            let threads = [scope.spawn(make), scope.spawn(make)];
            let [one, other] = threads.map(|thread| thread.join().unwrap());
            assert_eq!(one, other);
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn nobody_has_a_directory_before_it_is_whole() {
        let (_directory, kind) = kind();
        let (in_the_middle, wait) = mpsc::channel();
        std::thread::scope(|scope| {
            let kind = &kind;
            scope.spawn(move || {
                kind.made("key", |directory| {
                    in_the_middle.send(kind.directory.join("key").exists())?;
                    write(directory)
                })
                .unwrap();
            });
            assert!(!wait.recv().unwrap());
            kind.made("key", |_| panic!("it is being made")).unwrap();
            assert!(kind.directory.join("key/file").exists());
        });
    }

    #[test]
    fn what_was_interrupted_is_removed() {
        let (_directory, kind) = kind();
        fs::create_dir_all(kind.directory.join(".half.1/tree")).unwrap();
        fs::create_dir_all(kind.directory.join(".half.XyZ123")).unwrap();
        kind.made("key", write).unwrap();
        assert_eq!(names(&kind), ["key"]);
    }

    #[test]
    fn those_used_last_are_kept() {
        let (_directory, kind) = kind();
        let age = |key: &str, seconds| {
            let directory = File::open(kind.directory.join(key)).unwrap();
            let date = SystemTime::now() - Duration::from_secs(seconds);
            directory.set_modified(date).unwrap();
        };
        for (key, seconds) in [("a", 40), ("b", 30), ("c", 20)] {
            kind.made(key, write).unwrap();
            age(key, seconds);
        }
        // Used again, it is not the oldest any more.
        kind.made("a", |_| panic!("it is there")).unwrap();
        kind.made("d", write).unwrap();
        assert_eq!(names(&kind), ["a", "c", "d"]);
        let all = Kind { kept: None, ..kind };
        all.made("e", write).unwrap();
        assert_eq!(names(&all), ["a", "c", "d", "e"]);
    }

    #[test]
    fn names_are_those_of_directories() {
        for (text, good) in [
            ("a", true),
            ("0.20.2", true),
            ("", false),
            ("..", false),
            (".half.1", false),
            ("a/b", false),
        ] {
            assert_eq!(name(text).is_ok(), good, "{text}");
        }
    }
}
