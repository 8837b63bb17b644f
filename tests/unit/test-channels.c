/* SPDX-License-Identifier: MIT */
/* Channels and messages made again of their records: what cannot be says why. */
#include "test.h"

#include <errno.h>

#include "fault.h"
#include "handover/channels.h"
#include "handover/record_ids.h"
#include "wire/ws.h"

static Record__Channel channel_record(const char *name, uint64_t from, uint64_t seq)
{
	Record__Channel s;

	record__channel__init(&s);
	s.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
	s.from = from;
	s.seq = seq;
	return s;
}

static int add(struct channels_in *in, struct directory *d, const char *name)
{
	const struct frames_in no_frames = {0};
	const Record__Channel s = channel_record(name, 7, 7);

	return channels_in_add(in, d, &s, &no_frames);
}

TEST(channels_in_say_why_one_cannot_be_made)
{
	const struct hub_log *log;
	struct directory d = {0};
	struct channels_in in = {0};

	CHECK_EQ(directory_init(&d, 2), 0);
	CHECK_EQ(add(&in, &d, "a"), 0);
	CHECK_EQ(add(&in, &d, "a"), RESTORE_E_UNFIT);
	CHECK_EQ(add(&in, &d, "no\xffname"), RESTORE_E_UNFIT);
	CHECK_EQ(channels_in_add(&in, &d, NULL, &(struct frames_in){0}), RESTORE_E_UNFIT);
	CHECK_EQ(add(&in, &d, ""), 0);
	CHECK_EQ(add(&in, &d, "b"), RESTORE_E_NO_ROOM);
	CHECK_EQ(in.n, 6); /* each has its id */
	CHECK_EQ(channels_in_get(&in, 1, &log), 0);
	CHECK_STR(log->entry->name, "a");
	CHECK_EQ(directory_next_seq(log->entry), 7);
	CHECK_EQ(channels_in_get(&in, 5, &log), 0);
	CHECK_STR(log->entry->name, "");
	for (uint32_t id = 0; id < 9; id++)
		CHECK_EQ(channels_in_get(&in, id, &log), id == 1 || id == 5 ? 0 : RESTORE_E_UNFIT);
	channels_in_fini(&in, &d);
	CHECK_EQ(atomic_load(&d.count), 0);
	directory_fini(&d);
}

/* Wherever memory runs out it is called that, and nothing is left of it. */
TEST(channels_in_without_memory)
{
	uint64_t hits = 1;

	for (uint64_t nth = 1; hits; nth++) {
		struct directory d = {0};
		struct channels_in in = {0};
		int r;

		CHECK_EQ(directory_init(&d, 2), 0);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		r = add(&in, &d, "a");
		hits = fault_end(FAULT_ALLOC);
		CHECK_EQ(r, hits ? -ENOMEM : 0);
		CHECK_EQ(atomic_load(&d.count), hits ? 0 : 1);
		channels_in_fini(&in, &d);
		directory_fini(&d);
	}
}

TEST(channels_in_take_the_messages_that_there_are)
{
	uint32_t ids[] = {2, 0, 9, 1};
	Record__Channel s = channel_record("a", 100, 104);
	const struct hub_log *log;
	_Atomic size_t account = 0;
	struct directory d = {0};
	struct channels_in in = {0};
	struct frames_in frames = {0};
	Record__Frame message;
	Record__Bytes body;

	CHECK_EQ(directory_init(&d, 2), 0);
	record__frame__init(&message);
	record__bytes__init(&body);
	message.opcode = WS_BINARY;
	message.messages = 1;
	message.flags = 0xff;
	message.body = &body;
	body.data = (ProtobufCBinaryData){4, (uint8_t *)(uintptr_t) "\x82\x02hi"};
	body.piece = 4;
	message.packed_with = ZIP_ZSTD;
	CHECK_EQ(frames_in_add(&frames, &message, &account), 0);
	CHECK_EQ(frames_in_add(&frames, &message, &account), 0);
	s.frame = ids;
	s.n_frame = ARRAY_LEN(ids);
	CHECK_EQ(channels_in_add(&in, &d, &s, &frames), 0);
	CHECK_EQ(channels_in_get(&in, 1, &log), 0);
	CHECK_EQ(log->from, 100);
	CHECK_EQ(log->n, 4);
	CHECK(log->frame[0] == frames_in_get(&frames, 2) && !log->frame[1] && !log->frame[2]);
	CHECK(log->frame[3] == frames_in_get(&frames, 1));
	CHECK_EQ(log->frame[3]->seq, 103);
	/* Those of a private queue mean nothing in a log. */
	CHECK(!(log->frame[3]->flags & (FRAME_CONTROL | FRAME_CLOSE)));
	channels_in_fini(&in, &d);
	frames_in_fini(&frames);
	CHECK_EQ(account, 0);
	/* Numbers that don't count up to the next one are of no log. */
	s.n_frame = 3;
	CHECK_EQ(channels_in_add(&in, &d, &s, &frames), RESTORE_E_UNFIT);
	s.n_frame = 0;
	s.from = 105;
	CHECK_EQ(channels_in_add(&in, &d, &s, &frames), RESTORE_E_UNFIT);
	channels_in_fini(&in, &d);
	directory_fini(&d);
}

TEST(frames_in_count_those_that_cannot_be_made)
{
	_Atomic size_t account = 0;
	struct frames_in in = {0};
	Record__Frame bodiless;

	record__frame__init(&bodiless);
	CHECK_EQ(frames_in_add(&in, NULL, &account), RESTORE_E_UNFIT);
	CHECK_EQ(frames_in_add(&in, &bodiless, &account), RESTORE_E_UNFIT);
	CHECK_EQ(in.n, 2);
	for (uint32_t id = 0; id < 4; id++)
		CHECK(!frames_in_get(&in, id));
	frames_in_fini(&in);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK_EQ(frames_in_add(&in, NULL, &account), -ENOMEM);
	(void)fault_end(FAULT_ALLOC);
	CHECK_EQ(in.n, 0);
}

TEST(frames_out_give_each_message_one_id)
{
	_Atomic size_t account = 0;
	struct frames_out out = {0};
	struct frame *f[3];
	const struct frame_bytes *packed;

	for (size_t i = 0; i < ARRAY_LEN(f); i++)
		f[i] = frame_new(WS_BINARY, 2, 100, &account);
	CHECK(frames_out_add(&out, f[0]) && frames_out_add(&out, f[1]));
	CHECK(frames_out_add(&out, f[0]));
	CHECK_EQ(out.n, 2);
	CHECK_EQ(frames_out_id(&out, f[0]), 1);
	CHECK_EQ(frames_out_id(&out, f[1]), 2);
	CHECK_EQ(frames_out_id(&out, f[2]), 0);
	packed = frame_set_variant(f[1], FRAME_VARIANT_PACKED, (const uint8_t *)"\x82\x01x", 3, 3);
	CHECK(packed != NULL);
	CHECK_EQ(frames_out_add_variant(&out, f[1], packed), 0);
	CHECK_EQ(frames_out_add_variant(&out, f[0], &f[0]->body), 0);
	CHECK_EQ(frames_out_add(&out, f[1])->variants, 1u << FRAME_VARIANT_PACKED);
	CHECK_EQ(frames_out_add(&out, f[0])->variants, 0);
	CHECK_EQ(frame_variant_id(f[1], packed), FRAME_VARIANT_PACKED + 1);
	CHECK(frame_variant_of_id(f[1], FRAME_VARIANT_PACKED + 1) == packed);
	CHECK(frame_variant_of_id(f[1], 0) == &f[1]->body);
	CHECK(!frame_variant_of_id(f[1], FRAME_N_VARIANTS) &&
	      !frame_variant_of_id(f[1], FRAME_N_VARIANTS + 1));
	frames_out_fini(&out);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	CHECK(!frames_out_add(&out, f[0]));
	(void)fault_end(FAULT_ALLOC);
	for (size_t i = 0; i < ARRAY_LEN(f); i++)
		frame_unref(f[i]);
	CHECK_EQ(account, 0);
}
