/* SPDX-License-Identifier: MIT */
#include "tools/control.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"
#include "tools/control_http.h"
#include "tools/control_print.h"

#define ID "6f1ad2c4-39c5-4b7e-8d53-8c6c2a0f1e11"
#define MAX_ANSWERS 4
#define SILENCE ""

/* A daemon that gives prepared answers, one a connection, and keeps what it was asked. */
struct daemon {
	char dir[64], path[100], option[140];
	int listener;
	pthread_t thread;
	size_t n;
	const char *answer[MAX_ANSWERS]; /* SILENCE: says nothing until the client goes */
	char request[MAX_ANSWERS][2048];
};

/* What a command wrote. */
struct output {
	char *out, *err;
	size_t out_n, err_n;
	int status;
};

static size_t announced(const char *text)
{
	const char *p = strstr(text, "Content-Length: ");

	return p ? strtoul(p + 16, NULL, 10) : 0;
}

static void serve_one(int fd, const char *answer, char *request, size_t cap)
{
	size_t n = 0;
	ssize_t r;
	char *end;

	do {
		r = recv(fd, request + n, cap - 1 - n, 0);
		n += r > 0 ? (size_t)r : 0;
		request[n] = '\0';
		end = strstr(request, "\r\n\r\n");
	} while (r > 0 && (!end || strlen(end + 4) < announced(request)));
	(void)!send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	while (!*answer && recv(fd, &(char){0}, 1, 0) > 0)
		;
}

static void *serve(void *arg)
{
	struct daemon *d = arg;

	for (size_t i = 0; i < d->n; i++) {
		int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		serve_one(fd, d->answer[i], d->request[i], sizeof(d->request[i]));
		close(fd);
	}
	return NULL;
}

/* Starts with the answers that follow, up to NULL; without any it listens and no more. */
static struct daemon *daemon_new(const char *first, ...)
{
	struct daemon *d = calloc(1, sizeof(*d));
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	va_list args;

	CHECK(d);
	va_start(args, first);
	for (const char *a = first; a; a = va_arg(args, const char *))
		d->answer[d->n++] = a;
	va_end(args);
	snprintf(d->dir, sizeof(d->dir), "/tmp/wb-status-XXXXXX");
	CHECK(mkdtemp(d->dir));
	snprintf(d->path, sizeof(d->path), "%s/control.sock", d->dir);
	snprintf(d->option, sizeof(d->option), "--control-socket=%s", d->path);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", d->path);
	d->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(d->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(listen(d->listener, 8), 0);
	if (d->n > 0)
		CHECK_EQ(pthread_create(&d->thread, NULL, serve, d), 0);
	return d;
}

static void daemon_free(struct daemon *d)
{
	shutdown(d->listener, SHUT_RDWR);
	if (d->n > 0)
		CHECK_EQ(pthread_join(d->thread, NULL), 0);
	close(d->listener);
	unlink(d->path);
	rmdir(d->dir);
	free(d);
}

/* Runs a command with --config=/dev/null, so that no file of this machine has a say. */
static struct output run(const char *input, const char *socket_option, const char *command, ...)
{
	char *argv[12] = {(char *)(uintptr_t)command};
	struct output o = {0};
	struct control_streams io = {.timeout_ms = 200};
	int n = 1;
	va_list args;

	argv[n++] = (char *)(uintptr_t) "--config=/dev/null";
	if (socket_option)
		argv[n++] = (char *)(uintptr_t)socket_option;
	va_start(args, command);
	while ((argv[n] = va_arg(args, char *)))
		n++;
	va_end(args);
	io.in = input ? fmemopen((char *)(uintptr_t)input, strlen(input), "r") : stdin;
	io.out = open_memstream(&o.out, &o.out_n);
	io.err = open_memstream(&o.err, &o.err_n);
	CHECK(io.in && io.out && io.err);
	o.status = control_run(argv, &io);
	fclose(io.out);
	fclose(io.err);
	if (input)
		fclose(io.in);
	return o;
}

static void output_free(struct output *o)
{
	free(o->out);
	free(o->err);
}

/* Both texts are looked for; NULL: nothing may have been written there. */
static void expect(struct output o, int status, const char *out, const char *err)
{
	bool is_well = o.status == status && (out ? strstr(o.out, out) != NULL : o.out_n == 0) &&
		       (err ? strstr(o.err, err) != NULL : o.err_n == 0);

	if (!is_well)
		fprintf(stderr, "# status %d\n# out: %s\n# err: %s\n", o.status, o.out, o.err);
	CHECK(is_well);
	output_free(&o);
}

#define OK "HTTP/1.1 200 OK\r\n\r\n"

static const char metrics_answer[] =
	OK "# HELP websocket_active_connections Connections.\n"
	   "# TYPE websocket_active_connections gauge\n"
	   "websocket_active_connections 12\n"
	   "websocket_total_connections 340\n"
	   "websocket_handshakes_refused_total{reason=\"path\"} 2\n"
	   "websocket_handshakes_refused_total{reason=\"per ip\"} 3\n"
	   "websocket_channels 4\n"
	   "websocket_messages_received_total 1000\n"
	   "websocket_messages_sent_total 12000\n"
	   "websocket_message_errors_total 1\n"
	   "websocket_received_bytes_total 1572864\n"
	   "websocket_sent_bytes_total 100\n"
	   "websocket_message_latency_seconds_sum 0.5\n"
	   "websocket_message_latency_seconds_count 1000\n"
	   "websocket_slow_consumer_actions_total{action=\"disconnect\"} 7\n"
	   "websocket_slow_consumer_actions_total{action=\"skip\"} 8\n"
	   "websocket_worker_connections{worker=\"0\"} 5\n"
	   "websocket_worker_connections{worker=\"1\"} 7\n"
	   "websocket_worker_ring_overflows_total{worker=\"1\"} 9\n"
	   "wsbind_build_info{version=\"1.2.3\"} 1\n"
	   "process_resident_memory_bytes 2097152\n"
	   "process_open_fds 20\n"
	   "process_max_fds 1024\n"
	   "process_start_time_seconds 1700000000.5\n";

TEST(control_shows_what_the_daemon_counts)
{
	struct daemon *d = daemon_new(metrics_answer, OK "ok\n", NULL);
	struct output o = run(NULL, d->option, "status", NULL);

	CHECK_EQ(o.status, 0);
	CHECK(strstr(o.out, "wsbind 1.2.3, running for "));
	CHECK(strstr(o.out, "ready        yes\n"));
	CHECK(strstr(o.out, "connections  12 open, 340 since the start, 5 refused\n"));
	CHECK(strstr(o.out, "channels     4\n"));
	CHECK(strstr(o.out, "messages     1000 received, 12000 sent, 1 in error\n"));
	CHECK(strstr(o.out, "bytes        1.5 MiB received, 100 B sent\n"));
	CHECK(strstr(o.out, "latency      0.500 ms on average\n"));
	CHECK(strstr(o.out, "slow clients 7 closed, 0 messages skipped\n"));
	CHECK(strstr(o.out, "memory       2.0 MiB resident\n"));
	CHECK(strstr(o.out, "open files   20 of 1024\n"));
	CHECK(strstr(o.out, "\n       0            5    0.00 %            0\n"));
	CHECK(strstr(o.out, "\n       1            7    0.00 %            9\n"));
	CHECK(!strstr(o.out, "\n       2 "));
	output_free(&o);
	CHECK(strncmp(d->request[0], "GET /metrics HTTP/1.1\r\n", 23) == 0);
	CHECK(strncmp(d->request[1], "GET /readyz HTTP/1.1\r\n", 22) == 0);
	daemon_free(d);
}

TEST(control_says_why_a_daemon_is_not_ready)
{
	struct daemon *d =
		daemon_new(metrics_answer, "HTTP/1.1 503 x\r\n\r\nworker 1 hangs\x1b[2J\n", NULL);

	expect(run(NULL, d->option, "status", NULL), 0, "ready        no: worker 1 hangs\\x1b[2J\n",
	       NULL);
	daemon_free(d);
}

TEST(control_of_time_is_in_two_units)
{
	static const struct {
		const char *text;
		uint64_t seconds;
	} cases[] = {{"for 0s\n", 0},       {"for 59s\n", 59},      {"for 1m 0s\n", 60},
		     {"for 1h 1m\n", 3679}, {"for 1d 0h\n", 86400}, {"for 40d 2h\n", 3463999}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text = NULL;
		size_t n = 0;
		FILE *f = open_memstream(&text, &n);

		CHECK(f);
		control_print_status(f, "process_start_time_seconds 1700000000\n", NULL,
				     (1700000000 + cases[i].seconds) * 1000);
		fclose(f);
		CHECK(strstr(text, cases[i].text));
		free(text);
	}
}

static const char page_1[] =
	OK "{\"clients\":[{\"id\":\"" ID "\",\"user_id\":\"a\\u001b[31m\\u00e9\",\"address\":"
	   "\"127.0.0.1:5000\",\"session_id\":\"my "
	   "session\",\"connected_at\":1,\"last_heartbeat\":\"never\",\"capabilities\":"
	   "[\"zstd\",\"ack\"],\"channels\":[\"\",\"room/"
	   "7\"],\"queued_bytes\":2048,\"messages_in\":7,\"messages_out\":80,\"new\":{\"a\":"
	   "[1,{}]}}],\"total\":2,\"next\":1000}\n";
static const char page_2[] =
	OK "{\"clients\":[{\"id\":\"second\",\"queued_bytes\":0}],\"total\":2,\"next\":null}\n";

TEST(control_clients_makes_a_table_of_all_pages)
{
	struct daemon *d = daemon_new(page_1, page_2, NULL);
	struct output o = run(NULL, d->option, "clients", NULL);

	CHECK_EQ(o.status, 0);
	CHECK(strncmp(o.out, "ID  ", 4) == 0);
	CHECK(strstr(o.out, ID " my session                           127.0.0.1:5000"));
	CHECK(strstr(o.out, " SESSION "));
	CHECK(strstr(o.out, " a\\x1b[31m\xc3\xa9 "));
	CHECK(strstr(o.out, " never "));
	CHECK(strstr(o.out, " 2.0 KiB         7         80 zstd,ack     \"\",room/7\n"));
	CHECK(strstr(o.out, "\nsecond                               -  "));
	CHECK(!strchr(o.out, '\x1b'));
	output_free(&o);
	CHECK(strncmp(d->request[0], "GET /clients?offset=0&limit=1000 ", 33) == 0);
	CHECK(strncmp(d->request[1], "GET /clients?offset=1000&limit=1000 ", 36) == 0);
	daemon_free(d);
}

TEST(control_clients_json_is_one_document)
{
	struct daemon *d = daemon_new(page_1, page_2, NULL);
	struct output o = run(NULL, d->option, "clients", "--json", NULL);

	CHECK_EQ(o.status, 0);
	CHECK(strncmp(o.out, "{\"clients\":[{\"id\":\"" ID "\"", 19 + 36) == 0);
	CHECK(strstr(o.out,
		     "{\"a\":[1,{}]}},{\"id\":\"second\",\"queued_bytes\":0}],\"total\":2}\n"));
	output_free(&o);
	daemon_free(d);
	d = daemon_new(OK "{\"clients\":[],\"total\":0,\"next\":null}\n", NULL);
	expect(run(NULL, d->option, "clients", "--json", NULL), 0, "{\"clients\":[],\"total\":0}\n",
	       NULL);
	daemon_free(d);
}

/* Neither an endless chain of pages nor nonsense. */
TEST(control_clients_distrusts_the_answer)
{
	static const char *const answers[] = {
		OK "{\"clients\":[],\"total\":5,\"next\":",
		OK "[]",
		OK "",
		OK "{\"clients\":[{\"id\":\"a\"}],\"next\":null}",
		OK "{\"total\":1,\"next\":null}",
	};
	struct daemon *d;

	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		d = daemon_new(answers[i], NULL);
		expect(run(NULL, d->option, "clients", i % 2 ? "--json" : NULL, NULL), 1, NULL,
		       "not what /clients gives");
		daemon_free(d);
	}
	d = daemon_new(page_1, OK "{\"clients\":[{\"id\":\"b\"}],\"total\":9,\"next\":1000}", NULL);
	expect(run(NULL, d->option, "clients", NULL), 1, "ID ", "not what /clients gives");
	daemon_free(d);
	d = daemon_new(page_1, OK "{\"clients\":[],\"total\":9000,\"next\":2000}", NULL);
	expect(run(NULL, d->option, "clients", NULL), 0, "ID ", NULL);
	daemon_free(d);
}

TEST(control_reload_tells_what_changed_or_what_is_wrong)
{
	struct daemon *d = daemon_new(OK "port: applied by a restart\n", NULL);

	expect(run(NULL, d->option, "reload", NULL), 0, "port: applied by a restart\n", NULL);
	CHECK(strncmp(d->request[0], "POST /reload HTTP/1.1\r\n", 23) == 0);
	CHECK(strstr(d->request[0], "\r\nContent-Length: 0\r\n"));
	daemon_free(d);
	d = daemon_new("HTTP/1.1 422 x\r\nContent-Length: 18\r\n\r\nx.conf:3: port: no!", NULL);
	expect(run(NULL, d->option, "reload", NULL), 1, NULL,
	       "wsbind reload: nothing was changed:\nx.conf:3: port: no\n");
	daemon_free(d);
}

TEST(control_publish_sends_text_and_counts_members)
{
	struct daemon *d = daemon_new(OK "{\"members\":42}\n", OK "{\"members\":1}\n",
				      OK "{\"members\":0}", NULL);

	expect(run(NULL, d->option, "publish", "-c", "room/7 \xc3\xa9?&", "hello", NULL), 0,
	       "reached 42 members\n", NULL);
	CHECK(strncmp(d->request[0], "POST /publish?channel=room%2F7%20%C3%A9%3F%26 HTTP/1.1\r\n",
		      56) == 0);
	CHECK(strstr(d->request[0], "\r\nContent-Type: text/plain; charset=utf-8\r\n"));
	CHECK(strstr(d->request[0], "\r\n\r\nhello"));
	expect(run("two\nlines\n", d->option, "publish", "--channel=x", "-", NULL), 0,
	       "reached 1 member\n", NULL);
	CHECK(strncmp(d->request[1], "POST /publish?channel=x HTTP/1.1\r\n", 34) == 0);
	CHECK(strstr(d->request[1], "\r\n\r\ntwo\nlines") && !strstr(d->request[1], "lines\n"));
	expect(run(NULL, d->option, "publish", "--", "--not-an-option", NULL), 0,
	       "reached 0 members\n", NULL);
	CHECK(strncmp(d->request[2], "POST /publish?channel= HTTP/1.1\r\n", 33) == 0);
	CHECK(strstr(d->request[2], "\r\n\r\n--not-an-option"));
	daemon_free(d);
}

TEST(control_publish_hints_at_the_slash_when_nobody_was_there)
{
	struct daemon *d =
		daemon_new(OK "{\"members\":0}", OK "{\"members\":0}", OK "{\"members\":3}", NULL);

	expect(run(NULL, d->option, "publish", "-c", "/room/7", "x", NULL), 0,
	       "reached 0 members\n", "begins without a slash: -c room/7\n");
	expect(run(NULL, d->option, "publish", "-c", "room/7", "x", NULL), 0, "reached 0 members\n",
	       NULL);
	expect(run(NULL, d->option, "publish", "-c", "/room/7", "x", NULL), 0,
	       "reached 3 members\n", NULL);
	daemon_free(d);
}

TEST(control_publish_says_why_not)
{
	struct daemon *d = daemon_new("HTTP/1.1 413 x\r\n\r\nlonger than max_message_size\n",
				      OK "{\"reached\":1}", "HTTP/1.1 500 x\r\n\r\n", NULL);

	expect(run(NULL, d->option, "publish", "x", NULL), 1, NULL,
	       "wsbind publish: longer than max_message_size\n");
	expect(run(NULL, d->option, "publish", "x", NULL), 1, NULL, "not what /publish gives");
	expect(run(NULL, d->option, "publish", "x", NULL), 1, NULL, "answered with status 500");
	daemon_free(d);
}

TEST(control_disconnect_says_whether)
{
	struct daemon *d =
		daemon_new(OK "closing 1 connection\n", "HTTP/1.1 404 x\r\n\r\nno client\n", NULL);

	expect(run(NULL, d->option, "disconnect", ID, NULL), 0, "closing 1 connection\n", NULL);
	CHECK(strncmp(d->request[0], "POST /disconnect?id=" ID " HTTP/1.1\r\n", 67) == 0);
	expect(run(NULL, d->option, "disconnect", "--user", "a&b c", NULL), 1, NULL,
	       "wsbind disconnect: no client\n");
	CHECK(strncmp(d->request[1], "POST /disconnect?user=a%26b%20c HTTP/1.1\r\n", 42) == 0);
	daemon_free(d);
}

TEST(control_wrong_usage_is_2)
{
	expect(run(NULL, NULL, "status", "more", NULL), 2, NULL, "usage: wsbind status ");
	expect(run(NULL, NULL, "status", "--json", NULL), 2, NULL, "--json");
	expect(run(NULL, NULL, "publish", NULL), 2, NULL, "usage: wsbind publish ");
	expect(run(NULL, NULL, "publish", "hi", "there", NULL), 2, NULL,
	       "one TEXT only: put it in quotes: there\n");
	expect(run(NULL, NULL, "publish", "hi", "--there", NULL), 2, NULL, "understood");
	expect(run(NULL, NULL, "disconnect", ID, "b", NULL), 2, NULL, ": b\n");
	expect(run(NULL, NULL, "publish", "a", "-c", NULL), 2, NULL, "-c");
	expect(run(NULL, NULL, "disconnect", NULL), 2, NULL, "either ID or --user USER");
	expect(run(NULL, NULL, "disconnect", ID, "--user", "x", NULL), 2, NULL,
	       "usage: wsbind disconnect [--user USER] [ID] ");
	expect(run(NULL, NULL, "disconnect", "7", NULL), 2, NULL, "not the id of a client: 7");
	expect(run(NULL, NULL, "clients", "--no-such-key=1", NULL), 2, NULL, "no_such_key");
	expect(run(NULL, NULL, "reload", "--help", NULL), 0, "usage: wsbind reload ", NULL);
	expect(run(NULL, "--control-socket=none", "status", NULL), 1, NULL,
	       "control_socket is none");
}

TEST(control_without_daemon_says_so)
{
	struct daemon *d = daemon_new(NULL);
	char option[sizeof(d->option)], path[sizeof(d->path)];
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd;

	memcpy(option, d->option, sizeof(option));
	memcpy(path, d->path, sizeof(path));
	daemon_free(d);
	expect(run(NULL, option, "status", NULL), 1, NULL, "no daemon listens on /tmp/wb-status-");
	/* A socket file that nobody listens on any more. */
	snprintf(path, sizeof(path), "/tmp/wb-stale-%d", (int)getpid());
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	close(fd);
	snprintf(option, sizeof(option), "--control-socket=%s", path);
	expect(run(NULL, option, "reload", NULL), 1, NULL, "no daemon listens on /tmp/wb-stale-");
	unlink(path);
}

static int run_as_nobody(const char *option)
{
	struct output o;
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(9);
		o = run(NULL, option, "status", NULL);
		_exit(o.status != 1                                ? 8
		      : strstr(o.err, "member of the group")       ? 1
		      : strstr(o.err, "already for its directory") ? 2
								   : 7);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Only root can become someone who may not. */
TEST(control_without_permission_says_who_may)
{
	struct daemon *d;

	if (geteuid() != 0)
		return;
	d = daemon_new(NULL);
	CHECK_EQ(chmod(d->path, 0660), 0);
	CHECK_EQ(run_as_nobody(d->option), 2);
	CHECK_EQ(chmod(d->dir, 0755), 0);
	CHECK_EQ(run_as_nobody(d->option), 1);
	daemon_free(d);
}

/* The socket is found although the file is wrong: `reload` is there to tell. */
TEST(control_wrong_configuration_is_no_obstacle)
{
	struct daemon *d = daemon_new(OK "fine\n", OK "fine\n", NULL);
	static const char *const commands[][2] = {{"status", NULL},
						  {"clients", "--json"},
						  {"reload", NULL},
						  {"publish", "x"},
						  {"disconnect", ID}};
	char file[100], config[120];
	FILE *f;

	snprintf(file, sizeof(file), "%s/wsbind.conf", d->dir);
	snprintf(config, sizeof(config), "--config=%s", file);
	f = fopen(file, "w");
	CHECK(f);
	fprintf(f, "port = seven\n");
	fclose(f);
	expect(run(NULL, d->option, "reload", config, NULL), 0, "fine\n", ":1: port");
	/* Nor is it for the socket that the file names itself. */
	f = fopen(file, "w");
	CHECK(f);
	fprintf(f, "control_socket = %s\nwelcome = \xff\n", d->path);
	fclose(f);
	expect(run(NULL, NULL, "reload", config, NULL), 0, "fine\n", ":2: welcome = \\xff: ");
	/* But one that is no good, or a file that is not there, leads nowhere else. */
	f = fopen(file, "w");
	CHECK(f);
	fprintf(f, "control_socket = \xff\n");
	fclose(f);
	expect(run(NULL, NULL, "reload", config, NULL), 78, NULL, ":1: control_socket = ");
	unlink(file);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		expect(run(NULL, d->option, commands[i][0],
			   commands[i][1] ? commands[i][1] : config, config, NULL),
		       78, NULL, "wsbind.conf: cannot be read: ");
	daemon_free(d);
}

TEST(control_http_refuses_what_is_no_answer)
{
	static const char *const answers[] = {
		"SSH-2.0-x\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000 OK",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n",
	};

	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct daemon *d = daemon_new(answers[i], NULL);

		expect(run(NULL, d->option, "reload", NULL), 1, NULL, "broke off or is not HTTP");
		daemon_free(d);
	}
}

/* The same head is fine up to the limit; past it, it is refused, whether it ends or not. */
TEST(control_http_head_is_bounded)
{
	static const char begin[] = "HTTP/1.1 200 OK\r\nX: ", end[] = "\r\n\r\n";
	size_t fits = CONTROL_HTTP_MAX_HEAD - strlen(begin) - strlen(end);
	char *answer = calloc(1, 2 * CONTROL_HTTP_MAX_HEAD);
	struct daemon *d;

	CHECK(answer);
	for (size_t more = 0; more < 2; more++) {
		memcpy(answer, begin, strlen(begin));
		memset(answer + strlen(begin), 'x', fits + more);
		strcpy(answer + strlen(begin) + fits + more, end);
		d = daemon_new(answer, NULL);
		if (more)
			expect(run(NULL, d->option, "reload", NULL), 1, NULL, "broke off");
		else
			expect(run(NULL, d->option, "reload", NULL), 0, NULL, NULL);
		daemon_free(d);
	}
	memset(answer + strlen(begin), 'x', CONTROL_HTTP_MAX_HEAD);
	answer[strlen(begin) + CONTROL_HTTP_MAX_HEAD] = '\0';
	d = daemon_new(answer, NULL);
	expect(run(NULL, d->option, "reload", NULL), 1, NULL, "broke off");
	daemon_free(d);
	free(answer);
}

TEST(control_http_waits_only_so_long)
{
	struct daemon *d = daemon_new(SILENCE, NULL);

	expect(run(NULL, d->option, "reload", NULL), 1, NULL, "no answer within");
	daemon_free(d);
}

TEST(control_http_path_too_long_is_said)
{
	char path[200];
	const struct control_request request = {
		.socket_path = path, .method = "GET", .target = "/"};
	struct control_answer a;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	CHECK(control_http_ask(&request, &a) == -ENAMETOOLONG);
}

/* Sends a request of ours to one that answers byte by byte, or before it has read all. */
static void *serve_in_pieces(void *arg)
{
	static const char answer[] =
		"HTTP/1.1 413 Content Too Large\r\nX: y\r\ncontent-length:  4\r\n"
		"\r\nlong and more";
	const int *listener = arg;
	char request[64];
	int fd = accept4(*listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 || recv(fd, request, sizeof(request), 0) <= 0)
		return NULL;
	for (size_t i = 0; i < strlen(answer); i++)
		if (send(fd, answer + i, 1, MSG_NOSIGNAL) < 0)
			break;
	close(fd);
	return NULL;
}

TEST(control_http_early_answer_is_read_although_the_request_was_not)
{
	struct daemon *d = daemon_new(NULL);
	struct control_request request = {.socket_path = d->path,
					  .method = "POST",
					  .target = "/publish",
					  .body_n = 8 << 20,
					  .timeout_ms = 5000};
	struct control_answer a = {0};
	pthread_t thread;
	void *body = calloc(1, request.body_n);

	CHECK(body);
	request.body = body;
	CHECK_EQ(pthread_create(&thread, NULL, serve_in_pieces, &d->listener), 0);
	CHECK_EQ(control_http_ask(&request, &a), 0);
	CHECK_EQ(a.status, 413);
	CHECK_EQ(a.body.len, 4);
	CHECK_STR((const char *)a.body.data, "long");
	CHECK_EQ(pthread_join(thread, NULL), 0);
	buf_fini(&a.body);
	free(body);
	daemon_free(d);
}

TEST(control_http_body_may_be_large_and_binary)
{
	static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
	size_t n = 3 << 20;
	char *answer = malloc(n + 1);
	struct control_request request = {.method = "GET", .target = "/", .timeout_ms = 5000};
	struct control_answer a = {0};
	struct daemon *d;

	CHECK(answer);
	memset(answer, 0xfe, n);
	answer[n] = '\0';
	memcpy(answer, head, strlen(head));
	d = daemon_new(answer, NULL);
	request.socket_path = d->path;
	CHECK_EQ(control_http_ask(&request, &a), 0);
	CHECK_EQ(a.status, 200);
	CHECK_EQ(a.body.len, n - strlen(head));
	CHECK_MEM(a.body.data, answer + strlen(head), a.body.len + 1);
	buf_fini(&a.body);
	daemon_free(d);
	free(answer);
}

TEST(control_http_encodes_all_but_the_unreserved)
{
	struct buf out = {0};
	char all[256];

	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	CHECK_EQ(control_http_encode(&out, all), 0);
	CHECK_EQ(out.len, 66 + 3 * (255 - 66));
	for (size_t i = 0; i < out.len; i++)
		CHECK(strchr("%-._~", out.data[i]) || (out.data[i] >= '0' && out.data[i] <= '9') ||
		      (out.data[i] >= 'A' && out.data[i] <= 'Z') ||
		      (out.data[i] >= 'a' && out.data[i] <= 'z'));
	buf_fini(&out);
	CHECK_EQ(control_http_encode(&out, "a b/\xc3\xa9~"), 0);
	CHECK_MEM(out.data, "a%20b%2F%C3%A9~", out.len);
	buf_fini(&out);
}

/* A client in a thousand channels with long names makes a long line, not an overflow. */
TEST(control_clients_long_lists_are_cut)
{
	struct control_page page;
	struct buf text = {0};
	char *out = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&out, &n);

	CHECK(f);
	CHECK_EQ(
		buf_printf(&text, "{\"total\":1,\"clients\":[{\"id\":\"%0200d\",\"channels\":[", 7),
		0);
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(buf_printf(&text, "%s\"room/%0255d\"", i ? "," : "", i), 0);
	CHECK_EQ(buf_printf(&text, "]},7,[],{\"id\":\"next\",\"channels\":7}]}"), 0);
	CHECK(control_page_read((const char *)text.data, text.len, CONTROL_CLIENTS, &page));
	control_print_page(f, CONTROL_CLIENTS, &page, 0);
	fclose(f);
	CHECK(n < 2000);
	CHECK(strstr(out, " room/0000"));
	CHECK(strstr(out, "\nnext "));
	free(out);
	buf_fini(&text);
}

/* Output that fails (a full disk, a closed pipe) is a failure of the command. */
TEST(control_output_that_fails_is_told)
{
	struct daemon *d = daemon_new(OK "fine\n", NULL);
	char *argv[] = {(char *)(uintptr_t) "reload", (char *)(uintptr_t) "--config=/dev/null",
			d->option, NULL};
	struct control_streams io = {.in = stdin, .timeout_ms = 1000};
	char *err = NULL;
	size_t n = 0;

	io.out = fopen("/dev/full", "w");
	io.err = open_memstream(&err, &n);
	CHECK(io.out && io.err);
	CHECK_EQ(control_run(argv, &io), 1);
	fclose(io.out);
	fclose(io.err);
	CHECK(strstr(err, "wsbind reload: cannot write: "));
	free(err);
	daemon_free(d);
}

/* Every beginning of a text and every text with one byte changed: ends, within its bounds. */
TEST(control_broken_page_ends_the_walk)
{
	static const char whole[] = "{\"clients\":[{\"id\":\"a\\u00e9\\n\",\"c\":[\"\",1,{}]},{}],"
				    "\"total\":2,\"next\":null}";
	struct control_page page;
	uint64_t random = test_seed();
	FILE *nowhere = fopen("/dev/null", "w");

	CHECK(nowhere);
	CHECK(control_page_read(whole, strlen(whole), CONTROL_CLIENTS, &page));
	CHECK_EQ(page.total, 2);
	CHECK(!page.has_next);
	CHECK_EQ(page.objects_n, strlen("{\"id\":\"a\\u00e9\\n\",\"c\":[\"\",1,{}]},{}"));
	for (size_t n = 0; n < strlen(whole); n++) {
		char *copy = malloc(n + 1); /* no byte more, so that the sanitizer sees the end */

		CHECK(copy);
		memcpy(copy, whole, n);
		CHECK(!control_page_read(copy, n, CONTROL_CLIENTS, &page));
		free(copy);
	}
	for (int i = 0; i < 5000; i++) {
		char *copy = strdup(whole);

		CHECK(copy);
		copy[test_random(&random) % strlen(whole)] = (char)test_random(&random);
		copy[test_random(&random) % strlen(whole)] = "{}[]\",:\\"[test_random(&random) % 8];
		if (control_page_read(copy, strlen(whole), CONTROL_CLIENTS, &page))
			control_print_page(nowhere, CONTROL_CLIENTS, &page, 0);
		free(copy);
	}
	fclose(nowhere);
}
