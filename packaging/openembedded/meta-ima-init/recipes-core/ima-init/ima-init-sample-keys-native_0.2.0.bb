SUMMARY = "Sample keys of ima-init, for trying out"
DESCRIPTION = "A CA, and a key that signs files, made anew in each build directory. Their password is known to everybody, their \
certificates say that they are samples, and the init warns of them at every boot."
HOMEPAGE = "https://github.com/ima-init/ima-init"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

SRC_URI = ""
DEPENDS = "imactl-native"
inherit native

do_configure[noexec] = "1"

do_compile () {
    imactl keygen --sample --force --out "${B}/sample-keys"
}

do_install () {
    install -d "${D}${datadir}/ima-init/sample-keys"
    install -m 0600 "${B}"/sample-keys/* "${D}${datadir}/ima-init/sample-keys/"
}
