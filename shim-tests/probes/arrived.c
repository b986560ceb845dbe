/* What has arrived before a call counts in it, though nobody has looked at the socket since: the peer says by a datagram
 * that it has sent.
 *
 *   arrived HOST PORT     the peer program listens there
 */
#include "show.h"
#include "told.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>

static const char *host;
static int port;

/* A connection at which the peer program takes steps; %d in them is where it tells. */
static int taking(const char *steps)
{
	char command[200];
	snprintf(command, sizeof command, steps, told_port, told_port);
	return peer(host, port, command);
}

static void wait_to_be_told(void)
{
	char words[64];
	if (recv(told, words, sizeof words, 0) < 0)
		err(2, "not told");
}

static void look(const char *when, int fd)
{
	char buffer[16];
	printf("%s: %zd\n", when, recv(fd, buffer, sizeof buffer, MSG_PEEK | MSG_DONTWAIT));
	fflush(stdout);
}

static void levels(const char *when, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
	poll(&p, 1, 0);
	printf("%s: %#x\n", when, (unsigned)p.revents);
	fflush(stdout);
}

/* Ids of timestamps count from what was acknowledged when they were asked for. */
static void acknowledged(void)
{
	static const char bytes[100];
	char control[256];
	struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof control};
	int fd = taking("steps await tell=%d eof");
	send(fd, bytes, sizeof bytes, 0);
	wait_to_be_told();
	option_set(fd, SOL_SOCKET, SO_TIMESTAMPING,
		   SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID);
	send(fd, bytes, 10, 0);
	wait_for(fd, 0);
	if (recvmsg(fd, &msg, MSG_ERRQUEUE) < 0)
		err(2, "error queue");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR)
			printf("id %u\n", ((struct sock_extended_err *)CMSG_DATA(c))->ee_data);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	host = argv[1];
	port = atoi(argv[2]);
	be_told();

	for (int i = 0; i < 5; i++) {
		acknowledged();

		int fd = taking("steps say=a tell=%d await say=b tell=%d eof");
		wait_to_be_told();
		look("one byte", fd);
		send_text(fd, "x");
		wait_to_be_told();
		look("and another", fd);
		close(fd);

		fd = taking("steps say=a tell=%d await reset tell=%d");
		wait_to_be_told();
		levels("one byte", fd);
		send_text(fd, "x");
		wait_to_be_told();
		levels("and a reset", fd);
		close(fd);
	}
	puts("done");
	return 0;
}
