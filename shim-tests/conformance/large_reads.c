/* Reads of what came in large frames: in pieces of every kind, from several connections in turn, looked at, thrown away, and
 * into memory that cannot be written (rows R5, RV-1, RV-12 to RV-16, RV-34).
 *
 *   large_reads HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum { MUCH = 200000, MANY = 70 };

static const char *host;
static int port;
static char out[MUCH], in[MUCH + 1];

/* A byte of the stream of a connection. */
static char byte_of(int which, long at)
{
	return (char)(at * 7 + at / 251 + which * 31);
}

/* A connection to whose other end MUCH bytes were given, all of which are back and unread. */
static int loaded(int which)
{
	int fd = tcp_socket(), queued = 0, space = 4 << 20;
	struct sockaddr_in a = address(host, port);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space))
		err(2, "SO_RCVBUF");
	if (connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	send_text(fd, "echo\n");
	for (long i = 0; i < MUCH; i++)
		out[i] = byte_of(which, i);
	for (long sent = 0; sent < MUCH; sent += 50000)
		if (send(fd, out + sent, 50000, 0) != 50000)
			err(2, "send");
	while (queued < MUCH) {
		if (ioctl(fd, FIONREAD, &queued))
			err(2, "FIONREAD");
		sched_yield();
	}
	return fd;
}

/* Whether `n` bytes at `bytes` are those of the stream from `at` on. */
static int right(int which, long at, const char *bytes, long n)
{
	for (long i = 0; i < n; i++)
		if (bytes[i] != byte_of(which, at + i))
			return 0;
	return 1;
}

static void piece_by_piece(void)
{
	static const int sizes[] = {1, 4095, 60000, 65160, 752, 30000, MUCH};
	int fd = loaded(1);
	long at = 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		long n = recv(fd, in, (size_t)sizes[i], 0);
		row("R5", "a read of %d: %ld, right %d", sizes[i], n, right(1, at, in, n));
		at += n;
	}
	close(fd);
}

static void in_turn(void)
{
	int fds[3];
	long at[3] = {0, 0, 0}, ok = 1;
	for (int i = 0; i < 3; i++)
		fds[i] = loaded(i);
	/* The last first; then in turn, by pieces that end anywhere. */
	for (int step = 0, which = 2; at[which] < MUCH; step++, which = (which + 2) % 3) {
		long n = recv(fds[which], in, (size_t)(20000 + step * 7919 % 50000), 0);
		ok &= n > 0 && right(which, at[which], in, n);
		at[which] += n;
	}
	row("R5", "three connections in turn: right %ld", ok);
	/* What nobody reads does not disturb the others. */
	close(fds[1]);
	for (int i = 0; i < 3; i += 2)
		while (at[i] < MUCH) {
			long n = recv(fds[i], in, sizeof in, 0);
			ok &= n > 0 && right(i, at[i], in, n);
			at[i] += n;
		}
	row("R5", "the other two, after the third was closed: right %ld", ok);
	close(fds[0]);
	close(fds[2]);
}

static void in_many_parts(void)
{
	struct iovec iov[MANY];
	int fd = loaded(4);
	for (int i = 0; i < MANY; i++)
		iov[i] = (struct iovec){in + i * 1001, 1001};
	long n = readv(fd, iov, MANY);
	row("R5", "readv of many parts: %ld, right %d", n, right(4, 0, in, n));
	close(fd);
}

static void looked_at(void)
{
	int fd = loaded(5), from = 1000;
	long n = recv(fd, in, 100000, MSG_PEEK);
	row("RV-12", "a look: %ld, right %d", n, right(5, 0, in, n));
	memset(in, 0, sizeof in);
	n = recv(fd, in, 70000, 0);
	row("RV-12", "a read after it: %ld, right %d", n, right(5, 0, in, n));
	n = recv(fd, in, 10, 0);
	row("R5", "ten bytes: %ld, right %d", n, right(5, 70000, in, n));
	n = recv(fd, in, 100000, MSG_PEEK);
	row("RV-12", "a look after a read: %ld, right %d", n, right(5, 70010, in, n));
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof from))
		err(2, "SO_PEEK_OFF");
	n = recv(fd, in, 90000, MSG_PEEK);
	row("RV-12", "a look from further on: %ld, right %d", n, right(5, 71010, in, n));
	n = recv(fd, in, MUCH, 0);
	row("RV-12", "the rest: %ld, right %d", n, right(5, 70010, in, n));
	close(fd);
}

static void thrown_away(void)
{
	int fd = loaded(6);
	ROW("RV-13", "thrown away", recv(fd, NULL, 70000, MSG_TRUNC));
	long n = recv(fd, in, 5, 0);
	row("RV-13", "five bytes behind it: %ld, right %d", n, right(6, 70000, in, n));
	ROW("RV-13", "thrown away again", recv(fd, NULL, 100000, MSG_TRUNC));
	n = recv(fd, in, MUCH, 0);
	row("RV-13", "the rest: %ld, right %d", n, right(6, 170005, in, n));
	close(fd);
}

static void to_nowhere(void)
{
	int fd = loaded(7);
	long page = sysconf(_SC_PAGESIZE);
	char *edge = mmap(NULL, (size_t)(2 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (edge == MAP_FAILED || mprotect(edge + page, (size_t)page, PROT_READ))
		err(2, "mmap");
	ROW("RV-16", "a read to nowhere", recv(fd, (void *)8, 100000, 0));
	ROW("RV-16", "a read of no bytes to nowhere", recv(fd, (void *)8, 0, 0));
	ROW("RV-16", "a look at nowhere", recv(fd, (void *)8, 100000, MSG_PEEK));
	ROW("RV-16", "a read into a page that may be read only", recv(fd, edge + page, 3000, 0));
	/* What a part of a read leaves in the buffer is nobody's business; what is lost is. */
	long n = recv(fd, in, MUCH, 0);
	row("RV-16", "all of it after that: %ld, right %d", n, right(7, 0, in, n));
	close(fd);
}

static void all_of_it(void)
{
	int fd = loaded(8), on = 1, left = -1;
	char control[64];
	struct iovec iov = {in, 150000};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	if (setsockopt(fd, IPPROTO_TCP, TCP_INQ, &on, sizeof on))
		err(2, "TCP_INQ");
	long n = recvmsg(fd, &msg, 0);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ)
			memcpy(&left, CMSG_DATA(c), sizeof left);
	row("RV-34", "recvmsg: %ld, right %d, left %d", n, right(8, 0, in, n), left);
	n = recv(fd, in, MUCH, MSG_WAITALL | MSG_DONTWAIT);
	row("RV-14", "all of the rest that is there: %ld, right %d", n, right(8, 150000, in, n));
	if (send(fd, out, 200000, 0) != 200000)
		err(2, "send");
	n = recv(fd, in, 200000, MSG_WAITALL);
	row("RV-15", "all of what comes: %ld, right %d", n, right(8, 0, in, n));
	close(fd);
}

/* Unread bytes of one connection are not in the way of sleeping for another. */
static void while_asleep(void)
{
	int full = loaded(9), fd = peer(host, port, "echo");
	struct pollfd p = {fd, POLLIN, 0};
	row("R5", "poll of a silent one: %d", poll(&p, 1, 30));
	send_text(fd, "hello");
	row("R5", "poll of one that speaks: %d", poll(&p, 1, -1));
	ROW("R5", "a read of it", recv(fd, in, 9, 0));
	long n = recv(full, in, MUCH, 0);
	row("R5", "the full one: %ld, right %d", n, right(9, 0, in, n));
	close(full);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	piece_by_piece();
	in_turn();
	in_many_parts();
	looked_at();
	thrown_away();
	to_nowhere();
	all_of_it();
	while_asleep();
	puts("done");
	return 0;
}
