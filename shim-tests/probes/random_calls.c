/* Random socket calls on a few connections, one line for each with all that it gave; against sequence_peer the lines are the
 * same in each run, natively or under the shim.
 *
 *   random_calls CONTROL HOST PORT NEAR SEED [CALLS]
 *
 * CALLS are the numbers of the calls to make ("0-40,55"), the others are left out: what differs can be cut down so, since each
 * call's arguments hang on the seed and its number only. By hand, in two network namespaces:
 *
 *   ip netns exec FAR sysctl net.ipv4.tcp_rmem='4096 4194304 6291456'
 *   ip netns exec FAR sequence_peer /tmp/control 7070 &
 *   ip netns exec NEAR random_calls /tmp/control HOST 7070 NEAR SEED >native
 *   ip netns exec NEAR env LD_PRELOAD=libsidewire.so random_calls /tmp/control HOST 7070 NEAR SEED | diff native -
 *
 * The sysctl lets a send of 300 kB come to its end while the peer reads nothing. The next call is made when nothing is on its
 * way any more (`settle`), but within a row of sends, of which only the amounts are shown. What hangs on time or on the host
 * (stamps, sizes of buffers that grow by themselves, cookies) is not printed.
 */
#include "random_calls.h"
#include "random_send.h"
#include "random_receive.h"
#include "random_options.h"
#include "random_others.h"

#include <sys/mman.h>
#include <sys/time.h>

enum {
	CALLS = 70,
	LOOKS = 20000, /* a millisecond apart */
	FARS = 128,
};

static const char *host;
static int port;
static struct {
	int port, state, unacked;
} fars[FARS];
static int far_count;

static void on_sigpipe(int signal)
{
	(void)signal;
	pipes++;
}

static void look_far(void)
{
	int i, at, state, unacked, used;
	for (char *next = ask("status"); sscanf(next, "%d %d %d %d%n", &i, &at, &state, &unacked, &used) == 4;
	     next += used) {
		if (i >= far_count)
			far_count = i + 1;
		if (at)
			fars[i].port = at;
		fars[i].state = state;
		fars[i].unacked = unacked;
	}
}

static int own_port(int fd)
{
	struct sockaddr_in a = {0};
	socklen_t length = sizeof a;
	getsockname(fd, (struct sockaddr *)&a, &length);
	return ntohs(a.sin_port);
}

static int passing(int state)
{
	return state == TCP_SYN_SENT || state == TCP_SYN_RECV || state == TCP_FIN_WAIT1 || state == TCP_CLOSING ||
	       state == TCP_LAST_ACK;
}

/* What the peer's end is in when nothing is on its way. */
static int other_end(int state)
{
	return state == TCP_CLOSE_WAIT  ? TCP_FIN_WAIT2
	       : state == TCP_FIN_WAIT2 ? TCP_CLOSE_WAIT
					: state;
}

static const char *unsettled(struct conn *c)
{
	int state = tcp_state(c->fd), on = 1;
	if (passing(state))
		return "a state that passes";
	if (c->far < 0)
		return NULL;
	if (state != TCP_CLOSE) {
		setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
		if (queued(c->fd, SIOCOUTQNSD) > 0) {
			/* What MSG_MORE or TCP_CORK hold back is pushed. */
			int nodelay = option_of(c->fd, IPPROTO_TCP, TCP_NODELAY);
			option_set(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
			option_set(c->fd, IPPROTO_TCP, TCP_NODELAY, nodelay);
		}
		if (queued(c->fd, SIOCOUTQ) > 0)
			return "bytes that are not acknowledged";
	}
	if (c->far_closed)
		return state == TCP_CLOSE || (c->far_closed == 1 && state == TCP_CLOSE_WAIT)
			       ? NULL
			       : "the end of a connection";
	if (passing(fars[c->far].state))
		return "a state that passes, at the peer";
	if (fars[c->far].state != TCP_CLOSE && fars[c->far].unacked)
		return "bytes from the peer";
	if (fars[c->far].state != other_end(state))
		return "two views of a connection";
	return NULL;
}

/* Waits until nothing is on its way. */
void settle(void)
{
	const char *why = NULL;
	for (int look = 0; look < LOOKS; look++) {
		why = NULL;
		look_far();
		for (struct conn *c = conns; c < conns + DATA + 1 && !why; c++)
			why = unsettled(c);
		if (!why)
			return;
		poll(NULL, 0, 1);
	}
	fflush(stdout);
	errx(2, "does not settle: %s", why);
}

/* Of a socket that was connected: finds the peer's end. */
void attach(struct conn *c)
{
	int at = own_port(c->fd);
	c->far = -1;
	c->sent = c->far_sent = c->far_closed = c->vague = 0;
	for (int look = 0; look < LOOKS && c->far < 0; look++) {
		look_far();
		for (int i = far_count - 1; i >= 0 && c->far < 0; i--)
			if (fars[i].port == at && fars[i].state != TCP_CLOSE)
				c->far = i;
		if (c->far < 0)
			poll(NULL, 0, 1);
	}
	if (c->far < 0)
		errx(2, "the peer has not accepted");
}

/* The connection is gone from this side: shows what the peer has of it, and has it close its end. */
void left(struct conn *c)
{
	if (c->far >= 0 && !c->far_closed) {
		for (int look = 0; look < LOOKS; look++) {
			look_far();
			if (fars[c->far].state == TCP_CLOSE ||
			    (fars[c->far].state == TCP_CLOSE_WAIT && !fars[c->far].unacked))
				break;
			poll(NULL, 0, 1);
		}
		char *took = ask("take %d %d", c->far, 1 << 20);
		printf(" [%s]", c->vague ? strrchr(took, ' ') : took);
		ask("reset %d", c->far);
	}
	c->far = -1;
}

void short_waits(int fd)
{
	struct timeval soon = {.tv_usec = 1000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
}

/* A new socket, connected in one of several ways. */
void opened(struct conn *c, int how)
{
	struct sockaddr_in a = address(host, port);
	char first[] = "fast";
	*c = (struct conn){.fd = tcp_socket(), .far = -1};
	short_waits(c->fd);
	if (c == &conns[SOCKETS - 1]) {
		listen(c->fd, 5);
		return;
	}
	if (c == &conns[SOCKETS - 2])
		return;
	if (how == 1) {
		ioctl(c->fd, FIONBIO, &(int){1});
		printf(" connect without waiting");
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
		wait_for(c->fd, POLLOUT);
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
		ioctl(c->fd, FIONBIO, &(int){0});
	} else if (how == 2) {
		printf(" fast open");
		outcome(sendto(c->fd, first, 4, MSG_FASTOPEN, (struct sockaddr *)&a, sizeof a));
	} else if (how == 3) {
		option_set(c->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
		printf(" TCP_FASTOPEN_CONNECT");
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
		outcome(send(c->fd, first, 4, 0));
	} else {
		printf(" connect");
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
	}
	attach(c);
}

struct op {
	int weight;
	void (*run)(void);
};

static const struct op ops[] = {
	{30, one_send},     {10, row_of_sends}, {22, one_receive},  {10, read_errors}, {14, set_option},
	{10, get_option},   {8, look},          {5, ioctl_of},      {6, splicing},     {2, shut_down},
	{3, open_anew},     {2, connect_again}, {3, repairing},     {3, duplicate},    {3, names},
	{14, far_sends},    {6, far_takes},     {1, far_ends},      {2, useful_option}, {2, stalled},
	{5, stamps_wanted}, {5, zerocopy_wanted}, {4, accepted},     {2, congestion},   {5, information},
	{1, bound_to_device}, {4, nowhere},
};

static void show_all(void)
{
	for (struct conn *c = conns; c < conns + SOCKETS; c++) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP};
		poll(&p, 1, 0);
		printf(" | %d %#x", tcp_state(c->fd), (unsigned)p.revents);
		/* Of a socket that was disconnected the latter is about the largest window that was. */
		int unsent = queued(c->fd, SIOCOUTQ);
		if (c < conns + DATA)
			printf(" %d %d", queued(c->fd, SIOCINQ), unsent > 0 && tcp_state(c->fd) == TCP_CLOSE ? 1 : unsent);
	}
	putchar('\n');
	fflush(stdout);
}

static void one(uint64_t seed, int number)
{
	int all = 0;
	rnd_for(seed, number);
	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
		all += ops[i].weight;
	int at = rnd(all);
	const struct op *op = ops;
	for (; at >= op->weight; op++)
		at -= op->weight;
	printf("%d ", number);
	op->run();
	settle();
	show_all();
}

static unsigned char *guarded(void)
{
	unsigned char *p = mmap(NULL, TEXT + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p + TEXT, 4096, PROT_NONE))
		err(2, "mmap");
	for (int i = 0; i < TEXT; i++)
		p[i] = (unsigned char)('A' + i % 53);
	return p;
}

/* Linux stamps what comes in only while some socket asks for it, a little later even. */
static void have_stamps(void)
{
	struct sockaddr_in a = address("127.0.0.1", 0);
	socklen_t length = sizeof a;
	char byte, control[64];
	struct iovec part = {&byte, 1};
	struct msghdr m;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	option_set(fd, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "bind");
	do {
		m = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		if (sendto(fd, "", 1, 0, (struct sockaddr *)&a, sizeof a) != 1 || recvmsg(fd, &m, 0) != 1)
			err(2, "a datagram");
	} while (!m.msg_controllen);
}

int main(int argc, char **argv)
{
	struct sigaction count = {.sa_handler = on_sigpipe, .sa_flags = SA_RESTART};
	if (argc < 6)
		errx(2, "usage: %s CONTROL HOST PORT NEAR SEED [CALLS]", argv[0]);
	host = argv[2];
	port = atoi(argv[3]);
	near_host = argv[4];
	uint64_t seed = strtoull(argv[5], NULL, 10);
	sigaction(SIGPIPE, &count, NULL);
	signal(SIGIO, SIG_IGN);
	call_far(argv[1]);
	/* It is through with who was there before. */
	ask("status");
	text = guarded();
	room = guarded();
	have_stamps();
	for (struct conn *c = conns; c < conns + SOCKETS; c++)
		opened(c, 0);
	puts("");
	for (int number = 0; number < CALLS; number++)
		if (listed(argv[6], number))
			one(seed, number);
	puts("done");
	return 0;
}
