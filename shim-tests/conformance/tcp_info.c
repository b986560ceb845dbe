/* struct tcp_info, field by field (rows SO-78 to SO-99), by offset: headers older than
 * the kernel do not name its last fields. What is time or speed is shown as a range.
 */
#include "rows.h"

#include <netinet/tcp.h>
#include <stdint.h>

enum { INFO_BYTES = 248 };

static unsigned char info[INFO_BYTES];

static uint32_t u32(int at)
{
	uint32_t value;
	memcpy(&value, info + at, sizeof value);
	return value;
}

static uint64_t u64(int at)
{
	uint64_t value;
	memcpy(&value, info + at, sizeof value);
	return value;
}

static void show_info(int fd, const char *when, int connected)
{
	socklen_t length = sizeof info;
	memset(info, 0xee, sizeof info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length))
		err(2, "TCP_INFO");
	row("SO-99", "%s, all of it fits: %d", when, length == sizeof info);
	row("SO-78", "%s, state: %d", when, info[0]);
	row("SO-79", "%s, ca_state retransmits probes backoff: %d %d %d %d", when, info[1], info[2],
	    info[3], info[4]);
	row("SO-80 SO-81 SO-82 SO-109 SO-110", "%s, options, scales, byte 7: %#x %#x %#x", when, info[5], info[6],
	    info[7]);
	row("SO-83 SO-114", "%s, rto ato: %d %u", when,
	    connected ? u32(8) >= 200000 && u32(8) < 300000 : (int)u32(8), u32(12));
	row("SO-84", "%s, snd_mss rcv_mss: %u %u", when, u32(16), u32(20));
	row("SO-85", "%s, unacked sacked lost retrans fackets: %u %u %u %u %u", when, u32(24), u32(28),
	    u32(32), u32(36), u32(40));
	if (connected)
		row("SO-86", "%s, last data sent, ack sent, data received, ack received in 20 s: %d %u %d %d",
		    when, u32(44) < 20000, u32(48), u32(52) < 20000, u32(56) < 20000);
	row("SO-87", "%s, pmtu rcv_ssthresh: %u %u", when, u32(60), u32(64));
	if (connected)
		row("SO-88", "%s, rtt and rttvar are known: %d %d", when, u32(68) > 0 && u32(68) < 1000000,
		    u32(72) > 0 && u32(72) < 1000000);
	else
		row("SO-88", "%s, rtt rttvar: %u %u", when, u32(68), u32(72));
	row("SO-89 SO-111", "%s, snd_ssthresh snd_cwnd advmss reordering: %u %u %u %u", when, u32(76), u32(80),
	    u32(84), u32(88));
	row("SO-90", "%s, rcv_space total_retrans: %u %u", when, u32(96), u32(100));
	row("SO-91", "%s, paced, max_pacing_rate: %d %#llx", when, u64(104) > 0,
	    (unsigned long long)u64(112));
	row("SO-92", "%s, bytes_acked bytes_received: %llu %llu", when, (unsigned long long)u64(120),
	    (unsigned long long)u64(128));
	row("SO-93", "%s, notsent_bytes: %u", when, u32(144));
	row("SO-94", "%s, data_segs_in data_segs_out: %u %u", when, u32(152), u32(156));
	row("SO-95", "%s, rwnd_limited sndbuf_limited: %llu %llu", when, (unsigned long long)u64(176),
	    (unsigned long long)u64(184));
	row("SO-96", "%s, delivered delivered_ce bytes_sent bytes_retrans: %u %u %llu %llu", when,
	    u32(192), u32(196), (unsigned long long)u64(200), (unsigned long long)u64(208));
	row("SO-97", "%s, dsack_dups reord_seen rcv_ooopack snd_wnd: %u %u %u %u", when, u32(216),
	    u32(220), u32(224), u32(228));
	row("SO-98 SO-119", "%s, rcv_wnd rehash: %u %u", when, u32(232), u32(236));
	row("SO-99", "%s, total_rto total_rto_recoveries total_rto_time: %u %u", when, u32(240), u32(244));
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(2, "usage: %s HOST PORT", argv[0]);
	int bound, fd = tcp_socket();
	show_info(fd, "a new socket", 0);
	close(fd);

	fd = listener(5, &bound);
	show_info(fd, "a listener", 0);
	close(fd);

	fd = peer(argv[1], atoi(argv[2]), "hold");
	wait_until_acked(fd);
	show_info(fd, "five bytes sent", 1);
	close(fd);

	char answer[100] = {0};
	fd = peer(argv[1], atoi(argv[2]), "echo");
	wait_until_acked(fd);
	if (send(fd, answer, sizeof answer, 0) != sizeof answer ||
	    recv(fd, answer, sizeof answer, MSG_WAITALL) != sizeof answer)
		err(2, "echo");
	wait_until_acked(fd);
	show_info(fd, "a hundred bytes sent and received", 1);
	shutdown(fd, SHUT_WR);
	if (recv(fd, answer, sizeof answer, 0) != 0)
		errx(2, "more came");
	socklen_t length = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length);
	row("SO-78 ER-78", "both ends closed, state: %d", info[0]);
	ROW("ER-8", "send in TIME_WAIT", send(fd, answer, 1, MSG_NOSIGNAL));
	ROW("ER-8", "recv in TIME_WAIT", recv(fd, answer, 1, 0));
	close(fd);
	puts("done");
	return 0;
}
