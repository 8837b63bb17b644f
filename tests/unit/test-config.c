/* SPDX-License-Identifier: MIT */
#include "model/config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "base/clock.h"
#include "test.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)

/* Parses a text that has to be right. */
static struct config *parse_good(const char *text)
{
	struct config_errors errors = {0};
	struct config *c = NULL;
	int r = config_parse_text("test.conf", text, strlen(text), &c, &errors);

	if (errors.n)
		print_message("# %s\n", errors.line[0]);
	CHECK_EQ(r, 0);
	CHECK_EQ(errors.n, 0);
	return c;
}

/* Parses bytes that have to be wrong, and compares the first diagnostic. */
static void parse_bad_bytes(const char *text, size_t n, const char *expected)
{
	struct config_errors errors = {0};
	struct config *c = NULL;

	CHECK_EQ(config_parse_text("f", text, n, &c, &errors), CONFIG_E_INVALID);
	CHECK(!c);
	CHECK_EQ(errors.n, 1);
	CHECK_STR(errors.line[0], expected);
	config_errors_fini(&errors);
	CHECK_EQ(errors.n, 0);
}

static void parse_bad(const char *text, const char *expected)
{
	parse_bad_bytes(text, strlen(text), expected);
}

/* The value of a key as text, in a buffer that lives until the next call. */
static const char *value_of(const struct config *c, const char *name)
{
	static char out[2000];
	const struct config_key *key = config_key_find(name, strlen(name));
	char *text = NULL;

	CHECK(key != NULL);
	CHECK_EQ(config_format(c, key, &text), 0);
	snprintf(out, sizeof(out), "%s", text);
	free(text);
	return out;
}

static const char *origin_of(const struct config *c, const char *name)
{
	return config_origin(c, config_key_find(name, strlen(name)));
}

/* A folder for files, gone again at the end of the test. */
struct folder {
	char path[200];
};

static void folder_make(struct folder *f)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(f->path, sizeof(f->path), "%s/wsbind-config-XXXXXX", tmp ? tmp : "/tmp");
	CHECK(mkdtemp(f->path) != NULL);
}

static const char *folder_file(const struct folder *f, const char *name)
{
	static char out[4][400];
	static unsigned next;
	char *path = out[next++ % 4];

	snprintf(path, sizeof(out[0]), "%s/%s", f->path, name);
	return path;
}

static void folder_write(const struct folder *f, const char *name, const char *text)
{
	FILE *out = fopen(folder_file(f, name), "we");

	CHECK(out != NULL);
	CHECK(fputs(text, out) >= 0);
	CHECK_EQ(fclose(out), 0);
}

static void folder_remove(const struct folder *f, const char *const *names)
{
	for (; *names; names++)
		CHECK_EQ(remove(folder_file(f, *names)), 0);
	CHECK_EQ(rmdir(f->path), 0);
}

TEST(config_defaults_are_those_of_the_manual)
{
	struct config *c = parse_good("");

	CHECK_STR(c->host, "0.0.0.0");
	CHECK_EQ(c->port, 8080);
	CHECK_EQ(c->max_connections, 10000);
	CHECK_EQ(c->max_connections_per_ip, 0);
	CHECK_EQ(c->max_message_size, 16 * MIB);
	CHECK_EQ(c->max_frame_size, 4 * MIB);
	CHECK_EQ(c->message_queue_size, 1000);
	CHECK_EQ(c->max_send_buffer, MIB);
	CHECK_EQ(c->slow_consumer, SLOW_DISCONNECT);
	CHECK_EQ(c->slow_consumer_grace, 5 * NS_PER_S);
	CHECK_EQ(c->log_memory, 256 * MIB);
	CHECK_EQ(c->tcp_notsent_lowat, 128 * KIB);
	CHECK_EQ(c->message_timeout, 60 * NS_PER_S);
	CHECK_EQ(c->max_channels, 100000);
	CHECK_EQ(c->max_incoming_frames_per_second, 1000);
	CHECK_EQ(c->rate_limit_action, RATE_THROTTLE);
	CHECK_EQ(c->reassembly_memory, 256 * MIB);
	CHECK_EQ(c->ping_interval, 30 * NS_PER_S);
	CHECK_EQ(c->pong_timeout, 10 * NS_PER_S);
	CHECK_EQ(c->heartbeat_timeout, 120 * NS_PER_S);
	CHECK_EQ(c->handshake_timeout, 10 * NS_PER_S);
	CHECK_EQ(c->shutdown_timeout, 10 * NS_PER_S);
	CHECK_EQ(c->reconnect_window, 30 * NS_PER_S);
	CHECK_EQ(c->worker_threads, 0);
	CHECK_EQ(c->tcp_nodelay, true);
	CHECK_EQ(c->tcp_keepalive, 60 * NS_PER_S);
	CHECK_EQ(c->enable_compression, true);
	CHECK_EQ(c->compression_level, 6);
	CHECK_EQ(c->compression_threshold, KIB);
	CHECK_EQ(c->compression_max_size, 256 * KIB);
	CHECK_EQ(c->enable_metrics, true);
	CHECK_STR(c->metrics_host, "127.0.0.1");
	CHECK_EQ(c->metrics_port, 9090);
	CHECK_STR(c->control_socket, "");
	CHECK_STR(c->welcome, "Welcome {user}! Your connection ID: {id}");
	CHECK_EQ(c->notice_limit, 500);
	CHECK_EQ(c->max_channels_per_client, 64);
	CHECK_EQ(c->text_messages, TEXT_LOG);
	CHECK_STR(c->spool_dir, "");
	CHECK_STR(c->echo_path, "");
	CHECK_EQ(c->log_level, LOG_INFO);
	CHECK_EQ(c->log_connections, true);
	CHECK_EQ(c->reconnect_attempts, 5);
	CHECK_EQ(c->reconnect_delay_ms, 1000);
	CHECK(c->reconnect_backoff > 1.49 && c->reconnect_backoff < 1.51);
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		CHECK_STR(config_origin(c, &config_keys[i]), "default");
	config_unref(c);
}

/* One good line of each kind, in each form that the manual allows. */
TEST(config_reads_every_kind)
{
	static const struct {
		const char *line, *key, *value;
	} good[] = {
		{"port=0", "port", "0"},
		{"port = 65535", "port", "65535"},
		{"  port\t=\t81  ", "port", "81"},
		{"port = 81\r", "port", "81"},
		{"host = ::", "host", "::"},
		{"host = fe80::1", "host", "fe80::1"},
		{"metrics_host = 10.0.0.1", "metrics_host", "10.0.0.1"},
		{"max_message_size = 256M", "max_message_size", "256M"},
		{"max_message_size = 16777217", "max_message_size", "16777217"},
		{"log_memory = 1T", "log_memory", "1T"},
		{"ping_interval = 50ms", "ping_interval", "50ms"},
		{"ping_interval = 0.5s", "ping_interval", "500ms"},
		{"ping_interval = 2", "ping_interval", "2s"},
		{"ping_interval = 1m", "ping_interval", "1m"},
		{"heartbeat_timeout = 24h", "heartbeat_timeout", "24h"},
		{"tcp_keepalive = 0", "tcp_keepalive", "0s"},
		{"tcp_keepalive = 1s", "tcp_keepalive", "1s"},
		{"slow_consumer_grace = 0", "slow_consumer_grace", "0s"},
		{"tcp_nodelay = no", "tcp_nodelay", "no"},
		{"tcp_nodelay = off", "tcp_nodelay", "no"},
		{"tcp_nodelay = 0", "tcp_nodelay", "no"},
		{"tcp_nodelay = TRUE", "tcp_nodelay", "yes"},
		{"worker_threads = auto", "worker_threads", "auto"},
		{"worker_threads = 64", "worker_threads", "64"},
		{"slow_consumer = skip", "slow_consumer", "skip"},
		{"rate_limit_action = close", "rate_limit_action", "close"},
		{"text_messages = relay", "text_messages", "relay"},
		{"text_messages = Reject", "text_messages", "reject"},
		{"log_level = emerg", "log_level", "emerg"},
		{"log_level = error", "log_level", "err"},
		{"log_level = warn", "log_level", "warning"},
		{"log_level = debug", "log_level", "debug"},
		{"reconnect_backoff = 1", "reconnect_backoff", "1"},
		{"reconnect_backoff = 2.25", "reconnect_backoff", "2.25"},
		{"echo_path = /echo", "echo_path", "/echo"},
		{"echo_path =", "echo_path", ""},
		{"spool_dir = in coming", "spool_dir", "in coming"},
		{"spool_min_free = 7%", "spool_min_free", "7%"},
		{"spool_min_free = 12 %", "spool_min_free", "12%"},
		{"spool_min_free = 0", "spool_min_free", "0%"},
		{"welcome =", "welcome", ""},
		{"welcome = a ; b # c = d: e", "welcome", "a ; b # c = d: e"},
		{"welcome = \"quoted\" ", "welcome", "\"quoted\""},
		{"welcome = [x]", "welcome", "[x]"},
		{"welcome = gr\xc3\xbc\xc3\x9f", "welcome", "gr\xc3\xbc\xc3\x9f"},
		{"\xef\xbb\xbfport = 7", "port", "7"},
	};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct config *c = parse_good(good[i].line);

		CHECK_STR(value_of(c, good[i].key), good[i].value);
		CHECK_STR(origin_of(c, good[i].key), "test.conf:1");
		config_unref(c);
	}
}

TEST(config_names_what_is_wrong_with_a_line)
{
	static const struct {
		const char *line, *diagnostic;
	} bad[] = {
		{"port = 99999", "f:1: port = 99999: out of range; allowed: off, or 0 to 65535"},
		{"port = 99999999999999999999999",
		 "f:1: port = 99999999999999999999999: out of range; allowed: off, or 0 to 65535"},
		{"port = http", "f:1: port = http: not a number; allowed: off, or 0 to 65535"},
		{"port = -1", "f:1: port = -1: not a number; allowed: off, or 0 to 65535"},
		{"port =", "f:1: port = : not a number; allowed: off, or 0 to 65535"},
		{"port = 1 # one",
		 "f:1: port = 1 # one: not a number; allowed: off, or 0 to 65535; "
		 "a comment needs a line of its own"},
		{"\n# comment\n; comment\n\n   port = x\n",
		 "f:5: port = x: not a number; allowed: off, or 0 to 65535"},
		{"max_message_size = 1",
		 "f:1: max_message_size = 1: out of range; allowed: 1K to 256M "
		 "(bytes, or with K, M, G)"},
		{"max_message_size = 1X",
		 "f:1: max_message_size = 1X: not a size; allowed: 1K to 256M "
		 "(bytes, or with K, M, G)"},
		{"ping_interval = 0", "f:1: ping_interval = 0: out of range; allowed: 50ms to 1h "
				      "(seconds, or with ms, s, m, h)"},
		{"spool_min_free = 100%",
		 "f:1: spool_min_free = 100%: out of range; allowed: 0 to 99, with or without %"},
		{"spool_min_free = %",
		 "f:1: spool_min_free = %: not a percentage; allowed: 0 to 99, with or without %"},
		{"spool_min_free = 5%%",
		 "f:1: spool_min_free = 5%%: not a percentage; allowed: 0 to 99, with or without "
		 "%"},
		{"ping_interval = soon",
		 "f:1: ping_interval = soon: not a duration; allowed: 50ms to 1h "
		 "(seconds, or with ms, s, m, h)"},
		{"tcp_keepalive = 999ms",
		 "f:1: tcp_keepalive = 999ms: out of range; allowed: 0, or 1s to 9h "
		 "(seconds, or with ms, s, m, h)"},
		{"tcp_nodelay = maybe", "f:1: tcp_nodelay = maybe: not yes or no; allowed: "
					"yes, no, true, false, on, off, 1, 0"},
		{"worker_threads = 0",
		 "f:1: worker_threads = 0: out of range; allowed: auto, or 1 to 64"},
		{"worker_threads = 65",
		 "f:1: worker_threads = 65: out of range; allowed: auto, or 1 to 64"},
		{"worker_threads = all",
		 "f:1: worker_threads = all: not a number; allowed: auto, or 1 to 64"},
		{"slow_consumer = kill", "f:1: slow_consumer = kill: not a known action; allowed: "
					 "disconnect, skip, history"},
		{"rate_limit_action = x",
		 "f:1: rate_limit_action = x: not a known action; allowed: throttle, close"},
		{"text_messages = x",
		 "f:1: text_messages = x: not a known action; allowed: log, relay, reject"},
		{"log_level = loud",
		 "f:1: log_level = loud: not a log level; allowed: emerg, alert, crit, err, error, "
		 "warning, warn, notice, info, debug"},
		{"reconnect_backoff = 0.9",
		 "f:1: reconnect_backoff = 0.9: out of range; allowed: 1 to 10, with fractions"},
		{"reconnect_backoff = nan",
		 "f:1: reconnect_backoff = nan: not a number; allowed: 1 to 10, with fractions"},
		{"host = localhost", "f:1: host = localhost: not an address; "
				     "allowed: an IPv4 or IPv6 address in numbers"},
		{"host =",
		 "f:1: host = : not an address; allowed: an IPv4 or IPv6 address in numbers"},
		{"echo_path = echo",
		 "f:1: echo_path = echo: not a path; allowed: empty, or a path that begins with "
		 "\"/\" and has no \"?\", \"#\" or space; at most 255 bytes"},
		{"echo_path = /a?b",
		 "f:1: echo_path = /a?b: not a path; allowed: empty, or a path that begins with "
		 "\"/\" and has no \"?\", \"#\" or space; at most 255 bytes"},
		{"welcome = \xff",
		 "f:1: welcome = \xff: not a text in UTF-8 without control characters; "
		 "allowed: at most 1024 bytes of UTF-8"},
		{"welcome = a\x1b[31m",
		 "f:1: welcome = a\x1b[31m: not a text in UTF-8 without control characters; "
		 "allowed: at most 1024 bytes of UTF-8"},
		{"max_conections = 5",
		 "f:1: max_conections = 5: unknown key; did you mean max_connections?"},
		{"max-connections = 5",
		 "f:1: max-connections = 5: unknown key; did you mean max_connections?"},
		{"Port = 5", "f:1: Port = 5: unknown key; did you mean port?"},
		{"colour = blue",
		 "f:1: colour = blue: unknown key; wsbind.conf(5) lists those there are"},
		{"x = 1", "f:1: x = 1: unknown key; wsbind.conf(5) lists those there are"},
		{"a_name_that_is_longer_than_any_key_could_ever_be = 1",
		 "f:1: a_name_that_is_longer_than_any_key_could_ever_be = 1: unknown key; "
		 "wsbind.conf(5) lists those there are"},
		{"[server]", "f:1: [server]: no such section; allowed: [channel PATTERN]"},
		{"port", "f:1: port: no key and value; allowed: key = value"},
		{"port 80", "f:1: port 80: no key and value; allowed: key = value"},
		{"port: 80", "f:1: port: 80: no key and value; allowed: key = value"},
		{"= 80", "f:1: = 80: no key and value; allowed: key = value"},
		{"port = 1\n\xef\xbb\xbfport = 2",
		 "f:2: \xef\xbb\xbfport = 2: unknown key; did you mean port?"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		parse_bad(bad[i].line, bad[i].diagnostic);
}

TEST(config_refuses_a_nul_byte_and_a_line_too_long)
{
	char text[CONFIG_MAX_LINE_BYTES + 100];
	struct config_errors errors = {0};
	struct config *c = NULL;
	size_t n;

	parse_bad_bytes("port = 1\0 ", 10,
			"f:1: port = 1: a NUL byte; "
			"allowed: text in UTF-8");

	memset(text, '#', sizeof(text));
	CHECK_EQ(config_parse_text("f", text, CONFIG_MAX_LINE_BYTES, &c, &errors), 0);
	c = config_unref(c);
	n = CONFIG_MAX_LINE_BYTES + 1;
	CHECK_EQ(config_parse_text("f", text, n, &c, &errors), CONFIG_E_INVALID);
	CHECK(strstr(errors.line[0], "line too long; allowed: 4096 bytes") != NULL);
	CHECK(strlen(errors.line[0]) < 300);
	config_errors_fini(&errors);
}

/* inih's own line is 200 bytes: a long value has to come through whole. */
TEST(config_takes_a_text_up_to_its_limit)
{
	char text[2000] = "welcome = ", *end = text + strlen(text);
	struct config *c;

	memset(end, 'w', 1024);
	end[1024] = '\0';
	c = parse_good(text);
	CHECK_EQ(strlen(c->welcome), 1024);
	config_unref(c);

	memset(end, 'w', 1025);
	end[1025] = '\0';
	CHECK_EQ(strlen(end), 1025);
	{
		struct config_errors errors = {0};

		CHECK_EQ(config_parse_text("f", text, strlen(text), &c, &errors), CONFIG_E_INVALID);
		CHECK(strstr(errors.line[0],
			     "...: too long; allowed: at most 1024 bytes of UTF-8") != NULL);
		config_errors_fini(&errors);
	}
}

TEST(config_collects_all_errors_in_their_order)
{
	static const char text[] =
		"port = x\nmax_channels = 5\nfoo\nhost = y\nlog_level = q\n[z]\nhost = q";
	static const char *const begins[] = {"f:1: port", "f:3: foo", "f:4: host", "f:5: log_level",
					     "f:6: [z]"};
	struct config_errors errors = {0};
	struct config *c = NULL;

	CHECK_EQ(config_parse_text("f", text, strlen(text), &c, &errors), CONFIG_E_INVALID);
	CHECK_EQ(errors.n, ARRAY_LEN(begins));
	for (size_t i = 0; i < ARRAY_LEN(begins); i++)
		CHECK(strncmp(errors.line[i], begins[i], strlen(begins[i])) == 0);
	config_errors_fini(&errors);
}

TEST(config_counts_the_errors_past_its_limit)
{
	char text[2 * (CONFIG_MAX_ERRORS + 5) + 1];
	struct config_errors errors = {0};
	struct config *c = NULL;

	for (size_t i = 0; i < CONFIG_MAX_ERRORS + 5; i++)
		memcpy(text + 2 * i, "x\n", 3);
	CHECK_EQ(config_parse_text("f", text, strlen(text), &c, &errors), CONFIG_E_INVALID);
	CHECK_EQ(errors.n, CONFIG_MAX_ERRORS);
	CHECK_EQ(errors.n_lost, 5);
	CHECK_EQ(config_parse_text("f", text, 2, &c, &errors), CONFIG_E_INVALID);
	CHECK_EQ(errors.n_lost, 6);
	config_errors_fini(&errors);
	CHECK_EQ(errors.n_lost, 0);
}

TEST(config_later_line_wins)
{
	struct config *c = parse_good("port = 1\nwelcome = one\nport = 2\nwelcome = two\n");

	CHECK_EQ(c->port, 2);
	CHECK_STR(c->welcome, "two");
	CHECK_STR(origin_of(c, "port"), "test.conf:3");
	CHECK_STR(origin_of(c, "welcome"), "test.conf:4");
	config_unref(c);
}

/* An indented line is a line like others, not a continuation of the one before. */
TEST(config_has_no_continuation_lines)
{
	struct config *c = parse_good("welcome = one\n  port = 7\n");

	CHECK_STR(c->welcome, "one");
	CHECK_EQ(c->port, 7);
	config_unref(c);
}

TEST(config_finds_values_that_contradict_each_other)
{
	static const struct {
		const char *text, *diagnostic;
	} bad[] = {
		{"max_message_size = 4M\nmax_frame_size = 5M",
		 "f:2: max_frame_size = 5M: has to be at most max_message_size; "
		 "max_message_size is 4M (f:1)"},
		{"compression_max_size = 256K\ncompression_threshold = 1M",
		 "f:2: compression_threshold = 1M: has to be at most compression_max_size; "
		 "compression_max_size is 256K (f:1)"},
		{"port = 9090",
		 "default: metrics_port = 9090: has to differ from port on the same address; "
		 "port is 9090 (f:1)"},
		{"metrics_port = 8080\nmetrics_host = ::",
		 "f:1: metrics_port = 8080: has to differ from port on the same address; "
		 "port is 8080 (default)"},
	};
	/* A default never stands against a key that was set. */
	static const char *const good[] = {
		"max_message_size = 2M",
		"max_frame_size = 32M",
		"compression_threshold = 1M",
		"heartbeat_timeout = 1",
		"max_channels = 10",
		"log_memory = 1M",
		"compression_max_size = 1K\ncompression_threshold = 1M\nenable_compression = no",
		"port = 9090\nenable_metrics = no",
		"port = 0\nmetrics_port = 0",
		"port = 9090\nhost = 127.0.0.2",
		"max_frame_size = 16M",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		parse_bad(bad[i].text, bad[i].diagnostic);
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		config_unref(parse_good(good[i]));
}

/* Whatever config_format() writes is read back as the same value. */
TEST(config_format_and_parse_agree)
{
	static const char text[] = "port = 1\ntcp_keepalive = 1.5s\nmax_send_buffer = 12345\n"
				   "worker_threads = 3\nreconnect_backoff = 1.0625\n"
				   "text_messages = reject\nlog_level = crit\ntcp_nodelay = 0\n"
				   "welcome = x # y\nhost = ::1\n";
	struct config *c = parse_good(text), *again;
	char written[8000];
	size_t n = 0;

	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		n += (size_t)snprintf(written + n, sizeof(written) - n, "%s = %s\n",
				      config_keys[i].name, value_of(c, config_keys[i].name));
	again = parse_good(written);
	for (size_t i = 0; i < CONFIG_N_KEYS; i++) {
		char first[2000];

		snprintf(first, sizeof(first), "%s", value_of(c, config_keys[i].name));
		CHECK_STR(value_of(again, config_keys[i].name), first);
	}
	CHECK_EQ(again->tcp_keepalive, 1500 * NS_PER_MS);
	config_unref(c);
	config_unref(again);
}

TEST(config_reads_file_then_drop_ins_then_command_line)
{
	static const char *const names[] = {"c.conf.d/10-a.conf",
					    "c.conf.d/9-b.conf",
					    "c.conf.d/.hidden.conf",
					    "c.conf.d/notes.txt",
					    "c.conf.d",
					    "c.conf",
					    NULL};
	struct config_errors errors = {0};
	struct config_source src = {0};
	struct config *c = NULL;
	struct folder f;
	char origin[300];

	folder_make(&f);
	CHECK_EQ(mkdir(folder_file(&f, "c.conf.d"), 0700), 0);
	folder_write(&f, "c.conf",
		     "port = 1\nmax_channels = 1000\nnotice_limit = 1\n"
		     "max_connections = 1\n");
	folder_write(&f, "c.conf.d/10-a.conf", "\nport = 2\nmax_channels = 2000\n");
	folder_write(&f, "c.conf.d/9-b.conf", "port = 3\nnotice_limit = 3\n");
	folder_write(&f, "c.conf.d/.hidden.conf", "[bad]\n");
	folder_write(&f, "c.conf.d/notes.txt", "[bad]\n");
	src.file = folder_file(&f, "c.conf");
	src.override[src.n_overrides++] = (struct config_override){"notice-limit=4", "4"};

	CHECK_EQ(config_load(&src, &c, &errors), 0);
	CHECK_EQ(c->max_connections, 1);
	CHECK_EQ(c->max_channels, 2000);
	CHECK_EQ(c->port, 3);
	CHECK_EQ(c->notice_limit, 4);
	CHECK_STR(origin_of(c, "notice_limit"), "command line");
	snprintf(origin, sizeof(origin), "%s/c.conf.d/10-a.conf:3", f.path);
	CHECK_STR(origin_of(c, "max_channels"), origin);
	config_unref(c);
	folder_remove(&f, names);
}

TEST(config_file_that_was_named_must_be_readable)
{
	static const char *const names[] = {"big.conf", "dir.conf", NULL};
	struct config_errors errors = {0};
	struct config_source src = {0};
	struct config *c = NULL;
	struct folder f;
	char expected[400];
	int fd;

	folder_make(&f);
	src.file = folder_file(&f, "none.conf");
	CHECK_EQ(config_load(&src, &c, &errors), CONFIG_E_INVALID);
	snprintf(expected, sizeof(expected), "%s/none.conf: cannot be read: %s", f.path,
		 strerror(ENOENT));
	CHECK_STR(errors.line[0], expected);

	CHECK_EQ(mkdir(folder_file(&f, "dir.conf"), 0700), 0);
	src.file = folder_file(&f, "dir.conf");
	CHECK_EQ(config_load(&src, &c, &errors), CONFIG_E_INVALID);
	snprintf(expected, sizeof(expected), "%s/dir.conf: cannot be read: %s", f.path,
		 strerror(EISDIR));
	CHECK_STR(errors.line[1], expected);

	fd = open(folder_file(&f, "big.conf"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, CONFIG_MAX_FILE_BYTES + 1), 0);
	close(fd);
	src.file = folder_file(&f, "big.conf");
	CHECK_EQ(config_load(&src, &c, &errors), CONFIG_E_INVALID);
	snprintf(expected, sizeof(expected), "%s/big.conf: too long; allowed: 1048576 bytes",
		 f.path);
	CHECK_STR(errors.line[2], expected);
	CHECK_EQ(errors.n, 3);
	CHECK(!c);
	config_errors_fini(&errors);
	folder_remove(&f, names);
}

TEST(config_diagnoses_the_command_line_too)
{
	struct config_errors errors = {0};
	struct config_source src = {.file = "/dev/null"};
	struct config *c = NULL;

	src.override[src.n_overrides++] = (struct config_override){"max-connections=0", "0"};
	src.override[src.n_overrides++] = (struct config_override){"max-conections=7", "7"};
	src.override[src.n_overrides++] = (struct config_override){"port", "6"};
	CHECK_EQ(config_load(&src, &c, &errors), CONFIG_E_INVALID);
	CHECK_EQ(errors.n, 2);
	CHECK_STR(errors.line[0],
		  "command line: max_connections = 0: out of range; allowed: 1 to 1000000");
	CHECK_STR(errors.line[1],
		  "command line: max_conections = 7: unknown key; did you mean max_connections?");
	config_errors_fini(&errors);
}

TEST(config_source_takes_its_options_and_no_others)
{
	static const struct {
		const char *first, *second;
		int result, taken;
		const char *value;
	} cases[] = {
		{"--port=1", "x", 0, 1, "1"},
		{"--port", "1", 0, 2, "1"},
		{"--port", NULL, CONFIG_E_USAGE, 0, NULL},
		{"--port", "--dump", CONFIG_E_USAGE, 0, NULL},
		{"--max-connections", "5", 0, 2, "5"},
		{"--max_connections=5", NULL, 0, 1, "5"},
		{"--tcp-nodelay", "no", 0, 1, "yes"},
		{"--tcp-nodelay=no", NULL, 0, 1, "no"},
		{"--welcome=", NULL, 0, 1, ""},
		{"--welcome=a=b", NULL, 0, 1, "a=b"},
		{"--unknown=3", NULL, 0, 1, "3"},
		{"--unknown", "3", CONFIG_E_NOT_MINE, 0, NULL},
		{"--", "3", CONFIG_E_NOT_MINE, 0, NULL},
		{"--=3", NULL, CONFIG_E_NOT_MINE, 0, NULL},
		{"-p", "3", CONFIG_E_NOT_MINE, 0, NULL},
		{"file", NULL, CONFIG_E_NOT_MINE, 0, NULL},
		{"--configure", "x", CONFIG_E_NOT_MINE, 0, NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct config_source src = {0};
		char first[50], second[50], *argv[] = {first, NULL, NULL};
		int at = 0;

		snprintf(first, sizeof(first), "%s", cases[i].first);
		if (cases[i].second) {
			snprintf(second, sizeof(second), "%s", cases[i].second);
			argv[1] = second;
		}
		CHECK_EQ(config_source_take(&src, argv, &at), cases[i].result);
		CHECK_EQ(at, cases[i].taken);
		CHECK_EQ(src.n_overrides, cases[i].value != NULL);
		if (cases[i].value)
			CHECK_STR(src.override[0].value, cases[i].value);
	}
}

TEST(config_source_takes_the_file_and_is_bounded)
{
	char config[] = "--config", file[] = "a.conf", joined[] = "--config=b.conf",
	     port[] = "--port=1";
	char *argv[] = {config, file, joined, port, config, NULL};
	struct config_source src = {0};
	int at = 0;

	CHECK_EQ(config_source_take(&src, argv, &at), 0);
	CHECK_EQ(at, 2);
	CHECK_STR(src.file, "a.conf");
	CHECK_EQ(config_source_take(&src, argv, &at), 0);
	CHECK_EQ(at, 3);
	CHECK_STR(src.file, "b.conf");
	for (size_t i = 0; i < CONFIG_MAX_OVERRIDES; i++) {
		at = 3;
		CHECK_EQ(config_source_take(&src, argv, &at), 0);
	}
	at = 3;
	CHECK_EQ(config_source_take(&src, argv, &at), CONFIG_E_USAGE);
	CHECK_EQ(at, 3);
	at = 4;
	CHECK_EQ(config_source_take(&src, argv, &at), CONFIG_E_USAGE);
}

TEST(config_key_find_takes_whole_names_only)
{
	CHECK(config_key_find("port", 4) == &config_keys[CONFIG_KEY_port]);
	CHECK(config_key_find("metrics-port", 12) == &config_keys[CONFIG_KEY_metrics_port]);
	CHECK(config_key_find("port=1", 4) == &config_keys[CONFIG_KEY_port]);
	CHECK(!config_key_find("por", 3));
	CHECK(!config_key_find("ports", 5));
	CHECK(!config_key_find("", 0));
}

struct diff_log {
	char text[1000];
};

static void note_difference(void *ctx, const struct config_key *key, const char *name,
			    const char *was, const char *is)
{
	struct diff_log *log = ctx;
	size_t n = strlen(log->text);

	snprintf(log->text + n, sizeof(log->text) - n, "%s: %s -> %s (%s)\n", name, was, is,
		 config_reload_text(key->reload));
}

TEST(config_diff_reports_what_a_reload_changes)
{
	struct config *was = parse_good("welcome = a\n");
	struct config *is = parse_good("port = 81\nwelcome = b\nmax_send_buffer = 2M\n"
				       "reconnect_backoff = 2\nlog_connections = no\n"
				       "log_level = debug\nping_interval = 30s\n");
	struct diff_log log = {0};

	CHECK_EQ(config_diff(was, is, note_difference, &log), 0);
	CHECK_STR(log.text, "port: 8080 -> 81 (restart)\n"
			    "welcome: a -> b (new connections)\n"
			    "max_send_buffer: 1M -> 2M (live)\n"
			    "log_level: info -> debug (live)\n"
			    "log_connections: yes -> no (live)\n"
			    "reconnect_backoff: 1.5 -> 2 (restart)\n");
	log.text[0] = '\0';
	CHECK_EQ(config_diff(is, is, note_difference, &log), 0);
	CHECK_STR(log.text, "");
	config_unref(was);
	config_unref(is);
}

/* What waits for a restart stays as it is, and is reported again by the next reload. */
TEST(config_keep_running_keeps_what_needs_a_restart)
{
	struct config *running = parse_good("port = 81\nspool_dir = /a\n");
	struct config *fresh = parse_good("\nport = 82\nspool_dir = /b\nhost = ::\nwelcome = hi\n");
	struct config *next = parse_good("port = 82\nspool_dir = /b\nhost = ::\nwelcome = hi\n");
	struct diff_log log = {0};

	CHECK_EQ(config_keep_running(fresh, running), 0);
	CHECK_EQ(fresh->port, 81);
	CHECK_STR(fresh->spool_dir, "/a");
	CHECK_STR(fresh->host, "0.0.0.0");
	CHECK_STR(fresh->welcome, "hi");
	CHECK_STR(origin_of(fresh, "port"), "test.conf:1");
	CHECK_STR(origin_of(fresh, "host"), "default");
	CHECK_STR(origin_of(fresh, "welcome"), "test.conf:5");
	config_unref(running);
	CHECK_EQ(config_diff(fresh, next, note_difference, &log), 0);
	CHECK_STR(log.text, "host: 0.0.0.0 -> :: (restart)\nport: 81 -> 82 (restart)\n"
			    "spool_dir: /a -> /b (restart)\n");
	config_unref(fresh);
	config_unref(next);
}

static void *take_and_leave(void *arg)
{
	struct config *c = arg;

	for (int i = 0; i < 1000; i++)
		config_unref(config_ref(c));
	config_unref(c);
	return NULL;
}

/* The sanitizers tell whether the last one, and only the last one, frees. */
TEST(config_snapshot_is_freed_by_the_last_of_several_threads)
{
	struct config *c = parse_good("port = 5\n");
	pthread_t thread[3];

	for (size_t i = 0; i < ARRAY_LEN(thread); i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, take_and_leave, config_ref(c)), 0);
	CHECK_EQ(c->port, 5);
	CHECK(!config_unref(c));
	for (size_t i = 0; i < ARRAY_LEN(thread); i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK(!config_unref(NULL));
}

/* Each line of a dump, cut at columns that the first line gives. */
TEST(config_dump_has_aligned_columns)
{
	struct config *c = parse_good("welcome = tab\xe2\x80\xa8 end\nspool_dir = /x\n");
	char *text = NULL, *at, *line;
	size_t n = 0, lines = 0, value_at, origin_at, reload_at;
	FILE *out = open_memstream(&text, &n);

	CHECK_EQ(config_dump(c, out), 0);
	fclose(out);
	CHECK(strstr(text, "tab\\xe2\\x80\\xa8 end") != NULL);
	CHECK(strstr(text, "(empty)") != NULL);
	at = text;
	line = strsep(&at, "\n");
	value_at = (size_t)(strstr(line, "VALUE") - line);
	origin_at = (size_t)(strstr(line, "ORIGIN") - line);
	reload_at = (size_t)(strstr(line, "RELOAD") - line);
	while ((line = strsep(&at, "\n")) && *line) {
		const struct config_key *key = &config_keys[lines++];
		const char *origin = config_origin(c, key);

		CHECK(strncmp(line, key->name, strlen(key->name)) == 0);
		CHECK(line[value_at - 1] == ' ' && line[value_at] != ' ');
		CHECK(strncmp(line + origin_at, origin, strlen(origin)) == 0);
		CHECK_STR(line + reload_at, config_reload_text(key->reload));
	}
	CHECK_EQ(lines, CONFIG_N_KEYS);
	free(text);
	config_unref(c);
}

TEST(config_dump_reports_output_that_fails)
{
	struct config *c = parse_good("");
	FILE *out = fopen("/dev/full", "we");

	CHECK(out != NULL);
	CHECK_EQ(config_dump(c, out), -EIO);
	fclose(out);
	out = fopen("/dev/full", "we");
	CHECK_EQ(config_template(out), -EIO);
	fclose(out);
	config_unref(c);
}

/* As it is it changes nothing; with the comment signs of the keys taken away, neither. */
TEST(config_template_is_a_file_with_every_default)
{
	struct config *c, *plain = parse_good("");
	struct diff_log log = {0};
	char *text = NULL, *at;
	size_t n = 0, keys = 0;
	FILE *out = open_memstream(&text, &n);

	CHECK_EQ(config_template(out), 0);
	fclose(out);
	config_unref(parse_good(text));
	for (at = text; (at = strstr(at, "\n#")); at++) {
		if (at[2] == ' ' || at[2] == '#' || at[2] == '\n')
			continue;
		at[1] = ' ';
		keys++;
	}
	CHECK_EQ(keys, CONFIG_N_KEYS);
	c = parse_good(text);
	CHECK_EQ(config_diff(plain, c, note_difference, &log), 0);
	CHECK_STR(log.text, "");
	for (size_t i = 0; i < CONFIG_N_KEYS; i++)
		CHECK(strncmp(config_origin(c, &config_keys[i]), "test.conf:", 10) == 0);
	free(text);
	config_unref(c);
	config_unref(plain);
}

TEST(config_paths_lie_under_the_directories_of_systemd)
{
	static const struct {
		const char *variable, *path, *result;
	} cases[] = {
		{NULL, "a/b", "a/b"},
		{"", "a/b", "a/b"},
		{"/var/lib/x", "a/b", "/var/lib/x/a/b"},
		{"/var/lib/x:/var/lib/y", "a", "/var/lib/x/a"},
		{"/var/lib/x", "/a", "/a"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *state = NULL, *runtime = NULL;

		unsetenv("STATE_DIRECTORY");
		unsetenv("RUNTIME_DIRECTORY");
		if (cases[i].variable) {
			setenv("STATE_DIRECTORY", cases[i].variable, 1);
			setenv("RUNTIME_DIRECTORY", cases[i].variable, 1);
		}
		CHECK_EQ(config_path_state(cases[i].path, &state), 0);
		CHECK_STR(state, cases[i].result);
		CHECK_EQ(config_path_runtime(cases[i].path, &runtime), 0);
		CHECK_STR(runtime, cases[i].result);
		free(state);
		free(runtime);
	}
	unsetenv("STATE_DIRECTORY");
	unsetenv("RUNTIME_DIRECTORY");
}

TEST(config_control_socket_path_has_a_default_and_an_off)
{
	static const struct {
		const char *text, *variable, *fallback, *result;
	} cases[] = {
		{"", NULL, NULL, NULL},
		{"", NULL, "/run/wsbind", "/run/wsbind/control.sock"},
		{"", "/run/a", "/run/wsbind", "/run/a/control.sock"},
		{"", "/run/a:/run/b", NULL, "/run/a/control.sock"},
		{"control_socket = none", "/run/a", "/run/wsbind", NULL},
		{"control_socket = c", "/run/a", NULL, "/run/a/c"},
		{"control_socket = c", NULL, NULL, "c"},
		{"control_socket = /tmp/c", "/run/a", NULL, "/tmp/c"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct config *c = parse_good(cases[i].text);
		char *path = NULL;

		unsetenv("RUNTIME_DIRECTORY");
		if (cases[i].variable)
			setenv("RUNTIME_DIRECTORY", cases[i].variable, 1);
		CHECK_EQ(config_control_socket_path(c, cases[i].fallback, &path), 0);
		if (cases[i].result)
			CHECK_STR(path, cases[i].result);
		else
			CHECK(!path);
		free(path);
		config_unref(c);
	}
	unsetenv("RUNTIME_DIRECTORY");
}

/* The commands look under /run/wsbind too, but only for what is not in the working directory. */
TEST(config_control_socket_path_is_looked_for_in_two_places)
{
	char dir[] = "/tmp/wsbind-fallback-XXXXXX", name[40], text[80], under[80];
	struct config *c;
	char *path = NULL;

	unsetenv("RUNTIME_DIRECTORY");
	CHECK(mkdtemp(dir));
	snprintf(name, sizeof(name), "wsbind-test-%d.sock", (int)getpid());
	snprintf(text, sizeof(text), "control_socket = %s", name);
	snprintf(under, sizeof(under), "%s/%s", dir, name);
	c = parse_good(text);
	for (int is_under = 0; is_under < 2; is_under++)
		for (int is_here = 0; is_here < 2; is_here++) {
			if (is_under)
				fclose(fopen(under, "we"));
			if (is_here)
				fclose(fopen(name, "we"));
			CHECK_EQ(config_control_socket_path(c, dir, &path), 0);
			CHECK_STR(path, is_under && !is_here ? under : name);
			free(path);
			CHECK_EQ(config_control_socket_path(c, NULL, &path), 0);
			CHECK_STR(path, name);
			free(path);
			unlink(under);
			unlink(name);
		}
	config_unref(c);
	rmdir(dir);
}

static int find_in(const char *text, const char *override, char **ret)
{
	struct config_source src = {.file = "/tmp/wsbind-find-test.conf"};
	struct config_errors errors = {0};
	FILE *f = fopen(src.file, "we");
	int r;

	CHECK(f);
	fputs(text, f);
	fclose(f);
	if (override)
		src.override[src.n_overrides++] =
			(struct config_override){"control_socket", override};
	*ret = NULL;
	r = config_find_control_socket(&src, "/run/wsbind", ret, &errors);
	unlink(src.file);
	config_errors_fini(&errors);
	return r;
}

TEST(config_control_socket_is_found_beside_errors)
{
	static const char too_long[] = "control_socket = "
				       "/0123456789012345678901234567890123456789012345678901234567"
				       "890123456789012345678901"
				       "2345678901234567890123456789\n";
	struct config_source missing = {.file = "/nonexistent/wsbind.conf"};
	struct config_errors errors = {0};
	char *path, twice[sizeof(too_long) + 40];

	unsetenv("RUNTIME_DIRECTORY");
	CHECK_EQ(find_in("port = x\ncontrol_socket = /a\nnonsense\n", NULL, &path), 0);
	CHECK_STR(path, "/a");
	free(path);
	CHECK_EQ(find_in("port = x\ncontrol_socket = /a\n", "/b", &path), 0);
	CHECK_STR(path, "/b");
	free(path);
	CHECK_EQ(find_in("port = x\n", NULL, &path), 0);
	CHECK_STR(path, "/run/wsbind/control.sock");
	free(path);
	CHECK_EQ(find_in("control_socket = none\n", NULL, &path), 0);
	CHECK(!path);
	CHECK_EQ(find_in(too_long, NULL, &path), CONFIG_E_INVALID);
	snprintf(twice, sizeof(twice), "%scontrol_socket = /a\n", too_long);
	CHECK_EQ(find_in(twice, NULL, &path), 0);
	CHECK_STR(path, "/a");
	free(path);
	CHECK_EQ(config_find_control_socket(&missing, "/run/wsbind", &path, &errors),
		 CONFIG_E_INVALID);
	CHECK_EQ(errors.n_unread, 1);
	config_errors_fini(&errors);
}

/* Diagnostics hold what was found; printing escapes it, once. */
TEST(config_diagnostics_are_escaped_where_they_are_printed)
{
	static const char text[] = "welcome = \xff\x1b[2J\n";
	struct config_errors errors = {0};
	struct config *c = NULL;
	char *out = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&out, &n);

	CHECK(f);
	CHECK_EQ(config_parse_text("f", text, strlen(text), &c, &errors), CONFIG_E_INVALID);
	CHECK(strstr(errors.line[0], " \xff\x1b[2J: "));
	errors.n_lost = 2;
	config_errors_print(&errors, "> ", f);
	fclose(f);
	CHECK(strncmp(out, "> f:1: welcome = \\xff\\x1b[2J: not ", 34) == 0);
	CHECK(strstr(out, "\n> and 2 more\n"));
	free(out);
	config_errors_fini(&errors);
}

/* A long value is cut, between two characters. */
TEST(config_diagnostics_are_cut)
{
	char text[400] = "port = ";
	struct config_errors errors = {0};
	struct config *c = NULL;

	for (int i = 0; i < 150; i++)
		strcat(text, "\xc3\xa9");
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(config_parse_text("f", text, strlen(text), &c, &errors), CONFIG_E_INVALID);
		CHECK(strstr(errors.line[0], "\xc3\xa9...: not a number"));
		CHECK(strlen(errors.line[0]) < 200);
		config_errors_fini(&errors);
		memmove(text + 8, text + 7, strlen(text + 7) + 1);
		text[7] = 'x';
	}
}

/* inih passes over each of these before it looks for a section or a key. */
TEST(config_blanks_of_all_kinds_may_begin_a_line)
{
	static const char *const wrong[] = {"\v[=",
					    "\f[a=1",
					    "\r[",
					    " \v[x=",
					    "\v=",
					    "\f\v= 1",
					    "\rport",
					    "\f\r port = 1",
					    "\r;[",
					    "# a\rport = 1",
					    "port = 1\r\rhost = ::1"};
	static const char *const right[] = {"\vport = 1", "\v\f port = 1", "\v",
					    "\f# [",      "\f;[",          "# a\r\nport = 1\r"};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct config_errors errors = {0};
		struct config *c = NULL;

		CHECK_EQ(config_parse_text("f", wrong[i], strlen(wrong[i]), &c, &errors),
			 CONFIG_E_INVALID);
		CHECK_EQ(errors.n, 1);
		config_errors_fini(&errors);
	}
	for (size_t i = 0; i < ARRAY_LEN(right); i++) {
		struct config_errors errors = {0};
		struct config *c = NULL;

		CHECK_EQ(config_parse_text("f", right[i], strlen(right[i]), &c, &errors), 0);
		config_unref(c);
	}
}

/* Any bytes end in a snapshot or in a diagnostic, and never in both. */
TEST(config_survives_any_bytes)
{
	static const char *const piece[] = {"port", "=",  " = ",  "\n", "welcome", "[",
					    "]",    "#",  ";",    ":",  "\xff",    "9",
					    "16M",  "\t", "\r\n", "-",  "_"};
	uint64_t seed = test_seed();

	for (int round = 0; round < 2000; round++) {
		struct config_errors errors = {0};
		struct config *c = NULL;
		char text[300] = "";
		size_t n = 0;
		int r;

		while (n < 200 && test_random(&seed) % 40) {
			const char *p = piece[test_random(&seed) % ARRAY_LEN(piece)];

			memcpy(text + n, p, strlen(p));
			n += strlen(p);
			if (test_random(&seed) % 50 == 0)
				text[n++] = (char)test_random(&seed);
		}
		r = config_parse_text("f", text, n, &c, &errors);
		CHECK(r == 0 || r == CONFIG_E_INVALID);
		CHECK_EQ(r == 0, c != NULL);
		CHECK_EQ(r == 0, errors.n == 0);
		config_errors_fini(&errors);
		config_unref(c);
	}
}

/* What a reload meets that reads the same files again: rows of what became of one of them. */
TEST(config_beside_one_before_misses_no_file)
{
	static const char *const names[] = {"c.conf.d/a.conf", "c.conf.d", "c.conf", NULL};
	static const struct {
		const char *file;
		const char
			*text; /* NULL: it is gone; "|": a FIFO; "@": a link that leads nowhere */
		const char *said; /* NULL: all is well */
	} row[] = {
		{"c.conf", "auth = none\n", NULL},
		{"c.conf", "# nothing is set any more\n", NULL},
		{"c.conf", "", "is empty, and was not before"},
		{"c.conf", " \n\r\n\t", "is empty, and was not before"},
		{"c.conf", NULL, "cannot be read: No such file"},
		{"c.conf", "|", "is no regular file"},
		{"c.conf", "@", "is a link that leads nowhere"},
		{"c.conf.d/a.conf", "#\n", NULL},
		{"c.conf.d/a.conf", "", "is empty, and was not before"},
		{"c.conf.d/a.conf", NULL, "was read before and is missing now"},
		{"c.conf.d/a.conf", "|", "is no regular file"},
		{"c.conf.d/a.conf", "@", "is a link that leads nowhere"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct config_errors errors = {0};
		struct config_source src = {0};
		struct config *c = NULL, *again = NULL;
		char path[400];
		struct folder f;

		folder_make(&f);
		CHECK_EQ(mkdir(folder_file(&f, "c.conf.d"), 0700), 0);
		folder_write(&f, "c.conf", "auth = jwt\n");
		folder_write(&f, "c.conf.d/a.conf", "port = 1\n");
		src.file = folder_file(&f, "c.conf");
		CHECK_EQ(config_load(&src, &c, &errors), 0);
		snprintf(path, sizeof(path), "%s", folder_file(&f, row[i].file));
		CHECK_EQ(unlink(path), 0);
		if (row[i].text && *row[i].text == '|')
			CHECK_EQ(mkfifo(path, 0600), 0);
		else if (row[i].text && *row[i].text == '@')
			CHECK_EQ(symlink("/no/such/file", path), 0);
		else if (row[i].text)
			folder_write(&f, row[i].file, row[i].text);
		src.file = c->file[0].path;
		src.before = c;
		CHECK_EQ(config_load(&src, &again, &errors), row[i].said ? CONFIG_E_INVALID : 0);
		CHECK_EQ(errors.n, row[i].said ? 1 : 0);
		if (row[i].said && !strstr(errors.line[0], row[i].said))
			FAIL("row %zu: %s", i, errors.line[0]);
		config_errors_fini(&errors);
		config_unref(c);
		config_unref(again);
		(void)unlink(path);
		folder_write(&f, row[i].file, "");
		folder_remove(&f, names);
	}
}

TEST(config_folder_of_drop_ins_is_one_or_is_not_there)
{
	static const char *const names[] = {"a.conf", "a.conf.d", NULL};
	static const char *const said[] = {"a.conf.d: is no folder",
					   "a.conf.d: is a link that leads nowhere"};

	for (int i = 0; i < 2; i++) {
		struct config_errors errors = {0};
		struct config_source src = {0};
		struct config *c = NULL;
		struct folder f;

		folder_make(&f);
		folder_write(&f, "a.conf", "");
		if (i == 0)
			folder_write(&f, "a.conf.d", "port = 1\n");
		else
			CHECK_EQ(symlink("/no/such/folder", folder_file(&f, "a.conf.d")), 0);
		src.file = folder_file(&f, "a.conf");
		CHECK_EQ(config_load(&src, &c, &errors), CONFIG_E_INVALID);
		CHECK_EQ(errors.n, 1);
		CHECK(strstr(errors.line[0], said[i]));
		config_errors_fini(&errors);
		folder_remove(&f, names);
	}
}

TEST(config_knows_what_opens_a_door)
{
	static const struct {
		const char *was, *is, *key;
		bool opens;
	} row[] = {
		{"auth = jwt", "", "auth", true},
		{"", "auth = jwt", "auth", false},
		{"allowed_origins = https://a.example", "", "allowed_origins", true},
		{"", "allowed_origins = https://a.example", "allowed_origins", false},
		{"allowed_origins = a.example b.example", "allowed_origins = B.example",
		 "allowed_origins", false},
		{"allowed_origins = a.example", "allowed_origins = a.example *.b.example",
		 "allowed_origins", true},
		{"tls_client_ca = /ca.pem", "", "tls_client_ca", true},
		{"trusted_proxies = 10.0.0.1", "trusted_proxies = 10.0.0.0/8", "trusted_proxies",
		 true},
		{"trusted_proxies = 10.0.0.1", "", "trusted_proxies", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct config_errors errors = {0};
		struct config *was, *is;
		const struct config_key *key = config_key_find(row[i].key, strlen(row[i].key));

		CHECK_EQ(config_parse_text("t", row[i].was, strlen(row[i].was), &was, &errors), 0);
		CHECK_EQ(config_parse_text("t", row[i].is, strlen(row[i].is), &is, &errors), 0);
		CHECK_EQ(config_opens(was, is, key), row[i].opens);
		config_unref(was);
		config_unref(is);
	}
}

/* -------------------------------------------------------------------------- sections */

TEST(config_says_what_is_wrong_with_a_section)
{
#define LIST                                                                          \
	"allowed here: notice_limit, stamp_sender, slow_consumer, history_messages, " \
	"history_bytes, history_age"
	static const struct {
		const char *text, *expected;
	} row[] = {
		{"[", "f:1: [: a section without its end; allowed: [channel PATTERN]"},
		{"[channel a", "f:1: [channel a: a section without its end; allowed: "
			       "[channel PATTERN]"},
		{"[channel a] # x", "f:1: [channel a] # x: a section without its end; allowed: "
				    "[channel PATTERN]"},
		{"[]", "f:1: []: no such section; allowed: [channel PATTERN]"},
		{"[channels a]", "f:1: [channels a]: no such section; allowed: [channel PATTERN]"},
		{"[Channel a]", "f:1: [Channel a]: no such section; allowed: [channel PATTERN]"},
		{"\v[channel]", "f:1: \v[channel]: a section needs a pattern, as in "
				"[channel room/**]; that of the lobby is /"},
		{"[channel  ]", "f:1: [channel  ]: a section needs a pattern, as in "
				"[channel room/**]; that of the lobby is /"},
		{"[channel \xff]",
		 "f:1: [channel \xff]: no pattern of channels; allowed: at most 255 "
		 "bytes of UTF-8 without control characters"},
		{"[channel a\tb]",
		 "f:1: [channel a\tb]: no pattern of channels; allowed: at most 255 "
		 "bytes of UTF-8 without control characters"},
		{"[channel a]\nport = 1",
		 "f:2: port = 1: no key of a channel, so it belongs before "
		 "the first section; " LIST},
		{"[channel a]\nprot = 1", "f:2: prot = 1: unknown key; did you mean port?"},
		{"[channel a]\nslow_consumer = kill", "f:2: slow_consumer = kill: not a known "
						      "action; allowed: disconnect, skip, history"},
		{"[channel a]\nhistory_messages = 1000001",
		 "f:2: history_messages = 1000001: out of range; allowed: 0 to 1000000"},
		/* What stands in one that is none is of nobody. */
		{"[other]\nx = 1\nport = no", "f:1: [other]: no such section; allowed: "
					      "[channel PATTERN]"},
	};
	char many[64 * 1024] = "";
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		parse_bad(row[i].text, row[i].expected);
	for (int i = 0; i < CONFIG_MAX_SECTIONS; i++)
		n += (size_t)sprintf(many + n, "[channel c%d]\n", i);
	config_unref(parse_good(many));
	sprintf(many + n, "[channel more]\n");
	parse_bad(many, "f:1001: [channel more]: too many sections; allowed: 1000");
}

static struct config_channel of(const struct config *c, const char *name)
{
	struct config_channel is;

	config_for_channel(c, name, &is);
	return is;
}

TEST(config_sections_hold_for_the_channels_of_their_pattern)
{
	struct config *c = parse_good("history_messages = 5\n"
				      "[channel room/**]\nhistory_messages = 10\n"
				      "slow_consumer = skip\n"
				      "[ channel\t/room/vip ] \nhistory_messages = 20\n"
				      "[channel /]\nnotice_limit = 7\n"
				      "[channel **]\nhistory_age = 1h\n"
				      "[channel a]b]\nstamp_sender = no\n");

	CHECK_EQ(of(c, "other").history_messages, 5);
	CHECK_EQ(of(c, "other").history_age, 3600 * NS_PER_S);
	CHECK_EQ(of(c, "other").slow_consumer, SLOW_DISCONNECT);
	CHECK_EQ(of(c, "room/1").history_messages, 10);
	CHECK_EQ(of(c, "room/1").slow_consumer, SLOW_SKIP);
	CHECK_EQ(of(c, "room/vip").history_messages, 20);
	CHECK_EQ(of(c, "room/vip").slow_consumer, SLOW_SKIP);
	CHECK_EQ(of(c, "room").history_messages, 5);
	CHECK_EQ(of(c, "").notice_limit, 7);
	CHECK_EQ(of(c, "").history_age, 3600 * NS_PER_S);
	CHECK_EQ(of(c, "x").notice_limit, 500);
	CHECK_EQ(of(c, "a]b").stamp_sender, STAMP_NO);
	CHECK_EQ(c->history_messages, 5);
	config_unref(c);
}

/* A section ends with its file; what the command line says is everyone's. */
TEST(config_sections_of_several_files_and_the_command_line)
{
	char folder[] = "/tmp/wsbind-sections-XXXXXX", path[100], drop_in[100];
	struct config_errors errors = {0};
	struct config_source src = {.file = path};
	struct config *c = NULL;
	FILE *f;

	CHECK(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/x.conf", folder);
	snprintf(drop_in, sizeof(drop_in), "%s/x.conf.d", folder);
	CHECK_EQ(mkdir(drop_in, 0700), 0);
	f = fopen(path, "w");
	fputs("[channel a]\nhistory_messages = 1\nhistory_bytes = 2K\n", f);
	fclose(f);
	snprintf(drop_in, sizeof(drop_in), "%s/x.conf.d/1.conf", folder);
	f = fopen(drop_in, "w");
	fputs("history_bytes = 3K\nport = 77\n[channel a]\nhistory_messages = 2\n", f);
	fclose(f);
	src.override[0] = (struct config_override){"history-messages", "9"};
	src.n_overrides = 1;
	CHECK_EQ(config_load(&src, &c, &errors), 0);
	CHECK_EQ(c->port, 77);
	CHECK_EQ(of(c, "a").history_messages, 2);
	CHECK_EQ(of(c, "a").history_bytes, 2048);
	CHECK_EQ(of(c, "b").history_messages, 9);
	CHECK_EQ(of(c, "b").history_bytes, 3072);
	config_unref(c);
	unlink(drop_in);
	unlink(path);
	snprintf(drop_in, sizeof(drop_in), "%s/x.conf.d", folder);
	rmdir(drop_in);
	rmdir(folder);
}

TEST(config_sections_are_told_apart_dumped_and_saved)
{
	struct config *was = parse_good("[channel a]\nhistory_messages = 1\nnotice_limit = 3\n"
					"[channel gone]\nstamp_sender = no\n"
					"[channel a]\nhistory_messages = 2\n");
	struct config *is = parse_good("[channel /]\nslow_consumer = skip\n"
				       "[channel a]\nhistory_messages = 2\nnotice_limit = 4\n"
				       "[channel //x]\nhistory_age = 90\n");
	struct diff_log log = {""};
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	struct config *again;

	CHECK_EQ(config_diff(was, is, note_difference, &log), 0);
	CHECK_STR(log.text, "[channel /] slow_consumer: not set -> skip (live)\n"
			    "[channel a] notice_limit: 3 -> 4 (live)\n"
			    "[channel /x] history_age: not set -> 90s (live)\n"
			    "[channel gone] stamp_sender: no -> not set (live)\n");
	CHECK_EQ(config_save(is, out), 0);
	fclose(out);
	CHECK_STR(text, "[channel /]\nslow_consumer = skip\n"
			"[channel /a]\nhistory_messages = 2\nnotice_limit = 4\n"
			"[channel //x]\nhistory_age = 90s\n");
	again = parse_good(text);
	log.text[0] = '\0';
	CHECK_EQ(config_diff(is, again, note_difference, &log), 0);
	CHECK_STR(log.text, "");
	free(text);
	out = open_memstream(&text, &n);
	CHECK_EQ(config_dump(is, out), 0);
	fclose(out);
	CHECK(strstr(text, "\n\n[channel /]\nslow_consumer ") != NULL);
	CHECK(strstr(text, "test.conf:2") != NULL);
	CHECK(strstr(text, "\n\n[channel /x]\nhistory_age ") != NULL);
	free(text);
	config_unref(again);
	config_unref(is);
	config_unref(was);
}
