/* A fork, which makes what the program has the kernel's. */
#ifndef DOUBLED_H
#define DOUBLED_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void doubled(void)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
}

#endif
