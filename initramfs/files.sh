# What of this system goes into an initramfs for ima-init; for the hook of initramfs-tools and the module of dracut.
# shellcheck shell=sh

# The static init.
IMA_INIT=/usr/lib/ima-init/ima-init

# ima_init_policy DEFAULT: the path of the policy: this system's own, else the DEFAULT of this kind of initramfs.
ima_init_policy() {
    for ima_init_file in /etc/ima-init/ima_policy "$1"; do
        if [ -s "$ima_init_file" ]; then
            echo "$ima_init_file"
            return
        fi
    done
    return 1
}

# ima_init_files DEFAULT_POLICY: a line for each file: its path here, a tab, its path in the initramfs.
ima_init_files() {
    [ -e /etc/ima-init/ima-init.conf ] && printf '%s\t%s\n' /etc/ima-init/ima-init.conf /etc/ima/ima-init.conf
    ima_init_policy=$(ima_init_policy "$1") || return 1
    printf '%s\t%s\n' "$ima_init_policy" /etc/ima/ima_policy
    # A signature beside it, for kernels that take only a signed policy.
    [ -e "$ima_init_policy.sig" ] && printf '%s\t%s\n' "$ima_init_policy.sig" /etc/ima/ima_policy.sig
    for ima_init_file in /etc/keys/x509_ima*.der /etc/keys/x509_ima*.pem /etc/keys/x509_evm*.der /etc/keys/x509_evm*.pem \
        /etc/keys/ima/* /etc/keys/evm/*; do
        [ -f "$ima_init_file" ] && printf '%s\t%s\n' "$ima_init_file" "$ima_init_file"
    done
    return 0
}
