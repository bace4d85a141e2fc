//! Executable files, as far as the kernel and the dynamic loader must find what else to map: ELF's program interpreter, the
//! dynamic section, and the `#!` line.

/// The length of an ELF header, the longer of the two classes, in bytes.
pub const HEADER_LENGTH: usize = 64;

/// How much of a script's first line the kernel reads (include/uapi/linux/binfmts.h, BINPRM_BUF_SIZE).
pub const SCRIPT_LENGTH: usize = 256;

/// The longest path of an interpreter, in bytes with its NUL (PATH_MAX; fs/binfmt_elf.c, `load_elf_binary`).
const MAX_INTERPRETER: u64 = 4096;

/// What a program is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine` (include/uapi/linux/elf-em.h).
    number: u16,
    /// Of the 64-bit class: for RISC-V, MIPS and s390 the number is the same for both.
    wide: bool,
    big_endian: bool,
}

impl Machine {
    /// `e_machine` (include/uapi/linux/elf-em.h).
    pub const fn number(self) -> u16 {
        self.number
    }

    /// Whether numbers are stored with the most significant byte first.
    pub const fn big_endian(self) -> bool {
        self.big_endian
    }

    /// Whether a kernel that runs programs of this machine may run those of the other: its own, and the 32-bit ones of its
    /// family (CONFIG_COMPAT; whether the kernel has it, only the kernel knows).
    pub fn may_run(self, other: Self) -> bool {
        /// EM_X86_64 and EM_386, EM_AARCH64 and EM_ARM, EM_PPC64 and EM_PPC.
        const FAMILIES: [(u16, u16); 3] = [(62, 3), (183, 40), (21, 20)];
        let same_order = self.big_endian == other.big_endian;
        same_order
            && (self.wide || !other.wide)
            && (self.number == other.number || FAMILIES.contains(&(self.number, other.number)))
    }
}

/// An ELF header (System V ABI, chapter 4) of an executable or a shared object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elf {
    wide: bool,
    big_endian: bool,
    machine: Machine,
    program_headers: Extent,
}

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// From the beginning of the file.
    pub offset: u64,
    /// How long.
    pub length: usize,
}

impl Elf {
    /// Parses the first bytes of a file; nothing if it is not an ELF executable or shared object.
    pub fn parse(header: &[u8]) -> Option<Self> {
        const EXECUTABLE: u64 = 2;
        const SHARED: u64 = 3;
        if !header.starts_with(b"\x7fELF") {
            return None;
        }
        let wide = match header.get(4)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let big_endian = match header.get(5)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let number = |at, length| number(header, at, length, big_endian);
        if !matches!(number(16, 2)?, EXECUTABLE | SHARED) {
            return None;
        }
        let (offset, size, count) = if wide {
            (number(32, 8)?, number(54, 2)?, number(56, 2)?)
        } else {
            (number(28, 4)?, number(42, 2)?, number(44, 2)?)
        };
        // The kernel takes this size and no other (`load_elf_phdrs`), and at most 64 KiB of them.
        let expected: u64 = if wide { 56 } else { 32 };
        let length = size.checked_mul(count)?;
        if size != expected || count == 0 || length > 65536 {
            return None;
        }
        Some(Self {
            wide,
            big_endian,
            machine: Machine {
                number: u16::try_from(number(18, 2)?).ok()?,
                wide,
                big_endian,
            },
            program_headers: Extent {
                offset,
                length: usize::try_from(length).ok()?,
            },
        })
    }

    /// The machine that it is made for.
    pub const fn machine(&self) -> Machine {
        self.machine
    }

    /// The architecture that it is made for, named as Rust names it; none for one that the init is not built for.
    #[must_use]
    pub const fn architecture(&self) -> Option<&'static str> {
        match (self.machine.number, self.wide, self.big_endian) {
            (3, false, false) => Some("x86"),
            (40, false, false) => Some("arm"),
            (62, true, false) => Some("x86_64"),
            (183, true, false) => Some("aarch64"),
            (243, true, false) => Some("riscv64"),
            _ => None,
        }
    }

    /// Whether it is of the 64-bit class.
    pub const fn is_wide(&self) -> bool {
        self.wide
    }

    /// Where the program headers are.
    pub const fn program_headers(&self) -> Extent {
        self.program_headers
    }

    /// Where the path of the program interpreter is, NUL included, from the bytes of the program headers.
    ///
    /// # Errors
    ///
    /// [`BadInterpreter`] where the kernel would answer ENOEXEC.
    pub fn interpreter(&self, program_headers: &[u8]) -> Result<Option<Extent>, BadInterpreter> {
        const INTERPRETER: u64 = 3;
        let size = if self.wide { 56 } else { 32 };
        for header in program_headers.chunks_exact(size) {
            let number = |at, length| number(header, at, length, self.big_endian);
            if number(0, 4) != Some(INTERPRETER) {
                continue;
            }
            let place = if self.wide {
                number(8, 8).zip(number(32, 8))
            } else {
                number(4, 4).zip(number(16, 4))
            };
            let (offset, length) = place.ok_or(BadInterpreter)?;
            if !(2..=MAX_INTERPRETER).contains(&length) {
                return Err(BadInterpreter);
            }
            return Ok(Some(Extent {
                offset,
                length: usize::try_from(length).map_err(|_| BadInterpreter)?,
            }));
        }
        Ok(None)
    }
}

/// A program header, as far as the dynamic section is found by it.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    length: u64,
}

impl Elf {
    fn segments(self, program_headers: &[u8]) -> impl Iterator<Item = Segment> + '_ {
        let size = if self.wide { 56 } else { 32 };
        program_headers
            .chunks_exact(size)
            .filter_map(move |header| {
                let number = |at, length| number(header, at, length, self.big_endian);
                let kind = number(0, 4)?;
                let (offset, address, length) = if self.wide {
                    (number(8, 8)?, number(16, 8)?, number(32, 8)?)
                } else {
                    (number(4, 4)?, number(8, 4)?, number(16, 4)?)
                };
                Some(Segment {
                    kind,
                    offset,
                    address,
                    length,
                })
            })
    }
}

/// What a program or library asks of the dynamic loader (System V ABI, "Dynamic Section").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// DT_NEEDED: the libraries it needs, in order.
    pub needed: Vec<Vec<u8>>,
    /// DT_SONAME: the name that others need it by.
    pub soname: Option<Vec<u8>>,
    /// DT_RPATH: directories separated by colons.
    pub rpath: Option<Vec<u8>>,
    /// DT_RUNPATH: directories separated by colons.
    pub runpath: Option<Vec<u8>>,
    /// DF_1_NODEFLIB: the loader's own directories are not searched.
    pub no_default_directories: bool,
}

/// The longest name of a library or list of directories that is read, in bytes.
const MAX_DYNAMIC_STRING: usize = 1 << 16;

/// The most libraries that a file may need.
const MAX_NEEDED: usize = 4096;

impl Dynamic {
    /// Reads the dynamic section of a whole file, by its program headers, as a loader does; nothing if the file has none, or one
    /// that cannot be read.
    pub fn parse(file: &[u8]) -> Option<Self> {
        const LOAD: u64 = 1;
        const DYNAMIC: u64 = 2;
        const NEEDED: u64 = 1;
        const STRINGS: u64 = 5;
        const SONAME: u64 = 14;
        const RPATH: u64 = 15;
        const RUNPATH: u64 = 29;
        const FLAGS_1: u64 = 0x6fff_fffb;
        const NO_DEFAULT_LIBRARIES: u64 = 0x800;
        let elf = Elf::parse(file.get(..HEADER_LENGTH).unwrap_or(file))?;
        let slice = |offset: u64, length: u64| {
            let start = usize::try_from(offset).ok()?;
            let length = usize::try_from(length).ok()?;
            file.get(start..start.checked_add(length)?)
        };
        let headers = elf.program_headers();
        let headers = slice(headers.offset, u64::try_from(headers.length).ok()?)?;
        let section = elf
            .segments(headers)
            .find(|segment| segment.kind == DYNAMIC)?;
        let section = slice(section.offset, section.length)?;
        let (width, pair) = if elf.wide { (8, 16) } else { (4, 8) };
        let entries = || {
            section
                .chunks_exact(pair)
                .map_while(|entry| {
                    let tag = number(entry, 0, width, elf.big_endian)?;
                    let value = number(entry, width, width, elf.big_endian)?;
                    Some((tag, value))
                })
                .take_while(|(tag, _)| *tag != 0)
        };
        let strings = entries().find(|(tag, _)| *tag == STRINGS);
        let strings = strings.and_then(|(_, address)| {
            let segment = elf.segments(headers).find(|segment| {
                segment.kind == LOAD
                    && (segment.address..segment.address.saturating_add(segment.length))
                        .contains(&address)
            })?;
            let within = address.checked_sub(segment.address)?;
            slice(segment.offset, segment.length)?.get(usize::try_from(within).ok()?..)
        });
        let text = |at: u64| {
            let rest = strings?.get(usize::try_from(at).ok()?..)?;
            let rest = rest.get(..MAX_DYNAMIC_STRING.min(rest.len()))?;
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some(rest.get(..end)?.to_vec())
        };
        let mut dynamic = Self::default();
        for (tag, value) in entries() {
            match tag {
                NEEDED if dynamic.needed.len() >= MAX_NEEDED => return None,
                NEEDED => dynamic.needed.push(text(value)?),
                SONAME => dynamic.soname = Some(text(value)?),
                RPATH => dynamic.rpath = Some(text(value)?),
                RUNPATH => dynamic.runpath = Some(text(value)?),
                FLAGS_1 => dynamic.no_default_directories = value & NO_DEFAULT_LIBRARIES != 0,
                _ => {}
            }
        }
        Some(dynamic)
    }
}

/// The program header names an interpreter that no kernel would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadInterpreter;

/// The interpreter of a script, from the first [`SCRIPT_LENGTH`] bytes of the file: nothing if it is not a script, or one
/// that names none (fs/binfmt_script.c, `load_script`).
pub fn script_interpreter(head: &[u8]) -> Option<&[u8]> {
    script(head).map(|(interpreter, _)| interpreter)
}

/// The argument that a script's first line gives its interpreter: everything behind the interpreter's path, in one word.
pub fn script_argument(head: &[u8]) -> Option<&[u8]> {
    let (_, rest) = script(head)?;
    let rest = rest.split(|byte| *byte == 0).next()?.trim_ascii();
    (!rest.is_empty()).then_some(rest)
}

/// The interpreter, and what stands behind it on the line.
fn script(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = head
        .get(..SCRIPT_LENGTH.min(head.len()))?
        .strip_prefix(b"#!")?;
    let end = line
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(line.len());
    let line = line.get(..end)?;
    let line = line.get(line.iter().position(|byte| !blank(byte))?..)?;
    let end = line
        .iter()
        .position(|byte| blank(byte) || *byte == 0)
        .unwrap_or(line.len());
    let (interpreter, rest) = line.split_at_checked(end)?;
    (!interpreter.is_empty()).then_some((interpreter, rest))
}

fn number(bytes: &[u8], at: usize, length: usize, big_endian: bool) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..length)?;
    let fold = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    Some(if big_endian {
        bytes.iter().fold(0, fold)
    } else {
        bytes.iter().rev().fold(0, fold)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interpreter_of(path: &str) -> Option<String> {
        let file = std::fs::read(path).unwrap();
        let elf = Elf::parse(&file).unwrap();
        let at = elf.program_headers();
        let offset = usize::try_from(at.offset).unwrap();
        let place = elf
            .interpreter(&file[offset..offset + at.length])
            .unwrap()?;
        let offset = usize::try_from(place.offset).unwrap();
        let text = String::from_utf8(file[offset..offset + place.length].to_vec()).unwrap();
        Some(text.trim_end_matches('\0').to_owned())
    }

    #[test]
    fn this_very_program_names_its_loader() {
        let own = std::env::current_exe().unwrap();
        let interpreter = interpreter_of(own.to_str().unwrap()).expect("tests are dynamic");
        // ld-linux-x86-64.so.2, ld64.so.1 on s390x.
        assert!(interpreter.contains("/ld"), "{interpreter}");
    }

    #[test]
    fn this_very_program_needs_its_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let dynamic = Dynamic::parse(&own).unwrap();
        let needed = |name: &[u8]| dynamic.needed.iter().any(|needed| needed == name);
        assert!(needed(b"libc.so.6"), "{dynamic:?}");
        assert_eq!(dynamic.soname, None);
        assert_eq!(Dynamic::parse(b"text"), None);
    }

    #[test]
    fn a_32_bit_big_endian_file() {
        let mut file = vec![0; 52 + 32];
        file[..6].copy_from_slice(b"\x7fELF\x01\x02");
        file[17] = 2;
        file[31] = 52;
        file[43] = 32;
        file[45] = 1;
        file[52 + 3] = 3;
        file[52 + 7] = 84;
        file[52 + 19] = 14;
        let elf = Elf::parse(&file).unwrap();
        assert_eq!(
            elf.program_headers(),
            Extent {
                offset: 52,
                length: 32
            }
        );
        let expected = Extent {
            offset: 84,
            length: 14,
        };
        assert_eq!(elf.interpreter(&file[52..]), Ok(Some(expected)));
        file[52 + 19] = 1;
        assert_eq!(elf.interpreter(&file[52..]), Err(BadInterpreter));
    }

    #[test]
    fn machines_run_their_own_and_their_family_s_32_bit_programs() {
        let machine = |number, wide| Machine {
            number,
            wide,
            big_endian: false,
        };
        let big_endian = |number, wide| Machine {
            big_endian: true,
            ..machine(number, wide)
        };
        let x86_64 = machine(62, true);
        // Also programs for x32.
        for (other, expected) in [
            (x86_64, true),
            (machine(62, false), true),
            (machine(3, false), true),
            (machine(183, true), false),
            (big_endian(62, true), false),
        ] {
            assert_eq!(x86_64.may_run(other), expected, "{other:?}");
        }
        assert!(!machine(3, false).may_run(x86_64));
        assert!(machine(183, true).may_run(machine(40, false)));
        let (riscv64, riscv32) = (machine(243, true), machine(243, false));
        assert!(riscv64.may_run(riscv32) && !riscv32.may_run(riscv64));
        let (s390x, s390) = (big_endian(22, true), big_endian(22, false));
        assert!(s390x.may_run(s390) && !s390.may_run(s390x));
    }

    #[test]
    fn scripts() {
        let cases: [(&[u8], Option<&[u8]>); 8] = [
            (b"#!/bin/sh\necho", Some(b"/bin/sh")),
            (b"#! \t/usr/bin/env python3\n", Some(b"/usr/bin/env")),
            (b"#!/bin/sh", Some(b"/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"#!   \n", None),
            (b"#", None),
            (b"", None),
            (b"echo\n#!/bin/sh\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                script_interpreter(text),
                expected,
                "{}",
                text.escape_ascii()
            );
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), class in 1_u8..3, data in 1_u8..3) {
            let mut bytes = bytes;
            if bytes.len() > 6 {
                bytes[..4].copy_from_slice(b"\x7fELF");
                bytes[4] = class;
                bytes[5] = data;
            }
            if let Some(elf) = Elf::parse(&bytes) {
                prop_assert!(elf.program_headers().length <= 65536);
                if let Ok(Some(place)) = elf.interpreter(&bytes) {
                    prop_assert!(place.length <= 4096);
                }
            }
            let _ = script_interpreter(&bytes);
        }
    }
}
