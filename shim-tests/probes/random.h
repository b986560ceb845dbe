/* Random numbers for the probes that choose what they do themselves (random_calls.c, random_segments.c), and how they print the
 * outcome of a call.
 */
#ifndef RANDOM_H
#define RANDOM_H

#include "show.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>

static volatile sig_atomic_t pipes;

/* SplitMix64. Each call or step has a generator of its own, so that leaving one out does not change the others. */
static uint64_t state_of_random;

static inline uint64_t rnd64(void)
{
	uint64_t z = state_of_random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/* The generator of call `number`. */
static inline void rnd_for(uint64_t seed, int number)
{
	state_of_random = seed * 1000003 + (uint64_t)number;
	rnd64();
}

static inline int rnd(int below)
{
	return (int)(rnd64() % (uint64_t)below);
}

static inline int chance(int in_100)
{
	return rnd(100) < in_100;
}

#define ONE_OF(...) \
	((const long[]){__VA_ARGS__}[rnd((int)(sizeof((const long[]){__VA_ARGS__}) / sizeof(long)))])

struct name {
	int value;
	const char *name;
};

static const struct name flag_names[] = {
	{MSG_OOB, "OOB"},         {MSG_PEEK, "PEEK"},         {MSG_DONTROUTE, "DONTROUTE"}, {MSG_CTRUNC, "CTRUNC"},
	{MSG_PROXY, "PROBE"},     {MSG_TRUNC, "TRUNC"},       {MSG_DONTWAIT, "DONTWAIT"},   {MSG_EOR, "EOR"},
	{MSG_WAITALL, "WAITALL"}, {MSG_FIN, "FIN"},           {MSG_SYN, "SYN"},             {MSG_CONFIRM, "CONFIRM"},
	{MSG_RST, "RST"},         {MSG_ERRQUEUE, "ERRQUEUE"}, {MSG_NOSIGNAL, "NOSIGNAL"},   {MSG_MORE, "MORE"},
	{MSG_WAITFORONE, "WAITFORONE"}, {MSG_BATCH, "BATCH"}, {MSG_ZEROCOPY, "ZEROCOPY"},   {MSG_FASTOPEN, "FASTOPEN"},
	{0x1000000, "NO_SHARED_FRAGS"}, {0x2000000, "SOCK_DEVMEM"}, {MSG_CMSG_CLOEXEC, "CLOEXEC"},
};

/* Flags by name, into one of a few buffers. */
static inline const char *flags_text(unsigned flags)
{
	static char texts[4][256];
	static int turn;
	char *to = texts[turn++ % 4];
	size_t at = 0;
	to[0] = 0;
	for (size_t i = 0; i < sizeof flag_names / sizeof *flag_names; i++)
		if (flags & (unsigned)flag_names[i].value) {
			at += (size_t)sprintf(to + at, "%s%s", at ? "|" : "", flag_names[i].name);
			flags &= ~(unsigned)flag_names[i].value;
		}
	if (flags || !at)
		sprintf(to + at, "%s%#x", at ? "|" : "", flags);
	return to;
}

/* The outcome of a call, with errno as it left it. */
static inline long outcome(long r)
{
	int was = errno;
	printf(" = %ld", r);
	if (r < 0)
		printf(" %s", strerrorname_np(was));
	if (pipes) {
		printf(" SIGPIPE");
		pipes = 0;
	}
	return r;
}

static inline long sum_of(const unsigned char *bytes, size_t n)
{
	long sum = 0;
	for (size_t at = 0; at < n; at++)
		sum += bytes[at] * (long)(at % 251 + 1);
	return sum;
}

static inline int queued(int fd, unsigned long request)
{
	int n = -1;
	return ioctl(fd, request, &n) ? -errno : n;
}

/* Whether `number` is in a list as "0-40,55". */
static inline int listed(const char *list, int number)
{
	for (const char *at = list; at && *at; at = strchr(at, ','), at += at ? 1 : 0) {
		int from = 0, to = 0;
		int n = sscanf(at, "%d-%d", &from, &to);
		if (number >= from && number <= (n == 2 ? to : from))
			return 1;
	}
	return !list;
}

#endif
