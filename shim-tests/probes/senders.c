/* Threads that send: many at once from small stacks, two through one socket, and one whose socket another shuts.
 *
 *   senders HOST PORT     the peer program listens there
 */
#include "show.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define THREADS 4
#define CHUNK (64 << 10)
#define CHUNKS 1024
#define BLOCK (160 << 10)
#define ROUNDS 50
#define ENDINGS 150

static const char *host;
static int port;

static void send_all(int fd, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
		if (n <= 0)
			err(2, "send gave %zd", n);
		bytes += n;
		size -= (size_t)n;
	}
}

static void *many_chunks(void *argument)
{
	static char chunk[CHUNK];
	for (int i = 0; i < CHUNKS; i++)
		send_all(*(int *)argument, chunk, sizeof chunk);
	return NULL;
}

/* A long stream needs no more of a thread's stack than a short one. */
static void from_small_stacks(void)
{
	pthread_t threads[THREADS];
	pthread_attr_t small;
	int fds[THREADS];
	char byte;
	puts("# from small stacks");
	pthread_attr_init(&small);
	SHOW(pthread_attr_setstacksize(&small, PTHREAD_STACK_MIN + (48 << 10)));
	for (int i = 0; i < THREADS; i++) {
		fds[i] = peer(host, port, "discard");
		if (pthread_create(&threads[i], &small, many_chunks, &fds[i]))
			errx(2, "no thread");
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		SHOW(shutdown(fds[i], SHUT_WR));
		/* Its end says that all has come. */
		SHOW(recv(fds[i], &byte, 1, 0));
		close(fds[i]);
	}
}

struct writer {
	pthread_barrier_t *round;
	int fd;
	char tag;
};

static void *one_block_a_round(void *argument)
{
	struct writer *w = argument;
	char *block = malloc(BLOCK);
	if (!block)
		errx(2, "malloc");
	memset(block, w->tag, BLOCK);
	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(w->round);
		send_all(w->fd, block, BLOCK);
	}
	free(block);
	return NULL;
}

/* What fits into the send buffer is queued in one piece, whoever else sends (Linux: the socket's lock). */
static void through_one_socket(void)
{
	static char got[2 * BLOCK];
	pthread_barrier_t round;
	pthread_t threads[2];
	struct writer writers[2];
	int fd = peer(host, port, "echo"), size = 4 * BLOCK, torn = 0, complete = 0;
	puts("# through one socket");
	SHOW(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
	pthread_barrier_init(&round, NULL, 3);
	for (int i = 0; i < 2; i++) {
		writers[i] = (struct writer){&round, fd, (char)('a' + i)};
		pthread_create(&threads[i], NULL, one_block_a_round, &writers[i]);
	}
	for (int i = 0; i < ROUNDS; i++) {
		int changes = 0;
		size_t as = 0;
		pthread_barrier_wait(&round);
		if (recv(fd, got, sizeof got, MSG_WAITALL) != sizeof got)
			err(2, "recv");
		for (size_t j = 0; j < sizeof got; j++) {
			as += got[j] == 'a';
			changes += j > 0 && got[j] != got[j - 1];
		}
		complete += as == BLOCK;
		torn += changes != 1;
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("rounds: %d complete, %d torn\n", complete, torn);
	close(fd);
}

static long nanoseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000 + t.tv_nsec;
}

enum way { SHUTS, DISCONNECTS, NARROWS };

struct ender {
	atomic_int begun;
	int fd;
	long after;
	enum way way;
};

static void *end_it(void *argument)
{
	struct ender *e = argument;
	struct sockaddr nothing = {.sa_family = AF_UNSPEC};
	while (!e->begun)
		;
	for (long until = nanoseconds() + e->after; nanoseconds() < until;)
		;
	if (e->way == DISCONNECTS)
		connect(e->fd, &nothing, sizeof nothing);
	else if (e->way == SHUTS)
		shutdown(e->fd, SHUT_WR);
	else
		option_set(e->fd, SOL_SOCKET, SO_SNDBUF, 4608);
	return NULL;
}

/* A send that has begun queues all that fits, whatever another thread does to the socket meanwhile. */
static void ended_by_another(enum way way)
{
	static char block[2 * BLOCK];
	static const char *names[] = {"shut", "disconnected", "given a small buffer"};
	int cut = 0, size = 4 * BLOCK;
	printf("# %s by another thread\n", names[way]);
	for (int i = 0; i < ENDINGS; i++) {
		struct ender e = {.fd = peer(host, port, "discard"), .after = i * 2000L, .way = way};
		pthread_t thread;
		setsockopt(e.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		pthread_create(&thread, NULL, end_it, &e);
		e.begun = 1;
		ssize_t n = send(e.fd, block, sizeof block, MSG_NOSIGNAL | (way == NARROWS ? MSG_DONTWAIT : 0));
		/* It may have come too late altogether. */
		cut += n != sizeof block && n != -1;
		pthread_join(thread, NULL);
		close(e.fd);
	}
	printf("cut short: %d\n", cut);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: senders HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	from_small_stacks();
	through_one_socket();
	ended_by_another(SHUTS);
	ended_by_another(DISCONNECTS);
	ended_by_another(NARROWS);
	puts("done");
	return 0;
}
