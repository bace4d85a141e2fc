//! A shell session on the serial console.

use std::time::Duration;

use crate::{Outcome, Running, TestbedError};

/// The result of a command that was run on the serial console.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandOutput {
    /// The command line.
    pub command: String,
    /// The exit status.
    pub status: u32,
    /// The lines between the command and the next prompt: standard output and standard error in the order in which they
    /// appeared. Messages of the kernel may be among them.
    pub output: String,
}

impl CommandOutput {
    /// Returns whether the command exited with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Returns whether the output contains this text.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.output.contains(text)
    }
}

/// A session of bash on the serial console of a running machine.
///
/// [`SerialConsole::log_in`] answers the login prompt; [`SerialConsole::run`] then runs commands one after another and returns
/// the output and exit status of each. Dropping the session ends the machine.
#[derive(Debug)]
pub struct SerialConsole {
    running: Running,
    /// How much of the console has been consumed, in bytes.
    position: usize,
}

/// The prompt contains the number of the command and the exit status. The echo of the command that sets it contains no digits,
/// so it is not mistaken for a prompt.
const PROMPT: &str = r"PS1='[#\#:$?#] '";
const PROMPT_START: &str = "[#";
const PROMPT_END: &str = "#] ";

impl SerialConsole {
    /// Waits for the login prompt of the machine and logs in. The user's shell must be bash.
    ///
    /// # Errors
    /// A prompt did not appear within `limit`, or the machine ended.
    pub fn log_in(
        running: Running,
        user: &str,
        password: &str,
        limit: Duration,
    ) -> Result<SerialConsole, TestbedError> {
        let mut console = SerialConsole {
            running,
            position: 0,
        };
        console.wait_for("login: ", limit)?;
        console.send_line(user)?;
        console.wait_for("Password: ", limit)?;
        console.send_line(password)?;
        console.wait_for("# ", limit)?;
        // Readline would wrap the echo of a long line, and mark pasted text with escape sequences.
        console.send_line(&format!(
            "stty cols 4000; bind 'set enable-bracketed-paste off'; {PROMPT}"
        ))?;
        console.wait_for_prompt("the first prompt", limit)?;
        Ok(console)
    }

    /// Waits until this text appears after what has been consumed so far, and consumes it. Returns the text before it.
    ///
    /// # Errors
    /// The text did not appear within `limit`, or the machine ended.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String, TestbedError> {
        let position = self.position;
        let before =
            self.running
                .wait_for(&format!("“{text}” on the console"), limit, |output| {
                    let new = output.console.get(position..)?;
                    new.find(text).map(|at| new[..at].to_owned())
                })?;
        self.position += before.len() + text.len();
        Ok(before)
    }

    /// Sends a line of input, such as the answer to a question.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn send_line(&self, line: &str) -> Result<(), TestbedError> {
        self.running.send_text(&format!("{line}\n"))
    }

    /// Runs a command and waits until it has exited.
    ///
    /// # Errors
    /// The command did not exit within `limit`, or the machine ended.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<CommandOutput, TestbedError> {
        self.start(command, limit)?;
        self.wait_for_exit(command, limit)
    }

    /// Starts a command that reads input. Follow it with [`SerialConsole::wait_for`] and [`SerialConsole::send_line`] for each
    /// question, and with [`SerialConsole::wait_for_exit`].
    ///
    /// # Errors
    /// The echo of the command did not appear within `limit`, or the machine ended.
    pub fn start(&mut self, command: &str, limit: Duration) -> Result<(), TestbedError> {
        self.send_line(command)?;
        self.wait_for("\n", limit).map(drop)
    }

    /// Waits until the command that was started last has exited.
    ///
    /// # Errors
    /// The command did not exit within `limit`, or the machine ended.
    pub fn wait_for_exit(
        &mut self,
        command: &str,
        limit: Duration,
    ) -> Result<CommandOutput, TestbedError> {
        let (output, status) = self.wait_for_prompt(&format!("the exit of “{command}”"), limit)?;
        Ok(CommandOutput {
            command: command.to_owned(),
            status,
            output: output.replace('\r', ""),
        })
    }

    /// Waits for the prompt. Returns the text before it and the exit status in it.
    fn wait_for_prompt(
        &mut self,
        event: &str,
        limit: Duration,
    ) -> Result<(String, u32), TestbedError> {
        let position = self.position;
        let (before, status, length) = self.running.wait_for(event, limit, |output| {
            find_prompt(output.console.get(position..)?)
        })?;
        self.position += before.len() + length;
        Ok((before, status))
    }

    /// Returns everything that the console has shown so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.running.console()
    }

    /// Runs the command that ends the machine, such as `poweroff`, and waits until the machine has ended.
    ///
    /// # Errors
    /// QEMU has ended already.
    pub fn finish(self, command: &str) -> Result<Outcome, TestbedError> {
        self.send_line(command)?;
        Ok(self.running.finish())
    }
}

/// Finds the first prompt in a text. Returns the text before it, the exit status in it, and its length.
fn find_prompt(text: &str) -> Option<(String, u32, usize)> {
    text.match_indices(PROMPT_START).find_map(|(at, _)| {
        let (inside, _) = text[at + PROMPT_START.len()..].split_once(PROMPT_END)?;
        let (number, status) = inside.split_once(':')?;
        number.parse::<u32>().ok()?;
        Some((
            text[..at].to_owned(),
            status.parse().ok()?,
            PROMPT_START.len() + inside.len() + PROMPT_END.len(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_prompt_and_its_status() {
        let rows = [
            ("a\r\nb\r\n[#12:0#] ", Some(("a\r\nb\r\n", 0, 9))),
            ("x [#1#] [#y [#3:126#] z", Some(("x [#1#] [#y ", 126, 10))),
            // The echo of the line that sets it.
            (r"PS1='[#\#:$?#] '", None),
            ("[#2:1#", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let found = find_prompt(text);
            assert_eq!(
                found
                    .as_ref()
                    .map(|(before, status, length)| (before.as_str(), *status, *length)),
                expected,
                "{text}"
            );
        }
    }
}
