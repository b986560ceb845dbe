/* Sends COUNT bursts to whoever connects to PORT, each when the one before is acknowledged: two full segments, of which the
 * second is acknowledged at once (RFC 5681 section 4.2).
 *
 *   bursts PORT COUNT
 */
#include "show.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	static char data[2 * 65536];
	int one = 1, mss;
	socklen_t len = sizeof mss;
	if (argc != 3)
		errx(2, "usage: bursts PORT COUNT");
	int listening = tcp_socket();
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
	if (setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	    bind(listening, (struct sockaddr *)&a, sizeof a) || listen(listening, 1))
		err(2, "listen");
	int fd = accept(listening, NULL, NULL);
	if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &len))
		err(2, "accept");
	for (int n = atoi(argv[2]); n > 0; n--) {
		if (send(fd, data, 2 * (size_t)mss, MSG_NOSIGNAL) != 2 * mss)
			err(2, "send");
		for (int queued = 1; queued > 0;)
			if (ioctl(fd, SIOCOUTQ, &queued))
				err(2, "SIOCOUTQ");
	}
	puts("acknowledged");
	return 0;
}
