/* Urgent data of which the peer says more than it sends (rows RV-25, RV-32). */
#include "lib/rawpeer.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Ten bytes with a pointer of that value. */
static struct peer told(uint16_t pointer)
{
	struct peer p = peer_connected(PLAIN);
	urgent_pointer = pointer;
	segment_send(&p, ACK | PSH | URG, 10);
	urgent_pointer = 0;
	near(&p, "poll", POLLIN);
	swallow(&p, QUIET);
	return p;
}

static void to_come(void)
{
	struct peer p = told(20);
	row("RV-25", "told of, not there, poll: %#lx", near(&p, "poll", POLLIN | POLLPRI));
	row("RV-25", "told of, not there, MSG_OOB: %ld", near(&p, "recv", 1, MSG_OOB));
	row("RV-25", "to be read before it: %ld", near(&p, "ioctl", FIONREAD));
	row("RV-25", "recv: %ld", near(&p, "recv", 100, 0));
	segment_send(&p, ACK | PSH, 20);
	near(&p, "poll", POLLPRI);
	row("RV-25", "there, MSG_OOB: %ld", near(&p, "recv", 1, MSG_OOB));
	peer_drop(&p);

	p = told(20);
	near(&p, "recv", 100, 0);
	near(&p, "shutdown", SHUT_RD);
	row("RV-25", "told of, receiving shut, MSG_OOB: %ld", near(&p, "recv", 1, MSG_OOB));
	peer_drop(&p);

	p = told(20);
	segment_send(&p, ACK | FIN, 0);
	near(&p, "poll", POLLRDHUP);
	row("RV-25", "told of, the end instead, MSG_OOB: %ld", near(&p, "recv", 1, MSG_OOB));
	peer_drop(&p);

	p = told(20);
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);
	near(&p, "poll", POLLHUP);
	row("RV-25", "told of, reset instead, MSG_OOB: %ld", near(&p, "recv", 1, MSG_OOB));
	row("RV-25", "told of, reset instead, recv: %ld", near(&p, "recv", 100, 0));
	near(&p, "close");
}

static void pointers(const char *rows, const char *setting)
{
	static const uint16_t values[] = {1, 5, 10};
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		struct peer p = told(values[i]);
		long first = near(&p, "recv", 100, 0), marked = near(&p, "recv", 1, MSG_OOB);
		row(rows, "%s, pointer %d: recv %ld, MSG_OOB %ld, recv %ld", setting, values[i], first,
		    marked, near(&p, "recv", 100, 0));
		peer_drop(&p);
	}
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	to_come();
	pointers("RV-32 SO-122", "tcp_stdurg 0");
	near_anew("ipv4/tcp_stdurg", 1);
	pointers("RV-32", "tcp_stdurg 1");
	puts("done");
	return 0;
}
