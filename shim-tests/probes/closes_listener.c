/* A server that gives its privileges up, if told to, accepts one connection, and closes its listener.
 *
 *   closes_listener PORT [UID]     says "listening" and "closed", then stays
 */
#include "show.h"

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int listener = tcp_socket();
	if (argc < 2)
		errx(2, "usage: closes_listener PORT [UID]");
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1))
		err(2, "listen");
	if (argc > 2 && setuid((uid_t)atoi(argv[2])))
		err(2, "setuid");
	puts("listening");
	fflush(stdout);
	if (accept(listener, NULL, NULL) < 0)
		err(2, "accept");
	close(listener);
	puts("closed");
	fflush(stdout);
	for (;;)
		pause();
}
