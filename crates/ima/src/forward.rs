//! What userspace sees of the kernel command line.
//!
//! The command line is unsigned on most boards, and the programs behind the init obey it: systemd runs the command of
//! `systemd.run=`, initramfs-tools opens a shell for `break=`. The init therefore shows them a filtered copy, which has only
//! parameters that give nobody power, and those that the configuration lists under `forward=`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::cmdline::{self, Parameter, is_same_name, name_matches};
use crate::config::{self, Config};

/// The parameters that are kept whatever the configuration says. Those of the root (`root=`, `ro` and so on) are kept where
/// the configuration lets the command line set them.
pub const ALWAYS: [&str; 10] = [
    "biosdevname",
    "console",
    "loglevel",
    "net.ifnames",
    "noresume",
    "nosplash",
    "panic",
    "quiet",
    "splash",
    "vt.handoff",
];

/// Parameters by which userspace runs programs, starts other services, opens a shell or takes a configuration from
/// elsewhere: when one of them is withheld, that is a warning.
const POWERFUL: [&str; 24] = [
    // systemd, and the words of sysvinit that it understands (src/core/main.c, src/basic/runlevel.c).
    "systemd.*",
    "emergency",
    "rescue",
    "single",
    "-b",
    "-s",
    "S",
    "s",
    "1",
    // dracut.
    "rd.*",
    "rdbreak",
    "rdshell",
    // initramfs-tools and live-boot.
    "boot",
    "break",
    "drop_capabilities",
    "hooks",
    "live-*",
    "netboot",
    "nfsroot",
    // What configures a machine at its first boot.
    "cloud-config-url",
    "ds",
    "ignition.*",
    "inst.*",
    "resume",
];

/// What is kept and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// What userspace sees, without a newline.
    pub line: String,
    /// The words that it does not see.
    pub withheld: Vec<String>,
}

impl Forwarded {
    /// Those of the withheld words that have power over userspace.
    pub fn powerful(&self) -> impl Iterator<Item = &str> {
        self.withheld.iter().map(String::as_str).filter(|word| {
            let parameter = Parameter::of(word.as_bytes());
            POWERFUL
                .iter()
                .any(|pattern| name_matches(pattern, &parameter.name))
        })
    }
}

/// Filters a command line: keeps the parameters that [`ALWAYS`] and the configuration allow; and behind `--` the arguments
/// that `forward=` lists.
///
/// The programs that read the result do not agree on quotes: a shell that splits it at blanks sees parameters in the midst of a
/// quoted value. So a word is kept without its quotes, and one that then has a blank or another character with a meaning to a
/// shell is withheld.
pub fn filter(line: &(impl AsRef<[u8]> + ?Sized), config: &Config) -> Forwarded {
    let mut kept: Vec<String> = Vec::new();
    let mut withheld = Vec::new();
    let mut arguments = false;
    for word in cmdline::words(line) {
        let parameter = Parameter::of(word);
        if !arguments && parameter.is_separator() {
            arguments = true;
            continue;
        }
        let listed = match arguments {
            false => is_forwarded(&parameter.name, config),
            true => is_listed(&parameter.name, config),
        };
        match plain(&parameter).filter(|_| listed) {
            Some(word) => {
                if arguments && !kept.iter().any(|word| word == "--") {
                    kept.push("--".to_owned());
                }
                kept.push(word);
            }
            None => withheld.push(String::from_utf8_lossy(word).into_owned()),
        }
    }
    Forwarded {
        line: kept.join(" "),
        withheld,
    }
}

/// The arguments of the init that the real one gets: those that `forward=` lists. The kernel gives words that it does not know
/// to the init as arguments, and those behind `--`.
pub fn arguments(arguments: Vec<OsString>, config: &Config) -> Vec<OsString> {
    let passes = |argument: &OsStr| {
        let name = argument.as_bytes().split(|byte| *byte == b'=').next();
        name.and_then(|name| std::str::from_utf8(name).ok())
            .is_some_and(|name| is_listed(name, config))
    };
    arguments
        .into_iter()
        .filter(|argument| passes(argument))
        .collect()
}

fn is_listed(name: &str, config: &Config) -> bool {
    config.forward.iter().any(|pattern| pattern.matches(name))
}

fn is_forwarded(name: &str, config: &Config) -> bool {
    ALWAYS.iter().any(|always| is_same_name(always, name))
        || is_listed(name, config)
        || config
            .cmdline
            .iter()
            .filter(|parameter| !parameter.is_of_evm())
            .any(|parameter| is_same_name(config::Parameter::name(*parameter), name))
}

/// The word that every reader takes for this parameter, if there is one.
fn plain(parameter: &Parameter<'_>) -> Option<String> {
    let word = match &parameter.value {
        Some(value) => format!("{}={value}", parameter.name),
        None => parameter.name.clone().into_owned(),
    };
    let sound = !word.is_empty()
        && word.bytes().all(|byte| {
            byte.is_ascii_graphic()
                && !matches!(
                    byte,
                    b'"' | b'\'' | b'`' | b'$' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')'
                )
        });
    sound.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_gives_nobody_power_is_kept() {
        let line = "root=UUID=a-b ro rootwait=3 rootflags=subvol=@ console=ttyS0,115200n8 quiet splash net.ifnames=0\n";
        let forwarded = filter(line, &Config::default());
        assert_eq!(forwarded.line, line.trim_end());
        assert_eq!(forwarded.withheld, [""; 0]);
    }

    #[test]
    fn what_runs_programs_is_withheld_unless_it_is_listed() {
        let line = "ro systemd.run=/bin/sh systemd.unit=x rd.break break=top boot=../proc/cmdline init=/bin/sh single 3 -- -b emergency";
        let none = filter(line, &Config::default());
        assert_eq!(none.line, "ro");
        let powerful: Vec<&str> = none.powerful().collect();
        assert_eq!(
            powerful,
            [
                "systemd.run=/bin/sh",
                "systemd.unit=x",
                "rd.break",
                "break=top",
                "boot=../proc/cmdline",
                "single",
                "-b",
                "emergency"
            ]
        );
        let some = filter(line, &config("forward=systemd.run rd.* emergency 3"));
        assert_eq!(some.line, "ro systemd.run=/bin/sh rd.break 3 -- emergency");
    }

    #[test]
    fn a_parameter_that_the_configuration_decides_is_withheld() {
        let forwarded = filter("root=/dev/vda ro quiet", &config("cmdline=ro"));
        assert_eq!(forwarded.line, "ro quiet");
        let forwarded = filter("init=/x evmkey=/k", &config("cmdline=root init evmkey"));
        assert_eq!(forwarded.line, "init=/x");
    }

    #[test]
    fn nothing_hides_in_quotes() {
        let config = config("forward=opt");
        for (line, expected) in [
            ("opt=\"a systemd.run=x\" ro", "ro"),
            ("\"opt=a systemd.run=x\" ro", "ro"),
            ("opt='a systemd.run=x' ro", "ro"),
            ("opt=a\\ systemd.run=x ro", "opt=a\\ ro"),
            ("opt=\"a\tsystemd.run=x\"", ""),
            ("opt=\"a\nsystemd.run=x\"", ""),
            ("\"root=/dev/vda\" opt=\"a\"", "root=/dev/vda opt=a"),
            ("opt=a\"b\"", ""),
            ("opt=$(reboot)", ""),
            ("opt=a;reboot", ""),
            ("quiet\u{b}systemd.run=x", "quiet"),
            ("xàsystemd.run=x opt=à", ""),
            ("\"systemd.run\"=x ro\"ot=x", ""),
            ("ro \"--\" quiet opt", "ro -- opt"),
            ("opt=\"open systemd.run=x", ""),
        ] {
            assert_eq!(filter(line, &config).line, expected, "{line}");
        }
    }

    #[test]
    fn arguments_are_those_that_forward_lists() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        let given = "splash single -b opt=1 quiet";
        assert!(arguments(words(given), &Config::default()).is_empty());
        assert_eq!(
            arguments(words(given), &config("forward=single opt")),
            words("single opt=1")
        );
    }

    /// The names that any of the readers sees in a line: the kernel and systemd mind quotes, shells split at blanks.
    fn names(line: &str) -> Vec<String> {
        let kernel = cmdline::words(line).map(|word| Parameter::of(word).name.into_owned());
        let shell = line.split_whitespace().map(str::to_owned);
        let name = |word: String| word.split('=').next().unwrap_or_default().to_owned();
        kernel.chain(shell).map(name).collect()
    }

    fn line() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            "(root|ro|quiet|opt|opt_x|opt-y|init|single|systemd\\.run|rd\\.break|--)",
            "(opt|root|x|systemd\\.run)=[a-z\"' ;\\\\]{0,8}",
            "[\"a-z=$ \\t\u{b}\u{e0}-]{0,6}",
            "\\PC{0,4}",
        ];
        proptest::collection::vec(word, 0..12).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn nothing_outside_the_list_passes(line in line()) {
            let config = config("forward=opt* single");
            let forwarded = filter(&line, &config);
            for name in names(&forwarded.line) {
                prop_assert!(is_forwarded(&name, &config) || name == "--", "{name} in {}", forwarded.line);
            }
            prop_assert!(forwarded.line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            prop_assert!(!forwarded.line.contains(['"', '\'', '$', ';']));
        }

        #[test]
        fn filtering_twice_changes_nothing(line in line()) {
            let config = config("forward=opt* single");
            let once = filter(&line, &config);
            let twice = filter(&once.line, &config);
            prop_assert_eq!(twice.line, once.line);
            prop_assert_eq!(twice.withheld.len(), 0);
        }

        #[test]
        fn what_is_listed_passes_unchanged(words in proptest::collection::vec("(root|ro|opt|opt_x)(=[a-zA-Z0-9/:.,_@=-]{0,12})?", 0..12)) {
            let line = words.join(" ");
            let forwarded = filter(&line, &config("forward=opt*"));
            prop_assert_eq!(forwarded, Forwarded { line, withheld: Vec::new() });
        }
    }
}
