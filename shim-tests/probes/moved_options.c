/* What a connection's options are before and after another process shares it: those that it took over from its listener, and
 * those that were set on it. Then that the port can be bound again.
 *
 *   moved_options HOST PORT     the peer program listens there
 */
#include "show.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <sys/wait.h>

static const struct option {
	const char *name;
	int level, option, value;
} options[] = {
	{"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1},
	{"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1},
	{"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1},
	{"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 30000},
	{"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 40000},
	{"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 3},
	{"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 3},
	{"SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 1},
	{"IP_TOS", IPPROTO_IP, IP_TOS, 0x10},
	{"IP_TTL", IPPROTO_IP, IP_TTL, 77},
	{"IP_RECVERR", IPPROTO_IP, IP_RECVERR, 1},
	{"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1},
	{"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 99},
	{"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 33},
	{"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 4},
	{"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 20},
	{"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
	{"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 70000},
	{"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 3},
};

static void set(int fd)
{
	struct linger linger = {1, 5};
	struct timeval t = {9, 0};
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof(int)))
			err(2, "%s", options[i].name);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static void show_all(const char *when, int fd)
{
	struct linger linger = {0};
	struct timeval t = {0};
	char name[16] = "";
	socklen_t length = sizeof linger;
	printf("# %s\n", when);
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		int value = -1;
		socklen_t n = sizeof value;
		getsockopt(fd, options[i].level, options[i].option, &value, &n);
		printf("%s = %d\n", options[i].name, value);
	}
	getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length);
	length = sizeof t;
	getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &length);
	length = sizeof name;
	getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length);
	printf("SO_LINGER = %d %d\nSO_RCVTIMEO = %ld\nTCP_CONGESTION = %s\n", linger.l_onoff, linger.l_linger,
	       (long)t.tv_sec, name);
	fflush(stdout);
}

static void fork_once(void)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
}

/* Options that are changed while there is a connection, and what is left of them when that becomes the kernel's. */
static void changed(const char *host, int port)
{
	struct sockaddr_in there = address(host, port);
	int fd = tcp_socket();
	set(fd);
	if (connect(fd, (struct sockaddr *)&there, sizeof there))
		err(2, "connect");
	option_set(fd, IPPROTO_TCP, TCP_NODELAY, 0);
	option_set(fd, IPPROTO_TCP, TCP_CORK, 1);
	option_set(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	option_set(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	option_set(fd, IPPROTO_IP, IP_TTL, 78);
	show_all("changed", fd);
	fork_once();
	show_all("changed, shared", fd);
	SHOW(option_of(fd, IPPROTO_TCP, TCP_CORK));
	close(fd);
}

/* The same of a socket whose next connection, or whose listener, is the kernel's. */
static void connected_anew(const char *host, int port, int listens)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int own_port, own = listener(1, &own_port), fd = peer(host, port, "echo");
	struct sockaddr_in here = address("127.0.0.1", own_port);
	set(fd);
	if (connect(fd, &none, sizeof none))
		err(2, "no connection any more");
	if (listens) {
		here.sin_port = 0;
		if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 1))
			err(2, "listen");
	} else if (connect(fd, (struct sockaddr *)&here, sizeof here)) {
		err(2, "connect to this host");
	}
	show_all(listens ? "listens to this host" : "connected to this host", fd);
	close(fd);
	close(own);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = address("0.0.0.0", 0);
	socklen_t length = sizeof a;
	char text[32];
	int on = 1, fd = tcp_socket();

	if (argc != 3)
		errx(2, "usage: moved_options HOST PORT");
	set(fd);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 5) || getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "listener");
	snprintf(text, sizeof text, "call %d", ntohs(a.sin_port));
	int asked = peer(argv[1], atoi(argv[2]), text);
	int one = accept(fd, NULL, NULL);
	show_all("accepted", one);
	fork_once();
	show_all("accepted, shared", one);
	show_all("the listener, shared", fd);

	int out = peer(argv[1], atoi(argv[2]), "echo");
	set(out);
	show_all("connected", out);
	fork_once();
	show_all("connected, shared", out);
	close(out);

	changed(argv[1], atoi(argv[2]));
	connected_anew(argv[1], atoi(argv[2]), 0);
	connected_anew(argv[1], atoi(argv[2]), 1);

	close(fd);
	/* With the connection alive, and in whatever state it is after it. */
	for (int i = 0; i < 2; i++) {
		int again = tcp_socket();
		SHOW(bind(again, (struct sockaddr *)&a, sizeof a));
		close(again);
		again = tcp_socket();
		setsockopt(again, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		SHOW(bind(again, (struct sockaddr *)&a, sizeof a));
		close(again);
		close(one);
	}
	close(asked);
	puts("done");
	return 0;
}
