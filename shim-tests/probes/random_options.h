/* The socket options of random_calls.c. */
#ifndef RANDOM_OPTIONS_H
#define RANDOM_OPTIONS_H

#include "random_calls.h"

#include <linux/net_tstamp.h>
#include <sys/time.h>

static int is_in(const int *list, int value)
{
	for (; *list >= 0; list++)
		if (*list == value)
			return 1;
	return 0;
}

/* Whose values hang on time, on the host or on how much was moved. */
static int value_shown(int level, int name)
{
	static const int socket_ones[] = {SO_SNDBUF, SO_RCVBUF, SO_MEMINFO, SO_INCOMING_CPU, SO_INCOMING_NAPI_ID, SO_COOKIE,
					  SO_PEERNAME, 71 /* SO_NETNS_COOKIE */, 31 /* SO_PEERSEC */, SO_PEERCRED, SO_BPF_EXTENSIONS, -1};
	static const int tcp_ones[] = {TCP_INFO, TCP_CC_INFO, TCP_TIMESTAMP, TCP_QUEUE_SEQ, TCP_QUICKACK, TCP_WINDOW_CLAMP,
				       TCP_REPAIR_WINDOW, TCP_ZEROCOPY_RECEIVE, TCP_SAVED_SYN, -1};
	/* Of an accepted socket the last two are not the kernel's (DEVIATIONS.md). */
	static const int ip_ones[] = {IP_PROTOCOL, IP_MULTICAST_TTL, IP_MULTICAST_IF, -1};
	return !is_in(level == SOL_SOCKET ? socket_ones : level == IPPROTO_TCP ? tcp_ones : ip_ones, name);
}

/* Which are left alone: for the time of the calls, or because DEVIATIONS.md has them (TCP_ULP, TCP_MD5SIG, TCP_AO, IP_OPTIONS,
 * IP_TRANSPARENT, SO_REUSEPORT, filters). */
static int not_set(int level, int name)
{
	static const int socket_ones[] = {SO_RCVTIMEO_OLD, SO_RCVTIMEO_NEW, SO_REUSEPORT, SO_ATTACH_FILTER, SO_ATTACH_BPF,
					  SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF, SO_BINDTODEVICE, SO_BINDTOIFINDEX,
					  SO_DETACH_REUSEPORT_BPF, SO_BUSY_POLL, -1};
	static const int tcp_ones[] = {TCP_REPAIR, TCP_ULP, TCP_MD5SIG, TCP_MD5SIG_EXT, 38, 39, 40, 41, 42, TCP_CONGESTION,
				       TCP_ZEROCOPY_RECEIVE, -1};
	static const int ip_ones[] = {IP_OPTIONS, IP_TRANSPARENT, -1};
	return is_in(level == SOL_SOCKET ? socket_ones : level == IPPROTO_TCP ? tcp_ones : ip_ones, name);
}

/* Whose values of any kind leave a connection able to carry data at once. */
static int harmless(int level, int name)
{
	static const int socket_ones[] = {SO_DEBUG, SO_TYPE, SO_ERROR, SO_BROADCAST, SO_KEEPALIVE, SO_OOBINLINE, SO_NO_CHECK,
					  SO_PRIORITY, SO_BSDCOMPAT, SO_PASSCRED, SO_PEERCRED, SO_SNDLOWAT, SO_TIMESTAMP,
					  SO_TIMESTAMPNS, SO_MARK, SO_TIMESTAMPING, SO_RXQ_OVFL, SO_PEEK_OFF, SO_SELECT_ERR_QUEUE,
					  SO_ZEROCOPY, SO_TXTIME, 63, 64, 65, SO_TXREHASH, SO_RCVMARK, 82, SO_RCVLOWAT, -1};
	static const int tcp_ones[] = {TCP_NODELAY, TCP_CORK, TCP_INQ, TCP_NOTSENT_LOWAT, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT,
				       TCP_SAVE_SYN, TCP_DEFER_ACCEPT, TCP_SYNCNT, TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK, -1};
	static const int ip_ones[] = {IP_TOS, IP_RECVTOS, IP_RECVTTL, IP_PKTINFO, IP_RECVERR, IP_MTU_DISCOVER, IP_FREEBIND,
				      IP_RECVOPTS, IP_RETOPTS, IP_RECVORIGDSTADDR, IP_BIND_ADDRESS_NO_PORT, IP_RECVFRAGSIZE, -1};
	return is_in(level == SOL_SOCKET ? socket_ones : level == IPPROTO_TCP ? tcp_ones : ip_ones, name);
}

static void which_option(int *level, int *name)
{
	*level = (int)ONE_OF(SOL_SOCKET, SOL_SOCKET, IPPROTO_TCP, IPPROTO_TCP, IPPROTO_IP);
	*name = *level == SOL_SOCKET ? 1 + rnd(83) : *level == IPPROTO_TCP ? 1 + rnd(46) : 1 + rnd(53);
	if (chance(4))
		*level = (int)ONE_OF(0x7777, 41, -1, 17, 255, SOL_SOCKET);
	if (chance(3))
		*name = (int)ONE_OF(0, -1, 100, 1 << 20);
}

static void set_option(void)
{
	static unsigned char value[64];
	int level, name, length = (int)(chance(60) ? 4 : ONE_OF(0, 1, 3, 8, 12, 16, 40, -1));
	which_option(&level, &name);
	struct conn *c = harmless(level, name) && chance(70) ? any_data() : &conns[DATA + rnd(ODD)];
	if (not_set(level, name))
		level = 0x7777;
	long n = ONE_OF(0, 1, 1, 1, 2, 5, 100, 1000, 65536, -1, -100, 0x7fffffff, 1 << 31);
	/* The clock of a device is not asked for. */
	if (level == SOL_SOCKET && (name == SO_TIMESTAMPING || name == 65))
		n = (long)(rnd64() & 0x3ffff & ~(uint64_t)(SOF_TIMESTAMPING_TX_HARDWARE | SOF_TIMESTAMPING_OPT_TX_SWHW));
	memset(value, 0, sizeof value);
	memcpy(value, &(int){(int)n}, 4);
	const void *at = chance(3) ? NULL : chance(3) ? (void *)8 : value;
	printf("setsockopt(%s, %d, %d, %s%ld, %d)", socket_name(c), level, name, !at ? "null " : at != value ? "bad " : "", n,
	       length);
	outcome(setsockopt(c->fd, level, name, at, (socklen_t)length));
}

static void get_option(void)
{
	unsigned char value[512];
	struct conn *c = any_socket(40);
	int level, name;
	socklen_t length = (socklen_t)(chance(50) ? 4 : ONE_OF(0, 1, 3, 8, 16, 64, 400, -1));
	which_option(&level, &name);
	memset(value, 0xee, sizeof value);
	void *at = chance(3) ? NULL : chance(3) ? (void *)8 : value;
	void *length_at = chance(3) ? NULL : &length;
	printf("getsockopt(%s, %d, %d, %s%d%s)", socket_name(c), level, name, !at ? "null " : at != value ? "bad " : "",
	       (int)length, length_at ? "" : " null");
	long r = outcome(getsockopt(c->fd, level, name, at, length_at));
	/* It grows with each release of the kernel. */
	if (level == IPPROTO_TCP && name == TCP_INFO && length > 200)
		length = 0;
	if (r < 0) {
		printf(" %d", (int)length);
		return;
	}
	printf(" %d", (int)length);
	if (value_shown(level, name))
		for (socklen_t i = 0; i < length && i < 16; i++)
			printf("%s%02x", i ? "" : " ", value[i]);
}

/* One that acts on later calls, rightly set. */
static void useful_option(void)
{
	static const struct {
		int level, name;
		int values[4];
	} useful[] = {
		{SOL_SOCKET, SO_OOBINLINE, {0, 1, 0, 1}},    {SOL_SOCKET, SO_RCVLOWAT, {1, 500, 5000, 1}},
		{SOL_SOCKET, SO_PEEK_OFF, {-1, 0, 5, 100}},  {SOL_SOCKET, SO_TIMESTAMP, {0, 1, 1, 1}},
		{SOL_SOCKET, SO_TIMESTAMPNS, {0, 1, 1, 1}},  {IPPROTO_TCP, TCP_NODELAY, {0, 1, 1, 1}},
		{IPPROTO_TCP, TCP_INQ, {0, 1, 1, 1}},        {IPPROTO_IP, IP_RECVTOS, {0, 1, 1, 1}},
		{IPPROTO_IP, IP_RECVERR, {0, 1, 1, 1}},      {SOL_SOCKET, SO_SELECT_ERR_QUEUE, {0, 1, 1, 1}},
		{IPPROTO_TCP, TCP_MAXSEG, {500, 1000, 88, 1448}}, {IPPROTO_IP, IP_PKTINFO, {0, 1, 1, 1}},
		{IPPROTO_TCP, TCP_CORK, {0, 1, 0, 0}},       {SOL_SOCKET, SO_RCVMARK, {0, 1, 1, 1}},
	};
	int i = rnd((int)(sizeof useful / sizeof *useful)), value = useful[i].values[rnd(4)];
	struct conn *c = any_data();
	printf("option(%s, %d, %d, %d)", socket_name(c), useful[i].level, useful[i].name, value);
	outcome(option_set(c->fd, useful[i].level, useful[i].name, value));
}

static void congestion(void)
{
	static const char *const names[] = {"reno", "cubic", "none such", "", "reno and much more behind it"};
	const char *name = names[rnd(5)];
	char is[32] = "";
	struct conn *c = any_socket(30);
	socklen_t length = (socklen_t)ONE_OF(strlen(name), strlen(name), 4, 3, 16, 0), room_for_it = (socklen_t)ONE_OF(16, 16, 3, 0, 32);
	printf("congestion(%s, %s, %u, %u)", socket_name(c), name, length, room_for_it);
	/* "cubic" need not be allowed to everybody on this host: who asks has the capability. */
	outcome(setsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, name, length));
	outcome(getsockopt(c->fd, IPPROTO_TCP, TCP_CONGESTION, is, &room_for_it));
	printf(" %u %s", room_for_it, is);
}

/* What does not hang on time of what a connection tells of itself. */
static void information(void)
{
	struct conn *c = any_socket(20);
	struct tcp_info i = {0};
	socklen_t length = sizeof i;
	unsigned memory[9] = {0};
	/* Behind what old headers have of struct tcp_info. */
	struct {
		unsigned char before[120];
		uint64_t acked, received;
	} more = {0};
	printf("information(%s)", socket_name(c));
	outcome(getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &i, &length));
	length = sizeof more;
	getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &more, &length);
	printf(" state %d %d, options %#x, mss %u %u, unacked %u, sacked %u, lost %u, acked %lu, received %lu", i.tcpi_state,
	       i.tcpi_ca_state, i.tcpi_options, i.tcpi_snd_mss, i.tcpi_advmss, i.tcpi_unacked, i.tcpi_sacked, i.tcpi_lost,
	       (unsigned long)more.acked, (unsigned long)more.received);
	length = sizeof memory;
	getsockopt(c->fd, SOL_SOCKET, SO_MEMINFO, memory, &length);
	printf(", to send %u, options %u", memory[5], memory[6]);
}

static void stamps_wanted(void)
{
	struct conn *c = any_data();
	int kinds = SOF_TIMESTAMPING_SOFTWARE;
	static const int bits[] = {SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_TX_SCHED, SOF_TIMESTAMPING_TX_ACK,
				   SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_OPT_ID, SOF_TIMESTAMPING_OPT_CMSG,
				   SOF_TIMESTAMPING_OPT_TSONLY, SOF_TIMESTAMPING_OPT_STATS, OPT_ID_TCP};
	if (chance(30))
		kinds = 0;
	else
		for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
			if (chance(60))
				kinds |= bits[i];
	if (kinds & SOF_TIMESTAMPING_OPT_STATS)
		kinds |= SOF_TIMESTAMPING_OPT_TSONLY;
	int name = chance(70) ? SO_TIMESTAMPING : 65;
	printf("stamps(%s, %d, %#x)", socket_name(c), name, (unsigned)kinds);
	outcome(option_set(c->fd, SOL_SOCKET, name, kinds));
}

static void zerocopy_wanted(void)
{
	struct conn *c = any_data();
	int on = chance(75);
	printf("zerocopy(%s, %d)", socket_name(c), on);
	outcome(option_set(c->fd, SOL_SOCKET, SO_ZEROCOPY, on));
}

#endif
