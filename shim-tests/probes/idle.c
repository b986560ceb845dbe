/* Holds COUNT connections to the peer program, and one more of which it does not
 * read what has come, and does nothing, until its standard output's reader has seen
 * enough and kills it. Says "ready" first.
 *
 *   idle HOST PORT COUNT poll|epoll|elsewhere
 */
#include "show.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

enum { MOST = 1000, UNREAD = 50000, TEN_MINUTES = 600000 };

static void leave_unread(const char *host, int port)
{
	int fd = peer(host, port, "send 50000");
	for (int queued = 0; queued < UNREAD; sched_yield())
		if (ioctl(fd, FIONREAD, &queued))
			err(2, "FIONREAD");
}

int main(int argc, char **argv)
{
	static struct pollfd p[MOST];
	int count = argc == 5 ? atoi(argv[3]) : 0;
	if (count < 1 || count > MOST)
		errx(2, "usage: idle HOST PORT COUNT poll|epoll|elsewhere");
	for (int i = 0; i < count; i++) {
		p[i].fd = peer(argv[1], atoi(argv[2]), "hold");
		p[i].events = POLLIN;
	}
	leave_unread(argv[1], atoi(argv[2]));
	puts("ready");
	fflush(stdout);
	int n;
	if (!strcmp(argv[4], "epoll")) {
		int ep = epoll_create1(0);
		struct epoll_event e = {.events = EPOLLIN};
		for (int i = 0; i < count; i++)
			if (epoll_ctl(ep, EPOLL_CTL_ADD, p[i].fd, &e))
				err(2, "epoll_ctl");
		n = epoll_wait(ep, &e, 1, -1);
	} else if (!strcmp(argv[4], "poll")) {
		n = poll(p, (nfds_t)count, TEN_MINUTES);
	} else {
		n = pause();
	}
	printf("woken: %d\n", n);
	return 1;
}
