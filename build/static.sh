# How programs for a target are built: static, small, with std for musl. Sourced, never run.
# shellcheck shell=bash source-path=SCRIPTDIR source=../qemu/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../qemu/lib.sh"

# What rustc calls the processor and its C library, Debian's cross compiler, Debian the architecture (as musl's package does), and
# musl itself.
declare -A targets=(
    [x86_64]='x86_64-unknown-linux-musl x86_64-linux-gnu amd64 x86_64-linux-musl'
    [aarch64]='aarch64-unknown-linux-musl aarch64-linux-gnu arm64 aarch64-linux-musl'
    [armv7]='armv7-unknown-linux-musleabihf arm-linux-gnueabihf armhf arm-linux-musleabihf'
    [riscv64]='riscv64gc-unknown-linux-musl riscv64-linux-gnu riscv64 riscv64-linux-musl'
)
# Debian 12 is not released for the others.
declare -A suites=([riscv64]=trixie)

machine=$(uname -m)
[[ $machine != armv7* ]] || machine=armv7

# prepare_static PROCESSOR: install what such a build needs, and have cargo make programs for this processor. Sets directory, cargo's
# target directory; target, the name of the target; and static, cargo's options.
prepare_static() {
    local processor=$1 tools architecture triple stub compiler archiver suite musl variable
    local panic portable remapped layout
    need_packages rustc-web cargo-web rust-web-src musl-tools gcc libc6-dev
    directory=$(realpath -m "${CARGO_TARGET_DIR:-$top/target}")
    read -r target tools architecture triple <<<"${targets[$processor]}"
    stub=$directory/no-unwinder/$processor
    mkdir -p "$stub"
    if [[ $processor == "$machine" ]]; then
        compiler=musl-gcc archiver=ar
    else
        need_packages "gcc-${tools//_/-}"
        suite=${suites[$processor]-bookworm}
        musl=$(made musl "$architecture-$suite" --title "fetching musl for $processor" --log "$cache/log/musl" -- \
            "$top/build/make/musl" {} "$architecture" "$suite")
        # The specs name what is below /usr, where only the machine's own musl is installed.
        sed "s|/usr/|$musl/usr/|g" "$musl/usr/lib/$triple/musl-gcc.specs" >"$stub/musl-gcc.specs"
        compiler=$stub/gcc archiver=$tools-ar
        # shellcheck disable=SC2016 # expanded when it is run
        printf '#!/bin/sh\nexec %s "$@" -specs %q\n' "$tools-gcc" "$stub/musl-gcc.specs" >"$compiler"
        chmod +x "$compiler"
    fi
    "$compiler" -Os -c "$top/build/no-unwinder.c" -o "$stub/no-unwinder.o"
    "$archiver" rcs "$stub/libunwind.a" "$stub/no-unwinder.o"

    variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")
    export "${variable}_LINKER=$compiler"
    # A panic is an instruction that raises a signal, which the programs catch (src/syscalls.rs).
    panic="-Zunstable-options -Cpanic=immediate-abort"
    # Ciphers and hashes without tables and unrolled loops. AES decrypts a quarter of a megabyte at most, the key of a LUKS container.
    portable="--cfg sha2_backend_soft=\"compact\" --cfg aes_backend=\"soft\" --cfg aes_backend_soft=\"compact\""
    # Nothing in a program depends on where it was built.
    remapped=$(remapped_paths --remap-path-prefix "$directory")
    # No gaps of up to a page between code and data in the file.
    layout=-Clink-arg=-Wl,-z,noseparate-code,-z,norelro,--build-id=none
    export "${variable}_RUSTFLAGS=-Ctarget-feature=+crt-static -Crelocation-model=static -Cforce-unwind-tables=no -Clink-self-contained=no -Lnative=$stub $portable $panic $layout $remapped"
    # Debian's compiler is a stable release; this lets it build std.
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc
    # shellcheck disable=SC2034 # for the script that sources this
    static=(--locked --target "$target" "-Zbuild-std=std,panic_abort" -Zbuild-std-features=optimize_for_size)
}
