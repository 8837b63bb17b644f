/* SPDX-License-Identifier: MIT */
#include "wire/msg_caps.h"

#include <ctype.h>

#include "containers/buf.h"
#include "message.pb-c.h"
#include "test.h"
#include "wire/frame_variant.h"

TEST(msg_caps_have_names_and_bits)
{
	char *names[] = {(char[]){"gzip"}, (char[]){"ZSTD"}, (char[]){"ack"}, (char[]){"new"},
			 (char[]){"ack"}};
	const char *out[MSG_N_CAPS];

	CHECK_EQ(msg_caps_parse(names, ARRAY_LEN(names)), MSG_CAP_GZIP | MSG_CAP_ACK);
	CHECK_EQ(msg_caps_parse(NULL, 0), 0);
	CHECK_EQ(msg_caps_names(MSG_CAPS_ALL, out, 1), 1);
	CHECK_EQ(msg_caps_names(0, out, MSG_N_CAPS), 0);
	CHECK_EQ(msg_caps_names(MSG_CAP_LZ4, out, MSG_N_CAPS), 1);
	CHECK_STR(out[0], "lz4");
	CHECK_EQ(msg_caps_names(MSG_CAPS_ALL | 1u << 20, out, MSG_N_CAPS), MSG_N_CAPS);
}

/* What CONFIG says; clients of 0.1.0 have seen it so. */
TEST(msg_caps_are_named_in_order_of_preference)
{
	static const char *const want[] = {"zstd",      "gzip", "lz4",   "ack",
					   "heartbeat", "once", "resume"};
	const char *out[MSG_N_CAPS];

	CHECK_EQ(msg_caps_names(MSG_CAPS_ALL, out, MSG_N_CAPS), ARRAY_LEN(want));
	for (size_t i = 0; i < ARRAY_LEN(want); i++)
		CHECK_STR(out[i], want[i]);
}

static unsigned with_implied(unsigned cap)
{
	if (cap == MSG_CAP_RESUME)
		cap |= MSG_CAP_ONCE;
	return cap & MSG_CAP_ONCE ? cap | MSG_CAP_ACK : cap;
}

TEST(msg_caps_have_a_bit_and_a_name_of_their_own)
{
	unsigned seen = 0;

#define CHECK_ROW(NAME, name, bit)                                                \
	do {                                                                      \
		char word[] = #name;                                              \
		char *names[] = {word};                                           \
                                                                                  \
		CHECK(!(seen & MSG_CAP_##NAME));                                  \
		CHECK_EQ(msg_caps_parse(names, 1), with_implied(MSG_CAP_##NAME)); \
		CHECK((MSG_CAP_##NAME) <= UINT8_MAX); /* as conn keeps it */      \
		seen |= MSG_CAP_##NAME;                                           \
	} while (0);
	MSG_CAPS(CHECK_ROW)
#undef CHECK_ROW
	CHECK_EQ(seen, MSG_CAPS_ALL);
	CHECK(MSG_CAPS_CODECS ==
	      (MSG_CAPS_ALL & ~(MSG_CAP_ACK | MSG_CAP_HEARTBEAT | MSG_CAP_ONCE | MSG_CAP_RESUME)));
}

/* Each value of CompressionType has a codec of that name, which reads what it writes. */
TEST(msg_caps_have_every_compression_of_the_protocol)
{
	const ProtobufCEnumDescriptor *d = &websocket__compression_type__descriptor;
	static const char data[] = "the same words, the same words, the same words again";
	struct zip z = {0};

	CHECK_EQ(d->n_values, ZIP_N_KINDS);
	for (unsigned i = 0; i < d->n_values; i++) {
		unsigned kind = (unsigned)d->values[i].value;
		const char *name = zip_kind_name(kind);
		struct buf packed = {0}, out = {0};

		CHECK(name);
		CHECK_EQ(zip_is_codec(kind), kind != ZIP_NONE);
		for (size_t k = 0; kind != ZIP_NONE && d->values[i].name[k]; k++)
			CHECK_EQ(tolower((uint8_t)d->values[i].name[k]), name[k]);
		CHECK_EQ(zip_pack_kind(&z, (enum zip_kind)kind, 3, data, sizeof(data), &packed), 0);
		CHECK_EQ(zip_unpack(&z, (enum zip_kind)kind, packed.data, packed.len, sizeof(data),
				    &out),
			 0);
		CHECK_EQ(out.len, sizeof(data));
		CHECK_MEM(out.data, data, sizeof(data));
		buf_fini(&packed);
		buf_fini(&out);
	}
	CHECK(!zip_kind_name(ZIP_N_KINDS));
	CHECK(!zip_is_codec(ZIP_N_KINDS));
	zip_fini(&z);
}

/* Codecs and window alone tell receivers apart, each pair of them. */
TEST(msg_caps_and_windows_make_up_the_key_of_a_variant)
{
	bool seen[FRAME_N_VARIANT_KEYS] = {false};

	for (unsigned caps = 0; caps <= MSG_CAPS_ALL; caps++)
		for (enum deflate_window w = 0; w < DEFLATE_N_WINDOWS; w++) {
			unsigned key = frame_variant_key(caps, w);

			CHECK(key < FRAME_N_VARIANT_KEYS);
			CHECK_EQ(key, frame_variant_key(caps ^ MSG_CAP_ACK, w));
			CHECK_EQ(msg_caps_of_codec_set(key / DEFLATE_N_WINDOWS),
				 caps & MSG_CAPS_CODECS);
			CHECK_EQ(key % DEFLATE_N_WINDOWS, w);
			seen[key] = true;
		}
	for (size_t i = 0; i < FRAME_N_VARIANT_KEYS; i++)
		CHECK(seen[i]);
}
