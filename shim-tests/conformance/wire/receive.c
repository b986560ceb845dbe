/* What is answered to segments: acks, SACK, challenges; and the form of the SYN. */
#include "lib/rawpeer.h"

#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static void syn(void)
{
	struct peer p = peer_new();
	struct segment s = peer_syn(&p);
	char text[256] = "";
	put_options(text, sizeof text, &s);
	row("TM-32", "the SYN's options:%s", text);
	row("TM-27 TM-37", "its window %u, flags %d", s.window, s.flags);
	row("TM-36", "TTL %d, TOS %d, fragment bits %x", s.ttl, s.tos, s.fragment);
	peer_syn_ack(&p, PLAIN);
	if (next(&p, &s, 1000))
		row("TM-38", "the handshake's ACK: window %u", s.window);
	peer_drop(&p);
}

static void order(void)
{
	struct peer p = peer_connected(WITH_SACK);
	segment_at(&p, ACK | PSH, 101, 1, 100);
	show_answer(&p, "RV-42 TM-35", "out of order");
	segment_at(&p, ACK | PSH, 1, 1, 100);
	show_answer(&p, "RV-43", "the hole filled");
	segment_at(&p, ACK | PSH, 1, 1, 100);
	show_answer(&p, "RV-44", "a duplicate of old data");
	segment_at(&p, ACK | PSH, 201 + 200000, 1, 100);
	show_answer(&p, "RV-45", "beyond the window");
	peer_drop(&p);
}

static void challenges(void)
{
	struct peer p = peer_connected(PLAIN);
	segment_at(&p, RST, 11, 1, 0);
	show_answer(&p, "RV-47", "RST in the window, not exact");
	peer_drop(&p);
	p = peer_connected(PLAIN);
	segment_at(&p, RST, 1 + 200000, 1, 0);
	show(&p, QUIET, "RV-47", "RST out of the window");
	segment_at(&p, SYN, 11, 0, 0);
	show_answer(&p, "RV-48", "SYN in the window");
	segment_at(&p, SYN, 11, 0, 0);
	show(&p, QUIET, "RV-48 TM-23 SO-116", "another at once");
	peer_drop(&p);
}

static void acks(void)
{
	struct peer p = peer_connected(PLAIN);
	segment_send(&p, ACK | PSH, 100);
	show_when(&p, DELACK, "RV-37 RV-38", "the first small segment");
	near(&p, "set", IPPROTO_TCP, TCP_QUICKACK, 0);
	segment_send(&p, ACK | PSH, 100);
	show_when(&p, DELACK, "RV-39 RV-41 TM-18", "with TCP_QUICKACK 0");
	near(&p, "set", IPPROTO_TCP, TCP_QUICKACK, 1);
	segment_send(&p, ACK | PSH, 100);
	show_when(&p, DELACK, "RV-41", "with TCP_QUICKACK 1");
	peer_drop(&p);
}

/* A listener's end, with nobody in its queues. */
static void listener(void)
{
	struct peer l = peer_listener(0), p = peer_of_listener(&l);
	near(&l, "close");
	show(&p, QUIET, "ER-82", "a listener closed");
	syn_send(&p, PLAIN, 0);
	show_answer(&p, "ER-82 ER-79", "a SYN then");
}

/* A RST for what has been reset. */
static void resets(void)
{
	struct peer p = peer_connected(PLAIN);
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	near(&p, "poll", POLLHUP);
	row("ER-15", "reset: %#lx", near(&p, "poll", POLLIN | POLLOUT));
	row("ER-15", "its error: %ld", near(&p, "error"));
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	show(&p, QUIET, "ER-15", "reset again");
	row("ER-15", "its error then: %ld", near(&p, "error"));
	row("ER-15", "its mask then: %#lx", near(&p, "poll", POLLIN | POLLOUT));
	near(&p, "close");
	p = peer_connected(PLAIN);
	near(&p, "disconnect");
	near(&p, "error");
	swallow(&p, QUIET);
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	show(&p, QUIET, "ER-15", "disconnected and reset");
	row("ER-15", "disconnected, its error: %ld", near(&p, "error"));
	near(&p, "close");
}

/* What the answer to a SYN and the connection have of its TOS. */
static void reflected(int on)
{
	enum { DSCP = 0x28, ECT = 2 };
	struct segment s;
	near_anew("ipv4/tcp_reflect_tos", on);
	struct peer listener = peer_listener(0), p = peer_of_listener(&listener);
	tos_sent = DSCP | ECT;
	syn_send(&p, PLAIN, 0);
	if (!next(&p, &s, ANSWER))
		errx(2, "no SYN-ACK came");
	row("TM-39", "TOS of a SYN-ACK to 0x2a, tcp_reflect_tos %d: %#x", on, s.tos);
	ack_all(&p);
	tos_sent = 0;
	near(&p, "accept", LISTENER);
	near(&p, "send", 10, 0);
	if (!next(&p, &s, ANSWER))
		errx(2, "no data came");
	row("TM-39", "of its data, tcp_reflect_tos %d: %#x", on, s.tos);
	peer_drop(&p);
	near(&listener, "close");
}

/* The end of the first SACK block. */
static uint32_t sacked_to(const struct segment *s)
{
	const uint8_t *o = option(s, 5);
	uint32_t end = 0;
	if (o)
		memcpy(&end, o + 2 + 4, sizeof end);
	return o ? ntohl(end) - s->peer->isn : 0;
}

/* Which of nine segments behind a hole are acknowledged when they come. The delay of the
 * others is a twentieth of the round-trip time, which is large here, be it measured by near's
 * sender or by its receiver. */
static void compressed(int nr)
{
	enum { SIZE = 100, ROUND_TRIP = 800, APART = 4 };
	struct shape how = WITH_SACK;
	struct segment s;
	char text[128] = "";
	size_t used = 0;
	how.timestamps = true;
	near_anew("ipv4/tcp_comp_sack_nr", nr);
	struct peer p = peer_new();
	peer_syn(&p);
	swallow(&p, ROUND_TRIP);
	peer_syn_ack(&p, how);
	swallow(&p, ROUND_TRIP);
	segment_send(&p, ACK | PSH, 1400);
	swallow_answer(&p);
	near(&p, "set", IPPROTO_TCP, TCP_QUICKACK, 0);
	for (uint32_t i = 1; i <= 9; i++) {
		segment_at(&p, ACK | PSH, p.seq + i * SIZE, p.ack, SIZE);
		while (next(&p, &s, APART) && used < sizeof text)
			used += (size_t)snprintf(text + used, sizeof text - used, " %u",
						 (sacked_to(&s) - p.seq) / SIZE - 1);
	}
	row("SO-120", "acks of nine segments behind a hole, tcp_comp_sack_nr %d:%s", nr, text);
	show(&p, TIMEOUT, "SO-120", "then, tcp_comp_sack_nr %d", nr);
	peer_drop(&p);
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	syn();
	order();
	challenges();
	acks();
	listener();
	resets();
	reflected(1);
	reflected(0);
	near_anew("ipv4/tcp_comp_sack_delay_ns", 100 * 1000000);
	compressed(2);
	compressed(44);
	puts("done");
	return 0;
}
