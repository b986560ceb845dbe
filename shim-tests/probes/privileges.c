/* A server that begins as root and goes on as somebody else: it forks while a connection
 * is at work, and binds its port again.
 *
 *   privileges HOST PORT     the peer program listens there
 */
#include "show.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { SOMEBODY = 65534 };

static int listen_at(int port, uid_t as)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1, fd = tcp_socket();
	SHOW(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(seteuid(as));
	SHOW(listen(fd, 4));
	return fd;
}

/* Gives up every capability for good. */
static void no_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};
	if (syscall(SYS_capset, &header, none))
		err(2, "capset");
}

/* As for a CGI program: the child has no use for the sockets. */
static void a_child(void)
{
	int status;
	pid_t child = fork();
	if (child < 0)
		err(2, "fork");
	if (child == 0)
		_exit(0);
	SHOW(waitpid(child, &status, 0) == child && status == 0);
}

static void forks_without_capabilities(const char *host, int port)
{
	const struct linger reset = {.l_onoff = 1};
	int own_port = 7071;
	puts("# privileges dropped, then a fork");
	int l = listen_at(own_port, 0);
	int a = called_back(l, host, port, own_port);
	no_capabilities();
	SHOW(option_set(a, SOL_SOCKET, SO_BUSY_POLL, 7));
	SHOW(option_of(a, SOL_SOCKET, SO_BUSY_POLL));
	SHOW(option_set(a, SOL_SOCKET, SO_PREFER_BUSY_POLL, 1));
	a_child();
	echoed(a, "the old one");
	/* Nothing of it is left that could hold the port. */
	SHOW(setsockopt(a, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
	SHOW(close(a));
	int b = called_back(l, host, port, own_port);
	a_child();
	echoed(b, "the new one");
	SHOW(close(l));
	echoed(b, "without a listener");
	SHOW(close(b));
}

static void binds_again(const char *host, int port)
{
	int own_port = 7072;
	puts("# bound as root, listening as somebody else, and again");
	int first = listen_at(own_port, SOMEBODY);
	int a = called_back(first, host, port, own_port);
	SHOW(close(first));
	SHOW(seteuid(0));
	int second = listen_at(own_port, SOMEBODY);
	int b = called_back(second, host, port, own_port);
	echoed(a, "the old one");
	echoed(b, "the new one");
	SHOW(close(second));
	SHOW(close(a));
	SHOW(close(b));
	SHOW(seteuid(0));
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: privileges HOST PORT");
	binds_again(argv[1], atoi(argv[2]));
	forks_without_capabilities(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
