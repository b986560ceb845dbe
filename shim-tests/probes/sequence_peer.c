/* The scripted peer of probes/sequence.c and random_calls.c, on the kernel's TCP: makes the socket calls that come over the control
 * connection, one a line, and answers each with one line.
 *
 *   sequence_peer CONTROL PORT
 *
 * CONTROL is the path of the socket that it listens at for sequences, one after the other; PORT is where it accepts.
 * Connections are named by their number, in the order in which they came to be.
 */
#include "show.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/un.h>

enum { SOCKETS = 128 };

static int sockets[SOCKETS], count, accepting;

static void listen_at(int port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1;
	accepting = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(accepting, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(accepting, (struct sockaddr *)&a, sizeof a) || listen(accepting, SOCKETS))
		err(2, "port %d", port);
}

static void add(int fd)
{
	if (count == SOCKETS)
		errx(2, "more than %d connections", SOCKETS);
	sockets[count++] = fd;
}

static void reset(int fd)
{
	struct linger at_once = {.l_onoff = 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(fd);
}

static int queued(int fd, unsigned long request)
{
	int n = 0;
	return ioctl(fd, request, &n) ? 0 : n;
}

/* Takes what has come, and tells of each connection: number, near port, state, unacknowledged bytes. */
static void status(FILE *to)
{
	for (int fd; (fd = accept4(accepting, NULL, NULL, SOCK_NONBLOCK)) >= 0;)
		add(fd);
	for (int i = 0; i < count; i++) {
		struct sockaddr_in a = {0};
		socklen_t length = sizeof a;
		struct tcp_info info = {0};
		int on = 1;
		if (sockets[i] < 0)
			continue;
		/* What is owed to the near side leaves now. */
		setsockopt(sockets[i], IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
		if (getpeername(sockets[i], (struct sockaddr *)&a, &length))
			a.sin_port = 0;
		length = sizeof info;
		getsockopt(sockets[i], IPPROTO_TCP, TCP_INFO, &info, &length);
		fprintf(to, " %d %d %d %d", i, ntohs(a.sin_port), info.tcpi_state,
			info.tcpi_state == TCP_CLOSE ? 0 : queued(sockets[i], SIOCOUTQ));
	}
}

static void answer(FILE *to, long value)
{
	fprintf(to, " %s", value < 0 ? strerrorname_np(errno) : "ok");
	if (value > 0)
		fprintf(to, "-%ld", value);
}

/* Reads what is there, up to `most`, and tells how much, its sum, and what ended it. */
static void take(int fd, long most, FILE *to)
{
	static unsigned char data[1 << 16];
	long sum = 0, got = 0;
	ssize_t n = 1;
	while (got < most && (n = recv(fd, data, most - got < (long)sizeof data ? (size_t)(most - got) : sizeof data,
				       MSG_DONTWAIT)) > 0)
		for (ssize_t at = 0; at < n; at++)
			sum += data[at] * (got++ % 251 + 1);
	fprintf(to, " took %ld sum %ld %s", got, sum,
		n > 0         ? "-"
		: n == 0      ? "end"
		: errno == EAGAIN ? "none"
				  : strerrorname_np(errno));
}

static void obey(char *line, FILE *to)
{
	static char data[1 << 16];
	char word[16], host[64];
	long i = 0, a = 0, b = 0;
	if (sscanf(line, "call %63s %ld", host, &a) == 2) {
		struct sockaddr_in where = address(host, (int)a), own;
		socklen_t length = sizeof own;
		int fd = tcp_socket();
		long r = connect(fd, (struct sockaddr *)&where, sizeof where);
		answer(to, r);
		if (r) {
			close(fd);
			return;
		}
		getsockname(fd, (struct sockaddr *)&own, &length);
		ioctl(fd, FIONBIO, &(int){1});
		fprintf(to, " %d %d", count, ntohs(own.sin_port));
		add(fd);
	} else if (sscanf(line, "%15s %ld %ld %ld", word, &i, &a, &b) < 1) {
		errx(2, "%s", line);
	} else if (!strcmp(word, "status")) {
		status(to);
	} else if (i < 0 || i >= count || sockets[i] < 0) {
		errx(2, "no connection: %s", line);
	} else if (!strcmp(word, "send")) {
		answer(to, send(sockets[i], data, (size_t)a, (int)b | MSG_NOSIGNAL));
	} else if (!strcmp(word, "recv")) {
		answer(to, recv(sockets[i], data, (size_t)a, 0));
	} else if (!strcmp(word, "text")) {
		for (long at = 0; at < a; at++)
			data[at] = (char)('a' + (at + a) % 26);
		answer(to, send(sockets[i], data, (size_t)a, (int)b | MSG_NOSIGNAL));
	} else if (!strcmp(word, "take")) {
		take(sockets[i], a, to);
	} else if (!strcmp(word, "shutdown")) {
		answer(to, shutdown(sockets[i], (int)a));
	} else if (!strcmp(word, "close")) {
		fprintf(to, " %s", queued(sockets[i], SIOCINQ) ? "reset" : "finish");
		close(sockets[i]);
		sockets[i] = -1;
	} else if (!strcmp(word, "reset")) {
		fputs(" reset", to);
		reset(sockets[i]);
		sockets[i] = -1;
	} else {
		errx(2, "%s", line);
	}
}

static void sequence(int control)
{
	char *line = NULL;
	size_t room = 0;
	FILE *from = fdopen(control, "r"), *to = fdopen(dup(control), "w");
	if (!from || !to)
		err(2, "control");
	while (getline(&line, &room, from) > 0) {
		obey(line, to);
		fputc('\n', to);
		fflush(to);
	}
	free(line);
	fclose(from);
	fclose(to);
	for (; count; count--)
		if (sockets[count - 1] >= 0)
			reset(sockets[count - 1]);
	/* What the sequence left in the queue. */
	for (int fd; (fd = accept(accepting, NULL, NULL)) >= 0;)
		reset(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (argc != 3 || strlen(argv[1]) >= sizeof a.sun_path)
		errx(2, "usage: %s CONTROL PORT", argv[0]);
	strcpy(a.sun_path, argv[1]);
	listen_at(atoi(argv[2]));
	int door = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(door, (struct sockaddr *)&a, sizeof a) || listen(door, 4))
		err(2, "%s", argv[1]);
	puts("ready");
	fflush(stdout);
	for (int control; (control = accept(door, NULL, NULL)) >= 0;)
		sequence(control);
	err(2, "accept");
}
