/* Transmit timestamps: which frames have them, what they carry, and what they cost. */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <time.h>

static const char *host;
static int port;
static char data[40000];

#define FRAME (SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE)
#define REPORT SOF_TIMESTAMPING_SOFTWARE
#define TSONLY SOF_TIMESTAMPING_OPT_TSONLY

static int connected_with(unsigned flags)
{
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
		err(2, "SO_TIMESTAMPING");
	return fd;
}

static void send_all(int fd, size_t length)
{
	if (send(fd, data, length, MSG_NOSIGNAL) != (ssize_t)length)
		err(2, "send");
}

struct stamp {
	ssize_t length; /* of the payload, -1: no entry */
	unsigned kind, key;
	int64_t at;
	int level[8], type[8], count;
	unsigned char payload[200], info[12];
	int ttl, tos;
};

static struct stamp next_stamp(int fd)
{
	struct stamp s = {0};
	char control[512];
	struct iovec part = {s.payload, sizeof s.payload};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof control};
	s.length = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
	for (struct cmsghdr *c = s.length < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		struct sock_extended_err e;
		struct timespec t;
		s.level[s.count] = c->cmsg_level;
		s.type[s.count++] = c->cmsg_type;
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) {
			memcpy(&t, CMSG_DATA(c), sizeof t);
			s.at = t.tv_sec * 1000000000LL + t.tv_nsec;
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) {
			memcpy(&e, CMSG_DATA(c), sizeof e);
			s.kind = e.ee_info;
			s.key = e.ee_data;
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(s.info, CMSG_DATA(c), sizeof s.info);
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_TTL) {
			memcpy(&s.ttl, CMSG_DATA(c), sizeof s.ttl);
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_TOS) {
			s.tos = *CMSG_DATA(c);
		}
	}
	return s;
}

static int64_t wall(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The frame from the link-layer header on. */
static void whole_frames(void)
{
	int fd = connected_with(FRAME | REPORT);
	for (int i = 0; i < 100; i++)
		data[i] = (char)('a' + i % 26);
	int64_t before = wall();
	send_all(fd, 100);
	int64_t after = wall();
	wait_until_acked(fd);
	int64_t last = before;
	for (int i = 0; i < 2; i++) {
		struct stamp s = next_stamp(fd);
		struct ip ip;
		struct tcphdr tcp;
		char text[32];
		memcpy(&ip, s.payload + 14, sizeof ip);
		memcpy(&tcp, s.payload + 14 + 20, sizeof tcp);
		size_t headers = 14 + 20 + tcp.doff * 4u;
		snprintf(text, sizeof text, "stamp of kind %u", s.kind);
		row("TS-35 TS-36", "%s: %zd bytes, ethertype %02x%02x, IP %u protocol %u length %u", text, s.length,
		    s.payload[12], s.payload[13], ip.ip_v, ip.ip_p, ntohs(ip.ip_len));
		row("TS-35 TS-36", "%s, the data is there: %d", text,
		    s.length == (ssize_t)headers + 100 && !memcmp(s.payload + headers, data, 100));
		row("TS-35 TS-36", "%s, its time is between the call's begin and end, in order: %d", text,
		    last <= s.at && s.at <= after);
		last = s.at;
	}
	close(fd);
}

/* A burst has one stamp of each kind. */
static void bursts(void)
{
	int fd = connected_with(FRAME | REPORT | TSONLY | SOF_TIMESTAMPING_OPT_ID);
	send_all(fd, 10000);
	wait_until_acked(fd);
	unsigned kinds[3] = {0}, key = 0;
	for (struct stamp s; (s = next_stamp(fd)).length >= 0;) {
		kinds[s.kind]++;
		key = s.key;
	}
	row("TS-41", "seven segments: %u SND, %u SCHED, %u ACK, key %u", kinds[0], kinds[1], kinds[2], key);
	close(fd);
}

/* IP_PKTINFO and its like, of the frame. */
static void frame_messages(void)
{
	int on = 1;
	for (int tsonly = 0; tsonly < 2; tsonly++) {
		for (int options = 0; options < 3; options++) {
			int fd = connected_with(FRAME | SOF_TIMESTAMPING_TX_ACK | REPORT | SOF_TIMESTAMPING_OPT_CMSG |
						(tsonly ? TSONLY : 0));
			if (options > 0)
				setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
			if (options > 1) {
				setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof on);
				setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
				setsockopt(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &on, sizeof on);
			}
			send_all(fd, 10);
			wait_until_acked(fd);
			row("TS-51", "OPT_CMSG, tsonly %d, memory of three stamps: %u", tsonly, meminfo(fd, SK_MEMINFO_RMEM_ALLOC));
			for (int i = 0; i < 3; i++) {
				struct stamp s = next_stamp(fd);
				char said[128] = "";
				for (int k = 0; k < s.count; k++) {
					size_t at = strlen(said);
					snprintf(said + at, sizeof said - at, " %d/%d", s.level[k], s.type[k]);
				}
				row("TS-50 TS-48", "OPT_CMSG, tsonly %d, options %d, stamp %d:%s", tsonly, options, i, said);
				if (!tsonly && options && i < 2)
					row("TS-50", "OPT_CMSG, options %d, stamp %d, told: device %u from %u to %u ttl %d tos %d",
					    options, i, s.info[0] | s.info[1] << 8, s.info[7], s.info[11], s.ttl, s.tos);
			}
			close(fd);
		}
	}
}

/* Stamps are charged to the receive buffer. */
static void charge(void)
{
	int fd = connected_with(SOF_TIMESTAMPING_TX_ACK | REPORT | TSONLY | SOF_TIMESTAMPING_OPT_ID), size = 2304;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	row("TS-51", "the buffer: %d", int_option(fd, SOL_SOCKET, SO_RCVBUF));
	for (int i = 0; i < 20; i++) {
		send_all(fd, 1);
		wait_until_acked(fd);
	}
	int kept = 0;
	unsigned last = 0;
	for (struct stamp s; (s = next_stamp(fd)).length >= 0; kept++)
		last = s.key;
	row("TS-51", "kept of 20: %d, the last has key %u", kept, last);
	close(fd);
}

/* A time of departure does not hold a TCP segment back. */
static void departure(void)
{
	struct {
		int clockid;
		unsigned flags;
	} clock = {CLOCK_MONOTONIC, 0};
	union {
		char bytes[CMSG_SPACE(8)];
		struct cmsghdr header;
	} control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_TXTIME, .cmsg_len = CMSG_LEN(8)}};
	struct timespec now;
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	ROW("TS-75", "SO_TXTIME", setsockopt(fd, SOL_SOCKET, SO_TXTIME, &clock, sizeof clock));
	clock_gettime(CLOCK_MONOTONIC, &now);
	uint64_t at = (uint64_t)(now.tv_sec + 100) * 1000000000;
	memcpy(CMSG_DATA(&control.header), &at, sizeof at);
	struct iovec part = {data, 10};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof control};
	ROW("TS-75", "to leave in 100 s", sendmsg(fd, &m, MSG_NOSIGNAL));
	wait_until_acked(fd);
	struct timespec then;
	clock_gettime(CLOCK_MONOTONIC, &then);
	row("TS-75", "it was acknowledged long before: %d", then.tv_sec - now.tv_sec < 50);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: timestamps_frames HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	whole_frames();
	bursts();
	frame_messages();
	charge();
	departure();
	puts("done");
	return 0;
}
