/* While it sends, each new descriptor gets the lowest free number.
 *
 *   lowest_number HOST PORT BYTES
 */
#include "show.h"

int main(int argc, char **argv)
{
	static char bytes[1 << 16];
	if (argc != 4)
		errx(2, "usage: lowest_number HOST PORT BYTES");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int fd = tcp_socket(), wrong = 0;
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	for (long left = atol(argv[3]); left > 0;) {
		ssize_t n = send(fd, bytes, sizeof bytes, MSG_DONTWAIT);
		if (n > 0)
			left -= n;
		else if (errno != EAGAIN)
			err(2, "send");
		for (int i = 0; i < 50; i++) {
			int new = dup(fd);
			wrong += new != fd + 1;
			close(new);
		}
	}
	printf("%d wrong\n", wrong);
	return 0;
}
