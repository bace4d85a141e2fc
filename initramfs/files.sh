# Copies the files of this system that ima-init needs into an initramfs. Sourced by the hooks of initramfs-tools and mkinitcpio, and
# the module of dracut.
# shellcheck shell=sh

# The static init; hook and module copy it.
# shellcheck disable=SC2034
IMA_INIT=/usr/lib/ima-init/ima-init

# Where dracut's module `integrity` expects policy and keys.
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

# ima_init_policy DEFAULT: print the path of the policy: this system's own if there is one, otherwise DEFAULT.
ima_init_policy() {
    for ima_init_file in /etc/ima-init/ima_policy "$IMAPOLICY" "$1"; do
        if [ -s "$ima_init_file" ]; then
            echo "$ima_init_file"
            return
        fi
    done
    return 1
}

# ima_init_keys DIRECTORY FILE...: print a line for each file that exists: its path, a tab, and its path in DIRECTORY of the
# initramfs.
ima_init_keys() {
    ima_init_directory=$1
    shift
    for ima_init_file in "$@"; do
        [ -f "$ima_init_file" ] && printf '%s\t%s/%s\n' "$ima_init_file" "$ima_init_directory" "${ima_init_file##*/}"
    done
    return 0
}

# ima_init_secrets: print the paths of the keys that must stay secret, if they exist: EVM's HMAC key and its master key.
ima_init_secrets() {
    [ -f "$EVMKEY" ] || return 0
    echo "$EVMKEY"
    [ -f "${MASTERKEY:=/etc/keys/kmk-$MASTERKEYTYPE.blob}" ] && echo "$MASTERKEY"
    return 0
}

# ima_init_files DEFAULT_POLICY: print a line for each file: its mode in the initramfs, a tab, its path in this system, a tab, its
# path in the initramfs. Fails if there is no policy.
ima_init_files() {
    ima_init_public "$1" | while IFS= read -r ima_init_file; do
        printf '0644\t%s\n' "$ima_init_file"
    done
    ima_init_secrets | while IFS= read -r ima_init_file; do
        case $ima_init_file in
        "$EVMKEY") printf '0600\t%s\t/etc/keys/evm-trusted.blob\n' "$ima_init_file" ;;
        *) printf '0600\t%s\t/etc/keys/kmk-%s.blob\n' "$ima_init_file" "$MASTERKEYTYPE" ;;
        esac
    done
    ima_init_policy "$1" >/dev/null
}

ima_init_public() {
    [ -e /etc/ima-init/ima-init.conf ] && printf '%s\t%s\n' /etc/ima-init/ima-init.conf /etc/ima/ima-init.conf
    ima_init_policy=$(ima_init_policy "$1") || return 1
    printf '%s\t%s\n' "$ima_init_policy" /etc/ima/ima_policy
    # A signature beside it, for kernels that take only a signed policy.
    [ -e "$ima_init_policy.sig" ] && printf '%s\t%s\n' "$ima_init_policy.sig" /etc/ima/ima_policy.sig
    ima_init_keys /etc/keys /etc/keys/x509_ima*.der /etc/keys/x509_ima*.pem /etc/keys/x509_evm*.der /etc/keys/x509_evm*.pem
    ima_init_keys /etc/keys/ima "$IMAKEYSDIR"/*
    ima_init_keys /etc/keys/evm "$EVMKEYSDIR"/* ${EVMX509:+"$EVMX509"}
}

# ima_init_copy DIRECTORY DEFAULT_POLICY: copy these files into the directory of an initramfs. No file has, even for a moment, a
# wider mode than its own.
ima_init_copy() {
    ima_init_files "$2" >"$1/ima-init.files" || return 1
    while IFS='	' read -r ima_init_mode ima_init_from ima_init_to; do
        # Not the function of dracut's modules.
        command install -m "$ima_init_mode" "$ima_init_from" "$1$ima_init_to" || return 1
    done <"$1/ima-init.files"
    rm "$1/ima-init.files"
}

# ima_init_change FILE OLD NEW: replace the line OLD of a script. Fails, and changes nothing, unless there is exactly one.
ima_init_change() {
    ima_init_found=0
    while IFS= read -r ima_init_line || [ -n "$ima_init_line" ]; do
        if [ "$ima_init_line" = "$2" ]; then
            ima_init_line=$3
            ima_init_found=$((ima_init_found + 1))
        fi
        printf '%s\n' "$ima_init_line"
    done <"$1" >"$1.ima-init"
    [ "$ima_init_found" != 1 ] || cat "$1.ima-init" >"$1"
    rm "$1.ima-init"
    [ "$ima_init_found" = 1 ]
}
