/* Zerocopy where the device gathers nothing: the bytes are copied, and the notification
 * says so (row B3c).
 *
 *   no_scatter_gather HOST PORT     the peer program listens there
 */
#include "rows.h"

#include <linux/ethtool.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

static _Alignas(4096) char data[3 * 4096];

/* Of every device but loopback. */
static void gather(int on)
{
	int control = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct if_nameindex *devices = if_nameindex();
	for (struct if_nameindex *d = devices; d && d->if_index; d++) {
		struct ethtool_value how = {.cmd = ETHTOOL_SSG, .data = (uint32_t)on};
		struct ifreq request = {.ifr_data = (void *)&how};
		snprintf(request.ifr_name, sizeof request.ifr_name, "%s", d->if_name);
		if (strcmp(d->if_name, "lo") && ioctl(control, SIOCETHTOOL, &request))
			err(2, "%s", d->if_name);
	}
	if_freenameindex(devices);
	close(control);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	gather(0);
	int on = 1, off = 0, fd = peer(argv[1], atoi(argv[2]), "discard");
	wait_until_acked(fd);
	setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
	ROW("B3c", "10 bytes of two pages, zerocopy, corked", send(fd, data + 4090, 10, MSG_ZEROCOPY));
	row("B3c", "charged as copied ones: %u", meminfo(fd, SK_MEMINFO_WMEM_QUEUED));
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
	char control[128];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof control};
	struct sock_extended_err e = {0};
	struct pollfd p = {.fd = fd};
	if (poll(&p, 1, 20000) != 1 || recvmsg(fd, &m, MSG_ERRQUEUE) < 0 || !CMSG_FIRSTHDR(&m))
		errx(2, "no notification");
	memcpy(&e, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof e);
	row("B3c", "its notification: code %u, from %u to %u", e.ee_code, e.ee_info, e.ee_data);
	close(fd);
	puts("done");
	return 0;
}
