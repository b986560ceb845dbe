/* splice and sendfile to a socket, and from it: arguments, sources, and sizes.
 *
 *   splices HOST PORT     the peer program listens there
 */
#include "asleep.h"
#include "show.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>

enum { BUFFER = 1 << 20 };

static const char *host;
static int port;
static char data[BUFFER];

static void big_pipe(int ends[2])
{
	if (pipe(ends) || fcntl(ends[0], F_SETPIPE_SZ, BUFFER) < 0)
		err(2, "pipe");
}

static int left_in(int pipe)
{
	int n = 0;
	ioctl(pipe, FIONREAD, &n);
	return n;
}

static int roomy(const char *command)
{
	int fd = peer(host, port, command), size = 2 * BUFFER;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	return fd;
}

static void arguments(void)
{
	int p[2], fd = roomy("discard"), other = tcp_socket();
	loff_t off = 0;
	big_pipe(p);
	if (write(p[1], data, 2000) != 2000)
		err(2, "write");
	SHOW(splice(p[0], NULL, fd, NULL, 50, 0x10));
	SHOW(splice(p[0], NULL, fd, NULL, 50, SPLICE_F_GIFT | SPLICE_F_MOVE));
	SHOW(splice(p[0], NULL, fd, &off, 3, 0));
	SHOW(splice(p[0], &off, fd, NULL, 3, 0));
	SHOW(splice(fd, &off, p[1], NULL, 3, 0));
	SHOW(splice(-1, NULL, fd, NULL, 3, 0));
	SHOW(splice(fd, NULL, -1, NULL, 3, 0));
	SHOW(splice(fd, NULL, other, NULL, 3, 0));
	SHOW(splice(fd, NULL, p[0], NULL, 3, 0));
	SHOW(splice(p[1], NULL, fd, NULL, 3, 0));
	SHOW(splice(-1, NULL, fd, NULL, 0, 0));
	SHOW(splice(p[0], NULL, fd, NULL, (size_t)SSIZE_MAX + 1, 0));
	SHOW(left_in(p[0]));
	SHOW(splice(p[0], NULL, fd, NULL, SSIZE_MAX, 0));
	SHOW(splice(p[0], NULL, fd, NULL, 5, SPLICE_F_NONBLOCK));
	close(fd);
	close(other);
	close(p[0]);
	close(p[1]);
}

static void sources(void)
{
	int fd = roomy("discard"), p[2], unix_pair[2];
	static const char *paths[] = {"/proc/self/status", "/proc/self/maps", "/proc/cpuinfo", "/proc/net/dev",
				      "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/zero", "/dev/null",
				      "/tmp"};
	off_t off = 0;
	if (pipe(p) || write(p[1], data, 10) != 10 || socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair) ||
	    write(unix_pair[1], data, 10) != 10)
		err(2, "sources");
	SHOW(sendfile(fd, p[0], NULL, 5));
	SHOW(sendfile(fd, p[0], &off, 5));
	SHOW(left_in(p[0]));
	SHOW(sendfile(fd, unix_pair[0], NULL, 5));
	SHOW(sendfile(fd, eventfd(5, 0), NULL, 8));
	SHOW(sendfile(fd, fd, NULL, 5));
	SHOW(sendfile(fd, fd, &off, 5));
	SHOW(sendfile(fd, -1, NULL, 0));
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		int file = open(paths[i], O_RDONLY);
		printf("%s\n", paths[i]);
		off = 0;
		SHOW(sendfile(fd, file, NULL, 0));
		SHOW(sendfile(fd, file, NULL, 5));
		SHOW(sendfile(fd, file, &off, 5));
		SHOW(off);
		close(file);
	}
	close(fd);
}

static int temporary(size_t size)
{
	char path[] = "/tmp/splices-XXXXXX";
	int file = mkstemp(path);
	unlink(path);
	if (file < 0 || write(file, data, size) != (ssize_t)size)
		err(2, "a file");
	lseek(file, 0, SEEK_SET);
	return file;
}

static void offsets(void)
{
	int fd = roomy("discard"), file = temporary(1000), unreadable = open("/dev/null", O_WRONLY);
	static const struct {
		off_t off;
		size_t count;
	} asked[] = {{INT64_MAX, 10},   {INT64_MAX - 15, 100}, {INT64_MAX, 0}, {0, SIZE_MAX},
		     {0, (size_t)1 << 63}, {0, SSIZE_MAX},        {-5, 0},        {2000, 10},
		     {990, 100}};
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		off_t off = asked[i].off;
		SHOW(sendfile(fd, file, &off, asked[i].count));
		SHOW(off == asked[i].off);
	}
	SHOW(sendfile(fd, unreadable, NULL, 5));
	SHOW(sendfile(fd, file, NULL, 300));
	SHOW(lseek(file, 0, SEEK_CUR));
	/* Opened to be written, for neither (mode 3), and for nothing but its name. */
	static const int modes[] = {O_WRONLY, O_RDWR, O_ACCMODE, O_PATH, O_RDONLY};
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		int again = open(path, modes[i]);
		off_t off = 1;
		printf("mode %#x, %d\n", modes[i], again >= 0);
		SHOW(sendfile(fd, again, NULL, 5));
		SHOW(sendfile(fd, again, &off, 5));
		SHOW(sendfile(fd, again, &off, 0));
		close(again);
	}
	SHOW(fcntl(fd, F_SETFL, O_APPEND));
	SHOW(sendfile(fd, file, NULL, 5));
	SHOW(fcntl(fd, F_SETFL, 0));
	SHOW(sendfile(fd, file, NULL, 5));
	close(fd);
}

/* More than a piece in one call, both ways. */
static void sizes(void)
{
	int p[2], fd = roomy("discard"), from = peer(host, port, "send 4000000"), n = 0;
	big_pipe(p);
	if (write(p[1], data, 200000) != 200000)
		err(2, "write");
	SHOW(splice(p[0], NULL, fd, NULL, 200000, 0));
	/* A window that has grown. */
	if (recv(from, data, BUFFER, MSG_WAITALL) != BUFFER)
		err(2, "recv");
	while (n < 200000 && !ioctl(from, FIONREAD, &n))
		poll(NULL, 0, 1);
	SHOW(splice(from, NULL, p[1], NULL, 300000, 0) > 65536);
	close(from);
	close(fd);
	close(p[0]);
	close(p[1]);
}

static volatile sig_atomic_t signalled;

static void note(int sig)
{
	signalled = sig;
}

/* Has the gated peer read, once the signal has come. */
static void *open_then(void *unused)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (!signalled)
		poll(NULL, 0, 1);
	close(peer(host, port, "open"));
	return unused;
}

/* A signal with SA_RESTART while the socket is full: made again. */
static void restarted(void)
{
	int p[2], fd = peer(host, port, "gated");
	pthread_t opener;
	struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
	struct itimerval soon = {.it_value = {.tv_usec = 200000}};
	big_pipe(p);
	sigaction(SIGALRM, &action, NULL);
	while (send(fd, data, 65536, MSG_DONTWAIT) > 0)
		continue;
	if (write(p[1], data, 1000) != 1000)
		err(2, "write");
	if (pthread_create(&opener, NULL, open_then, NULL))
		errx(2, "no thread");
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(splice(p[0], NULL, fd, NULL, 1000, 0));
	SHOW(left_in(p[0]));
	pthread_join(opener, NULL);
	close(fd);
}

/* SO_SNDTIMEO is each piece's, and begins anew with what was taken. */
static void slow_reader(void)
{
	int fd = peer(host, port, "hold"), file = temporary(BUFFER), size = 20000;
	struct timeval limit = {.tv_usec = 400000};
	struct timeval begin, end;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	gettimeofday(&begin, NULL);
	SHOW(sendfile(fd, file, NULL, BUFFER) > 0);
	gettimeofday(&end, NULL);
	timersub(&end, &begin, &end);
	SHOW(end.tv_sec * 1000 + end.tv_usec / 1000 >= 400);
	SHOW(sendfile(fd, file, NULL, BUFFER));
	close(fd);
}

/* Waits until the socket holds so many bytes. */
static void holds(int fd, int bytes)
{
	for (int n = 0; n < bytes; poll(NULL, 0, 1))
		if (ioctl(fd, FIONREAD, &n))
			err(2, "FIONREAD");
}

/* What the socket has, and what comes behind that. */
static void from_socket(void)
{
	char name[] = "/tmp/splices-fifo-XXXXXX";
	int p[2], fd = peer(host, port, "steps say=hello await reset");
	big_pipe(p);
	holds(fd, 5);
	send_text(fd, ".");
	wait_for(fd, 0);
	/* The error is not this call's. */
	SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
	SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
	SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
	close(fd);
	fd = peer(host, port, "steps say=hello await");
	option_set(fd, SOL_SOCKET, SO_RCVLOWAT, 100);
	holds(fd, 5);
	SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
	close(fd);
	for (int inline_ = 0; inline_ < 2; inline_++) {
		fd = peer(host, port, "steps say=abc urgent=d say=efg await");
		option_set(fd, SOL_SOCKET, SO_OOBINLINE, inline_);
		wait_for(fd, POLLPRI);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		while (recv(fd, data, 7, MSG_PEEK | MSG_DONTWAIT) < 3)
			poll(NULL, 0, 1);
		SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
		SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
		SHOW(recv(fd, data, 1, MSG_OOB) == 1);
		close(fd);
	}
	/* Pipes that the kernel has spliced into, and such with a name. */
	int file = temporary(5000);
	fd = peer(host, port, "steps say=hello say=world await");
	holds(fd, 10);
	SHOW(splice(file, NULL, p[1], NULL, 1000, 0));
	SHOW(splice(fd, NULL, p[1], NULL, 5, SPLICE_F_NONBLOCK));
	close(mkstemp(name));
	unlink(name);
	if (mkfifo(name, 0600))
		err(2, "mkfifo");
	int fifo = open(name, O_RDWR);
	unlink(name);
	SHOW(splice(fd, NULL, fifo, NULL, 5, SPLICE_F_NONBLOCK));
	SHOW(read(fifo, data, 100));
	close(fd);
	/* The end behind an urgent byte. */
	static const char *const ends[] = {"steps urgent=d say=efg await reset", "steps urgent=d say=efg await finish await"};
	for (int way = 0; way < 4; way++) {
		fd = peer(host, port, ends[way / 2]);
		wait_for(fd, POLLPRI);
		send_text(fd, ".");
		wait_for(fd, POLLRDHUP);
		if (way % 2)
			fcntl(fd, F_SETFL, O_NONBLOCK);
		SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
		SHOW(splice(fd, NULL, p[1], NULL, 100, 0));
		close(fd);
	}
	/* SO_PEEK_OFF does not concern it. */
	int q[2];
	fd = peer(host, port, "steps say=abcdefghij await");
	holds(fd, 10);
	option_set(fd, SOL_SOCKET, SO_PEEK_OFF, 5);
	big_pipe(q);
	SHOW(splice(fd, NULL, q[1], NULL, 4, 0));
	printf("%.*s, %d\n", (int)read(q[0], data, 10), data, option_of(fd, SOL_SOCKET, SO_PEEK_OFF));
	close(q[0]);
	close(q[1]);
	close(fd);
	/* sendfile from a socket is a splice, too. */
	fd = peer(host, port, "steps say=hello finish await");
	wait_for(fd, POLLRDHUP);
	off_t at = 0;
	SHOW(sendfile(p[1], fd, &at, 3));
	SHOW(sendfile(p[1], fd, NULL, 3));
	SHOW(sendfile(p[1], fd, NULL, 100));
	SHOW(sendfile(p[1], fd, NULL, 100));
	close(fd);
}

static struct {
	atomic_int tid;
	int from, to;
	long result;
} asleep_in_splice;

static void *splices(void *unused)
{
	asleep_in_splice.tid = gettid();
	asleep_in_splice.result = splice(asleep_in_splice.from, NULL, asleep_in_splice.to, NULL, 100, 0);
	return unused;
}

/* An urgent byte ends the sleep of a splice, which takes nothing of it. */
static void urgent(void)
{
	static const char *const comes[] = {"steps gate urgent=d await", "steps gate say=abc urgent=d await"};
	for (int way = 0; way < 4; way++) {
		int p[2], fd = peer(host, port, comes[way / 2]);
		pthread_t thread;
		big_pipe(p);
		option_set(fd, SOL_SOCKET, SO_OOBINLINE, way % 2);
		asleep_in_splice.tid = 0;
		asleep_in_splice.from = fd;
		asleep_in_splice.to = p[1];
		if (pthread_create(&thread, NULL, splices, NULL))
			errx(2, "no thread");
		while (!asleep_in_splice.tid)
			poll(NULL, 0, 1);
		asleep(asleep_in_splice.tid);
		close(peer(host, port, "open"));
		pthread_join(thread, NULL);
		printf("%s: %ld\n", comes[way / 2], asleep_in_splice.result);
		fflush(stdout);
		wait_for(fd, POLLPRI);
		SHOW(recv(fd, data, 1, way % 2 ? 0 : MSG_OOB));
		close(fd);
		close(p[0]);
		close(p[1]);
	}
}

/* A file that is shorter than was asked for: nothing waits for more of it. */
static void short_files(void)
{
	static const char *paths[] = {NULL, "/proc/version", "/etc/hostname"};
	for (int i = 0; i < 3; i++) {
		int unsent = 0, fd = peer(host, port, "discard");
		int file = paths[i] ? open(paths[i], O_RDONLY) : memfd_create("file", 0);
		if (!paths[i] && (write(file, data, 600) != 600 || lseek(file, 0, SEEK_SET)))
			err(2, "write");
		long n = sendfile(fd, file, NULL, 5000);
		ioctl(fd, SIOCOUTQNSD, &unsent);
		printf("%s: %s, %d unsent\n", paths[i] ? paths[i] : "memory", n > 0 ? "sent" : "not sent", unsent);
		close(file);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: splices HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	arguments();
	sources();
	offsets();
	sizes();
	restarted();
	slow_reader();
	from_socket();
	urgent();
	short_files();
	puts("done");
	return 0;
}
