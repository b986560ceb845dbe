/* What becomes of a port when the connection or listener that used it is over (rows ER-83 and ER-85). */
#include "rows.h"

#include <netinet/in.h>

static const char *host;
static int port;
static char near_host[INET_ADDRSTRLEN];

enum binding { UNBOUND, TO_ANY_PORT, TO_A_PORT, BINDINGS };
enum use { NOTHING, CONNECTED, RESET, REFUSED, LISTENED, SHUT, USES };
enum next { BIND, LISTEN, CONNECT, NEXTS };

static const char *const binding_names[] = {"never bound", "bound to port 0", "bound to a port"};
static const char *const use_names[] = {"not used",         "disconnected",          "reset",
					"connect, refused", "a listener, dissolved", "a listener, shut down"};
static const char *const next_names[] = {"bind", "listen", "connect"};

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	return a;
}

static long bind_to(int fd, const char *where, int at)
{
	struct sockaddr_in a = address(where, at);
	return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static long connect_to(int fd, int at)
{
	struct sockaddr_in a = address(host, at);
	return connect(fd, (struct sockaddr *)&a, sizeof a);
}

static void disconnect(int fd)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	if (connect(fd, &nobody, sizeof nobody))
		err(2, "disconnect");
}

/* The name beside the one before. */
static const char *named(struct sockaddr_in before, struct sockaddr_in now)
{
	static char text[64];
	snprintf(text, sizeof text, "%s address, %s port", now.sin_addr.s_addr ? "an" : "no",
		 !now.sin_port                      ? "no"
		 : now.sin_port == before.sin_port ? "the same"
						   : "another");
	return text;
}

static void use(int fd, enum use use)
{
	switch (use) {
	case NOTHING:
		disconnect(fd);
		break;
	case CONNECTED:
	case RESET:
		if (connect_to(fd, port))
			err(2, "connect");
		if (use == RESET) {
			send_text(fd, "reset\n");
			wait_for(fd, POLLHUP);
		}
		break;
	case REFUSED:
		if (connect_to(fd, 9) == 0 || errno != ECONNREFUSED)
			err(2, "not refused");
		break;
	default:
		if (listen(fd, 1))
			err(2, "listen");
	}
}

static void end(int fd, enum use use)
{
	if (use == CONNECTED || use == LISTENED)
		disconnect(fd);
	else if (use == SHUT && shutdown(fd, SHUT_RD))
		err(2, "shutdown");
}

/* One case; 0 when it is to be tried again: a port chosen at random may be the one of before. */
static int tried(const char *where, enum binding binding, enum use used, enum next next, int attempt)
{
	static int fixed = 7100;
	char text[160];
	int fd = tcp_socket();
	if (binding != UNBOUND && bind_to(fd, where, binding == TO_A_PORT ? fixed++ : 0))
		err(2, "bind");
	use(fd, used);
	struct sockaddr_in before = name_of(fd);
	end(fd, used);
	snprintf(text, sizeof text, "%s of %s, %s", binding_names[binding], where == near_host ? "an address" : "any",
		 use_names[used]);
	if (next == BIND && attempt == 0)
		row("ER-83", "%s, its name: %s", text, named(before, name_of(fd)));
	/* Free for others? */
	if (next == BIND && used != NOTHING && attempt == 0) {
		int other = tcp_socket();
		struct sockaddr_in it = name_of(fd);
		long r = bind_to(other, where, ntohs(it.sin_port));
		row("ER-83", "%s, another socket binds its port: %s", text, r ? strerrorname_np(errno) : "yes");
		close(other);
	}
	long r = next == BIND     ? bind_to(fd, where, 0)
		 : next == LISTEN ? listen(fd, 1)
				  : connect_to(fd, port);
	int e = errno, same = before.sin_port && name_of(fd).sin_port == before.sin_port;
	if (same && binding != TO_A_PORT && attempt < 2) {
		close(fd);
		return 0;
	}
	row("ER-83 ER-48 ER-56", "%s, then %s: %s, %s", text, next_names[next], r ? strerrorname_np(e) : "yes",
	    named(before, name_of(fd)));
	if (next == BIND)
		ROW("ER-83 ER-48", strcat(text, ", then bind twice"), bind_to(fd, where, 0));
	close(fd);
	return 1;
}

static void one(const char *where, enum binding binding, enum use used, enum next next)
{
	for (int attempt = 0; !tried(where, binding, used, next, attempt); attempt++)
		;
}

/* A port that is over is no longer heard of: the listener that was dissolved refuses. */
static void heard(void)
{
	int at, l = listener(1, &at), client = tcp_socket(), other;
	disconnect(l);
	struct sockaddr_in a = address("127.0.0.1", at);
	ROW("ER-83", "a client of the old port", connect(client, (struct sockaddr *)&a, sizeof a));
	close(client);
	ROW("ER-83", "it listens anew", listen(l, 1));
	other = tcp_socket();
	ROW("ER-83", "another takes the old port", bind_to(other, "0.0.0.0", at));
	char command[32];
	snprintf(command, sizeof command, "call %d", ntohs(name_of(l).sin_port));
	int caller = peer(host, port, command);
	wait_for(l, POLLIN);
	int child = accept(l, NULL, NULL);
	row("ER-83", "a client from afar at the new port: %s", child >= 0 ? "yes" : strerrorname_np(errno));
	struct sockaddr_in before = name_of(child);
	disconnect(child);
	row("ER-83", "an accepted connection, disconnected: %s", named(before, name_of(child)));
	close(child);
	close(caller);
	close(other);
	close(l);
}

/* A bind that fails. */
static void taken(void)
{
	int other, fd = tcp_socket(), l = listener(1, &other);
	if (connect_to(fd, port))
		err(2, "connect");
	send_text(fd, "reset\n");
	wait_for(fd, POLLHUP);
	struct sockaddr_in before = name_of(fd);
	ROW("ER-85", "bind to an address of others", bind_to(fd, "203.0.113.1", other));
	row("ER-85", "its name after that: %s", named(before, name_of(fd)));
	ROW("ER-85", "bind to a port of others", bind_to(fd, near_host, other));
	row("ER-85", "its name then: %s", named(before, name_of(fd)));
	close(fd);
	close(l);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	int fd = tcp_socket();
	if (connect_to(fd, port))
		err(2, "connect");
	struct sockaddr_in a = name_of(fd);
	inet_ntop(AF_INET, &a.sin_addr, near_host, sizeof near_host);
	close(fd);
	for (enum binding b = 0; b < BINDINGS; b++)
		for (enum use u = 0; u < USES; u++)
			for (enum next n = 0; n < NEXTS; n++) {
				one("0.0.0.0", b, u, n);
				if (b != UNBOUND)
					one(near_host, b, u, n);
			}
	heard();
	taken();
	puts("done");
	return 0;
}
