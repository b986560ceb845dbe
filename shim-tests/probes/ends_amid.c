/* The end of a program, or of an exec, by one thread while others use its connections: they never see that those are closed.
 *
 *   ends_amid HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { TIMES = 8, STATUS = 7 };

static const char *host;
static int port, told[2];

struct user {
	int fd;
	atomic_int uses;
};

/* What a thread should not see. */
static void seen(char what)
{
	if (write(told[1], &what, 1) != 1)
		abort();
}

static void *sends(void *argument)
{
	struct user *u = argument;
	static char data[4000];
	for (;; u->uses++)
		if (send(u->fd, data, sizeof data, 0) < 0)
			seen('s');
	return NULL;
}

static void *receives(void *argument)
{
	struct user *u = argument;
	char byte;
	for (;; u->uses++)
		if (recv(u->fd, &byte, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN)
			seen('r');
	return NULL;
}

static void *polls(void *argument)
{
	struct user *u = argument;
	for (;; u->uses++) {
		struct pollfd p = {.fd = u->fd, .events = POLLIN | POLLRDHUP};
		if (poll(&p, 1, 1))
			seen('p');
	}
	return NULL;
}

static void *asks(void *argument)
{
	struct user *u = argument;
	for (;; u->uses++) {
		struct sockaddr_in a;
		socklen_t length = sizeof a;
		if (getpeername(u->fd, (struct sockaddr *)&a, &length))
			seen('n');
	}
	return NULL;
}

static void *leaves(void *argument)
{
	(void)argument;
	exit(STATUS);
}

static void by_exit(void)
{
	exit(STATUS);
}

static void by__exit(void)
{
	_exit(STATUS);
}

static void by_another_thread(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, leaves, NULL))
		abort();
	for (;;)
		pause();
}

static void by_exec(void)
{
	execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
	abort();
}

static void ends(const char *name, void *(*use)(void *), void (*end)(void))
{
	enum { THREADS = 3 };
	int right = 0;
	char what, all[16] = "";
	for (int i = 0; i < TIMES; i++) {
		if (pipe(told))
			err(2, "pipe");
		fflush(stdout);
		pid_t child = fork();
		if (!child) {
			static struct user user[THREADS];
			for (int j = 0; j < THREADS; j++) {
				pthread_t thread;
				user[j].fd = peer(host, port, "discard");
				fcntl(user[j].fd, F_SETFD, FD_CLOEXEC);
				if (pthread_create(&thread, NULL, use, &user[j]))
					abort();
			}
			for (int j = 0; j < THREADS; j++)
				while (user[j].uses < 20)
					usleep(1000);
			end();
		}
		int status;
		close(told[1]);
		if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == STATUS)
			right++;
		while (read(told[0], &what, 1) == 1)
			if (!strchr(all, what))
				all[strlen(all)] = what;
		close(told[0]);
	}
	printf("%s: %d of %d, seen: %s\n", name, right, TIMES, all);
	fflush(stdout);
}

static void each(const char *how, void (*end)(void))
{
	printf("# %s\n", how);
	ends("sends", sends, end);
	ends("receives", receives, end);
	ends("polls", polls, end);
	ends("asks", asks, end);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	each("exit", by_exit);
	each("_exit", by__exit);
	each("exit in another thread", by_another_thread);
	each("exec", by_exec);
	puts("done");
	return 0;
}
