/* TCP Fast Open: a request in the SYN. The first connection to a host asks for a
 * cookie, the later ones send their data with it and save a round trip.
 *
 *   fastopen_client HOST PORT LINE
 *
 * net.ipv4.tcp_fastopen needs bit 1 here (the default) and bit 2 at the server.
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The bit of tcpi_options that says that the SYN's data was acknowledged. */
#define SYN_DATA_ACKED 0x20

static void ask(const struct sockaddr_in *there, const char *line)
{
	char answer[512];
	size_t length = strlen(line), got = 0;
	struct tcp_info info;
	socklen_t size = sizeof info;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	/* In place of connect and send. */
	if (fd < 0 || sendto(fd, line, length, MSG_FASTOPEN, (const struct sockaddr *)there,
			     sizeof *there) != (ssize_t)length)
		err(1, "sendto");
	while (got < length) {
		ssize_t n = recv(fd, answer + got, sizeof answer - got, 0);
		if (n <= 0)
			err(1, "recv");
		got += (size_t)n;
	}
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size))
		err(1, "TCP_INFO");
	printf("%.*s: %s\n", (int)got, answer,
	       info.tcpi_options & SYN_DATA_ACKED ? "with the SYN" : "after the handshake");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4 || strlen(argv[3]) > 512)
		errx(2, "usage: fastopen_client HOST PORT LINE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	ask(&there, argv[3]);
	ask(&there, argv[3]);
	return 0;
}
