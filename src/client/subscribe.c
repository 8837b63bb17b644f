/* SPDX-License-Identifier: MIT */
#include "client/subscribe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "client/client_show.h"
#include "client/session.h"
#include "model/options.h"
#include "wire/json_write.h"

#define DEFAULT_URL "ws://127.0.0.1:8080"
#define QUEUE_BYTES ((size_t)1 << 20)
#define PREPARED_HELP (-1)
#define MESSAGE_SLACK 4096 /* a delivered message may have a channel's name more than was sent */

typedef Websocket__WebSocketMessage message;

/* What the command line says. */
struct WB_FROZEN subscribe_options {
	const char *url;
	const char *since; /* NULL: nowhere in particular */
	uint64_t rewind;
	bool is_json;
	struct target_security security;
	struct options_operands channels; /* none: that of the URL */
};

struct WB_OWNER(loop) subscriber {
	struct endpoint_loop loop;
	struct target target;
	struct subscribe_options options;
	struct config *config;
	struct position *positions;
	size_t n_positions;
	struct session_group group;
	struct session session;
	struct buf line; /* that is being printed */
	bool is_started, is_done;
	bool is_stopping; /* told to; the connection is closed politely */
	bool is_killed;   /* told twice */
	int status;       /* exit status so far */
};

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct subscribe_options, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION('u', "url", TEXT, url, 0, 0, "URL", NULL,
	       "server; " DEFAULT_URL),
	OPTION(0, "since", TEXT, since, 0, 0, "POS", NULL,
	       "go on behind this position of the one channel, EPOCH.SEQUENCE"),
	OPTION(0, "rewind", COUNT, rewind, 1, UINT32_MAX, "N", NULL,
	       "the last N messages of each channel first"),
	OPTION(0, "json", FLAG, is_json, 0, 0, NULL, NULL,
	       "a line of JSON for each message"),
	TARGET_OPTIONS(struct subscribe_options, security),
};
#undef OPTION
/* clang-format on */

static const struct option_table subscribe_option_table = {
	.command = "subscribe",
	.operand = "[CHANNEL ...]",
	.operands = offsetof(struct subscribe_options, channels),
	.about = "Prints what arrives in the channels, until it is ended (Ctrl-C). Of channels "
		 "with\n"
		 "history nothing is missed while the connection is away.\n",
	.ending = "Exit status: 0 closed by the server with 1000, or ended by the user; 1 gave up, "
		  "or\n"
		  "nobody reads what is printed; 2 usage; 78 configuration. See "
		  "wsbind-subscribe(1).\n",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

static int WB_PRINTF(1, 2) subscribe_fail(const char *format, ...)
{
	va_list args;

	fputs("wsbind subscribe: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return EXIT_FAILURE;
}

/* A second call is someone who doesn't want to wait for the polite way. */
static void subscriber_stop(struct subscriber *c)
{
	if (c->is_stopping)
		c->is_killed = true;
	c->is_stopping = true;
	session_stop(&c->session);
}

/* ------------------------------------------------------------------------- printing */

static struct subscriber *subscriber_of(const struct session *s)
{
	return CONTAINER_OF(s->group, struct subscriber, group);
}

/* What lies in the line, if all of it does. */
static void print_line(struct subscriber *c, int r)
{
	if (r == 0)
		r = buf_append(&c->line, "\n", 1, BUF_NO_LIMIT);
	if (r == 0)
		(void)!fwrite(c->line.data, 1, c->line.len, stdout); /* looked at in each turn */
	else
		subscribe_fail("%s", strerror(-r));
	buf_clear(&c->line);
}

static void print_json(struct subscriber *c, const message *m)
{
	print_line(c, json_write_message(&c->line, &m->base, BUF_NO_LIMIT));
}

/* A word that is no message: what is told of the stream itself. */
static void print_json_of(struct subscriber *c, const char *before, const char *text, size_t n,
			  const char *behind)
{
	int r = buf_printf(&c->line, "%s", before);

	if (r == 0)
		r = json_write_text(&c->line, text, n, BUF_NO_LIMIT);
	if (r == 0)
		r = buf_printf(&c->line, "%s", behind);
	print_line(c, r);
}

/* The channel's name stands before the message where there are several. */
static void print_channel(const struct subscriber *c, const message *m)
{
	char name[4 * MSG_CHANNEL_MAX + 1];

	if (c->n_positions < 2)
		return;
	text_escape(name, sizeof(name), m->has_channel_case ? m->channel : "",
		    m->has_channel_case ? strlen(m->channel) : 0);
	printf("[%s] ", name);
}

static void subscriber_message(struct session *s, const message *m)
{
	struct subscriber *c = subscriber_of(s);
	bool is_gap = m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL &&
		      m->control->type == WEBSOCKET__CONTROL_TYPE__GAP;

	/* Of control messages a program wants to know what it missed; people are told below. */
	if (m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL && !(is_gap && c->options.is_json))
		return;
	/* The greeting is the server's own, and of no channel's order. */
	if (m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE && !s->own_id[0])
		return;
	if (c->options.is_json) {
		print_json(c, m);
		return;
	}
	print_channel(c, m);
	client_show(stdout, m, s->own_id);
}

static void subscriber_text(struct session *s, const char *text, size_t n)
{
	struct subscriber *c = subscriber_of(s);

	if (c->options.is_json)
		print_json_of(c, "{\"text\":", text, n, "}");
	else
		client_show_text(stdout, text, n);
}

/* ------------------------------------------------------------------------- sessions */

static const char *shown_name(const struct position *p, char out[4 * MSG_CHANNEL_MAX + 1])
{
	const char *name = p->channel ? p->channel : "the channel";

	text_escape(out, 4 * MSG_CHANNEL_MAX + 1, name, strlen(name));
	return out;
}

static void subscriber_joined(struct session *s, const struct position *p,
			      enum position_answer answer)
{
	struct subscriber *c = subscriber_of(s);
	char at[POSITION_TEXT], name[4 * MSG_CHANNEL_MAX + 1];
	const char *channel = p->channel ? p->channel : "";

	if (answer == POSITION_RECOVERED)
		session_report(s, "%s: goes on from %s, nothing is missing", shown_name(p, name),
			       position_format(at, p));
	if (answer != POSITION_LOST)
		return;
	session_report(s, "%s: messages may be missing, its history does not reach back",
		       shown_name(p, name));
	if (c->options.is_json)
		print_json_of(c, "{\"recovered\":false,\"channel\":", channel, strlen(channel),
			      "}");
}

static void subscriber_missed(struct session *s, const struct position *p,
			      const Websocket__ControlMessage *control)
{
	char reason[256], name[4 * MSG_CHANNEL_MAX + 1];

	text_escape(reason, sizeof(reason), control->reason, strlen(control->reason));
	session_report(s, "%s: messages are missing, the server passed them over (%s)",
		       shown_name(p, name), reason);
}

static void subscriber_opened(struct session *s)
{
	(void)s;
}

static void subscriber_answered(struct session *s, const message *m)
{
	(void)s;
	(void)m;
}

/* For whoever stops it and starts it again. */
static void subscriber_done(struct session *s, int status)
{
	struct subscriber *c = subscriber_of(s);
	const struct position *home = session_home(s);
	char at[POSITION_TEXT];

	if (c->n_positions == 1 && home && home->epoch)
		session_report(s, "to go on from here: --since %s", position_format(at, home));
	c->is_done = true;
	if (status != 0)
		c->status = status;
}

static const struct session_ops subscriber_ops = {
	.opened = subscriber_opened,
	.accepted = subscriber_opened,
	.answered = subscriber_answered,
	.message = subscriber_message,
	.text = subscriber_text,
	.joined = subscriber_joined,
	.missed = subscriber_missed,
	.writable = subscriber_opened,
	.closed = subscriber_opened,
	.done = subscriber_done,
};

/* ------------------------------------------------------------------------- running */

static void subscriber_signalled(struct endpoint_loop *l)
{
	subscriber_stop(CONTAINER_OF(l, struct subscriber, loop));
}

static int subscriber_run(struct subscriber *c)
{
	while (!c->is_done && !c->is_killed) {
		int r = endpoint_loop_turn(&c->loop, UINT64_MAX);

		if (r < 0)
			return subscribe_fail("epoll: %s", strerror(-r));
		if (fflush(stdout) == 0 || c->is_stopping)
			continue;
		/* Who reads its output and has enough of it, as head(1) does, wants no line. */
		if (errno != EPIPE)
			subscribe_fail("cannot write: %s", strerror(errno));
		c->status = EXIT_FAILURE;
		subscriber_stop(c);
	}
	return c->status;
}

static int subscriber_start(struct subscriber *c)
{
	const struct endpoint_limits limits = {
		.queue_bytes = QUEUE_BYTES,
		.message_bytes = c->config->max_message_size + MESSAGE_SLACK,
	};
	int r = endpoint_loop_init(&c->loop, &c->target, &limits);

	if (r == 0)
		r = endpoint_loop_on_signal(&c->loop, subscriber_signalled);
	if (r < 0)
		return subscribe_fail("%s", strerror(-r));
	c->group = (struct session_group){
		.loop = &c->loop,
		.target = &c->target,
		.ops = &subscriber_ops,
		.command = "subscribe",
		.positions = c->positions,
		.n_positions = c->n_positions,
		.backoff = {.first_ns = c->config->reconnect_delay_ms * NS_PER_MS,
			    .factor = c->config->reconnect_backoff,
			    .max_attempts = c->config->reconnect_attempts},
		.n = 1,
		.keeps_identity = true,
	};
	/* What is decoded takes more memory than it does on the wire: pointers, lengths, NULs. */
	arena_init(&c->group.arena, 65536, 4 * limits.message_bytes);
	c->is_started = true;
	session_start(&c->session, &c->group, 1);
	return 0;
}

static void subscriber_fini(struct subscriber *c)
{
	if (c->is_started) {
		endpoint_abort(&c->session.endpoint, -ECANCELED);
		/* Ends are reported at the end of a turn; only then its memory may go. */
		(void)!endpoint_loop_turn(&c->loop, 0);
		session_fini(&c->session);
	}
	endpoint_loop_fini(&c->loop);
	target_fini(&c->target);
	arena_fini(&c->group.arena);
	buf_fini(&c->line);
	free(c->positions);
	config_unref(c->config);
}

/* -------------------------------------------------------------------------- options */

static int find_target(struct subscriber *c)
{
	const struct options_operands *channels = &c->options.channels;
	struct ws_url url;
	const char *why;
	int r;

	if (ws_url_parse(c->options.url, &url) < 0) {
		subscribe_fail("%s: not a URL like ws://HOST:PORT/CHANNEL", c->options.url);
		return OPTIONS_EXIT_USAGE;
	}
	for (size_t i = 0; i < channels->n; i++)
		if (strlen(channels->text[i]) > MSG_CHANNEL_MAX) {
			subscribe_fail("%s: a channel's name has at most %d bytes",
				       channels->text[i], MSG_CHANNEL_MAX);
			return OPTIONS_EXIT_USAGE;
		}
	if (channels->n > 0 && ws_url_set_channel(&url, channels->text[0]) < 0) {
		subscribe_fail("%s: too long for a URL", channels->text[0]);
		return OPTIONS_EXIT_USAGE;
	}
	r = target_init(&c->target, &url, &why);
	if (r < 0)
		subscribe_fail("%s: %s", c->options.url, why);
	if (r == 0 && target_secure(&c->target, &c->options.security, "subscribe", stderr) < 0)
		return EXIT_FAILURE;
	return r == 0 ? 0 : r == -EINVAL ? OPTIONS_EXIT_USAGE : EXIT_FAILURE;
}

/* Where it begins in each channel. */
static int choose_start(struct subscriber *c)
{
	const struct subscribe_options *o = &c->options;
	size_t n = MAX(o->channels.n, (size_t)1);

	if (o->since && n > 1) {
		subscribe_fail("--since goes with one channel");
		return OPTIONS_EXIT_USAGE;
	}
	c->positions = calloc(n, sizeof(*c->positions));
	if (!c->positions)
		return subscribe_fail("%s", strerror(ENOMEM));
	if (o->since && position_parse(o->since, strlen(o->since), &c->positions[0]) < 0) {
		subscribe_fail("--since %s: not a position like EPOCH.SEQUENCE", o->since);
		return OPTIONS_EXIT_USAGE;
	}
	for (size_t i = 0; i < n; i++) {
		c->positions[i].rewind = (uint32_t)o->rewind;
		/* The home alone is whatever the URL calls it. */
		if (n > 1)
			c->positions[i].channel = o->channels.text[i];
	}
	c->n_positions = n;
	return 0;
}

static int subscriber_prepare(struct subscriber *c, char **argv)
{
	struct config_source source = {0};
	int r;

	c->options = (struct subscribe_options){.url = DEFAULT_URL};
	r = options_parse(&subscribe_option_table, argv, &c->options, &source, stderr);
	if (r == OPTIONS_E_HELP) {
		options_print_help(&subscribe_option_table, stdout);
		return PREPARED_HELP;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&subscribe_option_table, &source, stderr, &c->config);
	if (r == 0)
		r = find_target(c);
	return r == 0 ? choose_start(c) : r;
}

int subscribe_main(int argc, char **argv)
{
	static struct subscriber subscriber;
	struct subscriber *c = &subscriber;
	int status;

	(void)argc;
	status = subscriber_prepare(c, argv);
	if (status == 0)
		status = subscriber_start(c);
	if (status == 0)
		status = subscriber_run(c);
	subscriber_fini(c);
	return status == PREPARED_HELP ? 0 : status;
}
