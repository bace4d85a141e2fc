/* The real init of the benchmark: says in the kernel's log that it runs, then copies the log, whose records carry their
 * times, to the serial line, and switches the machine off. Without a C library, so that its own start costs next to
 * nothing. x86-64 system calls by number (asm/unistd_64.h). */
static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}

__attribute__((noreturn)) void _start(void)
{
	static const char words[] = "benchmark: the real init runs\n";
	static char record[8192];
	long kmsg = call(2 /* open */, (long)"/dev/kmsg", 04002 /* O_RDWR | O_NONBLOCK */, 0, 0);
	long line = call(2, (long)"/dev/ttyS0", 1 /* O_WRONLY */, 0, 0);
	long length;

	call(1 /* write */, kmsg, (long)words, sizeof(words) - 1, 0);
	/* A record a read, until there is none: EAGAIN. */
	while ((length = call(0 /* read */, kmsg, (long)record, sizeof(record), 0)) > 0)
		call(1, line, (long)record, length, 0);
	call(16 /* ioctl */, line, 0x5409 /* TCSBRK */, 1 /* wait until all is sent */, 0);
	for (;;)
		call(169 /* reboot */, 0xfee1dead, 0x28121969, 0x4321fedc /* power off */, 0);
}
