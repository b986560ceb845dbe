/* A connection with more to send than its peer, which reads nothing, takes. */
#ifndef FILLED_H
#define FILLED_H

#include "show.h"

/* A receive buffer of 128 KiB, the default, takes as much as the send buffer that a connection begins with: this one
 * has several times as much. */
static void fill_beyond(int fd)
{
	static const char data[1 << 20];
	if (option_set(fd, SOL_SOCKET, SO_SNDBUF, sizeof data))
		err(2, "SO_SNDBUF");
	while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0)
		;
}

#endif
