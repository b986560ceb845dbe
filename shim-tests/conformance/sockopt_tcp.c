/* SOL_TCP and SOL_IP: defaults, ranges, errors. Rows SO-42..SO-77. */
#include "rows.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

static void get_bytes(const char *ids, const char *text, int fd, int level, int name, socklen_t length)
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

static void set_get(const char *ids, const char *what, int fd, int level, int name, int value)
{
	char text[64];
	int got = 0;
	socklen_t length = sizeof got;
	sprintf(text, "%s %d", what, value);
	ROW(ids, text, setsockopt(fd, level, name, &value, sizeof value));
	if (getsockopt(fd, level, name, &got, &length) == 0)
		row(ids, "%s reads %d, length %u", text, got, length);
}

#define V(...) (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int)

static void each(const char *ids, const char *what, int fd, int level, int name, const int *values, size_t count)
{
	char text[64];
	sprintf(text, "%s at first", what);
	get_bytes(ids, text, fd, level, name, 4);
	for (size_t i = 0; i < count; i++)
		set_get(ids, what, fd, level, name, values[i]);
}

static void values(int fd)
{
	each("SO-42", "TCP_NODELAY", fd, SOL_TCP, TCP_NODELAY, V(7, 0, -1));
	each("SO-44", "TCP_CORK", fd, SOL_TCP, TCP_CORK, V(7, 0, -1, 0));
	each("SO-45", "TCP_KEEPIDLE", fd, SOL_TCP, TCP_KEEPIDLE, V(0, 1, 32767, 32768, -1));
	each("SO-46", "TCP_KEEPINTVL", fd, SOL_TCP, TCP_KEEPINTVL, V(0, 1, 32767, 32768, -1));
	each("SO-47", "TCP_KEEPCNT", fd, SOL_TCP, TCP_KEEPCNT, V(0, 1, 127, 128));
	each("SO-48 SO-112", "TCP_SYNCNT", fd, SOL_TCP, TCP_SYNCNT, V(0, 1, 127, 128));
	each("SO-49 SO-115", "TCP_LINGER2", fd, SOL_TCP, TCP_LINGER2, V(5, -1, -7, 0, 120, 121));
	each("SO-50", "TCP_DEFER_ACCEPT", fd, SOL_TCP, TCP_DEFER_ACCEPT, V(1, 2, 4, 60, 100, 1000, 100000, 0, -1));
	each("SO-53", "TCP_QUICKACK", fd, SOL_TCP, TCP_QUICKACK, V(0, 1, 0, 2, 3));
	each("SO-56", "TCP_THIN_LINEAR_TIMEOUTS", fd, SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, V(1, 0, 2, -1));
	each("SO-56", "TCP_THIN_DUPACK", fd, SOL_TCP, TCP_THIN_DUPACK, V(1, 0, 2));
	each("SO-57", "TCP_USER_TIMEOUT", fd, SOL_TCP, TCP_USER_TIMEOUT, V(1, 2147483647, -1, 0));
	each("SO-61", "TCP_NOTSENT_LOWAT", fd, SOL_TCP, TCP_NOTSENT_LOWAT, V(1, 5000, -1, 0));
	each("SO-63", "TCP_SAVE_SYN", fd, SOL_TCP, TCP_SAVE_SYN, V(1, 2, 3, -1, 0));
	each("SO-66 RV-33", "TCP_INQ", fd, SOL_TCP, TCP_INQ, V(1, 2, -1, 0));
	each("SO-67", "TCP_TX_DELAY", fd, SOL_TCP, 37, V(5, 268435455, 268435456, -1, 0));
	each("SO-69", "TCP_IS_MPTCP", fd, SOL_TCP, 43, V(1));
	each("SO-70 SO-114", "TCP_RTO_MAX_MS", fd, SOL_TCP, 44, V(999, 1000, 120001, 120000));
	each("SO-71", "TCP_RTO_MIN_US", fd, SOL_TCP, 45, V(0, 4000, 8000, 8001, 200000, 200001));
	each("SO-72", "TCP_DELACK_MAX_US", fd, SOL_TCP, 46, V(0, 4000, 8000, 8001, 200000, 200001));
	each("SO-59", "TCP_FASTOPEN_NO_COOKIE", fd, SOL_TCP, TCP_FASTOPEN_NO_COOKIE, V(1, 2, 0));
	each("SO-59", "TCP_FASTOPEN_CONNECT", fd, SOL_TCP, TCP_FASTOPEN_CONNECT, V(1, 2, 0));
	each("SO-73", "option 99", fd, SOL_TCP, 99, V(1));
}

static void names(int fd)
{
	int one = 1;
	ROW("SO-54", "TCP_CONGESTION reno", setsockopt(fd, SOL_TCP, TCP_CONGESTION, "reno", 4));
	get_bytes("SO-54", "TCP_CONGESTION", fd, SOL_TCP, TCP_CONGESTION, 20);
	get_bytes("SO-54", "TCP_CONGESTION in 3 bytes", fd, SOL_TCP, TCP_CONGESTION, 3);
	ROW("SO-54", "TCP_CONGESTION none", setsockopt(fd, SOL_TCP, TCP_CONGESTION, "none", 4));
	ROW("SO-54", "TCP_CONGESTION of no bytes", setsockopt(fd, SOL_TCP, TCP_CONGESTION, "", 0));
	ROW("SO-54", "TCP_CONGESTION empty", setsockopt(fd, SOL_TCP, TCP_CONGESTION, "", 1));
	ROW("SO-55", "TCP_MD5SIG of 4 bytes", setsockopt(fd, SOL_TCP, TCP_MD5SIG, &one, 4));
	ROW("SO-65", "TCP_ULP none", setsockopt(fd, SOL_TCP, TCP_ULP, "none", 4));
	ROW("SO-65", "TCP_ULP of no bytes", setsockopt(fd, SOL_TCP, TCP_ULP, "", 0));
	get_bytes("SO-65", "TCP_ULP", fd, SOL_TCP, TCP_ULP, 16);
	get_bytes("SO-62", "TCP_CC_INFO", fd, SOL_TCP, TCP_CC_INFO, 40);
	get_bytes("SO-64", "TCP_SAVED_SYN", fd, SOL_TCP, TCP_SAVED_SYN, 40);
	ROW("SO-64", "setting TCP_SAVED_SYN", setsockopt(fd, SOL_TCP, TCP_SAVED_SYN, &one, 4));
	ROW("SO-52", "setting TCP_INFO", setsockopt(fd, SOL_TCP, TCP_INFO, &one, 4));
	ROW("SO-60", "setting TCP_TIMESTAMP", setsockopt(fd, SOL_TCP, TCP_TIMESTAMP, &one, 4));
	ROW("SO-68", "setting TCP_ZEROCOPY_RECEIVE", setsockopt(fd, SOL_TCP, TCP_ZEROCOPY_RECEIVE, &one, 4));
	get_bytes("SO-68", "TCP_ZEROCOPY_RECEIVE in 4 bytes", fd, SOL_TCP, TCP_ZEROCOPY_RECEIVE, 4);
}

static void ip(int fd)
{
	unsigned char byte = 0x10;
	each("SO-74", "IP_TOS", fd, SOL_IP, IP_TOS, V(0x10, 0x13, 0x03, 255, 256, 0));
	ROW("SO-74", "IP_TOS of one byte", setsockopt(fd, SOL_IP, IP_TOS, &byte, 1));
	get_bytes("SO-74", "IP_TOS", fd, SOL_IP, IP_TOS, 4);
	ROW("SO-75", "IP_TOS of no bytes", setsockopt(fd, SOL_IP, IP_TOS, &byte, 0));
	get_bytes("SO-75", "IP_TOS", fd, SOL_IP, IP_TOS, 4);
	each("SO-75", "IP_TTL", fd, SOL_IP, IP_TTL, V(0, 1, 255, 256, -1));
	for (socklen_t length = 0; length <= 5; length++)
		get_bytes("SO-75", "IP_TTL", fd, SOL_IP, IP_TTL, length);
	each("SO-76", "IP_MTU_DISCOVER", fd, SOL_IP, IP_MTU_DISCOVER, V(0, 2, 5, 6, -1, 1));
	get_bytes("SO-77", "IP_MTU", fd, SOL_IP, IP_MTU, 4);
	each("SO-75", "IP_RECVERR", fd, SOL_IP, IP_RECVERR, V(1, 0));
	each("SO-75", "IP_FREEBIND", fd, SOL_IP, IP_FREEBIND, V(1, 0));
	each("SO-75", "IP_MINTTL", fd, SOL_IP, IP_MINTTL, V(5, 256, 0));
	each("SO-75", "IP option 200", fd, SOL_IP, 200, V(1));
}

/* Whether the kernel's TCP has that congestion control. */
static int available(const char *name)
{
	char list[512] = "";
	FILE *file = fopen("/proc/sys/net/ipv4/tcp_available_congestion_control", "r");
	if (!file)
		return 0;
	size_t got = fread(list, 1, sizeof list - 1, file);
	fclose(file);
	list[got] = 0;
	for (char *word = strtok(list, " \n"); word; word = strtok(NULL, " \n"))
		if (!strcmp(word, name))
			return 1;
	return 0;
}

/* BBR before and after the first ack; with a connection it is new in the place of another. */
static void bbr(int fd, const char *when)
{
	unsigned int info[5] = {0};
	socklen_t length = sizeof info;
	char text[64];
	sprintf(text, "%s: TCP_CONGESTION", when);
	ROW("SO-54", text, setsockopt(fd, SOL_TCP, TCP_CONGESTION, "reno", 4));
	ROW("SO-54", text, setsockopt(fd, SOL_TCP, TCP_CONGESTION, "bbr", 3));
	get_bytes("SO-54", text, fd, SOL_TCP, TCP_CONGESTION, 20);
	for (int acked = 0; acked < 2; acked++) {
		sprintf(text, "%s: TCP_CC_INFO", when);
		ROW("SO-62", text, getsockopt(fd, SOL_TCP, TCP_CC_INFO, info, &length));
		row("SO-62", "%s: length %u, bandwidth %d, gains %u %u", when, length, info[0] > 0, info[3], info[4]);
		if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
			break;
		wait_until_acked_but(fd, 0);
	}
	length = 9;
	ROW("SO-62", text, getsockopt(fd, SOL_TCP, TCP_CC_INFO, info, &length));
	row("SO-62", "%s: length %u of 9", when, length);
}

static void segment_sizes(const char *host, int port)
{
	struct sockaddr_in a = address(host, port);
	int fd = tcp_socket();
	each("SO-43", "TCP_MAXSEG", fd, SOL_TCP, TCP_MAXSEG, V(1, 87, 88, 32767, 32768, -1, 0, 1000));
	each("SO-51", "TCP_WINDOW_CLAMP", fd, SOL_TCP, TCP_WINDOW_CLAMP, V(1, 1152, 5000, 0, -1, 0));
	ROW("SO-43", "connect", connect(fd, (struct sockaddr *)&a, sizeof a));
	get_bytes("SO-43", "connected: TCP_MAXSEG", fd, SOL_TCP, TCP_MAXSEG, 4);
	set_get("SO-43", "connected: TCP_MAXSEG", fd, SOL_TCP, TCP_MAXSEG, 500);
	set_get("SO-51", "connected: TCP_WINDOW_CLAMP", fd, SOL_TCP, TCP_WINDOW_CLAMP, 0);
	set_get("SO-51", "connected: TCP_WINDOW_CLAMP", fd, SOL_TCP, TCP_WINDOW_CLAMP, 20000);
	close(fd);
}

static void saved_syn(const char *host, int port)
{
	unsigned char syn[200];
	char command[32];
	socklen_t length = sizeof syn;
	int own, one = 1, fd = listener(4, &own);
	setsockopt(fd, SOL_TCP, TCP_SAVE_SYN, &one, sizeof one);
	sprintf(command, "call %d", own);
	int caller = peer(host, port, command), accepted = accept(fd, NULL, NULL);
	length = 10;
	ROW("SO-64", "TCP_SAVED_SYN in 10 bytes", getsockopt(accepted, SOL_TCP, TCP_SAVED_SYN, syn, &length));
	row("SO-64", "its length: %u", length);
	length = sizeof syn;
	ROW("SO-64", "TCP_SAVED_SYN", getsockopt(accepted, SOL_TCP, TCP_SAVED_SYN, syn, &length));
	row("SO-64", "its length: %u, version and header length %02x", length, syn[0]);
	get_bytes("SO-64", "TCP_SAVED_SYN again", accepted, SOL_TCP, TCP_SAVED_SYN, 40);
	close(accepted);
	close(caller);
	close(fd);
}

static void timestamp(int fd)
{
	unsigned value = 1;
	socklen_t length = sizeof value;
	ROW("SO-60", "TCP_TIMESTAMP", getsockopt(fd, SOL_TCP, TCP_TIMESTAMP, &value, &length));
	row("SO-60", "its low bit: %u", value & 1);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: sockopt_tcp HOST PORT");
	int fd = tcp_socket();
	values(fd);
	names(fd);
	ip(fd);
	close(fd);
	fd = peer(argv[1], atoi(argv[2]), "discard");
	values(fd);
	names(fd);
	ip(fd);
	timestamp(fd);
	close(fd);
	if (available("bbr")) {
		fd = tcp_socket();
		bbr(fd, "BBR, not connected");
		close(fd);
		fd = peer(argv[1], atoi(argv[2]), "discard");
		/* No ack is on its way: the next one is that of what bbr() sends. */
		wait_until_acked_but(fd, 0);
		bbr(fd, "BBR, connected");
		close(fd);
	}
	segment_sizes(argv[1], atoi(argv[2]));
	saved_syn(argv[1], atoi(argv[2]));
	puts("done");
	return 0;
}
