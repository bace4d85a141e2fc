# Shell functions that the scripts of qemu/ and benches/ share. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit

# The directory of the project.
top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

# Where everything that takes long to make is kept; removing it is always safe.
cache=${IMA_INIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ima-init}

# say TEXT...: print a message to standard error. Standard output is for results.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die TEXT...: print an error, which says what failed and what to do, and exit.
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# progress TITLE LOG COMMAND...: run COMMAND with all its output in the file LOG, and show that it makes progress. When the
# command fails, the end of the log is shown and the status returned. The program `progress` of crates/scenarios does this; until
# it is built, and for shell functions, only the title is shown.
progress() {
    local title=$1 log=$2 program status=0
    shift 2
    if [[ $(type -t "$1") == file ]]; then
        for program in "${CARGO_TARGET_DIR:-$top/target}"/{release,debug}/progress; do
            [[ -x $program ]] || continue
            "$program" --title "${0##*/}: $title" --log "$log" -- "$@"
            return
        done
    fi
    mkdir -p "$(dirname "$log")"
    say "$title ..."
    "$@" >"$log" 2>&1 || status=$?
    if ((status)); then
        tail -n 30 "$log" | sed 's/^/    /' >&2
        say "$title failed; the whole output is in $log"
    fi
    return "$status"
}

# need_packages PACKAGE...: install those of these Debian packages that are missing. Without root, print the command and exit.
need_packages() {
    local missing=() package
    for package; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        die "Debian packages are missing; install them with: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    command -v apt-get >/dev/null || die "this needs Debian 12, or these programs' packages: ${missing[*]}"
    # Steps run beside one another, and apt has no lock that waits for both its lists and dpkg.
    locked "$cache/apt.lock" install_packages "${missing[@]}"
}

# install_packages PACKAGE...: install them with apt, as root.
install_packages() {
    progress "package lists" "$cache/log/apt-update" apt-get update
    progress "installing $# packages" "$cache/log/apt-install" \
        env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# key_of: print a short hash of standard input, the name in the cache of what is made from that input.
key_of() {
    sha256sum | cut -c1-16
}

# locked FILE COMMAND...: run COMMAND while holding a lock on FILE; print a message if that has to wait.
locked() {
    local file=$1
    shift
    mkdir -p "$(dirname "$file")"
    (
        flock -n 9 || {
            say "waiting for another process that holds $file"
            flock 9
        }
        "$@" 9>&-
    ) 9>"$file"
}

# need_rust [PACKAGE...]: install a Rust that can build this project, and these packages. Debian 12's rustc is too old; rustc-web,
# which its browsers are built with, is not. rust-web-src and musl-tools are for the static programs (build/ship), which are
# always built with rustc-web.
need_rust() {
    local have=0
    if command -v cargo >/dev/null; then
        have=$(cargo --version | cut -d' ' -f2)
    fi
    # The lower of the two versions, by version sort, is the one needed.
    if [[ $(printf '%s\n' 1.95.0 "$have" | sort -V | head -1) != 1.95.0 ]] && command -v cargo >/dev/null; then
        say "cargo $have is too old; Debian's cargo-web is used"
        PATH=/usr/bin:$PATH
    fi
    need_packages rustc-web cargo-web rust-web-src musl-tools gcc libc6-dev ca-certificates "$@"
}

# target_directory: the directory that cargo builds into.
target_directory() {
    cargo metadata --manifest-path "$top/Cargo.toml" --locked --no-deps --format-version 1 |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# build_programs: the host tools, and the programs that go into machines. Sets the variables imactl, testbed, scenario_boot
# and scenario_debian_setup to the programs' paths, and ship to the directory of the static ones: ima-init, switch_root, guest.
build_programs() {
    local target paths
    progress "building the host tools" "$cache/log/cargo-host" \
        cargo build --manifest-path "$top/Cargo.toml" --locked --release \
        -p imactl -p ima-testbed -p ima-init-scenarios
    target=$(target_directory)
    paths=$(mktemp)
    progress "building the static programs" "$cache/log/ship" sh -c "'$top/build/ship' guest >'$paths'"
    imactl=$target/release/imactl
    testbed=$target/release/testbed
    scenario_boot=$target/release/scenario-boot
    scenario_debian_setup=$target/release/scenario-debian-setup
    ship=$(dirname "$(head -1 "$paths")")
    rm "$paths"
    local program
    for program in "$imactl" "$testbed" "$scenario_boot" "$scenario_debian_setup" \
        "$ship/ima-init" "$ship/switch_root" "$ship/guest"; do
        [[ -x $program ]] || die "the build did not make $program"
    done
}

# made DIRECTORY KEY FUNCTION: print the path of the directory KEY in DIRECTORY of the cache. If it does not exist, FUNCTION makes
# it under another name, its argument, and it is renamed when it is complete. The newest three are kept.
made() {
    local directory=$cache/$1/$2
    if [[ ! -d $directory ]]; then
        # `set -e` does not hold in a condition.
        locked "$cache/$1/.lock" make_beside "$directory" "$3" || return
    fi
    touch "$directory"
    echo "$directory"
}

make_beside() {
    local directory=$1 half old
    [[ -d $directory ]] && return
    # Under the lock nobody else is making one: what is there was left by a run that was interrupted.
    rm -rf "$(dirname "$directory")"/.half.*
    half=$(mktemp -d "$(dirname "$directory")/.half.XXXXXX")
    chmod 755 "$half"
    "$2" "$half" || return
    mv -T "$half" "$directory"
    while IFS= read -r old; do
        rm -r "$old"
    done < <(find "$(dirname "$directory")" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2-)
}

# Packages of newer suites of Debian, by package lists of their own: those of the machine are not changed.
newer=$cache/apt
newer_options=(-o "Dir::Etc::sourcelist=$newer/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$newer/lists"
    -o "Dir::Cache=$newer/cache" -o Acquire::Languages=none -o APT::Architectures=amd64
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)

fetch_newer_lists() {
    [[ -z $(find "$newer/updated" -mtime -7 2>/dev/null) ]] || return 0
    local suite
    mkdir -p "$newer/lists/partial" "$newer/cache/archives/partial"
    for suite in trixie-backports sid experimental; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
    done >"$newer/sources.list"
    progress "package lists of newer kernels" "$cache/log/newer-update" \
        apt-get "${newer_options[@]}" -o APT::Sandbox::User=root --error-on=any update || return
    touch "$newer/updated"
}

# update_newer: the lists of newer suites, fetched again after a week.
update_newer() {
    locked "$newer.lock" fetch_newer_lists
}

# newer_version PACKAGE: its newest version in those suites; nothing when there is none.
newer_version() {
    apt-cache "${newer_options[@]}" show --no-all-versions "$1" 2>/dev/null |
        awk '$1 == "Version:" && !count++ { print $2 }'
}

# fetch_newer PACKAGE VERSION FILE: writes the archive of sources that this linux-source package has to FILE.
fetch_newer() {
    local package=$1 version=$2 file=$3 directory
    directory=$(mktemp -d "$file.XXXXXX")
    (
        cd "$directory"
        progress "fetching $package $version" "$cache/log/newer-fetch" \
            apt-get "${newer_options[@]}" -q -o APT::Sandbox::User=root download "$package=$version"
    )
    dpkg-deb --fsys-tarfile "$directory"/*.deb | tar -xO --wildcards './usr/src/*.tar.xz' >"$file"
    rm -r "$directory"
}

make_sample_keys() {
    progress "making sample keys" "$cache/log/keys" "$imactl" keygen --sample --out "$1"
}

# sample_keys: a directory with ca.der, ima.der and ima.key, made once.
sample_keys() {
    made keys "$("$imactl" --version | key_of)" make_sample_keys
}

put_ca() {
    progress "putting the CA into the kernel" "$cache/log/add-ca" \
        "$imactl" kernel add-ca --image "$kernel_built/bzImage" --symbols "$kernel_built/extra-cert.json" \
        --cert "$kernel_ca" --out "$1/bzImage"
}

# kernel_with_ca DIRECTORY CERTIFICATE: the bzImage that build-kernel put into DIRECTORY, with this CA in it.
kernel_with_ca() {
    local kernel_built=$1 kernel_ca=$2 key
    key=$({
        echo "$kernel_built"
        cat "$kernel_ca" "$imactl"
    } | key_of)
    echo "$(made kernel-with-ca "$key" put_ca)/bzImage"
}
