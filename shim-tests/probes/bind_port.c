/* Tries to take a port that another program may have.
 *
 *   bind_port ADDRESS PORT [reuse]
 */
#include "show.h"

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(2, "usage: bind_port ADDRESS PORT [reuse]");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int on = argc > 3, fd = tcp_socket();
	if (on && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on))
		err(2, "SO_REUSEADDR");
	if (SHOW(bind(fd, (struct sockaddr *)&a, sizeof a)) == 0)
		SHOW(listen(fd, 1));
	return 0;
}
