/* Sends device memory by its offsets: a buffer that has a descriptor and no
 * address in the program (here a memfd, as udmabuf makes its dma-bufs from) is
 * registered, and SCM_DEVMEM_DMABUF names it in each send.
 *
 * The kernel's own way to register needs a network device that can read the
 * memory (NETDEV_CMD_BIND_TX); without Sidewire this program maps the memory and
 * sends copies.
 *
 *   dmabuf HOST PORT FILE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sidewire.h>

#ifndef SCM_DEVMEM_DMABUF
#define SCM_DEVMEM_DMABUF 79
#endif

/* The "device": memory with a descriptor, and a file's bytes in it. */
static int device_memory(const char *path, size_t *size)
{
	struct stat st;
	off_t at = 0;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st))
		err(1, "%s", path);
	int memory = memfd_create("device", MFD_CLOEXEC);
	if (memory < 0 || ftruncate(memory, st.st_size))
		err(1, "memfd");
	while (at < st.st_size)
		if (sendfile(memory, file, &at, (size_t)(st.st_size - at)) <= 0)
			err(1, "%s", path);
	close(file);
	*size = (size_t)st.st_size;
	return memory;
}

/* Sends `length` bytes from `offset` of the registered memory `id` on. */
static ssize_t send_device(int fd, uint32_t id, size_t offset, size_t length)
{
	union {
		char bytes[CMSG_SPACE(sizeof(uint32_t))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec iov = {(void *)offset, length}; /* an offset, not an address */
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1,
			     .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_DEVMEM_DMABUF;
	c->cmsg_len = CMSG_LEN(sizeof id);
	memcpy(CMSG_DATA(c), &id, sizeof id);
	return sendmsg(fd, &msg, MSG_ZEROCOPY);
}

/* Waits until the error queue has told that the sends 0 to `last` are done. */
static void wait_for_completion(int fd, uint32_t last)
{
	for (;;) {
		char control[128];
		struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof control};
		struct pollfd p = {.fd = fd};

		if (recvmsg(fd, &msg, MSG_ERRQUEUE) < 0) {
			if (errno != EAGAIN || poll(&p, 1, -1) < 0)
				err(1, "error queue");
			continue;
		}
		struct sock_extended_err *e = (void *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
		if (e->ee_origin == SO_EE_ORIGIN_ZEROCOPY && e->ee_data == last)
			return;
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: dmabuf HOST PORT FILE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	size_t size, done = 0;
	int on = 1, memory = device_memory(argv[3], &size);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);

	if (!sidewire_dmabuf_bind) {
		char *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, memory, 0);
		if (bytes == MAP_FAILED)
			err(1, "mmap");
		for (ssize_t n; done < size; done += (size_t)n)
			if ((n = send(fd, bytes + done, size - done, 0)) < 0)
				err(1, "send");
		puts("sent by copying: Sidewire is not in front of this program");
		close(fd);
		return 0;
	}

	/* 0: through any device. The descriptor is not needed any more. */
	int id = sidewire_dmabuf_bind(memory, 0);
	if (id < 0)
		err(1, "sidewire_dmabuf_bind");
	close(memory);
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on))
		err(1, "SO_ZEROCOPY");
	uint32_t sends = 0;
	for (ssize_t n; done < size; done += (size_t)n, sends++)
		if ((n = send_device(fd, (uint32_t)id, done, size - done)) < 0)
			err(1, "send of device memory");
	if (send_device(fd, (uint32_t)id, size, 1) != -1 || errno != EFAULT)
		errx(1, "a send from behind the end was taken");
	wait_for_completion(fd, sends - 1);
	if (sidewire_dmabuf_unbind(id))
		err(1, "sidewire_dmabuf_unbind");
	puts("sent by offset, and complete");
	close(fd);
	return 0;
}
