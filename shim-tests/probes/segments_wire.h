/* The wire of random_segments.c: peers that are made of frames, what they send, and what comes back.
 *
 * The packet socket is of the far host (hands_wire.c), so that this program itself sends what it will hear the answer to. Other
 * peers (conformance/wire/lib/rawpeer.h) are programs of their own that tell the near one what to call: an observer cannot know
 * there when the other side has nothing more to say, and waits.
 */
#ifndef SEGMENTS_WIRE_H
#define SEGMENTS_WIRE_H

#include "random.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sys/un.h>
#include <time.h>

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128 };
enum { EOL = 0, NOP = 1, MSS = 2, SCALE = 3, SACK_OK = 4, SACK = 5, STAMP = 8, COOKIE = 34 };

enum {
	ENDS = 4,
	FIRST_PORT = 7000,
	PATIENCE = 20000, /* milliseconds, for what will come */
};

/* The peer's end of a connection. */
struct end {
	uint16_t port;
	uint32_t isn, near_isn;  /* the SYNs' numbers */
	uint32_t next;           /* what we send next */
	uint32_t near_next;      /* what near has not sent yet */
	uint32_t acked;          /* what we acknowledged */
	uint32_t heard;          /* what near acknowledged */
	int window;
	int stamps, sack;        /* agreed upon */
	uint32_t stamp, near_stamp;
	int syn_sent;
};

/* A segment to be sent. */
struct segment {
	uint32_t seq, ack;
	int flags, window, urgent, length;
	int tos, ttl;
	int bad_sum, data_offset, reserved, no_stamp;
	uint32_t stamp, echo;    /* 0: those of the end */
	int of_before;           /* the echo is that of an earlier segment, however long ago */
	uint8_t options[40];
	int options_size;        /* in place of the usual ones */
	uint32_t sack[8];
	int blocks;
};

static struct end ends[ENDS];
static uint16_t near_port;
static int wire;
static uint32_t near_ip, peer_ip; /* host order */
/* Segments of near's that came. */
static int segments_heard;
static const char *wire_device;

static inline uint32_t get16(const uint8_t *p) { return (uint32_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p) { return get16(p) << 16 | get16(p + 2); }
static inline void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static inline void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v & 0xffff); }

static uint32_t sum_up(uint32_t sum, const uint8_t *p, size_t size)
{
	for (; size > 1; p += 2, size -= 2)
		sum += get16(p);
	return size ? sum + ((uint32_t)*p << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static int64_t milliseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Asks the far side for its wire. */
static void take_wire(const char *control)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char byte, space[CMSG_SPACE(sizeof(int))];
	struct iovec part = {&byte, 1};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
	int from = socket(AF_UNIX, SOCK_STREAM, 0);
	if (strlen(control) >= sizeof a.sun_path)
		errx(2, "%s: too long", control);
	strcpy(a.sun_path, control);
	if (connect(from, (struct sockaddr *)&a, sizeof a) || recvmsg(from, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
		err(2, "%s", control);
	memcpy(&wire, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof wire);
	close(from);
}

/* An IP packet to near, from the peers' address. */
static void ip_send(int protocol, const uint8_t *body, int size, int tos, int ttl)
{
	/* Both devices have the name, and near's address is that of this namespace's. */
	static struct ifreq near_device;
	static uint8_t frame[sizeof(struct virtio_net_hdr) + 2000];
	uint8_t *ethernet = frame + sizeof(struct virtio_net_hdr), *ip = ethernet + 14;
	if (!near_device.ifr_name[0]) {
		int any = socket(AF_INET, SOCK_DGRAM, 0);
		snprintf(near_device.ifr_name, sizeof near_device.ifr_name, "%s", wire_device);
		if (ioctl(any, SIOCGIFHWADDR, &near_device))
			err(2, "the address of %s", wire_device);
		close(any);
	}
	memcpy(ethernet, near_device.ifr_hwaddr.sa_data, 6);
	memcpy(ethernet + 6, "\2\0\0\0\0\1", 6);
	put16(ethernet + 12, ETH_P_IP);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[1] = (uint8_t)tos;
	put16(ip + 2, (uint32_t)(20 + size));
	put16(ip + 6, 0x4000);
	ip[8] = (uint8_t)ttl;
	ip[9] = (uint8_t)protocol;
	put32(ip + 12, peer_ip);
	put32(ip + 16, near_ip);
	put16(ip + 10, fold(sum_up(0, ip, 20)));
	memcpy(ip + 20, body, (size_t)size);
	size_t all = (size_t)(ip + 20 + size - frame);
	if (send(wire, frame, all, 0) != (ssize_t)all)
		err(2, "send a frame");
}

/* The byte of a peer's stream at a place: what is read shows whence it was taken. */
static uint8_t stream_byte(uint32_t place)
{
	return (uint8_t)('a' + place % 26);
}

static int usual_options(uint8_t *o, struct end *e, const struct segment *s)
{
	int n = 0;
	if (e->stamps && !s->no_stamp && !(s->flags & SYN)) {
		memcpy(o, (uint8_t[]){NOP, NOP, STAMP, 10}, 4);
		put32(o + 4, s->stamp ? s->stamp : ++e->stamp);
		put32(o + 8, s->echo ? s->echo : e->near_stamp);
		n = 12;
	}
	if (s->blocks) {
		memcpy(o + n, (uint8_t[]){NOP, NOP, SACK, (uint8_t)(2 + 8 * s->blocks)}, 4);
		n += 4;
		for (int i = 0; i < 2 * s->blocks; i++, n += 4)
			put32(o + n, s->sack[i]);
	}
	return n;
}

static void segment_send(struct end *e, const struct segment *s)
{
	static uint8_t tcp[2000];
	memset(tcp, 0, 60);
	int n = s->options_size;
	if (n)
		memcpy(tcp + 20, s->options, (size_t)n);
	else
		n = usual_options(tcp + 20, e, s);
	int head = 20 + (n + 3) / 4 * 4;
	put16(tcp, e->port);
	put16(tcp + 2, near_port);
	put32(tcp + 4, s->seq);
	put32(tcp + 8, s->ack);
	tcp[12] = (uint8_t)((s->data_offset ? s->data_offset : head / 4) << 4 | s->reserved);
	tcp[13] = (uint8_t)s->flags;
	put16(tcp + 14, (uint32_t)s->window);
	put16(tcp + 18, (uint32_t)s->urgent);
	uint32_t place = s->seq + !!(s->flags & SYN) - e->isn - 1;
	for (int i = 0; i < s->length; i++)
		tcp[head + i] = stream_byte(place + (uint32_t)i);
	int size = head + s->length;
	uint8_t pseudo[12] = {[9] = IPPROTO_TCP};
	put32(pseudo, peer_ip);
	put32(pseudo + 4, near_ip);
	put16(pseudo + 10, (uint32_t)size);
	put16(tcp + 16, fold(sum_up(sum_up(0, pseudo, 12), tcp, (size_t)size)) ^ (s->bad_sum ? 1u : 0));
	ip_send(IPPROTO_TCP, tcp, size, s->tos, s->ttl ? s->ttl : 64);
}

static const char *letters(int flags)
{
	static char text[9];
	int n = 0;
	for (int i = 0; i < 8; i++)
		if (flags >> i & 1)
			text[n++] = "FSRPAUEC"[i];
	text[n] = 0;
	return n ? text : "-";
}

static void segment_show(const struct end *e, const struct segment *s)
{
	printf(" < %s %d:%d", letters(s->flags), (int)(s->seq - e->isn), s->length);
	if (s->flags & ACK || s->ack)
		printf(" ack %d", (int)(s->ack - e->near_isn));
	printf(" win %d", s->window);
	if (s->urgent)
		printf(" urg %d", s->urgent);
	for (int i = 0; i < 2 * s->blocks; i += 2)
		printf(" sack %d-%d", (int)(s->sack[i] - e->near_isn), (int)(s->sack[i + 1] - e->near_isn));
	if (s->stamp)
		printf(" stamp %+d", (int)(s->stamp - e->stamp));
	if (s->of_before)
		printf(" echo of before");
	else if (s->echo)
		printf(" echo %+d", (int)(s->echo - e->near_stamp));
	for (int i = 0; i < s->options_size && !(s->flags & SYN); i++)
		printf(i ? " %d" : " options %d", s->options[i]);
	if (s->tos | s->ttl | s->data_offset | s->reserved)
		printf(" tos %d ttl %d offset %d reserved %d", s->tos, s->ttl, s->data_offset, s->reserved);
	putchar('\n');
}

/* An ICMP error that quotes `size` bytes of near's segment at `seq`. */
static void icmp_error(const struct end *e, int type, int code, int mtu, uint32_t seq, int size)
{
	uint8_t body[8 + 60] = {(uint8_t)type, (uint8_t)code}, *ip = body + 8;
	if (type == 3 && code == 4)
		put16(body + 6, (uint32_t)mtu);
	ip[0] = 0x45;
	put16(ip + 2, 140);
	put16(ip + 6, 0x4000);
	ip[8] = 60;
	ip[9] = IPPROTO_TCP;
	put32(ip + 12, near_ip);
	put32(ip + 16, peer_ip);
	put16(ip + 10, fold(sum_up(0, ip, 20)));
	put16(ip + 20, near_port);
	put16(ip + 22, e->port);
	put32(ip + 24, seq);
	ip[32] = 0x50;
	ip[33] = ACK;
	put16(body + 2, fold(sum_up(0, body, (size_t)(8 + size))));
	printf(" < icmp %d/%d mtu %d about %d, %d bytes of it\n", type, code, mtu, (int)(seq - e->near_isn), size);
	ip_send(IPPROTO_ICMP, body, 8 + size, 0, 60);
}

/* What has come, by end: frames of different connections have no order. */
static struct {
	FILE *to;
	char *text;
	size_t size;
} heard_texts[ENDS];

static FILE *heard_of(const struct end *e)
{
	int i = (int)(e - ends);
	if (!heard_texts[i].to)
		heard_texts[i].to = open_memstream(&heard_texts[i].text, &heard_texts[i].size);
	if (!heard_texts[i].to)
		err(2, "memory");
	return heard_texts[i].to;
}

static void show_heard(void)
{
	for (int i = 0; i < ENDS; i++) {
		if (!heard_texts[i].to)
			continue;
		fclose(heard_texts[i].to);
		fputs(heard_texts[i].text, stdout);
		free(heard_texts[i].text);
		heard_texts[i].to = NULL;
	}
}

static void option_show(FILE *to, const uint8_t *o, struct end *e)
{
	switch (o[0]) {
	case MSS: fprintf(to, " mss %d", (int)get16(o + 2)); break;
	case SCALE: fprintf(to, " scale %d", o[2]); break;
	case SACK_OK: fprintf(to, " sackOK"); break;
	case STAMP:
		e->near_stamp = get32(o + 2);
		fprintf(to, " echo %d", (int)(e->stamp - get32(o + 6)));
		break;
	case SACK:
		for (int i = 2; i + 8 <= o[1]; i += 8)
			fprintf(to, " sack %d-%d", (int)(get32(o + i) - e->isn), (int)(get32(o + i + 4) - e->isn));
		break;
	case COOKIE: fprintf(to, " cookie of %d", o[1] - 2); break;
	default: fprintf(to, " option %d of %d", o[0], o[1]);
	}
}

/* One segment of a frame. */
static void heard_segment(struct end *e, const uint8_t *ip, uint32_t seq, uint32_t length, int flags)
{
	const uint8_t *tcp = ip + (ip[0] & 15) * 4;
	int head = (tcp[12] >> 4) * 4;
	uint32_t ack = get32(tcp + 8);
	FILE *to = heard_of(e);
	segments_heard++;
	fprintf(to, "   > ");
	if (e != ends)
		fprintf(to, "%d: ", (int)(e - ends));
	/* Where a burst ends hangs on how much of it left together. */
	fprintf(to, "%s %d:%d", letters(length ? flags & ~PSH : flags), seq ? (int)(seq - e->near_isn) : 0, (int)length);
	if (flags & ACK)
		fprintf(to, " ack %d", (int)(ack - e->isn));
	if (flags & SYN)
		fprintf(to, " win %d", (int)get16(tcp + 14));
	if (flags & URG)
		fprintf(to, " urg %d", (int)get16(tcp + 18));
	if (ip[1] || ip[8] != 64 || !(ip[6] & 0x40))
		fprintf(to, " tos %d ttl %d fragment %#x", ip[1], ip[8], (unsigned)get16(ip + 6));
	for (int i = 20; i < head && tcp[i] != EOL;) {
		if (tcp[i] != NOP)
			option_show(to, tcp + i, e);
		i += tcp[i] == NOP ? 1 : tcp[i + 1] ? tcp[i + 1] : 40;
	}
	fputc('\n', to);
	uint32_t end = seq + length + !!(flags & FIN);
	if ((flags & (ACK | RST)) == ACK)
		e->heard = ack;
	if (!(flags & RST) && (int)(end - e->near_next) > 0)
		e->near_next = end;
}

/* What a frame holds: the number of an echo's answer, or 0. */
static int heard_frame(const uint8_t *frame, ssize_t size)
{
	struct virtio_net_hdr virtio;
	memcpy(&virtio, frame, sizeof virtio);
	const uint8_t *ip = frame + sizeof virtio + 14, *tcp = ip + (ip[0] & 15) * 4;
	if (size < (ssize_t)sizeof virtio + 14 + 28 || get32(ip + 12) != near_ip || get32(ip + 16) != peer_ip)
		return 0;
	if (ip[9] == IPPROTO_ICMP)
		return tcp[0] == 0 ? (int)get16(tcp + 6) : 0;
	uint32_t port = get16(tcp + 2), from = get16(tcp);
	if (ip[9] != IPPROTO_TCP || port < FIRST_PORT || port >= FIRST_PORT + ENDS)
		return 0;
	struct end *e = &ends[port - FIRST_PORT];
	int flags = tcp[13];
	uint32_t seq = get32(tcp + 4), length = get16(ip + 2) - (uint32_t)((ip[0] & 15) * 4 + (tcp[12] >> 4) * 4);
	if (flags & SYN) {
		near_port = (uint16_t)from;
		if (e->near_isn != seq)
			e->near_next = seq + 1;
		e->near_isn = seq;
	} else if (from != near_port) {
		return 0;
	}
	uint32_t most = virtio.gso_type ? virtio.gso_size : length ? length : 1, done = 0;
	do {
		uint32_t part = length - done < most ? length - done : most;
		int last = done + part == length;
		heard_segment(e, ip, seq + done, part, last ? flags : flags & ~(FIN | PSH));
		done += part;
	} while (done < length);
	return 0;
}

/* Takes all that has come; whether the answer to echo `number` was in it. */
static int hear(int number)
{
	static uint8_t frame[1 << 17];
	struct sockaddr_ll from;
	int found = 0;
	for (;;) {
		socklen_t length = sizeof from;
		ssize_t n = recvfrom(wire, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
		if (n < 0)
			return found;
		if (from.sll_pkttype == PACKET_HOST && heard_frame(frame, n) == number)
			found = 1;
	}
}

/* Waits for the wire, at most so long. */
static void wait_for_wire(int ms)
{
	struct pollfd p = {.fd = wire, .events = POLLIN};
	poll(&p, 1, ms);
}

/* Returns when near's kernel has been through with all frames that were sent: it answers an echo behind them. */
static void pass_wire(void)
{
	static int number;
	uint8_t echo[16] = {8};
	int64_t end = milliseconds() + PATIENCE;
	number = number % 0xffff + 1;
	put16(echo + 6, (uint32_t)number);
	put16(echo + 2, fold(sum_up(0, echo, sizeof echo)));
	ip_send(IPPROTO_ICMP, echo, sizeof echo, 0, 64);
	while (!hear(number)) {
		if (milliseconds() > end)
			errx(2, "near does not answer an echo");
		wait_for_wire(100);
	}
}

#endif
