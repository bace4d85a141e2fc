# The programs that build/ship has made, for releases whose Rust is too old, and for programs without a C library of this build.
require ima-init-packages.inc

HOMEPAGE = "https://github.com/ima-init/ima-init"
SECTION = "base"
LICENSE = "${IMA_INIT_LICENSE}"
LIC_FILES_CHKSUM = "\
    file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302 \
    file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10 \
"

SRC_URI = ""

# Directory with ima-init and switch_root for this machine.
IMA_INIT_PREBUILT ??= ""
IMA_INIT_PROGRAMS = "${IMA_INIT_PREBUILT}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[file-checksums] += "${IMA_INIT_PREBUILT}/ima-init:True ${IMA_INIT_PREBUILT}/switch_root:True"

# build/ship strips them.
INSANE_SKIP:${PN} += "already-stripped"
INSANE_SKIP:${PN}-switch-root += "already-stripped"

python () {
    if not d.getVar("IMA_INIT_PREBUILT"):
        raise bb.parse.SkipRecipe("IMA_INIT_PREBUILT is not set")
}
