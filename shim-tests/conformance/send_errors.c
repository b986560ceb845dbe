/* Errors in the middle of a send: what was taken stays, what was not goes back (rows B2,
 * B3, E1, E2, E7a).
 *
 *   send_errors HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#ifndef SCM_DEVMEM_DMABUF
#define SCM_DEVMEM_DMABUF 79
#endif

static const char *host;
static int port;
static char data[1 << 20];

static int connected(const char *command)
{
	int on = 1, fd = peer(host, port, command);
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(2, "SO_ZEROCOPY");
	wait_until_acked(fd);
	return fd;
}

/* A send with control messages of SOL_SOCKET, one of each type. */
static long send_with(int fd, size_t size, int flags, const int *types, int count)
{
	_Alignas(struct cmsghdr) char control[256] = {0};
	struct iovec one = {data, size};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = (size_t)count * CMSG_SPACE(sizeof(uint32_t))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	for (int i = 0; i < count; i++, c = CMSG_NXTHDR(&m, c)) {
		uint32_t value = 1;
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = types[i];
		c->cmsg_len = CMSG_LEN(sizeof value);
		memcpy(CMSG_DATA(c), &value, sizeof value);
	}
	return sendmsg(fd, &m, flags | MSG_NOSIGNAL);
}

static void notification(const char *ids, const char *text, int fd)
{
	char control[128];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	struct sock_extended_err e = {0};
	struct pollfd p = {.fd = fd};
	if (poll(&p, 1, 20000) != 1 || recvmsg(fd, &m, MSG_ERRQUEUE) < 0 || !CMSG_FIRSTHDR(&m))
		errx(2, "no notification");
	memcpy(&e, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof e);
	row(ids, "%s: from %u to %u", text, e.ee_info, e.ee_data);
}

/* An error in a control message waits until the state has been looked at. */
static void control_messages(void)
{
	const int unknown[] = {12345}, device_first[] = {SCM_DEVMEM_DMABUF, 12345},
		  device[] = {SCM_DEVMEM_DMABUF};
	int fd = tcp_socket();
	ROW("B2", "not connected, a bad control message", send_with(fd, 10, 0, unknown, 1));
	ROW("B2", "not connected, an unknown device's memory", send_with(fd, 10, 0, device, 1));
	ROW("B2", "not connected, an unknown device's memory, then a bad one",
	    send_with(fd, 10, 0, device_first, 2));
	close(fd);
	fd = connected("discard");
	ROW("B2", "a bad control message", send_with(fd, 10, 0, unknown, 1));
	ROW("B2 E2", "a bad control message, zerocopy", send_with(fd, 10, MSG_ZEROCOPY, unknown, 1));
	ROW("E2", "an unknown device's memory, zerocopy", send_with(fd, 10, MSG_ZEROCOPY, device, 1));
	ROW("E2", "a zerocopy send then", send(fd, data, 10, MSG_ZEROCOPY));
	notification("E2", "its notification", fd);
	shutdown(fd, SHUT_WR);
	ROW("E2", "a zerocopy send after the end", send(fd, data, 10, MSG_ZEROCOPY | MSG_NOSIGNAL));
	struct msghdr m = {0};
	ROW("E2", "its notification, of a send that failed", recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
	close(fd);
}

/* No notification to be had: nothing is sent, whatever else is wrong with the call. */
static void no_notification(void)
{
	struct rlimit none = {0, 0};
	const int unknown[] = {12345};
	int fd = connected("discard");
	if (setrlimit(RLIMIT_MEMLOCK, &none))
		err(2, "RLIMIT_MEMLOCK");
	have_capability(CAP_IPC_LOCK, 0);
	ROW("B3", "zerocopy without memory to lock", send(fd, data, 10, MSG_ZEROCOPY));
	ROW("B3 B2", "the same with a bad control message", send_with(fd, 10, MSG_ZEROCOPY, unknown, 1));
	ROW("B3", "no bytes", send(fd, data, 0, MSG_ZEROCOPY));
	int unacked = -1;
	ioctl(fd, SIOCOUTQ, &unacked);
	row("B3", "queued: %d", unacked);
	close(fd);
	fd = tcp_socket();
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
	ROW("B3", "not connected", send(fd, data, 10, MSG_ZEROCOPY | MSG_NOSIGNAL));
	close(fd);
	have_capability(CAP_IPC_LOCK, 1);
}

/* Bytes of which the last ones cannot be read: what came of them is what the peer has. */
static void partly_bad(void)
{
	static char back[1 << 20];
	const size_t good = 100000;
	char *pages = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *bad = pages + (1 << 17);
	for (size_t i = 0; i < good; i++)
		pages[i] = (char)('a' + i % 23);
	mprotect(bad, 1 << 17, PROT_NONE);
	struct iovec parts[2] = {{pages, good}, {bad, 100}};
	int queued = -1, fd = connected("echo");
	ssize_t n = writev(fd, parts, 2);
	row("E7a E1", "100000 good bytes, 100 bad: some %d, not all %d", n > 0, n < (ssize_t)good);
	receive_exactly(fd, back, (size_t)n);
	wait_until_acked(fd);
	row("E7a E1", "the peer has just those: %d", !memcmp(back, pages, (size_t)n) && !ioctl(fd, FIONREAD, &queued) && !queued);
	ROW("E7a E1", "the same bytes again, alone bad", writev(fd, parts + 1, 1));
	ROW("E1 E6", "a send then", send(fd, "x", 1, 0));
	receive_exactly(fd, back, 1);
	row("E7a", "its byte: %c", back[0]);
	close(fd);
	munmap(pages, 1 << 18);
}

/* A full buffer empties by the peer's reset: the call says how much it took, the next one
 * why it ended. */
static void reset_meanwhile(void)
{
	int fd = connected("steps await reset"), size = 4608;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	send_text(fd, "x");
	wait_for(fd, POLLHUP);
	ROW("E1", "a send after the reset", send(fd, data, 100, MSG_NOSIGNAL));
	ROW("E1", "and another", send(fd, data, 100, MSG_NOSIGNAL));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	control_messages();
	partly_bad();
	reset_meanwhile();
	no_notification();
	puts("done");
	return 0;
}
