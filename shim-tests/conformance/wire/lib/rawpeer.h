/* A TCP peer made of nothing but frames: what the host under test puts on the wire
 * is printed, and what it hears is decided here, segment by segment.
 *
 * A probe NAME.c runs on the far host as `NAME CONTROL DEVICE NEAR`, and its
 * connections go to addresses that the far kernel does not have, so that nobody
 * else answers; near.c does the socket calls. Each observation is a line that
 * begins with the ids of its rows and is the same in each run:
 *
 *   [G2 G5] 100 bytes: PA 1:101
 *
 * Sequence numbers are relative to the first of either side, and a frame of
 * several segments is printed as the segments that its device would make of it
 * (unless `super` is set). Time is printed by class alone.
 */
#ifndef RAWPEER_H
#define RAWPEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A place in the table of near's sockets that no peer takes. */
enum { LISTENER = 15 };

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128 };

/* A connection as the peer sees it. */
struct peer {
	int fd;			/* near's socket */
	uint32_t address;	/* ours, network order */
	uint16_t port, near_port;
	uint32_t isn, near_isn; /* the SYNs' numbers */
	uint32_t seq;		/* what we send next, relative to isn */
	uint32_t ack;		/* what we have of near's, relative to near_isn */
	uint32_t window;	/* what we announce */
	int near_scale;		/* what near announced, -1: nothing */
	bool timestamps;	/* agreed upon */
	uint32_t near_tsval;	/* near's last */
};

/* How the peer answers a SYN. */
struct shape {
	int mss;		/* 0: no such option */
	int window;
	int scale;		/* -1: no such option */
	bool sack, timestamps;
	bool no_ack;		/* leave the SYN unanswered */
	int ecn;		/* ECE and CWR beside SYN */
};

/* A segment that came. */
struct segment {
	struct peer *peer;
	int flags;
	uint32_t seq, ack;	/* relative */
	uint32_t length, window, urgent;
	uint8_t options[40];
	int options_length;
	uint8_t ttl, tos;
	uint16_t fragment;	/* flags and offset of the IP header */
	uint32_t gso_segments;	/* of the frame that it came in */
	int64_t at;		/* nanoseconds */
	uint8_t payload[64];	/* the first bytes */
};

/* The usual peers. */
#define PLAIN ((struct shape){.mss = 1460, .window = 65535, .scale = -1})
#define WITH_SACK ((struct shape){.mss = 1460, .window = 65535, .scale = -1, .sack = true})

/* Prints frames as they come, not as their segments. */
extern bool super;
/* Leaves PSH out: where a burst ends depends on the round-trip time. */
extern bool no_push;
/* The pointer of segments with URG; 0: their length. */
extern uint16_t urgent_pointer;
/* TOS of what we send. */
extern uint8_t tos_sent;
/* What send() of a probe adds to each segment: SACK blocks and the like. */
extern uint8_t extra_options[40];
extern int extra_length;

void rawpeer_start(int argc, char **argv);

/* A call of near: its value, or minus errno. */
long near(struct peer *p, const char *call, ...);
/* The same in two parts, for a call that blocks. */
void near_begin(struct peer *p, const char *call, long a, long b, long c);
long near_end(void);

/* A setting of near's host (ipv4/NAME), and a new process that reads it; near's sockets
 * are gone. */
void near_anew(const char *setting, int value);
/* The same for a setting that is a text, as NAME=TEXT without blanks. */
void near_anew_text(const char *setting);

/* Lets near's device, which is called as ours, send `rate` kbit/s: while near has no
 * sockets. */
void near_slow(int rate);

/* What the route to us sets beside (ip-route(8)), with ',' for ' ', and what "-" sets: nothing. */
void near_route(const char *metrics);

/* A peer at an address of its own, with near's socket. */
struct peer peer_new(void);
/* The same at the address of another one. */
struct peer peer_beside(const struct peer *other);
/* Near's connect(), and the SYN that it caused. */
struct segment peer_syn(struct peer *p);
/* The answer to the SYN; `options` as bytes follow the usual ones. */
void peer_syn_ack(struct peer *p, struct shape how);
/* Socket, SYN, SYN-ACK, ACK: established. */
struct peer peer_connected(struct shape how);
/* Near listens, in the place LISTENER of its table, for fast opens where they are
 * allowed; and a peer that will connect there. */
struct peer peer_listener(int fastopen);
struct peer peer_of_listener(const struct peer *listener);
/* The peer's SYN; `options` as for peer_syn_ack. */
void syn_send(struct peer *p, struct shape how, uint32_t length);
/* Near listens and we connect; near's end is accepted. */
struct peer peer_accepted(struct shape how);

/* Sends a segment of `length` bytes; `seq` and `ack` are taken from the peer. */
void segment_send(struct peer *p, int flags, uint32_t length);
/* The same from another place in the stream; the peer's own place stays. */
void segment_at(struct peer *p, int flags, uint32_t seq, uint32_t ack, uint32_t length);
/* Acknowledges all that came so far. */
void ack_all(struct peer *p);
/* The same, and waits until near knows, where the ack lets nothing out. */
void ack_all_heard(struct peer *p);
/* An ICMP error about the segment at `seq`. */
void icmp_send(struct peer *p, int type, int code, uint32_t seq, int mtu);

/* The next segment of the peer, within `ms`. */
bool next(struct peer *p, struct segment *s, int ms);

/* Prints what comes until it is quiet for `ms`: `[rows] text: segments`. */
void show(struct peer *p, int ms, const char *rows, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* The same where something will come. */
void show_answer(struct peer *p, const char *rows, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for one segment alone, which may come late, with the class of the time
 * since the last thing that we or near did. */
void show_when(struct peer *p, int ms, const char *rows, const char *text);
void row(const char *rows, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Takes what comes without a word, until it is quiet for `ms`. */
void swallow(struct peer *p, int ms);
/* The same where something will come. */
void swallow_answer(struct peer *p);
/* Resets the connection and closes near's socket. */
void peer_drop(struct peer *p);
int64_t since_stimulus(const struct segment *s);
/* The option of that kind: its kind, length and data. */
const uint8_t *option(const struct segment *s, int kind);
void put_options(char *to, size_t size, const struct segment *s);
void put_segment(char *to, size_t size, const struct segment *s);

/* Quiet for as long as this means that nothing comes at once. */
enum { QUIET = 25, DELACK = 120, TIMEOUT = 450 };
/* How long something is waited for that will come. */
enum { ANSWER = 3000 };

#endif
