/* A connection that is being opened by the program: what answers its SYN, or only seems to. */
#ifndef SEGMENTS_CONNECTING_H
#define SEGMENTS_CONNECTING_H

#include "segments_established.h"

static void opened_connecting(void)
{
	struct end *e = ends;
	struct sockaddr_in own = address(near_host, 0);
	end_chosen(e);
	offer.mss = (int)ONE_OF(1460, 1460, 536);
	offer.scale = (int)ONE_OF(7, 7, -1);
	fd = new_socket();
	set_maybe(40, "IP_RECVERR", fd, IPPROTO_IP, IP_RECVERR, 1);
	if (chance(20) && bind(fd, (struct sockaddr *)&own, sizeof own))
		err(2, "bind");
	set_maybe(15, "TCP_SYNCNT", fd, IPPROTO_TCP, TCP_SYNCNT, 1);
	set_maybe(15, "SO_RCVLOWAT", fd, SOL_SOCKET, SO_RCVLOWAT, 1000);
	connect_to_peer();
	watch(fd, 0);
	show_state(fd);
}

static void answer_of_peer(struct end *e)
{
	struct segment s = {.seq = e->isn, .ack = e->near_next, .window = e->window};
	switch (rnd(7)) {
	case 0:
		s.flags = SYN | ACK | (int)ONE_OF(0, 0, 0, FIN, URG, PSH, ECE);
		s.ack += (uint32_t)ONE_OF(0, 0, 0, 1, -1, 1000);
		s.length = chance(20) ? 10 : 0;
		s.urgent = s.flags & URG ? (int)ONE_OF(1, 5) : 0;
		offer_options(&s, e);
		say(e, "SYN-ACK", &s);
		break;
	case 1:
		s.flags = RST | ACK;
		s.ack += (uint32_t)ONE_OF(0, 0, 1, -1, 100);
		say(e, "reset", &s);
		break;
	case 2:
		s.flags = RST;
		s.ack = 0;
		s.seq += (uint32_t)ONE_OF(0, 1);
		say(e, "reset", &s);
		break;
	case 3:
		s.flags = ACK;
		s.seq++;
		s.ack += (uint32_t)ONE_OF(0, 1, 1000);
		say(e, "ack", &s);
		break;
	case 4:
		s.flags = SYN;
		s.ack = 0;
		s.length = chance(20) ? 10 : 0;
		offer_options(&s, e);
		say(e, "SYN", &s);
		break;
	case 5:
		s.flags = (int)ONE_OF(FIN | ACK, FIN, PSH, 0, URG, SYN | RST, SYN | FIN, 255);
		s.seq += (uint32_t)ONE_OF(0, 1);
		s.length = chance(30) ? 10 : 0;
		say(e, "flags", &s);
		break;
	case 6: {
		int type = (int)ONE_OF(3, 3, 3, 11, 12, 4, 5);
		int code = type == 3 ? (int)ONE_OF(0, 1, 2, 3, 3, 4, 5, 9, 10, 13) : rnd(2);
		icmp_error(e, type, code, (int)ONE_OF(0, 600, 1400, 296), e->near_isn + (uint32_t)ONE_OF(0, 0, 0, 0, 1, -1, 100),
			   (int)ONE_OF(28, 28, 24, 27));
	}
	}
}

static void call_meanwhile(void)
{
	struct sockaddr_in a = peer_address(), own = address("0.0.0.0", 0), none = {.sin_family = AF_UNSPEC};
	socklen_t length = sizeof a;
	int how = rnd(3), seldom = chance(35);
	switch (rnd(11)) {
	case 0: value_of_error(fd); return;
	case 1:
		printf("connect");
		outcome(connect(fd, (struct sockaddr *)&a, sizeof a));
		break;
	case 2: send_some(fd, 10, 0); return;
	case 3: receive(fd, 10, 0); return;
	case 4:
		printf("getpeername");
		outcome(getpeername(fd, (struct sockaddr *)&a, &length));
		break;
	case 5:
		getsockname(fd, (struct sockaddr *)&own, &length);
		printf("a port: %d", own.sin_port != 0);
		break;
	case 6: read_error_queue(fd); return;
	case 7:
		if (seldom) {
			printf("shutdown %d", how);
			outcome(shutdown(fd, how));
		}
		break;
	case 8:
		if (seldom) {
			printf("disconnect");
			outcome(connect(fd, (struct sockaddr *)&none, sizeof none));
		}
		break;
	case 9:
		if (seldom) {
			printf("listen");
			outcome(listen(fd, 3));
		}
		break;
	case 10:
		if (seldom) {
			printf("bind");
			outcome(bind(fd, (struct sockaddr *)&own, sizeof own));
		}
		break;
	}
	putchar('\n');
}

static void step_connecting(void)
{
	if (chance(50))
		answer_of_peer(ends);
	else
		call_meanwhile();
	settle();
	show_state(fd);
	show_edges();
}

#endif
