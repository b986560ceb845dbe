/* Sends a line with the length of a file, and the file, in as few segments as
 * there can be.
 *
 *   send_file HOST PORT FILE
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: send_file HOST PORT FILE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	struct stat st;
	char line[32];
	int on = 1, off = 0, file = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st))
		err(1, "%s", argv[3]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	if (setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on))
		err(1, "TCP_CORK");
	int length = snprintf(line, sizeof line, "%lld\n", (long long)st.st_size);
	if (send(fd, line, (size_t)length, 0) != length)
		err(1, "send");
	off_t done = 0;
	while (done < st.st_size)
		if (sendfile(fd, file, &done, (size_t)(st.st_size - done)) <= 0)
			err(1, "sendfile");
	if (setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off))
		err(1, "TCP_CORK");
	close(fd);
	return 0;
}
