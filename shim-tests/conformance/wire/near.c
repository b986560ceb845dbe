/* The near side of the wire probes: does the socket calls that the far side asks
 * for, one a message, and answers each with its value and errno's number. It has
 * plain libc alone, so that it runs natively and under the shim.
 *
 *   near CONTROL
 *
 * CONTROL is the path of the far side's SOCK_SEQPACKET socket. Sockets are named
 * by their place in the table below.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS = 16, DATA = 1 << 20 };

static int sockets[SOCKETS];
static char data[DATA];

static struct sockaddr_in address(const char *host, long port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	return a;
}

static long reuse_and_bind(int fd, long port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static long accept_one(int from, int *fd)
{
	struct pollfd readable = {.fd = from, .events = POLLIN};
	if (poll(&readable, 1, 10000) != 1)
		return -1;
	*fd = accept4(from, NULL, NULL, SOCK_NONBLOCK);
	return *fd < 0 ? -1 : 0;
}

static long wait_for(int fd, long events)
{
	struct pollfd one = {.fd = fd, .events = (short)events};
	return poll(&one, 1, 10000) == 1 ? one.revents : -1;
}

static long tcp_info_mss(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) ? -1 : (long)info.tcpi_snd_mss;
}

static long send_file(int fd, long size)
{
	int file = memfd_create("page", 0);
	if (file < 0 || ftruncate(file, size))
		err(2, "memfd");
	long value = sendfile(fd, file, NULL, (size_t)size);
	int error = errno;
	close(file);
	errno = error;
	return value;
}

/* The kind of the next transmit timestamp. */
static long stamp(int fd)
{
	struct sock_extended_err e = {.ee_info = 99};
	char control[256];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR)
			memcpy(&e, CMSG_DATA(c), sizeof e);
	return e.ee_info;
}

static long do_call(const char *call, int *fd, const char *host, const long *a)
{
	if (!strcmp(call, "socket"))
		return (*fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0 ? -1 : 0;
	if (!strcmp(call, "bind"))
		return reuse_and_bind(*fd, a[0]);
	if (!strcmp(call, "listen"))
		return listen(*fd, 8);
	if (!strcmp(call, "accept"))
		return accept_one(sockets[a[0]], fd);
	if (!strcmp(call, "connect")) {
		struct sockaddr_in to = address(host, a[0]);
		return connect(*fd, (struct sockaddr *)&to, sizeof to);
	}
	if (!strcmp(call, "fastopen")) {
		struct sockaddr_in to = address(host, a[0]);
		return sendto(*fd, data, (size_t)a[1], MSG_FASTOPEN | MSG_NOSIGNAL,
			      (struct sockaddr *)&to, sizeof to);
	}
	if (!strcmp(call, "send"))
		return send(*fd, data, (size_t)a[0], (int)a[1] | MSG_NOSIGNAL);
	if (!strcmp(call, "recv"))
		return recv(*fd, data, (size_t)a[0], (int)a[1]);
	if (!strcmp(call, "sendfile"))
		return send_file(*fd, a[0]);
	if (!strcmp(call, "poll"))
		return wait_for(*fd, a[0]);
	if (!strcmp(call, "set")) {
		int value = (int)a[2];
		return setsockopt(*fd, (int)a[0], (int)a[1], &value, sizeof value);
	}
	if (!strcmp(call, "linger")) {
		struct linger how = {.l_onoff = 1, .l_linger = (int)a[0]};
		return setsockopt(*fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
	}
	if (!strcmp(call, "error")) {
		int value = -1;
		socklen_t size = sizeof value;
		return getsockopt(*fd, SOL_SOCKET, SO_ERROR, &value, &size) ? -1 : value;
	}
	if (!strcmp(call, "stamp"))
		return stamp(*fd);
	if (!strcmp(call, "mss"))
		return tcp_info_mss(*fd);
	if (!strcmp(call, "shutdown"))
		return shutdown(*fd, (int)a[0]);
	if (!strcmp(call, "close"))
		return close(*fd);
	errx(2, "unknown call %s", call);
}

int main(int argc, char **argv)
{
	struct sockaddr_un_path {
		sa_family_t family;
		char path[108];
	} where = {.family = AF_UNIX};
	if (argc != 2 || strlen(argv[1]) >= sizeof where.path)
		errx(2, "usage: near CONTROL");
	strcpy(where.path, argv[1]);
	int control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (control < 0 || connect(control, (struct sockaddr *)&where, sizeof where))
		err(2, "%s", argv[1]);
	for (;;) {
		char line[256], call[32], host[32];
		long a[3] = {0};
		int which = 0;
		ssize_t n = recv(control, line, sizeof line - 1, 0);
		if (n <= 0)
			return n < 0;
		line[n] = 0;
		if (sscanf(line, "%31s %d %31s %ld %ld %ld", call, &which, host, &a[0], &a[1],
			   &a[2]) < 3 || which < 0 || which >= SOCKETS)
			errx(2, "not a call: %s", line);
		errno = 0;
		long value = do_call(call, &sockets[which], host, a);
		n = snprintf(line, sizeof line, "%ld %d", value, value < 0 ? errno : 0);
		if (send(control, line, (size_t)n, MSG_NOSIGNAL) != n)
			err(2, "control");
	}
}
