/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * HTTP for administrators, on the main thread: metrics and health on a TCP port,
 * and the same with clients, reload, publish and disconnect on a unix socket,
 * whose file mode says who may.
 *
 * What the endpoints do is in the table of functions that the caller gives; this
 * module knows only HTTP. An answer may come at once or turns later, when workers
 * have reported: admin_reply() ends the request either way. A client that hung up
 * meanwhile, or an admin that was freed, makes a late reply a quiet no-op.
 *
 * Inside is libmicrohttpd without threads. Its descriptors are behind the one of
 * admin_fd(), which the caller's loop watches; when it is readable or the time of
 * admin_timeout_ms() has passed, admin_run() works. Nothing blocks and nothing is
 * logged here. Bounded: ADMIN_MAX_CONNECTIONS for each listener, the length of
 * bodies, ADMIN_IDLE_S for a client that does not go on. Whoever comes while there is
 * no room or no descriptor waits in the kernel: connections are accepted here, since
 * libmicrohttpd would try again without a pause.
 *
 *   GET  /metrics /healthz /readyz          both listeners
 *   GET  /clients?offset=O&limit=L          control socket only, like the rest
 *   POST /reload
 *   POST /publish?channel=C
 *   POST /disconnect?id=ID
 */

#include "base/base.h"

struct admin;
struct admin_request;
struct buf;

#define ADMIN_MAX_CONNECTIONS 64
#define ADMIN_IDLE_S 30
#define ADMIN_CLIENTS_DEFAULT 100 /* of one answer to /clients, when limit is not given */
#define ADMIN_CLIENTS_MAX 1000    /* a higher limit counts as this */
#define ADMIN_CHANNEL_MAX 255     /* bytes of a channel name */
#define ADMIN_SMALL_BODY 4096     /* what may come with a request that wants no body */
#define ADMIN_REASON_MAX 256      /* of health and readiness, NUL included */

enum admin_listener { ADMIN_METRICS, ADMIN_CONTROL };

/* What is to be published. All borrowed, for the call only. */
struct WB_VALUE admin_publication {
	const char *channel; /* UTF-8 without NUL, at most ADMIN_CHANNEL_MAX bytes; "" = lobby */
	bool is_text; /* valid UTF-8 to be sent as chat; else a serialized WebSocketMessage */
	const uint8_t *body; /* may be NULL when there is none */
	size_t n;
};

/*
 * What the endpoints do. All are called on the main thread, from admin_run().
 *
 * The last four own @req until they, or who they ask, call admin_reply() on it,
 * exactly once, before or after returning.
 */
struct WB_FROZEN admin_ops {
	/* Appends the text of all metrics. 0 | -errno, answered with 500. */
	int (*metrics)(void *ctx, struct buf *out);
	/* True for 200; else 503 with what was written to @reason (ADMIN_REASON_MAX bytes). */
	bool (*is_healthy)(void *ctx, char *reason);
	bool (*is_ready)(void *ctx, char *reason);
	/* The clients from @offset on, at most @limit; admin_reply_clients(). */
	void (*clients)(void *ctx, struct admin_request *req, uint64_t offset, uint64_t limit);
	/* Answer with 200 and what changed, or 422 and the errors, as text. */
	void (*reload)(void *ctx, struct admin_request *req);
	/* admin_reply_members(); or 400, 404 with text when it cannot be published. */
	void (*publish)(void *ctx, struct admin_request *req, const struct admin_publication *p);
	/* @id is the text of a UUID, borrowed for the call; admin_reply_found(). */
	void (*disconnect)(void *ctx, struct admin_request *req, const char *id);
};

/* How to start. Everything is borrowed; the texts for the call, @ops and @ctx for good. */
struct WB_VALUE admin_options {
	const char *metrics_host; /* numeric address; NULL: no TCP listener */
	uint16_t metrics_port;    /* 0: any free one */
	const char *control_path; /* NULL: no control socket */
	size_t max_body;          /* bytes of POST /publish: max_message_size */
	const struct admin_ops *ops;
	void *ctx; /* handed to ops */
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
 * Who waits for an answer gets 503. Requests that ops own stay theirs: the
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

/**
 * admin_reply_clients() - answer /clients
 * @objects: JSON objects, separated by commas, as the workers made them; taken
 * @total:   clients there are in all
 *
 * {"clients":[…],"total":N,"next":…}; next is the offset to go on with, or null. An
 * object is {"id":"UUID","user_id":"…","address":"127.0.0.1:5000","connected_at":S,
 * "last_heartbeat":S,"capabilities":["zstd",…],"channels":["",…],"queued_bytes":N},
 * S in Unix seconds, the lobby an empty string; `wsbind clients` reads these names.
 */
void admin_reply_clients(struct admin_request *req, struct buf *objects, uint64_t total);

/* Answers /publish: {"members":N}. */
void admin_reply_members(struct admin_request *req, uint64_t members);

/* Answers /disconnect: 200 or 404. */
void admin_reply_found(struct admin_request *req, bool found);
