/* Transmit timestamps (rows TS-*): SO_TIMESTAMPING, and what the error queue gives. */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/tcp.h>
#include <sys/mman.h>
#include <time.h>

static const char *host;
static int port;

/* Newer than the headers of Debian 12. */
#define OPT_ID_TCP (1u << 16)
#define TX_COMPLETION (1u << 18)
#define STAMPS (SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK)

static int stamping(int fd, unsigned int flags)
{
	return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
}

/* A connection with nothing in flight, and these flags. */
static int connected_with(unsigned int flags)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, flags);
	return fd;
}

static void send_bytes(int fd, size_t length)
{
	static const char bytes[200];
	if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
		err(2, "send");
}

/* Each entry of the error queue, once everything has been acknowledged. */
static void entries(const char *ids, const char *text, int fd)
{
	wait_until_acked(fd);
	for (int n = 1;; n++) {
		char payload[512], control[512], said[256] = "";
		struct iovec iov = {payload, sizeof payload};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				   .msg_controllen = sizeof control};
		ssize_t got = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
		if (got < 0) {
			row(ids, "%s, entry %d: none", text, n);
			return;
		}
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
			size_t at = strlen(said);
			if (c->cmsg_level == SOL_IP) {
				struct sock_extended_err e;
				memcpy(&e, CMSG_DATA(c), sizeof e);
				snprintf(said + at, sizeof said - at, " err %u origin %u type %u code %u info %u data %u",
					 e.ee_errno, e.ee_origin, e.ee_type, e.ee_code, e.ee_info, e.ee_data);
			} else {
				struct timespec t[3];
				memcpy(t, CMSG_DATA(c), sizeof t);
				snprintf(said + at, sizeof said - at, " cmsg %d/%d/%zu software %d hardware %d",
					 c->cmsg_level, c->cmsg_type, (size_t)c->cmsg_len,
					 t[0].tv_sec != 0, t[2].tv_sec != 0);
			}
		}
		row(ids, "%s, entry %d: payload %zd flags %#x%s", text, n, got,
		    (unsigned int)m.msg_flags, said);
	}
}

static void options(void)
{
	int fd = tcp_socket();
	ROW("TS-20", "an unknown bit", stamping(fd, 0x80000));
	ROW("TS-21", "OPT_ID_TCP alone", stamping(fd, OPT_ID_TCP));
	ROW("TS-22", "OPT_ID before the connection", stamping(fd, SOF_TIMESTAMPING_OPT_ID));
	ROW("TS-23", "OPT_STATS without TSONLY", stamping(fd, SOF_TIMESTAMPING_OPT_STATS));
	ROW("TS-24", "BIND_PHC", stamping(fd, SOF_TIMESTAMPING_BIND_PHC));
	ROW("TS-25", "all stamps", stamping(fd, STAMPS | SOF_TIMESTAMPING_SOFTWARE));
	int value[2] = {-1, -1};
	socklen_t length = 4;
	ROW("TS-26", "read into 4 bytes", getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, value, &length));
	row("TS-26", "4 bytes: %#x length %u", (unsigned int)value[0], length);
	length = 8;
	ROW("TS-26", "read into 8 bytes", getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, value, &length));
	row("TS-26", "8 bytes: %#x %d length %u", (unsigned int)value[0], value[1], length);
	value[0] = STAMPS;
	ROW("TS-27", "the new option", setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW, value, 4));
	row("TS-27", "read by the old and the new: %#x %#x", (unsigned int)int_option(fd, SOL_SOCKET, SO_TIMESTAMPING_OLD),
	    (unsigned int)int_option(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW));
	close(fd);
}

/* Every bit by itself, and what the option reads then. */
static void bits(void)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	for (int bit = 0; bit < 19; bit++) {
		char id[8], text[48];
		snprintf(id, sizeof id, "TS-%d", bit + 1);
		stamping(fd, 0);
		snprintf(text, sizeof text, "bit %#x", 1u << bit);
		ROW(id, text, stamping(fd, 1u << bit));
		row(id, "bit %#x, the option reads: %#x", 1u << bit,
		    (unsigned int)int_option(fd, SOL_SOCKET, SO_TIMESTAMPING));
	}
	close(fd);
}

/* ee_data of the stamp of an acknowledgement. */
static void keys(void)
{
	unsigned int flags = SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_SOFTWARE;
	int fd = connected_with(flags);
	send_bytes(fd, 5);
	entries("TS-32 TS-37 TS-42", "without OPT_ID", fd);
	stamping(fd, flags | SOF_TIMESTAMPING_OPT_ID);
	send_bytes(fd, 5);
	entries("TS-29", "5 bytes with OPT_ID", fd);
	send_bytes(fd, 10);
	entries("TS-29", "10 more", fd);
	stamping(fd, flags | SOF_TIMESTAMPING_OPT_ID);
	send_bytes(fd, 10);
	entries("TS-31", "OPT_ID set again", fd);
	stamping(fd, flags);
	stamping(fd, flags | SOF_TIMESTAMPING_OPT_ID);
	send_bytes(fd, 10);
	entries("TS-31", "OPT_ID cleared and set", fd);
	close(fd);
}

static void types(void)
{
	unsigned int flags = STAMPS | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID |
			     OPT_ID_TCP | SOF_TIMESTAMPING_SOFTWARE;
	int fd = connected_with(flags);
	send_bytes(fd, 100);
	entries("TS-39 TS-42 TS-45 TS-47", "all stamps", fd);
	stamping(fd, flags | TX_COMPLETION);
	send_bytes(fd, 100);
	entries("TS-38", "with COMPLETION", fd);
	stamping(fd, flags & ~(unsigned int)SOF_TIMESTAMPING_SOFTWARE);
	send_bytes(fd, 100);
	entries("TS-49", "not reported", fd);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING_NEW, &flags, sizeof flags);
	send_bytes(fd, 100);
	entries("TS-28 TS-46", "the new layout", fd);
	close(fd);
}

/* The stamp of an acknowledgement carries what was acknowledged. */
static void payload(void)
{
	int fd = connected_with(SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE);
	send_bytes(fd, 100);
	entries("TS-37", "an acknowledgement's payload", fd);
	close(fd);
}

/* Those of the frame carry it whole. */
static void frames(void)
{
	int fd = connected_with(SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	send_bytes(fd, 100);
	entries("TS-36", "a frame's payload", fd);
	close(fd);
}

/* SO_TIMESTAMPING as a control message asks for the stamps of one call. */
/* A byte, and what is asked for it. */
static ssize_t send_asking(int fd, unsigned int asked, int flags)
{
	char byte = 'x';
	union {
		char bytes[CMSG_SPACE(4)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SO_TIMESTAMPING;
	c->cmsg_len = CMSG_LEN(4);
	memcpy(CMSG_DATA(c), &asked, 4);
	return sendmsg(fd, &m, flags | MSG_NOSIGNAL);
}

static void one_message(void)
{
	int fd = connected_with(SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_TX_SCHED);
	ROW("TS-52", "a call that asks for ACK", send_asking(fd, SOF_TIMESTAMPING_TX_ACK, 0));
	entries("TS-52", "a call that asks for ACK", fd);
	send_bytes(fd, 10);
	entries("TS-52", "the call after it", fd);
	close(fd);
}

/* Where the keys begin: what was unacknowledged counts, or does not. */
static void bases(void)
{
	unsigned int flags = SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_OPT_TSONLY |
			     SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID;
	for (int tcp = 0; tcp < 2; tcp++) {
		int fd = peer(host, port, "discard"), on = 1;
		wait_until_acked(fd);
		/* Corked bytes are not sent, and so not acknowledged. */
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
		send_bytes(fd, 100);
		stamping(fd, flags | (tcp ? OPT_ID_TCP : 0));
		send_bytes(fd, 10);
		on = 0;
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
		entries("TS-30", tcp ? "10 bytes after 100 unacknowledged, OPT_ID_TCP" :
				       "10 bytes after 100 unacknowledged", fd);
		close(fd);
	}
}

/* Which buffers of which calls are stamped. */
static void buffers(void)
{
	unsigned int flags = STAMPS | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_SOFTWARE |
			     SOF_TIMESTAMPING_OPT_ID | OPT_ID_TCP;
	int fd = connected_with(flags);
	static char much[150000];
	if (send(fd, much, 5, MSG_NOSIGNAL | MSG_MORE) != 5 ||
	    send(fd, much, 6, MSG_NOSIGNAL | MSG_MORE) != 6 || send(fd, much, 7, MSG_NOSIGNAL) != 7)
		err(2, "send");
	entries("TS-33", "three calls, one buffer", fd);
	close(fd);
	/* Calls that ask for different stamps, or for none. */
	static const unsigned int asked[][3] = {
		{SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK, 0, 0},
		{SOF_TIMESTAMPING_TX_SCHED, SOF_TIMESTAMPING_TX_ACK, 0},
		{SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_TX_SCHED, 0},
		{SOF_TIMESTAMPING_TX_ACK, SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_TX_SCHED},
		{0, 0, SOF_TIMESTAMPING_TX_SOFTWARE},
	};
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		char text[64];
		fd = connected_with(flags & ~STAMPS);
		for (int n = 0; n < 3; n++)
			if (send_asking(fd, asked[i][n], n < 2 ? MSG_MORE : 0) != 1)
				err(2, "sendmsg");
		snprintf(text, sizeof text, "asked for %#x, %#x, %#x", asked[i][0], asked[i][1], asked[i][2]);
		entries("TS-33", text, fd);
		close(fd);
	}
	fd = connected_with(flags);
	if (send(fd, much, sizeof much, MSG_NOSIGNAL) != (ssize_t)sizeof much)
		err(2, "send");
	entries("TS-34", "one call, several buffers", fd);
	close(fd);
}

/* OPT_CMSG names the sender's address where the frame is there. */
static void offender(void)
{
	for (int tsonly = 0; tsonly < 2; tsonly++) {
		char text[512], control[512];
		struct iovec iov = {text, sizeof text};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				   .msg_controllen = sizeof control};
		int fd = connected_with(SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE |
				     SOF_TIMESTAMPING_OPT_CMSG |
				     (tsonly ? SOF_TIMESTAMPING_OPT_TSONLY : 0));
		send_bytes(fd, 10);
		wait_until_acked(fd);
		if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
			err(2, "the error queue");
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
			struct {
				struct sock_extended_err err;
				struct sockaddr_in from;
			} e;
			struct sockaddr_in mine;
			socklen_t length = sizeof mine;
			if (c->cmsg_level != SOL_IP)
				continue;
			memcpy(&e, CMSG_DATA(c), sizeof e);
			getsockname(fd, (struct sockaddr *)&mine, &length);
			row("TS-48", "%s: length %zu family %d port %d own address %d",
			    tsonly ? "the offender with TSONLY" : "the offender", (size_t)c->cmsg_len,
			    e.from.sin_family, e.from.sin_port,
			    e.from.sin_addr.s_addr == mine.sin_addr.s_addr);
		}
		close(fd);
	}
}

/* Room for control messages that ends in memory which cannot be written: what does not fit is left out, and nobody told. */
static void bad_control(void)
{
	const size_t room[] = {0, 20, 70, 500};
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || munmap(memory + page, page))
		err(2, "memory");
	for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
		char byte;
		int fd = connected_with(SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE);
		send_bytes(fd, 1);
		wait_until_acked(fd);
		struct iovec iov = {&byte, 1};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = memory + page - room[i],
				   .msg_controllen = 500};
		ssize_t got = recvmsg(fd, &m, MSG_ERRQUEUE);
		row("TS-44", "control memory of %zu bytes: %zd flags %#x length %zu", room[i], got, m.msg_flags,
		    (size_t)m.msg_controllen);
		close(fd);
	}
	munmap(memory, page);
}

/* Attributes of OPT_STATS: type and size in order, without the padding. */
static void stats(void)
{
	unsigned int flags = STAMPS | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_SOFTWARE |
			     SOF_TIMESTAMPING_OPT_STATS;
	int fd = connected_with(flags);
	send_bytes(fd, 100);
	wait_until_acked(fd);
	row("TS-51 TS-54", "statistics, memory of three: %u", meminfo(fd, SK_MEMINFO_RMEM_ALLOC));
	for (int n = 1; n <= 3; n++) {
		char text[512], control[1024], said[512] = "";
		struct iovec iov = {text, sizeof text};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				   .msg_controllen = sizeof control};
		ssize_t got = recvmsg(fd, &m, MSG_ERRQUEUE);
		if (got < 0)
			err(2, "the error queue");
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
			if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING_OPT_STATS)
				row("TS-44", "statistics, entry %d, the message is the payload: %d", n,
				    c->cmsg_len == CMSG_LEN((size_t)got) &&
					    !memcmp(CMSG_DATA(c), text, (size_t)got));
		for (ssize_t at = 0; at + 4 <= got;) {
			unsigned short head[2];
			memcpy(head, text + at, 4);
			size_t end = strlen(said);
			if (head[1] != TCP_NLA_PAD)
				snprintf(said + end, sizeof said - end, " %d/%d", head[1], head[0] - 4);
			uint32_t unsent;
			memcpy(&unsent, text + at + 4, sizeof unsent);
			if (head[1] == TCP_NLA_BYTES_NOTSENT)
				row("TS-66", "statistics, entry %d, bytes not sent: %u", n, unsent);
			at += (head[0] + 3) & ~3;
		}
		row("TS-54 TS-55 TS-56 TS-57 TS-58 TS-59 TS-60 TS-61 TS-62 TS-63 TS-64 TS-65 TS-66 TS-67 "
		    "TS-68 TS-69",
		    "statistics, entry %d: %zd bytes,%s", n, got, said);
	}
	close(fd);
}

/* SO_TXTIME, by itself and before a message may name its time. */
static void txtime(void)
{
	struct {
		int clockid;
		unsigned int flags;
	} set = {CLOCK_MONOTONIC, 0}, get = {-1, ~0u};
	socklen_t length = sizeof get;
	int fd = tcp_socket();
	ROW("TS-74", "SO_TXTIME, reading before", getsockopt(fd, SOL_SOCKET, SO_TXTIME, &get, &length));
	row("TS-74", "SO_TXTIME before: %d %#x %u", get.clockid, get.flags, length);
	ROW("TS-70", "SO_TXTIME of 4 bytes", setsockopt(fd, SOL_SOCKET, SO_TXTIME, &set, 4));
	ROW("TS-70", "SO_TXTIME of 12 bytes", setsockopt(fd, SOL_SOCKET, SO_TXTIME, &set, 12));
	set.flags = 4;
	ROW("TS-71", "SO_TXTIME with flag 4", setsockopt(fd, SOL_SOCKET, SO_TXTIME, &set, sizeof set));
	set.flags = 3;
	for (int id = -1; id < 13; id++) {
		char text[40];
		set.clockid = id;
		snprintf(text, sizeof text, "SO_TXTIME with clock %d", id);
		ROW("TS-72 TS-73", text, setsockopt(fd, SOL_SOCKET, SO_TXTIME, &set, sizeof set));
	}
	length = sizeof get;
	getsockopt(fd, SOL_SOCKET, SO_TXTIME, &get, &length);
	row("TS-74", "SO_TXTIME after: %d %#x %u", get.clockid, get.flags, length);
	length = 4;
	ROW("TS-74", "SO_TXTIME into 4 bytes", getsockopt(fd, SOL_SOCKET, SO_TXTIME, &get, &length));
	row("TS-74", "SO_TXTIME into 4 bytes, the length: %u", length);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	options();
	bits();
	keys();
	types();
	payload();
	frames();
	one_message();
	bases();
	buffers();
	offender();
	bad_control();
	stats();
	txtime();
	puts("done");
	return 0;
}
