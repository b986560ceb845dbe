/* Readiness of a listener for clients on this host, which the kernel serves, beside those from another.
 *
 *   ep_local HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/select.h>

static int at, fd;

static int client(void)
{
	struct sockaddr_in here = address("127.0.0.1", at);
	int s = tcp_socket();
	SHOW(connect(s, (struct sockaddr *)&here, sizeof here));
	return s;
}

static void add(int ep, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.u64 = 3};
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static void wait_on(int ep, int timeout)
{
	struct epoll_event got[4];
	int n = epoll_wait(ep, got, 4, timeout);
	printf("epoll_wait %d", n);
	for (int i = 0; i < n; i++)
		printf(" %d: %x", (int)got[i].data.u64, got[i].events);
	puts("");
}

static void take(int c)
{
	int child = accept(fd, NULL, NULL);
	SHOW(child >= 0);
	close(child);
	close(c);
}

/* An interest that has fired is off for clients of both kinds. */
static void one_shot(const char *host, int port)
{
	struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
	char command[32];
	int ep = epoll_create1(0);
	puts("# one shot, clients of both kinds");
	fd = listener(8, &at);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	add(ep, EPOLLIN | EPOLLONESHOT);
	snprintf(command, sizeof command, "call %d", at);
	int remote = peer(host, port, command);
	wait_on(ep, 20000);
	int local = client();
	wait_on(ep, 0);
	SHOW(close(accept(fd, NULL, NULL)));
	wait_on(ep, 0);
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &again));
	wait_on(ep, 20000);
	wait_on(ep, 0);
	take(local);
	SHOW(accept(fd, NULL, NULL));
	close(remote);
	close(fd);
	close(ep);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: ep_local HOST PORT");
	int level = epoll_create1(0), edge = epoll_create1(0), once = epoll_create1(0), early = epoll_create1(0);
	struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
	struct pollfd p;
	fd_set in;

	setvbuf(stdout, NULL, _IOLBF, 0);
	fd = tcp_socket();
	add(early, EPOLLIN);
	wait_on(early, 0);
	close(fd);
	fd = listener(8, &at);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	add(level, EPOLLIN);
	add(edge, EPOLLIN | EPOLLET);
	add(once, EPOLLIN | EPOLLONESHOT);
	wait_on(level, 0);
	SHOW(accept(fd, NULL, NULL));

	int c = client();
	wait_on(level, 20000);
	wait_on(level, 0);
	wait_on(edge, 20000);
	wait_on(edge, 0);
	wait_on(once, 20000);
	wait_on(once, 0);
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	SHOW(poll(&p, 1, 20000));
	FD_ZERO(&in);
	FD_SET(fd, &in);
	SHOW(select(fd + 1, &in, NULL, NULL, NULL));
	take(c);
	wait_on(level, 0);
	SHOW(poll(&p, 1, 0));

	c = client();
	wait_on(edge, 20000);
	wait_on(once, 0);
	SHOW(epoll_ctl(once, EPOLL_CTL_MOD, fd, &again));
	wait_on(once, 20000);
	wait_on(once, 0);
	SHOW(epoll_ctl(level, EPOLL_CTL_DEL, fd, NULL));
	wait_on(level, 0);
	take(c);
	close(fd);
	wait_on(edge, 0);
	one_shot(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
