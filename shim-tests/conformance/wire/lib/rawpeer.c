#include "rawpeer.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MSS_OF_SYN = 1460, FRAME = 1 << 17, TEXT = 4096 };
enum { EOL = 0, NOP = 1, MSS = 2, SCALE = 3, SACK_OK = 4, SACK = 5, STAMP = 8, COOKIE = 34 };

bool super;
bool no_push;
uint16_t urgent_pointer;
uint8_t extra_options[40];
int extra_length;

static int control, wire;
static uint8_t our_mac[6], near_mac[6];
static uint32_t near_address;
static const char *near_device;
static int64_t stimulus;
static int peers;

/* Segments of a frame that were not asked for yet. */
static struct segment waiting[64];
static int waiting_first, waiting_count;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v & 0xffff); }


static void frame_send(const uint8_t *to, int type, const uint8_t *packet, size_t size)
{
	static uint8_t frame[2048];
	struct virtio_net_hdr none = {0};
	size_t head = sizeof none;
	memcpy(frame, &none, head);
	memcpy(frame + head, to, 6);
	memcpy(frame + head + 6, our_mac, 6);
	put16(frame + head + 12, (uint32_t)type);
	memcpy(frame + head + 14, packet, size);
	if (send(wire, frame, head + 14 + size, 0) < 0)
		err(2, "send a frame");
}

static void arp_send(int operation, const uint8_t *mac, uint32_t from, uint32_t to)
{
	uint8_t arp[28] = {0, 1, 8, 0, 6, 4, 0, (uint8_t)operation};
	static const uint8_t everyone[6] = {255, 255, 255, 255, 255, 255};
	memcpy(arp + 8, our_mac, 6);
	memcpy(arp + 14, &from, 4);
	if (mac)
		memcpy(arp + 18, mac, 6);
	memcpy(arp + 24, &to, 4);
	frame_send(mac ? mac : everyone, ETH_P_ARP, arp, sizeof arp);
}

/* Ours are 192.0.2.100 to .254, say: those that the far kernel does not have. */
static bool is_ours(uint32_t address)
{
	return (address & htonl(0xffffff00)) == (near_address & htonl(0xffffff00)) &&
	       (ntohl(address) & 0xff) >= 100;
}

static void arp_received(const uint8_t *p, ssize_t size)
{
	uint32_t from, to;
	if (size < 28)
		return;
	memcpy(&from, p + 14, 4);
	memcpy(&to, p + 24, 4);
	if (from == near_address)
		memcpy(near_mac, p + 8, 6);
	if (p[7] == 1 && is_ours(to))
		arp_send(2, p + 8, to, from);
}

static uint32_t sum_up(uint32_t sum, const uint8_t *p, size_t size)
{
	for (; size > 1; p += 2, size -= 2)
		sum += get16(p);
	return size ? sum + ((uint32_t)*p << 8) : sum;
}

uint8_t tos_sent;

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void ip_send(uint32_t from, int protocol, const uint8_t *body, size_t size)
{
	static uint8_t packet[2000];
	static uint16_t id;
	memset(packet, 0, 20);
	packet[0] = 0x45;
	packet[1] = tos_sent;
	put16(packet + 2, (uint32_t)(20 + size));
	put16(packet + 4, ++id);
	put16(packet + 6, 0x4000);
	packet[8] = 64;
	packet[9] = (uint8_t)protocol;
	memcpy(packet + 12, &from, 4);
	memcpy(packet + 16, &near_address, 4);
	put16(packet + 10, fold(sum_up(0, packet, 20)));
	memcpy(packet + 20, body, size);
	if (protocol == IPPROTO_TCP) {
		uint32_t sum = sum_up(0, packet + 12, 8) + IPPROTO_TCP + (uint32_t)size;
		put16(packet + 36, fold(sum_up(sum, packet + 20, size)));
	}
	frame_send(near_mac, ETH_P_IP, packet, 20 + size);
}

static void tcp_send(struct peer *p, int flags, uint32_t seq, uint32_t ack, const uint8_t *options,
		     int options_length, uint32_t length)
{
	static uint8_t tcp[1600];
	int head = 20 + (options_length + 3) / 4 * 4;
	memset(tcp, 0, (size_t)head);
	put16(tcp, p->port);
	put16(tcp + 2, p->near_port);
	put32(tcp + 4, p->isn + seq);
	put32(tcp + 8, flags & ACK ? p->near_isn + ack : 0);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = (uint8_t)flags;
	put16(tcp + 14, p->window);
	if (flags & URG)
		put16(tcp + 18, urgent_pointer ? urgent_pointer : length);
	memcpy(tcp + 20, options, (size_t)options_length);
	memset(tcp + 20 + options_length, NOP, (size_t)(head - 20 - options_length));
	memset(tcp + head, 'd', length);
	stimulus = now();
	ip_send(p->address, IPPROTO_TCP, tcp, (size_t)head + length);
}

static int put_stamp(uint8_t *to, struct peer *p)
{
	to[0] = to[1] = NOP;
	to[2] = STAMP, to[3] = 10;
	put32(to + 4, (uint32_t)(now() / 1000000));
	put32(to + 8, p->near_tsval);
	return 12;
}

void segment_at(struct peer *p, int flags, uint32_t seq, uint32_t ack, uint32_t length)
{
	uint8_t options[40];
	int size = p->timestamps ? put_stamp(options, p) : 0;
	memcpy(options + size, extra_options, (size_t)extra_length);
	tcp_send(p, flags, seq, ack, options, size + extra_length, length);
}

void segment_send(struct peer *p, int flags, uint32_t length)
{
	segment_at(p, flags, p->seq, p->ack, length);
	p->seq += length + !!(flags & FIN) + !!(flags & SYN);
}

void ack_all(struct peer *p) { segment_send(p, ACK, 0); }

void icmp_send(struct peer *p, int type, int code, uint32_t seq, int mtu)
{
	uint8_t body[36] = {(uint8_t)type, (uint8_t)code};
	put16(body + 6, (uint32_t)mtu);
	uint8_t *quoted = body + 8;
	quoted[0] = 0x45;
	put16(quoted + 2, 1500);
	quoted[6] = 0x40;
	quoted[8] = 64;
	quoted[9] = IPPROTO_TCP;
	memcpy(quoted + 12, &near_address, 4);
	memcpy(quoted + 16, &p->address, 4);
	put16(body + 28, p->near_port);
	put16(body + 30, p->port);
	put32(body + 32, p->near_isn + seq);
	put16(body + 2, fold(sum_up(0, body, sizeof body)));
	stimulus = now();
	ip_send(p->address, IPPROTO_ICMP, body, sizeof body);
}


static struct segment *parse(const uint8_t *ip, ssize_t size, struct peer *p)
{
	static struct segment s;
	if (size < 40 || ip[9] != IPPROTO_TCP || memcmp(ip + 16, &p->address, 4))
		return NULL;
	const uint8_t *tcp = ip + (ip[0] & 15) * 4;
	int head = (tcp[12] >> 4) * 4;
	if (get16(tcp + 2) != p->port || (p->near_port && get16(tcp) != p->near_port))
		return NULL;
	memset(&s, 0, sizeof s);
	s.peer = p;
	s.flags = tcp[13];
	if (s.flags & SYN) {
		p->near_port = get16(tcp);
		p->near_isn = get32(tcp + 4);
	}
	s.seq = get32(tcp + 4) - p->near_isn;
	s.ack = s.flags & ACK ? get32(tcp + 8) - p->isn : 0;
	s.window = get16(tcp + 14);
	s.urgent = s.flags & URG ? get16(tcp + 18) : 0;
	s.length = (uint32_t)(get16(ip + 2) - (ip[0] & 15) * 4 - head);
	s.options_length = head - 20;
	memcpy(s.options, tcp + 20, (size_t)s.options_length);
	memcpy(s.payload, tcp + head, s.length < sizeof s.payload ? s.length : sizeof s.payload);
	s.ttl = ip[8];
	s.tos = ip[1];
	s.fragment = get16(ip + 6);
	return &s;
}

const uint8_t *option(const struct segment *s, int kind)
{
	for (int i = 0; i < s->options_length && s->options[i] != EOL;) {
		if (s->options[i] == kind)
			return s->options + i;
		i += s->options[i] == NOP ? 1 : s->options[i + 1] ? s->options[i + 1] : 40;
	}
	return NULL;
}

/* The segments that the device would make of a frame: what comes last goes last. */
static void split(const struct segment *s, uint32_t size)
{
	waiting_first = waiting_count = 0;
	for (uint32_t done = 0; done < s->length || !waiting_count;) {
		struct segment *part = &waiting[waiting_count];
		*part = *s;
		part->seq += done;
		part->length = s->length - done < size ? s->length - done : size;
		done += part->length;
		if (done < s->length)
			part->flags &= ~(PSH | FIN);
		if (++waiting_count == 64)
			return;
	}
}

static void note(struct peer *p, const struct segment *s)
{
	const uint8_t *stamp = option(s, STAMP), *scale = option(s, SCALE);
	if (stamp)
		p->near_tsval = get32(stamp + 2);
	if (s->flags & SYN)
		p->near_scale = scale ? scale[2] : -1;
	uint32_t end = s->seq + s->length + !!(s->flags & SYN) + !!(s->flags & FIN);
	if (!(s->flags & RST) && s->seq <= p->ack && end > p->ack)
		p->ack = end;
}

static int64_t kernel_time(struct msghdr *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	struct timespec t;
	if (!c || c->cmsg_type != SCM_TIMESTAMPNS)
		return now();
	memcpy(&t, CMSG_DATA(c), sizeof t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* One frame, if it is the peer's: its segments wait. */
static void frame_received(struct peer *p)
{
	static uint8_t frame[FRAME];
	char space[128];
	struct sockaddr_ll from;
	struct iovec v = {frame, sizeof frame};
	struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &v,
			   .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
	struct virtio_net_hdr virtio;
	ssize_t n = recvmsg(wire, &m, 0);
	if (n < 0)
		err(2, "receive a frame");
	if (from.sll_pkttype == PACKET_OUTGOING || n < (ssize_t)sizeof virtio + 34)
		return;
	memcpy(&virtio, frame, sizeof virtio);
	const uint8_t *ethernet = frame + sizeof virtio;
	n -= (ssize_t)sizeof virtio + 14;
	if (get16(ethernet + 12) == ETH_P_ARP) {
		arp_received(ethernet + 14, n);
		return;
	}
	struct segment *s = p ? parse(ethernet + 14, n, p) : NULL;
	if (!s)
		return;
	s->at = kernel_time(&m);
	uint32_t size = virtio.gso_type ? virtio.gso_size : s->length ? s->length : 1;
	s->gso_segments = s->length ? (s->length + size - 1) / size : 0;
	note(p, s);
	split(s, super ? FRAME : size);
}

bool next(struct peer *p, struct segment *s, int ms)
{
	int64_t end = now() + ms * 1000000LL;
	for (;;) {
		if (waiting_first < waiting_count) {
			*s = waiting[waiting_first++];
			return true;
		}
		int64_t left = (end - now()) / 1000000;
		struct pollfd readable = {.fd = wire, .events = POLLIN};
		if (poll(&readable, 1, left > 0 ? (int)left : 0) > 0)
			frame_received(p);
		else if (left <= 0)
			return false;
	}
}

int64_t since_stimulus(const struct segment *s) { return s->at - stimulus; }


void row(const char *rows, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("[%s] ", rows);
	vprintf(format, arguments);
	putchar('\n');
	fflush(stdout);
	va_end(arguments);
}

__attribute__((format(printf, 3, 4))) static void add(char *to, size_t size, const char *format, ...)
{
	size_t used = strlen(to);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(to + used, size - used, format, arguments);
	va_end(arguments);
}

static void put_option(char *to, size_t size, const struct segment *s, const uint8_t *o)
{
	switch (o[0]) {
	case MSS: add(to, size, " mss %d", get16(o + 2)); break;
	case SCALE: add(to, size, " wscale %d", o[2]); break;
	case SACK_OK: add(to, size, " sackOK"); break;
	case STAMP: add(to, size, " TS"); break;
	case COOKIE: add(to, size, " cookie of %d", o[1] - 2); break;
	case SACK:
		for (int i = 2; i < o[1]; i += 8)
			add(to, size, " sack %u:%u", get32(o + i) - s->peer->isn,
			    get32(o + i + 4) - s->peer->isn);
		break;
	default: add(to, size, " option %d of %d", o[0], o[1]);
	}
}

void put_options(char *to, size_t size, const struct segment *s)
{
	for (int i = 0; i < s->options_length;) {
		const uint8_t *o = s->options + i;
		if (*o == NOP || *o == EOL) {
			add(to, size, *o == NOP ? " nop" : " eol");
			i++;
			continue;
		}
		put_option(to, size, s, o);
		i += o[1] ? o[1] : 40;
	}
}

void put_segment(char *to, size_t size, const struct segment *s)
{
	static const char letters[] = "FSRPAU";
	for (int order[] = {2, 1, 0, 3, 4, 5}, i = 0; i < 6; i++)
		if (s->flags & 1 << order[i] && !(no_push && 1 << order[i] == PSH))
			add(to, size, "%c", letters[order[i]]);
	add(to, size, " %u", s->seq);
	if (s->length)
		add(to, size, ":%u", s->seq + s->length);
	else if (s->flags & ACK)
		add(to, size, " ack %u", s->ack);
	if (s->urgent)
		add(to, size, " urgent %u", s->urgent);
	if (super && s->gso_segments > 1)
		add(to, size, " of %u", s->gso_segments);
	if (option(s, SACK) || s->flags & SYN)
		put_options(to, size, s);
}

static void show_within(struct peer *p, int first, int ms, const char *rows, const char *what)
{
	char text[TEXT] = "";
	struct segment s;
	for (; next(p, &s, first); first = ms) {
		add(text, sizeof text, *text ? ", " : "");
		put_segment(text, sizeof text, &s);
	}
	row(rows, "%s: %s", what, *text ? text : "nothing");
}

void show(struct peer *p, int ms, const char *rows, const char *format, ...)
{
	char what[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(what, sizeof what, format, arguments);
	va_end(arguments);
	show_within(p, ms, ms, rows, what);
}

void show_answer(struct peer *p, const char *rows, const char *format, ...)
{
	char what[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(what, sizeof what, format, arguments);
	va_end(arguments);
	show_within(p, ANSWER, QUIET, rows, what);
}

/* Bounds far from what Linux does (at once; 40 ms; 200 ms and more): a host that is
 * busy does not get from one class to the next. */
static const char *class_of(int64_t ns)
{
	if (ns < 30 * 1000000LL)
		return "at once";
	return ns < 150 * 1000000LL ? "after the delayed-ack time" : "after a timeout";
}

void show_when(struct peer *p, int ms, const char *rows, const char *text)
{
	char line[TEXT] = "";
	struct segment s;
	if (!next(p, &s, ms)) {
		row(rows, "%s: nothing", text);
		return;
	}
	put_segment(line, sizeof line, &s);
	row(rows, "%s: %s %s", text, line, class_of(since_stimulus(&s)));
}

void swallow(struct peer *p, int ms)
{
	struct segment s;
	while (next(p, &s, ms))
		;
}

void swallow_answer(struct peer *p)
{
	struct segment s;
	if (!next(p, &s, ANSWER))
		errx(2, "nothing came");
	swallow(p, QUIET);
}


static void call(struct peer *p, const char *name, const char *host, long a, long b, long c)
{
	char line[256];
	int n = snprintf(line, sizeof line, "%s %d %s %ld %ld %ld", name, p->fd, host, a, b, c);
	stimulus = now();
	if (send(control, line, (size_t)n, MSG_NOSIGNAL) != n)
		err(2, "near");
}

long near_end(void)
{
	char line[64];
	long value;
	int error;
	ssize_t n = recv(control, line, sizeof line - 1, 0);
	line[n > 0 ? n : 0] = 0;
	if (sscanf(line, "%ld %d", &value, &error) != 2)
		errx(2, "near is gone");
	return value < 0 ? -error : value;
}

void near_begin(struct peer *p, const char *name, long a, long b, long c)
{
	char host[INET_ADDRSTRLEN];
	inet_ntop(AF_INET, &p->address, host, sizeof host);
	call(p, name, host, a, b, c);
}

/* How many numbers a call takes. */
static int arguments_of(const char *name)
{
	static const struct { const char *name; int count; } calls[] = {
		{"set", 3}, {"send", 2}, {"recv", 2}, {"fastopen", 3}, {"bind", 1}, {"listen", 0},
		{"accept", 1}, {"connect", 1}, {"sendfile", 1}, {"poll", 1}, {"linger", 1},
		{"shutdown", 1}, {"socket", 0}, {"close", 0}, {"mss", 0}, {"error", 0},
		{"stamp", 0},
		{"info", 2}, {"ioctl", 1}, {"blocking", 1}, {"disconnect", 0},
		{"charged", 0}, {"goal", 1}, {"pages", 2}, {"pieces", 2}, {"faulty", 1}, {"cong", 0}, {"choose", 1},
	};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name))
			return calls[i].count;
	errx(2, "unknown call %s", name);
}

/* The answer to a call, with an eye on the wire. */
static long near_answer(struct peer *p)
{
	/* Near's kernel may ask who has our address before it can answer. */
	struct pollfd either[2] = {{.fd = control, .events = POLLIN}};
	while (poll(either, 1, 2) == 0) {
		struct pollfd readable = {.fd = wire, .events = POLLIN};
		if (waiting_first == waiting_count && poll(&readable, 1, 0) > 0)
			frame_received(p);
	}
	return near_end();
}

long near(struct peer *p, const char *name, ...)
{
	long a[3] = {0};
	va_list arguments;
	va_start(arguments, name);
	for (int i = 0; i < arguments_of(name); i++)
		a[i] = va_arg(arguments, int);
	va_end(arguments);
	near_begin(p, name, a[0], a[1], a[2]);
	return near_answer(p);
}

void ack_all_heard(struct peer *p)
{
	int64_t end = now() + ANSWER * 1000000LL;
	ack_all(p);
	while (near(p, "ioctl", SIOCOUTQ) > 0)
		if (now() > end)
			errx(2, "near does not hear an ack");
}

static void set_and_start_anew(const char *how, const char *setting, int value)
{
	struct peer none = {0};
	call(&none, how, setting, value, 0, 0);
	if (near_answer(NULL))
		errx(2, "%s", setting);
	call(&none, "anew", "-", 0, 0, 0);
	if (near_answer(NULL))
		errx(2, "near does not start anew");
}

void near_anew(const char *setting, int value)
{
	set_and_start_anew("sysctl", setting, value);
}

void near_anew_text(const char *setting)
{
	set_and_start_anew("text", setting, 0);
}


struct peer peer_new(void)
{
	struct peer p = {.fd = peers % 15, .port = (uint16_t)(7000 + peers), .isn = 1000,
			 .window = 65535, .near_scale = -1};
	p.address = htonl((ntohl(near_address) & 0xffffff00) + 100 + (uint32_t)peers++ % 150);
	if (near(&p, "socket"))
		errx(2, "near's socket");
	return p;
}

struct peer peer_beside(const struct peer *other)
{
	struct peer p = peer_new();
	p.address = other->address;
	return p;
}

struct segment peer_syn(struct peer *p)
{
	struct segment s;
	long value = near(p, "connect", p->port);
	if (value != -EINPROGRESS)
		errx(2, "connect: %ld", value);
	if (!next(p, &s, 5000) || !(s.flags & SYN))
		errx(2, "no SYN came");
	return s;
}

void near_slow(int rate)
{
	struct peer none = {0};
	call(&none, "slow", near_device, rate, 0, 0);
	if (near_answer(NULL))
		errx(2, "near's device is not slowed down");
}

void near_route(const char *metrics)
{
	char what[64];
	struct peer none = {0};
	snprintf(what, sizeof what, "%s,%s", near_device, metrics);
	call(&none, "route", what, 0, 0, 0);
	if (near_answer(NULL))
		errx(2, "near's route does not get %s", metrics);
}

static int syn_options(uint8_t *o, struct peer *p, struct shape how)
{
	int n = 0;
	if (how.mss)
		o[n] = MSS, o[n + 1] = 4, put16(o + n + 2, (uint32_t)how.mss), n += 4;
	if (how.sack)
		o[n++] = NOP, o[n++] = NOP, o[n++] = SACK_OK, o[n++] = 2;
	if (how.timestamps)
		n += put_stamp(o + n, p);
	if (how.scale >= 0)
		o[n++] = NOP, o[n++] = SCALE, o[n++] = 3, o[n++] = (uint8_t)how.scale;
	memcpy(o + n, extra_options, (size_t)extra_length);
	return n + extra_length;
}

void peer_syn_ack(struct peer *p, struct shape how)
{
	uint8_t o[80];
	int n = syn_options(o, p, how);
	p->window = (uint32_t)how.window;
	p->timestamps = how.timestamps;
	tcp_send(p, SYN | ACK | how.ecn, 0, p->ack, o, n, 0);
	p->seq = 1;
}

struct peer peer_connected(struct shape how)
{
	struct peer p = peer_new();
	struct segment s;
	peer_syn(&p);
	peer_syn_ack(&p, how);
	if (!next(&p, &s, 5000) || s.flags != ACK)
		errx(2, "no ACK of the SYN-ACK");
	return p;
}

struct peer peer_listener(int fastopen)
{
	struct peer p = peer_new();
	p.fd = LISTENER;
	p.near_port = (uint16_t)(9000 + peers);
	near(&p, "socket");
	near(&p, "bind", p.near_port);
	if (fastopen)
		near(&p, "set", IPPROTO_TCP, TCP_FASTOPEN, fastopen);
	near(&p, "listen");
	return p;
}

struct peer peer_of_listener(const struct peer *listener)
{
	struct peer p = peer_new();
	near(&p, "close");
	p.near_port = listener->near_port;
	return p;
}

void syn_send(struct peer *p, struct shape how, uint32_t length)
{
	uint8_t o[80];
	p->window = (uint32_t)how.window;
	p->timestamps = how.timestamps;
	tcp_send(p, SYN | how.ecn, 0, 0, o, syn_options(o, p, how), length);
	p->seq = 1 + length;
}

struct peer peer_accepted(struct shape how)
{
	struct peer listener = peer_listener(0), p = peer_of_listener(&listener);
	struct segment s;
	syn_send(&p, how, 0);
	if (!next(&p, &s, 5000) || s.flags != (SYN | ACK))
		errx(2, "no SYN-ACK came");
	ack_all(&p);
	if (near(&p, "accept", LISTENER))
		errx(2, "accept");
	near(&listener, "close");
	return p;
}

void peer_drop(struct peer *p)
{
	segment_at(p, RST | ACK, p->seq, p->ack, 0);
	near(p, "poll", POLLHUP);
	near(p, "close");
	swallow(p, 1);
}


static void open_wire(const char *device)
{
	int one = 1, big = 1 << 24;
	struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
				    .sll_ifindex = (int)if_nametoindex(device)};
	wire = socket(AF_PACKET, SOCK_RAW, 0);
	if (wire < 0 || setsockopt(wire, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) ||
	    setsockopt(wire, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) ||
	    bind(wire, (struct sockaddr *)&where, sizeof where))
		err(2, "%s", device);
	if (setsockopt(wire, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big))
		setsockopt(wire, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
	/* Frames are seen as they left: nothing is joined on arrival. */
	struct ethtool_value off = {.cmd = ETHTOOL_SGRO};
	struct ifreq request = {.ifr_data = (void *)&off};
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
	if (ioctl(wire, SIOCETHTOOL, &request))
		err(2, "GRO of %s", device);
	if (ioctl(wire, SIOCGIFHWADDR, &request))
		err(2, "%s", device);
	memcpy(our_mac, request.ifr_hwaddr.sa_data, 6);
}

static void find_near(void)
{
	static const uint8_t none[6];
	uint32_t ours = htonl((ntohl(near_address) & 0xffffff00) + 254);
	struct pollfd readable = {.fd = wire, .events = POLLIN};
	for (int tries = 0; !memcmp(near_mac, none, 6); tries++) {
		if (tries == 100)
			errx(2, "near does not answer ARP");
		arp_send(1, NULL, ours, near_address);
		while (poll(&readable, 1, 20) > 0)
			frame_received(NULL);
	}
}

void rawpeer_start(int argc, char **argv)
{
	struct sockaddr_un where = {.sun_family = AF_UNIX};
	char *path = where.sun_path;
	if (argc != 4 || inet_pton(AF_INET, argv[3], &near_address) != 1 ||
	    snprintf(path, sizeof where.sun_path, "%s.new", argv[1]) >= (int)sizeof where.sun_path)
		errx(2, "usage: %s CONTROL DEVICE NEAR", argv[0]);
	int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&where, sizeof where) ||
	    listen(listener, 1))
		err(2, "%s", argv[1]);
	/* Under its name it is found by near, which is refused by a socket that does not listen yet. */
	if (rename(path, argv[1]))
		err(2, "%s", argv[1]);
	fflush(stdout);
	if ((control = accept(listener, NULL, NULL)) < 0)
		err(2, "accept");
	close(listener);
	near_device = argv[2];
	open_wire(argv[2]);
	find_near();
}
