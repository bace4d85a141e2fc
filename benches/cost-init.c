/* The real init of benches/cost: executes programs and reads a file, and says in the kernel's log when each began and
 * ended. Before that it says what is enforced, for the host to compare with what should be. */
#define WITH_LOG
#include "system.h"

static const char *const environment[] = { 0 };

/* Executes a program and waits for it. Returns what became of it. */
static const char *execute(const char *path, const char *argument)
{
	const char *const arguments[] = { path, argument, 0 };
	int status = -1;
	long child = call(FORK, 0, 0, 0, 0, 0);

	if (child == 0) {
		long error = call(EXECVE, (long)path, (long)arguments, (long)environment, 0, 0);
		call(EXIT, error == -13 /* EACCES */ ? 100 : 101, 0, 0, 0, 0);
	}
	call(WAIT4, child, (long)&status, 0, 0, 0);
	return status == 0 ? "runs" : status == 100 << 8 ? "denied" : "failed";
}

/* Executes the programs 000, 001 and so on of a directory, whose path has their number as its last three characters. */
static void execute_all(const char *phase, char *path, char *number, int count, const char *argument)
{
	const char *failed = 0;

	say("benchmark: begin ", phase);
	for (int program = 0; program < count; program++) {
		number[0] = (char)('0' + program / 100);
		number[1] = (char)('0' + program / 10 % 10);
		number[2] = (char)('0' + program % 10);
		const char *result = execute(path, argument);
		if (result[0] != 'r')
			failed = path;
	}
	say("benchmark: end ", phase);
	if (failed)
		say("benchmark: failed ", failed);
}

static void read_all(const char *phase, const char *path)
{
	static char data[128 << 10];
	long file, length;

	say("benchmark: begin ", phase);
	file = call(OPEN, (long)path, 0, 0, 0, 0);
	while ((length = call(READ, file, (long)data, sizeof(data), 0, 0)) > 0)
		;
	call(CLOSE, file, 0, 0, 0, 0);
	say("benchmark: end ", phase);
	if (length < 0)
		say("benchmark: failed ", path);
}

static void copy(const char *from, const char *to)
{
	static char data[64 << 10];
	long source = call(OPEN, (long)from, 0, 0, 0, 0);
	long target = call(OPEN, (long)to, 01101 /* O_WRONLY | O_CREAT | O_TRUNC */, 0755, 0, 0);
	long length;

	while ((length = call(READ, source, (long)data, sizeof(data), 0, 0)) > 0)
		call(WRITE, target, (long)data, length, 0, 0);
	call(CLOSE, target, 0, 0, 0, 0);
	call(CLOSE, source, 0, 0, 0, 0);
}

/* Whether the root is on the first device of the device mapper: its st_dev is the other's st_rdev. */
static const char *on_device_mapper(void)
{
	static unsigned long root[18], device[18];

	if (call(STAT, (long)"/", (long)root, 0, 0, 0) || call(STAT, (long)"/dev/dm-0", (long)device, 0, 0, 0))
		return "no";
	return root[0] == device[5] ? "yes" : "no";
}

__attribute__((noreturn)) void _start(void)
{
	static char small[] = "/cost/small/000", large[] = "/cost/large/000", partly[] = "/cost/partly/000";

	say("benchmark: the real init runs", "");
	say("benchmark: root on the device mapper: ", on_device_mapper());
	say("benchmark: unsigned program of the root: ", execute("/cost/unsigned", 0));
	call(MOUNT, (long)"tmpfs", (long)"/mnt", (long)"tmpfs", 0, 0);
	copy("/cost/unsigned", "/mnt/unsigned");
	say("benchmark: unsigned program of a tmpfs: ", execute("/mnt/unsigned", 0));
	execute_all("small cold", small, small + sizeof(small) - 4, SMALL, 0);
	execute_all("small warm", small, small + sizeof(small) - 4, SMALL, 0);
	execute_all("large cold", large, large + sizeof(large) - 4, LARGE, 0);
	execute_all("large warm", large, large + sizeof(large) - 4, LARGE, 0);
	execute_all("partly cold", partly, partly + sizeof(partly) - 4, LARGE, "little");
	read_all("read cold", "/cost/data");
	read_all("read warm", "/cost/data");
	finish();
}
