/* Marks a connection for the host's firewall and queues: SO_MARK and SO_PRIORITY on
 * the socket, and SO_MARK beside one message, which Linux checks and TCP, being a
 * stream, then leaves at that: its segments carry the socket's mark. Takes
 * CAP_NET_ADMIN.
 *
 *   cmsg_mark HOST PORT MARK PRIORITY LINE
 *
 *   nft add rule netdev t out meta mark 42 counter
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t send_marked(int fd, const char *line, uint32_t mark)
{
	union {
		char bytes[CMSG_SPACE(sizeof mark)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {(void *)line, strlen(line)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SO_MARK;
	c->cmsg_len = CMSG_LEN(sizeof mark);
	memcpy(CMSG_DATA(c), &mark, sizeof mark);
	return sendmsg(fd, &message, 0);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		errx(2, "usage: cmsg_mark HOST PORT MARK PRIORITY LINE");
	uint32_t mark = (uint32_t)strtoul(argv[3], NULL, 0);
	int priority = atoi(argv[4]);
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		err(1, "socket");
	/* Before connect: the SYN is marked, too, and routes by mark are found. */
	if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) ||
	    setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority))
		err(1, "SO_MARK and SO_PRIORITY");
	if (connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	ssize_t sent = send_marked(fd, argv[5], mark);
	if (sent < 0)
		err(1, "sendmsg");
	char answer[512];
	for (ssize_t got = 0, n; got < sent; got += n)
		if ((n = recv(fd, answer, sizeof answer, 0)) <= 0)
			err(1, "recv");
	printf("sent with mark %u and priority %d: %zd bytes\n", mark, priority, sent);
	close(fd);
	return 0;
}
