/* Ping-pong over one connection, and how long each round took.
 *
 *   round_trip server PORT               one connection, until its end
 *   round_trip client HOST PORT COUNT    64 bytes there and back, COUNT times
 *
 * The client prints {"p50_ns":..,"p99_ns":..}.
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, WARM_UP = 500 };

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	return a;
}

static void no_delay(int fd)
{
	int on = 1;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
		err(1, "TCP_NODELAY");
}

/* Receives SIZE bytes; 0 at the end of the stream. */
static int receive(int fd, char *buffer)
{
	size_t got = 0;
	while (got < SIZE) {
		ssize_t n = recv(fd, buffer + got, SIZE - got, 0);
		if (n < 0)
			err(1, "recv");
		if (n == 0)
			return 0;
		got += (size_t)n;
	}
	return 1;
}

static void deliver(int fd, const char *buffer)
{
	if (send(fd, buffer, SIZE, 0) != SIZE)
		err(1, "send");
}

static void serve(const char *port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	char buffer[SIZE];
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1))
		err(1, "listen");
	int connection = accept(fd, NULL, NULL);
	if (connection < 0)
		err(1, "accept");
	no_delay(connection);
	while (receive(connection, buffer))
		deliver(connection, buffer);
	close(connection);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;
	return (x > y) - (x < y);
}

static void measure(const char *host, const char *port, int count)
{
	struct sockaddr_in a = address(host, port);
	char buffer[SIZE];
	long *took = calloc((size_t)count, sizeof *took);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (!took || fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		err(1, "connect");
	no_delay(fd);
	memset(buffer, 'x', sizeof buffer);
	for (int i = -WARM_UP; i < count; i++) {
		long start = now();
		deliver(fd, buffer);
		if (!receive(fd, buffer))
			errx(1, "the server closed early");
		if (i >= 0)
			took[i] = now() - start;
	}
	close(fd);
	qsort(took, (size_t)count, sizeof *took, by_value);
	printf("{\"p50_ns\":%ld,\"p99_ns\":%ld}\n", took[count / 2], took[count * 99 / 100]);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "server"))
		serve(argv[2]);
	else if (argc == 5 && !strcmp(argv[1], "client") && atoi(argv[4]) > 0)
		measure(argv[2], argv[3], atoi(argv[4]));
	else
		errx(2, "usage: round_trip server PORT | client HOST PORT COUNT");
	return 0;
}
