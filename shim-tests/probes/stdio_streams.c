/* stdio streams on sockets, and the calls that end many descriptors at once.
 *
 *   stdio_streams HOST PORT     the peer program listens there
 */
#include "show.h"

#include <fcntl.h>
#include <sys/stat.h>

static const char *host;
static int port;

static void streams(void)
{
	char line[64];
	int fd = peer(host, port, "echo");
	puts("# streams");
	FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
	SHOW(in != NULL && out != NULL);
	SHOW(fileno(in) == fd);
	SHOW(fileno(out) == fd + 1);
	SHOW(fprintf(out, "%s %d\n", "line", 1));
	SHOW(fputs("line 2\nthe rest", out));
	SHOW(fflush(out));
	printf("%s", fgets(line, sizeof line, in));
	printf("%s", fgets(line, sizeof line, in));
	SHOW(ftell(in));
	SHOW(fseek(out, 0, SEEK_SET));
	SHOW(shutdown(fileno(out), SHUT_WR));
	printf("%s\n", fgets(line, sizeof line, in));
	SHOW(feof(in));
	SHOW(fclose(out));
	SHOW(fcntl(fd + 1, F_GETFD));
	SHOW(fclose(in));
	SHOW(fcntl(fd, F_GETFD));
}

static void printed(void)
{
	char line[160];
	int fd = peer(host, port, "echo");
	puts("# dprintf");
	int n = (int)SHOW(dprintf(fd, "%d %s %g %c %ld %g %d %d %d %g\n", 1, "two", 3.5, '4', 5L, 6.25, 7, 8, 9, 10.125));
	receive_exactly(fd, line, (size_t)n);
	printf("%.*s", n, line);
	SHOW(dprintf(fd, "plain\n"));
	receive_exactly(fd, line, 6);
	printf("%.6s", line);
	SHOW(dprintf(-1, "nowhere"));
	fflush(stdout);
	SHOW(dprintf(1, "%s %g\n", "elsewhere", 0.5));
	close(fd);
}

static void unflushed(void)
{
	char line[64];
	int fd = peer(host, port, "echo"), other = dup(fd);
	puts("# closing flushes");
	FILE *both = fdopen(fd, "r+");
	SHOW(fputs("never flushed\n", both));
	SHOW(fclose(both));
	SHOW(recv(other, line, 14, MSG_WAITALL));
	printf("%.14s", line);
	close(other);
}

static void reused(void)
{
	struct stat st;
	char byte;
	int fd = peer(host, port, "echo");
	puts("# numbers are used again");
	FILE *stream = fdopen(fd, "r");
	fclose(stream);
	int file = open("/dev/null", O_RDWR);
	SHOW(file == fd);
	SHOW(write(file, "x", 1));
	SHOW(fstat(file, &st));
	printf("character device: %d\n", S_ISCHR(st.st_mode));
	int next = peer(host, port, "echo");
	SHOW(dup2(file, next) == next);
	SHOW(write(next, "x", 1));
	SHOW(read(next, &byte, 1));
	close(next);
	close(file);
}

static void ranges(void)
{
	int fds[4], at;
	char byte;
	puts("# ranges");
	for (int i = 0; i < 4; i++)
		fds[i] = peer(host, port, "echo");
	int listening = listener(4, &at);
	SHOW(close_range((unsigned)fds[1], (unsigned)fds[2], 0));
	for (int i = 0; i < 4; i++)
		printf("%d: %s\n", i, fcntl(fds[i], F_GETFD) < 0 ? "closed" : "open");
	send_text(fds[3], "x");
	SHOW(recv(fds[3], &byte, 1, 0));
	SHOW(close_range((unsigned)fds[0], ~0u, 8));
	SHOW(close_range(9, 8, 0));
	SHOW(close_range((unsigned)fds[3], (unsigned)fds[3], CLOSE_RANGE_CLOEXEC));
	SHOW(fcntl(fds[3], F_GETFD));
	closefrom(fds[0]);
	SHOW(fcntl(fds[3], F_GETFD));
	SHOW(fcntl(listening, F_GETFD));
	/* What is the library's own survives that. */
	int fd = peer(host, port, "echo");
	SHOW(fd == fds[0]);
	send_text(fd, "y");
	SHOW(recv(fd, &byte, 1, 0));
	for (int i = 3; i < 1024; i++)
		if (i != fd)
			close(i);
	send_text(fd, "z");
	SHOW(recv(fd, &byte, 1, 0));
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: stdio_streams HOST PORT");
	host = argv[1];
	port = atoi(argv[2]);
	streams();
	printed();
	unflushed();
	reused();
	ranges();
	puts("done");
	return 0;
}
