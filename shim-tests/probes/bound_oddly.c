/* Connections from sockets that are bound to addresses of many hosts, and listeners on one port by different devices.
 *
 *   bound_oddly HOST PORT     the peer program listens there
 */
#include "show.h"

#include <ifaddrs.h>
#include <netinet/in.h>

static struct in_addr name(int fd)
{
	struct sockaddr_in a;
	socklen_t length = sizeof a;
	if (getsockname(fd, (struct sockaddr *)&a, &length))
		err(2, "getsockname");
	return a.sin_addr;
}

static struct ifaddrs *device_of(struct in_addr own, struct ifaddrs *all)
{
	for (; all; all = all->ifa_next) {
		struct sockaddr_in *a = (struct sockaddr_in *)all->ifa_addr;
		if (a && a->sin_family == AF_INET && a->sin_addr.s_addr == own.s_addr)
			return all;
	}
	errx(2, "no device has our address");
}

static void from(struct in_addr group, int option, struct in_addr own, const char *host, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = group}, to = address(host, port);
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int fd = tcp_socket(), on = 1;
	printf("# option %d\n", option);
	if (option)
		SHOW(setsockopt(fd, IPPROTO_IP, option, &on, sizeof on));
	if (SHOW(bind(fd, (struct sockaddr *)&a, sizeof a)) == 0) {
		SHOW(name(fd).s_addr == group.s_addr);
		SHOW(connect(fd, (struct sockaddr *)&to, sizeof to));
		SHOW(name(fd).s_addr == own.s_addr);
		SHOW(connect(fd, &none, sizeof none));
		SHOW(name(fd).s_addr == own.s_addr);
	}
	close(fd);
}

static int by_device(const char *device, int port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int fd = tcp_socket();
	SHOW(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)));
	SHOW(bind(fd, (struct sockaddr *)&a, sizeof a));
	SHOW(listen(fd, 1));
	return fd;
}

int main(int argc, char **argv)
{
	static const int options[] = {0, IP_FREEBIND, IP_BIND_ADDRESS_NO_PORT};
	struct ifaddrs *all;
	struct in_addr own, groups[3];
	if (argc != 3)
		errx(2, "usage: bound_oddly HOST PORT");
	int port = atoi(argv[2]), fd = peer(argv[1], port, "echo"), at = 0;
	own = name(fd);
	if (getifaddrs(&all))
		err(2, "getifaddrs");
	struct ifaddrs *device = device_of(own, all);
	groups[0] = ((struct sockaddr_in *)device->ifa_broadaddr)->sin_addr;
	groups[1] = address("224.0.0.1", 0).sin_addr;
	groups[2].s_addr = INADDR_BROADCAST;
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < 3; j++)
			from(groups[i], options[j], own, argv[1], port);
	close(fd);

	puts("# by device");
	close(listener(1, &at));
	int wire = by_device(device->ifa_name, at), local = by_device("lo", at);
	close(called_back(wire, argv[1], port, at));
	struct sockaddr_in here = address("127.0.0.1", at);
	fd = tcp_socket();
	SHOW(connect(fd, (struct sockaddr *)&here, sizeof here));
	SHOW(close(accept(local, NULL, NULL)));
	close(fd);
	close(local);
	close(wire);
	freeifaddrs(all);
	puts("done");
	return 0;
}
