/* While one thread shares connections with other processes, calls of other threads go on as if nothing happened.
 *
 *   used_while_shared HOST PORT     the peer program listens there
 */
#include "show.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

extern char **environ;

enum { TIMES = 12 };

static const char *host;
static int port;
static atomic_int stop;

struct user {
	const char *name;
	int (*use)(int fd);
	int fd;
	pthread_t thread;
	atomic_int uses;
	int wrong;
};

static int asks_the_peer(int fd)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	return getpeername(fd, (struct sockaddr *)&a, &length);
}

static int asks_an_option(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) || info.tcpi_state != TCP_ESTABLISHED ||
	       option_of(fd, SOL_SOCKET, SO_ERROR) != 0;
}

static int sets_an_option(int fd)
{
	return option_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

static int asks_how_much(int fd)
{
	int n;
	return ioctl(fd, FIONREAD, &n) || n;
}

static int polls(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	return poll(&p, 1, 0) != 1 || p.revents != POLLOUT;
}

static int looks_for_errors(int fd)
{
	char byte;
	return recv(fd, &byte, 1, MSG_ERRQUEUE) != -1 || errno != EAGAIN;
}

static int connects(int fd)
{
	char byte;
	struct linger reset = {.l_onoff = 1};
	(void)fd;
	fd = peer(host, port, "echo");
	int wrong = send(fd, "x", 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(fd);
	return wrong;
}

static void *uses(void *argument)
{
	struct user *u = argument;
	for (; !stop; u->uses++)
		if (u->use(u->fd))
			u->wrong++;
	return NULL;
}

static void forks(int fd)
{
	(void)fd;
	pid_t child = fork();
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
}

static void spawns(int fd)
{
	pid_t child;
	char *name[] = {"true", NULL};
	(void)fd;
	if (posix_spawnp(&child, "true", NULL, NULL, name, environ))
		errx(2, "spawn");
	waitpid(child, NULL, 0);
}

static void sends_it(int fd)
{
	int pair[2];
	char control[CMSG_SPACE(sizeof fd)] = "";
	struct iovec byte = {.iov_base = "x", .iov_len = 1};
	struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || sendmsg(pair[0], &message, 0) != 1)
		err(2, "sends it");
	close(pair[0]);
	close(pair[1]);
}

static void amid(const char *name, void (*share)(int fd))
{
	printf("# %s\n", name);
	fflush(stdout);
	static const struct user all[] = {
		{.name = "getpeername", .use = asks_the_peer},
		{.name = "getsockopt", .use = asks_an_option},
		{.name = "setsockopt", .use = sets_an_option},
		{.name = "ioctl", .use = asks_how_much},
		{.name = "poll", .use = polls},
		{.name = "recv MSG_ERRQUEUE", .use = looks_for_errors},
		{.name = "connect", .use = connects},
	};
	enum { USERS = sizeof all / sizeof *all };
	int wrong[USERS] = {0};
	for (int i = 0; i < TIMES; i++) {
		struct user user[USERS];
		stop = 0;
		for (int j = 0; j < USERS; j++) {
			user[j] = all[j];
			user[j].fd = peer(host, port, "echo");
			if (pthread_create(&user[j].thread, NULL, uses, &user[j]))
				errx(2, "thread");
		}
		for (int j = 0; j < USERS; j++)
			while (user[j].uses < 3)
				usleep(100);
		for (int j = 0; j < USERS; j++)
			share(user[j].fd);
		stop = 1;
		for (int j = 0; j < USERS; j++) {
			pthread_join(user[j].thread, NULL);
			wrong[j] += user[j].wrong;
			close(user[j].fd);
		}
	}
	for (int j = 0; j < USERS; j++)
		printf("%s: %d wrong\n", all[j].name, wrong[j]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	amid("fork", forks);
	amid("posix_spawn", spawns);
	amid("SCM_RIGHTS", sends_it);
	puts("done");
	return 0;
}
