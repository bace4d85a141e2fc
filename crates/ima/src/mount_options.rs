//! Mount options as `rootflags` gives them: which belong to the mount, and which to the file system.

/// An option that belongs to the mount, not to the file system (include/uapi/linux/mount.h, `MOUNT_ATTR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `nosuid`
    NoSuid,
    /// `nodev`
    NoDev,
    /// `noexec`
    NoExec,
    /// `noatime`
    NoAtime,
    /// `nodiratime`
    NoDirAtime,
    /// `strictatime`
    StrictAtime,
}

impl Attribute {
    fn parse(option: &str) -> Option<Self> {
        Some(match option {
            "nosuid" => Self::NoSuid,
            "nodev" => Self::NoDev,
            "noexec" => Self::NoExec,
            "noatime" => Self::NoAtime,
            "nodiratime" => Self::NoDirAtime,
            "strictatime" => Self::StrictAtime,
            _ => return None,
        })
    }
}

/// What becomes of a mount option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountOption<'a> {
    /// It is an attribute of the mount.
    Mount(Attribute),
    /// It is a parameter of the file system, for fsconfig(2).
    Filesystem {
        /// Its name.
        key: &'a str,
        /// Its value; a flag has none.
        value: Option<&'a str>,
    },
}

/// The options between the commas of `flags`, each with its text. `defaults` and `relatime`, which change nothing, are left out,
/// and so are `ro` and `rw`: whether the root is read-only, the parameters of that name say.
pub fn mount_options(flags: &str) -> impl Iterator<Item = (&str, MountOption<'_>)> {
    flags
        .split(',')
        .filter(|option| !matches!(*option, "" | "defaults" | "ro" | "rw" | "relatime"))
        .map(|option| {
            let parsed = match (Attribute::parse(option), option.split_once('=')) {
                (Some(attribute), _) => MountOption::Mount(attribute),
                (None, Some((key, value))) => MountOption::Filesystem {
                    key,
                    value: Some(value),
                },
                (None, None) => MountOption::Filesystem {
                    key: option,
                    value: None,
                },
            };
            (option, parsed)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_of_the_mount_and_of_the_file_system_are_told_apart() {
        let own = |key, value| MountOption::Filesystem { key, value };
        let parsed: Vec<_> =
            mount_options("defaults,noatime,,ro,data=journal,subvol=,noexec=1,discard").collect();
        assert_eq!(
            parsed,
            [
                ("noatime", MountOption::Mount(Attribute::NoAtime)),
                ("data=journal", own("data", Some("journal"))),
                ("subvol=", own("subvol", Some(""))),
                ("noexec=1", own("noexec", Some("1"))),
                ("discard", own("discard", None)),
            ]
        );
    }

    proptest! {
        /// Nothing is lost but what changes nothing.
        #[test]
        fn every_other_option_is_given_on(options in proptest::collection::vec("[a-z]{1,8}(=[a-z0-9=]{0,4})?", 0..6)) {
            let flags = options.join(",");
            let parsed: Vec<&str> = mount_options(&flags).map(|(text, _)| text).collect();
            let dropped = ["defaults", "ro", "rw", "relatime"];
            let kept: Vec<&str> = options
                .iter()
                .map(String::as_str)
                .filter(|option| !dropped.contains(option))
                .collect();
            prop_assert_eq!(parsed, kept);
        }
    }
}
