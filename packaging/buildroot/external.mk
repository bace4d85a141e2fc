include $(sort $(wildcard $(BR2_EXTERNAL_IMA_INIT_PATH)/package/*/*.mk))

# For CONFIG_SYSTEM_TRUSTED_KEYS of board/ima-init/linux-ca.fragment.
define IMA_INIT_LINUX_CA
	$(if $(call qstrip,$(BR2_PACKAGE_IMA_INIT_CA)), \
		$(INSTALL) -m 0644 $(call qstrip,$(BR2_PACKAGE_IMA_INIT_CA)) $(@D)/ima-init-ca.pem)
endef
ifeq ($(BR2_PACKAGE_IMA_INIT),y)
LINUX_PRE_BUILD_HOOKS += IMA_INIT_LINUX_CA
endif
