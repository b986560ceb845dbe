/* Ends while the packet socket of its connection's own is full and the engine has
 * nothing more to send: what waits for it is left to the undertaker.
 *
 *   full_at_end HOST PORT
 *
 * Prints how many bytes it has sent.
 */
#include "show.h"

#include <linux/sockios.h>
#include <stdbool.h>
#include <sys/ioctl.h>

enum { LAST = 1 << 16, MOST = 64 << 20, AT_ONCE = 1 << 16, TAIL = 3 };

static bool is_packet_socket(int fd)
{
	int domain = 0;
	socklen_t len = sizeof domain;
	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_PACKET;
}

static int waiting(int fd)
{
	int bytes = 0;
	return ioctl(fd, SIOCOUTQ, &bytes) ? 0 : bytes;
}

/* A packet socket that was not there at the beginning, and that sends. */
static int own(const bool *before)
{
	for (int fd = 3; fd < LAST; fd++)
		if (!before[fd] && is_packet_socket(fd) && waiting(fd) > 0)
			return fd;
	return -1;
}

int main(int argc, char **argv)
{
	static char bytes[AT_ONCE];
	static bool before[LAST];
	if (argc != 3)
		errx(2, "usage: full_at_end HOST PORT");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int fd = tcp_socket(), sent = 0, packets = -1;
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	for (int i = 3; i < LAST; i++)
		before[i] = is_packet_socket(i);
	for (; packets < 0 && sent < MOST; sent += AT_ONCE) {
		if (send(fd, bytes, AT_ONCE, 0) != AT_ONCE)
			err(2, "send");
		packets = own(before);
	}
	if (packets < 0)
		errx(1, "no packet socket of its own after %d bytes", sent);
	while (waiting(fd) > 0)
		usleep(1000);
	int small = 1;
	if (setsockopt(packets, SOL_SOCKET, SO_SNDBUF, &small, sizeof small))
		err(2, "SO_SNDBUF");
	for (int i = 0; i < TAIL; i++, sent += AT_ONCE / 2)
		if (send(fd, bytes, AT_ONCE / 2, 0) != AT_ONCE / 2)
			err(2, "send");
	printf("%d\n", sent);
	return 0;
}
