/* Changes of the process's ids, which libc makes in every thread: they wait until each has taken a signal.
 *
 *   set_ids HOST PORT     the peer program listens there
 */
#include "show.h"

#include <pthread.h>
#include <sys/wait.h>

static void *nothing(void *unused)
{
	return unused;
}

static void change(const char *host, int port, const char *where)
{
	int fd = peer(host, port, "echo");
	alarm(20);
	printf("%s: %d %d\n", where, setgid(getgid()), setuid(getuid()));
	fflush(stdout);
	alarm(0);
	close(fd);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	if (argc != 3)
		errx(2, "usage: set_ids HOST PORT");
	/* The first thread of a process is the one before which libc unblocks its signals. */
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		err(2, "a thread");
	change(argv[1], atoi(argv[2]), "behind another thread");
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		change(argv[1], atoi(argv[2]), "in a child");
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	printf("the child: %d\n", status);
	puts("done");
	return 0;
}
