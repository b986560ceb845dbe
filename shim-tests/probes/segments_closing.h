/* A connection that ends: shutdown and close in all orders with the peer's FIN, and what comes in the states behind. */
#ifndef SEGMENTS_CLOSING_H
#define SEGMENTS_CLOSING_H

#include "segments_established.h"

static void opened_closing(void)
{
	opened_established();
	for (int n = fd < 0 ? 0 : rnd(4); n; n--) {
		if (chance(50)) {
			data(ends);
		} else {
			send_some(fd, some_bytes(), 0);
			settle();
			if (chance(60)) {
				struct segment s = plain(ends);
				say(ends, "ack", &s);
			}
		}
		settle();
		if (chance(30))
			receive(fd, 10000, 0);
		settle();
		show_state(fd);
	}
}

static void closed(void)
{
	close(fd);
	fd = -1;
	putchar('\n');
}

static void ending_call(void)
{
	int how = rnd(3);
	struct linger at_once = {.l_onoff = 1};
	switch (rnd(7)) {
	case 0: case 1: case 2:
		printf("shutdown %d", how);
		outcome(shutdown(fd, how));
		putchar('\n');
		break;
	case 3:
		printf("close with a RST");
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		closed();
		break;
	case 4: set("TCP_LINGER2", fd, IPPROTO_TCP, TCP_LINGER2, (int)ONE_OF(-1, 1, 60, 0)); break;
	default:
		printf("close");
		closed();
	}
}

/* A SYN where there was a connection: in TIME_WAIT it may begin a new one. */
static void syn_to_what_was(struct end *e)
{
	struct segment s = plain(e);
	s.flags = SYN | (chance(25) ? ACK : 0);
	s.ack = s.flags & ACK ? e->near_next : 0;
	s.seq += (uint32_t)ONE_OF(0, 1, -1, 100000, 1000000, -1000);
	s.no_stamp = chance(20);
	if (!(s.flags & ACK) && chance(70))
		offer_options(&s, e);
	say(e, "SYN", &s);
}

static void near_the_end(struct end *e)
{
	struct segment s = plain(e);
	switch (rnd(14)) {
	case 0: case 1:
		s.flags |= FIN;
		s.length = chance(30) ? 10 : 0;
		say_next(e, "FIN", &s);
		break;
	case 2: case 3: say(e, "ack", &s); break;
	case 4: data(e); break;
	case 5:
		s.flags |= FIN;
		s.seq--;
		say(e, "FIN again", &s);
		break;
	case 6:
		s.flags = chance(50) ? RST : RST | ACK;
		s.seq += (uint32_t)ONE_OF(0, 0, 1, -1, 100, 100000000);
		say(e, "reset", &s);
		break;
	case 7: syn_to_what_was(e); break;
	case 8: keepalive(e); break;
	case 9:
		s.seq += (uint32_t)ONE_OF(10, 1000, -10);
		s.length = (int)ONE_OF(0, 5, 100);
		say(e, "out of order", &s);
		break;
	case 10:
		s.ack -= (uint32_t)ONE_OF(1, 1, 2, 100);
		/* What it cannot have sent yet is another matter. */
		if ((int)(s.ack - e->near_isn) < 1)
			s.ack = e->near_isn + 1;
		say(e, "old ack", &s);
		break;
	case 11:
		s.ack += (uint32_t)ONE_OF(1, 10, 1000);
		say(e, "ack of nothing", &s);
		break;
	case 12:
		if (!e->stamps) {
			urgent(e);
			break;
		}
		s.stamp = e->stamp - (uint32_t)ONE_OF(1, 100);
		s.flags |= chance(30) ? FIN : 0;
		s.length = chance(40) ? 10 : 0;
		say(e, "old stamp", &s);
		break;
	case 13: window_changed(e); break;
	}
}

static void step_closing(void)
{
	int which = rnd(20);
	uint32_t before = ends->next;
	if (fd < 0 || which > 5)
		near_the_end(ends);
	else if (which < 3)
		ending_call();
	else if (which == 3)
		receive(fd, (int)ONE_OF(1, 100, 10000), 0);
	else if (which == 4)
		send_some(fd, some_bytes(), 0);
	else
		value_of_error(fd);
	/* There may be a new connection, which is the listener's. */
	wait_for_ack(ends, before);
	if (fd >= 0) {
		show_state(fd);
		show_edges();
	}
	if (listening >= 0) {
		printf("   accept");
		int another = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
		outcome(another < 0 ? -1 : 0);
		putchar('\n');
		if (another >= 0)
			close(another);
	}
}

#endif
