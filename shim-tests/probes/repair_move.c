/* A connection taken down by one process and built up by another, with bytes in all
 * of its queues: TCP_REPAIR. Either may be on either stack.
 *
 *   repair_move HOST PORT FILE down|up
 *
 * The peer program (peer.c) echoes. "down" connects, says FILE.ready, waits for
 * FILE.cut, by when no frame passes any more, and leaves FILE behind. "up" builds the
 * connection up from that, says FILE.built, and goes on to the end of the stream;
 * each byte that comes back is compared.
 */
#include "show.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/ioctl.h>

enum { RECV_QUEUE = 1, SEND_QUEUE = 2 };
enum { OPT_MSS = 2, OPT_WINDOW = 3, OPT_SACK = 4, OPT_TIMESTAMPS = 8 };
/* The stream, and how much of it is sent, and read, before the move. */
enum { STREAM = 300000, FIRST = 100000, READ = 60000, LOST = 40000, QUEUE = 1 << 18 };

struct dump {
	struct sockaddr_in here, there;
	uint32_t recv_seq, send_seq, timestamp;
	struct tcp_info info;
	struct tcp_repair_window window;
	int mss, unread, unacked, unsent;
	long sent, got;
	char received[QUEUE], queued[QUEUE];
};

static struct dump d;

static char byte_at(long position)
{
	return (char)(position * 31 + position / 251);
}

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

static void say(const char *file, const char *what)
{
	char path[512];
	snprintf(path, sizeof path, "%s.%s", file, what);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		err(1, "%s", path);
	close(fd);
}

static void await(const char *file, const char *what)
{
	char path[512];
	snprintf(path, sizeof path, "%s.%s", file, what);
	while (access(path, F_OK))
		poll(NULL, 0, 5);
}

/* The next bytes of the stream, up to `end`; or as many as there is room for. */
static void send_until(int fd, long end, int flags)
{
	static char buffer[65536];
	while (d.sent < end) {
		size_t n = end - d.sent < (long)sizeof buffer ? (size_t)(end - d.sent) : sizeof buffer;
		for (size_t i = 0; i < n; i++)
			buffer[i] = byte_at(d.sent + (long)i);
		ssize_t done = send(fd, buffer, n, flags | MSG_NOSIGNAL);
		if (done < 0 && errno == EAGAIN)
			return;
		if (done < 0)
			err(1, "send");
		d.sent += done;
	}
}

/* What comes back is the stream. */
static void read_until(int fd, long end)
{
	char buffer[65536];
	while (d.got < end) {
		size_t n = end - d.got < (long)sizeof buffer ? (size_t)(end - d.got) : sizeof buffer;
		ssize_t done = recv(fd, buffer, n, 0);
		if (done <= 0)
			err(1, "recv gave %zd after %ld", done, d.got);
		for (ssize_t i = 0; i < done; i++)
			if (buffer[i] != byte_at(d.got + i))
				errx(1, "byte %ld differs", d.got + i);
		d.got += done;
	}
}

static void peek(int fd, int queue, char *into, int length)
{
	set(fd, TCP_REPAIR_QUEUE, queue);
	if (length > QUEUE)
		errx(1, "%d bytes in a queue", length);
	if (length && recv(fd, into, QUEUE, MSG_PEEK | MSG_DONTWAIT) != length)
		err(1, "peek at queue %d", queue);
}

static void take_down(const char *host, int port, const char *file)
{
	int fd = peer(host, port, "echo");
	send_until(fd, FIRST, 0);
	read_until(fd, READ);
	/* The rest of the echo lies unread. */
	for (d.unread = 0; d.unread < FIRST - READ;)
		if (ioctl(fd, SIOCINQ, &d.unread))
			err(1, "SIOCINQ");
	for (d.unacked = 1; d.unacked;)
		if (ioctl(fd, SIOCOUTQ, &d.unacked))
			err(1, "SIOCOUTQ");
	say(file, "ready");
	await(file, "cut");
	send_until(fd, FIRST + LOST, MSG_DONTWAIT);
	set(fd, TCP_REPAIR, 1);
	socklen_t length = sizeof d.here;
	if (getsockname(fd, (struct sockaddr *)&d.here, &length) ||
	    getpeername(fd, (struct sockaddr *)&d.there, &length) || ioctl(fd, SIOCINQ, &d.unread) ||
	    ioctl(fd, SIOCOUTQ, &d.unacked) || ioctl(fd, SIOCOUTQNSD, &d.unsent))
		err(1, "addresses and queues");
	peek(fd, RECV_QUEUE, d.received, d.unread);
	get(fd, TCP_QUEUE_SEQ, &d.recv_seq, sizeof d.recv_seq);
	peek(fd, SEND_QUEUE, d.queued, d.unacked);
	get(fd, TCP_QUEUE_SEQ, &d.send_seq, sizeof d.send_seq);
	get(fd, TCP_TIMESTAMP, &d.timestamp, sizeof d.timestamp);
	get(fd, TCP_INFO, &d.info, sizeof d.info);
	get(fd, TCP_MAXSEG, &d.mss, sizeof d.mss);
	get(fd, TCP_REPAIR_WINDOW, &d.window, sizeof d.window);
	close(fd);
	FILE *out = fopen(file, "w");
	if (!out || fwrite(&d, sizeof d, 1, out) != 1 || fclose(out))
		err(1, "%s", file);
	printf("unread %d, queued %d\n", d.unread, d.unacked > 0);
}

static void fill(int fd, const char *bytes, int length)
{
	for (int done = 0; done < length;) {
		int next = length - done < 4096 ? length - done : 4096;
		ssize_t n = send(fd, bytes + done, (size_t)next, 0);
		if (n < 0)
			err(1, "filling a queue");
		done += (int)n;
	}
}

static int build_up(void)
{
	struct tcp_repair_opt options[4];
	unsigned n = 0;
	int on = 1, room = 4 * QUEUE, fd = tcp_socket();
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room))
		err(1, "socket");
	set(fd, TCP_REPAIR, 1);
	if (bind(fd, (struct sockaddr *)&d.here, sizeof d.here))
		err(1, "bind");
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)(d.recv_seq - (uint32_t)d.unread));
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)(d.send_seq - (uint32_t)d.unacked));
	if (connect(fd, (struct sockaddr *)&d.there, sizeof d.there))
		err(1, "connect");
	if (d.info.tcpi_options & TCPI_OPT_SACK)
		options[n++] = (struct tcp_repair_opt){OPT_SACK, 0};
	if (d.info.tcpi_options & TCPI_OPT_WSCALE)
		options[n++] = (struct tcp_repair_opt){
			OPT_WINDOW, d.info.tcpi_snd_wscale | (uint32_t)d.info.tcpi_rcv_wscale << 16};
	if (d.info.tcpi_options & TCPI_OPT_TIMESTAMPS)
		options[n++] = (struct tcp_repair_opt){OPT_TIMESTAMPS, 0};
	options[n++] = (struct tcp_repair_opt){OPT_MSS, (uint32_t)d.mss};
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, n * sizeof *options))
		err(1, "TCP_REPAIR_OPTIONS");
	set(fd, TCP_TIMESTAMP, (int)d.timestamp);
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	fill(fd, d.received, d.unread);
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	fill(fd, d.queued, d.unacked - d.unsent);
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &d.window, sizeof d.window))
		err(1, "TCP_REPAIR_WINDOW");
	set(fd, TCP_REPAIR, 0);
	fill(fd, d.queued + (d.unacked - d.unsent), d.unsent);
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "usage: repair_move HOST PORT FILE down|up");
	if (!strcmp(argv[4], "down")) {
		take_down(argv[1], atoi(argv[2]), argv[3]);
		return 0;
	}
	FILE *in = fopen(argv[3], "r");
	if (!in || fread(&d, sizeof d, 1, in) != 1)
		err(1, "%s", argv[3]);
	int fd = build_up();
	say(argv[3], "built");
	while (d.sent < STREAM) {
		send_until(fd, d.sent + 20000 < STREAM ? d.sent + 20000 : STREAM, 0);
		read_until(fd, d.got + 20000);
	}
	shutdown(fd, SHUT_WR);
	read_until(fd, STREAM);
	char byte;
	printf("%ld bytes sent, %ld back, then %zd\n", d.sent, d.got, recv(fd, &byte, 1, 0));
	close(fd);
	return 0;
}
