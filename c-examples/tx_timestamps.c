/* When did a message leave, and when did the peer have it? Sends a line with
 * SO_TIMESTAMPING and reads the stamps from the error queue: SCHED when it reached
 * the queue of the device, SND when the device took it, ACK when its last byte was
 * acknowledged.
 *
 *   tx_timestamps HOST PORT LINE
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *const stages[] = {
	[SCM_TSTAMP_SND] = "taken by the device",
	[SCM_TSTAMP_SCHED] = "queued",
	[SCM_TSTAMP_ACK] = "acknowledged",
};

/* One stamp; the time of the stage in nanoseconds. False when there is none yet. */
static int take_stamp(int fd, uint32_t *stage, uint32_t *last_byte, int64_t *when)
{
	union {
		char bytes[256];
		struct cmsghdr align;
	} control;
	struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control};
	if (recvmsg(fd, &message, MSG_ERRQUEUE) < 0) {
		if (errno == EAGAIN)
			return 0;
		err(1, "error queue");
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPING) {
			struct scm_timestamping t;
			memcpy(&t, CMSG_DATA(c), sizeof t);
			*when = t.ts[0].tv_sec * INT64_C(1000000000) + t.ts[0].tv_nsec;
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) {
			struct sock_extended_err e;
			memcpy(&e, CMSG_DATA(c), sizeof e);
			if (e.ee_errno != ENOMSG || e.ee_origin != SO_EE_ORIGIN_TIMESTAMPING)
				errx(1, "an entry of another kind: %s", strerror((int)e.ee_errno));
			*stage = e.ee_info;
			*last_byte = e.ee_data;
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: tx_timestamps HOST PORT LINE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	/* OPT_ID numbers the bytes from here, TSONLY leaves the data out of the entries. */
	unsigned int flags = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE |
			     SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
			     SOF_TIMESTAMPING_OPT_TSONLY;
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
		err(1, "SO_TIMESTAMPING");
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t begin = now.tv_sec * INT64_C(1000000000) + now.tv_nsec, before = begin;
	if (send(fd, argv[3], strlen(argv[3]), 0) < 0)
		err(1, "send");
	for (uint32_t stage = SCM_TSTAMP_SCHED, last_byte = 0; stage != SCM_TSTAMP_ACK;) {
		int64_t when = 0;
		if (!take_stamp(fd, &stage, &last_byte, &when)) {
			/* POLLERR, which is always reported, says that the error queue has something. */
			struct pollfd p = {.fd = fd};
			if (poll(&p, 1, 5000) == 0)
				errx(1, "no stamp came within 5 s");
			continue;
		}
		if (stage >= sizeof stages / sizeof *stages)
			errx(1, "stage %u", stage);
		printf("byte %u %s", last_byte, stages[stage]);
		fprintf(stderr, "%10.1f us %s\n", (double)(when - begin) / 1e3, stages[stage]);
		puts(when >= before ? "" : ", before the stage before");
		before = when;
	}
	close(fd);
	return 0;
}
