/* Descriptor 2 is a connection, as in a server that inetd has started, and a pipe that nobody
 * reads: what the library has to say is not for these.
 *
 *   not_stderr HOST PORT     the peer program listens there
 */
#include "show.h"

#include <stdlib.h>

/* Something that the library tells at the level of `info`. */
static void something_to_say(const char *host, int port)
{
	int fd = peer(host, port, "echo");
	char buffer[8];
	send_text(fd, "beside");
	receive_exactly(fd, buffer, 6);
	printf("%.6s\n", buffer);
	fflush(stdout);
	SHOW(close(fd));
}

int main(int argc, char **argv)
{
	char buffer[512];
	ssize_t n;
	size_t got = 0;
	int ends[2];
	if (argc != 3)
		errx(2, "usage: not_stderr HOST PORT");
	const char *host = argv[1];
	int port = atoi(argv[2]), before = dup(2);
	if (before < 0 || setenv("SIDEWIRE_LOG", "info", 1))
		err(2, "before");

	puts("# standard error is a connection");
	int fd = peer(host, port, "echo");
	SHOW(dup2(fd, 2));
	SHOW(close(fd));
	something_to_say(host, port);
	send_text(2, "mine");
	SHOW(shutdown(2, SHUT_WR));
	while (got < sizeof buffer && (n = read(2, buffer + got, sizeof buffer - got)) > 0)
		got += (size_t)n;
	printf("echoed: %.*s\n", (int)got, buffer);

	puts("# standard error is a pipe that nobody reads");
	if (pipe(ends))
		return 2;
	SHOW(dup2(ends[1], 2));
	SHOW(close(ends[0]));
	SHOW(close(ends[1]));
	something_to_say(host, port);
	SHOW(dup2(before, 2));
	puts("done");
	return 0;
}
