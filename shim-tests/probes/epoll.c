/* epoll: level, edge, one-shot, nested, mixed with other descriptors.
 *
 *   epoll HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { MOST = 8, TIMEOUT = 20000 };

static const char *host;
static int port;

static int by_data(const void *a, const void *b)
{
	const struct epoll_event *x = a, *y = b;
	return (x->data.u64 > y->data.u64) - (x->data.u64 < y->data.u64);
}

/* Waits and prints what came, in the order of the data. */
static int ready(int ep, int timeout)
{
	struct epoll_event got[MOST];
	int n = epoll_wait(ep, got, MOST, timeout);
	printf("epoll_wait %d", n);
	if (n > 0)
		qsort(got, (size_t)n, sizeof *got, by_data);
	for (int i = 0; i < n; i++)
		printf(" [%llx: %#x]", (unsigned long long)got[i].data.u64, got[i].events);
	puts("");
	return n;
}

static int control(int ep, int operation, int fd, unsigned events, unsigned long long data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};
	return epoll_ctl(ep, operation, fd, &e);
}

#define ADD(ep, fd, events, data) SHOW(control(ep, EPOLL_CTL_ADD, fd, events, data))
#define MOD(ep, fd, events, data) SHOW(control(ep, EPOLL_CTL_MOD, fd, events, data))
#define DEL(ep, fd) SHOW(control(ep, EPOLL_CTL_DEL, fd, 0, 0))

static void level(void)
{
	char buffer[8];
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = peer(host, port, "echo");
	puts("# level");
	ADD(ep, fd, EPOLLIN, 0xdeadbeefcafe0001ull);
	ADD(ep, fd, EPOLLIN, 1);
	ready(ep, 0);
	send_text(fd, "abc");
	ready(ep, TIMEOUT);
	ready(ep, TIMEOUT);
	receive_exactly(fd, buffer, 2);
	ready(ep, TIMEOUT);
	receive_exactly(fd, buffer, 1);
	ready(ep, 0);
	MOD(ep, fd, EPOLLIN | EPOLLOUT, 2);
	ready(ep, TIMEOUT);
	MOD(ep, fd, 0, 3);
	ready(ep, 0);
	MOD(ep, fd, EPOLLIN | EPOLLRDHUP, 4);
	shutdown(fd, SHUT_WR);
	wait_for(fd, POLLRDHUP);
	ready(ep, TIMEOUT);
	DEL(ep, fd);
	DEL(ep, fd);
	MOD(ep, fd, EPOLLIN, 5);
	ready(ep, 0);
	ADD(ep, fd, EPOLLIN, 6);
	ready(ep, TIMEOUT);
	close(fd);
	ready(ep, 0);
	close(ep);
}

static void edge(void)
{
	char buffer[8];
	int ep = epoll_create(1), fd = peer(host, port, "echo");
	puts("# edge");
	ADD(ep, fd, EPOLLIN | EPOLLET, 1);
	ready(ep, 0);
	send_text(fd, "abc");
	ready(ep, TIMEOUT);
	ready(ep, 0);
	receive_exactly(fd, buffer, 1);
	ready(ep, 0);
	send_text(fd, "d");
	ready(ep, TIMEOUT);
	receive_exactly(fd, buffer, 3);
	ready(ep, 0);
	send_text(fd, "e");
	wait_for(fd, POLLIN);
	MOD(ep, fd, EPOLLIN | EPOLLET, 2);
	ready(ep, TIMEOUT);
	ready(ep, 0);
	MOD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLET, 3);
	ready(ep, TIMEOUT);
	ready(ep, 0);
	close(fd);
	close(ep);
}

static void one_shot(void)
{
	char buffer[8];
	int ep = epoll_create1(0), fd = peer(host, port, "echo");
	puts("# one shot");
	ADD(ep, fd, EPOLLIN | EPOLLONESHOT, 1);
	send_text(fd, "abc");
	ready(ep, TIMEOUT);
	ready(ep, 0);
	send_text(fd, "d");
	receive_exactly(fd, buffer, 1);
	ready(ep, 0);
	MOD(ep, fd, EPOLLIN | EPOLLONESHOT, 2);
	ready(ep, TIMEOUT);
	ready(ep, 0);
	close(fd);
	close(ep);
}

static void mixed(void)
{
	char buffer[64], command[32];
	int own_port, ep = epoll_create1(0), pipes[2], counter = eventfd(0, EFD_NONBLOCK);
	int server = listener(4, &own_port), fd = peer(host, port, "echo");
	if (pipe(pipes))
		err(2, "pipe");
	puts("# mixed");
	ADD(ep, pipes[0], EPOLLIN, 1);
	ADD(ep, counter, EPOLLIN, 2);
	ADD(ep, fd, EPOLLIN, 3);
	ADD(ep, server, EPOLLIN, 4);
	ready(ep, 0);
	ready(ep, 10);
	if (write(pipes[1], "x", 1) != 1 || eventfd_write(counter, 1))
		err(2, "write");
	ready(ep, TIMEOUT);
	send_text(fd, "abc");
	wait_for(fd, POLLIN);
	ready(ep, TIMEOUT);
	snprintf(command, sizeof command, "call %d", own_port);
	close(peer(host, port, command));
	wait_for(server, POLLIN);
	ready(ep, TIMEOUT);
	int connection = accept(server, NULL, NULL);
	eventfd_t count;
	if (read(pipes[0], buffer, 1) != 1 || eventfd_read(counter, &count))
		err(2, "read");
	receive_exactly(fd, buffer, 3);
	ready(ep, 0);
	ADD(ep, connection, EPOLLIN | EPOLLOUT, 5);
	wait_for(connection, POLLIN);
	ready(ep, TIMEOUT);

	/* A duplicate keeps the entry alive. */
	int twin = dup(fd);
	close(fd);
	send_text(twin, "d");
	wait_for(twin, POLLIN);
	DEL(ep, connection);
	ready(ep, TIMEOUT);
	close(twin);
	ready(ep, 0);

	/* More ready than fit. */
	struct epoll_event one[1];
	ADD(ep, connection, EPOLLOUT, 6);
	eventfd_write(counter, 1);
	SHOW(epoll_wait(ep, one, 1, TIMEOUT));
	SHOW(epoll_wait(ep, one, 0, 0));
	SHOW(epoll_wait(connection, one, 1, 0));
	SHOW(epoll_wait(-1, one, 1, 0));
	ADD(ep, ep, EPOLLIN, 1);
	ADD(ep, -1, EPOLLIN, 1);
	SHOW(epoll_ctl(ep, 99, connection, one));
	close(connection);
	close(server);
	close(counter);
	close(pipes[0]);
	close(pipes[1]);
	close(ep);
}

static void nested(void)
{
	char buffer[8];
	int outer = epoll_create1(0), inner = epoll_create1(0), fd = peer(host, port, "echo");
	puts("# nested");
	ADD(inner, fd, EPOLLIN, 1);
	ADD(outer, inner, EPOLLIN, 2);
	ready(outer, 0);
	send_text(fd, "a");
	ready(outer, TIMEOUT);
	struct pollfd p = {.fd = inner, .events = POLLIN};
	SHOW(poll(&p, 1, TIMEOUT));
	ready(inner, TIMEOUT);
	receive_exactly(fd, buffer, 1);
	ready(inner, 0);
	ready(outer, 0);
	close(fd);
	close(inner);
	close(outer);
}

static void states(void)
{
	char buffer[8];
	int ep = epoll_create1(0), fd = tcp_socket();
	struct sockaddr_in closed = address(host, 9), open = address(host, port);
	puts("# states");
	ADD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 1);
	ready(ep, 0);
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ADD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 2);
	ready(ep, 0);
	SHOW(connect(fd, (struct sockaddr *)&open, sizeof open));
	wait_for(fd, POLLOUT);
	ready(ep, TIMEOUT);
	send_text(fd, "finish 2\n");
	wait_for(fd, POLLRDHUP);
	receive_exactly(fd, buffer, 2);
	MOD(ep, fd, EPOLLIN | EPOLLRDHUP, 3);
	ready(ep, TIMEOUT);
	shutdown(fd, SHUT_WR);
	wait_for(fd, POLLHUP);
	MOD(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 4);
	ready(ep, TIMEOUT);
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof closed));
	ADD(ep, fd, EPOLLOUT, 5);
	wait_for(fd, POLLOUT);
	ready(ep, TIMEOUT);
	close(fd);

	fd = peer(host, port, "reset");
	wait_for(fd, POLLERR);
	ADD(ep, fd, EPOLLIN, 6);
	ready(ep, TIMEOUT);
	close(fd);
	ready(ep, 0);
	close(ep);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: epoll HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	level();
	edge();
	one_shot();
	mixed();
	nested();
	states();
	puts("done");
	return 0;
}
