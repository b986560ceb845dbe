/* The far host of random_segments.c: gives its wire away, and answers who asks for the addresses of the peers that are made of frames.
 *
 *   hands_wire CONTROL DEVICE NEAR
 *
 * Who connects to CONTROL gets a packet socket of DEVICE: a program under test, which lives in another network namespace, so sends
 * and hears this host's frames itself, and knows what has been answered without another process in between. The peers' addresses
 * are those of NEAR's /24 network from .100 on, which this host's kernel does not have.
 */
#include "show.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/un.h>

static const char *device;

static int packet_socket(int protocol)
{
	struct sockaddr_ll where = {.sll_family = AF_PACKET,
				    .sll_protocol = htons((uint16_t)protocol),
				    .sll_ifindex = (int)if_nametoindex(device)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&where, sizeof where))
		err(2, "%s", device);
	return fd;
}

static void give(int to)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec part = {&byte, 1};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int on = 1, wire = packet_socket(ETH_P_IP), size = 4 << 20;
	/* Frames of many segments come with the size of each. */
	if (setsockopt(wire, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on))
		err(2, "PACKET_VNET_HDR");
	if (setsockopt(wire, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
		setsockopt(wire, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof wire);
	memcpy(CMSG_DATA(c), &wire, sizeof wire);
	if (sendmsg(to, &m, MSG_NOSIGNAL) != 1)
		warn("a program that asked for the wire");
	close(wire);
	close(to);
}

/* Ethernet and ARP: 14 and 28 bytes. */
static void answer_arp(int arp, in_addr_t network)
{
	unsigned char frame[64], own[6];
	struct ifreq interface = {0};
	in_addr_t asked;
	ssize_t n = recv(arp, frame, sizeof frame, 0);
	memcpy(&asked, frame + 38, sizeof asked);
	if (n < 42 || frame[21] != 1 || ((asked ^ network) & htonl(0xffffff00)) || (ntohl(asked) & 255) < 100)
		return;
	strcpy(interface.ifr_name, device);
	if (ioctl(arp, SIOCGIFHWADDR, &interface))
		err(2, "the address of %s", device);
	memcpy(own, interface.ifr_hwaddr.sa_data, sizeof own);
	memmove(frame, frame + 6, 6);
	memcpy(frame + 6, own, 6);
	frame[21] = 2;
	memmove(frame + 32, frame + 22, 10);
	memcpy(frame + 22, own, 6);
	memcpy(frame + 28, &asked, sizeof asked);
	if (send(arp, frame, 42, 0) != 42)
		err(2, "an ARP reply");
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (argc != 4 || strlen(argv[1]) >= sizeof a.sun_path || strlen(argv[2]) >= IFNAMSIZ)
		errx(2, "usage: %s CONTROL DEVICE NEAR", argv[0]);
	strcpy(a.sun_path, argv[1]);
	device = argv[2];
	in_addr_t network = address(argv[3], 0).sin_addr.s_addr;
	int door = socket(AF_UNIX, SOCK_STREAM, 0), arp = packet_socket(ETH_P_ARP);
	if (bind(door, (struct sockaddr *)&a, sizeof a) || listen(door, 64))
		err(2, "%s", argv[1]);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd either[2] = {{.fd = door, .events = POLLIN}, {.fd = arp, .events = POLLIN}};
		if (poll(either, 2, -1) < 0)
			err(2, "poll");
		if (either[0].revents)
			give(accept(door, NULL, NULL));
		if (either[1].revents)
			answer_arp(arp, network);
	}
}
