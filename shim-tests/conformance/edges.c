/* Edges of EPOLLOUT: a connect, room in the send buffer, TCP_NOTSENT_LOWAT (rows RD-35
 * to RD-37, H3).
 *
 *   edges HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>

static const char *host;
static int port;
static char data[1 << 20];

static int watch(int fd)
{
	int e = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	if (e < 0 || epoll_ctl(e, EPOLL_CTL_ADD, fd, &event))
		err(2, "epoll");
	return e;
}

static unsigned edge(int e, int timeout)
{
	struct epoll_event event = {0};
	return epoll_wait(e, &event, 1, timeout) == 1 ? event.events : 0;
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

static void set(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof value))
		err(2, "option %d", name);
}

static int quiet_connection(const char *command)
{
	int fd = peer(host, port, command);
	wait_until_acked(fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void connecting(void)
{
	struct sockaddr_in a = address(host, port), nobody = address(host, 9);
	int fd = tcp_socket();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	int e = watch(fd);
	row("RD-37", "fresh: %#x", edge(e, 0));
	ROW("RD-37", "connect", connect(fd, (struct sockaddr *)&a, sizeof a));
	row("RD-37", "connected: %#x", edge(e, 20000));
	row("RD-37", "nothing new: %#x", edge(e, 0));
	close(e);
	close(fd);
	fd = tcp_socket();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	e = watch(fd);
	edge(e, 0);
	ROW("RD-37", "connect to nobody", connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	row("RD-37", "refused: %#x", edge(e, 20000));
	close(e);
	close(fd);
}

/* Acknowledgements alone are no edge: only a limit that was hit before. */
static void room(void)
{
	int fd = quiet_connection("discard"), e = watch(fd);
	row("RD-35", "room at first: %#x", edge(e, 0));
	send_text(fd, "x");
	wait_until_acked(fd);
	row("RD-35", "one byte sent and acknowledged: %#x", edge(e, 0));
	set(fd, SOL_SOCKET, SO_SNDBUF, 10000);
	edge(e, 0);
	ssize_t n;
	do
		n = send(fd, data, 3000, MSG_MORE);
	while (n > 0);
	ROW("RD-35 H3 SP-22", "the buffer full", n);
	row("RD-35 H3", "room again: %#x", edge(e, 20000));
	row("RD-35", "nothing new: %#x", (wait_until_acked(fd), edge(e, 0)));
	ROW("RD-35", "a send then", send(fd, data, 100, 0));
	close(e);
	close(fd);
}

/* A poller, too, asks to be told. */
static void polled(void)
{
	int fd = quiet_connection("discard"), e = watch(fd);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	edge(e, 0);
	set(fd, SOL_SOCKET, SO_SNDBUF, 10000);
	edge(e, 0);
	int polled = 1;
	while (polled == 1 && send(fd, data, 1000, 0) > 0)
		polled = poll(&p, 1, 0);
	row("RD-35 H3", "after a poll without room, or a send that failed: %#x", edge(e, 20000));
	close(e);
	close(fd);
}

/* Until the peer's window is shut and the queue takes nothing more. */
static void fill(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	for (;;) {
		while (send(fd, data, sizeof data, 0) > 0)
			;
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
			err(2, "TCP_INFO");
		if (!info.tcpi_unacked && queued(fd, SIOCOUTQNSD) > 0 &&
		    send(fd, data, 1, 0) < 0)
			return;
		poll(NULL, 0, 1);
	}
}

static void unsent_limit(void)
{
	int fd = quiet_connection("hold");
	set(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20);
	set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1);
	fill(fd);
	int e = watch(fd);
	row("RD-36 F3", "more is unsent than TCP_NOTSENT_LOWAT allows: %#x", edge(e, 0));
	ROW("RD-36 F3", "a send", send(fd, data, 100, 0));
	set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 30);
	row("RD-36", "TCP_NOTSENT_LOWAT set higher: %#x", edge(e, 20000));
	ROW("RD-36", "a send then", send(fd, data, 100, 0));
	set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 30);
	row("RD-36", "set again: %#x", edge(e, 0));
	set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1);
	row("RD-36", "set lower: %#x", edge(e, 0));
	close(e);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	connecting();
	room();
	polled();
	unsent_limit();
	puts("done");
	return 0;
}
