/* What else random_calls.c does: waits, ioctls, pipes, ends and beginnings, and the peer's part. */
#ifndef RANDOM_OTHERS_H
#define RANDOM_OTHERS_H

#include "random_calls.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

static int epoll_fd = -1;

static void look(void)
{
	struct conn *c = any_socket(20);
	int way = rnd(6);
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(0);
	if (way == 0) {
		struct pollfd p[SOCKETS];
		int events = (int)ONE_OF(POLLIN, POLLOUT, POLLPRI, 0, POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND, POLLRDHUP, 0x7fff);
		for (int i = 0; i < SOCKETS; i++)
			p[i] = (struct pollfd){.fd = conns[i].fd, .events = (short)events};
		printf("poll(%#x)", (unsigned)events);
		outcome(poll(p, SOCKETS, (int)ONE_OF(0, 1)));
		for (int i = 0; i < SOCKETS; i++)
			printf(" %#x", (unsigned)p[i].revents);
	} else if (way == 1) {
		fd_set in, out, except;
		struct timeval soon = {.tv_usec = 1000};
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_ZERO(&except);
		int which = 1 + rnd(7), most = 0;
		for (int i = 0; i < SOCKETS; i++) {
			if (which & 1)
				FD_SET(conns[i].fd, &in);
			if (which & 2)
				FD_SET(conns[i].fd, &out);
			if (which & 4)
				FD_SET(conns[i].fd, &except);
			most = conns[i].fd > most ? conns[i].fd : most;
		}
		printf("select(%d)", which);
		outcome(select(most + 1, &in, &out, &except, &soon));
		for (int i = 0; i < SOCKETS; i++)
			printf(" %d%d%d", !!FD_ISSET(conns[i].fd, &in), !!FD_ISSET(conns[i].fd, &out), !!FD_ISSET(conns[i].fd, &except));
	} else if (way < 4) {
		unsigned events = (unsigned)ONE_OF(EPOLLIN, EPOLLIN | EPOLLOUT, EPOLLOUT, EPOLLPRI | EPOLLRDHUP, 0);
		events |= (unsigned)ONE_OF(0, EPOLLET, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT);
		struct epoll_event e = {.events = events, .data.u32 = (unsigned)(c - conns)};
		int op = (int)ONE_OF(EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL);
		printf("epoll_ctl(%s, %d, %#x)", socket_name(c), op, events);
		outcome(epoll_ctl(epoll_fd, op, c->fd, &e));
	} else {
		struct epoll_event e[SOCKETS];
		printf("epoll_wait");
		int n = (int)outcome(epoll_wait(epoll_fd, e, (int)ONE_OF(SOCKETS, SOCKETS), 0));
		unsigned of[SOCKETS] = {0};
		for (int i = 0; i < n; i++)
			of[e[i].data.u32] = e[i].events;
		for (int i = 0; i < SOCKETS; i++)
			printf(" %#x", of[i]);
	}
}

static void ioctl_of(void)
{
	static const struct name requests[] = {
		{SIOCINQ, "SIOCINQ"},   {SIOCOUTQ, "SIOCOUTQ"}, {SIOCATMARK, "SIOCATMARK"}, {SIOCOUTQNSD, "SIOCOUTQNSD"},
		{FIONBIO, "FIONBIO"},   {FIOASYNC, "FIOASYNC"}, {FIOCLEX, "FIOCLEX"},
		{0x5421 + 1, "0x5422"}, {TCGETS, "TCGETS"},     {FIOSETOWN, "FIOSETOWN"},   {FIOGETOWN, "FIOGETOWN"},
		{SIOCGPGRP, "SIOCGPGRP"}, {SIOCSPGRP, "SIOCSPGRP"},
	};
	struct conn *c = any_socket(30);
	const struct name *q = &requests[rnd((int)(sizeof requests / sizeof *requests))];
	char value[256] = {0};
	int n = (int)(chance(50) ? 0 : q->value == FIONBIO || q->value == FIOASYNC);
	memcpy(value, &n, 4);
	printf("ioctl(%s, %s, %d)", socket_name(c), q->name, n);
	long r = outcome(ioctl(c->fd, (unsigned long)q->value, chance(4) ? (void *)8 : value));
	memcpy(&n, value, 4);
	if (q->value == SIOCOUTQ && n > 0 && tcp_state(c->fd) == TCP_CLOSE)
		n = 1;
	if (r == 0)
		printf(" %d", n);
	if (q->value == FIONBIO)
		ioctl(c->fd, FIONBIO, &(int){0});
}

static int file_of_text(void)
{
	static int fd = -1;
	if (fd < 0) {
		fd = memfd_create("text", 0);
		if (write(fd, text, TEXT) != TEXT)
			err(2, "memfd");
	}
	return fd;
}

static void splicing(void)
{
	struct conn *c = any_socket(10);
	int p[2], way = rnd(6), flags = (int)ONE_OF(0, 0, SPLICE_F_MORE, SPLICE_F_NONBLOCK, SPLICE_F_MOVE, SPLICE_F_GIFT, 16, 255);
	size_t size = (size_t)ONE_OF(0, 1, 100, 3000, 5000, 20000, 65536);
	off_t at = rnd(1000);
	unordered = 0;
	if (pipe(p))
		err(2, "pipe");
	fcntl(p[0], F_SETPIPE_SZ, 1 << 18);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	if (way == 0) {
		printf("sendfile(%s, %d, %zu)", socket_name(c), (int)at, size);
		room_for(c, (long)size);
		long r = outcome(sendfile(c->fd, file_of_text(), &at, size));
		printf(" %d", (int)at);
		c->sent += r > 0 ? (int)r : 0;
	} else if (way == 1) {
		printf("splice(%s, pipe, %zu, %#x)", socket_name(c), size, (unsigned)flags);
		long r = outcome(splice(c->fd, NULL, p[1], NULL, size, (unsigned)flags));
		if (r > 0) {
			r = read(p[0], room, TEXT);
			printf(" %ld sum %ld", r, sum_of(room, (size_t)r));
		}
		if (c->far >= 0 && queued(c->fd, SIOCINQ) == 0)
			c->far_sent = 0;
	} else if (way < 5) {
		/* More than 16 buffers of the pipe leave in several sends, of which each has its stamp. */
		size_t fill = (size_t)ONE_OF(0, 1, 3000, 20000, 50000);
		struct iovec part = {text + at, fill};
		long filled = way == 2 ? write(p[1], text + at, fill)
			      : way == 3 ? vmsplice(p[1], &part, 1, 0)
					 : splice(file_of_text(), &at, p[1], NULL, fill, 0);
		printf("splice(pipe with %ld, %s, %zu, %#x)", filled, socket_name(c), size, (unsigned)flags);
		room_for(c, (long)size);
		long r = outcome(splice(p[0], NULL, c->fd, NULL, size, (unsigned)flags));
		c->sent += r > 0 ? (int)r : 0;
		printf(" left %d", queued(p[0], FIONREAD));
	} else {
		struct iovec part = {room, 100};
		printf("no pipe between (%s)", socket_name(c));
		outcome(splice(c->fd, NULL, conns[0].fd, NULL, 100, 0));
		outcome(tee(c->fd, p[1], 100, 0));
		outcome(vmsplice(c->fd, &part, 1, 0));
		outcome(sendfile(p[1], c->fd, NULL, 100));
		outcome(splice(p[0], NULL, c->fd, &at, 100, 0));
		outcome(lseek(c->fd, 0, SEEK_SET));
		outcome(pread(c->fd, room, 10, 0));
		outcome(pwrite(c->fd, text, 10, 0));
		outcome(ftruncate(c->fd, 0));
		outcome(fsync(c->fd));
	}
	close(p[0]);
	close(p[1]);
	settle();
	if (unordered)
		drain_errors(c, -1);
}

static void bound_to_device(void)
{
	static const char *const names[] = {"none such", "", "a name that is much too long", "lo"};
	const char *name = names[rnd(4)];
	struct conn *c = &conns[SOCKETS - 2];
	char is[32] = "";
	socklen_t length = (socklen_t)ONE_OF(strlen(name), strlen(name) + 1, 0, 1, 16, 17, -1), room_for_it = (socklen_t)ONE_OF(16, 3, 0, 32);
	printf("SO_BINDTODEVICE(%s, %d, %d)", name, (int)length, (int)room_for_it);
	outcome(setsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, name, length));
	outcome(getsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, is, &room_for_it));
	printf(" %d %s", (int)room_for_it, is);
}

static void shut_down(void)
{
	struct conn *c = any_socket(25);
	int how = (int)ONE_OF(SHUT_WR, SHUT_WR, SHUT_RD, SHUT_RDWR, 3, -1);
	if (c == &conns[SOCKETS - 1])
		how = 3;
	printf("shutdown(%s, %d)", socket_name(c), how);
	outcome(shutdown(c->fd, how));
}

static void open_anew(void)
{
	struct conn *c = any_socket(30);
	if (chance(40)) {
		struct linger l = {(int)ONE_OF(1, 1, 0), (int)ONE_OF(0, 0, 1)};
		printf("linger %d %d ", l.l_onoff, l.l_linger);
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	}
	renew(c, rnd(4));
}

static void connect_again(void)
{
	struct conn *c = any_socket(40);
	struct sockaddr_in a = address("192.0.2.77", 5);
	int way = rnd(5), state = tcp_state(c->fd);
	if (way == 0) {
		a.sin_family = AF_UNSPEC;
		printf("connect(%s, AF_UNSPEC)", socket_name(c));
		long r = outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
		if (r == 0 && state != TCP_LISTEN)
			left(c);
	} else if (way == 1 && state != TCP_CLOSE) {
		printf("connect(%s)", socket_name(c));
		outcome(connect(c->fd, (struct sockaddr *)&a, sizeof a));
	} else if (way == 2) {
		printf("bind(%s)", socket_name(c));
		a.sin_addr.s_addr = 0;
		a.sin_port = 0;
		outcome(bind(c->fd, (struct sockaddr *)&a, sizeof a));
	} else if (way == 3 && state != TCP_CLOSE) {
		printf("listen(%s)", socket_name(c));
		outcome(listen(c->fd, 5));
	} else {
		socklen_t length = (socklen_t)ONE_OF(3, 0, 1, -1, 200);
		printf("connect(%s, %d bytes)", socket_name(c), (int)length);
		outcome(connect(c->fd, (struct sockaddr *)&a, length));
	}
}

/* The peer connects to a listener with some options, and what is accepted takes a connection's place. */
static void accepted(void)
{
	static const int options[][2] = {
		{SOL_SOCKET, SO_ZEROCOPY}, {SOL_SOCKET, SO_TIMESTAMP},  {SOL_SOCKET, SO_OOBINLINE}, {SOL_SOCKET, SO_KEEPALIVE},
		{IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_CORK},    {IPPROTO_TCP, TCP_INQ},     {IPPROTO_IP, IP_RECVERR},
		{SOL_SOCKET, SO_PRIORITY}, {SOL_SOCKET, SO_MARK},       {SOL_SOCKET, SO_PEEK_OFF},  {SOL_SOCKET, SO_RCVLOWAT},
		{SOL_SOCKET, SO_TIMESTAMPING},                          {IPPROTO_TCP, TCP_SAVE_SYN}, {IPPROTO_TCP, TCP_DEFER_ACCEPT},
	};
	enum { N = sizeof options / sizeof *options };
	struct conn *c = any_data();
	int at, fd = listener(5, &at), flags = (int)ONE_OF(0, 0, SOCK_CLOEXEC, 5);
	printf("accept(%s, %d", socket_name(c), flags);
	for (int n = rnd(4); n > 0; n--) {
		int i = rnd(N), value = options[i][1] == SO_TIMESTAMPING ? 0x98 : 1;
		printf(", %d/%d", options[i][0], options[i][1]);
		option_set(fd, options[i][0], options[i][1], value);
	}
	printf(")");
	close(c->fd);
	left(c);
	int deferred = option_of(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0, number = -1;
	sscanf(ask("call %s %d", near_host, at), " ok %d", &number);
	if (deferred)
		ask("text %d 5 0", number);
	*c = (struct conn){.fd = accept4(fd, NULL, NULL, flags & ~5)};
	outcome(c->fd < 0 ? -1 : 0);
	outcome(accept4(fd, NULL, NULL, 5));
	close(fd);
	c->far = number;
	short_waits(c->fd);
	for (int i = 0; i < N; i++)
		printf(" %d", option_of(c->fd, options[i][0], options[i][1]));
}

/* TCP_REPAIR, put off again at once. */
static void repairing(void)
{
	struct conn *c = any_socket(30);
	int value = (int)ONE_OF(1, 1, 1, 0, -1, 2, 7);
	unsigned char bytes[64];
	printf("repair(%s, %d)", socket_name(c), value);
	outcome(option_set(c->fd, IPPROTO_TCP, TCP_REPAIR, value));
	printf(" %d", option_of(c->fd, IPPROTO_TCP, TCP_REPAIR));
	for (int n = rnd(4); n > 0; n--) {
		socklen_t length = (socklen_t)ONE_OF(4, 4, 20, 8, 3, 0);
		int queue = (int)ONE_OF(TCP_NO_QUEUE, TCP_RECV_QUEUE, TCP_SEND_QUEUE, 3, -1);
		switch (rnd(6)) {
		case 0:
			printf(" queue %d", queue);
			outcome(option_set(c->fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue));
			break;
		case 1:
			printf(" which");
			printf(" %d", option_of(c->fd, IPPROTO_TCP, TCP_REPAIR_QUEUE));
			break;
		case 2:
			printf(" window %d", (int)length);
			outcome(getsockopt(c->fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, bytes, &length));
			break;
		case 3:
			printf(" seq");
			outcome(option_of(c->fd, IPPROTO_TCP, TCP_QUEUE_SEQ) < -1000 ? 0 : 0);
			break;
		case 4:
			printf(" peek");
			outcome(recv(c->fd, room, 1000, MSG_PEEK | MSG_DONTWAIT));
			break;
		case 5:
			printf(" set seq");
			if (tcp_state(c->fd) != TCP_CLOSE)
				outcome(option_set(c->fd, IPPROTO_TCP, TCP_QUEUE_SEQ, 1));
			break;
		}
	}
	printf(" off");
	outcome(option_set(c->fd, IPPROTO_TCP, TCP_REPAIR, -1));
}

static void duplicate(void)
{
	struct conn *c = any_socket(30);
	int way = rnd(5);
	if (way == 0) {
		printf("fcntl(%s)", socket_name(c));
		outcome(fcntl(c->fd, F_GETFL));
		outcome(fcntl(c->fd, F_SETFL, (int)ONE_OF(0, O_NONBLOCK, O_APPEND, O_NONBLOCK | O_DSYNC, O_DIRECT)));
		outcome(fcntl(c->fd, F_GETFL));
		outcome(fcntl(c->fd, F_SETFL, 0));
		outcome(fcntl(c->fd, F_GETFD));
		outcome(fcntl(c->fd, F_GETSIG));
		outcome(fcntl(c->fd, (int)ONE_OF(F_GETLEASE, F_GET_SEALS, F_GETPIPE_SZ, 12345, F_GETOWN), 0) > 0);
		return;
	}
	if (way == 1) {
		struct stat s;
		printf("fstat(%s)", socket_name(c));
		outcome(fstat(c->fd, &s));
		printf(" %o %d", s.st_mode, (int)s.st_size);
		return;
	}
	int fd = way == 2   ? dup(c->fd)
		 : way == 3 ? dup2(c->fd, 200 + rnd(10))
			    : fcntl(c->fd, F_DUPFD_CLOEXEC, 100);
	printf("duplicate(%s, %d)", socket_name(c), way);
	outcome(fd < 0 ? -1 : 0);
	outcome(close(c->fd));
	c->fd = fd;
}

static void names(void)
{
	struct conn *c = any_socket(40);
	struct sockaddr_in a = {.sin_family = 99};
	int which = rnd(3);
	socklen_t length = (socklen_t)ONE_OF(0, 1, 2, 3, 15, 16, 17, 100, -1);
	void *at = chance(8) ? NULL : &a;
	printf("%s(%s, %d%s)", which == 0 ? "getpeername" : which == 1 ? "getsockname" : "accept", socket_name(c), (int)length,
	       at ? "" : " null");
	if (which == 2) {
		int was = fcntl(c->fd, F_GETFL);
		fcntl(c->fd, F_SETFL, O_NONBLOCK);
		outcome(accept(c->fd, at, &length));
		int error = errno;
		fcntl(c->fd, F_SETFL, was);
		errno = error;
	} else {
		outcome(which == 0 ? getpeername(c->fd, at, &length) : getsockname(c->fd, at, &length));
	}
	/* Beside EFAULT the length hangs on the release of the kernel. */
	if (at)
		printf(" %d %d", (int)length, a.sin_family);
}

/* Addresses at which there is nothing. */
static void nowhere(void)
{
	struct conn *c = any_socket(20);
	static void *const nowheres[] = {NULL, (void *)8};
	void *at = nowheres[rnd(2)];
	struct iovec part = {room, 10};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	struct sockaddr_in a;
	socklen_t length = 10;
	if (epoll_fd < 0)
		epoll_fd = epoll_create1(0);
	printf("nowhere(%s, %d", socket_name(c), at != NULL);
	int way = rnd(16), other;
	printf(", %d)", way);
	switch (way) {
	case 0:
		outcome(sendmsg(c->fd, at, 0));
		break;
	case 1:
		outcome(recvmsg(c->fd, at, MSG_DONTWAIT));
		break;
	case 2:
		outcome(sendmmsg(c->fd, at, 1, 0));
		break;
	case 3:
		outcome(recvmmsg(c->fd, at, 1, MSG_DONTWAIT, NULL));
		break;
	case 4:
		outcome(recvmmsg(c->fd, (void *)&m, 0, 0, (void *)8));
		break;
	case 5:
		m.msg_control = at;
		m.msg_controllen = 100;
		outcome(recvmsg(c->fd, &m, MSG_DONTWAIT));
		printf(" %zu %#x", m.msg_controllen, (unsigned)m.msg_flags);
		break;
	case 6:
		m.msg_iov = at;
		outcome(recvmsg(c->fd, &m, MSG_DONTWAIT));
		break;
	case 7:
		m.msg_iov = at;
		outcome(sendmsg(c->fd, &m, 0));
		break;
	case 8:
		outcome(poll(at, 1, 0));
		break;
	case 9:
		/* What it would have told is lost (DEVIATIONS.md), so not at this instance. */
		other = epoll_create1(0);
		epoll_ctl(other, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLOUT});
		outcome(epoll_wait(other, at, 5, 0));
		close(other);
		break;
	case 10:
		outcome(epoll_wait(epoll_fd, (void *)room, (int)ONE_OF(0, -1), 0));
		break;
	case 11:
		outcome(epoll_ctl(epoll_fd, (int)ONE_OF(EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, 7), c->fd, at));
		break;
	case 12:
		outcome(getsockname(c->fd, (struct sockaddr *)&a, at));
		break;
	case 13:
		outcome(getpeername(c->fd, at, &length));
		break;
	case 14:
		outcome(connect(c->fd, at, 16));
		break;
	case 15:
		outcome(bind(c->fd, at, 16));
		break;
	}
}

static int far_there(const struct conn *c)
{
	if (c->far >= 0 && !c->far_closed)
		return 1;
	printf("far: nobody");
	return 0;
}

static void far_sends(void)
{
	struct conn *c = any_data();
	int bytes = (int)ONE_OF(1, 1, 10, 100, 1448, 3000, 10000), flags = (int)ONE_OF(0, 0, 0, 0, MSG_OOB);
	if (!far_there(c))
		return;
	if (c->far_sent + bytes > FAR_UNREAD) {
		printf("far: enough");
		return;
	}
	c->far_sent += bytes;
	printf("far send(%s, %d, %s) %s", socket_name(c), bytes, flags ? "OOB" : "0", ask("text %d %d %d", c->far, bytes, flags));
}

static void far_takes(void)
{
	struct conn *c = any_data();
	int bytes = (int)ONE_OF(1, 1000, 1 << 20);
	if (!far_there(c))
		return;
	printf("far take(%s, %d) %s", socket_name(c), bytes, ask("take %d %d", c->far, bytes));
	if (bytes == 1 << 20)
		c->sent = 0;
}

static void far_ends(void)
{
	struct conn *c = any_data();
	int way = rnd(4);
	if (!far_there(c))
		return;
	if (way < 2) {
		printf("far shutdown(%s, %d) %s", socket_name(c), 1 - way, ask("shutdown %d %d", c->far, 1 - way));
	} else {
		char *answer = ask("%s %d", way == 2 ? "close" : "reset", c->far);
		printf("far %s(%s) %s", way == 2 ? "close" : "reset", socket_name(c), answer);
		c->far_closed = strstr(answer, "reset") ? 2 : 1;
	}
}

/* The peer reads nothing until no more can be sent; then it reads all. */
static void stalled(void)
{
	struct conn *c = any_data();
	long r;
	if (!far_there(c) || tcp_state(c->fd) != TCP_ESTABLISHED) {
		printf("stall: no");
		return;
	}
	printf("stall(%s)", socket_name(c));
	ask("take %d %d", c->far, 4 << 20);
	long all = 0;
	/* Until nothing has been in flight for a while that could still make room. */
	for (int quiet = 0; quiet < 3 && all < 40 << 20;) {
		ask("status");
		while ((r = send(c->fd, text, 60000, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
			all += r;
			quiet = 0;
		}
		poll(NULL, 0, 5);
		quiet = queued(c->fd, SIOCOUTQ) == queued(c->fd, SIOCOUTQNSD) ? quiet + 1 : 0;
	}
	outcome(r);
	struct pollfd p = {.fd = c->fd, .events = POLLOUT};
	poll(&p, 1, 0);
	printf(" poll %d", p.revents & POLLOUT);
	outcome(send(c->fd, text, 1, MSG_DONTWAIT));
	for (int look = 0; look < 20000 && all > 0; look++) {
		long got = 0;
		sscanf(ask("take %d %d", c->far, 4 << 20), " took %ld", &got);
		all -= got;
		if (!got)
			poll(NULL, 0, 1);
	}
	printf(" left %ld ", all);
	/* How much it was hangs on time, and counts for the keys of stamps. */
	renew(c, 0);
}

#endif
