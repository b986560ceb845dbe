/* What the kinds of random_segments.c share: the program's sockets, how they are opened, and what is seen of them. */
#ifndef RANDOM_SEGMENTS_H
#define RANDOM_SEGMENTS_H

#include "segments_wire.h"

#include <linux/errqueue.h>
#include <sys/epoll.h>

enum {
	DELAYED = 60,  /* milliseconds: longer than a first ack is delayed */
	QUIET = 3,     /* milliseconds: frames that are on their way to the device */
	RESTLESS = 30, /* timers of a few jiffies */
	OWED = 400,    /* an ack that is delayed */
};

static uint64_t seed;
static int fd = -1, listening = -1, spare = -1, edges = -1;
static const char *near_host, *peer_host;

/* What the peer offers in its SYN. */
static struct {
	int mss, scale, ecn; /* mss and scale: -1 for none */
} offer;

/* A field of Linux's struct tcp_info, which the C library's may not know yet. */
struct field {
	const char *name;
	int offset, size;
};

/* Those that do not hang on time, nor on how much memory a frame takes. */
static const struct field fields[] = {
	{"ca", 1, 1},           {"retransmits", 2, 1}, {"probes", 3, 1},       {"backoff", 4, 1},       {"options", 5, 1},
	{"scales", 6, 1},       {"mss", 16, 4},         {"unacked", 24, 4},      {"sacked", 28, 4},
	{"lost", 32, 4},        {"retrans", 36, 4},    {"advmss", 84, 4},      {"pmtu", 60, 4},         {"ssthresh", 76, 4},
	{"cwnd", 80, 4},        {"reordering", 88, 4}, {"total_retrans", 100, 4}, {"acked", 120, 8},     {"received", 128, 8},
	{"segs_out", 136, 4},   {"segs_in", 140, 4},   {"notsent", 144, 4},    {"data_in", 152, 4},     {"data_out", 156, 4},
	{"delivered", 192, 4},  {"delivered_ce", 196, 4}, {"sent", 200, 8},    {"resent", 208, 8},      {"dsacks", 216, 4},
	{"reord_seen", 220, 4}, {"ooo", 224, 4},       {"snd_wnd", 228, 4},    {"rtos", 240, 2},        {"rto_recoveries", 242, 2},
};

static uint64_t field_of(const uint8_t *info, int offset, int size)
{
	uint64_t value = 0;
	memcpy(&value, info + offset, (size_t)size);
	return value;
}

/* tcp_info as bytes; 0 where there is none. */
static int information(int of, uint8_t info[512])
{
	socklen_t length = 512;
	memset(info, 0, 512);
	return of >= 0 && !getsockopt(of, IPPROTO_TCP, TCP_INFO, info, &length);
}

/* Takes what has arrived, whatever socket it is for: a poll of a socket that nobody connects to. */
static void take_arrived(void)
{
	struct pollfd p = {.fd = spare, .events = POLLIN};
	poll(&p, 1, 0);
}

/* Whether near has data of the peer's that it has not acknowledged. */
static int ack_owed(const uint8_t *info)
{
	int state = info[0];
	if (state == TCP_CLOSE || state == TCP_SYN_SENT || state == TCP_SYN_RECV || state == TCP_LISTEN)
		return 0;
	return (int)(ends->heard - ends->isn - 1) < (int)field_of(info, 128, 8);
}

/* Whether a short timer may run: RACK's, or that of a SYN that got an answer to something else (tcp_rcv_synsent_state_process). */
static int restless(const uint8_t *info)
{
	return info[0] == TCP_SYN_SENT || info[1] || field_of(info, 28, 4) || field_of(info, 32, 4) || field_of(info, 36, 4);
}

/* Milliseconds of such timers. */
static int restless_for = RESTLESS;

/* Waits until near has said all that it has to say to what came. Of a connection tcp_info tells how many segments it has sent,
 * and whether an ack is still owed; what else is on its way (under the shim a frame that another thread of the library's hands
 * over, or the RST of a socket that is no more) is waited for, shortly, since nothing tells of it.
 */
static void settle(void)
{
	static uint32_t told, had;
	static int whose = -1;
	uint8_t info[512];
	int64_t start = milliseconds(), last = start;
	pass_wire();
	for (;;) {
		int was = segments_heard;
		take_arrived();
		int known = information(fd, info);
		hear(0);
		uint32_t out = (uint32_t)field_of(info, 136, 4);
		int64_t now = milliseconds();
		int missing = known && whose == fd && info[0] != TCP_CLOSE && out - told > (uint32_t)segments_heard - had;
		int quiet = known && restless(info) ? restless_for : QUIET;
		if (segments_heard != was)
			last = now;
		if (missing ? now - start > PATIENCE
			    : now - last > quiet && !(known && ack_owed(info) && now - start < OWED)) {
			if (missing)
				printf("   (segments are missing)\n");
			told = out;
			had = (uint32_t)segments_heard;
			whose = known ? fd : -1;
			show_heard();
			return;
		}
		wait_for_wire(1);
	}
}

/* The same for an end that has gone on from `before`, and whose connection may be one that nobody has accepted, so that nothing
 * tells whether what it sent will be acknowledged.
 */
static void wait_for_ack(const struct end *e, uint32_t before)
{
	int64_t end = milliseconds() + DELAYED;
	settle();
	while (fd < 0 && e->next != before && e->heard != e->next && milliseconds() < end) {
		wait_for_wire(5);
		take_arrived();
		hear(0);
	}
	show_heard();
}

static int events_of(int of)
{
	struct pollfd p = {.fd = of, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
	poll(&p, 1, 0);
	return p.revents;
}

/* What the program sees of a socket, where something of it has changed. */
static void show_state(int of)
{
	static uint64_t shown[sizeof fields / sizeof *fields];
	static char before[256];
	char queues[256];
	uint8_t info[512];
	information(of, info);
	int at = sprintf(queues, "state %d poll %#x", info[0], (unsigned)events_of(of));
	sprintf(queues + at, " inq %d outq %d nsd %d mark %d", queued(of, SIOCINQ), queued(of, SIOCOUTQ), queued(of, SIOCOUTQNSD),
		queued(of, SIOCATMARK));
	printf("   %s", strcmp(queues, before) ? queues : "=");
	strcpy(before, queues);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		uint64_t value = field_of(info, fields[i].offset, fields[i].size);
		/* What was seen without ECN is another kernel's matter (TCPI_OPT_ECN_SEEN since Linux 6.18). */
		if (fields[i].offset == 5 && !(value & 8))
			value &= ~0x10ull;
		if (value != shown[i])
			printf(" %s %llu", fields[i].name, (unsigned long long)value);
		shown[i] = value;
	}
	putchar('\n');
	fflush(stdout);
}

static void watch(int of, int number)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, .data.fd = number};
	if (epoll_ctl(edges, EPOLL_CTL_ADD, of, &e))
		err(2, "epoll_ctl");
}

static void show_edges(void)
{
	struct epoll_event found[16];
	unsigned of[16] = {0};
	int n = epoll_wait(edges, found, 16, 0);
	for (int i = 0; i < n; i++)
		of[found[i].data.fd] |= found[i].events;
	for (int i = 0; i < 16; i++)
		if (of[i])
			printf("   edge of %d: %#x\n", i, of[i]);
}

/* A segment of what is due next. */
static struct segment plain(const struct end *e)
{
	return (struct segment){.seq = e->next, .ack = e->near_next, .flags = ACK, .window = e->window};
}

/* Sends it, and says what it is. */
static void say(struct end *e, const char *what, const struct segment *s)
{
	printf("%s", what);
	segment_show(e, s);
	segment_send(e, s);
}

static void offer_options(struct segment *s, struct end *e)
{
	uint8_t *o = s->options;
	int n = 0;
	if (offer.mss >= 0) {
		memcpy(o, (uint8_t[]){MSS, 4, (uint8_t)(offer.mss >> 8), (uint8_t)offer.mss}, 4);
		n = 4;
	}
	if (e->sack) {
		memcpy(o + n, (uint8_t[]){SACK_OK, 2}, 2);
		n += 2;
	}
	if (e->stamps) {
		memcpy(o + n, (uint8_t[]){STAMP, 10}, 2);
		put32(o + n + 2, ++e->stamp);
		put32(o + n + 6, e->near_stamp);
		n += 10;
	}
	if (offer.scale >= 0) {
		memcpy(o + n, (uint8_t[]){NOP, SCALE, 3, (uint8_t)offer.scale}, 4);
		n += 4;
	}
	s->options_size = n;
}

static void end_chosen(struct end *e)
{
	e->port = (uint16_t)(FIRST_PORT + (e - ends));
	e->isn = (uint32_t)rnd64();
	e->next = e->isn + 1;
	e->stamp = 1000;
	e->stamps = chance(60);
	e->sack = chance(75);
	e->window = (int)ONE_OF(60000, 65535, 1000, 0, 5000, 60000);
}

static struct sockaddr_in peer_address(void)
{
	return address(peer_host, FIRST_PORT);
}

static int new_socket(void)
{
	int on = 1, new = tcp_socket();
	ioctl(new, FIONBIO, &on);
	return new;
}

/* A listener of near's, at a port of the kernel's choice. */
static int new_listener(int backlog)
{
	struct sockaddr_in a = address(near_host, 0);
	socklen_t length = sizeof a;
	int new = new_socket();
	if (bind(new, (struct sockaddr *)&a, sizeof a) || getsockname(new, (struct sockaddr *)&a, &length) || listen(new, backlog))
		err(2, "a listener");
	near_port = ntohs(a.sin_port);
	return new;
}

/* One entry of the error queue. */
static void read_error_queue(int of)
{
	char bytes[100], space[512];
	struct sockaddr_in from;
	struct iovec part = {bytes, sizeof bytes};
	struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1, .msg_control = space,
			   .msg_controllen = sizeof space};
	printf("error queue");
	long r = outcome(recvmsg(of, &m, MSG_ERRQUEUE));
	for (struct cmsghdr *c = r < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		struct sock_extended_err e;
		printf(" %d/%d", c->cmsg_level, c->cmsg_type);
		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR)
			continue;
		memcpy(&e, CMSG_DATA(c), sizeof e);
		printf(" %s origin %d type %d code %d info %u", strerrorname_np((int)e.ee_errno), e.ee_origin, e.ee_type, e.ee_code,
		       e.ee_info);
	}
	putchar('\n');
}

static void set(const char *what, int of, int level, int name, int value)
{
	printf("%s %d", what, value);
	outcome(option_set(of, level, name, value));
	putchar('\n');
}

static void set_maybe(int in_100, const char *what, int of, int level, int name, int value)
{
	if (chance(in_100))
		set(what, of, level, name, value);
}

static void receive(int of, int size, int flags)
{
	static unsigned char bytes[100000];
	printf("recv %d %s", size, flags_text((unsigned)flags));
	long r = outcome(recv(of, bytes, (size_t)size, flags | MSG_DONTWAIT));
	/* With MSG_TRUNC nothing is written. */
	if (r > 0 && !(flags & MSG_TRUNC))
		printf(" sum %ld", sum_of(bytes, (size_t)r));
	putchar('\n');
}

static void send_some(int of, int size, int flags)
{
	static unsigned char bytes[100000];
	printf("send %d %s", size, flags_text((unsigned)flags));
	outcome(send(of, bytes, (size_t)size, flags | MSG_DONTWAIT | MSG_NOSIGNAL));
	putchar('\n');
}

static void value_of_error(int of)
{
	printf("SO_ERROR %s\n", strerrorname_np(option_of(of, SOL_SOCKET, SO_ERROR)) ?: "0");
}

#endif
