/* How many short connections a second: connect, 64 bytes there, 64 bytes back,
 * the server closes, the client closes.
 *
 *   connection_rate server PORT COUNT
 *   connection_rate client HOST PORT COUNT THREADS
 *
 * The client prints {"connections":..,"seconds":..}.
 */
#include <arpa/inet.h>
#include <err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, BACKLOG = 128, MAX_THREADS = 64 };

static struct sockaddr_in server;
static atomic_int left;

static void receive(int fd)
{
	char buffer[SIZE];
	size_t got = 0;
	while (got < SIZE) {
		ssize_t n = recv(fd, buffer, SIZE - got, 0);
		if (n < 0)
			err(1, "recv");
		if (n == 0)
			errx(1, "the peer closed early");
		got += (size_t)n;
	}
}

static void deliver(int fd)
{
	static const char request[SIZE];
	if (send(fd, request, SIZE, 0) != SIZE)
		err(1, "send");
}

static void serve(int count)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&server, sizeof server) || listen(fd, BACKLOG))
		err(1, "listen");
	for (int i = 0; i < count; i++) {
		int connection = accept(fd, NULL, NULL);
		if (connection < 0)
			err(1, "accept");
		receive(connection);
		deliver(connection);
		close(connection);
	}
}

static void *connect_again(void *unused)
{
	char end;
	(void)unused;
	while (atomic_fetch_sub(&left, 1) > 0) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server))
			err(1, "connect");
		deliver(fd);
		receive(fd);
		if (recv(fd, &end, 1, 0) != 0)
			errx(1, "the server did not close");
		close(fd);
	}
	return NULL;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void measure(int count, int threads)
{
	pthread_t thread[MAX_THREADS];
	double start = now();
	left = count;
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, connect_again, NULL))
			errx(1, "pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	printf("{\"connections\":%d,\"seconds\":%.6f}\n", count, now() - start);
}

int main(int argc, char **argv)
{
	int client = argc == 6 && !strcmp(argv[1], "client");
	if (!client && !(argc == 4 && !strcmp(argv[1], "server")))
		errx(2, "usage: connection_rate server PORT COUNT | client HOST PORT COUNT THREADS");
	const char *host = client ? argv[2] : "0.0.0.0", *port = argv[client ? 3 : 2];
	int count = atoi(argv[client ? 4 : 3]), threads = client ? atoi(argv[5]) : 1;
	if (count < 1 || threads < 1 || threads > MAX_THREADS)
		errx(2, "COUNT is at least 1, THREADS 1 to %d", MAX_THREADS);
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t)atoi(port));
	if (inet_pton(AF_INET, host, &server.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	if (client)
		measure(count, threads);
	else
		serve(count);
	return 0;
}
