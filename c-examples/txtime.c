/* A time of departure for a message: SO_TXTIME and SCM_TXTIME. Linux checks the
 * message and takes it; a queueing discipline (etf, fq) acts on it for datagrams. TCP
 * sends when its windows allow.
 *
 *   txtime HOST PORT MICROSECONDS LINE
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static ssize_t send_at(int fd, const char *line, uint64_t when)
{
	union {
		char bytes[CMSG_SPACE(sizeof when)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)line, strlen(line)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_TXTIME;
	c->cmsg_len = CMSG_LEN(sizeof when);
	memcpy(CMSG_DATA(c), &when, sizeof when);
	return sendmsg(fd, &message, 0);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "usage: txtime HOST PORT MICROSECONDS LINE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	uint64_t when = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec +
			strtoull(argv[3], NULL, 0) * 1000;
	/* Without the option the control message is refused. */
	if (send_at(fd, argv[4], when) >= 0 || errno != EINVAL)
		errx(1, "SCM_TXTIME was taken without SO_TXTIME");
	struct sock_txtime clock = {.clockid = CLOCK_MONOTONIC};
	if (setsockopt(fd, SOL_SOCKET, SO_TXTIME, &clock, sizeof clock))
		err(1, "SO_TXTIME");
	ssize_t sent = send_at(fd, argv[4], when);
	if (sent < 0)
		err(1, "sendmsg");
	char answer[512];
	for (ssize_t got = 0, n; got < sent; got += n)
		if ((n = recv(fd, answer, sizeof answer, 0)) <= 0)
			err(1, "recv");
	printf("sent with a time of departure: %zd bytes\n", sent);
	close(fd);
	return 0;
}
