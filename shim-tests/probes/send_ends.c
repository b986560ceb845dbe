/* Where a send or a receive ends for a reason of its own: a connection that was made anew under it, an address that is none
 * of the program's, O_APPEND, and a wake-up when no bytes were asked for.
 *
 *   send_ends HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <pthread.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#define LARGE (4 << 20)

static const char *host;
static int port;
static char data[LARGE];
static int fd;
static ssize_t (*sending)(void);
static ssize_t sent;
static int failed;
static volatile pid_t sender;

static ssize_t by_send(void)
{
	return send(fd, data, LARGE, MSG_NOSIGNAL);
}

static ssize_t by_zerocopy(void)
{
	return send(fd, data, LARGE, MSG_ZEROCOPY | MSG_NOSIGNAL);
}

static ssize_t by_writev(void)
{
	struct iovec parts[2] = {{data, LARGE / 2}, {data, LARGE / 2}};
	return writev(fd, parts, 2);
}

static ssize_t by_sendmmsg(void)
{
	struct iovec part = {data, LARGE};
	struct mmsghdr rows[2];
	for (int i = 0; i < 2; i++)
		rows[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
	ssize_t n = sendmmsg(fd, rows, 2, MSG_NOSIGNAL);
	return n == 1 ? rows[0].msg_len : -n;
}

static ssize_t few(void)
{
	return send(fd, data, 10, MSG_NOSIGNAL);
}

static ssize_t urgent(void)
{
	return send(fd, data, 10, MSG_OOB | MSG_NOSIGNAL);
}

static void *send_all(void *unused)
{
	sender = gettid();
	sent = sending();
	failed = errno;
	return unused;
}

/* A send that sleeps, while the socket leaves its connection for one to an echo: what the send gives, and what the echo got. */
static void anew(const char *name, ssize_t (*how)(void))
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	struct sockaddr_in a = address(host, port);
	char back[6] = "";
	pthread_t thread;
	option_set(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	sending = how;
	sender = 0;
	if (pthread_create(&thread, NULL, send_all, NULL))
		errx(2, "pthread_create");
	while (!sender)
		usleep(1000);
	asleep(sender);
	if (connect(fd, &nobody, sizeof nobody) || connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	pthread_join(thread, NULL);
	/* In between the error of the connection that went is the socket's. */
	const char *text = sent > 0 && sent < LARGE ? "a part"
			   : sent > 0		    ? "all"
			   : failed == EPIPE || failed == ECONNRESET ? "over"
								     : strerrorname_np(failed);
	send_text(fd, "echo\nhello");
	receive_exactly(fd, back, 5);
	printf("%s: %s, then %s\n", name, text, back);
	close(fd);
}

static void made_anew(void)
{
	static const struct {
		const char *name;
		ssize_t (*how)(void);
	} large[] = {{"send", by_send}, {"zerocopy", by_zerocopy}, {"writev", by_writev}, {"sendmmsg", by_sendmmsg}},
	  small[] = {{"send", few}, {"urgent", urgent}};
	puts("# a connection made anew under a send that sleeps for room");
	for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
		fd = peer(host, port, "hold");
		option_set(fd, SOL_SOCKET, SO_SNDBUF, 20000);
		anew(large[i].name, large[i].how);
	}
	puts("# for the connection");
	for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
		char said[16] = "";
		int control = peer(host, port, "narrow");
		for (size_t n = 0; !strchr(said, '\n');)
			receive_exactly(control, said + n++, 1);
		struct sockaddr_in full = address(host, atoi(said));
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		SHOW(connect(fd, (struct sockaddr *)&full, sizeof full));
		fcntl(fd, F_SETFL, 0);
		anew(small[i].name, small[i].how);
		close(control);
	}
}

static void addresses(void)
{
	void *none = (void *)0xffff800000000000;
	struct iovec part = {none, 0};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	puts("# an address that is none of the program's");
	fd = tcp_socket();
	SHOW(send(fd, none, 10, MSG_NOSIGNAL));
	SHOW(recv(fd, none, 10, 0));
	close(fd);
	fd = peer(host, port, "discard");
	SHOW(send(fd, none, 0, 0));
	SHOW(send(fd, data, 0, 0));
	SHOW(sendto(fd, none, 0, 0, NULL, 0));
	SHOW(sendmsg(fd, &message, 0));
	SHOW(recv(fd, none, 1, 0));
	SHOW(recv(fd, none, 0, 0));
	SHOW(recvfrom(fd, none, 1, 0, NULL, NULL));
	SHOW(recvmsg(fd, &message, 0));
	part.iov_len = 10;
	SHOW(sendmsg(fd, &message, 0));
	close(fd);
}

static void appending(void)
{
	int p[2];
	puts("# O_APPEND");
	fd = peer(host, port, "discard");
	if (pipe(p) || write(p[1], data, 20) != 20)
		err(2, "a pipe");
	SHOW(fcntl(fd, F_SETFL, O_APPEND));
	SHOW(splice(p[0], NULL, fd, NULL, 10, 0));
	SHOW(send(fd, data, 10, 0));
	SHOW(fcntl(fd, F_SETFL, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 10, 0));
	close(fd);
}

static void *complete(void *main_thread)
{
	asleep(*(pid_t *)main_thread);
	send(fd, data, 10, MSG_ZEROCOPY);
	return NULL;
}

static void woken(void)
{
	struct timespec began, now;
	struct timeval patience = {.tv_sec = 10};
	pid_t self = getpid();
	pthread_t thread;
	puts("# no bytes asked for, and a zerocopy completion");
	fd = peer(host, port, "discard");
	option_set(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	clock_gettime(CLOCK_MONOTONIC, &began);
	if (pthread_create(&thread, NULL, complete, &self))
		errx(2, "pthread_create");
	SHOW(recv(fd, data, 0, 0));
	clock_gettime(CLOCK_MONOTONIC, &now);
	SHOW(now.tv_sec - began.tv_sec < 5);
	pthread_join(thread, NULL);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	memset(data, 'x', sizeof data);
	made_anew();
	addresses();
	appending();
	woken();
	puts("done");
	return 0;
}
