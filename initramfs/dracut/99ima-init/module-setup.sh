#!/bin/bash
# Makes ima-init the first program of dracut's initramfs, and the one that changes to the real root: as switch_root or, with
# systemd, in initrd-switch-root.service. Removes what trusts the disk or the kernel command line. Variables that are not set
# here are dracut's.
# shellcheck disable=SC2154,SC2317

# called by dracut
check() {
    [[ -e /usr/lib/ima-init/ima-init ]] || return 1
    # Not set up yet: only when asked for by name.
    [[ -e /etc/ima-init/ima-init.conf ]] && return 0
    return 255
}

# called by dracut
depends() {
    echo base
    return 0
}

# Ends dracut, which ignores the status of install(). The existing initramfs is kept.
ima_init_refuse() {
    dfatal "ima-init: $1"
    exit 1
}

# called by dracut; installs a text as a file of the initramfs
ima_init_text() {
    mkdir -p "${initdir}${1%/*}"
    cat >"${initdir}$1"
}

# called by dracut
install() {
    # shellcheck source-path=SCRIPTDIR source=../../files.sh
    . /usr/lib/ima-init/files.sh

    [[ $do_strip != yes ]] || ima_init_refuse "--strip changes programs, and so takes their signatures from them: use --nostrip"
    mkdir -p "$initdir/etc/ima" "$initdir/etc/keys/ima" "$initdir/etc/keys/evm" "$initdir/usr/lib/ima-init"
    ima_init_copy "$initdir" /usr/share/ima-init/ima_policy.default ||
        ima_init_refuse "no policy, or a file of it or a key that cannot be read"
    # An image that exists may be readable by everybody, and keeps its mode.
    if [[ $(ima_init_secrets) && -f $outfile ]]; then chmod 0600 "$outfile"; fi
    inst_simple "$IMA_INIT" "$IMA_INIT"

    if dracut_module_included systemd; then
        ima_init_with_systemd
    else
        ima_init_without_systemd
    fi
    [[ $(imactl config /etc/ima-init/ima-init.conf debug) == yes ]] || ima_init_without_shell

    # dracut has no hook for what comes last: in version 059 the last that changes the tree, with stripping off, is this function.
    local function
    function=$(declare -f build_ld_cache) || ima_init_refuse "this version of dracut does not have the function build_ld_cache"
    eval "ima_init_$function"
    build_ld_cache() {
        ima_init_build_ld_cache
        /usr/lib/ima-init/finish "$initdir" "/boot/config-$kernel" || ima_init_refuse "the initramfs is not made"
    }
    return 0
}

ima_init_without_systemd() {
    # shellcheck disable=SC2016
    local script root='"$NEWROOT"'
    # dracut's /init executes the switch_root that its path finds; there must be no other.
    rm -f "$initdir"/{,usr/}{,s}bin/switch_root
    ln -s ../lib/ima-init/ima-init "$initdir/usr/bin/switch_root"

    # The root is not verified, and these read shell code from it, or mount over the initramfs where its /usr is a link.
    for script in "$initdir"/lib/dracut/hooks/mount/*-mount-root.sh; do
        [[ -e $script ]] || continue
        ima_init_line "$script" "        . $root/etc/sysconfig/readonly-root" "        :"
        ima_init_line "$script" "                && . $root/etc/sysconfig/autofsck" "                && :"
    done
    # shellcheck disable=SC2016
    for script in "$initdir"/lib/dracut/hooks/pre-pivot/*-mount-usr.sh; do
        [[ -e $script ]] || continue
        ima_init_line "$script" "        [ -f $root/etc/sysconfig/autofsck ] && . $root/etc/sysconfig/autofsck" "        :"
        ima_init_line "$script" 'if [ -f "$NEWROOT/etc/fstab" ]; then' \
            'if [ -f "$NEWROOT/etc/fstab" ] && [ -d "$NEWROOT/usr" ] && [ ! -L "$NEWROOT/usr" ]; then'
    done
}

# ima_init_line SCRIPT OLD NEW
ima_init_line() {
    # It is read, not executed, and changing it removes its signature.
    chmod a-x "$1"
    ima_init_change "$@" || ima_init_refuse "${1##*/} of this version of dracut is not as expected: it has no line \"$2\""
}

ima_init_with_systemd() {
    local init
    init=$(imactl config /etc/ima-init/ima-init.conf init) || ima_init_refuse "/etc/ima-init/ima-init.conf has an error"
    # In the unit that changes the root, so that neither can happen without the other. The init is the one that was checked:
    # systemctl would take init= from the command line. The keyrings must belong to PID 1's session, which does not end.
    ima_init_text /usr/lib/systemd/system/initrd-switch-root.service.d/ima-init.conf <<UNIT
[Service]
KeyringMode=inherit
ExecStart=
ExecStart=/usr/lib/ima-init/ima-init load /sysroot
ExecStart=systemctl --no-block switch-root /sysroot $init
UNIT
}

# A shell of the initramfs would be open to anyone who can edit the command line or disconnect the disk. There is none unless the
# configuration has debug=yes; the boot chain verifies the configuration.
ima_init_without_shell() {
    local library name unit=/etc/systemd/system
    inst_simple /usr/lib/ima-init/no-shell
    inst_multiple sleep reboot halt
    for library in "$initdir/usr/lib/dracut-lib.sh" "$initdir/lib/dracut-lib.sh"; do
        [[ -f $library && ! -L ${library%/*} ]] || continue
        chmod a-x "$library"
        cat >>"$library" <<'FUNCTIONS'

# ima-init: no shell (debug=no in /etc/ima-init/ima-init.conf).
emergency_shell() {
    exec /usr/lib/ima-init/no-shell
}
FUNCTIONS
    done
    if dracut_module_included systemd; then
        for name in emergency rescue dracut-emergency debug-shell; do
            ima_init_text $unit/$name.service.d/ima-init.conf <<'UNIT'
[Service]
ExecStartPre=
ExecStart=
ExecStart=/usr/lib/ima-init/no-shell
ExecStopPost=
UNIT
        done
        ln -sf /dev/null "$initdir$unit/debug-shell.service"
        rm -rf "$initdir$unit/debug-shell.service.d"
    fi
}
