//! A composefs root: its image and objects are found on the file system that they are on, compared with the digests, and put
//! together as overlayfs does.

use std::io::Write as _;

use ima::composefs::{Composefs, Digest, METACOPY, REDIRECT};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use tempfile::NamedTempFile;

use crate::Result;
use crate::digest::DigestOf;
use crate::file::unwritable;
use crate::select::FileSystem;
use crate::tree::{Content, Kind, Piece, Tree};

/// The root that the init would mount, given what is on the file system that `root=` names; nothing is known here of whether
/// fs-verity is enabled.
///
/// # Errors
///
/// [`Code::ComposefsMissing`], [`Code::ComposefsDigest`], [`Code::ComposefsMount`]; [`Code::InputUnreadable`],
/// [`Code::OutputUnwritable`].
pub(super) fn join(backing: &Tree, wanted: &Composefs) -> Result<(Tree, FileSystem)> {
    let missing =
        |path: &str, why: &str| Fault::new(Code::ComposefsMissing, format!("{path}: {why}"));
    let image = match backing.resolve(wanted.image.as_bytes()) {
        Some((_, inode)) => match &inode.kind {
            Kind::File(content) => content,
            _ => return Err(missing(&wanted.image, "not a regular file")),
        },
        None => return Err(missing(&wanted.image, "no such file")),
    };
    let found = Digest::new(image.digest(DigestOf::Verity, wanted.digest.algorithm())?);
    if found.as_ref() != Some(&wanted.digest) {
        let found = found.map(|found| found.to_string()).unwrap_or_default();
        let cause = Cause::COMPOSEFS_OTHER_DIGEST.with(&[&found]);
        return Err(Fault::new(Code::ComposefsDigest, &wanted.image).because(cause));
    }
    match backing.resolve(wanted.objects.as_bytes()) {
        Some((_, inode)) if matches!(inode.kind, Kind::Directory) => {}
        Some(_) => return Err(missing(&wanted.objects, "not a directory")),
        None => return Err(missing(&wanted.objects, "no such directory")),
    }
    let image = extract(image)?;
    let read = crate::image::read(image.path())
        .map_err(|fault| Fault::new(Code::ComposefsMount, fault.detail()))?;
    let is_erofs = read.filesystem().is_some_and(|found| found.name == "erofs");
    let overlay = FileSystem::by_name("overlay");
    let (true, Some(overlay)) = (is_erofs, overlay) else {
        let detail = format!("{}: not an erofs", wanted.image);
        return Err(Fault::new(Code::ComposefsMount, detail));
    };
    let mut tree = read.tree;
    let indices: Vec<_> = tree.names().map(|(_, index)| index).collect();
    for index in indices {
        let inode = tree.inode(index);
        let Some(metacopy) = inode.xattrs.get(METACOPY.as_bytes()).cloned() else {
            continue;
        };
        let redirect = inode.xattrs.get(REDIRECT.as_bytes()).cloned();
        let content = object(backing, wanted, redirect.as_deref(), &metacopy)?;
        let inode = tree.inode_mut(index);
        // Programs do not see these.
        for attribute in [METACOPY, REDIRECT] {
            inode.xattrs.remove(attribute.as_bytes());
        }
        // What cannot be read is not a file that could be executed or linked.
        inode.kind = content.map_or(Kind::Socket, Kind::File);
    }
    Ok((tree, overlay))
}

/// The object of a file, if it has the digest that the image gives (fs/overlayfs/util.c, `ovl_validate_verity`).
fn object(
    backing: &Tree,
    wanted: &Composefs,
    redirect: Option<&[u8]>,
    metacopy: &[u8],
) -> Result<Option<Content>> {
    let Some(redirect) = redirect else {
        return Ok(None);
    };
    let path = [wanted.objects.as_bytes(), redirect].concat();
    let Some((_, inode)) = backing.resolve(&path) else {
        return Ok(None);
    };
    let Kind::File(content) = &inode.kind else {
        return Ok(None);
    };
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
        let is_of = |digest: &Digest| digest.metacopy().get(..4) == metacopy.get(..4);
        let zeros = Digest::new(vec![0; algorithm.digest_len()]);
        if !zeros.as_ref().is_some_and(is_of) {
            continue;
        }
        let digest = Digest::new(content.digest(DigestOf::Verity, algorithm)?);
        let same = digest.is_some_and(|digest| digest.metacopy() == metacopy);
        return Ok(same.then(|| content.clone()));
    }
    Ok(None)
}

/// The image as a file of its own.
fn extract(content: &Content) -> Result<NamedTempFile> {
    let mut file =
        NamedTempFile::new().map_err(|error| unwritable(&std::env::temp_dir(), &error))?;
    let path = file.path().to_owned();
    content.read(&mut |piece| {
        let written = match piece {
            Piece::Data(data) => file.write_all(data),
            Piece::Hole(len) => {
                std::io::copy(&mut std::io::Read::take(std::io::repeat(0), len), &mut file)
                    .map(drop)
            }
        };
        written.map_err(|error| unwritable(&path, &error))
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Format, ImageBuilder, composefs};

    fn wanted(digest: Digest) -> Composefs {
        Composefs {
            image: "/root.cfs".to_owned(),
            digest,
            objects: "/objects".to_owned(),
        }
    }

    #[test]
    fn files_have_the_content_of_the_objects_that_the_image_names() {
        let directory = tempfile::tempdir().unwrap();
        let (image, objects) = (
            directory.path().join("root.cfs"),
            directory.path().join("objects"),
        );
        let content = vec![7; 300_000];
        ImageBuilder::default()
            .directory("bin", 0o755)
            .file_with_ima("bin/a", 0o755, content.clone(), vec![3, 2])
            .file("b", 0o644, vec![8; 5])
            .file("empty", 0o644, vec![])
            .format(Format::Erofs)
            .objects(&objects)
            .build(&image)
            .unwrap();
        let digest = composefs::digest(&image).unwrap();
        let read = || Tree::from_directory(directory.path()).unwrap();
        let bytes = |tree: &Tree, path: &str| match &tree.get(path.as_bytes()).unwrap().kind {
            Kind::File(content) => Some(content.head(1 << 20).unwrap()),
            _ => None,
        };
        let (tree, filesystem) = join(&read(), &wanted(digest.clone())).unwrap();
        assert_eq!(filesystem.name, "overlay");
        assert_eq!(bytes(&tree, "bin/a"), Some(content.clone()));
        assert_eq!(bytes(&tree, "b"), Some(vec![8; 5]));
        assert_eq!(bytes(&tree, "empty"), Some(vec![]));
        let inode = tree.get(b"bin/a").unwrap();
        assert_eq!(inode.xattrs[b"security.ima".as_slice()], [3, 2]);
        assert_eq!(inode.xattrs.len(), 1);

        let other = Digest::new(vec![1; 32]).unwrap();
        let fault = join(&read(), &wanted(other)).unwrap_err();
        assert_eq!(fault.code(), Code::ComposefsDigest);

        // Another object, and none.
        let object = |content: &[u8]| {
            let digest = crate::tree::Content::Bytes(content.into())
                .digest(DigestOf::Verity, HashAlgorithm::Sha256)
                .unwrap();
            let path = Digest::new(digest).unwrap().object();
            objects.join(path.trim_start_matches('/'))
        };
        std::fs::write(object(&content), "other").unwrap();
        std::fs::remove_file(object(&[8; 5])).unwrap();
        let (tree, _) = join(&read(), &wanted(digest)).unwrap();
        assert_eq!((bytes(&tree, "bin/a"), bytes(&tree, "b")), (None, None));
    }
}
