/* Listeners that go to the kernel while something waits at them: what came in before is accepted all the same, and so is what
 * comes in after.
 *
 *   moved_queue HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define WAITING 3

static const char *host;
static int port;

/* Another process gets all descriptors, or is on its way to get this one. */
static void move(const char *way, int fd)
{
	if (!strcmp(way, "fork")) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
		return;
	}
	static int pair[2] = {-1, -1};
	char control[CMSG_SPACE(sizeof fd)] __attribute__((aligned(8))) = {0};
	struct iovec byte = {"x", 1};
	struct msghdr m = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	*c = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (pair[0] < 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		err(2, "socketpair");
	if (sendmsg(pair[0], &m, 0) != 1)
		err(2, "sendmsg");
}

/* Has the peer connect to us, and returns when it has. */
static void called(const char *how, int at)
{
	char text[32], byte;
	snprintf(text, sizeof text, "%s %d", how, at);
	int fd = peer(host, port, text);
	if (recv(fd, &byte, 1, 0) != 0)
		err(2, "the peer did not close");
	close(fd);
}

static void open_gate(void)
{
	close(peer(host, port, "open"));
}

/* Accepts one, and exchanges a few bytes with it. */
static void answer(int fd)
{
	char text[7] = "", back;
	int one = accept(fd, NULL, NULL);
	if (one < 0) {
		printf("accept = -1 %s\n", strerrorname_np(errno));
		return;
	}
	receive_exactly(one, text, 6);
	send_text(one, "x");
	receive_exactly(one, &back, 1);
	printf("accepted: %s\n", text);
	fflush(stdout);
	close(one);
}

static short ready(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

/* Established connections wait. */
static void waiting(const char *way)
{
	struct epoll_event e = {.events = EPOLLIN};
	int at, fd = listener(5, &at), ep = epoll_create1(0);
	printf("# waiting, by %s\n", way);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	for (int i = 0; i < WAITING; i++)
		called("call", at);
	wait_for(fd, POLLIN);
	move(way, fd);
	SHOW(epoll_wait(ep, &e, 1, 0));
	SHOW(ready(fd));
	answer(fd);
	called("call", at);
	move(way, fd);
	SHOW(listen(fd, 4));
	for (int i = 0; i < WAITING; i++)
		answer(fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	SHOW(accept(fd, NULL, NULL));
	SHOW(epoll_wait(ep, &e, 1, 0));
	SHOW(ready(fd));
	called("call", at);
	SHOW(epoll_wait(ep, &e, 1, 20000));
	answer(fd);
	close(fd);
	close(ep);
}

/* The listener ends meanwhile. */
static void ends(const char *way)
{
	int at, fd = listener(5, &at), duplicate;
	printf("# ended, by %s\n", way);
	called("call", at);
	wait_for(fd, POLLIN);
	move(way, fd);
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(accept(fd, NULL, NULL));
	close(fd);
	fd = listener(5, &at);
	called("call", at);
	wait_for(fd, POLLIN);
	move(way, fd);
	duplicate = dup(fd);
	close(fd);
	answer(duplicate);
	called("call", at);
	answer(duplicate);
	called("call", at);
	wait_for(duplicate, POLLIN);
	close(duplicate);
}

struct sleeper {
	const char *how;
	int fd, ep;
};

static void *sleeps(void *argument)
{
	struct sleeper *s = argument;
	struct epoll_event e;
	if (!strcmp(s->how, "poll"))
		wait_for(s->fd, POLLIN);
	else if (strcmp(s->how, "accept") && epoll_wait(s->ep, &e, 1, 20000) != 1)
		puts("epoll_wait has not seen it");
	answer(s->fd);
	return NULL;
}

/* Handshakes are open: the data that they wait for comes later, before or after a connection that the kernel has. */
static void handshakes(const char *way, const char *how, int kernels_first)
{
	int at, seconds = 20, fd = listener(5, &at);
	struct sleeper s = {how, fd, epoll_create1(0)};
	struct epoll_event e = {.events = EPOLLIN | (strcmp(how, "edge") ? 0 : EPOLLET)};
	pthread_t thread;
	printf("# handshakes, by %s, %s, %s first\n", way, how, kernels_first ? "another" : "they");
	if (setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds))
		err(2, "TCP_DEFER_ACCEPT");
	epoll_ctl(s.ep, EPOLL_CTL_ADD, fd, &e);
	called("later", at);
	SHOW(ready(fd));
	pthread_create(&thread, NULL, sleeps, &s);
	move(way, fd);
	if (kernels_first) {
		called("call", at);
		pthread_join(thread, NULL);
		open_gate();
		wait_for(fd, POLLIN);
		answer(fd);
	} else {
		open_gate();
		pthread_join(thread, NULL);
		called("call", at);
		wait_for(fd, POLLIN);
		answer(fd);
	}
	socklen_t length = sizeof seconds;
	getsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, &length);
	SHOW(seconds > 1);
	close(fd);
	close(s.ep);
}

int main(int argc, char **argv)
{
	static const char *const ways[] = {"message", "fork"};
	static const char *const hows[] = {"accept", "poll", "level", "edge"};
	if (argc != 3)
		errx(2, "usage: moved_queue HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		waiting(ways[i]);
		ends(ways[i]);
		for (size_t j = 0; j < sizeof hows / sizeof *hows; j++)
			for (int first = 0; first < 2; first++)
				handshakes(ways[i], hows[j], first);
	}
	puts("done");
	return 0;
}
