/* SPDX-License-Identifier: MIT */
#include "io/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/text.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
/* Longest text of a field after escaping. */
#define FIELD_MAX 1024
#define NS_PER_WINDOW_UNIT 1000000ULL
#define WINDOW_COUNT_BITS 24
#define WINDOW_COUNT_MAX ((1U << WINDOW_COUNT_BITS) - 1)

enum sink {
	SINK_POLLED,  /* not ours alone: poll before each write */
	SINK_OWN,     /* a nonblocking description of our own, or a regular file */
	SINK_SOCKET,  /* a connected socket: plain lines */
	SINK_JOURNAL, /* entries to an address */
};

/* Written by log_init() and log_fini() while there is one thread. */
struct writer {
	enum sink sink;
	int fd;
	bool owns_fd;
	bool has_colours;
	struct sockaddr_un journal;
};

/* One line on its way: an entry of the journal, or a line of text. */
struct entry {
	size_t n;
	char data[LOG_ENTRY_MAX];
};

struct event_row {
	const char *id;
	const char *subject;
};

static const struct event_row events[EV_N] = {
#define EVENT(name, id, subject) [EV_##name] = {id, subject},
#include "io/log_events.h"
#undef EVENT
};

static const char *const level_name[] = {
	"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug",
};

static const char *const level_colour[] = {
	"\033[1;31m", "\033[1;31m", "\033[1;31m", "\033[31m", "\033[33m", "\033[1m", "", "\033[2m",
};

_Atomic int log_level = LOG_INFO;

static struct writer writer = {.sink = SINK_POLLED, .fd = STDERR_FILENO};
static _Atomic uint64_t dropped;
static _Atomic uint64_t dropped_untold;
static _Atomic(struct log_site *) sites; /* those that ever left something out */
static _Thread_local int thread_worker = -1;

void log_set_worker(int index)
{
	thread_worker = index;
}

uint64_t log_dropped(void)
{
	return atomic_load_explicit(&dropped, memory_order_relaxed);
}

void log_add_dropped(uint64_t n)
{
	atomic_fetch_add_explicit(&dropped, n, memory_order_relaxed);
}

/* ----------------------------------------------------------------- where lines go */

static bool stderr_is_journal_stream(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	uint64_t device, inode;
	struct stat st;

	/* systemd.exec(5): a variable that was inherited may mean somebody else's stream. */
	if (!text || sscanf(text, "%" SCNu64 ":%" SCNu64, &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static bool wants_colours(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term && strcmp(term, "dumb") != 0 && !getenv("NO_COLOR");
}

static void writer_replace(struct writer w)
{
	if (writer.owns_fd)
		(void)close(writer.fd);
	writer = w;
}

int log_init_fd(int fd)
{
	struct writer w = {.sink = SINK_POLLED, .fd = fd};
	char path[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* In the order of how sure each is never to block; see the note in the header. */
	if (S_ISSOCK(st.st_mode)) {
		w.sink = SINK_SOCKET;
	} else if (S_ISREG(st.st_mode)) {
		w.sink = SINK_OWN;
	} else {
		w.has_colours = wants_colours(fd);
		/* O_NOCTTY: a daemon's first terminal would become its controlling one. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (own >= 0) {
			w.sink = SINK_OWN;
			w.fd = own;
			w.owns_fd = true;
		}
	}
	writer_replace(w);
	return 0;
}

int log_init_journal(const char *path)
{
	struct writer w = {.sink = SINK_JOURNAL, .owns_fd = true};

	if (strlen(path) >= sizeof(w.journal.sun_path))
		return -ENAMETOOLONG;
	w.journal.sun_family = AF_UNIX;
	memcpy(w.journal.sun_path, path, strlen(path) + 1);
	w.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (w.fd < 0)
		return -errno;
	writer_replace(w);
	return 0;
}

int log_init(enum log_target target)
{
	if (target == LOG_TO_JOURNAL || (target == LOG_TO_AUTO && stderr_is_journal_stream()))
		return log_init_journal(JOURNAL_SOCKET);
	return log_init_fd(STDERR_FILENO);
}

/* ---------------------------------------------------------------- how a line goes */

static ssize_t send_once(const char *p, size_t n)
{
	struct pollfd ready = {.fd = writer.fd, .events = POLLOUT};

	switch (writer.sink) {
	case SINK_JOURNAL:
		/* Not connected: a restarted journald has a new socket at the same address. */
		return sendto(writer.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL,
			      (const struct sockaddr *)&writer.journal, sizeof(writer.journal));
	case SINK_SOCKET:
		return send(writer.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	case SINK_POLLED:
		/* Between this look and the write another writer may fill the pipe: it is rare. */
		if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT))
			return -1;
		return write(writer.fd, p, n);
	case SINK_OWN:
		break;
	}
	return write(writer.fd, p, n);
}

/* Whole or not at all, as far as the target lets us: the rest of a torn line is not kept. */
static bool send_line(const struct entry *e)
{
	return send_once(e->data, e->n) == (ssize_t)e->n;
}

/* Two counts: one for the metrics, which only grows, and one that the next line tells of. */
static void count_drop(void)
{
	atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&dropped_untold, 1, memory_order_relaxed);
}

/* ------------------------------------------------------------- how a line is made */

/* A field that does not fit is left out whole, so that the entry stays well-formed. */
static void entry_field(struct entry *e, const char *prefix, const char *name, const char *value)
{
	size_t prefix_len = strlen(prefix), name_len = strlen(name), n = strlen(value);
	uint64_t length = htole64(n);
	bool has_lines = memchr(value, '\n', n) != NULL;
	char *p = e->data + e->n;

	if (prefix_len + name_len + 1 + (has_lines ? sizeof(length) : 0) + n + 1 >
	    sizeof(e->data) - e->n)
		return;
	/*
	 * "NAME=value", or for a value of several lines "NAME", its length in 8 bytes, the value.
	 */
	p = mempcpy(p, prefix, prefix_len);
	p = mempcpy(p, name, name_len);
	*p++ = has_lines ? '\n' : '=';
	if (has_lines)
		p = mempcpy(p, &length, sizeof(length));
	p = mempcpy(p, value, n);
	*p++ = '\n';
	e->n = (size_t)(p - e->data);
}

static void entry_number(struct entry *e, const char *prefix, const char *name, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	entry_field(e, prefix, name, text);
}

static void entry_caller_field(struct entry *e, const struct log_field *f)
{
	char text[FIELD_MAX];

	switch (f->kind) {
	case LOG_FIELD_TEXT:
		if (!f->text)
			return;
		text_escape(text, sizeof(text), f->text, strlen(f->text));
		entry_field(e, "WSBIND_", f->name, text);
		return;
	case LOG_FIELD_LINES:
		if (f->text)
			entry_field(e, "WSBIND_", f->name, f->text);
		return;
	case LOG_FIELD_NUM:
		entry_number(e, "WSBIND_", f->name, f->number);
		return;
	case LOG_FIELD_ERRNO:
		entry_number(e, "", f->name, f->number < 0 ? -f->number : f->number);
		return;
	case LOG_FIELD_END:
		return;
	}
}

static void entry_for_journal(struct entry *e, const struct log_site *site, int priority,
			      enum log_event_id event, const struct log_field *fields)
{
	if (event != EV_NONE)
		entry_field(e, "", "MESSAGE_ID", events[event].id);
	entry_number(e, "", "PRIORITY", priority);
	entry_field(e, "", "SYSLOG_IDENTIFIER", "wsbind");
	entry_field(e, "", "CODE_FILE", site->file);
	entry_number(e, "", "CODE_LINE", site->line);
	entry_field(e, "", "CODE_FUNC", site->func);
	if (thread_worker >= 0)
		entry_number(e, "WSBIND_", "WORKER", thread_worker);
	for (; fields && fields->kind != LOG_FIELD_END; fields++)
		entry_caller_field(e, fields);
}

static void entry_for_people(struct entry *e, int priority, const char *message)
{
	const char *colour = writer.has_colours ? level_colour[priority] : "";
	int n;

	n = snprintf(e->data, sizeof(e->data), "%s%s: %s%s\n", colour, level_name[priority],
		     message, *colour ? "\033[0m" : "");
	e->n = n < 0 ? 0 : MIN((size_t)n, sizeof(e->data) - 1);
}

/* @text is escaped here and nowhere else; true when the line went out. */
static bool line_emit_text(const struct log_site *site, int priority, enum log_event_id event,
			   const struct log_field *fields, const char *text)
{
	char message[LOG_MESSAGE_MAX];
	struct entry e;

	e.n = 0; /* alone: clearing 8 KiB for each line would cost more than making it */
	text_escape(message, sizeof(message), text, strlen(text));
	if (writer.sink == SINK_JOURNAL) {
		entry_field(&e, "", "MESSAGE", message);
		entry_for_journal(&e, site, priority, event, fields);
	} else {
		entry_for_people(&e, priority, message);
	}
	return send_line(&e);
}

/* Tells of lost lines before the next one. When that fails too, they stay untold. */
static void tell_drops(void)
{
	static struct log_site site = {.file = __FILE__, .func = "log_write", .line = __LINE__};
	uint64_t n = atomic_exchange_explicit(&dropped_untold, 0, memory_order_relaxed);
	const struct log_field *fields = LOG_FIELDS(LOG_NUM("DROPPED", n));
	char text[128];

	if (n == 0)
		return;
	snprintf(text, sizeof(text),
		 "%" PRIu64 " log lines were lost here: their target took no more", n);
	if (!line_emit_text(&site, LOG_WARNING, EV_LOG_DROPPED, fields, text))
		atomic_fetch_add_explicit(&dropped_untold, n, memory_order_relaxed);
}

static void line_emit(const struct log_site *site, int priority, enum log_event_id event,
		      const struct log_field *fields, const char *text)
{
	tell_drops();
	if (!line_emit_text(site, priority, event, fields, text))
		count_drop();
}

/* ----------------------------------------------------- what one call site may say */

static void site_list(struct log_site *site)
{
	struct log_site *head;

	/* A site is pushed once and stays: so the list needs no lock and nothing is ever freed. */
	if (atomic_exchange_explicit(&site->is_listed, true, memory_order_relaxed))
		return;
	head = atomic_load_explicit(&sites, memory_order_relaxed);
	do {
		site->next = head;
		/* Release: pairs with the acquire of tell_suppressed(). */
	} while (!atomic_compare_exchange_weak_explicit(&sites, &head, site, memory_order_release,
							memory_order_relaxed));
}

static bool window_is_over(uint64_t window, uint64_t now_ns)
{
	uint64_t start_ns = (window >> WINDOW_COUNT_BITS) * NS_PER_WINDOW_UNIT;

	return now_ns < start_ns || now_ns - start_ns >= LOG_LIMIT_WINDOW_NS;
}

static unsigned window_left_out(uint64_t window)
{
	unsigned lines = (unsigned)(window & WINDOW_COUNT_MAX);

	return lines > LOG_LIMIT_LINES ? lines - LOG_LIMIT_LINES : 0;
}

/*
 * Start of the window and lines in it are one word, so one compare-and-swap
 * decides, and the one that opens a new window alone tells what the old one
 * left out.
 */
static bool site_admits(struct log_site *site, uint32_t kind, unsigned *ret_left_out)
{
	uint64_t now_ns = clock_now_ns();
	uint64_t start = now_ns / NS_PER_WINDOW_UNIT << WINDOW_COUNT_BITS;
	uint64_t old = atomic_load_explicit(&site->window, memory_order_relaxed);
	uint64_t next;
	bool opens;

	do {
		opens = old == 0 || window_is_over(old, now_ns);
		/*
		 * A count that is full stays so: one more would run into the start of the window.
		 */
		next = (old & WINDOW_COUNT_MAX) == WINDOW_COUNT_MAX ? old : old + 1;
		if (opens)
			next = start | 1;
	} while (!atomic_compare_exchange_weak_explicit(
		&site->window, &old, next, memory_order_relaxed, memory_order_relaxed));
	if (opens) {
		*ret_left_out = window_left_out(old);
		return true;
	}
	if ((next & WINDOW_COUNT_MAX) <= LOG_LIMIT_LINES)
		return true;
	/* It may fall silent from now on; then log_report_suppressed() finds it by the list. */
	atomic_store_explicit(&site->kind, kind, memory_order_relaxed);
	site_list(site);
	return false;
}

static void site_tell(const struct log_site *site, uint32_t kind, unsigned left_out)
{
	enum log_event_id event = (enum log_event_id)(kind >> 8);
	const struct log_field *fields = LOG_FIELDS(LOG_NUM("SUPPRESSED", left_out));
	char text[256];

	snprintf(text, sizeof(text), "%s: %u more lines like the ones before were left out",
		 event == EV_NONE ? site->func : events[event].subject, left_out);
	line_emit(site, (int)(kind & 0xff), event, fields, text);
}

/* Whoever takes a window away tells what it left out; a site that was just called tells itself. */
static void tell_suppressed(bool also_open_windows)
{
	struct log_site *site = atomic_load_explicit(&sites, memory_order_acquire);
	uint64_t now_ns = clock_now_ns();
	uint64_t old;

	for (; site; site = site->next) {
		old = atomic_load_explicit(&site->window, memory_order_relaxed);
		if (window_left_out(old) == 0)
			continue;
		if (!also_open_windows && !window_is_over(old, now_ns))
			continue;
		/* Lost when the site was called meanwhile: then it tells, or counts one more. */
		if (atomic_compare_exchange_strong_explicit(
			    &site->window, &old, 0, memory_order_relaxed, memory_order_relaxed))
			site_tell(site, atomic_load_explicit(&site->kind, memory_order_relaxed),
				  window_left_out(old));
	}
}

void log_report_suppressed(void)
{
	tell_suppressed(false);
}

void log_write(struct log_site *site, int priority, enum log_event_id event,
	       const struct log_field *fields, const char *fmt, ...)
{
	uint32_t kind = (uint32_t)event << 8 | (uint32_t)(priority & LOG_PRIMASK);
	/* One byte more than is shown, so that text_escape() sees a cut and marks it. */
	char text[LOG_MESSAGE_MAX + 1];
	unsigned left_out = 0;
	int saved = errno;
	va_list args;

	/* The order of the lines is that of what happened: first what the old window left out. */
	if (site->is_limited && !site_admits(site, kind, &left_out))
		return;
	if (left_out)
		site_tell(site, kind, left_out);
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	line_emit(site, priority & LOG_PRIMASK, event, fields, text);
	errno = saved;
}

void log_fini(void)
{
	tell_suppressed(true);
	tell_drops(); /* behind the others, which may have been lost as well */
	writer_replace((struct writer){.sink = SINK_POLLED, .fd = STDERR_FILENO});
}
