/* Connects to HOST PORT, lets the connection rest until the shim's pump waits for frames itself, and then makes SENDS sends,
 * one after another. Prints how often the pump slept meanwhile: it has no business there, since the sends take the
 * acknowledgements along. Natively there is no such thread, and it is 0.
 *
 *   run_of_sends HOST PORT SENDS
 */
#include "asleep.h"
#include "show.h"

#include <dirent.h>

/* The thread of this process that has this name; 0 when there is none. */
static pid_t thread_named(const char *name)
{
	char path[300], comm[32];
	struct dirent *e;
	DIR *tasks = opendir("/proc/self/task");
	pid_t found = 0;
	while ((e = readdir(tasks))) {
		snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
		FILE *file = fopen(path, "re");
		if (file && fgets(comm, sizeof comm, file) && !strncmp(comm, name, strlen(name)))
			found = atoi(e->d_name);
		if (file)
			fclose(file);
	}
	closedir(tasks);
	return found;
}

/* How often a thread has gone to sleep. */
static long sleeps(pid_t tid)
{
	char path[64], line[128];
	long count = 0;
	snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		sscanf(line, "voluntary_ctxt_switches: %ld", &count);
	if (file)
		fclose(file);
	return count;
}

/* Waits until a thread has slept for 50 milliseconds on end. */
static void at_rest(pid_t tid)
{
	long before, now = sleeps(tid);
	do {
		before = now;
		usleep(50000);
		now = sleeps(tid);
	} while (now != before);
	asleep(tid);
}

int main(int argc, char **argv)
{
	static char data[65536], control[128];
	struct msghdr completion = {.msg_control = control, .msg_controllen = sizeof control};
	int on = 1;
	if (argc != 4)
		errx(2, "usage: run_of_sends HOST PORT SENDS");
	struct sockaddr_in a = address(argv[1], atoi(argv[2]));
	int fd = tcp_socket();
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) || connect(fd, (struct sockaddr *)&a, sizeof a))
		err(2, "connect");
	pid_t pump = thread_named("sidewire-pump");
	if (pump)
		at_rest(pump);
	long before = pump ? sleeps(pump) : 0;
	for (int n = atoi(argv[3]); n > 0; n--) {
		if (send(fd, data, sizeof data, MSG_ZEROCOPY) != sizeof data)
			err(2, "send");
		while (n % 32 == 0 && recvmsg(fd, &completion, MSG_ERRQUEUE) >= 0)
			completion.msg_controllen = sizeof control;
	}
	printf("%ld\n", pump ? sleeps(pump) - before : 0);
	return 0;
}
