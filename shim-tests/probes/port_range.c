/* IP_LOCAL_PORT_RANGE: which ports a connect chooses from.
 *
 *   port_range HOST PORT     the peer program listens there
 */
#include "show.h"

#include <netinet/in.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

enum { ALL = 4 };

/* Connections with ports from a range, until no more can be had; bound without a port where `early`. */
static void from(const char *host, int port, unsigned low, unsigned high, int early)
{
	struct sockaddr_in to = address(host, port), here = {.sin_family = AF_INET};
	unsigned range = low | high << 16;
	int fds[ALL], on = 1;
	printf("# %u to %u%s\n", low, high, early ? ", bound without a port" : "");
	for (int i = 0; i < ALL; i++) {
		socklen_t length = sizeof here;
		fds[i] = tcp_socket();
		SHOW(setsockopt(fds[i], IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range));
		if (early) {
			setsockopt(fds[i], IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
			here = (struct sockaddr_in){.sin_family = AF_INET};
			SHOW(bind(fds[i], (struct sockaddr *)&here, sizeof here));
		}
		if (SHOW(connect(fds[i], (struct sockaddr *)&to, sizeof to)))
			continue;
		getsockname(fds[i], (struct sockaddr *)&here, &length);
		SHOW(ntohs(here.sin_port) >= low && ntohs(here.sin_port) <= high);
	}
	for (int i = 0; i < ALL; i++) {
		struct linger at_once = {.l_onoff = 1};
		setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		close(fds[i]);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: port_range HOST PORT");
	from(argv[1], atoi(argv[2]), 40100, 40102, 0);
	from(argv[1], atoi(argv[2]), 40110, 40110, 0);
	from(argv[1], atoi(argv[2]), 40120, 40121, 1);
	puts("done");
	return 0;
}
