/* Sends back what it gets, on many connections in one thread: edge-triggered
 * epoll, non-blocking sockets, and a buffer per connection for what does not go
 * out at once.
 *
 *   epoll_server PORT [COUNT]     ends after COUNT connections, never without
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64, BUFFER = 16384 };

struct connection {
	int fd;
	size_t from, to;
	char buffer[BUFFER];
};

/* Moves bytes until nothing more moves. Returns 0 at the end of the connection. */
static int echo(struct connection *c)
{
	for (;;) {
		while (c->from < c->to) {
			ssize_t n = send(c->fd, c->buffer + c->from, c->to - c->from, MSG_NOSIGNAL);
			if (n < 0)
				return errno == EAGAIN;
			c->from += (size_t)n;
		}
		ssize_t n = recv(c->fd, c->buffer, sizeof c->buffer, 0);
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return 0;
		c->from = 0;
		c->to = (size_t)n;
	}
}

static void take(int ep, int fd)
{
	struct connection *c = calloc(1, sizeof *c);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	if (!c)
		err(1, "calloc");
	c->fd = fd;
	event.data.ptr = c;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event))
		err(1, "epoll_ctl");
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "usage: epoll_server PORT [COUNT]");
	long left = argc > 2 ? atol(argv[2]) : -1;
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
	struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
	int fd, on = 1, ep = epoll_create1(EPOLL_CLOEXEC);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 128))
		err(1, "port %s", argv[1]);
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &event))
		err(1, "epoll");
	while (left != 0) {
		int n = epoll_wait(ep, events, EVENTS, -1);
		if (n < 0 && errno != EINTR)
			err(1, "epoll_wait");
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			if (!c) {
				while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
					take(ep, fd);
			} else if (!echo(c)) {
				close(c->fd);
				free(c);
				if (left > 0)
					left--;
			}
		}
	}
	return 0;
}
