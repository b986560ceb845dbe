/* Calls by number that libc has under another form, and polls of more descriptors than may be open.
 *
 *   by_number HOST PORT     the peer program listens there
 */
#include "show.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static int less(struct timespec left, long ns)
{
	return left.tv_sec == 0 && left.tv_nsec < ns;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: by_number HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "echo");
	char bytes[5] = "hello";
	struct iovec v = {.iov_base = bytes, .iov_len = sizeof bytes};
	struct timespec left = {.tv_nsec = 20000000}, none = {0}, bad = {.tv_nsec = -1};
	struct pollfd p[20];
	struct rlimit limit, few;
	sigset_t empty;
	struct {
		const sigset_t *mask;
		size_t size;
	} mask = {.mask = &empty, .size = 8}, short_mask = {.mask = &empty, .size = 4};
	fd_set in;

	sigemptyset(&empty);
	FD_ZERO(&in);
	FD_SET(fd, &in);
	SHOW(syscall(SYS_pselect6, fd + 1, &in, NULL, NULL, &left, &mask));
	SHOW(left.tv_sec == 0 && left.tv_nsec == 0);
	SHOW(FD_ISSET(fd, &in) != 0);
	SHOW(syscall(SYS_pselect6, fd + 1, &in, NULL, NULL, &bad, NULL));
	SHOW(syscall(SYS_pselect6, fd + 1, &in, NULL, NULL, &none, &short_mask));
	SHOW(syscall(SYS_pselect6, fd + 1, &in, NULL, NULL, &none, (void *)8));
	p[0] = (struct pollfd){.fd = fd, .events = POLLIN};
	left.tv_nsec = 20000000;
	SHOW(syscall(SYS_ppoll, p, 1, &left, &empty, 8));
	SHOW(left.tv_sec == 0 && left.tv_nsec == 0);
	SHOW(syscall(SYS_ppoll, p, 1, &none, &empty, 4));
	SHOW(syscall(SYS_ppoll, p, 1, (void *)8, NULL, 0));

	SHOW(syscall(SYS_pwritev2, fd, &v, 1, -1L, -1L, 0));
	left = (struct timespec){.tv_sec = 20};
	SHOW(syscall(SYS_ppoll, p, 1, &left, NULL, 0));
	SHOW(left.tv_sec == 19 && !less(left, 1));
	left = (struct timespec){.tv_sec = 20};
	FD_SET(fd, &in);
	SHOW(syscall(SYS_pselect6, fd + 1, &in, NULL, NULL, &left, NULL));
	SHOW(left.tv_sec == 19 && FD_ISSET(fd, &in));
	SHOW(syscall(SYS_preadv2, fd, &v, 1, -1L, -1L, 0));
	SHOW(syscall(SYS_preadv2, fd, &v, 1, 0L, 0L, 0));
	SHOW(syscall(SYS_pwritev2, fd, &v, 1, 0L, 0L, 0));

	getrlimit(RLIMIT_NOFILE, &limit);
	few = limit;
	few.rlim_cur = 19;
	SHOW(setrlimit(RLIMIT_NOFILE, &few));
	for (int i = 0; i < 20; i++)
		p[i] = (struct pollfd){.fd = i ? -1 : fd, .events = POLLOUT};
	SHOW(poll(p, 19, 0));
	SHOW(poll(p, 20, 0));
	SHOW(ppoll(p, 20, &none, NULL));
	SHOW(setrlimit(RLIMIT_NOFILE, &limit));
	SHOW(poll(p, 20, 0));
	close(fd);
	puts("done");
	return 0;
}
