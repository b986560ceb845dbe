/* A handshake that an ICMP error ends, and what the error queue has of it (row ER-87):
 * nobody has the address, and the host tells itself when three requests for its
 * link-layer address went unanswered.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>

static struct sockaddr_in nobody, own;

static void first_entry(int fd, const char *which)
{
	union {
		char bytes[512];
		struct cmsghdr align;
	} control;
	char segment[100];
	struct sockaddr_in name = {0};
	struct iovec iov = {segment, sizeof segment};
	struct msghdr m = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &iov, .msg_iovlen = 1,
			   .msg_control = control.bytes, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &m, MSG_ERRQUEUE);
	if (n < 0) {
		row("ER-87", "%s, entry: %zd %s", which, n, strerrorname_np(errno));
		return;
	}
	row("ER-87", "%s, bytes of the quoted segment: %zd, flags %#x", which, n, m.msg_flags);
	row("ER-87", "%s, destination port in it: %d", which, (unsigned char)segment[2] << 8 | (unsigned char)segment[3]);
	row("ER-87", "%s, msg_name: %u bytes, family %d, port %d, the one that was called %d", which, m.msg_namelen,
	    name.sin_family, ntohs(name.sin_port), name.sin_addr.s_addr == nobody.sin_addr.s_addr);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	for (; c->cmsg_level == IPPROTO_IP && c->cmsg_type != IP_RECVERR; c = CMSG_NXTHDR(&m, c)) {
		unsigned char *d = CMSG_DATA(c);
		row("ER-87 TS-50", "%s, before it: type %d, %zu bytes, %u %u %u %u %u %u", which, c->cmsg_type, c->cmsg_len, d[0],
		    c->cmsg_len > 17 ? d[1] : 0, c->cmsg_len > 17 ? d[2] : 0, c->cmsg_len > 17 ? d[3] : 0,
		    c->cmsg_len > 20 ? d[7] : 0, c->cmsg_len > 24 ? d[11] : 0);
	}
	row("ER-87", "%s, control message: level %d type %d, %zu bytes", which, c->cmsg_level, c->cmsg_type, c->cmsg_len);
	struct sock_extended_err *e = (struct sock_extended_err *)CMSG_DATA(c);
	struct sockaddr_in *offender = (struct sockaddr_in *)SO_EE_OFFENDER(e);
	row("ER-87", "%s, the error: %u, origin %u, type %u, code %u, info %u", which, e->ee_errno, e->ee_origin,
	    e->ee_type, e->ee_code, e->ee_info);
	row("ER-87", "%s, offender: family %d, port %d, we ourselves %d", which, offender->sin_family, offender->sin_port,
	    offender->sin_addr.s_addr == own.sin_addr.s_addr);
}

static int mask(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
	return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

int main(int argc, char **argv)
{
	socklen_t length = sizeof own;
	struct sockaddr_in name = {0};
	char byte;
	const int told[] = {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR};
	int one = 1;
	if (argc != 3)
		errx(2, "usage: unreachable HOST PORT");
	int fd = peer(argv[1], atoi(argv[2]), "close");
	getsockname(fd, (struct sockaddr *)&own, &length);
	close(fd);
	nobody = address(argv[1], 80);
	nobody.sin_addr.s_addr = htonl((ntohl(nobody.sin_addr.s_addr) & ~255u) | 99);

	int plain = tcp_socket(), asks = tcp_socket(), sleeps = tcp_socket();
	setsockopt(asks, IPPROTO_IP, IP_RECVERR, &one, sizeof one);
	for (size_t i = 0; i < sizeof told / sizeof *told; i++)
		setsockopt(asks, IPPROTO_IP, told[i], &one, sizeof one);
	fcntl(plain, F_SETFL, O_NONBLOCK);
	fcntl(asks, F_SETFL, O_NONBLOCK);
	ROW("ER-87", "plain, connect", connect(plain, (struct sockaddr *)&nobody, sizeof nobody));
	ROW("ER-87", "IP_RECVERR, connect", connect(asks, (struct sockaddr *)&nobody, sizeof nobody));
	ROW("ER-87", "blocking, connect", connect(sleeps, (struct sockaddr *)&nobody, sizeof nobody));
	wait_for(plain, POLLOUT);
	wait_for(asks, POLLOUT);

	row("ER-87", "plain, mask: %#x", mask(plain));
	first_entry(plain, "plain");
	row("ER-87", "plain, mask when it is read: %#x", mask(plain));
	row("ER-87", "plain, SO_ERROR then: %d", int_option(plain, SOL_SOCKET, SO_ERROR));
	row("ER-87", "IP_RECVERR, SO_ERROR first: %d", int_option(asks, SOL_SOCKET, SO_ERROR));
	row("ER-87", "IP_RECVERR, mask then: %#x", mask(asks));
	row("ER-87 TS-51", "its memory: %u", meminfo(asks, SK_MEMINFO_RMEM_ALLOC));
	first_entry(asks, "IP_RECVERR");
	row("ER-87", "blocking, mask: %#x", mask(sleeps));
	length = sizeof name;
	ROW("ER-87", "blocking, recvfrom of a byte", recvfrom(sleeps, &byte, 1, MSG_ERRQUEUE, (struct sockaddr *)&name, &length));
	row("ER-87", "blocking, its address: %u bytes, port %d", length, ntohs(name.sin_port));
	first_entry(sleeps, "blocking, again");
	puts("done");
	return 0;
}
