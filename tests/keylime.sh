# Shell functions for the scripts that run Keylime. Sourced after qemu/lib.sh, never run.
# shellcheck shell=bash

# Debian's own Python: the packages that keylime_packages installs are for it.
# shellcheck disable=SC2034 # the scripts use it
python=/usr/bin/python3

# keylime_packages [PACKAGE...]: install what Keylime needs, and these packages. Debian 12 has no package of Keylime, but of all that it
# needs.
keylime_packages() {
    need_packages python3-pip python3-gpg python3-tornado python3-sqlalchemy python3-cryptography python3-alembic python3-jinja2 \
        python3-zmq python3-psutil python3-pyasn1 python3-pyasn1-modules python3-requests python3-typing-extensions \
        python3-jsonschema python3-packaging python3-yaml python3-lark "$@"
}

# keylime_release RELEASE SHA256: print the directory with this release of Keylime from PyPI, for PYTHONPATH.
keylime_release() {
    # pip takes hashes from files alone.
    # shellcheck disable=SC2016,SC2154 # the inner shell expands them; qemu/lib.sh sets cache
    made keylime "$1" --title "installing Keylime $1" --log "$cache/log/keylime" -- sh -euc '
        echo "keylime==$1 --hash=sha256:$2" >"$3/requirements"
        "$4" -m pip install --quiet --no-deps --require-hashes --target "$3" --requirement "$3/requirements"' sh "$1" "$2" {} "$python"
}

# keylime: print the directory with the release that judges.
keylime() {
    keylime_release 7.12.1 79d8197fceb03c7b78c0f42ba0fcba61084d1c143e96384de873925518df6a69
}
