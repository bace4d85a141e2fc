//! The programs that a boot executes in the real root: what they need to run, and which faults there are in each.

use crate::elf::{self, Elf, Machine};
use crate::fault::{Code, Fault};

/// How many interpreters a script may need, one after another (fs/exec.c, `exec_binprm`).
pub const MAX_INTERPRETERS: usize = 5;

/// Why there are no more than that.
pub const TOO_MANY_SCRIPTS: &str =
    "init is a script, its interpreter is a script too, and so on: the kernel follows five at most";

/// What to do about it.
pub const NO_SCRIPT: &str =
    "name a program as the interpreter in the first line of the first script";

/// The longest program that is looked at, in bytes: the kernel hashes the whole of a file before it looks at its signature, and
/// a sparse one of terabytes would keep it busy for days.
pub const MAX_PROGRAM: u64 = 1 << 30;

/// The codes of the faults in one kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// It is not there.
    pub missing: Code,
    /// It is no program for this use.
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

/// What a program needs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Nothing.
    Static,
    /// A dynamic loader, by its path.
    Interpreted(Vec<u8>),
    /// Another program that reads it, by its path.
    Script(Vec<u8>),
}

/// A file that is to be executed.
pub struct Program<'a> {
    /// Its path, for messages.
    pub path: &'a str,
    /// The codes of its faults.
    pub codes: &'a Codes,
    /// The machine that it must run on, if that is known.
    pub machine: Option<Machine>,
    /// Gives so many bytes from a place in the file, fewer where it ends.
    pub read: &'a mut dyn FnMut(u64, usize) -> Result<Vec<u8>, Fault>,
}

impl std::fmt::Debug for Program<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Program<'_> {
    /// What it needs to run.
    ///
    /// # Errors
    ///
    /// The code's `invalid` for what the kernel would answer with ENOEXEC, and the errors of `read`.
    pub fn format(&mut self) -> Result<Format, Fault> {
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
    pub fn check_loader(&mut self) -> Result<(), Fault> {
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
                .cause("it is made for another machine than this init is")
                .remedy("install the one that is built for this machine, and sign it"));
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

/// Whether a file of that length is one that can be looked at.
///
/// # Errors
///
/// The code's `invalid` beyond [`MAX_PROGRAM`].
pub fn check_length(path: &str, codes: &Codes, length: u64) -> Result<(), Fault> {
    if length <= MAX_PROGRAM {
        return Ok(());
    }
    let detail = format!("{path}: {} MiB", length >> 20);
    Err(Fault::new(codes.invalid, detail)
        .cause("no program is so long, and verifying its signature would take hours"))
}

/// switch_root must be static: an interpreter would be looked for in the initramfs.
///
/// # Errors
///
/// `SwitchRootDynamic`, `SwitchRootInvalid` for a script.
pub fn require_static(path: &str, format: &Format) -> Result<(), Fault> {
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

    #[test]
    fn a_length_has_its_limit() {
        assert!(check_length("x", &INIT, MAX_PROGRAM).is_ok());
        let fault = check_length("x", &INTERPRETER, MAX_PROGRAM + 1).unwrap_err();
        assert_eq!(fault.code(), Code::InterpreterInvalid);
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
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut bytes = bytes;
            if bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = of(&bytes);
        }
    }
}
