/* splice between a socket and a pipe, and others at the same pipe or socket: which of both is looked at first, who gets which
 * bytes, and how a sleep for the pipe ends.
 *
 *   splice_pipes HOST PORT     the peer program listens there
 */
#include "show.h"

#include "asleep.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/time.h>

enum { BLOCK = 4096, ROUNDS = 60, THREADS = 2 };

static const char *host;
static int port;

static void new_pipe(int ends[2])
{
	if (pipe(ends))
		err(2, "pipe");
}

static void close_both(int ends[2])
{
	close(ends[0]);
	close(ends[1]);
}

static void fill(int fd)
{
	static const char page[4096];
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	while (write(fd, page, sizeof page) > 0)
		continue;
	fcntl(fd, F_SETFL, flags);
}

static void holds(int fd, int bytes)
{
	for (int n = 0; n < bytes; poll(NULL, 0, 1))
		if (ioctl(fd, FIONREAD, &n))
			err(2, "FIONREAD");
}

static volatile sig_atomic_t signalled;

static void note(int sig)
{
	signalled = sig;
}

static const struct {
	const char *name, *command;
	short comes;
} sockets[] = {
	{"empty", "steps await", 0},
	{"with data", "steps say=hello await", POLLIN},
	{"at its end", "steps finish await", POLLRDHUP},
	{"reset", "reset", POLLHUP},
};

static void look(const char *pipe_is, int nonblock, int readers)
{
	for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
		for (int by_sendfile = 0; by_sendfile < 2; by_sendfile++) {
			int p[2], fd = peer(host, port, sockets[i].command);
			if (sockets[i].comes)
				wait_for(fd, sockets[i].comes);
			new_pipe(p);
			if (readers)
				fill(p[1]);
			else
				close(p[0]);
			if (nonblock)
				fcntl(p[1], F_SETFL, O_NONBLOCK);
			signalled = 0;
			printf("pipe %s, socket %s\n", pipe_is, sockets[i].name);
			if (by_sendfile)
				SHOW(sendfile(p[1], fd, NULL, 100));
			else
				SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
			printf("signal %d, SO_ERROR %d\n", (int)signalled, option_of(fd, SOL_SOCKET, SO_ERROR));
			close(fd);
			close(p[1]);
			if (readers)
				close(p[0]);
		}
	}
}

/* Linux's wait_for_space() comes before the socket. */
static void pipe_first(void)
{
	signal(SIGPIPE, note);
	look("without readers", 0, 0);
	look("full", 1, 1);
}

/* What a pipe that is half full has no room for stays in the socket. */
static void little_room(void)
{
	static char page[BLOCK];
	int p[2], left = 0, fd = peer(host, port, "send 20000");
	holds(fd, 20000);
	new_pipe(p);
	fill(p[1]);
	for (int i = 0; i < 2; i++)
		if (read(p[0], page, BLOCK) != BLOCK)
			err(2, "read");
	SHOW(splice(fd, NULL, p[1], NULL, 20000, 0) > 0);
	SHOW(splice(fd, NULL, p[1], NULL, 20000, SPLICE_F_NONBLOCK));
	ioctl(fd, FIONREAD, &left);
	SHOW(left > 0);
	close(fd);
	close_both(p);
}

/* Linux's tcp_splice_read() knows no TCP_REPAIR. */
static void repaired(void)
{
	static char data[3000];
	for (int queue = 0; queue < 3; queue++) {
		for (int said = 0; said < 2; said++) {
			int p[2], n = 0, fd = peer(host, port, said ? "steps say=hello await" : "steps await");
			if (said)
				holds(fd, 5);
			new_pipe(p);
			fcntl(fd, F_SETFL, O_NONBLOCK);
			SHOW(option_set(fd, IPPROTO_TCP, TCP_REPAIR, 1));
			option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
			SHOW(send(fd, data, sizeof data, 0));
			option_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
			SHOW(splice(fd, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
			ioctl(p[0], FIONREAD, &n);
			printf("%d in the pipe\n", n);
			close(fd);
			close_both(p);
		}
	}
}

static pthread_barrier_t together;
static int from_pipe[2], echoing[THREADS], into[THREADS][2];
static void (*move)(int self, char *block);

static void pipe_to_socket(int self, char *block)
{
	if (splice(from_pipe[0], NULL, echoing[self], NULL, BLOCK, 0) != BLOCK)
		err(2, "splice");
	receive_exactly(echoing[self], block, BLOCK);
}

static void socket_to_pipe(int self, char *block)
{
	if (splice(echoing[0], NULL, into[self][1], NULL, BLOCK, 0) != BLOCK ||
	    read(into[self][0], block, BLOCK) != BLOCK)
		err(2, "splice");
}

static void splice_or_receive(int self, char *block)
{
	if (self)
		receive_exactly(echoing[0], block, BLOCK);
	else
		socket_to_pipe(self, block);
}

static int seen[THREADS][256];

static void *taker(void *self_)
{
	static char blocks[THREADS][BLOCK];
	int self = *(int *)self_;
	for (int round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&together);
		move(self, blocks[self]);
		for (int i = 0; i < BLOCK; i++)
			seen[self][(unsigned char)blocks[self][i]]++;
		pthread_barrier_wait(&together);
	}
	return NULL;
}

/* Two threads at one pipe, or one socket: each block goes once. */
static void shared(const char *what, void (*how)(int, char *), int by_pipe)
{
	static char blocks[THREADS][BLOCK];
	pthread_t threads[THREADS];
	int numbers[THREADS], odd = 0;
	move = how;
	memset(seen, 0, sizeof seen);
	pthread_barrier_init(&together, NULL, THREADS + 1);
	new_pipe(from_pipe);
	for (int i = 0; i < THREADS; i++) {
		echoing[i] = peer(host, port, "echo");
		new_pipe(into[i]);
		numbers[i] = i;
		pthread_create(&threads[i], NULL, taker, &numbers[i]);
	}
	for (int round = 0; round < ROUNDS; round++) {
		int to = by_pipe ? from_pipe[1] : echoing[0];
		for (int i = 0; i < THREADS; i++)
			memset(blocks[i], round * THREADS + i, BLOCK);
		if (write(to, blocks, sizeof blocks) != sizeof blocks)
			err(2, "write");
		if (!by_pipe)
			holds(echoing[0], sizeof blocks);
		pthread_barrier_wait(&together);
		pthread_barrier_wait(&together);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < ROUNDS * THREADS; i++)
		odd += seen[0][i] + seen[1][i] != BLOCK;
	printf("%s: %d blocks did not come once\n", what, odd);
	for (int i = 0; i < THREADS; i++) {
		close(echoing[i]);
		close_both(into[i]);
	}
	close_both(from_pipe);
}

static int ends[2], connection, to_pipe;

static void wait_in_splice(void)
{
	if (to_pipe)
		splice(connection, NULL, ends[1], NULL, 100, 0);
	else
		splice(ends[0], NULL, connection, NULL, 100, 0);
}

static void prepare(void)
{
	connection = peer(host, port, "steps say=hello await");
	holds(connection, 5);
	new_pipe(ends);
	if (to_pipe)
		fill(ends[1]);
}

static sigjmp_buf back;

static void jump(int sig)
{
	siglongjmp(back, sig);
}

static int descriptors(void)
{
	DIR *all = opendir("/proc/self/fd");
	int n = 0;
	while (readdir(all))
		n++;
	closedir(all);
	return n;
}

/* Handlers that leave the sleep by siglongjmp. */
static void jumped(void)
{
	struct sigaction action = {.sa_handler = jump};
	int before;
	prepare();
	before = descriptors();
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < 5; i++) {
		if (!sigsetjmp(back, 1)) {
			struct itimerval soon = {.it_value = {.tv_usec = 20000}};
			setitimer(ITIMER_REAL, &soon, NULL);
			wait_in_splice();
			puts("came back");
		}
	}
	printf("%d descriptors more\n", descriptors() - before);
	close(connection);
	close_both(ends);
}

static volatile pid_t sleeper;

static void *cancelled(void *unused)
{
	sleeper = gettid();
	wait_in_splice();
	puts("came back");
	return unused;
}

static void *interrupted(void *unused)
{
	sleeper = gettid();
	if (to_pipe)
		SHOW(splice(connection, NULL, ends[1], NULL, 100, 0));
	else
		SHOW(splice(ends[0], NULL, connection, NULL, 100, 0));
	return unused;
}

static pthread_t asleep_in(void *(*body)(void *), void *with)
{
	pthread_t thread;
	sleeper = 0;
	if (pthread_create(&thread, NULL, body, with))
		errx(2, "no thread");
	while (!sleeper)
		usleep(1000);
	asleep(sleeper);
	return thread;
}

static void ended(void)
{
	void *result;
	prepare();
	pthread_t thread = asleep_in(cancelled, NULL);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	SHOW(result == PTHREAD_CANCELED);
	for (int restart = 0; restart < 2; restart++) {
		struct sigaction action = {.sa_handler = note, .sa_flags = restart ? SA_RESTART : 0};
		char byte[65536];
		sigaction(SIGUSR1, &action, NULL);
		thread = asleep_in(interrupted, NULL);
		pthread_kill(thread, SIGUSR1);
		if (restart) {
			asleep(sleeper);
			if (to_pipe ? read(ends[0], byte, sizeof byte) < 0 : write(ends[1], "abc", 3) != 3)
				err(2, "the pipe");
		}
		pthread_join(thread, NULL);
	}
	close(connection);
	close_both(ends);
}

static int file;
static long moved;

static void *sends_file(void *from_socket)
{
	sleeper = gettid();
	moved = from_socket ? sendfile(ends[1], connection, NULL, 100) : sendfile(connection, file, NULL, 1000);
	pthread_testcancel();
	moved = -1;
	return NULL;
}

/* sendfile is no cancellation point of libc's: the thread has the result, and ends behind it. */
static void not_in_sendfile(void)
{
	static const char data[65536];
	file = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	if (write(file, data, 2000) != 2000)
		err(2, "write");
	for (int from_socket = 0; from_socket < 2; from_socket++) {
		void *result;
		connection = peer(host, port, from_socket ? "late 100" : "gated");
		new_pipe(ends);
		lseek(file, 0, SEEK_SET);
		/* Until nothing that is acknowledged makes room. */
		for (int full = 0; !from_socket && full < 50; poll(NULL, 0, 1))
			full = send(connection, data, sizeof data, MSG_DONTWAIT) > 0 ? 0 : full + 1;
		moved = 0;
		pthread_t thread = asleep_in(sends_file, from_socket ? &file : NULL);
		pthread_cancel(thread);
		asleep(sleeper);
		close(peer(host, port, "open"));
		pthread_join(thread, &result);
		SHOW(result == PTHREAD_CANCELED);
		SHOW(moved);
		close(connection);
		close_both(ends);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: splice_pipes HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	pipe_first();
	little_room();
	repaired();
	shared("pipe to sockets", pipe_to_socket, 1);
	shared("socket to pipes", socket_to_pipe, 0);
	shared("socket to a pipe and a buffer", splice_or_receive, 0);
	for (to_pipe = 0; to_pipe < 2; to_pipe++) {
		jumped();
		ended();
	}
	not_in_sendfile();
	puts("done");
	return 0;
}
