/* What a vfork child may put onto the number of a packet socket that was handed over. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	const char *place = getenv("SIDEWIRE_SOCKETS");
	if (!place)
		return 2;
	int first = atoi(place);
	/* The child has our memory. */
	volatile int two = 0, three = 0, own = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		two = dup2(0, first + 1) < 0 ? errno : 0;
		three = dup3(0, first + 2, O_CLOEXEC) < 0 ? errno : 0;
		own = dup2(0, 20);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		return 3;
	printf("dup2 %d dup3 %d own %d\n", two == EBADF, three == EBADF, own);
	return 0;
}
