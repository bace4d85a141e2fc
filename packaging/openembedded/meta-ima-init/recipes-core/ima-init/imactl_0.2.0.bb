SUMMARY = "Host tool of ima-init: keys, signatures, images, initramfs, checks"
DESCRIPTION = "imactl makes keys and certificates for the kernel's IMA keyring, signs files and images, makes the initramfs of \
ima-init, and says before a device is booted whether the init would refuse it."

require ima-init-source.inc

# cargo_common.bbclass has zstd-sys use the library of the system.
DEPENDS = "zstd"
inherit pkgconfig

do_compile () {
    cargo_do_compile -p imactl --bin imactl
}

do_install () {
    install -D -m 0755 "${B}/target/${CARGO_TARGET_SUBDIR}/imactl" "${D}${bindir}/imactl"
}

RRECOMMENDS:${PN}:class-target = "e2fsprogs squashfs-tools"

BBCLASSEXTEND = "native nativesdk"
