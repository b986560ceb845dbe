/* A listener that takes fast opens: with a valid cookie in the SYN the request is there
 * before the handshake is over, and so may be the answer.
 *
 *   fastopen_server PORT CONNECTIONS
 *
 * net.ipv4.tcp_fastopen needs bit 2 here.
 */
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: fastopen_server PORT CONNECTIONS");
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
	int on = 1, pending = 16, listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(listener, (struct sockaddr *)&here, sizeof here))
		err(1, "port %s", argv[1]);
	/* So many may wait whose handshake is not over. */
	if (setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &pending, sizeof pending))
		err(1, "TCP_FASTOPEN");
	if (listen(listener, 16))
		err(1, "listen");
	for (int left = atoi(argv[2]); left > 0; left--) {
		char request[512];
		ssize_t n;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			err(1, "accept");
		while ((n = recv(fd, request, sizeof request, 0)) > 0)
			if (send(fd, request, (size_t)n, 0) != n)
				err(1, "send");
		if (n < 0)
			err(1, "recv");
		close(fd);
	}
	return 0;
}
