//! Commands to a TPM 2.0, from a device file or a software TPM's socket. `tpm2-protocol` encodes the commands and decodes the
//! responses; this is the transmission.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ima::fault::{Cause, Code, Fault};
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE;
use tpm2_protocol::data::{TpmRc, TpmRcBase, TpmRh, TpmSt, TpmsAuthCommand};
use tpm2_protocol::frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command};
use tpm2_protocol::{TpmMarshal, TpmSized, TpmWriter};

/// How long a TPM may take for a response. It makes an RSA key in some ten seconds, and does all else in less than one.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a command is transmitted that the TPM asks for again.
const MAX_ATTEMPTS: usize = 64;

/// The length of the header of a response: tag, length and response code (TPM 2.0 Library, part 1, 18.2).
const HEADER: usize = 10;

/// Response codes (`TPM_RC_HANDLE` and so on), each without the number of the parameter, session or handle (TPM 2.0 Library, part 2,
/// 6.6.3).
mod code {
    pub(super) const HANDLE: u32 = 0x8b;
    pub(super) const AUTH_FAIL: u32 = 0x8e;
    pub(super) const BAD_AUTH: u32 = 0xa2;
    pub(super) const NV_DEFINED: u32 = 0x14c;
    pub(super) const INTEGRITY: u32 = 0x9f;
    pub(super) const SIZE: u32 = 0x95;
    pub(super) const HASH: u32 = 0x83;
    pub(super) const VALUE: u32 = 0x84;
}

/// Where a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tpm {
    /// A device file.
    Device(PathBuf),
    /// A software TPM's socket for commands, `HOST:PORT`.
    Socket(String),
    /// The same as a socket in the file system.
    UnixSocket(PathBuf),
}

impl Tpm {
    /// The TPM of this machine, by way of the kernel's resource manager.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::Device("/dev/tpmrm0".into())
    }
}

impl std::str::FromStr for Tpm {
    type Err = String;

    /// As tpm2-tools name them (TPM2TOOLS_TCTI): `device:/dev/tpmrm0`, `swtpm:host=localhost,port=2321` or
    /// `swtpm:path=SOCKET`; or a path.
    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(options) = name.strip_prefix("swtpm:") {
            if let Some(path) = options.strip_prefix("path=") {
                return Ok(Self::UnixSocket(path.into()));
            }
            let (mut host, mut port) = ("localhost", "2321");
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some(("host", value)) => host = value,
                    Some(("port", value)) => port = value,
                    _ => return Err(format!("`{option}`: swtpm takes host= and port=, or path=")),
                }
            }
            return Ok(Self::Socket(format!("{host}:{port}")));
        }
        let path = name.strip_prefix("device:").unwrap_or(name);
        if path.starts_with('/') {
            Ok(Self::Device(path.into()))
        } else {
            Err(format!(
                "`{name}`: give device:/dev/tpmrm0, swtpm:host=HOST,port=PORT or a path"
            ))
        }
    }
}

impl fmt::Display for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) | Self::UnixSocket(path) => write!(f, "{}", path.display()),
            Self::Socket(address) => f.write_str(address),
        }
    }
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The TPM was not reached, or the command or its response not transmitted.
    #[error("{0}")]
    Transmission(#[from] io::Error),
    /// The response is none of that command, or a value does not fit into the command.
    #[error("{command}: the response is not that of a TPM 2.0: {why}")]
    Malformed {
        /// The command.
        command: String,
        /// What is wrong with the response.
        why: tpm2_protocol::TpmError,
    },
    /// The TPM refused the command.
    #[error("{command}: the TPM answers {code:#x}{name}")]
    Refused {
        /// The command.
        command: String,
        /// The response code.
        code: u32,
        /// Its name in parentheses, if it has one.
        name: String,
    },
}

impl TpmError {
    /// The response code, without the number of the parameter, session or handle that it is about (TPM 2.0 Library, part 2, 6.6.3).
    #[must_use]
    pub const fn code(&self) -> Option<u32> {
        match self {
            Self::Refused { code, .. } if *code & 0x80 != 0 => Some(*code & 0xbf),
            Self::Refused { code, .. } => Some(*code),
            Self::Transmission(_) | Self::Malformed { .. } => None,
        }
    }

    /// Whether there is no object with that handle.
    #[must_use]
    pub fn is_no_object(&self) -> bool {
        self.code() == Some(code::HANDLE)
    }

    /// Whether the TPM does not know a value or an algorithm of the command.
    #[must_use]
    pub fn is_unknown_value(&self) -> bool {
        matches!(self.code(), Some(code::HASH | code::VALUE))
    }

    /// Whether a credential was made for another key, or with another endorsement key: `TPM_RC_INTEGRITY`, or the decryption
    /// failed before that.
    #[must_use]
    pub fn is_wrong_challenge(&self) -> bool {
        matches!(
            self.code(),
            Some(code::INTEGRITY | code::VALUE | code::SIZE)
        )
    }

    /// The fault of a command to `tpm`.
    #[must_use]
    pub fn fault(&self, tpm: &Tpm) -> Fault {
        let fault = Fault::new(Code::TpmCommand, format!("TPM {tpm}: {self}"));
        match self.code() {
            Some(code::AUTH_FAIL | code::BAD_AUTH) => fault.because(Cause::HIERARCHY_WITH_PASSWORD),
            Some(code::HANDLE) => fault.because(Cause::NO_OBJECT_IN_TPM),
            Some(code::NV_DEFINED) => fault.because(Cause::HANDLE_IN_USE),
            _ => fault,
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A TPM that takes commands.
pub struct Connection {
    stream: Box<dyn Stream>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A password session with the empty password, which hierarchies have that nobody has taken (TPM 2.0 Library, part 1, 19.4).
#[must_use]
pub fn empty_password() -> TpmsAuthCommand {
    TpmsAuthCommand {
        session_handle: TpmHandle::new(TpmRh::Pw.value()),
        ..TpmsAuthCommand::default()
    }
}

impl Connection {
    /// Connects to a TPM.
    ///
    /// # Errors
    ///
    /// [`TpmError::Transmission`].
    pub fn open(tpm: &Tpm) -> Result<Self, TpmError> {
        let stream: Box<dyn Stream> = match tpm {
            Tpm::Device(path) => Box::new(OpenOptions::new().read(true).write(true).open(path)?),
            Tpm::Socket(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Tpm::UnixSocket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Self { stream })
    }

    /// Executes a command with the sessions that authorize its handles.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn execute<R: TpmUnmarshalBody>(
        &mut self,
        command: &impl TpmFrame,
        sessions: &[TpmsAuthCommand],
    ) -> Result<R, TpmError> {
        let name = || format!("TPM2_{:?}", command.cc());
        let malformed = |why| TpmError::Malformed {
            command: name(),
            why,
        };
        let tag = match sessions {
            [] => TpmSt::NoSessions,
            _ => TpmSt::Sessions,
        };
        let mut buffer = vec![0; TPM_MAX_COMMAND_SIZE];
        let mut writer = TpmWriter::new(&mut buffer);
        tpm_marshal_command(command, tag, sessions, &mut writer).map_err(malformed)?;
        let frame = writer.as_bytes();
        let mut attempts = 1;
        loop {
            let response = self.transmit(frame)?;
            let refused = |code, name_of_code: Option<TpmRc>| TpmError::Refused {
                command: name(),
                code,
                name: name_of_code.map_or_else(String::new, |rc| format!(" ({})", rc.base())),
            };
            let response = match TpmResponse::cast(&response) {
                Ok(response) => response,
                // A vendor's code.
                Err(tpm2_protocol::TpmError::InvalidRc { value, .. }) => {
                    return Err(refused(u32::try_from(value).unwrap_or(u32::MAX), None));
                }
                Err(why) => return Err(malformed(why)),
            };
            let rc = response.rc().map_err(malformed)?;
            match rc.base() {
                TpmRcBase::Success => return response.unmarshal::<R>().map_err(malformed),
                // The TPM has not begun with it. The kernel's driver hides that (`tpm_transmit`), a socket does not.
                TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing
                    if attempts < MAX_ATTEMPTS =>
                {
                    attempts += 1;
                }
                _ => return Err(refused(rc.value(), Some(rc))),
            }
        }
    }

    /// Transmits a command, and returns the response as far as its header announces it.
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(command)?;
        let mut response = vec![0; TPM_MAX_COMMAND_SIZE];
        let mut len = 0;
        loop {
            // A device gives the whole response to one read; a socket gives it in pieces.
            let read = match self
                .stream
                .read(response.get_mut(len..).unwrap_or_default())
            {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            len += read;
            let announced = response
                .get(2..)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
            if read == 0 || (len >= HEADER && len >= announced) {
                break;
            }
        }
        response.truncate(len);
        Ok(response)
    }
}

/// A structure in the encoding of the TPM.
///
/// # Errors
///
/// That of `tpm2-protocol`, for a value that has no encoding.
pub fn encoded(value: &(impl TpmMarshal + TpmSized)) -> tpm2_protocol::TpmResult<Vec<u8>> {
    let mut buffer = vec![0; value.len()];
    let mut writer = TpmWriter::new(&mut buffer);
    value.marshal(&mut writer)?;
    let len = writer.len();
    buffer.truncate(len);
    Ok(buffer)
}

/// Decodes a structure that takes up all of `bytes`.
///
/// # Errors
///
/// That of `tpm2-protocol`; [`tpm2_protocol::TpmError::TrailingData`] if something follows.
pub fn decoded<T: tpm2_protocol::TpmUnmarshal>(bytes: &[u8]) -> tpm2_protocol::TpmResult<T> {
    match T::unmarshal(bytes)? {
        (value, []) => Ok(value),
        (_, rest) => Err(tpm2_protocol::TpmError::TrailingData {
            offset: bytes.len().saturating_sub(rest.len()),
            actual: rest.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tpm2_protocol::data::TpmlPcrSelection;
    use tpm2_protocol::frame::{TpmPcrReadCommand, TpmPcrReadResponse};

    /// Gives these responses, each byte by byte.
    struct Script(Vec<u8>, usize);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.0.get(self.1), buffer.first_mut()) {
                (Some(byte), Some(to)) => {
                    *to = *byte;
                    self.1 += 1;
                    Ok(1)
                }
                _ => Ok(0),
            }
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read_pcrs(responses: Vec<u8>) -> Result<TpmPcrReadResponse, TpmError> {
        let mut connection = Connection {
            stream: Box::new(Script(responses, 0)),
        };
        let command = TpmPcrReadCommand {
            handles: [],
            pcr_selection_in: TpmlPcrSelection::new(),
        };
        connection.execute(&command, &[])
    }

    fn refusal(code: u32) -> Vec<u8> {
        [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
    }

    #[test]
    fn responses() {
        let mut response = vec![0x80, 1, 0, 0, 0, 35, 0, 0, 0, 0, 0, 0, 0, 9];
        response.extend([0, 0, 0, 1, 0, 4, 3, 3, 0, 0, 0, 0, 0, 2]);
        response.extend([0, 2, 7, 7, 0, 1, 8]);
        let values = read_pcrs(response.clone()).unwrap().pcr_values;
        let values: Vec<&[u8]> = values.iter().map(|value| &value[..]).collect();
        assert_eq!(values, [&[7, 7][..], &[8]]);
        for len in 0..response.len() {
            assert!(read_pcrs(response[..len].to_vec()).is_err(), "{len}");
        }
        // TPM_RC_RETRY, and then the response.
        let again = [refusal(0x922), response].concat();
        assert!(read_pcrs(again).is_ok());
        for (code, expected) in [(0x2c3, 0x83), (0x101, 0x101), (0x9a2, 0xa2), (0x18b, 0x8b)] {
            let error = read_pcrs(refusal(code)).unwrap_err();
            assert_eq!(error.code(), Some(expected), "{error}");
        }
        assert!(read_pcrs(refusal(0x2c3)).unwrap_err().is_unknown_value());
        assert!(read_pcrs(refusal(0x18b)).unwrap_err().is_no_object());
    }

    proptest! {
        #[test]
        fn any_response(response: Vec<u8>) {
            let _ = read_pcrs(response);
        }

        /// With a header that is right.
        #[test]
        fn any_body(body: Vec<u8>) {
            let length = u32::try_from(body.len() + HEADER).unwrap();
            let response = [&[0x80, 1][..], &length.to_be_bytes(), &[0; 4], &body].concat();
            let _ = read_pcrs(response);
        }
    }

    #[test]
    fn names_of_tpms() {
        assert_eq!("/dev/tpm0".parse(), Ok(Tpm::Device("/dev/tpm0".into())));
        assert_eq!(
            "swtpm:port=1".parse(),
            Ok(Tpm::Socket("localhost:1".to_owned()))
        );
        assert!("mssim:".parse::<Tpm>().is_err());
        assert_eq!(
            "swtpm:path=/run/tpm".parse(),
            Ok(Tpm::UnixSocket("/run/tpm".into()))
        );
        assert!("swtpm:unix=x".parse::<Tpm>().is_err());
    }
}
