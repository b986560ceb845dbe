/* A program that watches sockets as libuv does: by epoll_ctl calls that it gives to an
 * io_uring, where it gets one, and else itself.
 *
 *   epoll_by_ring HOST PORT     the peer program listens there
 */
#include "show.h"

#include <linux/io_uring.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static int ring = -1;
static struct io_uring_params params;
static unsigned char *queues;
static struct io_uring_sqe *sqes;

static void open_ring(void)
{
	ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	if (ring < 0)
		return;
	size_t length = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	size_t other = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	queues = mmap(NULL, length > other ? length : other, PROT_READ | PROT_WRITE, MAP_SHARED,
		      ring, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED,
		    ring, IORING_OFF_SQES);
	if (queues == MAP_FAILED || sqes == MAP_FAILED || !(params.features & IORING_FEAT_SINGLE_MMAP))
		err(2, "ring");
}

static unsigned *at(unsigned offset)
{
	return (unsigned *)(queues + offset);
}

static int control(int e, int op, int fd, unsigned events)
{
	struct epoll_event event = {.events = events};
	if (ring < 0)
		return epoll_ctl(e, op, fd, &event);
	unsigned tail = *at(params.sq_off.tail), slot = tail & *at(params.sq_off.ring_mask);
	struct io_uring_sqe *sqe = &sqes[slot];
	memset(sqe, 0, sizeof *sqe);
	sqe->opcode = IORING_OP_EPOLL_CTL;
	sqe->fd = e;
	sqe->len = (unsigned)op;
	sqe->off = (unsigned)fd;
	sqe->addr = (unsigned long)&event;
	at(params.sq_off.array)[slot] = slot;
	__atomic_store_n(at(params.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		err(2, "io_uring_enter");
	unsigned head = *at(params.cq_off.head);
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)(queues + params.cq_off.cqes) +
				   (head & *at(params.cq_off.ring_mask));
	int result = cqe->res;
	__atomic_store_n(at(params.cq_off.head), head + 1, __ATOMIC_RELEASE);
	errno = -result;
	return result < 0 ? -1 : 0;
}

static unsigned seen(int e)
{
	struct epoll_event event = {0};
	return epoll_wait(e, &event, 1, 20000) == 1 ? event.events : 0;
}

int main(int argc, char **argv)
{
	char byte;
	if (argc != 3)
		errx(2, "usage: epoll_by_ring HOST PORT");
	open_ring();
	int fd = peer(argv[1], atoi(argv[2]), "echo"), e = epoll_create1(0);
	SHOW(control(e, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP));
	SHOW(seen(e));
	SHOW(control(e, EPOLL_CTL_MOD, fd, EPOLLIN));
	send_text(fd, "x");
	SHOW(seen(e));
	SHOW(recv(fd, &byte, 1, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(seen(e));
	SHOW(recv(fd, &byte, 1, 0));
	SHOW(control(e, EPOLL_CTL_DEL, fd, 0));
	puts("done");
	return 0;
}
