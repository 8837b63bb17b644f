/* SPDX-License-Identifier: MIT */
#include "io/reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "containers/ring.h"
#include "test.h"

/* So long sleeps only who was not woken: what takes this long has failed. */
#define FOREVER_NS (5 * NS_PER_S)

/* A fake present. */
#define PRESENT_NS (1000 * NS_PER_S)

static const struct reactor_ops no_ops;

/* Letters in the order in which things happened. */
static char story[100];

static void tell(char c)
{
	size_t n = strlen(story);

	CHECK(n + 1 < sizeof(story));
	story[n] = c;
	story[n + 1] = '\0';
}

static void make(struct reactor *r, const struct reactor_ops *ops)
{
	memset(r, 0, sizeof(*r));
	memset(story, 0, sizeof(story));
	CHECK_EQ(reactor_init(r, ops), 0);
	reactor_own(r);
}

/* A turn that may not sleep, and doesn't. */
static void turn_at_once(struct reactor *r, uint64_t longest_ns)
{
	uint64_t turns = r->turns;

	CHECK_EQ(reactor_turn(r, longest_ns), 0);
	CHECK_EQ(r->turns, turns + 1);
}

/* A turn that would sleep if nothing kept it from doing so. */
static void turn_awake(struct reactor *r)
{
	uint64_t before = clock_now_ns();

	turn_at_once(r, FOREVER_NS);
	CHECK(clock_now_ns() - before < FOREVER_NS);
}

static int ready_fd(void)
{
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK(fd >= 0);
	return fd;
}

/* ----- sources */

struct watch {
	struct reactor_source source;
	struct reactor *reactor;
	struct watch *victim; /* removed by the callback */
	int fd;
	int calls;
	uint32_t events;
	bool frees_victim;
	struct reactor_deferred burial;
};

static void free_watch(struct reactor_deferred *d)
{
	struct watch *w = CONTAINER_OF(d, struct watch, burial);

	tell('f');
	close(w->fd);
	free(w);
}

static void watch_ready(struct reactor_source *s, uint32_t events)
{
	struct watch *w = CONTAINER_OF(s, struct watch, source);

	w->calls++;
	w->events = events;
	tell('e');
	if (!w->victim)
		return;
	reactor_del(w->reactor, &w->victim->source, w->victim->fd);
	if (w->frees_victim)
		reactor_defer(w->reactor, &w->victim->burial, free_watch);
}

static void watch_init(struct watch *w, struct reactor *r, int fd, uint32_t events)
{
	*w = (struct watch){.reactor = r, .fd = fd};
	CHECK_EQ(reactor_add(r, &w->source, fd, events, watch_ready), 0);
}

TEST(reactor_reports_what_is_ready_until_the_source_is_removed)
{
	struct reactor r;
	struct watch w;
	int fds[2];

	make(&r, &no_ops);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	watch_init(&w, &r, fds[0], EPOLLIN | EPOLLRDHUP);
	turn_at_once(&r, 0);
	CHECK_EQ(w.calls, 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	turn_awake(&r);
	CHECK_EQ(w.calls, 1);
	CHECK_EQ(w.events, EPOLLIN);
	turn_awake(&r); /* level-triggered */
	CHECK_EQ(w.calls, 2);
	close(fds[1]);
	turn_awake(&r);
	CHECK_EQ(w.calls, 3);
	CHECK(w.events & EPOLLRDHUP);
	reactor_del(&r, &w.source, w.fd);
	reactor_del(&r, &w.source, w.fd);
	turn_at_once(&r, 0);
	CHECK_EQ(w.calls, 3);
	watch_init(&w, &r, fds[0], EPOLLOUT); /* again, for something else */
	turn_awake(&r);
	CHECK_EQ(w.calls, 1);
	CHECK(w.events & EPOLLOUT);
	reactor_del(&r, &w.source, w.fd);
	close(fds[0]);
	reactor_fini(&r);
}

TEST(reactor_add_passes_on_what_epoll_says)
{
	struct reactor_source s = {0};
	struct reactor r;
	int fd = ready_fd(), file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	struct watch w;

	make(&r, &no_ops);
	CHECK_EQ(reactor_add(&r, &s, -1, EPOLLIN, watch_ready), -EBADF);
	CHECK_EQ(reactor_add(&r, &s, r.epoll_fd, EPOLLIN, watch_ready), -EINVAL);
	watch_init(&w, &r, fd, EPOLLIN);
	CHECK_EQ(reactor_add(&r, &s, fd, EPOLLIN, watch_ready), -EEXIST);
	CHECK(s.fn == NULL);
	turn_awake(&r);
	CHECK_EQ(w.calls, 1);
	close(file);
	close(fd);
	reactor_fini(&r);
}

/* Both are ready in one turn; whoever comes first removes the other. */
TEST(reactor_drops_the_event_of_a_source_removed_in_the_same_turn)
{
	struct reactor r;
	struct watch a, b;

	make(&r, &no_ops);
	watch_init(&a, &r, ready_fd(), EPOLLIN);
	watch_init(&b, &r, ready_fd(), EPOLLIN);
	a.victim = &b;
	b.victim = &a;
	turn_awake(&r);
	CHECK_EQ(a.calls + b.calls, 1);
	turn_awake(&r);
	CHECK_EQ(a.calls + b.calls, 2);
	CHECK(a.calls == 0 || b.calls == 0);
	close(a.fd);
	close(b.fd);
	reactor_fini(&r);
}

TEST(reactor_lets_a_callback_remove_itself)
{
	struct reactor r;
	struct watch w;

	make(&r, &no_ops);
	watch_init(&w, &r, ready_fd(), EPOLLIN);
	w.victim = &w;
	turn_awake(&r);
	turn_at_once(&r, 0);
	CHECK_EQ(w.calls, 1);
	close(w.fd);
	reactor_fini(&r);
}

/* The other's event is still in the list while its memory waits for the end of the turn. */
TEST(reactor_lets_a_callback_free_another_source)
{
	struct reactor r;
	struct watch *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));

	make(&r, &no_ops);
	watch_init(a, &r, ready_fd(), EPOLLIN);
	watch_init(b, &r, ready_fd(), EPOLLIN);
	a->victim = b;
	b->victim = a;
	a->frees_victim = b->frees_victim = true;
	turn_awake(&r);
	CHECK_STR(story, "ef");
	/* epoll reports in the order of readiness: the first one stayed. */
	CHECK_EQ(a->calls, 1);
	a->victim = NULL;
	turn_awake(&r);
	CHECK_STR(story, "efe");
	reactor_del(&r, &a->source, a->fd);
	close(a->fd);
	free(a);
	reactor_fini(&r);
}

/* ----- deferred work and the order of a turn */

struct errand {
	struct reactor_deferred deferred;
	struct reactor *reactor;
	struct errand *next; /* deferred by this one */
	char letter;
};

static void run_errand(struct reactor_deferred *d)
{
	struct errand *e = CONTAINER_OF(d, struct errand, deferred);
	struct errand *next = e->next;

	tell(e->letter);
	e->next = NULL;
	if (next)
		reactor_defer(e->reactor, &next->deferred, run_errand);
}

static void work_tells(struct reactor *r)
{
	(void)r;
	tell('w');
}

static void timer_tells(struct wheel_timer *t)
{
	(void)t;
	tell('t');
}

TEST(reactor_turn_is_events_timers_work_deferred)
{
	const struct reactor_ops ops = {.work = work_tells};
	struct wheel_timer timer = {0};
	struct reactor r;
	struct watch w;
	struct errand e = {.reactor = &r, .letter = 'd'};

	clock_set_for_test(PRESENT_NS);
	make(&r, &ops);
	watch_init(&w, &r, ready_fd(), EPOLLIN);
	wheel_timer_init(&timer, timer_tells);
	wheel_add(&r.wheel, &timer, PRESENT_NS);
	reactor_defer(&r, &e.deferred, run_errand);
	CHECK_STR(story, "");
	clock_set_for_test(PRESENT_NS + 3 * REACTOR_TICK_NS);
	turn_at_once(&r, 0);
	CHECK_STR(story, "etwd");
	turn_at_once(&r, 0);
	CHECK_STR(story, "etwdew");
	clock_set_for_test(0);
	close(w.fd);
	reactor_fini(&r);
}

TEST(reactor_deferred_runs_once_in_order_in_this_turn)
{
	struct reactor r;
	struct errand c = {.reactor = &r, .letter = 'c'};
	struct errand a = {.reactor = &r, .next = &c, .letter = 'a'};
	struct errand b = {.reactor = &r, .letter = 'b'};

	make(&r, &no_ops);
	reactor_defer(&r, &a.deferred, run_errand);
	reactor_defer(&r, &b.deferred, run_errand);
	reactor_defer(&r, &a.deferred, run_errand); /* has been already */
	turn_awake(&r);
	CHECK_STR(story, "abc");
	turn_at_once(&r, 0);
	CHECK_STR(story, "abc");
	a.next = &a; /* may defer itself */
	reactor_defer(&r, &a.deferred, run_errand);
	turn_awake(&r);
	CHECK_STR(story, "abcaa");
	reactor_fini(&r);
}

TEST(reactor_fini_runs_what_was_deferred)
{
	struct reactor r;
	struct errand b = {.reactor = &r, .letter = 'b'};
	struct errand a = {.reactor = &r, .next = &b, .letter = 'a'};

	make(&r, &no_ops);
	reactor_defer(&r, &a.deferred, run_errand);
	reactor_fini(&r);
	CHECK_STR(story, "ab");
	reactor_fini(&r);
	memset(&r, 0, sizeof(r));
	reactor_fini(&r);
}

/* ----- time */

TEST(reactor_fires_timers_by_its_clock)
{
	struct wheel_timer timer = {0};
	struct reactor r;

	clock_set_for_test(PRESENT_NS);
	make(&r, &no_ops);
	CHECK_EQ(r.now_ns, PRESENT_NS);
	wheel_timer_init(&timer, timer_tells);
	wheel_add(&r.wheel, &timer, PRESENT_NS + NS_PER_S);
	turn_at_once(&r, 0);
	clock_set_for_test(PRESENT_NS + NS_PER_S - 1);
	turn_at_once(&r, 0);
	CHECK_EQ(r.now_ns, PRESENT_NS + NS_PER_S - 1);
	CHECK_STR(story, "");
	clock_set_for_test(PRESENT_NS + NS_PER_S + 2 * REACTOR_TICK_NS);
	turn_at_once(&r, UINT64_MAX); /* overdue: nothing to sleep for */
	CHECK_STR(story, "t");
	clock_set_for_test(0);
	reactor_fini(&r);
}

/* With the real clock: as many turns as it takes, each of them without a bound of its own. */
TEST(reactor_sleeps_until_the_next_timer)
{
	struct wheel_timer timer = {0};
	uint64_t deadline, turns = 0;
	struct reactor r;

	make(&r, &no_ops);
	deadline = clock_now_ns() + NS_PER_MS;
	wheel_timer_init(&timer, timer_tells);
	wheel_add(&r.wheel, &timer, deadline);
	for (; wheel_is_armed(&timer); turns++)
		CHECK_EQ(reactor_turn(&r, UINT64_MAX), 0);
	CHECK(r.now_ns >= deadline);
	CHECK(r.now_ns - deadline < FOREVER_NS);
	CHECK(turns <= 3); /* it slept */
	CHECK_EQ(r.turns, turns);
	reactor_fini(&r);
}

TEST(reactor_sleeps_no_longer_than_it_is_told)
{
	uint64_t before = clock_now_ns();
	struct reactor r;

	make(&r, &no_ops);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(reactor_turn(&r, NS_PER_MS / 2), 0);
	CHECK(clock_now_ns() - before >= 3 * NS_PER_MS / 2);
	CHECK(clock_now_ns() - before < FOREVER_NS);
	reactor_fini(&r);
}

static void work_takes_time(struct reactor *r)
{
	clock_set_for_test(r->now_ns + 7 * NS_PER_MS);
}

TEST(reactor_reads_the_clock_once_a_turn_and_counts_its_own_time)
{
	const struct reactor_ops ops = {.work = work_takes_time};
	struct reactor r;

	clock_set_for_test(PRESENT_NS);
	make(&r, &ops);
	clock_set_for_test(PRESENT_NS + NS_PER_S); /* before the first turn: nobody's */
	for (uint64_t i = 0; i < 5; i++) {
		CHECK_EQ(reactor_turn(&r, 0), 0);
		CHECK_EQ(r.now_ns, PRESENT_NS + NS_PER_S + i * 7 * NS_PER_MS);
		CHECK_EQ(r.busy_ns, i * 7 * NS_PER_MS);
	}
	clock_set_for_test(0);
	reactor_fini(&r);
}

/* ----- standing still */

static unsigned fired;
static bool is_behind;

static void count_fired(struct wheel_timer *t)
{
	(void)t;
	fired++;
}

static bool says_behind(struct reactor *r)
{
	(void)r;
	return is_behind;
}

/* A loop with a timer that is due in the first turn behind a standstill. */
static void make_with_timer(struct reactor *r, const struct reactor_ops *ops, struct wheel_timer *t)
{
	clock_set_for_test(PRESENT_NS);
	make(r, ops);
	CHECK_EQ(reactor_turn(r, 0), 0);
	wheel_timer_init(t, count_fired);
	wheel_add(&r->wheel, t, PRESENT_NS + NS_PER_S / 10);
	fired = 0;
}

TEST(reactor_looks_once_more_before_timers_fire_behind_a_standstill)
{
	struct wheel_timer t;
	struct reactor r;

	/* In the turn before, or while it waited. */
	for (int has_slept = 0; has_slept < 2; has_slept++) {
		make_with_timer(&r, &no_ops, &t);
		if (has_slept)
			clock_creep_for_test(REACTOR_LATE_NS + 1);
		else
			clock_set_for_test(PRESENT_NS + REACTOR_LATE_NS + 1);
		CHECK_EQ(reactor_turn(&r, 0), 0);
		clock_creep_for_test(0);
		clock_set_for_test(r.now_ns);
		CHECK_EQ(fired, 0);
		CHECK_EQ(r.stall_ns, 0);
		CHECK_EQ(reactor_turn(&r, FOREVER_NS), 0);
		CHECK_EQ(fired, 1);
		CHECK_EQ(r.stall_ns, r.now_ns);
		reactor_fini(&r);
	}
	clock_set_for_test(0);
}

TEST(reactor_takes_no_short_delay_for_a_standstill)
{
	struct wheel_timer t;
	struct reactor r;

	make_with_timer(&r, &no_ops, &t);
	clock_set_for_test(PRESENT_NS + REACTOR_LATE_NS);
	CHECK_EQ(reactor_turn(&r, 0), 0);
	CHECK_EQ(fired, 1);
	CHECK_EQ(r.stall_ns, 0);
	reactor_fini(&r);

	/* Nor what it slept on purpose. */
	clock_set_for_test(0);
	make(&r, &no_ops);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(reactor_turn(&r, REACTOR_LATE_NS + 50 * NS_PER_MS), 0);
	CHECK_EQ(r.catch_up_by_ns, 0);
	CHECK_EQ(r.stall_ns, 0);
	reactor_fini(&r);
}

TEST(reactor_fires_no_timers_while_it_is_behind_but_for_so_long)
{
	const struct reactor_ops ops = {.is_behind = says_behind};
	struct wheel_timer t;
	struct reactor r;

	is_behind = true;
	for (int ends_early = 0; ends_early < 2; ends_early++) {
		uint64_t now = PRESENT_NS + NS_PER_S;

		make_with_timer(&r, &ops, &t);
		clock_set_for_test(now);
		CHECK_EQ(reactor_turn(&r, 0), 0);
		for (int i = 0; i < 49; i++) {
			now += REACTOR_CATCH_UP_NS / 50;
			clock_set_for_test(now);
			CHECK_EQ(reactor_turn(&r, 0), 0);
			CHECK_EQ(fired, 0);
		}
		if (ends_early)
			is_behind = false;
		else
			clock_set_for_test(now += REACTOR_CATCH_UP_NS / 50);
		CHECK_EQ(reactor_turn(&r, 0), 0);
		CHECK_EQ(fired, 1);
		CHECK_EQ(r.stall_ns, now);
		reactor_fini(&r);
	}
	clock_set_for_test(0);
}

/* ----- sleeping and waking */

static bool works_pending;

static bool has_pending_work(struct reactor *r)
{
	CHECK(atomic_load(&r->asleep)); /* announced before the look */
	return works_pending;
}

TEST(reactor_does_not_sleep_while_there_is_work)
{
	const struct reactor_ops ops = {.has_work = has_pending_work};
	struct reactor r;

	make(&r, &ops);
	works_pending = true;
	for (int i = 0; i < 10; i++)
		turn_awake(&r);
	works_pending = false;
	CHECK_EQ(reactor_turn(&r, NS_PER_MS), 0);
	CHECK(!atomic_load(&r.asleep));
	reactor_fini(&r);
}

static uint64_t wake_writes(const struct reactor *r)
{
	uint64_t count = 0;

	return read(r->wake_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

TEST(reactor_wake_is_a_system_call_only_for_a_sleeper)
{
	struct reactor r;

	make(&r, &no_ops);
	for (int i = 0; i < 3; i++)
		reactor_wake(&r);
	CHECK_EQ(wake_writes(&r), 0);
	atomic_store(&r.asleep, true); /* as within a turn */
	for (int i = 0; i < 3; i++)
		reactor_wake(&r);
	CHECK(!atomic_load(&r.asleep));
	CHECK_EQ(wake_writes(&r), 1);
	/* Each wake-up ends one sleep, although nobody reads the counter. */
	for (int i = 0; i < 3; i++) {
		atomic_store(&r.asleep, true);
		reactor_wake(&r);
		turn_awake(&r);
	}
	CHECK_EQ(wake_writes(&r), 3);
	reactor_fini(&r);
}

/* So many that on two processors one of the two fences left out shows nearly always. */
#ifdef __SANITIZE_THREAD__
#define PARCELS 20000
#else
#define PARCELS 150000
#endif

/* A loop that takes parcels from a ring, and a thread that puts them in. */
struct post {
	struct reactor reactor;
	struct ring ring;
	_Atomic size_t taken;
	_Atomic bool is_over;
	uint64_t random;
};

static bool post_has_work(struct reactor *r)
{
	return !ring_is_empty(&CONTAINER_OF(r, struct post, reactor)->ring);
}

static void post_work(struct reactor *r)
{
	struct post *p = CONTAINER_OF(r, struct post, reactor);

	while (ring_pop(&p->ring))
		atomic_fetch_add_explicit(&p->taken, 1, memory_order_relaxed);
}

/* Lets others run only after a while: what comes next should meet the loop on its way to sleep. */
static void relax(unsigned *spins)
{
	if (++*spins % 1000 == 0)
		sched_yield();
}

/*
 * Pushes one by one: at once, a moment after the last one was taken, or when the loop says that
 * it sleeps.
 */
static void *post_parcels(void *arg)
{
	struct post *p = arg;
	unsigned spins = 0;

	for (size_t i = 0; i < PARCELS && !atomic_load(&p->is_over); i++) {
		uint64_t how = test_random(&p->random);
		bool waits = how >> 61 != 0, for_sleep = how >> 61 == 1;

		while (waits && atomic_load_explicit(&p->taken, memory_order_relaxed) < i &&
		       !atomic_load(&p->is_over))
			relax(&spins);
		while (for_sleep && !atomic_load(&p->reactor.asleep) && !atomic_load(&p->is_over))
			relax(&spins);
		for (uint64_t delay = how >> 32 & 127; waits && delay > 0; delay--)
			(void)atomic_load(&p->is_over);
		while (!ring_push(&p->ring, p) && !atomic_load(&p->is_over))
			relax(&spins);
		reactor_wake(&p->reactor);
	}
	return NULL;
}

TEST(reactor_loses_no_wake_up)
{
	const struct reactor_ops ops = {.has_work = post_has_work, .work = post_work};
	static struct post p;
	pthread_t thread;
	bool is_late = false;

	make(&p.reactor, &ops);
	p.random = test_seed();
	CHECK_EQ(ring_init(&p.ring, 4), 0);
	CHECK_EQ(pthread_create(&thread, NULL, post_parcels, &p), 0);
	while (atomic_load(&p.taken) < PARCELS && !is_late) {
		uint64_t before = clock_now_ns();

		is_late = reactor_turn(&p.reactor, FOREVER_NS) != 0 ||
			  clock_now_ns() - before >= FOREVER_NS;
	}
	atomic_store(&p.is_over, true);
	pthread_join(thread, NULL);
	CHECK(!is_late);
	CHECK_EQ(atomic_load(&p.taken), PARCELS);
	ring_fini(&p.ring);
	reactor_fini(&p.reactor);
}

/* ----- signals and other threads */

struct nuisance {
	pthread_t victim;
	_Atomic bool is_over;
};

static void ignore_signal(int number)
{
	(void)number;
}

static void *send_signals(void *arg)
{
	struct nuisance *n = arg;

	while (!atomic_load(&n->is_over)) {
		pthread_kill(n->victim, SIGUSR1);
		sched_yield();
	}
	return NULL;
}

TEST(reactor_turn_ends_in_good_order_after_a_signal)
{
	const struct sigaction ignored = {.sa_handler = ignore_signal};
	struct nuisance n = {.victim = pthread_self()};
	struct sigaction before;
	struct reactor r;
	pthread_t thread;
	int outcome;

	make(&r, &no_ops);
	CHECK_EQ(sigaction(SIGUSR1, &ignored, &before), 0);
	CHECK_EQ(pthread_create(&thread, NULL, send_signals, &n), 0);
	outcome = reactor_turn(&r, UINT64_MAX); /* nothing else ends it */
	atomic_store(&n.is_over, true);
	pthread_join(thread, NULL);
	CHECK_EQ(sigaction(SIGUSR1, &before, NULL), 0);
	CHECK_EQ(outcome, 0);
	CHECK_EQ(r.turns, 1);
	CHECK(!atomic_load(&r.asleep));
	reactor_fini(&r);
}

static void *own_it(void *arg)
{
	reactor_own(arg);
	return NULL;
}

TEST(reactor_turn_fails_only_when_epoll_does)
{
	struct reactor r;
	int fd;

	make(&r, &no_ops);
	fd = r.epoll_fd;
	r.epoll_fd = -1;
	CHECK_EQ(reactor_turn(&r, 0), -EBADF);
	r.epoll_fd = fd;
	turn_at_once(&r, 0);
	reactor_fini(&r);
}

/* In a child, since the assertion ends it. */
TEST(reactor_belongs_to_the_thread_that_owns_it)
{
	static struct reactor r;
	struct reactor_source s = {0};
	pthread_t thread;
	int status = 0;
	pid_t child;

	CHECK_EQ(reactor_init(&r, &no_ops), 0);
	reactor_del(&r, &s, -1); /* nobody's yet */
	CHECK_EQ(pthread_create(&thread, NULL, own_it, &r), 0);
	pthread_join(thread, NULL);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		reactor_del(&r, &s, -1);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGABRT);
	reactor_fini(&r);
}
