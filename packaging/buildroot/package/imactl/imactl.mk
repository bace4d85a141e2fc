################################################################################
#
# imactl
#
################################################################################

IMACTL_VERSION = $(IMA_INIT_VERSION)
IMACTL_SITE = $(IMA_INIT_SITE)
IMACTL_SITE_METHOD = git
IMACTL_LICENSE = MIT or Apache-2.0
IMACTL_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
BR_NO_CHECK_HASH_FOR += $(HOST_IMACTL_SOURCE)

HOST_IMACTL_CARGO_BUILD_OPTS = -p imactl --bin imactl

# The root of the workspace is another package, so not cargo install.
define HOST_IMACTL_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/target/release/imactl $(HOST_DIR)/bin/imactl
endef

$(eval $(host-cargo-package))
