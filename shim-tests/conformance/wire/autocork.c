/* Small sends while an earlier segment waits in the device's queue (row G4). */
#include "lib/rawpeer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	rawpeer_start(argc, argv);
	struct peer p = peer_connected(PLAIN);
	near(&p, "set", IPPROTO_TCP, TCP_NODELAY, 1);
	/* Only now: the handshake would take of the bucket, which lets the first segment through when it is full. */
	near_slow(100);
	for (int i = 0; i < 2; i++)
		near(&p, "send", 1460, 0);
	for (int i = 0; i < 3; i++)
		near(&p, "send", 10, 0);
	show(&p, TIMEOUT, "G4", "1460 and 1460 bytes, of which the second waits in the queue, then three times 10");
	peer_drop(&p);
	puts("done");
	return 0;
}
