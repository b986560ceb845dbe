/* What a route sets for TCP: `ip route ... initcwnd 3` and the like; and ECN, which a
 * route or a sysctl asks for.
 */
#include "lib/rawpeer.h"

#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

enum { RENO, CUBIC };

/* A connection over a route that sets that. */
static struct peer over(const char *metrics, struct shape how)
{
	near_route(metrics);
	return peer_connected(how);
}

static void first_flight(void)
{
	static const char *const routes[] = {"-", "initcwnd,3", "initcwnd,20"};
	no_push = true;
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
		struct peer p = over(routes[i], PLAIN);
		near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
		near(&p, "send", 60000, 0);
		show_answer(&p, "RT-1", "60000 bytes, %s", routes[i]);
		peer_drop(&p);
		near_route(routes[i]);
		p = peer_accepted(PLAIN);
		near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
		near(&p, "send", 60000, 0);
		show_answer(&p, "RT-1", "60000 bytes of an accepted one, %s", routes[i]);
		peer_drop(&p);
	}
	no_push = false;
}

static void windows(void)
{
	static const char *const routes[] = {"initrwnd,4", "initrwnd,200", "window,20000", "window,20000,initrwnd,5"};
	struct shape scaled = PLAIN;
	scaled.scale = 5;
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
		near_route(routes[i]);
		struct peer p = peer_new();
		struct segment s = peer_syn(&p);
		row("RT-2 RT-3", "SYN, %s: window %u, scale %d", routes[i], s.window, p.near_scale);
		peer_drop(&p);
		struct peer listener = peer_listener(0);
		p = peer_of_listener(&listener);
		syn_send(&p, scaled, 0);
		if (!next(&p, &s, ANSWER))
			errx(2, "no SYN-ACK came");
		row("RT-2 RT-3", "SYN-ACK, %s: window %u, scale %d", routes[i], s.window, p.near_scale);
		peer_drop(&p);
		near(&listener, "close");
	}
}

static void hops(void)
{
	struct segment s;
	near_route("hoplimit,7");
	struct peer p = peer_new();
	s = peer_syn(&p);
	row("RT-4", "SYN with hoplimit 7: %d", s.ttl);
	peer_syn_ack(&p, PLAIN);
	if (!next(&p, &s, ANSWER))
		errx(2, "no ACK came");
	row("RT-4", "ACK: %d", s.ttl);
	near(&p, "set", IPPROTO_IP, IP_TTL, 9);
	near(&p, "send", 10, 0);
	if (!next(&p, &s, ANSWER))
		errx(2, "no data came");
	row("RT-4", "data with IP_TTL 9: %d", s.ttl);
	ack_all(&p);
	near(&p, "close");
	swallow_answer(&p);
	segment_at(&p, ACK, p.seq, p.ack + 1000, 0);
	peer_drop(&p);
}

/* Eight segments leave quick-ack mode behind; then an ack waits, unless the route says that it does not. */
static void acks(void)
{
	static const char *const routes[] = {"-", "quickack,1"};
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
		struct peer p = over(routes[i], PLAIN);
		near(&p, "set", IPPROTO_TCP, TCP_QUICKACK, 0);
		segment_send(&p, ACK | PSH, 10);
		show(&p, QUIET, "RT-6", "an ack, %s", routes[i]);
		peer_drop(&p);
	}
}

static void timeouts(void)
{
	static const char *const routes[] = {"-", "rto_min,40ms", "rto_min,600ms"};
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
		struct peer p = over(routes[i], PLAIN);
		long rto = near(&p, "info", 8, 4);
		row("RT-5", "RTO, %s: %ld hundredths of a second and less than two more", routes[i], rto / 20000 * 2);
		peer_drop(&p);
	}
}

/* Whether segments with data are marked as ECN's (RFC 3168). */
static int marked(struct peer *p)
{
	struct segment s;
	near(p, "send", 10, 0);
	if (!next(p, &s, ANSWER))
		errx(2, "no data came");
	return s.tos & 3;
}

static void offers(const char *how)
{
	struct segment s;
	struct peer p = peer_new();
	s = peer_syn(&p);
	row("RT-7", "flags of a SYN, %s: %d", how, s.flags & ~PSH);
	if (!next(&p, &s, ANSWER))
		errx(2, "no further SYN");
	row("RT-7", "flags of its repetition, %s: %d", how, s.flags);
	struct shape answer = PLAIN;
	answer.ecn = ECE;
	peer_syn_ack(&p, answer);
	swallow_answer(&p);
	row("RT-7", "data after an answer to the repetition, %s: %d", how, marked(&p));
	peer_drop(&p);
	static const int answers[] = {ECE, 0};
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		answer.ecn = answers[i];
		p = peer_connected(answer);
		row("RT-7", "data after a SYN-ACK with flags %d, %s: %d", answers[i], how, marked(&p));
		peer_drop(&p);
	}
}

static void accepts(const char *how)
{
	struct shape offer = PLAIN;
	offer.ecn = ECE | CWR;
	struct segment s;
	struct peer listener = peer_listener(0), p = peer_of_listener(&listener);
	syn_send(&p, offer, 0);
	if (!next(&p, &s, ANSWER))
		errx(2, "no SYN-ACK came");
	row("RT-7", "flags of the answer to an offer, %s: %d", how, s.flags);
	peer_drop(&p);
	near(&listener, "close");
}

static void congestion_marks(void)
{
	near_route("features,ecn");
	offers("route");
	near_route("-");
	near_anew("ipv4/tcp_ecn", 1);
	offers("tcp_ecn 1");
	near_anew("ipv4/tcp_ecn_fallback", 0);
	struct segment s;
	struct peer p = peer_new();
	peer_syn(&p);
	if (!next(&p, &s, ANSWER))
		errx(2, "no further SYN");
	row("RT-7", "flags of a repetition without tcp_ecn_fallback: %d", s.flags);
	peer_drop(&p);
	near_anew("ipv4/tcp_ecn_fallback", 1);
	near_anew("ipv4/tcp_ecn", 0);
	accepts("tcp_ecn 0");
	near_route("features,ecn");
	accepts("tcp_ecn 0, route");
	near_route("-");
	near_anew("ipv4/tcp_ecn", 2);
}

static void controls(void)
{
	near_route("congctl,reno");
	struct peer p = peer_new();
	row("RT-8", "cubic is chosen: %ld", near(&p, "choose", CUBIC));
	peer_syn(&p);
	row("RT-8", "after the SYN over a route with reno: %ld", near(&p, "cong"));
	row("RT-8", "cubic is chosen again: %ld", near(&p, "choose", CUBIC));
	row("RT-8", "and is there: %ld", near(&p, "cong"));
	peer_drop(&p);
	p = peer_accepted(PLAIN);
	row("RT-8", "of an accepted one: %ld", near(&p, "cong"));
	peer_drop(&p);
	near_route("congctl,lock,reno");
	p = peer_connected(PLAIN);
	row("RT-8", "locked, cubic is chosen: %ld", near(&p, "choose", CUBIC));
	row("RT-8", "reno is chosen: %ld", near(&p, "choose", RENO));
	row("RT-8", "and there is: %ld", near(&p, "cong"));
	peer_drop(&p);
}

static void without_cookie(void)
{
	near_route("fastopen_no_cookie,1");
	struct peer p = peer_new();
	row("RT-9", "a fast open without a cookie: %ld", near(&p, "fastopen", p.port, 100, 0));
	show_answer(&p, "RT-9", "its SYN");
	peer_drop(&p);
	near_route("-");
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	first_flight();
	windows();
	hops();
	acks();
	timeouts();
	congestion_marks();
	controls();
	without_cookie();
	puts("done");
	return 0;
}
