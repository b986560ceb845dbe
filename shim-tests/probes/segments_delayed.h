/* A sender on a long path, whose pacing rate is low: of what a call sends, little may wait in the host at a time. The peer's acks
 * tell in which order, as of which time and as how much of the congestion window it left.
 */
#ifndef SEGMENTS_DELAYED_H
#define SEGMENTS_DELAYED_H

#include "segments_paths.h"

enum {
	PATH = 20,     /* milliseconds there and back */
	RENEGED = 60,  /* what is SACKed and still the head of the queue is waited for half a round trip, this wait being a part of that */
};

static void travel(void)
{
	for (int64_t end = milliseconds() + PATH; milliseconds() < end; wait_for_wire(1))
		hear(0);
}

static void opened_delayed(void)
{
	struct end *e = ends;
	restless_for = RENEGED;
	end_chosen(e);
	e->window = (int)ONE_OF(65535, 65535, 30000, 10000, 5000, 3000);
	offer.mss = (int)ONE_OF(1460, 1000, 536);
	offer.scale = -1;
	offer.ecn = 0;
	fd = new_socket();
	if (chance(40))
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	set_maybe(30, "TCP_NODELAY", fd, IPPROTO_TCP, TCP_NODELAY, 1);
	connect_to_peer();
	travel();
	answer_to_syn(e);
}

/* What has come of what is in flight, in parts that do not touch, the newest first. */
static int parts_that_came(struct end *e, struct segment *s)
{
	uint32_t from = s->ack + 1 + (uint32_t)rnd(3000);
	for (int n = 1 + rnd(3); n && (int32_t)(e->near_next - from) > 0; n--) {
		uint32_t to = from + 1 + (uint32_t)rnd(4000);
		if ((int32_t)(e->near_next - to) < 0)
			to = e->near_next;
		memmove(s->sack + 2, s->sack, 4 * sizeof *s->sack);
		s->sack[0] = from;
		s->sack[1] = to;
		s->blocks++;
		from = to + 1 + (uint32_t)rnd(3000);
	}
	return s->blocks;
}

/* What came twice: below the ack, or in the newest part. */
static void duplicate(struct segment *s)
{
	if (s->blocks > 2)
		return;
	uint32_t from = chance(60) ? s->ack - 1 - (uint32_t)rnd(3000) : s->blocks ? s->sack[0] : s->ack - 100;
	uint32_t to = from + 1 + (uint32_t)rnd(2000);
	if ((int32_t)(s->ack - from) > 0 && (int32_t)(to - s->ack) > 0)
		to = s->ack;
	memmove(s->sack + 2, s->sack, 4 * sizeof *s->sack);
	s->sack[0] = from;
	s->sack[1] = to;
	s->blocks++;
}

static void ack_of(struct end *e)
{
	struct segment s = plain(e);
	uint32_t out = e->near_next - e->acked;
	s.ack = e->near_next;
	if (out > 1 && chance(50)) {
		s.ack = e->acked + (uint32_t)rnd((int)out);
		if (e->sack)
			parts_that_came(e, &s);
		else if (chance(50))
			s.ack = e->acked;
	}
	if (e->sack && chance(15))
		duplicate(&s);
	e->acked = s.ack;
	say(e, "ack", &s);
	settle();
}

static void step_delayed(void)
{
	struct end *e = ends;
	for (int n = rnd(4); n; n--)
		send_some(fd, (int)ONE_OF(20000, 10000, 3000, 1448, 700, 100), (int)ONE_OF(0, 0, 0, MSG_EOR, MSG_MORE));
	travel();
	settle();
	ack_of(e);
	show_state(fd);
}

#endif
