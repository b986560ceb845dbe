/* Sockets in repair mode that another process gets, or that turn out to be the kernel's: they stay in it. A connection that is
 * dumped is closed without a packet, and goes on where it is rebuilt.
 *
 *   moved_repairing HOST PORT     the peer program listens there
 */
#include "doubled.h"
#include "show.h"

#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

static const char *host;
static int port;

static int repair(int fd, int how)
{
	return option_set(fd, IPPROTO_TCP, TCP_REPAIR, how);
}

static int queue(int fd, int which)
{
	return option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, which);
}

static uint32_t sequence(int fd, int which)
{
	queue(fd, which);
	return (uint32_t)option_of(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
}

static void set_sequence(int fd, int which, uint32_t value)
{
	queue(fd, which);
	SHOW(option_set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)value));
}

static void mode(int fd)
{
	SHOW(option_of(fd, IPPROTO_TCP, TCP_REPAIR));
	SHOW(option_of(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE));
	SHOW(option_of(fd, SOL_SOCKET, SO_REUSEADDR));
}

/* What is in both queues. */
static void queues(int fd)
{
	char buffer[32];
	int queued = -1;
	queue(fd, TCP_RECV_QUEUE);
	SHOW(recv(fd, buffer, sizeof buffer, MSG_PEEK | MSG_DONTWAIT));
	queue(fd, TCP_SEND_QUEUE);
	SHOW(recv(fd, buffer, sizeof buffer, MSG_PEEK | MSG_DONTWAIT));
	ioctl(fd, SIOCOUTQ, &queued);
	printf("queued %d\n", queued);
}

/* Both queues are filled, and the other process ends before the connection leaves repair mode. */
static void amid(int chosen)
{
	int fd = peer(host, port, "echo");
	printf("# amid a dump, queue %d\n", chosen);
	echoed(fd, "first");
	repair(fd, TCP_REPAIR_ON);
	uint32_t sent = sequence(fd, TCP_SEND_QUEUE), received = sequence(fd, TCP_RECV_QUEUE);
	queue(fd, TCP_SEND_QUEUE);
	SHOW(send(fd, "later", 5, 0));
	queue(fd, TCP_RECV_QUEUE);
	SHOW(send(fd, "put in", 6, 0));
	SHOW(queue(fd, chosen));
	doubled();
	mode(fd);
	printf("sent %u, received %u\n", sequence(fd, TCP_SEND_QUEUE) - sent, sequence(fd, TCP_RECV_QUEUE) - received);
	queues(fd);
	close(fd);
}

enum stage { FRESH, NUMBERED, BOUND, CONNECTED, MOVED_NOT };

/* A dumped connection is closed after it was shared, and rebuilt by a socket that is shared at some stage. */
static void rebuilt(enum stage stage)
{
	struct tcp_repair_opt options[] = {{2, 1448}, {3, 7 | 7 << 16}, {4, 0}};
	struct sockaddr_in local, remote;
	socklen_t length = sizeof local;
	int fd = peer(host, port, "echo");
	printf("# rebuilt, shared at stage %d\n", stage);
	echoed(fd, "first");
	getsockname(fd, (struct sockaddr *)&local, &length);
	getpeername(fd, (struct sockaddr *)&remote, &length);
	repair(fd, TCP_REPAIR_ON);
	uint32_t sent = sequence(fd, TCP_SEND_QUEUE), received = sequence(fd, TCP_RECV_QUEUE);
	doubled();
	SHOW(close(fd));

	fd = tcp_socket();
	SHOW(repair(fd, TCP_REPAIR_ON));
	if (stage == FRESH)
		doubled();
	set_sequence(fd, TCP_SEND_QUEUE, sent);
	set_sequence(fd, TCP_RECV_QUEUE, received);
	if (stage == NUMBERED)
		doubled();
	SHOW(bind(fd, (struct sockaddr *)&local, sizeof local));
	if (stage == BOUND)
		doubled();
	SHOW(connect(fd, (struct sockaddr *)&remote, sizeof remote));
	if (stage == CONNECTED)
		doubled();
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, sizeof options));
	mode(fd);
	SHOW(repair(fd, TCP_REPAIR_OFF));
	echoed(fd, "again");
	close(fd);
}

/* An accepted connection is rebuilt on the port of its listener, which goes on. */
static void beside_its_listener(void)
{
	struct tcp_repair_opt options[] = {{2, 1448}, {3, 7 | 7 << 16}, {4, 0}};
	struct sockaddr_in local, remote;
	socklen_t length = sizeof local;
	int own_port, listening = listener(4, &own_port), fd = called_back(listening, host, port, own_port);
	puts("# beside its listener");
	echoed(fd, "first");
	getsockname(fd, (struct sockaddr *)&local, &length);
	getpeername(fd, (struct sockaddr *)&remote, &length);
	repair(fd, TCP_REPAIR_ON);
	uint32_t sent = sequence(fd, TCP_SEND_QUEUE), received = sequence(fd, TCP_RECV_QUEUE);
	SHOW(close(fd));

	fd = tcp_socket();
	SHOW(bind(fd, (struct sockaddr *)&local, sizeof local));
	SHOW(repair(fd, TCP_REPAIR_ON));
	set_sequence(fd, TCP_SEND_QUEUE, sent);
	set_sequence(fd, TCP_RECV_QUEUE, received);
	SHOW(bind(fd, (struct sockaddr *)&local, sizeof local));
	mode(fd);
	SHOW(connect(fd, (struct sockaddr *)&remote, sizeof remote));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, sizeof options));
	SHOW(repair(fd, TCP_REPAIR_OFF));
	echoed(fd, "again");
	close(fd);
	fd = called_back(listening, host, port, own_port);
	echoed(fd, "another");
	close(fd);
	close(listening);
}

/* The kernel carries what is local, which shows at the bind or at the connect. */
static void local(int binds)
{
	struct sockaddr_in here = address("127.0.0.1", 0), there = address("127.0.0.1", 9);
	int fd = tcp_socket();
	printf("# on this host, %s\n", binds ? "bound" : "not bound");
	SHOW(repair(fd, TCP_REPAIR_ON));
	set_sequence(fd, TCP_SEND_QUEUE, 1000);
	set_sequence(fd, TCP_RECV_QUEUE, 2000);
	if (binds)
		SHOW(bind(fd, (struct sockaddr *)&here, sizeof here));
	SHOW(connect(fd, (struct sockaddr *)&there, sizeof there));
	mode(fd);
	printf("sent %u, received %u\n", sequence(fd, TCP_SEND_QUEUE), sequence(fd, TCP_RECV_QUEUE));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: moved_repairing HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	for (int chosen = TCP_NO_QUEUE; chosen <= TCP_SEND_QUEUE; chosen++)
		amid(chosen);
	for (enum stage stage = FRESH; stage <= MOVED_NOT; stage++)
		rebuilt(stage);
	beside_its_listener();
	local(0);
	local(1);
	puts("done");
	return 0;
}
