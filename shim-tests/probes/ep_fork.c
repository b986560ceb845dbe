/* A listener that an epoll instance watches stands there once after a fork, too, and processes with a listener each of one
 * SO_REUSEPORT group.
 *
 *   ep_fork HOST PORT     the peer program listens there
 */
#include "show.h"

#include <sys/epoll.h>
#include <sys/wait.h>

static int grouped(int port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1, fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 5))
		return -errno;
	return fd;
}

static int free_port(void)
{
	int port, fd = listener(1, &port);
	close(fd);
	return port;
}

static void watched(const char *host, int port)
{
	struct epoll_event event = {.events = EPOLLIN}, events[4];
	char command[40];
	int at, fd = listener(5, &at), instance = epoll_create1(0);
	epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	snprintf(command, sizeof command, "call %d", at);
	int control = peer(host, port, command);
	SHOW(epoll_wait(instance, events, 4, 20000));
	close(accept(fd, NULL, NULL));
	SHOW(epoll_wait(instance, events, 4, 0));
	close(fd);
	close(control);
	close(instance);
}

static void siblings(void)
{
	int port = free_port(), done[2], ready[2];
	char byte;
	if (pipe(done) || pipe(ready))
		err(2, "pipe");
	for (int i = 0; i < 2; i++) {
		if (fork() == 0) {
			close(done[1]);
			byte = grouped(port) >= 0 ? '+' : '-';
			if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1))
				_exit(1);
			_exit(0);
		}
		if (read(ready[0], &byte, 1) != 1)
			err(2, "a child");
		printf("a child listens: %c\n", byte);
	}
	close(done[1]);
	while (wait(NULL) > 0) {
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: ep_fork HOST PORT");
	watched(argv[1], atoi(argv[2]));
	fflush(stdout);
	siblings();
	puts("done");
	return 0;
}
