/* Ends while one peer takes nothing of what was sent to it, and another will send
 * something late.
 *
 *   leaves HOST PORT
 */
#include "filled.h"

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: leaves HOST PORT");
	int port = atoi(argv[2]), blocked = peer(argv[1], port, "hold");
	fill_beyond(blocked);
	peer(argv[1], port, "late 60000");
	return 0;
}
