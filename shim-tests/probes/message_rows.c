/* sendmmsg and recvmmsg: where a row of messages ends, by a short one, a signal, a timeout, urgent data; flags in headers, and
 * what control data costs; and calls that are made again by a number which a handler has closed.
 *
 *   message_rows HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>

#define LARGE (4 << 20)

static const char *host;
static int port;
static char bytes[4][LARGE];
static int closes = -1;

static void handler(int number)
{
	(void)number;
	if (closes >= 0)
		close(closes);
}

static pthread_t main_thread;

/* Interrupts the main thread once it sleeps. */
static void *interrupt(void *unused)
{
	asleep(getpid());
	pthread_kill(main_thread, SIGUSR1);
	return unused;
}

static pthread_t soon(int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	pthread_t thread;
	sigaction(SIGUSR1, &action, NULL);
	main_thread = pthread_self();
	if (pthread_create(&thread, NULL, interrupt, NULL))
		errx(2, "pthread_create");
	return thread;
}

static struct mmsghdr rows[4];
static struct iovec parts[4];

static void row_of(size_t size)
{
	for (int i = 0; i < 4; i++) {
		parts[i] = (struct iovec){bytes[i], size};
		rows[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = parts + i, .msg_iovlen = 1}};
	}
}

/* How many messages, and whether the first is short; the amounts depend on the buffers. */
static void sent(const char *what, int n)
{
	printf("%s: %d %s, the first %s, the second has %s\n", what, n, n < 0 ? strerrorname_np(errno) : "",
	       rows[0].msg_len == 0 ? "has none" : rows[0].msg_len < LARGE ? "is short" : "is whole",
	       rows[1].msg_len ? "some" : "none");
}

static void received(const char *what, int n)
{
	printf("%s: %d %s,", what, n, n < 0 ? strerrorname_np(errno) : "");
	for (int i = 0; i < n; i++)
		printf(" %u", rows[i].msg_len);
	puts("");
}

static void sends(void)
{
	struct timeval soon_over = {0, 300000};
	for (int restart = 0; restart < 2; restart++) {
		int fd = peer(host, port, "hold");
		row_of(LARGE);
		pthread_t thread = soon(restart ? SA_RESTART : 0);
		sent(restart ? "a signal, SA_RESTART" : "a signal", sendmmsg(fd, rows, 4, MSG_NOSIGNAL));
		pthread_join(thread, NULL);
		close(fd);
	}
	int fd = peer(host, port, "hold");
	row_of(LARGE);
	sent("without waiting", sendmmsg(fd, rows, 4, MSG_NOSIGNAL | MSG_DONTWAIT));
	close(fd);
	fd = peer(host, port, "hold");
	row_of(LARGE);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon_over, sizeof soon_over);
	sent("a timeout", sendmmsg(fd, rows, 4, MSG_NOSIGNAL));
	close(fd);
	fd = peer(host, port, "discard");
	row_of(1000);
	received("whole ones", sendmmsg(fd, rows, 4, MSG_NOSIGNAL));
	parts[1].iov_base = (void *)8;
	received("the second unreadable", sendmmsg(fd, rows, 4, MSG_NOSIGNAL));
	close(fd);
}

/* Of the flags in a header, sendmmsg heeds MSG_EOR and sendmsg none. */
static void header_flags(void)
{
	static const int flags[] = {0, MSG_EOR, ~MSG_EOR};
	for (int i = 0; i < 3; i++)
		for (int one = 0; one < 2; one++) {
			int unsent = -1, fd = peer(host, port, "discard");
			option_set(fd, IPPROTO_TCP, TCP_CORK, 1);
			row_of(10);
			for (int n = 0; n < 4; n++)
				rows[n].msg_hdr.msg_flags = flags[i];
			int sent = one ? (int)(sendmsg(fd, &rows[0].msg_hdr, 0) + sendmsg(fd, &rows[1].msg_hdr, 0))
				       : sendmmsg(fd, rows, 4, 0);
			ioctl(fd, SIOCOUTQNSD, &unsent);
			printf("%s of headers with %#x, corked: %d, %d unsent\n", one ? "sendmsg" : "sendmmsg",
			       flags[i], sent, unsent);
			close(fd);
		}
}

/* Control data takes option memory while the call does, which a zerocopy send lacks then. */
static void option_memory(void)
{
	int fd = peer(host, port, "discard");
	option_set(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	for (int length = 129984; length <= 131072; length += 64) {
		struct cmsghdr *control = calloc(1, (size_t)length);
		*control = (struct cmsghdr){.cmsg_len = (size_t)length, .cmsg_level = SOL_TCP};
		struct iovec part = {bytes[0], 10};
		struct msghdr m = {
			.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = (size_t)length};
		int copied = (int)sendmsg(fd, &m, 0), referenced = (int)sendmsg(fd, &m, MSG_ZEROCOPY);
		printf("%d bytes of control data: %d, zerocopy %d\n", length, copied, referenced);
		free(control);
	}
	close(fd);
}

static void receives(void)
{
	struct timespec limit = {0, 200000000};
	for (int restart = 0; restart < 2; restart++) {
		int fd = peer(host, port, "send 50");
		while (option_of(fd, SOL_SOCKET, SO_ERROR) == 0) {
			int waiting = 0;
			ioctl(fd, FIONREAD, &waiting);
			if (waiting == 50)
				break;
			poll(NULL, 0, 1);
		}
		row_of(50);
		pthread_t thread = soon(restart ? SA_RESTART : 0);
		received(restart ? "one, then a signal, SA_RESTART" : "one, then a signal",
			 recvmmsg(fd, rows, 4, 0, NULL));
		pthread_join(thread, NULL);
		close(fd);
		fd = peer(host, port, "send 60");
		wait_for(fd, POLLIN);
		row_of(50);
		thread = soon(restart ? SA_RESTART : 0);
		received(restart ? "one and a part of one, MSG_WAITALL, SA_RESTART"
				 : "one and a part of one, MSG_WAITALL",
			 recvmmsg(fd, rows, 4, MSG_WAITALL, NULL));
		pthread_join(thread, NULL);
		close(fd);
	}
	int fd = peer(host, port, "send 60");
	wait_for(fd, POLLIN);
	row_of(30);
	received("MSG_WAITFORONE", recvmmsg(fd, rows, 4, MSG_WAITFORONE, NULL));
	close(fd);
	fd = peer(host, port, "finish 60");
	wait_for(fd, POLLRDHUP);
	row_of(30);
	received("to the end", recvmmsg(fd, rows, 4, 0, &limit));
	close(fd);
	fd = peer(host, port, "steps urgent=u await");
	wait_for(fd, POLLPRI);
	row_of(1);
	received("urgent", recvmmsg(fd, rows, 4, MSG_OOB, NULL));
	close(fd);
	/* The error that ends a row is there for the next call. */
	fd = peer(host, port, "send 60");
	wait_for(fd, POLLIN);
	row_of(6);
	rows[1].msg_hdr.msg_iovlen = 2000;
	received("the second too long", recvmmsg(fd, rows, 4, 0, NULL));
	SHOW(recv(fd, bytes[0], 10, 0));
	SHOW(recv(fd, bytes[0], 10, 0));
	close(fd);
}

static void closed_by_handler(void)
{
	static const char *names[] = {"recv", "recvmsg", "read", "accept"};
	for (int way = 0; way < 4; way++) {
		int fd = way == 3 ? tcp_socket() : peer(host, port, "hold"), n = 0;
		struct iovec part = {bytes[0], 10};
		struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
		if (way == 3)
			listen(fd, 1);
		closes = fd;
		pthread_t thread = soon(SA_RESTART);
		if (way == 0)
			n = (int)recv(fd, bytes[0], 10, 0);
		if (way == 1)
			n = (int)recvmsg(fd, &m, 0);
		if (way == 2)
			n = (int)read(fd, bytes[0], 10);
		if (way == 3)
			n = accept(fd, NULL, NULL);
		printf("%s of a number that a handler closed: %d %s\n", names[way], n,
		       n < 0 ? strerrorname_np(errno) : "");
		pthread_join(thread, NULL);
		closes = -1;
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: message_rows HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	sends();
	header_flags();
	option_memory();
	receives();
	closed_by_handler();
	puts("done");
	return 0;
}
