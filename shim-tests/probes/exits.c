/* A server that ends with a connection and its listener open, once it has had a byte.
 *
 *   exits PORT [UID]     gives its privileges up in between, if told to; says "listening"
 */
#include "show.h"

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int listener = tcp_socket(), on = 1, fd;
	char byte;
	if (argc < 2)
		errx(2, "usage: exits PORT [UID]");
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1))
		err(2, "listen");
	if (argc > 2 && setuid((uid_t)atoi(argv[2])))
		err(2, "setuid");
	puts("listening");
	fflush(stdout);
	fd = accept(listener, NULL, NULL);
	if (fd < 0 || recv(fd, &byte, 1, 0) != 1)
		err(2, "accept");
	return 0;
}
