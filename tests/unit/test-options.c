/* SPDX-License-Identifier: MIT */
#include "model/options.h"

#include <errno.h>
#include <stdio.h>

#include "test.h"

struct values {
	bool flag;
	const char *text;
	uint64_t count, size;
};

#define OPTION(...) OPTION_ROW(struct values, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION('f', "flag", FLAG, flag, 0, 0, NULL, NULL, "says yes"),
	OPTION('t', "text", TEXT, text, 0, 0, "WORD", NULL, "a word\nor none"),
	OPTION('c', "count", COUNT, count, 2, 10, "N", "-c COUNT", "how many"),
	OPTION(0, "size", SIZE, size, 0, 1 << 20, "BYTES", NULL, "how large"),
};
#undef OPTION

static const struct option_table table = {
	.command = "thing",
	.operand = "[FILE]",
	.about = "Does things.\n",
	.ending = "That is all.\n",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

struct parsed {
	struct values v;
	struct config_source source;
	char said[512];
};

/* @line: arguments with blanks between. */
static int parse(const char *line, struct parsed *ret)
{
	static char copy[512];
	char *argv[32] = {(char[]){"thing"}}, *save = NULL;
	FILE *err = fmemopen(ret->said, sizeof(ret->said), "w");
	size_t n = 1;
	int r;

	memset(&ret->v, 0, sizeof(ret->v));
	memset(&ret->source, 0, sizeof(ret->source));
	ret->said[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[n++] = word;
	r = options_parse(&table, argv, &ret->v, &ret->source, err);
	fclose(err);
	return r;
}

TEST(options_are_read_in_all_their_forms)
{
	struct parsed p;

	CHECK_EQ(parse("", &p), 0);
	CHECK(!p.v.flag && !p.v.text && !p.v.count);
	for (size_t i = 0; i < 3; i++) {
		static const char *const line[] = {
			"-f -t abc -c 7 --size 4K",
			"--flag --text abc --count 7 --size 4096",
			"--text=abc -c7 --flag --size=4K",
		};

		CHECK_EQ(parse(line[i], &p), 0);
		CHECK(p.v.flag);
		CHECK_STR(p.v.text, "abc");
		CHECK_EQ(p.v.count, 7);
		CHECK_EQ(p.v.size, 4096);
	}
	CHECK_EQ(parse("--text= -c 2", &p), 0);
	CHECK_STR(p.v.text, "");
	CHECK_EQ(parse("-c 2 -c 10", &p), 0);
	CHECK_EQ(p.v.count, 10);
}

TEST(options_help_wins_over_what_follows)
{
	struct parsed p;

	CHECK_EQ(parse("--help", &p), OPTIONS_E_HELP);
	CHECK_EQ(parse("-f -h --nonsense", &p), OPTIONS_E_HELP);
}

/* Each says what is wrong, naming the argument. */
TEST(options_that_are_wrong_are_named)
{
	static const struct {
		const char *line, *named;
	} wrong[] = {
		{"--count 1", "from 2 to 10"},
		{"--count 11", "11"},
		{"-c x", "--count x"},
		{"-c -3", "-3"},
		{"-c 3.5", "3.5"},
		{"--size 2M", "2M"},
		{"--text", "--text"},
		{"-t", "-t"},
		{"--flag=yes", "--flag=yes"},
		{"extra", "extra"},
		{"-", "-"},
		{"--nothing", "--nothing"},
		{"-x", "-x"},
		{"--texture a", "--texture"},
		{"-fx", "-fx"},
		{"--config", "--config"},
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct parsed p;

		CHECK_EQ(parse(wrong[i].line, &p), OPTIONS_E_USAGE);
		CHECK(strstr(p.said, wrong[i].named));
		CHECK(strstr(p.said, "wsbind thing"));
	}
}

TEST(options_leave_the_configuration_its_own)
{
	struct parsed p;

	CHECK_EQ(parse("--config f.conf -f --reconnect-attempts=3 --max_message_size 1M", &p), 0);
	CHECK(p.v.flag);
	CHECK_STR(p.source.file, "f.conf");
	CHECK_EQ(p.source.n_overrides, 2);
}

TEST(options_load_takes_what_the_command_line_says)
{
	struct config *c = NULL;
	struct parsed p;

	CHECK_EQ(parse("--config=/dev/null --reconnect-attempts=3", &p), 0);
	CHECK_EQ(options_load(&table, &p.source, stderr, &c), 0);
	CHECK_EQ(c->reconnect_attempts, 3);
	config_unref(c);
}

TEST(options_load_refuses_what_is_wrong_and_says_so)
{
	static const char *const lines[] = {
		"--config=/dev/null --reconnect-attempts=many",
		"--config=/dev/null --no-such-key=1",
		"--config=/no/such/file",
		"--reconnect-attempts=many",
		"--config=/dev/null --reconnect-attempts=\xff",
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		char said[1024] = "";
		FILE *err = fmemopen(said, sizeof(said), "w");
		struct config *c = NULL;
		struct parsed p;

		CHECK_EQ(parse(lines[i], &p), 0);
		CHECK_EQ(options_load(&table, &p.source, err, &c), OPTIONS_EXIT_CONFIG);
		fclose(err);
		CHECK(strstr(said, "wsbind thing: "));
		CHECK(!strstr(said, "\xff"));
		CHECK(!c);
	}
}

TEST(options_help_is_made_of_the_rows)
{
	char text[1024] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	options_print_help(&table, out);
	fclose(out);
	CHECK_STR(text, "usage: wsbind thing [--flag] [-t WORD] -c COUNT [--size BYTES] [FILE] "
			"[--config FILE]\n"
			"                    [--KEY=VALUE ...]\n"
			"\n"
			"Does things.\n"
			"\n"
			"  -f, --flag        says yes\n"
			"  -t, --text WORD   a word\n"
			"                    or none\n"
			"  -c, --count N     how many\n"
			"      --size BYTES  how large\n"
			"      --help        print this text\n"
			"\n"
			"That is all.\n");
}

TEST(options_are_taken_one_by_one_for_who_words_it_himself)
{
	static const struct {
		const char *arg;
		enum option_outcome outcome;
		int taken;
	} cases[] = {
		{"-f", OPTION_TAKEN, 1},           {"--port=1", OPTION_TAKEN, 1},
		{"-h", OPTION_IS_HELP, 0},         {"file", OPTION_IS_OPERAND, 0},
		{"-", OPTION_IS_OPERAND, 0},       {"--no-such-option", OPTION_IS_UNKNOWN, 0},
		{"--text", OPTION_LACKS_VALUE, 0}, {"--flag=1", OPTION_TAKES_NO_VALUE, 0},
		{"-c1", OPTION_IS_WRONG, 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *const argv[] = {(char *)(uintptr_t)cases[i].arg, NULL};
		struct config_source source = {0};
		struct values v = {0};
		char said[256] = "";
		FILE *err = fmemopen(said, sizeof(said), "w");
		int at = 0;

		CHECK_EQ(options_take(&table, argv, &at, &v, &source, err), cases[i].outcome);
		fclose(err);
		CHECK_EQ(at, cases[i].taken);
		CHECK_EQ(said[0] != '\0', cases[i].outcome == OPTION_IS_WRONG);
	}
}
