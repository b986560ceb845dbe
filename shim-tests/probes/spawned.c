/* Connections in programs that run by posix_spawn, system, popen and the number of execveat, which inherit them; and what
 * else gives a connection a second descriptor: pidfd_getfd, and a table of descriptors of a thread's own.
 *
 *   spawned HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static const char *host;
static int port;

/* What came back of what the program wrote. */
static void came(int fd)
{
	char line[8] = "";
	SHOW(recv(fd, line, 6, MSG_WAITALL));
	printf("%s", line);
}

static void programs(void)
{
	char command[40];
	char *arguments[] = {"sh", "-c", command, NULL};
	int status, fd = peer(host, port, "echo");
	pid_t pid;
	snprintf(command, sizeof command, "echo hello >&%d", fd);
	puts("-- posix_spawn");
	SHOW(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ));
	waitpid(pid, &status, 0);
	printf("status %#x\n", (unsigned)status);
	came(fd);
	close(fd);
	puts("-- posix_spawnp");
	fd = peer(host, port, "echo");
	SHOW(posix_spawnp(&pid, "sh", NULL, NULL, arguments, environ));
	waitpid(pid, &status, 0);
	printf("status %#x\n", (unsigned)status);
	came(fd);
	close(fd);
	puts("-- system");
	fd = peer(host, port, "echo");
	SHOW(system(command));
	came(fd);
	close(fd);
	puts("-- popen");
	fd = peer(host, port, "echo");
	FILE *to = popen(command, "w");
	SHOW(pclose(to));
	came(fd);
	close(fd);
}

/* A close-on-exec one is nobody else's, and goes on. */
static void kept(void)
{
	int fd = peer(host, port, "echo");
	puts("-- close-on-exec");
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	SHOW(system("true"));
	send_text(fd, "still\n");
	came(fd);
	close(fd);
}

static void by_number(void)
{
	char command[40];
	puts("-- execveat by number");
	pid_t pid = fork();
	if (pid == 0) {
		int fd = peer(host, port, "discard"), shell = open("/bin/sh", O_PATH | O_CLOEXEC);
		char *arguments[] = {"sh", "-c", command, NULL};
		snprintf(command, sizeof command, "echo hello >&%d", fd);
		syscall(SYS_execveat, shell, "", arguments, environ, AT_EMPTY_PATH);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, 0);
	printf("status %#x\n", (unsigned)status);
}

static void duplicated(void)
{
	int fd = peer(host, port, "echo"), self = pidfd_open(getpid(), 0);
	puts("-- pidfd_getfd");
	int other = pidfd_getfd(self, fd, 0);
	send_text(other, "other\n");
	came(fd);
	close(fd);
	send_text(other, "still\n");
	came(other);
	fd = (int)syscall(SYS_pidfd_getfd, self, other, 0);
	send_text(fd, "third\n");
	came(fd);
	close(fd);
	close(other);
	close(self);
}

static void *parts(void *argument)
{
	int fd = *(int *)argument;
	SHOW(unshare(CLONE_FILES));
	SHOW(close(fd));
	SHOW(close(fd));
	int own = peer(host, port, "echo");
	send_text(own, "mine.\n");
	came(own);
	close(own);
	return NULL;
}

static void tables(void)
{
	int fd = peer(host, port, "echo");
	pthread_t thread;
	puts("-- the only thread");
	SHOW(unshare(CLONE_FILES));
	SHOW(unshare(CLONE_FILES | CLONE_SIGHAND | CLONE_VM));
	send_text(fd, "still\n");
	came(fd);
	close(fd);
	fd = peer(host, port, "echo");
	SHOW(close_range(1000, ~0U, CLOSE_RANGE_UNSHARE));
	send_text(fd, "still\n");
	came(fd);
	puts("-- one of two");
	pthread_create(&thread, NULL, parts, &fd);
	pthread_join(thread, NULL);
	send_text(fd, "still\n");
	came(fd);
	close(fd);
	fd = peer(host, port, "echo");
	send_text(fd, "anew.\n");
	came(fd);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: spawned HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	programs();
	kept();
	by_number();
	duplicated();
	tables();
	puts("done");
	return 0;
}
