/* A server that lowers its effective user, and forks for a connection (proftpd): the child has it.
 *
 *   lowered_user HOST PORT     the peer program listens there
 */
#include "show.h"

#include <sys/wait.h>

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	char command[32], said[16] = "";
	int listener = tcp_socket(), status;
	if (argc != 3)
		errx(2, "usage: lowered_user HOST PORT");
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&a, &len))
		err(2, "listen");
	snprintf(command, sizeof command, "call %d", ntohs(a.sin_port));
	close(peer(argv[1], atoi(argv[2]), command));
	SHOW(setresuid(-1, 65534, -1));
	int fd = accept(listener, NULL, NULL);
	if (fd < 0)
		err(2, "accept");
	pid_t child = fork();
	if (child == 0) {
		SHOW(getpeername(fd, (struct sockaddr *)&a, &len));
		SHOW(recv(fd, said, 6, MSG_WAITALL));
		SHOW(send(fd, "hello", 5, MSG_NOSIGNAL));
		SHOW(recv(fd, said, 5, MSG_WAITALL));
		puts(said);
		fflush(stdout);
		_exit(0);
	}
	close(fd);
	waitpid(child, &status, 0);
	SHOW(status);
	SHOW(setresuid(-1, getuid(), -1));
	puts("done");
	return 0;
}
