/* Messages with a mark or a time of departure of their own, on one socket.
 *
 *   message_options HOST PORT mark       three lines in one go, marked 7, 9 and not
 *   message_options HOST PORT txtime MS  a line that is to leave in MS milliseconds
 *
 * The peer program (peer.c) listens at HOST:PORT. What comes back is printed; after
 * a time of departure, whether it came before or after that.
 */
#include "show.h"

#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <time.h>

static void send_with(int fd, const char *text, int type, const void *value, size_t size)
{
	union {
		char bytes[CMSG_SPACE(8)];
		struct cmsghdr header;
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = type, .cmsg_len = CMSG_LEN(size)}};
	struct iovec part = {(void *)text, strlen(text)};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	if (type) {
		memcpy(CMSG_DATA(&control.header), value, size);
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(size);
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) != (ssize_t)strlen(text))
		err(2, "sendmsg");
}

static void answer(int fd, const char *expected)
{
	char got[64] = "";
	receive_exactly(fd, got, strlen(expected));
	printf("%s", got);
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		errx(2, "usage: message_options HOST PORT mark|txtime [MS]");
	int fd = peer(argv[1], atoi(argv[2]), "echo");
	if (!strcmp(argv[3], "mark")) {
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
		send_with(fd, "seven\n", SO_MARK, &(uint32_t){7}, 4);
		send_with(fd, "nine\n", SO_MARK, &(uint32_t){9}, 4);
		send_with(fd, "none\n", 0, NULL, 0);
		on = 0;
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
		answer(fd, "seven\nnine\nnone\n");
	} else {
		struct {
			int clockid;
			unsigned flags;
		} clock = {CLOCK_MONOTONIC, 0};
		if (setsockopt(fd, SOL_SOCKET, SO_TXTIME, &clock, sizeof clock))
			err(2, "SO_TXTIME");
		int64_t at = now() + atol(argv[4]) * 1000000;
		send_with(fd, "later\n", SCM_TXTIME, &at, sizeof at);
		answer(fd, "later\n");
		puts(now() < at ? "before its time" : "after its time");
	}
	close(fd);
	return 0;
}
