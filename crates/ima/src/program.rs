//! The programs that a boot executes in the real root: what they need to run, and which faults there are in each.

use crate::elf::{self, Elf};
use crate::fault::{Code, Fault};

/// How many interpreters a script may need, one after another (fs/exec.c, `exec_binprm`).
pub const MAX_INTERPRETERS: usize = 5;

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

/// What the program of that path needs. `read` gives so many bytes from a place in the file, fewer where it ends.
///
/// # Errors
///
/// The code's `invalid` for what the kernel would answer with ENOEXEC, and the errors of `read`.
pub fn format(
    path: &str,
    codes: &Codes,
    read: &mut dyn FnMut(u64, usize) -> Result<Vec<u8>, Fault>,
) -> Result<Format, Fault> {
    let invalid = |why: &str| Fault::new(codes.invalid, format!("{path}: {why}"));
    let head = read(0, elf::SCRIPT_LENGTH)?;
    if let Some(program) = elf::script_interpreter(&head) {
        return Ok(Format::Script(program.to_vec()));
    }
    let program =
        Elf::parse(&head).ok_or_else(|| invalid("neither an ELF program nor a script"))?;
    let place = program.program_headers();
    let headers = read(place.offset, place.length)?;
    if headers.len() != place.length {
        return Err(invalid("its program headers are cut off"));
    }
    let malformed = || invalid("its interpreter's name is malformed");
    let Some(place) = program.interpreter(&headers).map_err(|_| malformed())? else {
        return Ok(Format::Static);
    };
    match read(place.offset, place.length)?.split_last() {
        Some((0, name)) => Ok(Format::Interpreted(name.to_vec())),
        _ => Err(malformed()),
    }
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
        format("x", &INIT, &mut read).map_err(|fault| fault.code())
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
