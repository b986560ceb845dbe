/* The receives of random_calls.c, and the error queue. */
#ifndef RANDOM_RECEIVE_H
#define RANDOM_RECEIVE_H

#include "random_calls.h"

#include <linux/errqueue.h>

/* A control message by what it is and holds; of stamps, which are there. */
static int show_control(char *to, const struct cmsghdr *h)
{
	const unsigned char *data = CMSG_DATA(h);
	size_t size = h->cmsg_len - CMSG_LEN(0);
	int at = sprintf(to, " %d/%d:%zu", h->cmsg_level, h->cmsg_type, size);
	if (h->cmsg_level == SOL_SOCKET && (h->cmsg_type == SO_TIMESTAMPING || h->cmsg_type == 65)) {
		for (size_t i = 0; i + 16 <= size; i += 16) {
			uint64_t two[2];
			memcpy(two, data + i, 16);
			at += sprintf(to + at, "%c", two[0] || two[1] ? 't' : '0');
		}
	} else if (h->cmsg_level == IPPROTO_IP && h->cmsg_type == IP_RECVERR && size >= sizeof(struct sock_extended_err)) {
		struct sock_extended_err e;
		memcpy(&e, data, sizeof e);
		at += sprintf(to + at, " %s origin %d type %d code %d pad %d info %u data %u", strerrorname_np((int)e.ee_errno),
			      e.ee_origin, e.ee_type, e.ee_code, e.ee_pad, e.ee_info, e.ee_data);
		if (size >= sizeof e + 16) {
			struct sockaddr_in a;
			memcpy(&a, data + sizeof e, sizeof a);
			at += sprintf(to + at, " family %d", a.sin_family);
		}
	} else if (h->cmsg_level == SOL_SOCKET && (h->cmsg_type == SO_TIMESTAMP || h->cmsg_type == SO_TIMESTAMPNS ||
						   h->cmsg_type == 63 || h->cmsg_type == 64)) {
		at += sprintf(to + at, " t");
	} else if (size >= 4) {
		int value;
		memcpy(&value, data, 4);
		at += sprintf(to + at, "=%d", value);
	}
	return at;
}

static int show_message(char *to, const struct msghdr *m, size_t name_room, size_t control_room)
{
	int at = sprintf(to, " flags %s", flags_text((unsigned)m->msg_flags));
	if (name_room != m->msg_namelen)
		at += sprintf(to + at, " name %d", (int)m->msg_namelen);
	if (control_room || m->msg_controllen)
		at += sprintf(to + at, " control %zu", m->msg_controllen);
	if (m->msg_control && m->msg_controllen <= 512)
		for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR((struct msghdr *)m, h)) {
			if (h->cmsg_len < sizeof *h || h->cmsg_len > 512)
				break;
			/* One that was cut off may end in the middle. */
			at += show_control(to + at, h);
		}
	return at;
}

static size_t receive_size(void)
{
	return (size_t)ONE_OF(0, 1, 1, 5, 10, 100, 1000, 3000, 20000, 20000, 60000);
}

static int receive_flags(void)
{
	static const long often[] = {0, 0, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_OOB};
	long flags = often[rnd(7)];
	if (chance(30))
		flags |= often[rnd(7)];
	if (chance(6))
		flags |= ONE_OF(MSG_ERRQUEUE, MSG_CTRUNC, MSG_EOR, MSG_ZEROCOPY, 1 << 27, MSG_CMSG_CLOEXEC, MSG_WAITFORONE, MSG_MORE,
				MSG_FASTOPEN, MSG_CONFIRM, 0x2000000, 1 << 31);
	return (int)flags;
}

static const char *flags_or_none(int flags)
{
	return flags ? flags_text((unsigned)flags) : "0";
}

/* Of the error queue, which has frames with their headers, only that something came. */
static void got(long r, int flags)
{
	if (flags & MSG_ERRQUEUE && r > 0) {
		printf(" = some");
		return;
	}
	outcome(r);
	if (r > 0 && r <= TEXT)
		printf(" sum %ld", sum_of(room, (size_t)r));
}

static void receive_message(struct conn *c, int flags)
{
	static unsigned char control[4][512];
	static char line[8192];
	struct sockaddr_in names[4];
	struct iovec parts[4][3];
	struct mmsghdr rows[4] = {{.msg_len = 0}};
	size_t name_rooms[4], control_rooms[4];
	int many = chance(30), count = many ? (chance(3) ? 0 : 1 + rnd(4)) : 1;
	printf("%s(%s,", many ? "recvmmsg" : "recvmsg", socket_name(c));
	memset(room, 0, 200000);
	for (int i = 0; i < count; i++) {
		struct msghdr *m = &rows[i].msg_hdr;
		m->msg_iov = parts[i];
		m->msg_iovlen = (size_t)ONE_OF(0, 1, 1, 1, 2, 3);
		printf(" {");
		for (size_t j = 0; j < m->msg_iovlen; j++) {
			parts[i][j] = (struct iovec){room + i * 65000 + (int)j * 20000, receive_size() % 20001};
			/* Behind good bytes it is another affair (DEVIATIONS.md). */
			if (chance(3) && j == 0)
				parts[i][j].iov_base = (void *)8;
			printf("%s%s%zu", j ? " " : "", parts[i][j].iov_base == (void *)8 ? "bad " : "", parts[i][j].iov_len);
		}
		printf("}");
		control_rooms[i] = chance(60) ? (size_t)ONE_OF(512, 512, 512, 16, 20, 40, 64, 1, 100) : 0;
		name_rooms[i] = chance(40) ? (size_t)ONE_OF(16, 3, 0, 100) : 0;
		m->msg_control = control_rooms[i] ? control[i] : NULL;
		m->msg_controllen = control_rooms[i];
		m->msg_name = chance(80) ? &names[i] : NULL;
		m->msg_namelen = (socklen_t)name_rooms[i];
		memset(control[i], 0, sizeof control[i]);
		if (chance(3)) {
			m->msg_iovlen = (size_t)ONE_OF(1025, -1);
			printf(" iovlen %zd", (ssize_t)m->msg_iovlen);
		}
		printf(" name %zu%s control %zu", name_rooms[i], m->msg_name ? "" : " null", control_rooms[i]);
	}
	printf(" %s)", flags_or_none(flags));
	struct timespec limit = {.tv_sec = 20};
	long r = many ? recvmmsg(c->fd, rows, (unsigned)count, flags, &limit) : recvmsg(c->fd, &rows[0].msg_hdr, flags);
	if (flags & MSG_ERRQUEUE && r > 0 && !many)
		r = 1;
	outcome(r);
	for (int i = 0; i < (many ? r : r >= 0); i++) {
		show_message(line, &rows[i].msg_hdr, name_rooms[i], control_rooms[i]);
		printf("%s", line);
		if (many && !(flags & MSG_ERRQUEUE))
			printf(" length %u", rows[i].msg_len);
	}
	if (!(flags & MSG_ERRQUEUE))
		printf(" sum %ld", sum_of(room, 200000));
}

static void receive_plain(struct conn *c, int flags)
{
	size_t size = receive_size();
	int way = rnd(6);
	memset(room, 0, size);
	if (way == 0) {
		printf("read(%s, %zu)", socket_name(c), size);
		got(read(c->fd, room, size), 0);
	} else if (way == 1) {
		struct iovec parts[3] = {{room, size / 3}, {NULL, 0}, {room + size / 3, size - size / 3}};
		int how = (int)ONE_OF(-1, -1, 0, 0x8 /* RWF_NOWAIT */, 0x1 /* RWF_HIPRI */, 0x10 /* RWF_APPEND */, 0x1000);
		printf("readv(%s, %zu, %d)", socket_name(c), size, how);
		got(how < 0 ? readv(c->fd, parts, 3) : preadv2(c->fd, parts, 3, -1, how), 0);
	} else if (way == 2) {
		struct sockaddr_in from = {.sin_family = 77};
		socklen_t length = (socklen_t)ONE_OF(16, 3, 0, -1, 100);
		printf("recvfrom(%s, %zu, %s, %d)", socket_name(c), size, flags_or_none(flags), (int)length);
		got(recvfrom(c->fd, room, size, flags, (struct sockaddr *)&from, &length), flags);
		printf(" name %d %d", (int)length, from.sin_family);
	} else {
		printf("recv(%s, %zu, %s)", socket_name(c), size, flags_or_none(flags));
		got(recv(c->fd, room, size, flags), flags);
	}
}

static void one_receive(void)
{
	struct conn *c = any_socket(10);
	int flags = receive_flags();
	if (chance(40))
		receive_message(c, flags);
	else
		receive_plain(c, flags);
	if (c->far >= 0 && queued(c->fd, SIOCINQ) == 0)
		c->far_sent = 0;
}

/* One entry of the error queue, as a line. With room for more than headers, how much comes hangs on how the bytes were cut into
 * frames. */
static int error_entry(struct conn *c, char *to, size_t control_room, int flags)
{
	static const size_t rooms[] = {0, 20, 20, 100000};
	static unsigned char control[512];
	struct sockaddr_in name;
	struct iovec part = {room, rooms[control_room % 4]};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = control_room,
			   .msg_name = &name, .msg_namelen = sizeof name};
	memset(control, 0, sizeof control);
	long r = recvmsg(c->fd, &m, MSG_ERRQUEUE | flags);
	if (r < 0) {
		sprintf(to, "%s", strerrorname_np(errno));
		return errno == EAGAIN ? 0 : -1;
	}
	int at = sprintf(to, "<%s%ld", r > 20 ? "more than " : "", r > 20 ? 20 : r);
	at += show_message(to + at, &m, sizeof name, control_room);
	sprintf(to + at, ">");
	return 1;
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Empties the error queue: shows it as it is, sorted, or (-1) not at all. */
void drain_errors(struct conn *c, int sorted)
{
	static char lines[200][512], *order[200];
	int n = 0;
	while (n < 200 && error_entry(c, lines[n], 509, 0) == 1) {
		order[n] = lines[n];
		n++;
	}
	if (sorted < 0)
		return;
	if (sorted)
		qsort(order, (size_t)n, sizeof *order, compare_lines);
	for (int i = 0; i < n; i++)
		printf(" %s", order[i]);
}

static void read_errors(void)
{
	static char line[4096];
	struct conn *c = any_socket(10);
	size_t control = (size_t)ONE_OF(512, 511, 510, 509, 40, 65, 80, 0, 16);
	int flags = (int)ONE_OF(0, 0, 0, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_OOB);
	int most = (int)ONE_OF(1, 2, 30);
	printf("errors(%s, control %zu, %s)", socket_name(c), control, flags_or_none(flags));
	while (most--) {
		int r = error_entry(c, line, control, flags);
		printf(" %s", line);
		if (r != 1)
			break;
	}
}

#endif
