/* A program listens at a port where another one listened before, which still has connections there.
 *
 *   successor HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#define CALLS 50

extern char **environ;

static int listens(int *at)
{
	struct sockaddr_in a = address("0.0.0.0", *at);
	socklen_t length = sizeof a;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 5) ||
	    getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "listens");
	*at = ntohs(a.sin_port);
	return fd;
}

/* The peer's next connection to us; none when it did not come. */
static int accepted(int fd, const char *host, int port, int at)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char text[32];
	snprintf(text, sizeof text, "call %d", at);
	int asked = peer(host, port, text), one = -1;
	if (poll(&p, 1, 3000) == 1)
		one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (one >= 0)
		receive_exactly(one, text, 6);
	close(asked);
	return one;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(2, "usage: successor HOST PORT");
	const char *host = argv[1];
	int port = atoi(argv[2]), at = argc > 3 ? atoi(argv[3]) : 0, fd = listens(&at);
	if (argc > 3) {
		int served = 0;
		for (int i = 0; i < CALLS; i++) {
			int one = accepted(fd, host, port, at);
			if (one < 0)
				break;
			served++;
			close(one);
		}
		printf("%d of %d\n", served, CALLS);
		return 0;
	}
	int kept = accepted(fd, host, port, at), status = -1;
	char text[16], byte;
	close(fd);
	snprintf(text, sizeof text, "%d", at);
	char *arguments[] = {argv[0], argv[1], argv[2], text, NULL};
	pid_t pid;
	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ) || waitpid(pid, &status, 0) != pid)
		err(2, "spawn");
	SHOW(status);
	send_text(kept, "x");
	SHOW(recv(kept, &byte, 1, 0));
	close(kept);
	puts("done");
	return 0;
}
