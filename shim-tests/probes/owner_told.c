/* Who is told of room and of data, and who is not: SIGIO beside calls that sleep, and the edge of EPOLLOUT after polls that
 * ask for something else. And what the signals of F_SETSIG say.
 *
 *   owner_told HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>

#define LARGE 300000

static const char *host;
static int port;
static char bytes[LARGE];
static volatile sig_atomic_t told;

static void handler(int number)
{
	(void)number;
	told = 1;
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	ioctl(fd, request, &n);
	return n;
}

/* Waits until nothing is on its way: at most bytes that the peer's window has no room for are left. */
static void until_acknowledged(int fd, int whole)
{
	while (queued(fd, SIOCOUTQ) > (whole ? 0 : queued(fd, SIOCOUTQNSD)))
		poll(NULL, 0, 1);
}

/* The peer of "gated" reads from now on. */
static void open_gate(void)
{
	char byte;
	int fd = peer(host, port, "open");
	while (recv(fd, &byte, 1, 0) > 0)
		;
	close(fd);
}

static int owned(const char *command)
{
	int fd = peer(host, port, command);
	option_set(fd, SOL_SOCKET, SO_SNDBUF, 30000);
	until_acknowledged(fd, 1);
	fcntl(fd, F_SETOWN, getpid());
	fcntl(fd, F_SETFL, O_ASYNC);
	told = 0;
	return fd;
}

/* What the other thread does while the main thread sleeps on `socket`. */
static int socket_of_main, gated;

static void *meanwhile(void *unused)
{
	for (int i = 0; i < (gated ? 1 : 2); i++) {
		asleep(getpid());
		if (gated)
			open_gate();
		else
			send_text(socket_of_main, ".");
	}
	return unused;
}

static void beside_sleepers(void)
{
	static const char *names[] = {"recv with MSG_WAITALL", "send", "sendfile"};
	for (int way = 0; way < 3; way++) {
		sigset_t io;
		pthread_t thread;
		int fd = owned(way ? "gated" : "steps await say=aaaaaaaaaa await say=bbbbbbbbbb await");
		socket_of_main = fd;
		gated = way > 0;
		sigemptyset(&io);
		sigaddset(&io, SIGIO);
		pthread_sigmask(SIG_BLOCK, &io, NULL);
		if (pthread_create(&thread, NULL, meanwhile, NULL))
			errx(2, "pthread_create");
		pthread_sigmask(SIG_UNBLOCK, &io, NULL);
		long n = 0;
		if (way == 0)
			n = recv(fd, bytes, 20, MSG_WAITALL);
		if (way == 1)
			n = send(fd, bytes, LARGE, 0);
		if (way == 2) {
			int file = memfd_create("file", 0);
			if (ftruncate(file, LARGE))
				err(2, "ftruncate");
			n = sendfile(fd, file, NULL, LARGE);
			close(file);
		}
		printf("%s that sleeps: %ld, SIGIO %d\n", names[way], n, told);
		pthread_join(thread, NULL);
		close(fd);
	}
}

static int is_full(int fd)
{
	unsigned meminfo[SK_MEMINFO_VARS];
	socklen_t length = sizeof meminfo;
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, &length))
		err(2, "SO_MEMINFO");
	return meminfo[SK_MEMINFO_WMEM_QUEUED] >= meminfo[SK_MEMINFO_SNDBUF] / 100 * 72;
}

/* More than two thirds of the buffer, and no EAGAIN. */
static void fill(int fd)
{
	do {
		while (!is_full(fd))
			if (send(fd, bytes, 500, MSG_DONTWAIT) < 0)
				err(2, "send");
		until_acknowledged(fd, 0);
	} while (!is_full(fd));
}

static unsigned edge(int epfd, int limit)
{
	struct epoll_event e = {0};
	return epoll_wait(epfd, &e, 1, limit) == 1 ? e.events : 0;
}

static int epoll_of(int fd, unsigned events)
{
	int epfd = epoll_create1(0);
	struct epoll_event e = {.events = events};
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
	return epfd;
}

enum look { NONE, FULL, IN, NOTHING, SELECT, OTHER_EPOLL, SHUT, LOOKS };

static void room(enum look look)
{
	static const char *names[] = {"nobody looked",	    "EAGAIN",		"poll for POLLIN", "poll for nothing",
				      "select for reading", "another epoll", "shutdown"};
	struct pollfd p = {.events = look == IN ? POLLIN : 0};
	struct timeval at_once = {0, 0};
	int other = -1, fd = owned("gated");
	int epfd = epoll_of(fd, EPOLLOUT | EPOLLET);
	edge(epfd, 0);
	fill(fd);
	p.fd = fd;
	if (look == FULL || look == SHUT)
		while (send(fd, bytes, 1000, MSG_DONTWAIT) > 0)
			;
	if (look == IN || look == NOTHING)
		poll(&p, 1, 0);
	if (look == SELECT) {
		fd_set in;
		FD_ZERO(&in);
		FD_SET(fd, &in);
		select(fd + 1, &in, NULL, NULL, &at_once);
	}
	if (look == OTHER_EPOLL)
		other = epoll_of(fd, EPOLLIN);
	if (look == SHUT) {
		shutdown(fd, SHUT_WR);
		edge(epfd, 0);
	}
	printf("%s: SIGIO %d", names[look], told);
	told = 0;
	open_gate();
	until_acknowledged(fd, 1);
	while (!told && look != NONE && look != SHUT)
		poll(NULL, 0, 1);
	/* After its own FIN the program may hear of the peer's by now. */
	printf(", then %d, edge %#x\n", look == SHUT ? -1 : told, edge(epfd, look == NONE ? 0 : 5000) & EPOLLOUT);
	close(fd);
	close(epfd);
	if (other >= 0)
		close(other);
}

/* What the handler of a queued signal was told. */
static struct {
	int code, fd;
	long band;
} signals[8];
static volatile sig_atomic_t signalled;

static void queued_handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (signalled < 8) {
		signals[signalled].code = info->si_code;
		signals[signalled].fd = info->si_fd;
		signals[signalled].band = info->si_band;
	}
	signalled++;
}

/* Waits for so many signals, and a moment for more. */
static void show_signals(const char *what, int many, int fd)
{
	for (int i = 0; signalled < many && i < 2000; i++)
		poll(NULL, 0, 1);
	poll(NULL, 0, 5);
	printf("%s: %d signals", what, (int)signalled);
	for (int i = 0; i < signalled && i < 8; i++)
		printf(", code %d band %#lx %s", signals[i].code, signals[i].band,
		       signals[i].fd == fd ? "by its descriptor" : "by another");
	puts("");
	signalled = 0;
}

/* A FIN and an urgent byte tell more than once; the descriptor is the one by which O_ASYNC was set. */
static void by_queued_signals(void)
{
	struct sigaction action = {.sa_sigaction = queued_handler, .sa_flags = SA_SIGINFO};
	int fd = peer(host, port, "steps await say=x await urgent=u await finish await"), twin = dup(fd);
	sigaction(SIGRTMIN, &action, NULL);
	until_acknowledged(fd, 1);
	fcntl(fd, F_SETFL, O_ASYNC);
	fcntl(twin, F_SETOWN, getpid());
	fcntl(twin, F_SETSIG, SIGRTMIN);
	send_text(fd, ".");
	show_signals("data", 1, fd);
	send_text(fd, ".");
	show_signals("urgent", 3, fd);
	send_text(fd, ".");
	show_signals("FIN", 2, fd);
	close(fd);
	close(twin);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: owner_told HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct sigaction action = {.sa_handler = handler};
	sigaction(SIGIO, &action, NULL);
	beside_sleepers();
	for (enum look look = 0; look < LOOKS; look++)
		room(look);
	signal(SIGURG, SIG_IGN);
	by_queued_signals();
	puts("done");
	return 0;
}
