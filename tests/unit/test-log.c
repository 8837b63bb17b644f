/* SPDX-License-Identifier: MIT */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/log.h"

#define S 1000000000ULL

/* A journal of our own: a datagram socket at a path in a temporary folder. */
struct journal {
	int fd;
	size_t n;
	char folder[64];
	char path[96];
	char entry[LOG_ENTRY_MAX + 1];
};

static void journal_bind(struct journal *j)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", j->path);
	j->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK(j->fd >= 0);
	CHECK_EQ(bind(j->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

static void journal_open(struct journal *j)
{
	snprintf(j->folder, sizeof(j->folder), "/tmp/test-log-XXXXXX");
	CHECK(mkdtemp(j->folder));
	snprintf(j->path, sizeof(j->path), "%s/socket", j->folder);
	journal_bind(j);
	CHECK_EQ(log_init_journal(j->path), 0);
}

static void journal_close(struct journal *j)
{
	log_fini();
	close(j->fd);
	unlink(j->path);
	rmdir(j->folder);
}

static bool journal_next(struct journal *j)
{
	ssize_t n = recv(j->fd, j->entry, sizeof(j->entry) - 1, 0);

	j->n = n < 0 ? 0 : (size_t)n;
	j->entry[j->n] = '\0';
	return n >= 0;
}

/* Whether the entry has this as a whole "NAME=value" line. */
static bool journal_has(const struct journal *j, const char *line)
{
	size_t n = strlen(line);

	for (const char *p = j->entry; (p = strstr(p, line)); p++)
		if ((p == j->entry || p[-1] == '\n') && p[n] == '\n')
			return true;
	return false;
}

/* Standard error, or any plain target: a pipe whose reading end is ours. */
struct plain {
	int from, to;
	int saved_stderr;
	char text[4096 + 1];
};

static void plain_open(struct plain *p)
{
	int fd[2];

	CHECK_EQ(pipe2(fd, O_CLOEXEC), 0);
	CHECK_EQ(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
	p->from = fd[0];
	p->to = fd[1];
	p->saved_stderr = -1;
}

static void plain_is_stderr(struct plain *p)
{
	p->saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	CHECK(p->saved_stderr >= 0);
	CHECK_EQ(dup2(p->to, STDERR_FILENO), STDERR_FILENO);
}

static void plain_close(struct plain *p)
{
	log_fini();
	if (p->saved_stderr >= 0) {
		CHECK_EQ(dup2(p->saved_stderr, STDERR_FILENO), STDERR_FILENO);
		close(p->saved_stderr);
	}
	close(p->from);
	close(p->to);
}

static const char *plain_read(struct plain *p)
{
	ssize_t n = read(p->from, p->text, sizeof(p->text) - 1);

	p->text[n < 0 ? 0 : n] = '\0';
	return p->text;
}

static void fill(int fd)
{
	static const char junk[512];
	int own;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	CHECK(own >= 0);
	while (write(own, junk, sizeof(junk)) > 0)
		;
	close(own);
}

static unsigned count_lines(const char *text, const char *needle)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, needle)); p++)
		n++;
	return n;
}

/* One call site for the tests of limits. */
static void say_limited(int n)
{
	log_line_limited(LOG_NOTICE, "limited %d", n);
}

TEST(log_journal_entry_carries_every_field)
{
	struct journal j;
	char line[32];

	journal_open(&j);
	log_set_worker(3);
	log_event(LOG_NOTICE, EV_SLOW_CONSUMER,
		  LOG_FIELDS(LOG_TEXT("PEER", "192.0.2.1:5000"), LOG_NUM("QUEUED_BYTES", 4096),
			     LOG_TEXT("CHANNEL", NULL), LOG_ERRNO(-EPIPE)),
		  "%s reads too slowly", "192.0.2.1:5000");
	log_set_worker(-1);
	CHECK(journal_next(&j));
	CHECK(journal_has(&j, "MESSAGE=192.0.2.1:5000 reads too slowly"));
	CHECK(journal_has(&j, "PRIORITY=5"));
	CHECK(journal_has(&j, "SYSLOG_IDENTIFIER=wsbind"));
	CHECK(journal_has(&j, "CODE_FUNC=log_journal_entry_carries_every_field"));
	CHECK(strstr(j.entry, "CODE_FILE="));
	CHECK(strstr(j.entry, "CODE_LINE="));
	CHECK(journal_has(&j, "WSBIND_WORKER=3"));
	CHECK(journal_has(&j, "WSBIND_PEER=192.0.2.1:5000"));
	CHECK(journal_has(&j, "WSBIND_QUEUED_BYTES=4096"));
	CHECK(!strstr(j.entry, "CHANNEL"));
	snprintf(line, sizeof(line), "ERRNO=%d", EPIPE);
	CHECK(journal_has(&j, line));
#define EVENT(name, id, subject)           \
	if (EV_##name == EV_SLOW_CONSUMER) \
		CHECK(journal_has(&j, "MESSAGE_ID=" id));
#include "io/log_events.h"
#undef EVENT
	journal_close(&j);
}

TEST(log_line_has_no_message_id_and_no_worker)
{
	struct journal j;

	journal_open(&j);
	log_line(LOG_INFO, "plain");
	CHECK(journal_next(&j));
	CHECK(journal_has(&j, "MESSAGE=plain"));
	CHECK(!strstr(j.entry, "MESSAGE_ID"));
	CHECK(!strstr(j.entry, "WSBIND_WORKER"));
	journal_close(&j);
}

TEST(log_lines_of_our_own_use_the_length_prefix)
{
	static const char want[] = "WSBIND_ERRORS\n\x07\0\0\0\0\0\0\0one\ntwo\n";
	struct journal j;

	journal_open(&j);
	log_event(LOG_ERR, EV_CONFIG_ERROR, LOG_FIELDS(LOG_LINES("ERRORS", "one\ntwo")), "bad");
	CHECK(journal_next(&j));
	CHECK(memmem(j.entry, j.n, want, sizeof(want) - 1));
	journal_close(&j);
}

TEST(log_text_of_a_peer_cannot_forge_a_field)
{
	struct journal j;

	journal_open(&j);
	log_event(LOG_INFO, EV_REFUSED, LOG_FIELDS(LOG_TEXT("REASON", "x\nPRIORITY=0")), "%s",
		  "origin\nMESSAGE_ID=1\x1b[2J");
	CHECK(journal_next(&j));
	CHECK(!journal_has(&j, "PRIORITY=0"));
	CHECK(!journal_has(&j, "MESSAGE_ID=1"));
	CHECK(!strchr(j.entry, '\x1b'));
	CHECK(strstr(j.entry, "WSBIND_REASON=x\\x0aPRIORITY=0\n"));
	journal_close(&j);
}

/* What is too long is cut and marked; a field without room goes whole, the entry stays sound. */
TEST(log_bounds_message_and_entry)
{
	char *peer = malloc(LOG_ENTRY_MAX + 1);
	struct journal j;
	const char *end;

	CHECK(peer);
	memset(peer, 'p', LOG_ENTRY_MAX);
	peer[LOG_ENTRY_MAX] = '\0';
	journal_open(&j);
	log_event(LOG_INFO, EV_REFUSED,
		  LOG_FIELDS(LOG_LINES("BIG", peer), LOG_TEXT("PEER", peer), LOG_NUM("LAST", 7)),
		  "%s", peer);
	CHECK(journal_next(&j));
	CHECK_EQ(strncmp(j.entry, "MESSAGE=ppp", 11), 0);
	end = strchr(j.entry, '\n');
	CHECK((size_t)(end - j.entry) < LOG_MESSAGE_MAX + strlen("MESSAGE="));
	CHECK_EQ(strncmp(end - 3, "...", 3), 0);
	CHECK(!strstr(j.entry, "WSBIND_BIG"));
	CHECK(strstr(j.entry, "WSBIND_PEER=ppp"));
	CHECK(journal_has(&j, "WSBIND_LAST=7"));
	journal_close(&j);
	free(peer);
}

TEST(log_without_a_journal_counts_and_tells_later)
{
	uint64_t before = log_dropped();
	struct journal j;

	journal_open(&j);
	close(j.fd);
	unlink(j.path);
	for (int i = 0; i < 3; i++)
		log_line(LOG_INFO, "lost");
	CHECK_EQ(log_dropped() - before, 3);

	journal_bind(&j);
	log_line(LOG_INFO, "back");
	CHECK(journal_next(&j));
	CHECK(strstr(j.entry, "MESSAGE=3 log lines were lost"));
	CHECK(journal_has(&j, "WSBIND_DROPPED=3"));
	CHECK(journal_has(&j, "PRIORITY=4"));
	CHECK(journal_next(&j));
	CHECK(journal_has(&j, "MESSAGE=back"));
	log_line(LOG_INFO, "again");
	CHECK(journal_next(&j));
	CHECK(journal_has(&j, "MESSAGE=again"));
	CHECK_EQ(log_dropped() - before, 3);
	journal_close(&j);
}

TEST(log_to_a_journal_that_does_not_read_never_blocks)
{
	uint64_t before = log_dropped();
	struct journal j;

	journal_open(&j);
	for (int i = 0; i < 5000 && log_dropped() == before; i++)
		log_line(LOG_INFO, "line %d", i);
	CHECK(log_dropped() > before);
	while (journal_next(&j))
		;
	log_line(LOG_INFO, "after");
	CHECK(journal_next(&j));
	CHECK(strstr(j.entry, "log lines were lost"));
	journal_close(&j);
}

TEST(log_plain_line_is_level_and_text)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	log_event(LOG_WARNING, EV_OPEN_TO_ALL, LOG_FIELDS(LOG_TEXT("SETTING", "auth")),
		  "open\nto all");
	CHECK_STR(plain_read(&p), "warning: open\\x0ato all\n");
	log_line(LOG_ERR, "%d", 1);
	CHECK_STR(plain_read(&p), "error: 1\n");
	log_line(LOG_INFO, "i");
	CHECK_STR(plain_read(&p), "info: i\n");
	plain_close(&p);
}

/* A reader of standard error that stops costs lines, not time, and its flags stay as they were. */
static void check_full_pipe(struct plain *p, int fd)
{
	uint64_t before = log_dropped();

	fill(p->to);
	log_line(LOG_INFO, "lost");
	log_line(LOG_INFO, "lost too");
	CHECK_EQ(log_dropped() - before, 2);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	while (read(p->from, p->text, sizeof(p->text)) > 0)
		;
	log_line(LOG_INFO, "back");
	CHECK_STR(plain_read(p), "warning: 2 log lines were lost here: their target took no more\n"
				 "info: back\n");
}

TEST(log_full_pipe_does_not_block)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	check_full_pipe(&p, p.to);
	plain_close(&p);
}

TEST(log_before_init_does_not_block_on_standard_error)
{
	struct plain p;

	plain_open(&p);
	plain_is_stderr(&p);
	check_full_pipe(&p, STDERR_FILENO);
	plain_close(&p);
}

TEST(log_full_socket_does_not_block)
{
	uint64_t before = log_dropped();
	char buffer[4096];
	int fd[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	CHECK_EQ(log_init_fd(fd[0]), 0);
	for (int i = 0; i < 100000 && log_dropped() == before; i++)
		log_line(LOG_INFO, "line %d", i);
	CHECK(log_dropped() > before);
	while (recv(fd[1], buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
		;
	log_fini();
	close(fd[0]);
	close(fd[1]);
}

TEST(log_to_a_regular_file_keeps_its_place)
{
	char path[] = "/tmp/test-log-XXXXXX", text[64] = "";
	int fd = mkstemp(path);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "first\n", 6), 6);
	CHECK_EQ(log_init_fd(fd), 0);
	log_line(LOG_INFO, "second");
	log_fini();
	CHECK(pread(fd, text, sizeof(text) - 1, 0) > 0);
	CHECK_STR(text, "first\ninfo: second\n");
	close(fd);
	unlink(path);
}

TEST(log_colours_only_on_a_terminal)
{
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), line;
	char text[128] = "";

	CHECK(terminal >= 0);
	CHECK_EQ(grantpt(terminal), 0);
	CHECK_EQ(unlockpt(terminal), 0);
	line = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
	CHECK(line >= 0);
	setenv("TERM", "xterm", 1);
	unsetenv("NO_COLOR");
	CHECK_EQ(log_init_fd(line), 0);
	log_line(LOG_ERR, "red");
	log_fini();
	CHECK(read(terminal, text, sizeof(text) - 1) > 0);
	CHECK(strstr(text, "\033[31merror: red\033[0m"));
	setenv("NO_COLOR", "1", 1);
	CHECK_EQ(log_init_fd(line), 0);
	log_line(LOG_ERR, "plain");
	log_fini();
	memset(text, 0, sizeof(text));
	CHECK(read(terminal, text, sizeof(text) - 1) > 0);
	CHECK(!strchr(text, '\033'));
	unsetenv("NO_COLOR");
	close(line);
	close(terminal);
}

/* JOURNAL_STREAM names the very file that standard error is, or it says nothing about it. */
TEST(log_auto_takes_the_journal_only_for_its_own_stream)
{
	char text[64];
	struct plain p;
	struct stat st;

	plain_open(&p);
	plain_is_stderr(&p);
	CHECK_EQ(fstat(STDERR_FILENO, &st), 0);

	unsetenv("JOURNAL_STREAM");
	CHECK_EQ(log_init(LOG_TO_AUTO), 0);
	log_line(LOG_INFO, "no stream");
	CHECK_STR(plain_read(&p), "info: no stream\n");

	snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + 1);
	setenv("JOURNAL_STREAM", text, 1);
	CHECK_EQ(log_init(LOG_TO_AUTO), 0);
	log_line(LOG_INFO, "another stream");
	CHECK_STR(plain_read(&p), "info: another stream\n");

	snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", text, 1);
	CHECK_EQ(log_init(LOG_TO_AUTO), 0);
	log_line(LOG_DEBUG, "off");
	log_line(LOG_INFO, "from a unit test of wsbind");
	CHECK_STR(plain_read(&p), "");
	CHECK_EQ(log_init(LOG_TO_STDERR), 0);
	log_line(LOG_INFO, "forced");
	CHECK(strstr(plain_read(&p), "info: forced\n"));
	unsetenv("JOURNAL_STREAM");
	plain_close(&p);
}

TEST(log_init_refuses_what_cannot_work)
{
	char path[200];
	struct plain p;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	CHECK_EQ(log_init_fd(-1), -EBADF);
	CHECK_EQ(log_init_journal(path), -ENAMETOOLONG);
	log_line(LOG_INFO, "still here");
	CHECK_STR(plain_read(&p), "info: still here\n");
	plain_close(&p);
}

static int evaluated;

static int evaluate(void)
{
	return ++evaluated;
}

TEST(log_level_decides_before_arguments_are_evaluated)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	evaluated = 0;
	CHECK(log_is_on(LOG_INFO));
	CHECK(!log_is_on(LOG_DEBUG));
	log_line(LOG_DEBUG, "%d", evaluate());
	CHECK_EQ(evaluated, 0);
	atomic_store(&log_level, LOG_DEBUG);
	log_line(LOG_DEBUG, "%d", evaluate());
	CHECK_EQ(evaluated, 1);
	CHECK_STR(plain_read(&p), "debug: 1\n");
	atomic_store(&log_level, LOG_WARNING);
	log_line(LOG_NOTICE, "%d", evaluate());
	CHECK_EQ(evaluated, 1);
	atomic_store(&log_level, LOG_INFO);
	plain_close(&p);
}

TEST(log_keeps_errno)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	fill(p.to);
	errno = ENOTDIR;
	log_line(LOG_INFO, "lost");
	CHECK_EQ(errno, ENOTDIR);
	plain_close(&p);
}

TEST(log_limit_lets_five_through_then_counts)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	clock_set_for_test(1000 * S);
	for (int i = 0; i < 12; i++)
		say_limited(i);
	CHECK_EQ(count_lines(plain_read(&p), "limited"), LOG_LIMIT_LINES);
	clock_set_for_test(1000 * S + LOG_LIMIT_WINDOW_NS - 1000000);
	say_limited(12);
	log_report_suppressed();
	CHECK_STR(plain_read(&p), "");
	clock_set_for_test(1000 * S + LOG_LIMIT_WINDOW_NS);
	say_limited(13);
	CHECK_STR(plain_read(&p),
		  "notice: say_limited: 8 more lines like the ones before were left out\n"
		  "notice: limited 13\n");
	clock_set_for_test(1020 * S);
	say_limited(14);
	CHECK_STR(plain_read(&p), "notice: limited 14\n");
	clock_set_for_test(0);
	plain_close(&p);
}

TEST(log_limit_tells_of_a_site_that_fell_silent)
{
	struct journal j;

	journal_open(&j);
	clock_set_for_test(2000 * S);
	for (int i = 0; i < 7; i++)
		log_event_limited(LOG_NOTICE, EV_REFUSED, LOG_NO_FIELDS, "refused %d", i);
	for (unsigned i = 0; i < LOG_LIMIT_LINES; i++)
		CHECK(journal_next(&j));
	CHECK(!journal_next(&j));
	clock_set_for_test(2005 * S);
	log_report_suppressed();
	CHECK(journal_next(&j));
	CHECK(strstr(j.entry, "MESSAGE=A handshake was refused: 2 more lines"));
	CHECK(journal_has(&j, "WSBIND_SUPPRESSED=2"));
	CHECK(journal_has(&j, "PRIORITY=5"));
	CHECK(strstr(j.entry, "MESSAGE_ID="));
	log_report_suppressed();
	CHECK(!journal_next(&j));
	clock_set_for_test(0);
	journal_close(&j);
}

TEST(log_fini_tells_of_open_windows)
{
	struct plain p;

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	clock_set_for_test(3000 * S);
	for (int i = 0; i < 9; i++)
		say_limited(i);
	plain_read(&p);
	log_fini();
	CHECK_EQ(count_lines(plain_read(&p), ": 4 more lines"), 1);
	clock_set_for_test(0);
	plain_close(&p);
}

#define THREADS 4
#define CALLS 500

static void *hammer(void *arg)
{
	log_set_worker((int)(uintptr_t)arg);
	for (int i = 0; i < CALLS; i++)
		say_limited(i);
	return NULL;
}

TEST(log_limit_counts_right_with_many_threads)
{
	struct plain p;
	pthread_t t[THREADS];
	char want[64];

	plain_open(&p);
	CHECK_EQ(log_init_fd(p.to), 0);
	clock_set_for_test(4000 * S);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, hammer, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(t[i], NULL), 0);
	CHECK_EQ(count_lines(plain_read(&p), "limited"), LOG_LIMIT_LINES);
	clock_set_for_test(4005 * S);
	log_report_suppressed();
	snprintf(want, sizeof(want), ": %u more lines", THREADS * CALLS - LOG_LIMIT_LINES);
	CHECK(strstr(plain_read(&p), want));
	clock_set_for_test(0);
	plain_close(&p);
}

TEST(log_events_have_distinct_ids)
{
	static const char *const id[] = {
#define EVENT(name, text, subject) text,
#include "io/log_events.h"
#undef EVENT
	};

	CHECK_EQ(ARRAY_LEN(id), EV_N - 1);
	for (size_t i = 0; i < ARRAY_LEN(id); i++) {
		CHECK_EQ(strlen(id[i]), 32);
		CHECK_EQ(strspn(id[i], "0123456789abcdef"), 32);
		for (size_t k = 0; k < i; k++)
			CHECK(strcmp(id[i], id[k]) != 0);
	}
}
