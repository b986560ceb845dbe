/* MSG_ZEROCOPY: the option, the ids, when they are used up, what completes and how
 * the error queue tells it.
 *
 *   zerocopy HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/resource.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#define SCM_DEVMEM_DMABUF_NR 79

static const char *host;
static int port;
static char data[1 << 20];

static long zerocopy_option(int fd, int value)
{
	return setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &value, sizeof value);
}

static int open_zerocopy(const char *command)
{
	int fd = peer(host, port, command);
	if (zerocopy_option(fd, 1))
		err(2, "SO_ZEROCOPY");
	return fd;
}

static long send_zc(int fd, size_t size, int flags)
{
	return send(fd, data, size, flags | MSG_ZEROCOPY | MSG_NOSIGNAL);
}

/* One entry of the error queue, waited for. */
struct entry {
	long result;
	int error, flags, level, type;
	unsigned namelen;
	size_t controllen, cmsg_len;
	struct sock_extended_err e;
	struct sockaddr_in offender;
};

static struct entry read_entry(int fd, size_t room, int flags)
{
	struct entry out = {0};
	_Alignas(8) char control[256], byte;
	struct sockaddr_in name;
	struct iovec part = {&byte, 1};
	struct msghdr message = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part,
				 .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
	out.result = recvmsg(fd, &message, MSG_ERRQUEUE | flags);
	out.error = errno;
	out.flags = message.msg_flags;
	out.namelen = message.msg_namelen;
	out.controllen = message.msg_controllen;
	struct cmsghdr *c = out.result < 0 ? NULL : CMSG_FIRSTHDR(&message);
	if (c) {
		out.level = c->cmsg_level;
		out.type = c->cmsg_type;
		out.cmsg_len = c->cmsg_len;
		if (c->cmsg_len >= CMSG_LEN(sizeof out.e + sizeof out.offender)) {
			memcpy(&out.e, CMSG_DATA(c), sizeof out.e);
			memcpy(&out.offender, CMSG_DATA(c) + sizeof out.e, sizeof out.offender);
		}
	}
	return out;
}

static struct entry next_entry(int fd)
{
	wait_for(fd, 0);
	return read_entry(fd, 256, 0);
}

/* The ranges that come until `last` is complete, merged: how they are cut depends on when acks come. */
static void ranges(const char *ids, const char *text, int fd, unsigned first, unsigned last)
{
	unsigned next = first, code = 0;
	while (next <= last) {
		struct entry e = next_entry(fd);
		if (e.result < 0 || e.e.ee_origin != SO_EE_ORIGIN_ZEROCOPY || e.e.ee_info != next)
			errx(2, "an entry that does not follow: %u..%u", e.e.ee_info, e.e.ee_data);
		next = e.e.ee_data + 1;
		code |= e.e.ee_code;
	}
	row(ids, "%s: %u..%u, code %u", text, first, next - 1, code);
}

static void the_option(void)
{
	int fd = tcp_socket(), bound, l = listener(1, &bound), raw, local;
	for (int value = -1; value < 3; value++) {
		char text[40];
		snprintf(text, sizeof text, "SO_ZEROCOPY %d", value);
		ROW("ZC-1 ZC-2", text, zerocopy_option(fd, value));
		row("ZC-5", "then it reads, after %d: %d", value, int_option(fd, SOL_SOCKET, SO_ZEROCOPY));
	}
	ROW("ZC-4", "three bytes", setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &(int){1}, 3));
	ROW("ZC-1", "on a listener", zerocopy_option(l, 1));
	local = socket(AF_UNIX, SOCK_STREAM, 0);
	ROW("ZC-3", "AF_UNIX", zerocopy_option(local, 1));
	ROW("ZC-3", "AF_UNIX, a bad value", zerocopy_option(local, 5));
	ROW("ZC-5", "reading it there", int_option(local, SOL_SOCKET, SO_ZEROCOPY));
	raw = socket(AF_INET, SOCK_DGRAM, 0);
	ROW("ZC-1", "UDP", zerocopy_option(raw, 1));
	close(raw);
	close(local);
	close(fd);
	char command[32];
	snprintf(command, sizeof command, "call %d", bound);
	fd = peer(host, port, command);
	int child = accept(l, NULL, NULL);
	row("ZC-6", "an accepted socket: %d", int_option(child, SOL_SOCKET, SO_ZEROCOPY));
	close(child);
	close(fd);
	close(l);
}

static void the_message(void)
{
	int fd = open_zerocopy("discard");
	struct entry e = read_entry(fd, 256, 0);
	row("ZC-45", "an empty queue: %ld %s", e.result, strerrorname_np(e.error));
	ROW("ZC-8", "a send", send_zc(fd, 1000, 0));
	wait_for(fd, 0);
	struct pollfd p = {.fd = fd, .events = 0};
	poll(&p, 1, 0);
	row("ZC-52", "poll asked for nothing: %#x", (unsigned)p.revents);
	p.events = POLLIN | POLLOUT;
	poll(&p, 1, 0);
	row("ZC-52", "poll asked for in and out: %#x", (unsigned)p.revents);
	row("ZC-53", "SO_ERROR: %d", int_option(fd, SOL_SOCKET, SO_ERROR));
	ROW("ZC-53", "recv", recv(fd, data + sizeof data - 1, 1, MSG_DONTWAIT));
	ROW("ZC-53", "send", send(fd, "x", 1, 0));
	e = read_entry(fd, 256, 0);
	row("ZC-28 ZC-29 ZC-30", "the entry: %ld, flags %#x, name %u bytes", e.result, (unsigned)e.flags, e.namelen);
	row("ZC-31 ZC-33", "its control message: level %d type %d length %zu of %zu", e.level, e.type, e.cmsg_len,
	    e.controllen);
	row("ZC-34 ZC-35 ZC-36 ZC-37 ZC-39", "errno %u origin %u type %u code %u pad %u", e.e.ee_errno,
	    e.e.ee_origin, e.e.ee_type, e.e.ee_code, e.e.ee_pad);
	row("ZC-38", "range %u..%u", e.e.ee_info, e.e.ee_data);
	row("ZC-31", "offender: family %u port %u", e.offender.sin_family, e.offender.sin_port);
	ROW("ZC-46", "a send to be peeked at", send_zc(fd, 10, 0));
	wait_for(fd, 0);
	e = read_entry(fd, 256, MSG_PEEK);
	row("ZC-46 ZC-44", "peeked: %ld, range %u..%u, code %u", e.result, e.e.ee_info, e.e.ee_data, e.e.ee_code);
	e = read_entry(fd, 256, 0);
	row("ZC-46", "again: %ld %s", e.result, strerrorname_np(e.error));
	ROW("ZC-47", "a send", send_zc(fd, 10, 0));
	wait_for(fd, 0);
	e = read_entry(fd, 0, 0);
	row("ZC-47", "without room for control: %ld, flags %#x", e.result, (unsigned)e.flags);
	e = read_entry(fd, 256, 0);
	row("ZC-47", "the entry is lost: %ld %s", e.result, strerrorname_np(e.error));
	ROW("ZC-48", "a send", send_zc(fd, 10, 0));
	wait_for(fd, 0);
	e = read_entry(fd, 20, 0);
	row("ZC-48 ZC-29", "20 bytes of control: %ld, flags %#x, used %zu", e.result, (unsigned)e.flags,
	    e.controllen);
	e = read_entry(fd, 256, 0);
	row("ZC-48", "the entry is lost: %ld %s", e.result, strerrorname_np(e.error));
	close(fd);
}

static void the_ids(void)
{
	int fd = open_zerocopy("discard");
	struct iovec bad = {(void *)16, 100};
	struct {
		struct cmsghdr header;
	} wrong = {.header = {.cmsg_len = 3}};
	struct iovec part = {data, 10};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &wrong, .msg_controllen = sizeof wrong};
	struct msghdr unreadable = {.msg_iov = &bad, .msg_iovlen = 1};
	ROW("ZC-9", "a plain send", send(fd, data, 10, 0));
	ROW("ZC-9 B3b", "no bytes", send_zc(fd, 0, 0));
	ROW("ZC-10", "a bad control message", sendmsg(fd, &message, MSG_ZEROCOPY));
	ROW("ZC-10", "a bad pointer", sendmsg(fd, &unreadable, MSG_ZEROCOPY));
	ROW("ZC-8", "the first", send_zc(fd, 100000, 0));
	ROW("ZC-8", "the second", send_zc(fd, 10, 0));
	ranges("ZC-8 ZC-9 ZC-10 ZC-20 B3b", "complete", fd, 0, 1);
	zerocopy_option(fd, 0);
	ROW("B3a ZC-9", "the flag without the option", send_zc(fd, 10, 0));
	wait_until_acked(fd);
	struct entry e = read_entry(fd, 256, 0);
	row("B3a ZC-9", "nothing is told: %ld %s", e.result, strerrorname_np(e.error));
	zerocopy_option(fd, 1);
	for (int i = 0; i < 20; i++)
		if (send_zc(fd, 1, 0) != 1)
			err(2, "send");
	zerocopy_option(fd, 0);
	ranges("ZC-7 ZC-13 ZC-25", "twenty more, the option off", fd, 2, 21);
	close(fd);
	fd = tcp_socket();
	zerocopy_option(fd, 1);
	ROW("ZC-10", "not connected", send_zc(fd, 10, 0));
	close(fd);
}

/* The peer reads nothing: what it does not take stays pending. */
static int stuck(void)
{
	int fd = open_zerocopy("hold"), small = 4096;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	return fd;
}

static void partial(void)
{
	int fd = stuck();
	long sent = send_zc(fd, sizeof data, MSG_DONTWAIT);
	row("ZC-11", "a short send: %d", sent > 0 && sent < (long)sizeof data);
	struct entry e = {0};
	for (int full = 0; !full;) {
		while (send_zc(fd, sizeof data, MSG_DONTWAIT) >= 0)
			;
		do
			e = read_entry(fd, 256, 0);
		while (e.result == 0);
		/* Until the peer's window is shut and nothing moves any more. */
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		full = poll(&p, 1, 300) == 0;
	}
	row("ZC-21", "what the peer has not taken is not told: %s", strerrorname_np(e.error));
	close(fd);
}

static void option_memory(void)
{
	int fd = open_zerocopy("hold"), objects = 0, size = 4 << 20;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	/* A plain byte in between separates the objects. */
	while (objects < 2000 && send_zc(fd, 1, MSG_DONTWAIT) == 1) {
		objects++;
		if (send(fd, "x", 1, MSG_DONTWAIT | MSG_MORE) != 1)
			break;
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		if (poll(&p, 1, 0) != 1)
			break;
	}
	close(fd);
	row("ZC-16 ZC-18", "sends that were taken, more than 100: %d", objects > 100);
}

static void locked_memory(void)
{
	struct rlimit limit, before;
	int fd = open_zerocopy("discard");
	if (getrlimit(RLIMIT_MEMLOCK, &before))
		err(2, "limits");
	limit = before;
	limit.rlim_cur = 65536;
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		err(2, "limits");
	have_capability(CAP_IPC_LOCK, 0);
	ROW("ZC-17", "61440 bytes of 16 pages", send_zc(fd, 61440, 0));
	ROW("ZC-18", "a plain send", send(fd, data, 61440, 0));
	ROW("ZC-17", "61439 bytes", send_zc(fd, 61439, 0));
	ranges("ZC-17 ZC-10", "complete", fd, 0, 0);
	ROW("ZC-17", "61439 bytes again", send_zc(fd, 61439, 0));
	ranges("ZC-17", "complete again", fd, 1, 1);
	have_capability(CAP_IPC_LOCK, 1);
	ROW("ZC-17", "with CAP_IPC_LOCK", send_zc(fd, 200000, 0));
	ranges("ZC-17", "complete at last", fd, 2, 2);
	setrlimit(RLIMIT_MEMLOCK, &before);
	close(fd);
}

static void reset(void)
{
	int fd = open_zerocopy("reset");
	wait_for(fd, POLLIN);
	row("ZC-22", "after a reset: %d", int_option(fd, SOL_SOCKET, SO_ERROR) == ECONNRESET);
	ROW("ZC-10", "a send then", send_zc(fd, 10, 0));
	struct entry e = read_entry(fd, 256, 0);
	row("ZC-10", "nothing is told: %ld %s", e.result, strerrorname_np(e.error));
	close(fd);
	fd = open_zerocopy("discard");
	send_zc(fd, 10, 0);
	wait_until_acked(fd);
	shutdown(fd, SHUT_WR);
	wait_for(fd, POLLRDHUP);
	ranges("ZC-54", "readable after the end", fd, 0, 0);
	close(fd);
}

/* The next entry of either kind, if there is one: its sock_extended_err, what came, and the flags. */
static void tell_entry(const char *ids, const char *text, int fd)
{
	char control[256], byte[4];
	struct iovec part = {byte, sizeof byte};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = sizeof control};
	struct sock_extended_err e = {0};
	ssize_t n = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
	if (n < 0) {
		row(ids, "%s: %s", text, strerrorname_np(errno));
		return;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR)
			memcpy(&e, CMSG_DATA(c), sizeof e);
	row(ids, "%s: origin %u, %u..%u, %zd bytes, flags %#x", text, e.ee_origin, e.ee_info,
	    e.ee_origin == SO_EE_ORIGIN_ZEROCOPY ? e.ee_data : 0, n, m.msg_flags);
}

static void stamp_sends(int fd, int flags)
{
	flags |= SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE;
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags))
		err(2, "SO_TIMESTAMPING");
}

/* Time stamps stand between the notifications, in the order in which all of them came. */
static void among_time_stamps(void)
{
	char text[32];
	int fd = open_zerocopy("discard");
	wait_until_acked(fd);
	stamp_sends(fd, SOF_TIMESTAMPING_OPT_TSONLY);
	for (int i = 0; i < 2; i++) {
		send_zc(fd, 1000, 0);
		wait_until_acked(fd);
	}
	for (int i = 1; i <= 5; i++) {
		snprintf(text, sizeof text, "entry %d", i);
		tell_entry("ZC-27 ZC-50 ZC-51", text, fd);
	}
	close(fd);
	fd = open_zerocopy("discard");
	wait_until_acked(fd);
	stamp_sends(fd, 0);
	send(fd, data, 100, 0);
	wait_until_acked(fd);
	tell_entry("ZC-49", "a time stamp with its data, in 4 bytes", fd);
	tell_entry("ZC-49", "and then", fd);
	close(fd);
}

static long send_dmabuf(int fd, unsigned id, size_t size, int flags)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(unsigned))];
	} control = {.header = {.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_DEVMEM_DMABUF_NR,
				.cmsg_len = CMSG_LEN(sizeof(unsigned))}};
	memcpy(CMSG_DATA(&control.header), &id, sizeof id);
	struct iovec part = {data, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof control};
	return sendmsg(fd, &message, flags | MSG_NOSIGNAL);
}

static void device_memory(void)
{
	int fd = peer(host, port, "discard");
	ROW("ZC-55 B4", "an id, plain", send_dmabuf(fd, 77, 10, 0));
	ROW("ZC-55 B4", "an id, the flag without the option", send_dmabuf(fd, 77, 10, MSG_ZEROCOPY));
	zerocopy_option(fd, 1);
	ROW("ZC-56 ZC-61 B3d", "an unknown id", send_dmabuf(fd, 77, 10, MSG_ZEROCOPY));
	ROW("B4a", "an unknown id, no bytes", send_dmabuf(fd, 77, 0, MSG_ZEROCOPY));
	ROW("B4b", "id 0, plain", send_dmabuf(fd, 0, 10, 0));
	ROW("B4b", "id 0, zerocopy", send_dmabuf(fd, 0, 10, MSG_ZEROCOPY));
	ranges("B3d ZC-10", "the id was given back", fd, 0, 0);
	close(fd);
	fd = tcp_socket();
	ROW("B4", "an id, not connected", send_dmabuf(fd, 77, 10, 0));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: zerocopy HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	the_option();
	the_message();
	the_ids();
	partial();
	option_memory();
	locked_memory();
	reset();
	among_time_stamps();
	device_memory();
	puts("done");
	return 0;
}
