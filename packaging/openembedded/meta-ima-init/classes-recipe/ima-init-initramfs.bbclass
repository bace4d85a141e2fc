# Makes images of the type cpio with imactl: the init, certificates, policy, configuration and kernel modules. To be inherited by
# IMAGE_CLASSES, as ima-init-initramfs.bb does. docs/how-to/openembedded.md describes the variables.

inherit ima-init-keys

# Kernel modules that the root needs, by name; what they depend on comes along.
IMA_INIT_MODULES ??= ""
# More options of `imactl initramfs`, such as --file gpu.bin:lib/firmware/gpu.bin.
IMA_INIT_INITRAMFS_OPTIONS ??= ""

do_image_cpio[depends] += "imactl-native:do_populate_sysroot ima-init:do_populate_sysroot"
do_image_cpio[depends] += "${@'${IMA_INIT_KEYS_DEPENDS}:do_populate_sysroot' if d.getVar('IMA_INIT_KEYS_DEPENDS') else ''}"
do_image_cpio[file-checksums] += "${IMA_INIT_FILE_CHECKSUMS}"
do_image_cpio[prefuncs] += "ima_init_warn_of_sample_keys"

IMAGE_CMD:cpio () {
    set -- --init "${STAGING_DIR_HOST}${nonarch_libdir}/ima-init/ima-init" --cert "${IMA_INIT_USED_CERT}" \
        --policy "${IMA_INIT_POLICY}" ${IMA_INIT_INITRAMFS_OPTIONS}
    if [ -n "${IMA_INIT_CONFIG}" ]; then
        set -- "$@" --config "${IMA_INIT_CONFIG}"
    fi
    if [ -n "${IMA_INIT_EVM_CERT}" ]; then
        set -- "$@" --evm-cert "${IMA_INIT_EVM_CERT}"
    fi
    if [ -n "${IMA_INIT_MODULES}" ]; then
        modules=$(echo "${IMAGE_ROOTFS}${nonarch_base_libdir}"/modules/*)
        set -- "$@" --modules-dir "$modules" --load "${@','.join((d.getVar('IMA_INIT_MODULES') or '').split())}"
    fi
    PSEUDO_UNLOAD=1 imactl initramfs "$@" --compress none --out "${IMGDEPLOYDIR}/${IMAGE_NAME}.cpio"
}
