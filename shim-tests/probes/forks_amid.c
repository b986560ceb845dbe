/* Forks while other threads use sockets and epoll in every way that takes a lock: each child works, with sockets of its own.
 *
 *   forks_amid HOST PORT     the peer program listens there
 */
#include "show.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>

enum { FORKS = 60, THREADS = 6, PATIENCE = 10 };

static const char *host;
static int port;
static atomic_int stop;

static void opens_and_closes(int fd)
{
	(void)fd;
	close(tcp_socket());
}

static void watches(int fd)
{
	struct epoll_event e = {.events = EPOLLIN};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
	epoll_wait(set, &e, 1, 0);
	epoll_ctl(set, EPOLL_CTL_DEL, fd, &e);
	close(set);
}

static void polls(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	poll(&p, 1, 0);
	poll(&p, 1, 1);
}

struct user {
	void (*use)(int fd);
	pthread_t thread;
	int fd;
};

static void *uses(void *argument)
{
	struct user *u = argument;
	while (!stop)
		u->use(u->fd);
	return NULL;
}

/* What a child does with all that its parent's threads had locked. */
static void works(int fd)
{
	int own = peer(host, port, "echo");
	char byte;
	for (int i = 0; i < 20; i++) {
		opens_and_closes(own);
		watches(own);
		polls(own);
	}
	close(fd);
	if (send(own, "x", 1, 0) != 1 || recv(own, &byte, 1, 0) != 1)
		_exit(1);
	_exit(0);
}

/* True when the child has ended well. */
static int comes_back(pid_t child)
{
	int status;
	time_t end = time(NULL) + PATIENCE;
	while (!waitpid(child, &status, WNOHANG)) {
		if (time(NULL) > end) {
			kill(child, SIGKILL);
			waitpid(child, &status, 0);
			return 0;
		}
		usleep(500);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
	static void (*const ways[])(int) = {opens_and_closes, watches, polls};
	struct user user[THREADS];
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	for (int i = 0; i < THREADS; i++) {
		user[i].use = ways[i % (int)(sizeof ways / sizeof *ways)];
		user[i].fd = peer(host, port, "echo");
		if (pthread_create(&user[i].thread, NULL, uses, &user[i]))
			errx(2, "thread");
	}
	int back = 0;
	for (int i = 0; i < FORKS && back == i; i++) {
		fflush(stdout);
		pid_t child = fork();
		if (!child)
			works(user[0].fd);
		back += comes_back(child);
	}
	printf("%d of %d children\n", back, FORKS);
	stop = 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(user[i].thread, NULL);
	puts("done");
	return 0;
}
