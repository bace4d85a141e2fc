#!/bin/bash
# Puts ima-init into dracut's initramfs. Without systemd there it takes switch_root's place; with systemd it loads keys and
# policy just before systemd changes to the real root.
# initdir is set by dracut.
# shellcheck disable=SC2154

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

# called by dracut; installs a text as a file of the initramfs
ima_init_text() {
    mkdir -p "${initdir}${1%/*}"
    cat >"${initdir}$1"
}

# called by dracut
install() {
    local from to systemd='' policy debug=''
    # shellcheck source-path=SCRIPTDIR source=../../files.sh
    . /usr/lib/ima-init/files.sh

    dracut_module_included systemd && systemd=yes
    policy=/usr/share/ima-init/ima_policy.default

    mkdir -p "$initdir/etc/ima" "$initdir/etc/keys/ima" "$initdir/etc/keys/evm"
    ima_init_files "$policy" >"$initdir/ima-init.files" || {
        dfatal "ima-init: no policy: neither /etc/ima-init/ima_policy nor $policy is there"
        return 1
    }
    while IFS=$'\t' read -r from to; do
        cp -L "$from" "$initdir$to" && chmod 0644 "$initdir$to" || return 1
    done <"$initdir/ima-init.files"
    rm "$initdir/ima-init.files"
    grep -Eqs '^[[:blank:]]*debug[[:blank:]]*=[[:blank:]]*yes[[:blank:]]*$' "$initdir/etc/ima/ima-init.conf" && debug=yes

    if [[ $systemd ]]; then
        ima_init_with_systemd
    else
        # dracut's /init executes the switch_root that its path finds; there must be no other.
        rm -f "$initdir"/{,usr/}{,s}bin/switch_root
        inst_simple "$IMA_INIT" /usr/bin/switch_root || return 1
    fi
    [[ $debug ]] || ima_init_without_shell
    return 0
}

ima_init_with_systemd() {
    local unit=/usr/lib/systemd/system init=/sbin/init configured
    configured=$(sed -n 's/^[[:blank:]]*init[[:blank:]]*=[[:blank:]]*\([^[:blank:]]*\).*/\1/p' "$initdir/etc/ima/ima-init.conf" | tail -n 1)
    inst_simple "$IMA_INIT" "$IMA_INIT"
    # Its keyring must be found from PID 1's session, not die with a session of its own.
    ima_init_text $unit/ima-init.service <<'UNIT'
[Unit]
Description=Bring the Integrity Measurement Architecture into force
Documentation=man:ima-init(8)
DefaultDependencies=no
After=initrd-root-fs.target initrd-fs.target initrd-parse-etc.service initrd-cleanup.service initrd-udevadm-cleanup-db.service
Before=initrd-switch-root.service
OnFailure=emergency.target
OnFailureJobMode=replace-irreversibly

[Service]
Type=oneshot
RemainAfterExit=yes
KeyringMode=inherit
ExecStart=/usr/lib/ima-init/ima-init load /sysroot
UNIT
    # systemd leaves for the real root only if the policy is in force, and for the init that was looked at: systemctl
    # would take init= from the command line.
    ima_init_text $unit/initrd-switch-root.service.d/ima-init.conf <<UNIT
[Unit]
Requires=ima-init.service
After=ima-init.service

[Service]
ExecStart=
ExecStart=systemctl --no-block switch-root /sysroot ${configured:-$init}
UNIT
    mkdir -p "$initdir$unit/initrd-switch-root.target.wants"
    ln -sf ../ima-init.service "$initdir$unit/initrd-switch-root.target.wants/ima-init.service"
}

# A shell of the initramfs would be a shell before IMA is in force, for whoever can edit the command line or pull out the
# disk: there is none unless the configuration has debug=yes, which the boot chain covers.
ima_init_without_shell() {
    local library name unit=/etc/systemd/system
    ima_init_text /usr/lib/ima-init/no-shell <<'SCRIPT'
#!/bin/sh
echo "ima-init: this initramfs opens no shell; the machine starts again in 10 s" >/dev/console
sleep 10
reboot -f -d
halt -f -d
exit 1
SCRIPT
    chmod 0755 "$initdir/usr/lib/ima-init/no-shell"
    inst_multiple sleep reboot halt
    for library in "$initdir/usr/lib/dracut-lib.sh" "$initdir/lib/dracut-lib.sh"; do
        [[ -f $library && ! -L ${library%/*} ]] || continue
        cat >>"$library" <<'FUNCTIONS'

# ima-init: no shell before IMA is in force (debug=no in /etc/ima-init/ima-init.conf).
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
