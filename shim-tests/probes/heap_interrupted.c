/* A handler that interrupts malloc(3) may make socket calls: they are async-signal-safe (POSIX 2.4.3).
 *
 *   heap_interrupted HOST PORT     the peer program listens there
 */
#include "show.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/time.h>

enum { CONNECTIONS = 300, LIVE = 512, LARGEST = 6000 };

static struct sockaddr_in far;
static pthread_t beside;
static atomic_int made, made_beside, failed;

static int enough(void)
{
	return made >= CONNECTIONS && made_beside >= CONNECTIONS;
}

static void soon(void)
{
	static unsigned turn;
	struct itimerval t = {.it_value.tv_usec = 20 + turn++ % 13 * 7};
	setitimer(ITIMER_REAL, &t, NULL);
}

/* One connection from its beginning to its end. */
static int converse(void)
{
	static const char words[] = "echo\nfrom the handler";
	char back[32];
	size_t got = 0;
	ssize_t n = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0), ep = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (fd < 0 || ep < 0 || connect(fd, (struct sockaddr *)&far, sizeof far) ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) || send(fd, words, sizeof words - 1, 0) != sizeof words - 1 ||
	    shutdown(fd, SHUT_WR) || poll(&p, 1, -1) != 1 || epoll_wait(ep, &e, 1, -1) != 1)
		return -1;
	while (got < sizeof back && (n = recv(fd, back + got, sizeof back - got, 0)) > 0)
		got += (size_t)n;
	if (n < 0 || got != sizeof words - 1 - 5 || memcmp(back, words + 5, got))
		return -1;
	return close(fd) | close(ep);
}

static void on_alarm(int sig)
{
	(void)sig;
	if (converse())
		failed++;
	pthread_kill(beside, SIGUSR1);
	made++;
	if (!enough())
		soon();
}

/* In a thread that makes no other socket call. */
static void on_usr1(int sig)
{
	(void)sig;
	if (converse())
		failed++;
	made_beside++;
}

static void allocate(void)
{
	char *live[LIVE] = {0};
	unsigned long seed = 1;
	while (!enough()) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		char **at = &live[(seed >> 33) % LIVE];
		free(*at);
		*at = malloc((seed >> 40) % LARGEST);
		if (!*at)
			abort();
	}
}

static void *allocate_beside(void *unused)
{
	sigset_t alarm;
	(void)unused;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	allocate();
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	if (argc != 3)
		return 2;
	far.sin_family = AF_INET;
	far.sin_port = htons((uint16_t)atoi(argv[2]));
	inet_pton(AF_INET, argv[1], &far.sin_addr);
	/* With the first socket the library begins, which takes a thread: not in a handler. */
	if (converse())
		return 1;
	sigaction(SIGALRM, &act, NULL);
	act.sa_handler = on_usr1;
	sigaction(SIGUSR1, &act, NULL);
	if (pthread_create(&beside, NULL, allocate_beside, NULL))
		return 1;
	soon();
	allocate();
	pthread_join(beside, NULL);
	printf("%d failed\n", failed);
	puts("done");
	return 0;
}
