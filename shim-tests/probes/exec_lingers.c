/* An exec closes what is closed on exec as close does: where SO_LINGER says so it waits, before the new program begins.
 *
 *   exec_lingers HOST PORT                  the peer program listens there
 *   exec_lingers HOST PORT STAGE SINCE      by itself: what follows a stage that began SINCE
 */
#include "filled.h"
#include "told.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static const char *host;
static int port;

static long milliseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Longer than a busy host delays a program, and shorter than TOO_LONG, which no stage lingers. */
enum { SLACK = 10, TOO_LONG = 20 };

/* A connection that is closed on exec, with more than the peer takes. */
static int full(const char *command, int lingers, int seconds)
{
	struct linger linger = {.l_onoff = lingers, .l_linger = seconds};
	int fd = peer(host, port, command);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fill_beyond(fd);
	return fd;
}

static atomic_int uses;

/* Nothing of the end is seen by another thread. */
static void *uses_it(void *argument)
{
	char byte;
	for (;; uses++)
		if (recv((int)(long)argument, &byte, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN) {
			puts("seen");
			fflush(stdout);
			return NULL;
		}
}

static void used(int fd)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, uses_it, (void *)(long)fd))
		errx(2, "thread");
	while (!uses)
		usleep(100);
}

/* What is there before an exec, and how many seconds the exec lingers for it. */
static const struct {
	const char *name;
	long seconds;
} stages[] = {{"does not linger", 0},	    {"lingers", 1},
	      {"does not block", 1},	    {"is done before", 0},
	      {"two of them", 2},	    {"while others use them", 1},
	      {"the highest number first", 1}};

/* Where the peer program tells, for the new program as well. */
enum { TOLD = 200 };

/* A connection whose end the peer program tells. */
static int told_of(const char *steps)
{
	char command[100];
	snprintf(command, sizeof command, steps, told_port);
	int fd = peer(host, port, command);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static void say_told(void)
{
	char words[64];
	if (recv(TOLD, words, sizeof words, 0) < 0)
		err(2, "not told");
	printf("%s\n", words);
}

static void prepare(int stage)
{
	int other;
	switch (stage) {
	case 0:
		full("hold", 0, TOO_LONG);
		break;
	case 1:
		full("hold", 1, 1);
		break;
	case 2:
		fcntl(full("hold", 1, 1), F_SETFL, O_NONBLOCK);
		break;
	case 3:
		full("gated", 1, TOO_LONG);
		close(peer(host, port, "open"));
		break;
	case 4:
		full("hold", 1, 1);
		other = dup(full("hold", 1, 1));
		fcntl(other, F_SETFD, FD_CLOEXEC);
		break;
	case 5:
		full("hold", 1, 1);
		used(full("hold", 0, 0));
		break;
	case 6:
		be_told();
		if (dup2(told, TOLD) != TOLD)
			err(2, "dup2");
		close(told);
		told_of("steps eof tell=%d");
		full("hold", 1, 1);
		/* With unread data it ends by a RST. */
		wait_for(told_of("steps say=x eof tell=%d"), POLLIN);
	}
}

/* A timer's grain may be missing. */
static void say_lingered(int stage, long ms)
{
	long least = stages[stage].seconds * 1000, grain = 50;
	printf("%s: ", stages[stage].name);
	if (ms + grain < least || ms > least + SLACK * 1000)
		printf("%ld ms\n", ms);
	else
		printf("%ld s\n", stages[stage].seconds);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int stage = 0;
	char next[16], since[32];
	if (argc < 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	if (argc == 5) {
		stage = atoi(argv[3]);
		say_lingered(stage - 1, milliseconds() - atol(argv[4]));
	}
	if (stage == sizeof stages / sizeof *stages) {
		say_told();
		say_told();
		echoed(peer(host, port, "echo"), "the last program's own");
		puts("done");
		return 0;
	}
	prepare(stage);
	snprintf(next, sizeof next, "%d", stage + 1);
	snprintf(since, sizeof since, "%ld", milliseconds());
	execl("/proc/self/exe", argv[0], host, argv[2], next, since, (char *)NULL);
	err(2, "exec");
}
