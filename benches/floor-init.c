/* The floor that ima-init is measured against: the requests that no init can do without, in C without a library. It mounts
 * what it needs, adds the certificate to .ima, writes the rules, mounts the root and executes switch_root. It checks nothing,
 * waits for nothing and explains nothing: a request that fails shows as a boot that the benchmark does not find at its end. */
#include "system.h"

static char buffer[64 << 10];

/* Reads a file into the buffer, which it fits. Returns its length. */
static long read_file(const char *path)
{
	long file = call(OPEN, (long)path, 0, 0, 0, 0);
	long length = 0, more;

	while ((more = call(READ, file, (long)buffer + length, (long)sizeof(buffer) - length, 0, 0)) > 0)
		length += more;
	call(CLOSE, file, 0, 0, 0, 0);
	return length;
}

/* The serial of the keyring .ima: the first word of its line of /proc/keys, whose last words are ".ima: 1/3" or similar. */
static long ima_keyring(void)
{
	long length = read_file("/proc/keys");
	long serial = 0, line = 0;

	for (long at = 0; at + 5 < length; at++) {
		if (buffer[at] == '\n')
			line = at + 1;
		if (buffer[at] != ' ' || buffer[at + 1] != '.' || buffer[at + 2] != 'i' || buffer[at + 3] != 'm' ||
		    buffer[at + 4] != 'a' || buffer[at + 5] != ':')
			continue;
		for (long digit = line; buffer[digit] != ' '; digit++)
			serial = serial * 16 + (buffer[digit] <= '9' ? buffer[digit] - '0' : buffer[digit] - 'a' + 10);
		return serial;
	}
	return 0;
}

/* Writes each line that is a rule, one a call: the kernel takes no more of them. */
static void write_policy(long length)
{
	long policy = call(OPEN, (long)"/sys/kernel/security/ima/policy", 1 /* O_WRONLY */, 0, 0, 0);

	for (long from = 0, to; from < length; from = to) {
		for (to = from; to < length && buffer[to] != '\n'; to++)
			;
		to++;
		if (buffer[from] != '#' && buffer[from] != '\n')
			call(WRITE, policy, (long)buffer + from, to - from, 0, 0);
	}
	call(CLOSE, policy, 0, 0, 0, 0);
}

__attribute__((noreturn)) void _start(void)
{
	static const char *const arguments[] = { "/rootfs/usr/sbin/switch_root.static", "/rootfs", "/sbin/init", 0 };
	static const char *const environment[] = { 0 };

	call(MOUNT, (long)"devtmpfs", (long)"/dev", (long)"devtmpfs", 0, 0);
	call(MOUNT, (long)"proc", (long)"/proc", (long)"proc", 0, 0);
	call(MOUNT, (long)"sysfs", (long)"/sys", (long)"sysfs", 0, 0);
	call(MOUNT, (long)"securityfs", (long)"/sys/kernel/security", (long)"securityfs", 0, 0);
	call(MOUNT, (long)"tmpfs", (long)"/run", (long)"tmpfs", 0, 0);
	long keyring = ima_keyring();
	long length = read_file("/etc/keys/x509_ima.der");
	call(ADD_KEY, (long)"asymmetric", (long)"", (long)buffer, length, keyring);
	write_policy(read_file("/etc/ima/ima_policy.default"));
	call(MOUNT, (long)"/dev/vda", (long)"/rootfs", (long)"ext4", 1 /* MS_RDONLY */, 0);
	call(EXECVE, (long)arguments[0], (long)arguments, (long)environment, 0, 0);
	/* The end of PID 1 is a panic, which the benchmark reports. */
	for (;;)
		call(EXIT, 1, 0, 0, 0, 0);
}
