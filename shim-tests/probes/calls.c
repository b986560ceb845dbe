/* The calls on a connection, their values and errnos, one after another.
 *
 *   calls HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

static const char *host;
static int port;
static volatile sig_atomic_t pipes;

static void on_sigpipe(int signal)
{
	(void)signal;
	pipes++;
}

static void number_option(int fd, int level, int name, const char *text)
{
	int value = -1;
	socklen_t length = sizeof value;
	int result = getsockopt(fd, level, name, &value, &length);
	printf("%s: %d, value %d, length %u\n", text, result, value, length);
}

#define OPTION(fd, level, name) number_option(fd, level, name, #name)

static void fresh_socket(void)
{
	char byte;
	struct sockaddr_in a = address(host, port);
	socklen_t length = sizeof a;
	puts("# a socket that was never connected");
	int fd = tcp_socket();
	OPTION(fd, SOL_SOCKET, SO_TYPE);
	OPTION(fd, SOL_SOCKET, SO_DOMAIN);
	OPTION(fd, SOL_SOCKET, SO_PROTOCOL);
	OPTION(fd, SOL_SOCKET, SO_ACCEPTCONN);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	OPTION(fd, SOL_SOCKET, SO_REUSEADDR);
	OPTION(fd, SOL_SOCKET, SO_KEEPALIVE);
	OPTION(fd, IPPROTO_TCP, TCP_NODELAY);
	OPTION(fd, IPPROTO_TCP, TCP_CORK);
	OPTION(fd, IPPROTO_TCP, TCP_KEEPIDLE);
	OPTION(fd, IPPROTO_TCP, TCP_SYNCNT);
	SHOW(recv(fd, &byte, 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(getpeername(fd, (struct sockaddr *)&a, &length));
	SHOW(accept(fd, NULL, NULL));
	SHOW(setsockopt(fd, IPPROTO_TCP, 12345, &port, sizeof port));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, 1));
	SHOW(getsockopt(fd, SOL_SOCKET, 12345, &a, &length));
	SHOW(close(fd));
	SHOW(close(fd));
	SHOW(recv(fd, &byte, 1, 0));
	SHOW(connect(-1, (struct sockaddr *)&a, sizeof a));
}

static void connecting(void)
{
	struct sockaddr_in a = address(host, port), closed = address(host, 9);
	socklen_t length = sizeof a;
	puts("# connecting");
	int fd = tcp_socket();
	SHOW(connect(fd, (struct sockaddr *)&a, 3));
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof closed));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	memset(&a, 0, sizeof a);
	SHOW(getpeername(fd, (struct sockaddr *)&a, &length));
	printf("peer %s port %d length %u\n", inet_ntoa(a.sin_addr), ntohs(a.sin_port) == port,
	       length);
	length = 4;
	SHOW(getsockname(fd, (struct sockaddr *)&a, &length));
	printf("full length %u\n", length);
	SHOW(listen(fd, 1));
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	printf("flags %#x %#x\n", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	a = address(host, port);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	wait_for(fd, POLLOUT);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof closed));
	wait_for(fd, POLLOUT);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	close(fd);
}

static void moving_data(void)
{
	char buffer[64] = "";
	struct iovec parts[2] = {{"ab", 2}, {"cde", 3}}, places[2] = {{buffer, 4}, {buffer + 10, 20}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	puts("# moving data");
	int fd = peer(host, port, "echo");
	SHOW(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
	SHOW(send(fd, "hello", 5, 0));
	wait_for(fd, POLLIN);
	SHOW(recv(fd, buffer, 2, MSG_PEEK));
	SHOW(recv(fd, buffer, 5, MSG_WAITALL));
	printf("%.5s\n", buffer);
	SHOW(writev(fd, parts, 2));
	receive_exactly(fd, buffer, 5);
	printf("%.5s\n", buffer);
	SHOW(sendmsg(fd, &message, 0));
	message.msg_iov = places;
	receive_exactly(fd, buffer, 1);
	message.msg_flags = -1;
	SHOW(recvmsg(fd, &message, MSG_WAITALL | MSG_DONTWAIT) > 0);
	printf("flags %#x\n", (unsigned)message.msg_flags);
	SHOW(write(fd, "0123456789", 10));
	receive_exactly(fd, buffer, 3);
	SHOW(recvfrom(fd, buffer, 3, MSG_WAITALL, (struct sockaddr *)&from, &length));
	printf("length %u\n", length);
	SHOW(recv(fd, NULL, 4, MSG_TRUNC | MSG_WAITALL));
	SHOW(send(fd, buffer, 0, 0));
	SHOW(recv(fd, buffer, 0, MSG_DONTWAIT));
	SHOW(sendto(fd, "z", 1, 0, (struct sockaddr *)&from, sizeof from));
	SHOW(read(fd, buffer, sizeof buffer));
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(pread(fd, buffer, 1, 0));

	int count = -1;
	SHOW(send(fd, "12345", 5, 0));
	receive_exactly(fd, buffer, 1);
	while (count != 4)
		if (ioctl(fd, FIONREAD, &count))
			err(2, "FIONREAD");
	printf("FIONREAD %d\n", count);
	receive_exactly(fd, buffer, 4);
	SHOW(ioctl(fd, SIOCOUTQ, &count));
	printf("SIOCOUTQ %d\n", count);

	int on = 1, twin = dup(fd);
	SHOW(ioctl(fd, FIONBIO, &on));
	printf("non-blocking %d\n", (fcntl(twin, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(recv(twin, buffer, 1, 0));
	SHOW(close(fd));
	SHOW(send(twin, "twin", 4, 0));
	wait_for(twin, POLLIN);
	SHOW(recv(twin, buffer, 4, 0));
	SHOW(dup2(twin, 100));
	SHOW(close(twin));
	SHOW(send(100, "dup2", 4, 0));
	wait_for(100, POLLIN);
	SHOW(recv(100, buffer, 4, 0));
	struct stat st;
	SHOW(fstat(100, &st));
	printf("socket %d\n", S_ISSOCK(st.st_mode));
	SHOW(close(100));
}

static void bad_pointers(void)
{
	char *volatile nowhere = (char *)8, *bad = nowhere, buffer[8];
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	puts("# bad pointers");
	int fd = peer(host, port, "echo");
	SHOW(send(fd, bad, 5, 0));
	SHOW(recv(fd, bad, 5, MSG_DONTWAIT));
	SHOW(send(fd, "after", 5, 0));
	wait_for(fd, POLLIN);
	SHOW(recv(fd, bad, 5, 0));
	receive_exactly(fd, buffer, 5);
	printf("%.5s\n", buffer);
	munmap(page + 4096, 4096);
	memset(page, 'p', 4096);
	SHOW(send(fd, page + 4094, 2, 0));
	receive_exactly(fd, buffer, 2);
	SHOW(send(fd, page + 4096, 1, 0));
	SHOW(getsockname(fd, (struct sockaddr *)bad, (socklen_t *)buffer) < 0);
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, bad, 4));
	SHOW(writev(fd, (struct iovec *)bad, 1));
	SHOW(sendmsg(fd, (struct msghdr *)bad, 0));
	close(fd);
}

static void endings(void)
{
	char buffer[16];
	int fd;
	puts("# the end of a connection");
	fd = peer(host, port, "finish 3");
	receive_exactly(fd, buffer, 3);
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(send(fd, "still", 5, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	printf("SIGPIPE %d\n", (int)pipes);
	SHOW(send(fd, "x", 1, 0));
	printf("SIGPIPE %d\n", (int)pipes);
	SHOW(write(fd, "x", 1));
	printf("SIGPIPE %d\n", (int)pipes);
	close(fd);

	fd = peer(host, port, "reset");
	wait_for(fd, POLLERR);
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	close(fd);

	fd = peer(host, port, "reset");
	wait_for(fd, POLLERR);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	OPTION(fd, SOL_SOCKET, SO_ERROR);
	SHOW(recv(fd, buffer, 1, 0));
	close(fd);

	fd = peer(host, port, "echo");
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(send(fd, "x", 1, 0));
	SHOW(shutdown(fd, 7));
	SHOW(shutdown(fd, SHUT_RDWR));
	close(fd);
}

static void listening(void)
{
	char buffer[16], command[32];
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	int own_port, fd = listener(4, &own_port);
	puts("# listening");
	OPTION(fd, SOL_SOCKET, SO_ACCEPTCONN);
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(accept(fd, NULL, NULL));
	SHOW(recv(fd, buffer, 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	snprintf(command, sizeof command, "call %d", own_port);
	close(peer(host, port, command));
	wait_for(fd, POLLIN);
	int connection = accept4(fd, (struct sockaddr *)&a, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
	printf("accept4 %d, from %s, length %u\n", connection >= 0, inet_ntoa(a.sin_addr), length);
	printf("flags %#x %#x\n", fcntl(connection, F_GETFL), fcntl(connection, F_GETFD));
	wait_for(connection, POLLIN);
	SHOW(recv(connection, buffer, sizeof buffer, 0));
	length = sizeof a;
	SHOW(getsockname(connection, (struct sockaddr *)&a, &length));
	printf("own port %d\n", ntohs(a.sin_port) == own_port);
	SHOW(close(fd));
	SHOW(send(connection, "listener gone", 13, 0));
	wait_for(connection, POLLIN);
	SHOW(recv(connection, buffer, sizeof buffer, 0));
	close(connection);

	int second = tcp_socket(), first = listener(1, &own_port);
	a = address("0.0.0.0", own_port);
	SHOW(bind(second, (struct sockaddr *)&a, sizeof a));
	a = address("198.51.100.1", 0);
	SHOW(bind(second, (struct sockaddr *)&a, sizeof a));
	SHOW(accept4(first, NULL, NULL, 12345));
	close(first);
	close(second);
}

static void options(void)
{
	int on = 1, size = 50000, idle = 77;
	struct timeval wait = {.tv_usec = 20000};
	struct linger linger = {.l_onoff = 1, .l_linger = 5};
	socklen_t length = sizeof linger;
	char name[16] = "", byte;
	puts("# options of a connection");
	int fd = peer(host, port, "hold");
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	OPTION(fd, IPPROTO_TCP, TCP_NODELAY);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	OPTION(fd, SOL_SOCKET, SO_KEEPALIVE);
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle));
	OPTION(fd, IPPROTO_TCP, TCP_KEEPIDLE);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
	OPTION(fd, SOL_SOCKET, SO_SNDBUF);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
	OPTION(fd, SOL_SOCKET, SO_RCVBUF);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	memset(&linger, 0, sizeof linger);
	SHOW(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length));
	printf("linger %d %d\n", linger.l_onoff, linger.l_linger);
	OPTION(fd, IPPROTO_TCP, TCP_MAXSEG);
	length = sizeof name;
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
	printf("%s\n", name);
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
	struct tcp_info info;
	length = sizeof info;
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
	printf("state %d\n", info.tcpi_state);
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
	SHOW(recv(fd, &byte, 1, 0));
	linger.l_onoff = 0;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
}

static void files(void)
{
	char path[] = "/tmp/sidewire-calls-XXXXXX", buffer[20];
	int file = mkstemp(path), fd = peer(host, port, "echo");
	off_t offset = 5;
	puts("# sendfile");
	unlink(path);
	SHOW(write(file, "0123456789abcdefghij", 20));
	SHOW(sendfile(fd, file, &offset, 10));
	printf("offset %ld\n", (long)offset);
	receive_exactly(fd, buffer, 10);
	printf("%.10s\n", buffer);
	SHOW(sendfile(fd, file, NULL, 10));
	SHOW(lseek(file, 15, SEEK_SET));
	SHOW(sendfile(fd, file, NULL, 100));
	receive_exactly(fd, buffer, 5);
	printf("%.5s\n", buffer);
	SHOW(sendfile(fd, -1, NULL, 1));
	close(file);
	close(fd);
}

/* Flags of preadv2 and pwritev2: most mean nothing to a socket. */
static void flagged_vectors(void)
{
	int fd = peer(host, port, "echo");
	char byte = 'v';
	struct iovec one = {&byte, 1};
	for (int flags = 1; flags <= 0x100; flags *= 2) {
		printf("flags %#x\n", flags);
		if (SHOW(pwritev2(fd, &one, 1, -1, flags)) == 1) {
			/* RWF_NOWAIT does not. */
			poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
			SHOW(preadv2(fd, &one, 1, -1, flags));
		}
	}
	SHOW(pwritev2(fd, &one, 1, -1, 0x30));
	shutdown(fd, SHUT_WR);
	SHOW(pwritev2(fd, &one, 1, -1, 0));
	/* RWF_NOSIGNAL, since Linux 6.18 */
	SHOW(pwritev2(fd, &one, 1, -1, 0x100));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: calls HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	signal(SIGPIPE, on_sigpipe);
	fresh_socket();
	connecting();
	moving_data();
	bad_pointers();
	endings();
	listening();
	options();
	files();
	flagged_vectors();
	puts("done");
	return 0;
}
