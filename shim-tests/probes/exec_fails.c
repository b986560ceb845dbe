/* An exec that fails leaves everything as it was: connections and listeners that are closed on exec, too.
 *
 *   exec_fails HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

extern char **environ;

#ifndef AT_EXECVE_CHECK
#define AT_EXECVE_CHECK 0x10000
#endif

static const char *host;
static int port, connection, server, own_port;

static void still_there(void)
{
	echoed(connection, "still there");
	int fd = called_back(server, host, port, own_port);
	puts("and served");
	close(fd);
}

#define FAILS(call)                                                                                                            \
	do {                                                                                                                   \
		SHOW(call);                                                                                                    \
		still_there();                                                                                                 \
	} while (0)

/* A file that nobody may execute. */
static int plain_file(void)
{
	int fd = memfd_create("plain", MFD_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0600) || write(fd, "#!/bin/true\n", 12) != 12)
		err(2, "plain file");
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	connection = peer(host, port, "echo");
	server = listener(4, &own_port);
	fcntl(connection, F_SETFD, FD_CLOEXEC);
	fcntl(server, F_SETFD, FD_CLOEXEC);
	static char far_too_long[PATH_MAX + 1], huge[200 << 10];
	memset(far_too_long, 'x', PATH_MAX);
	memset(huge, 'x', sizeof huge - 1);
	char *name[] = {"name", NULL}, *much[] = {"name", huge, NULL};
	int plain = plain_file();

	FAILS(execv("/nonexistent", name));
	FAILS(execve("/", name, environ));
	FAILS(execve("", name, environ));
	FAILS(execve("/etc/passwd", name, environ));
	FAILS(execve("/etc/passwd/x", name, environ));
	FAILS(execve(far_too_long, name, environ));
	FAILS(execve((char *)16, name, environ));
	FAILS(execvp("no-such-program", name));
	FAILS(execvp("", name));
	FAILS(execvpe("etc/passwd", name, environ));
	FAILS(execlp("no-such-program", "name", (char *)NULL));
	FAILS(execl("/nonexistent", "name", (char *)NULL));
	FAILS(fexecve(plain, name, environ));
	FAILS(fexecve(-1, name, environ));
	FAILS(execveat(AT_FDCWD, "/bin/true", name, environ, AT_SYMLINK_FOLLOW));
	FAILS(syscall(SYS_execve, "/nonexistent", name, environ));
	FAILS(syscall(SYS_execveat, plain, "", name, environ, AT_EMPTY_PATH));
	/* Linux 6.14 is asked about these before; earlier ones cannot be (preload/DEVIATIONS.md). */
	if (!execveat(AT_FDCWD, "/bin/sh", name, environ, AT_EXECVE_CHECK)) {
		FAILS(execve("/bin/true", much, environ));
		FAILS(execve("/bin/true", (char **)16, environ));
	}
	setenv("PATH", ":/nonexistent:/etc", 1);
	FAILS(execvp("passwd", name));
	unsetenv("PATH");
	FAILS(execvp("no-such-program", name));
	puts("done");
	return 0;
}
