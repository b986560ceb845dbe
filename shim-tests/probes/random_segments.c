/* Random segments from a peer that is made of frames, between random calls of the program's: what comes back, what the calls give
 * and what tcp_info tells is the same in each run, natively or under the shim.
 *
 *   random_segments CONTROL DEVICE NEAR SEED KIND [STEPS]
 *
 * CONTROL is where hands_wire, on the far host, gives its wire away. KIND is what the segments meet: established, closing,
 * connecting, listening, paths or delayed. STEPS are the numbers of the steps to take ("0-20,25"), the others are left out: what
 * differs can be cut down so, since each step hangs on the seed and its number only, and on what came before. By hand, in two
 * network namespaces:
 *
 *   ip netns exec FAR hands_wire /tmp/control DEVICE NEAR &
 *   ip netns exec NEAR random_segments /tmp/control DEVICE NEAR 7 closing >native
 *   ip netns exec NEAR ip route flush cache
 *   ip netns exec NEAR env LD_PRELOAD=libsidewire.so random_segments /tmp/control DEVICE NEAR 7 closing | diff native -
 *
 * A step begins when near has nothing more to say (`settle`). No timer is to fire meanwhile but that of delayed acks and that of
 * RACK, both of which are waited for: so the route to the peers has a long rto_min, and tail loss probes and compressed acks are off
 * (src/segments.rs). What near acknowledges out of the window is not to be limited.
 *
 * Left out is what hangs on time or memory: round-trip times, whether a rate was the program's, windows but those of SYNs,
 * tcpi_rcv_mss; and what differs for a known reason (preload/DEVIATIONS.md): SYN cookies, RSTs in the window of a handshake, acks
 * older than the connection, options of TCP-AO and TCP_MD5SIG, several segments at a time, which are acknowledged together, and
 * receive windows that a segment goes beyond. Nor is there an urgent pointer ahead of its byte.
 */
#include "segments_established.h"
#include "segments_closing.h"
#include "segments_connecting.h"
#include "segments_listening.h"
#include "segments_delayed.h"
#include "segments_paths.h"

struct kind {
	const char *name;
	void (*opened)(void), (*step)(void);
	int steps;
};

static const struct kind kinds[] = {
	{"established", opened_established, step_established, 40},
	{"closing", opened_closing, step_closing, 25},
	{"connecting", opened_connecting, step_connecting, 15},
	{"listening", opened_listening, step_listening, 40},
	{"paths", opened_paths, step_paths, 20},
	{"delayed", opened_delayed, step_delayed, 10},
};

static const struct kind *kind_named(const char *name)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	errx(2, "%s: no such kind", name);
}

/* Nobody goes on with what this run leaves: a RST for each end. */
static void leave(void)
{
	for (struct end *e = ends; e < ends + ENDS; e++) {
		struct segment s = {.seq = e->next, .ack = e->near_next, .flags = RST | ACK, .window = 1};
		if (e->near_isn)
			segment_send(e, &s);
	}
}

int main(int argc, char **argv)
{
	static char peer[INET_ADDRSTRLEN];
	if (argc < 6)
		errx(2, "usage: %s CONTROL DEVICE NEAR SEED KIND [STEPS]", argv[0]);
	wire_device = argv[2];
	near_host = argv[3];
	seed = strtoull(argv[4], NULL, 10);
	const struct kind *kind = kind_named(argv[5]);
	near_ip = ntohl(address(near_host, 0).sin_addr.s_addr);
	/* Runs at the same time do not meet. */
	peer_ip = (near_ip & 0xffffff00) + 100 + (uint32_t)(seed % 150);
	struct in_addr a = {htonl(peer_ip)};
	peer_host = inet_ntop(AF_INET, &a, peer, sizeof peer);
	take_wire(argv[1]);
	spare = new_listener(1);
	near_port = 0;
	edges = epoll_create1(0);
	rnd_for(seed, -1 - (int)(kind - kinds));
	pass_wire();
	kind->opened();
	for (int number = 0; number < kind->steps; number++) {
		if (!listed(argv[6], number))
			continue;
		rnd_for(seed * 4 + (uint64_t)(kind - kinds), number);
		printf("%d ", number);
		kind->step();
	}
	if (fd >= 0) {
		value_of_error(fd);
		receive(fd, 100000, 0);
		show_state(fd);
		close(fd);
		fd = -1;
		settle();
	}
	leave();
	puts("done");
	return 0;
}
