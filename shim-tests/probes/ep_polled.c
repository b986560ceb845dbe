/* Instances of epoll that are polled, nested and taken away: what their readiness shows, and to whom.
 *
 *   ep_polled HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <time.h>

static const char *host;
static int port;

static int instance(int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.u64 = 5};
	int ep = epoll_create1(0);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
		err(2, "epoll_ctl");
	return ep;
}

static int poll_one(int fd, int timeout)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n = poll(&p, 1, timeout);
	return n <= 0 ? n : p.revents;
}

static int wait_one(int ep, int timeout)
{
	struct epoll_event e = {0};
	int n = epoll_wait(ep, &e, 1, timeout);
	return n <= 0 ? n : (int)e.events;
}

/* A socket that is ready itself does not hide the instance beside it. */
static void beside_a_socket(void)
{
	int fd = peer(host, port, "steps say=hello await"), other = peer(host, port, "hold");
	int ep = instance(fd, EPOLLIN);
	puts("# beside a socket that is ready");
	wait_for(fd, POLLIN);
	/* Linux wakes who sleeps on the socket one after the other: the instance may hear of it last. */
	wait_for(ep, POLLIN);
	for (int timeout = 0; timeout <= 100; timeout += 100) {
		struct pollfd p[2] = {{.fd = ep, .events = POLLIN}, {.fd = other, .events = POLLOUT}};
		fd_set in, out;
		printf("poll %d", poll(p, 2, timeout));
		printf(": %x %x\n", p[0].revents, p[1].revents);
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_SET(ep, &in);
		FD_SET(other, &out);
		SHOW(select((ep > other ? ep : other) + 1, &in, &out, NULL, NULL));
		SHOW(FD_ISSET(ep, &in) && FD_ISSET(other, &out));
	}
	close(ep);
	close(other);
	close(fd);
}

/* What arrives shows only where it is asked for. */
static void outside_the_interest(void)
{
	static const uint32_t interests[] = {0, EPOLLONESHOT, EPOLLET, EPOLLPRI, EPOLLET | EPOLLOUT | EPOLLONESHOT, EPOLLIN};
	puts("# outside the interest");
	for (size_t i = 0; i < sizeof interests / sizeof *interests; i++) {
		int fd = peer(host, port, "steps say=hello finish await");
		int ep = instance(fd, interests[i]), outer = instance(ep, EPOLLIN);
		printf("interest %x\n", interests[i]);
		wait_for(fd, POLLRDHUP);
		SHOW(poll_one(ep, 0));
		SHOW(wait_one(outer, 0));
		SHOW(wait_one(ep, 0));
		SHOW(poll_one(ep, 20));
		SHOW(wait_one(outer, 20));
		close(outer);
		close(ep);
		close(fd);
	}
}

/* Nested before the socket comes, and after. */
static void nested(void)
{
	puts("# nested");
	for (int early = 0; early < 2; early++) {
		int fd = peer(host, port, "steps await say=hello await");
		int ep = epoll_create1(0), outer;
		struct epoll_event e = {.events = EPOLLIN};
		if (early)
			outer = instance(ep, EPOLLIN | EPOLLET);
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
		if (!early)
			outer = instance(ep, EPOLLIN | EPOLLET);
		SHOW(wait_one(outer, 0));
		SHOW(shutdown(fd, SHUT_WR));
		SHOW(wait_one(outer, 50));
		close(outer);
		close(ep);
		close(fd);
		fd = peer(host, port, "steps await say=hello await");
		ep = epoll_create1(0);
		if (early)
			outer = instance(ep, EPOLLIN | EPOLLET);
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
		if (!early)
			outer = instance(ep, EPOLLIN | EPOLLET);
		send_text(fd, "x");
		SHOW(wait_one(outer, 20000));
		SHOW(wait_one(outer, 0));
		SHOW(wait_one(ep, 0));
		close(outer);
		close(ep);
		close(fd);
	}
}

static int waited, kernels, result;
static pid_t sleeper;

static void *in_epoll(void *arg)
{
	sleeper = gettid();
	pthread_barrier_wait(arg);
	result = wait_one(waited, 1000);
	return NULL;
}

static void *in_poll(void *arg)
{
	struct pollfd p[2] = {{.fd = waited, .events = POLLIN}, {.fd = kernels, .events = POLLIN}};
	sleeper = gettid();
	pthread_barrier_wait(arg);
	result = poll(p, 2, 1000) * 0x1000 + p[0].revents;
	return NULL;
}

static void *in_select(void *arg)
{
	struct timeval second = {.tv_sec = 1};
	fd_set in;
	FD_ZERO(&in);
	FD_SET(waited, &in);
	FD_SET(kernels, &in);
	sleeper = gettid();
	pthread_barrier_wait(arg);
	result = select((waited > kernels ? waited : kernels) + 1, &in, NULL, NULL, &second);
	return NULL;
}

/* Another thread closes the instance, or puts another one behind its number; then the socket becomes ready. */
static void taken_away(void)
{
	static void *(*const waits[])(void *) = {in_epoll, in_poll, in_select};
	puts("# taken away");
	for (int how = 0; how < 4; how++) {
		for (int i = 0; i < 3; i++) {
			int fd = peer(host, port, "steps await say=hello await"), other = peer(host, port, "hold");
			pthread_barrier_t about_to;
			pthread_t thread;
			kernels = eventfd(0, 0);
			waited = instance(fd, how == 3 ? EPOLLIN | EPOLLET : EPOLLIN);
			pthread_barrier_init(&about_to, NULL, 2);
			pthread_create(&thread, NULL, waits[i], &about_to);
			pthread_barrier_wait(&about_to);
			asleep(sleeper);
			if (how == 1) {
				int ep = instance(other, EPOLLOUT);
				SHOW(dup2(ep, waited) == waited);
				close(ep);
			} else if (how == 2) {
				SHOW(shutdown(fd, SHUT_WR));
			} else {
				SHOW(close(waited));
			}
			if (how != 2)
				send_text(fd, "x");
			pthread_join(thread, NULL);
			printf("way %d, wait %d: %x\n", how, i, result);
			if (how == 1 || how == 2)
				close(waited);
			close(kernels);
			close(other);
			close(fd);
		}
	}
}

/* A number that another thread closes is told of when something else is ready. */
static void closed_beside(void)
{
	int fd = peer(host, port, "steps await say=hello await"), own_port;
	pthread_barrier_t about_to;
	pthread_t thread;
	puts("# closed beside");
	waited = instance(fd, EPOLLIN);
	kernels = listener(8, &own_port);
	pthread_barrier_init(&about_to, NULL, 2);
	pthread_create(&thread, NULL, in_poll, &about_to);
	pthread_barrier_wait(&about_to);
	asleep(sleeper);
	SHOW(close(kernels));
	send_text(fd, "x");
	pthread_join(thread, NULL);
	printf("%x\n", result);
	close(waited);
	close(fd);
}

static void pass(long ns)
{
	struct timespec from, now;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < ns);
}

/* What has arrived shows beside what was ready before. A busy machine may be late with some of it. */
static void arrived(void)
{
	int fd = peer(host, port, "echo"), ep = instance(fd, EPOLLIN | EPOLLOUT), polls = 0, waits = 0;
	char byte;
	puts("# arrived");
	for (int i = 0; i < 60; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
		send_text(fd, "x");
		pass(400000);
		if (i % 2) {
			poll(&p, 1, 0);
			polls += (p.revents & POLLIN) != 0;
		} else {
			waits += (wait_one(ep, 0) & EPOLLIN) != 0;
		}
		SHOW(recv(fd, &byte, 1, MSG_WAITALL));
	}
	SHOW(polls > 10);
	SHOW(waits > 10);
	close(ep);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: ep_polled HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	beside_a_socket();
	outside_the_interest();
	nested();
	taken_away();
	closed_beside();
	arrived();
	puts("done");
	return 0;
}
