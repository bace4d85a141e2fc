//! What GRUB would start: the first entry of /boot/grub/grub.cfg in a disk image of one ext4 file system.

use std::path::Path;
use std::process::Command;

use crate::Error;

/// What is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's path in the image.
    pub kernel: String,
    /// The initramfs's path in the image.
    pub initramfs: String,
    /// The kernel's command line.
    pub command_line: String,
}

/// The entry that GRUB starts when nobody presses a key.
///
/// # Errors
/// The text has no entry with a kernel and an initramfs, or another than the first is the default.
pub fn first_entry(text: &str) -> Result<Entry, Error> {
    let mut default = None;
    let mut lines = text.lines().map(str::trim);
    for line in lines.by_ref() {
        if let Some(value) = line.strip_prefix("set default=") {
            default = Some(value.trim_matches('"'));
        }
        if line.starts_with("menuentry ") {
            break;
        }
    }
    // The other assignment is for `grub-reboot`, with what was saved as its value.
    if !matches!(default, Some("0" | "${next_entry}")) {
        return Err(format!("grub.cfg: the default is {default:?}, not the first entry").into());
    }
    let (mut kernel, mut initramfs) = (None, None);
    for line in lines.take_while(|line| *line != "}") {
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        match word {
            "linux" => kernel = rest.trim().split_once(' '),
            "initrd" => initramfs = Some(rest.trim()),
            _ => {}
        }
    }
    let (Some((kernel, command_line)), Some(initramfs)) = (kernel, initramfs) else {
        return Err("grub.cfg: the first entry has no kernel or no initramfs".into());
    };
    Ok(Entry {
        kernel: kernel.to_owned(),
        initramfs: initramfs.to_owned(),
        command_line: command_line.trim().to_owned(),
    })
}

fn debugfs(image: &Path, request: &str) -> Result<std::process::Output, Error> {
    Command::new("debugfs")
        .args(["-R", request])
        .arg(image)
        .output()
        .map_err(|error| format!("debugfs: {error}; install it (Debian: e2fsprogs)").into())
}

/// A text file of the image; none if it is not there.
pub fn read(image: &Path, path: &str) -> Result<Option<String>, Error> {
    let output = debugfs(image, &format!("cat {path}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// The names in a directory of the image.
pub fn names(image: &Path, directory: &str) -> Result<Vec<String>, Error> {
    let output = debugfs(image, &format!("ls -p {directory}"))?;
    // A line is /inode/mode/uid/gid/name/size/.
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split('/').nth(5).map(str::to_owned))
        .collect())
}

/// Copies a file out of the image.
pub fn take(image: &Path, path: &str, to: &Path) -> Result<(), Error> {
    let output = debugfs(image, &format!("dump {path} {}", to.display()))?;
    match std::fs::metadata(to) {
        Ok(metadata) if metadata.len() > 0 => Ok(()),
        _ => Err(format!(
            "{path} of {}: {}",
            image.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="0"
fi
menuentry 'Debian GNU/Linux' --class debian {
	load_video
	echo	'Loading Linux 6.1 ...'
	linux	/boot/vmlinuz-6.1 root=UUID=1 ro  quiet ima_appraise=log
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1
}
submenu 'Advanced options' {
	menuentry 'older' {
		linux	/boot/vmlinuz-5 root=UUID=1 ro
		initrd	/boot/initrd.img-5
	}
}
"#;

    #[test]
    fn the_first_entry() {
        assert_eq!(
            first_entry(CONFIG).unwrap(),
            Entry {
                kernel: "/boot/vmlinuz-6.1".into(),
                initramfs: "/boot/initrd.img-6.1".into(),
                command_line: "root=UUID=1 ro  quiet ima_appraise=log".into(),
            }
        );
        for (from, to) in [("\"0\"", "\"2\""), ("initrd\t", "x"), ("menuentry", "x")] {
            assert!(first_entry(&CONFIG.replace(from, to)).is_err(), "{from}");
        }
    }
}
