/* What has arrived counts, whether or not the program has looked (row ER-86): each
 * call is made right after the peer's datagram that says that its segment left first.
 *
 *   arrived HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/wait.h>

static const char *host;
static int port, datagrams, told_at;

/* What the peer tells. */
static const char *told(void)
{
	static char text[32];
	wait_for(datagrams, POLLIN);
	if (recv(datagrams, text, sizeof text, 0) < 1)
		err(2, "recv");
	return text;
}

/* A connection of which the peer has made the `steps`. */
static int after(const char *steps)
{
	char text[128];
	snprintf(text, sizeof text, steps, told_at, told_at);
	int fd = peer(host, port, text);
	wait_until_acked(fd);
	send_text(fd, "x");
	told();
	return fd;
}

static int after_reset(void)
{
	return after("steps await reset tell=%d");
}

static int state(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) ? -1 : info.tcpi_state;
}

static void shown(void)
{
	struct sockaddr_in a = {0};
	socklen_t length = sizeof a;
	int fd = after_reset();
	ROW("ER-86", "getpeername after a reset", getpeername(fd, (struct sockaddr *)&a, &length));
	close(fd);
	fd = after_reset();
	row("ER-86", "SO_ERROR after a reset: %d", int_option(fd, SOL_SOCKET, SO_ERROR));
	ROW("ER-86", "a send then", send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);
	fd = after_reset();
	ROW("ER-86", "a send after a reset", send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);
	fd = after_reset();
	row("ER-86", "tcpi_state after a reset: %d", state(fd));
	close(fd);
	fd = after("steps await finish tell=%d eof");
	row("ER-86", "tcpi_state after a FIN: %d", state(fd));
	close(fd);
	fd = after_reset();
	ROW("ER-86", "shutdown after a reset", shutdown(fd, SHUT_RDWR));
	close(fd);
	fd = after_reset();
	struct sockaddr_in to = address(host, port);
	ROW("ER-86", "connect after a reset", connect(fd, (struct sockaddr *)&to, sizeof to));
	close(fd);
}

/* An echo request and its answer, which is behind those of the connection. */
static void round_trip(void)
{
	static const unsigned char request[8] = {8, 0, 0xf7, 0xff};
	struct sockaddr_in to = address(host, 0);
	char answer[128];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (sendto(fd, request, sizeof request, 0, (struct sockaddr *)&to, sizeof to) < 0)
		err(2, "echo request");
	wait_for(fd, POLLIN);
	if (recv(fd, answer, sizeof answer, 0) < 0)
		err(2, "echo reply");
	close(fd);
}

static void refused(void)
{
	struct sockaddr_in nobody = address(host, 9);
	int fd = tcp_socket();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ROW("ER-86", "connect to nobody", connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	round_trip();
	ROW("ER-86", "connect again", connect(fd, (struct sockaddr *)&nobody, sizeof nobody));
	close(fd);
}

static void closed(void)
{
	static const char unread[] = "steps await say=hello tell=%d eof tell=%d";
	struct linger linger = {.l_onoff = 1, .l_linger = 20};
	close(after(unread));
	row("ER-86 ER-72", "close with what was not looked at: the peer meets %s", told());
	int fd = after(unread);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
	row("ER-86 ER-72", "the same with SO_LINGER: the peer meets %s", told());
	pid_t pid = fork();
	if (pid == 0) {
		after(unread);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	row("ER-86 ER-72", "the end of the process: the peer meets %s", told());
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: arrived HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	struct sockaddr_in a = address("0.0.0.0", 0);
	socklen_t length = sizeof a;
	datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(datagrams, (struct sockaddr *)&a, sizeof a) ||
	    getsockname(datagrams, (struct sockaddr *)&a, &length))
		err(2, "datagrams");
	told_at = ntohs(a.sin_port);
	shown();
	refused();
	closed();
	puts("done");
	return 0;
}
