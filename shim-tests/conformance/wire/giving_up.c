/* Data that nobody acknowledges: it is sent again, and how that ends (rows TM-8, ER-16).
 * With fewer repetitions than Linux's own, for the sake of time. How many there are
 * goes by the first round-trip time and by when timers run: give_up.pkt counts them.
 */
#include "lib/rawpeer.h"

#include <err.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

enum { UNREACHABLE = 3, HOST = 1 };

/* Copies of a segment that come until it is quiet for `ms`. */
static int copies(struct peer *p, int ms)
{
	struct segment s;
	int count = 0;
	while (next(p, &s, ms))
		count += s.length > 0 && s.seq == 1;
	return count;
}

int main(int argc, char **argv)
{
	struct segment s;
	rawpeer_start(argc, argv);
	near_anew("ipv4/tcp_orphan_retries", 1);
	near_anew("ipv4/tcp_retries2", 2);
	struct peer told = peer_connected(PLAIN), silent = peer_connected(PLAIN);
	near(&told, "send", 10, 0);
	if (!next(&told, &s, 1000))
		errx(2, "no segment");
	icmp_send(&told, UNREACHABLE, HOST, s.seq, 0);
	near(&silent, "send", 10, 0);
	row("TM-8", "sent again, tcp_retries2 2: %d", copies(&silent, 2500) > 1);
	near(&silent, "poll", POLLHUP);
	row("ER-16 RD-28", "its mask: %#lx", near(&silent, "poll", POLLIN | POLLOUT | POLLRDHUP | POLLRDNORM | POLLWRNORM));
	row("ER-16", "its error: %ld", near(&silent, "error"));
	row("ER-16", "recv then: %ld", near(&silent, "recv", 10, 0));
	row("ER-16", "the other's mask: %#lx", near(&told, "poll", POLLERR));
	row("ER-16", "its error, after ICMP host unreachable: %ld", near(&told, "error"));
	near(&silent, "close");
	near(&told, "close");

	struct peer orphan = peer_connected(PLAIN);
	near(&orphan, "send", 10, 0);
	near(&orphan, "close");
	row("TM-8", "a closed socket's data sent again, tcp_orphan_retries 1: %d", copies(&orphan, 1500) > 1);
	ack_all(&orphan);
	show(&orphan, QUIET, "TM-8", "an ack then");
	puts("done");
	return 0;
}
