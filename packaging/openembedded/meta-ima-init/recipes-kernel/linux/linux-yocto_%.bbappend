inherit ${@bb.utils.contains('DISTRO_FEATURES', 'ima-init', 'ima-init-kernel', '', d)}
