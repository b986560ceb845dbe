/* The C interface, behind the library: every function, and every way to be
 * refused. The names in brackets are rows of the tables of Linux's behaviour.
 *
 *   interface HOST PORT     the peer program listens there
 */
#include <fcntl.h>
#include <linux/errqueue.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <sidewire.h>

#include "show.h"

#define SCM_DEVMEM_DMABUF_ 79
#define SIZE 10000

static const char *host;
static int port;

static void carried(const char *what, int fd)
{
	int by = sidewire_carried_by(fd);
	printf("%s: %s\n", what, by < 0 ? strerrorname_np(errno) : sidewire_carrier_text(by));
}

static void carriers(void)
{
	struct sidewire_socket_stats stats;
	struct {
		struct sidewire_socket_stats known;
		unsigned later;
	} newer = {.later = 1};
	struct sockaddr_in here = address("127.0.0.1", 9);
	int pair[2], tcp = peer(host, port, "hold"), udp = socket(AF_INET, SOCK_DGRAM, 0);
	int local = tcp_socket(), v6 = socket(AF_INET6, SOCK_STREAM, 0);

	puts("# who carries");
	if (pipe(pair))
		err(2, "pipe");
	carried("a connection", tcp);
	carried("UDP", udp);
	carried("a pipe", pair[0]);
	carried("nothing", -1);
	carried("a fresh socket", local);
	SHOW(connect(local, (struct sockaddr *)&here, sizeof here));
	carried("after connect to this host", local);
	carried("its dup", dup(local));
	carried("a fresh IPv6 socket", v6);
	SHOW(sidewire_socket_stats(tcp, &stats, sizeof stats));
	printf("carrier %u, a device %d, blocked %u\n", stats.carrier, stats.ifindex > 0, stats.tx_blocked);
	SHOW(sidewire_socket_stats(udp, &newer.known, sizeof newer));
	printf("carrier %u, of a later version %u\n", newer.known.carrier, newer.later);
	memset(&stats, 0xff, sizeof stats);
	SHOW(sidewire_socket_stats(tcp, &stats, sizeof stats.carrier));
	printf("of an earlier one: carrier %u, the rest untouched %d\n", stats.carrier, stats.ifindex == ~0u);
	SHOW(sidewire_socket_stats(tcp, NULL, sizeof stats));
	SHOW(sidewire_socket_stats(-1, &stats, sizeof stats));
	printf("versions differ by %u\n", sidewire_version() - SIDEWIRE_VERSION);
	printf("text of nonsense: %s\n", sidewire_carrier_text(-1));
	close(tcp);
}

static void count(void *argument, const char *name, uint64_t value)
{
	if (!strcmp(name, "connections_engine"))
		*(uint64_t *)argument = value;
}

static void counters(void)
{
	uint64_t before = 0, after = 0;

	puts("# counters");
	sidewire_counters(count, &before);
	close(peer(host, port, "hold"));
	sidewire_counters(count, &after);
	printf("connections, one more: %d\n", after == before + 1);
	sidewire_counters(NULL, NULL);
}

struct send {
	struct sidewire_ubuf ubuf;
	pthread_t thread;
	_Atomic int calls;
	int pipe[2]; /* gets a byte from the callback */
	int again;   /* a descriptor on which the callback sends */
};

static void complete(struct sidewire_ubuf *ubuf, bool zerocopy)
{
	struct send *s = (struct send *)ubuf;
	sigset_t blocked;

	(void)zerocopy;
	if (pthread_sigmask(SIG_SETMASK, NULL, &blocked) || !sigismember(&blocked, SIGUSR1))
		puts("signals are not blocked");
	if (s->again >= 0)
		send_text(s->again, "from the callback\n");
	s->thread = pthread_self();
	s->calls++;
	if (write(s->pipe[1], "", 1) != 1)
		puts("the pipe is gone");
}

static struct send *new_send(void)
{
	struct send *s = calloc(1, sizeof *s);
	if (!s || pipe(s->pipe))
		err(2, "pipe");
	s->ubuf.complete = complete;
	s->again = -1;
	return s;
}

static long send_own(int fd, const void *bytes, size_t length, int flags, struct send *s)
{
	struct iovec iov = {(void *)bytes, length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	return sidewire_sendmsg(fd, &msg, flags, &s->ubuf);
}

static void wait_for_call(struct send *s)
{
	char byte;
	wait_for(s->pipe[0], POLLIN);
	if (read(s->pipe[0], &byte, 1) != 1)
		err(2, "pipe");
}

static void completions(void)
{
	static char bytes[SIZE], back[SIZE];
	struct send *a = new_send(), *b = new_send(), *c = new_send(), *d = new_send(), *e = new_send();
	struct msghdr msg = {0};
	struct sidewire_ubuf none = {NULL};
	int fd = peer(host, port, "echo");

	puts("# completions");
	memset(bytes, 'x', sizeof bytes);
	SHOW(send_own(fd, bytes, SIZE, 0, a));
	receive_exactly(fd, back, SIZE);
	wait_for_call(a);
	printf("echoed the same %d, called %d, elsewhere %d\n", !memcmp(bytes, back, SIZE), a->calls,
	       !pthread_equal(a->thread, pthread_self()));

	b->again = fd;
	SHOW(send_own(fd, "b", 1, 0, b));
	receive_exactly(fd, back, 19);
	printf("%.*s", 19, back);
	wait_for_call(b);

	SHOW(send_own(fd, bytes, 0, 0, c));
	SHOW(send_own(fd, NULL, 1, 0, c));
	SHOW(send_own(-1, "c", 1, 0, c));
	SHOW(sidewire_sendmsg(fd, &msg, 0, NULL));
	SHOW(sidewire_sendmsg(fd, &msg, 0, &none));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(send_own(fd, "c", 1, MSG_NOSIGNAL, c));
	close(fd);

	/* The peer reads nothing of these: what it does not take is dropped at the end. */
	int held = peer(host, port, "hold");
	struct linger at_once = {.l_onoff = 1};
	SHOW(setsockopt(held, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
	SHOW(send_own(held, bytes, SIZE, MSG_MORE, d));
	close(held);
	wait_for_call(d);

	/* What the kernel carries is copied. */
	int own_port, at = listener(1, &own_port), there = tcp_socket();
	struct sockaddr_in address_here = address("127.0.0.1", own_port);
	SHOW(connect(there, (struct sockaddr *)&address_here, sizeof address_here));
	carried("the connection", there);
	SHOW(option_set(there, SOL_SOCKET, SO_ZEROCOPY, 1));
	SHOW(send_own(there, bytes, SIZE, MSG_ZEROCOPY, e));
	wait_for_call(e);
	SHOW(recvmsg(there, &msg, MSG_ERRQUEUE));
	close(there);
	close(at);
	printf("called %d %d %d %d %d\n", a->calls, b->calls, c->calls, d->calls, e->calls);
}

static void completion_after_fork(void)
{
	struct send *parent = new_send();
	int fd = peer(host, port, "echo");
	char back[1];

	puts("# a completion and a fork");
	SHOW(send_own(fd, "p", 1, MSG_MORE, parent));
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		struct send *child = new_send();
		int own = peer(host, port, "echo");
		SHOW(send_own(own, "c", 1, 0, child));
		receive_exactly(own, back, 1);
		wait_for_call(child);
		printf("child: called %d\n", child->calls);
		exit(0);
	}
	wait_for_call(parent);
	waitpid(pid, NULL, 0);
	carried("the parent's connection", fd);
	printf("parent: called %d\n", parent->calls);
	close(fd);
}

static int memory(size_t size)
{
	int fd = memfd_create("device", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size))
		err(2, "memfd");
	for (size_t i = 0; i < size; i++)
		if (pwrite(fd, &(char){(char)('a' + i % 26)}, 1, (off_t)i) != 1)
			err(2, "memfd");
	return fd;
}

static long send_device(int fd, uint32_t id, size_t offset, size_t length, int flags, int with_bad)
{
	char control[64] __attribute__((aligned(8))) = {0};
	struct iovec iov = {(void *)offset, length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = CMSG_SPACE(4)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_DEVMEM_DMABUF_, .cmsg_len = CMSG_LEN(4)};
	memcpy(CMSG_DATA(c), &id, 4);
	if (with_bad) {
		msg.msg_controllen += CMSG_SPACE(0);
		c = CMSG_NXTHDR(&msg, c);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = 99, .cmsg_len = CMSG_LEN(0)};
	}
	return sendmsg(fd, &msg, flags);
}

static void completed(int fd)
{
	char control[128];
	struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof control};

	while (recvmsg(fd, &msg, MSG_ERRQUEUE) < 0) {
		struct pollfd p = {.fd = fd};
		if (errno != EAGAIN || poll(&p, 1, 20000) != 1)
			err(2, "error queue");
	}
	struct sock_extended_err *e = (void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	printf("completed: origin %u, ids %u to %u\n", e->ee_origin, e->ee_info, e->ee_data);
}

static void device_memory(void)
{
	int zc = MSG_ZEROCOPY, on = 1, pair[2], fd = peer(host, port, "echo");
	int device = memory(SIZE), empty = memory(0);
	char back[SIZE];

	puts("# device memory");
	if (pipe(pair))
		err(2, "pipe");
	SHOW(sidewire_dmabuf_bind(-1, 0));
	SHOW(sidewire_dmabuf_bind(pair[0], 0));
	SHOW(sidewire_dmabuf_bind(empty, 0));
	SHOW(sidewire_dmabuf_bind(device, 4711));
	int id = (int)SHOW(sidewire_dmabuf_bind(device, 0));
	int lo = (int)SHOW(sidewire_dmabuf_bind(device, 1));
	close(device);
	puts("[ZC-55] without SO_ZEROCOPY, and without MSG_ZEROCOPY");
	SHOW(send_device(fd, (uint32_t)id, 0, 10, zc, 0));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on));
	SHOW(send_device(fd, (uint32_t)id, 0, 10, 0, 0));
	puts("[ZC-56] unknown");
	SHOW(send_device(fd, 4711, 0, 10, zc, 0));
	puts("[ZC-58] another device's");
	SHOW(send_device(fd, (uint32_t)lo, 0, 10, zc, 0));
	puts("[ZC-60] and a control message that is wrong");
	SHOW(send_device(fd, 4711, 0, 10, zc, 1));
	puts("[ZC-59] out of range");
	SHOW(send_device(fd, (uint32_t)id, SIZE, 1, zc, 0));
	SHOW(send_device(fd, (uint32_t)id, (size_t)-1, 1, zc, 0));
	SHOW(send_device(fd, (uint32_t)id, SIZE - 10, 11, zc, 0));
	puts("[ZC-10 ZC-59] by offset; the failed ones gave their ids back");
	SHOW(send_device(fd, (uint32_t)id, 26, SIZE - 26, zc, 0));
	SHOW(sidewire_dmabuf_unbind(id));
	receive_exactly(fd, back, SIZE - 26);
	int same = 1;
	for (int i = 0; i < SIZE - 26; i++)
		same &= back[i] == 'a' + i % 26;
	printf("arrived the same %d\n", same);
	completed(fd);
	puts("after the registration has ended");
	SHOW(send_device(fd, (uint32_t)id, 0, 10, zc, 0));
	SHOW(sidewire_dmabuf_unbind(id));
	SHOW(sidewire_dmabuf_unbind(-1));
	SHOW(sidewire_dmabuf_unbind(lo));
	close(fd);
}

static void to_kernel(void)
{
	char back[8];
	int fd = peer(host, port, "echo"), fresh = tcp_socket();

	puts("# to the kernel");
	send_text(fd, "before");
	receive_exactly(fd, back, 6);
	SHOW(sidewire_to_kernel(fd));
	carried("the connection", fd);
	send_text(fd, "behind");
	receive_exactly(fd, back, 6);
	printf("echoed %.*s\n", 6, back);
	SHOW(sidewire_to_kernel(fd));
	SHOW(sidewire_to_kernel(fresh));
	carried("a fresh one", fresh);
	SHOW(sidewire_to_kernel(-1));
	int ended = peer(host, port, "finish 0");
	wait_for(ended, POLLIN);
	SHOW(sidewire_to_kernel(ended));
	carried("one that its peer has closed", ended);
	SHOW(recv(ended, back, sizeof back, 0));
	close(ended);
	/* Nobody has that address. */
	int opening = tcp_socket();
	struct sockaddr_in nobody = address("192.0.2.77", port);
	fcntl(opening, F_SETFL, O_NONBLOCK);
	SHOW(connect(opening, (struct sockaddr *)&nobody, sizeof nobody));
	SHOW(sidewire_to_kernel(opening));
	carried("one that is being opened", opening);
	close(opening);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: interface HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	if (!sidewire_version)
		errx(2, "not behind Sidewire");
	carriers();
	counters();
	completions();
	device_memory();
	to_kernel();
	completion_after_fork();
	puts("done");
	return 0;
}
