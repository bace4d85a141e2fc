/*
 * What std's backtraces need of an unwinder, for a static program that ends at a panic and is stripped of the tables an
 * unwinder would read: a stack of no frames. Debian's libgcc_eh needs glibc and cannot be linked with musl.
 */
int _Unwind_Backtrace(void *trace, void *argument)
{
	(void)trace;
	(void)argument;
	return 5; /* _URC_END_OF_STACK */
}

unsigned long _Unwind_GetIP(void *context)
{
	(void)context;
	return 0;
}
