/* The real init of the benchmark of the boot: says in the kernel's log that it runs, and how much memory PID 1 had before it, and
 * ends. */
#define WITH_LOG
#include "system.h"

/* The most memory that this process had resident, in KiB: ru_maxrss, which outlives execve(). */
static long peak_memory(void)
{
	long usage[18] = { 0 };

	call(GETRUSAGE, 0 /* RUSAGE_SELF */, (long)usage, 0, 0, 0);
	return usage[4];
}

__attribute__((noreturn)) void _start(void)
{
	char digits[24];
	char *text = digits + sizeof(digits) - 1;

	say("benchmark: the real init runs", "");
	*text = 0;
	for (long rest = peak_memory(); rest || !*text; rest /= 10)
		*--text = (char)('0' + rest % 10);
	say("benchmark: peak memory of PID 1 in KiB: ", text);
	finish();
}
