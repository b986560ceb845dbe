/* A server that forks for each of the connections that wait when it begins to accept.
 *
 *   fork_burst server PORT COUNT GO         accepts when the file GO is there
 *   fork_burst client HOST PORT COUNT GO    connects COUNT times, makes GO, and prints how many were answered
 */
#include "show.h"

#include <fcntl.h>
#include <sys/wait.h>

enum { MOST = 64 };

static void serve(int port, int count, const char *go)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int listener = tcp_socket(), on = 1;
	char byte;
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, count))
		err(2, "listen");
	while (access(go, F_OK))
		poll(NULL, 0, 1);
	for (int n = 0; n < count; n++) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			err(2, "accept");
		pid_t child = fork();
		if (child == 0) {
			close(listener);
			if (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1)
				_exit(0);
			_exit(1);
		}
		close(fd);
	}
	while (wait(NULL) > 0)
		continue;
}

static void ask(const char *host, int port, int count, const char *go)
{
	struct sockaddr_in a = address(host, port);
	int fds[MOST], answered = 0;
	char byte = 'x';
	for (int n = 0; n < count; n++) {
		fds[n] = tcp_socket();
		if (connect(fds[n], (struct sockaddr *)&a, sizeof a))
			err(2, "connect");
	}
	close(open(go, O_CREAT | O_WRONLY, 0644));
	for (int n = 0; n < count; n++)
		send(fds[n], &byte, 1, MSG_NOSIGNAL);
	for (int n = 0; n < count; n++)
		answered += recv(fds[n], &byte, 1, 0) == 1;
	printf("%d\n", answered);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "server"))
		serve(atoi(argv[2]), atoi(argv[3]), argv[4]);
	else if (argc == 6 && !strcmp(argv[1], "client") && atoi(argv[4]) <= MOST)
		ask(argv[2], atoi(argv[3]), atoi(argv[4]), argv[5]);
	else
		errx(2, "usage: fork_burst server PORT COUNT GO | client HOST PORT COUNT GO");
	return 0;
}
