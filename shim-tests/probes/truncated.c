/* A file that is truncated while sendfile's bytes of it wait to be sent, or pages that are unmapped while a zerocopy send's do.
 *
 *   truncated HOST PORT file|pages
 *
 * The peer program (peer.c) reads nothing until it is told to. Prints how the connection fared, and whether each zerocopy
 * send completed; the process lives in any case.
 */
#include "show.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

enum { SIZE = 4 << 20 };

static int pending_error(int fd)
{
	int error = -1;
	socklen_t size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

static int fd, file, sends, done;
static char *pages;
static off_t sent;

static int completed(void)
{
	char control[128];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	struct sock_extended_err e;
	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
		return 0;
	memcpy(&e, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof e);
	return (int)(e.ee_data - e.ee_info + 1);
}

static ssize_t send_some(int by_file)
{
	size_t left = (size_t)(SIZE - sent);
	if (by_file)
		return sendfile(fd, file, &sent, left);
	ssize_t n = send(fd, pages + sent, left, MSG_ZEROCOPY);
	if (n > 0) {
		sent += n;
		sends++;
	}
	return n;
}

/* Sends until the peer's window is shut. */
static void fill(int by_file)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int full;
	do {
		while (send_some(by_file) > 0)
			;
		full = errno == EAGAIN;
		/* Of zerocopy sends some are through. */
		done += completed();
	} while (sent < SIZE && full && poll(&p, 1, 300) == 1);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: truncated HOST PORT file|pages");
	int port = atoi(argv[2]), by_file = !strcmp(argv[3], "file"), on = 1;
	fd = peer(argv[1], port, "gated");
	file = memfd_create("file", MFD_CLOEXEC);
	pages = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (file < 0 || ftruncate(file, SIZE) || pages == MAP_FAILED)
		err(2, "what is sent");
	memset(pages, 'p', SIZE);
	if (!by_file && setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(2, "SO_ZEROCOPY");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	fill(by_file);
	if (ftruncate(file, 0) || munmap(pages, SIZE))
		err(2, "ftruncate, munmap");
	close(peer(argv[1], port, "open"));
	int error = 0, unsent = 1;
	while (!error && unsent) {
		error = pending_error(fd);
		if (!error && ioctl(fd, SIOCOUTQ, &unsent))
			err(2, "SIOCOUTQ");
		poll(NULL, 0, 1);
	}
	printf("%s\n", error ? strerrorname_np(error) : "all sent");
	while (!by_file && done < sends) {
		poll(&(struct pollfd){.fd = fd}, 1, -1);
		done += completed();
	}
	printf("%s\n", by_file || done == sends ? "complete" : "more completions than sends");
	return 0;
}
