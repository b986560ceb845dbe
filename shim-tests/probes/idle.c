/* Holds COUNT connections to the peer program and does nothing, until its
 * standard output's reader has seen enough and kills it. Says "ready" first.
 *
 *   idle HOST PORT COUNT poll|epoll
 */
#include "show.h"

#include <sys/epoll.h>

enum { MOST = 1000 };

int main(int argc, char **argv)
{
	static struct pollfd p[MOST];
	int count = argc == 5 ? atoi(argv[3]) : 0;
	if (count < 1 || count > MOST)
		errx(2, "usage: idle HOST PORT COUNT poll|epoll");
	for (int i = 0; i < count; i++) {
		p[i].fd = peer(argv[1], atoi(argv[2]), "hold");
		p[i].events = POLLIN;
	}
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
	} else {
		n = poll(p, (nfds_t)count, -1);
	}
	printf("woken: %d\n", n);
	return 1;
}
