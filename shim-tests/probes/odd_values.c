/* What sockets say of themselves where few programs ask, and what is refused for what was given rather than for what it is.
 *
 *   odd_values HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/uio.h>

#define IP_INET_NUM 52 /* IP_PROTOCOL */

static const char *host;
static int port;

/* Options of which the TCP has no use: a child has what its listener had when the client came. */
static void of_the_listener(void)
{
	static const struct { int level, name; const char *words; } options[] = {
		{SOL_SOCKET, SO_BROADCAST, "SO_BROADCAST"}, {SOL_SOCKET, SO_DONTROUTE, "SO_DONTROUTE"},
		{SOL_SOCKET, SO_NO_CHECK, "SO_NO_CHECK"}, {SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT"},
		{SOL_SOCKET, SO_RXQ_OVFL, "SO_RXQ_OVFL"}, {SOL_SOCKET, SO_LOCK_FILTER, "SO_LOCK_FILTER"},
		{IPPROTO_IP, IP_PKTINFO, "IP_PKTINFO"}, {IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL"},
		{IPPROTO_IP, IP_RECVTOS, "IP_RECVTOS"}, {IPPROTO_IP, IP_RECVOPTS, "IP_RECVOPTS"},
		{IPPROTO_IP, IP_FREEBIND, "IP_FREEBIND"}, {IPPROTO_IP, IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR"},
		{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT"},
	};
	enum { N = sizeof options / sizeof *options };
	char command[40];
	int at, fd = listener(5, &at), control[2], child[2];
	snprintf(command, sizeof command, "call %d", at);
	for (int i = 0; i < 2; i++) {
		control[i] = peer(host, port, command);
		wait_for(fd, POLLIN);
		if (i == 1)
			child[0] = accept(fd, NULL, NULL);
		for (int j = 0; j < N && i == 0; j++)
			option_set(fd, options[j].level, options[j].name, 1);
	}
	wait_for(fd, POLLIN);
	child[1] = accept(fd, NULL, NULL);
	for (int j = 0; j < N; j++)
		printf("%s: listener %d, child of before %d, of after %d\n", options[j].words,
		       option_of(fd, options[j].level, options[j].name), option_of(child[0], options[j].level, options[j].name),
		       option_of(child[1], options[j].level, options[j].name));
	printf("a child's frames come in on a CPU: %d\n", option_of(child[1], SOL_SOCKET, SO_INCOMING_CPU) >= 0);
	for (int i = 0; i < 2; i++) {
		close(child[i]);
		close(control[i]);
	}
	close(fd);
}

/* bind of what is bound looks at the address first. */
static void bound_again(void)
{
	static const struct { const char *words; short family; const char *host; socklen_t length; } tries[] = {
		{"any", AF_INET, "0.0.0.0", sizeof(struct sockaddr_in)}, {"foreign", AF_INET, "203.0.113.9", sizeof(struct sockaddr_in)},
		{"no family", 77, "0.0.0.0", sizeof(struct sockaddr_in)}, {"short", AF_INET, "0.0.0.0", 8},
	};
	char command[40];
	int at, listening = listener(5, &at), control, fds[3];
	snprintf(command, sizeof command, "call %d", at);
	control = peer(host, port, command);
	fds[0] = peer(host, port, "echo");
	fds[1] = accept(listening, NULL, NULL);
	fds[2] = listening;
	for (int i = 0; i < 3; i++)
		for (size_t j = 0; j < sizeof tries / sizeof *tries; j++) {
			struct sockaddr_in to = address(tries[j].host, 0);
			to.sin_family = (sa_family_t)tries[j].family;
			errno = 0;
			int got = bind(fds[i], (struct sockaddr *)&to, tries[j].length);
			printf("bind of socket %d, %s: %d %s\n", i, tries[j].words, got, strerrorname_np(errno));
		}
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(control);
}

static void names(const char *when, int fd)
{
	struct sockaddr_in name;
	socklen_t length = sizeof name;
	printf("%s: getpeername %d", when, getpeername(fd, (struct sockaddr *)&name, &length));
	length = sizeof name;
	printf(", SO_PEERNAME %d", getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &name, &length));
	length = sizeof name;
	if (getsockname(fd, (struct sockaddr *)&name, &length))
		err(2, "getsockname");
	int number = option_of(fd, IPPROTO_IP, IP_INET_NUM);
	printf(", port %s\n", number == 0 ? "none" : number == ntohs(name.sin_port) ? "its own" : "another");
}

static void tcp_info_of(const char *when, int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		err(2, "TCP_INFO");
	printf("%s: pmtu %u, advmss %u, rcv_ssthresh %u, rcv_space %u, snd_mss %u\n", when, info.tcpi_pmtu, info.tcpi_advmss,
	       info.tcpi_rcv_ssthresh, info.tcpi_rcv_space, info.tcpi_snd_mss);
}

/* Of a connection that is not there yet, or not any more. */
static void without_a_connection(void)
{
	struct sockaddr_in nobody = address(host, 80), refused = address(host, 1), none = {.sin_family = AF_UNSPEC};
	nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~255u) | 99);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	names("a new one", fd);
	SHOW(connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	names("connecting", fd);
	close(fd);
	fd = tcp_socket();
	SHOW(connect(fd, (struct sockaddr *)&refused, sizeof refused));
	names("refused", fd);
	tcp_info_of("refused", fd);
	close(fd);
	fd = peer(host, port, "steps await reset");
	names("connected", fd);
	send_text(fd, "x");
	wait_for(fd, POLLHUP);
	names("reset", fd);
	SHOW(connect(fd, (struct sockaddr *)&none, sizeof none));
	names("disconnected", fd);
	tcp_info_of("disconnected", fd);
	close(fd);
}

/* read and write look at all that they were told, recv and send at what a call may have at most. */
static void long_lengths(void)
{
	char byte = 'x', *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov[2] = {{&byte, 1}, {mapped, (size_t)1 << 47}};
	int fd = peer(host, port, "steps say=abcdefgh await");
	wait_for(fd, POLLIN);
	SHOW(read(fd, mapped, SIZE_MAX));
	SHOW(read(fd, mapped, (size_t)1 << 47));
	SHOW(recv(fd, mapped, SIZE_MAX, MSG_PEEK));
	SHOW(write(fd, mapped, SIZE_MAX));
	/* All lengths are looked at before any address. */
	struct iovec odd[3] = {{mapped, 1}, {(void *)UINTPTR_MAX, 8}, {mapped, SIZE_MAX}};
	SHOW(readv(fd, odd, 3));
	SHOW(writev(fd, odd, 3));
	SHOW(readv(fd, odd, 2));
	SHOW(recv(fd, (void *)(UINTPTR_MAX - 4096), 10, MSG_DONTWAIT));
	SHOW(readv(fd, iov, 2));
	SHOW(writev(fd, iov, 2));
	SHOW(readv(fd, iov + 1, 1));
	close(fd);
	munmap(mapped, 4096);
}

/* A value is read as far as the option is long; what cannot be read is judged in the kernel's order. */
static void values(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = peer(host, port, "echo"), on = 1;
	munmap(page + 4096, 4096);
	memcpy(page + 4096 - sizeof on, &on, sizeof on);
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, page + 4096 - sizeof on, 100));
	SHOW(option_of(fd, IPPROTO_TCP, TCP_NODELAY));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, page + 4096, sizeof on));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, page + 4096, 4));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, page + 4096, 12));
	SHOW(setsockopt(fd, IPPROTO_IP, IP_TTL, page + 4096, 0));
	SHOW(setsockopt(fd, IPPROTO_TCP, 99, page + 4096, 4));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "mptcp", 5));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "nothing", 7));
	/* In a user namespace its capabilities do not suffice. */
	SHOW(option_set(fd, SOL_SOCKET, SO_SNDBUFFORCE, 300000));
	SHOW(option_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, 300000));
	SHOW(option_set(fd, SOL_SOCKET, SO_BUSY_POLL, 100000));
	SHOW(option_of(fd, SOL_SOCKET, SO_SNDBUF));
	static const int options[][2] = {
		{IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_IP, IP_TTL}, {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_CONGESTION}};
	for (int i = 0; i < 4; i++) {
		socklen_t length = 20;
		int r = getsockopt(fd, options[i][0], options[i][1], page + 4096, &length);
		printf("to nowhere: %d, length %u\n", r, length);
	}
	close(fd);
	munmap(page, 4096);
}

static pid_t polling;

static void *poll_it(void *socket)
{
	struct pollfd watched = {*(int *)socket, POLLPRI | POLLIN, 0};
	polling = gettid();
	int ready = poll(&watched, 1, 400);
	printf("poll of what was closed or replaced meanwhile: %d, %#x\n", ready, watched.revents);
	return NULL;
}

static void closed_while_polled(int replacement)
{
	pthread_t thread;
	int fd = peer(host, port, "echo");
	polling = 0;
	if (pthread_create(&thread, NULL, poll_it, &fd))
		err(2, "a thread");
	while (!__atomic_load_n(&polling, __ATOMIC_RELAXED))
		poll(NULL, 0, 1);
	asleep(polling);
	if (replacement < 0)
		close(fd);
	else
		dup2(replacement, fd);
	pthread_join(thread, NULL);
}

/* accept takes a descriptor before it looks for a client. */
static void nobody_waits(void)
{
	struct rlimit before, none;
	int at, fd = listener(5, &at), free_number = dup(0);
	close(free_number);
	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = (rlim_t)free_number;
	setrlimit(RLIMIT_NOFILE, &none);
	long child = accept(fd, NULL, NULL);
	int errno_then = errno;
	setrlimit(RLIMIT_NOFILE, &before);
	printf("without client and descriptor: %ld %s\n", child, strerrorname_np(errno_then));
	close(fd);
}

/* What is sent again has its stamps before the one of its ack. Data that was sent in repair mode never left: the peer asks for
 * it when the FIN behind it comes. */
static void stamped_again(void)
{
	enum { ALL = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED |
	             SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY };
	int fd = peer(host, port, "steps await await");
	for (int unacked = 1; unacked;)
		if (ioctl(fd, SIOCOUTQ, &unacked))
			err(2, "SIOCOUTQ");
	SHOW(option_set(fd, SOL_SOCKET, SO_TIMESTAMPING, ALL));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR, 1));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
	SHOW(send(fd, "again", 5, 0));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR, 0));
	for (int i = 0; i < 3; i++) {
		char control[256];
		struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
		wait_for(fd, POLLERR);
		while (recvmsg(fd, &message, MSG_ERRQUEUE) < 0)
			if (errno != EAGAIN)
				err(2, "the error queue");
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
			if (c->cmsg_level == IPPROTO_IP)
				printf("stamp %u\n", ((struct sock_extended_err *)CMSG_DATA(c))->ee_info);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: odd_values HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	of_the_listener();
	bound_again();
	without_a_connection();
	long_lengths();
	values();
	closed_while_polled(-1);
	closed_while_polled(open("/dev/null", O_RDONLY));
	nobody_waits();
	stamped_again();
	puts("done");
	return 0;
}
