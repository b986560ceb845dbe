/* Which ports the host chooses, and what happens when there is none (rows ER-41 to
 * ER-43).
 *
 *   ephemeral_ports HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <netinet/in.h>

static const char *host;
static int port;

static void setting(const char *name, const char *value)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/sys/net/ipv4/%s", name);
	FILE *file = fopen(path, "w");
	if (!file || fputs(value, file) < 0 || fclose(file))
		err(2, "%s", name);
}

static int port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	return ntohs(a.sin_port);
}

static int connect_to(int fd, const char *to)
{
	struct sockaddr_in a = address(to, port);
	return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static void parity(void)
{
	int even = 0, odd = 0, inside = 0, bound, fd, listening;
	for (int i = 0; i < 8; i++) {
		fd = tcp_socket();
		if (connect_to(fd, host))
			err(2, "connect");
		even += port_of(fd) % 2 == 0;
		inside += port_of(fd) >= 32768 && port_of(fd) <= 60999;
		close(fd);
		listening = listener(1, &bound);
		odd += bound % 2;
		inside += bound >= 32768 && bound <= 60999;
		close(listening);
	}
	row("ER-42", "of 8 connects, from an even port: %d", even);
	row("ER-42", "of 8 binds, to an odd port: %d", odd);
	row("ER-42 SO-123", "of all, in the range: %d", inside);
}

/* Two ports for each pair of hosts. */
static void exhausted(void)
{
	int fds[4], more;
	setting("ip_local_port_range", "40000 40001");
	for (int i = 0; i < 2; i++) {
		fds[i] = tcp_socket();
		ROW("ER-41", "a connect while ports are free", connect_to(fds[i], host));
	}
	row("ER-41 ER-42", "the even one first: %d %d", port_of(fds[0]), port_of(fds[1]));
	more = tcp_socket();
	ROW("ER-41", "a connect when none is free", connect_to(more, host));
	row("ER-41", "its port then: %d", port_of(more));
	ROW("ER-41", "the same socket to another host", connect_to(more, "192.0.2.3"));
	struct sockaddr_in any = address("0.0.0.0", 0);
	fds[2] = tcp_socket();
	ROW("ER-41", "a bind when none is free", bind(fds[2], (struct sockaddr *)&any, sizeof any));
	close(more);
	close(fds[2]);
	close(fds[0]);
	close(fds[1]);
}

/* One port, whose last connection is in TIME_WAIT. */
static void time_wait(void)
{
	char byte;
	int fd, value;
	setting("ip_local_port_range", "41000 41000");
	fd = peer(host, port, "discard");
	shutdown(fd, SHUT_WR);
	ROW("ER-43", "the peer's end", recv(fd, &byte, 1, 0));
	close(fd);
	fd = tcp_socket();
	ROW("ER-43", "a connect at once", connect_to(fd, host));
	close(fd);
	/* Its timestamps are older than a second then. */
	fd = tcp_socket();
	for (int tries = 0; (value = connect_to(fd, host)) && tries < 100; tries++)
		poll(NULL, 0, 25);
	ROW("ER-43", "in the end", value);
	row("ER-43", "the port: %d", port_of(fd));
	send_text(fd, "echo\nx");
	receive_exactly(fd, &byte, 1);
	row("ER-43", "the new connection echoes: %c", byte);
	close(fd);
}

static int from_port(int local)
{
	struct sockaddr_in here = address("0.0.0.0", local);
	int on = 1, fd = tcp_socket();
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	ROW("ER-43", "bind to the port", bind(fd, (struct sockaddr *)&here, sizeof here));
	return fd;
}

/* A port that the program chose does not wait for a second. */
static void chosen_port(void)
{
	char byte;
	int fd = from_port(7073);
	if (connect_to(fd, host))
		err(2, "connect");
	send_text(fd, "discard\n");
	shutdown(fd, SHUT_WR);
	ROW("ER-43", "the peer's end, a port of our own", recv(fd, &byte, 1, 0));
	close(fd);
	fd = from_port(7073);
	ROW("ER-43", "a connect from it at once", connect_to(fd, host));
	send_text(fd, "echo\nx");
	receive_exactly(fd, &byte, 1);
	row("ER-43", "that connection echoes: %c", byte);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	setting("tcp_tw_reuse", "1");
	parity();
	exhausted();
	time_wait();
	chosen_port();
	puts("done");
	return 0;
}
