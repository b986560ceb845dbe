/* Sends more than the link can take at once, and ends at once, in a chosen way.
 *
 *   ends HOST PORT HOW FILE
 *
 * HOW: return, exit, _exit, _Exit, quick_exit, thread (the last thread ends),
 *      exec (becomes true(1))
 */
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static void *last_one(void *how)
{
	(void)how;
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(2, "usage: ends HOST PORT HOW FILE");
	const char *how = argv[3];
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	struct stat st;
	int file = open(argv[4], O_RDONLY), size = 4 << 20;
	if (file < 0 || fstat(file, &st))
		err(2, "%s", argv[4]);
	char *bytes = malloc((size_t)st.st_size);
	if (!bytes || read(file, bytes, (size_t)st.st_size) != st.st_size)
		err(2, "read");
	int fd = tcp_socket();
	/* Room for all of it, so that sending does not wait. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size))
		err(2, "SO_SNDBUF");
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	for (off_t sent = 0; sent < st.st_size;) {
		ssize_t n = send(fd, bytes + sent, (size_t)(st.st_size - sent), 0);
		if (n < 0)
			err(2, "send");
		sent += n;
	}
	if (!strcmp(how, "return"))
		return 0;
	if (!strcmp(how, "exit"))
		exit(0);
	if (!strcmp(how, "_exit"))
		_exit(0);
	if (!strcmp(how, "_Exit"))
		_Exit(0);
	if (!strcmp(how, "quick_exit"))
		quick_exit(0);
	if (!strcmp(how, "exec")) {
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		execlp("true", "true", (char *)NULL);
		err(2, "exec");
	}
	if (!strcmp(how, "thread")) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, last_one, NULL))
			errx(2, "pthread_create");
		pthread_exit(NULL);
	}
	errx(2, "%s: no such way", how);
}
