/* A server of one client.
 *
 *   one_client exits PORT [UID]     ends with the connection and the listener open, once it has had a byte
 *   one_client stays PORT [UID]     closes the listener, says "closed", and stays
 *
 * It says "listening", and has given its privileges up by then, if told to.
 */
#include "show.h"

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int listener = tcp_socket(), on = 1, fd;
	char byte;
	if (argc < 3)
		errx(2, "usage: one_client exits|stays PORT [UID]");
	a.sin_port = htons((uint16_t)atoi(argv[2]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 1))
		err(2, "listen");
	if (argc > 3 && setuid((uid_t)atoi(argv[3])))
		err(2, "setuid");
	puts("listening");
	fflush(stdout);
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		err(2, "accept");
	if (!strcmp(argv[1], "exits"))
		return recv(fd, &byte, 1, 0) == 1 ? 0 : 1;
	close(listener);
	puts("closed");
	fflush(stdout);
	for (;;)
		pause();
}
