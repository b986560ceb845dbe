/* Sends standard input to a host, and prints what comes back.
 *
 *   echo_client HOST PORT
 */
#include <err.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *a;
	int fd = -1, wrong = getaddrinfo(host, port, &hints, &found);
	if (wrong)
		errx(1, "%s: %s", host, gai_strerror(wrong));
	for (a = found; a; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			break;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	if (fd < 0)
		err(1, "%s port %s", host, port);
	freeaddrinfo(found);
	return fd;
}

/* Sends as much as goes out at once: what comes back must be read meanwhile. */
static ssize_t some(int fd, const char *bytes, ssize_t length)
{
	ssize_t n = send(fd, bytes, (size_t)length, MSG_DONTWAIT);
	return n < 0 ? 0 : n;
}

int main(int argc, char **argv)
{
	char out[16384], in[16384];
	ssize_t from = 0, to = 0, n;
	int ended = 0;
	if (argc != 3)
		errx(2, "usage: echo_client HOST PORT");
	int fd = dial(argv[1], argv[2]);
	for (;;) {
		if (from == to && !ended) {
			if ((to = read(STDIN_FILENO, out, sizeof out)) < 0)
				err(1, "standard input");
			from = 0;
			if ((ended = to == 0))
				shutdown(fd, SHUT_WR);
		}
		struct pollfd p = {.fd = fd, .events = ended ? POLLIN : POLLIN | POLLOUT};
		if (poll(&p, 1, -1) < 0)
			err(1, "poll");
		if (p.revents & POLLOUT)
			from += some(fd, out + from, to - from);
		if (p.revents & ~POLLOUT) {
			if ((n = read(fd, in, sizeof in)) < 0)
				err(1, "read");
			if (n == 0)
				return 0;
			if (fwrite(in, 1, (size_t)n, stdout) != (size_t)n)
				err(1, "standard output");
		}
	}
}
