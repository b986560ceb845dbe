/* TCP_ZEROCOPY_RECEIVE where nothing can be mapped: small writes, the copy buffer, and what is refused.
 *
 *   zerocopy_receive HOST PORT     the peer program listens there
 */
#include "show.h"

#include <linux/tcp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { MAPPED = 1 << 17, SENT = 20000 };

static struct tcp_zerocopy_receive z;
static unsigned char copies[MAPPED];

static void ask(int fd, socklen_t length)
{
	unsigned char room[128] = {0};
	memcpy(room, &z, sizeof z);
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, room, &length));
	memcpy(&z, room, sizeof z);
	printf("length %d: %u mapped, %s to be read, inq %u, err %d, copied %d, flags %x\n", (int)length, z.length,
	       z.recv_skip_hint > 4096 ? "much" : z.recv_skip_hint ? "some" : "nothing", z.inq, z.err, z.copybuf_len,
	       z.msg_flags);
}

static void await(int fd, int bytes)
{
	for (int there = 0; there < bytes; usleep(1000))
		if (ioctl(fd, FIONREAD, &there))
			err(2, "FIONREAD");
}

static void fresh(void *at, unsigned length, unsigned copied)
{
	memset(&z, 0, sizeof z);
	z.address = (uintptr_t)at;
	z.length = length;
	z.copybuf_address = (uintptr_t)copies;
	z.copybuf_len = copied;
}

int main(int argc, char **argv)
{
	static const socklen_t lengths[] = {0, 8, 11, 12, 13, 16, 20, 22, 24, 32, 36, 40, 56, 60, 62, 64, 70, 128};
	if (argc != 3)
		errx(2, "usage: zerocopy_receive HOST PORT");
	int port = atoi(argv[2]), own;
	int fd = peer(argv[1], port, "steps say=hello await finish await");
	char *at = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, fd, 0);
	SHOW(at != MAP_FAILED);
	await(fd, 5);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		fresh(at, MAPPED, 0);
		ask(fd, lengths[i]);
	}
	fresh(at, MAPPED, 0);
	z.reserved = 1;
	ask(fd, sizeof z);
	fresh(at, MAPPED, 0);
	z.msg_flags = 1;
	ask(fd, sizeof z);
	fresh(at + 1, MAPPED, 0);
	ask(fd, sizeof z);
	fresh(at, MAPPED, 4);
	ask(fd, sizeof z);
	fresh(at, MAPPED, 100);
	z.copybuf_address = 8;
	ask(fd, sizeof z);
	fresh(at, MAPPED, 100);
	ask(fd, sizeof z);
	printf("%.5s\n", (char *)copies);
	fresh(at, MAPPED, 100);
	ask(fd, sizeof z);
	send_text(fd, "x");
	wait_for(fd, POLLRDHUP);
	fresh(at, MAPPED, 100);
	ask(fd, sizeof z);
	munmap(at, MAPPED);
	close(fd);

	puts("# more than a page");
	char command[32];
	snprintf(command, sizeof command, "send %d", SENT);
	fd = peer(argv[1], port, command);
	at = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, fd, 0);
	await(fd, SENT);
	fresh(NULL, MAPPED, 0);
	ask(fd, sizeof z);
	fresh(at, MAPPED, 0);
	ask(fd, sizeof z);
	fresh(at, 1000, 0);
	ask(fd, sizeof z);
	fresh(at, 1000, 600);
	ask(fd, sizeof z);
	fresh(at, MAPPED, 700);
	ask(fd, sizeof z);
	fresh(at, MAPPED, MAPPED);
	ask(fd, sizeof z);
	fresh(at, MAPPED, MAPPED);
	ask(fd, sizeof z);
	munmap(at, MAPPED);
	close(fd);

	puts("# others");
	fd = listener(1, &own);
	fresh(NULL, MAPPED, 0);
	ask(fd, sizeof z);
	close(fd);
	fd = tcp_socket();
	fresh(NULL, MAPPED, 0);
	ask(fd, sizeof z);
	close(fd);
	fd = peer(argv[1], port, "steps await reset");
	send_text(fd, "x");
	wait_for(fd, POLLRDHUP);
	fresh(NULL, MAPPED, 0);
	ask(fd, sizeof z);
	fresh(NULL, MAPPED, 0);
	ask(fd, sizeof z);
	close(fd);
	puts("done");
	return 0;
}
