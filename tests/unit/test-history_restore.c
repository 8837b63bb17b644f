/* SPDX-License-Identifier: MIT */
/*
 * What the next process finds of what channels kept: whole, torn, full, and garbage. A process dies
 * here by having its file copied, at any moment: what comes behind that the copy does not know.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "channel/history.h"
#include "fault.h"
#include "rig.h"
#include "wire/ws.h"

#define NOW (1000 * NS_PER_S)
#define MAX_KEPT 5000

static const struct history_limits wide = {
	.messages = 1000000, .bytes = 1u << 30, .age_ns = 3600 * NS_PER_S};

/* A process, as far as history goes. */
struct process {
	struct directory d;
	struct history h;
	_Atomic size_t account;
	int fd;
	enum history_past past;
	struct history_recovery found;
};

static bool limits_of(void *ctx, const char *name, struct history_limits *ret)
{
	(void)ctx;
	*ret = wide;
	return strncmp(name, "none", 4) != 0;
}

static struct process *process_new(int fd, bool is_foreign, uint64_t now_ns)
{
	struct process *p = calloc(1, sizeof(*p));

	p->fd = fd;
	CHECK_EQ(directory_init(&p->d, 100), 0);
	CHECK_EQ(history_init(&p->h, &p->d, &p->account, fd, 2), 0);
	p->past = history_take_over(&p->h, is_foreign, now_ns, limits_of, NULL, &p->found);
	CHECK_EQ(p->found.error, 0);
	history_serve(&p->h);
	return p;
}

static struct process *process_begin(void)
{
	int fd = memfd_create("history", MFD_CLOEXEC);

	CHECK(fd >= 0);
	return process_new(fd, false, NOW);
}

static void process_free(struct process *p)
{
	int fd = p->fd;

	shm_heap_check(&p->h.file.heap);
	history_fini(&p->h);
	CHECK_EQ(p->account, 0);
	directory_fini(&p->d);
	free(p);
	close(fd);
}

/* It dies, and another one takes over; of what it would have done now nothing is seen. */
static struct process *process_die(struct process *p, uint64_t now_ns)
{
	struct rig as_rig = {.history_fd = p->fd};
	int fd = rig_copy_history(&as_rig);

	process_free(p);
	return process_new(fd, false, now_ns);
}

static struct directory_entry *open_channel(struct process *p, const char *name,
					    const struct history_limits *limits)
{
	struct directory_entry *e;
	uint64_t from;

	CHECK_EQ(directory_join(&p->d, name, strlen(name), 0, &e, &from), 0);
	CHECK_EQ(history_hold(&p->h, e, limits), 0);
	return e;
}

static void close_channel(struct process *p, struct directory_entry *e)
{
	history_release(&p->h, e);
	directory_leave(&p->d, e, 0);
}

static uint8_t text_of(uint64_t sequence)
{
	return (uint8_t)(sequence * 37);
}

/* A message of @n bytes beside its number, made as a client's is, or as an administrator's. */
static struct frame *make_message(struct process *p, size_t n, uint8_t byte, bool in_place,
				  bool has_key)
{
	size_t payload = n + MSG_NUMBER_FIELD;
	struct shm_heap *heap = &p->h.file.heap;
	struct shm_slot *slot = in_place ? frame_place(heap, payload, 1u << 16, has_key) : NULL;
	uint8_t number[MSG_NUMBER_FIELD], *text = malloc(n + 1);
	struct frame *f;

	if (slot && !shm_heap_commit(heap, slot, frame_kept_bytes(payload, 1u << 16, has_key)))
		shm_heap_free(heap, TAKE_PTR(slot));
	f = slot ? frame_new_kept(heap, slot, has_key, WS_BINARY, payload, 1u << 16, &p->account)
		 : frame_new(WS_BINARY, payload, 1u << 16, &p->account);
	msg_number_field(number, 0);
	memset(text, byte, n);
	frame_write(f, 0, text, n);
	frame_write(f, n, number, sizeof(number));
	f->flags |= FRAME_NUMBERED;
	f->received_ns = NOW;
	f->sender = byte;
	free(text);
	return f;
}

static uint64_t say_once(struct process *p, struct directory_entry *e, size_t n, bool in_place,
			 struct history_once *once)
{
	struct frame *f = make_message(p, n, text_of(directory_next_seq(e) + 1), in_place, once);
	uint64_t workers, sequence;

	sequence = history_publish(&p->h, history_of(&p->h, e), f, once, &workers);
	frame_unref(f);
	return sequence;
}

static uint64_t say(struct process *p, struct directory_entry *e, size_t n)
{
	return say_once(p, e, n, true, NULL);
}

/* All that is kept, as a member gets it; its bytes are right. Return: how many. */
static size_t read_all(struct process *p, struct directory_entry *e, uint64_t *ret_numbers)
{
	const struct history_since since = {.has_rewind = true, .rewind = UINT32_MAX};
	struct history_start start;
	size_t n;

	CHECK_EQ(history_begin(&p->h, history_of(&p->h, e), &since, UINT64_MAX, NOW, &start), 0);
	for (size_t i = 0; i < start.n; i++) {
		struct frame *f = start.frames[i];
		size_t bytes = frame_payload_len(f);
		uint8_t *payload = malloc(bytes), field[MSG_NUMBER_FIELD];

		frame_copy_payload(f, payload);
		for (size_t at = 0; at < bytes - MSG_NUMBER_FIELD; at++)
			CHECK_EQ(payload[at], text_of(f->seq + 1));
		msg_number_field(field, f->seq + 1);
		CHECK(memcmp(field, payload + bytes - sizeof(field), sizeof(field)) == 0);
		CHECK_EQ(f->sender, text_of(f->seq + 1));
		free(payload);
		if (ret_numbers)
			ret_numbers[i] = f->seq + 1;
	}
	n = start.n;
	history_start_fini(&start);
	return n;
}

/* What it says of itself, and what it has. */
struct picture {
	struct history_figures figures;
	uint64_t number[MAX_KEPT];
	size_t n;
};

static void take_picture(struct process *p, struct directory_entry *e, struct picture *ret)
{
	CHECK(history_look(history_of(&p->h, e)).messages <= MAX_KEPT);
	ret->n = read_all(p, e, ret->number);
	ret->figures = history_look(history_of(&p->h, e));
}

static void check_same(const struct picture *before, const struct picture *after)
{
	CHECK_EQ(after->figures.epoch, before->figures.epoch);
	CHECK_EQ(after->figures.earliest, before->figures.earliest);
	CHECK_EQ(after->figures.messages, before->figures.messages);
	CHECK_EQ(after->figures.bytes, before->figures.bytes);
	CHECK_EQ(after->n, before->n);
	CHECK(memcmp(after->number, before->number, before->n * sizeof(before->number[0])) == 0);
	/* Behind all that were given, and not far. */
	CHECK(after->figures.sequence >= before->figures.sequence);
	CHECK(after->figures.sequence <= before->figures.sequence + 3 * HISTORY_RESERVED);
}

/* ------------------------------------------------------------------------------- whole */

TEST(history_of_a_process_that_died_goes_on)
{
	static struct picture before, after;
	uint64_t random = test_seed();
	struct process *p = process_begin();
	const struct history_limits limits = {
		.messages = 200, .bytes = 100000, .age_ns = 3600 * NS_PER_S};
	struct directory_entry *e = open_channel(p, "room", &limits);

	for (unsigned round = 0; round < 60; round++) {
		for (uint64_t i = test_random(&random) % 100; i > 0; i--) {
			uint64_t workers;

			switch (test_random(&random) % 20) {
			case 0: /* a notice, or a relayed text */
				history_reserve(&p->h, e);
				(void)directory_take(e, &workers);
				break;
			case 1: /* too large to be kept */
				(void)say(p, e, 100001);
				break;
			case 2:
				(void)say_once(p, e, test_random(&random) % 2000, false, NULL);
				break;
			default:
				(void)say(p, e, test_random(&random) % 2000);
			}
		}
		take_picture(p, e, &before);
		close_channel(p, e);
		p = process_die(p, NOW + round * 120 * NS_PER_S);
		CHECK_EQ(p->past, HISTORY_PAST_CRASHED);
		CHECK_EQ(p->found.channels, 1);
		CHECK_EQ(p->found.torn, 0);
		CHECK_EQ(p->found.lost, 0);
		CHECK_EQ(p->found.messages, before.n);
		e = open_channel(p, "room", &limits);
		take_picture(p, e, &after);
		check_same(&before, &after);
	}
	close_channel(p, e);
	process_free(p);
}

TEST(history_of_many_channels_goes_on_each_by_itself)
{
	struct process *p = process_begin();
	struct directory_entry *e[30];
	uint64_t epoch[30];
	char name[30];

	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), i ? "channel/%u" : "", i);
		e[i] = open_channel(p, name, &wide);
		epoch[i] = history_of(&p->h, e[i])->epoch;
	}
	for (unsigned n = 0; n < 900; n++)
		(void)say(p, e[n % 30 % (n / 30 + 1)], n);
	for (unsigned i = 0; i < 30; i++)
		close_channel(p, e[i]);
	p = process_die(p, NOW);
	CHECK_EQ(p->found.channels, 30);
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), i ? "channel/%u" : "", i);
		e[i] = open_channel(p, name, &wide);
		CHECK_EQ(history_of(&p->h, e[i])->epoch, epoch[i]);
		(void)read_all(p, e[i], NULL);
		(void)say(p, e[i], 10);
		close_channel(p, e[i]);
	}
	process_free(p);
}

TEST(history_that_is_turned_off_is_dropped_by_the_next_process)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "none", &wide);
	uint64_t bytes;

	bytes = p->h.file.heap.bytes;
	for (unsigned n = 0; n < 1000; n++)
		(void)say(p, e, n % 100 ? 100 : 100000);
	/* And what was being made, or waited for, when it died. */
	CHECK(shm_heap_alloc(&p->h.file.heap, 1u << 20) != NULL);
	CHECK(p->h.file.heap.bytes > bytes + 1000000);
	close_channel(p, e);
	p = process_die(p, NOW);
	CHECK_EQ(p->found.channels, 0);
	CHECK_EQ(p->found.lost, 1);
	/* Its memory is given back. */
	CHECK(p->h.file.heap.bytes <= bytes + 2 * SHM_SPAN_BYTES);
	e = open_channel(p, "some", &wide);
	close_channel(p, e);
	process_free(p);
}

TEST(history_that_was_turned_on_by_a_reload_goes_on)
{
	for (unsigned said = 0; said < 2; said++) {
		struct process *p = process_begin();
		struct directory_entry *e;
		uint64_t epoch, workers;

		history_begin_reload(&p->h);
		e = open_channel(p, "room", &wide);
		epoch = history_of(&p->h, e)->epoch;
		/* Others don't know of the history yet. */
		for (unsigned i = 0; i < 3 * HISTORY_RESERVED; i++)
			(void)directory_take(e, &workers);
		history_settle(&p->h, NOW, limits_of, NULL);
		for (unsigned i = 0; i < said; i++)
			(void)say(p, e, 10);
		close_channel(p, e);
		p = process_die(p, NOW);
		CHECK_EQ(p->found.channels, 1);
		e = open_channel(p, "room", &wide);
		CHECK_EQ(history_of(&p->h, e)->epoch, epoch);
		CHECK_EQ(history_look(history_of(&p->h, e)).earliest, 3 * HISTORY_RESERVED);
		CHECK_EQ(read_all(p, e, NULL), said);
		CHECK(say(p, e, 10) > 3 * HISTORY_RESERVED + said);
		close_channel(p, e);
		process_free(p);
	}
}

TEST(history_that_a_reload_turned_off_is_no_place_any_more)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "room", &wide);
	uint64_t epoch = history_of(&p->h, e)->epoch, workers;

	for (unsigned i = 0; i < 10; i++)
		(void)say(p, e, 10);
	history_begin_reload(&p->h);
	history_end(&p->h, e);
	/* In the middle of it, while others publish as if there were none. */
	for (unsigned i = 0; i < 3 * HISTORY_RESERVED; i++)
		(void)directory_take(e, &workers);
	close_channel(p, e);
	p = process_die(p, NOW);
	CHECK_EQ(p->found.channels, 0);
	e = open_channel(p, "room", &wide);
	CHECK(history_of(&p->h, e)->epoch != epoch);
	CHECK_EQ(read_all(p, e, NULL), 0);
	close_channel(p, e);
	process_free(p);
}

TEST(history_knows_what_was_published_once_behind_a_crash)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "room", &wide);
	struct history_once once[50] = {{.is_resend = false}};

	for (unsigned i = 0; i < 50; i++) {
		once[i].key.digest = 1000 + i;
		once[i].key.id[0] = (uint8_t)i;
		CHECK_EQ(say_once(p, e, i, i % 2, &once[i]), i + 1);
		CHECK_EQ(once[i].outcome, HISTORY_PUBLISHED);
	}
	close_channel(p, e);
	p = process_die(p, NOW);
	e = open_channel(p, "room", &wide);
	for (unsigned i = 0; i < 50; i++) {
		CHECK_EQ(say_once(p, e, i, i % 2, &once[i]), i + 1);
		CHECK_EQ(once[i].outcome, HISTORY_DUPLICATE);
	}
	once[0].key.digest = 1;
	CHECK(say_once(p, e, 1, true, &once[0]) > 50);
	CHECK_EQ(once[0].outcome, HISTORY_PUBLISHED);
	close_channel(p, e);
	process_free(p);
}

/* -------------------------------------------------------------------------------- torn */

/* The slot of the message with this number. */
static struct frame_kept *kept_of(struct process *p, struct directory_entry *e, uint64_t number)
{
	const struct history_store *s = history_of(&p->h, e);

	for (uint32_t i = 0; i < s->n; i++)
		if (history_kept_at(&p->h, s, i)->frame.seq + 1 == number)
			return history_kept_at(&p->h, s, i);
	fail_msg("message %llu is not kept", (unsigned long long)number);
	return NULL;
}

enum tear {
	TEAR_BODY,
	TEAR_HEAD_OF_IT,
	TEAR_MARK,
	TEAR_AWAY,
	TEAR_CHAIN,
};

static void tear(struct process *p, struct frame_kept *k, enum tear how)
{
	switch (how) {
	case TEAR_BODY:
		k->frame.body.bytes[4] ^= 1;
		break;
	case TEAR_HEAD_OF_IT:
		k->frame.sender ^= 1;
		break;
	case TEAR_MARK:
		atomic_fetch_xor(&k->slot.mark, 1ULL << 40);
		break;
	case TEAR_AWAY:
		atomic_store(&k->slot.mark, 0);
		break;
	case TEAR_CHAIN:
		/* Right in itself, and out of the row. */
		frame_kept_commit(&k->frame, k->epoch, k->before - 2, NULL);
		break;
	}
	(void)p;
}

TEST(history_begins_behind_a_message_that_is_torn)
{
	for (enum tear how = TEAR_BODY; how <= TEAR_CHAIN; how++) {
		struct process *p = process_begin();
		struct directory_entry *e = open_channel(p, "room", &wide);
		uint64_t epoch = history_of(&p->h, e)->epoch, number[200];

		for (unsigned i = 0; i < 100; i++)
			(void)say(p, e, 100);
		tear(p, kept_of(p, e, 60), how);
		close_channel(p, e);
		p = process_die(p, NOW);
		CHECK_EQ(p->found.torn, 1);
		CHECK_EQ(p->found.channels, 1);
		e = open_channel(p, "room", &wide);
		CHECK_EQ(history_of(&p->h, e)->epoch, epoch);
		/* A wrong word about the one before it makes that one unbelievable, not itself. */
		CHECK_EQ(history_look(history_of(&p->h, e)).earliest, how == TEAR_CHAIN ? 57 : 60);
		CHECK_EQ(read_all(p, e, number), how == TEAR_CHAIN ? 41 : 40);
		CHECK_EQ(number[0], how == TEAR_CHAIN ? 60 : 61);
		(void)say(p, e, 10);
		close_channel(p, e);
		process_free(p);
	}
}

TEST(history_begins_anew_where_the_newest_message_is_torn)
{
	for (enum tear how = TEAR_BODY; how <= TEAR_AWAY; how++) {
		struct process *p = process_begin();
		struct directory_entry *e = open_channel(p, "room", &wide);
		uint64_t epoch = history_of(&p->h, e)->epoch;

		for (unsigned i = 0; i < 10; i++)
			(void)say(p, e, 100);
		tear(p, kept_of(p, e, 10), how);
		close_channel(p, e);
		p = process_die(p, NOW);
		CHECK(p->found.lost > 0);
		CHECK_EQ(p->found.channels, 0);
		e = open_channel(p, "room", &wide);
		CHECK(history_of(&p->h, e)->epoch != epoch);
		CHECK_EQ(read_all(p, e, NULL), 0);
		close_channel(p, e);
		process_free(p);
	}
}

/* It dies while it writes what is noted: the note before is whole, and what it says is there. */
TEST(history_note_that_is_half_written_is_the_one_before)
{
	for (unsigned field = 0; field < 4; field++) {
		struct process *p = process_begin();
		struct directory_entry *e = open_channel(p, "room", &wide);
		struct history_head *head = history_of(&p->h, e)->noted;
		uint64_t epoch = head->epoch;
		unsigned last;

		for (unsigned i = 0; i < 10; i++)
			(void)say(p, e, 100);
		last = !head->turn;
		switch (field) {
		case 0:
			head->copy[last].check = 0;
			break;
		case 1:
			head->copy[last].note.newest ^= 1;
			break;
		case 2:
			head->copy[last].note.earliest += 5;
			break;
		default:
			head->copy[last].note.reserved++;
		}
		close_channel(p, e);
		p = process_die(p, NOW);
		CHECK_EQ(p->found.channels, 1);
		CHECK_EQ(p->found.torn, 0);
		e = open_channel(p, "room", &wide);
		CHECK_EQ(history_of(&p->h, e)->epoch, epoch);
		/* Nobody has seen the tenth. */
		CHECK_EQ(read_all(p, e, NULL), 9);
		CHECK_EQ(history_of(&p->h, e)->newest, 9);
		/* Its number is never given again. */
		CHECK(say(p, e, 1) > 10);
		close_channel(p, e);
		process_free(p);
	}
}

TEST(history_begins_anew_where_its_place_is_torn)
{
	for (unsigned how = 0; how < 3; how++) {
		struct process *p = process_begin();
		struct directory_entry *e = open_channel(p, "room", &wide);
		struct directory_entry *other = open_channel(p, "other", &wide);
		struct history_head *head = history_of(&p->h, e)->noted;
		uint64_t epoch = head->epoch;

		for (unsigned i = 0; i < 10; i++) {
			(void)say(p, e, 100);
			(void)say(p, other, 100);
		}
		if (how == 0)
			head->copy[0].check = head->copy[1].check = 0;
		else if (how == 1)
			head->epoch ^= 1;
		else
			head->name[0] ^= 1;
		close_channel(p, e);
		close_channel(p, other);
		p = process_die(p, NOW);
		CHECK_EQ(p->found.channels, 1);
		e = open_channel(p, "room", &wide);
		CHECK(history_of(&p->h, e)->epoch != epoch);
		CHECK_EQ(read_all(p, e, NULL), 0);
		other = open_channel(p, "other", &wide);
		CHECK_EQ(read_all(p, other, NULL), 10);
		close_channel(p, e);
		close_channel(p, other);
		process_free(p);
	}
}

/* ----------------------------------------------------------------------- whose it is */

TEST(history_that_was_left_for_somebody_else_counts_for_nothing)
{
	for (unsigned how = 0; how < 2; how++) {
		struct process *p = process_begin();
		struct directory_entry *e = open_channel(p, "room", &wide);
		struct rig as_rig = {.history_fd = p->fd};
		uint64_t nonce;
		int fd;

		(void)say(p, e, 100);
		/*
		 * Handed over, and then somebody comes whom that says nothing; or who isn't meant.
		 */
		if (how == 0)
			CHECK_EQ(history_hand_over(&p->h, &nonce), 0);
		close_channel(p, e);
		fd = rig_copy_history(&as_rig);
		process_free(p);
		p = process_new(fd, how == 1, NOW);
		CHECK_EQ(p->past, HISTORY_PAST_FOREIGN);
		e = open_channel(p, "room", &wide);
		CHECK_EQ(read_all(p, e, NULL), 0);
		close_channel(p, e);
		process_free(p);
	}
}

TEST(history_that_kills_three_processes_is_set_aside)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "room", &wide);
	uint64_t now = NOW;

	(void)say(p, e, 100);
	close_channel(p, e);
	/* Each of those that took it over lives for less than a minute. */
	for (unsigned i = 0; i < 3; i++) {
		p = process_die(p, now);
		CHECK_EQ(p->past, HISTORY_PAST_CRASHED);
		CHECK_EQ(p->found.messages, 1);
		now += HISTORY_CRASH_NS - 1;
	}
	p = process_die(p, now);
	CHECK_EQ(p->past, HISTORY_PAST_SET_ASIDE);
	e = open_channel(p, "room", &wide);
	CHECK_EQ(read_all(p, e, NULL), 0);
	(void)say(p, e, 100);
	close_channel(p, e);
	/* Whoever lives longer has not died of it. */
	for (unsigned i = 0; i < 6; i++) {
		now += HISTORY_CRASH_NS;
		p = process_die(p, now);
		CHECK_EQ(p->past, HISTORY_PAST_CRASHED);
	}
	process_free(p);
}

/* -------------------------------------------------------------------------------- full */

TEST(history_without_pages_keeps_nothing_and_says_so)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "room", &wide);
	uint64_t epoch = history_of(&p->h, e)->epoch;
	struct history_figures figures;

	for (unsigned i = 0; i < 10; i++)
		(void)say(p, e, 100);
	/* A size that no span has room for. */
	fault_fail(FAULT_PAGES, 1, UINT64_MAX, ENOSPC);
	CHECK_EQ(say(p, e, 5000), 11);
	CHECK_EQ(say(p, e, 300000), 12);
	CHECK(fault_end(FAULT_PAGES) >= 2);
	figures = history_look(history_of(&p->h, e));
	CHECK_EQ(figures.messages, 0);
	CHECK_EQ(figures.earliest, 12);
	CHECK_EQ(say(p, e, 5000), 13);
	close_channel(p, e);
	p = process_die(p, NOW);
	e = open_channel(p, "room", &wide);
	CHECK_EQ(history_of(&p->h, e)->epoch, epoch);
	CHECK_EQ(history_look(history_of(&p->h, e)).earliest, 12);
	CHECK_EQ(read_all(p, e, NULL), 1);
	close_channel(p, e);
	process_free(p);
}

TEST(history_without_pages_gives_up_the_oldest_of_who_keeps_most)
{
	struct process *p = process_begin();
	struct directory_entry *most = open_channel(p, "most", &wide), *few, *one;
	struct history_figures figures;

	few = open_channel(p, "few", &wide);
	one = open_channel(p, "one", &wide);
	for (unsigned i = 0; i < 2000; i++)
		(void)say(p, most, 100);
	for (unsigned i = 0; i < 10; i++)
		(void)say(p, few, 100);
	/* From here on there is what is there. */
	fault_fail(FAULT_PAGES, 1, UINT64_MAX, ENOSPC);
	for (unsigned i = 0; i < 3000; i++)
		(void)say(p, one, 100);
	CHECK(fault_end(FAULT_PAGES) > 0);
	CHECK_EQ(history_look(history_of(&p->h, few)).messages, 10);
	figures = history_look(history_of(&p->h, most));
	CHECK(figures.messages > 500 && figures.earliest == 2000 - figures.messages);
	figures = history_look(history_of(&p->h, one));
	CHECK(figures.messages > 500 && figures.earliest == 3000 - figures.messages);
	shm_heap_check(&p->h.file.heap);
	close_channel(p, most);
	close_channel(p, few);
	close_channel(p, one);
	process_free(p);
}

TEST(history_file_has_no_resume_key_but_one_that_was_drawn)
{
	struct process *p = process_begin();
	const struct history_root *root = p->h.file.root;
	uint8_t key[HISTORY_RESUME_KEY_BYTES], found[HISTORY_RESUME_KEY_BYTES];
	struct siphash_key digest = {{1, 2}}, read = {{0, 0}};

	memset(key, 0x5a, sizeof(key));
	memset(found, 0, sizeof(found));
	history_file_set_keys(&p->h.file, &digest, key);
	p->h.file.has_past = true;
	CHECK(history_file_keys(&p->h.file, &read, found));
	CHECK_EQ(memcmp(found, key, sizeof(key)), 0);
	/* It is a file's from now on: nothing of the old one is left. */
	history_file_set_keys(&p->h.file, &digest, NULL);
	CHECK(!memmem(root, sizeof(*root), key, 4));
	memset(&read, 0, sizeof(read));
	CHECK(!history_file_keys(&p->h.file, &read, found));
	CHECK_EQ(read.half[1], 2);
	p->h.file.has_past = false;
	process_free(p);
}

TEST(history_place_without_pages_is_no_place_for_the_next_process)
{
	struct process *p = process_begin();
	struct directory_entry *e;
	uint64_t epoch;

	fault_fail(FAULT_PAGES, 1, UINT64_MAX, ENOSPC);
	e = open_channel(p, "room", &wide);
	CHECK(fault_end(FAULT_PAGES) > 0);
	CHECK(!history_of(&p->h, e)->noted);
	epoch = history_of(&p->h, e)->epoch;
	for (unsigned i = 0; i < 10; i++)
		(void)say(p, e, 100);
	CHECK_EQ(read_all(p, e, NULL), 10);
	close_channel(p, e);
	p = process_die(p, NOW);
	e = open_channel(p, "room", &wide);
	CHECK(history_of(&p->h, e)->epoch != epoch);
	CHECK_EQ(read_all(p, e, NULL), 0);
	close_channel(p, e);
	process_free(p);
}

/* Spans that have little left in them count: the file's bound holds, whatever is kept. */
TEST(history_file_stays_within_its_bound_when_it_is_in_pieces)
{
	const uint64_t memory = 8u << 20;
	struct process *p = process_begin();
	struct history_limits few = wide;
	struct directory_entry *holds = open_channel(p, "holds", &wide), *flows;

	few.messages = 200;
	flows = open_channel(p, "flows", &few);
	history_set_memory(&p->h, memory, 0);
	/* Of each size one message stays behind in each span that all others of it leave. */
	for (size_t n = 100; n < 12000; n += 150) {
		for (unsigned i = 0; i < 400; i++)
			(void)say(p, i % 40 ? flows : holds, n);
		CHECK(p->h.bytes <= memory);
		CHECK(p->h.file.heap.bytes <= memory + memory / 4 + (16u << 20));
	}
	CHECK(history_look(history_of(&p->h, flows)).messages > 0);
	close_channel(p, holds);
	close_channel(p, flows);
	process_free(p);
}

TEST(history_keeps_a_message_of_sixteen_megabytes)
{
	struct process *p = process_begin();
	struct directory_entry *e = open_channel(p, "room", &wide);
	uint64_t before = p->h.file.heap.bytes;

	for (unsigned i = 0; i < 3; i++)
		(void)say(p, e, 16u << 20);
	(void)say_once(p, e, 16u << 20, false, NULL);
	CHECK(p->h.file.heap.bytes > before + (64u << 20));
	close_channel(p, e);
	p = process_die(p, NOW);
	CHECK_EQ(p->found.messages, 4);
	e = open_channel(p, "room", &wide);
	CHECK_EQ(read_all(p, e, NULL), 4);
	history_set_memory(&p->h, 1u << 20, 0);
	(void)say(p, e, 1);
	CHECK(p->h.file.heap.bytes < before + (1u << 20));
	close_channel(p, e);
	process_free(p);
}
