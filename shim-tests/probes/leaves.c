/* Ends while one peer takes nothing of what was sent to it, and another will send
 * something late.
 *
 *   leaves HOST PORT
 */
#include "show.h"

int main(int argc, char **argv)
{
	static char bytes[1 << 20];
	if (argc != 3)
		errx(2, "usage: leaves HOST PORT");
	int port = atoi(argv[2]), blocked = peer(argv[1], port, "hold");
	while (send(blocked, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	peer(argv[1], port, "late 60000");
	return 0;
}
