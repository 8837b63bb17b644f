/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The client's side of one WebSocket connection, for `wsbind client` and `wsbind
 * benchmark`: connects, shakes hands, puts messages together, masks, answers pings,
 * closes politely, and ends in exactly one call of closed(), whatever happened.
 *
 * A peer is embedded in its owner, one for each connection, and lives on a
 * peer_loop, which has what all of them share: the reactor, one large read buffer,
 * random mask keys. What is sent during a turn goes out in one send at its end. What
 * is read is handed out where it lies: a message is copied only when it has several
 * frames or is cut by the end of a read.
 *
 * At most PEER_MAX_OPENING connections shake hands at a time, the others wait their
 * turn: thousands at once would overflow the server's backlog, and the kernel would
 * try those again only after seconds.
 *
 * Bounds: the send queue by peer_limits.queue_bytes, a message by message_bytes, a
 * handshake and a close by PEER_HANDSHAKE_NS and PEER_CLOSE_NS.
 */

#include <stdio.h>

#include "base/base.h"
#include "client/ws_url.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "io/reactor.h"
#include "io/tls.h"
#include "io/transport.h"
#include "wire/msg.h"
#include "wire/token.h"
#include "wire/upgrade.h"
#include "wire/ws.h"

#define PEER_MAX_ADDRESSES 8
#define PEER_ADDRESS_TEXT 64 /* an address in numbers, with its NUL */
#define PEER_MAX_OPENING 128 /* connections that shake hands at a time */
#define PEER_READ_BYTES ((size_t)256 << 10)
#define PEER_KEY_BYTES 4096
#define PEER_HANDSHAKE_NS (10 * NS_PER_S) /* from the first SYN to the 101 */
#define PEER_CLOSE_NS (5 * NS_PER_S)      /* for the other's Close */

/* Outcomes of sending. */
enum peer_send_result {
	PEER_E_FULL = 1, /* the queue has no room; see peer_ops.writable */
	PEER_E_NOT_OPEN, /* not connected yet, closing, or ended */
};

enum peer_state {
	PEER_IDLE,       /* not connected; the only state in which its memory may go */
	PEER_WAITING,    /* for its turn to connect */
	PEER_CONNECTING, /* TCP */
	PEER_HANDSHAKE,  /* the request is sent */
	PEER_OPEN,
	PEER_CLOSING, /* our Close is sent, theirs has not come */
	PEER_ENDED,   /* closed() will be called at the end of this turn */
};

/* How a connection ended. */
enum peer_end_kind {
	PEER_END_CLOSED,      /* closing handshake; code and reason are the other's */
	PEER_END_UNREACHABLE, /* no TCP connection: error */
	PEER_END_REFUSED,     /* HTTP answer other than 101: status */
	PEER_END_NOT_WS,      /* the handshake's answer is not that of a WebSocket server */
	PEER_END_LOST,        /* error; 0 when the other end closed without a Close */
	PEER_END_TIMEOUT,     /* handshake or peer_abort() after silence */
	PEER_END_VIOLATION,   /* the other broke the protocol: code and reason say how */
	PEER_END_TLS,         /* no secure connection: reason says why, in words of our own */
};

struct WB_VALUE peer_end {
	enum peer_end_kind kind;
	bool was_open;
	uint16_t code; /* of a Close; WS_CODE_NO_STATUS when it had none */
	char reason[WS_MAX_CONTROL -
		    1]; /* of a Close or a refusal; the other's bytes: escape them */
	int error;      /* -errno */
	int status;     /* HTTP */
};

struct peer;

/*
 * What a peer tells its owner; message and closed are required. Any may call any
 * function of this file but peer_connect(), which closed alone may call.
 */
struct WB_FROZEN peer_ops {
	void (*opened)(struct peer *p);
	/* A whole text (checked UTF-8) or binary message; @data may be changed, and is gone on
	 * return. */
	void (*message)(struct peer *p, uint8_t opcode, uint8_t *data, size_t n);
	void (*pong)(struct peer *p, const uint8_t *data, size_t n);
	/* The queue went empty after a PEER_E_FULL. */
	void (*writable)(struct peer *p);
	/* The last call: the peer is idle again, may be connected anew, and its memory may go. */
	void (*closed)(struct peer *p, const struct peer_end *end);
};

/* Where to connect to. */
struct WB_FROZEN peer_target {
	char request_path[sizeof(((struct ws_url *)0)->path)];
	char host[300]; /* value of the Host header */
	char address[PEER_MAX_ADDRESSES][PEER_ADDRESS_TEXT];
	unsigned n_addresses; /* tried one after another */
	uint16_t port;
	bool is_secure;               /* wss */
	char name[256];               /* that the server's certificate has to be for */
	struct tls_client *tls;       /* NULL: plain */
	char headers[TOKEN_MAX + 64]; /* more lines of the request, each with its CRLF */
};

/* What the command line says of TLS and authentication. */
struct WB_FROZEN peer_security {
	const char *ca;         /* PEM file of who signs certificates; NULL: as the system has it */
	const char *token_file; /* NULL: no token */
	bool is_careless;       /* any certificate will do */
};

/* For the table of a command's options; @at: offset of its struct peer_security. */
#define PEER_SECURITY_OPTIONS(at)                                                                    \
	{0, "ca", OPTION_TEXT, (at) + offsetof(struct peer_security, ca), 0, 0},                     \
		{0, "token-file", OPTION_TEXT, (at) + offsetof(struct peer_security, token_file), 0, \
		 0},                                                                                 \
	{                                                                                            \
		0, "insecure", OPTION_FLAG, (at) + offsetof(struct peer_security, is_careless), 0,   \
			0                                                                            \
	}

#define PEER_SECURITY_USAGE                                                               \
	"      --ca FILE        PEM file of who may sign a wss:// server's certificate\n" \
	"      --insecure       take any certificate\n"                                   \
	"      --token-file FILE send the token in it\n"

struct WB_VALUE peer_limits {
	size_t queue_bytes; /* of frames that wait to be sent; control frames may exceed it a little
			     */
	size_t message_bytes; /* of a message that arrives; past it: Close 1009 */
};

struct peer_loop;

/* What the connections of a thread share. All-zero memory until peer_loop_init(). */
struct WB_OWNER(loop) peer_loop {
	struct reactor reactor;
	struct list unsent;  /* peers that have something to send at the end of this turn */
	struct list unread;  /* peers of which a turn did not read everything */
	struct list waiting; /* peers in PEER_WAITING */
	unsigned opening;    /* peers in PEER_CONNECTING and PEER_HANDSHAKE */
	uint64_t read_ns;    /* when the bytes of the message being handed out were read */
	const struct peer_target *target WB_FROZEN;
	struct peer_limits limits WB_FROZEN;
	uint8_t *read_buffer;
	int signal_fd; /* -1: none */
	struct reactor_source signal_source;
	void (*on_signal)(struct peer_loop *l);
	unsigned keys_left; /* unused bytes at the end of keys */
	uint8_t keys[PEER_KEY_BYTES];
};

/* One connection. Its owner reads state and last_read_ns, and nothing else. */
struct WB_OWNER(loop) peer {
	struct reactor_source source;
	struct transport transport;
	struct peer_loop *loop;
	const struct peer_ops *ops WB_FROZEN;
	uint8_t state;         /* enum peer_state */
	uint8_t opcode;        /* of the message being put together; 0: none */
	uint8_t address;       /* index of the one being tried */
	uint8_t control_n;     /* bytes of control */
	bool was_refused_room; /* a send got PEER_E_FULL */
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
	char key[UPGRADE_KEY_TEXT];
	struct peer_end end;
	uint64_t last_read_ns;
};

/**
 * peer_target_init() - find out where a URL leads
 * @ret_why: on failure a text that says what is wrong, constant
 *
 * Resolves the name, once: a server that moves is found again only by a new start.
 *
 * Return:  0 | -EINVAL a path too long | -EHOSTUNREACH no such name.
 * Thread:  any; blocks while the name is resolved.
 */
int peer_target_init(struct peer_target *t, const struct ws_url *url, const char **ret_why)
	WB_NODISCARD;

/**
 * peer_target_secure() - read what TLS and authentication need
 * @command: "client": for a warning to @err, and for what is wrong
 *
 * Return:  0 | -EINVAL | -ENOMEM, said to @err.
 * Owns:    @t, until peer_target_fini().
 */
int peer_target_secure(struct peer_target *t, const struct peer_security *security,
		       const char *command, FILE *err) WB_NODISCARD;
void peer_target_fini(struct peer_target *t);

/**
 * peer_raise_descriptors() - allow as many connections as may be
 * @wanted: connections
 *
 * Raises the soft limit of open files to the hard one where that is needed.
 *
 * Return:  connections that are possible, @wanted or fewer.
 * Thread:  any.
 */
size_t peer_raise_descriptors(size_t wanted) WB_NODISCARD;

/**
 * peer_loop_init() - make a loop without connections
 * @l:      all-zero
 * @target: borrowed for its life
 *
 * Return:  0 | -ENOMEM | -errno of reactor_init().
 * Owns:    the caller, until peer_loop_fini().
 */
int peer_loop_init(struct peer_loop *l, const struct peer_target *target,
		   const struct peer_limits *limits) WB_NODISCARD;

/* Frees what a loop has; all its peers must be idle. All-zero is allowed. */
void peer_loop_fini(struct peer_loop *l);

/**
 * peer_loop_on_signal() - have SIGINT, SIGTERM and SIGHUP reported by the loop
 *
 * Blocks them for the process and ignores SIGPIPE; for a command that ends afterwards.
 *
 * Return:  0 | -errno of signalfd or epoll_ctl.
 * Thread:  main.
 */
int peer_loop_on_signal(struct peer_loop *l, void (*fn)(struct peer_loop *l)) WB_NODISCARD;

/* One turn, as reactor_turn(). */
int peer_loop_turn(struct peer_loop *l, uint64_t longest_ns) WB_NODISCARD;

/* Makes @p (all-zero memory) an idle peer. */
void peer_init(struct peer *p, struct peer_loop *l, const struct peer_ops *ops);

/* Frees what an idle peer keeps between connections. All-zero is allowed. */
void peer_fini(struct peer *p);

/* Starts to connect; opened() or closed() says how it went, never before this turn's end. */
void peer_connect(struct peer *p);

/* The same over a connected stream socket, which becomes the peer's. */
void peer_connect_fd(struct peer *p, int fd);

/**
 * peer_send() - queue a message of one frame
 * @opcode: WS_TEXT, WS_BINARY, or WS_PING with at most 125 bytes
 *
 * Return:  0 | PEER_E_FULL | PEER_E_NOT_OPEN | -ENOMEM.
 * Cost:    one copy, one pass that masks it; sent at the end of the turn.
 */
int peer_send(struct peer *p, uint8_t opcode, const void *data, size_t n) WB_NODISCARD;

/* The same with a message that a builder made, as WS_BINARY. */
int peer_send_msg(struct peer *p, const struct msg_builder *b) WB_NODISCARD;

/**
 * peer_close() - end a connection politely
 *
 * Sends what is queued, then Close, waits for the other's Close up to PEER_CLOSE_NS;
 * closed() follows, with PEER_END_CLOSED when both agreed. Before the connection is
 * open it is simply dropped. Nothing happens when it is closing already.
 */
void peer_close(struct peer *p, uint16_t code, const char *reason);

/* Drops a connection at once: PEER_END_TIMEOUT with @error. Idle and ended peers are left alone. */
void peer_abort(struct peer *p, int error);

/* Whether peer_send() may work. */
static inline bool peer_is_open(const struct peer *p)
{
	return p->state == PEER_OPEN;
}

/* Bytes that wait to be sent. */
static inline size_t peer_queued(const struct peer *p)
{
	return p->out.len - p->out_sent;
}

/* Our own end as the server names it: "127.0.0.1:5000"; "" when there is none. */
char *peer_format_local(char out[PEER_ADDRESS_TEXT + 8], const struct peer *p);

/**
 * peer_end_format() - an end in words, for a message to the user
 * @out:    NUL-terminated, escaped
 *
 * Return:  @out.
 */
char *peer_end_format(char *out, size_t cap, const struct peer_end *end);

/* Random bytes from the system; ends the process with a message when there are none. */
void peer_random(void *out, size_t n);
