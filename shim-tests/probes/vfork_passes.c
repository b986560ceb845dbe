/* Connections that a vfork child passes on to the program which it becomes: by number, and by inheritance.
 *
 *   vfork_passes HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/wait.h>

static const char *host;
static int port;

enum way { DUP2, DUP3, F_DUP, INHERITED };

/* What the program `head` says of the first three bytes, and how it ends. */
static void passed(const char *what, enum way way, int kind)
{
	char said[16] = "", number[32];
	int out[2], status = -1;
	struct sockaddr_in a = address(host, port);
	int fd = socket(AF_INET, SOCK_STREAM | kind, 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) || pipe(out))
		err(2, "connect");
	send_text(fd, "steps say=hello await\n");
	wait_for(fd, POLLIN);
	/* Another one, which the child closes. */
	int other = peer(host, port, "echo");
	fcntl(other, F_SETFD, FD_CLOEXEC);
	snprintf(number, sizeof number, "head -c 3 <&%d", fd);
	pid_t pid = vfork();
	if (pid == 0) {
		dup2(out[1], 1);
		if (way == DUP2)
			dup2(fd, 0);
		if (way == DUP3)
			dup3(fd, 0, 0);
		if (way == F_DUP) {
			close(0);
			fcntl(fd, F_DUPFD, 0);
		}
		if (way == INHERITED)
			execlp("sh", "sh", "-c", number, NULL);
		else
			execlp("head", "head", "-c", "3", NULL);
		_exit(127);
	}
	close(out[1]);
	waitpid(pid, &status, 0);
	ssize_t n = read(out[0], said, sizeof said - 1);
	printf("%s: %.*s, status %#x\n", what, (int)n, said, status);
	close(out[0]);
	send_text(fd, ".");
	n = recv(fd, said, sizeof said, MSG_WAITALL);
	printf("the rest: %.*s\n", (int)n, said);
	send_text(other, "still");
	receive_exactly(other, said, 5);
	printf("the other one: %.5s\n", said);
	close(other);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: vfork_passes HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	passed("dup2", DUP2, 0);
	passed("dup2 of a close-on-exec one", DUP2, SOCK_CLOEXEC);
	passed("dup3", DUP3, SOCK_CLOEXEC);
	passed("F_DUPFD", F_DUP, SOCK_CLOEXEC);
	passed("inherited", INHERITED, 0);
	puts("done");
	return 0;
}
