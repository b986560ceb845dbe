/* Threads that sleep on sockets while another one forks: what they wait for comes to them all the same.
 *
 *   moved_asleep HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define BYTES (3 << 20)

static const char *host;
static int port;

struct sleeper {
	const char *how;
	int fd, pipe[2], at, other;
	pid_t tid;
	sem_t begun;
	char result[200];
};

static unsigned char data[BYTES];

static void say(struct sleeper *s, long value, const char *more)
{
	if (value < 0)
		snprintf(s->result, sizeof s->result, "%s: %ld %s", s->how, value, strerrorname_np(errno));
	else
		snprintf(s->result, sizeof s->result, "%s: %ld %s", s->how, value, more);
}

static void *sleeps(void *argument)
{
	struct sleeper *s = argument;
	const char *how = s->how;
	char text[16] = "";
	s->tid = gettid();
	sem_post(&s->begun);
	if (!strcmp(how, "accept")) {
		int one = accept(s->fd, NULL, NULL);
		say(s, one < 0 ? -1 : recv(one, text, 6, MSG_WAITALL), text);
		close(one);
	} else if (!strcmp(how, "read")) {
		say(s, read(s->fd, text, 5), text);
	} else if (!strcmp(how, "recvmsg")) {
		struct iovec parts[2] = {{text, 2}, {text + 2, 8}};
		struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
		say(s, recvmsg(s->fd, &m, 0), text);
	} else if (!strcmp(how, "recv all")) {
		say(s, recv(s->fd, text, 10, MSG_WAITALL), text);
	} else if (!strcmp(how, "look at all")) {
		say(s, recv(s->fd, text, 10, MSG_WAITALL | MSG_PEEK), text);
	} else if (!strcmp(how, "recv enough")) {
		option_set(s->fd, SOL_SOCKET, SO_RCVLOWAT, 8);
		say(s, recv(s->fd, text, 12, 0), text);
	} else if (!strcmp(how, "sendfile")) {
		int file = memfd_create("data", 0);
		if (write(file, data, sizeof data) != sizeof data || lseek(file, 0, SEEK_SET))
			err(2, "write");
		long sent = sendfile(s->fd, file, NULL, sizeof data);
		snprintf(text, sizeof text, "at %ld", (long)lseek(file, 0, SEEK_CUR));
		say(s, sent, text);
		close(file);
	} else if (!strcmp(how, "send")) {
		say(s, send(s->fd, data, sizeof data, 0), "");
	} else if (!strcmp(how, "writev")) {
		struct iovec parts[3] = {{data, 7}, {data, 0}, {data + 7, sizeof data - 7}};
		say(s, writev(s->fd, parts, 3), "");
	} else if (!strcmp(how, "poll")) {
		struct pollfd p[2] = {{.fd = s->pipe[0], .events = POLLIN}, {.fd = s->fd, .events = POLLIN}};
		int n = poll(p, 2, 20000);
		snprintf(text, sizeof text, "%x %x", p[0].revents, p[1].revents);
		say(s, n, text);
	} else if (!strcmp(how, "select")) {
		fd_set set;
		FD_ZERO(&set);
		FD_SET(s->fd, &set);
		struct timeval t = {20, 0};
		int n = select(s->fd + 1, &set, NULL, NULL, &t);
		say(s, n, n > 0 && FD_ISSET(s->fd, &set) ? "it" : "");
	} else if (!strncmp(how, "epoll", 5)) {
		struct epoll_event e = {.events = EPOLLIN | (strcmp(how, "epoll") ? EPOLLET : 0)};
		int ep = epoll_create1(0);
		epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
		int n = epoll_wait(ep, &e, 1, 20000);
		snprintf(text, sizeof text, "%x", n > 0 ? e.events : 0);
		say(s, n, text);
		close(ep);
	}
	return NULL;
}

static int sends(const char *how)
{
	return !strncmp(how, "send", 4) || !strcmp(how, "writev");
}

/* Something has come before. */
static int prepared(const char *how)
{
	return !strcmp(how, "recv all") || !strcmp(how, "look at all") || !strcmp(how, "recv enough");
}

static int speak(struct sleeper *s)
{
	int fd = s->other >= 0 ? s->other : s->fd;
	if (!strcmp(s->how, "accept")) {
		char text[32];
		snprintf(text, sizeof text, "call %d", s->at);
		return peer(host, port, text);
	}
	if (sends(s->how))
		return peer(host, port, "open");
	/* Who waits for so many bytes is woken when as many have come since. */
	if (!strcmp(s->how, "recv enough"))
		send_text(fd, "fterwards");
	else
		send_text(fd, prepared(s->how) ? "fterw" : "after");
	return -1;
}

static void one(const char *how)
{
	struct sleeper s = {.how = how, .other = -1};
	pthread_t thread;
	int out;
	sem_init(&s.begun, 0, 0);
	if (pipe(s.pipe))
		err(2, "pipe");
	if (!strcmp(how, "accept"))
		s.fd = listener(5, &s.at);
	else if (sends(how))
		s.fd = peer(host, port, "gated");
	else
		s.fd = peer(host, port, "echo");
	if (prepared(how)) {
		send_text(s.fd, "befor");
		wait_for(s.fd, POLLIN);
	}
	pthread_create(&thread, NULL, sleeps, &s);
	sem_wait(&s.begun);
	asleep(s.tid);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	out = speak(&s);
	pthread_join(thread, NULL);
	puts(s.result);
	fflush(stdout);
	close(out);
	close(s.fd);
	close(s.pipe[0]);
	close(s.pipe[1]);
}

static sem_t handled, go_on;

static void handler(int signal)
{
	(void)signal;
	sem_post(&handled);
	while (sem_wait(&go_on))
		;
}

static void *connects(void *argument)
{
	struct sleeper *s = argument;
	struct sockaddr_in a = address(host, s->at);
	s->tid = gettid();
	sem_post(&s->begun);
	say(s, connect(s->fd, (struct sockaddr *)&a, sizeof a), "");
	return NULL;
}

/* The connection stands while the one who waits for it is held up by a signal, and has
 * gone to the kernel when the call is made again. */
static void connected(void)
{
	struct sleeper s = {.how = "connect", .fd = tcp_socket()};
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	pthread_t thread;
	char text[16] = "";
	int control = peer(host, port, "narrow");
	for (size_t n = 0; !strchr(text, '\n') && n < sizeof text - 1; n++)
		receive_exactly(control, text + n, 1);
	s.at = atoi(text);
	sem_init(&s.begun, 0, 0);
	sem_init(&handled, 0, 0);
	sem_init(&go_on, 0, 0);
	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, connects, &s);
	sem_wait(&s.begun);
	asleep(s.tid);
	pthread_kill(thread, SIGUSR1);
	sem_wait(&handled);
	send_text(control, "x");
	wait_for(s.fd, POLLOUT);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	sem_post(&go_on);
	pthread_join(thread, NULL);
	puts(s.result);
	fflush(stdout);
	close(control);
	close(s.fd);
}

int main(int argc, char **argv)
{
	static const char *const ways[] = {"accept",   "read",  "recvmsg", "recv all", "look at all", "recv enough",
					   "send",     "writev", "sendfile", "poll",	 "select",	"epoll",
					   "epoll, edges"};
	if (argc != 3)
		errx(2, "usage: moved_asleep HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
		one(ways[i]);
	connected();
	puts("done");
	return 0;
}
