require ima-init-packages.inc
require ima-init-source.inc

SRC_URI += "file://static-ccld"

# Cargo features; see docs/explanation/size.md.
IMA_INIT_FEATURES ??= "default"

# As [profile.ship] in Cargo.toml. Not every release of OpenEmbedded can be told the name of a profile.
export CARGO_PROFILE_RELEASE_OPT_LEVEL = "z"
export CARGO_PROFILE_RELEASE_LTO = "fat"
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = "1"
export CARGO_PROFILE_RELEASE_PANIC = "abort"
# Left to do_package.
export CARGO_PROFILE_RELEASE_STRIP = "none"

export IMA_INIT_CCLD = "${RUST_TARGET_CCLD}"
CARGO_RUST_TARGET_CCLD = "${UNPACKDIR}/static-ccld"
RUSTFLAGS:append = " -C relocation-model=static"
RUSTFLAGS:append:libc-musl = " -C target-feature=+crt-static"

do_configure:append () {
    chmod +x "${UNPACKDIR}/static-ccld"
}

do_compile () {
    cargo_do_compile -p ima-init --no-default-features --features "${IMA_INIT_FEATURES}" --bin ima-init --bin switch_root
}

IMA_INIT_PROGRAMS = "${B}/target/${CARGO_TARGET_SUBDIR}"

python () {
    if d.getVar("IMA_INIT_PREBUILT"):
        raise bb.parse.SkipRecipe("IMA_INIT_PREBUILT is set")
}
