/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The client's side of one WebSocket connection, for `wsbind client` and `wsbind
 * benchmark`: connects, shakes hands, puts messages together, masks, answers pings,
 * closes politely, and ends in exactly one call of closed(), whatever happened.
 *
 * An endpoint is embedded in its owner, one for each connection, and lives on an
 * endpoint_loop, which has what all of them share: the reactor, one large read buffer,
 * random mask keys. What is sent during a turn goes out in one send at its end. What
 * is read is handed out where it lies: a message is copied only when it has several
 * frames or is cut by the end of a read.
 *
 * At most ENDPOINT_MAX_OPENING connections shake hands at a time, the others wait their
 * turn: thousands at once would overflow the server's backlog, and the kernel would
 * try those again only after seconds.
 *
 * Bounds: the send queue by endpoint_limits.queue_bytes, a message by message_bytes, a
 * handshake and a close by ENDPOINT_HANDSHAKE_NS and ENDPOINT_CLOSE_NS.
 */

#include "base/base.h"
#include "client/target.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "io/reactor.h"
#include "io/transport.h"
#include "model/close_codes.h"
#include "wire/msg.h"
#include "wire/upgrade.h"
#include "wire/ws.h"

#define ENDPOINT_MAX_OPENING 128 /* connections that shake hands at a time */
#define ENDPOINT_READ_BYTES ((size_t)256 << 10)
#define ENDPOINT_KEY_BYTES 4096
#define ENDPOINT_REASON_TEXT (WS_MAX_CONTROL - 2 + 1) /* a Close without its code, with a NUL */
#define ENDPOINT_HANDSHAKE_NS (10 * NS_PER_S)         /* from the first SYN to the 101 */
#define ENDPOINT_CLOSE_NS (5 * NS_PER_S)              /* for the other's Close */

/* Outcomes of sending. */
enum endpoint_send_result {
	ENDPOINT_E_FULL = 1, /* the queue has no room; see endpoint_ops.writable */
	ENDPOINT_E_NOT_OPEN, /* not connected yet, closing, or ended */
};

enum endpoint_state {
	ENDPOINT_IDLE,       /* not connected; the only state in which its memory may go */
	ENDPOINT_WAITING,    /* for its turn to connect */
	ENDPOINT_CONNECTING, /* TCP */
	ENDPOINT_HANDSHAKE,  /* the request is sent */
	ENDPOINT_OPEN,
	ENDPOINT_CLOSING, /* our Close is sent, theirs has not come */
	ENDPOINT_ENDED,   /* closed() will be called at the end of this turn */
};

/* How a connection ended. */
enum endpoint_end_kind {
	ENDPOINT_END_CLOSED,      /* closing handshake; code and reason are the other's */
	ENDPOINT_END_UNREACHABLE, /* no TCP connection: error */
	ENDPOINT_END_REFUSED,     /* HTTP answer other than 101: status */
	ENDPOINT_END_NOT_WS,      /* the handshake's answer is not that of a WebSocket server */
	ENDPOINT_END_LOST,        /* error; 0 when the other end closed without a Close */
	ENDPOINT_END_TIMEOUT,     /* handshake or the other's Close is overdue; endpoint_abort() */
	ENDPOINT_END_VIOLATION,   /* the other broke the protocol: code and reason say how */
	ENDPOINT_END_TLS,         /* no secure connection: reason says why, in words of our own */
};

struct WB_VALUE endpoint_end {
	enum endpoint_end_kind kind;
	bool was_open;
	uint16_t code; /* of a Close; WS_CODE_NO_STATUS when it had none */
	int error;     /* -errno */
	int status;    /* HTTP */
	/* Of a Close or a refusal: the other's bytes, to be escaped. */
	char reason[ENDPOINT_REASON_TEXT];
};

struct endpoint;

/*
 * What an endpoint tells its owner; message and closed are required. Any may call any
 * function of this file but endpoint_connect(), which closed alone may call.
 */
struct WB_FROZEN endpoint_ops {
	void (*opened)(struct endpoint *e);
	/*
	 * A whole text (checked UTF-8) or binary message; @data may be changed, and is gone on
	 * return.
	 */
	void (*message)(struct endpoint *e, uint8_t opcode, uint8_t *data, size_t n);
	void (*pong)(struct endpoint *e, const uint8_t *data, size_t n);
	/* The queue went empty after an ENDPOINT_E_FULL. */
	void (*writable)(struct endpoint *e);
	/*
	 * The last call: the endpoint is idle again, may be connected anew, and its memory may go.
	 */
	void (*closed)(struct endpoint *e, const struct endpoint_end *end);
};

struct WB_VALUE endpoint_limits {
	size_t queue_bytes;   /* of frames that wait to be sent; control frames may exceed it */
	size_t message_bytes; /* of a message that arrives; past it: Close 1009 */
};

struct endpoint_loop;

/* What the connections of a thread share. All-zero memory until endpoint_loop_init(). */
struct WB_OWNER(loop) endpoint_loop {
	struct reactor reactor;
	struct list unsent;  /* endpoints that have something to send at the end of this turn */
	struct list unread;  /* endpoints of which a turn did not read everything */
	struct list waiting; /* endpoints in ENDPOINT_WAITING */
	unsigned opening;    /* endpoints in ENDPOINT_CONNECTING and ENDPOINT_HANDSHAKE */
	uint64_t read_ns;    /* when the bytes of the message being handed out were read */
	const struct target *target WB_FROZEN;
	struct endpoint_limits limits WB_FROZEN;
	uint8_t *read_buffer;
	int signal_fd; /* -1: none */
	struct reactor_source signal_source;
	void (*on_signal)(struct endpoint_loop *l);
	unsigned keys_left; /* unused bytes at the end of keys */
	uint8_t keys[ENDPOINT_KEY_BYTES];
};

/* One connection. Its owner reads state and last_read_ns, and nothing else. */
struct WB_OWNER(loop) endpoint {
	struct reactor_source source;
	struct transport transport;
	struct endpoint_loop *loop;
	const struct endpoint_ops *ops WB_FROZEN;
	uint8_t state;         /* enum endpoint_state */
	uint8_t opcode;        /* of the message being put together; 0: none */
	uint8_t address;       /* index of the one being tried */
	uint8_t control_n;     /* bytes of control */
	bool was_refused_room; /* a send got ENDPOINT_E_FULL */
	bool is_send_blocked;  /* the kernel is full: EPOLLOUT will tell */
	int send_error;        /* -errno of a send that failed; reading finds out the rest */
	uint8_t control[WS_MAX_CONTROL]; /* payload of a control frame that comes in pieces */
	struct list in_unsent, in_unread, in_waiting;
	struct wheel_timer timer; /* handshake, or the other's Close */
	struct reactor_deferred ending;
	struct ws_decoder *decoder;
	struct buf in;  /* handshake's answer; then the message being put together */
	struct buf out; /* frames, from out_sent on still to be sent */
	size_t out_sent;
	const char *query; /* added to the path of the request; NULL or "": nothing; borrowed */
	char key[UPGRADE_KEY_TEXT];
	struct endpoint_end end;
	uint64_t last_read_ns;
};

/**
 * endpoint_loop_init() - make a loop without connections
 * @l:      all-zero
 * @target: borrowed for its life
 *
 * Return:  0 | -ENOMEM | -errno of reactor_init().
 * Owns:    the caller, until endpoint_loop_fini().
 */
int endpoint_loop_init(struct endpoint_loop *l, const struct target *target,
		       const struct endpoint_limits *limits) WB_NODISCARD;

/* Frees what a loop has; all its endpoints must be idle. All-zero is allowed. */
void endpoint_loop_fini(struct endpoint_loop *l);

/**
 * endpoint_loop_on_signal() - have SIGINT, SIGTERM and SIGHUP reported by the loop
 *
 * Blocks them for the process and ignores SIGPIPE; for a command that ends afterwards.
 *
 * Return:  0 | -errno of signalfd or epoll_ctl.
 * Thread:  main.
 */
int endpoint_loop_on_signal(struct endpoint_loop *l, void (*fn)(struct endpoint_loop *l))
	WB_NODISCARD;

/* One turn, as reactor_turn(). */
int endpoint_loop_turn(struct endpoint_loop *l, uint64_t longest_ns) WB_NODISCARD;

/* Makes @e (all-zero memory) an idle endpoint. */
void endpoint_init(struct endpoint *e, struct endpoint_loop *l, const struct endpoint_ops *ops);

/* Frees what an idle endpoint keeps between connections. All-zero is allowed. */
void endpoint_fini(struct endpoint *e);

/*
 * What the next connections add to the target's path, "since=1.2": without "?". Borrowed while they
 * shake hands, at most ENDPOINT_QUERY bytes.
 */
#define ENDPOINT_QUERY 512
static inline void endpoint_set_query(struct endpoint *e, const char *query)
{
	e->query = query;
}

/* Starts to connect; opened() or closed() says how it went, never before this turn's end. */
void endpoint_connect(struct endpoint *e);

/* The same over a connected stream socket, which becomes the endpoint's. */
void endpoint_connect_fd(struct endpoint *e, int fd);

/**
 * endpoint_send() - queue a message of one frame
 * @opcode: WS_TEXT, WS_BINARY, or WS_PING with at most 125 bytes
 *
 * Return:  0 | ENDPOINT_E_FULL | ENDPOINT_E_NOT_OPEN | -ENOMEM.
 * Cost:    one copy, one pass that masks it; sent at the end of the turn.
 */
int endpoint_send(struct endpoint *e, uint8_t opcode, const void *data, size_t n) WB_NODISCARD;

/* The same with a message that a builder made, as WS_BINARY. */
int endpoint_send_msg(struct endpoint *e, const struct msg_builder *b) WB_NODISCARD;

/**
 * endpoint_close() - end a connection politely
 *
 * Sends what is queued, then Close, waits for the other's Close up to ENDPOINT_CLOSE_NS;
 * closed() follows, with ENDPOINT_END_CLOSED when both agreed. Before the connection is
 * open it is simply dropped. Nothing happens when it is closing already.
 */
void endpoint_close(struct endpoint *e, uint16_t code, const char *reason);

/*
 * Drops a connection at once: ENDPOINT_END_TIMEOUT with @error. Idle and ended endpoints are left
 * alone.
 */
void endpoint_abort(struct endpoint *e, int error);

/* Whether endpoint_send() may work. */
static inline bool endpoint_is_open(const struct endpoint *e)
{
	return e->state == ENDPOINT_OPEN;
}

/* Bytes that wait to be sent. */
static inline size_t endpoint_queued(const struct endpoint *e)
{
	return e->out.len - e->out_sent;
}

/* Our own end as the server names it: "127.0.0.1:5000"; "" when there is none. */
char *endpoint_format_local(char out[TARGET_ADDRESS_TEXT + 8], const struct endpoint *e);

/*
 * What a client does then that is to stay connected: after a Close, whoever sent it, by its code;
 * after a refusal by its status, as if that were the code. See model/close_codes.
 */
enum close_return endpoint_end_return(const struct endpoint_end *end);

/**
 * endpoint_end_format() - an end in words, for a message to the user
 * @out:    NUL-terminated, escaped
 *
 * Return:  @out.
 */
char *endpoint_end_format(char *out, size_t cap, const struct endpoint_end *end);
