/* Calls that few programs make, and those that they make when something has run out.
 *
 *   odd_calls HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>

#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif

static const char *host;
static int port;

/* A client that the peer makes for us, waiting to be accepted. */
static int waiting_client(int *from_peer)
{
	char command[40];
	int at, fd = listener(5, &at);
	snprintf(command, sizeof command, "call %d", at);
	*from_peer = peer(host, port, command);
	wait_for(fd, POLLIN);
	return fd;
}

/* Without a descriptor the client stays where it is. */
static void no_descriptor(void)
{
	struct rlimit before, none;
	int control, fd = waiting_client(&control), free_number = dup(0);
	close(free_number);
	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = (rlim_t)free_number;
	setrlimit(RLIMIT_NOFILE, &none);
	for (int i = 0; i < 2; i++) {
		long child = accept(fd, NULL, NULL);
		printf("without a descriptor: %ld %s\n", child, strerrorname_np(errno));
	}
	setrlimit(RLIMIT_NOFILE, &before);
	int child = accept(fd, NULL, NULL);
	printf("with one: %d\n", child >= 0);
	close(child);
	close(fd);
	close(control);
}

/* What a child knows when it is accepted. */
static void child(void)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	int control, fd = waiting_client(&control);
	option_set(fd, IPPROTO_TCP, TCP_FASTOPEN, 5);
	int child = accept(fd, NULL, NULL);
	wait_for(child, POLLIN);
	if (getsockopt(child, IPPROTO_TCP, TCP_INFO, &info, &length))
		err(2, "TCP_INFO");
	printf("TCP_FASTOPEN of a child: %d\n", option_of(child, IPPROTO_TCP, TCP_FASTOPEN));
	printf("a child: segs_in %u, rcv_space %u, rcv_ssthresh %u, clamp %d\n", info.tcpi_segs_in, info.tcpi_rcv_space,
	       info.tcpi_rcv_ssthresh, option_of(child, IPPROTO_TCP, TCP_WINDOW_CLAMP));
	close(child);
	close(fd);
	close(control);
}

/* What comes with a smaller TTL is not heard. */
static void min_ttl(void)
{
	struct timeval soon = {.tv_usec = 300000}, late = {.tv_sec = 20};
	char byte;
	int fd = peer(host, port, "echo");
	for (int unacked = 1; unacked;)
		if (ioctl(fd, SIOCOUTQ, &unacked))
			err(2, "SIOCOUTQ");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	SHOW(option_set(fd, IPPROTO_IP, IP_MINTTL, 256));
	SHOW(option_set(fd, IPPROTO_IP, IP_MINTTL, 65));
	SHOW(option_of(fd, IPPROTO_IP, IP_MINTTL));
	SHOW(send(fd, "x", 1, 0));
	SHOW(recv(fd, &byte, 1, 0));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late);
	SHOW(option_set(fd, IPPROTO_IP, IP_MINTTL, 64));
	SHOW(recv(fd, &byte, 1, 0));
	close(fd);
}

static pid_t connecting;
static int connected, connect_errno;

static void *connect_to_nobody(void *socket)
{
	struct sockaddr_in nobody = address(host, 80);
	nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~255u) | 99);
	connecting = gettid();
	connected = connect(*(int *)socket, (struct sockaddr *)&nobody, sizeof nobody);
	connect_errno = errno;
	return NULL;
}

/* Another thread shuts a socket down that connects. */
static void shut_while_connecting(void)
{
	pthread_t thread;
	int fd = tcp_socket();
	if (pthread_create(&thread, NULL, connect_to_nobody, &fd))
		err(2, "a thread");
	while (!__atomic_load_n(&connecting, __ATOMIC_RELAXED))
		poll(NULL, 0, 1);
	asleep(connecting);
	SHOW(shutdown(fd, SHUT_RDWR));
	pthread_join(thread, NULL);
	printf("connect meanwhile: %d %s\n", connected, strerrorname_np(connect_errno));
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	close(fd);
}

/* An error comes before what is queued where several messages are asked for. */
static void messages(void)
{
	char text[8];
	struct iovec iov = {text, sizeof text};
	struct mmsghdr message = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	int fd = peer(host, port, "steps say=hello await reset");
	wait_for(fd, POLLIN);
	send_text(fd, "x");
	wait_for(fd, POLLHUP);
	SHOW(recvmmsg(fd, &message, 1, MSG_DONTWAIT, NULL));
	SHOW(recvmmsg(fd, &message, 1, MSG_DONTWAIT, NULL));
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	close(fd);
}

static void read_back(void)
{
	char key[32];
	socklen_t length = sizeof key;
	int fd = tcp_socket();
	SHOW(option_set(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, 1001));
	SHOW(option_of(fd, IPPROTO_TCP, TCP_RTO_MAX_MS));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, key, &length));
	printf("a key of %u bytes\n", length);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: odd_calls HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	no_descriptor();
	child();
	min_ttl();
	shut_while_connecting();
	messages();
	read_back();
	puts("done");
	return 0;
}
