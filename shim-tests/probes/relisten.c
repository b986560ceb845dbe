/* A port that begins and ceases to listen while somebody knocks at it.
 *
 *   relisten listen PORT COUNT   listens and closes so many times
 *   relisten knock HOST PORT     sends SYNs, one after the other, until it is killed
 */
#include <arpa/inet.h>
#include <err.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* With `linger` it waits for a client, if only for a moment: otherwise nobody may come in time, or be heard. */
static void listen_once(const struct sockaddr_in *at, int linger)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (const struct sockaddr *)at, sizeof *at) || listen(fd, 16))
		err(1, "listen");
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (linger)
		poll(&p, 1, 1);
	close(fd);
}

/* A socket that closes in SYN_SENT says nothing more. */
static void knock_once(const struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		err(1, "socket");
	(void)connect(fd, (const struct sockaddr *)at, sizeof *at);
	close(fd);
}

int main(int argc, char **argv)
{
	int knocks = argc == 4 && !strcmp(argv[1], "knock");
	if (!knocks && !(argc == 4 && !strcmp(argv[1], "listen")))
		errx(2, "usage: relisten listen PORT COUNT | relisten knock HOST PORT");
	const char *host = knocks ? argv[2] : "0.0.0.0", *port = argv[knocks ? 3 : 2];
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (inet_pton(AF_INET, host, &at.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	if (knocks)
		for (;;)
			knock_once(&at);
	for (int i = atoi(argv[3]); i > 0; i--)
		listen_once(&at, i % 2);
	return 0;
}
