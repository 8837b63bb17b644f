/* SPDX-License-Identifier: MIT */
/* What channels keep: bounds, places, positions, and members that come back to them. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "channel/history.h"
#include "fault.h"
#include "rig.h"
#include "wire/ws.h"

/* ------------------------------------------------------------------------ the stores alone */

struct stores {
	struct directory d;
	struct history h;
	_Atomic size_t account;
};

static struct stores *stores_new(uint32_t max_channels)
{
	struct stores *s = calloc(1, sizeof(*s));

	CHECK_EQ(directory_init(&s->d, max_channels), 0);
	CHECK_EQ(history_init(&s->h, &s->d, &s->account, -1, 1), 0);
	return s;
}

static void stores_free(struct stores *s)
{
	history_fini(&s->h);
	CHECK_EQ(s->h.bytes, 0);
	CHECK_EQ(s->account, 0);
	CHECK_EQ(s->d.count, 0);
	directory_fini(&s->d);
	free(s);
}

#define NOW (1000 * NS_PER_S)

static const struct history_limits wide = {
	.messages = 1000000, .bytes = 1u << 30, .age_ns = 3600 * NS_PER_S};

/* A worker opens a channel with history. */
static struct directory_entry *open_channel(struct stores *s, const char *name,
					    const struct history_limits *limits)
{
	struct directory_entry *e;
	uint64_t from;

	CHECK_EQ(directory_join(&s->d, name, strlen(name), 0, &e, &from), 0);
	CHECK_EQ(history_hold(&s->h, e, limits), 0);
	return e;
}

static void close_channel(struct stores *s, struct directory_entry *e)
{
	history_release(&s->h, e);
	directory_leave(&s->d, e, 0);
}

/* A message of @n bytes beside its number. Return: its sequence. */
static uint64_t say(struct stores *s, struct directory_entry *e, size_t n, uint64_t now_ns)
{
	struct frame *f = frame_new(WS_BINARY, n + MSG_NUMBER_FIELD, 1u << 24, &s->account);
	uint64_t workers, sequence;

	f->flags |= FRAME_NUMBERED;
	f->received_ns = now_ns;
	sequence = history_publish(&s->h, history_of(&s->h, e), f, NULL, &workers);
	CHECK_EQ(workers, 1);
	CHECK_EQ(sequence, f->seq + 1);
	frame_unref(f);
	return sequence;
}

static struct history_figures look(struct stores *s, struct directory_entry *e)
{
	return history_look(history_of(&s->h, e));
}

struct model {
	struct {
		uint64_t sequence, bytes;
	} kept[4096];
	size_t n;
	uint64_t earliest, last, bytes;
};

static void model_drop(struct model *m)
{
	m->earliest = m->kept[0].sequence;
	m->bytes -= m->kept[0].bytes;
	memmove(m->kept, m->kept + 1, --m->n * sizeof(m->kept[0]));
}

static void model_say(struct model *m, const struct history_limits *l, uint64_t bytes)
{
	m->last++;
	if (bytes > l->bytes) {
		m->n = m->bytes = 0;
		m->earliest = m->last;
		return;
	}
	m->kept[m->n].sequence = m->last;
	m->kept[m->n++].bytes = bytes;
	m->bytes += bytes;
	while (m->n > l->messages || m->bytes > l->bytes)
		model_drop(m);
}

/* What somebody gets who says @since. */
static void check_begin(struct stores *s, struct directory_entry *e, const struct model *m,
			const struct history_since *since)
{
	struct history_store *store = history_of(&s->h, e);
	struct history_start start;
	bool is_known = since->epoch == store->epoch && since->sequence >= m->earliest &&
			since->sequence <= m->last;
	uint64_t from = m->last;
	size_t n = 0;

	if (since->has_position)
		from = is_known ? since->sequence : m->earliest;
	if (since->has_rewind && since->rewind && !(since->has_position && is_known))
		from = since->rewind <= m->n ? m->kept[m->n - since->rewind].sequence - 1
					     : m->earliest;
	CHECK_EQ(history_begin(&s->h, store, since, m->last, NOW, &start), 0);
	CHECK_EQ(start.epoch, store->epoch);
	CHECK_EQ(start.earliest, m->earliest);
	CHECK_EQ(start.last, m->last);
	CHECK_EQ(start.sequence, from);
	CHECK_EQ(start.recovered, !since->has_position ? HISTORY_NOT_ASKED
				  : is_known           ? HISTORY_RECOVERED
						       : HISTORY_NOT_RECOVERED);
	for (size_t i = 0; i < m->n; i++) {
		if (m->kept[i].sequence <= from)
			continue;
		CHECK(n < start.n);
		CHECK_EQ(start.frames[n++]->seq + 1, m->kept[i].sequence);
	}
	CHECK_EQ(n, start.n);
	history_start_fini(&start);
}

TEST(history_keeps_what_a_model_of_it_keeps)
{
	uint64_t random = test_seed();
	struct stores *s = stores_new(10);
	const struct history_limits limits = {
		.messages = 40, .bytes = 4000, .age_ns = 3600 * NS_PER_S};
	struct directory_entry *e = open_channel(s, "room", &limits);
	struct model m = {.n = 0};

	for (int i = 0; i < 20000; i++) {
		struct history_since since = {
			.has_position = test_random(&random) & 1,
			.has_rewind = test_random(&random) & 1,
			.epoch = history_of(&s->h, e)->epoch ^ (test_random(&random) % 4 == 0),
			.sequence = test_random(&random) % (m.last + 3),
			.rewind = (uint32_t)(test_random(&random) % 50),
		};
		uint64_t n = test_random(&random) % (i % 100 == 0 ? 5000 : 300), workers;

		if (i % 7 == 0) {
			/* A notice, or a relayed text: only a number. */
			(void)directory_take(e, &workers);
			m.last++;
		} else {
			CHECK_EQ(say(s, e, n, NOW), m.last + 1);
			/* Its head counts, too. */
			model_say(&m, &limits, frame_bytes_size(n + MSG_NUMBER_FIELD, SIZE_MAX));
		}
		CHECK_EQ(look(s, e).messages, m.n);
		CHECK_EQ(look(s, e).bytes, m.bytes);
		check_begin(s, e, &m, &since);
	}
	close_channel(s, e);
	stores_free(s);
}

TEST(history_drops_what_is_too_old)
{
	struct stores *s = stores_new(10);
	struct history_limits limits = wide;
	struct directory_entry *e;
	uint64_t now = NOW + 1000 * NS_PER_S;

	limits.age_ns = 10 * NS_PER_S;
	e = open_channel(s, "room", &limits);
	for (unsigned i = 0; i < 200; i++)
		(void)say(s, e, 10, now);
	CHECK_EQ(look(s, e).messages, 200);
	history_expire(&s->h, now + limits.age_ns, 10);
	CHECK_EQ(look(s, e).messages, 200);
	(void)say(s, e, 10, now + 5 * NS_PER_S);
	history_expire(&s->h, now + limits.age_ns + 1, 10);
	CHECK_EQ(look(s, e).messages, 1);
	CHECK_EQ(look(s, e).earliest, 200);
	/* Without members, too. */
	close_channel(s, e);
	history_expire(&s->h, now + 2 * limits.age_ns, 10);
	CHECK_EQ(s->h.n_messages, 0);
	stores_free(s);
}

TEST(history_memory_takes_from_the_silent_first_then_from_the_largest)
{
	struct stores *s = stores_new(100);
	struct directory_entry *small = open_channel(s, "small", &wide);
	struct directory_entry *large = open_channel(s, "large", &wide);
	struct directory_entry *silent[3];
	char name[10];

	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		silent[i] = open_channel(s, name, &wide);
		for (int n = 0; n < 10; n++)
			(void)say(s, silent[i], 1000, NOW);
	}
	/* In this order they fall silent. */
	close_channel(s, silent[1]);
	close_channel(s, silent[0]);
	for (int n = 0; n < 5; n++)
		(void)say(s, small, 1000, NOW);
	history_set_memory(&s->h, s->h.bytes, 0);
	(void)say(s, large, 5000, NOW);
	/* Those five thousand are of who was silent longest, and no others are touched. */
	CHECK(look(s, silent[1]).messages < 6);
	CHECK_EQ(look(s, silent[0]).messages, 10);
	for (int n = 0; n < 3; n++)
		(void)say(s, large, 5000, NOW);
	CHECK_EQ(look(s, silent[1]).messages, 0);
	CHECK_EQ(look(s, silent[2]).messages, 10);
	for (int n = 0; n < 10; n++)
		(void)say(s, large, 5000, NOW);
	/* Then it is the largest itself that pays. */
	CHECK_EQ(look(s, silent[0]).messages, 0);
	CHECK_EQ(look(s, silent[2]).messages, 10);
	CHECK_EQ(look(s, small).messages, 5);
	CHECK(look(s, large).messages < 14);
	CHECK(s->h.bytes <= s->h.max_bytes);
	/* Their places are there all the same. */
	CHECK_EQ(s->h.n_stores, 5);
	CHECK_EQ(look(s, silent[1]).sequence, 10);
	CHECK_EQ(look(s, silent[1]).earliest, 10);
	close_channel(s, small);
	close_channel(s, large);
	close_channel(s, silent[2]);
	/* At last the places go, too. */
	history_set_memory(&s->h, 2 * HISTORY_PLACE_BYTES, 0);
	close_channel(s, open_channel(s, "another", &wide));
	CHECK(s->h.n_stores <= 2);
	CHECK_EQ(s->h.n_messages, 0);
	stores_free(s);
}

TEST(history_remembers_as_many_places_as_there_may_be_channels)
{
	enum { MAX = 20 };
	struct stores *s = stores_new(MAX);
	struct directory_entry *e[MAX];
	uint64_t epoch[3 * MAX];
	char name[10];

	/* All places, and as many channels beside them. */
	for (int i = 0; i < 3 * MAX; i++) {
		struct directory_entry *one;

		snprintf(name, sizeof(name), "p%d", i);
		one = open_channel(s, name, &wide);
		(void)say(s, one, 10, NOW);
		epoch[i] = look(s, one).epoch;
		close_channel(s, one);
		CHECK_EQ(s->d.count, 0);
		CHECK_EQ(s->h.n_stores, MIN(i + 1, (int)MAX));
	}
	for (int i = 0; i < MAX; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		e[i] = open_channel(s, name, &wide);
	}
	CHECK_EQ(s->d.count, MAX);
	/* There is no room for a channel more, be it one that was there. */
	{
		struct directory_entry *more;
		uint64_t from;

		CHECK_EQ(directory_join(&s->d, "new", 3, 0, &more, &from), DIRECTORY_E_FULL);
		CHECK_EQ(directory_join(&s->d, name, strlen(name), 1, &more, &from), 0);
		directory_leave(&s->d, more, 1);
		snprintf(name, sizeof(name), "p%d", 3 * MAX - 1);
		CHECK_EQ(directory_join(&s->d, name, strlen(name), 0, &more, &from),
			 DIRECTORY_E_FULL);
	}
	for (int i = 0; i < MAX; i++)
		close_channel(s, e[i]);
	/* Those that fell silent last are what they were, the others begin anew. */
	for (int i = 0; i < 3 * MAX; i += 3 * MAX - 1) {
		snprintf(name, sizeof(name), "p%d", i);
		e[0] = open_channel(s, name, &wide);
		CHECK(look(s, e[0]).epoch != epoch[i] && look(s, e[0]).epoch);
		CHECK_EQ(look(s, e[0]).sequence, 0);
		close_channel(s, e[0]);
	}
	e[0] = open_channel(s, "c19", &wide);
	CHECK_EQ(look(s, e[0]).sequence, 0);
	close_channel(s, e[0]);
	stores_free(s);
}

static bool all_have_history(void *ctx, const char *name, struct history_limits *ret)
{
	(void)name;
	*ret = wide;
	return *(const bool *)ctx;
}

TEST(history_that_a_reload_turns_on_begins_once_all_workers_know)
{
	struct stores *s = stores_new(10);
	bool is_on = true;
	struct directory_entry *e;
	struct history_start start;
	uint64_t from, workers;

	CHECK_EQ(directory_join(&s->d, "room", 4, 0, &e, &from), 0);
	(void)directory_take(e, &workers);
	history_begin_reload(&s->h);
	CHECK_EQ(history_hold(&s->h, e, &wide), 0);
	/* One worker knows it, another one publishes as before. */
	{
		struct frame *f = frame_new(WS_BINARY, 100, 1000, &s->account);

		f->flags |= FRAME_NUMBERED;
		CHECK_EQ(history_publish(&s->h, history_of(&s->h, e), f, NULL, &workers), 0);
		frame_unref(f);
	}
	(void)directory_take(e, &workers);
	CHECK_EQ(history_begin(&s->h, history_of(&s->h, e), &(struct history_since){0}, 3, NOW,
			       &start),
		 0);
	CHECK_EQ(start.epoch, 0);
	CHECK_EQ(look(s, e).epoch, 0);
	history_settle(&s->h, NOW, all_have_history, &is_on);
	CHECK(look(s, e).epoch != 0);
	CHECK_EQ(look(s, e).earliest, 3);
	CHECK_EQ(look(s, e).messages, 0);
	CHECK_EQ(say(s, e, 10, NOW), 4);
	CHECK_EQ(look(s, e).messages, 1);
	/* And off: workers let go of it first. */
	is_on = false;
	history_begin_reload(&s->h);
	history_end(&s->h, e);
	history_release(&s->h, e);
	history_settle(&s->h, NOW, all_have_history, &is_on);
	CHECK(history_of(&s->h, e) == NULL);
	CHECK(!e->has_history);
	CHECK_EQ(s->h.bytes, 0);
	directory_leave(&s->d, e, 0);
	stores_free(s);
}

TEST(history_without_memory_is_honest)
{
	struct stores *s = stores_new(10);
	struct directory_entry *e;
	struct history_start start;
	uint64_t from;

	CHECK_EQ(directory_join(&s->d, "room", 4, 0, &e, &from), 0);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK_EQ(history_hold(&s->h, e, &wide), -ENOMEM);
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	CHECK_EQ(history_hold(&s->h, e, &wide), 0);
	(void)say(s, e, 10, NOW);
	/* One that cannot be kept takes all before it along. */
	for (unsigned i = 0; i < 7; i++)
		(void)say(s, e, 10, NOW);
	fault_fail(FAULT_ALLOC, 2, 1, ENOMEM); /* the frame itself comes first */
	(void)say(s, e, 10, NOW);
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	CHECK_EQ(look(s, e).messages, 0);
	CHECK_EQ(look(s, e).earliest, 9);
	(void)say(s, e, 10, NOW);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK_EQ(history_begin(&s->h, history_of(&s->h, e),
			       &(struct history_since){.has_rewind = true, .rewind = 1}, 10, NOW,
			       &start),
		 -ENOMEM);
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	history_start_fini(&start);
	close_channel(s, e);
	stores_free(s);
}

/* The process that follows may keep less: of what it keeps nothing is missing. */
TEST(history_restored_within_narrower_bounds_is_honest)
{
	static const size_t bytes[] = {10, 20, 5000, 30, 40};
	const struct history_limits narrow = {.messages = 10, .bytes = 1000, .age_ns = UINT64_MAX};
	/* The first of these isn't kept here, the second is. */
	static const struct history_key keys[] = {{.id = "first", .digest = 1},
						  {.id = "second", .digest = 2}};
	static const uint32_t keyed[] = {1, 4};
	struct history_saved saved = {
		.epoch = 77, .n = ARRAY_LEN(bytes), .n_keys = ARRAY_LEN(keyed)};
	struct frame *frame[ARRAY_LEN(bytes)];
	struct stores *s = stores_new(10);
	struct directory_entry *e;

	CHECK_EQ(directory_restore(&s->d, "room", 4, ARRAY_LEN(bytes), &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(bytes); i++) {
		frame[i] = frame_new(WS_BINARY, bytes[i] + MSG_NUMBER_FIELD, 1u << 24, &s->account);
		frame[i]->flags |= FRAME_NUMBERED;
		frame[i]->seq = i;
	}
	saved.frames = frame;
	saved.keys = keys;
	saved.keyed = keyed;
	CHECK_EQ(history_restore(&s->h, e, &narrow, &saved), 0);
	CHECK_EQ(look(s, e).epoch, 77);
	CHECK_EQ(look(s, e).messages, 2);
	CHECK_EQ(look(s, e).earliest, 3);
	CHECK_EQ(look(s, e).sequence, ARRAY_LEN(bytes));
	CHECK(!history_keys_find(history_of(&s->h, e)->keys, &keys[0]));
	CHECK_EQ(history_keys_find(history_of(&s->h, e)->keys, &keys[1])->seq, 4);
	for (size_t i = 0; i < ARRAY_LEN(bytes); i++)
		frame_unref(frame[i]);
	directory_unpin(&s->d, e);
	stores_free(s);
}

/* ------------------------------------------------------------- members that come back */

#define N_READERS 6
#define N_SAID 4096

/* What everybody in the channel may know of it: by place, whether it is a message. */
struct truth {
	bool is_message[N_SAID];
	uint64_t last;
	uint64_t epoch;
};

struct reader {
	struct guest *g;
	uint64_t at; /* its position */
	bool has_position;
	bool is_told; /* since it joined: of its position */
	bool is_slow; /* it looks at nothing: of a message there may be a part */
};

/* Up to @to nothing may be missing that was a message. */
static void check_complete(const struct truth *t, uint64_t from, uint64_t to)
{
	for (uint64_t i = from + 1; i <= to; i++)
		CHECK(!t->is_message[i]);
}

static void reader_take(struct reader *r, struct truth *t)
{
	const Websocket__WebSocketMessage *m;

	while (!r->is_slow && (m = guest_next_msg(r->g))) {
		const Websocket__Position *const *p = NULL;

		if (m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE) {
			if (m->has_sequence_case !=
			    WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE)
				continue; /* the welcome */
			CHECK(m->sequence > r->at);
			check_complete(t, r->at, m->sequence - 1);
			/* Of several at once some may be gone before said() looks. */
			t->is_message[m->sequence] = true;
			r->at = m->sequence;
			continue;
		}
		p = (const Websocket__Position *const *)m->control->positions;
		switch (m->control->type) {
		case WEBSOCKET__CONTROL_TYPE__CONFIG:
			CHECK_EQ(m->control->n_positions, 1);
			CHECK_EQ(p[0]->epoch, t->epoch);
			CHECK_EQ(p[0]->has_recovered_case ==
					 WEBSOCKET__POSITION__HAS_RECOVERED_RECOVERED,
				 r->has_position);
			if (r->has_position && p[0]->recovered)
				CHECK_EQ(p[0]->sequence, r->at);
			r->at = p[0]->sequence;
			r->is_told = true;
			break;
		case WEBSOCKET__CONTROL_TYPE__GAP:
			CHECK(r->is_told);
			check_complete(t, r->at, p[0]->sequence);
			CHECK(p[1]->sequence > p[0]->sequence);
			r->at = p[1]->sequence;
			break;
		case WEBSOCKET__CONTROL_TYPE__POSITION:
			CHECK(r->is_told);
			CHECK(p[0]->sequence >= r->at);
			check_complete(t, r->at, p[0]->sequence);
			r->at = p[0]->sequence;
			break;
		default:
			break; /* notices */
		}
	}
}

static void reader_join(struct rig *r, struct reader *one, const struct truth *t, uint64_t *random)
{
	char path[100], request[1024];

	one->has_position = one->is_told || one->has_position;
	one->is_told = one->is_slow = false;
	if (one->has_position)
		snprintf(path, sizeof(path), "/room?since=%llu.%llu", (unsigned long long)t->epoch,
			 (unsigned long long)one->at);
	else
		snprintf(path, sizeof(path), "/room?rewind=%u",
			 (unsigned)(test_random(random) % 20));
	one->g = guest_accept(r, (unsigned)(test_random(random) % r->n));
	guest_write(one->g, request, guest_handshake(request, sizeof(request), path));
	rig_turn(r);
	CHECK_EQ(guest_status(one->g), 101);
}

static void said(struct rig *r, struct truth *t)
{
	struct channel *ch = rig_channel(r, 0, "room");
	uint64_t last = directory_next_seq(ch->entry);
	const struct history_store *s = channel_store(ch);

	/* What nobody keeps was a notice: all that is kept lately is here. */
	for (uint32_t i = 0; i < s->n; i++)
		t->is_message[history_kept_at(&r->pool->shared.history, s, i)->frame.seq + 1] =
			true;
	CHECK(last < N_SAID);
	t->last = last;
	t->epoch = s->epoch;
}

/* Another process goes on, with all that was kept. */
static void hand_over(struct rig *r, unsigned workers, const char *config)
{
	struct history_figures before, after;

	rig_settle(r);
	before = history_look(channel_store(rig_channel(r, 0, "room")));
	rig_hand_over(r, workers, config);
	for (unsigned i = 0; i < workers; i++) {
		const struct channel *ch = rig_channel(r, i, "room");

		if (!ch)
			continue;
		after = history_look(channel_store(ch));
		CHECK_EQ(after.epoch, before.epoch);
		CHECK_EQ(after.sequence, before.sequence);
		CHECK_EQ(after.earliest, before.earliest);
		CHECK_EQ(after.messages, before.messages);
		CHECK_EQ(after.bytes, before.bytes);
	}
}

static void run_readers(const char *config, uint64_t *random)
{
	struct rig *r = rig_new(1 + (unsigned)(test_random(random) % 3), config);
	struct reader reader[N_READERS] = {0};
	struct truth *t = calloc(1, sizeof(*t));
	struct guest *speaker = guest_open(r, 0, "/room");

	said(r, t);
	for (int i = 0; i < N_READERS; i++)
		reader_join(r, &reader[i], t, random);
	for (int i = 0; i < 400; i++) {
		struct reader *one = &reader[test_random(random) % N_READERS];
		static char text[3000];

		memset(text, 'x', sizeof(text));
		text[test_random(random) % (sizeof(text) - 1)] = '\0';
		switch (test_random(random) % 8) {
		case 0:
			/* The link is cut: what was on its way is lost. */
			if (test_random(random) & 1) {
				said(r, t);
				reader_take(one, t);
			}
			guest_end(one->g);
			rig_turn(r);
			reader_join(r, one, t, random);
			break;
		case 1:
			one->is_slow = test_random(random) % 3 == 0;
			guest_set_room(one->g,
				       one->is_slow ? test_random(random) % 4000 : SIZE_MAX);
			rig_settle(r);
			break;
		case 2:
			rig_turn_one(r, (unsigned)(test_random(random) % r->n));
			break;
		case 3:
			if (test_random(random) % 8 == 0)
				hand_over(r, 1 + (unsigned)(test_random(random) % 3), config);
			break;
		default:
			guest_chat(speaker, text, NULL);
			break;
		}
		said(r, t);
		reader_take(one, t);
		rig_check(r);
	}
	/* Whoever reads on has it all. */
	for (int i = 0; i < N_READERS; i++) {
		reader[i].is_slow = false;
		guest_set_room(reader[i].g, SIZE_MAX);
	}
	rig_settle(r);
	said(r, t);
	for (int i = 0; i < N_READERS; i++) {
		reader_take(&reader[i], t);
		check_complete(t, reader[i].at, t->last);
	}
	free(t);
	rig_free(r);
}

#define COMMON "max_incoming_frames_per_second = 0\nslow_consumer_grace = 0\nwelcome = hello\n"

TEST(history_of_members_that_come_and_go_has_no_hole_that_is_not_told)
{
	uint64_t random = test_seed();

	for (int i = 0; i < 6; i++) {
		run_readers(COMMON "history_messages = 1000\nhistory_bytes = 16M\n"
				   "message_queue_size = 100000\nmax_send_buffer = 64M\n",
			    &random);
		run_readers(COMMON "history_messages = 8\nslow_consumer = skip\n"
				   "message_queue_size = 10\nmax_send_buffer = 8K\n",
			    &random);
		run_readers(COMMON "history_messages = 3\nslow_consumer = history\n"
				   "message_queue_size = 5\nmax_send_buffer = 8K\n",
			    &random);
	}
}

/* ---------------------------------------------------------------- published once */

/* A message of @n bytes that is to be published once. Return: as history_publish(). */
static uint64_t say_once(struct stores *s, struct directory_entry *e, size_t n,
			 struct history_once *once)
{
	struct frame *f = frame_new(WS_BINARY, n + MSG_NUMBER_FIELD, 1u << 24, &s->account);
	uint64_t workers, sequence;

	f->flags |= FRAME_NUMBERED;
	f->received_ns = NOW;
	sequence = history_publish(&s->h, history_of(&s->h, e), f, once, &workers);
	frame_unref(f);
	return sequence;
}

static struct history_once once_of(const char *id, uint64_t digest)
{
	struct history_once once = {.key.digest = digest, .outcome = HISTORY_E_NO_MEMORY};

	snprintf((char *)once.key.id, sizeof(once.key.id), "%s", id);
	return once;
}

TEST(history_publishes_the_same_message_once)
{
	static const struct history_limits three = {
		.messages = 3, .bytes = 1000, .age_ns = UINT64_MAX};
	struct stores *s = stores_new(10);
	struct directory_entry *e = open_channel(s, "room", &three);
	struct history_once a = once_of("a", 1), b = once_of("b", 1), c = once_of("a", 2);
	uint64_t place = atomic_load(&s->h.bytes), bytes;

	CHECK_EQ(say_once(s, e, 10, &a), 1);
	CHECK_EQ(a.outcome, HISTORY_PUBLISHED);
	bytes = atomic_load(&s->h.bytes);
	CHECK(bytes >= place + HISTORY_KEY_BYTES);
	CHECK_EQ(say_once(s, e, 10, &a), 1);
	CHECK_EQ(a.outcome, HISTORY_DUPLICATE);
	CHECK_EQ(atomic_load(&s->h.bytes), bytes);
	CHECK_EQ(look(s, e).sequence, 1);
	/* Neither another request_id nor other bytes are the same message. */
	CHECK_EQ(say_once(s, e, 10, &b), 2);
	CHECK_EQ(say_once(s, e, 10, &c), 3);
	CHECK_EQ(b.outcome, HISTORY_PUBLISHED);
	CHECK_EQ(c.outcome, HISTORY_PUBLISHED);
	/* The first goes for this one, which asks for nothing, and its key with it. */
	CHECK_EQ(say(s, e, 10, NOW), 4);
	CHECK_EQ(history_of(&s->h, e)->keys->n, 2);
	/*
	 * A resend whose client knew that the channel was still empty can't be answered any more.
	 */
	a.is_resend = true;
	a.known = 0;
	CHECK_EQ(say_once(s, e, 10, &a), 0);
	CHECK_EQ(a.outcome, HISTORY_UNKNOWN);
	CHECK_EQ(look(s, e).sequence, 4);
	/* What was sent first behind the earliest would be here. */
	a.known = look(s, e).earliest;
	CHECK_EQ(say_once(s, e, 10, &a), 5);
	CHECK_EQ(a.outcome, HISTORY_PUBLISHED);
	/* Too large to be kept: all that was known goes, and this one isn't known either. */
	CHECK_EQ(say_once(s, e, 2000, &(struct history_once){.key.digest = 9}), 6);
	CHECK(!history_of(&s->h, e)->keys);
	CHECK_EQ(atomic_load(&s->h.bytes), place);
	a.known = 5;
	CHECK_EQ(say_once(s, e, 10, &a), 0);
	CHECK_EQ(a.outcome, HISTORY_UNKNOWN);
	close_channel(s, e);
	stores_free(s);
}

/* A key that there is no memory for: the message isn't published, or nobody can ask for it. */
TEST(history_once_without_memory_is_honest)
{
	struct stores *s = stores_new(10);
	struct directory_entry *e = open_channel(s, "room", &wide);
	struct history_once once = once_of("a", 1);

	for (uint64_t k = 1, hits = 1; hits > 0; k++) {
		uint64_t before = look(s, e).sequence, sequence;
		struct frame *f =
			frame_new(WS_BINARY, 10 + MSG_NUMBER_FIELD, 1u << 24, &s->account);
		uint64_t workers;

		f->flags |= FRAME_NUMBERED;
		once.key.digest = k;
		fault_fail(FAULT_ALLOC, k, 1, ENOMEM);
		sequence = history_publish(&s->h, history_of(&s->h, e), f, &once, &workers);
		hits = fault_end(FAULT_ALLOC);
		frame_unref(f);
		if (hits == 0)
			break;
		if (once.outcome == HISTORY_E_NO_MEMORY) {
			CHECK_EQ(sequence, 0);
			CHECK_EQ(look(s, e).sequence, before);
			continue;
		}
		CHECK_EQ(once.outcome, HISTORY_PUBLISHED);
		CHECK_EQ(look(s, e).earliest, sequence);
		CHECK_EQ(look(s, e).messages, 0);
	}
	CHECK_EQ(once.outcome, HISTORY_PUBLISHED);
	CHECK_EQ(history_of(&s->h, e)->keys->n, 1);
	close_channel(s, e);
	stores_free(s);
}
