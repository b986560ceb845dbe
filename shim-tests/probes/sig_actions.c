/* What a program sees of its own signal handlers: sigaction, signal and their relatives read back what was set,
 * handlers run with the mask, flags and siginfo that were asked for, and one-shot handlers reset. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t ran, code, masked, blocked_itself;

static void plain(int sig)
{
	sigset_t now;
	ran++;
	sigprocmask(SIG_BLOCK, NULL, &now);
	masked = sigismember(&now, SIGUSR2);
	blocked_itself = sigismember(&now, sig);
}

static void with_info(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	ran++;
	code = context ? info->si_code : 12345;
}

static const char *name_of(void (*h)(int))
{
	return h == SIG_DFL ? "default" : h == SIG_IGN ? "ignore" :
	       h == plain ? "plain" : h == (void (*)(int))(void *)with_info ? "with_info" : "other";
}

static void show(const char *what, int sig)
{
	struct sigaction now;
	int r = sigaction(sig, NULL, &now);
	printf("%s: %d %s flags %x usr2 %d\n", what, r, name_of(now.sa_handler),
	       (unsigned)now.sa_flags & ~0x04000000u, sigismember(&now.sa_mask, SIGUSR2));
}

static void hit(const char *what, int sig)
{
	ran = code = masked = blocked_itself = 0;
	raise(sig);
	printf("%s: ran %d code %d masked %d itself %d\n", what, ran, code, masked, blocked_itself);
}

int main(void)
{
	struct sigaction act, old;

	setvbuf(stdout, NULL, _IOLBF, 0);
	show("initially", SIGUSR1);
	printf("signal returns %s\n", name_of(signal(SIGUSR1, plain)));
	show("after signal", SIGUSR1);
	hit("plain", SIGUSR1);

	memset(&act, 0, sizeof act);
	act.sa_sigaction = with_info;
	act.sa_flags = SA_SIGINFO;
	sigaddset(&act.sa_mask, SIGUSR2);
	printf("sigaction %d", sigaction(SIGUSR1, &act, &old));
	printf(" old %s flags %x\n", name_of(old.sa_handler), (unsigned)old.sa_flags & ~0x04000000u);
	show("after sigaction", SIGUSR1);
	hit("with info", SIGUSR1);

	act.sa_handler = plain;
	act.sa_flags = SA_RESTART | SA_NODEFER;
	struct sigaction *same = &act;
	__asm__("" : "+r"(same));
	sigaction(SIGUSR1, &act, same);
	printf("same object: old %s\n", name_of(act.sa_handler));
	hit("with mask", SIGUSR1);

	memset(&act, 0, sizeof act);
	act.sa_handler = plain;
	act.sa_flags = SA_RESETHAND;
	sigaction(SIGUSR1, &act, NULL);
	show("one shot", SIGUSR1);
	hit("one shot", SIGUSR1);
	show("one shot after", SIGUSR1);

	signal(SIGUSR1, SIG_IGN);
	show("ignored", SIGUSR1);
	hit("ignored", SIGUSR1);

	for (int sig = 10; sig <= 11; sig++) {
		signal(sig, plain);
		show("fault", sig);
		hit("fault", sig);
		signal(sig, SIG_DFL);
		show("fault", sig);
	}

	errno = 0;
	printf("bad number: %d", sigaction(0, &act, NULL));
	printf(" %s,", strerrorname_np(errno));
	printf(" %d", sigaction(65, &act, NULL));
	printf(" %s,", strerrorname_np(errno));
	printf(" kill %d", sigaction(SIGKILL, &act, NULL));
	printf(" %s\n", strerrorname_np(errno));
	printf("real time: %d\n", sigaction(SIGRTMIN, &act, NULL));
	return 0;
}
