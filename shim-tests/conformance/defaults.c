/* Settings of the host at their defaults, by what they do to a program (rows SO-102 to
 * SO-121). Those that an option reads are in sockopt_tcp.c and tcp_info.c.
 *
 *   defaults HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>

static const char *host;
static int port;

/* A control message of another level, which TCP walks past. */
static long send_control(int fd, size_t size)
{
	char byte = 0;
	struct cmsghdr *control = calloc(1, size);
	if (!control)
		err(2, "calloc");
	control->cmsg_len = size;
	control->cmsg_level = SOL_IP;
	control->cmsg_type = 99;
	struct iovec part = {&byte, 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = size};
	long sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	int error = errno;
	free(control);
	errno = error;
	return sent;
}

static void optmem(void)
{
	int fd = peer(host, port, "discard");
	ROW("SO-102", "131064 bytes of control messages", send_control(fd, 131064));
	ROW("SO-102", "131072 bytes", send_control(fd, 131072));
	ROW("SO-102", "131080 bytes", send_control(fd, 131080));
	close(fd);
}

static void backlogs(void)
{
	static const int backlogs[] = {4095, 4096, 4097, 1 << 30, -1};
	for (size_t i = 0; i < sizeof backlogs / sizeof *backlogs; i++) {
		int bound, fd = listener(backlogs[i], &bound);
		uint32_t info[26] = {0};
		socklen_t length = sizeof info;
		if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length))
			err(2, "TCP_INFO");
		row("SO-104", "listen %d, tcpi_sacked: %u", backlogs[i], info[7]);
		close(fd);
	}
}

/* Nothing but the send buffer bounds what is unsent. */
static void unsent(void)
{
	static char data[1 << 16];
	int size = 200000, queued = 0;
	int fd = peer(host, port, "hold");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size))
		err(2, "SO_SNDBUF");
	long sent;
	do
		sent = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent > 0);
	row("SO-105", "a full send buffer: %s", strerrorname_np(errno));
	if (ioctl(fd, SIOCOUTQNSD, &queued))
		err(2, "SIOCOUTQNSD");
	row("SO-105", "more than 150000 bytes of it unsent: %d", queued > 150000);
	close(fd);
}

static void fast_open(void)
{
	struct sockaddr_in a = address(host, port);
	int fd = tcp_socket();
	ROW("SO-121", "a client's fast open",
	    sendto(fd, "discard\n", 8, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&a, sizeof a));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	optmem();
	backlogs();
	unsent();
	fast_open();
	puts("done");
	return 0;
}
