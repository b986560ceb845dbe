/* Connections that are over, half over, or never came about when another process gets them: what is unread, what the mask
 * says, and the error that is still to be told.
 *
 *   moved_ended HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

static const char *host;
static int port;

static int state(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) ? -1 : info.tcpi_state;
}

static void wait_for_state(int fd, int wanted)
{
	while (state(fd) != wanted)
		poll(NULL, 0, 1);
}

/* Everything that a program can find out, in the parent and not in the child, so that one thread prints. */
static void look(const char *what, int fd)
{
	char bytes[100];
	struct sockaddr_in name;
	socklen_t length = sizeof name;
	printf("-- %s\n", what);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
	poll(&one, 1, 0);
	printf("mask %#x, state %d\n", one.revents, state(fd));
	int waiting = -1;
	SHOW(ioctl(fd, FIONREAD, &waiting));
	printf("waiting: %d\n", waiting);
	SHOW(getpeername(fd, (struct sockaddr *)&name, &length));
	SHOW(option_of(fd, SOL_SOCKET, SO_PEEK_OFF));
	SHOW(option_of(fd, SOL_SOCKET, SO_REUSEADDR));
	SHOW(option_of(fd, SOL_SOCKET, SO_RCVBUF) > 10000);
	for (int i = 0; i < 3; i++)
		SHOW(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT));
	printf("error %d\n", option_of(fd, SOL_SOCKET, SO_ERROR));
	SHOW(send(fd, "z", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
	close(fd);
}

static void reset(void)
{
	int fd = peer(host, port, "steps say=hello await reset");
	wait_for(fd, POLLIN);
	send_text(fd, ".");
	wait_for(fd, 0);
	look("reset, 5 bytes unread", fd);
	fd = peer(host, port, "reset");
	wait_for(fd, 0);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	SHOW(option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	look("reset, and the error fetched", fd);
	fd = peer(host, port, "steps say=hello finish await reset");
	wait_for(fd, POLLRDHUP);
	send_text(fd, ".");
	wait_for(fd, 0);
	look("finished and reset", fd);
}

static void both_finished(void)
{
	int fd = peer(host, port, "steps say=hello finish eof close");
	wait_for(fd, POLLRDHUP);
	SHOW(shutdown(fd, SHUT_WR));
	wait_for_state(fd, TCP_CLOSE);
	look("the peer finished first", fd);
	fd = peer(host, port, "steps eof say=hello finish close");
	SHOW(shutdown(fd, SHUT_WR));
	wait_for_state(fd, TCP_CLOSE);
	look("we finished first", fd);
}

static void half(void)
{
	int fd = peer(host, port, "steps say=hello finish eof close");
	wait_for(fd, POLLRDHUP);
	look("the peer finished", fd);
	fd = peer(host, port, "hold");
	SHOW(shutdown(fd, SHUT_WR));
	wait_for_state(fd, TCP_FIN_WAIT2);
	look("we finished", fd);
	fd = peer(host, port, "steps say=hello await");
	wait_for(fd, POLLIN);
	SHOW(shutdown(fd, SHUT_RD));
	look("SHUT_RD", fd);
	fd = peer(host, port, "hold");
	SHOW(shutdown(fd, SHUT_RDWR));
	wait_for_state(fd, TCP_FIN_WAIT2);
	look("SHUT_RDWR", fd);
	fd = peer(host, port, "steps say=hello await");
	wait_for(fd, POLLIN);
	SHOW(option_set(fd, SOL_SOCKET, SO_PEEK_OFF, 2));
	look("SO_PEEK_OFF", fd);
}

/* A socket that has tried a port at which nobody listens. */
static int refused(int fd)
{
	struct sockaddr_in a = address(host, port + 1);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	return fd;
}

static void attempts(void)
{
	char byte;
	int fd = refused(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	wait_for(fd, POLLOUT);
	look("refused", fd);
	fd = refused(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	wait_for(fd, POLLOUT);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	look("refused, and the error fetched", fd);
	fd = refused(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	wait_for(fd, POLLOUT);
	if (!fork())
		_exit(0);
	wait(NULL);
	/* Told once, or that there was one, and after that it is a socket like a new one. */
	refused(fd);
	refused(fd);
	wait_for(fd, POLLOUT);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	close(fd);
	fd = refused(tcp_socket());
	look("refused while it was waited for", fd);
	fd = tcp_socket();
	SHOW(shutdown(fd, SHUT_RD));
	SHOW(recv(fd, &byte, 1, MSG_DONTWAIT));
	look("never connected, SHUT_RD", fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: moved_ended HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	reset();
	both_finished();
	half();
	attempts();
	puts("done");
	return 0;
}
