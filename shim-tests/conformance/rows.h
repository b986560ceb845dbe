/* What every conformance probe does: print each observation as one line that
 * begins with the ids of the rows that it shows, and that is the same in each run
 * on the same kernel:
 *
 *   [B10 CM-8] an unknown type on a connected socket: -1 EINVAL
 *
 * A probe NAME.c runs as `NAME HOST PORT`, where probes/peer.c listens, and ends
 * with the line "done".
 */
#ifndef ROWS_H
#define ROWS_H

#include "../probes/show.h"

#include <linux/capability.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* An observation: the rows that it shows, and what was seen. */
__attribute__((format(printf, 2, 3))) static inline void row(const char *ids, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("[%s] ", ids);
	vprintf(format, arguments);
	putchar('\n');
	fflush(stdout);
	va_end(arguments);
}

/* The same for a call: its value, and errno's name where it failed. */
#define ROW(ids, text, call) row_value(ids, text, (long)(call))

static inline long row_value(const char *ids, const char *text, long value)
{
	if (value < 0)
		row(ids, "%s: %ld %s", text, value, strerrorname_np(errno));
	else
		row(ids, "%s: %ld", text, value);
	return value;
}

/* The value of an option that is an int, or minus the error's number. */
static inline int int_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof value;
	if (getsockopt(fd, level, name, &value, &length))
		return -errno;
	return value;
}

/* One of SO_MEMINFO's words (SK_MEMINFO_*). */
static inline unsigned meminfo(int fd, int which)
{
	uint32_t words[SK_MEMINFO_VARS] = {0};
	socklen_t length = sizeof words;
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, words, &length))
		err(2, "SO_MEMINFO");
	return words[which];
}

/* Takes a capability (below 32) out of the thread's effective ones, or puts it back. */
static inline void have_capability(int capability, int have)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data))
		err(2, "capget");
	if (have)
		data[0].effective |= 1u << capability;
	else
		data[0].effective &= ~(1u << capability);
	if (syscall(SYS_capset, &header, data))
		err(2, "capset");
}

/* Waits until the peer has acknowledged all but the last `left` bytes; all. */
static inline void wait_until_acked_but(int fd, int left)
{
	for (int unacked = -1; unacked != left;) {
		if (ioctl(fd, SIOCOUTQ, &unacked))
			err(2, "SIOCOUTQ");
		if (unacked != left)
			poll(NULL, 0, 1);
	}
}

static inline void wait_until_acked(int fd)
{
	wait_until_acked_but(fd, 0);
}

#endif
