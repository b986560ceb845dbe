/* Receive timestamps (rows TS-76 to TS-83): the options, and the control messages that
 * come with data.
 */
#include "rows.h"

#include <linux/net_tstamp.h>
#include <sys/time.h>
#include <time.h>

static const char *host;
static int port;

static int set(int fd, int name, int value)
{
	return setsockopt(fd, SOL_SOCKET, name, &value, sizeof value);
}

/* One message, and the control messages with it: level, type, length, and whether the
 * first time in it is the clock's of these seconds. */
static void receive(const char *ids, const char *text, int fd, int flags, size_t room)
{
	char byte[10], control[256], said[256] = "";
	struct iovec iov = {byte, sizeof byte};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			   .msg_controllen = room};
	ssize_t got = recvmsg(fd, &m, flags);
	time_t now = time(NULL);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		int64_t seconds = 0;
		size_t at = strlen(said);
		if (c->cmsg_len >= CMSG_LEN(sizeof seconds))
			memcpy(&seconds, CMSG_DATA(c), sizeof seconds);
		snprintf(said + at, sizeof said - at, " %d/%d/%zu now %d", c->cmsg_level, c->cmsg_type,
			 (size_t)c->cmsg_len, now - seconds < 30 && now - seconds > -2);
	}
	row(ids, "%s: %zd flags %#x room used %zu%s", text, got, (unsigned int)m.msg_flags,
	    (size_t)m.msg_controllen, said);
}

static void values(int fd, const char *ids, const char *text)
{
	row(ids, "%s, what the four options read: %d %d %d %d", text,
	    int_option(fd, SOL_SOCKET, SO_TIMESTAMP_OLD), int_option(fd, SOL_SOCKET, SO_TIMESTAMPNS_OLD),
	    int_option(fd, SOL_SOCKET, SO_TIMESTAMP_NEW), int_option(fd, SOL_SOCKET, SO_TIMESTAMPNS_NEW));
}

/* The kernel stamps frames while a socket of the host wants that, from a little after it
 * has said so. This one says so; it is left open. */
static void begin_stamping(void)
{
	int fd = peer(host, port, "echo");
	set(fd, SO_TIMESTAMP_OLD, 1);
	for (size_t got = 0; !got;) {
		char byte, control[256];
		struct iovec iov = {&byte, 1};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				   .msg_controllen = sizeof control};
		if (send(fd, "x", 1, MSG_NOSIGNAL) != 1 || recvmsg(fd, &m, 0) != 1)
			err(2, "echo");
		got = m.msg_controllen;
	}
}

static void kinds(void)
{
	static const struct {
		int option;
		const char *ids, *text;
	} all[] = {
		{SO_TIMESTAMP_OLD, "TS-76", "SO_TIMESTAMP"},
		{SO_TIMESTAMPNS_OLD, "TS-77", "SO_TIMESTAMPNS over it"},
		{SO_TIMESTAMP_NEW, "TS-78 TS-80", "SO_TIMESTAMP_NEW"},
		{SO_TIMESTAMPNS_NEW, "TS-78 TS-80", "SO_TIMESTAMPNS_NEW"},
	};
	int fd = peer(host, port, "send 2000");
	wait_for(fd, POLLIN);
	receive("TS-76", "none of the options", fd, 0, 256);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		set(fd, all[i].option, 1);
		values(fd, all[i].ids, all[i].text);
		receive(all[i].ids, all[i].text, fd, 0, 256);
	}
	receive("TS-81", "peeked", fd, MSG_PEEK, 256);
	receive("TS-82", "room for the head only", fd, 0, CMSG_LEN(0));
	receive("TS-82", "room for half of it", fd, 0, CMSG_LEN(8));
	receive("TS-82", "no room", fd, 0, 0);
	set(fd, SO_TIMESTAMPNS_NEW, 0);
	values(fd, "TS-80", "switched off");
	receive("TS-80", "switched off", fd, 0, 256);
	close(fd);
}

static void timestamping(void)
{
	int fd = peer(host, port, "send 2000");
	set(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_RX_SOFTWARE);
	wait_for(fd, POLLIN);
	receive("TS-79", "RX_SOFTWARE, not reported", fd, 0, 256);
	set(fd, SO_TIMESTAMPING_OLD, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	receive("TS-79", "RX_SOFTWARE and SOFTWARE", fd, 0, 256);
	set(fd, SO_TIMESTAMPNS_OLD, 1);
	receive("TS-79", "with SO_TIMESTAMPNS", fd, 0, 256);
	set(fd, SO_TIMESTAMPING_NEW, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	receive("TS-79", "SO_TIMESTAMPING_NEW", fd, 0, 256);
	close(fd);
}

static void end_of_file(void)
{
	int fd = peer(host, port, "close");
	set(fd, SO_TIMESTAMP_OLD, 1);
	wait_for(fd, POLLIN);
	receive("TS-83", "the end of the stream", fd, 0, 256);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	host = argv[1];
	port = atoi(argv[2]);
	begin_stamping();
	kinds();
	timestamping();
	end_of_file();
	puts("done");
	return 0;
}
