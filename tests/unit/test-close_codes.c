/* SPDX-License-Identifier: MIT */
#include "model/close_codes.h"

#include <stdio.h>

#include "containers/buf.h"
#include "model/metrics.h"
#include "test.h"
#include "wire/ws.h"

TEST(close_codes_have_a_row_each_in_order)
{
	const struct close_code *rows;
	size_t n = close_codes_all(&rows);

	CHECK(n > 0);
	for (size_t i = 0; i < n; i++) {
		CHECK(i == 0 || rows[i - 1].code < rows[i].code);
		CHECK(close_code_find(rows[i].code) == &rows[i]);
		CHECK(rows[i].reason);
	}
}

/* What stands for something that no frame says may be in none; all others may. */
TEST(close_codes_that_are_sent_may_stand_in_a_frame)
{
	const struct close_code *rows;
	size_t n = close_codes_all(&rows);

	for (size_t i = 0; i < n; i++) {
		uint8_t out[WS_MAX_CONTROL];
		size_t len = ws_format_close(out, rows[i].code, NULL);

		CHECK_EQ(ws_close_code_is_valid(rows[i].code), rows[i].by != CLOSE_BY_NOBODY);
		if (rows[i].by == CLOSE_BY_NOBODY) {
			CHECK_EQ(len, 0);
			continue;
		}
		CHECK_EQ(len, 2 + strlen(rows[i].reason));
		CHECK_EQ(out[0] << 8 | out[1], rows[i].code);
		CHECK_MEM(out + 2, rows[i].reason, len - 2);
	}
}

TEST(close_codes_say_whose_fault_it_is)
{
	static const uint16_t fault[] = {1002, 1003, 1007, 1008, 1009, 1013};
	static const uint16_t no_fault[] = {0,    1000, 1001, 1005, 1006,
					    1010, 1011, 1012, 4001, 4003};

	for (size_t i = 0; i < ARRAY_LEN(fault); i++)
		CHECK(close_code_is_fault(fault[i]));
	for (size_t i = 0; i < ARRAY_LEN(no_fault); i++)
		CHECK(!close_code_is_fault(no_fault[i]));
}

/* As wsbind-protocol(7) has it for whoever writes a client. */
TEST(close_codes_say_how_a_client_comes_back)
{
	static const struct {
		uint16_t code;
		enum close_return client;
	} table[] = {
		{1000, CLOSE_RETURN_NOT},     {1001, CLOSE_RETURN_LATER},
		{1002, CLOSE_RETURN_NOT},     {1003, CLOSE_RETURN_NOT},
		{1005, CLOSE_RETURN_LATER},   {1006, CLOSE_RETURN_LATER},
		{1007, CLOSE_RETURN_NOT},     {1008, CLOSE_RETURN_NOT},
		{1009, CLOSE_RETURN_NOT},     {1011, CLOSE_RETURN_LATER},
		{1012, CLOSE_RETURN_LATER},   {1013, CLOSE_RETURN_LATER},
		{3999, CLOSE_RETURN_LATER},   {4000, CLOSE_RETURN_LATER},
		{4001, CLOSE_RETURN_AT_ONCE}, {4002, CLOSE_RETURN_ANEW},
		{4003, CLOSE_RETURN_FRESH},   {4400, CLOSE_RETURN_NOT},
		{4401, CLOSE_RETURN_FRESH},   {4403, CLOSE_RETURN_NOT},
		{4404, CLOSE_RETURN_NOT},     {4429, CLOSE_RETURN_LATER},
		{4503, CLOSE_RETURN_LATER},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		CHECK_EQ(close_code_find(table[i].code)->client, table[i].client);
	CHECK(close_code_is_refusal(4400) && close_code_is_refusal(4503));
	CHECK(!close_code_is_refusal(4003) && !close_code_is_refusal(4999));
}

static size_t count_of(const struct metrics *m, const char *code)
{
	const struct metrics *shards[] = {m};
	struct buf out = {0};
	char line[80];
	const char *at;
	size_t n;

	CHECK_EQ(metrics_render(shards, 1, &(struct metrics_extra){.ring_depth = NULL}, &out), 0);
	CHECK_EQ(buf_append(&out, "", 1, BUF_NO_LIMIT), 0);
	snprintf(line, sizeof(line), "\nwebsocket_closes_total{code=\"%s\"} ", code);
	at = strstr((const char *)out.data, line);
	CHECK(at);
	n = strtoul(at + strlen(line), NULL, 10);
	buf_fini(&out);
	return n;
}

/* Each by its own number but for 1005, with which a client says nothing, and unknown ones. */
TEST(close_codes_are_counted_under_their_number)
{
	struct metrics *m = aligned_alloc(WB_CACHELINE, sizeof(*m));
	const struct close_code *rows;
	size_t n = close_codes_all(&rows);

	CHECK(m);
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < n; i++) {
		char text[8];

		/* Of a handshake that is refused: no connection was open that could be counted. */
		if (close_code_is_refusal(rows[i].code))
			continue;
		metrics_count_close(m, rows[i].code);
		snprintf(text, sizeof(text), "%u", rows[i].code);
		CHECK_EQ(count_of(m, rows[i].code == WS_CODE_NO_STATUS ? "other" : text), 1);
	}
	metrics_count_close(m, 0);
	CHECK_EQ(count_of(m, "1006"), 2);
	metrics_count_close(m, 4321);
	CHECK_EQ(count_of(m, "other"), 2);
	free(m);
}

/* A state of 0.1.0 has the counters under these names. */
TEST(close_codes_keep_the_names_of_their_counters)
{
	static const char *const name[] = {
		"closed_1000", "closed_1001", "closed_1002", "closed_1003",  "closed_abnormal",
		"closed_1007", "closed_1008", "closed_1009", "closed_1011",  "closed_1012",
		"closed_1013", "closed_4001", "closed_4003", "closed_other",
	};
	struct metrics *m = aligned_alloc(WB_CACHELINE, sizeof(*m));

	CHECK(m);
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < ARRAY_LEN(name); i++)
		CHECK(metrics_restore(m, name[i], 1));
	free(m);
}
