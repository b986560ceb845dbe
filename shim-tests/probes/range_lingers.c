/* close_range of a connection that lingers: what another thread opens under its number meanwhile stays open.
 *
 *   range_lingers HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "filled.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

static atomic_int tid, closed;
static int fd;

static void *closes(void *argument)
{
	int (*how)(void) = argument;
	tid = gettid();
	int r = how();
	closed = 1;
	return (void *)(long)r;
}

static int by_range(void)
{
	return close_range((unsigned)fd, (unsigned)fd + 3, 0);
}

static int by_closefrom(void)
{
	closefrom(fd);
	return 0;
}

static void lingers(const char *name, const char *host, int port, int (*how)(void))
{
	struct linger linger = {.l_onoff = 1, .l_linger = 1};
	pthread_t thread;
	void *result;
	fd = peer(host, port, "gated");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	fill_beyond(fd);
	tid = closed = 0;
	if (pthread_create(&thread, NULL, closes, how))
		errx(2, "thread");
	while (!tid)
		usleep(100);
	asleep(tid);
	int new = eventfd(0, EFD_CLOEXEC);
	printf("%s: the same number %d, closed already %d", name, new == fd, closed);
	pthread_join(thread, &result);
	printf(", gave %ld, still open %d\n", (long)result, fcntl(new, F_GETFD) >= 0);
	fflush(stdout);
	close(new);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	lingers("close_range", argv[1], atoi(argv[2]), by_range);
	lingers("closefrom", argv[1], atoi(argv[2]), by_closefrom);
	puts("done");
	return 0;
}
