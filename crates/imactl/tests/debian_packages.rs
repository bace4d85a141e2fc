//! Debian packages that carry signatures. What dpkg makes of them is in tests/packages and qemu/debian-setup.

mod common;

use common::{need_root, shell, with_keys};

/// A package with a program under two names, a configuration file and two control scripts.
const PACKAGE: &str = r#"
    mkdir -p build/DEBIAN build/usr/bin build/etc/demo
    cp /bin/true build/usr/bin/demo; ln build/usr/bin/demo build/usr/bin/demo-again; ln -s demo build/usr/bin/demo-soft
    echo content >build/etc/demo/demo.conf; echo /etc/demo/demo.conf >build/DEBIAN/conffiles
    for script in preinst postinst; do
        printf '#!/bin/sh\nexit 0\n' >build/DEBIAN/$script; chmod 755 build/DEBIAN/$script
    done
    printf '%s\n' 'Package: demo' 'Version: 1' 'Architecture: amd64' 'Maintainer: nobody <nobody@example.org>' \
        'Description: a demonstration' >build/DEBIAN/control
    dpkg-deb --root-owner-group -b build demo.deb >&2
    echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy"#;

#[test]
fn a_signed_package_is_the_same_package_with_signatures() {
    need_root();
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(PACKAGE, at).good();
    shell(
        "mkdir signed; cp demo.deb before.deb
         $IMACTL deb sign --key keys/ima.key --cert keys/ima.der --for-policy policy --out signed demo.deb | grep -q ': 3 files signed'
         cmp demo.deb before.deb
         head -c $(stat -c %s demo.deb) signed/demo.deb | cmp - demo.deb
         test \"$(ar t signed/demo.deb | tail -1)\" = _ima
         dpkg-deb --info signed/demo.deb >/dev/null; dpkg-deb -x signed/demo.deb out; cmp out/usr/bin/demo build/usr/bin/demo
         ar p signed/demo.deb _ima >manifest
         grep -q '\"path\":\"DEBIAN/preinst\"' manifest; grep -q '\"path\":\"DEBIAN/postinst\"' manifest
         grep -q '\"path\":\"usr/bin/demo\"' manifest; ! grep -q demo.conf manifest
         # What dpkg lays out is what the signatures are over.
         dpkg-deb -R signed/demo.deb out2; $IMACTL manifest apply --root out2 --cert keys/ima.der manifest
         $IMACTL verify --cert keys/ima.der out2/usr/bin out2/DEBIAN/preinst out2/DEBIAN/postinst
         # Once more, with everything: the signatures are replaced, not added.
         $IMACTL deb sign --key keys/ima.key --cert keys/ima.der signed/demo.deb | grep -q ': 6 files signed'
         test $(ar t signed/demo.deb | grep -c _ima) = 1; ar p signed/demo.deb _ima | grep -q demo.conf",
        at,
    )
    .good();
}

#[test]
fn what_is_no_package_is_refused_and_left_alone() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(PACKAGE, at).good();
    shell(
        "echo text >text.deb; head -c 100 demo.deb >cut.deb; head -c 300 demo.deb >half.deb
         cp demo.deb other.deb; ar d other.deb debian-binary
         mkdir -p inside/DEBIAN inside/top; cp build/DEBIAN/control inside/DEBIAN; mkdir -p data/DEBIAN; echo x >data/DEBIAN/x
         tar -C data -cf data.tar .; cp demo.deb hostile.deb; ar d hostile.deb data.tar.xz; ar q hostile.deb data.tar
         sha256sum *.deb >sums",
        at,
    )
    .good();
    for (name, code) in [
        ("text.deb", "IMA-961"),
        ("cut.deb", "IMA-961"),
        ("half.deb", "IMA-961"),
        ("other.deb", "IMA-961"),
        ("hostile.deb", "IMA-961"),
        ("missing.deb", "IMA-901"),
    ] {
        shell(
            &format!("$IMACTL deb sign --key keys/ima.key --cert keys/ima.der {name}"),
            at,
        )
        .refused(code);
    }
    shell(
        "sha256sum --quiet --check sums; ls -A | grep -c imactl- | grep -qx 0",
        at,
    )
    .good();
}

#[test]
fn under_the_name_dpkg_deb_it_is_dpkg_deb() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(PACKAGE, at).good();
    shell(
        "ln -s $IMACTL dpkg-deb; ./dpkg-deb --field demo.deb Package | grep -qx demo
         ./dpkg-deb --fsys-tarfile demo.deb >one; dpkg-deb --fsys-tarfile demo.deb | cmp - one
         ./dpkg-deb --control demo.deb control; test -x control/preinst
         status=0; ./dpkg-deb --no-such-option 2>said || status=$?; test $status = 2; grep -q no-such-option said",
        at,
    )
    .good();
}
