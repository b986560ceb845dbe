/* How long a burst waits in a slow queueing discipline, by its SCHED and SND stamps.
 *
 *   stamp_gap HOST PORT BYTES MS    prints whether that is MS milliseconds or more
 *
 * The peer program (peer.c) listens at HOST:PORT.
 */
#include "show.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <time.h>

/* The time of the next stamp, in nanoseconds, and its kind. */
static int64_t stamp(int fd, unsigned *kind)
{
	char control[256];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	struct timespec t = {0};
	struct sock_extended_err e = {0};
	wait_for(fd, 0);
	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
		err(2, "error queue");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level == SOL_SOCKET)
			memcpy(&t, CMSG_DATA(c), sizeof t);
		else
			memcpy(&e, CMSG_DATA(c), sizeof e);
	}
	*kind = e.ee_info;
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	static char data[1 << 16];
	if (argc != 5)
		errx(2, "usage: stamp_gap HOST PORT BYTES MS");
	int fd = peer(argv[1], atoi(argv[2]), "discard");
	for (int unacked = 1; unacked;)
		if (ioctl(fd, SIOCOUTQ, &unacked))
			err(2, "SIOCOUTQ");
	int flags = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
		    SOF_TIMESTAMPING_OPT_TSONLY;
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
		err(2, "SO_TIMESTAMPING");
	if (send(fd, data, (size_t)atol(argv[3]), 0) != atol(argv[3]))
		err(2, "send");
	/* A loss probe may be queued meanwhile: it has stamps of its own. */
	unsigned kind;
	int64_t queued = stamp(fd, &kind), left;
	if (kind != SCM_TSTAMP_SCHED)
		errx(2, "the first stamp is of kind %u", kind);
	do
		left = stamp(fd, &kind);
	while (kind == SCM_TSTAMP_SCHED);
	fprintf(stderr, "%.1f ms\n", (double)(left - queued) / 1e6);
	puts(left - queued >= atol(argv[4]) * 1000000 ? "it waited" : "it left at once");
	close(fd);
	return 0;
}
