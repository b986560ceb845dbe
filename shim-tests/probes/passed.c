/* Connections and listeners that another process is given in messages of a Unix socket.
 *
 *   passed HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MOST 3

static const char *host;
static int port;
/* The ends of the parent and of the child. */
static int ours, theirs;

/* Control data with `n` descriptors, behind credentials where `behind` says so. */
static size_t rights(char *to, int behind, const int *fds, int n)
{
	struct ucred me = {getpid(), getuid(), getgid()};
	struct msghdr m = {.msg_control = to, .msg_controllen = 256};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	size_t length = CMSG_SPACE(sizeof(int) * (size_t)n);
	if (behind) {
		*c = (struct cmsghdr){CMSG_LEN(sizeof me), SOL_SOCKET, SCM_CREDENTIALS};
		memcpy(CMSG_DATA(c), &me, sizeof me);
		length += CMSG_SPACE(sizeof me);
		c = (struct cmsghdr *)(to + CMSG_SPACE(sizeof me));
	}
	*c = (struct cmsghdr){CMSG_LEN(sizeof(int) * (size_t)n), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
	return length;
}

enum { PLAIN, BEHIND, IN_TURN, BY_NUMBER };

static long give(int how, const int *fds, int n)
{
	static char control[256] __attribute__((aligned(8)));
	struct iovec byte = {"x", 1};
	struct mmsghdr m[2] = {0};
	memset(control, 0, sizeof control);
	m[1].msg_hdr.msg_iov = m[0].msg_hdr.msg_iov = &byte;
	m[1].msg_hdr.msg_iovlen = m[0].msg_hdr.msg_iovlen = 1;
	struct msghdr *with = &m[how == IN_TURN].msg_hdr;
	with->msg_control = control;
	with->msg_controllen = rights(control, how == BEHIND, fds, n);
	if (how == IN_TURN)
		return sendmmsg(ours, m, 2, 0);
	if (how == BY_NUMBER)
		return syscall(SYS_sendmsg, ours, with, 0);
	return sendmsg(ours, with, 0);
}

static int take(int from, int *fds)
{
	char control[256] __attribute__((aligned(8))), byte;
	struct iovec room = {&byte, 1};
	struct msghdr m = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	if (recvmsg(from, &m, 0) != 1)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
			return (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		}
	return 0;
}

/* What the child does with each: a connection carries a line there and back, a listener hands out a word. Its answer is a
 * byte, 'k' when all was well. */
static void child(void)
{
	int fds[MOST], n;
	while ((n = take(theirs, fds)) >= 0) {
		char answer = 'k', line[6];
		for (int i = 0; i < n; i++) {
			int listens = 0;
			socklen_t length = sizeof listens;
			getsockopt(fds[i], SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
			if (listens) {
				int one = accept(fds[i], NULL, NULL);
				if (one < 0 || send(one, "hello", 5, 0) != 5)
					answer = 'l';
				close(one);
			} else if (send(fds[i], "there\n", 6, 0) != 6 || recv(fds[i], line, 6, MSG_WAITALL) != 6 ||
				   memcmp(line, "there\n", 6))
				answer = 'c';
			close(fds[i]);
		}
		if (n && write(theirs, &answer, 1) != 1)
			_exit(2);
	}
	_exit(0);
}

static void answered(void)
{
	char byte = 0;
	SHOW(read(ours, &byte, 1));
	printf("the child says %c\n", byte);
}

static void connections(void)
{
	int fds[MOST];
	char byte;
	for (int how = PLAIN; how <= BY_NUMBER; how++) {
		printf("# connections, way %d\n", how);
		for (int i = 0; i < MOST; i++)
			fds[i] = peer(host, port, "echo");
		SHOW(give(how, fds, MOST));
		answered();
		for (int i = 0; i < MOST; i++) {
			send_text(fds[i], "x");
			SHOW(recv(fds[i], &byte, 1, 0));
			close(fds[i]);
		}
	}
}

/* The giver closes at once; what the peer had sent before is the receiver's. */
static void given_away(void)
{
	int fd = peer(host, port, "echo");
	puts("# closed when it is on its way");
	send_text(fd, "there\n");
	wait_for(fd, POLLIN);
	SHOW(give(PLAIN, &fd, 1));
	SHOW(close(fd));
	answered();
}

/* The receiver accepts; the giver's own epoll still hears of the listener. */
static void listens(void)
{
	struct epoll_event e = {.events = EPOLLIN};
	int at, one, ep = epoll_create1(0), fd = listener(5, &at);
	char text[32], called[6];
	puts("# a listener");
	snprintf(text, sizeof text, "call %d", at);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	int before = peer(host, port, text);
	int kept = accept(fd, NULL, NULL);
	receive_exactly(kept, called, sizeof called);
	SHOW(give(PLAIN, &fd, 1));
	int first = peer(host, port, text);
	answered();
	int second = peer(host, port, text);
	SHOW(epoll_wait(ep, &e, 1, 20000));
	one = accept(fd, NULL, NULL);
	SHOW(one < 0 ? -1 : 0);
	receive_exactly(one, called, sizeof called);
	close(one);
	send_text(kept, "x");
	SHOW(recv(kept, called, 1, 0));
	close(kept);
	close(before);
	close(first);
	close(second);
	close(fd);
	close(ep);
}

/* The giver keeps the listener by which the connection came. */
static void accepted(void)
{
	int at, one, fd = listener(5, &at);
	char text[32], called[6];
	puts("# an accepted connection");
	snprintf(text, sizeof text, "call %d", at);
	for (int i = 0; i < 2; i++) {
		int asked = peer(host, port, text);
		one = accept(fd, NULL, NULL);
		receive_exactly(one, called, sizeof called);
		SHOW(give(PLAIN, &one, 1));
		close(one);
		answered();
		close(asked);
	}
	close(fd);
}

static void wrong(void)
{
	int fds[2] = {peer(host, port, "echo"), 1023};
	char byte;
	puts("# with one that is none");
	SHOW(give(PLAIN, fds, 2));
	send_text(fds[0], "x");
	SHOW(recv(fds[0], &byte, 1, 0));
	close(fds[0]);
}

int main(int argc, char **argv)
{
	int pair[2];
	if (argc != 3)
		errx(2, "usage: passed HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair))
		err(2, "socketpair");
	ours = pair[0];
	theirs = pair[1];
	pid_t pid = fork();
	if (pid == 0) {
		close(ours);
		child();
	}
	close(theirs);
	connections();
	given_away();
	listens();
	accepted();
	wrong();
	close(ours);
	SHOW(waitpid(pid, NULL, 0) == pid);
	puts("done");
	return 0;
}
