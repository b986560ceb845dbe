/* Fast open where net.ipv4.tcp_fastopen forbids it to clients (rows FO-2, FO-33). */
#include "rows.h"

#include <netinet/tcp.h>

static void forbid(void)
{
	FILE *setting = fopen("/proc/sys/net/ipv4/tcp_fastopen", "w");
	if (!setting || fputs("2", setting) < 0 || fclose(setting))
		err(2, "tcp_fastopen");
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	forbid();
	int on = 1, two = 2, fd = tcp_socket();
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	struct sockaddr *name = (struct sockaddr *)&a;
	ROW("FO-2", "MSG_FASTOPEN", sendto(fd, "x", 1, MSG_FASTOPEN, name, sizeof a));
	ROW("FO-2", "MSG_FASTOPEN without a name", send(fd, "x", 1, MSG_FASTOPEN));
	ROW("FO-2", "MSG_FASTOPEN with a name of one byte", sendto(fd, "x", 1, MSG_FASTOPEN, name, 1));
	ROW("FO-33 FO-32", "TCP_FASTOPEN_CONNECT 2",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &two, sizeof two));
	ROW("FO-33", "TCP_FASTOPEN_CONNECT 1",
	    setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
	row("FO-33", "it reads: %d", int_option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT));
	ROW("FO-2", "a plain connect", connect(fd, name, sizeof a));
	ROW("FO-2", "MSG_FASTOPEN when connected", send(fd, "x", 1, MSG_FASTOPEN));
	close(fd);
	puts("done");
	return 0;
}
