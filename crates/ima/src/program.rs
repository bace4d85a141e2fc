//! The programs that a boot executes: whether each of them will run. One implementation of [`Programs`] asks the running kernel,
//! the other answers from an image; what is looked at, in which order, and which fault is reported is decided here.

use crate::elf::{self, Elf, Machine};
use crate::fault::{Cause, Code, Explanation, Fault};

/// How many interpreters a script may need, one after another (fs/exec.c, `exec_binprm`).
pub const MAX_INTERPRETERS: usize = 5;

/// The longest program that is looked at, in bytes: the kernel hashes the whole of a file before it looks at its signature, and
/// a sparse one of terabytes would keep it busy for days.
const MAX_PROGRAM: u64 = 1 << 30;

/// The codes of the faults in one kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// It is not there.
    pub missing: Code,
    /// It is not a program for this use.
    pub invalid: Code,
    /// Appraisal denies it.
    pub denied: Code,
}

/// The real root's switch_root.
pub const SWITCH_ROOT: Codes = Codes {
    missing: Code::SwitchRootMissing,
    invalid: Code::SwitchRootInvalid,
    denied: Code::SwitchRootDenied,
};

/// The real init.
pub const INIT: Codes = Codes {
    missing: Code::InitMissing,
    invalid: Code::InitInvalid,
    denied: Code::InitDenied,
};

/// The real init's dynamic loader, or the interpreter of its script.
pub const INTERPRETER: Codes = Codes {
    missing: Code::InterpreterMissing,
    invalid: Code::InterpreterInvalid,
    denied: Code::InterpreterDenied,
};

/// The own init of an initramfs in front of which this one was put, its interpreter, and the program by which that initramfs is
/// left.
pub const FRONTED_INIT: Codes = Codes {
    missing: Code::FrontedInit,
    invalid: Code::FrontedInit,
    denied: Code::FrontedInitDenied,
};

/// A regular file that is to be executed or mapped.
#[derive(Debug)]
pub struct Opened<F> {
    /// The file.
    pub file: F,
    /// Its permissions.
    pub mode: u32,
    /// Its length, in bytes.
    pub length: u64,
}

/// Why a file could not be opened. The text completes "PATH: ".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenFailure {
    /// It does not exist, or its path leads nowhere inside the root.
    Missing(String),
    /// It is not a regular file.
    NotRegular(String),
    /// Appraisal denies even opening it.
    Denied(String),
    /// Anything else.
    Failed(String),
}

/// Why a program may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What the kernel says, or would say. Completes "PATH: ".
    pub detail: String,
    /// The cause, where it was found out.
    pub cause: Option<Explanation>,
}

/// The programs below a directory or in an image.
pub trait Programs {
    /// An open file.
    type File;

    /// The machine that they must be made for, if that is known.
    fn machine(&self) -> Option<Machine>;

    /// Opens a regular file. Links are followed, but never out of the root.
    ///
    /// # Errors
    ///
    /// [`OpenFailure`].
    fn open(&self, path: &[u8]) -> Result<Opened<Self::File>, OpenFailure>;

    /// Reads so many bytes from a place in the file, fewer where it ends.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read(&self, file: &Self::File, offset: u64, length: usize) -> Result<Vec<u8>, String>;

    /// Whether the kernel lets the file be executed.
    ///
    /// # Errors
    ///
    /// Why it does not.
    fn may_run(&self, file: &Self::File) -> Result<(), Denial>;
}

/// The real root's switch_root: it may run, and needs no other program.
///
/// # Errors
///
/// The codes of [`SWITCH_ROOT`], and [`Code::SwitchRootDynamic`].
pub fn switch_root<P: Programs>(programs: &P, path: &str) -> Result<P::File, Fault> {
    let file = open(programs, path.as_bytes(), &SWITCH_ROOT)?;
    let format = format(programs, &file, path.as_bytes(), &SWITCH_ROOT)?;
    require_static(path, &format)?;
    ask(programs, &file, path.as_bytes(), &SWITCH_ROOT)?;
    Ok(file)
}

/// Whether a program runs: itself, then what interprets it, and what interprets that. Gives the path of the program that is
/// executed in the end: itself, or the interpreter of a script.
///
/// # Errors
///
/// The codes of `first`, and for what interprets it those of `interpreter`.
pub fn runs<P: Programs>(
    programs: &P,
    path: &[u8],
    first: &Codes,
    interpreter: &Codes,
) -> Result<Vec<u8>, Fault> {
    let mut path = path.to_vec();
    let mut codes = first;
    for _ in 0..MAX_INTERPRETERS {
        let file = open(programs, &path, codes)?;
        let format = format(programs, &file, &path, codes)?;
        ask(programs, &file, &path, codes)?;
        match format {
            Format::Static => return Ok(path),
            Format::Interpreted(loader) => {
                let file = open(programs, &loader, interpreter)?;
                look(programs, &file, &loader, interpreter, |program| {
                    program.check_loader()
                })?;
                ask(programs, &file, &loader, interpreter)?;
                return Ok(path);
            }
            Format::Script(program) => path = program,
        }
        codes = interpreter;
    }
    let detail = format!("{} is one script too many", shown(&path));
    Err(Fault::new(interpreter.invalid, detail).because(Cause::TOO_MANY_SCRIPTS))
}

/// The init of an initramfs in front of which this one was put, as it is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontedCommand {
    /// The program.
    pub program: Vec<u8>,
    /// Its arguments, with its name.
    pub arguments: Vec<Vec<u8>>,
}

/// How the init at `path` is executed. A script is handed to its interpreter by name and is not executed itself: it is read, and
/// may so have been edited where the initramfs was made.
///
/// # Errors
///
/// The codes of [`FRONTED_INIT`].
pub fn fronted_command<P: Programs>(programs: &P, path: &str) -> Result<FrontedCommand, Fault> {
    let path = path.as_bytes();
    let file = open(programs, path, &FRONTED_INIT)?;
    let Format::Script(interpreter) = format(programs, &file, path, &FRONTED_INIT)? else {
        return Ok(FrontedCommand {
            program: path.to_vec(),
            arguments: vec![b"/init".to_vec()],
        });
    };
    let head = programs
        .read(&file, 0, elf::SCRIPT_LENGTH)
        .map_err(|error| unreadable(&shown(path), &FRONTED_INIT, &error))?;
    let mut arguments = vec![interpreter.clone()];
    arguments.extend(elf::script_argument(&head).map(<[u8]>::to_vec));
    arguments.push(path.to_vec());
    Ok(FrontedCommand {
        program: interpreter,
        arguments,
    })
}

/// Opens a file that is to be executed.
fn open<P: Programs>(programs: &P, path: &[u8], codes: &Codes) -> Result<P::File, Fault> {
    let shown = shown(path);
    let opened = programs.open(path).map_err(|failure| match failure {
        OpenFailure::Missing(why) => Fault::new(codes.missing, format!("{shown}: {why}")),
        OpenFailure::Denied(why) => Fault::new(codes.denied, format!("{shown}: {why}")),
        OpenFailure::NotRegular(why) | OpenFailure::Failed(why) => {
            Fault::new(codes.invalid, format!("{shown}: {why}"))
        }
    })?;
    if opened.mode & 0o111 == 0 {
        return Err(
            Fault::new(codes.invalid, format!("{shown} is not executable"))
                .because(Cause::NOT_EXECUTABLE.with(&[&shown])),
        );
    }
    if opened.length > MAX_PROGRAM {
        let detail = format!("{shown}: {} MiB", opened.length >> 20);
        return Err(Fault::new(codes.invalid, detail).because(Cause::PROGRAM_TOO_LONG));
    }
    Ok(opened.file)
}

fn format<P: Programs>(
    programs: &P,
    file: &P::File,
    path: &[u8],
    codes: &Codes,
) -> Result<Format, Fault> {
    look(programs, file, path, codes, |program| program.format())
}

/// Looks into an open program.
fn look<P: Programs, T>(
    programs: &P,
    file: &P::File,
    path: &[u8],
    codes: &Codes,
    look: impl FnOnce(&mut Program<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let path = shown(path);
    let mut read = |offset, length| {
        let read = programs.read(file, offset, length);
        read.map_err(|error| unreadable(&path, codes, &error))
    };
    look(&mut Program {
        path: &path,
        codes,
        machine: programs.machine(),
        read: &mut read,
    })
}

fn ask<P: Programs>(programs: &P, file: &P::File, path: &[u8], codes: &Codes) -> Result<(), Fault> {
    programs.may_run(file).map_err(|denial| {
        let fault = Fault::new(codes.denied, format!("{}: {}", shown(path), denial.detail));
        match denial.cause {
            Some(cause) => fault.because(cause),
            None => fault,
        }
    })
}

fn unreadable(path: &str, codes: &Codes, error: &str) -> Fault {
    Fault::new(codes.invalid, format!("{path}: {error}")).because(Cause::PROGRAM_UNREADABLE)
}

/// A path for a message. It may come from a script's first line, and hold anything.
fn shown(path: &[u8]) -> String {
    let visible = |character: char| match character.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    String::from_utf8_lossy(path).chars().map(visible).collect()
}

/// What a program needs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    /// Nothing.
    Static,
    /// A dynamic loader, by its path.
    Interpreted(Vec<u8>),
    /// Another program that reads it, by its path.
    Script(Vec<u8>),
}

/// A file that is to be executed.
struct Program<'a> {
    /// Its path, for messages.
    path: &'a str,
    /// The codes of its faults.
    codes: &'a Codes,
    /// The machine that it must run on, if that is known.
    machine: Option<Machine>,
    /// Gives so many bytes from a place in the file, fewer where it ends.
    read: &'a mut dyn FnMut(u64, usize) -> Result<Vec<u8>, Fault>,
}

impl Program<'_> {
    /// What it needs to run.
    ///
    /// # Errors
    ///
    /// The code's `invalid` for what the kernel would answer with ENOEXEC, and the errors of `read`.
    fn format(&mut self) -> Result<Format, Fault> {
        let head = (self.read)(0, elf::SCRIPT_LENGTH)?;
        if let Some(program) = elf::script_interpreter(&head) {
            return Ok(Format::Script(program.to_vec()));
        }
        let program = self.elf(&head, "neither an ELF program nor a script")?;
        let place = program.program_headers();
        let headers = (self.read)(place.offset, place.length)?;
        if headers.len() != place.length {
            return Err(self.invalid("its program headers are cut off"));
        }
        let place = program
            .interpreter(&headers)
            .map_err(|_| self.malformed())?;
        let Some(place) = place else {
            return Ok(Format::Static);
        };
        match (self.read)(place.offset, place.length)?.split_last() {
            Some((0, name)) => Ok(Format::Interpreted(name.to_vec())),
            _ => Err(self.malformed()),
        }
    }

    /// Whether it can be a dynamic loader: the kernel takes no script for one (fs/binfmt_elf.c, `load_elf_binary`).
    ///
    /// # Errors
    ///
    /// The code's `invalid`, and the errors of `read`.
    fn check_loader(&mut self) -> Result<(), Fault> {
        let head = (self.read)(0, elf::HEADER_LENGTH)?;
        self.elf(&head, "no ELF program").map(drop)
    }

    /// Its header, if it is made for the machine.
    fn elf(&self, head: &[u8], otherwise: &str) -> Result<Elf, Fault> {
        let program = Elf::parse(head).ok_or_else(|| self.invalid(otherwise))?;
        if self
            .machine
            .is_some_and(|machine| !machine.may_run(program.machine()))
        {
            return Err(self
                .invalid("for another machine")
                .because(Cause::OTHER_MACHINE));
        }
        Ok(program)
    }

    fn invalid(&self, why: &str) -> Fault {
        Fault::new(self.codes.invalid, format!("{}: {why}", self.path))
    }

    fn malformed(&self) -> Fault {
        self.invalid("its interpreter's name is malformed")
    }
}

/// switch_root must be static: an interpreter would be looked for in the initramfs.
///
/// # Errors
///
/// [`Code::SwitchRootDynamic`], [`Code::SwitchRootInvalid`] for a script.
fn require_static(path: &str, format: &Format) -> Result<(), Fault> {
    match format {
        Format::Static => Ok(()),
        Format::Interpreted(loader) => {
            let loader = String::from_utf8_lossy(loader);
            let detail = format!("{path} needs {loader}");
            Err(Fault::new(Code::SwitchRootDynamic, detail))
        }
        Format::Script(_) => {
            let detail = format!("{path} is a script");
            Err(Fault::new(Code::SwitchRootInvalid, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(file: &[u8]) -> Result<Format, Code> {
        let mut read = |offset: u64, length: usize| {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(file.len());
            let end = start.saturating_add(length).min(file.len());
            Ok(file[start..end].to_vec())
        };
        let machine = Elf::parse(&std::fs::read(std::env::current_exe().unwrap()).unwrap())
            .map(|elf| elf.machine());
        Program {
            path: "x",
            codes: &INIT,
            machine,
            read: &mut read,
        }
        .format()
        .map_err(|fault| fault.code())
    }

    #[test]
    fn a_program_of_another_machine() {
        let mut own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        own[18..20].copy_from_slice(&[0xff, 0]);
        assert_eq!(of(&own), Err(Code::InitInvalid));
    }

    /// A root of one file, which may run.
    struct One {
        content: &'static [u8],
        length: u64,
        mode: u32,
    }

    impl Programs for One {
        type File = ();

        fn machine(&self) -> Option<Machine> {
            None
        }

        fn open(&self, path: &[u8]) -> Result<Opened<()>, OpenFailure> {
            match path {
                b"/bin/one" => Ok(Opened {
                    file: (),
                    mode: self.mode,
                    length: self.length,
                }),
                _ => Err(OpenFailure::Missing("not there".to_owned())),
            }
        }

        fn read(&self, (): &(), offset: u64, length: usize) -> Result<Vec<u8>, String> {
            let start = usize::try_from(offset).unwrap().min(self.content.len());
            let end = (start + length).min(self.content.len());
            Ok(self.content[start..end].to_vec())
        }

        fn may_run(&self, (): &()) -> Result<(), Denial> {
            Ok(())
        }
    }

    fn one(content: &'static [u8]) -> One {
        One {
            content,
            length: 100,
            mode: 0o755,
        }
    }

    #[test]
    fn programs_that_are_missing_long_not_executable_or_scripts_without_end() {
        let code = |one: &One, path: &[u8]| {
            runs(one, path, &INIT, &INTERPRETER).map_err(|fault| fault.code())
        };
        let endless = one(b"#!/bin/one\n");
        assert_eq!(code(&endless, b"/bin/one"), Err(Code::InterpreterInvalid));
        assert_eq!(code(&endless, b"/bin/other"), Err(Code::InitMissing));
        assert_eq!(
            code(&one(b"#!/bin/sh\n"), b"/bin/one"),
            Err(Code::InterpreterMissing)
        );
        let long = One {
            length: MAX_PROGRAM + 1,
            ..one(b"#!/bin/sh\n")
        };
        assert_eq!(code(&long, b"/bin/one"), Err(Code::InitInvalid));
        let data = One {
            mode: 0o644,
            ..one(b"#!/bin/sh\n")
        };
        assert_eq!(code(&data, b"/bin/one"), Err(Code::InitInvalid));
        assert_eq!(
            switch_root(&data, "/bin/one").unwrap_err().code(),
            Code::SwitchRootInvalid
        );
    }

    #[test]
    fn a_script_as_init_is_handed_to_its_interpreter() {
        let command = fronted_command(&one(b"#!/bin/sh -e\n"), "/bin/one").unwrap();
        assert_eq!(command.program, b"/bin/sh");
        assert_eq!(command.arguments, [&b"/bin/sh"[..], b"-e", b"/bin/one"]);
    }

    #[test]
    fn this_very_program_is_interpreted() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let format = of(&own).unwrap();
        assert!(matches!(&format, Format::Interpreted(loader) if loader.starts_with(b"/")));
        let code = |format: &Format| require_static("x", format).map_err(|fault| fault.code());
        assert_eq!(code(&format), Err(Code::SwitchRootDynamic));
        assert_eq!(code(&Format::Script(vec![])), Err(Code::SwitchRootInvalid));
        assert_eq!(code(&Format::Static), Ok(()));
        assert_eq!(of(&own[..80]), Err(Code::InitInvalid));
    }

    #[test]
    fn scripts_and_what_is_neither() {
        assert_eq!(
            of(b"#! /bin/sh -e\n"),
            Ok(Format::Script(b"/bin/sh".to_vec()))
        );
        assert_eq!(of(b"text"), Err(Code::InitInvalid));
        assert_eq!(of(b""), Err(Code::InitInvalid));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut bytes = bytes;
            if bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = of(&bytes);
        }
    }
}
