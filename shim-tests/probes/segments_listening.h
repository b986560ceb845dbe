/* A listener and four peers that shake hands with it, each in its own way. */
#ifndef SEGMENTS_LISTENING_H
#define SEGMENTS_LISTENING_H

#include "segments_established.h"

enum { ACCEPTED = 8 };

static struct {
	int fd, end;
} accepted[ACCEPTED];
static int accepted_count;

static void opened_listening(void)
{
	offer.mss = 1460;
	offer.scale = 7;
	int stamps = chance(60);
	for (struct end *e = ends; e < ends + ENDS; e++) {
		end_chosen(e);
		e->stamps = e->sack = stamps;
		e->window = 60000;
		e->next = e->isn;
	}
	/* No fewer than there are peers: SYN cookies are another matter. */
	listening = new_listener((int)ONE_OF(10, 10, 20));
	switch (rnd(6)) {
	case 0: set("TCP_DEFER_ACCEPT", listening, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3); break;
	case 1: set("IP_RECVERR", listening, IPPROTO_IP, IP_RECVERR, 1); break;
	case 2: set("SO_RCVLOWAT", listening, SOL_SOCKET, SO_RCVLOWAT, 50); break;
	case 3: set("TCP_FASTOPEN", listening, IPPROTO_TCP, TCP_FASTOPEN, 5); break;
	case 4: set("TCP_SAVE_SYN", listening, IPPROTO_TCP, TCP_SAVE_SYN, 1); break;
	}
	watch(listening, ENDS);
}

static void say_of(struct end *e, const char *what, int flags, int from, int acked, int length)
{
	struct segment s = plain(e);
	s.flags = flags;
	s.seq += (uint32_t)from;
	s.ack = flags & ACK ? s.ack + (uint32_t)acked : 0;
	s.length = length;
	if (flags == SYN)
		offer_options(&s, e);
	printf("%d: ", (int)(e - ends));
	say(e, what, &s);
}

static void begin(struct end *e)
{
	if (e->syn_sent && chance(80)) {
		say_of(e, "ack", ACK, 0, 0, 0);
	} else if (e->syn_sent && chance(50)) {
		say_of(e, "SYN again", SYN, -1, 0, 0);
	} else {
		if (e->syn_sent)
			e->isn = e->next = e->next + 100000;
		say_of(e, "SYN", SYN, 0, 0, chance(10) ? 20 : 0);
		e->next++;
		e->syn_sent = 1;
	}
}

static void accept_one(void)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	int new = accept4(listening, (struct sockaddr *)&a, &length, SOCK_NONBLOCK);
	printf("accept");
	outcome(new < 0 ? -1 : 0);
	if (new >= 0) {
		int end = ntohs(a.sin_port) - FIRST_PORT;
		printf(" of %d inq %d", end, queued(new, SIOCINQ));
		if (accepted_count == ACCEPTED) {
			close(new);
		} else {
			watch(new, end);
			accepted[accepted_count].fd = new;
			accepted[accepted_count++].end = end;
		}
	}
	putchar('\n');
}

static void listener_changed(void)
{
	struct sockaddr_in a = peer_address(), none = {.sin_family = AF_UNSPEC};
	int how = rnd(3), backlog = (int)ONE_OF(5, 8);
	switch (rnd(10)) {
	case 0:
		printf("shutdown %d", how);
		outcome(shutdown(listening, how));
		break;
	case 1:
		printf("disconnect");
		outcome(connect(listening, (struct sockaddr *)&none, sizeof none));
		break;
	case 2:
		printf("listen %d", backlog);
		outcome(listen(listening, backlog));
		break;
	case 3:
		printf("connect the listener");
		outcome(connect(listening, (struct sockaddr *)&a, sizeof a));
		break;
	case 4:
		printf("close");
		close(listening);
		listening = -1;
		break;
	}
	putchar('\n');
}

static void call_of_server(void)
{
	int which = accepted_count ? rnd(accepted_count) : -1;
	int how = rnd(8);
	if (how < 4 || which < 0) {
		accept_one();
	} else if (how == 4) {
		printf("close %d\n", accepted[which].end);
		close(accepted[which].fd);
		accepted[which] = accepted[--accepted_count];
	} else if (how == 5) {
		receive(accepted[which].fd, 20000, 0);
	} else if (how == 6) {
		send_some(accepted[which].fd, 10, 0);
	} else {
		listener_changed();
	}
}

static void segment_of_client(struct end *e)
{
	int length = (int)ONE_OF(1, 10, 100);
	switch (rnd(17)) {
	case 0: case 1: case 2: case 3: case 4: begin(e); break;
	case 5: case 6: case 7: case 8: say_of(e, "ack", ACK, 0, 0, 0); break;
	case 9: case 10:
		say_of(e, "data", ACK | PSH, 0, 0, length);
		e->next += (uint32_t)length;
		break;
	case 11:
		say_of(e, "FIN", ACK | FIN, 0, 0, 0);
		e->next++;
		break;
	case 12: say_of(e, "reset", (int)ONE_OF(RST, RST | ACK), (int)ONE_OF(0, 0, -1, 100000000), 0, 0); break;
	case 13: say_of(e, "bad ack", ACK, 0, (int)ONE_OF(1, 1000), 0); break;
	case 14: say_of(e, "out of order", ACK, 5, 0, 10); break;
	case 15: say_of(e, "SYN-ACK", SYN | ACK, 0, 0, 0); break;
	case 16:
		printf("%d:", (int)(e - ends));
		icmp_error(e, 3, (int)ONE_OF(0, 1, 3, 10), 0, e->near_isn + (uint32_t)ONE_OF(0, 0, 1, 100), 28);
	}
}

static void step_listening(void)
{
	struct end *e = &ends[rnd(ENDS)];
	if (chance(70)) {
		uint32_t before = e->next;
		segment_of_client(e);
		wait_for_ack(e, before);
	} else {
		call_of_server();
		settle();
	}
	show_edges();
	if (listening >= 0) {
		uint8_t info[512];
		information(listening, info);
		/* Of a listener: how many wait, and how many may. */
		printf("   state %d waiting %d of %d poll %#x\n", info[0], (int)field_of(info, 24, 4), (int)field_of(info, 28, 4),
		       (unsigned)events_of(listening));
	}
	for (int i = 0; i < accepted_count; i++) {
		uint8_t info[512];
		information(accepted[i].fd, info);
		printf("   %d: state %d poll %#x inq %d\n", accepted[i].end, info[0], (unsigned)events_of(accepted[i].fd),
		       queued(accepted[i].fd, SIOCINQ));
	}
}

#endif
