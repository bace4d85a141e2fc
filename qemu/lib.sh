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

# need_program COMMAND: end unless COMMAND is a program. `set -e` does not hold in a function that is called in a condition, and a
# function that changes the directory changes that of its caller.
need_program() {
    [[ $(type -t -- "$1") == file ]] || die "$1 is not a program that is installed (functions and builtins are not taken)"
}

# progress TITLE LOG COMMAND...: run the program COMMAND with all its output in the file LOG, and show that it makes progress. When
# it fails, the end of the log is shown and its status returned. The program of crates/scripts does this; until it is built, only
# the title is shown.
progress() {
    local title=$1 log=$2 status=0
    shift 2
    need_program "$1"
    if [[ ${IMA_INIT_SCRIPT_HELPER-} ]]; then
        "$IMA_INIT_SCRIPT_HELPER" progress --title "${0##*/}: $title" --log "$log" -- "$@"
        return
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
    local apt=(flock "$cache/apt.lock" env DEBIAN_FRONTEND=noninteractive apt-get)
    mkdir -p "$cache"
    progress "package lists" "$cache/log/apt-update" "${apt[@]}" update
    progress "installing ${#missing[@]} packages" "$cache/log/apt-install" \
        "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
}

# key_of: print a short hash of standard input, the name in the cache of what is made from that input.
key_of() {
    sha256sum | cut -c1-16
}

# need_rust [PACKAGE...]: install a Rust that can build this project, and these packages. Debian 12's rustc is too old; rustc-web,
# which its browsers are built with, is not. rust-web-src and musl-tools are for the static programs (build/ship), which are
# always built with rustc-web.
# shellcheck disable=SC2120 # the scripts pass arguments
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

# need_helper: build the program of crates/scripts, and set IMA_INIT_SCRIPT_HELPER to its path, for the scripts that this one
# starts too.
need_helper() {
    [[ -z ${IMA_INIT_SCRIPT_HELPER-} ]] || return 0
    # shellcheck disable=SC2119 # no further packages
    need_rust
    local helper
    helper=$(target_directory)/debug/script-helper
    [[ -x $helper ]] || say "building the program of crates/scripts ..."
    # Of the whole workspace: with this crate alone, cargo would compile the dependencies with other features than the tests do.
    cargo build --manifest-path "$top/Cargo.toml" --workspace --locked --quiet --bin script-helper >&2
    export IMA_INIT_SCRIPT_HELPER=$helper
}

# remapped_paths OPTION TARGET: a compiler's options with which nothing in a program depends on the directories of cargo: that of its
# sources, and the target directory. The paths of this project's own sources are relative. The options name no checkout, so that
# what one has compiled need not be compiled again in another one.
remapped_paths() {
    local from
    for from in "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$2=/target"; do
        [[ $from != *[[:space:]]* ]] || die "there is white space in ${from%=*}; build in a directory without"
        printf -- '%s=%s ' "$1" "$from"
    done
}

# need_tool NAME VERSION: the program on the path, of this version where there was none.
need_tool() {
    local directory
    command -v "$1" >/dev/null && return
    directory=$(made_by_cargo "$1" "$2")
    PATH=$directory/bin:$PATH
}

# build_programs: the host tools, with the list of their dependencies in them, and the programs that go into machines. Sets the
# variables imactl, testbed, bench_boot, bench_cost, bench_sign, bench_measurement, scenario_boot, scenario_debian and
# scenario_debian_setup to the programs' paths, and ship to the directory of the static ones: ima-init, switch_root, guest. Makers
# see them too.
build_programs() {
    local target rust_options c_options paths
    need_helper
    need_tool cargo-auditable 0.7.7
    target=$(target_directory)
    rust_options="${RUSTFLAGS-} $(remapped_paths --remap-path-prefix "$target")"
    c_options="${CFLAGS-} $(remapped_paths -ffile-prefix-map "$target")"
    # Debian's compiler, as for the static programs.
    progress "building the host tools" "$cache/log/cargo-host" \
        env PATH="/usr/bin:$PATH" RUSTFLAGS="$rust_options" CFLAGS="$c_options" \
        cargo auditable build --manifest-path "$top/Cargo.toml" --locked --release \
        -p imactl -p ima-testbed -p ima-init-scenarios
    paths=$(mktemp)
    # shellcheck disable=SC2016 # the inner shell expands them
    progress "building the static programs" "$cache/log/ship" sh -c '"$1" guest >"$2"' sh "$top/build/ship" "$paths"
    imactl=$target/release/imactl
    testbed=$target/release/testbed
    bench_boot=$target/release/bench-boot
    bench_cost=$target/release/bench-cost
    bench_sign=$target/release/bench-sign
    bench_measurement=$target/release/bench-measurement
    scenario_boot=$target/release/scenario-boot
    scenario_debian=$target/release/scenario-debian
    scenario_debian_setup=$target/release/scenario-debian-setup
    ship=$(dirname "$(head -1 "$paths")")
    rm "$paths"
    export imactl testbed scenario_boot ship
    local program
    for program in "$imactl" "$testbed" "$bench_boot" "$bench_cost" "$bench_sign" "$bench_measurement" \
        "$scenario_boot" "$scenario_debian" "$scenario_debian_setup" "$ship/ima-init" "$ship/switch_root" "$ship/guest"; do
        [[ -x $program ]] || die "the build did not make $program"
    done
}

# made NAME KEY [OPTION]... -- COMMAND...: print the path of the directory KEY in the directory NAME of the cache. If it does not
# exist, the program COMMAND makes it under another name, which stands for each {} in its arguments, and it is renamed when it is
# complete. The three used last are kept. The program of crates/scripts does this; its options are those of its command `make`.
made() {
    local directory=$cache/$1/$2
    if [[ -d $directory ]]; then
        touch "$directory"
        echo "$directory"
        return
    fi
    need_helper
    "$IMA_INIT_SCRIPT_HELPER" make --cache "$cache" "$@"
}

# made_by_cargo NAME VERSION: print the path of a directory with bin/NAME, a program of crates.io.
made_by_cargo() {
    # shellcheck disable=SC2016 # the inner shell expands them
    made "$1" "$2" --title "building $1 $2" --log "$cache/log/$1" -- sh -euc '
        nice cargo install --locked --version "$2" --root "$3" --target-dir "$3/target" "$1"
        rm -r "$3/target"' sh "$1" "$2" {}
}

# sample_keys: a directory with ca.der, ima.der and ima.key, made once.
sample_keys() {
    made keys "$("$imactl" --version | key_of)" --title "making sample keys" --log "$cache/log/keys" -- \
        "$imactl" keygen --sample --out {}
}

# kernel_with_ca DIRECTORY CERTIFICATE: the bzImage that build-kernel put into DIRECTORY, with this CA in it.
kernel_with_ca() {
    local key directory
    key=$({
        echo "$1"
        cat "$2" "$imactl"
    } | key_of)
    directory=$(made kernel-with-ca "$key" --title "putting the CA into the kernel" --log "$cache/log/add-ca" -- \
        "$imactl" kernel add-ca --image "$1/bzImage" --symbols "$1/extra-cert.json" --cert "$2" --out {}/bzImage)
    echo "$directory/bzImage"
}
