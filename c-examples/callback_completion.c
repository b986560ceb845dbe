/* Sends a file from memory that is not copied, and uses each buffer again when
 * its callback says that the peer has it: io_uring's zerocopy send, without
 * io_uring. Without Sidewire it sends copies.
 *
 *   callback_completion HOST PORT FILE
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sidewire.h>

#define BUFFERS 4
#define SIZE 65536

/* A completion is commonly the first member of what it is about. */
struct buffer {
	struct sidewire_ubuf ubuf;
	int sends; /* that are not complete */
	char bytes[SIZE];
};

static struct buffer buffers[BUFFERS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;
static unsigned completions;

/* Runs on a thread of Sidewire's, with no lock held: the program's own locks
 * may be taken. */
static void complete(struct sidewire_ubuf *ubuf, bool zerocopy)
{
	struct buffer *buffer = (struct buffer *)ubuf;

	(void)zerocopy; /* true: no byte was copied on its way */
	pthread_mutex_lock(&lock);
	buffer->sends--;
	completions++;
	pthread_cond_signal(&freed);
	pthread_mutex_unlock(&lock);
}

static void wait_until_free(struct buffer *buffer)
{
	pthread_mutex_lock(&lock);
	while (buffer->sends > 0)
		pthread_cond_wait(&freed, &lock);
	pthread_mutex_unlock(&lock);
}

/* Sends `length` bytes of `buffer`; answers how many sends that took. */
static unsigned send_buffer(int fd, struct buffer *buffer, size_t length)
{
	unsigned sends = 0;

	for (size_t done = 0; done < length;) {
		struct iovec iov = {buffer->bytes + done, length - done};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

		/* Before the call: the callback may be faster than its return. */
		pthread_mutex_lock(&lock);
		buffer->sends++;
		pthread_mutex_unlock(&lock);
		ssize_t n = sidewire_sendmsg(fd, &msg, 0, &buffer->ubuf);
		if (n <= 0)
			err(1, "sidewire_sendmsg");
		done += (size_t)n;
		sends++;
	}
	return sends;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: callback_completion HOST PORT FILE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int file = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (file < 0)
		err(1, "%s", argv[3]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);

	unsigned sends = 0;
	for (unsigned i = 0;; i++) {
		struct buffer *buffer = &buffers[i % BUFFERS];
		buffer->ubuf.complete = complete;
		wait_until_free(buffer);
		ssize_t got = read(file, buffer->bytes, SIZE);
		if (got < 0)
			err(1, "%s", argv[3]);
		if (got == 0)
			break;
		if (sidewire_sendmsg)
			sends += send_buffer(fd, buffer, (size_t)got);
		else
			for (ssize_t done = 0; done < got;) {
				ssize_t n = send(fd, buffer->bytes + done, (size_t)(got - done), 0);
				if (n < 0)
					err(1, "send");
				done += n;
			}
	}
	/* The last ones: now every buffer is ours again. */
	for (unsigned i = 0; i < BUFFERS; i++)
		wait_until_free(&buffers[i]);
	if (sidewire_sendmsg)
		printf("%s\n", completions == sends ? "every send completed" : "completions are missing");
	else
		puts("sent by copying: Sidewire is not in front of this program");
	close(fd);
	return 0;
}
