#!/bin/sh
# Makes the signed root and the initramfs, and checks that ima-init will boot them. For BR2_ROOTFS_POST_IMAGE_SCRIPT; it needs
# BR2_TARGET_ROOTFS_TAR. ima-init.mk exports the settings, IMA_INIT_IMAGE_*.
set -eu

refuse() {
    echo "ima-init: $1" >&2
    exit 1
}

key=${IMA_INIT_IMAGE_KEY-} cert=${IMA_INIT_IMAGE_CERT-} ca=${IMA_INIT_IMAGE_CA-}
password=${IMA_INIT_IMAGE_PASSWORD_FILE-} config=${IMA_INIT_IMAGE_CONFIG-} kernel_config=${IMA_INIT_IMAGE_KERNEL_CONFIG-}
policy=${IMA_INIT_IMAGE_POLICY:-$BINARIES_DIR/ima-init/ima_policy.default} format=${IMA_INIT_IMAGE_FORMAT:-ext4}

if [ -z "$key" ] || [ -z "$cert" ] || [ -z "$ca" ]; then
    refuse "set BR2_PACKAGE_IMA_INIT_KEY, _CERT and _CA: output/host/bin/imactl keygen --out DIRECTORY makes the files"
fi
archive=$BINARIES_DIR/rootfs.tar
[ -e "$archive" ] || refuse "$archive is missing: set BR2_TARGET_ROOTFS_TAR=y, without compression"

# From the archive, which has the owners of the files. Buildroot's fakeroot does not see imactl's system calls, and imactl needs no
# privilege.
root=$BINARIES_DIR/rootfs.signed.$format
# shellcheck disable=SC2086 # options, separated by blanks
imactl image --from "$archive" --key "$key" --cert "$cert" ${password:+--password-file "$password"} --for-policy "$policy" \
    --format "$format" ${IMA_INIT_IMAGE_OPTIONS-} --out "$root"

initramfs=$BINARIES_DIR/ima-init.cpio
# shellcheck disable=SC2086
imactl initramfs --init "$BINARIES_DIR/ima-init/ima-init" --cert "$cert" --policy "$policy" ${config:+--config "$config"} \
    ${IMA_INIT_IMAGE_INITRAMFS_OPTIONS-} --out "$initramfs"

imactl check --initramfs "$initramfs" --root "$root" --ca "$ca" ${kernel_config:+--kernel-config "$kernel_config"}
