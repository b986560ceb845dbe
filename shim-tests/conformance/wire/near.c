/* The near side of the wire probes: does the socket calls that the far side asks
 * for, one a message, and answers each with its value and errno's number. It has
 * plain libc alone, so that it runs natively and under the shim.
 *
 *   near CONTROL
 *
 * CONTROL is the path of the far side's SOCK_SEQPACKET socket, or the number of a
 * descriptor that is connected to it. Sockets are named by their place in the table
 * below.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SOCKETS = 16, DATA = 1 << 20 };

static int control;
static int sockets[SOCKETS];
static char data[DATA];

static struct sockaddr_in address(const char *host, long port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", host);
	return a;
}

static long reuse_and_bind(int fd, long port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	return bind(fd, (struct sockaddr *)&a, sizeof a);
}

static long accept_one(int from, int *fd)
{
	struct pollfd readable = {.fd = from, .events = POLLIN};
	if (poll(&readable, 1, 10000) != 1)
		return -1;
	*fd = accept4(from, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return *fd < 0 ? -1 : 0;
}

static long wait_for(int fd, long events)
{
	struct pollfd one = {.fd = fd, .events = (short)events};
	return poll(&one, 1, 10000) == 1 ? one.revents : -1;
}

static long tcp_info_mss(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) ? -1 : (long)info.tcpi_snd_mss;
}

/* `size` bytes at `offset` of tcp_info. */
static long tcp_info_field(int fd, long offset, long size)
{
	uint8_t info[512] = {0};
	uint64_t value = 0;
	socklen_t length = sizeof info;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length))
		return -1;
	memcpy(&value, info + offset, (size_t)size);
	return (long)value;
}

static long queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -1 : n;
}

/* Bytes that the send queue is charged. */
static long charged(int fd)
{
	uint32_t words[SK_MEMINFO_VARS] = {0};
	socklen_t length = sizeof words;
	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, words, &length) ? -1 : (long)words[SK_MEMINFO_WMEM_QUEUED];
}

/* Bytes that the last buffer of the queue takes, one at a time, before another is made:
 * it has been charged for more than the byte then. */
static long room_of_buffer(int fd, int flags)
{
	long before = charged(fd), after;
	for (long n = 0;; n++, before = after) {
		if (send(fd, data, 1, flags | MSG_MORE | MSG_NOSIGNAL) != 1)
			return -1;
		if ((after = charged(fd)) > before + 1 && n)
			return n + 1;
	}
}

/* One call with `count` bytes, each from a page of its own. */
static long send_pages(int fd, long count, int flags)
{
	static _Alignas(4096) char pages[2 * 64][4096];
	static struct iovec parts[64];
	for (long i = 0; i < count; i++)
		parts[i] = (struct iovec){pages[2 * i], 1};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = (size_t)count};
	return sendmsg(fd, &m, flags | MSG_NOSIGNAL);
}

/* One call with two pieces of that size. */
static long send_pieces(int fd, long size, int flags)
{
	struct iovec parts[2] = {{data, (size_t)size}, {data, (size_t)size}};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
	return sendmsg(fd, &m, flags | MSG_NOSIGNAL);
}

/* One call with `size` bytes and 100 that cannot be read. */
static long send_faulty(int fd, long size)
{
	static char *bad;
	if (!bad)
		bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec parts[2] = {{data, (size_t)size}, {bad, 100}};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

static long set_blocking(int fd, long on)
{
	int flags = fcntl(fd, F_GETFL);
	return fcntl(fd, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

/* A setting of the network namespace, before a process has sockets. */
static long write_sysctl(const char *name, const char *value)
{
	char path[128];
	snprintf(path, sizeof path, "/proc/sys/net/%s", name);
	FILE *file = fopen(path, "w");
	if (!file)
		return -1;
	int bad = fprintf(file, "%s\n", value) < 0;
	return fclose(file) || bad ? -1 : 0;
}

static long set_sysctl(const char *name, long value)
{
	char text[32];
	snprintf(text, sizeof text, "%ld", value);
	return write_sysctl(name, text);
}

/* NAME=TEXT */
static long set_sysctl_text(const char *setting)
{
	char name[64];
	snprintf(name, sizeof name, "%s", setting);
	char *value = strchr(name, '=');
	if (!value)
		return -1;
	*value = 0;
	return write_sysctl(name, value + 1);
}

/* Frames wait in the device's queue, where they come faster than that many kbit/s. */
static long slow_down(const char *device, long rate)
{
	char command[256];
	snprintf(command, sizeof command, "tc qdisc replace dev %s root tbf rate %ldkbit burst 1600 latency 1s",
		 device, rate);
	return system(command) ? -1 : 0;
}

/* What the route to the peers sets beside: DEVICE,METRIC,VALUE... or DEVICE,- */
static long set_route(const char *how)
{
	char words[64], command[512];
	snprintf(words, sizeof words, "%s", how);
	for (char *p = words; *p; p++)
		if (*p == ',')
			*p = ' ';
	char *device = strtok(words, " "), *metrics = strtok(NULL, "");
	snprintf(command, sizeof command,
		 "set -- $(ip -4 route show dev %s | sed -n 's/^\\([^ ]*\\) .*src \\([^ ]*\\).*/\\1 \\2/p'); "
		 "ip route replace $1 dev %s proto kernel scope link src $2 %s",
		 device, device, metrics && strcmp(metrics, "-") ? metrics : "");
	return system(command) ? -1 : 0;
}

/* The congestion controls that a probe speaks of, by number. */
static const char *const controls[] = {"reno", "cubic"};

static long congestion_control(int fd)
{
	char name[16] = "";
	socklen_t size = sizeof name;
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size))
		return -1;
	for (size_t i = 0; i < sizeof controls / sizeof *controls; i++)
		if (!strcmp(name, controls[i]))
			return (long)i;
	return 99;
}

/* The same program in a new process image, without any socket. */
static long start_anew(void)
{
	char number[16];
	for (int i = 0; i < SOCKETS; i++)
		if (sockets[i] > 0)
			close(sockets[i]);
	fcntl(control, F_SETFD, 0);
	snprintf(number, sizeof number, "%d", control);
	execl("/proc/self/exe", "near", number, NULL);
	return -1;
}

static long send_file(int fd, long size)
{
	int file = memfd_create("page", 0);
	if (file < 0 || ftruncate(file, size))
		err(2, "memfd");
	long value = sendfile(fd, file, NULL, (size_t)size);
	int error = errno;
	close(file);
	errno = error;
	return value;
}

/* The kind of the next transmit timestamp. */
static long stamp(int fd)
{
	struct sock_extended_err e = {.ee_info = 99};
	char control[256];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR)
			memcpy(&e, CMSG_DATA(c), sizeof e);
	return e.ee_info;
}

static long do_call(const char *call, int *fd, const char *host, const long *a)
{
	if (!strcmp(call, "socket"))
		/* Not inherited by what system() runs: shared with it, it would be the kernel's. */
		return (*fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0 ? -1 : 0;
	if (!strcmp(call, "bind"))
		return reuse_and_bind(*fd, a[0]);
	if (!strcmp(call, "listen"))
		return listen(*fd, 8);
	if (!strcmp(call, "accept"))
		return accept_one(sockets[a[0]], fd);
	if (!strcmp(call, "connect")) {
		struct sockaddr_in to = address(host, a[0]);
		return connect(*fd, (struct sockaddr *)&to, sizeof to);
	}
	if (!strcmp(call, "fastopen")) {
		struct sockaddr_in to = address(host, a[0]);
		return sendto(*fd, data, (size_t)a[1], MSG_FASTOPEN | MSG_NOSIGNAL | (int)a[2],
			      (struct sockaddr *)&to, sizeof to);
	}
	if (!strcmp(call, "send"))
		return send(*fd, data, (size_t)a[0], (int)a[1] | MSG_NOSIGNAL);
	if (!strcmp(call, "recv"))
		return recv(*fd, data, (size_t)a[0], (int)a[1]);
	if (!strcmp(call, "sendfile"))
		return send_file(*fd, a[0]);
	if (!strcmp(call, "poll"))
		return wait_for(*fd, a[0]);
	if (!strcmp(call, "set")) {
		int value = (int)a[2];
		return setsockopt(*fd, (int)a[0], (int)a[1], &value, sizeof value);
	}
	if (!strcmp(call, "linger")) {
		struct linger how = {.l_onoff = 1, .l_linger = (int)a[0]};
		return setsockopt(*fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
	}
	if (!strcmp(call, "error")) {
		int value = -1;
		socklen_t size = sizeof value;
		return getsockopt(*fd, SOL_SOCKET, SO_ERROR, &value, &size) ? -1 : value;
	}
	if (!strcmp(call, "stamp"))
		return stamp(*fd);
	if (!strcmp(call, "info"))
		return tcp_info_field(*fd, a[0], a[1]);
	if (!strcmp(call, "ioctl"))
		return queued(*fd, (unsigned long)a[0]);
	if (!strcmp(call, "charged"))
		return charged(*fd);
	if (!strcmp(call, "goal"))
		return room_of_buffer(*fd, (int)a[0]);
	if (!strcmp(call, "pages"))
		return send_pages(*fd, a[0], (int)a[1]);
	if (!strcmp(call, "pieces"))
		return send_pieces(*fd, a[0], (int)a[1]);
	if (!strcmp(call, "faulty"))
		return send_faulty(*fd, a[0]);
	if (!strcmp(call, "blocking"))
		return set_blocking(*fd, a[0]);
	if (!strcmp(call, "disconnect")) {
		struct sockaddr none = {.sa_family = AF_UNSPEC};
		return connect(*fd, &none, sizeof none);
	}
	if (!strcmp(call, "sysctl"))
		return set_sysctl(host, a[0]);
	if (!strcmp(call, "text"))
		return set_sysctl_text(host);
	if (!strcmp(call, "route"))
		return set_route(host);
	if (!strcmp(call, "cong"))
		return congestion_control(*fd);
	if (!strcmp(call, "choose"))
		return setsockopt(*fd, IPPROTO_TCP, TCP_CONGESTION, controls[a[0]],
				  (socklen_t)strlen(controls[a[0]]));
	if (!strcmp(call, "slow"))
		return slow_down(host, a[0]);
	if (!strcmp(call, "anew"))
		return start_anew();
	if (!strcmp(call, "mss"))
		return tcp_info_mss(*fd);
	if (!strcmp(call, "shutdown"))
		return shutdown(*fd, (int)a[0]);
	if (!strcmp(call, "close"))
		return close(*fd);
	errx(2, "unknown call %s", call);
}

static void connect_control(const char *path)
{
	struct sockaddr_un where = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof where.sun_path)
		errx(2, "%s: too long", path);
	strcpy(where.sun_path, path);
	control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (control < 0 || connect(control, (struct sockaddr *)&where, sizeof where))
		err(2, "%s", path);
}

static void answer(long value)
{
	char line[64];
	int n = snprintf(line, sizeof line, "%ld %d", value, value < 0 ? errno : 0);
	if (send(control, line, (size_t)n, MSG_NOSIGNAL) != n)
		err(2, "control");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: near CONTROL");
	if ((control = atoi(argv[1])) > 0)
		answer(0);
	else
		connect_control(argv[1]);
	for (;;) {
		char line[256], call[32], host[64];
		long a[3] = {0};
		int which = 0;
		ssize_t n = recv(control, line, sizeof line - 1, 0);
		if (n <= 0)
			return n < 0;
		line[n] = 0;
		if (sscanf(line, "%31s %d %63s %ld %ld %ld", call, &which, host, &a[0], &a[1],
			   &a[2]) < 3 || which < 0 || which >= SOCKETS)
			errx(2, "not a call: %s", line);
		errno = 0;
		answer(do_call(call, &sockets[which], host, a));
	}
}
