/* Sends back what it gets, one connection after another.
 *
 *   echo_server PORT [COUNT]     ends after COUNT connections, never without
 */
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void echo(int fd)
{
	char buffer[16384];
	ssize_t n;
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		for (ssize_t done = 0, m; done < n; done += m)
			if ((m = write(fd, buffer + done, (size_t)(n - done))) < 0) {
				warn("write");
				return;
			}
	if (n < 0)
		warn("read");
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "usage: echo_server PORT [COUNT]");
	long left = argc > 2 ? atol(argv[2]) : -1;
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 16))
		err(1, "port %s", argv[1]);
	while (left < 0 || left-- > 0) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			err(1, "accept");
		echo(fd);
		close(fd);
	}
	return 0;
}
