/* A listener that is closed while its connection is at work, and bound again at
 * once, on the same address and on another; two listeners at one port; and two
 * connections to different hosts from one local port.
 *
 *   rebind HOST PORT     the peer program listens there
 *
 * The peer host also has the address after HOST (192.0.2.2 and 192.0.2.3).
 */
#include "show.h"

static int listen_again(int port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1, fd = tcp_socket();
	SHOW(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(listen(fd, 4));
	return fd;
}

static void exchange(const char *what, int fd)
{
	static char out[100000], in[sizeof out];
	memset(out, 'o', sizeof out);
	size_t sent = 0, got = 0;
	/* As much as the peer echoes without our reading must fit: take turns. */
	while (got < sizeof out) {
		size_t next = sizeof out - sent < 10000 ? sizeof out - sent : 10000;
		if (next && send(fd, out + sent, next, MSG_NOSIGNAL) != (ssize_t)next)
			err(2, "%s: send", what);
		sent += next;
		ssize_t n = recv(fd, in + got, sent - got, 0);
		if (n <= 0)
			err(2, "%s: recv", what);
		got += (size_t)n;
	}
	printf("%s: %zu bytes, same %d\n", what, got, !memcmp(out, in, sizeof out));
	fflush(stdout);
}

static void listener_closed(const char *host, int port)
{
	int own_port = 7071;
	puts("# a listener closed in mid-transfer");
	int first = listen_again(own_port);
	int a = called_back(first, host, port, own_port);
	exchange("before", a);
	send_text(a, "under way");
	SHOW(close(first));
	int second = listen_again(own_port);
	char buffer[16];
	receive_exactly(a, buffer, 9);
	printf("%.9s\n", buffer);
	int b = called_back(second, host, port, own_port);
	exchange("the new one", b);
	exchange("the old one", a);
	SHOW(close(a));
	SHOW(close(second));
	exchange("the new one, without a listener", b);
	SHOW(close(b));
	int third = listen_again(own_port);
	SHOW(close(third));
}

/* It gives its port up, and its connection lives on there. */
static void listener_dissolved(const char *host, int port)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	struct sockaddr_in now;
	socklen_t length = sizeof now;
	int first, l = listener(4, &first);
	puts("# a listener at a port of the kernel's choice, dissolved in mid-transfer");
	int a = called_back(l, host, port, first);
	exchange("before", a);
	SHOW(connect(l, &nobody, sizeof nobody));
	SHOW(listen(l, 4));
	SHOW(getsockname(l, (struct sockaddr *)&now, &length));
	printf("at another port: %d\n", ntohs(now.sin_port) != first);
	int b = called_back(l, host, port, ntohs(now.sin_port));
	exchange("the new one", b);
	exchange("the old one", a);
	SHOW(close(a));
	SHOW(close(b));
	SHOW(close(l));
}

static int bound(const char *at, int port)
{
	struct sockaddr_in a = address(at, port);
	int on = 1, fd = tcp_socket();
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) || bind(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "bind %s", at);
	return fd;
}

/* Bound while nobody listens, two sockets share a port; one of them may listen. */
static void two_listeners(const char *near)
{
	const char *const any = "0.0.0.0", *const pairs[][2] = {{any, any}, {any, near}, {near, any}, {near, near}};
	puts("# two listeners at one port");
	for (int i = 0; i < 4; i++) {
		int first = bound(pairs[i][0], 7073), second = bound(pairs[i][1], 7073);
		SHOW(listen(first, 4));
		SHOW(listen(second, 4));
		SHOW(close(first));
		SHOW(listen(second, 4));
		SHOW(close(second));
	}
}

/* A listener on all addresses makes room for one on one of them. */
static void narrower(const char *near, const char *host, int port)
{
	puts("# a listener on all addresses, then on one");
	int all = bound("0.0.0.0", 7074);
	SHOW(listen(all, 4));
	int a = called_back(all, host, port, 7074);
	SHOW(close(all));
	int one = bound(near, 7074);
	SHOW(listen(one, 4));
	int b = called_back(one, host, port, 7074);
	exchange("the new one", b);
	exchange("the old one", a);
	SHOW(close(a));
	SHOW(close(b));
	SHOW(close(one));
}

static int from_port(int local, const char *host, int port)
{
	struct sockaddr_in here = address("0.0.0.0", local), there = address(host, port);
	int on = 1, fd = tcp_socket();
	SHOW(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	SHOW(bind(fd, (struct sockaddr *)&here, sizeof here));
	if (SHOW(connect(fd, (struct sockaddr *)&there, sizeof there)) == 0)
		send_text(fd, "echo\n");
	return fd;
}

static void two_remotes(const char *host, int port)
{
	puts("# two remotes from one local port");
	int a = from_port(7072, host, port), b = from_port(7072, "192.0.2.3", port);
	exchange("the first", a);
	exchange("the second", b);
	/* The same four-tuple again. */
	int c = from_port(7072, host, port);
	SHOW(close(c));
	exchange("the first, afterwards", a);
	SHOW(close(a));
	exchange("the second, alone", b);
	SHOW(close(b));
}

int main(int argc, char **argv)
{
	struct sockaddr_in here;
	socklen_t length = sizeof here;
	char near[INET_ADDRSTRLEN];
	if (argc != 3)
		errx(2, "usage: rebind HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "close");
	if (getsockname(fd, (struct sockaddr *)&here, &length))
		err(2, "getsockname");
	inet_ntop(AF_INET, &here.sin_addr, near, sizeof near);
	close(fd);
	listener_closed(argv[1], atoi(argv[2]));
	listener_dissolved(argv[1], atoi(argv[2]));
	two_listeners(near);
	narrower(near, argv[1], atoi(argv[2]));
	two_remotes(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
