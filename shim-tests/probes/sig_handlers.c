/* Handlers that use the sockets that they interrupt, that leave by siglongjmp, and masks that let a signal through.
 *
 *   sig_handlers HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/time.h>

static const char *host;
static int port;
static volatile sig_atomic_t ran;
static volatile int in_handler_fd = -1;
static sigjmp_buf out;

static void count(int sig)
{
	(void)sig;
	ran++;
}

static void say(int sig)
{
	(void)sig;
	ran++;
	if (write(in_handler_fd, "from the handler", 16) != 16)
		abort();
}

static void leave(int sig)
{
	(void)sig;
	siglongjmp(out, 1);
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
	sigaction(sig, &act, NULL);
	ran = 0;
}

static void soon(void)
{
	struct itimerval t = {.it_value.tv_usec = 30000};
	setitimer(ITIMER_REAL, &t, NULL);
}

static void repeatedly(int usec)
{
	struct itimerval t = {.it_value.tv_usec = usec, .it_interval.tv_usec = usec};
	setitimer(ITIMER_REAL, &t, NULL);
}

/* The interrupted recv goes on and gets what its own handler made the peer send. */
static void handler_sends(void)
{
	char buffer[16];
	int fd = peer(host, port, "echo");
	puts("# a handler sends on the socket whose recv it interrupted");
	in_handler_fd = fd;
	handle(SIGALRM, say, SA_RESTART);
	soon();
	SHOW(recv(fd, buffer, 16, MSG_WAITALL));
	printf("%.16s, ran %d\n", buffer, ran);
	close(fd);
}

static void jump_out(void)
{
	char buffer[16];
	int fd = peer(host, port, "echo"), ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	puts("# a handler leaves by siglongjmp");
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	handle(SIGALRM, leave, 0);
	if (!sigsetjmp(out, 1)) {
		soon();
		recv(fd, buffer, 1, 0);
	}
	puts("out of recv");
	if (!sigsetjmp(out, 1)) {
		soon();
		poll(&p, 1, -1);
	}
	puts("out of poll");
	if (!sigsetjmp(out, 1)) {
		soon();
		epoll_wait(ep, &e, 1, -1);
	}
	puts("out of epoll_wait");
	send_text(fd, "still there");
	SHOW(recv(fd, buffer, 11, MSG_WAITALL));
	close(ep);
	close(fd);
}

static void masks(void)
{
	int fd = peer(host, port, "echo"), ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	sigset_t blocked, none, now;
	fd_set in;
	puts("# masks");
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	handle(SIGALRM, count, SA_RESTART);
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGALRM);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	raise(SIGALRM);
	SHOW(poll(&p, 1, 0));
	printf("ran %d\n", ran);
	SHOW(ppoll(&p, 1, NULL, &none));
	printf("ran %d\n", ran);
	soon();
	SHOW(ppoll(&p, 1, NULL, &none));
	printf("ran %d\n", ran);
	soon();
	FD_ZERO(&in);
	FD_SET(fd, &in);
	SHOW(pselect(fd + 1, &in, NULL, NULL, NULL, &none));
	printf("ran %d\n", ran);
	soon();
	SHOW(epoll_pwait(ep, &e, 1, -1, &none));
	printf("ran %d\n", ran);
	raise(SIGALRM);
	send_text(fd, "x");
	SHOW(poll(&p, 1, 20000));
	SHOW(ppoll(&p, 1, NULL, &none));
	printf("ready comes before the signal; ran %d\n", ran > 3);
	sigprocmask(SIG_BLOCK, NULL, &now);
	printf("still blocked: %d\n", sigismember(&now, SIGALRM));
	handle(SIGALRM, SIG_IGN, 0);
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	close(ep);
	close(fd);
}

/* A storm of signals while a lot of data goes round. */
static void storm(void)
{
	enum { N = 4 << 20, CHUNK = 1 << 16 };
	static char sent[CHUNK], got[CHUNK];
	int fd = peer(host, port, "echo"), wrong = 0;
	long total = 0;
	puts("# a storm of signals");
	handle(SIGALRM, count, SA_RESTART);
	repeatedly(200);
	for (int i = 0; total < N; i++) {
		memset(sent, i, CHUNK);
		ssize_t done = 0, n;
		while (done < CHUNK) {
			n = send(fd, sent + done, (size_t)(CHUNK - done), 0);
			if (n < 0)
				err(2, "send");
			done += n;
		}
		for (done = 0; done < CHUNK; done += n) {
			n = recv(fd, got + done, (size_t)(CHUNK - done), 0);
			if (n <= 0)
				err(2, "recv");
		}
		wrong += memcmp(sent, got, CHUNK) != 0;
		total += CHUNK;
	}
	repeatedly(0);
	printf("%ld bytes, %d wrong, handler ran: %d\n", total, wrong, ran > 0);
	close(fd);
}

static void ask(int sig)
{
	int error;
	socklen_t len = sizeof error;
	(void)sig;
	ran++;
	if (getsockopt(in_handler_fd, SOL_SOCKET, SO_ERROR, &error, &len))
		abort();
}

/* Whatever a send looks up before it begins, a handler may ask about the same socket. */
static void asked_meanwhile(void)
{
	enum { ROUNDS = 5000 };
	char byte = 'x', control[3 * CMSG_SPACE(sizeof(int))] = {0};
	int fd = peer(host, port, "discard"), file = memfd_create("a byte", 0), sent = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	puts("# a handler asks about a socket that is being sent to");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SO_TIMESTAMPING;
		c->cmsg_len = CMSG_LEN(sizeof(int));
	}
	SHOW(write(file, &byte, 1));
	in_handler_fd = fd;
	handle(SIGALRM, ask, SA_RESTART);
	repeatedly(50);
	for (int i = 0; i < ROUNDS; i++) {
		off_t start = 0;
		sent += sendmsg(fd, &msg, 0) == 1;
		sent += sendfile(fd, file, &start, 1) == 1;
	}
	repeatedly(0);
	printf("%d bytes, handler ran: %d\n", sent, ran > 0);
	close(file);
	close(fd);
}

struct waiter {
	int fd;
	pid_t tid;
	pthread_barrier_t about_to;
};

static void *wait_for_ever(void *arg)
{
	struct waiter *w = arg;
	char byte;
	w->tid = gettid();
	pthread_barrier_wait(&w->about_to);
	recv(w->fd, &byte, 1, 0);
	return NULL;
}

static void cancelled(void)
{
	pthread_t thread;
	void *result;
	int fd = peer(host, port, "echo");
	puts("# a cancelled thread");
	struct waiter w = {.fd = fd};
	pthread_barrier_init(&w.about_to, NULL, 2);
	pthread_create(&thread, NULL, wait_for_ever, &w);
	pthread_barrier_wait(&w.about_to);
	asleep(w.tid);
	SHOW(pthread_cancel(thread));
	SHOW(pthread_join(thread, &result));
	printf("cancelled: %d\n", result == PTHREAD_CANCELED);
	char byte;
	send_text(fd, "x");
	SHOW(recv(fd, &byte, 1, 0));
	close(fd);
}

static void *page;

static void repair(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	ran++;
	if (info->si_addr < page || mprotect(page, 4096, PROT_READ | PROT_WRITE))
		_exit(3);
}

/* The program's own fault handler works, and bad pointers are EFAULT all the same. */
static void faults(void)
{
	struct sigaction act = {.sa_sigaction = repair, .sa_flags = SA_SIGINFO};
	int fd = peer(host, port, "echo");
	puts("# faults");
	page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &act, NULL);
	ran = 0;
	SHOW(send(fd, page, 1, 0));
	printf("ran %d\n", ran);
	*(volatile char *)page = 'y';
	printf("ran %d\n", ran);
	SHOW(send(fd, page, 1, 0));
	mprotect(page, 4096, PROT_READ);
	SHOW(recv(fd, page, 1, 0));
	printf("ran %d\n", ran);
	char byte = 0;
	SHOW(recv(fd, &byte, 1, 0));
	printf("%c\n", byte);
	signal(SIGSEGV, SIG_DFL);
	close(fd);
}

static void broken_pipe(void)
{
	int fd = peer(host, port, "reset");
	struct pollfd p = {.fd = fd, .events = 0};
	puts("# SIGPIPE");
	poll(&p, 1, 20000);
	handle(SIGPIPE, count, 0);
	SHOW(send(fd, "x", 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	printf("ran %d\n", ran);
	SHOW(send(fd, "x", 1, 0));
	printf("ran %d\n", ran);
	SHOW(write(fd, "x", 1));
	printf("ran %d\n", ran);
	signal(SIGPIPE, SIG_IGN);
	SHOW(write(fd, "x", 1));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: sig_handlers HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	handler_sends();
	jump_out();
	masks();
	storm();
	asked_meanwhile();
	cancelled();
	faults();
	broken_pipe();
	puts("done");
	return 0;
}
