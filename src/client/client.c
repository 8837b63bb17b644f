/* SPDX-License-Identifier: MIT */
#include "client/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "client/client_private.h"

#define DEFAULT_URL "ws://127.0.0.1:8080"
#define QUEUE_BYTES ((size_t)1 << 20)
#define PREPARED_HELP (-1)
#define MESSAGE_SLACK 4096 /* a delivered message may have a channel's name more than was sent */

static const char usage[] =
	"usage: wsbind client [-u URL] [-c CLIENTS] [--interval-ms N] [--send-file FILE]\n"
	"                     [--channel C] [--user NAME] [--ca FILE] [--insecure]\n"
	"                     [--token-file FILE] [--config FILE] [--KEY=VALUE ...]\n"
	"\n"
	"On a terminal, sends the lines typed as chat and prints what arrives; end with\n"
	"Ctrl-D. Without one, with several clients or with --interval-ms, sends by itself.\n"
	"\n"
	"  -u, --url URL        server; " DEFAULT_URL "\n"
	"  -c, --clients N      clients in this process; 1\n"
	"      --interval-ms N  each client sends a message so often; 1000\n"
	"      --send-file FILE send a file in chunks, wait until it is taken, end\n"
	"      --channel C      channel to join, instead of the URL's path\n"
	"      --user NAME      name to send under; user-ADDRESS:PORT\n" TARGET_SECURITY_USAGE
	"      --help           print this text\n"
	"\n"
	"Exit status: 0 closed by the server with 1000, ended by the user, or the file is\n"
	"delivered; 1 gave up; 2 usage; 78 configuration. See wsbind-client(1).\n";

#define MEMBER(name) offsetof(struct client_options, name)
static const struct option_row rows[] = {
	{'u', "url", OPTION_TEXT, MEMBER(url), 0, 0},
	{'c', "clients", OPTION_COUNT, MEMBER(clients), 1, 1000000},
	{0, "interval-ms", OPTION_COUNT, MEMBER(interval_ms), 1, 86400000},
	{0, "send-file", OPTION_TEXT, MEMBER(send_file), 0, 0},
	{0, "channel", OPTION_TEXT, MEMBER(channel), 0, 0},
	{0, "user", OPTION_TEXT, MEMBER(user), 0, 0},
	TARGET_SECURITY_OPTIONS(MEMBER(security)),
};
#undef MEMBER

const struct option_table client_option_table = {"client", usage, rows, ARRAY_LEN(rows)};

static int WB_PRINTF(1, 2) fail(const char *format, ...)
{
	va_list args;

	fputs("wsbind client: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return EXIT_FAILURE;
}

/* --------------------------------------------------------------------- terminal */

static void terminal_stop(struct client *c)
{
	if (c->terminal_fd < 0)
		return;
	reactor_del(&c->loop.reactor, &c->terminal_source, c->terminal_fd);
	c->terminal_fd = -1;
}

static void terminal_line(void *ctx, const char *line, size_t n)
{
	struct client *c = ctx;
	struct client_session *s = c->sessions;
	int r;

	if (n == 0)
		return;
	if (strlen(line) != n || !utf8_valid(line, n)) {
		session_say(s, "not sent: the line is not UTF-8 text");
		return;
	}
	r = session_chat(s, line);
	if (r != 0)
		session_say(s, "not sent: %s",
			    r == ENDPOINT_E_FULL ? "the server takes nothing now"
						 : "not connected");
}

static void terminal_ready(struct reactor_source *source, uint32_t events)
{
	struct client *c = CONTAINER_OF(source, struct client, terminal_source);
	char typed[4096];
	ssize_t n = read(c->terminal_fd, typed, sizeof(typed));

	(void)events;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0) {
		lines_feed(c->lines, typed, (size_t)n, terminal_line, c);
		return;
	}
	lines_end(c->lines, terminal_line, c);
	terminal_stop(c);
	client_stop(c);
}

/* Read only while there is someone to send to: what is typed meanwhile waits in the terminal. */
static void terminal_start(struct client *c)
{
	int r = reactor_add(&c->loop.reactor, &c->terminal_source, STDIN_FILENO, EPOLLIN,
			    terminal_ready);

	if (r < 0)
		fail("the terminal cannot be read: %s", strerror(-r));
	else
		c->terminal_fd = STDIN_FILENO;
}

/* --------------------------------------------------------------------- sessions */

void client_opened(struct client_session *s)
{
	struct client *c = s->client;

	if (c->n_sessions == 1)
		session_say(s, "connected to %s%s as %s%s", c->target.host, c->target.request_path,
			    s->user, c->mode == CLIENT_CHAT ? "; type a line, Ctrl-D ends" : "");
	if (c->mode == CLIENT_CHAT)
		terminal_start(c);
	else if (c->mode == CLIENT_INTERVAL && !c->tick_from_ns)
		c->tick_from_ns = clock_now_ns();
}

void client_greeted(struct client_session *s)
{
	if (s->client->mode == CLIENT_FILE)
		client_file_start(s->client->file, s);
}

void client_lost(struct client_session *s)
{
	terminal_stop(s->client);
}

void client_done(struct client_session *s, int status)
{
	s->client->n_done++;
	if (status != 0)
		s->client->status = status;
}

void client_stop(struct client *c)
{
	if (c->is_stopping)
		c->is_killed = true;
	c->is_stopping = true;
	terminal_stop(c);
	for (size_t i = 0; i < c->n_sessions; i++)
		session_stop(&c->sessions[i]);
}

/* ------------------------------------------------------------------ at an interval */

/* Clients take turns, so that their messages are spread over the interval. */
static uint64_t tick_due_ns(const struct client *c)
{
	uint64_t round = c->ticks / c->n_sessions, turn = c->ticks % c->n_sessions;
	uint64_t interval_ns = c->options.interval_ms * NS_PER_MS;

	return c->tick_from_ns + round * interval_ns + turn * interval_ns / c->n_sessions;
}

static void tick(struct client *c)
{
	struct client_session *s = &c->sessions[c->ticks % c->n_sessions];
	char text[64];

	if (!endpoint_is_open(&s->endpoint))
		return;
	snprintf(text, sizeof(text), "message %" PRIu64, s->sent + 1);
	if (session_chat(s, text) == 0 && c->n_sessions == 1)
		printf("> %s\n", text);
}

/* Sends what is due; after a long sleep of the machine, what is due now and nothing twice. */
static void tick_all(struct client *c)
{
	uint64_t now = clock_now_ns();

	if (!c->tick_from_ns || c->is_stopping)
		return;
	for (size_t i = 0; i < c->n_sessions && tick_due_ns(c) <= now; i++) {
		tick(c);
		c->ticks++;
	}
	while (tick_due_ns(c) + c->options.interval_ms * NS_PER_MS <= now)
		c->tick_from_ns += c->options.interval_ms * NS_PER_MS;
}

static uint64_t sleep_at_most_ns(const struct client *c)
{
	uint64_t now = clock_now_ns();

	if (!c->tick_from_ns || c->is_stopping)
		return UINT64_MAX;
	return tick_due_ns(c) > now ? tick_due_ns(c) - now : 0;
}

static void summary_due(struct wheel_timer *t)
{
	struct client *c = CONTAINER_OF(t, struct client, summary);
	size_t n_open = 0;

	for (size_t i = 0; i < c->n_sessions; i++)
		n_open += endpoint_is_open(&c->sessions[i].endpoint);
	printf("%zu of %zu connected, %" PRIu64 " sent, %" PRIu64 " received\n", n_open,
	       c->n_sessions, c->sent, c->received);
	c->sent = 0;
	c->received = 0;
	wheel_add(&c->loop.reactor.wheel, t, clock_now_ns() + NS_PER_S);
}

/* ------------------------------------------------------------------------ running */

static void told_to_stop(struct endpoint_loop *l)
{
	client_stop(CONTAINER_OF(l, struct client, loop));
}

static int run_loop(struct client *c)
{
	while (c->n_done < c->n_sessions && !c->is_killed) {
		int r = endpoint_loop_turn(&c->loop, sleep_at_most_ns(c));

		if (r < 0)
			return fail("epoll: %s", strerror(-r));
		tick_all(c);
		if (fflush(stdout) != 0 && !c->is_stopping) {
			c->status = fail("cannot write: %s", strerror(errno));
			client_stop(c);
		}
	}
	return c->status;
}

static int start(struct client *c)
{
	const struct endpoint_limits limits = {
		.queue_bytes = QUEUE_BYTES,
		.message_bytes = c->config->max_message_size + MESSAGE_SLACK,
	};
	int r = endpoint_loop_init(&c->loop, &c->target, &limits);

	if (r == 0)
		r = endpoint_loop_on_signal(&c->loop, told_to_stop);
	c->sessions = calloc(c->options.clients, sizeof(*c->sessions));
	if (r < 0 || !c->sessions)
		return fail("%s", strerror(r < 0 ? -r : ENOMEM));
	c->n_sessions = c->options.clients;
	arena_init(&c->arena, 65536, 4 * limits.message_bytes);
	for (size_t i = 0; i < c->n_sessions; i++)
		session_start(&c->sessions[i], c, (unsigned)i + 1);
	wheel_timer_init(&c->summary, summary_due);
	if (c->n_sessions > 1)
		wheel_add(&c->loop.reactor.wheel, &c->summary, clock_now_ns() + NS_PER_S);
	return 0;
}

static void client_fini(struct client *c)
{
	for (size_t i = 0; i < c->n_sessions; i++)
		endpoint_abort(&c->sessions[i].endpoint,
			       -ECANCELED); /* does nothing to those that ended */
	if (c->n_sessions > 0)
		(void)!endpoint_loop_turn(&c->loop, 0); /* they end in it */
	for (size_t i = 0; i < c->n_sessions; i++)
		session_fini(&c->sessions[i]);
	free(c->sessions);
	endpoint_loop_fini(&c->loop);
	target_fini(&c->target);
	arena_fini(&c->arena);
	free(c->lines);
	client_file_free(c->file);
	config_unref(c->config);
}

/* ------------------------------------------------------------------------ options */

static int find_target(struct client *c)
{
	struct ws_url url;
	const char *why;
	int r;

	if (ws_url_parse(c->options.url, &url) < 0) {
		fail("%s: not a URL like ws://HOST:PORT/CHANNEL", c->options.url);
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.user && !utf8_valid(c->options.user, strlen(c->options.user))) {
		fail("--user: the name is not UTF-8");
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.channel && ws_url_set_channel(&url, c->options.channel) < 0) {
		fail("--channel: a channel's name has at most %d bytes", UPGRADE_MAX_CHANNEL);
		return OPTIONS_EXIT_USAGE;
	}
	r = target_init(&c->target, &url, &why);
	if (r < 0)
		fail("%s: %s", c->options.url, why);
	if (r == 0 && target_secure(&c->target, &c->options.security, "client", stderr) < 0)
		return EXIT_FAILURE;
	return r == 0 ? 0 : r == -EINVAL ? OPTIONS_EXIT_USAGE : EXIT_FAILURE;
}

static int choose_mode(struct client *c)
{
	size_t possible = system_raise_descriptors(c->options.clients);
	int r;

	if (possible < c->options.clients)
		return fail("%" PRIu64 " clients need more open files than are allowed; possible "
			    "are %zu (ulimit -Hn)",
			    c->options.clients, possible);
	if (c->options.send_file && c->options.clients > 1) {
		fail("--send-file goes with one client");
		return OPTIONS_EXIT_USAGE;
	}
	if (c->options.send_file) {
		c->mode = CLIENT_FILE;
		r = client_file_open(c->options.send_file, &c->file);
		return r == 0 ? 0
			      : fail("%s: %s", c->options.send_file,
				     r == -EINVAL ? "not a regular file" : strerror(-r));
	}
	c->mode = CLIENT_INTERVAL;
	if (c->options.clients > 1 || c->options.interval_ms || !isatty(STDIN_FILENO))
		return 0;
	c->mode = CLIENT_CHAT;
	c->lines = calloc(1, sizeof(*c->lines));
	return c->lines ? 0 : fail("%s", strerror(ENOMEM));
}

static int prepare(struct client *c, char **argv)
{
	struct config_source source = {0};
	int r;

	c->options = (struct client_options){.url = DEFAULT_URL, .clients = 1};
	r = options_parse(&client_option_table, argv, &c->options, &source, stderr);
	if (r == OPTIONS_E_HELP) {
		fputs(usage, stdout);
		return PREPARED_HELP;
	}
	if (r != 0)
		return OPTIONS_EXIT_USAGE;
	r = options_load(&client_option_table, &source, stderr, &c->config);
	if (r == 0)
		r = find_target(c);
	if (r == 0)
		r = choose_mode(c);
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
	*c = (struct client){.terminal_fd = -1};
	status = prepare(c, argv);
	if (status == 0)
		status = start(c);
	if (status == 0)
		status = run_loop(c);
	client_fini(c);
	return status == PREPARED_HELP ? 0 : status;
}
