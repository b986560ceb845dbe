/* Two listeners on one port (SO_REUSEPORT), the second when the first listens already: as nginx with `reuseport`, unbound and
 * haproxy have them.
 *
 *   reuse_group HOST PORT     the peer program listens there
 */
#include "show.h"

#define CLIENTS 16

static const char *host;
static int port;

static void call(int at)
{
	char command[32];
	snprintf(command, sizeof command, "call %d", at);
	close(peer(host, port, command));
}

/* What the peer says first, and then echoes. */
static int talk(int fd)
{
	char said[6];
	return recv(fd, said, sizeof said, MSG_WAITALL) == sizeof said && send(fd, "x", 1, MSG_NOSIGNAL) == 1 &&
	       recv(fd, said, 1, 0) == 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	int on = 1, answered = 0;
	if (argc != 3)
		errx(2, "usage: reuse_group HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	for (int n = 0; n < 2; n++) {
		p[n].fd = tcp_socket();
		SHOW(setsockopt(p[n].fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
		SHOW(bind(p[n].fd, (struct sockaddr *)&a, sizeof a));
		SHOW(listen(p[n].fd, CLIENTS));
		getsockname(p[n].fd, (struct sockaddr *)&a, &len);
	}
	int alone = tcp_socket();
	SHOW(bind(alone, (struct sockaddr *)&a, sizeof a));
	for (int n = 0; n < CLIENTS; n++) {
		call(ntohs(a.sin_port));
		if (poll(p, 2, 5000) < 1)
			break;
		int fd = accept(p[0].revents ? p[0].fd : p[1].fd, NULL, NULL);
		answered += fd >= 0 && talk(fd);
		close(fd);
	}
	SHOW(answered);
	puts("done");
	return 0;
}
