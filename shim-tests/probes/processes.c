/* Children that come and go while a connection is open.
 *
 *   processes HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static int fd;

static void still(const char *what)
{
	char byte;
	send_text(fd, "x");
	printf("after %s: ", what);
	SHOW(recv(fd, &byte, 1, 0));
}

static int end_of(pid_t pid)
{
	int status = -1;
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	char line[64];
	char *const words[] = {"sh", "-c", "exit 5", NULL};
	pid_t pid;

	if (argc != 3)
		errx(2, "usage: processes HOST PORT");
	fd = peer(argv[1], atoi(argv[2]), "echo");
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	still("connect");

	SHOW(system("exit 3") >> 8);
	still("system");

	FILE *out = popen("echo from a child", "r");
	printf("%s", fgets(line, sizeof line, out));
	SHOW(pclose(out));
	still("popen");

	SHOW(posix_spawn(&pid, "/bin/sh", NULL, NULL, words, environ));
	SHOW(end_of(pid));
	SHOW(posix_spawnp(&pid, "sh", NULL, NULL, words, environ));
	SHOW(end_of(pid));
	still("posix_spawn");

	pid = vfork();
	if (pid == 0) {
		close(fd);
		execl("/bin/sh", "sh", "-c", "exit $#", "a", "1", "2", "3", "4", "5", "6", "7", (char *)NULL);
		_exit(99);
	}
	SHOW(end_of(pid));
	still("vfork and execl");

	pid = vfork();
	if (pid == 0) {
		execlp("a program that does not exist", "x", (char *)NULL);
		_exit(errno);
	}
	SHOW(end_of(pid));
	still("a failed execlp");

	puts("done");
	return 0;
}
