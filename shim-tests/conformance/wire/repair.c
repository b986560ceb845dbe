/* TCP_REPAIR on the wire: what is said, and what is taken, while a socket is in repair. */
#include "lib/rawpeer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { RECV_QUEUE = 1, SEND_QUEUE = 2 };

static void repair(struct peer *p, int how) { near(p, "set", IPPROTO_TCP, TCP_REPAIR, how); }
static void queue(struct peer *p, int which) { near(p, "set", IPPROTO_TCP, TCP_REPAIR_QUEUE, which); }

/* Segments that come meanwhile: behind the bytes that were put into the queue, and
 * without those that these cover. */
static void receiving(void)
{
	struct peer p = peer_connected(PLAIN);
	repair(&p, 1);
	queue(&p, RECV_QUEUE);
	segment_send(&p, ACK | PSH, 10);
	show_answer(&p, "RP-32", "10 bytes while in repair");
	row("RP-32", "to be read: %ld", near(&p, "ioctl", FIONREAD));
	row("RP-32 B9", "three bytes behind them: %ld", near(&p, "send", 3, 0));
	row("RP-32", "to be read: %ld", near(&p, "ioctl", FIONREAD));
	segment_send(&p, ACK | PSH, 2);
	show_answer(&p, "RP-32", "two bytes, both covered");
	segment_send(&p, ACK | PSH, 8);
	show_answer(&p, "RP-32", "eight bytes, the first covered");
	row("RP-32", "to be read: %ld", near(&p, "ioctl", FIONREAD));
	repair(&p, -1);
	show(&p, QUIET, "RP-34", "TCP_REPAIR -1");
	row("RP-32", "recv: %ld", near(&p, "recv", 100, 0));
	peer_drop(&p);
}

static void sending(void)
{
	struct peer p = peer_connected(PLAIN);
	repair(&p, 1);
	queue(&p, SEND_QUEUE);
	row("RP-26", "1000 bytes as if sent: %ld", near(&p, "send", 1000, 0));
	show(&p, QUIET, "RP-26", "their packets");
	row("RP-26", "MSG_FASTOPEN in repair: %ld", near(&p, "fastopen", p.port, 100, 0));
	show(&p, QUIET, "RP-26", "its packets");
	repair(&p, 0);
	show_answer(&p, "RP-33", "TCP_REPAIR 0");
	segment_at(&p, ACK, 1, 501, 0);
	show(&p, QUIET, "RP-26", "half of them acknowledged");
	peer_drop(&p);
}

static void ending(void)
{
	struct peer p = peer_connected(PLAIN);
	repair(&p, 1);
	near(&p, "close");
	show(&p, QUIET, "RP-35", "close in repair");
	segment_send(&p, ACK | PSH, 10);
	show_answer(&p, "RP-35", "data then");
	p = peer_connected(PLAIN);
	repair(&p, 1);
	row("RP-36", "disconnect in repair: %ld", near(&p, "disconnect"));
	show(&p, QUIET, "RP-36", "its packets");
	row("RP-36", "its error: %ld", near(&p, "error"));
	near(&p, "close");
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	receiving();
	sending();
	ending();
	puts("done");
	return 0;
}
