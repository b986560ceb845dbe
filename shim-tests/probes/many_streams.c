/* One connection that receives much; then several at a time, read by one thread in pieces of all sizes, each byte of each
 * looked at; looked at before it is read; and what is left of them shared with a child.
 *
 *   many_streams HOST PORT     the peer program listens there
 */
#include "show.h"

#include <pthread.h>
#include <sys/wait.h>

enum { STREAMS = 6, BYTES = 8 << 20, LEFT = 3000000 };

static const size_t sizes[] = {131072, 16384, 70000, 4096, 1000000, 65160};
static char buffer[1 << 20];

/* Each stream has its own. */
static char byte(int stream, size_t at)
{
	return (char)((at * 31 + (at >> 9) * 7 + (size_t)stream * 101) ^ at >> 17);
}

static struct stream {
	int fd, number;
	size_t got, wrong;
} streams[STREAMS];

static void *writes(void *of)
{
	struct stream *s = of;
	char piece[50000];
	for (size_t at = 0; at < BYTES;) {
		size_t n = sizeof piece < BYTES - at ? sizeof piece : BYTES - at;
		for (size_t i = 0; i < n; i++)
			piece[i] = byte(s->number, at + i);
		ssize_t sent = send(s->fd, piece, n, 0);
		if (sent <= 0)
			err(2, "send");
		at += (size_t)sent;
	}
	shutdown(s->fd, SHUT_WR);
	return NULL;
}

static void check(struct stream *s, const char *data, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s->wrong += data[i] != byte(s->number, s->got + i);
}

/* Reads a piece of it; true until it ends. */
static int reads(struct stream *s, int looks)
{
	size_t size = sizes[s->number];
	if (looks) {
		ssize_t n = recv(s->fd, buffer, size / 2, MSG_PEEK | MSG_DONTWAIT);
		if (n > 0)
			check(s, buffer, (size_t)n);
	}
	ssize_t n = read(s->fd, buffer, size);
	if (n < 0)
		err(2, "read");
	check(s, buffer, (size_t)n);
	s->got += (size_t)n;
	return n > 0;
}

static void read_all_at_once(const char *host, int port)
{
	pthread_t threads[STREAMS];
	struct pollfd fds[STREAMS];
	for (int i = 0; i < STREAMS; i++) {
		streams[i] = (struct stream){.fd = peer(host, port, "echo"), .number = i};
		fds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
	}
	for (int i = 0; i < STREAMS; i++)
		if (pthread_create(&threads[i], NULL, writes, &streams[i]))
			errx(2, "thread");
	for (int open = STREAMS, round = 0; open > 0; round++) {
		if (poll(fds, STREAMS, 10000) <= 0)
			errx(2, "nothing comes");
		for (int i = 0; i < STREAMS; i++) {
			if (fds[i].fd >= 0 && fds[i].revents && !reads(&streams[i], round % 7 == i)) {
				fds[i].fd = -1;
				open--;
			}
		}
	}
	for (int i = 0; i < STREAMS; i++) {
		pthread_join(threads[i], NULL);
		printf("stream %d: %zu bytes, %zu wrong\n", i, streams[i].got, streams[i].wrong);
		close(streams[i].fd);
	}
}

/* The peer sends the alphabet, again and again, from the beginning after each 64 KiB. */
static size_t wrong_letters(const char *data, size_t at, size_t n)
{
	size_t wrong = 0;
	for (size_t i = 0; i < n; i++)
		wrong += data[i] != (char)('a' + (at + i) % 65536 % 26);
	return wrong;
}

static void read_rest(const char *who, int fd, size_t at)
{
	size_t wrong = 0;
	while (at < LEFT) {
		ssize_t n = read(fd, buffer, 100000);
		if (n <= 0)
			break;
		wrong += wrong_letters(buffer, at, (size_t)n);
		at += (size_t)n;
	}
	printf("%s: %zu bytes, %zu wrong\n", who, at, wrong);
}

static void read_one(const char *host, int port)
{
	char command[32];
	snprintf(command, sizeof command, "send %d", LEFT);
	int fd = peer(host, port, command);
	read_rest("alone", fd, 0);
	close(fd);
}

static void share(const char *host, int port)
{
	char command[32];
	int fds[STREAMS];
	size_t at[STREAMS];
	snprintf(command, sizeof command, "send %d", LEFT);
	for (int i = 0; i < STREAMS; i++)
		fds[i] = peer(host, port, command);
	for (int i = 0; i < STREAMS; i++) {
		receive_exactly(fds[i], buffer, sizes[i]);
		printf("first of %d: %zu wrong\n", i, wrong_letters(buffer, 0, sizes[i]));
		at[i] = sizes[i];
	}
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		for (int i = 0; i < STREAMS; i += 2)
			read_rest("child", fds[i], at[i]);
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	for (int i = 1; i < STREAMS; i += 2)
		read_rest("parent", fds[i], at[i]);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: many_streams HOST PORT");
	read_one(argv[1], atoi(argv[2]));
	read_all_at_once(argv[1], atoi(argv[2]));
	share(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
