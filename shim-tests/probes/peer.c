/* The other end of the probes, on the kernel's TCP: a server that does with each
 * connection what its first line says.
 *
 *   peer PORT
 *
 *   echo        sends back all that comes, then closes
 *   discard     reads to the end, then closes
 *   close       closes at once
 *   reset       closes with a RST
 *   gated       reads nothing until somebody says "open", then to the end
 *   late N      sends N bytes when somebody says "open", closes when the other end has
 *   open        lets the next of these begin, closes at once
 *   hold [N]    reads nothing, until its own connection is reset or killed; with N
 *               sends a byte once SO_RCVBUF is that
 *   send N      sends N bytes, closes when the other end has
 *   finish N    sends N bytes, shuts down its side, reads to the end
 *   call PORT   connects to the caller's host at PORT, sends "called", and echoes
 *               there; closes here at once
 *   later PORT  connects there, closes here, and goes on so when somebody says "open"
 *   abort PORT  connects there, and resets that connection
 *   steps S...  does one after the other: say=TEXT and urgent=TEXT send, await
 *               reads one byte, eof reads to the end, finish shuts down its side,
 *               gate waits until somebody says "open", call=PORT connects there,
 *               close and reset end the connection, tell=PORT sends the caller's
 *               host a datagram, which names what eof or call met
 *   narrow      says the port of a listener whose queue is full ("N\n"); reads a
 *               byte, then accepts there, and holds what it accepted
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char pattern[1 << 16];
/* A pipe with a byte for each "open". */
static int gate[2];

static void echo(int fd)
{
	char buffer[1 << 16];
	ssize_t n;
	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		if (send(fd, buffer, (size_t)n, MSG_NOSIGNAL) != n)
			return;
}

/* The error that ended it, or 0. */
static int discard(int fd)
{
	char buffer[1 << 16];
	ssize_t n;
	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		;
	return n ? errno : 0;
}

static void supply(int fd, long left)
{
	while (left > 0) {
		size_t next = left < (long)sizeof pattern ? (size_t)left : sizeof pattern;
		ssize_t n = send(fd, pattern, next, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		left -= n;
	}
}

static void reset(int fd)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(fd);
}

static int call_back(int fd, const char *port)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	int called = socket(AF_INET, SOCK_STREAM, 0);
	if (getpeername(fd, (struct sockaddr *)&a, &length))
		return called;
	a.sin_port = htons((uint16_t)atoi(port));
	if (connect(called, (struct sockaddr *)&a, sizeof a))
		warn("call %s", port);
	return called;
}

static void tell(const struct sockaddr_in *caller, const char *port, int error)
{
	struct sockaddr_in a = *caller;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	const char *text = error ? strerrorname_np(error) : "end";
	a.sin_port = htons((uint16_t)atoi(port));
	if (sendto(fd, text, strlen(text) + 1, 0, (struct sockaddr *)&a, sizeof a) < 0)
		warn("tell");
	close(fd);
}

static void narrow(int fd)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t length = sizeof a;
	char text[16];
	int queue = socket(AF_INET, SOCK_STREAM, 0), filler = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(queue, (struct sockaddr *)&a, sizeof a) || listen(queue, 0) ||
	    getsockname(queue, (struct sockaddr *)&a, &length) ||
	    connect(filler, (struct sockaddr *)&a, length))
		warn("narrow");
	snprintf(text, sizeof text, "%d\n", ntohs(a.sin_port));
	send(fd, text, strlen(text), MSG_NOSIGNAL);
	recv(fd, text, 1, 0);
	int first = accept(queue, NULL, NULL), second = accept(queue, NULL, NULL);
	discard(fd);
	close(first);
	close(second);
	close(filler);
	close(queue);
	close(fd);
}

static void steps(int fd, char **rest)
{
	struct sockaddr_in caller;
	socklen_t length = sizeof caller;
	int met = 0, called = -1;
	char byte, *step;
	if (getpeername(fd, (struct sockaddr *)&caller, &length))
		warn("steps");
	while ((step = strtok_r(NULL, " ", rest))) {
		if (!strncmp(step, "say=", 4))
			send(fd, step + 4, strlen(step + 4), MSG_NOSIGNAL);
		else if (!strncmp(step, "urgent=", 7))
			send(fd, step + 7, strlen(step + 7), MSG_NOSIGNAL | MSG_OOB);
		else if (!strcmp(step, "await") && recv(fd, &byte, 1, 0) != 1)
			break;
		else if (!strcmp(step, "eof"))
			met = discard(fd);
		else if (!strcmp(step, "finish"))
			shutdown(fd, SHUT_WR);
		else if (!strcmp(step, "gate") && read(gate[0], &byte, 1) != 1)
			break;
		else if (!strncmp(step, "call=", 5)) {
			caller.sin_port = htons((uint16_t)atoi(step + 5));
			called = socket(AF_INET, SOCK_STREAM, 0);
			met = connect(called, (struct sockaddr *)&caller, sizeof caller) ? errno : 0;
		}
		else if (!strncmp(step, "tell=", 5))
			tell(&caller, step + 5, met);
		else if (!strcmp(step, "reset")) {
			reset(fd);
			fd = -1;
		} else if (!strcmp(step, "close"))
			break;
	}
	if (fd >= 0)
		close(fd);
	if (called >= 0)
		close(called);
}

static void *serve(void *argument)
{
	int fd = (int)(intptr_t)argument;
	char line[512];
	size_t length = 0;
	while (length < sizeof line - 1 && recv(fd, line + length, 1, 0) == 1 &&
	       line[length] != '\n')
		length++;
	line[length] = 0;
	char *rest, *word = strtok_r(line, " ", &rest), *number = NULL;
	if (word && !strcmp(word, "steps")) {
		steps(fd, &rest);
		return NULL;
	}
	if (word)
		number = strtok_r(NULL, " ", &rest);
	if (!word) {
		close(fd);
	} else if (!strcmp(word, "echo")) {
		echo(fd);
		close(fd);
	} else if (!strcmp(word, "discard")) {
		discard(fd);
		close(fd);
	} else if (!strcmp(word, "close")) {
		close(fd);
	} else if (!strcmp(word, "reset")) {
		reset(fd);
	} else if (!strcmp(word, "gated")) {
		char byte;
		if (read(gate[0], &byte, 1) == 1)
			discard(fd);
		close(fd);
	} else if (!strcmp(word, "late") && number) {
		char byte;
		if (read(gate[0], &byte, 1) == 1)
			supply(fd, atol(number));
		discard(fd);
		close(fd);
	} else if (!strcmp(word, "open")) {
		if (write(gate[1], "", 1) != 1)
			warn("open");
		close(fd);
	} else if (!strcmp(word, "narrow")) {
		narrow(fd);
	} else if (!strcmp(word, "hold")) {
		int size = number ? atoi(number) : 0;
		if (size && (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) ||
			     send(fd, "", 1, MSG_NOSIGNAL) != 1))
			warn("hold %d", size);
		struct pollfd p = {.fd = fd};
		poll(&p, 1, -1);
		close(fd);
	} else if (!strcmp(word, "send") && number) {
		supply(fd, atol(number));
		discard(fd);
		close(fd);
	} else if (!strcmp(word, "finish") && number) {
		supply(fd, atol(number));
		shutdown(fd, SHUT_WR);
		discard(fd);
		close(fd);
	} else if (!strcmp(word, "call") && number) {
		int called = call_back(fd, number);
		close(fd);
		if (send(called, "called", 6, MSG_NOSIGNAL) == 6)
			echo(called);
		close(called);
	} else if (!strcmp(word, "later") && number) {
		char byte;
		int called = call_back(fd, number);
		close(fd);
		if (read(gate[0], &byte, 1) == 1 && send(called, "called", 6, MSG_NOSIGNAL) == 6)
			echo(called);
		close(called);
	} else if (!strcmp(word, "abort") && number) {
		reset(call_back(fd, number));
		close(fd);
	} else {
		warnx("%s?", word);
		close(fd);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: peer PORT");
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = (char)('a' + i % 26);
	if (fd < 0 || pipe(gate) || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 256))
		err(1, "listen");
	for (;;) {
		pthread_t thread;
		int connection = accept(fd, NULL, NULL);
		if (connection < 0)
			err(1, "accept");
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)connection))
			errx(1, "pthread_create");
		pthread_detach(thread);
	}
}
