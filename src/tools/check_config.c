/* SPDX-License-Identifier: MIT */
#include "tools/check_config.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "service/preflight.h"
#include "tools/arguments.h"
#include "tools/port_owner.h"

static const char usage[] =
	"usage: wsbind check-config [FILE] [--dump] [--config FILE] [--KEY=VALUE ...]\n"
	"       wsbind check-config --template\n"
	"\n"
	"Checks a configuration file (" CONFIG_DEFAULT_FILE " unless FILE is given), its\n"
	"drop-ins and the settings of the command line, without starting the daemon, and\n"
	"whether all that they name can be opened: keys, certificates, ports, folders.\n"
	"\n"
	"  --dump      print every key: value, origin, and how a reload applies it\n"
	"  --template  print a configuration file with every key and its default\n"
	"  --help      print this text\n"
	"\n"
	"Exit status: 0 when the configuration is valid, 78 when not; 2 wrong usage;\n"
	"1 otherwise.\n";

struct check_config_options {
	struct config_source source;
	bool dump, template;
};

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct check_config_options, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION(0, "dump", FLAG, dump, 0, 0, NULL, NULL, NULL),
	OPTION(0, "template", FLAG, template, 0, 0, NULL, NULL, NULL),
};
#undef OPTION
/* clang-format on */

static const struct option_table table = {
	.command = "check-config",
	.operand = "[FILE]",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

static bool has_only_defaults(const struct config *c)
{
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		if (c->origin[i])
			return false;
	return true;
}

static void check_config_praise(const struct check_config_options *o, const struct config *c,
				FILE *out)
{
	/* Named, so that nobody takes a check of the defaults for one of his file. */
	if (o->source.file || access(CONFIG_DEFAULT_FILE, F_OK) == 0)
		fprintf(out, "%s: the configuration is valid\n",
			o->source.file ? o->source.file : CONFIG_DEFAULT_FILE);
	else
		fprintf(out, "no " CONFIG_DEFAULT_FILE ": %s\n",
			has_only_defaults(c) ? "the defaults are valid"
					     : "what is set elsewhere is valid");
}

static bool is_ours(void *ctx, uint16_t port)
{
	return port_is_owned(ctx, port);
}

/* What the daemon would open, beside one that may be running. Return: as config_load(). */
static int check_config_open(struct config *c, FILE *err)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(ptr_freep) char *control = NULL;
	struct preflight_options o = {.is_ours = is_ours};
	struct policy *policy = NULL;
	char why[POLICY_WHY_MAX];
	const char *key, *note;
	int r = policy_new(c, NULL, NULL, &policy, &key, why);

	if (r == 0)
		r = config_control_socket_path(c, "/run/wsbind", &control);
	o.ctx = control;
	if (r == -EINVAL) {
		config_errors_add(&errors, "%s: %s", key, why);
		r = CONFIG_E_INVALID;
	} else if (r == 0) {
		r = preflight(policy, &o, &errors);
	}
	for (size_t at = 0; policy && (note = policy_next_note(policy, &at));)
		fprintf(err, "warning: %s\n", note);
	config_errors_print(&errors, "", err);
	policy_unref(policy);
	return r;
}

static int check_config_load(const struct check_config_options *o, FILE *out, FILE *err)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_unrefp) struct config *c = NULL;
	int r = config_load(&o->source, &c, &errors);

	if (r < 0) {
		fprintf(err, "wsbind: %s\n", strerror(-r));
		return 1;
	}
	/* Warnings as well: a valid configuration may have some. */
	config_errors_print(&errors, "", err);
	if (r == 0)
		r = check_config_open(c, err);
	if (r < 0) {
		fprintf(err, "wsbind: %s\n", strerror(-r));
		return 1;
	}
	if (r == CONFIG_E_INVALID)
		return EX_CONFIG;
	if (o->dump)
		return config_dump(c, out) < 0;
	check_config_praise(o, c, out);
	return fflush(out) != 0;
}

/* Errors of usage come with the whole help: who checks a file in a script sees what it takes. */
int check_config_run(char **argv, FILE *out, FILE *err)
{
	struct check_config_options o = {0};
	bool wants_help = false;
	const char *wrong =
		arguments_parse(&table, argv, &o, &o.source, &o.source.file, &wants_help);

	if (wrong) {
		fprintf(err, "wsbind check-config: %s: not understood, or its value is missing\n%s",
			wrong, usage);
		return OPTIONS_EXIT_USAGE;
	}
	/* The template needs no valid configuration: it is there to write one. */
	if (wants_help)
		return fputs(usage, out) < 0;
	if (o.template)
		return config_template(out) < 0;
	return check_config_load(&o, out, err);
}

int check_config_main(int argc, char **argv)
{
	(void)argc;
	return check_config_run(argv, stdout, stderr);
}
