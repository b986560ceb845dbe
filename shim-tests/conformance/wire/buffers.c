/* The buffers of the send queue: how large they grow, when a full one leaves, and what a
 * send without room does.
 */
#include "lib/rawpeer.h"

#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

enum { OUTQ = 0x5411, UNSENT = 0x894b };

/* A connection whose near end waits in connect() itself: its round-trip time, by which the
 * bursts go, holds nothing else. */
static struct peer peer_at_distance(struct shape how, int ms)
{
	struct peer p = peer_new();
	struct segment s;
	near(&p, "blocking", 1);
	near_begin(&p, "connect", p.port, 0, 0);
	if (!next(&p, &s, ANSWER) || !(s.flags & SYN))
		errx(2, "no SYN came");
	poll(NULL, 0, ms);
	peer_syn_ack(&p, how);
	if (!next(&p, &s, ANSWER) || s.flags != ACK || near_end())
		errx(2, "connect");
	near(&p, "blocking", 0);
	return p;
}

static struct peer peer_waited_for(struct shape how)
{
	return peer_at_distance(how, 0);
}

static void shut_window(struct peer *p)
{
	p->window = 0;
	ack_all(p);
	near(p, "send", 1, 0);
	swallow(p, 1);
}

/* A window that was open once, and is shut now: what is sent stays in the queue. */
static void goals(void)
{
	static const struct { int mss, window, scale; } peers[] = {
		{1460, 20000, -1}, {536, 65535, -1}, {1460, 65535, -1}, {1460, 60000, 7},
	};
	for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
		struct shape how = PLAIN;
		how.mss = peers[i].mss, how.window = peers[i].window, how.scale = peers[i].scale;
		struct peer p = peer_connected(how);
		near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
		if (how.scale >= 0) {
			p.window = (uint32_t)how.window;
			ack_all(&p);
		}
		shut_window(&p);
		char text[128];
		snprintf(text, sizeof text, "mss %d, window %d, scale %d", how.mss, how.window, how.scale);
		row("D4 D5 F1", "a buffer takes, %s: %ld", text, near(&p, "goal", 0));
		row("D4 D5 F1", "the next takes, %s: %ld", text, near(&p, "goal", 0));
		row("D4", "with MSG_OOB, %s: %ld", text, near(&p, "goal", MSG_OOB));
		long before = near(&p, "charged"), unsent = near(&p, "ioctl", UNSENT);
		row("F7 F13 D4", "30000 bytes at once, %s: %ld", text, near(&p, "send", 30000, 0));
		row("F7 F13 D4", "charged for more than their bytes, %s: %ld", text,
		    near(&p, "charged") - before - (near(&p, "ioctl", UNSENT) - unsent));
		peer_drop(&p);
	}
}

/* With timestamps: twelve bytes less. */
static void stamped(void)
{
	struct shape how = PLAIN;
	struct segment s;
	char text[128] = "";
	how.timestamps = true;
	struct peer p = peer_connected(how);
	near(&p, "send", 10, 0);
	if (next(&p, &s, 1000))
		put_options(text, sizeof text, &s);
	row("TM-34", "the options of a data segment:%s", text);
	ack_all(&p);
	near(&p, "send", 1500, 0);
	show_answer(&p, "TM-34 B11", "1500 bytes with timestamps");
	ack_all(&p);
	shut_window(&p);
	row("D4 B11", "a buffer takes, with timestamps: %ld", near(&p, "goal", 0));
	peer_drop(&p);
}

/* A small limit is passed by as much as the last buffer takes. */
static void small_limit(void)
{
	struct peer p = peer_waited_for(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 4608);
	row("F4 F14", "100000 bytes, SO_SNDBUF 4608: %ld", near(&p, "send", 100000, 0));
	row("F4", "queued %ld, of these unsent %ld, charged %ld", near(&p, "ioctl", OUTQ),
	    near(&p, "ioctl", UNSENT), near(&p, "charged"));
	row("F3 H2", "one byte more: %ld", near(&p, "send", 1, 0));
	show_answer(&p, "F4 F14", "what left");
	peer_drop(&p);
}

/* Frames as they leave. */
static void bursts(void)
{
	super = true;
	struct peer p = peer_waited_for(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	near(&p, "send", 60000, 0);
	show_answer(&p, "F14 G6 G7 SO-108", "60000 bytes, the first window");
	ack_all(&p);
	show_answer(&p, "G6 G7", "acknowledged");
	ack_all(&p);
	show_answer(&p, "G6 G7", "acknowledged again");
	peer_drop(&p);
	/* A millisecond's worth is less than the two segments that make a frame at least. */
	p = peer_at_distance(PLAIN, 100);
	near(&p, "send", 14600, 0);
	show_answer(&p, "SO-108", "14600 bytes, the first window, to a peer 100 ms away");
	peer_drop(&p);
	p = peer_waited_for(PLAIN);
	near(&p, "send", 5840, MSG_MORE);
	show_answer(&p, "G6 G7", "four segments with MSG_MORE");
	ack_all(&p);
	near(&p, "pieces", 100, 0);
	show_answer(&p, "F13 B13", "two pieces of 100 bytes");
	ack_all(&p);
	near(&p, "send", 0, 0);
	show(&p, QUIET, "G1 SP-23", "no bytes, nothing unsent");
	near(&p, "set", IPPROTO_TCP, TCP_CORK, 0);
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	show(&p, QUIET, "G1", "pushed by options, nothing unsent");
	peer_drop(&p);
	super = false;
}

/* PSH goes with the call that marked the buffer last. */
static void marks(void)
{
	for (int more = 0; more < 2; more++) {
		struct peer p = peer_connected(PLAIN);
		near(&p, "send", 100, 0);
		near(&p, "send", 10, 0);
		if (more)
			near(&p, "send", 10, MSG_MORE);
		swallow_answer(&p);
		ack_all(&p);
		show_answer(&p, "F10 G2", "held back, %s", more ? "then 10 more with MSG_MORE" : "nothing more");
		peer_drop(&p);
	}
	struct peer p = peer_connected(PLAIN);
	near(&p, "set", IPPROTO_TCP, TCP_CORK, 1);
	near(&p, "send", 100, 0);
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	swallow_answer(&p);
	ack_all(&p);
	near(&p, "send", 10, 0);
	show(&p, QUIET, "F6", "corked, after a push by TCP_NODELAY");
	peer_drop(&p);
}

/* What is copied at once goes back where its end cannot be read: no more than a buffer
 * has room for.
 */
static void faults(void)
{
	static const int good[] = {100, 8000, 8760, 10000, 18000};
	struct shape how = PLAIN;
	how.window = 20000;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		struct peer p = peer_waited_for(how);
		row("F8 E7 E1", "%d good bytes, 100 bad: %ld", good[i], near(&p, "faulty", good[i]));
		row("F8 E7 E1", "of %d, queued: %ld", good[i], near(&p, "ioctl", OUTQ));
		peer_drop(&p);
	}
}

/* Bytes of a page each: 17 of them fill a buffer. */
static void fragments(void)
{
	struct peer p = peer_connected(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_ZEROCOPY, 1);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	row("F9 F15", "40 pages: %ld", near(&p, "pages", 40, MSG_ZEROCOPY | MSG_MORE));
	show_answer(&p, "F9 F15 SO-103", "a byte of each of 40 pages, with MSG_MORE");
	row("F9 F15", "charged %ld, unsent %ld", near(&p, "charged"), near(&p, "ioctl", UNSENT));
	peer_drop(&p);
	/* Copied bytes lie side by side: one fragment. */
	p = peer_connected(PLAIN);
	near(&p, "pages", 40, MSG_MORE);
	show(&p, QUIET, "F9", "the same, copied");
	row("F9", "copied, charged %ld, unsent %ld", near(&p, "charged"), near(&p, "ioctl", UNSENT));
	peer_drop(&p);
	/* No room: what there is leaves, MSG_MORE or not. */
	p = peer_connected(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_ZEROCOPY, 1);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 4608);
	row("H1 F15", "40 pages, SO_SNDBUF 4608: %ld", near(&p, "pages", 40, MSG_ZEROCOPY | MSG_MORE));
	show_answer(&p, "H1 F15", "what left of them");
	ack_all(&p);
	show(&p, QUIET, "H1", "acknowledged");
	row("H1", "five more: %ld", near(&p, "pages", 5, MSG_ZEROCOPY | MSG_MORE));
	show(&p, QUIET, "H1", "of which left");
	peer_drop(&p);
}

/* tcpi_delivery_rate_app_limited: whether the program was slower than the network. */
static void limited(void)
{
	enum { BIT = 7 };
	struct peer p = peer_connected(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	near(&p, "send", 200000, 0);
	for (int i = 0; i < 3; i++) {
		swallow_answer(&p);
		ack_all(&p);
	}
	row("B7", "more to send than the window, app_limited: %ld", near(&p, "info", BIT, 1) & 1);
	peer_drop(&p);
	p = peer_connected(PLAIN);
	for (int i = 0; i < 2; i++) {
		near(&p, "send", 10, 0);
		swallow_answer(&p);
		ack_all(&p);
		row("B7", "ten bytes acknowledged, app_limited: %ld", near(&p, "info", BIT, 1) & 1);
	}
	peer_drop(&p);
}

/* A send that sleeps, and goes on with what it finds then: a larger buffer, where the
 * window has grown meanwhile. All that it took in the end tells how large.
 */
static void sleeping(bool grows)
{
	struct shape how = PLAIN;
	struct segment s;
	how.window = 20000;
	struct peer p = peer_waited_for(how);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 8000);
	near(&p, "blocking", 1);
	near_begin(&p, "send", 400000, 0, 0);
	while (p.ack < 14601)
		if (!next(&p, &s, ANSWER))
			errx(2, "no more than %u", p.ack);
	swallow(&p, QUIET);
	if (grows) {
		p.window = 65535;
		segment_at(&p, ACK, 1, 1, 0);
	}
	/* What it takes then is not sent, but for a probe. */
	p.window = 0;
	ack_all(&p);
	if (!next(&p, &s, ANSWER))
		errx(2, "no probe of the shut window");
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	row("D6 B15 E1", "a send that slept while the window %s took: %ld", grows ? "grew" : "stayed", near_end());
	near(&p, "close");
	swallow(&p, 1);
}

/* A send that sleeps when the peer resets: it says what it took, the next one says why. */
static void cut_short(void)
{
	struct segment s;
	struct peer p = peer_waited_for(PLAIN);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 20000);
	near(&p, "blocking", 1);
	near_begin(&p, "send", 400000, 0, 0);
	while (p.ack < 14601)
		if (!next(&p, &s, ANSWER))
			errx(2, "no more than %u", p.ack);
	swallow(&p, QUIET);
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	row("E1 H7 B15", "a sleeping send, reset: %ld", near_end());
	row("E1 H7", "the next: %ld", near(&p, "send", 10, 0));
	row("E1 H7", "and the one after it: %ld", near(&p, "send", 10, 0));
	near(&p, "close");
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	goals();
	stamped();
	small_limit();
	bursts();
	marks();
	faults();
	fragments();
	limited();
	sleeping(false);
	sleeping(true);
	cut_short();
	puts("done");
	return 0;
}
