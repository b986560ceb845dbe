/* Options that say something else in an odd state, and what connect(AF_UNSPEC) makes of them.
 *
 *   odd_states HOST PORT     the peer program listens there
 */
#include "show.h"

#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum { REPAIR = TCP_REPAIR, RTO_MIN_US = 45, DELACK_MAX_US = 46 };

static const char *host;
static int port;

static void disconnect(int fd)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	SHOW(connect(fd, &nobody, sizeof nobody));
}

/* The kernel's value, or one of ours; older ones do not know these. */
static void told(const char *what, int value)
{
	printf("%s: %d\n", what, value);
}

static void disconnected(void)
{
	struct sockaddr_in a = address(host, port);
	struct tcp_repair_window window;
	socklen_t length = sizeof window;
	int fd = tcp_socket();
	option_set(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, 1152);
	int known = option_set(fd, IPPROTO_TCP, RTO_MIN_US, 100000) == 0;
	option_set(fd, IPPROTO_TCP, DELACK_MAX_US, 100000);
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	send_text(fd, "hold\n");
	told("clamp is the one that was set", option_of(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP) == 1152);
	disconnect(fd);
	told("clamp", option_of(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP));
	told("shortest RTO", known ? option_of(fd, IPPROTO_TCP, RTO_MIN_US) : 200000);
	told("longest delay", known ? option_of(fd, IPPROTO_TCP, DELACK_MAX_US) : 200000);
	SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
	struct tcp_info info;
	socklen_t size = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	told("paced", info.tcpi_pacing_rate != ~0ull);
	SHOW(option_set(fd, IPPROTO_TCP, REPAIR, 1));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &length));
	told("the window's last segment is known", window.snd_wl1 != 0);
	SHOW(option_set(fd, IPPROTO_TCP, REPAIR, -1));
	SHOW(connect(fd, (struct sockaddr *)&a, sizeof a));
	told("clamp is the one that was set", option_of(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP) == 1152);
	close(fd);
}

static void in_repair(void)
{
	int fd = tcp_socket(), queued = -1;
	SHOW(option_set(fd, IPPROTO_TCP, REPAIR, 1));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
	for (int seq = 5000; seq >= -5000; seq -= 10000) {
		SHOW(option_set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq));
		ioctl(fd, SIOCOUTQ, &queued);
		told("SIOCOUTQ", queued);
		ioctl(fd, SIOCOUTQNSD, &queued);
		told("SIOCOUTQNSD", queued);
	}
	close(fd);
}

static void odd_options(void)
{
	enum { AO_ADD_KEY = 38, AO_REPAIR = 42 };
	int fd = tcp_socket(), value = 0;
	socklen_t length = (socklen_t)-1;
	char byte;
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &byte, &length));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &byte, NULL));
	SHOW(option_set(fd, SOL_SOCKET, SO_RCVLOWAT, -1));
	told("clamp", option_of(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP));
	listen(fd, 1);
	SHOW(option_of(fd, IPPROTO_TCP, AO_REPAIR));
	SHOW(option_set(fd, IPPROTO_TCP, AO_REPAIR, 0));
	close(fd);
	fd = peer(host, port, "hold");
	SHOW(setsockopt(fd, IPPROTO_TCP, AO_ADD_KEY, &value, 2));
	SHOW(option_set(fd, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_BIND_PHC | SOF_TIMESTAMPING_OPT_ID));
	close(fd);
}

/* SO_RCVLOWAT asks whether there is something to read, and so does the end. */
static void edge_at_the_end(void)
{
	int fd = peer(host, port, "steps finish await"), epfd = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
	wait_for(fd, POLLRDHUP);
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e);
	SHOW(epoll_wait(epfd, &e, 1, 1000));
	SHOW(epoll_wait(epfd, &e, 1, 0));
	option_set(fd, SOL_SOCKET, SO_RCVLOWAT, 10);
	SHOW(epoll_wait(epfd, &e, 1, 1000));
	printf("edge: %#x\n", e.events);
	close(epfd);
	close(fd);
}

/* The options of a connection that another process gets. */
static void given_away(void)
{
	int fd = peer(host, port, "hold");
	SHOW(option_set(fd, SOL_SOCKET, SO_ZEROCOPY, 1));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, 20000));
	SHOW(option_set(fd, IPPROTO_TCP, TCP_QUICKACK, 0));
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	SHOW(option_of(fd, SOL_SOCKET, SO_ZEROCOPY));
	SHOW(option_of(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP));
	SHOW(option_of(fd, IPPROTO_TCP, TCP_QUICKACK));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: odd_states HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	disconnected();
	in_repair();
	odd_options();
	edge_at_the_end();
	given_away();
	puts("done");
	return 0;
}
