/* A connection that is established in one of several ways, and then hears segments of every sort between the program's calls. */
#ifndef SEGMENTS_ESTABLISHED_H
#define SEGMENTS_ESTABLISHED_H

#include "random_segments.h"

/* Sends of more than a few segments. */
static int sends_much;

static void offer_chosen(void)
{
	struct end *e = ends;
	end_chosen(e);
	offer.mss = (int)ONE_OF(1460, 1460, 1460, -1, 536, 88, 0, 1, 20, 65535, 1000, 9000);
	offer.scale = (int)ONE_OF(7, 7, -1, 0, 2, 14, 15, 255);
	offer.ecn = chance(20);
	/* What a send buffer of that many small segments is charged is not for here. */
	sends_much = chance(50) && offer.mss >= 1000;
}

static void connect_to_peer(void)
{
	struct sockaddr_in a = peer_address();
	printf("connect");
	outcome(connect(fd, (struct sockaddr *)&a, sizeof a));
	putchar('\n');
	settle();
}

/* What is not the answer to a SYN. */
static void odd_answer(struct end *e)
{
	struct segment s = {.seq = e->isn, .ack = e->near_next + (uint32_t)ONE_OF(1, -1, 0), .window = e->window};
	s.flags = (int)ONE_OF(SYN | ACK, ACK, RST | ACK, RST, FIN | ACK, ACK | PSH, SYN | ACK | FIN);
	/* The attempt goes on. */
	if (s.ack == e->near_next && (s.flags & RST || s.flags == (SYN | ACK | FIN)))
		s.ack++;
	say(e, "odd answer", &s);
	settle();
	show_state(fd);
}

static void opened_by_near(void)
{
	struct end *e = ends;
	fd = new_socket();
	set_maybe(20, "IP_RECVERR", fd, IPPROTO_IP, IP_RECVERR, 1);
	connect_to_peer();
	int both = chance(25);
	if (chance(25))
		odd_answer(e);
	struct segment s = {.seq = e->isn, .flags = SYN, .window = e->window, .length = chance(10) ? 50 : 0};
	if (!both) {
		s.ack = e->near_next;
		s.flags |= ACK | (offer.ecn ? ECE : 0);
	}
	offer_options(&s, e);
	say(e, both ? "simultaneous open" : "SYN-ACK", &s);
	settle();
	if (!both)
		return;
	show_state(fd);
	s = (struct segment){.seq = e->isn + 1, .ack = e->near_next, .flags = ACK, .window = e->window};
	if (chance(50)) {
		s.seq--;
		s.flags |= SYN;
	}
	say(e, "its ack", &s);
	settle();
}

/* Between the SYN and the handshake's last ack, but what ends the handshake. */
static void odd_handshake(struct end *e)
{
	struct segment s = {.seq = e->isn + (uint32_t)ONE_OF(0, 1, 1, 2, 100000000), .window = e->window};
	s.ack = e->near_next + (uint32_t)ONE_OF(0, 1, -1, 1000);
	s.flags = (int)ONE_OF(SYN, SYN | ACK, RST | ACK, RST, ACK, ACK | FIN, 0, PSH, ACK | PSH, SYN | FIN, URG | ACK);
	s.length = chance(30) ? 20 : 0;
	/* A RST in the window, but not in its place, is another kernel's matter. */
	if (s.flags & RST)
		s.seq = e->isn + 200000000;
	if (s.flags & ACK && s.ack == e->near_next)
		s.ack += 7;
	say(e, "odd handshake", &s);
	settle();
}

static void opened_by_peer(void)
{
	struct end *e = ends;
	listening = new_listener(5);
	set_maybe(20, "IP_RECVERR", listening, IPPROTO_IP, IP_RECVERR, 1);
	set_maybe(20, "TCP_DEFER_ACCEPT", listening, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
	struct segment s = {.seq = e->isn, .flags = SYN | (offer.ecn ? ECE | CWR : 0), .window = e->window};
	s.length = chance(10) ? 50 : 0;
	offer_options(&s, e);
	say(e, "SYN", &s);
	settle();
	uint32_t echo = e->near_stamp;
	for (int n = rnd(3); n; n--)
		odd_handshake(e);
	s = plain(e);
	s.echo = echo;
	s.of_before = echo != 0;
	s.length = chance(30) ? 100 : 0;
	s.flags |= chance(5) ? FIN : 0;
	e->next += (uint32_t)s.length + !!(s.flags & FIN);
	say(e, "third", &s);
	wait_for_ack(e, e->isn + 1);
	for (int again = 0; again < 2; again++) {
		printf("accept");
		fd = (int)accept4(listening, NULL, NULL, SOCK_NONBLOCK);
		outcome(fd < 0 ? -1 : 0);
		putchar('\n');
		if (fd >= 0)
			return;
		/* TCP_DEFER_ACCEPT waits for data. */
		s = plain(e);
		s.flags |= PSH;
		s.length = 10;
		e->next += 10;
		say(e, "data", &s);
		wait_for_ack(e, s.seq);
	}
}

static void opened_established(void)
{
	offer_chosen();
	if (chance(50))
		opened_by_near();
	else
		opened_by_peer();
	if (fd < 0)
		return;
	ends->acked = ends->near_next;
	watch(fd, 0);
	show_state(fd);
	show_edges();
}

static int a_length(void)
{
	return (int)ONE_OF(1, 10, 100, 536, 1000, 1448);
}

/* Counts what it sends as part of the stream. */
static void say_next(struct end *e, const char *what, struct segment *s)
{
	e->next += (uint32_t)s->length + !!(s->flags & FIN);
	say(e, what, s);
}

static void data(struct end *e)
{
	struct segment s = plain(e);
	s.length = a_length();
	s.flags |= chance(60) ? PSH : 0;
	say_next(e, "data", &s);
}

static void out_of_order(struct end *e)
{
	struct segment s = plain(e);
	s.length = a_length();
	s.seq += (uint32_t)ONE_OF(1, 100, 1448, 3000, 5000, 6000);
	say(e, "out of order", &s);
	if (chance(70))
		return;
	settle();
	data(e);
}

static void old_data(struct end *e)
{
	struct segment s = plain(e);
	int back = (int)ONE_OF(1, 50, 500, 2000);
	s.seq -= (uint32_t)back;
	s.length = (int)ONE_OF(1, back, back + 1, back + 100, back - 1);
	if (s.length > 1448)
		s.length = 1;
	if ((int)(s.seq + (uint32_t)s.length - e->next) > 0)
		e->next = s.seq + (uint32_t)s.length;
	say(e, "old data", &s);
}

static void out_of_window(struct end *e)
{
	struct segment s = plain(e);
	s.seq += (uint32_t)ONE_OF(70000000, -70000000, -1, -2);
	say(e, "out of window", &s);
}

static void keepalive(struct end *e)
{
	struct segment s = plain(e);
	s.seq--;
	s.length = chance(50);
	say(e, "keepalive", &s);
}

static void some_acked(struct end *e)
{
	struct segment s = plain(e);
	int all = (int)(e->near_next - e->acked);
	s.ack = e->acked + (all > 0 ? (uint32_t)rnd(all + 1) : 0);
	e->acked = s.ack;
	say(e, "ack", &s);
}

static void odd_ack(struct end *e)
{
	struct segment s = plain(e);
	s.ack += (uint32_t)ONE_OF(1, 100, 100000, 5, 0x40000000);
	s.length = chance(40) ? a_length() : 0;
	say(e, "odd ack", &s);
}

static void window_changed(struct end *e)
{
	int any = (int)ONE_OF(0, 1, 100, 500, 1000, 5000, 60000, 65535);
	e->window = sends_much ? (int)ONE_OF(0, 65535) : any;
	struct segment s = plain(e);
	say(e, "window", &s);
}

static void urgent(struct end *e)
{
	struct segment s = plain(e);
	s.flags |= URG;
	/* A pointer to what has not come yet is left out. */
	s.length = (int)ONE_OF(1, 10, 100);
	s.urgent = (int)ONE_OF(0, 1, s.length, s.length, s.length, s.length / 2);
	say_next(e, "urgent", &s);
}

static void finish(struct end *e)
{
	struct segment s = plain(e);
	s.flags |= FIN;
	s.length = chance(40) ? a_length() : 0;
	if (chance(30)) {
		s.seq += (uint32_t)ONE_OF(1, 100);
		say(e, "early FIN", &s);
	} else {
		say_next(e, "FIN", &s);
	}
}

static void reset(struct end *e)
{
	struct segment s = plain(e);
	s.flags = chance(50) ? RST : RST | ACK;
	s.seq += (uint32_t)ONE_OF(0, 0, 0, 1, -1, 100, -100, 100000000);
	s.length = chance(20) ? 5 : 0;
	s.ack += chance(70) ? 0 : 777;
	say(e, "reset", &s);
}

static void syn_again(struct end *e)
{
	struct segment s = plain(e);
	s.flags = chance(50) ? SYN : SYN | ACK;
	s.seq += (uint32_t)ONE_OF(0, 1, -1, 100, -1000, 50000000);
	s.ack = (uint32_t)ONE_OF(e->near_next, e->near_isn + 1, e->near_next + 5);
	s.length = chance(20) ? 5 : 0;
	say(e, "SYN again", &s);
}

static void odd_flags(struct end *e)
{
	struct segment s = plain(e);
	s.flags = (int)ONE_OF(0, PSH, FIN, URG, PSH | FIN | URG, 255, ACK | RST | SYN | FIN, CWR | ECE, ACK | ECE | CWR);
	s.length = chance(50) ? a_length() : 0;
	if (chance(80))
		s.flags &= ~(SYN | RST | FIN);
	if (!s.length)
		s.flags &= ~URG;
	if (s.flags & ACK)
		e->next += (uint32_t)s.length;
	say(e, "flags", &s);
}

static void congestion_marks(struct end *e)
{
	struct segment s = plain(e);
	s.flags |= (int)ONE_OF(ECE, CWR, ECE | CWR, 0);
	s.tos = (int)ONE_OF(1, 2, 3, 3, 0x10, 0xb8);
	s.length = chance(60) ? a_length() : 0;
	say_next(e, "marks", &s);
}

static void bad_sum(struct end *e)
{
	struct segment s = plain(e);
	s.bad_sum = 1;
	s.length = (int)ONE_OF(10, 100, 1000);
	say(e, "bad sum", &s);
}

static void odd_stamp(struct end *e)
{
	struct segment s = plain(e);
	if (!e->stamps) {
		data(e);
		return;
	}
	s.length = chance(60) ? a_length() : 0;
	if (chance(25)) {
		s.no_stamp = 1;
		say(e, "no stamp", &s);
		return;
	}
	s.stamp = e->stamp + (uint32_t)ONE_OF(-1, -5, -100, 0, 1000, 0x7fffffff, -1000000);
	if (chance(50))
		s.echo = e->near_stamp + (uint32_t)ONE_OF(1, -1, -100, 1000, 100000);
	printf("stamp");
	segment_show(e, &s);
	/* PAWS does not throw it away. */
	if ((int)(s.stamp - e->stamp) >= 0) {
		e->stamp = s.stamp;
		e->next += (uint32_t)s.length;
	}
	segment_send(e, &s);
}

static void odd_options(struct end *e)
{
	static const struct {
		int size;
		uint8_t bytes[12];
	} all[] = {
		{4, {MSS, 4, 1, 0}},        {8, {STAMP, 10, 0, 0, 0, 1, 0, 0}},
		{4, {254, 4, 1, 2}},        {4, {SCALE, 3, 14, 0}},             {4, {30, 4, 0, 0}},
		{4, {EOL, 0, 0, 0}},        {4, {STAMP, 3, 1, 1}},              {4, {SACK, 2, 1, 1}},
		{4, {NOP, NOP, NOP, NOP}},  {4, {MSS, 0, 0, 0}},                {4, {STAMP, 255, 0, 0}},
	};
	struct segment s = plain(e);
	int which = rnd((int)(sizeof all / sizeof *all));
	s.options_size = all[which].size;
	memcpy(s.options, all[which].bytes, (size_t)s.options_size);
	s.length = chance(60) ? a_length() : 0;
	if (!e->stamps)
		e->next += (uint32_t)s.length;
	say(e, "options", &s);
}

static void odd_header(struct end *e)
{
	struct segment s = plain(e);
	if (chance(50)) {
		s.data_offset = (int)ONE_OF(1, 4, 15, 15);
		s.length = chance(50) ? 60 : 0;
		say(e, "data offset", &s);
	} else {
		s.reserved = (int)ONE_OF(1, 2, 8, 15);
		s.length = a_length();
		say_next(e, "reserved bits", &s);
	}
}

static void sack_blocks(struct end *e)
{
	struct segment s = plain(e);
	int all = (int)(e->near_next - e->acked);
	if (!e->sack) {
		some_acked(e);
		return;
	}
	if (all > 10) {
		s.ack = e->acked;
		s.blocks = 1 + rnd(3);
		for (int i = 0; i < s.blocks; i++) {
			int from = rnd(all);
			s.sack[2 * i] = e->acked + (uint32_t)from;
			s.sack[2 * i + 1] = e->acked + (uint32_t)(from + 1 + rnd(all - from));
		}
	} else {
		s.blocks = 1;
		s.sack[0] = e->near_next + (uint32_t)ONE_OF(-10, -1000, 0, 5, 100000);
		s.sack[1] = s.sack[0] + (uint32_t)ONE_OF(5, 0, -5, 1000);
	}
	say(e, "sack", &s);
}

static void any_icmp(struct end *e)
{
	int type = (int)ONE_OF(3, 3, 3, 3, 11, 12, 4, 5, 3), code = rnd(2);
	if (type == 3)
		code = (int)ONE_OF(0, 1, 2, 3, 4, 4, 5, 6, 9, 10, 11, 13, 15, 16, 14);
	int mtu = (int)ONE_OF(0, 68, 296, 552, 576, 1000, 1400, 1500, 9000, 65535);
	uint32_t una = e->acked, all = e->near_next;
	uint32_t about = (uint32_t)ONE_OF(una, una, una, all, una - 1, all - 1, all + 1, all + 100000, una + 10);
	icmp_error(e, type, code, mtu, about, (int)ONE_OF(28, 28, 40, 27, 24, 20, 40));
}

struct sort {
	int weight;
	void (*of_segment)(struct end *e);
};

static const struct sort sorts[] = {
	{10, data},     {6, out_of_order}, {2, old_data},  {2, out_of_window},    {2, keepalive},  {6, some_acked},
	{2, odd_ack},   {2, window_changed}, {2, urgent},  {1, finish},           {1, reset},      {1, syn_again},
	{2, odd_flags}, {2, congestion_marks}, {2, bad_sum}, {4, odd_stamp},      {2, odd_options}, {2, odd_header},
	{4, sack_blocks}, {4, any_icmp},
};

static void any_segment(struct end *e)
{
	int all = 0;
	for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++)
		all += sorts[i].weight;
	const struct sort *sort = sorts;
	for (int at = rnd(all); at >= sort->weight; sort++)
		at -= sort->weight;
	sort->of_segment(e);
}

/* Few segments: whether the last one that the window lets out waits for more hangs on the round-trip time. */
static int some_bytes(void)
{
	int bytes = (int)ONE_OF(1, 10, 100, 500);
	return offer.mss < 100 && offer.mss >= 0 && bytes > 100 ? 50 : bytes;
}

/* What was sent is mostly acknowledged. */
static void send_and_ack(void)
{
	int much = (int)ONE_OF(1, 10, 100, 1000, 1448, 3000, 10000, 30000), some = some_bytes();
	int flags = (int)ONE_OF(0, 0, 0, 0, MSG_OOB, MSG_MORE);
	send_some(fd, sends_much ? much : some, flags);
	if (chance(25))
		return;
	settle();
	ends->acked = ends->near_next;
	struct segment s = plain(ends);
	say(ends, "ack", &s);
}

static void any_call(void)
{
	switch (rnd(18)) {
	case 0: case 1: case 2: case 3: case 4:
		receive(fd, (int)ONE_OF(1, 5, 100, 1000, 5000, 60000),
			(int)ONE_OF(0, 0, 0, MSG_PEEK, MSG_OOB, MSG_TRUNC, MSG_WAITALL, MSG_OOB | MSG_PEEK, MSG_PEEK | MSG_TRUNC));
		break;
	case 5: case 6: case 7: case 8: send_and_ack(); break;
	case 9:
		if (chance(25)) {
			int how = rnd(3);
			printf("shutdown %d", how);
			outcome(shutdown(fd, how));
		}
		putchar('\n');
		break;
	case 10: value_of_error(fd); break;
	case 11: set("IP_RECVERR", fd, IPPROTO_IP, IP_RECVERR, rnd(2)); break;
	case 12: set("SO_RCVLOWAT", fd, SOL_SOCKET, SO_RCVLOWAT, (int)ONE_OF(1, 100, 5000, 0, 100000)); break;
	case 13: set("TCP_NODELAY", fd, IPPROTO_TCP, TCP_NODELAY, rnd(2)); break;
	/* What it was hangs on how soon something was sent after something had come. */
	case 14: set("TCP_QUICKACK", fd, IPPROTO_TCP, TCP_QUICKACK, rnd(2)); break;
	case 15: set("SO_OOBINLINE", fd, SOL_SOCKET, SO_OOBINLINE, rnd(2)); break;
	case 16: read_error_queue(fd); break;
	case 17:
		printf("was %d ", option_of(fd, IPPROTO_TCP, TCP_MAXSEG));
		set("TCP_MAXSEG", fd, IPPROTO_TCP, TCP_MAXSEG, (int)ONE_OF(0, 536, 1000, 88, 87, 1460, 40000));
		break;
	}
}

static void step_established(void)
{
	if (fd < 0)
		return;
	if (chance(60))
		any_segment(ends);
	else
		any_call();
	settle();
	show_state(fd);
	show_edges();
}

#endif
