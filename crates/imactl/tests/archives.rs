//! Whether security.ima survives archives and the formats of updates. What a tool loses, `imactl verify` notices.

mod common;

use common::{need_root, shell, with_keys};

/// A signed tree: a program under two names, one with capabilities, one in a directory with a blank in its name.
const TREE: &str = "
    mkdir -p 'tree/a b'; cp /bin/true tree/one; ln tree/one tree/two; cp /bin/true tree/three; cp /bin/false 'tree/a b/four'
    setcap cap_net_raw+ep tree/three
    $IMACTL sign --key keys/ima.key --cert keys/ima.der tree >&2
    $IMACTL verify --cert keys/ima.der tree >&2";

/// Archives the tree and unpacks it as `out`, and verifies that every signature is there; with `kept` false, that none is.
fn delivered(script: &str, kept: bool) {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(TREE, at).good();
    shell(script, at).good();
    shell(
        "cmp tree/one out/one; cmp 'tree/a b/four' 'out/a b/four'",
        at,
    )
    .good();
    let verified = shell("$IMACTL verify --cert keys/ima.der out", at);
    // 3: a file without a signature.
    assert_eq!(verified.code, if kept { 0 } else { 3 }, "{verified:?}");
}

#[test]
fn gnu_tar_keeps_signatures_if_it_is_told_to() {
    delivered(
        "tar --xattrs --xattrs-include=security.ima -cf tree.tar -C tree .
         mkdir out; tar --xattrs --xattrs-include=security.ima -xf tree.tar -C out",
        true,
    );
}

/// On unpacking, `--xattrs` alone means those of users.
#[test]
fn gnu_tar_loses_signatures_with_xattrs_alone() {
    delivered(
        "tar --xattrs --xattrs-include=security.ima -cf tree.tar -C tree .
         mkdir out; tar --xattrs -xf tree.tar -C out",
        false,
    );
}

#[test]
fn bsdtar_keeps_signatures() {
    delivered(
        "bsdtar --xattrs -cf tree.tar -C tree .; mkdir out; bsdtar --xattrs -xpf tree.tar -C out",
        true,
    );
}

#[test]
fn each_tar_reads_the_other_s() {
    delivered(
        "bsdtar --xattrs -cf tree.tar -C tree .
         mkdir out; tar --xattrs --xattrs-include=security.ima -xf tree.tar -C out",
        true,
    );
    delivered(
        "tar --xattrs --xattrs-include=security.ima -cf tree.tar -C tree .
         mkdir out; bsdtar --xattrs -xpf tree.tar -C out",
        true,
    );
}

/// The format has no extended attributes.
#[test]
fn cpio_loses_signatures_and_a_manifest_brings_them() {
    let script = "mkdir out; (cd tree; find . | cpio --quiet -o -H newc) >tree.cpio; (cd out; cpio --quiet -id <../tree.cpio)";
    delivered(script, false);
    let restored = "
        $IMACTL manifest make --from tree --out manifest; $IMACTL manifest sign --key keys/ima.key --cert keys/ima.der manifest --out signed
        $IMACTL manifest apply --root out --cert keys/ima.der signed";
    delivered(&format!("{script}; {restored}"), true);
}

#[test]
fn rsync_keeps_signatures_with_xattrs() {
    delivered("rsync -aX tree/ out", true);
    delivered("rsync -a tree/ out", false);
}

#[test]
fn cp_keeps_signatures_in_an_archive_copy() {
    delivered("cp -a tree out", true);
    delivered("cp -r tree out", false);
}

/// A repository that keeps files as they are, as on a device that is booted from it; and one of a server, of which the device pulls.
#[test]
fn ostree_keeps_signatures() {
    delivered(
        "ostree --repo=repo init --mode=bare
         ostree --repo=repo commit --branch=main --tree=dir=tree >&2
         ostree --repo=repo checkout --force-copy main out",
        true,
    );
    delivered(
        "ostree --repo=server init --mode=archive; ostree --repo=server commit --branch=main --tree=dir=tree >&2
         ostree --repo=device init --mode=bare; ostree --repo=device pull-local server main >&2
         ostree --repo=device checkout main out",
        true,
    );
}

/// An image of the Open Container Initiative: a layer is a tar archive.
#[test]
fn layers_of_containers_keep_signatures() {
    delivered(
        "umoci init --layout image; umoci new --image image:tag
         umoci insert --image image:tag tree /tree
         umoci unpack --image image:tag bundle
         mv bundle/rootfs/tree out",
        true,
    );
}
