# Signs the image of a root file system for ima-init. To be inherited by an image recipe, with a type that ends in .ima in
# IMAGE_FSTYPES, such as ext4.ima: the image of that type with the signatures inside. docs/how-to/openembedded.md describes the
# variables.

inherit ima-init-keys

# More options of `imactl image sign`, such as --unsigned 'var/**'.
IMA_INIT_SIGN_OPTIONS ??= ""
# 1: the build fails if ima-init would refuse to boot the image.
IMA_INIT_CHECK ??= "1"
# The initramfs and the kernel command line of that check. The latter is needed if IMA_INIT_CONFIG does not name the root.
IMA_INIT_INITRAMFS ??= "${DEPLOY_DIR_IMAGE}/ima-init-initramfs${IMAGE_MACHINE_SUFFIX}.${@(d.getVar('INITRAMFS_FSTYPES') or 'cpio').split()[0]}"
IMA_INIT_APPEND ??= ""

# The first program of the root that is executed.
IMAGE_INSTALL:append = " ima-init-switch-root"

CONVERSIONTYPES:append = " ima"
CONVERSION_CMD:ima = "ima_init_sign ${IMAGE_NAME}.${type}"
CONVERSION_DEPENDS_ima = "imactl-native ima-init e2fsprogs-native erofs-utils-native squashfs-tools-native ${IMA_INIT_KEYS_DEPENDS}"
do_image[file-checksums] += "${IMA_INIT_FILE_CHECKSUMS}"
do_image[prefuncs] += "ima_init_warn_of_sample_keys"

# The finished image is signed, not IMAGE_ROOTFS: pseudo would have to keep security.ima of the files there, and it does not see
# imactl's system calls, which do not go through the C library. imactl needs no privilege, so it runs without pseudo.
ima_init_sign () {
    PSEUDO_UNLOAD=1 imactl image sign ${IMA_INIT_SIGNER} --for-policy "${IMA_INIT_POLICY}" ${IMA_INIT_SIGN_OPTIONS} \
        --out "${IMGDEPLOYDIR}/$1.ima" "${IMGDEPLOYDIR}/$1"
}

IMAGE_POSTPROCESS_COMMAND:append = " ima_init_check"
do_image_complete[depends] += "${@ima_init_check_depends(d)}"

def ima_init_check_depends(d):
    if d.getVar("IMA_INIT_CHECK") != "1":
        return ""
    return ("imactl-native:do_populate_sysroot ima-init-initramfs:do_image_complete "
            "virtual/kernel:do_shared_workdir")

ima_init_check () {
    signed=''
    for type in ${IMAGE_FSTYPES}; do
        case $type in
        *.ima) signed="$signed ${IMGDEPLOYDIR}/${IMAGE_NAME}.$type" ;;
        esac
    done
    if [ -z "$signed" ]; then
        bbwarn "IMAGE_FSTYPES has no type that ends in .ima, such as ext4.ima: this image is not signed"
    fi
    if [ "${IMA_INIT_CHECK}" = 1 ]; then
        for image in $signed; do
            PSEUDO_UNLOAD=1 imactl check --initramfs "${IMA_INIT_INITRAMFS}" --root "$image" --ca "${IMA_INIT_USED_CA}" \
                --kernel-config "${STAGING_KERNEL_BUILDDIR}/.config" ${@"--append '${IMA_INIT_APPEND}'" if d.getVar('IMA_INIT_APPEND') else ''} ||
                bbfatal "ima-init would not boot $image, see above"
        done
    fi
}
