/* Whether a thread of this process sleeps. */
#ifndef ASLEEP_H
#define ASLEEP_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Waits until a thread sleeps in the kernel, or has ended. */
static inline void asleep(pid_t tid)
{
	char path[64], line[256] = "";
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
	for (int quiet = 0; quiet < 20; usleep(1000)) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		ssize_t n = read(fd, line, sizeof line - 1);
		close(fd);
		char *state = n > 0 ? strrchr(line, ')') : NULL;
		quiet = state && state[2] == 'S' ? quiet + 1 : 0;
	}
}

#endif
