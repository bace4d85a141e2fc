//! The sending side of the QEMU Machine Protocol (QMP).

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// Sends commands. The reader's thread receives answers and events.
#[derive(Debug)]
pub(crate) struct Sender(UnixStream);

impl Sender {
    pub(crate) fn new(stream: UnixStream) -> Sender {
        Sender(stream)
    }

    pub(crate) fn send(&mut self, command: &str, arguments: &Value) -> io::Result<()> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }
}
