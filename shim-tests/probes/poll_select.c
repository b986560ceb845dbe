/* What poll, ppoll, select and pselect say in each state of a socket.
 *
 *   poll_select HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/select.h>

static const char *host;
static int port;

static void events(short e)
{
	static const struct {
		short bit;
		const char *name;
	} names[] = {{POLLIN, "IN"},       {POLLPRI, "PRI"},       {POLLOUT, "OUT"},
		     {POLLRDNORM, "RDNORM"}, {POLLWRNORM, "WRNORM"}, {POLLRDHUP, "RDHUP"},
		     {POLLERR, "ERR"},     {POLLHUP, "HUP"},       {POLLNVAL, "NVAL"}};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (e & names[i].bit)
			printf(" %s", names[i].name);
}

/* Everything that can be asked about one descriptor, without waiting. */
static void state(const char *what, int fd)
{
	short all = POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP;
	struct pollfd p = {.fd = fd, .events = all};
	struct timespec zero = {0};
	struct timeval none = {0};
	fd_set in, out, exceptional;
	printf("%s: poll %d", what, poll(&p, 1, 0));
	events(p.revents);
	p.revents = 0;
	printf("; ppoll %d", ppoll(&p, 1, &zero, NULL));
	events(p.revents);
	p.events = 0;
	printf("; unasked %d", poll(&p, 1, 0));
	events(p.revents);
	FD_ZERO(&in);
	FD_SET(fd, &in);
	out = exceptional = in;
	int n = select(fd + 1, &in, &out, &exceptional, &none);
	printf("; select %d", n);
	if (n >= 0)
		printf(" %d%d%d", !!FD_ISSET(fd, &in), !!FD_ISSET(fd, &out),
		       !!FD_ISSET(fd, &exceptional));
	FD_ZERO(&in);
	FD_SET(fd, &in);
	n = pselect(fd + 1, &in, NULL, NULL, &zero, NULL);
	printf("; pselect %d\n", n);
}

static void each_state(void)
{
	char buffer[64], command[32];
	int own_port, fd = tcp_socket();
	puts("# states");
	state("fresh", fd);
	close(fd);

	fd = listener(4, &own_port);
	state("listening", fd);
	snprintf(command, sizeof command, "call %d", own_port);
	close(peer(host, port, command));
	wait_for(fd, POLLIN);
	state("one in the backlog", fd);
	int connection = accept(fd, NULL, NULL);
	state("accepted it", fd);
	wait_for(connection, POLLIN);
	state("accepted, with data", connection);
	receive_exactly(connection, buffer, 6);
	state("accepted, data read", connection);
	close(connection);
	close(fd);

	fd = peer(host, port, "echo");
	state("connected", fd);
	send_text(fd, "abc");
	wait_for(fd, POLLIN);
	state("data", fd);
	receive_exactly(fd, buffer, 3);
	state("data read", fd);
	shutdown(fd, SHUT_WR);
	wait_for(fd, POLLRDHUP);
	state("both sides finished", fd);
	close(fd);

	fd = peer(host, port, "hold");
	shutdown(fd, SHUT_WR);
	state("own side finished", fd);
	shutdown(fd, SHUT_RD);
	state("and reading given up", fd);
	close(fd);

	fd = peer(host, port, "hold");
	shutdown(fd, SHUT_RD);
	state("reading given up", fd);
	close(fd);

	fd = peer(host, port, "finish 3");
	wait_for(fd, POLLRDHUP);
	state("peer finished, data unread", fd);
	receive_exactly(fd, buffer, 3);
	state("peer finished", fd);
	close(fd);

	fd = peer(host, port, "reset");
	wait_for(fd, POLLERR);
	state("reset", fd);
	SHOW(recv(fd, buffer, 1, 0));
	state("reset, error fetched", fd);
	close(fd);

	fd = peer(host, port, "hold");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	static const char block[1 << 16];
	while (send(fd, block, sizeof block, 0) > 0)
		;
	printf("full: %s\n", strerrorname_np(errno));
	/* In flight data may still free room: until the peer's window is full. */
	for (struct pollfd p = {.fd = fd, .events = POLLOUT}; poll(&p, 1, 300) == 1;)
		while (send(fd, block, sizeof block, 0) > 0)
			;
	state("send buffer full", fd);
	close(fd);

	struct sockaddr_in closed = address(host, 9);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SHOW(connect(fd, (struct sockaddr *)&closed, sizeof closed));
	wait_for(fd, POLLOUT);
	state("refused", fd);
	close(fd);
	struct pollfd gone = {.fd = fd, .events = POLLIN, .revents = -1};
	SHOW(poll(&gone, 1, 0));
	events(gone.revents);
	puts("");
}

static void together(void)
{
	int pipes[2];
	char buffer[8];
	if (pipe(pipes))
		err(2, "pipe");
	struct pollfd *volatile nowhere = (struct pollfd *)8;
	puts("# sockets and pipes together");
	int a = peer(host, port, "echo"), b = peer(host, port, "echo");
	struct pollfd p[5] = {{.fd = a, .events = POLLIN},
			      {.fd = pipes[0], .events = POLLIN},
			      {.fd = -1, .events = POLLIN},
			      {.fd = b, .events = POLLIN | POLLOUT},
			      {.fd = pipes[1], .events = POLLOUT}};
	SHOW(poll(p, 5, 0));
	for (int i = 0; i < 5; i++) {
		printf("[%d]", i);
		events(p[i].revents);
	}
	puts("");
	p[3].events = POLLIN;
	SHOW(poll(p, 4, 10));
	if (write(pipes[1], "x", 1) != 1)
		err(2, "write");
	SHOW(poll(p, 4, -1));
	printf("pipe:");
	events(p[1].revents);
	printf(" a: %d b: %d\n", p[0].revents, p[3].revents);
	if (read(pipes[0], buffer, 1) != 1)
		err(2, "read");
	send_text(b, "b");
	SHOW(poll(p, 4, -1));
	printf("b:");
	events(p[3].revents);
	puts("");

	fd_set in;
	FD_ZERO(&in);
	FD_SET(a, &in);
	FD_SET(b, &in);
	FD_SET(pipes[0], &in);
	int most = pipes[1] > b ? pipes[1] : b;
	SHOW(select(most + 1, &in, NULL, NULL, NULL));
	printf("%d%d%d\n", !!FD_ISSET(a, &in), !!FD_ISSET(b, &in), !!FD_ISSET(pipes[0], &in));
	receive_exactly(b, buffer, 1);
	FD_SET(a, &in);
	FD_SET(b, &in);
	FD_SET(pipes[0], &in);
	struct timeval brief = {.tv_usec = 10000};
	SHOW(select(most + 1, &in, NULL, NULL, &brief));
	printf("%d%d%d, left %ld\n", !!FD_ISSET(a, &in), !!FD_ISSET(b, &in),
	       !!FD_ISSET(pipes[0], &in), (long)brief.tv_usec);
	SHOW(poll(NULL, 0, 1));
	SHOW(poll(nowhere, 1, 0));
	SHOW(select(-1, NULL, NULL, NULL, &brief));
	close(a);
	FD_ZERO(&in);
	FD_SET(a, &in);
	SHOW(select(a + 1, &in, NULL, NULL, &brief));
	close(b);
	close(pipes[0]);
	close(pipes[1]);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: poll_select HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	each_state();
	together();
	puts("done");
	return 0;
}
