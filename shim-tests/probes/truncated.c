/* A file that is truncated while sendfile's bytes of it wait to be sent.
 *
 *   truncated HOST PORT
 *
 * The peer program (peer.c) reads nothing until it is told to. Prints how the
 * connection fared; the process lives in any case.
 */
#include "show.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

enum { SIZE = 4 << 20 };

static int pending_error(int fd)
{
	int error = -1;
	socklen_t size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: truncated HOST PORT");
	int port = atoi(argv[2]);
	int fd = peer(argv[1], port, "gated"), file = memfd_create("file", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, SIZE))
		err(2, "memfd");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	off_t sent = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	do {
		while (sendfile(fd, file, &sent, (size_t)(SIZE - sent)) > 0)
			;
		/* Until the peer's window is shut. */
	} while (sent < SIZE && poll(&p, 1, 300) == 1);
	if (ftruncate(file, 0))
		err(2, "ftruncate");
	close(peer(argv[1], port, "open"));
	int error = 0, unsent = 1;
	while (!error && unsent) {
		error = pending_error(fd);
		if (!error && ioctl(fd, SIOCOUTQ, &unsent))
			err(2, "SIOCOUTQ");
		poll(NULL, 0, 1);
	}
	printf("%s\n", error ? strerrorname_np(error) : "all sent");
	return 0;
}
