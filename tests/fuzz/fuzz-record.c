/* SPDX-License-Identifier: MIT */
/*
 * What a process is left by the one before. Input: a byte of how many workers there are,
 * whether clients read at once and whether there is room for all, then records as wire/record has
 * them; head and checksum are made here, since nobody would guess them.
 *
 * Whatever the records say, restoring must not break anything: the invariants of channels
 * and lists hold, everybody who was made can read, write, publish and be handed over again,
 * and in the end everything is gone.
 */
#include "fuzz.h"

#include "rig.h"
#include "wire/record.h"

#define GUESTS 6
#define LIMITS "echo_path = /echo\nmax_frame_size = 4K\nmax_message_size = 64K\n"
#define KEEPS LIMITS "history_messages = 3\nslow_consumer = history\n"
#define TIGHT LIMITS "max_channels = 1\nmessage_queue_size = 1\nmax_send_buffer = 4K\n"

/* The records behind a head that is right. */
static struct record_writer wrap(const uint8_t *p, size_t n)
{
	struct record_writer w = rig_writer();

	WB_ASSERT(w.grow(&w, RECORD_HEAD_BYTES + n) == 0);
	w.len = RECORD_HEAD_BYTES + n;
	if (n)
		memcpy(w.data + RECORD_HEAD_BYTES, p, n);
	WB_ASSERT(record_finish(&w) == 0);
	return w;
}

/* Clients that came in one after the other, as cookies 1, 2, …; records may name any of them. */
static void greet(struct rig *r)
{
	for (unsigned i = 0; i < GUESTS; i++)
		(void)guest_open(r, 0, i % 2 ? "/a" : "/b");
}

static void poke(struct rig *r, struct guest *g)
{
	if (!g->conn)
		return;
	g->is_mute = true;
	guest_set_room(g, ROOM_FOR_ALL);
	guest_chat(g, "hello", NULL);
	rig_turn(r);
	if (g->conn)
		guest_send(g, true, 9, "ping", 4);
	rig_turn(r);
}

static void check_head(const uint8_t *data, size_t size)
{
	struct record_reader reader;

	/* As it is, without a head of ours. */
	(void)!record_open(&reader, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t what = fuzz_byte(&in);
	struct handover_report report;
	const char *config;
	struct record_writer records;
	struct rig *r;

	check_head(data, size);
	records = wrap(in.p, in.n);
	r = rig_new(1, LIMITS);
	greet(r);
	config = what & 0x40 ? TIGHT : what & 0x20 ? KEEPS : NULL;
	WB_ASSERT(rig_restore(r, 1 + what % 3, config, &records, &report) == 0);
	free(records.data);
	rig_check(r);
	if (what & 0x80)
		for (unsigned i = 0; i < r->n_guests; i++)
			guest_set_room(r->guests[i], 0);
	rig_pass(r, NS_PER_S + NS_PER_S / 10); /* what waits for whom is counted */
	rig_settle(r);
	rig_check(r);
	rig_hand_over(r, 1 + what / 4 % 3, NULL);
	for (unsigned i = 0; i < r->n_guests; i++)
		poke(r, r->guests[i]);
	rig_pass_in_steps(r, 3 * NS_PER_S, NS_PER_S);
	rig_settle(r);
	rig_check(r);
	rig_free(r);
	return 0;
}
