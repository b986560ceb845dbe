/* Connections and listeners that are shared with another process: by fork, by exec, by spawn.
 *
 *   inherited HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static const char *host;
static int port;

static int end_of(pid_t pid)
{
	int status = -1;
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char pattern(long i)
{
	return (char)(i * 31 + i / 251);
}

/* The child reads what the parent sent, with much of it under way in both directions at the fork. */
static void in_transfer(void)
{
	enum { N = 300000 };
	static char data[N];
	int fd = peer(host, port, "echo"), flags;
	long sent = 0;
	puts("# forked in mid-transfer");
	flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	for (long i = 0; i < N; i++)
		data[i] = pattern(i);
	while (sent < N) {
		ssize_t n = send(fd, data + sent, (size_t)(N - sent), 0);
		if (n < 0)
			break;
		sent += n;
	}
	fcntl(fd, F_SETFL, flags);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		while (sent < N) {
			ssize_t n = send(fd, data + sent, (size_t)(N - sent), 0);
			if (n < 0)
				_exit(2);
			sent += n;
		}
		shutdown(fd, SHUT_WR);
		long got = 0;
		for (;;) {
			static char buffer[65536];
			ssize_t n = recv(fd, buffer, sizeof buffer, 0);
			if (n <= 0)
				_exit(n < 0 ? 3 : got == N ? 0 : 4);
			for (ssize_t i = 0; i < n; i++)
				if (buffer[i] != pattern(got + i))
					_exit(5);
			got += n;
		}
	}
	SHOW(end_of(pid));
	close(fd);
}

/* Parent and child take turns, with data unread at the fork; then the child closes its end only. */
static void in_turns(void)
{
	char buffer[8];
	int fd = peer(host, port, "echo"), ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 9};
	struct sockaddr_in a, b;
	socklen_t la = sizeof a, lb = sizeof b;
	puts("# parent and child in turns");
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	getsockname(fd, (struct sockaddr *)&a, &la);
	send_text(fd, "unread");
	wait_for(fd, POLLIN);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		SHOW(recv(fd, buffer, 3, 0));
		SHOW(write(fd, "child", 5));
		fflush(stdout);
		_exit(0);
	}
	SHOW(end_of(pid));
	SHOW(recv(fd, buffer, 8, MSG_WAITALL));
	printf("%.8s\n", buffer);
	send_text(fd, "x");
	SHOW(epoll_wait(ep, &e, 1, 20000));
	printf("data %d\n", (int)e.data.u64);
	getsockname(fd, (struct sockaddr *)&b, &lb);
	printf("same name: %d\n", la == lb && memcmp(&a, &b, la) == 0);
	SHOW(recv(fd, buffer, 1, 0));
	close(ep);
	close(fd);
}

/* It uses what it has inherited and, to its end, a connection of its own. */
static int childs_work(void *of)
{
	char buffer[8];
	int fd = *(int *)of, own;
	SHOW(recv(fd, buffer, 3, 0));
	SHOW(write(fd, "child", 5));
	own = peer(host, port, "echo");
	send_text(own, "own");
	SHOW(recv(own, buffer, 3, MSG_WAITALL));
	fflush(stdout);
	return 7;
}

/* Processes that are made past fork(), as sandboxes and servers that isolate their children do. The parent closes its end. */
static void past_fork(void)
{
	static const char *const ways[] = {"SYS_clone", "SYS_clone3", "clone", "SYS_clone of the files, too", "SYS_fork"};
	static char stack[65536] __attribute__((aligned(16)));
	for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
		char buffer[8];
		struct clone_args args = {.exit_signal = SIGCHLD};
		int fd = peer(host, port, "echo");
		pid_t pid = -1;
		printf("# %s\n", ways[way]);
		send_text(fd, "abc");
		wait_for(fd, POLLIN);
		fflush(stdout);
		switch (way) {
		case 0:
			pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
			break;
		case 1:
			pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
			break;
		case 2:
			pid = clone(childs_work, stack + sizeof stack, SIGCHLD, &fd);
			break;
		case 3:
			pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
			break;
#ifdef SYS_fork
		case 4:
			pid = (pid_t)syscall(SYS_fork);
			break;
#endif
		default:
			pid = fork();
		}
		if (pid == 0)
			_exit(childs_work(&fd));
		if (way != 3)
			close(fd);
		SHOW(end_of(pid));
		if (way == 3) {
			receive_exactly(fd, buffer, 5);
			printf("%.5s\n", buffer);
			close(fd);
		}
	}
}

/* Reads all that there is, and whether it ends then; answers, and is through. */
static int reads_to_the_end(int fd)
{
	static char buffer[65536];
	long got = 0;
	ssize_t n;
	while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
		got += n;
	SHOW(got);
	SHOW(n);
	SHOW(send(fd, "answer", 6, MSG_NOSIGNAL));
	fflush(stdout);
	return 0;
}

static int state_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		err(2, "TCP_INFO");
	return info.tcpi_state;
}

/* The peer has finished by the time of the fork; what it sent is unread, or read in part. */
static void half_closed(void)
{
	static const char *const commands[] = {"finish 0", "finish 5000", "finish 50000"};
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
		char byte;
		int fd = peer(host, port, commands[i]);
		printf("# the peer has finished: %s\n", commands[i]);
		wait_for(fd, POLLRDHUP);
		SHOW(state_of(fd));
		if (i == 2)
			SHOW(recv(fd, &byte, 1, 0));
		fflush(stdout);
		pid_t pid = fork();
		if (pid == 0) {
			SHOW(state_of(fd));
			_exit(reads_to_the_end(fd));
		}
		SHOW(end_of(pid));
		SHOW(recv(fd, &byte, 1, 0));
		SHOW(shutdown(fd, SHUT_WR));
		close(fd);
	}
}

/* A listener from before the fork; each side takes a connection. */
static void listening(void)
{
	int at, fd = listener(8, &at), child;
	char command[32], byte;
	puts("# a listener");
	snprintf(command, sizeof command, "call %d", at);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		int c = accept(fd, NULL, NULL);
		char text[6];
		receive_exactly(c, text, 6);
		_exit(memcmp(text, "called", 6) != 0);
	}
	int one = peer(host, port, command);
	SHOW(end_of(pid));
	int two = peer(host, port, command);
	child = accept(fd, NULL, NULL);
	SHOW(recv(child, &byte, 1, 0));
	close(child);
	close(one);
	close(two);
	close(fd);
}

/* A server that forks and goes on, as one that saves its data does: its event loop hears of new connections. */
static void listening_in_epoll(void)
{
	int at, fd = listener(8, &at), ep = epoll_create1(0), child;
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 4};
	char command[32], byte;
	puts("# a listener in an epoll instance");
	snprintf(command, sizeof command, "call %d", at);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	SHOW(end_of(pid));
	for (int i = 0; i < 2; i++) {
		int one = peer(host, port, command);
		e.data.u64 = 0;
		SHOW(epoll_wait(ep, &e, 1, 20000));
		printf("data %d\n", (int)e.data.u64);
		child = accept(fd, NULL, NULL);
		SHOW(recv(child, &byte, 1, 0));
		close(child);
		close(one);
		SHOW(epoll_wait(ep, &e, 1, 0));
	}
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	close(ep);
	close(fd);
}

/* A program is started with the connection as its input and output. */
static void executed(void)
{
	char text[32] = "";
	int fd = peer(host, port, "echo");
	puts("# another program");
	send_text(fd, "one line\n");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		execlp("sh", "sh", "-c", "read line; echo \"got $line\"", (char *)NULL);
		_exit(99);
	}
	SHOW(end_of(pid));
	receive_exactly(fd, text, 13);
	printf("%s", text);

	posix_spawn_file_actions_t actions;
	char *const words[] = {"sh", "-c", "echo spawned", NULL};
	int other = peer(host, port, "echo");
	posix_spawn_file_actions_init(&actions);
	SHOW(posix_spawn_file_actions_adddup2(&actions, other, 1));
	SHOW(posix_spawnp(&pid, "sh", &actions, NULL, words, environ));
	SHOW(end_of(pid));
	receive_exactly(other, text, 8);
	printf("%.8s", text);
	posix_spawn_file_actions_destroy(&actions);
	close(other);
	close(fd);
}

/* The connection becomes a standard stream of this process: libc's own calls then read and write it. */
static void standard_streams(void)
{
	char text[16] = "", line[16] = "";
	int fd = peer(host, port, "echo"), in = dup(0), out = dup(1);
	puts("# standard streams");
	fflush(stdout);
	int onto = dup2(fd, 1);
	int printed = printf("printed\n"), flushed = fflush(stdout);
	dup2(out, 1);
	SHOW(onto);
	SHOW(printed);
	SHOW(flushed);
	receive_exactly(fd, text, 8);
	printf("%s", text);
	send_text(fd, "to be read\n");
	SHOW(dup2(fd, 0));
	SHOW(fgets(line, sizeof line, stdin) != NULL);
	printf("%s", line);
	SHOW(dup2(in, 0));
	SHOW(fcntl(fd, F_DUPFD, 2) > 2);
	send_text(fd, "once more");
	receive_exactly(fd, text, 9);
	close(fd);
	close(in);
	close(out);
}

static int watched = -1;

/* A handler of the program's, in the child. */
static void forked(void)
{
	if (watched < 0)
		return;
	alarm(20);
	close(watched);
	watched = epoll_create1(0);
}

static void with_handler(void)
{
	int fd = peer(host, port, "echo");
	struct epoll_event event = {.events = EPOLLIN};
	puts("# a handler in the child that closes an epoll instance");
	fflush(stdout);
	watched = epoll_create1(0);
	if (epoll_ctl(watched, EPOLL_CTL_ADD, fd, &event))
		err(2, "epoll_ctl");
	pid_t pid = fork();
	if (pid == 0)
		_exit(watched < 0);
	SHOW(end_of(pid));
	close(watched);
	watched = -1;
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: inherited HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	/* Before the first socket. */
	pthread_atfork(NULL, NULL, forked);
	in_transfer();
	in_turns();
	past_fork();
	half_closed();
	listening();
	listening_in_epoll();
	executed();
	standard_streams();
	with_handler();
	/* The last connection goes with this process into the next program. */
	int fd = peer(host, port, "echo");
	fflush(stdout);
	dup2(fd, 5);
	execl("/bin/sh", "sh", "-c", "echo from the shell >&5; read line <&5; echo \"back: $line\"; echo done", (char *)NULL);
	return 1;
}
