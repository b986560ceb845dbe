/* TCP_REPAIR: what it takes, what it shows, and what a connection restored by it
 * does.
 *
 *   repair HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/tcp.h>
#include <stdint.h>
#include <signal.h>

enum { NO_QUEUE, RECV_QUEUE, SEND_QUEUE };

static const char *host;
static int port;

static long set(int fd, int name, int value)
{
	return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
}

static unsigned queue_seq(int fd, int queue)
{
	if (set(fd, TCP_REPAIR_QUEUE, queue))
		err(2, "TCP_REPAIR_QUEUE");
	return (unsigned)int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
}

static int connected(const char *command)
{
	int fd = peer(host, port, command);
	wait_until_acked(fd);
	return fd;
}

static void without_admin(void)
{
	int fd = tcp_socket();
	have_capability(CAP_NET_ADMIN, 0);
	for (int value = -1; value < 3; value++) {
		char text[64];
		snprintf(text, sizeof text, "TCP_REPAIR %d without CAP_NET_ADMIN", value);
		ROW("RP-1", text, set(fd, TCP_REPAIR, value));
	}
	have_capability(CAP_NET_ADMIN, 1);
	close(fd);
}

static void switching(void)
{
	int bound, l = listener(1, &bound), fd = tcp_socket();
	ROW("RP-1", "TCP_REPAIR on a listener", set(l, TCP_REPAIR, 1));
	close(l);
	ROW("RP-2 SO-58", "TCP_REPAIR 2", set(fd, TCP_REPAIR, 2));
	ROW("RP-2", "TCP_REPAIR -2", set(fd, TCP_REPAIR, -2));
	ROW("RP-5", "TCP_REPAIR before", int_option(fd, IPPROTO_TCP, TCP_REPAIR));
	ROW("RP-6", "TCP_REPAIR_QUEUE out of repair", set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE));
	ROW("RP-6", "reading TCP_REPAIR_QUEUE out of repair", int_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE));
	ROW("RP-4", "TCP_REPAIR on a fresh socket", set(fd, TCP_REPAIR, 1));
	row("RP-3", "SO_REUSEADDR in repair: %d", int_option(fd, SOL_SOCKET, SO_REUSEADDR));
	row("RP-3", "the queue: %d", int_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE));
	row("RP-5", "TCP_REPAIR: %d", int_option(fd, IPPROTO_TCP, TCP_REPAIR));
	ROW("RP-7", "TCP_REPAIR_QUEUE 3", set(fd, TCP_REPAIR_QUEUE, 3));
	ROW("RP-9", "TCP_QUEUE_SEQ without a queue", set(fd, TCP_QUEUE_SEQ, 1));
	ROW("RP-9", "reading it", int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ));
	ROW("RP-7", "TCP_REPAIR_QUEUE 2", set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE));
	ROW("RP-8", "TCP_QUEUE_SEQ on a closed socket", set(fd, TCP_QUEUE_SEQ, 12345));
	row("RP-11", "it reads: %d", int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ));
	ROW("RP-27", "send in repair, not connected", send(fd, "x", 1, MSG_NOSIGNAL));
	ROW("RP-34", "TCP_REPAIR -1", set(fd, TCP_REPAIR, -1));
	row("RP-3", "SO_REUSEADDR after: %d", int_option(fd, SOL_SOCKET, SO_REUSEADDR));
	row("RP-11", "the queue is remembered: %d", int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ));
	close(fd);
}

static void options(void)
{
	struct tcp_repair_opt mss = {2, 777}, scale = {3, 7 | 5 << 16}, wide = {3, 15}, sack = {4, 0},
			      sack_one = {4, 1}, stamps = {8, 0}, stamps_one = {8, 1}, unknown = {99, 5};
	int fd = connected("hold"), closed = tcp_socket();
	ROW("RP-14", "TCP_REPAIR_OPTIONS out of repair",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &mss, sizeof mss));
	ROW("RP-23", "TCP_TIMESTAMP out of repair", set(fd, TCP_TIMESTAMP, 5));
	row("RP-23", "reading TCP_TIMESTAMP works: %d", int_option(fd, IPPROTO_TCP, TCP_TIMESTAMP) != -1);
	set(fd, TCP_REPAIR, 1);
	ROW("RP-15", "TCP_REPAIR_OPTIONS after bytes were sent",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &mss, sizeof mss));
	set(fd, TCP_REPAIR, -1);
	close(fd);
	set(closed, TCP_REPAIR, 1);
	ROW("RP-15", "TCP_REPAIR_OPTIONS on a closed socket",
	    setsockopt(closed, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &mss, sizeof mss));
	struct sockaddr_in a = address(host, 9);
	ROW("RP-12", "connect in repair", connect(closed, (struct sockaddr *)&a, sizeof a));
	struct tcp_info info;
	socklen_t length = sizeof info;
	getsockopt(closed, IPPROTO_TCP, TCP_INFO, &info, &length);
	row("RP-12", "the state: %d", info.tcpi_state);
	ROW("RP-13", "connect again", connect(closed, (struct sockaddr *)&a, sizeof a));
	row("RP-17", "TCP_MAXSEG before: %d", int_option(closed, IPPROTO_TCP, TCP_MAXSEG) > 0);
	struct {
		const char *ids, *text;
		struct tcp_repair_opt opt;
	} all[] = {
		{"RP-18", "a window scale of 15", wide},
		{"RP-19", "SACK with a value", sack_one},
		{"RP-19", "timestamps with a value", stamps_one},
		{"RP-16", "an unknown code", unknown},
		{"RP-17", "the MSS", mss},
		{"RP-18", "the window scales", scale},
		{"RP-19", "SACK", sack},
		{"RP-19", "timestamps", stamps},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		ROW(all[i].ids, all[i].text,
		    setsockopt(closed, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &all[i].opt, sizeof all[i].opt));
	row("RP-17", "TCP_MAXSEG: %d", int_option(closed, IPPROTO_TCP, TCP_MAXSEG));
	struct tcp_repair_opt two[] = {{2, 888}, {4, 1}};
	ROW("RP-20", "two, the second is wrong",
	    setsockopt(closed, IPPROTO_TCP, TCP_REPAIR_OPTIONS, two, sizeof two));
	row("RP-20", "the first is in force: %d", int_option(closed, IPPROTO_TCP, TCP_MAXSEG));
	ROW("RP-16", "seven bytes", setsockopt(closed, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &mss, 7));
	ROW("RP-16", "eleven bytes", setsockopt(closed, IPPROTO_TCP, TCP_REPAIR_OPTIONS, two, 11));
	length = sizeof info;
	getsockopt(closed, IPPROTO_TCP, TCP_INFO, &info, &length);
	row("RP-18 RP-19", "tcpi_options %#x, scales %d and %d", info.tcpi_options, info.tcpi_snd_wscale,
	    info.tcpi_rcv_wscale);
	ROW("RP-23", "TCP_TIMESTAMP in repair", set(closed, TCP_TIMESTAMP, 5000));
	ROW("RP-36", "connect to nobody", connect(closed, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof a));
	row("RP-36", "SO_ERROR: %s", strerrorname_np(int_option(closed, SOL_SOCKET, SO_ERROR)));
	close(closed);
}

static void window(void)
{
	struct tcp_repair_window w, wrong;
	socklen_t length = sizeof w;
	int fd = connected("hold");
	ROW("RP-21", "reading the window, wrong length",
	    getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &(socklen_t){16}));
	ROW("RP-21", "reading the window out of repair",
	    getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &length));
	ROW("RP-21", "setting it out of repair", setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, 16));
	set(fd, TCP_REPAIR, 1);
	ROW("RP-21", "reading the window", getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &length));
	unsigned rcv_nxt = queue_seq(fd, RECV_QUEUE);
	row("RP-21", "length %u, max_window covers snd_wnd: %d, rcv_wup is rcv_nxt: %d", length,
	    w.max_window >= w.snd_wnd, w.rcv_wup == rcv_nxt);
	ROW("RP-21", "setting it, wrong length",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof w - 4));
	wrong = w;
	wrong.max_window = wrong.snd_wnd - 1;
	ROW("RP-22", "max_window below snd_wnd",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &wrong, sizeof wrong));
	wrong = w;
	wrong.snd_wl1 = rcv_nxt + wrong.rcv_wnd + 1;
	ROW("RP-22", "snd_wl1 behind the window",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &wrong, sizeof wrong));
	wrong = w;
	wrong.rcv_wup = rcv_nxt + 1;
	ROW("RP-22", "rcv_wup behind rcv_nxt",
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &wrong, sizeof wrong));
	ROW("RP-21", "setting what was read", setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof w));
	set(fd, TCP_REPAIR, -1);
	close(fd);
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

/* How much the receive queue of a connection takes, by sends of one size. */
static void filled(int bound, size_t size)
{
	static char bulk[40960];
	int fd = peer(host, port, "hold"), n = 0;
	if (bound)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bound, sizeof bound);
	set(fd, TCP_REPAIR, 1);
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	errno = 0;
	while (queued(fd, FIONREAD) < 4000000 && send(fd, bulk, size, 0) > 0)
		n++;
	row("RP-25", "sends of %zu to the receive queue, SO_RCVBUF %d: %d, then %s, %u of memory", size, bound, n,
	    errno ? strerrorname_np(errno) : "enough", meminfo(fd, SK_MEMINFO_RMEM_ALLOC));
	close(fd);
}

static void queues(void)
{
	char buffer[4096];
	static char pattern[1500];
	int fd = connected("echo");
	set(fd, TCP_REPAIR, 1);
	ROW("RP-24 B9", "send without a queue", send(fd, "x", 1, 0));
	ROW("RP-28 R4", "recv", recv(fd, buffer, 10, MSG_DONTWAIT));
	ROW("RP-29", "peek without a queue", recv(fd, buffer, 10, MSG_PEEK | MSG_DONTWAIT));
	ROW("RP-8", "TCP_QUEUE_SEQ on a connection", (set(fd, TCP_REPAIR_QUEUE, 1), set(fd, TCP_QUEUE_SEQ, 1)));
	unsigned before = queue_seq(fd, RECV_QUEUE);
	ROW("RP-25 B9", "send to the receive queue", send(fd, "hello", 5, 0));
	row("RP-25 RP-11", "rcv_nxt moved by: %u", queue_seq(fd, RECV_QUEUE) - before);
	ROW("RP-25", "no bytes to the receive queue", send(fd, "", 0, 0));
	memset(buffer, 0, sizeof buffer);
	ROW("RP-30", "peek at the receive queue", recv(fd, buffer, 10, MSG_PEEK | MSG_DONTWAIT));
	row("RP-30", "its bytes: %s", buffer);
	row("RP-30", "FIONREAD: %d", queued(fd, FIONREAD));
	static const size_t sizes[] = {100, 576, 577, 4000, 4096, 8192, 12288, 20000, 40960};
	static char bulk[40960];
	row("RP-25", "its memory: %u", meminfo(fd, SK_MEMINFO_RMEM_ALLOC));
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		ROW("RP-25", "more to the receive queue", send(fd, bulk, sizes[i], 0));
		row("RP-25", "its memory: %u", meminfo(fd, SK_MEMINFO_RMEM_ALLOC));
	}
	static const int bounds[] = {0, 30000, 200000};
	for (size_t b = 0; b < 3; b++)
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i += 2)
			filled(bounds[b], sizes[i]);
	before = queue_seq(fd, SEND_QUEUE);
	memset(pattern, 'p', sizeof pattern);
	ROW("RP-26", "send to the send queue", send(fd, pattern, sizeof pattern, 0));
	row("RP-26 RP-11", "write_seq moved by: %u", queue_seq(fd, SEND_QUEUE) - before);
	row("RP-26", "SIOCOUTQ %d, SIOCOUTQNSD %d", queued(fd, SIOCOUTQ), queued(fd, SIOCOUTQNSD));
	memset(buffer, 0, sizeof buffer);
	ROW("RP-31", "peek at the send queue", recv(fd, buffer, 10, MSG_PEEK | MSG_DONTWAIT));
	row("RP-31", "its bytes: %s", buffer);
	struct {
		struct cmsghdr header;
	} bad = {.header = {.cmsg_len = 3}};
	struct iovec part = {pattern, 3};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &bad, .msg_controllen = sizeof bad};
	ROW("RP-26", "a bad control message, send queue", sendmsg(fd, &message, 0));
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	ROW("RP-25 B9", "a bad control message, receive queue", sendmsg(fd, &message, 0));
	ROW("RP-37", "shutdown in repair", shutdown(fd, SHUT_RD));
	ROW("RP-35", "close in repair", close(fd));
}

/* Sequence numbers move only while nothing is queued. */
static void sequence_numbers(void)
{
	char bytes[4] = "abcd";
	struct sockaddr_in a = address(host, 9);
	int fd = tcp_socket();
	if (set(fd, TCP_REPAIR, 1) || connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect in repair");
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	ROW("RP-8 RP-10", "TCP_QUEUE_SEQ of an empty send queue, connected", set(fd, TCP_QUEUE_SEQ, 7000));
	ROW("RP-10", "bytes into the send queue", send(fd, bytes, 4, 0));
	ROW("RP-10", "TCP_QUEUE_SEQ of a send queue", set(fd, TCP_QUEUE_SEQ, 7000));
	ROW("RP-10", "bytes into the receive queue", (set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE), send(fd, bytes, 4, 0)));
	ROW("RP-10", "TCP_QUEUE_SEQ of a receive queue", set(fd, TCP_QUEUE_SEQ, 7000));
	connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof a);
	ROW("RP-10 SO-58", "disconnected, TCP_QUEUE_SEQ of the receive queue", set(fd, TCP_QUEUE_SEQ, 7000));
	ROW("RP-10 SO-58", "it reads", int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ));
	set(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	ROW("RP-10 SO-58", "disconnected, TCP_QUEUE_SEQ of the send queue", set(fd, TCP_QUEUE_SEQ, 8000));
	ROW("RP-10 SO-58", "it reads", int_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ));
	close(fd);

	fd = connected("steps say=data await reset");
	send_text(fd, "x");
	wait_for(fd, POLLHUP);
	set(fd, TCP_REPAIR, 1);
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	ROW("RP-10", "reset with data unread, TCP_QUEUE_SEQ", set(fd, TCP_QUEUE_SEQ, 7000));
	close(fd);
}

/* What is put into the receive queue comes behind what the peer sent. */
static void data_before(void)
{
	char buffer[32] = {0};
	int fd = connected("steps await say=0123456789 await");
	send_text(fd, "x");
	wait_until_acked(fd);
	wait_for(fd, POLLIN);
	set(fd, TCP_REPAIR, 1);
	set(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	ROW("RP-32 B9 R4", "peek at what had come", recv(fd, buffer, sizeof buffer, MSG_PEEK));
	ROW("RP-32 B9", "bytes behind it", send(fd, "abc", 3, 0));
	memset(buffer, 0, sizeof buffer);
	ROW("RP-32 R4", "peek at all", recv(fd, buffer, sizeof buffer, MSG_PEEK));
	row("RP-32 R4", "that is: %s", buffer);
	set(fd, TCP_REPAIR, -1);
	close(fd);
}

/* A listener is not repaired; what it accepts is. */
static void child(void)
{
	int bound, l = listener(1, &bound);
	char command[32];
	snprintf(command, sizeof command, "call %d", bound);
	int caller = peer(host, port, command), fd = accept(l, NULL, NULL);
	ROW("RP-38 RP-1", "TCP_REPAIR on the listener", set(l, TCP_REPAIR, 1));
	ROW("RP-38", "TCP_REPAIR on its child", set(fd, TCP_REPAIR, 1));
	row("RP-38", "it reads: %d", int_option(fd, IPPROTO_TCP, TCP_REPAIR));
	set(fd, TCP_REPAIR, -1);
	close(fd);
	close(l);
	close(caller);
	fd = tcp_socket();
	set(fd, TCP_REPAIR, 1);
	struct sockaddr_in any = address("0.0.0.0", 0);
	ROW("RP-38", "bind in repair", bind(fd, (struct sockaddr *)&any, sizeof any));
	ROW("RP-38", "listen in repair", listen(fd, 1));
	ROW("RP-38 RP-1", "TCP_REPAIR on a listener in repair", set(fd, TCP_REPAIR, -1));
	row("RP-38", "the listener reads: %d", int_option(fd, IPPROTO_TCP, TCP_REPAIR));
	close(fd);
}

/* Takes a connection out of one socket and puts it into another. */
static int moved(int from, struct sockaddr_in *local, struct sockaddr_in *remote)
{
	socklen_t length = sizeof *local;
	struct tcp_info info;
	struct tcp_repair_window w;
	if (getsockname(from, (struct sockaddr *)local, &length) ||
	    getpeername(from, (struct sockaddr *)remote, &length))
		err(2, "names");
	length = sizeof info;
	if (set(from, TCP_REPAIR, 1) || getsockopt(from, IPPROTO_TCP, TCP_INFO, &info, &length))
		err(2, "TCP_INFO");
	length = sizeof w;
	if (getsockopt(from, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &length))
		err(2, "TCP_REPAIR_WINDOW");
	unsigned sent = queue_seq(from, SEND_QUEUE), received = queue_seq(from, RECV_QUEUE);
	int mss = int_option(from, IPPROTO_TCP, TCP_MAXSEG), stamp = int_option(from, IPPROTO_TCP, TCP_TIMESTAMP);
	close(from);
	int to = tcp_socket();
	if (set(to, TCP_REPAIR, 1) || bind(to, (struct sockaddr *)local, sizeof *local) ||
	    set(to, TCP_REPAIR_QUEUE, SEND_QUEUE) || set(to, TCP_QUEUE_SEQ, (int)sent) ||
	    set(to, TCP_REPAIR_QUEUE, RECV_QUEUE) || set(to, TCP_QUEUE_SEQ, (int)received) ||
	    connect(to, (struct sockaddr *)remote, sizeof *remote))
		err(2, "restoring");
	struct tcp_repair_opt opts[] = {
		{2, (unsigned)mss}, {3, info.tcpi_snd_wscale | (unsigned)info.tcpi_rcv_wscale << 16}, {4, 0}, {8, 0}};
	if (setsockopt(to, IPPROTO_TCP, TCP_REPAIR_OPTIONS, opts, sizeof opts) ||
	    set(to, TCP_TIMESTAMP, stamp) ||
	    setsockopt(to, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof w))
		err(2, "restoring options");
	return to;
}

static void restored(void)
{
	char buffer[64] = {0};
	struct sockaddr_in local, remote;
	int fd = connected("echo");
	send_text(fd, "before");
	receive_exactly(fd, buffer, 6);
	wait_until_acked(fd);
	int to = moved(fd, &local, &remote);
	ROW("RP-33", "TCP_REPAIR 0", set(to, TCP_REPAIR, 0));
	row("RP-3", "SO_REUSEADDR after 0: %d", int_option(to, SOL_SOCKET, SO_REUSEADDR));
	send_text(to, "after");
	receive_exactly(to, buffer, 5);
	row("RP-12 RP-17 RP-18 RP-21 RP-33", "a restored connection echoes: %.5s", buffer);
	/* Bytes that were sent before it moved arrive once. */
	set(to, TCP_REPAIR, 1);
	set(to, TCP_REPAIR_QUEUE, SEND_QUEUE);
	ROW("RP-26", "bytes as if sent", send(to, "again", 5, 0));
	ROW("RP-33", "TCP_REPAIR 0 with bytes in the send queue", set(to, TCP_REPAIR, 0));
	receive_exactly(to, buffer, 5);
	row("RP-26", "they are sent again and echoed: %.5s", buffer);
	close(to);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: repair HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	without_admin();
	switching();
	options();
	window();
	queues();
	sequence_numbers();
	data_before();
	child();
	restored();
	puts("done");
	return 0;
}
