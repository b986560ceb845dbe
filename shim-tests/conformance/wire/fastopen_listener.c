/* Fast open as a listener: what it answers to a SYN with data, with and without a
 * cookie, and what the child can do before the handshake is over.
 */
#include "lib/rawpeer.h"

#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { STATE = 0, OPTIONS = 5, FASTOPEN = 34 };
/* net.ipv4.tcp_fastopen: clients and listeners, and data without a cookie. */
enum { CLIENTS = 1, BOTH = 3, WITHOUT_COOKIE = 0x203 };

static uint8_t cookie[16];

static void offer(int length)
{
	extra_length = 0;
	if (length < 0)
		return;
	memset(extra_options, 1, sizeof extra_options);
	extra_options[0] = FASTOPEN;
	extra_options[1] = (uint8_t)(2 + length);
	memcpy(extra_options + 2, cookie, (size_t)length);
	extra_length = (2 + length + 3) / 4 * 4;
}

/* Sends a SYN of `length` bytes from a peer of its own. A negative cookie: no option. */
static struct peer syn(const struct peer *listener, uint32_t address, int cookie_length, uint32_t length)
{
	struct peer p = peer_of_listener(listener);
	if (address)
		p.address = address;
	offer(cookie_length);
	syn_send(&p, PLAIN, length);
	extra_length = 0;
	return p;
}

static void reset(struct peer *p)
{
	segment_at(p, RST | ACK, p->seq, p->ack, 0);
	swallow(p, 1);
}

/* The SYN-ACK has come. */
static void answered(struct peer *p)
{
	struct segment s;
	if (!next(p, &s, ANSWER))
		errx(2, "no SYN-ACK");
	swallow(p, 1);
}

/* Cookies by the namespace's keys: a function of key and addresses. */
static void keyed(const char *keys)
{
	char setting[64];
	struct segment s;
	snprintf(setting, sizeof setting, "ipv4/tcp_fastopen_key=%s", keys);
	near_anew_text(setting);
	struct peer listener = peer_listener(5), p = syn(&listener, 0, 0, 0);
	if (!next(&p, &s, ANSWER))
		errx(2, "no SYN-ACK");
	const uint8_t *o = option(&s, FASTOPEN);
	uint64_t value = 0;
	for (int i = 0; o && i < o[1] - 2; i++)
		value = value << 8 | o[2 + i];
	row("FO-51", "a cookie by the key %s: %016llx", keys, (unsigned long long)value);
	reset(&p);
	near(&listener, "close");
}

/* The listener is not allowed to, or was not told to. */
static void off(void)
{
	struct peer listener = peer_listener(5);
	struct peer p = syn(&listener, 0, 0, 100);
	show_answer(&p, "FO-46", "a cookie request and data, listeners not allowed");
	reset(&p);
	near(&listener, "close");
}

static void cookies(void)
{
	struct segment s;
	struct peer listener = peer_listener(0);
	struct peer p = syn(&listener, 0, 0, 100);
	show_answer(&p, "FO-44", "a cookie request, without TCP_FASTOPEN");
	reset(&p);
	near(&listener, "close");

	listener = peer_listener(5);
	p = syn(&listener, 0, 0, 100);
	if (!next(&p, &s, 5000))
		errx(2, "no SYN-ACK");
	char text[256] = "";
	put_segment(text, sizeof text, &s);
	row("FO-26", "a cookie request and data: %s", text);
	const uint8_t *granted = option(&s, FASTOPEN);
	if (!granted || granted[1] != 10)
		errx(2, "no cookie");
	memcpy(cookie, granted + 2, 8);
	uint32_t host = p.address;
	reset(&p);

	p = syn(&listener, host, 8, 100);
	show_answer(&p, "FO-27 FO-47", "the cookie and data");
	reset(&p);
	p = syn(&listener, host, 8, 0);
	show_answer(&p, "FO-47", "the cookie and no data");
	reset(&p);
	p = syn(&listener, host, -1, 100);
	show_answer(&p, "FO-47", "data without a cookie");
	reset(&p);
	p = syn(&listener, 0, 8, 100);
	show_answer(&p, "FO-47", "the cookie of another host");
	reset(&p);
	p = syn(&listener, host, 4, 100);
	show_answer(&p, "FO-47 FO-24", "half of the cookie");
	reset(&p);
	p = syn(&listener, host, 6, 100);
	show_answer(&p, "FO-47 FO-24", "three quarters of the cookie");
	reset(&p);
	p = syn(&listener, host, 16, 100);
	show_answer(&p, "FO-47 FO-24", "a cookie that is too long");
	reset(&p);
	near(&listener, "close");
}

/* What a child can do before the third segment. */
static void early(void)
{
	struct peer listener = peer_listener(5);
	struct peer p = syn(&listener, 0, -1, 100);
	show_answer(&p, "FO-47 FO-27", "data, cookies not required");
	row("FO-47", "accept: %ld", near(&p, "accept", LISTENER));
	row("FO-47", "its state %ld, options %#lx", near(&p, "info", STATE, 1), near(&p, "info", OPTIONS, 1));
	row("FO-47", "readable: %#lx", near(&p, "poll", POLLIN | POLLOUT | POLLRDHUP));
	row("FO-47", "recv: %ld", near(&p, "recv", 200, 0));
	row("FO-47", "then: %#lx", near(&p, "poll", POLLIN | POLLOUT | POLLRDHUP));
	row("FO-47 B8", "send: %ld", near(&p, "send", 300, 0));
	show_answer(&p, "FO-47 B8", "before the ACK");
	segment_send(&p, ACK | PSH, 50);
	show_answer(&p, "FO-47", "after the ACK with data");
	row("FO-47", "its state then: %ld, options %#lx", near(&p, "info", STATE, 1), near(&p, "info", OPTIONS, 1));
	row("FO-30 FO-47", "recv then: %ld", near(&p, "recv", 200, 0));
	peer_drop(&p);

	p = syn(&listener, 0, -1, 100);
	answered(&p);
	near(&p, "accept", LISTENER);
	row("FO-47", "shutdown before the ACK: %ld", near(&p, "shutdown", SHUT_WR));
	show(&p, QUIET, "FO-47", "the end before the ACK");
	peer_drop(&p);

	p = syn(&listener, 0, -1, 100);
	answered(&p);
	near(&p, "accept", LISTENER);
	reset(&p);
	near(&p, "poll", POLLHUP);
	row("FO-47", "reset before the ACK, recv: %ld", near(&p, "recv", 200, 0));
	row("FO-47", "and again: %ld", near(&p, "recv", 200, 0));
	near(&p, "close");
	near(&listener, "close");
}

static void too_many(void)
{
	struct peer listener = peer_listener(2), p[3];
	for (int i = 0; i < 3; i++) {
		p[i] = syn(&listener, 0, -1, 100);
		show_answer(&p[i], "FO-48", "pending fast open %d of 2", i + 1);
	}
	ack_all(&p[0]);
	swallow(&p[0], QUIET);
	struct peer more = syn(&listener, 0, -1, 100);
	show_answer(&more, "FO-48", "after one of them is over");
	reset(&p[1]);
	struct peer after = syn(&listener, 0, -1, 100);
	show_answer(&after, "FO-48", "after another was reset");
	near(&listener, "close");
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	near_anew("ipv4/tcp_fastopen", CLIENTS);
	off();
	near_anew("ipv4/tcp_fastopen", BOTH);
	cookies();
	keyed("01234567-89abcdef-00000001-fedcba98");
	keyed("00000001-00000002-00000003-00000004");
	near_anew("ipv4/tcp_fastopen", WITHOUT_COOKIE);
	early();
	too_many();
	puts("done");
	return 0;
}
