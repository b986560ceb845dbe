/* The sends of random_calls.c. */
#ifndef RANDOM_SEND_H
#define RANDOM_SEND_H

#include "random_calls.h"

#include <fcntl.h>
#include <linux/net_tstamp.h>

enum { PARTS = 8, MESSAGES = 4, MANY = 1100, LARGE = 20000 };

static int unordered; /* what the error queue has does not come in the same order each time */
static int in_row; /* no waiting between the calls: only what does not hang on time is shown */

static int send_flags(void)
{
	static const long often[] = {0, 0, 0, MSG_DONTWAIT, MSG_MORE, MSG_EOR, MSG_OOB, MSG_ZEROCOPY, MSG_ZEROCOPY, MSG_NOSIGNAL};
	static const long seldom[] = {MSG_FASTOPEN,  MSG_PROXY, MSG_CONFIRM,      MSG_DONTROUTE, MSG_WAITALL, MSG_PEEK,
				      MSG_ERRQUEUE,  MSG_TRUNC, MSG_CTRUNC,       MSG_FIN,       MSG_SYN,     MSG_RST,
				      MSG_BATCH,     1 << 19,   1 << 20,          0x1000000,     0x2000000,   1 << 27,
				      MSG_CMSG_CLOEXEC, MSG_WAITFORONE, 1 << 23,          1L << 31};
	long flags = often[rnd(10)];
	if (chance(25))
		flags |= often[rnd(10)];
	if (chance(8))
		flags |= seldom[rnd((int)(sizeof seldom / sizeof *seldom))];
	return (int)flags;
}

static size_t send_size(void)
{
	return (size_t)(chance(85) ? ONE_OF(0, 1, 2, 10, 100, 1000, 1447, 1448, 1449, 2896, 4096)
				   : ONE_OF(5000, 16384, 20000, 32768, 40000, 65536, 65537, 130000, 190000));
}

/* Parts of the text, and odd ones between: empty, without an address, unreadable at once or behind some bytes. */
static int send_parts(struct iovec *parts, int odd)
{
	int count = (int)ONE_OF(0, 1, 1, 1, 2, 3, 5, 8);
	for (int i = 0; i < count; i++) {
		parts[i] = (struct iovec){text + rnd(60000), send_size()};
		if (!odd)
			continue;
		switch (rnd(12)) {
		case 0:
			parts[i].iov_len = 0;
			break;
		case 1:
			parts[i] = (struct iovec){NULL, 0};
			break;
		case 2:
			parts[i].iov_base = (void *)8;
			break;
		case 3:
			parts[i] = (struct iovec){text + TEXT - rnd(3000), 4000};
			break;
		case 4:
			parts[i].iov_base = NULL;
			break;
		case 5:
			parts[i].iov_len = (size_t)ONE_OF(-1, -4096);
			break;
		}
	}
	return count;
}

static long total(const struct iovec *parts, int count)
{
	long all = 0;
	for (int i = 0; i < count; i++)
		all += (long)parts[i].iov_len;
	return all;
}

/* Whether bytes come before an address at which nothing can be read. How many of them are sent hangs on where the allocator of
 * the copies stands in its page. */
static int faults_late(const struct iovec *parts, int count)
{
	long before = 0;
	for (int i = 0; i < count; i++) {
		const unsigned char *at = parts[i].iov_base;
		if (parts[i].iov_len && (at < text || at >= text + TEXT))
			return before > 0;
		if (at && at + parts[i].iov_len > text + TEXT)
			return 1;
		before += (long)parts[i].iov_len;
	}
	return 0;
}

static void show_parts(const struct iovec *parts, int count)
{
	printf(" {");
	for (int i = 0; i < count; i++) {
		const unsigned char *at = parts[i].iov_base;
		printf("%s%s%zd", i ? " " : "",
		       !at                                                  ? "null "
		       : at == (void *)8                                    ? "bad "
		       : at + parts[i].iov_len > text + TEXT && at < text + TEXT ? "over "
									    : "",
		       (ssize_t)parts[i].iov_len);
		if (at >= text && at < text + TEXT)
			printf("@%d", (int)(at - text));
	}
	printf("}");
}

/* Control messages, right and wrong ones. */
static size_t send_control(unsigned char *to)
{
	static const struct {
		int level, type, size;
	} kinds[] = {
		{SOL_SOCKET, SO_MARK, 4},        {SOL_SOCKET, SO_PRIORITY, 4},    {SOL_SOCKET, SO_TIMESTAMPING, 4},
		{SOL_SOCKET, SO_TIMESTAMPING, 4}, {SOL_SOCKET, 65, 4},            {SOL_SOCKET, SCM_TS_OPT_ID, 4},
		{SOL_SOCKET, SCM_TXTIME, 8},     {SOL_SOCKET, 79 /* SCM_DEVMEM_DMABUF */, 4},
		{SOL_SOCKET, 78, 8},             {SOL_SOCKET, SCM_RIGHTS, 4},     {SOL_SOCKET, 2, 12},
		{SOL_SOCKET, SO_TIMESTAMP, 16},  {SOL_SOCKET, 4711, 4},           {IPPROTO_IP, IP_TTL, 4},
		{IPPROTO_IP, IP_TOS, 4},         {IPPROTO_IP, IP_TOS, 1},         {IPPROTO_IP, IP_PKTINFO, 12},
		{IPPROTO_IP, IP_PROTOCOL, 4},    {IPPROTO_TCP, 1, 4},             {41, 50, 20},
		{999, 1, 4},
	};
	size_t at = 0;
	int count = (int)ONE_OF(1, 1, 1, 2, 3);
	printf(" control");
	for (int i = 0; i < count; i++) {
		size_t k = (size_t)rnd((int)(sizeof kinds / sizeof *kinds));
		struct cmsghdr h = {.cmsg_level = kinds[k].level, .cmsg_type = kinds[k].type};
		long value = kinds[k].type == SO_TIMESTAMPING || kinds[k].type == 65
				     ? ONE_OF(SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_TX_ACK, SOF_TIMESTAMPING_TX_SCHED,
					      SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK,
					      SOF_TIMESTAMPING_SOFTWARE, 1 << 30, 0, SOF_TIMESTAMPING_TX_HARDWARE)
				     : ONE_OF(0, 1, 6, 7, 77, -1);
		h.cmsg_len = CMSG_LEN((size_t)kinds[k].size);
		if (chance(10))
			h.cmsg_len += (size_t)ONE_OF(-1, 1, 4, -4, 1000, -100, 0x7fffffff);
		memcpy(to + at, &h, sizeof h);
		memset(to + at + sizeof h, 0, 24);
		memcpy(to + at + sizeof h, &value, kinds[k].size < 8 ? 4 : 8);
		printf(" %d/%d:%zd=%ld", h.cmsg_level, h.cmsg_type, (ssize_t)h.cmsg_len, value);
		at += CMSG_SPACE((size_t)kinds[k].size);
	}
	if (chance(8)) {
		at -= (size_t)rnd(12);
		printf(" cut to %zu", at);
	}
	return at;
}

/* Closes a socket, shows what the peer has of it, and opens another. */
static void renew(struct conn *c, int how)
{
	int way = rnd(8), other;
	printf(" close(%s, %d)", socket_name(c), way);
	if (way == 0) {
		other = open("/dev/null", O_RDONLY);
		outcome(dup2(other, c->fd) == c->fd);
		close(other);
		close(c->fd);
	} else if (way == 1) {
		outcome(close_range((unsigned)c->fd, (unsigned)c->fd, 0));
	} else {
		outcome(close(c->fd));
	}
	left(c);
	opened(c, how);
}

/* How much was sent is not shown, and the socket replaced. */
static void vague(struct conn *c)
{
	printf(" some");
	c->vague = 1;
	renew(c, 0);
}

static int wants_stamps(const struct conn *c)
{
	return option_of(c->fd, SOL_SOCKET, SO_TIMESTAMPING) > 0;
}

/* The peer has no more unread than its window takes. A stamp has its frame with it, which counts for the receive buffer: whether
 * there is room for all of those of large sends hangs on how these are cut. */
static void room_for(struct conn *c, long bytes)
{
	unordered |= bytes > LARGE && wants_stamps(c);
	if (c->far >= 0 && c->sent + bytes > UNREAD && !c->far_closed) {
		settle();
		ask("take %d %d", c->far, 4 << 20);
		c->sent = 0;
	}
}

/* More than a send buffer takes at once, perhaps: how much it does hangs on time. */
static int waits_perhaps(long bytes)
{
	return bytes > LARGE || in_row;
}

static void send_message(struct conn *c, int flags)
{
	static unsigned char control[MESSAGES][512];
	struct iovec parts[MESSAGES][PARTS];
	struct sockaddr_in to = address("192.0.2.77", 5);
	struct mmsghdr rows[MESSAGES] = {{.msg_len = 0}};
	int many = !chance(75), count = many ? (chance(3) ? 0 : 1 + rnd(MESSAGES)) : 1;
	long bytes = 0;
	int renew_after = 0, asked = 0;
	printf("%s(%s,", many ? "sendmmsg" : "sendmsg", socket_name(c));
	for (int i = 0; i < count; i++) {
		struct msghdr *m = &rows[i].msg_hdr;
		m->msg_iov = parts[i];
		m->msg_iovlen = (size_t)send_parts(parts[i], chance(20) && !in_row);
		show_parts(parts[i], (int)m->msg_iovlen);
		bytes += total(parts[i], (int)m->msg_iovlen);
		renew_after |= faults_late(parts[i], (int)m->msg_iovlen);
		if (chance(30) && !in_row) {
			m->msg_controllen = send_control(control[i]);
			m->msg_control = control[i];
			asked = 1;
		}
		if (chance(5)) {
			m->msg_name = &to;
			m->msg_namelen = (socklen_t)ONE_OF(sizeof to, 3, 0, 500, -1);
			printf(" name %d", (int)m->msg_namelen);
		}
		if (chance(3)) {
			m->msg_flags = -1;
			printf(" msg_flags");
		}
		if (chance(2)) {
			m->msg_iovlen = (size_t)ONE_OF(1025, -1);
			printf(" iovlen %zd", (ssize_t)m->msg_iovlen);
		}
		if (chance(2)) {
			m->msg_control = (void *)8;
			m->msg_controllen = (size_t)ONE_OF(32, 3, 1 << 20, -1);
			printf(" bad control %zd", (ssize_t)m->msg_controllen);
		}
	}
	if (waits_perhaps(bytes))
		flags &= ~MSG_DONTWAIT;
	printf(" %s)", flags_text((unsigned)flags));
	room_for(c, bytes > 0 && bytes < UNREAD ? bytes : UNREAD / 2);
	long r = many ? sendmmsg(c->fd, rows, (unsigned)count, flags) : sendmsg(c->fd, &rows[0].msg_hdr, flags);
	if (renew_after) {
		vague(c);
		return;
	}
	/* Which acknowledgements come between two messages hangs on time. */
	unordered |= (count > 1 || bytes > LARGE) && (wants_stamps(c) || asked);
	outcome(r);
	if (many)
		for (int i = 0; i < r; i++) {
			printf(" %u", rows[i].msg_len);
			c->sent += (int)rows[i].msg_len;
		}
	else if (r > 0)
		c->sent += (int)r;
}

static void write_parts(struct conn *c)
{
	static struct iovec many[MANY];
	struct iovec parts[PARTS];
	if (chance(5)) {
		int count = (int)ONE_OF(1024, 1025, -1, 1100);
		for (int i = 0; i < MANY; i++)
			many[i] = (struct iovec){text + i, i % 7 ? 1 : 0};
		printf("writev(%s, %d parts)", socket_name(c), count);
		long r = outcome(writev(c->fd, many, count));
		c->sent += r > 0 ? (int)r : 0;
		return;
	}
	int count = send_parts(parts, chance(30) && !in_row);
	int second = chance(10);
	printf("%s(%s,", second ? "pwritev2" : "writev", socket_name(c));
	show_parts(parts, count);
	printf(")");
	long bytes = total(parts, count);
	room_for(c, bytes > 0 && bytes < UNREAD ? bytes : UNREAD / 2);
	long r = second ? pwritev2(c->fd, parts, count, -1, (int)ONE_OF(0, 0, waits_perhaps(bytes) ? 0 : 0x8 /* RWF_NOWAIT */, 0x1, 0x100))
			: writev(c->fd, parts, count);
	if (faults_late(parts, count)) {
		vague(c);
		return;
	}
	outcome(r);
	c->sent += r > 0 ? (int)r : 0;
}

static void send_to(struct conn *c, int flags)
{
	unsigned char *from = text + rnd(60000);
	size_t size = send_size();
	long r;
	int way = rnd(5);
	struct sockaddr_in to = address("192.0.2.77", 5);
	if (chance(5) && !in_row) {
		from = text + TEXT - rnd(3000);
		size = 4000;
	} else if (chance(3)) {
		from = NULL;
		size = (size_t)ONE_OF(0, 1);
	}
	if (waits_perhaps((long)size))
		flags &= ~MSG_DONTWAIT;
	room_for(c, (long)size);
	if (way == 0) {
		printf("write(%s, %d %zu)", socket_name(c), from ? (int)(from - text) : -1, size);
		r = write(c->fd, from, size);
	} else if (way == 1) {
		socklen_t length = (socklen_t)ONE_OF(sizeof to, sizeof to, 3, 0, -1, 200);
		printf("sendto(%s, %d %zu, %s, %d)", socket_name(c), from ? (int)(from - text) : -1, size, flags_text((unsigned)flags), (int)length);
		r = sendto(c->fd, from, size, flags, (struct sockaddr *)&to, length);
	} else {
		printf("send(%s, %d %zu, %s)", socket_name(c), from ? (int)(from - text) : -1, size, flags_text((unsigned)flags));
		r = send(c->fd, from, size, flags);
	}
	if (from && from + size > text + TEXT) {
		vague(c);
		return;
	}
	outcome(r);
	c->sent += r > 0 ? (int)r : 0;
}

static void send_by(struct conn *c, int flags)
{
	int way = rnd(100);
	if (c->fd == conns[SOCKETS - 2].fd)
		flags &= ~MSG_FASTOPEN; /* an unconnected socket would ask for 192.0.2.77 */
	if (way < 45)
		send_to(c, flags);
	else if (way < 85)
		send_message(c, flags);
	else
		write_parts(c);
}

void drain_errors(struct conn *c, int sorted);

static void one_send(void)
{
	struct conn *c = any_socket(10);
	unordered = 0;
	send_by(c, send_flags());
	settle();
	if (unordered)
		drain_errors(c, -1);
}

/* Sends one behind the other, on the same socket. */
static void row_of_sends(void)
{
	struct conn *c = any_data();
	int count = 2 + rnd(5), avoid = wants_stamps(c) ? MSG_ZEROCOPY : 0;
	in_row = 1;
	drain_errors(c, 0);
	if (chance(30)) {
		printf("cork ");
		option_set(c->fd, IPPROTO_TCP, TCP_CORK, 1);
	}
	while (count--) {
		send_by(c, send_flags() & ~avoid & ~MSG_OOB);
		printf("; ");
	}
	if (chance(50))
		option_set(c->fd, IPPROTO_TCP, TCP_CORK, 0);
	settle();
	/* Which bytes share a buffer, and so a stamp, hangs on when acknowledgements come. */
	drain_errors(c, avoid ? -1 : 1);
	in_row = 0;
}

#endif
