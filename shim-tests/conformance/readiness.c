/* poll masks by state, edges, receiving by state, urgent data, TCP_INQ and the queue
 * ioctls.
 *
 *   readiness HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>

static const char *host;
static int port;

static unsigned mask(int fd)
{
	struct pollfd p = {.fd = fd, .events = ~0};
	poll(&p, 1, 0);
	return (unsigned short)p.revents;
}

/* The mask, once it has `bits`. */
static unsigned mask_with(int fd, unsigned bits)
{
	struct pollfd p = {.fd = fd, .events = (short)(bits & ~(unsigned)(POLLERR | POLLHUP))};
	unsigned seen;
	while (((seen = mask(fd)) & bits) != bits)
		if (poll(&p, 1, 20000) < 1)
			errx(2, "%#x instead of %#x", seen, bits);
	return seen;
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

static void nonblocking(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static int error_of(int fd)
{
	int value = -1;
	socklen_t length = sizeof value;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length);
	return value;
}

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

static void ioctls(const char *ids, const char *state, int fd)
{
	row(ids, "%s, FIONREAD: %d", state, queued(fd, FIONREAD));
	row(ids, "%s, SIOCOUTQ: %d", state, queued(fd, SIOCOUTQ));
	row(ids, "%s, SIOCOUTQNSD: %d", state, queued(fd, SIOCOUTQNSD));
	row(ids, "%s, SIOCATMARK: %d", state, queued(fd, SIOCATMARK));
	row("RD-43", "%s, an unknown request: %d", state, queued(fd, 0x5499));
}

static void closed(void)
{
	char byte;
	struct sockaddr_in nobody = address(host, 9);
	int fd = tcp_socket(), bound, l = listener(1, &bound);
	row("RD-2 RD-12", "fresh: %#x", mask(fd));
	ROW("RV-2 R6", "recv", recv(fd, &byte, 1, MSG_DONTWAIT));
	ROW("RV-26 R3", "recv of urgent data", recv(fd, &byte, 1, MSG_OOB));
	ROW("R1", "the error queue", recv(fd, &byte, 1, MSG_ERRQUEUE));
	ioctls("RD-39 RD-40 RD-41 RD-42", "fresh", fd);
	row("RD-1 RD-13", "listening: %#x", mask(l));
	ROW("R2", "recv on a listener", recv(l, &byte, 1, MSG_DONTWAIT));
	ROW("R2 RV-24", "urgent data on a listener", recv(l, &byte, 1, MSG_OOB));
	row("RD-39", "listening, FIONREAD: %d", queued(l, FIONREAD));
	row("RD-40", "listening, SIOCOUTQ: %d", queued(l, SIOCOUTQ));
	close(l);
	nonblocking(fd);
	ROW("ER-29", "a non-blocking connect", connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	row("RD-25", "refused: %#x", mask_with(fd, POLLERR));
	row("RD-25", "its error: %s", strerrorname_np(error_of(fd)));
	row("RD-12", "the error read: %#x", mask(fd));
	row("RD-40", "refused, SIOCOUTQ: %d", queued(fd, SIOCOUTQ));
	close(fd);
	fd = tcp_socket();
	ROW("RD-40", "disconnecting a fresh socket",
	    connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof nobody));
	row("RD-12", "disconnected: %#x", mask(fd));
	close(fd);
}

/* An address of the peer's net that nobody has: the handshake does not go on. */
static void connecting(void)
{
	char byte;
	struct sockaddr_in silent = address("192.0.2.77", 9);
	for (int how = 0; how < 2; how++) {
		int fd = tcp_socket();
		nonblocking(fd);
		ROW("ER-29", "connecting to nobody", connect(fd, (struct sockaddr *)&silent, sizeof silent));
		row("RD-4 RD-14", "connecting: %#x", mask(fd));
		ROW("RV-3", "recv", recv(fd, &byte, 1, 0));
		ROW("SP-25", "send", send(fd, "x", 1, MSG_NOSIGNAL));
		row("RD-39 RD-40", "connecting, FIONREAD %d, SIOCOUTQ %d", queued(fd, FIONREAD), queued(fd, SIOCOUTQ));
		if (how == 0) {
			ROW("RD-27 ER-4", "shutdown", shutdown(fd, SHUT_WR));
			row("RD-27", "after it: %#x", mask(fd));
			row("RD-27 ER-4", "its error: %s", strerrorname_np(error_of(fd)));
		}
		close(fd);
	}
}

static void open_and_closing(void)
{
	char buffer[32];
	int fd = peer(host, port, "steps await say=hello finish eof");
	wait_until_acked(fd);
	row("RD-8 RD-15", "established: %#x", mask(fd));
	ROW("RV-1", "recv of nothing, no data", recv(fd, buffer, 0, MSG_DONTWAIT));
	ROW("R6", "recv, no data", recv(fd, buffer, 1, MSG_DONTWAIT));
	ioctls("RD-39 RD-40 RD-41 RD-42", "established", fd);
	send_text(fd, "x");
	row("RD-3 RD-6 RD-16 RD-18", "data and the end: %#x", mask_with(fd, POLLRDHUP));
	row("RD-39", "FIONREAD does not count the end: %d", queued(fd, FIONREAD));
	ROW("RV-1", "recv of nothing, data", recv(fd, buffer, 0, MSG_DONTWAIT));
	ROW("RV-12", "peek", recv(fd, buffer, 3, MSG_PEEK));
	ROW("RV-13", "discard two", recv(fd, NULL, 2, MSG_TRUNC));
	ROW("RV-16", "a bad buffer", recv(fd, (void *)16, 2, 0));
	ROW("RV-20", "device memory is none", recv(fd, buffer, 1, MSG_PEEK | 0x2000000));
	struct iovec one = {buffer, 1};
	_Alignas(8) char control[64];
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ROW("RV-20", "nor by recvmsg", recvmsg(fd, &m, MSG_PEEK | 0x2000000));
	row("RV-20", "its flags %#x, control %zu, byte %c", m.msg_flags, m.msg_controllen, buffer[0]);
	ROW("RV-14", "what there is", recv(fd, buffer, sizeof buffer, MSG_WAITALL | MSG_DONTWAIT));
	row("RV-13 RV-16", "the bytes: %.3s", buffer);
	ROW("R6 ER-6", "the end", recv(fd, buffer, 1, 0));
	ROW("R6", "the end again", recv(fd, buffer, 1, 0));
	row("RD-18", "the end read: %#x", mask(fd));
	row("RD-39", "FIONREAD at the end: %d", queued(fd, FIONREAD));
	ROW("SP-26 ER-6", "send after the peer's end", send(fd, "y", 1, 0));
	shutdown(fd, SHUT_WR);
	row("RD-2 RD-22", "both ends: %#x", mask_with(fd, POLLHUP));
	close(fd);
	fd = peer(host, port, "discard");
	wait_until_acked(fd);
	shutdown(fd, SHUT_WR);
	row("RD-9 RD-19", "own end, the peer's follows: %#x", mask_with(fd, POLLHUP));
	close(fd);
	fd = peer(host, port, "hold");
	wait_until_acked(fd);
	shutdown(fd, SHUT_WR);
	row("RD-9 RD-19", "own end: %#x", mask(fd));
	close(fd);
	fd = peer(host, port, "steps await say=late await");
	wait_until_acked(fd);
	shutdown(fd, SHUT_RD);
	row("RD-3 RD-20", "receiving shut: %#x", mask(fd));
	ROW("RV-19", "recv", recv(fd, buffer, 4, 0));
	send_text(fd, "x");
	while (queued(fd, FIONREAD) != 4)
		poll(NULL, 0, 1);
	ROW("RV-19", "what comes later is readable", recv(fd, buffer, 4, 0));
	shutdown(fd, SHUT_RDWR);
	row("RD-2 RD-21", "both shut: %#x", mask(fd));
	close(fd);
}

static void resets(void)
{
	char buffer[16];
	int fd = peer(host, port, "steps await reset");
	wait_until_acked(fd);
	send_text(fd, "x");
	row("RD-11 RD-23", "reset: %#x", mask_with(fd, POLLERR));
	ROW("RV-7 R6", "recv", recv(fd, buffer, 1, 0));
	row("RD-24", "the error read: %#x", mask(fd));
	ROW("RV-7", "recv again", recv(fd, buffer, 1, 0));
	ROW("ER-10", "send", send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);
	fd = peer(host, port, "steps say=data await reset");
	wait_for(fd, POLLIN);
	send_text(fd, "x");
	mask_with(fd, POLLERR);
	ROW("RV-4 R5", "data before the reset", recv(fd, buffer, sizeof buffer, 0));
	ROW("RV-4", "the reset", recv(fd, buffer, 1, 0));
	ROW("RV-4", "then the end", recv(fd, buffer, 1, 0));
	close(fd);
	fd = peer(host, port, "hold");
	wait_until_acked(fd);
	ROW("ER-20", "disconnect", connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr_in)));
	row("RD-26", "disconnected: %#x", mask(fd));
	row("RD-26 ER-20", "its error: %s", strerrorname_np(error_of(fd)));
	close(fd);
}

static void low_water(void)
{
	char buffer[64];
	int fd = peer(host, port, "steps say=12345 await say=67890 await say=abc await");
	set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 10);
	while (queued(fd, FIONREAD) != 5)
		poll(NULL, 0, 1);
	row("RD-6 RD-34", "five of ten: %#x", mask(fd));
	ROW("RV-10 R8", "recv takes them", recv(fd, buffer, 50, MSG_DONTWAIT));
	send_text(fd, "x");
	while (queued(fd, FIONREAD) != 5)
		poll(NULL, 0, 1);
	send_text(fd, "x");
	while (queued(fd, FIONREAD) != 8)
		poll(NULL, 0, 1);
	struct timeval soon = {.tv_usec = 50000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	ROW("RV-8 RV-11", "eight of ten, with a timeout", recv(fd, buffer, 50, 0));
	ROW("RV-8", "nothing, with a timeout", recv(fd, buffer, 50, 0));
	close(fd);
}

static void urgent_data(void)
{
	char buffer[32] = {0};
	int on = 1, fd = peer(host, port, "steps await urgent=abX await say=tail await");
	send_text(fd, "x");
	row("RD-10 RD-29 RD-7", "two bytes and an urgent one: %#x", mask_with(fd, POLLPRI | POLLIN));
	row("RD-39", "FIONREAD: %d", queued(fd, FIONREAD));
	row("RD-42 RV-28", "SIOCATMARK: %d", queued(fd, SIOCATMARK));
	ROW("RV-22", "recv", recv(fd, buffer, sizeof buffer, 0));
	row("RD-29", "at the mark: %#x", mask(fd));
	row("RD-42 RV-28", "SIOCATMARK at the mark: %d", queued(fd, SIOCATMARK));
	ROW("RV-23", "peek at it", recv(fd, buffer, 1, MSG_OOB | MSG_PEEK));
	struct iovec part = {buffer, 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	ROW("RV-23", "take it", recvmsg(fd, &message, MSG_OOB));
	row("RV-18 RV-23", "flags %#x, byte %c", (unsigned)message.msg_flags, buffer[0]);
	ROW("RV-23", "again", recv(fd, buffer, 1, MSG_OOB));
	row("RD-29", "taken: %#x", mask(fd));
	row("RV-28", "SIOCATMARK then: %d", queued(fd, SIOCATMARK));
	send_text(fd, "x");
	wait_for(fd, POLLIN);
	ROW("RV-22", "what follows", recv(fd, buffer, sizeof buffer, 0));
	row("RV-28", "SIOCATMARK at last: %d", queued(fd, SIOCATMARK));
	close(fd);
	fd = peer(host, port, "steps await urgent=abX await");
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
	send_text(fd, "x");
	row("RD-30", "in line: %#x", mask_with(fd, POLLPRI | POLLIN));
	ROW("RV-31", "recv", recv(fd, buffer, sizeof buffer, 0));
	ROW("RV-31", "recv of the byte", recv(fd, buffer, sizeof buffer, 0));
	ROW("RV-24", "urgent data in line", recv(fd, buffer, 1, MSG_OOB));
	row("RD-30", "read: %#x", mask(fd));
	close(fd);
	fd = peer(host, port, "hold");
	ROW("RV-24", "urgent data that never was", recv(fd, buffer, 1, MSG_OOB));
	close(fd);
}

/* A pipe gets what stands before the mark; at the mark it gets none. */
static void urgent_splice(void)
{
	char byte;
	int ends[2], fd = peer(host, port, "steps await urgent=abX await say=tail await");
	if (pipe(ends))
		err(2, "pipe");
	send_text(fd, "x");
	mask_with(fd, POLLPRI | POLLIN);
	ROW("SP-33", "splice before the mark", splice(fd, NULL, ends[1], NULL, 100, 0));
	send_text(fd, "x");
	mask_with(fd, POLLIN);
	ROW("SP-33", "splice at the mark", splice(fd, NULL, ends[1], NULL, 100, SPLICE_F_NONBLOCK));
	ROW("SP-33", "the urgent byte", recv(fd, &byte, 1, MSG_OOB));
	ROW("SP-33", "splice at the mark again", splice(fd, NULL, ends[1], NULL, 100, SPLICE_F_NONBLOCK));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ROW("SP-33", "splice at the mark, the socket non-blocking", splice(fd, NULL, ends[1], NULL, 100, 0));
	ROW("SP-33", "recv behind it", recv(fd, &byte, 1, MSG_DONTWAIT));
	row("SP-33", "that is: %c", byte);
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

static void inq(void)
{
	char buffer[8];
	_Alignas(8) char control[64];
	int fd = peer(host, port, "steps say=hello finish eof");
	ROW("RV-33", "TCP_INQ 2", set_int(fd, IPPROTO_TCP, TCP_INQ, 2));
	ROW("RV-33", "TCP_INQ 1", set_int(fd, IPPROTO_TCP, TCP_INQ, 1));
	mask_with(fd, POLLRDHUP);
	for (int i = 0; i < 3; i++) {
		struct iovec part = {buffer, 3};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
					 .msg_controllen = sizeof control};
		long n = recvmsg(fd, &message, 0);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		int left = -1;
		if (c)
			memcpy(&left, CMSG_DATA(c), sizeof left);
		row("RV-34 RV-35", "read %d: %ld, level %d, type %d, left %d", i, n, c ? c->cmsg_level : 0,
		    c ? c->cmsg_type : 0, left);
	}
	close(fd);
	fd = peer(host, port, "hold");
	set_int(fd, IPPROTO_TCP, TCP_INQ, 1);
	struct iovec part = {buffer, 3};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof control};
	ROW("RV-36", "a read that fails", recvmsg(fd, &message, MSG_DONTWAIT));
	row("RV-36", "its control length, untouched: %zu", message.msg_controllen);
	close(fd);
}

static unsigned edge(int e, int timeout)
{
	struct epoll_event event = {0};
	return epoll_wait(e, &event, 1, timeout) == 1 ? event.events : 0;
}

static void edges(void)
{
	char buffer[8];
	int fd = peer(host, port, "steps say=a await say=b await finish eof"), e = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	wait_for(fd, POLLIN);
	wait_until_acked(fd);
	epoll_ctl(e, EPOLL_CTL_ADD, fd, &event);
	row("RD-33", "what is there: %#x", edge(e, 20000));
	row("RD-33", "nothing new: %#x", edge(e, 0));
	send_text(fd, "x");
	row("RD-33", "more data, the first unread: %#x", edge(e, 20000) & EPOLLIN);
	ROW("RD-33", "read a byte", recv(fd, buffer, 1, 0));
	row("RD-33", "no edge for the rest: %#x", edge(e, 0) & EPOLLIN);
	send_text(fd, "x");
	row("RD-33", "the end: %#x", edge(e, 20000) & (EPOLLIN | EPOLLRDHUP));
	close(e);
	close(fd);
}

/* What stands in the error queue shows as an error that is none. */
static void error_queue(void)
{
	char byte;
	int fd = peer(host, port, "hold");
	wait_until_acked(fd);
	if (set_int(fd, SOL_SOCKET, SO_TIMESTAMPING,
		    SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY))
		err(2, "SO_TIMESTAMPING");
	send_text(fd, "x");
	row("RD-17", "a time stamp in the error queue: %#x", mask_with(fd, POLLERR));
	row("RD-17", "and SO_ERROR: %d", error_of(fd));
	struct msghdr m = {0};
	ROW("RD-17", "read", recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0);
	row("RD-17", "then: %#x", mask(fd));
	ROW("RD-17", "and recv", recv(fd, &byte, 1, MSG_DONTWAIT));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: readiness HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	closed();
	connecting();
	open_and_closing();
	resets();
	low_water();
	urgent_data();
	urgent_splice();
	inq();
	edges();
	error_queue();
	puts("done");
	return 0;
}
