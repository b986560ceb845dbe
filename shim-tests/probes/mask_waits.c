/* ppoll, pselect and epoll_pwait with a signal that waits for their mask; and the face of signals that a socket sends.
 *
 *   mask_waits HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>

static const char *host;
static int port;
static volatile sig_atomic_t ran, code, sender;

static void handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	ran++;
	code = info->si_code;
	sender = info->si_pid;
}

static void wait_each(const char *what, int fd, const struct timespec *limit)
{
	static const char *names[] = {"ppoll", "pselect", "epoll_pwait"};
	sigset_t none, usr1;
	int epfd = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
	sigemptyset(&none);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	for (int way = 0; way < 3; way++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		fd_set in;
		int n = 0;
		FD_ZERO(&in);
		FD_SET(fd, &in);
		sigprocmask(SIG_BLOCK, &usr1, NULL);
		ran = 0;
		raise(SIGUSR1);
		errno = 0;
		if (way == 0)
			n = ppoll(&p, 1, limit, &none);
		if (way == 1)
			n = pselect(fd + 1, &in, NULL, NULL, limit, &none);
		if (way == 2)
			n = epoll_pwait(epfd, &e, 1, limit ? (int)(limit->tv_sec * 1000) : -1, &none);
		printf("%s, %s: %d %s, handler %d", names[way], what, n, n < 0 ? strerrorname_np(errno) : "", ran);
		sigprocmask(SIG_UNBLOCK, &usr1, NULL);
		printf(", then %d\n", ran);
	}
	SHOW(syscall(SYS_epoll_pwait, epfd, &e, 1, 0, &none, 4L));
	close(epfd);
}

static void faces(void)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGURG, &action, NULL);
	sigaction(SIGIO, &action, NULL);
	int fd = peer(host, port, "hold");
	shutdown(fd, SHUT_WR);
	ran = 0;
	SHOW(send(fd, "x", 1, 0));
	printf("SIGPIPE: %d, code %d, from us %d\n", ran, code, sender == getpid());
	close(fd);
	fd = peer(host, port, "steps await urgent=u await");
	fcntl(fd, F_SETOWN, getpid());
	ran = 0;
	send_text(fd, ".");
	while (!ran)
		poll(NULL, 0, 1);
	printf("SIGURG: code %d, from %d\n", code, sender);
	close(fd);
	fd = peer(host, port, "steps await say=x await");
	fcntl(fd, F_SETOWN, getpid());
	fcntl(fd, F_SETFL, O_ASYNC);
	ran = 0;
	send_text(fd, ".");
	while (!ran)
		poll(NULL, 0, 1);
	printf("SIGIO: code %d, from %d\n", code, sender);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: mask_waits HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct timespec at_once = {0, 0}, later = {20, 0};
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	sigaction(SIGUSR1, &action, NULL);
	int fd = peer(host, port, "steps await say=x await");
	wait_each("nothing there, no time", fd, &at_once);
	wait_each("nothing there", fd, &later);
	wait_each("nothing there, for ever", fd, NULL);
	send_text(fd, ".");
	wait_for(fd, POLLIN);
	wait_each("something there, no time", fd, &at_once);
	wait_each("something there", fd, &later);
	wait_each("something there, for ever", fd, NULL);
	close(fd);
	faces();
	puts("done");
	return 0;
}
