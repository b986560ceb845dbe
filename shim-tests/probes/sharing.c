/* Threads that share sockets, and half a dozen connections at once, blocking and not.
 *
 *   sharing HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/uio.h>

#define CONNECTIONS 6
#define BYTES (4 << 20)

static const char *host;
static int port;

static unsigned char at(size_t i, int which)
{
	return (unsigned char)((i * 2654435761u >> 13) + (size_t)which * 37);
}

struct job {
	int fd;
	int which;
	size_t wrong;
	size_t got;
};

static void *writer(void *argument)
{
	struct job *job = argument;
	static _Thread_local unsigned char buffer[50000];
	for (size_t done = 0; done < BYTES;) {
		size_t n = sizeof buffer < BYTES - done ? sizeof buffer : BYTES - done;
		for (size_t i = 0; i < n; i++)
			buffer[i] = at(done + i, job->which);
		struct iovec parts[2] = {{buffer, n / 3}, {buffer + n / 3, n - n / 3}};
		struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
		ssize_t sent = sendmsg(job->fd, &m, MSG_NOSIGNAL);
		if (sent < 0)
			err(2, "sendmsg");
		done += (size_t)sent;
	}
	return NULL;
}

static void *reader(void *argument)
{
	struct job *job = argument;
	static _Thread_local unsigned char buffer[70000];
	while (job->got < BYTES) {
		ssize_t n = recv(job->fd, buffer, sizeof buffer, 0);
		if (n <= 0)
			err(2, "recv gave %zd", n);
		for (ssize_t i = 0; i < n; i++)
			job->wrong += buffer[i] != at(job->got + (size_t)i, job->which);
		job->got += (size_t)n;
	}
	return NULL;
}

/* One thread writes, another reads, on each of several connections. */
static void both_ways_at_once(void)
{
	pthread_t threads[2 * CONNECTIONS];
	struct job out[CONNECTIONS] = {0}, in[CONNECTIONS] = {0};
	puts("# both ways at once");
	for (int i = 0; i < CONNECTIONS; i++) {
		out[i].fd = in[i].fd = peer(host, port, "echo");
		out[i].which = in[i].which = i;
		pthread_create(&threads[2 * i], NULL, writer, &out[i]);
		pthread_create(&threads[2 * i + 1], NULL, reader, &in[i]);
	}
	for (int i = 0; i < 2 * CONNECTIONS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < CONNECTIONS; i++) {
		printf("connection %d: %zu bytes, %zu wrong\n", i, in[i].got, in[i].wrong);
		close(in[i].fd);
	}
}

static void *blocked_recv(void *argument)
{
	char byte;
	struct job *job = argument;
	SHOW(recv(job->fd, &byte, 1, 0));
	return NULL;
}

static void *blocked_poll(void *argument)
{
	struct job *job = argument;
	wait_for(job->fd, POLLIN);
	return NULL;
}

/* While one thread sleeps, others make it wake, or go on without it. */
static void sleepers(void)
{
	pthread_t thread, other;
	char byte;
	puts("# sleepers");
	struct job a = {.fd = peer(host, port, "echo")}, b = {.fd = peer(host, port, "echo")};
	pthread_create(&thread, NULL, blocked_recv, &a);
	pthread_create(&other, NULL, blocked_poll, &b);
	send_text(b.fd, "b");
	pthread_join(other, NULL);
	SHOW(recv(b.fd, &byte, 1, 0));
	send_text(a.fd, "a");
	pthread_join(thread, NULL);

	pthread_create(&thread, NULL, blocked_recv, &a);
	/* The thread prints its outcome before ours. */
	int closed = shutdown(a.fd, SHUT_RD);
	pthread_join(thread, NULL);
	SHOW(closed);
	close(a.fd);

	int copy = dup(b.fd);
	pthread_create(&thread, NULL, blocked_recv, &(struct job){.fd = copy});
	close(b.fd);
	send_text(copy, "c");
	pthread_join(thread, NULL);
	SHOW(fcntl(copy, F_SETFL, O_NONBLOCK));
	SHOW(recv(copy, &byte, 1, 0));
	close(copy);
}

static void *blocked_accept(void *argument)
{
	struct job *job = argument;
	char text[6];
	int fd = accept(job->fd, NULL, NULL);
	if (fd < 0)
		err(2, "accept");
	receive_exactly(fd, text, sizeof text);
	job->got = !memcmp(text, "called", sizeof text);
	close(fd);
	return NULL;
}

/* As many threads in accept() on one listener as connections that come. */
static void acceptors(void)
{
	pthread_t threads[CONNECTIONS];
	struct job jobs[CONNECTIONS] = {0};
	char command[32];
	int listening;
	size_t served = 0;
	puts("# acceptors");
	int fd = listener(CONNECTIONS, &listening);
	snprintf(command, sizeof command, "call %d", listening);
	for (int i = 0; i < CONNECTIONS; i++) {
		jobs[i].fd = fd;
		pthread_create(&threads[i], NULL, blocked_accept, &jobs[i]);
	}
	for (int i = 0; i < CONNECTIONS; i++)
		close(peer(host, port, command));
	for (int i = 0; i < CONNECTIONS; i++) {
		pthread_join(threads[i], NULL);
		served += jobs[i].got;
	}
	printf("served %zu\n", served);
	close(fd);
}

static void *waits_with_timeout(void *argument)
{
	char byte;
	struct job *job = argument;
	SHOW(recv(job->fd, &byte, 1, 0));
	return NULL;
}

/* A timeout of one thread, while another one is the one that receives. */
static void timeouts(void)
{
	pthread_t thread, timed;
	struct timeval soon = {.tv_usec = 50000};
	puts("# timeouts");
	struct job a = {.fd = peer(host, port, "echo")}, b = {.fd = peer(host, port, "echo")};
	SHOW(setsockopt(b.fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
	pthread_create(&thread, NULL, blocked_poll, &a);
	pthread_create(&timed, NULL, waits_with_timeout, &b);
	pthread_join(timed, NULL);
	send_text(a.fd, "x");
	pthread_join(thread, NULL);
	close(a.fd);
	close(b.fd);
}

/* Several connections of one thread, none of which may block. */
static void not_blocking(void)
{
	struct pollfd p[CONNECTIONS];
	struct job in[CONNECTIONS] = {0};
	size_t sent[CONNECTIONS] = {0};
	static unsigned char buffer[30000];
	puts("# not blocking");
	for (int i = 0; i < CONNECTIONS; i++) {
		struct sockaddr_in a = address(host, port);
		p[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		SHOW(connect(p[i].fd, (struct sockaddr *)&a, sizeof a));
	}
	for (int i = 0; i < CONNECTIONS; i++) {
		int error = -1;
		socklen_t length = sizeof error;
		wait_for(p[i].fd, POLLOUT);
		getsockopt(p[i].fd, SOL_SOCKET, SO_ERROR, &error, &length);
		printf("connected: %d\n", error);
		send_text(p[i].fd, "echo\n");
		in[i].which = i;
	}
	for (int open = CONNECTIONS; open;) {
		for (int i = 0; i < CONNECTIONS; i++)
			p[i].events = POLLIN | (sent[i] < BYTES / 4 ? POLLOUT : 0);
		if (poll(p, CONNECTIONS, 20000) <= 0)
			err(2, "poll");
		for (int i = 0; i < CONNECTIONS; i++) {
			if (p[i].revents & POLLOUT) {
				size_t n = sizeof buffer;
				if (n > BYTES / 4 - sent[i])
					n = BYTES / 4 - sent[i];
				for (size_t j = 0; j < n; j++)
					buffer[j] = at(sent[i] + j, i);
				ssize_t k = write(p[i].fd, buffer, n);
				if (k < 0 && errno != EAGAIN)
					err(2, "write");
				sent[i] += k > 0 ? (size_t)k : 0;
			}
			if (p[i].revents & POLLIN) {
				ssize_t k = read(p[i].fd, buffer, sizeof buffer);
				if (k < 0)
					err(2, "read");
				for (ssize_t j = 0; j < k; j++)
					in[i].wrong += buffer[j] != at(in[i].got + (size_t)j, i);
				in[i].got += (size_t)k;
				if (in[i].got == BYTES / 4) {
					printf("connection: %zu bytes, %zu wrong\n", in[i].got, in[i].wrong);
					close(p[i].fd);
					p[i].fd = -1;
					open--;
				}
			}
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: sharing HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	both_ways_at_once();
	sleepers();
	acceptors();
	timeouts();
	not_blocking();
	puts("done");
	return 0;
}
