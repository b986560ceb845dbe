/* Two programs with a listener each on one port (SO_REUSEPORT), which know nothing of each other: as a server that takes the
 * place of an older one has them. The second one comes when the first has connections.
 *
 *   reuse_strangers HOST PORT     the peer program listens there
 */
#include "show.h"

#include <sys/wait.h>

#define CLIENTS 24

static const char *host;
static int port;

static void call(int at)
{
	char command[32];
	snprintf(command, sizeof command, "call %d", at);
	close(peer(host, port, command));
}

static int listens(struct sockaddr_in a, int *bound, int *listening)
{
	int fd = tcp_socket();
	option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	*bound = bind(fd, (struct sockaddr *)&a, sizeof a) ? errno : 0;
	*listening = listen(fd, CLIENTS) ? errno : 0;
	return fd;
}

/* What the peer says first, and then echoes. */
static int talk(int fd)
{
	char said[6];
	return recv(fd, said, sizeof said, MSG_WAITALL) == sizeof said && send(fd, "x", 1, MSG_NOSIGNAL) == 1 &&
	       recv(fd, said, 1, 0) == 1;
}

static int answer(int listener)
{
	int fd = accept(listener, NULL, NULL);
	int answered = fd >= 0 && talk(fd);
	close(fd);
	return answered;
}

/* The second program: standard input tells the port, standard output how that went, and a byte for each client. */
static int stranger(void)
{
	int at, how[2];
	struct sockaddr_in a = {.sin_family = AF_INET};
	if (read(0, &at, sizeof at) != sizeof at)
		return 1;
	a.sin_port = htons((uint16_t)at);
	struct pollfd p[2] = {{.events = POLLIN}, {.fd = 0, .events = POLLIN}};
	p[0].fd = listens(a, how, how + 1);
	if (write(1, how, sizeof how) != sizeof how)
		return 1;
	while (poll(p, 2, 20000) > 0 && !p[1].revents)
		if (answer(p[0].fd) && write(1, "", 1) != 1)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "stranger"))
		return stranger();
	if (argc != 3)
		errx(2, "usage: reuse_strangers HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	int to[2], from[2], how[2], first = 0, second = 0;
	if (pipe(to) || pipe(from))
		err(2, "pipe");
	/* Before there is a socket: it is a program of its own. */
	pid_t pid = fork();
	if (pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		close(to[1]);
		close(from[0]);
		execl("/proc/self/exe", "reuse_strangers", "stranger", NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t length = sizeof a;
	int listener = listens(a, how, how + 1);
	printf("the first: bind %d, listen %d\n", how[0], how[1]);
	getsockname(listener, (struct sockaddr *)&a, &length);
	int at = ntohs(a.sin_port);
	call(at);
	int kept = accept(listener, NULL, NULL);
	if (write(to[1], &at, sizeof at) != sizeof at || read(from[0], how, sizeof how) != sizeof how)
		errx(2, "the second program has ended");
	printf("the second: bind %d, listen %d\n", how[0], how[1]);
	for (int n = 0; n < CLIENTS; n++)
		call(at);
	struct pollfd p[2] = {{listener, POLLIN, 0}, {from[0], POLLIN, 0}};
	while (first + second < CLIENTS && poll(p, 2, 10000) > 0) {
		char byte;
		if (p[0].revents)
			first += answer(listener);
		if (p[1].revents && read(from[0], &byte, 1) != 1)
			break;
		second += !!p[1].revents;
	}
	printf("answered: %d, by both: %d\n", first + second, first && second);
	printf("the first connection: %d\n", talk(kept));
	close(to[1]);
	waitpid(pid, NULL, 0);
	puts("done");
	return 0;
}
