//! A person at the serial console: logs in, types a command, reads what comes until the prompt is there again.

use std::time::Duration;

use crate::{Outcome, Running, TestbedError};

/// What a command left on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The command, as typed.
    pub command: String,
    /// Its exit status.
    pub status: u32,
    /// The lines between the command and the next prompt, standard output and error as they came. The kernel's messages may
    /// be among them.
    pub output: String,
}

impl Said {
    /// Whether any line of the output contains this text.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.output.contains(text)
    }
}

/// A person at the serial console of a machine, logged in on a shell (bash).
#[derive(Debug)]
pub struct Person {
    running: Running,
    /// How much of the console has been read, in bytes.
    read: usize,
}

/// The prompt that tells the exit status. Its echo, when it is set, has no digits and is taken for no prompt.
const PROMPT: &str = r"PS1='[#\#:$?#] '";
const PROMPT_START: &str = "[#";
const PROMPT_END: &str = "#] ";

impl Person {
    /// Waits for the machine's login prompt, and logs in.
    ///
    /// # Errors
    /// One of the prompts did not come within `limit`, or the machine ended.
    pub fn log_in(
        running: Running,
        name: &str,
        password: &str,
        limit: Duration,
    ) -> Result<Person, TestbedError> {
        let mut person = Person { running, read: 0 };
        person.see("login: ", limit)?;
        person.type_line(name)?;
        person.see("Password: ", limit)?;
        person.type_line(password)?;
        person.see("# ", limit)?;
        // Readline would wrap a long line's echo, and mark what is pasted with escape sequences.
        person.type_line(&format!(
            "stty cols 4000; bind 'set enable-bracketed-paste off'; {PROMPT}"
        ))?;
        person.prompt("the first prompt", limit)?;
        Ok(person)
    }

    /// Waits for this text beyond what has been read, and reads on to its end. Gives what came before it.
    ///
    /// # Errors
    /// It did not come within `limit`, or the machine ended.
    pub fn see(&mut self, text: &str, limit: Duration) -> Result<String, TestbedError> {
        let read = self.read;
        let before =
            self.running
                .wait_for(&format!("“{text}” on the console"), limit, |seen| {
                    let new = seen.console.get(read..)?;
                    new.find(text).map(|at| new[..at].to_owned())
                })?;
        self.read += before.len() + text.len();
        Ok(before)
    }

    /// Types a line.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn type_line(&self, line: &str) -> Result<(), TestbedError> {
        self.running.type_text(&format!("{line}\n"))
    }

    /// Types a command, and waits until the prompt is there again.
    ///
    /// # Errors
    /// The command did not end within `limit`, or the machine ended.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Said, TestbedError> {
        self.start(command, limit)?;
        self.end(command, limit)
    }

    /// Types a command that will ask something.
    ///
    /// # Errors
    /// Its echo did not come within `limit`, or the machine ended.
    pub fn start(&mut self, command: &str, limit: Duration) -> Result<(), TestbedError> {
        self.type_line(command)?;
        self.see("\n", limit).map(drop)
    }

    /// Waits for the end of the command that was started.
    ///
    /// # Errors
    /// It did not end within `limit`, or the machine ended.
    pub fn end(&mut self, command: &str, limit: Duration) -> Result<Said, TestbedError> {
        let (output, status) = self.prompt(&format!("the end of “{command}”"), limit)?;
        Ok(Said {
            command: command.to_owned(),
            status,
            output: output.replace('\r', ""),
        })
    }

    /// Waits for the prompt. Gives what came before it, and the exit status that it tells.
    fn prompt(&mut self, event: &str, limit: Duration) -> Result<(String, u32), TestbedError> {
        let read = self.read;
        let (before, status, length) = self
            .running
            .wait_for(event, limit, |seen| find_prompt(seen.console.get(read..)?))?;
        self.read += before.len() + length;
        Ok((before, status))
    }

    /// The console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.running.console()
    }

    /// Types the command that ends the machine, and waits for its end.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn leave(self, command: &str) -> Result<Outcome, TestbedError> {
        self.type_line(command)?;
        Ok(self.running.finish())
    }
}

/// The first prompt in a text: what is before it, the status it tells, its own length.
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
    fn prompts() {
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
