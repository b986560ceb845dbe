/* pthread_cancel(3): where a pending cancellation ends a thread and where not, and what a thread that has disabled it
 * sees of one.
 *
 *   cancels HOST PORT     the peer program listens there
 */
#include "show.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>

#include "asleep.h"

enum { PATIENCE = 20, MORE_THAN_FITS = 8000000 };

static const char *host;
static int port;
static int connection;
static char *bytes;

/* What is done with a cancellation pending, or disabled. */
struct deed {
	const char *name;
	long (*call)(void);
	_Atomic int *tid; /* where the thread says who it is */
};

static int by_timeout(int fd)
{
	struct timeval t = {.tv_usec = 400000};
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t))
		err(2, "timeout");
	return fd;
}

static long first_socket(void)
{
	connection = socket(AF_INET, SOCK_STREAM, 0);
	return connection < 0 ? -1 : 0;
}

static long first_epoll_ctl(void)
{
	struct epoll_event e = {.events = EPOLLIN};
	return epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, connection, &e);
}

static long set_option(void)
{
	return option_set(connection, SOL_SOCKET, SO_KEEPALIVE, 1);
}

static long receive(void)
{
	char byte;
	return recv(connection, &byte, 1, 0);
}

static long receive_text(void)
{
	char back[5];
	return recv(connection, back, sizeof back, MSG_WAITALL);
}

static long receive_all(void)
{
	char two[2];
	return recv(connection, two, sizeof two, MSG_WAITALL);
}

static long poll_it(void)
{
	struct pollfd p = {.fd = connection, .events = POLLPRI};
	return poll(&p, 1, 400);
}

static long wait_by_epoll(void)
{
	struct epoll_event e = {.events = EPOLLPRI};
	int ep = epoll_create1(0);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, connection, &e))
		return -1;
	long n = epoll_wait(ep, &e, 1, 400);
	close(ep);
	return n;
}

static int instance;

static long wait_on_it(void)
{
	struct epoll_event e;
	return epoll_wait(instance, &e, 1, -1);
}

static int descriptors(void)
{
	int n = 0;
	DIR *all = opendir("/proc/self/fd");
	while (readdir(all))
		n++;
	closedir(all);
	return n;
}

static long accept_one(void)
{
	int own, fd = by_timeout(listener(1, &own));
	long got = accept(fd, NULL, NULL);
	int why = errno;
	close(fd);
	errno = why;
	return got;
}

static long send_much(void)
{
	return send(connection, bytes, MORE_THAN_FITS, 0);
}

/* Whether it lingers for its second. */
static long close_lingering(void)
{
	struct linger one = {.l_onoff = 1, .l_linger = 1};
	struct timespec from, to;
	/* More than the peer's window takes. */
	if (option_set(connection, SOL_SOCKET, SO_SNDBUF, 200000) ||
	    setsockopt(connection, SOL_SOCKET, SO_LINGER, &one, sizeof one) ||
	    send(connection, bytes, MORE_THAN_FITS, MSG_DONTWAIT) <= 0)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (close(connection))
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &to);
	return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 900;
}

static void say_hello(void)
{
	send_text(connection, "hello");
}

static void open_gate(void)
{
	close(peer(host, port, "open"));
}

/* What a thread held on an instance goes with it. */
static void closed_behind_it(void (*end)(struct deed))
{
	int before = descriptors();
	struct epoll_event e = {.events = EPOLLPRI};
	instance = epoll_create1(0);
	if (epoll_ctl(instance, EPOLL_CTL_ADD, connection, &e))
		err(2, "epoll_ctl");
	end((struct deed){"a wait on an instance", wait_on_it, NULL});
	close(instance);
	printf("descriptors more: %d\n", descriptors() - before);
	fflush(stdout);
}

static void *pending(void *argument)
{
	const struct deed *deed = argument;
	int before;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	pthread_cancel(pthread_self());
	pthread_setcancelstate(before, NULL);
	show(deed->name, deed->call());
	pthread_testcancel();
	return NULL;
}

static void with_one_pending(struct deed deed)
{
	pthread_t thread;
	void *result;
	if (pthread_create(&thread, NULL, pending, &deed) || pthread_join(thread, &result))
		errx(2, "thread");
	printf("%s, cancelled: %d\n", deed.name, result == PTHREAD_CANCELED);
	fflush(stdout);
}

static void *sleeping(void *argument)
{
	struct deed *deed = argument;
	*deed->tid = gettid();
	show(deed->name, deed->call());
	return NULL;
}

static void *disabled(void *argument)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return sleeping(argument);
}

static void cancelled_asleep(struct deed deed, void *(*body)(void *), void (*then)(void))
{
	_Atomic int tid = 0;
	pthread_t thread;
	void *result;
	deed.tid = &tid;
	if (pthread_create(&thread, NULL, body, &deed))
		errx(2, "thread");
	while (!tid)
		usleep(1000);
	asleep(tid);
	pthread_cancel(thread);
	if (then) {
		/* Time for it to be interrupted, if it were. */
		usleep(50000);
		then();
	}
	pthread_join(thread, &result);
	printf("%s, cancelled: %d\n", deed.name, result == PTHREAD_CANCELED);
	fflush(stdout);
}

static void asleep_in_it(struct deed deed)
{
	cancelled_asleep(deed, sleeping, NULL);
}

static void with_it_disabled(struct deed deed, void (*then)(void))
{
	cancelled_asleep(deed, disabled, then);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	bytes = calloc(1, MORE_THAN_FITS);
	/* The process hangs where a lock went with a thread. */
	alarm(PATIENCE);

	puts("# pending");
	with_one_pending((struct deed){"the first socket", first_socket, NULL});
	close(connection);
	connection = peer(host, port, "hold");
	with_one_pending((struct deed){"the first epoll_ctl", first_epoll_ctl, NULL});
	with_one_pending((struct deed){"setsockopt", set_option, NULL});
	with_one_pending((struct deed){"recv", receive, NULL});
	with_one_pending((struct deed){"epoll_wait", wait_by_epoll, NULL});
	closed_behind_it(with_one_pending);
	closed_behind_it(asleep_in_it);
	close(connection);

	puts("# disabled, and the call has a timeout");
	connection = by_timeout(peer(host, port, "hold"));
	with_it_disabled((struct deed){"recv", receive, NULL}, NULL);
	with_it_disabled((struct deed){"recv of all", receive_all, NULL}, NULL);
	with_it_disabled((struct deed){"poll", poll_it, NULL}, NULL);
	with_it_disabled((struct deed){"epoll_wait", wait_by_epoll, NULL}, NULL);
	with_it_disabled((struct deed){"accept", accept_one, NULL}, NULL);
	close(connection);

	puts("# disabled, and it has none");
	connection = peer(host, port, "echo");
	with_it_disabled((struct deed){"recv", receive_text, NULL}, say_hello);
	close(connection);
	connection = peer(host, port, "gated");
	with_it_disabled((struct deed){"send", send_much, NULL}, open_gate);
	close(connection);
	connection = peer(host, port, "gated");
	with_it_disabled((struct deed){"close", close_lingering, NULL}, NULL);
	open_gate();
	puts("done");
	return 0;
}
