################################################################################
#
# ima-init
#
################################################################################

# The commit that this tree is checked out at; what is not committed is not
# built. SITE_METHOD = local would not do: Buildroot fetches the crates when it
# downloads a package.
IMA_INIT_VERSION = $(shell git -C $(BR2_EXTERNAL_IMA_INIT_PATH) rev-parse HEAD)
IMA_INIT_SITE = $(abspath $(BR2_EXTERNAL_IMA_INIT_PATH)/../..)
IMA_INIT_SITE_METHOD = git
IMA_INIT_LICENSE = MIT or Apache-2.0
IMA_INIT_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
IMA_INIT_INSTALL_IMAGES = YES
IMA_INIT_DEPENDENCIES = host-imactl
BR_NO_CHECK_HASH_FOR += $(IMA_INIT_SOURCE)

IMA_INIT_CARGO_BUILD_OPTS = \
	-p ima-init \
	--bin ima-init \
	--bin switch_root \
	--no-default-features \
	--features "$(call qstrip,$(BR2_PACKAGE_IMA_INIT_FEATURES))"

IMA_INIT_RUSTFLAGS = -Ctarget-feature=+crt-static -Crelocation-model=static
ifeq ($(NORMALIZED_ARCH),arm)
# What pkg-cargo.mk sets, and is replaced below.
IMA_INIT_RUSTFLAGS += -Clink-arg=-Wl,--allow-multiple-definition
endif

# As [profile.ship] in Cargo.toml.
IMA_INIT_CARGO_ENV = \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS="$(IMA_INIT_RUSTFLAGS)" \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="z" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_PANIC="abort"

IMA_INIT_PROGRAMS = $(@D)/target/$(RUSTC_TARGET_NAME)/release

define IMA_INIT_CHECK_STATIC
	for program in ima-init switch_root; do \
		! $(TARGET_READELF) -lW $(IMA_INIT_PROGRAMS)/$$program | grep INTERP || \
			{ echo "$$program is not static" >&2; exit 1; }; \
	done
endef
IMA_INIT_POST_BUILD_HOOKS += IMA_INIT_CHECK_STATIC

define IMA_INIT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(IMA_INIT_PROGRAMS)/switch_root \
		$(TARGET_DIR)/usr/sbin/switch_root.static
endef

define IMA_INIT_INSTALL_IMAGES_CMDS
	$(INSTALL) -D -m 0755 $(IMA_INIT_PROGRAMS)/ima-init \
		$(BINARIES_DIR)/ima-init/ima-init
	$(INSTALL) -m 0644 $(@D)/policy/ima_policy.* $(BINARIES_DIR)/ima-init/
endef

# What board/ima-init/post-image.sh works with.
export IMA_INIT_IMAGE_KEY = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_KEY))
export IMA_INIT_IMAGE_CERT = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_CERT))
export IMA_INIT_IMAGE_CA = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_CA))
export IMA_INIT_IMAGE_PASSWORD_FILE = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_PASSWORD_FILE))
export IMA_INIT_IMAGE_POLICY = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_POLICY))
export IMA_INIT_IMAGE_CONFIG = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_CONFIG))
export IMA_INIT_IMAGE_FORMAT = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_FORMAT))
export IMA_INIT_IMAGE_OPTIONS = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_IMAGE_OPTIONS))
export IMA_INIT_IMAGE_INITRAMFS_OPTIONS = $(call qstrip,$(BR2_PACKAGE_IMA_INIT_INITRAMFS_OPTIONS))
export IMA_INIT_IMAGE_KERNEL_CONFIG = $(if $(BR2_LINUX_KERNEL),$(LINUX_DIR)/.config)

$(eval $(cargo-package))
