/* SPDX-License-Identifier: MIT */
/* What a client knows of how far it has got, by the rules of wsbind-protocol(7), Resuming. */
#include "client/position.h"

#include <errno.h>

#include "test.h"

/* What a server says, as decoded. */
struct told {
	Websocket__Position position[2], *list[2];
	Websocket__ControlMessage control;
};

static const Websocket__ControlMessage *tell(struct told *t, size_t n, uint64_t epoch,
					     uint64_t first, uint64_t last)
{
	websocket__control_message__init(&t->control);
	for (size_t i = 0; i < n; i++) {
		websocket__position__init(&t->position[i]);
		t->position[i].epoch = epoch;
		t->position[i].sequence = i == 0 ? first : last;
		t->list[i] = &t->position[i];
	}
	t->control.positions = t->list;
	t->control.n_positions = n;
	return &t->control;
}

enum said { SAYS_NOTHING, SAYS_FALSE, SAYS_TRUE };

static enum position_answer join(struct position *p, uint64_t epoch, uint64_t sequence,
				 enum said recovered)
{
	Websocket__Position said;

	websocket__position__init(&said);
	said.epoch = epoch;
	said.sequence = sequence;
	if (recovered != SAYS_NOTHING)
		said.has_recovered_case = WEBSOCKET__POSITION__HAS_RECOVERED_RECOVERED;
	said.recovered = recovered == SAYS_TRUE;
	return position_take_join(p, &said);
}

static void message(struct position *p, uint64_t sequence)
{
	Websocket__WebSocketMessage m;

	websocket__web_socket_message__init(&m);
	m.has_sequence_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_SEQUENCE_SEQUENCE;
	m.sequence = sequence;
	position_take_message(p, &m);
}

#define CHECK_AT(p, text) CHECK_STR(position_format((char[POSITION_TEXT]){0}, p), text)

TEST(position_is_set_by_what_the_page_names)
{
	struct position p = {0};
	struct told t;

	CHECK_AT(&p, "");
	CHECK_EQ(join(&p, 7, 10, SAYS_NOTHING), POSITION_BEGUN);
	CHECK_AT(&p, "7.10");
	message(&p, 12);
	CHECK_AT(&p, "7.12");
	CHECK(position_take_gap(&p, tell(&t, 2, 7, 12, 20)));
	CHECK_AT(&p, "7.20");
	position_take(&p, tell(&t, 1, 7, 25, 0));
	CHECK_AT(&p, "7.25");
	/* A gap that is told again with another epoch: the numbers begin anew. */
	CHECK(position_take_gap(&p, tell(&t, 2, 8, 0, 3)));
	CHECK_AT(&p, "8.3");
	message(&p, 4);
	CHECK_AT(&p, "8.4");
}

/* There is no function for it: it is no kind of what may be taken. */
TEST(position_is_not_set_by_what_is_none)
{
	struct position p = {0};
	struct told t;

	CHECK_EQ(join(&p, 7, 10, SAYS_NOTHING), POSITION_BEGUN);
	CHECK(!position_take_gap(&p, tell(&t, 1, 7, 30, 0)));
	position_take(&p, tell(&t, 0, 0, 0, 0));
	position_take(&p, tell(&t, 2, 7, 30, 31));
	CHECK_AT(&p, "7.10");
	CHECK(!p.has_missed);
}

/* A join's answer says where delivery begins, which may be before where one was. */
TEST(position_goes_where_the_answer_says)
{
	static const struct {
		uint64_t epoch, sequence;
		enum said recovered;
		enum position_answer answer;
		const char *at;
	} table[] = {
		{7, 10, SAYS_TRUE, POSITION_RECOVERED, "7.10"},
		{7, 4, SAYS_FALSE, POSITION_LOST, "7.4"},
		{9, 0, SAYS_FALSE, POSITION_LOST, "9.0"},
		{0, 0, SAYS_FALSE, POSITION_LOST, ""},
		{9, 1, SAYS_NOTHING, POSITION_LOST, "9.1"}, /* by who doesn't know the question */
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct position p = {.epoch = 7, .sequence = 10};

		CHECK_EQ(join(&p, table[i].epoch, table[i].sequence, table[i].recovered),
			 table[i].answer);
		CHECK_AT(&p, table[i].at);
		CHECK_EQ(p.has_missed, table[i].answer == POSITION_LOST);
	}
}

/* Until it was fetched from elsewhere, whatever later answers say. */
TEST(position_remembers_that_something_was_missed)
{
	struct position p = {.epoch = 7, .sequence = 10};
	struct told t;

	CHECK_EQ(join(&p, 8, 0, SAYS_FALSE), POSITION_LOST);
	position_leave(&p);
	CHECK_EQ(join(&p, 8, 0, SAYS_TRUE), POSITION_RECOVERED);
	CHECK(p.has_missed);
	p.has_missed = false;
	CHECK(position_take_gap(&p, tell(&t, 2, 8, 1, 2)));
	position_leave(&p);
	CHECK_EQ(join(&p, 8, 2, SAYS_TRUE), POSITION_RECOVERED);
	CHECK(p.has_missed);
}

/* What is on its way behind an UNSUBSCRIBE, or of a connection that is gone. */
TEST(position_counts_nothing_between_leaving_and_the_next_answer)
{
	struct position p = {0};
	struct told t;

	message(&p, 5);
	CHECK_AT(&p, "");
	CHECK_EQ(join(&p, 7, 10, SAYS_NOTHING), POSITION_BEGUN);
	position_leave(&p);
	message(&p, 11);
	CHECK(!position_take_gap(&p, tell(&t, 2, 7, 11, 12)));
	position_take(&p, tell(&t, 1, 7, 13, 0));
	CHECK_AT(&p, "7.10");
	CHECK_EQ(join(&p, 7, 10, SAYS_TRUE), POSITION_RECOVERED);
	message(&p, 11);
	CHECK_AT(&p, "7.11");
}

TEST(position_of_a_channel_without_history_is_none)
{
	struct position p = {0};
	struct told t;

	CHECK_EQ(position_take_join(&p, NULL), POSITION_BEGUN);
	message(&p, 5);
	CHECK_AT(&p, "");
	/* A reload turns it on, and off again. */
	position_take(&p, tell(&t, 1, 3, 0, 0));
	message(&p, 1);
	CHECK_AT(&p, "3.1");
	CHECK_EQ(position_take_join(&p, NULL), POSITION_UNCHANGED);
	CHECK_AT(&p, "3.1");
	position_take(&p, tell(&t, 1, 0, 0, 0));
	CHECK_AT(&p, "");
	CHECK(!p.has_missed);
	/* Gone while nobody was there: what was known of it has no value any more. */
	p = (struct position){.epoch = 3, .sequence = 1};
	CHECK_EQ(position_take_join(&p, NULL), POSITION_LOST);
	CHECK_AT(&p, "");
}

TEST(position_is_found_by_the_channel_of_a_message)
{
	struct position list[] = {{.channel = "a"}, {.channel = ""}, {.channel = "b/c"}};
	struct position home = {0};
	Websocket__WebSocketMessage m;

	websocket__web_socket_message__init(&m);
	CHECK(position_find(list, 3, &m) == &list[1]);
	m.has_channel_case = WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL;
	m.channel = (char[]){"b/c"};
	CHECK(position_find(list, 3, &m) == &list[2]);
	m.channel = (char[]){""};
	CHECK(position_find(list, 3, &m) == &list[1]);
	m.channel = (char[]){"c"};
	CHECK(!position_find(list, 3, &m));
	CHECK(position_find(&home, 1, &m) == &home);
}

TEST(position_is_read_from_a_text_and_written_as_one)
{
	static const char *const bad[] = {"",
					  ".",
					  "1",
					  "1.",
					  ".1",
					  "0.1",
					  "1.2.3",
					  "-1.2",
					  "1.-2",
					  " 1.2",
					  "1. 2",
					  "1.2x",
					  "0x1.2",
					  "a.b",
					  "1,2",
					  "18446744073709551616.1",
					  "1.18446744073709551616",
					  "11111111111111111111111111111111111111111111.1"};
	static const char most[] = "18446744073709551615.18446744073709551615";
	struct position p = {.epoch = 5, .sequence = 6};
	char query[POSITION_QUERY];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_EQ(position_parse(bad[i], strlen(bad[i]), &p), -EINVAL);
	CHECK_AT(&p, "5.6");
	CHECK_EQ(position_parse("12.0,13.1", 4, &p), 0);
	CHECK_AT(&p, "12.0");
	CHECK_EQ(position_parse(most, strlen(most), &p), 0);
	CHECK_AT(&p, most);
	p.rewind = UINT32_MAX;
	CHECK_STR(position_format_query(query, &p),
		  "since=18446744073709551615.18446744073709551615&rewind=4294967295");
	p.epoch = 0;
	CHECK_STR(position_format_query(query, &p), "rewind=4294967295");
	p.rewind = 0;
	CHECK_STR(position_format_query(query, &p), "");
}

TEST(position_fills_a_subscription)
{
	struct position p = {.channel = "a"};
	Websocket__Position said;

	CHECK(!position_fill(&p, &said));
	p.rewind = 3;
	CHECK(position_fill(&p, &said));
	CHECK_STR(said.channel, "a");
	CHECK(said.epoch == 0 && said.sequence == 0 && said.rewind == 3);
	p.epoch = 7;
	p.sequence = 8;
	CHECK(position_fill(&p, &said));
	CHECK(said.epoch == 7 && said.sequence == 8 && said.rewind == 3);
}
