/* SPDX-License-Identifier: MIT */
#include "tools/token_cmd.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "model/options.h"
#include "wire/token.h"

#define DEFAULT_EXP "1h"

static const char usage[] =
	"usage: wsbind token --sub SUBJECT [--channels PATTERN,...] [--exp DURATION]\n"
	"                    [--receive-only] [--key [KID=]FILE] [--config FILE] [--KEY=VALUE "
	"...]\n"
	"\n"
	"Prints a JSON Web Token signed with the first key of jwt_key_file.\n"
	"\n"
	"      --sub SUBJECT        the user id of who comes with it\n"
	"      --channels PATTERNS  channels that it allows, commas between: room/*, a/**; all\n"
	"      --exp DURATION       how long it is good; " DEFAULT_EXP ", 0 for ever\n"
	"      --receive-only       it does not allow to publish\n"
	"      --key [KID=]FILE     sign with this secret or PEM private key\n"
	"      --help               print this text\n";

struct token_options {
	const char *sub, *channels, *exp, *key;
	bool is_receive_only;
};

#define MEMBER(name) offsetof(struct token_options, name)
static const struct option_row rows[] = {
	{0, "sub", OPTION_TEXT, MEMBER(sub), 0, 0},
	{0, "channels", OPTION_TEXT, MEMBER(channels), 0, 0},
	{0, "exp", OPTION_TEXT, MEMBER(exp), 0, 0},
	{0, "receive-only", OPTION_FLAG, MEMBER(is_receive_only), 0, 0},
	{0, "key", OPTION_TEXT, MEMBER(key), 0, 0},
};
#undef MEMBER

static const struct option_table table = {"token", usage, rows, ARRAY_LEN(rows)};

static int fail(const char *what, const char *detail)
{
	fprintf(stderr, "wsbind token: %s%s\n", what, detail);
	return EXIT_FAILURE;
}

static int print(const struct token_options *o, const char *files)
{
	struct token_claims claims = {
		.sub = o->sub, .channels = o->channels, .may_publish = !o->is_receive_only};
	struct token_keys *keys;
	char why[TOKEN_WHY_MAX];
	uint64_t lifetime_ns;
	char *token;

	if (text_parse_duration(o->exp, &lifetime_ns) < 0) {
		fail("--exp: not a duration: ", o->exp);
		return OPTIONS_EXIT_USAGE;
	}
	if (lifetime_ns)
		claims.expires_s = clock_wall_ms() / 1000 + lifetime_ns / NS_PER_S;
	if (!files[0])
		return fail("no key: set jwt_key_file, or use --key", "");
	if (token_keys_new(files, &keys, why) < 0)
		return fail(why, "");
	token = token_make(keys, &claims);
	token_keys_free(keys);
	if (!token)
		return fail("the key has no private part to sign with: ", files);
	puts(token);
	free(token);
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int token_main(int argc, char **argv)
{
	struct token_options o = {.exp = DEFAULT_EXP};
	struct config_source source = {0};
	struct config *config;
	int r;

	(void)argc;
	r = options_parse(&table, argv, &o, &source, stderr);
	if (r == OPTIONS_E_HELP) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (r == 0 && (!o.sub || !o.sub[0])) {
		fail("--sub is missing", "");
		r = OPTIONS_E_USAGE;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&table, &source, stderr, &config);
	if (r != 0)
		return r;
	r = print(&o, o.key ? o.key : config->jwt_key_file);
	config_unref(config);
	return r;
}
