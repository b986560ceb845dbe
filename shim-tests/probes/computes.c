/* Connects to HOST PORT, reads what there is, which is nothing, and then has nothing to do with its connection until FILE is
 * there.
 *
 *   computes HOST PORT FILE
 */
#include "show.h"

int main(int argc, char **argv)
{
	static char data[1000];
	if (argc != 4)
		errx(2, "usage: computes HOST PORT FILE");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int fd = tcp_socket();
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	if (recv(fd, data, sizeof data, MSG_DONTWAIT) < 0 && errno != EAGAIN)
		err(2, "recv");
	while (access(argv[3], F_OK))
		continue;
	return 0;
}
