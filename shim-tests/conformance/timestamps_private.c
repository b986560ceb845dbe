/* Transmit timestamps where net.core.tstamp_allow_data is 0: those that carry their data
 * are for programs that may open packet sockets (row TS-43).
 *
 *   timestamps_private HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>

#define STAMPS (SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE)

static const char *host;
static int port;

static void stamps_of(int fd, const char *text, unsigned int flags)
{
	char data[64];
	int got = 0;
	ssize_t payload = 0;
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
		err(2, "SO_TIMESTAMPING");
	send_text(fd, "stamped");
	wait_until_acked(fd);
	struct iovec part = {data, sizeof data};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	for (ssize_t n; (n = recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT)) >= 0; got++)
		payload += n > 0;
	row("TS-43", "%s: %d stamps, %zd with data", text, got, payload);
}

static void opened_by(const char *who)
{
	char text[64];
	int fd = peer(host, port, "discard");
	wait_until_acked(fd);
	snprintf(text, sizeof text, "%s, the frame", who);
	stamps_of(fd, text, STAMPS);
	snprintf(text, sizeof text, "%s, OPT_TSONLY", who);
	stamps_of(fd, text, STAMPS | SOF_TIMESTAMPING_OPT_TSONLY);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	FILE *setting = fopen("/proc/sys/net/core/tstamp_allow_data", "w");
	row("TS-43", "the namespace has the setting: %d", setting != NULL);
	if (setting && (fputs("0", setting) < 0 || fclose(setting)))
		err(2, "tstamp_allow_data");
	opened_by("with the capability");
	have_capability(CAP_NET_RAW, 0);
	opened_by("without");
	have_capability(CAP_NET_RAW, 1);
	puts("done");
	return 0;
}
