/* How fast connections take sends of one size, made in one way: one connection a thread.
 *
 *   send_rate server PORT THREADS                            so many connections, to their ends
 *   send_rate client HOST PORT WAY SIZE MILLISECONDS THREADS
 *
 * WAY: plain      send
 *      zerocopy   send with MSG_ZEROCOPY; completions are read as they come
 *      cmsg       sendmsg with a control message (no transmit timestamps)
 *
 * The client prints {"bytes":..,"seconds":..,"cpu":..}, with the CPU seconds of its
 * process.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_EE_ORIGIN_ZEROCOPY
#define SO_EE_ORIGIN_ZEROCOPY 5
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

/* Sends that may be incomplete at a time: below what the option memory takes. */
enum { PENDING_MAX = 64, THREADS_MAX = 64, BUFFER = 1 << 18 };

/* What a thread of the client does, and what it has sent. */
struct job {
	int fd;
	const char *way;
	size_t size;
	double duration;
	uint64_t sent;
};

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	return a;
}

static void *drain(void *peer)
{
	char *buffer = malloc(BUFFER);
	ssize_t n;
	if (!buffer)
		errx(1, "malloc");
	while ((n = recv(*(int *)peer, buffer, BUFFER, 0)) > 0)
		;
	if (n < 0)
		err(1, "recv");
	free(buffer);
	return NULL;
}

static void serve(const char *port, int count)
{
	pthread_t threads[THREADS_MAX];
	int peers[THREADS_MAX];
	struct sockaddr_in a = address("0.0.0.0", port);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, count))
		err(1, "listen");
	for (int i = 0; i < count; i++) {
		peers[i] = accept(fd, NULL, NULL);
		if (peers[i] < 0)
			err(1, "accept");
		if (pthread_create(&threads[i], NULL, drain, &peers[i]))
			errx(1, "no thread");
	}
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* Reads the completions that are there; how many sends they complete. */
static uint32_t completed(int fd)
{
	uint32_t count = 0;
	for (;;) {
		char control[128];
		struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof control};
		if (recvmsg(fd, &msg, MSG_ERRQUEUE) < 0) {
			if (errno == EAGAIN)
				return count;
			err(1, "MSG_ERRQUEUE");
		}
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		if (!c || c->cmsg_level != SOL_IP || c->cmsg_type != IP_RECVERR)
			errx(1, "no completion");
		struct sock_extended_err e;
		memcpy(&e, CMSG_DATA(c), sizeof e);
		if (e.ee_origin != SO_EE_ORIGIN_ZEROCOPY)
			errx(1, "origin %u", e.ee_origin);
		count += e.ee_data - e.ee_info + 1;
	}
}

static void wait_for_completions(int fd)
{
	struct pollfd p = {.fd = fd, .events = 0};
	if (poll(&p, 1, 10000) != 1)
		errx(1, "no completion in 10 s");
}

static double seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *send_for_a_while(void *argument)
{
	struct job *job = argument;
	int fd = job->fd;
	const char *way = job->way;
	size_t size = job->size;
	int on = 1, zerocopy = !strcmp(way, "zerocopy"), cmsg = !strcmp(way, "cmsg");
	if (!zerocopy && !cmsg && strcmp(way, "plain"))
		errx(2, "%s: no such way", way);
	if (zerocopy && setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(1, "SO_ZEROCOPY");
	char *bytes = malloc(size);
	if (!bytes)
		errx(1, "malloc");
	memset(bytes, 'x', size);
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(uint32_t))];
	} control = {0};
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SO_TIMESTAMPING;
	control.header.cmsg_len = CMSG_LEN(sizeof(uint32_t));
	struct iovec iov = {.iov_base = bytes, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (cmsg) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
	}
	int flags = zerocopy ? MSG_ZEROCOPY : 0;
	uint32_t pending = 0;
	double begin = seconds(CLOCK_MONOTONIC);
	do {
		ssize_t n = cmsg ? sendmsg(fd, &msg, flags) : send(fd, bytes, size, flags);
		if (n < 0)
			err(1, "send");
		job->sent += (uint64_t)n;
		if (zerocopy) {
			pending += 1;
			if (pending >= PENDING_MAX)
				wait_for_completions(fd);
			if (pending >= PENDING_MAX / 2)
				pending -= completed(fd);
		}
	} while (seconds(CLOCK_MONOTONIC) - begin < job->duration);
	while (pending > 0) {
		wait_for_completions(fd);
		pending -= completed(fd);
	}
	return NULL;
}

static void measure(struct job *jobs, int count)
{
	pthread_t threads[THREADS_MAX];
	uint64_t sent = 0;
	double begin = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	for (int i = 1; i < count; i++)
		if (pthread_create(&threads[i], NULL, send_for_a_while, &jobs[i]))
			errx(1, "no thread");
	send_for_a_while(&jobs[0]);
	for (int i = 1; i < count; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < count; i++)
		sent += jobs[i].sent;
	printf("{\"bytes\":%llu,\"seconds\":%f,\"cpu\":%f}\n", (unsigned long long)sent,
	       seconds(CLOCK_MONOTONIC) - begin, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}

static int thread_count(const char *text)
{
	int count = atoi(text);
	if (count < 1 || count > THREADS_MAX)
		errx(2, "%s threads", text);
	return count;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "server")) {
		serve(argv[2], thread_count(argv[3]));
		return 0;
	}
	if (argc != 8 || strcmp(argv[1], "client"))
		errx(2, "usage: send_rate server PORT THREADS | client HOST PORT WAY SIZE MILLISECONDS THREADS");
	static struct job jobs[THREADS_MAX];
	struct sockaddr_in a = address(argv[2], argv[3]);
	int count = thread_count(argv[7]);
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
			err(1, "connect");
		jobs[i] = (struct job){fd, argv[4], strtoul(argv[5], NULL, 10), atof(argv[6]) / 1e3, 0};
	}
	measure(jobs, count);
	return 0;
}
