/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One client's connection, from accept to end: opening handshake, frames in,
 * messages put together, limits, signs of life, the private queue out, the
 * closing handshake.
 *
 * Sans I/O: bytes come in by conn_feed(), or by conn_event() and conn_read() through the
 * transport; they go out through the transport, which in a test is memory. What a
 * message means, which channels there are and what waits in them is not known
 * here: conn_ops tell the hub.
 *
 * An idle connection is this struct and nothing else. What a frame or a message
 * needs while it is incomplete hangs off @input and goes when it is complete; what
 * waits to be sent to it alone hangs off @out and goes when it was sent;
 * wslay's contexts come from the worker's pool. A deflated message (RFC 7692) is
 * put together first and then inflated, within a budget in each turn; only one that
 * takes several turns has an inflater of its own meanwhile.
 *
 * Out: channels send straight from their logs (channel/channel). What the kernel took
 * only a part of is the message *in transit*; until it is sent, only control
 * frames go between, where one of its WebSocket frames ends. What is addressed to
 * this client alone (welcome, acknowledgements, pongs, Close) waits in the
 * private queue. Caught up = neither of them, and no membership lags.
 *
 * Descriptors are registered edge-triggered, once: can_read and can_write
 * remember what the last edge said. A client may be *paused*: its bytes stay in the
 * kernel, or are parked. While its own private queue is half full it is, so that echo,
 * pings and acknowledgements have a bound of their own.
 *
 * The sources form a ladder: see conn_private.h.
 */

#include <string.h>

#include "base/base.h"
#include "conn/policy.h"
#include "conn/turn.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "containers/wheel.h"
#include "io/log.h"
#include "io/reactor.h"
#include "io/sock.h"
#include "io/transport.h"
#include "model/config.h"
#include "model/metrics.h"
#include "wire/frame.h"
#include "wire/grant.h"

struct channel;
struct conn;
struct upgrade;
struct ws_decoder;

#define CONN_SESSION_MAX 64 /* bytes of a client's own session id */
#define CONN_DECODERS 64    /* idle decoders that a worker keeps */
#define CONN_OUTPUTS 64     /* idle conn_output likewise */

enum conn_state {
	CONN_HANDSHAKE, /* until the upgrade is answered */
	CONN_OPEN,
	CONN_CLOSING,   /* Close (or a refusal) queued or sent; member of nothing any more */
	CONN_LINGERING, /* all is sent and the write side is shut; waits for the peer's end */
	CONN_DEAD,      /* gone at the end of this turn */
	CONN_N_STATES
};

/* Why a client that asks for the right thing is refused. */
enum conn_refusal {
	CONN_ADMITTED,         /* it isn't */
	CONN_E_FULL,           /* max_connections */
	CONN_E_ADDRESS_FULL,   /* max_connections_per_ip */
	CONN_E_NO_CHANNEL,     /* max_channels, or no memory */
	CONN_E_CHANNEL_DENIED, /* its grant does not allow the channel of its path */
	CONN_E_BAD_POSITION,   /* since or rewind of its query is none */
	CONN_N_REFUSALS
};

/*
 * Why what a client sends stays in the kernel, or parked. Several may hold at once; the end of
 * the last lets it go on.
 */
enum conn_pause {
	/* Of one connection: in its @pauses. */
	CONN_PAUSE_THROTTLED = 1 << 0, /* past max_incoming_frames_per_second, in this second */
	CONN_PAUSE_SPOOL = 1 << 1,     /* a chunk of it waits for room in the spool's queue */
	CONN_PAUSE_QUEUE = 1 << 2,     /* its private queue is half full */
	CONN_PAUSE_CHANNEL = 1 << 3,   /* it published to a channel whose backlog is at its bound */
	CONN_PAUSE_WORK = 1 << 4,     /* a message of it is under work, in its own share of turns */
	CONN_PAUSE_ACKS = 1 << 5,     /* many acknowledgements for it wait for others */
	CONN_PAUSE_RESUMING = 1 << 6, /* another connection of the same client has to end first */
	/* Of all of a worker: in conn_env. */
	CONN_PAUSE_CONGESTED = 1 << 8,      /* a ring and its outbox are full: nobody may publish */
	CONN_PAUSE_STANDING_STILL = 1 << 9, /* for a while, so that all of it can be handed over */
	CONN_PAUSE_STOPPING = 1 << 10,      /* for good */
};

/* What comes of a refusal. */
struct WB_FROZEN conn_refusal_row {
	int status;          /* HTTP, of the answer */
	size_t counter;      /* offset in struct metrics */
	const char *setting; /* the key whose limit was reached, or NULL */
	const char *why;     /* for the log alone, or NULL */
};

/* By enum conn_refusal; that of CONN_ADMITTED is all zero. */
extern const struct conn_refusal_row conn_refusals[CONN_N_REFUSALS];

/* One membership of a channel: an index into the log of this worker. Belongs to channel/channel. */
struct WB_OWNER(worker) member {
	struct channel *channel; /* NULL: not in use */
	struct conn *conn;
	struct member *sibling;  /* the connection's next membership */
	uint64_t next;           /* number of the next message to send */
	uint64_t own_bytes;      /* of @own_messages */
	uint32_t own_messages;   /* that it published here itself and has not passed yet */
	uint32_t index : 27;     /* in the channel's members */
	bool is_lagging : 1;     /* @next is there, waits, and is pinned in the log */
	bool is_held : 1;        /* the connection waits for the channel: CONN_PAUSE_CHANNEL */
	bool has_own_notice : 1; /* that it came; it has not passed that yet */
	bool has_mark : 1;       /* something is due to be said of its place: channel_history.c */
};

/* Names that few connections have. */
struct WB_OWNER(worker) conn_names {
	char *left_path_channel; /* its path's channel, once it left that; or NULL */
	char *user_id;           /* what it was called on an earlier connection; or NULL */
	char session_id[];       /* the client's own; "": none */
};

/* Partial input: what an incomplete frame or message needs, and bytes that wait their turn. */
/*
 * What ops->work() has made so far of a message that takes more than one share of a turn. It is
 * the first member of what the callee keeps.
 */
struct WB_OWNER(worker) conn_work {
	size_t bytes; /* of memory that it holds */
};

struct WB_OWNER(worker) conn_input {
	struct list node; /* in env->partial_inputs */
	struct conn *conn;
	size_t arrived;             /* bytes since it was put at the end of that list */
	struct ws_decoder *decoder; /* in the middle of a frame, or NULL */
	struct buf message;         /* payload so far; in the handshake: the head so far */
	struct buf parked;          /* bytes that were read, but not processed yet */
	size_t parked_at;           /* of @parked, what is done */
	size_t grow_to;             /* bound on @message's memory in this frame; 0: not known yet */
	size_t accounted;           /* bytes counted in env->reassembly_bytes */
	uint64_t started_ns;        /* when the message began; 0: none is incomplete */
	uint32_t utf8;              /* state of the text so far */
	struct inflater *inflater;  /* @message is whole and being inflated, or was */
	struct conn_work *work;     /* what was made of a message under work, or NULL */
	uint8_t opcode;             /* of the message; 0: none */
	bool is_deflated;           /* the message is */
	bool is_inflated;           /* all of it lies in @inflater */
	bool is_under_work;         /* it is whole, and ops->message() left it to ops->work() */
	uint8_t control_len;
	uint8_t control[125]; /* payload of a control frame so far */
};

/* What is private or in transit. A connection has one of its own while there is any. */
struct WB_OWNER(worker) conn_output {
	struct frame *transit; /* reference */
	const struct frame_bytes *transit_bytes;
	size_t transit_at;   /* sent of transit_bytes */
	struct frame *queue; /* private, control frames first */
	struct frame *queue_end;
	struct frame *queue_control; /* the last control frame of it */
	size_t queue_bytes;
	uint32_t queue_count;
	uint32_t head_sent; /* of a control frame at the head of the queue */
};

/* What all others have: nothing is in it, and nothing is ever written to it. */
extern const struct conn_output conn_no_output;

/*
 * A new member has these homes:
 *   its value at the start, unless zero is right    conn_init()
 *   what it owns goes with the connection           conn_release() in conn.c
 *   it is the same after a hand-over                proto/record.proto, src/handover/, and
 *                                                   what tests/unit/test-handover.c compares
 *   what administrators see of it                   worker/client_list
 * Of a membership: channel_leave() clears it. All of it is what an idle client costs.
 */
struct WB_OWNER(worker) conn {
	struct reactor_source source;
	struct transport transport;
	uint64_t messages_out; /* that were sent to it, control frames left out */
	struct conn_env *env;
	union {
		struct wheel_timer timer;      /* the earliest of all deadlines */
		struct reactor_deferred death; /* once it is dead */
	};
	struct list node;          /* in env->all */
	struct list read_node;     /* in one of env's lists of those that wait to be read */
	struct list write_node;    /* in env->to_write */
	struct list unsent_node;   /* in env->unsent */
	struct member path_member; /* of the channel that the path named */
	struct member *members;    /* all memberships, by sibling */
	struct conn_input *input;  /* NULL at a frame boundary */
	struct conn_output *out;   /* conn_no_output when nothing waits */
	struct conn_names *names;  /* NULL: neither of them */
	struct grant *grant;       /* what it may, and who it is; NULL: whatever it likes */

	uint64_t serial;         /* unique in the process; see conn_take_serial() */
	uint64_t last_sign_ns;   /* last complete frame; at first: when accepted */
	uint32_t messages_in;    /* that it sent, of whatever kind; wraps */
	uint32_t connected_s;    /* wall clock */
	uint32_t ping_tick;      /* when a Ping went that is unanswered; 0: none */
	uint32_t over_tick;      /* since when it is past its send limits; 0: it isn't */
	uint32_t rate_second_ms; /* start of the second in which frames are counted; wraps */
	uint32_t rate_frames;
	uint8_t pauses;   /* of enum conn_pause: why it is not read */
	bool is_owed : 1; /* it lags, took all that it was sent last, and waits for more */
	bool is_slow : 1; /* more than half of its send limits waits, and nothing may be skipped */
	bool was_told_of_text : 1; /* that text messages are not passed on */
	bool was_told_of_rate : 1; /* that it is throttled */
	bool has_late_acks : 1;    /* some acknowledgements for it wait: worker/acks */
	bool has_positions : 1;    /* it takes part in history: POSITION and GAP are for it */
	bool may_resume : 1;       /* it has a resume token: worker/registry knows it */
	uint16_t close_code;       /* that the connection ended with */
	uint16_t n_members;
	uint16_t n_lagging;
	struct sock_peer peer;
	uint8_t id[16]; /* client id */
	uint8_t state;  /* enum conn_state */
	uint8_t caps;   /* MSG_CAP_ bits in force for both */
	/* The enum of that name: what the client can inflate; but for NONE it may deflate, too. */
	uint8_t deflate_window : 2;
	uint8_t refusal : 3; /* enum conn_refusal, decided at accept */
	bool is_echo : 1;
	bool can_read : 1;
	bool can_write : 1;
	bool has_hup : 1;   /* the peer ended its side: there is an end to be read up to */
	bool is_deaf : 1;   /* what comes is read and dropped */
	bool is_busy : 1;   /* lately it used up a share of a turn, or its frames of a second */
	bool got_close : 1; /* the peer's Close came, or isn't waited for */
	bool was_open : 1;
	bool awaits_proxy : 1; /* the PROXY header comes first */
	bool awaits_tls : 1;   /* TLS begins behind it */
	bool is_too_many : 1;  /* of the address that a proxy named: CONN_E_ADDRESS_FULL */
};

static_assert(sizeof(struct conn) <= 312, "with its descriptor an idle client is within 400 bytes");

/* What a connection tells upward. All are called on the worker's thread. */
struct WB_FROZEN conn_ops {
	/*
	 * The handshake is right. CONN_ADMITTED: it is a member of its path's channel now, else
	 * CONN_E_NO_CHANNEL or CONN_E_CHANNEL_DENIED.
	 */
	enum conn_refusal (*admit)(struct conn *c, const struct upgrade *u);
	/* A proxy names the client: CONN_ADMITTED: it is @peer now | CONN_E_ADDRESS_FULL. */
	enum conn_refusal (*move)(struct conn *c, const struct sock_peer *peer);
	/* The answer to the handshake is queued, the connection open. */
	void (*opened)(struct conn *c);
	/*
	 * A whole message; text is valid UTF-8. @p is the callee's to change, until it returns.
	 * True: it is done with; false: nothing came of it yet, it is for work(). Nothing else of
	 * this client is read before that is done.
	 */
	bool (*message)(struct conn *c, uint8_t opcode, uint8_t *p, size_t n);
	/*
	 * Goes on with such a message, for a share of this turn; the same bytes at the same place
	 * each time. @w is what the callee keeps of it, NULL at first. True: it is done with.
	 */
	bool (*work)(struct conn *c, struct conn_work **w, uint8_t opcode, uint8_t *p, size_t n);
	/* Nothing more comes of it: the connection has ended, or it is done with. NULL is fine. */
	void (*free_work)(struct conn_env *env, struct conn_work *w);
	/* conn_can_send_now(), and memberships lag: sends what they lag behind. */
	void (*catch_up)(struct conn *c);
	/* Looks at the send limits; called when it is past them for the grace, too. */
	void (*check_limits)(struct conn *c);
	/* It has late acks: sends those whose time is over. Return: when to look again. */
	uint64_t (*check_acks)(struct conn *c, uint64_t now);
	/* It is not read for the rest of its second, for the first time. */
	void (*throttled)(struct conn *c);
	/* Name of its path's channel for log lines, or NULL; only for one that was let in. */
	const char *(*path_channel)(const struct conn *c);
	/* It is not open any more: leaves all channels. Once, if admit() let it in. */
	void (*left)(struct conn *c);
	/* The end of the turn in which it died: frees it. */
	void (*dead)(struct conn *c);
};

/* What all connections of a worker share. */
struct WB_OWNER(worker) conn_env {
	struct reactor *reactor;
	struct policy *policy; /* in force; a reference */
	struct config *config; /* policy->config */
	struct metrics *metrics;
	const struct conn_ops *ops;
	_Atomic size_t *frame_account;
	struct frame_maker *maker; /* for deflating; the hub's */
	uint8_t *read_buffer;
	size_t read_buffer_bytes;
	struct turn turn;
	struct list all; /* every connection that is not dead */
	size_t n_all;
	struct list walkers;        /* of conn_walker: who goes through @all over several turns */
	struct list to_read;        /* that an event brought, in the order in which they came */
	struct list to_read_next;   /* that are busy, or were paused: they come behind those */
	struct list to_open;        /* the same in their opening handshake, which come after both */
	struct list to_write;       /* those that are flushed at the end of this turn */
	struct list to_catch_up;    /* the same that lag in channels, which come after them */
	struct list stalled;        /* those that wait for the end of @pauses, by read_node */
	struct list unsent;         /* those for which something waits: private, or in a log */
	struct list partial_inputs; /* of conn_input; what stood still longest comes first */
	size_t reassembly_bytes;    /* accounted in all of them */
	struct ws_decoder *decoders[CONN_DECODERS];
	size_t n_decoders;
	struct conn_output *outputs[CONN_OUTPUTS];
	size_t n_outputs;
	struct inflater *inflater; /* idle, or NULL */
	size_t work_left;          /* bytes that this client may still have worked on, see below */
	uint16_t pauses;           /* of enum conn_pause: why nobody is read */
	bool is_restoring;         /* those of the process before come back one by one */
};

/* A place in conn_env's @all: it moves on when that connection ends. */
struct WB_OWNER(worker) conn_walker {
	struct list node; /* in env->walkers */
	struct list *at;  /* of the next connection, or the list's head at its end */
};

/* Prepares the lists and the read buffer of a zeroed env. Return: 0 | -ENOMEM. */
int conn_env_init(struct conn_env *env) WB_NODISCARD;
void conn_env_fini(struct conn_env *env);

/**
 * conn_init() - a connection that was just accepted
 * @c:       all-zero memory of the worker's slab
 * @refusal: what the handshake is to be answered with, once it came
 *
 * Arms the handshake's deadline. c->transport is set by the caller before.
 */
void conn_init(struct conn *c, struct conn_env *env, const struct sock_peer *peer, uint64_t serial,
	       enum conn_refusal refusal);

/*
 * From when it has its client id on, that is its serial: what the client has said is known as its
 * own behind a resume, and when nobody is left who knew it. A version before has counted them.
 */
static inline void conn_take_serial(struct conn *c)
{
	memcpy(&c->serial, c->id, sizeof(c->serial));
}

/**
 * conn_feed() - bytes from the peer
 * @p:      @n bytes; changed in place (unmasked)
 *
 * Processes what it may; the rest is parked and goes on by itself later. The
 * connection may be dead after it.
 */
void conn_feed(struct conn *c, uint8_t *p, size_t n);

/* The peer will send nothing more: the end, unless it still reads what we say. */
void conn_feed_end(struct conn *c);

/* Event callback: the descriptor's edges. */
void conn_event(struct reactor_source *s, uint32_t events);

/*
 * Its share of a turn: goes on with what is parked, then reads one buffer at most; what is
 * left waits behind the others. The connection may be dead after it.
 */
void conn_read(struct conn *c);

/*
 * A message was as much work as so many frames more: they count against
 * max_incoming_frames_per_second, and for the turn's clock. What is past the limit is on the
 * account of the seconds after it.
 */
static inline void conn_charge_frames(struct conn *c, size_t frames)
{
	c->rate_frames += (uint32_t)MIN(frames, (size_t)((UINT32_MAX - c->rate_frames) / 2));
	turn_charge(&c->env->turn, MIN(frames, (size_t)TURN_STEP) * TURN_FRAME);
}

/* It will go on reading behind those that have not had their share of this turn. */
void conn_want_read(struct conn *c);

/*
 * Not to be read for this reason, until conn_resume(). A frame that has begun is read to its
 * end, and only what is open is ever paused: a handshake, or the peer's Close, is not.
 */
static inline void conn_pause(struct conn *c, enum conn_pause why)
{
	c->pauses |= (uint16_t)why;
}

/* The reason is gone, if there was one; with the last it goes on by itself, in the next turn. */
void conn_resume(struct conn *c, enum conn_pause why);

/* The same for all connections of a worker. */
static inline void conn_env_pause(struct conn_env *env, enum conn_pause why)
{
	env->pauses |= (uint16_t)why;
}

void conn_env_resume(struct conn_env *env, enum conn_pause why);

/* For this reason; conn_is_paused() asks for any. */
static inline bool conn_env_is_paused(const struct conn_env *env, enum conn_pause why)
{
	return env->pauses & why;
}

static inline bool conn_is_paused(const struct conn *c)
{
	return (c->pauses | c->env->pauses) != 0;
}

/*
 * Work on a message beside reading it (compression, checks, copies) is bounded twice: by the
 * client's share of the turn's time, and by bytes, which no clock can make more of.
 */
static inline bool conn_may_work(const struct conn_env *env)
{
	return env->work_left > 0 && !turn_client_is_over(&env->turn);
}

/* A step of it is done, after which the clock is looked at. */
static inline void conn_charge_work(struct conn_env *env, size_t bytes)
{
	env->work_left -= MIN(bytes, env->work_left);
	METRIC_ADD(env->metrics, work_bytes, bytes);
	turn_look(&env->turn);
}

/* It will be flushed at the end of this turn. */
void conn_want_write(struct conn *c);

/**
 * conn_flush() - send what is in transit and queued, then what memberships lag behind
 *
 * As much as the kernel takes, but of lagging memberships one budget each; what is left goes
 * on with the next edge or turn. The connection may be dead after it.
 */
void conn_flush(struct conn *c);

/*
 * A time of the loop's clock that takes 32 bits, since each connection has some: in steps of about
 * a millisecond, rounded down. Never 0, and good for 52 days.
 */
static inline uint32_t conn_tick(uint64_t ns)
{
	uint32_t tick = (uint32_t)(ns >> 20);

	return tick ? tick : 1;
}

/* The time that conn_tick() made @tick of, seen from @now_ns: at most a step before it. */
static inline uint64_t conn_tick_ns(uint32_t tick, uint64_t now_ns)
{
	uint64_t age = (uint32_t)((uint32_t)(now_ns >> 20) - tick);

	return ((now_ns >> 20) - age) << 20;
}

/*
 * When what began at @start_ns has lasted for @timeout_ns. Time in which the whole process stood
 * still is on nobody's account: it counts anew from there.
 */
static inline uint64_t conn_deadline(const struct conn *c, uint64_t start_ns, uint64_t timeout_ns)
{
	return MAX(start_ns, c->env->reactor->stall_ns) + timeout_ns;
}

/* Nothing private waits and nothing is in transit: a channel may send to it directly. */
static inline bool conn_can_send_now(const struct conn *c)
{
	return c->out == &conn_no_output && c->can_write;
}

/* The same, and no membership lags. */
static inline bool conn_is_caught_up(const struct conn *c)
{
	return conn_can_send_now(c) && c->n_lagging == 0;
}

/**
 * conn_send() - queue a frame for this client alone
 * @f:      a reference that no other queue holds; NULL (no memory) closes with 1011
 *
 * Owns:    the reference.
 */
void conn_send(struct conn *c, struct frame *f);

/* The same with a message to be copied; small ones are joined with what waits before them. */
void conn_send_copy(struct conn *c, uint8_t opcode, const void *p, size_t n);

/* Queues a message built by wire/msg. */
void conn_send_msg(struct conn *c, const struct msg_builder *b);

/* Queues a control frame; @n at most 125. */
void conn_send_control(struct conn *c, uint8_t opcode, const void *p, size_t n);

/**
 * conn_transit() - remember the message of which the kernel took only a part
 * @f:      borrowed; a reference is taken
 * @sent:   bytes of @b that are out
 *
 * Nothing is in transit before.
 *
 * Return:  false: out of memory, the connection is gone.
 */
bool conn_transit(struct conn *c, struct frame *f, const struct frame_bytes *b, size_t sent)
	WB_NODISCARD;

/* The kernel is full, or the connection broke: what transport_send() returned. */
void conn_blocked(struct conn *c, ssize_t result);

/**
 * conn_close() - end it politely
 * @code:   RFC 6455 section 7.4; sent to the peer
 * @reason: at most 123 bytes of UTF-8; sent to the peer; NULL: that of the code's row
 *
 * Leaves all channels at once; Close goes after what is in transit and queued.
 * Does nothing unless the connection is open.
 */
void conn_close(struct conn *c, uint16_t code, const char *reason);

/* What it may from here on, and until when, in the place of what there was. Takes @grant. */
void conn_set_grant(struct conn *c, struct grant *grant);

/* Ends it now, with nothing said. The memory goes at the end of the turn. */
void conn_abort(struct conn *c);

/* Drops what waits in the private queue, but for control frames. */
void conn_drop_queue(struct conn *c);

/* Makes sure that the timer fires at @deadline_ns or before. */
void conn_arm(struct conn *c, uint64_t deadline_ns);

/* " (KEY = VALUE)" of the configuration in force, for log lines; "" when @setting is NULL. */
#define CONN_SETTING_MAX 128
char *conn_format_setting(char *out, size_t cap, const struct conn *c, const char *setting);

/*
 * One line about a connection, rate-limited for each kind of event: who, what
 * (@text goes on after the address), which setting (or NULL).
 */
void conn_log(const struct conn *c, int priority, enum log_event_id event, const char *setting,
	      const char *text);

/* What the client calls itself; "": nothing, or there was no memory for it. */
const char *conn_session_id(const struct conn *c);
void conn_set_session_id(struct conn *c, const char *id);

/*
 * The channel of its path once it left that; NULL before, or where there was no memory for it.
 * It stays so when it joins it again: its membership is another one then.
 */
const char *conn_left_path_channel(const struct conn *c);
void conn_set_left_path_channel(struct conn *c, const char *channel);

/* What it was called on an earlier connection; NULL: it is that of its grant, or address. */
const char *conn_earlier_user_id(const struct conn *c);

/* It is called so, as on an earlier connection, unless its grant says another. False: no memory. */
bool conn_set_user_id(struct conn *c, const char *user_id) WB_NODISCARD;

/*
 * Its user id: who its grant says it is, else "user-ADDR:PORT", or "user-ADDR-" and the
 * beginning of its client id where it has no port. @out has CONN_USER_MAX bytes.
 */
#define CONN_USER_MAX (GRANT_USER_MAX + 1)
static_assert(CONN_USER_MAX >= SOCK_ADDRESS_MAX + 20, "any of them fits");
char *conn_format_user(char *out, const struct conn *c);
