/* Which of several threads that sleep for the same is woken: in accept the one that came first, in epoll_wait the one that
 * came last.
 *
 *   wake_order HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

enum { THREADS = 4 };

static const char *host;
static int port;

static struct sleeper {
	pthread_t thread;
	atomic_int tid;
	char name;
	int (*how)(int fd);
	int fd, times;
} sleepers[THREADS];

/* Who was woken says so here. */
static int woken[2];

static int accepts(int fd)
{
	int got = accept(fd, NULL, NULL);
	if (got >= 0)
		close(got);
	return got < 0 ? -1 : 0;
}

static int epoll_waits(int fd)
{
	struct epoll_event e;
	return epoll_wait(fd, &e, 1, 20000) == 1 ? 0 : -1;
}

static void *sleeps(void *argument)
{
	struct sleeper *s = argument;
	s->tid = gettid();
	for (int i = 0; i < s->times; i++) {
		char said = s->how(s->fd) ? '-' : s->name;
		if (write(woken[1], &said, 1) != 1)
			err(2, "write");
	}
	return NULL;
}

/* Threads that go to sleep one after the other. */
static void begin(int (*how)(int), int fd, int times)
{
	for (int i = 0; i < THREADS; i++) {
		struct sleeper *s = &sleepers[i];
		s->name = (char)('0' + i);
		s->how = how;
		s->fd = fd;
		s->times = times;
		s->tid = 0;
		if (pthread_create(&s->thread, NULL, sleeps, s))
			errx(2, "thread");
		while (!s->tid)
			usleep(100);
		asleep(s->tid);
	}
}

static void end(void)
{
	for (int i = 0; i < THREADS; i++)
		pthread_join(sleepers[i].thread, NULL);
	puts("");
	fflush(stdout);
}

/* Says who was woken, when that thread sleeps again, or has ended. */
static void say(void)
{
	char name;
	if (read(woken[0], &name, 1) != 1)
		err(2, "read");
	printf(" %c", name);
	if (name != '-')
		asleep(sleepers[name - '0'].tid);
}

static void call(int at)
{
	char command[32];
	snprintf(command, sizeof command, "call %d", at);
	close(peer(host, port, command));
}

static void accepting(int times)
{
	int at, fd = listener(16, &at);
	printf("accept, %d each:", times);
	begin(accepts, fd, times);
	for (int i = 0; i < times * THREADS; i++) {
		call(at);
		say();
	}
	end();
	close(fd);
}

/* A client that comes while nobody is woken for the one before: each has a thread of its own. */
static void crowd(void)
{
	int at, fd = listener(16, &at), seen = 0;
	printf("accept, all at once:");
	begin(accepts, fd, 3);
	for (int i = 0; i < 3 * THREADS; i++)
		call(at);
	for (char name; seen < 3 * THREADS && read(woken[0], &name, 1) == 1; seen++)
		if (name == '-')
			printf(" %c", name);
	printf(" %d", seen);
	end();
	close(fd);
}

static void waiting(const char *name, uint32_t events, int times)
{
	int fd = peer(host, port, "echo"), epfd = epoll_create1(0);
	struct epoll_event e = {.events = events};
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
	printf("epoll_wait, %s, %d each:", name, times);
	begin(epoll_waits, epfd, times);
	for (int i = 0; i < times * THREADS; i++) {
		send_text(fd, "x");
		say();
		if (events & EPOLLONESHOT) {
			char byte;
			receive_exactly(fd, &byte, 1);
			epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &e);
		}
	}
	end();
	close(epfd);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3 || pipe(woken))
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	for (int times = 1; times < 4; times += 2) {
		accepting(times);
		waiting("edges", EPOLLIN | EPOLLET, times);
		waiting("one shot", EPOLLIN | EPOLLONESHOT, times);
	}
	crowd();
	puts("done");
	return 0;
}
