/* What the programs of the benchmarks share: system calls without a C library, so that their own start costs next to
 * nothing. x86-64 system calls by number (asm/unistd_64.h). */

static inline long call(long number, long a, long b, long c, long d, long e)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

enum { READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, STAT = 4, IOCTL = 16, FORK = 57, EXECVE = 59, EXIT = 60, WAIT4 = 61, CHDIR = 80,
       GETRUSAGE = 98,       CHROOT = 161, MOUNT = 165, REBOOT = 169, ADD_KEY = 248 };

#ifdef WITH_LOG
/* Adds a record of a text and another to the kernel's log, which gives it the time. */
static void say(const char *text, const char *more)
{
	char record[128];
	unsigned long length = 0;
	long kmsg = call(OPEN, (long)"/dev/kmsg", 1 /* O_WRONLY */, 0, 0, 0);

	while (*text && length < sizeof(record) - 1)
		record[length++] = *text++;
	while (*more && length < sizeof(record) - 1)
		record[length++] = *more++;
	record[length++] = '\n';
	call(WRITE, kmsg, (long)record, (long)length, 0, 0);
	call(CLOSE, kmsg, 0, 0, 0, 0);
}

/* Copies the kernel's log, whose records carry their times, to the serial line, and switches the machine off. */
__attribute__((noreturn)) static void finish(void)
{
	static char record[8192];
	long kmsg = call(OPEN, (long)"/dev/kmsg", 04000 /* O_RDONLY | O_NONBLOCK */, 0, 0, 0);
	long line = call(OPEN, (long)"/dev/ttyS0", 1 /* O_WRONLY */, 0, 0, 0);
	long length;

	/* A record a read, until there is none: EAGAIN. */
	while ((length = call(READ, kmsg, (long)record, sizeof(record), 0, 0)) > 0)
		call(WRITE, line, (long)record, length, 0, 0);
	call(IOCTL, line, 0x5409 /* TCSBRK */, 1 /* wait until all is sent */, 0, 0);
	for (;;)
		call(REBOOT, 0xfee1dead, 0x28121969, 0x4321fedc /* power off */, 0, 0);
}
#endif
