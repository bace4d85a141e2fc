//! Errors of system calls. The init has one type for them, [`Errno`]; what other crates return is converted here.

pub use rustix::io::Errno;

/// What [`describe`] returns, by number: the first line is that of error 1. The numbers are the same on all processors that
/// this crate is built for (include/uapi/asm-generic/errno.h), and the texts are nix's. Lines of one string take half the space
/// of an array of strings, whose pointers and lengths are longer than most texts.
const ERRORS: &str = include_str!("errno.txt");

/// An error's text and name, such as `Permission denied (EACCES)`.
pub fn describe(errno: Errno) -> String {
    let before = usize::try_from(errno.raw_os_error())
        .unwrap_or(0)
        .saturating_sub(1);
    match ERRORS.split('\n').nth(before) {
        None | Some("") => format!("error {}", errno.raw_os_error()),
        Some(text) => text.to_owned(),
    }
}

/// The error that nix or ima-keyring returned.
pub fn from_nix(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

/// The error that the standard library returned; EIO where it is not one of a system call.
pub fn from_io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_text_and_its_name() {
        assert_eq!(describe(Errno::ACCESS), "Permission denied (EACCES)");
        for number in 1..4096 {
            let text = match nix::errno::Errno::from_raw(number) {
                nix::errno::Errno::UnknownErrno => format!("error {number}"),
                known => format!("{} ({known:?})", known.desc()),
            };
            assert_eq!(describe(Errno::from_raw_os_error(number)), text);
        }
    }

    #[test]
    fn errors_of_other_crates_are_converted() {
        assert_eq!(from_nix(nix::errno::Errno::ENOKEY), Errno::NOKEY);
        let error = std::io::Error::from_raw_os_error(40);
        assert_eq!(from_io(&error), Errno::LOOP);
        let error = std::io::Error::other("no system call");
        assert_eq!(from_io(&error), Errno::IO);
    }
}
