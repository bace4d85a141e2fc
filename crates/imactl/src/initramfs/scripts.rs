//! What the scripts of another initramfs take from whoever writes the disk: commands, a hibernation image, mounts.
//!
//! The kernel appraises what is executed, and a script is read, so these must not be in an initramfs under ima-init. The hook of
//! initramfs-tools and the module of dracut take the known ones out; this finds those that are left, or that other packages
//! brought.

use std::collections::BTreeSet;

use ima::fault::{Code, Fault};

use super::{InitramfsBuilder, Place};
use crate::Result;
use crate::tree::Kind;

/// The variables that have the directory at which the real root is mounted: dracut's and initramfs-tools'.
const ROOT_VARIABLES: [&str; 2] = ["NEWROOT", "rootmnt"];
/// That directory: under dracut and systemd, and under mkinitcpio.
const ROOT_DIRECTORIES: [&str; 2] = ["/sysroot", "/new_root"];
/// The variable with the name of the script that `boot=` chooses, in initramfs-tools.
const BOOT_VARIABLE: &str = "BOOT";
/// What takes another program's name or a script as its argument.
const INTERPRETERS: [&str; 6] = ["sh", "bash", "dash", "ash", "chroot", "eval"];
/// What may stand before a command.
const BEFORE_COMMANDS: [&str; 13] = [
    "if", "then", "elif", "else", "while", "until", "do", "!", "{", "exec", "command", "time",
    "builtin",
];
/// How many times a script is gone through to follow a path from variable to variable.
const MAX_PASSES: usize = 16;
/// How many bytes of a file are read to distinguish a text from a program.
const HEAD: usize = 1024;

/// The longest text that is looked at, in bytes.
const MAX_TEXT: usize = 4 << 20;

impl InitramfsBuilder {
    /// What in the scripts of initramfs-tools' or dracut's initramfs takes commands, memory images or mounts from whoever
    /// writes the disk: [`Code::InitramfsObeysRoot`], [`Code::InitramfsResumes`], [`Code::InitramfsMounts`].
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] for a file that cannot be read.
    pub fn script_faults(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        if self.place() == Place::Alone {
            return Ok(faults);
        }
        let tree = self.tree()?;
        for (name, index) in tree.names() {
            let Kind::File(content) = &tree.inode(index).kind else {
                continue;
            };
            let path = String::from_utf8_lossy(name);
            let mut data = content.head(HEAD)?;
            if is_text(&data) {
                data = content.head(MAX_TEXT)?;
            }
            faults.extend(examine(&path, &data));
        }
        Ok(faults)
    }
}

/// What makes a file of another initramfs one that must not be there.
#[must_use]
fn examine(path: &str, data: &[u8]) -> Option<Fault> {
    // Not a configuration of that name.
    if resumes_by_name(path) && (!is_text(data) || data.starts_with(b"#!")) {
        return Some(Fault::new(Code::InitramfsResumes, format!("/{path}")));
    }
    if !is_text(data) {
        return None;
    }
    let text = String::from_utf8_lossy(data);
    if path.ends_with(".service") {
        return unit(path, &text);
    }
    // A quote in a here-document, which is not a quote, would hide what follows it: so each line by itself as well.
    let mut commands = scoped(commands(&text));
    commands.extend(scoped(text.lines().flat_map(self::commands).collect()));
    let tainted = Tainted::find(&commands, &functions(&text));
    let is_guarded = commands
        .iter()
        .any(|command| tainted.tests_for_link(&command.words));
    for Command { words, written } in &commands {
        let found = |code| Some(Fault::new(code, format!("/{path}: {}", written.join(" "))));
        if tainted.obeys(words) {
            return found(Code::InitramfsObeysRoot);
        }
        if words.iter().any(|word| word.contains("/sys/power/resume")) {
            return found(Code::InitramfsResumes);
        }
        if tainted.mounts(words, is_guarded) {
            return found(Code::InitramfsMounts);
        }
    }
    None
}

fn is_text(data: &[u8]) -> bool {
    !data.iter().take(HEAD).any(|&byte| byte == 0)
}

/// Programs and scripts that do nothing but resume: klibc's, uswsusp's, systemd's, initramfs-tools' and dracut's.
fn resumes_by_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [
        "resume",
        "uresume",
        "resume.sh",
        "10-resume.sh",
        "parse-resume.sh",
        "10parse-resume.sh",
    ]
    .contains(&name)
        || name.starts_with("systemd-hibernate-resume")
}

/// A unit that starts a program of the real root.
fn unit(path: &str, text: &str) -> Option<Fault> {
    let line = text.lines().find(|line| {
        let (key, value) = line.split_once('=').unwrap_or_default();
        let program = value.trim_start_matches(['-', '@', '+', '!', ':', ' ']);
        ROOT_DIRECTORIES.iter().any(|root| {
            let below = program.strip_prefix(root);
            let is_below = below.is_some_and(|rest| rest.starts_with('/'));
            key.starts_with("Exec") && is_below || key == "RootDirectory" && value.starts_with(root)
        })
    })?;
    Some(Fault::new(
        Code::InitramfsObeysRoot,
        format!("/{path}: {line}"),
    ))
}

/// A simple command.
struct Command {
    /// Its words, in which the variable of a loop has a name that no other loop's has.
    words: Vec<String>,
    /// Its words as the script has them.
    written: Vec<String>,
}

/// What is between the name of a loop's variable and the loop's number.
const OF_LOOP: &str = "__of_loop_";

/// Gives the variable of each `for` loop a name of its own within the loop, where it has what the loop lists and nothing else. It
/// keeps its name if the script also assigns it, the loop sets it otherwise, or the loop's end is not found.
fn scoped(commands: Vec<Vec<String>>) -> Vec<Command> {
    let mut scoped: Vec<Command> = commands
        .into_iter()
        .map(|words| Command {
            written: words.clone(),
            words,
        })
        .collect();
    for start in 0..scoped.len() {
        let [keyword, name, ..] = scoped[start].words.as_slice() else {
            continue;
        };
        if keyword != "for" {
            continue;
        }
        let name = name.clone();
        let mut loops = 1;
        let body = scoped[start..].iter().skip(1).take_while(|command| {
            match command.words.first().map(String::as_str) {
                Some("for") => loops += 1,
                Some("done") => loops -= 1,
                _ => {}
            }
            loops > 0
        });
        let end = start + 1 + body.count();
        let sets = |command: &Command| {
            matches!(command.words.as_slice(), [keyword, names @ ..]
                if ["read", "for"].contains(&keyword.as_str()) && names.contains(&name))
        };
        let assigns = |command: &Command| {
            let mut words = command.written.iter();
            words.any(|word| assignment(word).is_some_and(|(set, _)| set == name))
        };
        if end == scoped.len()
            || scoped[start + 1..end].iter().any(sets)
            || scoped.iter().any(assigns)
        {
            continue;
        }
        let own = format!("{name}{OF_LOOP}{start}");
        scoped[start].words[1].clone_from(&own);
        for command in &mut scoped[start + 1..end] {
            for word in &mut command.words {
                *word = renamed(word, &name, &own);
            }
        }
    }
    scoped
}

/// The word with another variable in the place of this one.
fn renamed(word: &str, name: &str, other: &str) -> String {
    let mut parts = word.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (brace, rest) = match part.strip_prefix('{') {
            Some(rest) => ("{", rest),
            None => ("", part),
        };
        let (found, behind) = rest.split_at(identifier(rest));
        text.extend([
            "$",
            brace,
            if found == name { other } else { found },
            behind,
        ]);
    }
    text
}

/// The variables of a script that lead to the real root.
struct Tainted(BTreeSet<String>);

impl Tainted {
    /// Follows assignments, loops and the arguments of the script's own functions until nothing is added.
    fn find(commands: &[Command], functions: &BTreeSet<&str>) -> Self {
        let mut tainted = Self(ROOT_VARIABLES.map(str::to_owned).into());
        for _ in 0..MAX_PASSES {
            let before = tainted.0.len();
            for Command { words, .. } in commands {
                if let [keyword, name, _, values @ ..] = words.as_slice()
                    && keyword == "for"
                    && values.iter().any(|value| tainted.has(value))
                {
                    tainted.0.insert(name.clone());
                    // Behind the loop it has what it had last.
                    let (written, _) = name.split_once(OF_LOOP).unwrap_or((name, ""));
                    tainted.0.insert(written.to_owned());
                }
                if let Some((called, arguments)) = words.split_first()
                    && functions.contains(called.as_str())
                    && arguments.iter().any(|argument| tainted.has(argument))
                {
                    tainted.0.extend(('1'..='9').map(String::from));
                }
                for word in words {
                    if let Some((name, value)) = assignment(word)
                        && tainted.has(value)
                    {
                        tainted.0.insert(name.to_owned());
                    }
                }
            }
            if tainted.0.len() == before {
                break;
            }
        }
        tainted
    }

    /// Whether the word leads to the real root.
    fn has(&self, word: &str) -> bool {
        ROOT_DIRECTORIES.iter().any(|root| word.contains(root))
            || variables(word).any(|(name, _)| self.0.contains(name))
    }

    /// Whether the command reads commands from the real root or has a program of it executed, or reads a script that the kernel's
    /// command line may choose anywhere.
    fn obeys(&self, words: &[String]) -> bool {
        let Some((program, arguments)) = words.split_first() else {
            return false;
        };
        let first = || arguments.iter().find(|word| !word.starts_with('-'));
        match program.as_str() {
            "." | "source" => arguments.first().is_some_and(|script| {
                let anywhere =
                    |(name, rest): (&str, &str)| name == BOOT_VARIABLE && !rest.starts_with("##*/");
                self.has(script) || variables(script).any(anywhere)
            }),
            name if INTERPRETERS.contains(&name) => first().is_some_and(|word| self.has(word)),
            name => name.contains('/') && assignment(name).is_none() && self.has(name),
        }
    }

    /// Whether the command mounts what the real root's fstab says at a place that a symbolic link of the root moves.
    fn mounts(&self, words: &[String], is_guarded: bool) -> bool {
        let names = |end: &str| {
            words
                .iter()
                .any(|word| self.has(word) && word.trim_end_matches('/').ends_with(end))
        };
        let of_usr = words.first().is_some_and(|word| word == "mount") && names("/usr")
            || matches!(words, [call, usr, ..] if call == "read_fstab_entry" && usr == "/usr");
        names("/etc/fstab.sys") || of_usr && !is_guarded
    }

    /// Whether the command tests for a symbolic link in the place of the real root's /usr.
    fn tests_for_link(&self, words: &[String]) -> bool {
        words.windows(2).any(|pair| {
            matches!(pair, [test, place] if test == "-L" && self.has(place) && place.ends_with("/usr"))
        })
    }
}

/// The functions that a script defines.
fn functions(text: &str) -> BTreeSet<&str> {
    let names = text.lines().filter_map(|line| line.split_once("()"));
    names.map(|(name, _)| name.trim()).collect()
}

/// The variable that a word sets, and to what.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    (!name.is_empty() && name.len() == identifier(name)).then_some((name, value))
}

/// How many bytes at the beginning are a variable's name.
fn identifier(text: &str) -> usize {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.find(|character| !is_part(character))
        .unwrap_or(text.len())
}

/// The variables that a word expands, each with the text behind its name.
fn variables(word: &str) -> impl Iterator<Item = (&str, &str)> {
    word.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split_at(identifier(rest))
    })
}

/// The simple commands of a script, each as its words without quotes; what stands before a command (`if`, `exec`) is left out.
/// Not a shell's grammar: enough to see which command has which word.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    // The quotes and parentheses that are open.
    let mut open: Vec<char> = Vec::new();
    // Whether the next word names the file of a redirection.
    let mut redirected = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, open.last()) {
            ('\\', None | Some('"' | '(')) => match characters.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            ('$', None | Some('"' | '(')) if characters.next_if_eq(&'(').is_some() => {
                words.extend(word.take());
                finish(&mut commands, &mut words);
                open.push('(');
            }
            ('"', Some('"')) | ('\'', Some('\'')) => {
                open.pop();
            }
            (_, Some('"' | '\'')) => word.get_or_insert_default().push(character),
            ('"' | '\'', _) => {
                open.push(character);
                word.get_or_insert_default();
            }
            ('#', _) if word.is_none() => {
                while characters.next_if(|&next| next != '\n').is_some() {}
            }
            (' ' | '\t' | '<' | '>', _) => {
                end_word(&mut commands, &mut words, word.take(), &mut redirected);
                redirected |= matches!(character, '<' | '>');
            }
            ('\n' | ';' | '&' | '|' | '(' | ')' | '`', _) => {
                end_word(&mut commands, &mut words, word.take(), &mut redirected);
                redirected = false;
                finish(&mut commands, &mut words);
                match character {
                    '(' => open.push('('),
                    ')' => {
                        open.pop();
                    }
                    _ => {}
                }
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    end_word(&mut commands, &mut words, word, &mut redirected);
    finish(&mut commands, &mut words);
    commands
}

/// Ends a word; the file of a redirection is kept apart, so that it is not taken for a command.
fn end_word(
    commands: &mut Vec<Vec<String>>,
    words: &mut Vec<String>,
    word: Option<String>,
    redirected: &mut bool,
) {
    match word {
        Some(file) if std::mem::take(redirected) => commands.push(vec![">".to_owned(), file]),
        word => words.extend(word),
    }
}

/// Ends a command: what stands before it is left out, and variables that are set for it alone are a command of their own.
fn finish(commands: &mut Vec<Vec<String>>, words: &mut Vec<String>) {
    let mut set = Vec::new();
    let mut command = Vec::new();
    for word in words.drain(..) {
        if !command.is_empty() || !is_before(&word) && assignment(&word).is_none() {
            command.push(word);
        } else if !is_before(&word) {
            set.push(word);
        }
    }
    commands.extend([set, command].into_iter().filter(|words| !words.is_empty()));
}

fn is_before(word: &str) -> bool {
    BEFORE_COMMANDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> Option<Code> {
        examine("scripts/x", text.as_bytes()).map(|fault| fault.code())
    }

    #[test]
    fn what_takes_commands_from_the_real_root_is_found() {
        for text in [
            // dracut 059: mount-root.sh, mount-usr.sh, masterkey.sh, ima-keys-load.sh, selinux-loadpolicy.sh.
            "if [ -f \"$NEWROOT\"/etc/sysconfig/readonly-root ]; then\n    . \"$NEWROOT\"/etc/sysconfig/readonly-root\nfi\n",
            "[ -f \"$NEWROOT\"/etc/sysconfig/autofsck ] \\\n    && . \"$NEWROOT\"/etc/sysconfig/autofsck\n",
            "MASTERKEYSCONFIG=\"${NEWROOT}/etc/sysconfig/masterkey\"\nload() {\n  [ -f \"${MASTERKEYSCONFIG}\" ] \\\n    && . \"${MASTERKEYSCONFIG}\"\n}\n",
            "out=$(LANG=C chroot \"$NEWROOT\" /sbin/load_policy -i 2>&1)\n",
            "for file in ${rootmnt?}/etc/rc/*; do\n\tsource $file\ndone\n",
            "out=\"$(LANG=C chroot \"$NEWROOT\" x)\"\n",
            // overlayroot 0.18.
            "parse_cfg() {\n\tlocal __file=\"$1\"\n\t. \"${__file}\"\n}\nparse_cfg \"${rootmnt}/etc/overlayroot.conf\"\n",
            "cat <<EOF\nit's\nEOF\n. $NEWROOT/x\n",
            "A=$rootmnt/a; B=$A/b\nsh -x \"$B\"\n",
            "\"${rootmnt}\"/sbin/helper now\n",
            "exec /sysroot/bin/x\n",
            ". /new_root/etc/x\n",
            "for f in \"$rootmnt\"/etc/*; do\n    . \"$f\"\ndone\n",
            "for f in \"$rootmnt\"/etc/*; do :; done\n. \"$f\"\n",
            "for f in /run/*; do f=$rootmnt/x; . \"${f}\"; done\n",
            "for f in /run/*; do\n    for f in $rootmnt/*; do . $f; done\ndone\n",
            "for f in $rootmnt/*; do g=$f; done\n. $g\n",
            "f=$rootmnt/x\nfor f in $none; do\ncat <<EOF\nfor x in y\nEOF\ndone\n. $f\ndone\n",
            "for f in /run/*; do . $g; done\ng=$rootmnt/x\n",
            "for f in /run/*; do :; done\nfor f in $rootmnt/*; do . $f; done\n",
            // initramfs-tools 0.142: init.
            ". \"/scripts/${BOOT}\"\n",
        ] {
            assert_eq!(code(text), Some(Code::InitramfsObeysRoot), "{text}");
        }
        let unit = "[Service]\nExecStart=-/sysroot/usr/bin/x\n";
        let fault = examine("usr/lib/systemd/system/x.service", unit.as_bytes()).unwrap();
        assert_eq!(fault.code(), Code::InitramfsObeysRoot);
    }

    #[test]
    fn what_resumes_is_found() {
        for path in [
            "bin/resume",
            "scripts/local-premount/resume",
            "usr/lib/systemd/systemd-hibernate-resume",
        ] {
            let fault = examine(path, b"\x7fELF\0").unwrap();
            assert_eq!(fault.code(), Code::InitramfsResumes, "{path}");
        }
        assert_eq!(examine("conf/conf.d/resume", b"RESUME=/dev/vdb\n"), None);
        assert_eq!(
            code("echo %M:%m > /sys/power/resume\n"),
            Some(Code::InitramfsResumes)
        );
    }

    #[test]
    fn what_mounts_for_the_root_is_found() {
        for text in [
            "if read_fstab_entry /usr; then\n\tmountfs /usr\nfi\n",
            "info x\nmount \"$NEWROOT/usr\" 2>&1 | vinfo\n",
            "if [ -f \"$NEWROOT\"/etc/fstab.sys ]; then fstab_mount \"$NEWROOT\"/etc/fstab.sys; fi\n",
        ] {
            assert_eq!(code(text), Some(Code::InitramfsMounts), "{text}");
        }
    }

    #[test]
    fn what_hook_and_module_leave_is_not() {
        for text in [
            "# . \"$NEWROOT\"/etc/sysconfig/readonly-root\n",
            "[ -f \"$NEWROOT\"/etc/sysconfig/autofsck ] \\\n    && :\n",
            "if [ -d \"${rootmnt}/usr\" ] && [ ! -L \"${rootmnt}/usr\" ] && read_fstab_entry /usr; then\n\tmountfs /usr\nfi\n",
            ". \"/scripts/${BOOT##*/}\"\n",
            "exec run-init ${drop_caps} \"${rootmnt}\" \"${init}\" \"$@\" <\"${rootmnt}/dev/console\"\n",
            "mount -n -o move /run ${rootmnt}/run\n",
            "rm -f -- \"$NEWROOT\"/forcefsck\n",
            "{ echo; } >\"${rootmnt}/etc/fstab\"\n",
            "find . -print \"$NEWROOT\"\n",
            "while read -r a; do :; done < \"$NEWROOT/etc/fstab\"\n",
            "usable_root \"$NEWROOT\" && break\n",
            // initramfs-tools 0.148: functions, where two loops have a variable of one name.
            "local file\nfor file in \"/run/net-${DEVICE-}.conf\" /run/net-*.conf; do\n\tif [ -e \"$file\" ]; then\n\t\t. \"$file\"\n\
             \t\tbreak\n\tfi\ndone\nfor file in ${rootmnt?}/etc/fstab; do\n\tif [ -f \"$file\" ]; then\n\
             \t\twhile read -r a; do :; done < \"$file\"\n\tfi\ndone\n",
        ] {
            assert_eq!(code(text), None, "{text}");
        }
        assert_eq!(examine("bin/sh", b"\x7fELF\0. $NEWROOT/x\n"), None);
    }

    proptest! {
        /// However the line is laid out, and whatever stands around it.
        #[test]
        fn a_sourced_file_of_the_root_is_found_in_any_script(
            before in "([a-z ]{0,12}\n){0,4}",
            blank in "[ \t]{1,3}",
            name in "[A-Z]{1,8}",
            path in "[a-z/]{1,12}",
        ) {
            prop_assume!(name != BOOT_VARIABLE);
            let text = format!("{before}{name}=\"$NEWROOT/{path}\"\ntrue &&{blank}.{blank}\"${{{name}}}\"\n");
            prop_assert_eq!(code(&text), Some(Code::InitramfsObeysRoot));
        }

        /// Any bytes give an answer, and words have no separators in them but where they were quoted.
        #[test]
        fn any_text_is_split_into_words(text in "[^\"'\\\\]{0,200}") {
            for words in commands(&text) {
                prop_assert!(!words.is_empty());
                prop_assert!(words.iter().all(|word| !word.contains(['\n', ' ', '\t', ';', '|', '&'])));
            }
        }

        #[test]
        fn any_bytes_are_examined(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(examine("x", &data).is_none() || is_text(&data));
        }
    }
}
