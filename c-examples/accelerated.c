/* Connects, sends a line, reads the answer, and says who carried the connection
 * and why. It runs without Sidewire, too: then the functions of sidewire.h are
 * NULL.
 *
 *   accelerated HOST PORT LINE
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sidewire.h>

/* The counters of this process that say something, under Linux's names. */
static void show(void *prefix, const char *name, uint64_t value)
{
	if (value && (!strcmp(name, "tx_frames") || !strcmp(name, "rx_frames") ||
		      !strcmp(name, "RetransSegs")))
		printf("%s%s %llu\n", (const char *)prefix, name, (unsigned long long)value);
}

static void explain(int fd)
{
	struct sidewire_socket_stats stats;

	if (!sidewire_version) {
		puts("carried by the kernel: Sidewire is not in front of this program");
		return;
	}
	int carrier = sidewire_carried_by(fd);
	if (carrier < 0)
		err(1, "sidewire_carried_by");
	printf("%s: %s\n", carrier == SIDEWIRE_CARRIER_ENGINE ? "carried by Sidewire" : "carried by the kernel",
	       sidewire_carrier_text(carrier));
	if (sidewire_socket_stats(fd, &stats, sizeof stats))
		err(1, "sidewire_socket_stats");
	printf("device %u, %u buffers to send, %u unacknowledged\n", stats.ifindex, stats.write_queue,
	       stats.rtx_queue);
	sidewire_counters(show, (void *)"process: ");
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "usage: accelerated HOST PORT LINE");
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1)
		errx(2, "%s: not an IPv4 address", argv[1]);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there))
		err(1, "%s port %s", argv[1], argv[2]);
	size_t length = strlen(argv[3]);
	char answer[512];
	if (send(fd, argv[3], length, 0) != (ssize_t)length)
		err(1, "send");
	ssize_t got = recv(fd, answer, sizeof answer, 0);
	if (got < 0)
		err(1, "recv");
	printf("answer: %.*s\n", (int)got, answer);
	explain(fd);
	close(fd);
	return 0;
}
