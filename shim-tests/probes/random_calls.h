/* What the parts of random_calls.c share: the connections, and what is known of them. */
#ifndef RANDOM_CALLS_H
#define RANDOM_CALLS_H

#include "far_side.h"
#include "random.h"

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

static const char *socket_name(const struct conn *c)
{
	static const char *names[SOCKETS] = {"a", "b", "odd", "new", "listener"};
	return names[c - conns];
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
