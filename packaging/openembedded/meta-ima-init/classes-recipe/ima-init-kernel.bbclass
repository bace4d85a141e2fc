# Gives a kernel of linux-yocto (kernel-yocto.bbclass) the options that ima-init uses, and the CA.

inherit ima-init-keys

# 0 if the kernel gets the CA in another way, such as a machine owner key.
IMA_INIT_CA_IN_KERNEL ??= "1"

FILESEXTRAPATHS:prepend := "${IMA_INIT_LAYERDIR}/recipes-kernel/linux:"
SRC_URI += "file://ima-init-kmeta;type=kmeta;name=ima-init-kmeta;destsuffix=ima-init-kmeta"
KERNEL_FEATURES:append = " ima-init.scc ${@'ima-init-ca.scc' if d.getVar('IMA_INIT_CA_IN_KERNEL') == '1' else ''}"

DEPENDS += "${@d.getVar('IMA_INIT_KEYS_DEPENDS') if d.getVar('IMA_INIT_CA_IN_KERNEL') == '1' else ''}"
do_configure[file-checksums] += "${IMA_INIT_FILE_CHECKSUMS}"
do_configure[prefuncs] += "${@'ima_init_warn_of_sample_keys' if d.getVar('IMA_INIT_CA_IN_KERNEL') == '1' else ''}"

# CONFIG_SYSTEM_TRUSTED_KEYS of ima-init-ca.cfg is relative to the build directory.
do_configure:prepend () {
    if [ "${IMA_INIT_CA_IN_KERNEL}" = 1 ]; then
        install -m 0644 "${IMA_INIT_USED_CA}" "${B}/ima-init-ca.pem"
    fi
}
