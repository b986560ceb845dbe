/* The errno of each call by the state of the connection.
 *
 *   errors HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/uio.h>

static const char *host;
static int port;
static volatile sig_atomic_t pipes;

static void on_sigpipe(int signal)
{
	(void)signal;
	pipes++;
}

static int error_of(int fd)
{
	int value = -1;
	socklen_t length = sizeof value;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length);
	return value;
}

/* Send, receive and peer name, in that order; then what they left. */
static void calls_of(const char *ids, const char *state, int fd)
{
	char text[80], byte;
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	pipes = 0;
	snprintf(text, sizeof text, "%s, send", state);
	ROW(ids, text, send(fd, "x", 1, MSG_DONTWAIT));
	row(ids, "%s, signals: %d", state, (int)pipes);
	snprintf(text, sizeof text, "%s, recv", state);
	ROW(ids, text, recv(fd, &byte, 1, MSG_DONTWAIT));
	snprintf(text, sizeof text, "%s, getpeername", state);
	ROW(ids, text, getpeername(fd, (struct sockaddr *)&a, &length));
	row(ids, "%s, SO_ERROR: %d", state, error_of(fd));
}

/* Vectors of no bytes do not reach the socket; a buffer of no bytes does, when it is written. */
static void nothing_of(const char *ids, const char *state, int fd)
{
	char text[80];
	struct iovec none[2] = {{text, 0}, {text, 0}};
	pipes = 0;
	snprintf(text, sizeof text, "%s, writev of nothing", state);
	ROW(ids, text, writev(fd, none, 2));
	snprintf(text, sizeof text, "%s, pwritev2 of nothing", state);
	ROW(ids, text, pwritev2(fd, none, 2, -1, 0));
	snprintf(text, sizeof text, "%s, readv of nothing", state);
	ROW(ids, text, readv(fd, none, 2));
	snprintf(text, sizeof text, "%s, preadv2 of nothing", state);
	ROW(ids, text, preadv2(fd, none, 2, -1, 0));
	row(ids, "%s, signals: %d", state, (int)pipes);
	snprintf(text, sizeof text, "%s, write of nothing", state);
	ROW(ids, text, write(fd, text, 0));
	row(ids, "%s, signals then: %d", state, (int)pipes);
}

static void shut(const char *ids, const char *state, int fd, int how)
{
	char text[80];
	snprintf(text, sizeof text, "%s, shutdown %d", state, how);
	ROW(ids, text, shutdown(fd, how));
}

static void unconnected(void)
{
	struct sockaddr_in any = address("0.0.0.0", 0);
	int fd = tcp_socket(), at;
	calls_of("ER-1", "fresh", fd);
	nothing_of("ER-1 SP-30", "fresh", fd);
	for (int how = -1; how <= 3; how++)
		shut(how < 0 || how > 2 ? "ER-11" : "ER-1", "fresh", fd, how);
	ROW("ER-44", "bind, short", bind(fd, (struct sockaddr *)&any, 15));
	any.sin_family = AF_INET6;
	ROW("ER-46", "bind, another family", bind(fd, (struct sockaddr *)&any, sizeof any));
	any = address("203.0.113.1", 0);
	ROW("ER-47", "bind, not our address", bind(fd, (struct sockaddr *)&any, sizeof any));
	any.sin_family = AF_UNSPEC;
	ROW("ER-46", "bind, AF_UNSPEC and an address", bind(fd, (struct sockaddr *)&any, sizeof any));
	any.sin_addr.s_addr = 0;
	ROW("ER-45", "bind, AF_UNSPEC and none", bind(fd, (struct sockaddr *)&any, sizeof any));
	ROW("ER-48", "bind again", bind(fd, (struct sockaddr *)&any, sizeof any));
	calls_of("ER-2", "bound", fd);
	shut("ER-2", "bound", fd, SHUT_WR);
	ROW("ER-60", "accept, not listening", accept(fd, NULL, NULL));
	close(fd);
	fd = listener(1, &at);
	calls_of("ER-3", "listening", fd);
	ROW("ER-57", "listen again", listen(fd, 5));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ROW("ER-61", "accept, nobody there", accept(fd, NULL, NULL));
	ROW("ER-62", "accept4, unknown flags", accept4(fd, NULL, NULL, 1));
	any = address(host, port);
	ROW("ER-28", "connect, listening", connect(fd, (struct sockaddr *)&any, sizeof any));
	shut("ER-3", "listening", fd, SHUT_WR);
	shut("ER-3", "listening", fd, SHUT_RD);
	ROW("ER-3", "accept then", accept(fd, NULL, NULL));
	close(fd);

	fd = tcp_socket();
	any = address("0.0.0.0", at);
	if (bind(fd, (struct sockaddr *)&any, sizeof any) || listen(fd, 1))
		err(2, "a listener at %d", at);
	any = address("127.0.0.1", at);
	struct sockaddr_in off = {0};
	ROW("ER-25", "a listener dissolved", connect(fd, (struct sockaddr *)&off, sizeof off));
	int client = tcp_socket();
	ROW("ER-25 ER-12", "a client on this host then", connect(client, (struct sockaddr *)&any, sizeof any));
	close(client);
	ROW("ER-25", "it listens again", listen(fd, 1));
	client = tcp_socket();
	ROW("ER-25", "a client then", connect(client, (struct sockaddr *)&any, sizeof any));
	close(client);
	close(fd);
	fd = tcp_socket();
	ROW("ER-56", "listen, unbound", listen(fd, 1));
	close(fd);
}

static void connecting(void)
{
	struct sockaddr_in a = address(host, port), closed = address(host, 9), off = {0},
			   silent = address("192.0.2.77", 9);
	struct sockaddr_in group = address("224.0.0.9", 9), none = address("203.0.113.1", 9);
	int fd = tcp_socket();
	ROW("ER-25", "disconnect, fresh", connect(fd, (struct sockaddr *)&off, sizeof off));
	ROW("ER-24", "one byte of an address", connect(fd, (struct sockaddr *)&a, 1));
	ROW("ER-26", "a short address", connect(fd, (struct sockaddr *)&a, 15));
	off.sin_family = AF_INET6;
	ROW("ER-34", "another family", connect(fd, (struct sockaddr *)&off, sizeof off));
	ROW("ER-35", "no route", connect(fd, (struct sockaddr *)&none, sizeof none));
	ROW("ER-35", "multicast", connect(fd, (struct sockaddr *)&group, sizeof group));
	ROW("ER-37 ER-12", "refused", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	row("ER-37", "SO_ERROR afterwards: %d", error_of(fd));
	closed.sin_port = 0;
	ROW("ER-36", "port 0", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	ROW("ER-37", "used again", connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("ER-27", "connected", connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("ER-22", "connected, a short address", connect(fd, (struct sockaddr *)&a, 3));
	ROW("ER-22 ER-24", "connected, one byte of an address", connect(fd, (struct sockaddr *)&a, 1));
	ROW("ER-58", "listen, connected", listen(fd, 1));
	off.sin_family = AF_UNSPEC;
	ROW("ER-20 ER-25", "disconnect", connect(fd, (struct sockaddr *)&off, sizeof off));
	row("ER-20", "SO_ERROR afterwards: %d", error_of(fd));
	close(fd);

	closed.sin_port = htons(9);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ROW("ER-29", "non-blocking", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	ROW("ER-30", "again", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	ROW("ER-22", "pending, a short address", connect(fd, (struct sockaddr *)&a, 3));
	ROW("ER-58", "listen, pending", listen(fd, 1));
	calls_of("ER-4", "pending", fd);
	shut("ER-4", "pending", fd, SHUT_WR);
	row("ER-4", "SO_ERROR then: %d", error_of(fd));
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ROW("ER-29", "to a listener", connect(fd, (struct sockaddr *)&a, sizeof a));
	wait_for(fd, POLLOUT);
	ROW("ER-31", "once it succeeded", connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("ER-31", "and again", connect(fd, (struct sockaddr *)&a, sizeof a));
	close(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ROW("ER-29", "to nobody", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	wait_for(fd, POLLHUP);
	ROW("ER-32", "once it failed", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	ROW("ER-32", "afresh", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	wait_for(fd, POLLHUP);
	row("ER-23", "its SO_ERROR: %d", error_of(fd));
	ROW("ER-23", "a connect then", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	ROW("ER-29", "and another", connect(fd, (struct sockaddr *)&closed, sizeof closed));
	wait_for(fd, POLLHUP);
	shut("ER-1 ER-32", "failed, nobody asked", fd, SHUT_RDWR);
	ROW("ER-32", "a connect after the shutdown", connect(fd, (struct sockaddr *)&a, sizeof a));
	ROW("ER-32 ER-58", "a listen after it", listen(fd, 1));
	off.sin_family = AF_UNSPEC;
	ROW("ER-25", "dissolved", connect(fd, (struct sockaddr *)&off, sizeof off));
	fcntl(fd, F_SETFL, 0);
	ROW("ER-25", "connected after that", connect(fd, (struct sockaddr *)&a, sizeof a));
	close(fd);
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* Nobody has this address: a connect waits, until a time, a signal, or the end of the search for it. */
static void unanswered(void)
{
	struct sockaddr_in silent = address("192.0.2.78", 9);
	struct timeval soon = {.tv_usec = 100000};
	struct itimerval alarm = {.it_value.tv_usec = 100000};
	struct sigaction wake = {.sa_handler = on_alarm};
	int fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
	ROW("ER-38", "a connect that takes longer than SO_SNDTIMEO",
	    connect(fd, (struct sockaddr *)&silent, sizeof silent));
	ROW("ER-38", "the next one", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	close(fd);

	fd = tcp_socket();
	sigaction(SIGALRM, &wake, NULL);
	setitimer(ITIMER_REAL, &alarm, NULL);
	ROW("ER-39", "a connect with a signal", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	ROW("ER-39", "after the signal, SO_ERROR", error_of(fd));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	ROW("ER-39", "the next one, non-blocking", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	wait_for(fd, POLLHUP);
	row("ER-21", "a neighbour that does not answer, SO_ERROR: %s", strerrorname_np(error_of(fd)));
	close(fd);
}

static void connected(void)
{
	struct timeval soon = {.tv_usec = 50000};
	char byte;
	int fd = peer(host, port, "hold");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	ROW("R7 RV-8", "established, a recv of nothing that may wait", recv(fd, &byte, 0, 0));
	ROW("RV-8", "established, of one byte", recv(fd, &byte, 1, 0));
	calls_of("ER-5", "established", fd);
	shut("ER-5", "established", fd, SHUT_WR);
	calls_of("ER-7", "own side shut", fd);
	nothing_of("ER-7 SP-30", "own side shut", fd);
	shut("ER-7", "own side shut", fd, SHUT_WR);
	close(fd);
	fd = peer(host, port, "discard");
	ROW("ER-5", "established, shutdown", shutdown(fd, SHUT_WR));
	wait_for(fd, POLLHUP);
	calls_of("ER-9", "both shut", fd);
	shut("ER-9", "both shut", fd, SHUT_WR);
	close(fd);
	fd = peer(host, port, "finish 0");
	wait_for(fd, POLLRDHUP);
	calls_of("ER-6", "the peer's side shut", fd);
	shut("ER-6", "the peer's side shut", fd, SHUT_WR);
	close(fd);
	fd = peer(host, port, "reset");
	wait_for(fd, POLLHUP);
	calls_of("ER-10 ER-14", "reset", fd);
	shut("ER-10", "reset", fd, SHUT_WR);
	ROW("ER-58", "reset, listen", listen(fd, 1));
	struct sockaddr_in any = address("0.0.0.0", 0);
	ROW("ER-48", "reset, bind after it", bind(fd, (struct sockaddr *)&any, sizeof any));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: errors HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	struct sigaction count = {.sa_handler = on_sigpipe};
	sigaction(SIGPIPE, &count, NULL);
	unconnected();
	connecting();
	unanswered();
	connected();
	puts("done");
	return 0;
}
