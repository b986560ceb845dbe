/* Connects to the peer program, says what reordering is known of it, and ends.
 *
 *   reordering HOST PORT
 */
#include "show.h"

#include <netinet/tcp.h>

int main(int argc, char **argv)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	if (argc != 3)
		errx(2, "usage: reordering HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "discard");
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size))
		err(2, "TCP_INFO");
	printf("%u\n", info.tcpi_reordering);
	return 0;
}
