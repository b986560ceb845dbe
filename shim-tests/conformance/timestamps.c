/* Transmit timestamps (rows TS-*): SO_TIMESTAMPING, and what the error queue gives. */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
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

/* ee_data of the stamp of an acknowledgement. */
static void keys(void)
{
	unsigned int flags = SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_SOFTWARE;
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, flags);
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
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, flags);
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
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE);
	send_bytes(fd, 100);
	entries("TS-37", "an acknowledgement's payload", fd);
	close(fd);
}

/* Those of the frame carry it whole. */
static void frames(void)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	send_bytes(fd, 100);
	entries("TS-36", "a frame's payload", fd);
	close(fd);
}

/* SO_TIMESTAMPING as a control message asks for the stamps of one call. */
static void one_message(void)
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
	unsigned int flags = SOF_TIMESTAMPING_TX_ACK;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SO_TIMESTAMPING;
	c->cmsg_len = CMSG_LEN(4);
	memcpy(CMSG_DATA(c), &flags, 4);
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	stamping(fd, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_TX_SCHED);
	ROW("TS-52", "a call that asks for ACK", sendmsg(fd, &m, MSG_NOSIGNAL));
	entries("TS-52", "a call that asks for ACK", fd);
	send_bytes(fd, 10);
	entries("TS-52", "the call after it", fd);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	options();
	keys();
	types();
	payload();
	frames();
	one_message();
	puts("done");
	return 0;
}
