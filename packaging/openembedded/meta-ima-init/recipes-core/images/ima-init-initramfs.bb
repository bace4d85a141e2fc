SUMMARY = "Initramfs with ima-init"
DESCRIPTION = "The init, certificates, policy, configuration and kernel modules. For INITRAMFS_IMAGE: what makes FIT images, \
unified kernel images or kernels with an initramfs inside takes it from there."
HOMEPAGE = "https://github.com/ima-init/ima-init"
LICENSE = "MIT"

# Before image.bbclass: what replaces a command of image_types.bbclass must be inherited after it.
IMAGE_CLASSES += "ima-init-initramfs"
inherit image

# imactl makes the archive; a root file system is made for the modules alone.
PACKAGE_INSTALL = "${@'kernel-modules' if d.getVar('IMA_INIT_MODULES') else ''}"
IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_NAME_SUFFIX ?= ""
IMAGE_FSTYPES = "${INITRAMFS_FSTYPES}"
