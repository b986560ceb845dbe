/* What is kept of a peer between connections (tcp_metrics): it shows in TCP_INFO, and in the
 * first flight, of the next connection to the same address.
 */
#include "lib/rawpeer.h"

#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The round-trip time of a slow peer: three times as much, an RTO, is well within its tenth of
 * a second. */
enum { NONE = 0, SLOW = 310 };

#define INFO(p, field) \
	near(p, "info", (int)offsetof(struct tcp_info, field), (int)sizeof(((struct tcp_info *)0)->field))

static const struct shape STAMPED = {
	.mss = 1460, .window = 65535, .scale = -1, .sack = true, .timestamps = true};

/* The host's own congestion control would show in ssthresh: the route always asks for cubic. */
static void over(const char *metrics)
{
	char text[60];
	snprintf(text, sizeof text, "%s%scongctl,cubic", metrics, *metrics ? "," : "");
	near_route(text);
}

static void pass(int ms) { usleep((useconds_t)ms * 1000); }

static void connected(struct peer *p, struct shape how, int rtt)
{
	struct segment s;
	peer_syn(p);
	pass(rtt);
	peer_syn_ack(p, how);
	if (!next(p, &s, ANSWER) || s.flags != ACK)
		errx(2, "no ACK of the SYN-ACK");
}

static struct peer first(struct shape how, int rtt)
{
	struct peer p = peer_new();
	connected(&p, how, rtt);
	return p;
}

static struct peer further(const struct peer *other, struct shape how, int rtt)
{
	struct peer p = peer_beside(other);
	connected(&p, how, rtt);
	return p;
}

static void fin_of_near(struct peer *p)
{
	struct segment s;
	near(p, "close");
	while (next(p, &s, ANSWER))
		if (s.flags & FIN)
			return;
	errx(2, "no FIN came");
}

/* Near ends it, and hears of our end. */
static void end(struct peer *p, int rtt)
{
	fin_of_near(p);
	pass(rtt);
	ack_all(p);
	segment_send(p, FIN | ACK, 0);
	swallow_answer(p);
}

/* We end it, and hear of near's end. */
static void end_by_peer(struct peer *p, int rtt)
{
	struct segment s;
	segment_send(p, FIN | ACK, 0);
	if (!next(p, &s, ANSWER))
		errx(2, "no ACK of our FIN");
	fin_of_near(p);
	pass(rtt);
	ack_all(p);
}

static void show_rto(struct peer *p, const char *rows, const char *how)
{
	row(rows, "%s: RTO of %ld tenths of a second, a round trip %s", how, INFO(p, tcpi_rto) / 100000,
	    INFO(p, tcpi_rtt) > 100000 ? "slow" : INFO(p, tcpi_rtt) ? "fast" : "unknown");
}

/* What the next connection to the same address begins with. */
static void show_next(const struct peer *before, const char *rows, const char *how)
{
	struct peer p = further(before, PLAIN, NONE);
	show_rto(&p, rows, how);
	row(rows, "%s: ssthresh %ld, reordering %ld", how, INFO(&p, tcpi_snd_ssthresh),
	    INFO(&p, tcpi_reordering));
	peer_drop(&p);
}

/* Its first SYN is lost: there is no round-trip time. */
static void show_next_of_lost_syn(struct peer p, const char *how)
{
	struct segment s;
	peer_syn(&p);
	if (!next(&p, &s, ANSWER) || !(s.flags & SYN))
		errx(2, "no further SYN");
	peer_syn_ack(&p, PLAIN);
	swallow_answer(&p);
	show_rto(&p, "MT-3", how);
	peer_drop(&p);
}

static void round_trips(void)
{
	struct peer p = first(PLAIN, SLOW);
	end(&p, SLOW);
	show_next(&p, "MT-1", "after a slow one");
	show_next_of_lost_syn(peer_beside(&p), "lost SYN, after a slow one");
	show_next_of_lost_syn(peer_new(), "lost SYN, a new address");
	p = further(&p, PLAIN, NONE);
	end(&p, NONE);
	show_next(&p, "MT-1", "after a slow and a fast one");
	p = first(PLAIN, SLOW);
	end_by_peer(&p, SLOW);
	show_next(&p, "MT-1", "after a slow one that the peer ended");
	p = further(&p, PLAIN, NONE);
	fin_of_near(&p);
	if (!next(&p, &(struct segment){0}, ANSWER))
		errx(2, "the FIN is not sent again");
	if (!next(&p, &(struct segment){0}, ANSWER))
		errx(2, "the FIN is not sent a third time");
	ack_all(&p);
	segment_send(&p, FIN | ACK, 0);
	swallow_answer(&p);
	show_next(&p, "MT-4", "after one that ended in a timeout");
	p = first(PLAIN, SLOW);
	peer_drop(&p);
	show_next(&p, "MT-2", "after a slow one that was reset");
	p = first(PLAIN, SLOW);
	near(&p, "linger", 0);
	near(&p, "close");
	swallow_answer(&p);
	show_next(&p, "MT-2", "after a slow one that near reset");
}

static void accepted(void)
{
	struct peer p = first(PLAIN, SLOW);
	end(&p, SLOW);
	struct peer listener = peer_listener(0), q = peer_of_listener(&listener);
	struct segment s;
	q.address = p.address;
	syn_send(&q, PLAIN, 0);
	if (!next(&q, &s, ANSWER))
		errx(2, "no SYN-ACK came");
	ack_all(&q);
	if (near(&q, "accept", LISTENER))
		errx(2, "accept");
	show_rto(&q, "MT-1", "an accepted one, after a slow one");
	end(&q, NONE);
	near(&listener, "close");
	show_next(&q, "MT-1", "after the accepted one");
}

/* Ten segments are lost; what is sent again arrives, one at a time. */
static void lose(struct peer *p)
{
	struct segment s;
	uint32_t acked = p->ack, end = acked + 14600;
	near(p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	near(p, "send", 14600, 0);
	while (p->ack < end)
		if (!next(p, &s, ANSWER))
			errx(2, "only %u bytes came", p->ack);
	while (acked < end) {
		if (!next(p, &s, ANSWER))
			errx(2, "nothing is sent again after %u", acked);
		if (s.seq == acked)
			segment_at(p, ACK, p->seq, acked += s.length, 0);
	}
	ack_all_heard(p);
	swallow(p, QUIET);
}

static void thresholds(const char *how)
{
	struct peer p = first(PLAIN, NONE);
	end(&p, NONE);
	show_next(&p, "MT-5", how);
	p = further(&p, PLAIN, NONE);
	lose(&p);
	row("MT-5", "%s: ssthresh after losses %ld, window %ld", how, INFO(&p, tcpi_snd_ssthresh),
	    INFO(&p, tcpi_snd_cwnd));
	end(&p, NONE);
	show_next(&p, "MT-5", how);
	p = further(&p, PLAIN, NONE);
	for (int i = 0; i < 3; i++) {
		near(&p, "send", 7 * 1460, 0);
		swallow_answer(&p);
		ack_all_heard(&p);
	}
	row("MT-5", "%s: ssthresh of the one after it %ld", how, INFO(&p, tcpi_snd_ssthresh));
	end(&p, NONE);
	show_next(&p, "MT-5", "and after that one");
}

static void reordered(void)
{
	struct peer p = first(STAMPED, 100);
	uint32_t start = p.ack;
	near(&p, "send", 14480, 0);
	swallow(&p, 100);
	uint8_t blocks[12] = {1, 1, 5, 10};
	uint32_t left = p.near_isn + start + 7 * 1448, right = left + 1448;
	for (int i = 0; i < 4; i++) {
		blocks[4 + i] = (uint8_t)(left >> (24 - 8 * i));
		blocks[8 + i] = (uint8_t)(right >> (24 - 8 * i));
	}
	memcpy(extra_options, blocks, sizeof blocks);
	extra_length = sizeof blocks;
	segment_at(&p, ACK, p.seq, start, 0);
	extra_length = 0;
	segment_at(&p, ACK, p.seq, start + 8 * 1448, 0);
	ack_all_heard(&p);
	row("MT-6", "segments arrive in another order: reordering %ld, ssthresh %ld", INFO(&p, tcpi_reordering),
	    INFO(&p, tcpi_snd_ssthresh));
	struct peer early = further(&p, STAMPED, NONE);
	fin_of_near(&p);
	for (int i = 0; i < 2; i++)
		if (!next(&p, &(struct segment){0}, ANSWER))
			errx(2, "the FIN is not sent again");
	ack_all(&p);
	segment_send(&p, FIN | ACK, 0);
	swallow_answer(&p);
	show_next(&p, "MT-6", "after reordering, and an end in slow start");
	end(&early, NONE);
	show_next(&p, "MT-6", "and after one that began before");
}

static void routes(const char *how)
{
	char text[64];
	over("rtt,300ms,reordering,9,ssthresh,20");
	struct peer p = first(PLAIN, NONE);
	snprintf(text, sizeof text, "route, %s", how);
	show_rto(&p, "RT-10 RT-11", text);
	row("RT-10 RT-11", "%s: ssthresh %ld, reordering %ld", text, INFO(&p, tcpi_snd_ssthresh),
	    INFO(&p, tcpi_reordering));
	end(&p, NONE);
	show_next(&p, "RT-10 RT-11", text);
	over("reordering,12,ssthresh,30");
	show_next(&p, "RT-10 RT-11", "the route has changed");
	over("rtt,lock,300ms,ssthresh,lock,20");
	p = first(PLAIN, NONE);
	lose(&p);
	end(&p, NONE);
	show_next(&p, "RT-10 RT-11", "locked");
	over("");
}

static void windows(void)
{
	over("initcwnd,20,cwnd,lock,5");
	no_push = true;
	struct peer p = first(PLAIN, NONE);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	near(&p, "send", 60000, 0);
	show_answer(&p, "RT-12", "a first one");
	for (int i = 0; i < 3; i++) {
		ack_all(&p);
		swallow(&p, QUIET);
	}
	ack_all_heard(&p);
	end(&p, NONE);
	p = further(&p, PLAIN, NONE);
	near(&p, "set", SOL_SOCKET, SO_SNDBUF, 1 << 20);
	near(&p, "send", 60000, 0);
	show_answer(&p, "RT-12", "a further one, initcwnd 20, cwnd lock 5");
	for (int i = 0; i < 3; i++) {
		ack_all(&p);
		show_answer(&p, "RT-12", "all acknowledged, %d", i);
	}
	row("RT-12", "window of it %ld, ssthresh %ld", INFO(&p, tcpi_snd_cwnd), INFO(&p, tcpi_snd_ssthresh));
	peer_drop(&p);
	no_push = false;
	over("initcwnd,20,cwnd,5");
	p = first(PLAIN, NONE);
	end(&p, NONE);
	p = further(&p, PLAIN, NONE);
	row("RT-12", "not locked: window %ld", INFO(&p, tcpi_snd_cwnd));
	peer_drop(&p);
	over("");
}

/* A cookie makes an entry, too, which takes what the route sets. */
static void cookies(void)
{
	static const uint8_t cookie[] = {1, 1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8};
	over("reordering,9");
	struct peer p = peer_new();
	near(&p, "fastopen", p.port, 100, 0);
	if (!next(&p, &(struct segment){0}, ANSWER))
		errx(2, "no SYN came");
	memcpy(extra_options, cookie, sizeof cookie);
	extra_length = sizeof cookie;
	peer_syn_ack(&p, PLAIN);
	extra_length = 0;
	swallow_answer(&p);
	row("RT-11", "one that got a cookie: reordering %ld", INFO(&p, tcpi_reordering));
	peer_drop(&p);
	show_next(&p, "RT-11", "after it");
	over("");
}

static void settings(void)
{
	struct peer p = first(PLAIN, SLOW);
	end(&p, SLOW);
	near_anew("ipv4/tcp_no_metrics_save", 1);
	show_next(&p, "MT-7", "tcp_no_metrics_save, known before");
	p = further(&p, PLAIN, NONE);
	end(&p, NONE);
	show_next(&p, "MT-7", "tcp_no_metrics_save, a fast one more");
	p = first(PLAIN, SLOW);
	end(&p, SLOW);
	show_next(&p, "MT-7", "tcp_no_metrics_save, a new address");
	near_anew("ipv4/tcp_no_metrics_save", 0);
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	round_trips();
	accepted();
	thresholds("by default");
	reordered();
	routes("by default");
	windows();
	cookies();
	settings();
	near_anew("ipv4/tcp_no_ssthresh_metrics_save", 0);
	thresholds("tcp_no_ssthresh_metrics_save 0");
	routes("tcp_no_ssthresh_metrics_save 0");
	near_anew("ipv4/tcp_no_ssthresh_metrics_save", 1);
	puts("done");
	return 0;
}
