/* Prints every TCP frame of a device, in both directions, one line each:
 *
 *   192.0.2.1:5201 192.0.2.2:40000 SA seq 1 ack 2 len 0
 *
 * with the flags of F, S, R, A that are set. Says "ready" first.
 *
 *   sniff DEVICE
 */
#include <arpa/inet.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static void print(const unsigned char *packet, size_t size)
{
	struct iphdr ip;
	struct tcphdr tcp;
	char source[INET_ADDRSTRLEN], destination[INET_ADDRSTRLEN];
	if (size < sizeof ip)
		return;
	memcpy(&ip, packet, sizeof ip);
	size_t header = ip.ihl * 4u;
	if (ip.protocol != IPPROTO_TCP || size < header + sizeof tcp)
		return;
	memcpy(&tcp, packet + header, sizeof tcp);
	inet_ntop(AF_INET, &ip.saddr, source, sizeof source);
	inet_ntop(AF_INET, &ip.daddr, destination, sizeof destination);
	printf("%s:%d %s:%d %s%s%s%s seq %u ack %u len %zu\n", source, ntohs(tcp.source),
	       destination, ntohs(tcp.dest), tcp.fin ? "F" : "", tcp.syn ? "S" : "",
	       tcp.rst ? "R" : "", tcp.ack ? "A" : "", ntohl(tcp.seq), ntohl(tcp.ack_seq),
	       ntohs(ip.tot_len) - header - tcp.doff * 4u);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static unsigned char frame[1 << 16];
	if (argc != 2)
		errx(2, "usage: sniff DEVICE");
	struct sockaddr_ll where = {.sll_family = AF_PACKET,
				    .sll_protocol = htons(ETH_P_ALL),
				    .sll_ifindex = (int)if_nametoindex(argv[1])};
	int size = 1 << 26, fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
	if (fd < 0 || bind(fd, (struct sockaddr *)&where, sizeof where))
		err(1, "%s", argv[1]);
	/* As much as is allowed: a long burst must not be lost. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct sockaddr_ll from;
		socklen_t length = sizeof from;
		ssize_t n = recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &length);
		if (n < 0)
			err(1, "recvfrom");
		if (from.sll_protocol == htons(ETH_P_IP))
			print(frame, (size_t)n);
	}
}
