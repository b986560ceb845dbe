/* epoll: instances shared by threads, duplicated and refused; sockets that come while a thread sleeps.
 *
 *   ep_threads HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static const char *host;
static int port;

static int add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};
	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

struct sleeper {
	int ep;
	pid_t tid;
	pthread_t thread;
	pthread_barrier_t *about_to;
	int n;
	struct epoll_event got;
};

static void *sleep_there(void *arg)
{
	struct sleeper *s = arg;
	s->tid = gettid();
	pthread_barrier_wait(s->about_to);
	s->n = epoll_wait(s->ep, &s->got, 1, 20000);
	return NULL;
}

/* A thread sleeps in an instance that has never seen a socket; then it gets one that becomes ready. */
static void added_while_asleep(void)
{
	pthread_barrier_t barrier;
	struct sleeper s = {.ep = epoll_create1(0), .about_to = &barrier};
	char byte;
	int fd = peer(host, port, "echo"), event = eventfd(0, 0);
	puts("# added while asleep");
	add(s.ep, event, EPOLLIN, 7);
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&s.thread, NULL, sleep_there, &s);
	pthread_barrier_wait(&barrier);
	asleep(s.tid);
	SHOW(add(s.ep, fd, EPOLLIN, 8));
	send_text(fd, "x");
	pthread_join(s.thread, NULL);
	printf("woken: %d, data %d, events %x\n", s.n, (int)s.got.data.u64, s.got.events);
	SHOW(recv(fd, &byte, 1, 0));
	/* And the kernel's descriptor still wakes. */
	pthread_create(&s.thread, NULL, sleep_there, &s);
	pthread_barrier_wait(&barrier);
	SHOW(eventfd_write(event, 1));
	pthread_join(s.thread, NULL);
	printf("woken: %d, data %d, events %x\n", s.n, (int)s.got.data.u64, s.got.events);
	close(event);
	close(fd);
	close(s.ep);
}

/* Four threads in one instance, one edge-triggered socket each: every edge wakes exactly one. */
static void shared(void)
{
	enum { N = 4 };
	pthread_barrier_t barrier;
	struct sleeper s[N];
	int ep = epoll_create1(0), fds[N], seen = 0;
	puts("# shared");
	pthread_barrier_init(&barrier, NULL, N + 1);
	for (int i = 0; i < N; i++) {
		fds[i] = peer(host, port, "echo");
		add(ep, fds[i], EPOLLIN | EPOLLET, (uint64_t)i);
	}
	for (int i = 0; i < N; i++) {
		s[i] = (struct sleeper){.ep = ep, .about_to = &barrier};
		pthread_create(&s[i].thread, NULL, sleep_there, &s[i]);
	}
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < N; i++)
		send_text(fds[i], "x");
	for (int i = 0; i < N; i++) {
		pthread_join(s[i].thread, NULL);
		if (s[i].n == 1)
			seen |= 1 << s[i].got.data.u64;
	}
	printf("sockets seen: %x\n", seen);
	struct epoll_event none;
	SHOW(epoll_wait(ep, &none, 1, 0));
	for (int i = 0; i < N; i++)
		close(fds[i]);
	close(ep);
}

/* The instance under a second number, and after the first is closed. */
static void duplicated(void)
{
	struct epoll_event got;
	int ep = epoll_create1(EPOLL_CLOEXEC), fd = peer(host, port, "echo"), other, third;
	puts("# duplicated");
	SHOW(add(ep, fd, EPOLLOUT, 1));
	other = dup(ep);
	third = fcntl(ep, F_DUPFD_CLOEXEC, 0);
	SHOW(epoll_wait(other, &got, 1, 20000));
	printf("events %x\n", got.events);
	SHOW(close(ep));
	SHOW(epoll_wait(ep, &got, 1, 0));
	SHOW(epoll_wait(other, &got, 1, 20000));
	SHOW(add(third, fd, EPOLLOUT, 1));
	SHOW(dup2(other, ep) == ep);
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_wait(third, &got, 1, 0));
	close(other);
	close(third);
	close(ep);
	close(fd);
}

static void refused(void)
{
	struct epoll_event e = {.events = EPOLLIN}, got;
	int ep = epoll_create1(0), fd = peer(host, port, "echo"), pipes[2];
	volatile int negative = -1;
	struct epoll_event *volatile nowhere = (struct epoll_event *)8;
	puts("# refused");
	if (pipe(pipes))
		err(2, "pipe");
	SHOW(epoll_create(0));
	SHOW(epoll_create1(12345));
	SHOW(add(-1, fd, EPOLLIN, 0));
	SHOW(add(pipes[0], fd, EPOLLIN, 0));
	SHOW(add(fd, fd, EPOLLIN, 0));
	SHOW(add(ep, ep, EPOLLIN, 0));
	SHOW(add(ep, -1, EPOLLIN, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, &e));
	SHOW(epoll_ctl(ep, 17, fd, &e));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, nowhere));
	SHOW(add(ep, fd, EPOLLIN, 0));
	SHOW(add(ep, fd, EPOLLIN, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(add(ep, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0));
	SHOW(add(ep, fd, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
	SHOW(epoll_wait(ep, &got, 0, 0));
	SHOW(epoll_wait(ep, &got, negative, 0));
	SHOW(epoll_wait(fd, &got, 1, 0));
	SHOW(epoll_wait(pipes[0], &got, 1, 0));
	send_text(fd, "x");
	struct pollfd p = {.fd = fd, .events = POLLIN};
	SHOW(poll(&p, 1, 20000));
	SHOW(epoll_wait(ep, nowhere, 1, 20000));
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	close(ep);
}

/* Every value of the data is the program's. */
static void any_data(void)
{
	struct epoll_event got[2];
	int ep = epoll_create1(0), fd = peer(host, port, "echo"), event = eventfd(1, 0);
	puts("# any data");
	for (int shift = 0; shift < 64; shift += 21) {
		struct epoll_event e = {.events = EPOLLOUT, .data.u64 = ~0ull >> shift};
		if (epoll_ctl(ep, shift ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e))
			err(2, "epoll_ctl");
		int n = epoll_wait(ep, got, 2, 20000);
		printf("%d %llx\n", n, (unsigned long long)got[0].data.u64);
	}
	/* One event at a time: neither side starves. */
	add(ep, event, EPOLLIN, 5);
	int ours = 0, kernels = 0;
	for (int i = 0; i < 8; i++)
		if (epoll_wait(ep, got, 1, 20000) == 1)
			*(got[0].data.u64 == 5 ? &kernels : &ours) += 1;
	printf("both had a turn: %d\n", ours > 0 && kernels > 0);
	close(event);
	close(fd);
	close(ep);
}

/* A listener. */
static void listening(void)
{
	struct epoll_event got[4];
	int at, ep = epoll_create1(0), fd = listener(8, &at);
	char command[32];
	puts("# listening");
	SHOW(add(ep, fd, EPOLLIN, 3));
	SHOW(epoll_wait(ep, got, 4, 0));
	snprintf(command, sizeof command, "call %d", at);
	int control = peer(host, port, command);
	SHOW(epoll_wait(ep, got, 4, 20000));
	printf("data %d events %x\n", (int)got[0].data.u64, got[0].events);
	int child = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	SHOW(child >= 0);
	SHOW(epoll_wait(ep, got, 4, 0));
	close(child);
	close(control);
	close(fd);
	close(ep);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: ep_threads HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	added_while_asleep();
	shared();
	duplicated();
	refused();
	any_data();
	listening();
	puts("done");
	return 0;
}
