//! Reads a squashfs image by the program `sqfs2tar`, which makes an archive of one without privilege, extended attributes and all.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ima::fault::{Code, Fault};

use crate::Result;
use crate::image::bounds::damaged;
use crate::tree::Tree;

/// Reads an image. The content of its files goes to a temporary file.
///
/// # Errors
///
/// [`Code::ToolMissing`] if the program is not installed, [`Code::SourceMalformed`] if the image is damaged or holds a
/// socket.
pub(super) fn read(path: &Path) -> Result<Tree> {
    let mut child = Command::new("sqfs2tar")
        .args(["--no-skip", "--root-becomes", "."])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Fault::new(Code::ToolMissing, format!("sqfs2tar: {error}")))?;
    // What it complains of is read beside the archive: a full pipe would stop it.
    let mut errors = child.stderr.take();
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(errors) = &mut errors {
            let _ = errors.take(4096).read_to_string(&mut text);
            let _ = std::io::copy(errors, &mut std::io::sink());
        }
        text
    });
    let tree = child.stdout.take().map(Tree::from_tar);
    if matches!(tree, Some(Err(_))) {
        // It would wait for a reader.
        let _ = child.kill();
    }
    let status = child.wait();
    let complaints = complaints.join().unwrap_or_default();
    match (tree, status) {
        (Some(Ok(tree)), Ok(status)) if status.success() => Ok(tree),
        // Without an archive, why there is none is the better answer.
        (Some(Err(fault)), _) if complaints.trim().is_empty() => Err(fault),
        _ => Err(damaged(
            path,
            "squashfs",
            "unsquashfs -stat",
            &complaints.trim(),
        )),
    }
}
