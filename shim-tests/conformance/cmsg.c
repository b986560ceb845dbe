/* Control messages of a send: how they are walked, which are known, and what
 * each wants of its length, value and the caller's capabilities.
 *
 *   cmsg HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/capability.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/syscall.h>

static const char *host;
static int port;

/* A control buffer under construction. */
struct control {
	_Alignas(8) char bytes[512];
	size_t length;
};

/* Adds a header that claims `claimed` bytes, with `size` bytes of payload. */
static void add_raw(struct control *c, size_t claimed, int level, int type, const void *data,
		    size_t size)
{
	struct cmsghdr header = {.cmsg_len = claimed, .cmsg_level = level, .cmsg_type = type};
	memcpy(c->bytes + c->length, &header, sizeof header);
	memcpy(c->bytes + c->length + sizeof header, data, size);
	c->length += sizeof header + ((size + 7) & ~(size_t)7);
}

static void add(struct control *c, int level, int type, const void *data, size_t size)
{
	add_raw(c, sizeof(struct cmsghdr) + size, level, type, data, size);
}

/* Sends `size` bytes with the control messages. */
static long send_sized(int fd, const struct control *c, size_t size)
{
	static char data[16];
	struct iovec part = {data, size};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = (void *)c->bytes,
				 .msg_controllen = c->length};
	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static long send_with(int fd, const struct control *c)
{
	return send_sized(fd, c, 3);
}

/* One SOL_SOCKET message with an int. */
static long send_int(int fd, int type, int value)
{
	struct control c = {.length = 0};
	add(&c, SOL_SOCKET, type, &value, sizeof value);
	return send_with(fd, &c);
}

/* One SOL_SOCKET message with `size` bytes of zeros. */
static long send_zeros(int fd, int type, size_t size)
{
	static const char zeros[64];
	struct control c = {.length = 0};
	add(&c, SOL_SOCKET, type, zeros, size);
	return send_with(fd, &c);
}

static void walking(int fd)
{
	int number = 5;
	char text[80];
	for (size_t length = 1; length < 16; length += 7) {
		struct control c = {.length = length};
		memset(c.bytes, 0xff, length);
		snprintf(text, sizeof text, "%zu bytes of control", length);
		ROW("CM-1", text, send_with(fd, &c));
	}
	size_t claims[] = {0, 1, 15, 16, 19, 21, 24, 25, 1000, (size_t)-1};
	for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
		struct control c = {.length = 0}, ip = {.length = 0};
		add_raw(&c, claims[i], SOL_SOCKET, SO_PRIORITY, &number, sizeof number);
		snprintf(text, sizeof text, "a length of %zd", (ssize_t)claims[i]);
		ROW("CM-2 CM-3 CM-16", text, send_with(fd, &c));
		add_raw(&ip, claims[i], SOL_IP, 2, &number, sizeof number);
		snprintf(text, sizeof text, "the same at SOL_IP, a length of %zd", (ssize_t)claims[i]);
		ROW("CM-2 CM-3 CM-7", text, send_with(fd, &ip));
	}
	struct control c = {.length = 0};
	add(&c, SOL_SOCKET, SO_PRIORITY, &number, sizeof number);
	add_raw(&c, 0, SOL_SOCKET, SO_PRIORITY, &number, sizeof number);
	ROW("CM-4", "a good one, then one of length 0", send_with(fd, &c));
	for (size_t trailing = 1; trailing < 16; trailing += 7) {
		c.length = 24 + trailing;
		snprintf(text, sizeof text, "a good one, then %zu bytes", trailing);
		ROW("CM-5", text, send_with(fd, &c));
	}
	c.length = 20;
	ROW("CM-6", "no padding after the last", send_with(fd, &c));
	c.length = 0;
	add(&c, SOL_SOCKET, SO_PRIORITY, &number, sizeof number);
	add(&c, SOL_SOCKET, 99, &number, sizeof number);
	ROW("CM-6 CM-25", "an unknown one 24 bytes after one of 20", send_with(fd, &c));
}

static void other_levels(int fd)
{
	int levels[] = {SOL_IP, IPPROTO_TCP, 41, 17, 12345, -1};
	char text[80];
	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		for (int type = -1; type < 100; type += 33) {
			struct control c = {.length = 0};
			add(&c, levels[i], type, "x", 1);
			snprintf(text, sizeof text, "level %d type %d", levels[i], type);
			ROW("CM-7", text, send_with(fd, &c));
		}
	}
}

static void several(int fd)
{
	int low = 1, high = 2;
	struct control c = {.length = 0};
	add(&c, SOL_SOCKET, SO_PRIORITY, &low, sizeof low);
	add(&c, SOL_SOCKET, SO_PRIORITY, &high, sizeof high);
	ROW("CM-10", "the same type twice", send_with(fd, &c));
	c.length = 0;
	add(&c, SOL_SOCKET, 99, &low, sizeof low);
	add(&c, SOL_SOCKET, SO_MARK, &low, 2);
	ROW("CM-9", "two bad ones", send_with(fd, &c));
	ROW("CM-11", "bad ones and no data", send_sized(fd, &c, 0));
	c.length = 0;
	add(&c, SOL_SOCKET, 79, &low, sizeof low);
	ROW("CM-22", "a dmabuf id and no data", send_sized(fd, &c, 0));
	add(&c, SOL_SOCKET, 99, &low, sizeof low);
	ROW("CM-9 CM-22", "a dmabuf id, then an unknown type", send_with(fd, &c));
}

static void types(int fd)
{
	char text[80];
	for (size_t size = 0; size <= 12; size += 4) {
		snprintf(text, sizeof text, "SCM_RIGHTS of %zu", size);
		ROW("CM-12", text, send_zeros(fd, SCM_RIGHTS, size));
		snprintf(text, sizeof text, "SCM_CREDENTIALS of %zu", size);
		ROW("CM-13", text, send_zeros(fd, SCM_CREDENTIALS, size));
	}
	int bad = -1;
	struct control c = {.length = 0};
	add(&c, SOL_SOCKET, SCM_RIGHTS, &bad, sizeof bad);
	ROW("CM-12", "SCM_RIGHTS of a bad descriptor", send_with(fd, &c));
	for (int type = -1; type < 100; type++) {
		if (type == SO_MARK || type == SO_PRIORITY || type == 37 || type == 65 || type == 79)
			continue;
		for (size_t size = 4; size <= 8; size += 4) {
			snprintf(text, sizeof text, "type %d of %zu", type, size);
			const char *ids = type == 3	? "CM-14"
					  : type == 4	? "CM-15"
					  : type == 29	? "CM-17"
					  : type == 35	? "CM-17"
					  : type == 61	? "CM-20"
					  : type == 78	? "CM-21"
					  : type == 80	? "CM-23"
					  : type == 81	? "CM-24"
					  : type == 1	? "CM-12"
					  : type == 2	? "CM-13"
							: "CM-8 CM-25";
			ROW(ids, text, send_zeros(fd, type, size));
		}
	}
	for (size_t size = 0; size <= 8; size += 2) {
		snprintf(text, sizeof text, "a dmabuf id of 0 in %zu bytes", size);
		ROW("CM-22", text, send_zeros(fd, 79, size));
	}
	ROW("CM-22", "a dmabuf id of 1", send_int(fd, 79, 1));
}

static void priority_and_mark(int fd, const char *who)
{
	int priorities[] = {-1, 0, 6, 7, 100, INT32_MAX, INT32_MIN}, value = -1;
	socklen_t length = sizeof value;
	char text[80];
	for (size_t i = 0; i < sizeof priorities / sizeof *priorities; i++) {
		snprintf(text, sizeof text, "%s: priority %d", who, priorities[i]);
		ROW("CM-16", text, send_int(fd, SO_PRIORITY, priorities[i]));
	}
	for (size_t size = 0; size <= 8; size += 2) {
		snprintf(text, sizeof text, "%s: priority of %zu bytes", who, size);
		ROW("CM-16", text, send_zeros(fd, SO_PRIORITY, size));
		snprintf(text, sizeof text, "%s: mark of %zu bytes", who, size);
		ROW("CM-18", text, send_zeros(fd, SO_MARK, size));
	}
	ROW("CM-18", who, send_int(fd, SO_MARK, 7));
	getsockopt(fd, SOL_SOCKET, SO_PRIORITY, &value, &length);
	row("CM-16", "%s, the socket's priority afterwards: %d", who, value);
	getsockopt(fd, SOL_SOCKET, SO_MARK, &value, &length);
	row("CM-18", "%s, the socket's mark afterwards: %d", who, value);
}

/* Each bit alone, and all that are allowed. */
static void timestamping(int fd, int type)
{
	char text[80];
	for (int bit = 0; bit < 32; bit++) {
		snprintf(text, sizeof text, "type %d, bit %d", type, bit);
		ROW("CM-19", text, send_int(fd, type, (int)(1u << bit)));
	}
	snprintf(text, sizeof text, "type %d, all five", type);
	ROW("CM-19", text, send_int(fd, type, 0x40303));
	snprintf(text, sizeof text, "type %d, none", type);
	ROW("CM-19", text, send_int(fd, type, 0));
	for (size_t size = 0; size <= 8; size += 2) {
		snprintf(text, sizeof text, "type %d of %zu bytes", type, size);
		ROW("CM-19", text, send_zeros(fd, type, size));
	}
}

static void send_time(void)
{
	struct {
		int clock;
		unsigned flags;
	} txtime = {1, 0};
	int fd = peer(host, port, "discard");
	ROW("CM-20", "a send time without SO_TXTIME", send_zeros(fd, 61, 8));
	ROW("CM-20", "SO_TXTIME", setsockopt(fd, SOL_SOCKET, 61, &txtime, sizeof txtime));
	for (size_t size = 0; size <= 16; size += 4) {
		char text[80];
		snprintf(text, sizeof text, "a send time of %zu bytes", size);
		ROW("CM-20", text, send_zeros(fd, 61, size));
	}
	close(fd);
}

/* The effect of a call's own time stamp flags: stamps, and none. */
static void stamps_of_a_call(void)
{
	int flags = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY;
	char control[256], data[16];
	int fd = peer(host, port, "discard");
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
	for (int request = 0; request < 2; request++) {
		struct iovec part = {data, sizeof data};
		struct msghdr message = {.msg_iov = &part,
					 .msg_iovlen = 1,
					 .msg_control = control,
					 .msg_controllen = sizeof control};
		ROW("CM-19", request ? "asking for a stamp by the call" : "asking for none",
		    send_int(fd, SO_TIMESTAMPING, request ? SOF_TIMESTAMPING_TX_ACK : 0));
		if (request) {
			struct pollfd p = {.fd = fd};
			poll(&p, 1, 20000);
		} else {
			wait_until_acked(fd);
		}
		ROW("CM-19 B1", request ? "its stamp" : "no stamp",
		    recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT));
	}
	close(fd);
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};
	if (syscall(SYS_capset, &header, none))
		err(2, "capset");
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: cmsg HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	int fd = peer(host, port, "discard");
	walking(fd);
	other_levels(fd);
	several(fd);
	types(fd);
	timestamping(fd, 37);
	timestamping(fd, 65);
	send_time();
	stamps_of_a_call();
	priority_and_mark(fd, "with capabilities");
	drop_capabilities();
	priority_and_mark(fd, "without capabilities");
	close(fd);
	puts("done");
	return 0;
}
