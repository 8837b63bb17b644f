/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * HTTP for administrators, on the main thread: metrics and health on a TCP port,
 * and the same with clients, channels, reload, publish and disconnect on a unix socket,
 * whose file mode says who may.
 *
 * Which routes there are is in admin_table.h; what they do is in the functions that the
 * caller gives: this module knows only HTTP. An answer may come at once or turns later, when
 * workers have reported: admin_reply() ends the request either way. A client that hung up
 * meanwhile, or an admin that was freed, makes a late reply a quiet no-op.
 *
 * Inside is libmicrohttpd without threads. Its descriptors are behind the one of
 * admin_fd(), which the caller's loop watches; when it is readable or the time of
 * admin_timeout_ms() has passed, admin_run() works. Nothing blocks and nothing is
 * logged here. Bounded: ADMIN_MAX_CONNECTIONS for each listener, the length of
 * bodies, ADMIN_IDLE_S for a client that does not go on, ADMIN_REQUEST_S for one that does
 * so slowly. Where there is no room the one whose request is due for longest makes it. Whoever
 * comes while all wait for answers, or there is no descriptor, waits in the kernel: connections are
 * accepted here, since libmicrohttpd would try again without a pause.
 *
 * Where the TCP port is on a loopback address, Host has to be an address or localhost: with the
 * name of a page that changes its address (DNS rebinding) a browser would read it out.
 */

#include "base/base.h"
#include "wire/msg.h"

struct admin;
struct admin_request;
struct buf;

#define ADMIN_MAX_CONNECTIONS 64
#define ADMIN_IDLE_S 30
#define ADMIN_REQUEST_S 60        /* from one answer to the end of the next request */
#define ADMIN_CLIENTS_DEFAULT 100 /* of one answer to /clients, when limit is not given */
#define ADMIN_CLIENTS_MAX 1000    /* a higher limit counts as this */
#define ADMIN_CHANNEL_MAX MSG_CHANNEL_MAX
#define ADMIN_USER_MAX 128
#define ADMIN_SMALL_BODY 4096 /* what may come with a request that wants no body */

enum admin_listener { ADMIN_METRICS, ADMIN_CONTROL };

/* Which clients or channels are to be listed. */
struct WB_VALUE admin_page {
	uint64_t offset, limit; /* of those; at most ADMIN_CLIENTS_MAX of them */
	const char *channel;    /* only its members; at most ADMIN_CHANNEL_MAX bytes; NULL: all */
	const char *user;       /* only who is called so; at most ADMIN_USER_MAX bytes; NULL: all */
};

/* What is to be published. */
struct WB_VALUE admin_publication {
	const char *channel; /* UTF-8 without NUL, at most ADMIN_CHANNEL_MAX bytes; "" = lobby */
	bool is_text; /* valid UTF-8 to be sent as chat; else a serialized WebSocketMessage */
	const uint8_t *body; /* may be NULL when there is none */
	size_t n;
};

enum admin_route_flag {
	ADMIN_CONTROL_ONLY = 1 << 0, /* the control socket's alone */
	ADMIN_HAS_BODY = 1 << 1,     /* of up to admin_options.max_body bytes */
};

struct WB_FROZEN admin_route {
	const char *method;
	const char *path;
	unsigned flags;         /* enum admin_route_flag */
	const char *parameters; /* words, with spaces between */
};

enum admin_route_id {
#define ROUTE(name, ...) ADMIN_ROUTE_##name,
#include "service/admin_table.h"
	ADMIN_N_ROUTES
};

extern const struct admin_route admin_routes[ADMIN_N_ROUTES];

/*
 * Answers a request, from admin_run(): the function, or who it asks, owns @req until it calls
 * one of the admin_reply functions on it, exactly once, before or after returning.
 */
typedef void admin_answer_fn(void *ctx, struct admin_request *req);

/* How to start. Everything is borrowed; the texts for the call, @answers and @ctx for good. */
struct WB_VALUE admin_options {
	const char *metrics_host;        /* numeric address; NULL: no TCP listener */
	uint16_t metrics_port;           /* 0: any free one */
	const char *control_path;        /* NULL: no control socket */
	size_t max_body;                 /* bytes of POST /publish: max_message_size */
	admin_answer_fn *const *answers; /* one for each of enum admin_route_id */
	void *ctx;                       /* handed to them */
};

/**
 * admin_new() - open the listeners
 * @failed: which listener could not be opened, after -errno: its key is metrics_port
 *          (metrics_host for -EINVAL and -EADDRNOTAVAIL) or control_socket
 *
 * A socket file at control_path is replaced only when nobody listens on it; its
 * mode is 0660 from its first moment.
 *
 * Return:  0 | -EADDRINUSE taken by a running process | -EEXIST a file is there that is
 *          no socket | -EINVAL no such address | -ENAMETOOLONG | other -errno of socket, bind,
 *          listen | -ENOMEM.
 * Owns:    *@ret is the caller's, for admin_free().
 * Thread:  main.
 */
int admin_new(const struct admin_options *options, enum admin_listener *failed, struct admin **ret)
	WB_NODISCARD;

/**
 * admin_free() - close the listeners, remove the socket file
 *
 * Who waits for an answer gets 503. Requests that are not answered yet stay their owners': the
 * admin_reply() that is due may come after this. A socket file that another
 * process has put in place of ours is left alone. Accepts NULL.
 *
 * Return:  NULL.
 */
struct admin *admin_free(struct admin *a);

/* The descriptor to watch for EPOLLIN, level-triggered. */
int admin_fd(const struct admin *a);

/* After how long admin_run() is due without any event [ms]; -1: not before an event. */
int admin_timeout_ms(const struct admin *a);

/* Does what is due; bounded by what its connections have sent. */
void admin_run(struct admin *a);

/* The port of the TCP listener; 0 when there is none. */
uint16_t admin_port(const struct admin *a);

/* A new max_message_size, from the next request on. */
void admin_set_max_body(struct admin *a, size_t max_body);

/*
 * admin_read_*() - what a request asks for, to be called by the function that answers it
 *
 * Return:  true | false: it can't be understood and has been answered; @req is gone.
 * Thread:  main.
 */

/* The texts are borrowed until the function that answers returns. */
bool admin_read_page(struct admin_request *req, struct admin_page *ret) WB_NODISCARD;

/*
 * The order that was asked for, as an index of @names, of which NULL can't be asked for; 0 where
 * none was.
 */
bool admin_read_order(struct admin_request *req, const char *const *names, unsigned n,
		      unsigned *ret) WB_NODISCARD;

/* Borrowed until the function that answers returns. */
bool admin_read_publication(struct admin_request *req, struct admin_publication *ret) WB_NODISCARD;

/* Whom to disconnect: one client, or all of one user. */
struct WB_VALUE admin_target {
	bool by_user;
	uint8_t id[16];
	char user[ADMIN_USER_MAX + 1];
};

bool admin_read_target(struct admin_request *req, struct admin_target *ret) WB_NODISCARD;

/**
 * admin_reply() - end a request
 * @status: HTTP status
 * @type:   content type; NULL: plain text
 * @body:   copied
 *
 * Owns:    @req is gone afterwards.
 * Thread:  main.
 */
void admin_reply(struct admin_request *req, unsigned status, const char *type, const char *body);

/* As admin_reply(); takes the memory of @body, which is empty afterwards. */
void admin_reply_buf(struct admin_request *req, unsigned status, const char *type,
		     struct buf *body);

/* Answers /metrics: takes the memory of @text, as it is when @error is 0; else 500. */
void admin_reply_metrics(struct admin_request *req, struct buf *text, int error);

/* Answers /healthz and /readyz: 200, or 503 with @reason. */
void admin_reply_state(struct admin_request *req, bool is_good, const char *reason);

/**
 * admin_reply_list() - answer /clients or /channels
 * @name:    of the array
 * @objects: JSON objects, separated by commas, as the workers made them; taken
 * @listed:  how many they are
 * @total:   that there are in all
 *
 * {"clients":[…],"total":N,"next":…}; next is the offset to go on with, or null. What the
 * members of an object are wsbind(8) says; `wsbind clients` shows those that it has columns for.
 */
void admin_reply_list(struct admin_request *req, const char *name, struct buf *objects,
		      uint64_t listed, uint64_t total);

/* Answers /publish: {"members":N}. */
void admin_reply_members(struct admin_request *req, uint64_t members);

/* Answers /disconnect: 200, or 404 where there was nobody; @n: connections that are closed. */
void admin_reply_ended(struct admin_request *req, const struct admin_target *target, uint64_t n);
