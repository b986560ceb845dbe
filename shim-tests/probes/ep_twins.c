/* Two numbers of one epoll instance: what is added by one is waited for by the other.
 *
 *   ep_twins HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/epoll.h>

static int again(int fd, int how)
{
	switch (how) {
	case 0:
		return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	case 1:
		return dup(fd);
	default:
		return dup2(fd, 100);
	}
}

static int events(int instance)
{
	struct epoll_event event = {0};
	int n = epoll_wait(instance, &event, 1, 20000);
	return n == 1 ? (int)event.events : n;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: ep_twins HOST PORT");
	for (int how = 0; how < 3; how++) {
		for (int by_first = 0; by_first < 2; by_first++) {
			struct epoll_event wanted = {.events = EPOLLIN};
			char text[6];
			int first = epoll_create1(EPOLL_CLOEXEC), second = again(first, how), third = dup(second);
			int fd = peer(argv[1], atoi(argv[2]), "steps say=hello await");
			SHOW(epoll_ctl(by_first ? first : second, EPOLL_CTL_ADD, fd, &wanted));
			SHOW(events(by_first ? second : first));
			SHOW(events(third));
			close(first);
			SHOW(events(second));
			SHOW(recv(fd, text, sizeof text, 0));
			close(second);
			SHOW(epoll_ctl(third, EPOLL_CTL_DEL, fd, NULL));
			close(third);
			close(fd);
		}
	}
	puts("done");
	return 0;
}
