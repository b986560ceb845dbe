/* Connects at once, and who accepts them.
 *
 *   crowd server PORT N        accepts N connections at PORT, and ends
 *   crowd client HOST PORT N   begins N connects there, then waits for all of them
 */
#include "show.h"

#include <fcntl.h>
#include <sys/resource.h>

static void listen_at(int port, int n)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1, fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, n))
		err(2, "listen");
	while (n--)
		if (accept(fd, NULL, NULL) < 0)
			err(2, "accept");
}

static void connect_to(const char *host, int port, int n)
{
	struct sockaddr_in a = address(host, port);
	struct pollfd *all = calloc((size_t)n, sizeof *all);
	for (int i = 0; i < n; i++) {
		all[i] = (struct pollfd){.fd = tcp_socket(), .events = POLLOUT};
		fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
		if (connect(all[i].fd, (struct sockaddr *)&a, sizeof a) == 0 || errno != EINPROGRESS)
			err(2, "connect");
	}
	for (int i = 0; i < n; i++)
		wait_for(all[i].fd, POLLOUT);
	free(all);
}

int main(int argc, char **argv)
{
	struct rlimit files = {4096, 4096};
	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 4 && !strcmp(argv[1], "server"))
		listen_at(atoi(argv[2]), atoi(argv[3]));
	else if (argc == 5 && !strcmp(argv[1], "client"))
		connect_to(argv[2], atoi(argv[3]), atoi(argv[4]));
	else
		errx(2, "usage: crowd server PORT N, or crowd client HOST PORT N");
	return 0;
}
