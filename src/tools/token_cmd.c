/* SPDX-License-Identifier: MIT */
#include "tools/token_cmd.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"
#include "model/options.h"
#include "wire/token.h"

#define DEFAULT_EXP "1h"

struct token_options {
	const char *sub, *channels, *exp, *key;
	bool is_receive_only;
};

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct token_options, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION(0, "sub", TEXT, sub, 0, 0, "SUBJECT", "--sub SUBJECT",
	       "the user id of who comes with it"),
	OPTION(0, "channels", TEXT, channels, 0, 0, "PATTERNS", "[--channels PATTERN,...]",
	       "channels that it allows, commas between: room/*, a/**; all"),
	OPTION(0, "exp", TEXT, exp, 0, 0, "DURATION", NULL,
	       "how long it is good; " DEFAULT_EXP ", 0 for ever"),
	OPTION(0, "receive-only", FLAG, is_receive_only, 0, 0, NULL, NULL,
	       "it does not allow to publish"),
	OPTION(0, "key", TEXT, key, 0, 0, "[KID=]FILE", NULL,
	       "sign with this secret or PEM private key"),
};
#undef OPTION
/* clang-format on */

static const struct option_table token_option_table = {
	.command = "token",
	.about = "Prints a JSON Web Token signed with the first key of jwt_key_file.\n",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

static int token_fail(const char *what, const char *detail)
{
	fprintf(stderr, "wsbind token: %s%s\n", what, detail);
	return EXIT_FAILURE;
}

/* The token alone goes to standard output, so that it can be used in $(…). */
static int token_print(const struct token_options *o, const struct config *config)
{
	/* --key stands for the setting, which may name a public key that can't sign. */
	const char *files = o->key ? o->key : config->jwt_key_file;
	struct token_claims claims = {
		.sub = o->sub,
		.channels = o->channels,
		.audience = config->jwt_audience,
		.issuer = config->jwt_issuer,
		.may_publish = !o->is_receive_only,
	};
	struct file_set set = {.takes_any = true};
	struct token_keys *keys = NULL;
	char why[TOKEN_KEYS_WHY_MAX];
	uint64_t lifetime_ns;
	char *token;
	int r;

	if (text_parse_duration(o->exp, &lifetime_ns) < 0) {
		token_fail("--exp: not a duration: ", o->exp);
		return OPTIONS_EXIT_USAGE;
	}
	/* Without a lifetime the claim is left out, which verifiers take for "for ever". */
	if (lifetime_ns)
		claims.expires_s = clock_wall_ms() / 1000 + lifetime_ns / NS_PER_S;
	if (!files[0])
		return token_fail("no key: set jwt_key_file, or use --key", "");
	r = token_keys_new(files, &set, &keys, why);
	file_set_fini(&set);
	if (r < 0)
		return token_fail(why, "");
	/* The first key of the list alone signs; the others are there to verify. */
	token = token_make(keys, &claims);
	token_keys_free(keys);
	if (!token)
		return token_fail("the key has no private part to sign with: ", files);
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
	r = options_parse(&token_option_table, argv, &o, &source, stderr);
	if (r == OPTIONS_E_HELP) {
		options_print_help(&token_option_table, stdout);
		return EXIT_SUCCESS;
	}
	if (r == 0 && (!o.sub || !o.sub[0])) {
		token_fail("--sub is missing", "");
		r = OPTIONS_E_USAGE;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&token_option_table, &source, stderr, &config);
	if (r != 0)
		return r;
	r = token_print(&o, config);
	config_unref(config);
	return r;
}
