/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Log lines that never block. Under systemd a line is one datagram to the
 * journal with fields (systemd.journal-fields(7), "Native Journal Protocol");
 * elsewhere it is one line of text on standard error, in one write. What does
 * not fit at once is dropped, counted, and told by the next line that passes:
 * a stuck journal, terminal or pipe costs lines, never time.
 *
 * Standard error belongs to others too (a shell, a test, another process), so
 * O_NONBLOCK is never set on it: that flag lives in the shared description. A
 * pipe or terminal is opened once more through /proc/self/fd/2, which gives a
 * description of our own; a socket is sent to with MSG_DONTWAIT; a regular file
 * is written as it is. Where opening again is not allowed, each write is
 * preceded by poll() with no waiting; lines are shorter than PIPE_BUF, so a pipe
 * that polls writable takes one whole, unless another writer is quicker.
 *
 * MESSAGE and text fields go through text_escape(): no peer can forge a line,
 * whatever a caller passes. What clients can provoke is written with the
 * _limited forms: per call site 5 lines in 5 s, then silence, then one line
 * with the count. Formatting happens on the stack; nothing is allocated.
 *
 * One writer for the process, set up before the threads start; the thread's
 * worker number is thread-local.
 */

#include <syslog.h>

#include "base/base.h"

/* Longest MESSAGE after escaping; the rest is cut. Below PIPE_BUF, see above. */
#define LOG_MESSAGE_MAX 2048
/* Longest journal entry; fields that do not fit are left out. */
#define LOG_ENTRY_MAX 8192
/* Lines of one call site within the window, for the _limited forms. */
#define LOG_LIMIT_LINES 5
#define LOG_LIMIT_WINDOW_NS 5000000000ULL

enum log_target {
	LOG_TO_AUTO,    /* the journal when standard error is its stream, else standard error */
	LOG_TO_JOURNAL, /* datagrams to journald */
	LOG_TO_STDERR,  /* plain lines */
};

/* EV_NONE is a line without MESSAGE_ID. */
enum log_event_id {
	EV_NONE,
#define EVENT(name, id, subject) EV_##name,
#include "io/log_events.h"
#undef EVENT
	EV_N
};

enum log_field_kind {
	LOG_FIELD_END,
	LOG_FIELD_TEXT,
	LOG_FIELD_LINES,
	LOG_FIELD_NUM,
	LOG_FIELD_ERRNO
};

/* One field of a line; made by the macros below, alive for the call. */
struct WB_VALUE log_field {
	enum log_field_kind kind;
	const char *name; /* without the prefix WSBIND_ */
	const char *text; /* NULL: the field is left out */
	int64_t number;
};

/* Peer-made or any other text: escaped, cut. */
#define LOG_TEXT(field, value)                                           \
	{                                                                \
		.kind = LOG_FIELD_TEXT, .name = (field), .text = (value) \
	}
/* Our own text of several lines: carried as it is. Never for what a peer made. */
#define LOG_LINES(field, value)                                           \
	{                                                                 \
		.kind = LOG_FIELD_LINES, .name = (field), .text = (value) \
	}
#define LOG_NUM(field, value)                                                      \
	{                                                                          \
		.kind = LOG_FIELD_NUM, .name = (field), .number = (int64_t)(value) \
	}
/* ERRNO=; takes an errno or a negative errno. */
#define LOG_ERRNO(value)                                                             \
	{                                                                            \
		.kind = LOG_FIELD_ERRNO, .name = "ERRNO", .number = (int64_t)(value) \
	}

#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.kind = LOG_FIELD_END}})
#define LOG_NO_FIELDS ((const struct log_field *)NULL)

/* A place in the source that logs; one static object for each, made by the macros below. */
struct WB_SHARED log_site {
	const char *file WB_FROZEN;
	const char *func WB_FROZEN;
	int line WB_FROZEN;
	bool is_limited WB_FROZEN;
	_Atomic uint64_t window;         /* start in ms << 24 | lines so far; 0: no window */
	_Atomic uint32_t kind;           /* event << 8 | priority of the last line left out */
	atomic_bool is_listed;           /* on the list of sites that left something out */
	struct log_site *next WB_FROZEN; /* on that list; written before is_listed is seen there */
};

/* Lines of a lower importance (a higher number, LOG_*) are left out. Set by main. */
extern _Atomic int log_level;

/* Whether a line of this priority would be written: guards costly arguments. Any thread. */
static inline bool log_is_on(int priority)
{
	return priority <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/**
 * log_init() - choose where lines go
 *
 * Before the first call, and after log_fini(), lines go to standard error.
 * The caller ignores SIGPIPE.
 *
 * Return:  0 | -errno: nothing changed.
 * Thread:  before the others start.
 */
int log_init(enum log_target target) WB_NODISCARD;

/**
 * log_init_fd() - write plain lines to a descriptor, as log_init() would to standard error
 * @fd:     borrowed until log_fini()
 *
 * Return:  0 | -errno: nothing changed.
 * Thread:  before the others start.
 */
int log_init_fd(int fd) WB_NODISCARD;

/**
 * log_init_journal() - write journal entries to the datagram socket at a path
 * @path:   of the socket; need not exist yet, lines are dropped until it does
 *
 * Return:  0 | -ENAMETOOLONG | -errno: nothing changed.
 * Thread:  before the others start.
 */
int log_init_journal(const char *path) WB_NODISCARD;

/**
 * log_fini() - report what is still untold, and give descriptors back
 *
 * Thread:  after the others ended.
 */
void log_fini(void);

/* Gives the calling thread's lines their WSBIND_WORKER; -1 (as at the start): none. */
WB_ANY_THREAD void log_set_worker(int index);

/* Lines dropped since the start because their target would have blocked or failed. Any thread. */
WB_ANY_THREAD uint64_t log_dropped(void);

/* Counts those that the process before this one dropped. Thread: any. */
WB_ANY_THREAD void log_add_dropped(uint64_t n);

/**
 * log_report_suppressed() - tell what call sites left out in windows that are over
 *
 * A site that is called again tells by itself; this is for those that fell
 * silent. main calls it about once a second.
 *
 * Thread:  any.
 */
WB_ANY_THREAD void log_report_suppressed(void);

/**
 * log_write() - format and write one line; use the macros below
 *
 * Keeps errno. A line that cannot be written at once is counted, not kept.
 *
 * Thread:  any.
 * Cost:    one system call (two where poll is needed), no allocation; a
 *          suppressed line costs one clock read and one atomic operation.
 */
WB_ANY_THREAD void log_write(struct log_site *site, int priority, enum log_event_id event,
			     const struct log_field *fields, const char *fmt, ...) WB_PRINTF(5, 6);

#define LOG_WRITE_(limited, priority, event, fields, ...)                                  \
	do {                                                                               \
		static struct log_site log_site_ = {.file = __FILE__,                      \
						    .func = __func__,                      \
						    .line = __LINE__,                      \
						    .is_limited = (limited)};              \
		if (log_is_on(priority))                                                   \
			log_write(&log_site_, (priority), (event), (fields), __VA_ARGS__); \
	} while (0)

/* log_event(LOG_NOTICE, EV_X, LOG_FIELDS(LOG_TEXT("PEER", p)), "text %d", n): see log_write(). */
#define log_event(priority, event, fields, ...) \
	LOG_WRITE_(false, priority, event, fields, __VA_ARGS__)
#define log_line(priority, ...) LOG_WRITE_(false, priority, EV_NONE, LOG_NO_FIELDS, __VA_ARGS__)

/* The same for what clients can provoke: LOG_LIMIT_LINES lines a window for this call site. */
#define log_event_limited(priority, event, fields, ...) \
	LOG_WRITE_(true, priority, event, fields, __VA_ARGS__)
#define log_line_limited(priority, ...) \
	LOG_WRITE_(true, priority, EV_NONE, LOG_NO_FIELDS, __VA_ARGS__)
