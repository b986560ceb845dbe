/* Transmit timestamps of what is sent again. */
#include "lib/rawpeer.h"

#include <time.h>

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* The kinds of the stamps that are there, in order. */
static void stamps(struct peer *p, const char *text)
{
	char said[128] = "";
	for (long kind; (kind = near(p, "stamp")) >= 0;) {
		const char *name = kind == SCM_TSTAMP_SND     ? " SND" :
				   kind == SCM_TSTAMP_SCHED ? " SCHED" :
				   kind == SCM_TSTAMP_ACK   ? " ACK" : " ?";
		strncat(said, name, sizeof said - strlen(said) - 1);
	}
	row("TS-40", "stamps %s:%s", text, said);
}

static void again(void)
{
	struct peer p = peer_connected(PLAIN);
	struct segment s;
	near(&p, "set", SOL_SOCKET, SO_TIMESTAMPING,
	     SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK |
		     SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY);
	near(&p, "send", 100, 0);
	show_answer(&p, "TS-40", "100 bytes");
	stamps(&p, "of the first copy");
	if (!next(&p, &s, 2000))
		row("TS-40", "nothing was sent again");
	stamps(&p, "of the second");
	ack_all(&p);
	swallow(&p, QUIET);
	stamps(&p, "when it is acknowledged");
	peer_drop(&p);
}

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	again();
	puts("done");
	return 0;
}
