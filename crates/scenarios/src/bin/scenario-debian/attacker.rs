//! What is changed in the files that are booted, and what an attacker brings.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ima::cpio::{Metadata, S_IFDIR, S_IFREG, Writer};

use crate::Error;
use crate::cases::Attack;

/// What an attacker's code says on the console when it runs.
pub const MARKER: &str = "attack-succeeded";

/// Runs a command, with this on its standard input. An error has what it said.
fn run(command: &mut Command, input: &str) -> Result<(), Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {said}", output.status).into());
    }
    Ok(())
}

/// Copies an image, with its holes.
pub fn copy(image: &Path, to: &Path) -> Result<(), Error> {
    run(
        Command::new("cp").arg("--sparse=always").arg(image).arg(to),
        "",
    )
}

/// Runs commands of debugfs on an image of the root. debugfs does not say whether they succeeded: what they make is checked
/// by [`assert_in_root`].
fn in_root(image: &Path, commands: &[String]) -> Result<(), Error> {
    let mut input = commands.join("\n");
    input.push('\n');
    run(
        Command::new("debugfs").args(["-w", "-f", "-"]).arg(image),
        &input,
    )
}

/// Fails unless this file of an image of the root has this content.
fn assert_in_root(image: &Path, path: &str, content: &str) -> Result<(), Error> {
    let output = Command::new("debugfs")
        .args(["-R", &format!("cat {path}")])
        .arg(image)
        .output()?;
    if output.stdout == content.as_bytes() {
        return Ok(());
    }
    Err(format!("{}: {path} was not written", image.display()).into())
}

/// Makes a root as an attacker leaves it; nothing if the attack leaves the root as it is.
pub fn root(attack: Attack, signed: &Path, image: &Path) -> Result<bool, Error> {
    let script = format!("echo '<2>{MARKER}' >/dev/kmsg\n");
    let fstab = |place: &str| format!("/dev/vdb {place} ext4 defaults 0 0\n");
    let (content, files): (String, &[&str]) = match attack {
        Attack::FstabUsrLink => (fstab("/usr"), &["/etc/fstab"]),
        Attack::FstabSys => (fstab("/lib/dracut/hooks"), &["/etc/fstab.sys"]),
        Attack::ReadonlyRoot => (script, &["/etc/sysconfig/readonly-root"]),
        Attack::Autofsck => (script, &["/.autofsck", "/etc/sysconfig/autofsck"]),
        Attack::SysconfigOfIntegrity => (
            script,
            &[
                "/etc/sysconfig/masterkey",
                "/etc/sysconfig/ima",
                "/etc/sysconfig/evm",
            ],
        ),
        _ => return Ok(false),
    };
    copy(signed, image)?;
    let code = image.with_extension("code");
    fs::write(&code, &content)?;
    let mut commands = vec!["mkdir /etc/sysconfig".to_owned()];
    if attack == Attack::FstabUsrLink {
        commands
            .extend(["link /usr /usr.away", "unlink /usr", "symlink /usr /usr"].map(str::to_owned));
    }
    for file in files {
        commands.push(format!("rm {file}"));
        commands.push(format!("write {} {file}", code.display()));
    }
    in_root(image, &commands)?;
    for file in files {
        assert_in_root(image, file, &content)?;
    }
    fs::remove_file(code)?;
    Ok(true)
}

/// Unpacks an initramfs: archives without compression, and behind them one that is packed by zstd or gzip.
fn unpack(initramfs: &Path, directory: &Path) -> Result<(), Error> {
    fs::create_dir(directory)?;
    let content = fs::read(initramfs)?;
    let part = directory.with_extension("part");
    let mut rest = content.as_slice();
    // Debian 13 has modules in an archive of their own in front of the compressed one, without compression.
    while rest.starts_with(b"0707") {
        fs::write(&part, rest)?;
        unpack_archive(&part, "cat", directory)?;
        let end = rest.windows(TRAILER.len()).position(|name| name == TRAILER);
        rest = rest
            .get(end.ok_or("an archive without an end")? + TRAILER.len()..)
            .unwrap_or_default();
        rest = &rest[rest.iter().take_while(|&&byte| byte == 0).count()..];
    }
    if !rest.is_empty() {
        fs::write(&part, rest)?;
        let unpacker = if rest.starts_with(&[0x1f, 0x8b]) {
            "gzip"
        } else {
            "zstd"
        };
        unpack_archive(&part, unpacker, directory)?;
    }
    fs::remove_file(part)?;
    Ok(())
}

/// The name of the last entry of a cpio archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Unpacks one archive, which may be followed by others.
fn unpack_archive(archive: &Path, unpacker: &str, directory: &Path) -> Result<(), Error> {
    let mut unpacker = Command::new(unpacker);
    if unpacker.get_program() != "cat" {
        unpacker.arg("-dc");
    }
    let mut unpacking = unpacker
        .stdin(File::open(archive)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let content = unpacking.stdout.take().ok_or("no pipe")?;
    let unpacked = Command::new("cpio")
        .args(["--quiet", "-id", "--no-absolute-filenames"])
        .current_dir(directory)
        .stdin(content)
        .status()?;
    // It may write on after the end of the archive, and find nobody who reads.
    unpacking.wait()?;
    if !unpacked.success() {
        return Err(format!("{} was not unpacked", archive.display()).into());
    }
    Ok(())
}

fn make_file_system(tree: &Path, image: &Path, size: &str) -> Result<(), Error> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-d"]);
    run(command.arg(tree).arg(image).arg(size), "")
}

/// Makes the file system that an attacker has mounted over the initramfs's `/usr`: its own, but that each program by which the
/// initramfs is left is the attacker's.
pub fn usr(initramfs: &Path, image: &Path) -> Result<(), Error> {
    let tree = image.with_extension("tree");
    unpack(initramfs, &tree)?;
    let usr = tree.join("usr");
    for large in ["lib/modules", "lib/firmware"] {
        if usr.join(large).exists() {
            fs::remove_dir_all(usr.join(large))?;
        }
    }
    let mut replaced = 0;
    for program in [
        "lib/ima-init/run-init",
        "lib/ima-init/ima-init",
        "bin/switch_root",
        "bin/udevadm",
        "bin/mount",
        "sbin/init",
    ] {
        let path = usr.join(program);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
            replaced += 1;
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let script = format!(
            "#!/bin/sh\nexec 1>/dev/kmsg\necho \"<2>{MARKER}\"\nwhile :; do sleep 100; done\n"
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    if replaced == 0 {
        return Err(format!("{} has none of the programs", initramfs.display()).into());
    }
    make_file_system(&usr, image, "256M")?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// Makes the file system that an attacker has mounted over dracut's hooks.
pub fn hooks(image: &Path) -> Result<(), Error> {
    let tree = image.with_extension("tree");
    fs::create_dir_all(tree.join("cleanup"))?;
    fs::write(
        tree.join("cleanup/00-attack.sh"),
        format!("echo '<2>{MARKER}' >/dev/kmsg\n"),
    )?;
    make_file_system(&tree, image, "16M")?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// Makes an initramfs with this content of a file: the kernel takes the last of a name.
pub fn with_file(initramfs: &Path, path: &str, content: &str, out: &Path) -> Result<(), Error> {
    fs::copy(initramfs, out)?;
    let mut file = OpenOptions::new().append(true).open(out)?;
    // Archives begin at a multiple of four.
    let len = file.metadata()?.len();
    file.set_len(len.next_multiple_of(4))?;
    file.write_all(&archive(path, content)?)?;
    Ok(())
}

/// Returns an archive with a file and its directories.
fn archive(path: &str, content: &str) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    let of_mode = |mode| Metadata {
        mode,
        ..Metadata::default()
    };
    for (slash, _) in path.match_indices('/') {
        writer.entry(&path.as_bytes()[..slash], &of_mode(S_IFDIR | 0o755), b"")?;
    }
    writer.entry(
        path.as_bytes(),
        &of_mode(S_IFREG | 0o644),
        content.as_bytes(),
    )?;
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn image(directory: &Path) -> PathBuf {
        let tree = directory.join("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::write(tree.join("etc/fstab"), "old\n").unwrap();
        let image = directory.join("signed.img");
        make_file_system(&tree, &image, "8M").unwrap();
        image
    }

    #[test]
    fn the_hibernated_machine_runs_what_is_looked_for() {
        let script = include_str!("../../../../../qemu/make/debian-hibernated");
        assert!(script.contains(&format!("echo '<2>{MARKER}' >/dev/kmsg")));
    }

    #[test]
    fn an_attacker_writes_to_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let signed = image(directory.path());
        let before = fs::read(&signed).unwrap();
        for (attack, file, content) in [
            (
                Attack::FstabUsrLink,
                "/etc/fstab",
                "/dev/vdb /usr ext4 defaults 0 0\n",
            ),
            (
                Attack::FstabSys,
                "/etc/fstab.sys",
                "/dev/vdb /lib/dracut/hooks ext4 defaults 0 0\n",
            ),
            (
                Attack::Autofsck,
                "/.autofsck",
                "echo '<2>attack-succeeded' >/dev/kmsg\n",
            ),
            (
                Attack::SysconfigOfIntegrity,
                "/etc/sysconfig/evm",
                "echo '<2>attack-succeeded' >/dev/kmsg\n",
            ),
        ] {
            let image = directory.path().join("changed.img");
            assert!(root(attack, &signed, &image).unwrap());
            assert_in_root(&image, file, content).unwrap();
        }
        let none = directory.path().join("none.img");
        assert!(!root(Attack::Emergency, &signed, &none).unwrap());
        assert!(!none.exists());
        assert!(fs::read(&signed).unwrap() == before);
    }

    #[test]
    fn what_is_not_written_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let signed = image(directory.path());
        let error = assert_in_root(&signed, "/etc/fstab", "new\n").unwrap_err();
        assert!(error.to_string().ends_with("/etc/fstab was not written"));
    }

    #[test]
    fn the_attacker_s_usr_has_the_attacker_s_programs() {
        let directory = tempfile::tempdir().unwrap();
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, archive("usr/bin/mount", "good").unwrap()).unwrap();
        let image = directory.path().join("usr.img");
        usr(&initramfs, &image).unwrap();
        let script = "#!/bin/sh\nexec 1>/dev/kmsg\necho \"<2>attack-succeeded\"\nwhile :; do sleep 100; done\n";
        assert_in_root(&image, "/bin/mount", script).unwrap();
        assert_in_root(&image, "/lib/ima-init/run-init", script).unwrap();
        fs::write(&initramfs, archive("usr/bin/other", "good").unwrap()).unwrap();
        assert!(usr(&initramfs, &image).is_err());
    }

    #[test]
    fn a_file_comes_after_those_of_the_initramfs() {
        let directory = tempfile::tempdir().unwrap();
        let [initramfs, out] = ["initramfs", "out"].map(|name| directory.path().join(name));
        fs::write(&initramfs, b"packed").unwrap();
        with_file(&initramfs, "etc/ima/ima_policy", "text", &out).unwrap();
        let bytes = fs::read(&out).unwrap();
        assert_eq!(bytes[..8], *b"packed\0\0");
        let names: Vec<&[u8]> = ["etc", "etc/ima", "etc/ima/ima_policy"]
            .map(str::as_bytes)
            .into();
        let entries: Vec<_> = ima::cpio::entries(&bytes[8..])
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            entries.iter().map(|entry| entry.name).collect::<Vec<_>>(),
            names
        );
        assert_eq!(entries[2].data, b"text");
    }
}
