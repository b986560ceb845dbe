/* Signals that arrive while a call waits.
 *
 *   signals HOST PORT     the peer program listens there
 *
 * A timer rings again and again, so that no ring can be missed: whichever comes
 * while the call waits is the one that counts.
 */
#include "show.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

enum { RING_US = 5000, RINGS_BEFORE_DATA = 4 };

static volatile sig_atomic_t rings, answer_on = -1;

static void ring(int signal)
{
	(void)signal;
	int saved = errno;
	/* A handler may well send on the connection that its thread waits for. */
	if (++rings == RINGS_BEFORE_DATA && answer_on >= 0 &&
	    send(answer_on, "r", 1, MSG_NOSIGNAL) != 1)
		_exit(3);
	errno = saved;
}

static void clock_rings(int flags)
{
	struct sigaction action = {.sa_handler = ring, .sa_flags = flags};
	struct itimerval every = {{0, RING_US}, {0, RING_US}};
	rings = 0;
	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &every, NULL))
		err(2, "setitimer");
}

static void clock_stops(void)
{
	struct itimerval never = {{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &never, NULL);
	printf("rang %d\n", rings > 0);
}

int main(int argc, char **argv)
{
	char byte = 0;
	int own_port, ep;
	struct timeval wait = {.tv_sec = 20};
	struct epoll_event event = {.events = EPOLLIN};
	if (argc != 3)
		errx(2, "usage: signals HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "echo"), server = listener(1, &own_port);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	puts("# without SA_RESTART");
	clock_rings(0);
	SHOW(recv(fd, &byte, 1, 0));
	SHOW(read(fd, &byte, 1));
	SHOW(accept(server, NULL, NULL));
	SHOW(poll(&p, 1, -1));
	fd_set in;
	FD_ZERO(&in);
	FD_SET(fd, &in);
	SHOW(select(fd + 1, &in, NULL, NULL, NULL));
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
	SHOW(epoll_wait(ep, &event, 1, -1));
	clock_stops();

	puts("# with SA_RESTART");
	answer_on = fd;
	clock_rings(SA_RESTART);
	SHOW(recv(fd, &byte, 1, 0));
	printf("%c, rang enough %d\n", byte, rings >= RINGS_BEFORE_DATA);
	answer_on = -1;
	SHOW(poll(&p, 1, -1));
	SHOW(epoll_wait(ep, &event, 1, -1));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
	SHOW(recv(fd, &byte, 1, 0));
	clock_stops();

	puts("# while sending");
	int full = peer(argv[1], atoi(argv[2]), "hold");
	static const char block[1 << 20];
	long sent, total = 0;
	clock_rings(0);
	while ((sent = send(full, block, sizeof block, 0)) > 0)
		total += sent;
	SHOW(sent);
	printf("something went out %d\n", total > 0);
	clock_stops();

	puts("# the program's view of its handlers");
	struct sigaction was;
	SHOW(sigaction(SIGALRM, NULL, &was));
	printf("its own %d, flags %#x\n", was.sa_handler == ring, (unsigned)was.sa_flags);
	SHOW(signal(SIGUSR1, ring) == SIG_DFL);
	SHOW(signal(SIGUSR1, SIG_IGN) == ring);
	SHOW(sigaction(SIGSEGV, NULL, &was));
	printf("default %d\n", was.sa_handler == SIG_DFL);
	SHOW(sigaction(SIGKILL, &was, NULL));
	puts("done");
	return 0;
}
