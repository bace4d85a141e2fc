# What of this system goes into an initramfs for ima-init; for the hook of initramfs-tools and the module of dracut.
# shellcheck shell=sh

# The static init; hook and module copy it.
# shellcheck disable=SC2034
IMA_INIT=/usr/lib/ima-init/ima-init

# Where the users of dracut's module `integrity` have them.
IMAPOLICY=/etc/sysconfig/ima-policy
IMAKEYSDIR=/etc/keys/ima
EVMKEYSDIR=/etc/keys/evm
EVMX509=
EVMKEY=/etc/keys/evm-trusted.blob
MASTERKEYTYPE=trusted
MASTERKEY=
for ima_init_file in /etc/sysconfig/ima /etc/sysconfig/evm /etc/sysconfig/masterkey; do
    # shellcheck source=/dev/null
    [ -f "$ima_init_file" ] && . "$ima_init_file"
done

# ima_init_policy DEFAULT: the path of the policy: this system's own, else the DEFAULT of this kind of initramfs.
ima_init_policy() {
    for ima_init_file in /etc/ima-init/ima_policy "$IMAPOLICY" "$1"; do
        if [ -s "$ima_init_file" ]; then
            echo "$ima_init_file"
            return
        fi
    done
    return 1
}

# ima_init_keys DIRECTORY FILE...: a line for each file that is there, to go into that directory of the initramfs.
ima_init_keys() {
    ima_init_directory=$1
    shift
    for ima_init_file in "$@"; do
        [ -f "$ima_init_file" ] && printf '%s\t%s/%s\n' "$ima_init_file" "$ima_init_directory" "${ima_init_file##*/}"
    done
    return 0
}

# ima_init_files DEFAULT_POLICY: a line for each file: its path here, a tab, its path in the initramfs.
ima_init_files() {
    [ -e /etc/ima-init/ima-init.conf ] && printf '%s\t%s\n' /etc/ima-init/ima-init.conf /etc/ima/ima-init.conf
    ima_init_policy=$(ima_init_policy "$1") || return 1
    printf '%s\t%s\n' "$ima_init_policy" /etc/ima/ima_policy
    # A signature beside it, for kernels that take only a signed policy.
    [ -e "$ima_init_policy.sig" ] && printf '%s\t%s\n' "$ima_init_policy.sig" /etc/ima/ima_policy.sig
    ima_init_keys /etc/keys /etc/keys/x509_ima*.der /etc/keys/x509_ima*.pem /etc/keys/x509_evm*.der /etc/keys/x509_evm*.pem
    ima_init_keys /etc/keys/ima "$IMAKEYSDIR"/*
    ima_init_keys /etc/keys/evm "$EVMKEYSDIR"/* ${EVMX509:+"$EVMX509"}
    if [ -f "$EVMKEY" ]; then
        printf '%s\t%s\n' "$EVMKEY" /etc/keys/evm-trusted.blob
        : "${MASTERKEY:=/etc/keys/kmk-$MASTERKEYTYPE.blob}"
        [ -f "$MASTERKEY" ] && printf '%s\t%s\n' "$MASTERKEY" "/etc/keys/kmk-$MASTERKEYTYPE.blob"
    fi
    # Not what the last test was: that a file is missing is no failure.
    return 0
}
