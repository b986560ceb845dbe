/* Many connections one after the other, closed here first, in a process that may have few descriptors: what stays of them
 * takes none.
 *
 *   few_descriptors HOST PORT     the peer program listens there
 */
#include "show.h"

#include <sys/resource.h>

#define DESCRIPTORS 64
#define CONNECTIONS 300

int main(int argc, char **argv)
{
	struct rlimit limit = {DESCRIPTORS, DESCRIPTORS};
	if (argc != 3)
		errx(2, "usage: few_descriptors HOST PORT");
	SHOW(setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < CONNECTIONS; i++) {
		char byte;
		int fd = peer(argv[1], atoi(argv[2]), "discard");
		if (shutdown(fd, SHUT_WR) || recv(fd, &byte, 1, 0) != 0)
			err(2, "connection %d", i);
		close(fd);
	}
	/* The rest is the program's. */
	int others[DESCRIPTORS], open = 0;
	while (open < DESCRIPTORS && (others[open] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0)
		open++;
	SHOW(open > DESCRIPTORS / 2);
	while (open > 0)
		close(others[--open]);
	puts("done");
	return 0;
}
