/* The send queue's buffers, seen by what they are charged, and when what stands in
 * them is sent (rows F1 to F16, SP-*, TM-26).
 *
 *   send_buffers HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

static const char *host;
static int port;
static _Alignas(4096) char data[1 << 20];

static void set(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof value))
		err(2, "option %d", name);
}

static int unsent(int fd)
{
	int n = -1;
	return ioctl(fd, SIOCOUTQNSD, &n) ? -errno : n;
}

static void tell(const char *ids, const char *text, int fd)
{
	row(ids, "%s: charged %u, of pages not used %u, not sent %d", text, meminfo(fd, SK_MEMINFO_WMEM_QUEUED),
	    meminfo(fd, SK_MEMINFO_FWD_ALLOC) % 4096, unsent(fd));
}

static void put(int fd, size_t size, int flags)
{
	if (send(fd, data, size, flags | MSG_NOSIGNAL) != (ssize_t)size)
		err(2, "send");
}

static void buffers(void)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	tell("F7", "nothing queued", fd);
	set(fd, IPPROTO_TCP, TCP_CORK, 1);
	put(fd, 1, 0);
	tell("F7 SP-3", "one byte, corked", fd);
	put(fd, 999, 0);
	tell("F1 F7", "999 more", fd);
	put(fd, 10, MSG_EOR);
	tell("F1 F12", "10 more, with MSG_EOR", fd);
	put(fd, 10, 0);
	wait_until_acked_but(fd, 10);
	tell("F2 F12", "10 behind it", fd);
	set(fd, IPPROTO_TCP, TCP_CORK, 0);
	row("SP-11", "uncorked, not sent: %d", unsent(fd));
	wait_until_acked(fd);
	tell("F7", "acknowledged", fd);
	put(fd, 100, 0);
	row("SP-5", "a small send with nothing in flight, not sent: %d", unsent(fd));
	wait_until_acked(fd);
	put(fd, 100, MSG_MORE);
	tell("SP-3", "100 with MSG_MORE", fd);
	put(fd, 100, 0);
	row("SP-3", "100 without, not sent: %d", unsent(fd));
	close(fd);
}

static void pages(void)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	set(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	set(fd, IPPROTO_TCP, TCP_CORK, 1);
	put(fd, 1, MSG_ZEROCOPY);
	tell("F7", "one byte of a page, by reference", fd);
	if (send(fd, data + 4090, 10, MSG_ZEROCOPY) != 10)
		err(2, "send");
	tell("F7", "10 bytes of two pages, by reference", fd);
	put(fd, 10, 0);
	tell("F16", "10 bytes copied behind them", fd);
	put(fd, 10, MSG_ZEROCOPY);
	tell("F16", "10 more by reference", fd);
	close(fd);
}

static void sizes(void)
{
	int fd = tcp_socket();
	row("TM-26", "SO_SNDBUF, fresh: %d", int_option(fd, SOL_SOCKET, SO_SNDBUF));
	close(fd);
	fd = peer(host, port, "hold");
	row("TM-26", "SO_SNDBUF, connected: %d", int_option(fd, SOL_SOCKET, SO_SNDBUF));
	close(fd);
	fd = peer(host, port, "hold");
	set(fd, SOL_SOCKET, SO_SNDBUF, 20000);
	row("TM-26", "SO_SNDBUF, set: %d", int_option(fd, SOL_SOCKET, SO_SNDBUF));
	close(fd);
}

/* A stamp of a send that takes nothing. */
static void no_bytes(void)
{
	char control[256];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	set(fd, SOL_SOCKET, SO_TIMESTAMPING,
	    SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE);
	ROW("TS-53", "a send of nothing", send(fd, data, 0, 0));
	ROW("TS-53", "its time stamp", recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
	int stamps = 0;
	put(fd, 100, MSG_MORE);
	row("B14", "100 bytes with MSG_MORE, not sent: %d", unsent(fd));
	ROW("B14", "their time stamp", recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
	put(fd, 100, 0);
	wait_until_acked(fd);
	while (recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
		stamps++;
	row("B14", "stamps of the buffer, pushed by 100 without: %d", stamps);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: send_buffers HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	buffers();
	pages();
	sizes();
	no_bytes();
	puts("done");
	return 0;
}
