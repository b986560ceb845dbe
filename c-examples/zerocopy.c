/* Sends a file from the program's own memory with MSG_ZEROCOPY: the kernel refers to
 * the pages until the peer has acknowledged them, and tells so on the error queue. A
 * buffer may be filled again only then.
 *
 *   zerocopy HOST PORT FILE
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFERS = 4, BUFFER_BYTES = 128 << 10 };

static char buffers[BUFFERS][BUFFER_BYTES];
/* Every call that sent something gets the next number; `completed` of them are back. */
static uint32_t calls, completed;

/* Takes what has completed: ranges of calls, first and last. */
static void reap(int fd)
{
	union {
		char bytes[128];
		struct cmsghdr align;
	} control;
	for (;;) {
		struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control};
		if (recvmsg(fd, &message, MSG_ERRQUEUE) < 0) {
			if (errno != EAGAIN)
				err(1, "error queue");
			return;
		}
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		struct sock_extended_err e;
		if (!c || c->cmsg_level != SOL_IP || c->cmsg_type != IP_RECVERR)
			errx(1, "an entry without sock_extended_err");
		memcpy(&e, CMSG_DATA(c), sizeof e);
		if (e.ee_errno || e.ee_origin != SO_EE_ORIGIN_ZEROCOPY)
			errx(1, "an entry of another kind");
		/* TCP completes in order. */
		if (e.ee_info != completed)
			errx(1, "call %u completed, %u was next", e.ee_info, completed);
		completed = e.ee_data + 1;
	}
}

/* Sleeps until at most `left` calls are not complete. */
static void wait_for_completions(int fd, uint32_t left)
{
	for (reap(fd); calls - completed > left; reap(fd)) {
		struct pollfd p = {.fd = fd};
		if (poll(&p, 1, 10000) == 0)
			errx(1, "no completion within 10 s");
	}
}

static void send_all(int fd, const char *from, size_t length)
{
	while (length) {
		ssize_t sent = send(fd, from, length, MSG_ZEROCOPY);
		if (sent < 0 && errno == ENOBUFS && calls != completed) {
			/* The limit of locked memory: completions give it back. */
			wait_for_completions(fd, calls - completed - 1);
			continue;
		}
		if (sent < 0)
			err(1, "send");
		calls++;
		from += sent;
		length -= (size_t)sent;
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: zerocopy HOST PORT FILE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int file = open(argv[3], O_RDONLY), on = 1;
	if (file < 0)
		err(1, "%s", argv[3]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(1, "SO_ZEROCOPY");
	if (connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	/* The number of calls when a buffer had been sent: it is free when so many are complete. */
	uint32_t sent_by[BUFFERS] = {0};
	for (unsigned int i = 0;; i = (i + 1) % BUFFERS) {
		wait_for_completions(fd, calls - sent_by[i]);
		ssize_t got = read(file, buffers[i], BUFFER_BYTES);
		if (got < 0)
			err(1, "%s", argv[3]);
		if (got == 0)
			break;
		send_all(fd, buffers[i], (size_t)got);
		sent_by[i] = calls;
	}
	wait_for_completions(fd, 0);
	puts("every send completed");
	close(fd);
	return 0;
}
