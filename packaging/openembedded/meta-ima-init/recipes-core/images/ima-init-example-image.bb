SUMMARY = "Small signed root for ima-init"
DESCRIPTION = "core-image-minimal, signed. An example of an image recipe that inherits ima-init-image."
HOMEPAGE = "https://github.com/ima-init/ima-init"
LICENSE = "MIT"

inherit core-image ima-init-image

IMAGE_INSTALL = "packagegroup-core-boot"
IMAGE_LINGUAS = ""
IMAGE_FSTYPES = "ext4.ima"
# Room for signatures: one that is not inside its inode takes a block. Those of RSA-2048 fit into inodes of 512 bytes.
EXTRA_IMAGECMD:ext4:append = " -I 512"
