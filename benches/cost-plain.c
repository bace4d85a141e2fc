/* The init of an initramfs that protects nothing: mounts the root and executes its init. What the other forms of
 * benches/cost are compared with. It waits for nothing: the kernel has found the disk before it starts an init. */
#include "system.h"

__attribute__((noreturn)) void _start(void)
{
	static const char *const arguments[] = { "/sbin/init", 0 };
	static const char *const environment[] = { 0 };

	call(MOUNT, (long)"devtmpfs", (long)"/dev", (long)"devtmpfs", 0, 0);
	call(MOUNT, (long)"/dev/vda", (long)"/rootfs", (long)"ext4", 1 /* MS_RDONLY */, 0);
	call(MOUNT, (long)"/dev", (long)"/rootfs/dev", 0, 8192 /* MS_MOVE */, 0);
	call(CHDIR, (long)"/rootfs", 0, 0, 0, 0);
	call(MOUNT, (long)".", (long)"/", 0, 8192 /* MS_MOVE */, 0);
	call(CHROOT, (long)".", 0, 0, 0, 0);
	call(EXECVE, (long)arguments[0], (long)arguments, (long)environment, 0, 0);
	/* The end of PID 1 is a panic, which the benchmark reports. */
	for (;;)
		call(EXIT, 1, 0, 0, 0, 0);
}
