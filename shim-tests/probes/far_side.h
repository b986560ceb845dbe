/* How a probe asks the far side (sequence_peer.c) for something: a line there, a line back. */
#ifndef FAR_SIDE_H
#define FAR_SIDE_H

#include "show.h"

#include <stdarg.h>
#include <sys/un.h>

static FILE *to_far, *from_far;
/* What it said last. */
static char *reply;

/* Connects to the socket at which it is asked. */
static void call_far(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int control = socket(AF_UNIX, SOCK_STREAM, 0);
	if (strlen(path) >= sizeof a.sun_path)
		errx(2, "%s: too long", path);
	strcpy(a.sun_path, path);
	if (connect(control, (struct sockaddr *)&a, sizeof a))
		err(2, "%s", path);
	from_far = fdopen(control, "r");
	to_far = fdopen(dup(control), "w");
}

__attribute__((format(printf, 1, 2))) static char *ask(const char *format, ...)
{
	static size_t room;
	va_list arguments;
	va_start(arguments, format);
	vfprintf(to_far, format, arguments);
	va_end(arguments);
	fputc('\n', to_far);
	fflush(to_far);
	if (getline(&reply, &room, from_far) <= 0)
		errx(2, "the peer is gone");
	reply[strcspn(reply, "\n")] = 0;
	return reply;
}

#endif
