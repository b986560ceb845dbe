/* A connection of whose path a router says that it takes less, while the program changes what its route is looked up by. */
#ifndef SEGMENTS_PATHS_H
#define SEGMENTS_PATHS_H

#include "segments_established.h"

static void answer_to_syn(struct end *e)
{
	struct segment s = {.seq = e->isn, .ack = e->near_next, .flags = SYN | ACK, .window = e->window};
	offer_options(&s, e);
	say(e, "SYN-ACK", &s);
	settle();
	e->acked = e->near_next;
	watch(fd, 0);
	show_state(fd);
}

static void opened_paths(void)
{
	struct end *e = ends;
	end_chosen(e);
	e->window = 65535;
	offer.mss = 1460;
	offer.scale = 7;
	offer.ecn = 0;
	fd = new_socket();
	connect_to_peer();
	answer_to_syn(e);
}

static void ack_everything(struct end *e)
{
	struct segment s = plain(e);
	s.ack = e->near_next;
	e->acked = s.ack;
	say(e, "ack", &s);
	settle();
}

static void step_paths(void)
{
	struct end *e = ends;
	switch (rnd(5)) {
	case 0:
		set("IP_TOS", fd, IPPROTO_IP, IP_TOS, (int)ONE_OF(0, 8, 0x10));
		break;
	case 1:
		set("SO_MARK", fd, SOL_SOCKET, SO_MARK, (int)ONE_OF(0, 7));
		break;
	case 2:
		set("SO_BINDTOIFINDEX", fd, SOL_SOCKET, SO_BINDTOIFINDEX, chance(50) ? 0 : (int)if_nametoindex(wire_device));
		break;
	default:
		break;
	}
	printf("IP_MTU %d\n", option_of(fd, IPPROTO_IP, IP_MTU));
	send_some(fd, 3000, 0);
	settle();
	if (chance(30)) {
		icmp_error(e, 3, 4, (int)ONE_OF(1400, 1200, 1000, 800, 600), e->acked, 40);
		settle();
	}
	ack_everything(e);
	printf("IP_MTU %d\n", option_of(fd, IPPROTO_IP, IP_MTU));
	show_state(fd);
}

#endif
