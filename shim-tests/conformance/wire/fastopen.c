/* Fast open as a client: what its SYNs carry, and what follows each answer. */
#include "lib/rawpeer.h"

#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Places in tcp_info: tcpi_options, and the byte with the two bits of tcpi_fastopen_client_fail. */
enum { OPTIONS = 5, FAIL = 7 };
enum { FASTOPEN = 34, EXPERIMENTAL = 254 };

/* The answer to a SYN carries a cookie of `length` bytes; none when it is negative. */
static void give_cookie(int kind, int length)
{
	static const uint8_t magic[2] = {0xf9, 0x89};
	int head = kind == EXPERIMENTAL ? 4 : 2;
	extra_length = 0;
	if (length < 0)
		return;
	memset(extra_options, 1, sizeof extra_options);
	extra_options[0] = (uint8_t)kind;
	extra_options[1] = (uint8_t)(head + length);
	memcpy(extra_options + 2, magic, sizeof magic);
	memset(extra_options + head, 0xc0, (size_t)length);
	extra_length = (head + length + 3) / 4 * 4;
}

static void answer_syn(struct peer *p, int kind, int length, uint32_t ack)
{
	give_cookie(kind, length);
	if (ack)
		p->ack = ack;
	peer_syn_ack(p, PLAIN);
	extra_length = 0;
}

/* A peer at the address of another, where near has a socket. */
static struct peer same_host(const struct peer *other)
{
	struct peer p = peer_new();
	p.address = other->address;
	return p;
}

static long fast_open(struct peer *p, int length) { return near(p, "fastopen", p->port, length, 0); }

static void tell_info(struct peer *p, const char *rows, const char *text)
{
	row(rows, "%s: options %#lx client_fail %ld", text, near(p, "info", OPTIONS, 1),
	    near(p, "info", FAIL, 1) >> 1 & 3);
}

/* A first connection, answered with a cookie of that length: the next one has it. */
static struct peer host_with_cookie(int kind, int length)
{
	struct peer p = peer_new();
	struct segment s;
	if (fast_open(&p, 100) != -EINPROGRESS || !next(&p, &s, 5000))
		errx(2, "no SYN came");
	answer_syn(&p, kind, length, 0);
	near(&p, "poll", POLLOUT);
	peer_drop(&p);
	return p;
}

static void request(void)
{
	struct peer p = peer_new();
	row("FO-13", "no cookie: %ld", fast_open(&p, 100));
	show_answer(&p, "FO-23 FO-25 FO-13", "its SYN");
	answer_syn(&p, FASTOPEN, 8, 0);
	show_answer(&p, "FO-13", "the SYN-ACK with a cookie");
	tell_info(&p, "FO-31", "no cookie");
	near(&p, "send", 100, 0);
	show_answer(&p, "FO-13", "the data, sent again");
	peer_drop(&p);

	p = same_host(&p);
	row("FO-14", "a cookie, another port: %ld", fast_open(&p, 100));
	show_answer(&p, "FO-24 FO-25", "its SYN, to another port");
	answer_syn(&p, FASTOPEN, -1, 0);
	show_answer(&p, "FO-27", "a SYN-ACK of all");
	tell_info(&p, "FO-30 FO-31 FO-27", "all acknowledged");
	near(&p, "send", 50, 0);
	show_answer(&p, "FO-27", "more data");
	peer_drop(&p);

	p = same_host(&p);
	row("FO-15 FO-21", "5000 bytes: %ld", fast_open(&p, 5000));
	show_answer(&p, "FO-15 FO-21", "the SYN of 5000 bytes");
	peer_syn_ack(&p, PLAIN);
	near(&p, "poll", POLLOUT);
	peer_drop(&p);
}

/* The peer takes none of the data, or some of it. */
static void not_taken(void)
{
	struct peer host = host_with_cookie(FASTOPEN, 8);
	static const struct { uint32_t ack; const char *what; } answers[] = {
		{1, "the SYN alone"}, {51, "half of the data"},
	};
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		char text[64];
		struct peer p = same_host(&host);
		row("FO-17", "100 bytes, of which the peer takes %s: %ld", answers[i].what, fast_open(&p, 100));
		swallow(&p, QUIET);
		answer_syn(&p, FASTOPEN, -1, answers[i].ack);
		show_answer(&p, "FO-17", "a SYN-ACK of %s", answers[i].what);
		snprintf(text, sizeof text, "after a SYN-ACK of %s", answers[i].what);
		tell_info(&p, "FO-17 FO-30 FO-31", text);
		ack_all(&p);
		near(&p, "send", 10, 0);
		show_answer(&p, "FO-17", "more data, after a SYN-ACK of %s", answers[i].what);
		peer_drop(&p);
	}
}

/* The SYN with data is lost: the next one has neither data nor cookie. */
static void lost(void)
{
	struct peer host = host_with_cookie(FASTOPEN, 8), p = same_host(&host);
	struct segment s;
	char text[256] = "";
	row("FO-22", "100 bytes, the SYN lost: %ld", fast_open(&p, 100));
	swallow(&p, QUIET);
	if (!next(&p, &s, 3000))
		errx(2, "no second SYN");
	put_segment(text, sizeof text, &s);
	row("FO-22", "the second SYN: %s", text);
	answer_syn(&p, FASTOPEN, -1, 1);
	show_answer(&p, "FO-22", "its SYN-ACK");
	tell_info(&p, "FO-22 FO-31", "after the second SYN");
	ack_all(&p);
	row("FO-22", "unacknowledged then: %ld", near(&p, "ioctl", 0x5411));
	peer_drop(&p);
	p = same_host(&host);
	fast_open(&p, 100);
	show_answer(&p, "FO-22", "the next fast open to that host");
	peer_drop(&p);
}

/* Cookies of every length, and the option's other form. */
static void cookies(void)
{
	static const int lengths[] = {0, 2, 3, 4, 5, 6, 15, 16};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		struct peer host = host_with_cookie(FASTOPEN, lengths[i]), p = same_host(&host);
		fast_open(&p, 100);
		show_answer(&p, "FO-24", "after a cookie of %d bytes", lengths[i]);
		peer_drop(&p);
	}
	struct peer host = host_with_cookie(FASTOPEN, -1);
	for (int i = 0; i < 3; i++) {
		struct peer p = same_host(&host);
		fast_open(&p, 100);
		show_answer(&p, "FO-29", "request %d of a host that gives no cookie", i + 2);
		answer_syn(&p, FASTOPEN, -1, 0);
		near(&p, "poll", POLLOUT);
		peer_drop(&p);
	}
	host = host_with_cookie(EXPERIMENTAL, 8);
	for (int i = 0; i < 2; i++) {
		struct peer p = same_host(&host);
		fast_open(&p, 100);
		show_answer(&p, "FO-29", "after an experimental cookie, SYN %d", i + 1);
		answer_syn(&p, EXPERIMENTAL, 8, 0);
		near(&p, "poll", POLLOUT);
		peer_drop(&p);
	}
}

static void deferred(void)
{
	struct peer p = peer_new();
	near(&p, "set", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
	row("FO-36", "TCP_FASTOPEN_CONNECT without a cookie: %ld", near(&p, "connect", p.port));
	show_answer(&p, "FO-36", "its SYN");
	answer_syn(&p, FASTOPEN, 8, 0);
	show_answer(&p, "FO-36", "its SYN-ACK with a cookie");
	row("FO-36", "a send then: %ld", near(&p, "send", 10, 0));
	row("FO-4", "a send with MSG_FASTOPEN then: %ld", fast_open(&p, 10));
	peer_drop(&p);

	p = same_host(&p);
	near(&p, "set", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
	row("FO-35", "TCP_FASTOPEN_CONNECT with a cookie: %ld", near(&p, "connect", p.port));
	show(&p, QUIET, "FO-35", "its packets");
	near(&p, "send", 10, 0);
	show_answer(&p, "FO-39", "the first send");
	answer_syn(&p, FASTOPEN, -1, 0);
	peer_drop(&p);
}

/* After what hints at a middlebox that swallows it, fast open is off for a while. */
static void blackhole(void)
{
	enum { HOUR = 3600 };
	struct segment s;
	near_anew("ipv4/tcp_fastopen_blackhole_timeout_sec", HOUR);
	struct peer host = host_with_cookie(FASTOPEN, 8), p = same_host(&host);
	fast_open(&p, 100);
	for (int syns = 0; syns < 4; syns += !!(s.flags & SYN))
		if (!next(&p, &s, 5000))
			errx(2, "no further SYN");
	peer_drop(&p);
	p = same_host(&host);
	row("FO-22", "a fast open after three timeouts of another: %ld", fast_open(&p, 100));
	show_answer(&p, "FO-22", "its SYN");
	peer_drop(&p);

	/* An end that comes out of order, and nothing else. */
	near_anew("ipv4/tcp_fastopen_blackhole_timeout_sec", HOUR);
	host = host_with_cookie(FASTOPEN, 8);
	p = same_host(&host);
	fast_open(&p, 100);
	swallow(&p, QUIET);
	answer_syn(&p, FASTOPEN, -1, 0);
	segment_at(&p, ACK | FIN, p.seq + 100, p.ack, 0);
	swallow(&p, QUIET);
	peer_drop(&p);
	p = same_host(&host);
	fast_open(&p, 100);
	show_answer(&p, "FO-14", "a fast open after one that saw only an end out of order");
	peer_drop(&p);
	near_anew("ipv4/tcp_fastopen_blackhole_timeout_sec", 0);
}

/* Another process of the host. */
static void another_process(void)
{
	struct peer host = host_with_cookie(FASTOPEN, 8), p;
	near_anew("ipv4/tcp_fastopen", 1);
	p = same_host(&host);
	fast_open(&p, 100);
	show_answer(&p, "FO-28", "another process");
	peer_drop(&p);
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	request();
	not_taken();
	cookies();
	deferred();
	lost();
	blackhole();
	another_process();
	puts("done");
	return 0;
}
