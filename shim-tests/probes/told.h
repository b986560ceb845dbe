/* Where the peer program tells what happens to it (`tell=PORT` among its steps): a socket for datagrams. */
#ifndef TOLD_H
#define TOLD_H

#include "show.h"

static int told, told_port;

static void be_told(void)
{
	struct sockaddr_in any = address("0.0.0.0", 0);
	socklen_t length = sizeof any;
	told = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(told, (struct sockaddr *)&any, sizeof any) || getsockname(told, (struct sockaddr *)&any, &length))
		err(2, "datagrams");
	told_port = ntohs(any.sin_port);
}

#endif
