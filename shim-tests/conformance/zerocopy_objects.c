/* MSG_ZEROCOPY: notification objects, and pages that are not there.
 *
 *   zerocopy_objects HOST PORT     the peer program listens there
 *
 * Each object charges 832 bytes of option memory while it lives: SO_MEMINFO tells
 * how many there are.
 */
#include "rows.h"

#include <linux/errqueue.h>
#include <linux/ethtool.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#define SCM_DEVMEM_DMABUF_NR 79
/* SOF_TIMESTAMPING_OPT_RX_FILTER of Linux 6.13. */
#define OPT_RX_FILTER (1 << 17)
#define DEVICE "sw0"

enum { PAGE = 4096, OBJECT = 832 };

static const char *host;
static int port;
static _Alignas(PAGE) char data[1 << 20];

static void with_zerocopy(int fd)
{
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &(int){1}, sizeof(int)))
		err(2, "SO_ZEROCOPY");
}

static int open_zerocopy(const char *command)
{
	int fd = peer(host, port, command);
	with_zerocopy(fd);
	return fd;
}

static long send_zc(int fd, const void *from, size_t size, int flags)
{
	return send(fd, from, size, flags | MSG_ZEROCOPY | MSG_NOSIGNAL | MSG_DONTWAIT);
}

static unsigned objects(int fd)
{
	return meminfo(fd, SK_MEMINFO_OPTMEM) / OBJECT;
}

/* A notification; false when there is none. */
static int notification(int fd, struct sock_extended_err *e)
{
	_Alignas(8) char control[256];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0)
		return 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	memcpy(e, CMSG_DATA(c), sizeof *e);
	return 1;
}

/* What completes until `last` has, as one range, and whether a byte was copied. */
static void range(const char *ids, const char *text, int fd, unsigned last)
{
	struct sock_extended_err e = {0};
	unsigned first = ~0u, code = 0;
	do {
		wait_for(fd, 0);
		if (!notification(fd, &e))
			errx(2, "%s: no notification", text);
		if (first == ~0u)
			first = e.ee_info;
		code |= e.ee_code;
	} while (e.ee_data != last);
	row(ids, "%s: %u..%u, code %u", text, first, e.ee_data, code);
}

/* A connection whose peer reads nothing, with its window shut, and room to queue:
 * whatever is sent stands in the write queue. */
static int shut(void)
{
	/* A window that does not grow, for buffers of one size. */
	int fd = open_zerocopy("hold 32768"), size = 4096;
	char byte;
	receive_exactly(fd, &byte, 1);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	for (int full = 0; !full;) {
		while (send(fd, data, 65536, MSG_DONTWAIT) > 0)
			;
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		full = poll(&p, 1, 300) == 0;
	}
	size = 4 << 20;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
		err(2, "SO_SNDBUFFORCE");
	/* What comes begins a buffer. */
	if (send(fd, data, 1, MSG_DONTWAIT | MSG_EOR) != 1)
		err(2, "send");
	return fd;
}

/* Ends it with a reset: what stands in the queue would keep its pages locked, which
 * the user has a limit for, until the orphaned connection times out. */
static void drop(int fd)
{
	struct linger at_once = {.l_onoff = 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(fd);
}

static void shared_objects(void)
{
	int fd = shut();
	row("ZC-16", "none yet: %u", objects(fd));
	for (int i = 0; i < 400; i++)
		if (send_zc(fd, data, 1, MSG_EOR) != 1)
			err(2, "send");
	row("ZC-13 ZC-15", "400 sends of a byte with MSG_EOR, objects: %u", objects(fd));
	ROW("ZC-15", "a plain byte", send(fd, data, 1, MSG_DONTWAIT));
	ROW("ZC-15", "zerocopy behind it", send_zc(fd, data, 1, 0));
	row("ZC-15", "objects then: %u", objects(fd));
	struct sock_extended_err e;
	ROW("ZC-24", "nothing completes", notification(fd, &e));
	poll(NULL, 0, 300);
	ROW("ZC-24", "later", notification(fd, &e));
	row("ZC-24", "objects later: %u", objects(fd));
	drop(fd);
}

/* 524288 bytes make an object; the next does not share its last buffer. */
static void full_objects(void)
{
	int fd = shut();
	unsigned before = meminfo(fd, SK_MEMINFO_WMEM_QUEUED);
	for (int i = 1; i <= 3; i++) {
		char text[48];
		snprintf(text, sizeof text, "250001 bytes, %d times", i);
		ROW("ZC-13 ZC-14", text, send_zc(fd, data, 250001, 0));
		row("ZC-13", "%s, objects: %u", text, objects(fd));
		/* Pages and 832 bytes for each buffer: where a new one begins shows. */
		row("ZC-14", "%s, queued: %u", text, meminfo(fd, SK_MEMINFO_WMEM_QUEUED) - before);
	}
	drop(fd);
}

static void holes(void)
{
	char *pages = mmap(NULL, 128 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open_zerocopy("discard");
	if (pages == MAP_FAILED)
		err(2, "mmap");
	wait_until_acked(fd);
	mprotect(pages + PAGE, PAGE, PROT_NONE);
	ROW("F15 E7 ZC-10", "the second page of three is not there", send_zc(fd, pages, 3 * PAGE, 0));
	ROW("F15 E7 ZC-10", "the last byte", send_zc(fd, pages + PAGE - 100, 101, 0));
	ROW("F15", "up to it", send_zc(fd, pages, PAGE, 0));
	range("F15 ZC-10", "complete", fd, 0);
	mprotect(pages + PAGE, PAGE, PROT_READ);
	ROW("F15", "a page that was never written", send_zc(fd, pages, 3 * PAGE, 0));
	range("F15", "complete, too", fd, 1);
	munmap(pages + 100 * PAGE, PAGE);
	struct iovec parts[2] = {{pages, 5000}, {pages + 100 * PAGE - 50, 100}};
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
	ROW("F15 E7", "a hole in the second part", sendmsg(fd, &m, MSG_ZEROCOPY | MSG_NOSIGNAL));
	close(fd);
	/* What fits into the buffers before the hole is sent. */
	fd = shut();
	ROW("F15 E7 E1", "100 pages, a hole and 27 more", send_zc(fd, pages, 128 * PAGE, 0));
	row("ZC-11", "objects of the short send: %u", objects(fd));
	ROW("F15 E7", "from the hole on", send_zc(fd, pages + 100 * PAGE, PAGE, 0));
	drop(fd);
	munmap(pages, 128 * PAGE);
}

/* A page is a fragment of a buffer, which takes 17 of them; what goes on in the last one's page is no new one. A buffer is
 * charged 832 bytes, and each send the pages that it touches. */
static void fragments(void)
{
	char *pages = mmap(NULL, 300 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const struct {
		const char *text;
		size_t step, size;
		int count;
	} runs[] = {
		{"that go on", 10, 10, 40},
		{"with gaps", 20, 10, 40},
		{"that go on over pages", 1000, 1000, 80},
		{"of 3000 bytes, each over a page's end", 4 * PAGE, 3000, 12},
		{"of a page", PAGE, PAGE, 20},
		{"of a page and a half, that go on", PAGE * 3 / 2, PAGE * 3 / 2, 20},
	};
	struct iovec parts[30];
	struct msghdr m = {.msg_iov = parts, .msg_iovlen = 30};
	if (pages == MAP_FAILED || madvise(pages, 300 * PAGE, MADV_NOHUGEPAGE))
		err(2, "pages");
	for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
		int fd = shut(), sent = 0;
		unsigned before = meminfo(fd, SK_MEMINFO_WMEM_QUEUED);
		for (int n = 0; n < runs[i].count; n++)
			sent += send_zc(fd, pages + 2000 + n * runs[i].step, runs[i].size, MSG_MORE) > 0;
		row("F9 F15", "%d sends %s: queued %u, objects %u", sent, runs[i].text,
		    meminfo(fd, SK_MEMINFO_WMEM_QUEUED) - before, objects(fd));
		drop(fd);
	}
	for (int apart = 0; apart < 2; apart++) {
		int fd = shut();
		unsigned before = meminfo(fd, SK_MEMINFO_WMEM_QUEUED);
		for (int i = 0; i < 30; i++)
			parts[i] = (struct iovec){pages + i * (apart ? 2 * PAGE : 40), 40};
		ROW("F15", "30 parts", sendmsg(fd, &m, MSG_ZEROCOPY | MSG_NOSIGNAL | MSG_DONTWAIT));
		row("F9 F15", "%s: queued %u, objects %u", apart ? "apart" : "that go on",
		    meminfo(fd, SK_MEMINFO_WMEM_QUEUED) - before, objects(fd));
		drop(fd);
	}
	munmap(pages, 300 * PAGE);
}

static void fast_open(void)
{
	struct sockaddr_in a = address(host, port);
	for (int cookie = 0; cookie < 2; cookie++) {
		int fd = tcp_socket();
		with_zerocopy(fd);
		memcpy(data, "discard\n", 8);
		ROW("ZC-12", cookie ? "with a cookie" : "asking for one",
		    sendto(fd, data, 1000, MSG_FASTOPEN | MSG_ZEROCOPY, (struct sockaddr *)&a, sizeof a));
		range("ZC-12 ZC-43", cookie ? "the SYN's data" : "data behind the handshake", fd, 0);
		ROW("ZC-12", "the send after it", send_zc(fd, data, 10, 0));
		range("ZC-12", "has the next id", fd, 1);
		close(fd);
	}
}

/* A socket of IPv6, also where the peer is an IPv4 host. */
static void mapped(void)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	char text[64];
	_Alignas(8) char control[256];
	snprintf(text, sizeof text, "::ffff:%s", host);
	inet_pton(AF_INET6, text, &a.sin6_addr);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "a mapped address");
	with_zerocopy(fd);
	send_text(fd, "discard\n");
	wait_until_acked(fd);
	ROW("ZC-32", "to a mapped address", send_zc(fd, data, 10, 0));
	wait_for(fd, 0);
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	long n = recvmsg(fd, &m, MSG_ERRQUEUE);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	row("ZC-32", "its notification: %ld, level %d type %d length %zu", n, c->cmsg_level, c->cmsg_type,
	    (size_t)c->cmsg_len);
	close(fd);
}

static long dmabuf_and_a_bad_message(int fd, unsigned id)
{
	struct {
		struct cmsghdr header;
		unsigned id, pad;
		struct cmsghdr bad;
	} control = {.header = {.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_DEVMEM_DMABUF_NR,
				.cmsg_len = CMSG_LEN(sizeof(unsigned))},
		     .id = id,
		     .bad = {.cmsg_len = 3}};
	struct iovec part = {data, 10};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof control};
	return sendmsg(fd, &m, MSG_ZEROCOPY | MSG_NOSIGNAL);
}

static void disregarded_dmabuf(void)
{
	int fd = tcp_socket();
	with_zerocopy(fd);
	/* The id by itself would be EINVAL before the connection is looked at (B3d). */
	ROW("ZC-60", "an id before a bad message, not connected", dmabuf_and_a_bad_message(fd, 77));
	close(fd);
	fd = open_zerocopy("discard");
	ROW("ZC-60 B10", "an id before a bad message", dmabuf_and_a_bad_message(fd, 77));
	close(fd);
}

static void scatter_gather(int on)
{
	struct ethtool_value value = {.cmd = ETHTOOL_SSG, .data = (unsigned)on};
	struct ifreq request = {.ifr_data = (void *)&value};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	strcpy(request.ifr_name, DEVICE);
	if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request))
		err(2, "ETHTOOL_SSG");
	close(fd);
}

/* Where the device does not gather, the kernel copies in cutting: that is not told. */
static void without_scatter_gather(void)
{
	scatter_gather(0);
	int fd = open_zerocopy("discard");
	wait_until_acked(fd);
	ROW("ZC-41 ZC-42", "one segment, without scatter-gather", send_zc(fd, data, 10, 0));
	range("ZC-41 ZC-42", "one segment", fd, 0);
	ROW("ZC-41 ZC-42", "seven segments, without scatter-gather", send_zc(fd, data, 10000, 0));
	range("ZC-41 ZC-42", "seven segments", fd, 1);
	close(fd);
	scatter_gather(1);
}

/* What stops reports of errors leaves notifications; and the stamp that comes with one. */
static void beside_errors(void)
{
	static const int stamps[] = {SOF_TIMESTAMPING_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE | OPT_RX_FILTER};
	struct sock_extended_err e;
	for (int i = 0; i < 2; i++) {
		int fd = open_zerocopy("discard");
		_Alignas(8) char control[256];
		struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
		if (send_zc(fd, data, 10, 0) != 10)
			err(2, "send");
		wait_for(fd, 0);
		setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){1}, sizeof(int));
		setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){0}, sizeof(int));
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &(int){1}, sizeof(int));
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamps[i], sizeof *stamps);
		ROW("ZC-45", "a notification, after IP_RECVERR", recvmsg(fd, &m, MSG_ERRQUEUE));
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
			row("ZC-45", "SO_TIMESTAMPING %#x, with it: %d/%d", (unsigned)stamps[i], c->cmsg_level,
			    c->cmsg_type);
		ROW("ZC-45", "another one", notification(fd, &e));
		close(fd);
	}
}

/* A stamp shows the bytes that were sent, whatever the program does with its memory before it reads it. */
static void stamped(void)
{
	int flags = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_TX_ACK, fd = open_zerocopy("discard");
	char shown[64] = "";
	struct iovec part = {shown, sizeof shown - 1};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	wait_until_acked(fd);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
	strcpy(data, "before");
	if (send_zc(fd, data, 6, 0) != 6)
		err(2, "send");
	wait_for(fd, 0);
	strcpy(data, "behind");
	ROW("TS-43", "a stamp of a zerocopy send, its bytes", recvmsg(fd, &m, MSG_ERRQUEUE));
	row("TS-43", "they are: %s", shown);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: zerocopy_objects HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	shared_objects();
	full_objects();
	holes();
	fragments();
	fast_open();
	mapped();
	disregarded_dmabuf();
	without_scatter_gather();
	beside_errors();
	stamped();
	puts("done");
	return 0;
}
