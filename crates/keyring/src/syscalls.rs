//! The system calls that no crate has: the only module with `unsafe`. linux-keyutils has no key type `asymmetric` and no way to
//! name a keyring by its serial number.
#![allow(unsafe_code)]

use std::ffi::CStr;

use ima::keyring::Serial;
use nix::errno::Errno;
use nix::libc;

/// Where a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    /// A keyring by its serial number.
    Serial(Serial),
    /// The user session keyring, through which the kernel finds `_ima` (security/keys/process_keys.c).
    UserSession,
    /// The session keyring.
    Session,
    /// The user keyring.
    User,
}

impl Keyring {
    pub(crate) fn id(self) -> i32 {
        match self {
            Self::Serial(serial) => serial.get(),
            Self::UserSession => libc::KEY_SPEC_USER_SESSION_KEYRING,
            Self::Session => libc::KEY_SPEC_SESSION_KEYRING,
            Self::User => libc::KEY_SPEC_USER_KEYRING,
        }
    }
}

/// add_key(2) of an X.509 certificate in DER: the kernel describes the key by the certificate.
///
/// # Errors
///
/// What security/keys/keyctl.c, crypto/asymmetric_keys and the keyring's restriction answer.
pub fn add_certificate(der: &[u8], keyring: Keyring) -> Result<Serial, Errno> {
    // SAFETY: the type is a C string; the description may be NULL for a type that makes its own (keyctl.c, add_key);
    // the payload is read only, up to its length.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"asymmetric".as_ptr(),
            std::ptr::null::<libc::c_char>(),
            der.as_ptr(),
            der.len(),
            keyring.id(),
        )
    };
    serial_of(serial)
}

/// add_key(2) of an empty keyring of that name.
///
/// # Errors
///
/// EPERM for a name with a dot, EACCES where the parent cannot be written, EDQUOT.
pub fn add_keyring(name: &CStr, parent: Keyring) -> Result<Serial, Errno> {
    // SAFETY: type and description are C strings; a keyring has no payload.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"keyring".as_ptr(),
            name.as_ptr(),
            std::ptr::null::<u8>(),
            0_usize,
            parent.id(),
        )
    };
    serial_of(serial)
}

/// add_key(2) of a key that is described by its name: of the types `trusted`, `encrypted` and `user`.
///
/// # Errors
///
/// ENODEV for a type that the kernel has not; what the type answers: EINVAL for a payload it cannot parse, ENOKEY where the
/// master key is not found, EBADMSG for one that another master key has sealed, the TPM's refusals.
pub fn add_key(
    kind: &CStr,
    description: &CStr,
    payload: &[u8],
    keyring: Keyring,
) -> Result<Serial, Errno> {
    // SAFETY: type and description are C strings; the payload is read only, up to its length.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            description.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            keyring.id(),
        )
    };
    serial_of(serial)
}

fn serial_of(result: libc::c_long) -> Result<Serial, Errno> {
    let serial = Errno::result(result)?;
    let serial = i32::try_from(serial).map_err(|_| Errno::EOVERFLOW)?;
    Serial::new(serial).ok_or(Errno::EOVERFLOW)
}

/// keyctl(2), KEYCTL_RESTRICT_KEYRING without a type: from then on the keyring takes no key (security/keys/keyring.c,
/// `keyring_restrict`, `restrict_link_reject`).
///
/// # Errors
///
/// EEXIST for a keyring that has a restriction, EACCES for one whose attributes this process may not set.
pub fn seal(keyring: Keyring) -> Result<(), Errno> {
    // SAFETY: type and restriction may be NULL (security/keys/keyctl.c, keyctl_restrict_keyring).
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_RESTRICT_KEYRING,
            keyring.id(),
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_char>(),
        )
    };
    Errno::result(result).map(drop)
}

/// keyctl(2), KEYCTL_DESCRIBE: type, owner, permissions and description of a key, whose length is returned; of a longer one the
/// beginning is in the buffer.
///
/// # Errors
///
/// ENOKEY for one that is not there, EACCES for one that this process may not view.
pub(crate) fn describe(serial: Serial, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most the buffer's length (security/keys/keyctl.c, keyctl_describe_key).
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_DESCRIBE,
            serial.get(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    let length = Errno::result(length)?;
    usize::try_from(length).map_err(|_| Errno::EOVERFLOW)
}
