/* Fast open (rows FO-*): MSG_FASTOPEN and TCP_FASTOPEN_CONNECT, towards a
 * listener that gives cookies and takes data with them.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/tcp.h>
#include <pthread.h>

/* What the peer is told, and is sent: a command line, and bytes that it drops. */
#define COMMAND "discard\n"

static const char *host;
static int port;
static char data[5000];

static ssize_t fast_open(int fd, const char *to, int at, size_t length, int flags)
{
	struct sockaddr_in a = address(to, at);
	return sendto(fd, data, length, MSG_FASTOPEN | MSG_NOSIGNAL | flags, (struct sockaddr *)&a,
		      sizeof a);
}

static int connect_to_peer(int fd)
{
	struct sockaddr_in a = address(host, port);
	return connect(fd, (struct sockaddr *)&a, sizeof a);
}

/* tcpi_state, tcpi_options and the two bits of tcpi_fastopen_client_fail. */
static void tell_info(const char *ids, const char *text, int fd)
{
	unsigned char info[8] = {0};
	socklen_t length = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length))
		err(2, "TCP_INFO");
	row(ids, "%s: state %d options %#x client_fail %d", text, info[0], info[5],
	    info[7] >> 1 & 3);
}

/* What is refused before anything is sent. */
static void checks(void)
{
	struct sockaddr_in a = address(host, port);
	struct sockaddr *name = (struct sockaddr *)&a;
	int fd = tcp_socket();
	ROW("FO-6", "no name", send(fd, data, 10, MSG_FASTOPEN));
	ROW("FO-5", "a name of one byte", sendto(fd, data, 10, MSG_FASTOPEN, name, 1));
	ROW("FO-7", "a name of two bytes", sendto(fd, data, 10, MSG_FASTOPEN, name, 2));
	ROW("FO-7", "a name of 15 bytes", sendto(fd, data, 10, MSG_FASTOPEN, name, 15));
	a.sin_family = AF_UNSPEC;
	ROW("FO-3", "AF_UNSPEC", sendto(fd, data, 10, MSG_FASTOPEN, name, sizeof a));
	ROW("FO-3", "AF_UNSPEC in two bytes", sendto(fd, data, 10, MSG_FASTOPEN, name, 2));
	a.sin_family = AF_INET6;
	ROW("FO-8", "AF_INET6", sendto(fd, data, 10, MSG_FASTOPEN, name, sizeof a));
	close(fd);
}

/* What connect would say. */
static void routes(void)
{
	int fd = tcp_socket();
	ROW("FO-12", "no route", fast_open(fd, "203.0.113.1", port, 10, 0));
	ROW("FO-12", "nobody listens on loopback", fast_open(fd, "127.0.0.1", 9, 10, 0));
	close(fd);
}

/* No cookie yet: it is asked for, and the data waits for the handshake. */
static void first(void)
{
	int fd = tcp_socket();
	ROW("FO-13", "no cookie", fast_open(fd, host, port, sizeof data, 0));
	wait_until_acked(fd);
	tell_info("FO-30 FO-31", "no cookie", fd);
	ROW("FO-9", "again", fast_open(fd, host, port, 10, 0));
	ROW("FO-9", "and again", fast_open(fd, host, port, 10, 0));
	ROW("FO-9", "a plain send", send(fd, data, 10, MSG_NOSIGNAL));
	close(fd);
}

static void first_nonblocking(void)
{
	int fd = tcp_socket();
	ROW("FO-13", "no cookie, non-blocking",
	    fast_open(fd, "192.0.2.3", port, sizeof data, MSG_DONTWAIT));
	wait_for(fd, POLLOUT);
	int unsent = -1;
	ioctl(fd, SIOCOUTQ, &unsent);
	row("FO-13", "no cookie, non-blocking, queued: %d", unsent);
	ROW("FO-10", "the send that collects the connect",
	    fast_open(fd, "192.0.2.3", port, 10, MSG_DONTWAIT));
	ROW("FO-10", "the one after it", fast_open(fd, "192.0.2.3", port, 10, MSG_DONTWAIT));
	close(fd);
}

/* With the cookie of the first connection the SYN carries data. */
static void cookie(void)
{
	int fd = tcp_socket();
	ROW("FO-14", "a cookie", fast_open(fd, host, port, 100, 0));
	tell_info("FO-14 FO-30 FO-31", "a cookie", fd);
	close(fd);

	fd = tcp_socket();
	ROW("FO-15 B15", "a cookie, more than a segment", fast_open(fd, host, port, sizeof data, 0));
	close(fd);

	fd = tcp_socket();
	ROW("FO-14", "a cookie, non-blocking", fast_open(fd, host, port, 100, MSG_DONTWAIT));
	close(fd);

	fd = tcp_socket();
	ROW("FO-15 FO-21 B5", "a cookie, more than a segment, non-blocking",
	    fast_open(fd, host, port, sizeof data, MSG_DONTWAIT));
	close(fd);
}

static void bound(void)
{
	struct sockaddr_in any = address("0.0.0.0", 0), mine;
	socklen_t length = sizeof mine;
	int fd = tcp_socket();
	if (bind(fd, (struct sockaddr *)&any, sizeof any) ||
	    getsockname(fd, (struct sockaddr *)&mine, &length))
		err(2, "bind");
	in_port_t before = mine.sin_port;
	ROW("FO-14", "a cookie, bound", fast_open(fd, host, port, 100, 0));
	getsockname(fd, (struct sockaddr *)&mine, &length);
	row("FO-14", "a cookie, bound, from the same port: %d", mine.sin_port == before);
	close(fd);
}

static void nothing(void)
{
	int fd = tcp_socket();
	ROW("FO-16", "no data", fast_open(fd, host, port, 0, 0));
	close(fd);
	fd = tcp_socket();
	ROW("FO-16", "no data, non-blocking", fast_open(fd, host, port, 0, MSG_DONTWAIT));
	close(fd);
}

static void refused(void)
{
	int fd = tcp_socket();
	ROW("FO-18", "refused", fast_open(fd, host, 9, 100, 0));
	ROW("FO-18", "the same socket again, where somebody listens",
	    fast_open(fd, host, port, 100, 0));
	close(fd);
}

/* TCP_FASTOPEN_CONNECT: the SYN waits for the first send. */
static void deferred(void)
{
	int on = 1, two = 2;
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	int fd = tcp_socket();
	ROW("FO-32", "TCP_FASTOPEN_CONNECT 2",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &two, sizeof two));
	ROW("FO-35", "TCP_FASTOPEN_CONNECT 1",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
	ROW("FO-35", "connect", connect_to_peer(fd));
	tell_info("FO-35", "deferred", fd);
	struct pollfd p = {.fd = fd, .events = ~0};
	poll(&p, 1, 0);
	row("FO-35 RD-5 RD-32", "deferred, poll: %#x", (unsigned short)p.revents);
	ROW("FO-35", "deferred, getpeername", getpeername(fd, (struct sockaddr *)&a, &length));
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	row("FO-35", "deferred, has a port: %d", a.sin_port != 0);
	ROW("FO-38", "deferred, recv", recv(fd, data, 1, MSG_DONTWAIT));
	ROW("FO-39", "the first send", send(fd, data, 100, MSG_NOSIGNAL));
	wait_until_acked(fd);
	tell_info("FO-39", "after it", fd);
	ROW("FO-34", "TCP_FASTOPEN_CONNECT when connected",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
	close(fd);
	/* The SYN leaves before the name is looked at. */
	struct sockaddr_in name = address(host, port);
	fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	ROW("FO-35", "connect", connect_to_peer(fd));
	ROW("FO-39", "the first send, half a family", sendto(fd, data, 100, MSG_NOSIGNAL, (struct sockaddr *)&name, 1));
	wait_for(fd, POLLOUT);
	wait_until_acked(fd);
	tell_info("FO-39", "after it", fd);
	close(fd);
}

static void deferred_end(void)
{
	int on = 1;
	int fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	ROW("FO-40", "connect, for no data", connect_to_peer(fd));
	ROW("FO-40", "a first send of nothing", send(fd, data, 0, MSG_NOSIGNAL));
	close(fd);

	fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	ROW("FO-43", "connect, for shutdown", connect_to_peer(fd));
	ROW("FO-43", "deferred, shutdown", shutdown(fd, SHUT_WR));
	tell_info("FO-43", "deferred, after shutdown", fd);
	ROW("FO-43", "deferred, a send after shutdown", send(fd, data, 10, MSG_NOSIGNAL));
	close(fd);
}

static void *fast_opens(void *fd)
{
	ROW("FO-4", "a fast open that another thread ends", fast_open(*(int *)fd, "192.0.2.78", port, 10, 0));
	return NULL;
}

/* While another is under way. */
static void pending(void)
{
	pthread_t other;
	int fd = tcp_socket();
	ROW("FO-11", "to a host that is not there, non-blocking",
	    fast_open(fd, "192.0.2.77", port, 10, MSG_DONTWAIT));
	ROW("FO-11", "again while connecting", fast_open(fd, "192.0.2.77", port, 10, MSG_DONTWAIT));
	ROW("FO-11", "again while connecting, without a name", send(fd, data, 10, MSG_FASTOPEN | MSG_DONTWAIT));
	ROW("FO-11", "a plain connect then", (fcntl(fd, F_SETFL, O_NONBLOCK), connect_to_peer(fd)));
	ROW("FO-11", "a plain send then", send(fd, data, 10, MSG_DONTWAIT | MSG_NOSIGNAL));
	close(fd);

	fd = tcp_socket();
	pthread_create(&other, NULL, fast_opens, &fd);
	for (unsigned char state = 0; state != TCP_SYN_SENT; poll(NULL, 0, 1))
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &(socklen_t){1}))
			err(2, "TCP_INFO");
	ROW("FO-4", "a fast open while another thread's waits", fast_open(fd, host, port, 10, 0));
	ROW("FO-4", "the same, non-blocking", fast_open(fd, host, port, 10, MSG_DONTWAIT));
	shutdown(fd, SHUT_RDWR);
	pthread_join(other, NULL);
	close(fd);
}

/* The id and the code of the one notification. */
static void notification(const char *ids, const char *text, int fd)
{
	char control[128];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	struct sock_extended_err e = {0};
	struct pollfd p = {.fd = fd};
	if (poll(&p, 1, 20000) != 1 || recvmsg(fd, &m, MSG_ERRQUEUE) < 0 || !CMSG_FIRSTHDR(&m))
		errx(2, "no notification");
	memcpy(&e, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof e);
	row(ids, "%s: origin %u code %u from %u to %u", text, e.ee_origin, e.ee_code, e.ee_info, e.ee_data);
}

/* MSG_ZEROCOPY beside it: what goes with the SYN is copied, and told. */
static void zerocopy(void)
{
	int on = 1, fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
	ROW("FO-20", "a cookie, zerocopy", fast_open(fd, host, port, 100, MSG_ZEROCOPY));
	notification("FO-20", "its notification", fd);
	ROW("FO-20", "another zerocopy send", send(fd, data, 100, MSG_ZEROCOPY));
	notification("FO-20", "the next notification", fd);
	close(fd);
	fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
	ROW("FO-20", "zerocopy to a host that is not there",
	    fast_open(fd, "192.0.2.77", port, 100, MSG_ZEROCOPY | MSG_DONTWAIT));
	struct msghdr m = {0};
	ROW("FO-20", "its notification, where nothing was sent", recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
	close(fd);
}

/* What happens beside the data: control messages, a second connect, repair. */
static void beside(void)
{
	int on = 1, fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ROW("FO-37", "deferred, connect", connect_to_peer(fd));
	ROW("FO-37", "deferred, a second connect", connect_to_peer(fd));
	close(fd);

	union {
		char bytes[CMSG_SPACE(4)];
		struct cmsghdr align;
	} control = {0};
	struct sockaddr_in a = address(host, port);
	struct iovec iov = {data, 100};
	struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &iov, .msg_iovlen = 1,
			   .msg_control = &control, .msg_controllen = sizeof control};
	CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
	CMSG_FIRSTHDR(&m)->cmsg_type = 12345;
	CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(4);
	fd = tcp_socket();
	ROW("FO-19", "a bad control message", sendmsg(fd, &m, MSG_FASTOPEN | MSG_NOSIGNAL));
	wait_until_acked(fd);
	tell_info("FO-19", "after a bad control message", fd);
	close(fd);
	fd = tcp_socket();
	ROW("FO-19 B5", "a bad control message, non-blocking",
	    sendmsg(fd, &m, MSG_FASTOPEN | MSG_NOSIGNAL | MSG_DONTWAIT));
	close(fd);

	m.msg_name = NULL;
	m.msg_namelen = 0;
	fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	ROW("FO-42", "deferred, connect before a bad control message", connect_to_peer(fd));
	ROW("FO-42", "deferred, a bad control message", sendmsg(fd, &m, MSG_NOSIGNAL));
	wait_until_acked(fd);
	tell_info("FO-42", "deferred, after a bad control message", fd);
	ROW("FO-42", "deferred, a good send after it", send(fd, data, 10, MSG_NOSIGNAL));
	close(fd);

	fd = tcp_socket();
	setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on);
	ROW("FO-1", "in repair", fast_open(fd, host, port, 100, 0));
	close(fd);
}

static void deferred_reset(void)
{
	int on = 1, fd = tcp_socket();
	struct sockaddr_in a = address(host, 9);
	setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
	ROW("FO-41", "deferred, connect where nobody listens",
	    connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("FO-41", "deferred, the first send is refused", send(fd, data, 100, MSG_NOSIGNAL));
	ROW("FO-41", "deferred, the next send", send(fd, data, 100, MSG_NOSIGNAL));
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLWRNORM | POLLRDHUP};
	poll(&p, 1, 0);
	row("FO-41", "deferred and refused, poll: %#x", p.revents);
	close(fd);
}

/* The listener's options. */
static void listening(void)
{
	int bound, on = 1, two = 2, bad = -1, five = 5;
	unsigned char key[32] = {1, 2, 3, 4}, got[32];
	socklen_t length = sizeof got;
	int fd = tcp_socket();
	ROW("FO-44", "TCP_FASTOPEN -1", setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &bad, sizeof bad));
	ROW("FO-44", "TCP_FASTOPEN 5", setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &five, sizeof five));
	row("FO-45", "TCP_FASTOPEN reads: %d", int_option(fd, IPPROTO_TCP, TCP_FASTOPEN));
	ROW("FO-50", "TCP_FASTOPEN_NO_COOKIE 2",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &two, sizeof two));
	ROW("FO-50", "TCP_FASTOPEN_NO_COOKIE 1",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &on, sizeof on));
	row("FO-50", "TCP_FASTOPEN_NO_COOKIE reads: %d",
	    int_option(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE));
	for (socklen_t n = 15; n < 34; n++)
		if (n < 18 || n > 30) {
			char text[48];
			snprintf(text, sizeof text, "TCP_FASTOPEN_KEY of %u bytes", n);
			ROW("FO-49", text, setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, key, n));
		}
	ROW("FO-49", "TCP_FASTOPEN_KEY, reading",
	    getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, got, &length));
	row("FO-49", "TCP_FASTOPEN_KEY reads: length %u the same %d", length, !memcmp(key, got, length));
	close(fd);

	fd = listener(5, &bound);
	ROW("FO-44", "TCP_FASTOPEN on a listener",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &five, sizeof five));
	close(fd);
	fd = peer(host, port, "discard");
	ROW("FO-44", "TCP_FASTOPEN when connected",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &five, sizeof five));
	ROW("FO-50", "TCP_FASTOPEN_NO_COOKIE when connected",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, &on, sizeof on));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	memset(data, 'x', sizeof data);
	memcpy(data, COMMAND, sizeof COMMAND - 1);
	checks();
	routes();
	first();
	first_nonblocking();
	cookie();
	bound();
	nothing();
	refused();
	deferred();
	deferred_end();
	beside();
	pending();
	zerocopy();
	deferred_reset();
	listening();
	puts("done");
	return 0;
}
