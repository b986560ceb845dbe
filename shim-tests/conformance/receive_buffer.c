/* The receive buffer grows with what a reader takes, unless its size was set (row TM-25).
 *
 *   receive_buffer HOST PORT     the peer program listens there
 */
#include "rows.h"

static const char *host;
static int port;

static void read_to_the_end(const char *text, int set)
{
	static char buffer[1 << 16];
	int size = 100000, fd = tcp_socket();
	struct sockaddr_in a = address(host, port);
	if (set && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size))
		err(2, "SO_RCVBUF");
	int before = int_option(fd, SOL_SOCKET, SO_RCVBUF), after;
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	send_text(fd, "send 30000000\n");
	for (long left = 30000000, n; left; left -= n)
		if ((n = recv(fd, buffer, sizeof buffer, 0)) <= 0)
			err(2, "recv");
	after = int_option(fd, SOL_SOCKET, SO_RCVBUF);
	row("TM-25 SO-119", "%s: %d at first, larger after 30 MB %d", text, before, after > before);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	read_to_the_end("SO_RCVBUF not set", 0);
	read_to_the_end("SO_RCVBUF set", 1);
	puts("done");
	return 0;
}
