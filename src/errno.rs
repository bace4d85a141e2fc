//! Errors of system calls. The init has one type for them, [`Errno`]; what other crates return is converted here.

pub use rustix::io::Errno;

/// An error's text and name, such as `Permission denied (EACCES)`.
pub fn describe(errno: Errno) -> String {
    let errno = nix::errno::Errno::from_raw(errno.raw_os_error());
    format!("{} ({errno:?})", errno.desc())
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
        assert_eq!(from_nix(nix::errno::Errno::ENOKEY), Errno::NOKEY);
        let error = std::io::Error::from_raw_os_error(40);
        assert_eq!(from_io(&error), Errno::LOOP);
        let error = std::io::Error::other("no system call");
        assert_eq!(from_io(&error), Errno::IO);
    }
}
