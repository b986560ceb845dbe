/* What a send says: its arguments, its flags, the states it fails in, and how
 * much it takes.
 *
 *   send HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static const char *host;
static int port;
static volatile sig_atomic_t pipes;

static void on_sigpipe(int signal)
{
	(void)signal;
	pipes++;
}

/* A call that may raise SIGPIPE. */
#define PIPE_ROW(ids, text, call)                                                                  \
	do {                                                                                       \
		pipes = 0;                                                                         \
		ROW(ids, text, call);                                                              \
		row(ids, "%s, signals: %d", text, (int)pipes);                                     \
	} while (0)

static long send_message(int fd, struct msghdr *message, int flags)
{
	return sendmsg(fd, message, flags);
}

static void arguments(int fd)
{
	static struct iovec many[1025];
	struct iovec one = {"abc", 3};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1};
	struct sockaddr_in elsewhere = address("203.0.113.9", 9);
	void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pipe_ends[2];
	char byte[1];
	ROW("A1", "no descriptor", send(-1, "x", 1, 0));
	ROW("A1", "a pipe", pipe(pipe_ends) ? -1 : send(pipe_ends[1], "x", 1, 0));
	ROW("A2", "a header that cannot be read", send_message(fd, bad, 0));
	ROW("A2", "data that cannot be read", send(fd, bad, 10, 0));
	m.msg_iov = bad;
	ROW("A2", "iovecs that cannot be read", send_message(fd, &m, 0));
	m.msg_iov = &one;
	m.msg_name = &elsewhere;
	m.msg_namelen = (socklen_t)-1;
	ROW("A3", "a name of negative length", send_message(fd, &m, 0));
	m.msg_namelen = 1000;
	ROW("A3", "a name of 1000 bytes", send_message(fd, &m, 0));
	m.msg_namelen = sizeof elsewhere;
	ROW("A13", "another peer's name", send_message(fd, &m, 0));
	m.msg_name = NULL;
	m.msg_namelen = 0;
	m.msg_iov = many;
	m.msg_iovlen = 1025;
	ROW("A4", "1025 iovecs", send_message(fd, &m, 0));
	m.msg_iovlen = 1024;
	ROW("A4 A15", "1024 empty iovecs", send_message(fd, &m, 0));
	m = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1, .msg_control = byte};
	m.msg_controllen = (size_t)INT32_MAX + 1;
	ROW("A6", "control of 2 GiB", send_message(fd, &m, 0));
	m.msg_controllen = 16 << 20;
	ROW("A7", "control of 16 MiB", send_message(fd, &m, 0));
	m.msg_control = bad;
	m.msg_controllen = 24;
	ROW("A8", "control that cannot be read", send_message(fd, &m, 0));
	ROW("A15 SP-23", "nothing, by write", write(fd, "", 0));
	ROW("A15 SP-23", "nothing, by send", send(fd, NULL, 0, 0));
	ROW("A16", "lseek", lseek(fd, 0, SEEK_SET));
	ROW("A16", "pread", pread(fd, byte, 1, 0));
	ROW("A16", "pwrite", pwrite(fd, "x", 1, 0));
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	munmap(bad, 4096);
}

static void flags(int fd)
{
	unsigned ignored[] = {MSG_PEEK, MSG_TRUNC, 0x10, 0x400, 0x1000, 0x200, MSG_CONFIRM, 0x40000,
			      0x80000, MSG_ERRQUEUE, 0x2000000, MSG_DONTROUTE, MSG_WAITALL,
			      MSG_CTRUNC};
	unsigned internal[] = {0x8000000, 0x10000, 0x100000};
	struct iovec one = {"abc", 3};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1};
	struct mmsghdr mm = {.msg_hdr = m};
	char text[60], byte;
	for (size_t i = 0; i < sizeof internal / sizeof *internal; i++) {
		snprintf(text, sizeof text, "flag %#x", internal[i]);
		ROW("A9", text, send(fd, "abc", 3, (int)internal[i]));
	}
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
		snprintf(text, sizeof text, "flag %#x", ignored[i]);
		ROW("A11", text, send(fd, "abc", 3, (int)ignored[i]));
	}
	int compat = (int)0x80000000;
	ROW("A10", "bit 31, sendmsg", sendmsg(fd, &m, compat));
	ROW("A10", "bit 31, sendmmsg", sendmmsg(fd, &mm, 1, (unsigned)compat));
	ROW("A10", "bit 31, send", send(fd, "abc", 3, compat));
	ROW("A10", "bit 31, recv", recv(fd, &byte, 1, compat | MSG_DONTWAIT));
	ROW("A10", "bit 31, recvmsg", recvmsg(fd, &m, compat | MSG_DONTWAIT));
}

/* A control message that no send takes. */
static long send_bad_control(int fd, size_t size, int send_flags)
{
	_Alignas(8) char control[24] = {0};
	struct cmsghdr header = {.cmsg_len = 20, .cmsg_level = SOL_SOCKET, .cmsg_type = 99};
	struct iovec one = {"abc", size};
	struct msghdr m = {.msg_iov = &one,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};
	memcpy(control, &header, sizeof header);
	return sendmsg(fd, &m, send_flags);
}

static void states(void)
{
	struct sockaddr_in a = address(host, port), silent = address("192.0.2.77", 9);
	socklen_t length = sizeof a;
	int fd = tcp_socket();
	PIPE_ROW("B8 C2 E4", "unconnected", send(fd, "x", 1, 0));
	PIPE_ROW("B8 C2 E4", "unconnected, no signal wanted", send(fd, "x", 1, MSG_NOSIGNAL));
	PIPE_ROW("B8 B10 C2", "unconnected, a bad control message", send_bad_control(fd, 3, 0));
	getsockname(fd, (struct sockaddr *)&a, &length);
	row("A14", "the port afterwards: %d", ntohs(a.sin_port));
	close(fd);
	fd = peer(host, port, "discard");
	ROW("B10", "connected, a bad control message", send_bad_control(fd, 3, 0));
	ROW("B10", "connected, a bad control message and no data", send_bad_control(fd, 0, 0));
	shutdown(fd, SHUT_WR);
	PIPE_ROW("B8 B12 C2", "shut down", send(fd, "x", 1, 0));
	PIPE_ROW("B8 B12 C2 SP-24", "shut down, no data", send(fd, "", 0, 0));
	PIPE_ROW("B8 B10", "shut down, a bad control message", send_bad_control(fd, 3, 0));
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ROW("C3", "to a host that is not there", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	PIPE_ROW("A12 B6 C3", "connecting, non-blocking", send(fd, "x", 1, 0));
	PIPE_ROW("C3 SP-25", "connecting, no data", send(fd, "", 0, 0));
	PIPE_ROW("C3 SP-25", "connecting, out of band", send(fd, "", 0, MSG_OOB));
	PIPE_ROW("C3 B10", "connecting, a bad control message", send_bad_control(fd, 3, 0));
	close(fd);
	fd = peer(host, port, "reset");
	wait_for(fd, POLLHUP);
	PIPE_ROW("C1 E3 H7", "reset, once", send(fd, "x", 1, 0));
	PIPE_ROW("C1 E4 H7", "reset, again", send(fd, "x", 1, 0));
	close(fd);
	fd = peer(host, port, "close");
	wait_for(fd, POLLRDHUP);
	PIPE_ROW("SP-26", "the peer has closed", send(fd, "x", 1, 0));
	close(fd);
}

static void faults(void)
{
	char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(pages + 4096, 4096, PROT_NONE);
	struct iovec parts[2] = {{pages, 50}, {pages + 4096, 100}};
	int outq = -1, fd = peer(host, port, "discard");
	wait_until_acked(fd);
	ROW("E7", "50 good bytes, 100 bad", writev(fd, parts, 2));
	ioctl(fd, SIOCOUTQ, &outq);
	row("E7", "queued afterwards: %d", outq);
	ROW("E6", "the next", send(fd, "x", 1, 0));
	close(fd);
	munmap(pages, 8192);
}

static void filling(void)
{
	static char data[100000];
	int fd = peer(host, port, "hold");
	long n, rounds = 0;
	wait_until_acked(fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ROW("F11", "corked bytes", send(fd, data, 100, MSG_MORE));
	while ((n = send(fd, data, sizeof data, 0)) > 0 && rounds < 100000)
		rounds++;
	row("SP-21 SP-22 H2 F3", "in the end: %ld %s", n, strerrorname_np(errno));
	PIPE_ROW("H2", "shut down while full", shutdown(fd, SHUT_WR));
	PIPE_ROW("H2 B12", "a send then", send(fd, "x", 1, 0));
	close(fd);
}

static void other_calls(void)
{
	char path[] = "/tmp/send-probe-XXXXXX", buffer[64];
	int fd = peer(host, port, "echo"), file = mkstemp(path), ends[2];
	struct iovec parts[2] = {{"ab", 2}, {"cde", 3}}, one = {"xyz", 3};
	struct mmsghdr two[2] = {{.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}},
				 {.msg_hdr = {.msg_iov = (void *)8, .msg_iovlen = 1}}};
	unlink(path);
	if (file < 0 || write(file, "0123456789", 10) != 10 || pipe(ends))
		err(2, "a file and a pipe");
	off_t offset = 0;
	ROW("SP-27", "sendfile", sendfile(fd, file, &offset, 100));
	row("SP-27", "its offset afterwards: %ld", (long)offset);
	receive_exactly(fd, buffer, 10);
	row("SP-27", "what came: %.10s", buffer);
	ROW("SP-27", "sendfile at the end", sendfile(fd, file, &offset, 100));
	ROW("SP-28", "a pipe filled", write(ends[1], "pipe", 4));
	ROW("SP-28 SP-32", "splice", splice(ends[0], NULL, fd, NULL, 4, SPLICE_F_MORE | SPLICE_F_NONBLOCK));
	ROW("SP-29", "splice from an empty pipe",
	    splice(ends[0], NULL, fd, NULL, 4, SPLICE_F_NONBLOCK));
	ROW("SP-30", "writev", writev(fd, parts, 2));
	receive_exactly(fd, buffer, 9);
	row("SP-28 SP-30", "what came by splice and writev: %.9s", buffer);
	ROW("SP-31", "sendmmsg of none", sendmmsg(fd, two, 0, 0));
	ROW("SP-31", "sendmmsg, the second bad", sendmmsg(fd, two, 2, 0));
	row("SP-31", "the first sent: %u", two[0].msg_len);
	ROW("SP-31", "sendmmsg, the first bad", sendmmsg(fd, two + 1, 1, 0));
	ROW("SP-31", "a send afterwards", send(fd, "q", 1, 0));
	receive_exactly(fd, buffer, 4);
	shutdown(fd, SHUT_WR);
	wait_for(fd, POLLRDHUP);
	struct iovec place = {buffer, sizeof buffer};
	struct mmsghdr ended[3] = {{.msg_hdr = {.msg_iov = &place, .msg_iovlen = 1}},
				   {.msg_hdr = {.msg_iov = &place, .msg_iovlen = 1}},
				   {.msg_hdr = {.msg_iov = &place, .msg_iovlen = 1}}};
	ROW("SP-34", "recvmmsg at the end", recvmmsg(fd, ended, 3, 0, NULL));
	close(fd);
	close(file);
	close(ends[0]);
	close(ends[1]);
}

static void whole(void)
{
	static char data[3000000];
	int fd = peer(host, port, "discard");
	ROW("SP-20 B13", "3 MB, blocking", send(fd, data, sizeof data, 0));
	wait_until_acked(fd);
	/* More than one call takes, of pages that were never written. */
	size_t many = (size_t)INT32_MAX + 4096;
	void *zeros = mmap(NULL, many, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (zeros == MAP_FAILED)
		err(2, "mmap");
	ROW("A5", "more than 2 GiB", send(fd, zeros, many, 0));
	munmap(zeros, many);
	ROW("F12", "a record of 10", send(fd, data, 10, MSG_EOR));
	wait_until_acked(fd);
	close(fd);
}

/* A socket without room takes nothing out of a pipe that it does not send. */
static void splicing_to_a_full_socket(void)
{
	static char bytes[32768];
	int ends[2], left = 0, small = 4096, fd = peer(host, port, "hold");
	long taken = 0, given = 0, n;
	if (pipe(ends))
		err(2, "pipe");
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	do {
		if (ioctl(ends[0], FIONREAD, &left))
			err(2, "FIONREAD");
		if (!left && (n = write(ends[1], bytes, sizeof bytes)) > 0)
			given += n;
		n = splice(ends[0], NULL, fd, NULL, sizeof bytes, 0);
		if (n > 0)
			taken += n;
	} while (n > 0);
	ROW("SP-32 SP-22", "splice to a full socket", n);
	ioctl(ends[0], FIONREAD, &left);
	row("SP-32 SP-22", "bytes that are neither taken nor in the pipe: %ld", given - taken - left);
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: send HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	struct sigaction count = {.sa_handler = on_sigpipe};
	sigaction(SIGPIPE, &count, NULL);
	int fd = peer(host, port, "discard");
	arguments(fd);
	flags(fd);
	close(fd);
	states();
	faults();
	filling();
	other_calls();
	whole();
	splicing_to_a_full_socket();
	puts("done");
	return 0;
}
