/* Calls that sleep, and what ends their sleep: data, time, signals, the peer's end; and
 * what they have by then (rows RV-9 to RV-35, R6, R7, H5, H6, C4, C5).
 *
 *   waiting HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

static const char *host;
static int port;
static char data[1 << 20];

static void on_alarm(int signal)
{
	(void)signal;
}

/* A handler with or without SA_RESTART, and its signal in 50 ms. */
static void signal_soon(int flags)
{
	struct sigaction wake = {.sa_handler = on_alarm, .sa_flags = flags};
	struct itimerval alarm = {.it_value.tv_usec = 50000};
	sigaction(SIGALRM, &wake, NULL);
	setitimer(ITIMER_REAL, &alarm, NULL);
}

static void timeout(int fd, int name, int ms)
{
	struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	if (setsockopt(fd, SOL_SOCKET, name, &time, sizeof time))
		err(2, "a timeout");
}

static void nonblocking(int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

static void tell(int fd)
{
	if (send(fd, "g", 1, MSG_NOSIGNAL) != 1)
		err(2, "send");
}

/* Nothing comes: a signal, a time, both. */
static void reading_nothing(void)
{
	char byte;
	int fd = peer(host, port, "hold");
	signal_soon(0);
	ROW("R6", "recv, a signal", recv(fd, &byte, 1, 0));
	timeout(fd, SO_RCVTIMEO, 20000);
	signal_soon(SA_RESTART);
	ROW("RV-9", "recv with SO_RCVTIMEO, a signal with SA_RESTART", recv(fd, &byte, 1, 0));
	timeout(fd, SO_RCVTIMEO, 50);
	ROW("RV-8 R6", "recv with SO_RCVTIMEO, until it is over", recv(fd, &byte, 1, 0));
	nonblocking(fd, 1);
	ROW("R6", "recv, non-blocking", recv(fd, &byte, 1, 0));
	close(fd);
}

/* Some comes, less than was asked for with MSG_WAITALL. */
static void reading_some(void)
{
	char buffer[16];
	int fd = peer(host, port, "steps say=abc await finish");
	wait_for(fd, POLLIN);
	signal_soon(0);
	ROW("RV-15 R7", "MSG_WAITALL, a signal", recv(fd, buffer, sizeof buffer, MSG_WAITALL));
	close(fd);
	fd = peer(host, port, "steps say=abc await finish");
	wait_for(fd, POLLIN);
	timeout(fd, SO_RCVTIMEO, 50);
	ROW("R7", "MSG_WAITALL, until the time is over", recv(fd, buffer, sizeof buffer, MSG_WAITALL));
	tell(fd);
	timeout(fd, SO_RCVTIMEO, 0);
	ROW("R6", "recv of the peer's end", recv(fd, buffer, sizeof buffer, MSG_WAITALL));
	close(fd);
	fd = peer(host, port, "steps say=abcd finish");
	ROW("RV-15 R7", "MSG_WAITALL, the peer's end", recv(fd, buffer, sizeof buffer, MSG_WAITALL));
	close(fd);
	fd = peer(host, port, "steps say=ab await say=cd await reset");
	wait_for(fd, POLLIN);
	tell(fd);
	ROW("R7", "MSG_WAITALL, all of it", recv(fd, buffer, 4, MSG_WAITALL));
	tell(fd);
	wait_for(fd, POLLHUP);
	ROW("R6", "recv after a reset", recv(fd, buffer, 4, 0));
	close(fd);
}

static void *shuts(void *fd)
{
	poll(NULL, 0, 30);
	shutdown(*(int *)fd, SHUT_RD);
	return NULL;
}

static void reading_shut(void)
{
	char byte;
	pthread_t other;
	int fd = peer(host, port, "hold");
	pthread_create(&other, NULL, shuts, &fd);
	ROW("R6", "recv, shut down by another thread", recv(fd, &byte, 1, 0));
	pthread_join(other, NULL);
	close(fd);
}

/* A name is not given by TCP, nor TCP_INQ's rest beyond the end. */
static void names_and_rest(void)
{
	char buffer[4] = {0}, control[64];
	int on = 1, fd = peer(host, port, "steps say=abc finish");
	struct sockaddr_in name;
	memset(&name, 0x5a, sizeof name);
	struct iovec part = {buffer, 3};
	struct msghdr m = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1};
	if (setsockopt(fd, IPPROTO_TCP, TCP_INQ, &on, sizeof on))
		err(2, "TCP_INQ");
	wait_for(fd, POLLRDHUP);
	ROW("RV-17", "recvmsg with a name", recvmsg(fd, &m, 0));
	row("RV-17", "its length then, and the name: %u %s", m.msg_namelen,
	    name.sin_family == 0x5a5a ? "untouched" : "written");
	for (int i = 0; i < 2; i++) {
		m = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				    .msg_controllen = sizeof control};
		ssize_t n = recvmsg(fd, &m, 0);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		int rest = -1;
		if (c && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ)
			memcpy(&rest, CMSG_DATA(c), sizeof rest);
		row("RV-35", "recvmsg %d at the end: %zd, TCP_INQ %d", i + 1, n, rest);
	}
	close(fd);
}

static volatile sig_atomic_t urgent;

static void on_urgent(int signal)
{
	(void)signal;
	urgent++;
}

static void urgent_data(void)
{
	char buffer[8] = {0};
	struct msghdr m = {0};
	struct sigaction count = {.sa_handler = on_urgent};
	int fd = peer(host, port, "steps await urgent=xy await urgent=z await eof");
	sigaction(SIGURG, &count, NULL);
	ROW("RV-30", "F_SETOWN", fcntl(fd, F_SETOWN, getpid()));
	tell(fd);
	wait_for(fd, POLLPRI);
	row("RV-30", "signals: %d", (int)urgent);
	ROW("RV-27", "recvmsg of urgent data into nothing", recvmsg(fd, &m, MSG_OOB));
	row("RV-27", "its flags: %#x", m.msg_flags);
	ROW("RV-27", "and again", recv(fd, buffer, 1, MSG_OOB));
	close(fd);

	fd = peer(host, port, "steps urgent=aX urgent=bY await");
	wait_for(fd, POLLPRI);
	for (int queued = 0; queued < 3;) {
		if (ioctl(fd, FIONREAD, &queued))
			err(2, "FIONREAD");
		poll(NULL, 0, 1);
	}
	ROW("RV-29", "recv of two urgent sends", recv(fd, buffer, sizeof buffer, 0));
	row("RV-29", "that is: %.3s", buffer);
	ROW("RV-29", "recv at the mark", recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
	ROW("RV-29", "recv of the urgent byte then", recv(fd, buffer, 1, MSG_OOB));
	close(fd);
}

static volatile sig_atomic_t io_signals, io_code, io_band;

static void on_io(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	io_signals++;
	io_code = info->si_code;
	io_band = (sig_atomic_t)info->si_band;
}

static void wait_for_signals(int count)
{
	while (io_signals < count)
		poll(NULL, 0, 1);
}

/* O_ASYNC: what comes is told by signal, by another than SIGIO where one is chosen. */
static void signal_driven(void)
{
	char buffer[8];
	int flags, fd = peer(host, port, "steps await say=abc await say=de await finish await");
	struct sigaction tell_all = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART};
	wait_until_acked(fd);
	sigaction(SIGIO, &tell_all, NULL);
	sigaction(SIGUSR1, &tell_all, NULL);
	flags = fcntl(fd, F_GETFL);
	ROW("RV-30", "F_SETOWN, then O_ASYNC", fcntl(fd, F_SETOWN, getpid()) | fcntl(fd, F_SETFL, flags | O_ASYNC));
	io_signals = 0;
	tell(fd);
	wait_for_signals(1);
	ROW("RV-30", "recv after SIGIO", recv(fd, buffer, 3, MSG_DONTWAIT));
	ROW("RV-30", "F_SETSIG", fcntl(fd, F_SETSIG, SIGUSR1));
	io_signals = 0;
	tell(fd);
	wait_for_signals(1);
	row("RV-30", "the chosen signal: code %d, band %#x", (int)io_code, (unsigned)io_band);
	ROW("RV-30", "recv after it", recv(fd, buffer, 2, MSG_DONTWAIT));
	io_signals = 0;
	tell(fd);
	wait_for_signals(1);
	row("RV-30", "the peer's end: code %d, band %#x", (int)io_code, (unsigned)io_band);
	close(fd);

	fd = peer(host, port, "steps await finish await");
	wait_until_acked(fd);
	fcntl(fd, F_SETOWN, getpid());
	fcntl(fd, F_SETFL, flags | O_ASYNC);
	ROW("RV-30", "O_ASYNC off", fcntl(fd, F_SETFL, flags));
	io_signals = 0;
	tell(fd);
	wait_for(fd, POLLRDHUP);
	row("RV-30", "signals then: %d", (int)io_signals);
	close(fd);
}

/* A full send buffer, and a window that does not open. */
static int full(void)
{
	int size = 4608, fd = peer(host, port, "hold");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size))
		err(2, "SO_SNDBUF");
	for (int tries = 0; tries < 20;) {
		if (send(fd, data, sizeof data, MSG_DONTWAIT) < 0) {
			poll(NULL, 0, 5);
			tries++;
		} else {
			tries = 0;
		}
	}
	return fd;
}

static void writing(void)
{
	int fd = full();
	signal_soon(0);
	ROW("H5", "send, a signal", send(fd, data, 1000, 0));
	timeout(fd, SO_SNDTIMEO, 20000);
	signal_soon(SA_RESTART);
	ROW("H5", "send with SO_SNDTIMEO, a signal with SA_RESTART", send(fd, data, 1000, 0));
	timeout(fd, SO_SNDTIMEO, 50);
	ROW("H6", "send with SO_SNDTIMEO, until it is over", send(fd, data, 1000, 0));
	close(fd);
}

/* A send before the handshake is over. */
static void writing_while_connecting(void)
{
	struct sockaddr_in silent = address("192.0.2.79", 9), open = address(host, port);
	int fd = tcp_socket();
	nonblocking(fd, 1);
	ROW("C5", "a connect that is not answered", connect(fd, (struct sockaddr *)&silent, sizeof silent));
	nonblocking(fd, 0);
	signal_soon(0);
	ROW("C4", "send meanwhile, a signal", send(fd, data, 10, MSG_NOSIGNAL));
	timeout(fd, SO_SNDTIMEO, 50);
	ROW("C5", "send meanwhile, until SO_SNDTIMEO is over", send(fd, data, 10, MSG_NOSIGNAL));
	close(fd);
	fd = tcp_socket();
	nonblocking(fd, 1);
	connect(fd, (struct sockaddr *)&open, sizeof open);
	nonblocking(fd, 0);
	ROW("C5", "send to a listener, not yet connected", send(fd, "discard\n", 8, MSG_NOSIGNAL));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: waiting HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	reading_nothing();
	reading_some();
	reading_shut();
	names_and_rest();
	urgent_data();
	signal_driven();
	writing();
	writing_while_connecting();
	puts("done");
	return 0;
}
