/* SO_MAX_PACING_RATE where no queueing discipline paces: half a second's worth of bytes is not gone in a moment.
 *
 *   paced HOST PORT     the peer program listens there
 */
#include "show.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <time.h>

static long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The peer may echo. */
static void drain(int fd)
{
	static char back[65536];
	while (recv(fd, back, sizeof back, MSG_DONTWAIT) > 0)
		continue;
}

/* Sends `len` bytes and waits until they are acknowledged: whether that took a quarter of a second, at least. */
static int held_back(int fd, size_t len)
{
	static char data[20000];
	long began = now_ms();
	int queued = 1;
	for (size_t done = 0; done < len;) {
		size_t more = len - done < sizeof data ? len - done : sizeof data;
		ssize_t n = send(fd, data, more, 0);
		if (n < 0)
			err(2, "send");
		done += (size_t)n;
		drain(fd);
	}
	while (queued > 0) {
		if (ioctl(fd, SIOCOUTQ, &queued))
			err(2, "SIOCOUTQ");
		drain(fd);
		poll(NULL, 0, 1);
	}
	return now_ms() - began >= 250;
}

int main(int argc, char **argv)
{
	unsigned rate = 2000000, none = ~0u;
	if (argc != 3)
		errx(2, "usage: paced HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "discard");
	SHOW(setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate));
	SHOW(held_back(fd, 1000000));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &none, sizeof none));
	close(fd);

	/* A connection that comes in has its listener's limit. */
	int at, listening = listener(1, &at);
	char command[32];
	SHOW(setsockopt(listening, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate));
	snprintf(command, sizeof command, "call %d", at);
	int other = peer(argv[1], atoi(argv[2]), command);
	fd = accept(listening, NULL, NULL);
	SHOW(held_back(fd, 1000000));
	close(fd);
	close(other);
	close(listening);
	puts("done");
	return 0;
}
