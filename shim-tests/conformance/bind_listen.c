/* Who may bind and listen where, and what accept gives (rows ER-49 to ER-70). */
#include "rows.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/time.h>

static const char *host;
static int port;

static long bind_to(int fd, const char *where, int at)
{
	struct sockaddr_in a = address(where, at);
	return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static int with(int option)
{
	int fd = tcp_socket(), on = 1;
	if (option && setsockopt(fd, SOL_SOCKET, option, &on, sizeof on))
		err(2, "option %d", option);
	return fd;
}

static void privileged_port(void)
{
	int fd = tcp_socket();
	have_capability(CAP_NET_BIND_SERVICE, 0);
	ROW("ER-49", "port 99 without the capability", bind_to(fd, "0.0.0.0", 99));
	have_capability(CAP_NET_BIND_SERVICE, 1);
	ROW("ER-49", "port 99 with it", bind_to(fd, "0.0.0.0", 99));
	close(fd);
}

/* Two sockets on one port, with or without an option each. */
static void two(const char *ids, const char *text, int first, int second, const char *where)
{
	char what[96];
	int a = with(first), b = with(second);
	snprintf(what, sizeof what, "%s, the first bind", text);
	ROW(ids, what, bind_to(a, "0.0.0.0", 7001));
	snprintf(what, sizeof what, "%s, the second bind", text);
	if (ROW(ids, what, bind_to(b, where, 7001)) == 0) {
		snprintf(what, sizeof what, "%s, the first listen", text);
		ROW(ids, what, listen(a, 1));
		snprintf(what, sizeof what, "%s, the second listen", text);
		ROW(ids, what, listen(b, 1));
	}
	close(a);
	close(b);
}

static void conflicts(void)
{
	two("ER-55", "plain sockets", 0, 0, "0.0.0.0");
	two("ER-55", "plain sockets, the second on one address", 0, 0, "127.0.0.1");
	two("ER-51", "SO_REUSEADDR on both", SO_REUSEADDR, SO_REUSEADDR, "0.0.0.0");
	two("ER-51 ER-55", "SO_REUSEADDR on both, the second on one address", SO_REUSEADDR, SO_REUSEADDR,
	    "127.0.0.1");
	two("ER-52", "SO_REUSEPORT on both", SO_REUSEPORT, SO_REUSEPORT, "0.0.0.0");
	two("ER-53", "SO_REUSEPORT on the first", SO_REUSEPORT, 0, "0.0.0.0");
	two("ER-53", "SO_REUSEPORT on the second", 0, SO_REUSEPORT, "0.0.0.0");
	int a = with(SO_REUSEADDR), b = with(SO_REUSEADDR);
	bind_to(a, "0.0.0.0", 7001);
	ROW("ER-50", "the listener", listen(a, 1));
	ROW("ER-50", "SO_REUSEADDR on both, the first listens", bind_to(b, "0.0.0.0", 7001));
	close(a);
	ROW("ER-50", "when it has closed", bind_to(b, "0.0.0.0", 7001));
	close(b);
}

static long to_peer(int fd)
{
	struct sockaddr_in a = address(host, port);
	return connect(fd, (struct sockaddr *)&a, sizeof a);
}

/* A port whose connection is in TIME_WAIT. */
static void after_time_wait(int first, int second, int at, const char *text)
{
	static const char command[] = "discard\n";
	char byte, what[96];
	int fd = with(first);
	if (bind_to(fd, "0.0.0.0", at) || to_peer(fd) || send(fd, command, sizeof command - 1, 0) < 0 ||
	    shutdown(fd, SHUT_WR) || recv(fd, &byte, 1, 0) != 0)
		err(2, "TIME_WAIT");
	close(fd);
	fd = with(second);
	snprintf(what, sizeof what, "a port in TIME_WAIT, %s, bind", text);
	ROW("ER-54", what, bind_to(fd, "0.0.0.0", at));
	close(fd);
}

static void time_wait(void)
{
	after_time_wait(0, 0, 7002, "no option");
	after_time_wait(0, SO_REUSEADDR, 7003, "SO_REUSEADDR on the new socket");
	after_time_wait(SO_REUSEADDR, 0, 7004, "SO_REUSEADDR on the old socket");
	after_time_wait(SO_REUSEADDR, SO_REUSEADDR, 7005, "SO_REUSEADDR on both");
}

/* One port, two sockets, one peer. */
static void same_four(void)
{
	int a = with(SO_REUSEADDR), b = with(SO_REUSEADDR);
	ROW("ER-40", "the first bind", bind_to(a, "0.0.0.0", 7006));
	ROW("ER-40", "the second bind", bind_to(b, "0.0.0.0", 7006));
	ROW("ER-40", "the first connect", to_peer(a));
	ROW("ER-40", "the second connect, to the same peer", to_peer(b));
	close(b);
	close(a);
}

static void listener_info(int fd, const char *text)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		err(2, "TCP_INFO");
	row("ER-70", "%s: state %d queued %u backlog %u", text, info.tcpi_state, info.tcpi_unacked,
	    info.tcpi_sacked);
}

/* A connection from the peer's host, which does with it as `command` says. */
static void called(int bound, const char *command)
{
	char line[32], byte;
	snprintf(line, sizeof line, "%s %d", command, bound);
	int fd = peer(host, port, line);
	if (recv(fd, &byte, 1, 0) > 0)
		errx(2, "an answer to %s", line);
	close(fd);
}

static void accepting(void)
{
	int bound, l = listener(5, &bound);
	fcntl(l, F_SETFL, O_NONBLOCK);
	fcntl(l, F_SETFD, FD_CLOEXEC);
	ROW("ER-63", "nobody there", accept(l, NULL, NULL));
	listener_info(l, "nobody there");
	called(bound, "call");
	wait_for(l, POLLIN);
	listener_info(l, "one there");
	int fd = accept(l, NULL, NULL);
	row("ER-63", "accepted, non-blocking and close-on-exec: %d %d",
	    !!(fcntl(fd, F_GETFL) & O_NONBLOCK), fcntl(fd, F_GETFD) & FD_CLOEXEC);
	listener_info(l, "accepted");
	close(fd);

	called(bound, "abort");
	wait_for(l, POLLIN);
	fd = accept(l, NULL, NULL);
	row("ER-65", "reset before accept: %d", fd >= 0);
	wait_for(fd, POLLIN);
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	char byte = 'x';
	ROW("ER-65", "reset before accept, getpeername", getpeername(fd, (struct sockaddr *)&a, &length));
	ROW("ER-65", "reset before accept, recv", recv(fd, &byte, 1, 0));
	ROW("ER-65", "reset before accept, send", send(fd, &byte, 1, MSG_NOSIGNAL));
	close(fd);

	struct timeval soon = {.tv_usec = 20000};
	fcntl(l, F_SETFL, 0);
	setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	ROW("ER-67", "accept with SO_RCVTIMEO", accept(l, NULL, NULL));
	close(l);
}

/* A reset after the peer's FIN. */
static void reset_in_close_wait(void)
{
	char byte = 'x';
	int fd = peer(host, port, "steps finish await reset");
	wait_for(fd, POLLRDHUP);
	ROW("ER-13", "CLOSE_WAIT, recv", recv(fd, &byte, 1, 0));
	ROW("ER-13", "CLOSE_WAIT, send", send(fd, &byte, 1, MSG_NOSIGNAL));
	wait_for(fd, 0);
	row("ER-13", "reset in CLOSE_WAIT, SO_ERROR: %s",
	    strerrorname_np(int_option(fd, SOL_SOCKET, SO_ERROR)));
	ROW("ER-13", "reset in CLOSE_WAIT, send", send(fd, &byte, 1, MSG_NOSIGNAL));
	ROW("ER-13", "reset in CLOSE_WAIT, recv", recv(fd, &byte, 1, 0));
	close(fd);
}

/* What happened to a socket before it listened. */
static void before_listening(int how, const char *text)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	char what[96], command[32], byte;
	int fd = tcp_socket();
	if (to_peer(fd) || connect(fd, &nobody, sizeof nobody))
		err(2, "disconnect");
	if (how >= 0) {
		snprintf(what, sizeof what, "%s, shutdown before it listens", text);
		ROW("ER-84", what, shutdown(fd, how));
	}
	snprintf(what, sizeof what, "%s, listen", text);
	ROW("ER-84", what, listen(fd, 5));
	snprintf(what, sizeof what, "%s, send", text);
	ROW("ER-84", what, send(fd, "x", 1, MSG_NOSIGNAL));
	row("ER-84", "%s, SO_ERROR then: %d", text, int_option(fd, SOL_SOCKET, SO_ERROR));
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	snprintf(command, sizeof command, "call %d", ntohs(a.sin_port));
	int caller = peer(host, port, command);
	wait_for(fd, POLLIN);
	int child = accept(fd, NULL, NULL);
	/* The caller's bytes; a receive side that is shut polls readable without them. */
	for (int unread = 0; unread < (int)strlen("called"); poll(NULL, 0, 1))
		if (ioctl(child, SIOCINQ, &unread))
			err(2, "SIOCINQ");
	if (how == SHUT_WR) {
		/* The peer's end answers the FIN that the child began with. */
		wait_for(child, POLLHUP);
		snprintf(what, sizeof what, "%s, a child sends", text);
		ROW("ER-84", what, send(child, "x", 1, MSG_NOSIGNAL));
	}
	struct pollfd p = {.fd = child, .events = POLLRDHUP};
	row("ER-84", "%s, a child shows: %d %#x", text, poll(&p, 1, 0), (unsigned)p.revents);
	snprintf(what, sizeof what, "%s, a child receives", text);
	ROW("ER-84", what, recv(child, &byte, 1, MSG_DONTWAIT));
	close(child);
	close(caller);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	privileged_port();
	conflicts();
	time_wait();
	same_four();
	accepting();
	before_listening(-1, "disconnected");
	before_listening(SHUT_RD, "disconnected, its receive side shut");
	before_listening(SHUT_WR, "disconnected, its send side shut");
	reset_in_close_wait();
	puts("done");
	return 0;
}
