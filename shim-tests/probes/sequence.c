/* Makes the socket calls that standard input names, one a line, and prints after each what it gave and what every socket
 * shows then. Against sequence_peer the lines are the same in each run on the same stack.
 *
 *   sequence CONTROL HOST PORT NEAR
 *
 * The next call is made when nothing is on its way in either direction any more (`settle`), so that no outcome depends on
 * time. Sockets are named by a number, which counts modulo those there are; without any, a call is left out.
 *
 *   socket NONBLOCK           nonblock S ON             connect S HOW     (peer closed unspec short port0 family)
 *   bind S WHERE PORT         (any near; port 0 or 1 to 4, fixed ones)    listen S BACKLOG
 *   accept S FLAGS            send S BYTES FLAGS        recv S BYTES FLAGS
 *   shutdown S HOW            close S                   abort S           error S
 *   peername S                option S LEVEL NAME VALUE                  atmark S
 *   call S                    the peer connects to the port of S
 *   far send F BYTES FLAGS    far recv F BYTES    far shutdown F HOW     far close F    far reset F
 */
#include "far_side.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/time.h>

enum {
	NEAR = 6,       /* sockets of ours at a time */
	FAR = 64,       /* connections of the peer */
	UNREAD = 40000, /* bytes of a connection in one direction: less than any window */
	QUEUE = 4,      /* connections that wait in one listener */
	FIRST_PORT = 7300,
	LOOKS = 20000,  /* a millisecond apart */
};

struct near {
	int fd, sent, queued;
	struct sockaddr_in name;
};

/* A connection, by the number that the peer gave it. */
struct far {
	enum { NONE, WAITING, ATTACHED, LEFT } near;
	struct near *of;  /* or the listener in whose queue it waits */
	int port, own, state, unacked, sent;
	int finished;     /* the near side left it by FIN, not by RST */
	enum { OPEN, FINISHED, WAS_RESET } far;
};

static struct near nears[NEAR];
static struct far fars[FAR];
static int near_count, far_count, port;
static const char *host, *near_host;
static volatile sig_atomic_t pipes;

static void on_sigpipe(int signal)
{
	(void)signal;
	pipes++;
}

static struct tcp_info info_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
	return info;
}

static int state_of(int fd)
{
	return info_of(fd).tcpi_state;
}

static int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in a = {0};
	socklen_t length = sizeof a;
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	return a;
}

/* The connections that the peer lost sight of: those of the near socket, which leaves them by FIN or by RST. */
static void leave(struct near *n, int finished)
{
	for (struct far *f = fars; f < fars + far_count; f++)
		if (f->of == n && (f->near == ATTACHED || f->near == WAITING)) {
			f->finished = finished && f->near == ATTACHED;
			f->near = LEFT;
			f->of = NULL;
		}
	n->queued = 0;
	n->sent = 0;
}

static struct far *far_of(const struct near *n)
{
	for (struct far *f = fars; f < fars + far_count; f++)
		if (f->near == ATTACHED && f->of == n)
			return f;
	return NULL;
}

static int passing(int state)
{
	return state == TCP_SYN_SENT || state == TCP_SYN_RECV || state == TCP_FIN_WAIT1 || state == TCP_CLOSING ||
	       state == TCP_LAST_ACK;
}

/* Takes the peer's view in. A connection that it accepted belongs to the socket with that port. */
static void look_far(void)
{
	int i, at, state, unacked, used;
	for (char *next = ask("status"); sscanf(next, "%d %d %d %d%n", &i, &at, &state, &unacked, &used) == 4;
	     next += used) {
		struct far *f = &fars[i];
		if (i >= far_count)
			far_count = i + 1;
		f->state = state;
		f->unacked = unacked;
		if (f->near == NONE)
			f->port = at;
		for (struct near *n = nears; f->near == NONE && n < nears + near_count; n++)
			if (ntohs(name_of(n->fd).sin_port) == at && state_of(n->fd) != TCP_LISTEN && !far_of(n)) {
				f->near = ATTACHED;
				f->of = n;
			}
	}
}

static const char *near_unsettled(struct near *n)
{
	struct tcp_info info = info_of(n->fd);
	struct far *f = far_of(n);
	int on = 1;
	if (passing(info.tcpi_state))
		return "a state that passes";
	if (info.tcpi_state == TCP_LISTEN)
		return (int)info.tcpi_unacked == n->queued ? NULL : "the queue of a listener";
	if (info.tcpi_state == TCP_CLOSE) {
		if (f && f->far == OPEN && f->state != TCP_CLOSE)
			return "the peer of a closed socket";
		return NULL;
	}
	setsockopt(n->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
	if (queued(n->fd, SIOCOUTQ) > 0)
		return "bytes that are not acknowledged";
	if (!f)
		return "a connection that the peer has not accepted";
	if (f->far == WAS_RESET || (f->far == FINISHED && info.tcpi_state != TCP_CLOSE_WAIT))
		return "the end of a connection";
	if (f->far == OPEN && f->state != (info.tcpi_state == TCP_ESTABLISHED  ? TCP_ESTABLISHED
					   : info.tcpi_state == TCP_CLOSE_WAIT ? TCP_FIN_WAIT2
									       : TCP_CLOSE_WAIT))
		return "two views of a connection";
	return NULL;
}

static const char *far_unsettled(struct far *f)
{
	if (f->far != OPEN)
		return NULL;
	if (f->near == NONE)
		return "a connection of nobody";
	if (passing(f->state))
		return "a state that passes, at the peer";
	if (f->unacked)
		return "bytes from the peer";
	if (f->near == LEFT && f->state != TCP_CLOSE && !(f->finished && f->state == TCP_CLOSE_WAIT))
		return "the end of a connection, at the peer";
	return NULL;
}

static const char *unsettled(void)
{
	const char *why;
	look_far();
	for (struct near *n = nears; n < nears + near_count; n++)
		if ((why = near_unsettled(n)))
			return why;
	for (struct far *f = fars; f < fars + far_count; f++)
		if ((why = far_unsettled(f)))
			return why;
	return NULL;
}

/* Waits until nothing is on its way. */
static void settle(const char *after)
{
	const char *why = NULL;
	for (int look = 0; look < LOOKS && (why = unsettled()); look++)
		poll(NULL, 0, 1);
	if (why)
		errx(2, "%s: does not settle: %s", after, why);
}

/* What is new in a name: an ephemeral port is not the same in each run. */
static const char *shown(struct near *n)
{
	static char text[32];
	struct sockaddr_in now = name_of(n->fd);
	int at = ntohs(now.sin_port);
	char fixed[8];
	snprintf(fixed, sizeof fixed, "%d", at);
	snprintf(text, sizeof text, "%s:%s", now.sin_addr.s_addr ? "near" : "any",
		 !at                                             ? "0"
		 : at > FIRST_PORT && at < FIRST_PORT + 10       ? fixed
		 : n->name.sin_port && now.sin_port != n->name.sin_port ? "changed"
								 : "chosen");
	n->name = now;
	return text;
}

static void show_all(void)
{
	for (struct near *n = nears; n < nears + near_count; n++) {
		struct pollfd p = {.fd = n->fd, .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP};
		poll(&p, 1, 0);
		printf(" | %d %#x %d %s", state_of(n->fd), (unsigned)p.revents, queued(n->fd, SIOCINQ), shown(n));
	}
	putchar('\n');
	fflush(stdout);
}

static long new_socket(int nonblock)
{
	struct timeval soon = {.tv_usec = 5000};
	if (near_count == NEAR)
		return 0;
	int fd = socket(AF_INET, SOCK_STREAM | (nonblock ? SOCK_NONBLOCK : 0), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	nears[near_count++] = (struct near){.fd = fd};
	return 0;
}

static int needs_reset(int state)
{
	return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || state == TCP_FIN_WAIT2;
}

static long connect_how(struct near *n, const char *how)
{
	struct sockaddr_in a = address(host, port);
	socklen_t length = sizeof a;
	int before = state_of(n->fd);
	if (!strcmp(how, "closed"))
		a.sin_port = htons(9);
	else if (!strcmp(how, "unspec"))
		a.sin_family = AF_UNSPEC;
	else if (!strcmp(how, "family"))
		a.sin_family = AF_INET6;
	else if (!strcmp(how, "port0"))
		a.sin_port = 0;
	else if (!strcmp(how, "short"))
		length = 3;
	/* What an earlier connection left at the peer is not this one's. */
	if (before == TCP_CLOSE)
		leave(n, 0);
	long r = connect(n->fd, (struct sockaddr *)&a, length);
	if (before != TCP_CLOSE && !strcmp(how, "unspec") && r == 0) {
		int saved = errno;
		leave(n, !needs_reset(before));
		errno = saved;
	}
	return r;
}

static long bind_where(struct near *n, const char *where, int at)
{
	struct sockaddr_in a = address("0.0.0.0", at ? FIRST_PORT + at : 0);
	if (!strcmp(where, "near"))
		a = address(near_host, at ? FIRST_PORT + at : 0);
	return bind(n->fd, (struct sockaddr *)&a, sizeof a);
}

static long accept_from(struct near *n, int flags)
{
	struct timeval soon = {.tv_usec = 5000};
	struct sockaddr_in a = {0};
	socklen_t length = sizeof a;
	if (near_count == NEAR)
		return 0;
	int fd = accept4(n->fd, (struct sockaddr *)&a, &length, flags);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
	n->queued--;
	struct near *new = &nears[near_count++];
	*new = (struct near){.fd = fd};
	for (struct far *f = fars; f < fars + far_count; f++)
		if (f->near == WAITING && f->of == n && f->own == ntohs(a.sin_port)) {
			f->near = ATTACHED;
			f->of = new;
			return 1;
		}
	errx(2, "accepted an unknown connection");
}

static void drop(struct near *n)
{
	size_t at = (size_t)(n - nears);
	memmove(n, n + 1, (size_t)(--near_count) * sizeof *n - at * sizeof *n);
	for (struct far *f = fars; f < fars + far_count; f++)
		if (f->of > n)
			f->of--;
}

static long close_it(struct near *n, int abort)
{
	int before = state_of(n->fd), fd = n->fd;
	struct linger at_once = {.l_onoff = 1};
	int finished = !abort && queued(fd, SIOCINQ) <= 0 &&
		       (before == TCP_ESTABLISHED || before == TCP_FIN_WAIT2);
	if (abort)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	leave(n, finished);
	drop(n);
	return close(fd);
}

static long receive(int fd, size_t bytes, int flags)
{
	static char data[1 << 16];
	return recv(fd, data, bytes > sizeof data ? sizeof data : bytes, flags);
}

static long send_some(struct near *n, long bytes, int flags)
{
	static char data[UNREAD];
	if (n->sent + bytes > UNREAD)
		return 0;
	long r = send(n->fd, data, (size_t)bytes, flags);
	if (r > 0)
		n->sent += (int)r;
	return r;
}

static long shut_down(struct near *n, int how)
{
	int listened = state_of(n->fd) == TCP_LISTEN;
	long r = shutdown(n->fd, how);
	int saved = errno;
	if (listened && state_of(n->fd) != TCP_LISTEN)
		leave(n, 0);
	errno = saved;
	return r;
}

static long error_of(int fd)
{
	int value = 0;
	socklen_t length = sizeof value;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &length))
		return -1;
	errno = value;
	return value ? -1 : 0;
}

static long peer_name(int fd)
{
	struct sockaddr_in a = {0};
	socklen_t length = sizeof a;
	return getpeername(fd, (struct sockaddr *)&a, &length) ? -1 : a.sin_family;
}

/* The peer connects to the port of a socket: who listens there has it in its queue then. */
static const char *call(struct near *n)
{
	int at = ntohs(name_of(n->fd).sin_port), i, own;
	struct near *listener = NULL;
	for (struct near *l = nears; l < nears + near_count; l++)
		if (state_of(l->fd) == TCP_LISTEN && ntohs(name_of(l->fd).sin_port) == at)
			listener = l;
	if (!at || (listener && listener->queued == QUEUE))
		return "left out";
	if (sscanf(ask("call %s %d", near_host, at), " ok %d %d", &i, &own) != 2)
		return reply;
	if (!listener)
		errx(2, "a connection to nobody");
	fars[i] = (struct far){.near = WAITING, .of = listener, .own = own};
	far_count = i + 1;
	listener->queued++;
	return "ok";
}

static const char *far_call(const char *what, long which, long a, long b)
{
	struct far *open[FAR];
	int n = 0;
	for (struct far *f = fars; f < fars + far_count; f++)
		if (f->far == OPEN)
			open[n++] = f;
	if (!n)
		return "left out";
	struct far *f = open[which % n];
	if (!strcmp(what, "send")) {
		if (f->sent + a > UNREAD)
			return "left out";
		f->sent += (int)a;
	}
	ask("%s %d %ld %ld", what, (int)(f - fars), a, b);
	/* A second call on what is closed already changes nothing at the near side. */
	if (!strcmp(what, "close") || !strcmp(what, "reset"))
		f->far = f->state == TCP_CLOSE ? FINISHED : strstr(reply, "reset") ? WAS_RESET : FINISHED;
	return reply;
}

static long option(int fd, const char *rest)
{
	int level, name, value;
	if (sscanf(rest, "%d %d %d", &level, &name, &value) != 3)
		errx(2, "option %s", rest);
	return setsockopt(fd, level, name, &value, sizeof value);
}

static int is(const char *word, const char *name)
{
	return !strcmp(word, name);
}

static long near_call(const char *word, struct near *n, const char *rest)
{
	char text[16] = "";
	long a = 0, b = 0;
	sscanf(rest, "%ld %ld", &a, &b);
	sscanf(rest, "%15s %ld", text, &b);
	return is(word, "connect")    ? connect_how(n, text)
	       : is(word, "bind")     ? bind_where(n, text, (int)b)
	       : is(word, "listen")   ? listen(n->fd, (int)a)
	       : is(word, "accept")   ? accept_from(n, (int)a)
	       : is(word, "send")     ? send_some(n, a, (int)strtol(strchr(rest, ' '), NULL, 10))
	       : is(word, "recv")     ? receive(n->fd, (size_t)a, (int)strtol(strchr(rest, ' '), NULL, 10))
	       : is(word, "shutdown") ? shut_down(n, (int)a)
	       : is(word, "close")    ? close_it(n, 0)
	       : is(word, "abort")    ? close_it(n, 1)
	       : is(word, "error")    ? error_of(n->fd)
	       : is(word, "peername") ? peer_name(n->fd)
	       : is(word, "nonblock") ? ioctl(n->fd, FIONBIO, &(int){(int)a})
	       : is(word, "atmark")   ? sockatmark(n->fd)
	       : is(word, "option")   ? option(n->fd, rest)
				      : (errx(2, "%s?", word), -1);
}

static void one(const char *line)
{
	char word[16], what[16];
	long which = 0, a = 0, b = 0;
	int used = 0;
	pipes = 0;
	if (sscanf(line, "%15s %ld %n", word, &which, &used) < 1)
		errx(2, "%s", line);
	printf("%s: ", line);
	if (is(word, "socket")) {
		printf("%ld", new_socket((int)which));
	} else if (is(word, "far")) {
		sscanf(line, "far %15s %ld %ld %ld", what, &which, &a, &b);
		fputs(far_call(what, which, a, b), stdout);
	} else if (!near_count) {
		fputs("left out", stdout);
	} else if (is(word, "call")) {
		fputs(call(&nears[which % near_count]), stdout);
	} else {
		long r = near_call(word, &nears[which % near_count], line + used);
		printf("%ld %s", r, r < 0 ? strerrorname_np(errno) : "");
	}
	fputs(pipes ? " SIGPIPE" : "", stdout);
	settle(line);
	show_all();
}

int main(int argc, char **argv)
{
	struct sigaction count = {.sa_handler = on_sigpipe};
	char line[80];
	if (argc != 5)
		errx(2, "usage: %s CONTROL HOST PORT NEAR", argv[0]);
	host = argv[2];
	port = atoi(argv[3]);
	near_host = argv[4];
	sigaction(SIGPIPE, &count, NULL);
	call_far(argv[1]);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		one(line);
	}
	puts("done");
	return 0;
}
