/* What the parts of random_calls.c share: the random numbers, the connections, and how outcomes are printed. */
#ifndef RANDOM_CALLS_H
#define RANDOM_CALLS_H

#include "far_side.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

/* Younger than the headers of the C library may be. */
#ifndef IP_PROTOCOL
#define IP_PROTOCOL 52
#endif
#ifndef SCM_TS_OPT_ID
#define SCM_TS_OPT_ID 81
#endif
enum { OPT_ID_TCP = 1 << 16 }; /* SOF_TIMESTAMPING_OPT_ID_TCP */

enum {
	DATA = 2,        /* connections that carry data */
	ODD = 3,         /* and what gets every option: a connection, an unconnected socket, a listener */
	SOCKETS = DATA + ODD,
	UNREAD = 300000, /* bytes that the peer has not read: less than its window */
	FAR_UNREAD = 20000,
	TEXT = 256 << 10,
};

struct conn {
	int fd, far;     /* the peer's number for it; -1: none */
	int far_closed, far_sent, sent;
	int vague;       /* how much was sent is not the same in each run */
};

static struct conn conns[SOCKETS];
static const char *near_host;
static unsigned char *text;      /* what is sent: a pattern, and an unreadable page behind it */
static unsigned char *room;      /* where is received: the same */
static volatile sig_atomic_t pipes;

/* SplitMix64. Each call has a generator of its own, so that leaving one out does not change the others. */
static uint64_t state_of_random;

static uint64_t rnd64(void)
{
	uint64_t z = state_of_random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static int rnd(int below)
{
	return (int)(rnd64() % (uint64_t)below);
}

static int chance(int in_100)
{
	return rnd(100) < in_100;
}

#define ONE_OF(...) \
	((const long[]){__VA_ARGS__}[rnd((int)(sizeof((const long[]){__VA_ARGS__}) / sizeof(long)))])

struct name {
	int value;
	const char *name;
};

static const struct name flag_names[] = {
	{MSG_OOB, "OOB"},         {MSG_PEEK, "PEEK"},         {MSG_DONTROUTE, "DONTROUTE"}, {MSG_CTRUNC, "CTRUNC"},
	{MSG_PROXY, "PROBE"},     {MSG_TRUNC, "TRUNC"},       {MSG_DONTWAIT, "DONTWAIT"},   {MSG_EOR, "EOR"},
	{MSG_WAITALL, "WAITALL"}, {MSG_FIN, "FIN"},           {MSG_SYN, "SYN"},             {MSG_CONFIRM, "CONFIRM"},
	{MSG_RST, "RST"},         {MSG_ERRQUEUE, "ERRQUEUE"}, {MSG_NOSIGNAL, "NOSIGNAL"},   {MSG_MORE, "MORE"},
	{MSG_WAITFORONE, "WAITFORONE"}, {MSG_BATCH, "BATCH"}, {MSG_ZEROCOPY, "ZEROCOPY"},   {MSG_FASTOPEN, "FASTOPEN"},
	{0x1000000, "NO_SHARED_FRAGS"}, {0x2000000, "SOCK_DEVMEM"}, {MSG_CMSG_CLOEXEC, "CLOEXEC"},
};

/* Flags by name, into one of a few buffers. */
static const char *flags_text(unsigned flags)
{
	static char texts[4][256];
	static int turn;
	char *to = texts[turn++ % 4];
	size_t at = 0;
	to[0] = 0;
	for (size_t i = 0; i < sizeof flag_names / sizeof *flag_names; i++)
		if (flags & (unsigned)flag_names[i].value) {
			at += (size_t)sprintf(to + at, "%s%s", at ? "|" : "", flag_names[i].name);
			flags &= ~(unsigned)flag_names[i].value;
		}
	if (flags || !at)
		sprintf(to + at, "%s%#x", at ? "|" : "", flags);
	return to;
}

static const char *socket_name(const struct conn *c)
{
	static const char *names[SOCKETS] = {"a", "b", "odd", "new", "listener"};
	return names[c - conns];
}

/* The outcome of a call, with errno as it left it. */
static long outcome(long r)
{
	int was = errno;
	printf(" = %ld", r);
	if (r < 0)
		printf(" %s", strerrorname_np(was));
	if (pipes) {
		printf(" SIGPIPE");
		pipes = 0;
	}
	return r;
}

static long sum_of(const unsigned char *bytes, size_t n)
{
	long sum = 0;
	for (size_t at = 0; at < n; at++)
		sum += bytes[at] * (long)(at % 251 + 1);
	return sum;
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

static int tcp_state(int fd)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
	return info.tcpi_state;
}

static struct conn *any_data(void)
{
	return &conns[rnd(DATA)];
}

/* Mostly one that carries data. */
static struct conn *any_socket(int odd_in_100)
{
	return chance(odd_in_100) ? &conns[DATA + rnd(ODD)] : any_data();
}

void settle(void);
void short_waits(int fd);
void opened(struct conn *c, int how);
void left(struct conn *c);

#endif
