/* Takes a live connection down and builds it up again, without a word to the peer:
 * TCP_REPAIR, by which CRIU moves connections between machines. Between the two halves
 * of a line the socket is dumped, closed in silence, and restored into a new one. Takes
 * CAP_NET_ADMIN.
 *
 *   repair_dump HOST PORT LINE
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECV_QUEUE = 1, SEND_QUEUE = 2 };
/* Codes of struct tcp_repair_opt: the TCP options' own numbers. */
enum { OPT_MSS = 2, OPT_WINDOW = 3, OPT_SACK = 4, OPT_TIMESTAMPS = 8 };

struct dump {
	struct sockaddr_in here, there;
	uint32_t recv_seq, send_seq, timestamp;
	struct tcp_info info;
	struct tcp_repair_window window;
	int mss;
};

static void set(int fd, int option, int value)
{
	if (setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value))
		err(1, "TCP option %d", option);
}

static void get(int fd, int option, void *value, socklen_t length)
{
	if (getsockopt(fd, IPPROTO_TCP, option, value, &length))
		err(1, "TCP option %d", option);
}

static void take_down(int fd, struct dump *d)
{
	socklen_t length = sizeof d->here;
	set(fd, TCP_REPAIR, 1);
	if (getsockname(fd, (struct sockaddr *)&d->here, &length) ||
	    getpeername(fd, (struct sockaddr *)&d->there, &length))
		err(1, "addresses");
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	get(fd, TCP_QUEUE_SEQ, &d->recv_seq, sizeof d->recv_seq);
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	get(fd, TCP_QUEUE_SEQ, &d->send_seq, sizeof d->send_seq);
	get(fd, TCP_TIMESTAMP, &d->timestamp, sizeof d->timestamp);
	get(fd, TCP_INFO, &d->info, sizeof d->info);
	get(fd, TCP_MAXSEG, &d->mss, sizeof d->mss);
	get(fd, TCP_REPAIR_WINDOW, &d->window, sizeof d->window);
	/* In repair, close sends nothing. */
	close(fd);
}

static int build_up(const struct dump *d)
{
	struct tcp_repair_opt options[4];
	unsigned int n = 0;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on))
		err(1, "socket");
	set(fd, TCP_REPAIR, 1);
	if (bind(fd, (const struct sockaddr *)&d->here, sizeof d->here))
		err(1, "bind");
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)d->recv_seq);
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)d->send_seq);
	/* In repair, connect establishes without a handshake. */
	if (connect(fd, (const struct sockaddr *)&d->there, sizeof d->there))
		err(1, "connect");
	if (d->info.tcpi_options & TCPI_OPT_SACK)
		options[n++] = (struct tcp_repair_opt){OPT_SACK, 0};
	if (d->info.tcpi_options & TCPI_OPT_WSCALE)
		options[n++] = (struct tcp_repair_opt){
			OPT_WINDOW, d->info.tcpi_snd_wscale | (uint32_t)d->info.tcpi_rcv_wscale << 16};
	if (d->info.tcpi_options & TCPI_OPT_TIMESTAMPS)
		options[n++] = (struct tcp_repair_opt){OPT_TIMESTAMPS, 0};
	options[n++] = (struct tcp_repair_opt){OPT_MSS, (uint32_t)d->mss};
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, n * sizeof *options))
		err(1, "TCP_REPAIR_OPTIONS");
	set(fd, TCP_TIMESTAMP, (int)d->timestamp);
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &d->window, sizeof d->window))
		err(1, "TCP_REPAIR_WINDOW");
	/* Out of repair, with a window probe that makes the peer say where it is. */
	set(fd, TCP_REPAIR, 0);
	return fd;
}

/* Sends, and waits for the same from the peer. */
static void echo(int fd, const char *text, size_t length)
{
	char answer[512];
	if (send(fd, text, length, 0) != (ssize_t)length)
		err(1, "send");
	for (size_t got = 0; got < length;) {
		ssize_t n = recv(fd, answer, sizeof answer, 0);
		if (n <= 0)
			err(1, "recv");
		printf("%.*s", (int)n, answer);
		got += (size_t)n;
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: repair_dump HOST PORT LINE");
	struct dump d = {0};
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	size_t length = strlen(argv[3]), half = length / 2;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	echo(fd, argv[3], half);
	/* Everything is read and acknowledged: otherwise the queues would be dumped, too. */
	take_down(fd, &d);
	fd = build_up(&d);
	echo(fd, argv[3] + half, length - half);
	putchar('\n');
	close(fd);
	return 0;
}
