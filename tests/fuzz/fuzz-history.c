/* SPDX-License-Identifier: MIT */
/*
 * The file with what channels keep, as a process that has died may have left it. Input: what is
 * written over a file that is right, piece by piece: where, how many bytes, and those. A piece may
 * ask that the checksum beside it be right again, since nobody would guess it.
 *
 * Whatever the file says, taking it over must not break anything: what it brings can be read,
 * published to, looked for, dropped, and left to one more process.
 */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "channel/history.h"
#include "rig.h"
#include "wire/ws.h"

#define NOW (1000 * NS_PER_S)
#define CHANNELS 3
/* Behind the head and the map. */
#define FIRST_SPAN_OFFSET \
	((4096 + SHM_N_SPANS * sizeof(uint32_t)) / SHM_SPAN_BYTES * SHM_SPAN_BYTES + SHM_SPAN_BYTES)

static const char *const names[CHANNELS] = {"", "a", "room/7"};
static const struct history_limits limits = {
	.messages = 50, .bytes = 1 << 20, .age_ns = 3600 * NS_PER_S};

struct process {
	struct directory d;
	struct history h;
	_Atomic size_t account;
};

static bool limits_of(void *ctx, const char *name, struct history_limits *ret)
{
	(void)ctx;
	*ret = limits;
	return name[0] != 'x';
}

static struct process *process_new(int fd)
{
	struct process *p = calloc(1, sizeof(*p));
	struct history_recovery found;

	WB_ASSERT(p && directory_init(&p->d, 20) == 0);
	WB_ASSERT(history_init(&p->h, &p->d, &p->account, fd, 1) == 0);
	(void)history_take_over(&p->h, false, NOW, limits_of, NULL, &found);
	WB_ASSERT(found.error == 0);
	history_serve(&p->h);
	return p;
}

static void process_free(struct process *p)
{
	shm_heap_check(&p->h.file.heap);
	history_fini(&p->h);
	WB_ASSERT(p->account == 0);
	directory_fini(&p->d);
	free(p);
}

static void say(struct process *p, struct directory_entry *e, size_t n, uint8_t key)
{
	uint8_t *text = calloc(1, n + MSG_NUMBER_FIELD);
	struct frame *f = frame_new(WS_BINARY, n + MSG_NUMBER_FIELD, 4096, &p->account);
	struct history_once once = {.key.digest = key, .key.id = {key}};
	uint64_t workers;

	WB_ASSERT(text && f);
	msg_number_field(text + n, 0);
	frame_write(f, 0, text, n + MSG_NUMBER_FIELD);
	f->flags |= FRAME_NUMBERED | FRAME_CAN_DEFLATE;
	f->received_ns = NOW;
	(void)history_publish(&p->h, history_of(&p->h, e), f, key ? &once : NULL, &workers);
	frame_unref(f);
	free(text);
}

/* All that can be done with a channel. */
static void use_channel(struct process *p, const char *name)
{
	const struct history_since since = {.has_rewind = true, .rewind = UINT32_MAX};
	struct history_start start;
	struct directory_entry *e;
	uint64_t from;

	WB_ASSERT(directory_join(&p->d, name, strlen(name), 0, &e, &from) == 0);
	WB_ASSERT(history_hold(&p->h, e, &limits) == 0);
	WB_ASSERT(history_begin(&p->h, history_of(&p->h, e), &since, UINT64_MAX, NOW, &start) == 0);
	for (size_t i = 0; i < start.n; i++) {
		uint8_t *copy = malloc(frame_payload_len(start.frames[i]) + 1);

		WB_ASSERT(copy && (i == 0 || start.frames[i]->seq > start.frames[i - 1]->seq));
		WB_ASSERT(start.frames[i]->seq < start.last);
		frame_copy_payload(start.frames[i], copy);
		free(copy);
	}
	history_start_fini(&start);
	for (uint8_t i = 0; i < 12; i++)
		say(p, e, 70 * i, i % 4);
	history_release(&p->h, e);
	directory_leave(&p->d, e, 0);
}

/* A file that is right: small messages and large ones, some with keys. */
static void fill(struct process *p)
{
	for (unsigned c = 0; c < CHANNELS; c++) {
		struct directory_entry *e;
		uint64_t from;

		WB_ASSERT(directory_join(&p->d, names[c], strlen(names[c]), 0, &e, &from) == 0);
		WB_ASSERT(history_hold(&p->h, e, &limits) == 0);
		for (uint8_t i = 0; i < 6; i++)
			say(p, e, i == 5 ? 20000 : 10 * i, i % 3);
		history_release(&p->h, e);
		directory_leave(&p->d, e, 0);
	}
}

/* A message gets the mark that is right for what it says now. */
static void mark_again(void *ctx, struct shm_slot *slot)
{
	struct frame_kept *k = CONTAINER_OF(slot, struct frame_kept, slot);

	if ((uint32_t)slot->mark != FRAME_KEPT_MARK || !frame_kept_is_sound(ctx, k))
		return;
	k->bits |= FRAME_KEPT_SEALED;
	frame_kept_commit(&k->frame, k->epoch, k->before, frame_kept_key(k));
}

static void write_over(int fd, struct fuzz_input *in)
{
	struct shm_heap heap = {0};
	bool wants_marks = false;

	while (in->n > 4) {
		uint64_t at = fuzz_byte(in) | (uint64_t)fuzz_byte(in) << 8;
		uint8_t what = fuzz_byte(in);
		const uint8_t *bytes;
		size_t n = fuzz_take(in, what % 16 + 1, &bytes);

		/* The first page and the map, or the spans, which are the longer part. */
		at = what & 16 ? at : FIRST_SPAN_OFFSET + at * 4;
		if (n)
			WB_ASSERT(pwrite(fd, bytes, n, (off_t)at) == (ssize_t)n);
		wants_marks |= what & 32;
	}
	if (!wants_marks || shm_heap_open(&heap, fd, 1))
		return;
	if (shm_heap_adopt(&heap, false) == 0)
		shm_heap_each(&heap, mark_again, &heap);
	shm_heap_fini(&heap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct process *p;

	WB_ASSERT(fd >= 0);
	clock_set_for_test(NOW);
	p = process_new(fd);
	fill(p);
	/* Its file stays as it is now. */
	process_free(p);
	write_over(fd, &in);
	for (unsigned i = 0; i < 2; i++) {
		p = process_new(fd);
		for (unsigned c = 0; c < CHANNELS; c++)
			use_channel(p, names[c]);
		process_free(p);
	}
	close(fd);
	return 0;
}
