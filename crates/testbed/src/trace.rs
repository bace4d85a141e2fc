//! The system calls of an init, as the guest program reports them with `FAULTS=trace` (its module `faults`). x86-64 only.

use std::fmt;
use std::str::FromStr;

/// What begins the record of a call.
const RECORD: &str = "call ";

/// A system call that was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedCall {
    /// Its number (arch/x86/entry/syscalls/syscall_64.tbl).
    pub number: u64,
    /// How long the program ran between the call before and this one, in nanoseconds. What the tracer costs is in it.
    pub before: u64,
    /// How long the call took, in nanoseconds. What the tracer costs is in it.
    pub within: u64,
    /// What it returned.
    pub result: i64,
    /// The path or the file that it is about; empty if there is none.
    pub subject: String,
}

impl fmt::Display for TracedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            before,
            within,
            result,
            subject,
        } = self;
        write!(f, "{RECORD}{number} {before} {within} {result} {subject}")
    }
}

/// A line is not the record of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCall;

impl FromStr for TracedCall {
    type Err = NoCall;

    fn from_str(text: &str) -> Result<Self, NoCall> {
        let mut words = text.strip_prefix(RECORD).ok_or(NoCall)?.splitn(5, ' ');
        let mut word = || words.next().ok_or(NoCall);
        let (number, before, within, result) = (word()?, word()?, word()?, word()?);
        Ok(Self {
            number: number.parse().map_err(|_| NoCall)?,
            before: before.parse().map_err(|_| NoCall)?,
            within: within.parse().map_err(|_| NoCall)?,
            result: result.parse().map_err(|_| NoCall)?,
            subject: words.next().unwrap_or_default().to_owned(),
        })
    }
}

/// The calls that the init makes, by number (arch/x86/entry/syscalls/syscall_64.tbl).
const NAMES: &[(u64, &str)] = &[
    (0, "read"),
    (1, "write"),
    (2, "open"),
    (3, "close"),
    (4, "stat"),
    (5, "fstat"),
    (6, "lstat"),
    (7, "poll"),
    (8, "lseek"),
    (9, "mmap"),
    (10, "mprotect"),
    (11, "munmap"),
    (12, "brk"),
    (13, "rt_sigaction"),
    (14, "rt_sigprocmask"),
    (16, "ioctl"),
    (17, "pread64"),
    (19, "readv"),
    (20, "writev"),
    (21, "access"),
    (28, "madvise"),
    (32, "dup"),
    (33, "dup2"),
    (35, "nanosleep"),
    (39, "getpid"),
    (40, "sendfile"),
    (41, "socket"),
    (45, "recvfrom"),
    (49, "bind"),
    (57, "fork"),
    (59, "execve"),
    (60, "exit"),
    (61, "wait4"),
    (63, "uname"),
    (72, "fcntl"),
    (79, "getcwd"),
    (80, "chdir"),
    (81, "fchdir"),
    (83, "mkdir"),
    (87, "unlink"),
    (89, "readlink"),
    (91, "fchmod"),
    (93, "fchown"),
    (99, "sysinfo"),
    (102, "getuid"),
    (131, "sigaltstack"),
    (138, "fstatfs"),
    (155, "pivot_root"),
    (157, "prctl"),
    (158, "arch_prctl"),
    (161, "chroot"),
    (165, "mount"),
    (166, "umount2"),
    (186, "gettid"),
    (190, "fsetxattr"),
    (193, "fgetxattr"),
    (202, "futex"),
    (217, "getdents64"),
    (218, "set_tid_address"),
    (228, "clock_gettime"),
    (230, "clock_nanosleep"),
    (231, "exit_group"),
    (248, "add_key"),
    (249, "request_key"),
    (250, "keyctl"),
    (257, "openat"),
    (258, "mkdirat"),
    (259, "mknodat"),
    (260, "fchownat"),
    (262, "newfstatat"),
    (263, "unlinkat"),
    (265, "linkat"),
    (266, "symlinkat"),
    (267, "readlinkat"),
    (269, "faccessat"),
    (271, "ppoll"),
    (292, "dup3"),
    (293, "pipe2"),
    (302, "prlimit64"),
    (313, "finit_module"),
    (318, "getrandom"),
    (322, "execveat"),
    (332, "statx"),
    (334, "rseq"),
    (428, "open_tree"),
    (429, "move_mount"),
    (430, "fsopen"),
    (431, "fsconfig"),
    (432, "fsmount"),
    (437, "openat2"),
];

/// Returns the name of a call.
#[must_use]
pub fn name_of(call: u64) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == call);
    known.map_or_else(|| format!("call {call}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for subject in ["", "/sys/kernel/security/ima/policy", "two words"] {
            let call = TracedCall {
                number: 257,
                before: 1,
                within: 20,
                result: -2,
                subject: subject.to_owned(),
            };
            assert_eq!(call.to_string().parse(), Ok(call));
        }
        for text in ["", "calls 0: 1 2", "call 1 2 3", "call a 1 2 3 x"] {
            assert_eq!(text.parse::<TracedCall>(), Err(NoCall), "{text}");
        }
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(name_of(0), "read");
        assert_eq!(name_of(250), "keyctl");
        assert_eq!(name_of(9999), "call 9999");
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
