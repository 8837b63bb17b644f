/* SPDX-License-Identifier: MIT */
#include "client/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "client/client_private.h"
#include "client/client_show.h"
#include "client/system.h"

#define DEFAULT_URL "ws://127.0.0.1:8080"
#define QUEUE_BYTES ((size_t)1 << 20)
#define PREPARED_HELP (-1)
#define MESSAGE_SLACK 4096 /* a delivered message may have a channel's name more than was sent */

/* clang-format off */
#define OPTION(...) OPTION_ROW(struct client_options, __VA_ARGS__)
static const struct option_row rows[] = {
	OPTION('u', "url", TEXT, url, 0, 0, "URL", NULL,
	       "server; " DEFAULT_URL),
	OPTION('c', "clients", COUNT, clients, 1, 1000000, "N", "[-c CLIENTS]",
	       "clients in this process; 1"),
	OPTION(0, "interval-ms", COUNT, interval_ms, 1, 86400000, "N", NULL,
	       "each client sends a message so often; 1000"),
	OPTION(0, "send-file", TEXT, send_file, 0, 0, "FILE", NULL,
	       "send a file in chunks, wait until it is taken, end"),
	OPTION(0, "receive-dir", TEXT, receive_dir, 0, 0, "DIR", NULL,
	       "keep the files that others send in DIR"),
	OPTION(0, "channel", TEXT, channel, 0, 0, "C", NULL,
	       "channel to join, instead of the URL's path"),
	OPTION(0, "user", TEXT, user, 0, 0, "NAME", NULL,
	       "name to send under; user-ADDRESS:PORT"),
	OPTION(0, "since", TEXT, since, 0, 0, "POS", NULL,
	       "go on behind this position of the channel, EPOCH.SEQUENCE"),
	OPTION(0, "rewind", COUNT, rewind, 1, UINT32_MAX, "N", NULL,
	       "the last N messages of the channel first"),
	TARGET_OPTIONS(struct client_options, security),
};
#undef OPTION
/* clang-format on */

const struct option_table client_option_table = {
	.command = "client",
	.about =
		"Sends the lines of standard input as chat, those typed on a terminal too, prints\n"
		"what arrives, and ends with it (Ctrl-D). With several clients or with\n"
		"--interval-ms, sends by itself.\n",
	.ending =
		"Exit status: 0 closed by the server with 1000, ended by the user, or the file is\n"
		"delivered; 1 gave up; 2 usage; 78 configuration. See wsbind-client(1).\n",
	.rows = rows,
	.n_rows = ARRAY_LEN(rows),
};

static int WB_PRINTF(1, 2) client_fail(const char *format, ...)
{
	va_list args;

	fputs("wsbind client: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return EXIT_FAILURE;
}

/* A second call is someone who doesn't want to wait for the polite way. */
static void client_stop(struct client *c)
{
	if (c->is_stopping)
		c->is_killed = true;
	c->is_stopping = true;
	client_input_stop(c);
	for (size_t i = 0; i < c->n_sessions; i++)
		session_stop(&c->sessions[i]);
}

/* --------------------------------------------------------------------- sessions */

static struct client *client_of(const struct session *s)
{
	return CONTAINER_OF(s->group, struct client, group);
}

static void client_session_opened(struct session *s)
{
	struct client *c = client_of(s);

	/* Of many clients the summary tells how many are connected. */
	if (c->n_sessions == 1)
		session_report(s, "connected to %s%s as %s%s", c->target.host,
			       c->target.request_path, s->user,
			       c->mode == CLIENT_CHAT && isatty(STDIN_FILENO)
				       ? "; type a line, Ctrl-D ends"
				       : "");
	if (c->mode == CLIENT_INTERVAL && !c->tick_from_ns)
		c->tick_from_ns = clock_now_ns();
}

static void client_session_accepted(struct session *s)
{
	struct client *c = client_of(s);

	if (c->file)
		client_file_start(c->file, s);
	/* Only now it is known where a line stands, should it have to be sent again. */
	if (c->mode == CLIENT_CHAT)
		client_input_start(c);
}

static void client_session_answered(struct session *s, const Websocket__WebSocketMessage *m)
{
	if (client_of(s)->file)
		client_file_take_answer(client_of(s)->file, s, m);
}

static void client_session_message(struct session *s, const Websocket__WebSocketMessage *m)
{
	struct client *c = client_of(s);
	bool is_chunk = m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA;

	/* Chunks that become files are said when the file is whole. */
	if (c->shows_messages && !(is_chunk && c->receive))
		client_show(stdout, m, s->own_id);
	if (is_chunk && c->receive)
		client_receive_take(c->receive, m);
	if (c->file && m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL &&
	    m->control->type == WEBSOCKET__CONTROL_TYPE__DISCONNECT &&
	    !client_is_own_disconnect(m, s->own_id))
		client_file_note_left(c->file, m->control->session_id);
}

static void client_session_text(struct session *s, const char *text, size_t n)
{
	if (client_of(s)->shows_messages)
		client_show_text(stdout, text, n);
}

static void client_session_joined(struct session *s, const struct position *p,
				  enum position_answer answer)
{
	struct client *c = client_of(s);
	char at[POSITION_TEXT];

	/* Else what comes from here on is not what is missing of a file. */
	if (c->receive && answer != POSITION_RECOVERED)
		client_receive_drop_all(c->receive, "the connection ended before it");
	if (c->n_sessions > 1)
		return;
	if (answer == POSITION_RECOVERED)
		session_report(s, "goes on from %s: nothing is missing", position_format(at, p));
	else if (answer == POSITION_LOST)
		session_report(s, "messages may be missing: the channel's history does not reach "
				  "back to the position");
}

static void client_session_missed(struct session *s, const struct position *p,
				  const Websocket__ControlMessage *control)
{
	char reason[256];

	(void)p;
	text_escape(reason, sizeof(reason), control->reason, strlen(control->reason));
	session_report(s, "messages are missing: the server passed them over (%s)", reason);
}

static void client_session_writable(struct session *s)
{
	if (client_of(s)->file)
		client_file_send(client_of(s)->file, s);
}

static void client_session_closed(struct session *s)
{
	struct client *c = client_of(s);
	const struct position *home = session_home(s);

	client_input_stop(c);
	/* From a position the next connection may go on with what is missing. */
	if (c->receive && !(home && home->epoch))
		client_receive_drop_all(c->receive, "the connection ended before it");
}

/* For whoever stops it and starts it again. */
static void client_tell_position(const struct client *c, struct session *s)
{
	const struct position *home = session_home(s);
	char at[POSITION_TEXT];

	if (c->n_sessions == 1 && home && home->epoch)
		session_report(s, "to go on from here: --since %s", position_format(at, home));
}

static void client_session_done(struct session *s, int status)
{
	struct client *c = client_of(s);

	/* One failure among many clients is the command's; who ends well later doesn't undo it. */
	client_tell_position(c, s);
	c->n_done++;
	if (status != 0)
		c->status = status;
}

const struct session_ops client_session_ops = {
	.opened = client_session_opened,
	.accepted = client_session_accepted,
	.answered = client_session_answered,
	.message = client_session_message,
	.text = client_session_text,
	.joined = client_session_joined,
	.missed = client_session_missed,
	.writable = client_session_writable,
	.closed = client_session_closed,
	.done = client_session_done,
};

/* ------------------------------------------------------------------ at an interval */

/* Clients take turns, so that their messages are spread over the interval. */
static uint64_t client_tick_due_ns(const struct client *c)
{
	uint64_t interval_ns = c->options.interval_ms * NS_PER_MS;
	uint64_t round, turn;

	WB_ASSERT(c->n_sessions > 0);
	round = c->ticks / c->n_sessions;
	turn = c->ticks % c->n_sessions;
	return c->tick_from_ns + round * interval_ns + turn * interval_ns / c->n_sessions;
}

static void client_tick(struct client *c)
{
	struct session *s = &c->sessions[c->ticks % c->n_sessions];
	char text[64];

	/* What was due while it was not connected is left out, not sent later. */
	if (!endpoint_is_open(&s->endpoint))
		return;
	snprintf(text, sizeof(text), "message %" PRIu64, s->sent + 1);
	if (session_chat(s, text) == 0 && c->n_sessions == 1)
		printf("> %s\n", text);
}

/* Sends what is due; after a long sleep of the machine, what is due now and nothing twice. */
static void client_tick_all(struct client *c)
{
	uint64_t now = clock_now_ns();

	if (!c->tick_from_ns || c->is_stopping)
		return;
	/* Each client has one message at most in a turn, so that reading is never far away. */
	for (size_t i = 0; i < c->n_sessions && client_tick_due_ns(c) <= now; i++) {
		client_tick(c);
		c->ticks++;
	}
	while (client_tick_due_ns(c) + c->options.interval_ms * NS_PER_MS <= now)
		c->tick_from_ns += c->options.interval_ms * NS_PER_MS;
}

/* How long a turn of the loop may wait for events. */
static uint64_t client_longest_wait_ns(const struct client *c)
{
	uint64_t now = clock_now_ns();

	if (client_input_is_due(c))
		return 0;
	if (!c->tick_from_ns || c->is_stopping)
		return UINT64_MAX;
	return client_tick_due_ns(c) > now ? client_tick_due_ns(c) - now : 0;
}

static void client_summary_due(struct wheel_timer *t)
{
	struct client *c = CONTAINER_OF(t, struct client, summary);
	size_t n_open = 0;

	for (size_t i = 0; i < c->n_sessions; i++)
		n_open += endpoint_is_open(&c->sessions[i].endpoint);
	printf("%zu of %zu connected, %" PRIu64 " sent, %" PRIu64 " received\n", n_open,
	       c->n_sessions, c->group.sent, c->group.received);
	c->group.sent = 0;
	c->group.received = 0;
	wheel_add(&c->loop.reactor.wheel, t, clock_now_ns() + NS_PER_S);
}

/* ------------------------------------------------------------------------ running */

static void client_signalled(struct endpoint_loop *l)
{
	client_stop(CONTAINER_OF(l, struct client, loop));
}

static int client_run(struct client *c)
{
	while (c->n_done < c->n_sessions && !c->is_killed) {
		int r = endpoint_loop_turn(&c->loop, client_longest_wait_ns(c));

		if (r < 0)
			return client_fail("epoll: %s", strerror(-r));
		client_tick_all(c);
		client_input_turn(c);
		/* What is queued goes before the Close. */
		if (c->input == CLIENT_INPUT_ENDED)
			client_stop(c);
		/* A reader of our output that went away ends the command, with a polite Close. */
		if (fflush(stdout) != 0 && !c->is_stopping) {
			c->status = client_fail("cannot write: %s", strerror(errno));
			client_stop(c);
		}
	}
	return c->status;
}

void client_init_group(struct client *c, size_t message_bytes)
{
	c->shows_messages = c->n_sessions == 1 && c->mode != CLIENT_FILE;
	c->group = (struct session_group){
		.loop = &c->loop,
		.target = &c->target,
		.ops = &client_session_ops,
		.command = "client",
		.user = c->options.user,
		.positions = &c->start,
		.n_positions = c->mode != CLIENT_FILE, /* what others say is nothing to a sender */
		.backoff = {.first_ns = c->config->reconnect_delay_ms * NS_PER_MS,
			    .factor = c->config->reconnect_backoff,
			    .max_attempts = c->config->reconnect_attempts},
		.n = c->n_sessions,
		.delivers_file = c->mode == CLIENT_FILE,
		.keeps_identity = c->mode == CLIENT_CHAT,
	};
	/* What is decoded takes more memory than it does on the wire: pointers, lengths, NULs. */
	arena_init(&c->group.arena, 65536, 4 * message_bytes);
}

static int client_start(struct client *c)
{
	const struct endpoint_limits limits = {
		.queue_bytes = QUEUE_BYTES,
		.message_bytes = c->config->max_message_size + MESSAGE_SLACK,
	};
	int r = endpoint_loop_init(&c->loop, &c->target, &limits);

	if (r == 0)
		r = endpoint_loop_on_signal(&c->loop, client_signalled);
	c->sessions = calloc(c->options.clients, sizeof(*c->sessions));
	if (r < 0 || !c->sessions)
		return client_fail("%s", strerror(r < 0 ? -r : ENOMEM));
	/* Not before: client_fini() goes through them, and they have to be there and started. */
	c->n_sessions = c->options.clients;
	client_init_group(c, limits.message_bytes);
	for (size_t i = 0; i < c->n_sessions; i++)
		session_start(&c->sessions[i], &c->group, (unsigned)i + 1);
	wheel_timer_init(&c->summary, client_summary_due);
	if (c->n_sessions > 1)
		wheel_add(&c->loop.reactor.wheel, &c->summary, clock_now_ns() + NS_PER_S);
	return 0;
}

static void client_fini(struct client *c)
{
	for (size_t i = 0; i < c->n_sessions; i++)
		endpoint_abort(&c->sessions[i].endpoint, -ECANCELED); /* not those that ended */
	/* Ends are reported at the end of a turn; only then the sessions' memory may go. */
	if (c->n_sessions > 0)
		(void)!endpoint_loop_turn(&c->loop, 0);
	for (size_t i = 0; i < c->n_sessions; i++)
		session_fini(&c->sessions[i]);
	free(c->sessions);
	endpoint_loop_fini(&c->loop);
	target_fini(&c->target);
	arena_fini(&c->group.arena);
	free(c->lines);
	client_file_free(c->file);
	client_receive_free(c->receive);
	config_unref(c->config);
}

/* ------------------------------------------------------------------------ options */

static int client_find_target(struct client *c)
{
	struct ws_url url;
	const char *why;
	int r;

	if (ws_url_parse(c->options.url, &url) < 0) {
		client_fail("%s: not a URL like ws://HOST:PORT/CHANNEL", c->options.url);
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.user && !utf8_valid(c->options.user, strlen(c->options.user))) {
		client_fail("--user: the name is not UTF-8");
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.channel && ws_url_set_channel(&url, c->options.channel) < 0) {
		client_fail("--channel: a channel's name has at most %d bytes", MSG_CHANNEL_MAX);
		return OPTIONS_EXIT_USAGE;
	}
	/*
	 * A URL that can't be is a matter of usage; a name that nobody has may have one tomorrow.
	 */
	r = target_init(&c->target, &url, &why);
	if (r < 0)
		client_fail("%s: %s", c->options.url, why);
	if (r == 0 && target_secure(&c->target, &c->options.security, "client", stderr) < 0)
		return EXIT_FAILURE;
	return r == 0 ? 0 : r == -EINVAL ? OPTIONS_EXIT_USAGE : EXIT_FAILURE;
}

static int client_open_file(struct client *c)
{
	int r = client_file_open(c->options.send_file, &c->file);

	if (r == 0)
		return 0;
	return client_fail("%s: %s", c->options.send_file,
			   r == -EINVAL ? "not a regular file" : strerror(-r));
}

static void client_received(void *ctx, const struct receive_end *end)
{
	const struct client *c = ctx;

	if (end->why)
		client_fail("%s/%s: %s", c->options.receive_dir, end->name, end->why);
	else
		printf("%s/%s: %" PRIu64 " bytes\n", c->options.receive_dir, end->name, end->bytes);
}

static int client_open_receive_dir(struct client *c)
{
	int r = client_receive_open(c->options.receive_dir, c->config->spool_max_file_size,
				    client_received, c, &c->receive);

	return r == 0 ? 0 : client_fail("%s: %s", c->options.receive_dir, strerror(-r));
}

static int client_choose_start(struct client *c)
{
	const struct client_options *o = &c->options;

	if ((o->since || o->rewind) && o->send_file) {
		client_fail("--since and --rewind go without --send-file");
		return OPTIONS_EXIT_USAGE;
	}
	if (o->since && position_parse(o->since, strlen(o->since), &c->start) < 0) {
		client_fail("--since %s: not a position like EPOCH.SEQUENCE", o->since);
		return OPTIONS_EXIT_USAGE;
	}
	c->start.rewind = (uint32_t)o->rewind;
	return 0;
}

static int client_choose_mode(struct client *c)
{
	size_t possible = system_raise_descriptors(c->options.clients);

	if (possible < c->options.clients)
		return client_fail("%" PRIu64
				   " clients need more open files than are allowed; possible "
				   "are %zu (ulimit -Hn)",
				   c->options.clients, possible);
	if (c->options.send_file && c->options.clients > 1) {
		client_fail("--send-file goes with one client");
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.receive_dir && (c->options.clients > 1 || c->options.send_file)) {
		client_fail("--receive-dir goes with one client, and without --send-file");
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.receive_dir && client_open_receive_dir(c))
		return EXIT_FAILURE;
	if (c->options.send_file) {
		c->mode = CLIENT_FILE;
		return client_open_file(c);
	}
	c->mode = CLIENT_INTERVAL;
	if (c->options.receive_dir && !c->options.interval_ms && !isatty(STDIN_FILENO)) {
		c->mode = CLIENT_RECEIVE;
		return 0;
	}
	/* Nobody wants made up messages in his channel who hasn't asked for them. */
	if (c->options.clients > 1 || c->options.interval_ms)
		return 0;
	c->mode = CLIENT_CHAT;
	c->lines = calloc(1, sizeof(*c->lines));
	return c->lines ? 0 : client_fail("%s", strerror(ENOMEM));
}

static int client_prepare(struct client *c, char **argv)
{
	struct config_source source = {0};
	int r;

	c->options = (struct client_options){.url = DEFAULT_URL, .clients = 1};
	r = options_parse(&client_option_table, argv, &c->options, &source, stderr);
	if (r == OPTIONS_E_HELP) {
		options_print_help(&client_option_table, stdout);
		return PREPARED_HELP;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&client_option_table, &source, stderr, &c->config);
	if (r == 0)
		r = client_find_target(c);
	if (r == 0)
		r = client_choose_start(c);
	if (r == 0)
		r = client_choose_mode(c);
	/* Only now, since an interval that was given chooses the mode. */
	if (r == 0 && !c->options.interval_ms)
		c->options.interval_ms = 1000;
	return r;
}

int client_main(int argc, char **argv)
{
	static struct client client;
	struct client *c = &client;
	int status;

	(void)argc;
	*c = (struct client){.input = CLIENT_INPUT_OFF};
	status = client_prepare(c, argv);
	if (status == 0)
		status = client_start(c);
	if (status == 0)
		status = client_run(c);
	client_fini(c);
	return status == PREPARED_HELP ? 0 : status;
}
