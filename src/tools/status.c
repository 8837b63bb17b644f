/* SPDX-License-Identifier: MIT */
#include "tools/status.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/text.h"
#include "model/config.h"
#include "tools/status_http.h"
#include "tools/status_json.h"
#include "tools/status_print.h"

#define EXIT_USAGE 2
#define RUNTIME_DIR "/run/wsbind"
#define PAGE "1000" /* clients that one request asks for */
#define PUBLISH_MAX ((size_t)256 << 20)

struct call;

/* A command and what its line may hold beside the options that all have. */
struct command {
	const char *name;
	const char *usage;
	bool has_operand, has_channel, has_json;
	int (*run)(struct call *c);
};

/* One invocation. */
struct call {
	const struct command *command;
	const struct status_streams *io;
	struct config_source source;
	const char *operand;
	const char *channel;
	bool is_json, wants_help;
	char *socket_path;
};

static int WB_PRINTF(2, 3) fail(const struct call *c, const char *format, ...)
{
	va_list args;

	fprintf(c->io->err, "wsbind %s: ", c->command->name);
	va_start(args, format);
	vfprintf(c->io->err, format, args);
	va_end(args);
	fputc('\n', c->io->err);
	return EXIT_FAILURE;
}

static int fail_usage(const struct call *c, const char *what, const char *argument)
{
	(void)fail(c, "%s%s", what, argument);
	fprintf(c->io->err, "usage: %s", c->command->usage);
	return EXIT_USAGE;
}

/* Who may use the socket, as its owner and mode say. */
static int fail_permission(const struct call *c)
{
	const struct passwd *user;
	const struct group *group;
	struct stat st;

	if (stat(c->socket_path, &st) < 0)
		return fail(c, "%s: permission denied already for its directory; run this as root",
			    c->socket_path);
	user = getpwuid(st.st_uid);
	group = getgrgid(st.st_gid);
	if (!group)
		return fail(c, "%s: permission denied: mode %04o, group %u; run this as root",
			    c->socket_path, st.st_mode & 07777u, st.st_gid);
	return fail(c,
		    "%s: permission denied: it belongs to %s:%s, mode %04o; run this as root or "
		    "as a member of the group %s",
		    c->socket_path, user ? user->pw_name : "?", group->gr_name, st.st_mode & 07777u,
		    group->gr_name);
}

static int fail_talk(const struct call *c, int r)
{
	switch (r) {
	case -ENOENT:
	case -ENOTDIR:
	case -ECONNREFUSED:
		return fail(c,
			    "no daemon listens on %s: it is not running, or its control_socket "
			    "is another one (--control-socket=PATH)",
			    c->socket_path);
	case -EACCES:
	case -EPERM:
		return fail_permission(c);
	case -ETIMEDOUT:
		return fail(c, "%s: no answer within %d s", c->socket_path,
			    c->io->timeout_ms / 1000);
	case -EAGAIN:
		return fail(c, "%s: the daemon takes no more connections now", c->socket_path);
	case STATUS_HTTP_E_BROKEN:
		return fail(c, "%s: the answer broke off or is not HTTP", c->socket_path);
	default:
		return fail(c, "%s: %s", c->socket_path, strerror(-r));
	}
}

/* 0, or the exit status after the message is out. */
static int ask(const struct call *c, const struct status_request *what, struct status_answer *ret)
{
	struct status_request request = *what;
	int r;

	request.socket_path = c->socket_path;
	request.timeout_ms = c->io->timeout_ms;
	r = status_http_ask(&request, ret);
	return r == 0 ? 0 : fail_talk(c, r);
}

/* Of an answer that came: its text. */
static const char *answer_text(const struct status_answer *a)
{
	return (const char *)a->body.data;
}

/* The daemon said no: its words, and exit status 1. */
static int fail_answer(const struct call *c, const struct status_answer *a)
{
	fprintf(c->io->err, "wsbind %s: ", c->command->name);
	if (a->body.len == 0)
		fprintf(c->io->err, "the daemon answered with status %d\n", a->status);
	status_print_text(c->io->err, answer_text(a));
	return EXIT_FAILURE;
}

static int finish(const struct call *c)
{
	if (fflush(c->io->out) != 0 || ferror(c->io->out))
		return fail(c, "cannot write: %s", strerror(errno));
	return EXIT_SUCCESS;
}

static int run_status(struct call *c)
{
	const struct status_request metrics = {.method = "GET", .target = "/metrics"};
	const struct status_request ready = {.method = "GET", .target = "/readyz"};
	struct status_answer m = {0}, a = {0};
	int r = ask(c, &metrics, &m);

	if (r == 0)
		r = ask(c, &ready, &a);
	if (r == 0 && m.status != 200)
		r = fail_answer(c, &m);
	if (r == 0) {
		status_print(c->io->out, answer_text(&m), a.status == 200 ? NULL : answer_text(&a),
			     clock_wall_ms());
		r = finish(c);
	}
	buf_fini(&m.body);
	buf_fini(&a.body);
	return r;
}

static void print_raw(FILE *out, const char *before, const struct status_page *page)
{
	fputs(before, out);
	fwrite(page->objects, 1, page->objects_n, out);
}

/* Not before an answer came: what fails at once prints nothing. */
static void print_clients_head(const struct call *c)
{
	if (c->is_json)
		fputs("{\"clients\":[", c->io->out);
	else
		status_print_clients_head(c->io->out);
}

/* One page, printed; @next becomes the offset of the one after it, or 0. */
static int print_page(struct call *c, uint64_t *next, uint64_t *total)
{
	struct status_request request = {.method = "GET"};
	struct status_answer a = {0};
	struct status_page page;
	char target[80];
	int r;

	snprintf(target, sizeof(target), "/clients?offset=%" PRIu64 "&limit=" PAGE, *next);
	request.target = target;
	r = ask(c, &request, &a);
	if (r == 0 && a.status != 200)
		r = fail_answer(c, &a);
	else if (r == 0 && (!status_page_read(answer_text(&a), a.body.len, &page) ||
			    (page.has_next && page.next <= *next)))
		r = fail(c, "%s: the answer is not what /clients gives", c->socket_path);
	if (r == 0) {
		if (*next == 0)
			print_clients_head(c);
		if (!c->is_json)
			status_print_clients(c->io->out, &page, clock_wall_ms());
		else if (page.objects_n > 0)
			print_raw(c->io->out, *next ? "," : "", &page);
		/* Clients left while we paged: nothing follows an empty page. */
		*next = page.has_next && page.objects_n > 0 ? page.next : 0;
		*total = page.total;
	}
	buf_fini(&a.body);
	return r;
}

static int run_clients(struct call *c)
{
	uint64_t next = 0, total = 0;
	int r;

	do {
		r = print_page(c, &next, &total);
	} while (r == 0 && next > 0);
	if (r != 0)
		return r;
	if (c->is_json)
		fprintf(c->io->out, "],\"total\":%" PRIu64 "}\n", total);
	return finish(c);
}

static int run_reload(struct call *c)
{
	const struct status_request request = {.method = "POST", .target = "/reload"};
	struct status_answer a = {0};
	int r = ask(c, &request, &a);

	if (r == 0 && a.status != 200) {
		(void)fail(c, "nothing was changed:");
		status_print_text(c->io->err, answer_text(&a));
		r = EXIT_FAILURE;
	} else if (r == 0) {
		status_print_text(c->io->out, answer_text(&a));
		r = finish(c);
	}
	buf_fini(&a.body);
	return r;
}

/* Standard input up to its end, without the last line break. */
static int read_text(struct call *c, struct buf *text)
{
	for (;;) {
		char piece[4096];
		size_t n = fread(piece, 1, sizeof(piece), c->io->in);
		int r = buf_append(text, piece, n, PUBLISH_MAX);

		if (r < 0)
			return fail(c, "standard input: %s", strerror(-r));
		if (n == 0)
			break;
	}
	if (ferror(c->io->in))
		return fail(c, "standard input: %s", strerror(errno));
	if (text->len > 0 && text->data[text->len - 1] == '\n')
		text->len--;
	return 0;
}

static int print_members(struct call *c, const struct status_answer *a)
{
	struct json j = json_open(answer_text(a), a->body.len);
	char key[32] = "";
	uint64_t n;

	if (!json_enter(&j, '{') || !json_next(&j, key, sizeof(key)) || strcmp(key, "members") != 0)
		return fail(c, "%s: the answer is not what /publish gives", c->socket_path);
	n = json_number(&j);
	fprintf(c->io->out, "reached %" PRIu64 " member%s\n", n, n == 1 ? "" : "s");
	if (n == 0 && c->channel && c->channel[0] == '/')
		(void)fail(c, "a channel's name begins without a slash: -c %s", c->channel + 1);
	return finish(c);
}

static int publish_text(struct call *c, const void *text, size_t n)
{
	struct status_request request = {
		.method = "POST", .type = "text/plain; charset=utf-8", .body = text, .body_n = n};
	struct status_answer a = {0};
	struct buf target = {0};
	int r;

	r = buf_printf(&target, "/publish?channel=");
	if (r == 0)
		r = status_http_encode(&target, c->channel ? c->channel : "");
	if (r < 0) {
		buf_fini(&target);
		return fail(c, "%s", strerror(-r));
	}
	request.target = (const char *)target.data;
	r = ask(c, &request, &a);
	if (r == 0)
		r = a.status == 200 ? print_members(c, &a) : fail_answer(c, &a);
	buf_fini(&target);
	buf_fini(&a.body);
	return r;
}

static int run_publish(struct call *c)
{
	struct buf text = {0};
	int r;

	if (strcmp(c->operand, "-") != 0)
		return publish_text(c, c->operand, strlen(c->operand));
	r = read_text(c, &text);
	if (r == 0)
		r = publish_text(c, text.data, text.len);
	buf_fini(&text);
	return r;
}

static int run_disconnect(struct call *c)
{
	struct status_request request = {.method = "POST"};
	struct status_answer a = {0};
	uint8_t id[16];
	char target[80];
	int r;

	if (uuid_parse(c->operand, id) < 0)
		return fail_usage(c, "not the id of a client: ", c->operand);
	snprintf(target, sizeof(target), "/disconnect?id=%s", c->operand);
	request.target = target;
	r = ask(c, &request, &a);
	if (r == 0 && a.status != 200) {
		r = fail_answer(c, &a);
	} else if (r == 0) {
		fprintf(c->io->out, "disconnected %s\n", c->operand);
		r = finish(c);
	}
	buf_fini(&a.body);
	return r;
}

#define COMMON "[--config FILE] [--KEY=VALUE ...]\n"

static const struct command commands[] = {
	{.name = "status", .usage = "wsbind status " COMMON, .run = run_status},
	{.name = "clients",
	 .usage = "wsbind clients [--json] " COMMON,
	 .has_json = true,
	 .run = run_clients},
	{.name = "reload", .usage = "wsbind reload " COMMON, .run = run_reload},
	{.name = "publish",
	 .usage = "wsbind publish [-c|--channel CHANNEL] TEXT|- " COMMON,
	 .has_operand = true,
	 .has_channel = true,
	 .run = run_publish},
	{.name = "disconnect",
	 .usage = "wsbind disconnect ID " COMMON,
	 .has_operand = true,
	 .run = run_disconnect},
};

/* Takes -c CHANNEL, --channel CHANNEL or --channel=CHANNEL; false when it is none of these. */
static bool take_channel(struct call *c, char **argv, int *i)
{
	static const char with_value[] = "--channel=";
	const char *arg = argv[*i];

	if (!c->command->has_channel)
		return false;
	if (strncmp(arg, with_value, strlen(with_value)) == 0) {
		c->channel = arg + strlen(with_value);
		(*i)++;
		return true;
	}
	if ((strcmp(arg, "-c") != 0 && strcmp(arg, "--channel") != 0) || !argv[*i + 1])
		return false;
	c->channel = argv[*i + 1];
	*i += 2;
	return true;
}

/* NULL when all was understood, else the argument that was not. */
static const char *parse(struct call *c, char **argv)
{
	bool only_operands = false;
	int i = 1;

	while (argv[i]) {
		const char *arg = argv[i];

		if (only_operands || arg[0] != '-' || !arg[1]) {
			if (!c->command->has_operand || c->operand)
				return arg;
			c->operand = arg;
		} else if (strcmp(arg, "--") == 0) {
			only_operands = true;
		} else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
			c->wants_help = true;
		} else if (c->command->has_json && strcmp(arg, "--json") == 0) {
			c->is_json = true;
		} else {
			if (!take_channel(c, argv, &i) &&
			    config_source_take(&c->source, argv, &i) != 0)
				return arg;
			continue;
		}
		i++;
	}
	return NULL;
}

/* What the command line alone has wrong is a matter of its usage. */
static int check_command_line(struct call *c)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_unrefp) struct config *config = NULL;
	struct config_source alone = c->source;
	int r;

	alone.file = "/dev/null";
	r = config_load(&alone, &config, &errors);
	if (r < 0)
		return fail(c, "%s", strerror(-r));
	config_errors_print(&errors, "", c->io->err);
	return r == 0 ? 0 : EXIT_USAGE;
}

/* Errors in files are shown, but a socket that can be known in spite of them is used. */
static int find_socket(struct call *c)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	int r = check_command_line(c);

	if (r != 0)
		return r;
	r = config_find_control_socket(&c->source, RUNTIME_DIR, &c->socket_path, &errors);
	config_errors_print(&errors, "", c->io->err);
	if (r < 0)
		return fail(c, "%s", strerror(-r));
	if (r == CONFIG_E_INVALID)
		return EX_CONFIG;
	if (!c->socket_path)
		return fail(c, "control_socket is none: the daemon can't be reached");
	return 0;
}

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

int status_run(char **argv, const struct status_streams *streams)
{
	struct call c = {.command = command_find(argv[0]), .io = streams};
	const char *wrong;
	int r;

	WB_ASSERT(c.command);
	wrong = parse(&c, argv);
	if (wrong && c.command->has_channel && c.operand && wrong[0] != '-')
		return fail_usage(&c, "one TEXT only: put it in quotes: ", wrong);
	if (wrong)
		return fail_usage(&c, "not understood, or its value is missing: ", wrong);
	if (c.wants_help) {
		fprintf(streams->out, "usage: %s", c.command->usage);
		return finish(&c);
	}
	if (c.command->has_operand && !c.operand)
		return fail_usage(&c, "an argument is missing", "");
	r = find_socket(&c);
	if (r == 0)
		r = c.command->run(&c);
	free(c.socket_path);
	return r;
}

static int run_on_terminal(char **argv)
{
	const struct status_streams streams = {
		.in = stdin,
		.out = stdout,
		.err = stderr,
		.timeout_ms = strcmp(argv[0], "reload") == 0 ? STATUS_HTTP_RELOAD_MS
							     : STATUS_HTTP_TIMEOUT_MS,
	};

	return status_run(argv, &streams);
}

int status_main(int argc, char **argv)
{
	(void)argc;
	return run_on_terminal(argv);
}

int clients_main(int argc, char **argv)
{
	(void)argc;
	return run_on_terminal(argv);
}

int reload_main(int argc, char **argv)
{
	(void)argc;
	return run_on_terminal(argv);
}

int publish_main(int argc, char **argv)
{
	(void)argc;
	return run_on_terminal(argv);
}

int disconnect_main(int argc, char **argv)
{
	(void)argc;
	return run_on_terminal(argv);
}
