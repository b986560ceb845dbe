/* Segments that are signed, though the socket has no keys, and segments whose options are broken. */
#include "lib/rawpeer.h"

#include <linux/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { NOP = 1, MD5 = 19, UNKNOWN = 200 };

/* What is put on a segment. */
struct options {
	const char *name;
	int length;		/* with the NOPs at the end */
	uint8_t bytes[40];
};

static const struct options cases[] = {
	{"an MD5 option", 20, {MD5, 18, [18] = NOP, NOP}},
	{"an MD5 option that is a byte short", 20, {MD5, 17, [17] = NOP, NOP, NOP}},
	{"two MD5 options", 36, {MD5, 18, [18] = MD5, 18}},
	{"an option of length 0", 20, {UNKNOWN, 0}},
	{"an option of length 0 behind the first 4 bytes", 20, {NOP, NOP, NOP, NOP, UNKNOWN, 0}},
	{"an option beyond the end", 40, {UNKNOWN, 41}},
	{"an option beyond the end, 16 bytes of options", 16, {UNKNOWN, 17}},
	{"an unknown option", 20, {UNKNOWN, 18, [18] = NOP, NOP}},
};

static void put(const struct options *o)
{
	memcpy(extra_options, o->bytes, (size_t)o->length);
	extra_length = o->length;
}

static void connected(const struct options *o)
{
	struct peer p = peer_connected(PLAIN);
	put(o);
	segment_at(&p, ACK | PSH, 1, 1, 10);
	show(&p, DELACK, "AU-1", "data with %s", o->name);
	segment_at(&p, ACK, 1, 1 + 200000, 0);
	show(&p, QUIET, "AU-1", "an ack of what was never sent with it");
	segment_at(&p, RST | ACK, 11, 1, 0);
	show(&p, QUIET, "AU-1", "a RST with it");
	row("AU-1", "the mask then: %#lx", near(&p, "poll", POLLIN | POLLOUT));
	extra_length = 0;
	peer_drop(&p);
}

static void listening(const struct options *o)
{
	struct peer listener = peer_listener(0), p = peer_of_listener(&listener);
	p.window = 65535;
	put(o);
	segment_at(&p, SYN, 0, 0, 0);
	show(&p, QUIET, "AU-2", "a SYN with %s", o->name);
	extra_length = 0;
	syn_send(&p, PLAIN, 0);
	swallow(&p, QUIET);
	put(o);
	segment_at(&p, RST, 1, 0, 0);
	segment_at(&p, ACK, 1, 1 + 200000, 0);
	show(&p, QUIET, "AU-2", "an ack of nothing in the handshake with it");
	segment_send(&p, ACK, 0);
	swallow(&p, QUIET);
	row("AU-2", "waiting to be accepted: %ld", near(&listener, "info", (int)offsetof(struct tcp_info, tcpi_unacked), 4));
	near(&listener, "close");
	swallow(&p, QUIET);
	p.near_isn = 0;
	segment_at(&p, SYN, 0, 0, 0);
	show(&p, QUIET, "AU-3", "a SYN with it for nobody");
	extra_length = 0;
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		connected(cases + i);
		listening(cases + i);
	}
	puts("done");
	return 0;
}
