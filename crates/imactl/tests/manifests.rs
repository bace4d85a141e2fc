//! Signing far from the files: manifests there and back.

mod common;

use common::{imactl, need_root, run, shell, with_keys};

const ROOT: &str = "
    mkdir -p root/usr/bin root/etc; cp /bin/true root/usr/bin/program; ln root/usr/bin/program root/usr/bin/link
    ln -s program root/usr/bin/soft; mkfifo root/pipe; echo text >root/etc/text; truncate -s 50M root/sparse
    printf x >\"$(printf 'root/not-utf8-\\377')\"; printf x >'root/100%'; printf x >\"$(printf 'root/new\\nline')\"
    echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy";

#[test]
fn there_and_back() {
    need_root();
    for (kind, options) in [
        ("rsa2048", ""),
        ("p384", "--hash sha512"),
        ("rsa2048", "--verity"),
    ] {
        let directory = with_keys(kind);
        let at = directory.path();
        shell(ROOT, at).good();
        // Where the key is there are no files, and where the files are there is no key.
        shell(
            &format!(
                "$IMACTL manifest make --from root {options} --out files.manifest
                 mkdir far; mv keys/ima.key files.manifest far; cp keys/ima.der far; cd far
                 $IMACTL manifest sign --key ima.key --cert ima.der files.manifest --out files.signed
                 mv files.signed ..; cd ..
                 $IMACTL manifest apply --root root --cert keys/ima.der files.signed
                 $IMACTL verify --cert keys/ima.der root
                 $IMACTL manifest apply --root root --sidecar files.signed
                 $IMACTL verify --sidecar --cert keys/ima.der root
                 test $(wc -l <files.signed) = 7; grep -q '\"path\":\"not-utf8-%ff\"' files.signed; grep -q 100%25 files.signed"
            ),
            at,
        )
        .good();
        if (kind, options) == ("rsa2048", "") {
            shell(
                "find root -name '*.sig' -delete; cp -dR --preserve=mode,links root other
                 $IMACTL sign --key far/ima.key --cert keys/ima.der other
                 getfattr -Rhd -m security.ima -e hex root | sed s/root/other/ >one
                 getfattr -Rhd -m security.ima -e hex other >two; cmp one two",
                at,
            )
            .good();
        }
    }
}

#[test]
fn into_an_image() {
    let directory = with_keys("p256");
    let at = directory.path();
    shell(ROOT, at).good();
    shell(
        "tar --xattrs --format=pax -C root -cf root.tar .
         $IMACTL manifest make --from root.tar --for-policy policy --out files.manifest
         test $(wc -l <files.manifest) = 2
         $IMACTL manifest sign --key keys/ima.key --cert keys/ima.der files.manifest --out files.signed
         $IMACTL image --from root.tar --manifest files.signed --out root.img
         debugfs -R 'stat /usr/bin/link' root.img | grep security.ima
         ! debugfs -R 'stat /etc/text' root.img | grep security.ima",
        at,
    )
    .good();
    imactl(
        "image --from root.tar --manifest files.manifest --out unsigned.img",
        at,
    )
    .refused("IMA-921");
    shell(
        "printf x | dd of=root/usr/bin/program bs=1 seek=200 conv=notrunc; rm root/pipe",
        at,
    )
    .good();
    imactl(
        "image --from root --manifest files.signed --out changed.img",
        at,
    )
    .refused("IMA-909");
    assert!(!at.join("changed.img").exists() && !at.join("unsigned.img").exists());
}

#[test]
fn what_is_refused() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(ROOT, at).good();
    shell(
        "$IMACTL manifest make --from root --out files.manifest
         $IMACTL manifest sign --key keys/ima.key --cert keys/ima.der files.manifest --out files.signed
         $IMACTL keygen --out other --unencrypted --type p256; cp -a root pristine
         sed 's,\"etc/text\",\"etc/../../outside\",' files.signed >up.signed
         head -c 1000 files.signed >cut.signed",
        at,
    )
    .good();
    for (change, arguments, code) in [
        ("echo longer >>root/etc/text", "files.signed", "IMA-909"),
        (
            "printf TEXT | dd of=root/etc/text conv=notrunc",
            "files.signed",
            "IMA-909",
        ),
        ("rm root/etc/text", "files.signed", "IMA-901"),
        (
            "rm root/etc/text; mkfifo root/etc/text",
            "files.signed",
            "IMA-909",
        ),
        (
            "rm root/etc/text; ln -s /etc/passwd root/etc/text",
            "files.signed",
            "IMA-901",
        ),
        (
            "mv root/etc root/moved; ln -s moved root/etc",
            "files.signed",
            "IMA-901",
        ),
        (":", "files.manifest", "IMA-921"),
        (":", "up.signed", "IMA-921"),
        (":", "cut.signed", "IMA-921"),
        (":", "keys/ima.der", "IMA-921"),
        (":", "missing", "IMA-901"),
        (":", "--cert other/ima.der files.signed", "IMA-910"),
        (":", "--cert keys/ima.der files.manifest", "IMA-910"),
    ] {
        shell(&format!("rm -rf root; cp -a pristine root; {change}"), at).good();
        imactl(&format!("manifest apply --root root {arguments}"), at).refused(code);
        let found = run("getfattr", ["-Rhd", "-m", "security.ima", "root"], at);
        assert!(
            !found.out.contains("security.ima"),
            "{change} {arguments}: {found:?}"
        );
    }
    imactl("manifest make --from root --hash sha1 --out x", at).refused("IMA-907");
    imactl("manifest make --from missing --out x", at).refused("IMA-901");
    imactl(
        "manifest sign --key other/ima.key --cert keys/ima.der files.manifest --out x",
        at,
    )
    .refused("IMA-905");
    assert!(!at.join("x").exists());
}
