/* Sends 1000 times 'a' by MSG_ZEROCOPY, and overwrites them with 'b' before the
 * peer has acknowledged them.
 *
 *   overwritten HOST PORT
 */
#include "show.h"

int main(int argc, char **argv)
{
	static char data[1000];
	if (argc != 3)
		errx(2, "usage: overwritten HOST PORT");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int fd = tcp_socket(), on = 1;
	if (connect(fd, (struct sockaddr *)&a, sizeof a) ||
	    setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(2, "connect");
	memset(data, 'a', sizeof data);
	if (send(fd, data, sizeof data, MSG_ZEROCOPY) != sizeof data)
		err(2, "send");
	memset(data, 'b', sizeof data);
	/* The completion. */
	wait_for(fd, 0);
	close(fd);
	return 0;
}
