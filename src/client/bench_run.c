/* SPDX-License-Identifier: MIT */
/*
 * A run: everyone connects, silence, messages, close.
 *
 * The window closes the loop: a publisher sends a message when the one that far before it
 * has been seen by everyone (or was passed over, and so is lost). What limits the run is
 * then the way to the slowest member, and no queue grows without bound.
 */
#include "client/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "client/system.h"

#define WATCH_NS (250 * NS_PER_MS)
#define PROGRESS_NS (250 * NS_PER_MS)

uint64_t bench_process_ns(uint64_t pid)
{
	struct timespec t;
	clockid_t clock;

	/* Any process may read another's clock, where /proc would need its owner's rights. */
	if (clock_getcpuclockid((pid_t)pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t bench_server_ns(const struct bench *b)
{
	return b->options.server_pid ? bench_process_ns(b->options.server_pid) : 0;
}

static struct bench_member *member_of(struct endpoint *e)
{
	return CONTAINER_OF(e, struct bench_member, endpoint);
}

static void bench_close_all(struct bench *b)
{
	/* What closing costs the server is no part of the run. */
	if (b->phase == BENCH_RUNNING)
		b->usage.end_ns = bench_server_ns(b);
	b->phase = BENCH_CLOSING;
	for (uint64_t i = 0; i < b->options.clients; i++)
		endpoint_close(&b->members[i].endpoint, WS_CODE_NORMAL, "");
}

/* The first problem is the one that is reported; the run is over. */
static void WB_PRINTF(2, 3) bench_fail(struct bench *b, const char *format, ...)
{
	va_list args;

	if (!b->has_failed) {
		b->has_failed = true;
		va_start(args, format);
		vsnprintf(b->problem, sizeof(b->problem), format, args);
		va_end(args);
		bench_report_clear(b);
		fprintf(b->err, "wsbind benchmark: %s\n", b->problem);
	}
	/*
	 * Every connection that is closed below reports its end: none of them fails a second time.
	 */
	if (b->phase != BENCH_CLOSING)
		bench_close_all(b);
}

static void bench_fail_echo(struct bench *b, const char *what)
{
	const char *path = b->target.request_path;
	bool is_root = path[1] == '\0' || path[1] == '?';

	/* "/" is the lobby: no server echoes there, so the URL is wrong as well. */
	bench_fail(
		b,
		"%s: the server does not echo on %s; set `echo_path = %s` in its configuration%s",
		what, path, is_root ? "/echo" : path, is_root ? " and add /echo to the URL" : "");
}

/* ----------------------------------------------------------------------- sending */

/* A place is used again by the number that is one window later, once nobody waits for this one. */
static uint32_t *bench_pending(struct bench *b, uint32_t publisher, uint32_t number)
{
	return &b->pending[publisher * b->options.window + number % b->options.window];
}

/* Sends the member's next message, if the window and the queue let it. */
static bool bench_send_one(struct bench *b, struct bench_member *m, uint64_t sent_ns)
{
	const struct bench_head head = {
		.run = b->run,
		.sent_ns = sent_ns,
		.publisher = m->index,
		.number = m->sent,
	};
	int r;

	if (m->sent >= m->quota)
		return false;
	/* The message one window before is still missing somewhere: here the loop closes. */
	if (*bench_pending(b, m->index, m->sent) > 0)
		return false;
	bench_template_set(&b->template, &head);
	r = endpoint_send(&m->endpoint, WS_BINARY, b->template.message.data,
			  b->template.message.len);
	if (r < 0)
		bench_fail(b, "%s", strerror(-r));
	if (r != 0)
		return false;
	/* Counted as sent from here on: its first delivery may come before the next look at it. */
	*bench_pending(b, m->index, m->sent) = b->receivers;
	m->sent++;
	b->sent++;
	return true;
}

static void bench_send(struct bench *b, struct bench_member *m)
{
	if (b->options.rate || b->phase != BENCH_RUNNING)
		return;
	while (bench_send_one(b, m, clock_now_ns())) {
	}
}

/* With a rate, messages have times at which they are due, and are late since then. */
static uint64_t bench_due_ns(const struct bench *b)
{
	return b->began_ns + (uint64_t)((double)b->sent * NS_PER_S / (double)b->options.rate);
}

static void bench_send_due(struct bench *b)
{
	uint64_t now = clock_now_ns();
	uint32_t tried = 0;

	/*
	 * Ends when all publishers in a row could not send: the rate is then more than the window
	 * lets.
	 */
	while (tried < b->options.publishers && b->sent < b->options.messages &&
	       bench_due_ns(b) <= now) {
		struct bench_member *m = &b->members[b->next_publisher];

		b->next_publisher = (uint32_t)((b->next_publisher + 1) % b->options.publishers);
		tried = bench_send_one(b, m, bench_due_ns(b)) ? 0 : tried + 1;
	}
}

static uint64_t bench_sleep_ns(const struct bench *b)
{
	uint64_t now = clock_now_ns();

	if (!b->options.rate || b->phase != BENCH_RUNNING || b->sent >= b->options.messages)
		return UINT64_MAX;
	/*
	 * What is overdue waits for the window; a delivery wakes the loop before the millisecond.
	 */
	return bench_due_ns(b) > now ? bench_due_ns(b) - now : NS_PER_MS;
}

/* ---------------------------------------------------------------------- receiving */

/* What was passed over counts: it may still come, but waiting for it would never end. */
static bool bench_is_complete(const struct bench *b)
{
	return b->sent == b->options.messages &&
	       b->stats.delivered + b->stats.missing == bench_expected(b);
}

/* Members that need not be waited for: one message was seen, or was passed over. */
static void bench_release(struct bench *b, uint32_t publisher, uint32_t number)
{
	uint32_t *pending = bench_pending(b, publisher, number);

	if (*pending > 0 && --*pending == 0)
		bench_send(b, &b->members[publisher]);
}

static void bench_take_delivery(struct bench *b, struct bench_member *m,
				const struct bench_head *head)
{
	uint64_t now = b->loop.read_ns;
	uint32_t passed;
	enum bench_seen seen =
		bench_stats_take(&b->stats, m->index, head->publisher, head->number, &passed);

	b->last_ns = now;
	if (seen == BENCH_NO_MEMORY) {
		bench_fail(b, "%s", strerror(ENOMEM));
		return;
	}
	/* Its first copy has been waited for and timed: a second one must not count down again. */
	if (seen == BENCH_DUPLICATE)
		return;
	hist_add(&b->latency, now > head->sent_ns ? now - head->sent_ns : 0);
	/* A late one was released when it was passed over. */
	if (seen == BENCH_NEW) {
		for (uint32_t i = passed; i < head->number; i++)
			bench_release(b, head->publisher, i);
		bench_release(b, head->publisher, head->number);
	}
	if (b->phase == BENCH_RUNNING && bench_is_complete(b))
		bench_close_all(b);
}

/* Whether a message is one of this run, and could be: everything that is used as an index. */
static bool bench_read_head(const struct bench *b, const uint8_t *data, size_t n,
			    struct bench_head *ret)
{
	if (n < sizeof(*ret))
		return false;
	memcpy(ret, data, sizeof(*ret));
	return ret->run == b->run && ret->publisher < b->options.publishers &&
	       ret->number < b->members[ret->publisher].sent && n == b->options.message_size;
}

bool bench_arrived(struct bench_member *m, const uint8_t *data, size_t n)
{
	struct bench *b = m->bench;
	struct bench_head head;
	bool is_own;

	if (!bench_read_head(b, data, n, &head))
		return false;
	is_own = head.publisher == m->index;
	/*
	 * An echo is to come back to who sent it and to nobody else; in fanout it is the reverse.
	 */
	if (is_own == b->options.is_echo)
		bench_take_delivery(b, m, &head);
	else
		b->own += is_own;
	return is_own || !b->options.is_echo;
}

static bool bench_scan_message(struct bench_member *m, const uint8_t *p, size_t n)
{
	const uint8_t *found;
	size_t found_n;

	return bench_scan(p, n, &found, &found_n) && bench_arrived(m, found, found_n);
}

const struct bench_dialect bench_dialect_wsbind = {
	.make = bench_template_init,
	.message = bench_scan_message,
};

static void bench_message(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n)
{
	struct bench_member *m = member_of(e);
	struct bench *b = m->bench;
	bool was_ours;

	b->heard_ns = b->loop.read_ns;
	/* Greetings and notices are no failure, unless the very first answer of an echo is one. */
	was_ours = opcode == WS_BINARY && b->dialect->message(m, data, n);
	if (!was_ours && b->options.is_echo && b->stats.delivered == 0)
		bench_fail_echo(b, "something else than an echo arrived");
}

/* ------------------------------------------------------------------------- phases */

static void bench_start(struct bench *b)
{
	b->phase = BENCH_RUNNING;
	b->usage.open_ns = bench_server_ns(b);
	b->began_ns = clock_now_ns();
	b->last_ns = b->began_ns;
	b->shown_ns = b->began_ns;
	for (uint64_t i = 0; i < b->options.publishers; i++)
		bench_send(b, &b->members[i]);
}

static void bench_opened(struct endpoint *e)
{
	struct bench *b = member_of(e)->bench;

	if (b->dialect->opened)
		b->dialect->opened(member_of(e));
	/* A connection that opens while others close already begins no other phase. */
	if (++b->n_open < b->options.clients || b->phase != BENCH_CONNECTING)
		return;
	b->phase = BENCH_AWAITING_SILENCE;
	b->began_ns = b->heard_ns = clock_now_ns();
	wheel_add(&b->loop.reactor.wheel, &b->watch, b->began_ns + BENCH_SILENCE_NS);
}

static void bench_writable(struct endpoint *e)
{
	bench_send(member_of(e)->bench, member_of(e));
}

static void bench_closed(struct endpoint *e, const struct endpoint_end *end)
{
	struct bench_member *m = member_of(e);
	struct bench *b = m->bench;
	char why[640];

	b->n_ended++;
	/* While all are closed, how each of them ends says nothing of the run. */
	if (b->phase == BENCH_CLOSING)
		return;
	bench_fail(b, "client %" PRIu32 " of %" PRIu64 ": %s", m->index + 1, b->options.clients,
		   endpoint_end_format(why, sizeof(why), end));
}

static bool time_has_passed(uint64_t now, uint64_t since, uint64_t ns)
{
	return now > since && now - since >= ns;
}

/* Looks after what doesn't happen: silence at the start, an echo or delivery that doesn't come. */
static void bench_watch_due(struct wheel_timer *t)
{
	struct bench *b = CONTAINER_OF(t, struct bench, watch);
	uint64_t now = clock_now_ns();
	bool is_echo_due = b->options.is_echo && b->stats.delivered == 0;

	/* Each may begin the next phase, so each looks at the phase again. */
	if (b->phase == BENCH_AWAITING_SILENCE &&
	    (time_has_passed(now, b->heard_ns, BENCH_SILENCE_NS) ||
	     time_has_passed(now, b->began_ns, BENCH_SILENCE_MAX_NS)))
		bench_start(b);
	if (b->phase == BENCH_RUNNING && is_echo_due &&
	    time_has_passed(now, b->began_ns, BENCH_ECHO_NS))
		bench_fail_echo(b, "no echo within 5 s");
	if (b->phase == BENCH_RUNNING && time_has_passed(now, b->last_ns, BENCH_STALL_NS))
		bench_fail(b, "nothing arrived for 10 s; %" PRIu64 " deliveries are missing",
			   bench_expected(b) - b->stats.delivered);
	wheel_add(&b->loop.reactor.wheel, t,
		  now + (b->phase == BENCH_AWAITING_SILENCE ? BENCH_SILENCE_NS : WATCH_NS));
}

static void bench_progress_due(struct wheel_timer *t)
{
	struct bench *b = CONTAINER_OF(t, struct bench, progress);

	bench_report_progress(b);
	wheel_add(&b->loop.reactor.wheel, t, clock_now_ns() + PROGRESS_NS);
}

static void bench_signalled(struct endpoint_loop *l)
{
	bench_fail(CONTAINER_OF(l, struct bench, loop), "interrupted");
}

/* ------------------------------------------------------------------------ running */

static int bench_prepare(struct bench *b)
{
	const struct bench_options *o = &b->options;
	uint64_t data = o->message_size + 64;
	const struct endpoint_limits limits = {
		.queue_bytes = (size_t)(o->window * data + 65536),
		.message_bytes = (size_t)MAX(data + 4096, b->config->max_message_size + 4096),
	};
	int r = endpoint_loop_init(&b->loop, &b->target, &limits);

	/* Whatever fails, the rest stays all-zero, which bench_fini() takes as well. */
	if (r == 0)
		r = endpoint_loop_on_signal(&b->loop, bench_signalled);
	system_random_bytes(&b->run, sizeof(b->run));
	if (r == 0)
		r = b->dialect->make(&b->template, (size_t)o->message_size, b->run);
	if (r == 0)
		r = bench_stats_init(&b->stats, (uint32_t)o->clients, (uint32_t)o->publishers,
				     bench_quota(o->messages, (uint32_t)o->publishers, 0));
	b->pending = calloc((size_t)(o->publishers * o->window), sizeof(*b->pending));
	b->members = calloc((size_t)o->clients, sizeof(*b->members));
	if (r == 0 && (!b->pending || !b->members))
		r = -ENOMEM;
	if (r < 0)
		fprintf(b->err, "wsbind benchmark: %s\n", strerror(-r));
	return r;
}

static void bench_connect(struct bench *b)
{
	static const struct endpoint_ops ops = {
		.opened = bench_opened,
		.message = bench_message,
		.writable = bench_writable,
		.closed = bench_closed,
	};
	const struct bench_options *o = &b->options;

	/*
	 * First of all, so that what the connections cost lies between this and the first message.
	 */
	b->usage.before_ns = bench_server_ns(b);
	b->receivers = o->is_echo ? 1 : (uint32_t)o->clients - 1;
	for (uint32_t i = 0; i < o->clients; i++) {
		struct bench_member *m = &b->members[i];

		m->bench = b;
		m->index = i;
		if (i < o->publishers)
			m->quota = bench_quota(o->messages, (uint32_t)o->publishers, i);
		endpoint_init(&m->endpoint, &b->loop, &ops);
		endpoint_connect(&m->endpoint);
	}
	wheel_timer_init(&b->watch, bench_watch_due);
	wheel_timer_init(&b->progress, bench_progress_due);
	if (isatty(fileno(b->err)))
		wheel_add(&b->loop.reactor.wheel, &b->progress, clock_now_ns() + PROGRESS_NS);
}

int bench_run(struct bench *b)
{
	if (bench_prepare(b) < 0)
		return EXIT_FAILURE;
	bench_connect(b);
	while (b->n_ended < b->options.clients) {
		int r = endpoint_loop_turn(&b->loop, bench_sleep_ns(b));

		if (r < 0) {
			fprintf(b->err, "wsbind benchmark: epoll: %s\n", strerror(-r));
			return EXIT_FAILURE;
		}
		/* Without a rate, deliveries and room in the queue are what sends the next ones. */
		if (b->options.rate && b->phase == BENCH_RUNNING)
			bench_send_due(b);
	}
	bench_report_clear(b);
	return 0;
}

void bench_fini(struct bench *b)
{
	/* After a failed turn some are not idle: the process ends, and nobody waits for them. */
	for (uint64_t i = 0; b->members && i < b->options.clients; i++)
		if (b->members[i].endpoint.state == ENDPOINT_IDLE)
			endpoint_fini(&b->members[i].endpoint);
	free(b->members);
	free(b->pending);
	bench_stats_fini(&b->stats);
	buf_fini(&b->template.message);
	endpoint_loop_fini(&b->loop);
	target_fini(&b->target);
}
