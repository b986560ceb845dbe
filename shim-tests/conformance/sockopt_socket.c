/* SOL_SOCKET: defaults, ranges, errors, lengths read back. Rows SO-1..SO-41. */
#include "rows.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74
#endif

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

/* What a read gives, its length in bytes and the bytes themselves. */
static void read_back(const char *ids, const char *text, int fd, int level, int name, socklen_t length)
{
	unsigned char value[64] = {0};
	char hex[2 * sizeof value + 1] = "";
	if (getsockopt(fd, level, name, value, &length)) {
		row(ids, "%s: %s", text, strerrorname_np(errno));
		return;
	}
	for (socklen_t i = 0; i < length && i < sizeof value; i++)
		sprintf(hex + 2 * i, "%02x", value[i]);
	row(ids, "%s: length %u, %s", text, length, hex);
}

static void get_int(const char *ids, const char *text, int fd, int name)
{
	int value = 0;
	socklen_t length = sizeof value;
	if (getsockopt(fd, SOL_SOCKET, name, &value, &length))
		row(ids, "%s: %s", text, strerrorname_np(errno));
	else
		row(ids, "%s: %d", text, value);
}

static void lengths(void)
{
	int fd = tcp_socket(), eight[2] = {1, 7};
	ROW("SO-1", "an int of 3 bytes", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, eight, 3));
	ROW("SO-1", "an int of 3 bytes, TCP", setsockopt(fd, SOL_TCP, TCP_KEEPIDLE, eight, 3));
	ROW("SO-1", "an int of no bytes", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, eight, 0));
	ROW("SO-2", "an int of 8 bytes", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, eight, 8));
	get_int("SO-2", "its first four", fd, SO_KEEPALIVE);
	for (socklen_t length = 0; length <= 6; length++)
		read_back("SO-3 SO-4", "TCP_KEEPIDLE", fd, SOL_TCP, TCP_KEEPIDLE, length);
	for (socklen_t length = 0; length <= 6; length += 2)
		read_back("SO-3 SO-4", "SO_SNDBUF", fd, SOL_SOCKET, SO_SNDBUF, length);
	read_back("SO-5", "a negative length", fd, SOL_TCP, TCP_KEEPIDLE, (socklen_t)-1);
	read_back("SO-5", "a negative length, socket", fd, SOL_SOCKET, SO_SNDBUF, (socklen_t)-1);
	ROW("SO-6", "an unknown SOL_SOCKET option", set_int(fd, SOL_SOCKET, 999, 1));
	ROW("SO-6", "an unknown SOL_TCP option", set_int(fd, SOL_TCP, 999, 1));
	read_back("SO-6", "an unknown SOL_SOCKET option", fd, SOL_SOCKET, 999, 4);
	read_back("SO-6", "an unknown SOL_TCP option", fd, SOL_TCP, 999, 4);
	ROW("SO-7", "an unknown level", set_int(fd, 999, 1, 1));
	read_back("SO-7", "an unknown level", fd, 999, 1, 4);
	close(fd);
}

static void read_only(void)
{
	static const int names[] = {SO_TYPE, SO_ERROR, SO_PEERCRED, SO_SNDLOWAT, SO_ACCEPTCONN,
				    SO_PROTOCOL, SO_DOMAIN, 56};
	int fd = tcp_socket();
	char text[40];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		sprintf(text, "setting read-only option %d", names[i]);
		ROW("SO-8 SO-24", text, set_int(fd, SOL_SOCKET, names[i], 1));
	}
	ROW("SO-9", "SO_PASSCRED", set_int(fd, SOL_SOCKET, SO_PASSCRED, 1));
	close(fd);
}

static void defaults(void)
{
	static const struct { const char *ids, *text; int name; } all[] = {
		{"SO-11", "SO_DEBUG", SO_DEBUG}, {"SO-12", "SO_REUSEADDR", SO_REUSEADDR},
		{"SO-13", "SO_TYPE", SO_TYPE}, {"SO-13", "SO_PROTOCOL", SO_PROTOCOL},
		{"SO-13", "SO_DOMAIN", SO_DOMAIN}, {"SO-14", "SO_ERROR", SO_ERROR},
		{"SO-15 SO-100", "SO_SNDBUF", SO_SNDBUF}, {"SO-16 SO-101", "SO_RCVBUF", SO_RCVBUF},
		{"SO-18", "SO_KEEPALIVE", SO_KEEPALIVE}, {"SO-19", "SO_OOBINLINE", SO_OOBINLINE},
		{"SO-20", "SO_PRIORITY", SO_PRIORITY}, {"SO-21", "SO_LINGER", SO_LINGER},
		{"SO-22", "SO_REUSEPORT", SO_REUSEPORT}, {"SO-23", "SO_RCVLOWAT", SO_RCVLOWAT},
		{"SO-24", "SO_SNDLOWAT", SO_SNDLOWAT}, {"SO-25", "SO_RCVTIMEO", SO_RCVTIMEO},
		{"SO-25", "SO_SNDTIMEO", SO_SNDTIMEO}, {"SO-28", "SO_PEERNAME", SO_PEERNAME},
		{"SO-29", "SO_TIMESTAMP", SO_TIMESTAMP}, {"SO-30", "SO_ACCEPTCONN", SO_ACCEPTCONN},
		{"SO-31", "SO_MARK", SO_MARK}, {"SO-32", "SO_PEEK_OFF", SO_PEEK_OFF},
		{"SO-33", "SO_BUSY_POLL", SO_BUSY_POLL}, {"SO-34", "SO_MAX_PACING_RATE", SO_MAX_PACING_RATE},
		{"SO-35", "SO_INCOMING_CPU", SO_INCOMING_CPU}, {"SO-36", "SO_MEMINFO", SO_MEMINFO},
		{"SO-38", "SO_ZEROCOPY", SO_ZEROCOPY}, {"SO-38", "SO_TXTIME", SO_TXTIME},
		{"SO-39", "SO_BUF_LOCK", SO_BUF_LOCK}, {"SO-40", "SO_TXREHASH", SO_TXREHASH},
		{"SO-12", "SO_BROADCAST", SO_BROADCAST},
	};
	int fd = tcp_socket();
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		read_back(all[i].ids, all[i].text, fd, SOL_SOCKET, all[i].name, 40);
	close(fd);
}

static void buffers(void)
{
	static const int values[] = {0, 1, 1152, 2304, 2305, 100000, 2147483647, -1};
	int fd = tcp_socket();
	char text[48];
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		sprintf(text, "SO_SNDBUF %d", values[i]);
		set_int(fd, SOL_SOCKET, SO_SNDBUF, values[i]);
		get_int("SO-15", text, fd, SO_SNDBUF);
		if (i == 0)
			get_int("SO-39", "SO_BUF_LOCK after SO_SNDBUF", fd, SO_BUF_LOCK);
		sprintf(text, "SO_RCVBUF %d", values[i]);
		set_int(fd, SOL_SOCKET, SO_RCVBUF, values[i]);
		get_int("SO-16", text, fd, SO_RCVBUF);
	}
	get_int("SO-39", "SO_BUF_LOCK after both", fd, SO_BUF_LOCK);
	ROW("SO-39", "SO_BUF_LOCK 4", set_int(fd, SOL_SOCKET, SO_BUF_LOCK, 4));
	ROW("SO-17", "SO_SNDBUFFORCE", set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, 5000000));
	get_int("SO-17", "SO_SNDBUF", fd, SO_SNDBUF);
	ROW("SO-17", "SO_RCVBUFFORCE", set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, 5000000));
	get_int("SO-17", "SO_RCVBUF", fd, SO_RCVBUF);
	ROW("SO-17", "SO_RCVBUFFORCE -1", set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, -1));
	get_int("SO-17", "SO_RCVBUF", fd, SO_RCVBUF);
	close(fd);
}

static void set_and_get(const char *ids, const char *what, int name, int value)
{
	int fd = tcp_socket();
	char text[64];
	sprintf(text, "%s %d", what, value);
	ROW(ids, text, set_int(fd, SOL_SOCKET, name, value));
	get_int(ids, text, fd, name);
	close(fd);
}

static void ranges(void)
{
	set_and_get("SO-11", "SO_DEBUG", SO_DEBUG, 1);
	set_and_get("SO-12", "SO_REUSEADDR", SO_REUSEADDR, 7);
	set_and_get("SO-18", "SO_KEEPALIVE", SO_KEEPALIVE, -3);
	set_and_get("SO-19", "SO_OOBINLINE", SO_OOBINLINE, 5);
	set_and_get("SO-20", "SO_PRIORITY", SO_PRIORITY, 6);
	set_and_get("SO-20", "SO_PRIORITY", SO_PRIORITY, 9);
	set_and_get("SO-22", "SO_REUSEPORT", SO_REUSEPORT, 2);
	set_and_get("SO-23", "SO_RCVLOWAT", SO_RCVLOWAT, 0);
	set_and_get("SO-23", "SO_RCVLOWAT", SO_RCVLOWAT, 70000);
	set_and_get("SO-23", "SO_RCVLOWAT", SO_RCVLOWAT, -1);
	set_and_get("SO-29", "SO_TIMESTAMP", SO_TIMESTAMP, 4);
	set_and_get("SO-31", "SO_MARK", SO_MARK, 77);
	set_and_get("SO-32", "SO_PEEK_OFF", SO_PEEK_OFF, 5);
	set_and_get("SO-33", "SO_BUSY_POLL", SO_BUSY_POLL, 50);
	set_and_get("SO-33", "SO_BUSY_POLL", SO_BUSY_POLL, -1);
	set_and_get("SO-34", "SO_MAX_PACING_RATE", SO_MAX_PACING_RATE, 123456);
	set_and_get("SO-35", "SO_INCOMING_CPU", SO_INCOMING_CPU, 1);
	set_and_get("SO-38", "SO_ZEROCOPY", SO_ZEROCOPY, 2);
	set_and_get("SO-40", "SO_TXREHASH", SO_TXREHASH, 0);
	set_and_get("SO-40", "SO_TXREHASH", SO_TXREHASH, -1);
	set_and_get("SO-40", "SO_TXREHASH", SO_TXREHASH, 2);
	set_and_get("SO-10", "SO_DONTROUTE", SO_DONTROUTE, 1);
	set_and_get("SO-10", "SO_RCVMARK", 75, 1);
	set_and_get("SO-10", "SO_RXQ_OVFL", SO_RXQ_OVFL, 1);
	set_and_get("SO-10", "SO_SELECT_ERR_QUEUE", SO_SELECT_ERR_QUEUE, 1);
	set_and_get("SO-10", "SO_PREFER_BUSY_POLL", 69, 1);
}

static void linger_and_times(void)
{
	static const struct timeval times[] = {{0, 1}, {0, 4001}, {3, 999999}, {0, 1000000},
					       {0, -1}, {-1, 0}, {1L << 60, 0}, {0, 0}};
	static const struct linger lingers[] = {{1, 5}, {0, 7}, {7, 3}, {1, -1}};
	int fd = tcp_socket();
	char text[64];
	for (size_t i = 0; i < 4; i++) {
		sprintf(text, "SO_LINGER %d %d", lingers[i].l_onoff, lingers[i].l_linger);
		ROW("SO-21", text, setsockopt(fd, SOL_SOCKET, SO_LINGER, &lingers[i], sizeof *lingers));
		read_back("SO-21", "SO_LINGER", fd, SOL_SOCKET, SO_LINGER, 8);
	}
	ROW("SO-21", "SO_LINGER of 4 bytes", setsockopt(fd, SOL_SOCKET, SO_LINGER, lingers, 4));
	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		sprintf(text, "SO_SNDTIMEO %ld %ld", times[i].tv_sec, times[i].tv_usec);
		ROW("SO-25", text, setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &times[i], sizeof *times));
		read_back("SO-25", "SO_SNDTIMEO", fd, SOL_SOCKET, SO_SNDTIMEO, 16);
	}
	read_back("SO-25", "SO_SNDTIMEO in 8 bytes", fd, SOL_SOCKET, SO_SNDTIMEO, 8);
	ROW("SO-25", "SO_RCVTIMEO of 8 bytes", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, times, 8));
	close(fd);
}

static void devices_and_filters(void)
{
	int fd = tcp_socket();
	ROW("SO-26", "an unknown device", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "none0", 6));
	ROW("SO-26", "a device", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "sw0", 4));
	read_back("SO-26", "SO_BINDTODEVICE", fd, SOL_SOCKET, SO_BINDTODEVICE, 16);
	ROW("SO-27", "a filter of a wrong length", set_int(fd, SOL_SOCKET, SO_ATTACH_FILTER, 0));
	ROW("SO-27", "no filter to take away", set_int(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
	read_back("SO-37", "SO_COOKIE in 4 bytes", fd, SOL_SOCKET, SO_COOKIE, 4);
	close(fd);
}

static void refused(const char *host, int port)
{
	struct sockaddr_in a = address(host, port + 1);
	int fd = tcp_socket(), error = 0;
	socklen_t length = sizeof error;
	set_int(fd, SOL_TCP, TCP_NODELAY, 1);
	set_int(fd, SOL_SOCKET, SO_SNDBUF, 30000);
	ROW("SO-10", "connect", connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("SO-14", "SO_ERROR", getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
	row("SO-14", "the error that connect told is gone: %d", error);
	read_back("SO-10", "TCP_NODELAY stays", fd, SOL_TCP, TCP_NODELAY, 4);
	get_int("SO-10", "SO_SNDBUF stays", fd, SO_SNDBUF);
	ROW("SO-10", "SO_KEEPALIVE", set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
	close(fd);
}

static void inherited(const char *host, int port)
{
	static const struct { const char *text; int level, name, value; } all[] = {
		{"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1}, {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 30000},
		{"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 40000}, {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1},
		{"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 9}, {"SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 1},
		{"SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 1}, {"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 5},
		{"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1}, {"SO_MARK", SOL_SOCKET, SO_MARK, 3},
		{"SO_BUF_LOCK", SOL_SOCKET, SO_BUF_LOCK, 3}, {"SO_PEEK_OFF", SOL_SOCKET, SO_PEEK_OFF, 2},
		{"SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, 0}, {"TCP_NODELAY", SOL_TCP, TCP_NODELAY, 1},
		{"TCP_CORK", SOL_TCP, TCP_CORK, 1}, {"TCP_KEEPIDLE", SOL_TCP, TCP_KEEPIDLE, 11},
		{"TCP_KEEPINTVL", SOL_TCP, TCP_KEEPINTVL, 12}, {"TCP_KEEPCNT", SOL_TCP, TCP_KEEPCNT, 13},
		{"TCP_SYNCNT", SOL_TCP, TCP_SYNCNT, 2}, {"TCP_LINGER2", SOL_TCP, TCP_LINGER2, 14},
		{"TCP_USER_TIMEOUT", SOL_TCP, TCP_USER_TIMEOUT, 15000}, {"TCP_NOTSENT_LOWAT", SOL_TCP, TCP_NOTSENT_LOWAT, 1600},
		{"TCP_INQ", SOL_TCP, TCP_INQ, 1}, {"TCP_THIN_LINEAR_TIMEOUTS", SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1},
		{"TCP_WINDOW_CLAMP", SOL_TCP, TCP_WINDOW_CLAMP, 9000}, {"TCP_MAXSEG", SOL_TCP, TCP_MAXSEG, 700},
		{"TCP_DEFER_ACCEPT", SOL_TCP, TCP_DEFER_ACCEPT, 0}, {"TCP_QUICKACK", SOL_TCP, TCP_QUICKACK, 1},
		{"IP_TOS", SOL_IP, IP_TOS, 0x20}, {"IP_TTL", SOL_IP, IP_TTL, 33},
	};
	struct timeval time = {2, 0};
	struct linger linger = {1, 4};
	int own, accepted, fd = listener(4, &own);
	char command[32], text[64];
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		set_int(fd, all[i].level, all[i].name, all[i].value);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	get_int("SO-30", "a listener's SO_ACCEPTCONN", fd, SO_ACCEPTCONN);
	sprintf(command, "call %d", own);
	int caller = peer(host, port, command);
	accepted = accept(fd, NULL, NULL);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		sprintf(text, "accepted: %s", all[i].text);
		read_back("SO-41", text, accepted, all[i].level, all[i].name, 4);
	}
	read_back("SO-41", "accepted: SO_SNDTIMEO", accepted, SOL_SOCKET, SO_SNDTIMEO, 16);
	read_back("SO-41", "accepted: SO_RCVTIMEO", accepted, SOL_SOCKET, SO_RCVTIMEO, 16);
	read_back("SO-41", "accepted: SO_LINGER", accepted, SOL_SOCKET, SO_LINGER, 8);
	read_back("SO-30", "accepted: SO_ACCEPTCONN", accepted, SOL_SOCKET, SO_ACCEPTCONN, 4);
	close(accepted);
	close(caller);
	close(fd);
}

static void memory(const char *host, int port)
{
	unsigned words[9];
	socklen_t length = sizeof words;
	int fd = peer(host, port, "steps say=hello await");
	wait_for(fd, POLLIN);
	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, words, &length);
	row("SO-36", "SO_MEMINFO: length %u, received %d, rcvbuf set %d, sndbuf set %d, backlog %u, drops %u",
	    length, words[0] > 0, words[1] > 0, words[3] > 0, words[7], words[8]);
	read_back("SO-36", "SO_MEMINFO in 6 bytes has length", fd, SOL_SOCKET, SO_MEMINFO, 0);
	read_back("SO-28", "SO_PEERNAME", fd, SOL_SOCKET, SO_PEERNAME, 16);
	read_back("SO-28", "SO_PEERNAME in 2 bytes", fd, SOL_SOCKET, SO_PEERNAME, 2);
	read_back("SO-28", "SO_PEERNAME in 40 bytes", fd, SOL_SOCKET, SO_PEERNAME, 40);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: sockopt_socket HOST PORT");
	lengths();
	read_only();
	defaults();
	buffers();
	ranges();
	linger_and_times();
	devices_and_filters();
	refused(argv[1], atoi(argv[2]));
	inherited(argv[1], atoi(argv[2]));
	memory(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
