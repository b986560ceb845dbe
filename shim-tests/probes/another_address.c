/* One exchange, and another one when somebody writes to a FIFO: what lies between them is the test's.
 *
 *   another_address HOST PORT FIFO     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>

int main(int argc, char **argv)
{
	char byte;
	if (argc != 4)
		errx(2, "usage: another_address HOST PORT FIFO");
	int fd = peer(argv[1], atoi(argv[2]), "echo");
	echoed(fd, "before");
	int fifo = open(argv[3], O_RDONLY);
	if (fifo < 0 || read(fifo, &byte, 1) != 1)
		err(2, "%s", argv[3]);
	echoed(fd, "after");
	return 0;
}
