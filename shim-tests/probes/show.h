/* What every probe of the calls does: print each outcome as one line that is the
 * same in each run, natively or under the shim.
 */
#ifndef SHOW_H
#define SHOW_H

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Prints the value of a call, and errno's name where it failed. */
#define SHOW(call) show(#call, (long)(call))

static inline long show(const char *call, long value)
{
	if (value < 0)
		printf("%s = %ld %s\n", call, value, strerrorname_np(errno));
	else
		printf("%s = %ld\n", call, value);
	fflush(stdout);
	return value;
}

static inline struct sockaddr_in address(const char *host, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	return a;
}

static inline int tcp_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		err(2, "socket");
	return fd;
}

static inline int option_set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

/* The value of an option, or the negative errno. */
static inline int option_of(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof value;
	return getsockopt(fd, level, name, &value, &length) ? -errno : value;
}

static inline void send_text(int fd, const char *text)
{
	size_t length = strlen(text);
	if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
		err(2, "send %s", text);
}

/* A connection to the peer program (peer.c), which then does as `command` says. One send: Nagle would keep the end of two back. */
static inline int peer(const char *host, int port, const char *command)
{
	struct sockaddr_in a = address(host, port);
	int fd = tcp_socket();
	char line[512];
	if (snprintf(line, sizeof line, "%s\n", command) >= (int)sizeof line)
		errx(2, "a long command");
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	send_text(fd, line);
	return fd;
}

/* A listener on a port of the kernel's choice, which is stored. */
static inline int listener(int backlog, int *port)
{
	struct sockaddr_in a = address("0.0.0.0", 0);
	socklen_t length = sizeof a;
	int fd = tcp_socket();
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, backlog) ||
	    getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "listener");
	*port = ntohs(a.sin_port);
	return fd;
}

/* Waits until poll() reports one of `events`, or an error or hang-up. */
static inline void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	if (poll(&p, 1, 20000) != 1)
		errx(2, "nothing of %#x came in 20 s", (unsigned)events);
}

static inline void receive_exactly(int fd, char *buffer, size_t length)
{
	for (size_t got = 0; got < length;) {
		ssize_t n = recv(fd, buffer + got, length - got, 0);
		if (n <= 0)
			err(2, "recv gave %zd", n);
		got += (size_t)n;
	}
}

/* Sends a text and prints what comes back in its length. */
static inline void echoed(int fd, const char *text)
{
	char buffer[32];
	send_text(fd, text);
	receive_exactly(fd, buffer, strlen(text));
	printf("%.*s\n", (int)strlen(text), buffer);
	fflush(stdout);
}

/* Has the peer program call back, and accepts it: a connection of `listener`, which listens at `own_port`. */
static inline int called_back(int listener, const char *host, int port, int own_port)
{
	char command[32], buffer[8];
	snprintf(command, sizeof command, "call %d", own_port);
	close(peer(host, port, command));
	int fd = accept(listener, NULL, NULL);
	if (fd < 0)
		err(2, "accept");
	receive_exactly(fd, buffer, 6);
	if (memcmp(buffer, "called", 6))
		errx(2, "not the peer's call: %.6s", buffer);
	return fd;
}

#endif
