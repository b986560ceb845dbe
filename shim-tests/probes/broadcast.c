/* UDP broadcasts at an even rate.
 *
 *   broadcast ADDRESS PER_SECOND SECONDS
 */
#include "show.h"

#include <time.h>

int main(int argc, char **argv)
{
	if (argc != 4 || atoi(argv[2]) < 1)
		errx(2, "usage: broadcast ADDRESS PER_SECOND SECONDS");
	struct sockaddr_in to = address(argv[1], 9999);
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);
	long gap = 1000000000L / atoi(argv[2]), left = atol(argv[2]) * atol(argv[3]);
	struct timespec next;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on))
		err(1, "socket");
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (; left > 0; left--) {
		if (sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1)
			err(1, "sendto");
		next.tv_nsec += gap;
		if (next.tv_nsec >= 1000000000L) {
			next.tv_nsec -= 1000000000L;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return 0;
}
