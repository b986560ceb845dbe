/* Calls that succeed leave errno alone, whatever they tried inside.
 *
 *   errno_kept HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/wait.h>

enum { MARK = 1234, SENDS = 500 };

static int lost;

#define KEEPS(call) (errno = MARK, keeps(#call, (long)(call), errno))

static long keeps(const char *call, long value, int after)
{
	if (value < 0)
		printf("%s failed: %s\n", call, strerrorname_np(after));
	else if (after != MARK)
		printf("%s: errno became %s\n", call, strerrorname_np(after));
	lost += value < 0 || after != MARK;
	return value;
}

static int option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

static int error_of(int fd)
{
	int error;
	socklen_t length = sizeof error;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

static int polled(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, 10);
}

static int selected(int fd)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, NULL, &set, NULL, NULL);
}

static void one_connection(struct sockaddr_in to)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
	struct sockaddr_in name;
	struct tcp_info info;
	socklen_t length = sizeof name;
	char bytes[100] = {0};
	int n, fd = (int)KEEPS(socket(AF_INET, SOCK_STREAM, 0));
	KEEPS(option(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	KEEPS(connect(fd, (struct sockaddr *)&to, sizeof to));
	KEEPS(option(fd, IPPROTO_TCP, TCP_NODELAY, 1));
	KEEPS(send(fd, "echo\n", 5, 0));
	KEEPS(write(fd, bytes, 10));
	KEEPS(recv(fd, bytes, 10, MSG_WAITALL));
	KEEPS(ioctl(fd, FIONREAD, &n));
	KEEPS(fcntl(fd, F_SETFL, O_NONBLOCK));
	KEEPS(fcntl(fd, F_SETFL, 0));
	KEEPS(polled(fd, POLLIN | POLLOUT));
	KEEPS(polled(fd, POLLIN));
	KEEPS(selected(fd));
	int instance = (int)KEEPS(epoll_create1(0));
	KEEPS(epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event));
	KEEPS(epoll_wait(instance, &event, 1, 10));
	KEEPS(epoll_ctl(instance, EPOLL_CTL_DEL, fd, &event));
	KEEPS(close(instance));
	KEEPS(getsockname(fd, (struct sockaddr *)&name, &length));
	KEEPS(getpeername(fd, (struct sockaddr *)&name, &length));
	length = sizeof info;
	KEEPS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
	int copy = (int)KEEPS(dup(fd));
	KEEPS(close(copy));
	KEEPS(shutdown(fd, SHUT_WR));
	KEEPS(recv(fd, bytes, 10, 0));
	KEEPS(close(fd));
}

static void listeners(void)
{
	struct sockaddr_in any = address("0.0.0.0", 0);
	int fd = (int)KEEPS(socket(AF_INET, SOCK_STREAM, 0));
	KEEPS(bind(fd, (struct sockaddr *)&any, sizeof any));
	KEEPS(listen(fd, 5));
	KEEPS(close(fd));
}

/* Stamps come back by a queue that is looked at by each call. */
static void stamped(const char *host, int port)
{
	char bytes[2000] = {0}, control[500];
	int n, fd = peer(host, port, "discard");
	option(fd, SOL_SOCKET, SO_TIMESTAMPING,
	       SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE |
		       SOF_TIMESTAMPING_OPT_TSONLY);
	for (int i = 0; i < SENDS; i++) {
		struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
		KEEPS(send(fd, bytes, sizeof bytes, 0));
		KEEPS(polled(fd, POLLOUT));
		KEEPS(ioctl(fd, SIOCOUTQ, &n));
		KEEPS(error_of(fd));
		recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
	}
	KEEPS(close(fd));
}

static void forked(const char *host, int port)
{
	int fd = peer(host, port, "echo");
	pid_t child = fork();
	if (child == 0)
		_exit(KEEPS(send(fd, "x", 1, 0)) < 0 || lost);
	int status;
	KEEPS(waitpid(child, &status, 0));
	printf("child: %d\n", status);
	KEEPS(send(fd, "x", 1, 0));
	KEEPS(close(fd));
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: errno_kept HOST PORT");
	int port = atoi(argv[2]);
	for (int i = 0; i < 2; i++) {
		one_connection(address(argv[1], port));
		listeners();
	}
	stamped(argv[1], port);
	forked(argv[1], port);
	printf("errno lost: %d\n", lost);
	puts("done");
	return 0;
}
