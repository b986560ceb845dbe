/* Sockets that have had other uses before, when another process gets them: their ports and names of then are not those of
 * the connection.
 *
 *   moved_again HOST PORT     the peer program listens there
 */
#include "doubled.h"
#include "show.h"

#include <fcntl.h>
#include <netinet/tcp.h>

static const char *host;
static int port;

static int state(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) ? -1 : info.tcpi_state;
}

static void bound(int fd)
{
	struct sockaddr_in any = address("0.0.0.0", 0);
	SHOW(bind(fd, (struct sockaddr *)&any, sizeof any));
}

static void connected(int fd)
{
	struct sockaddr_in a = address(host, port);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
}

static void dissolved(int fd)
{
	struct sockaddr_in nobody = {.sin_family = AF_UNSPEC};
	SHOW(connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
}

/* Connects, hears of it, and is reset. */
static void reset(int fd, const char *command)
{
	connected(fd);
	send_text(fd, command);
	wait_for(fd, strstr(command, "say") ? POLLIN : 0);
	if (strstr(command, "await"))
		send_text(fd, ".");
	wait_for(fd, 0);
}

/* The same, where connect is not asked what came of it. */
static void reset_unasked(int fd)
{
	connected(fd);
	wait_for(fd, POLLOUT);
	send_text(fd, "reset\n");
	wait_for(fd, 0);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
}

static void named(int fd)
{
	struct sockaddr_in name = {0};
	socklen_t length = sizeof name;
	char text[INET_ADDRSTRLEN];
	SHOW(getsockname(fd, (struct sockaddr *)&name, &length));
	printf("%s, port %s\n", inet_ntop(AF_INET, &name.sin_addr, text, sizeof text), name.sin_port ? "known" : "0");
}

/* The connection lives on. */
static void lives(int fd)
{
	char line[6];
	connected(fd);
	send_text(fd, "echo\n");
	doubled();
	printf("state %d\n", state(fd));
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	SHOW(send(fd, "there\n", 6, MSG_NOSIGNAL));
	SHOW(recv(fd, line, sizeof line, MSG_WAITALL));
	close(fd);
}

static void is_over(int fd)
{
	char bytes[20];
	doubled();
	struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	poll(&one, 1, 0);
	printf("state %d, mask %#x\n", state(fd), one.revents);
	named(fd);
	SHOW(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT));
	SHOW(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);
}

static void living(void)
{
	int fd = tcp_socket();
	puts("-- listened, dissolved");
	SHOW(listen(fd, 2));
	dissolved(fd);
	lives(fd);
	puts("-- bound, listened, dissolved");
	fd = tcp_socket();
	bound(fd);
	SHOW(listen(fd, 2));
	dissolved(fd);
	lives(fd);
	puts("-- listened, shut down");
	fd = tcp_socket();
	SHOW(listen(fd, 2));
	SHOW(shutdown(fd, SHUT_RD));
	lives(fd);
	puts("-- bound, connected, dissolved");
	fd = tcp_socket();
	bound(fd);
	connected(fd);
	dissolved(fd);
	lives(fd);
	puts("-- bound, reset");
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	bound(fd);
	reset_unasked(fd);
	connected(fd);
	fcntl(fd, F_SETFL, 0);
	lives(fd);
}

static void over(void)
{
	int fd = tcp_socket();
	puts("-- bound, reset, 5 bytes unread");
	bound(fd);
	reset(fd, "steps say=hello await reset\n");
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	is_over(fd);
	puts("-- reset, bound");
	fd = tcp_socket();
	reset(fd, "reset\n");
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	bound(fd);
	is_over(fd);
	puts("-- refused, bound");
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in a = address(host, port + 1);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	wait_for(fd, 0);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	bound(fd);
	is_over(fd);
	puts("-- reset, shut down before connect is asked again");
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	reset_unasked(fd);
	SHOW(shutdown(fd, SHUT_RDWR));
	is_over(fd);
}

/* SHUT_WR before there is a connection: it cannot be written to, and the peer is not told. */
static void mute(void)
{
	char byte;
	int fd = tcp_socket();
	puts("-- shut down before");
	SHOW(shutdown(fd, SHUT_WR));
	connected(fd);
	doubled();
	printf("state %d\n", state(fd));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(recv(fd, &byte, 1, MSG_DONTWAIT));
	close(fd);
}

/* The end that was read already is one for the other process, too. */
static void end_read(void)
{
	char bytes[8];
	int fd = peer(host, port, "steps finish await close");
	puts("-- the end read");
	SHOW(recv(fd, bytes, sizeof bytes, 0));
	doubled();
	printf("state %d\n", state(fd));
	SHOW(recv(fd, bytes, sizeof bytes, 0));
	SHOW(send(fd, ".", 1, MSG_NOSIGNAL));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: moved_again HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	living();
	over();
	mute();
	end_read();
	puts("done");
	return 0;
}
