/* poll and select keep the files that they sleep on, whatever becomes of the numbers, and look at the numbers anew when
 * one of those wakes them.
 *
 *   polled_files HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"
#include "told.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/select.h>

static const char *host;
static int port;

/* One sleep of a thread. */
static struct {
	pthread_t thread;
	atomic_int tid, over;
	int (*how)(int fd);
	int fd, result, found;
} sleeper;

/* A connection at which the peer program takes steps; %d in them is where it tells. */
static int taking(const char *steps)
{
	char command[200];
	snprintf(command, sizeof command, steps, told_port, told_port);
	return peer(host, port, command);
}

/* Under a number that nothing else gets when it is closed. */
static int out_of_the_way(int fd)
{
	int high = fcntl(fd, F_DUPFD, 100);
	close(fd);
	return high;
}

static void open_gate(void)
{
	close(peer(host, port, "open"));
}

/* Prints what it is told, if `what` is given. */
static void wait_to_be_told(const char *what)
{
	char words[64];
	if (recv(told, words, sizeof words, 0) < 0)
		err(2, "not told");
	if (what)
		printf("  %s: %s\n", what, words);
	fflush(stdout);
}

static void nothing_told(void)
{
	char words[64];
	printf("  told more: %zd\n", recv(told, words, sizeof words, MSG_DONTWAIT));
	fflush(stdout);
}

static int poll_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n = poll(&p, 1, 20000);
	sleeper.found = p.revents;
	return n;
}

static int polls(int fd)
{
	return poll_for(fd, POLLIN);
}

static int polls_nothing(int fd)
{
	return poll_for(fd, 0);
}

static int polls_urgent(int fd)
{
	return poll_for(fd, POLLPRI);
}

static int polls_normal(int fd)
{
	return poll_for(fd, POLLRDNORM);
}

static int selects_among(int fd, int which)
{
	fd_set sets[3] = {0};
	struct timeval limit = {.tv_sec = 20};
	FD_SET(fd, &sets[which]);
	int n = select(fd + 1, &sets[0], &sets[1], &sets[2], &limit);
	sleeper.found = !!FD_ISSET(fd, &sets[which]);
	return n;
}

static int selects(int fd)
{
	return selects_among(fd, 0);
}

static int selects_exceptional(int fd)
{
	return selects_among(fd, 2);
}

static void *sleeps(void *unused)
{
	sleeper.tid = gettid();
	sleeper.result = sleeper.how(sleeper.fd);
	sleeper.over = 1;
	return unused;
}

static void begin(int (*how)(int), int fd)
{
	sleeper.how = how;
	sleeper.fd = fd;
	sleeper.tid = sleeper.over = 0;
	if (pthread_create(&sleeper.thread, NULL, sleeps, NULL))
		errx(2, "thread");
	while (!sleeper.tid)
		usleep(100);
	asleep(sleeper.tid);
}

static void still(const char *when)
{
	asleep(sleeper.tid);
	printf("  %s: asleep %d\n", when, !sleeper.over);
	fflush(stdout);
}

static void woken(void)
{
	pthread_join(sleeper.thread, NULL);
	printf("  woken: %d, %#x\n", sleeper.result, (unsigned)sleeper.found);
	fflush(stdout);
}

/* Another connection is put in the place of the one that is slept on. */
static void connection(const char *name, int (*how)(int))
{
	int fd = out_of_the_way(taking("steps gate say=abc tell=%d gate say=def eof tell=%d"));
	int other = taking("steps await say=x tell=%d await");
	printf("# %s, a connection\n", name);
	begin(how, fd);
	SHOW(dup2(other, fd) == fd);
	open_gate();
	wait_to_be_told("sent to the old one");
	still("then");
	nothing_told();
	send_text(other, ".");
	wait_to_be_told("sent to the new one");
	still("then");
	open_gate();
	woken();
	wait_to_be_told("the old one's end");
	close(fd);
	close(other);
}

static void call(const char *what, int at)
{
	char command[100];
	snprintf(command, sizeof command, "steps call=%d tell=%d", at, told_port);
	int fd = peer(host, port, command);
	wait_to_be_told(what);
	close(fd);
}

/* The same with a listener. */
static void listens(const char *name, int (*how)(int))
{
	int at, fd = out_of_the_way(listener(8, &at)), other = taking("steps await");
	printf("# %s, a listener\n", name);
	begin(how, fd);
	SHOW(dup2(other, fd) == fd);
	call("called", at);
	still("then");
	call("called again", at);
	still("then");
	SHOW(close(fd));
	still("closed");
	/* The listener goes with the sleep, which may reset the call before the caller knows of it. */
	call(NULL, at);
	woken();
	call("called after that", at);
	close(other);
}

/* The number is closed; what comes then was not asked for, or was. */
static void closed(const char *name, int (*how)(int), const char *steps)
{
	int fd = out_of_the_way(taking(steps));
	printf("# %s, closed\n", name);
	begin(how, fd);
	SHOW(close(fd));
	still("closed");
	open_gate();
	woken();
}

/* Data wakes whoever asks for any of its bits. */
static void data(void)
{
	int fd = taking("steps gate say=x await");
	puts("# data");
	begin(polls_normal, fd);
	open_gate();
	woken();
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	be_told();

	connection("poll", polls);
	connection("select", selects);
	listens("poll", polls);
	listens("select", selects);
	closed("poll", polls, "steps gate say=x await");
	closed("poll for nothing", polls_nothing, "steps gate finish await");
	closed("poll for nothing, reset", polls_nothing, "steps gate reset");
	closed("poll for urgent data", polls_urgent, "steps gate say=x await");
	closed("select, exceptional", selects_exceptional, "steps gate say=x await");
	data();
	puts("done");
	return 0;
}
