/* epoll: what one call has seen, the next sees too.
 *
 *   ep_prompt HOST PORT      the peer program listens there
 *
 * For one CPU, where this thread, the other one and the peer interrupt each other at every system call.
 */
#include "show.h"

#include <pthread.h>
#include <sys/epoll.h>

/* A connection on which a thread bounces a byte, until told to end; it receives for the other connection as well. */
struct bouncer {
	int fd;
	volatile int end;
	pthread_t thread;
};

static void *bounce(void *arg)
{
	struct bouncer *b = arg;
	char byte = 'b';
	while (!b->end)
		if (send(b->fd, &byte, 1, 0) != 1 || recv(b->fd, &byte, 1, 0) != 1)
			err(2, "bounce");
	return NULL;
}

int main(int argc, char **argv)
{
	enum { ROUNDS = 5000 };
	struct epoll_event event = {.events = EPOLLIN};
	int missed = 0, ep = epoll_create1(0);
	if (argc != 3)
		errx(2, "usage: ep_prompt HOST PORT");
	struct bouncer b = {.fd = peer(argv[1], atoi(argv[2]), "echo")};
	int fd = peer(argv[1], atoi(argv[2]), "echo");
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event));
	pthread_create(&b.thread, NULL, bounce, &b);
	for (int i = 0; i < ROUNDS; i++) {
		char byte = 'x';
		if (send(fd, &byte, 1, 0) != 1)
			err(2, "send");
		/* Now the other thread may come first, now this one. */
		for (volatile int pause = i % 64 * 200; pause > 0; pause--)
			;
		while (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
			;
		missed += epoll_wait(ep, &event, 1, 0) != 1;
		if (recv(fd, &byte, 1, 0) != 1)
			err(2, "recv");
	}
	printf("readable, and epoll knew nothing: %d\n", missed);
	b.end = 1;
	pthread_join(b.thread, NULL);
	close(b.fd);
	close(fd);
	close(ep);
	puts("done");
	return 0;
}
