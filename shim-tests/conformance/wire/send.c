/* What sends put on the wire: Nagle, cork, MORE, EOR, push, urgent, close. */
#include "lib/rawpeer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void ack_and_swallow(struct peer *p)
{
	swallow_answer(p);
	ack_all(p);
}

static void nagle(void)
{
	struct peer p = peer_connected(PLAIN);
	near(&p, "send", 100, 0);
	show_answer(&p, "SP-5 G2", "100 bytes, idle");
	near(&p, "send", 1560, 0);
	show_answer(&p, "SP-7 SP-9", "1560 bytes, a small one in flight");
	ack_all(&p);
	show_answer(&p, "SP-7", "all acknowledged");
	ack_all_heard(&p);
	near(&p, "send", 1560, 0);
	show_answer(&p, "SP-8 G7", "1560 bytes, idle");
	ack_all_heard(&p);
	near(&p, "send", 1460, 0);
	near(&p, "send", 100, 0);
	show_answer(&p, "SP-1 SP-6", "1460 bytes, then 100");
	ack_all_heard(&p);
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	near(&p, "send", 10, 0);
	near(&p, "send", 10, 0);
	show_answer(&p, "SP-4", "10 and 10 bytes with TCP_NODELAY");
	peer_drop(&p);
}

static void cork(void)
{
	struct peer p = peer_connected(PLAIN);
	near(&p, "set", IPPROTO_TCP, TCP_CORK, 1);
	near(&p, "send", 100, 0);
	show(&p, QUIET, "SP-3", "100 bytes, corked");
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	show_answer(&p, "SP-10", "TCP_NODELAY while corked");
	ack_all_heard(&p);
	near(&p, "send", 100, 0);
	show(&p, QUIET, "SP-10", "100 more, corked");
	near(&p, "set", IPPROTO_TCP, TCP_CORK, 0);
	show_answer(&p, "SP-11", "the cork pulled");
	peer_drop(&p);

	p = peer_connected(PLAIN);
	near(&p, "send", 100, MSG_MORE);
	show_when(&p, TIMEOUT, "SP-14 TM-16", "100 bytes with MSG_MORE, nothing else");
	ack_all_heard(&p);
	near(&p, "send", 100, MSG_MORE);
	near(&p, "send", 0, 0);
	show(&p, QUIET, "SP-13 G5", "100 bytes with MSG_MORE, then none without");
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	show_answer(&p, "SP-15", "TCP_NODELAY set afterwards");
	peer_drop(&p);
}

static void more_and_eor(void)
{
	struct shape small = PLAIN;
	small.mss = 1000;
	struct peer p = peer_connected(small);
	near(&p, "send", 2500, MSG_MORE);
	show_answer(&p, "SP-17 G7", "2500 bytes with MSG_MORE, mss 1000");
	near(&p, "shutdown", SHUT_WR);
	show_answer(&p, "SP-16 SP-2 G8", "shutdown(SHUT_WR)");
	peer_drop(&p);

	p = peer_connected(small);
	near(&p, "sendfile", 1345);
	show_answer(&p, "SP-27", "sendfile of 1345 bytes, mss 1000");
	peer_drop(&p);

	p = peer_connected(PLAIN);
	near(&p, "send", 10, MSG_MORE | MSG_EOR);
	near(&p, "send", 10, MSG_MORE);
	near(&p, "send", 10, 0);
	show_answer(&p, "SP-18 SP-19 F12", "10 with MSG_EOR and MSG_MORE, 10 with MSG_MORE, 10");
	ack_and_swallow(&p);
	show_answer(&p, "SP-18 SP-19 F12", "all acknowledged");
	peer_drop(&p);
}

static void mss(void)
{
	static const struct { const char *rows; int mss, window; } peers[] = {
		{"D1", 1460, 65535}, {"D1", 536, 65535}, {"D2", 0, 65535},  {"D2 SO-117", 20, 65535},
		{"D3", 1460, 2000},  {"D3", 1460, 1000}, {"D3", 1460, 300},
	};
	no_push = true;
	for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
		struct shape how = PLAIN;
		how.mss = peers[i].mss, how.window = peers[i].window;
		struct peer p = peer_connected(how);
		near(&p, "send", 1500, 0);
		show_answer(&p, peers[i].rows, "1500 bytes to a peer with mss %d, window %d",
		     peers[i].mss, peers[i].window);
		peer_drop(&p);
	}
	no_push = false;
}

static void urgent(void)
{
	struct peer p = peer_connected(PLAIN);
	near(&p, "send", 3, MSG_OOB);
	show_answer(&p, "RV-21 G3", "3 bytes with MSG_OOB");
	peer_drop(&p);
}

static void closes(void)
{
	struct peer p = peer_connected(PLAIN);
	near(&p, "close");
	show_answer(&p, "ER-71", "close, nothing unread");
	segment_at(&p, RST | ACK, p.seq, p.ack, 0);

	p = peer_connected(PLAIN);
	segment_send(&p, ACK | PSH, 10);
	near(&p, "poll", 1);
	swallow_answer(&p);
	near(&p, "close");
	show_answer(&p, "ER-72", "close with data unread");

	p = peer_connected(PLAIN);
	near(&p, "linger", 0);
	near(&p, "close");
	show_answer(&p, "ER-73", "close with SO_LINGER {1, 0}");

	p = peer_connected(PLAIN);
	segment_send(&p, ACK | FIN, 0);
	near(&p, "poll", 1);
	swallow_answer(&p);
	near(&p, "close");
	show_answer(&p, "ER-75", "close in CLOSE_WAIT");
	ack_all(&p);
	show(&p, QUIET, "ER-75", "its FIN acknowledged");

	p = peer_connected(PLAIN);
	near(&p, "shutdown", SHUT_RD);
	show(&p, QUIET, "ER-81", "shutdown(SHUT_RD)");
	segment_send(&p, ACK | PSH, 10);
	show_answer(&p, "ER-81", "data after it");
	peer_drop(&p);

	p = peer_connected(PLAIN);
	near(&p, "close");
	swallow_answer(&p);
	ack_all(&p);
	segment_send(&p, ACK | PSH, 10);
	show_answer(&p, "ER-77 RV-49", "data to a closed socket in FIN_WAIT2");
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	nagle();
	cork();
	more_and_eor();
	mss();
	urgent();
	closes();
	puts("done");
	return 0;
}
