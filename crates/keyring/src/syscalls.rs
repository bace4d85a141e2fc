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
    /// The keyring of this process, which goes with it.
    Process,
}

impl Keyring {
    pub(crate) fn id(self) -> i32 {
        match self {
            Self::Serial(serial) => serial.get(),
            Self::UserSession => libc::KEY_SPEC_USER_SESSION_KEYRING,
            Self::Session => libc::KEY_SPEC_SESSION_KEYRING,
            Self::User => libc::KEY_SPEC_USER_KEYRING,
            Self::Process => libc::KEY_SPEC_PROCESS_KEYRING,
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

/// The lengths of what KEYCTL_PKEY_VERIFY reads (include/uapi/linux/keyctl.h, `struct keyctl_pkey_params`).
#[repr(C)]
struct PkeyParams {
    key_id: i32,
    in_len: u32,
    in2_len: u32,
    spare: [u32; 7],
}

/// keyctl(2), KEYCTL_PKEY_QUERY: whether the kernel has the algorithms for a signature by that key, encoded as `info` says.
///
/// # Errors
///
/// ENOPKG, ENOENT and EINVAL if it has not (crypto/asymmetric_keys/public_key.c, `software_key_query`).
pub(crate) fn can_verify(key: Serial, info: &CStr) -> Result<(), Errno> {
    // struct keyctl_pkey_query, of which nothing is needed.
    let mut answer = [0_u32; 14];
    // SAFETY: the kernel reads the string and writes the structure, which has 56 bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_PKEY_QUERY,
            key.get(),
            0_usize,
            info.as_ptr(),
            answer.as_mut_ptr(),
        )
    };
    Errno::result(result).map(drop)
}

/// keyctl(2), KEYCTL_PKEY_VERIFY: whether `signature` is one of `digest` by that key, encoded as `info` says.
///
/// # Errors
///
/// EKEYREJECTED and EBADMSG for a wrong signature, EINVAL for one that is too long or malformed (security/keys/keyctl_pkey.c, `keyctl_pkey_verify`).
pub(crate) fn verify(
    key: Serial,
    info: &CStr,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), Errno> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL);
    let params = PkeyParams {
        key_id: key.get(),
        in_len: length(digest)?,
        in2_len: length(signature)?,
        spare: [0; 7],
    };
    // SAFETY: the kernel reads the structure, the string, and as many bytes as the structure says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_PKEY_VERIFY,
            &raw const params,
            info.as_ptr(),
            digest.as_ptr(),
            signature.as_ptr(),
        )
    };
    Errno::result(result).map(drop)
}
