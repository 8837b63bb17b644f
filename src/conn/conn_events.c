/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>

#include "conn/conn_private.h"
#include "io/tls.h"

#define END_AGAIN_NS (2 * NS_PER_S) /* to end its side, for whose time the process stood still */
#define WORK_PER_TURN (256 * 1024)  /* bytes of one connection, worked on beside reading them */

/* ------------------------------------------------------------------------------ deadlines */

static void conn_ping(struct conn *c, uint64_t now)
{
	conn_send_control(c, WS_PING, NULL, 0);
	c->ping_tick = conn_tick(now);
	METRIC_INC(c->env->metrics, pings_sent);
}

/*
 * What it has sent waits for its place in a turn, and may be just what a deadline misses: it is
 * looked at again when that was read.
 */
static bool conn_waits_to_be_read(const struct conn *c)
{
	return !list_is_empty(&c->read_node) && !(c->state == CONN_OPEN && conn_is_paused(c));
}

/* Signs of life: closes, pings or does nothing; returns when to look again. */
static uint64_t conn_check_heartbeat(struct conn *c, uint64_t now)
{
	const struct config *config = c->env->config;
	uint64_t expiry = conn_deadline(c, c->last_sign_ns, config->heartbeat_timeout);
	uint64_t next, ping_ns;

	if (now >= expiry && conn_waits_to_be_read(c))
		return now + REACTOR_TICK_NS;
	if (now >= expiry) {
		METRIC_INC(c->env->metrics, heartbeat_expired);
		conn_log(c, LOG_INFO, EV_HEARTBEAT_EXPIRED, "heartbeat_timeout",
			 "gave no sign of life for heartbeat_timeout; "
			 "closing with " WS_CODE_TEXT(HEARTBEAT_TIMEOUT));
		conn_close(c, WS_CODE_HEARTBEAT_TIMEOUT, NULL);
		return UINT64_MAX;
	}
	/* Any frame answers a Ping; a Ping that nothing answers is followed by another one. */
	ping_ns = conn_tick_ns(c->ping_tick, now);
	if (c->ping_tick && c->last_sign_ns >= ping_ns)
		c->ping_tick = 0;
	if (c->ping_tick && now >= conn_deadline(c, ping_ns, config->pong_timeout)) {
		METRIC_INC(c->env->metrics, pongs_missed);
		conn_ping(c, now);
	} else if (!c->ping_tick && now >= c->last_sign_ns + config->ping_interval) {
		conn_ping(c, now);
	}
	next = c->ping_tick
		       ? conn_deadline(c, conn_tick_ns(c->ping_tick, now), config->pong_timeout)
		       : c->last_sign_ns + config->ping_interval;
	return MIN(next, expiry);
}

static uint64_t conn_check_grant(struct conn *c, uint64_t now)
{
	uint64_t deadline = conn_grant_deadline(c, now);

	if (c->grant && !policy_stands_by(c->env->policy, c->grant)) {
		conn_log(c, LOG_INFO, EV_AUTH_EXPIRED, "jwt_key_file",
			 "had a token by a key that was taken out; closing with " WS_CODE_TEXT(
				 AUTH_EXPIRED));
		conn_close(c, WS_CODE_AUTH_EXPIRED, "authorization was withdrawn");
		return UINT64_MAX;
	}
	if (now < deadline)
		return deadline;
	conn_log(c, LOG_INFO, EV_AUTH_EXPIRED, NULL,
		 "had a token until now; closing with " WS_CODE_TEXT(AUTH_EXPIRED));
	conn_close(c, WS_CODE_AUTH_EXPIRED, NULL);
	return UINT64_MAX;
}

static uint64_t conn_check_message(struct conn *c, uint64_t now)
{
	uint64_t deadline;

	if (!c->input || !c->input->started_ns)
		return UINT64_MAX;
	deadline = conn_deadline(c, c->input->started_ns, c->env->config->message_timeout);
	if (now < deadline)
		return deadline;
	if (conn_waits_to_be_read(c))
		return now + REACTOR_TICK_NS;
	/* While it isn't read, the message is late by our doing: its time begins anew. */
	if (conn_is_paused(c)) {
		c->input->started_ns = now;
		return now + c->env->config->message_timeout;
	}
	conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, "message_timeout",
		 "did not complete a message within message_timeout; "
		 "closing with " WS_CODE_TEXT(POLICY));
	conn_close(c, WS_CODE_POLICY, "message timeout");
	return UINT64_MAX;
}

/* Who was throttled is read again in its next second. */
static uint64_t conn_check_rate(struct conn *c, uint64_t now)
{
	if (!(c->pauses & CONN_PAUSE_THROTTLED))
		return UINT64_MAX;
	if (!conn_rate_second_is_over(c, now))
		return now + conn_rate_left_ns(c, now);
	conn_resume(c, CONN_PAUSE_THROTTLED);
	return UINT64_MAX;
}

static uint64_t conn_check_send_limits(struct conn *c, uint64_t now)
{
	uint64_t deadline;

	if (!c->over_tick)
		return UINT64_MAX;
	deadline = conn_deadline(c, conn_tick_ns(c->over_tick, now),
				 c->env->config->slow_consumer_grace);
	if (now < deadline)
		return deadline;
	c->env->ops->check_limits(c);
	return UINT64_MAX;
}

static uint64_t conn_check_acks(struct conn *c, uint64_t now)
{
	return c->has_late_acks ? c->env->ops->check_acks(c, now) : UINT64_MAX;
}

static void conn_expire_handshake(struct conn *c, uint64_t now)
{
	/* What it has for its last sign until it is open is when it was accepted. */
	uint64_t deadline = conn_deadline(c, c->last_sign_ns, c->env->config->handshake_timeout);

	if (conn_waits_to_be_read(c))
		deadline = MAX(deadline, now + REACTOR_TICK_NS);
	if (now < deadline) {
		conn_arm(c, deadline);
		return;
	}
	METRIC_INC(c->env->metrics, refused_timeout);
	METRIC_INC(c->env->metrics, connection_errors);
	conn_log(c, LOG_NOTICE, EV_HANDSHAKE_TIMEOUT, "handshake_timeout",
		 "did not complete its handshake within handshake_timeout; dropped");
	conn_abort(c);
}

/* Closing or lingering: the peer had its time to end its side, unless that was a standstill. */
static void conn_expire_end(struct conn *c, uint64_t now)
{
	uint64_t stall = c->env->reactor->stall_ns;

	if (c->timer.deadline_ns < stall && now < stall + END_AGAIN_NS)
		conn_arm(c, stall + END_AGAIN_NS);
	else
		conn_abort(c);
}

/*
 * The one timer of a connection: armed for the earliest of all its deadlines, it
 * looks at each and re-arms for what is next. Traffic only stores times.
 */
static void conn_timer_due(struct wheel_timer *t)
{
	static uint64_t (*const check[])(struct conn *, uint64_t) = {
		conn_check_heartbeat, conn_check_grant,       conn_check_message,
		conn_check_rate,      conn_check_send_limits, conn_check_acks,
	};
	struct conn *c = CONTAINER_OF(t, struct conn, timer);
	uint64_t now = c->env->reactor->now_ns, next = UINT64_MAX;

	if (c->state == CONN_HANDSHAKE) {
		conn_expire_handshake(c, now);
		return;
	}
	if (c->state != CONN_OPEN) {
		conn_expire_end(c, now);
		return;
	}
	/* Each of them may close the connection, which has armed the timer for itself then. */
	for (size_t i = 0; i < ARRAY_LEN(check) && c->state == CONN_OPEN; i++) {
		uint64_t deadline = check[i](c, now);

		next = MIN(next, deadline);
	}
	if (c->state == CONN_OPEN)
		conn_arm(c, next);
}

void conn_init(struct conn *c, struct conn_env *env, const struct sock_peer *peer, uint64_t serial,
	       enum conn_refusal refusal)
{
	c->env = env;
	c->peer = *peer;
	c->serial = serial;
	c->refusal = refusal & 7;
	c->can_write = true;
	c->last_sign_ns = env->reactor->now_ns;
	c->close_code = WS_CODE_ABNORMAL;
	conn_init_output(c);
	list_add_tail(&env->all, &c->node);
	env->n_all++;
	list_init(&c->read_node);
	list_init(&c->write_node);
	list_init(&c->unsent_node);
	wheel_timer_init(&c->timer, conn_timer_due);
	conn_arm(c, env->reactor->now_ns + env->config->handshake_timeout);
}

/* -------------------------------------------------------------------------------- reading */

static void conn_report_tls(struct conn *c)
{
	char text[TLS_WHY_MAX + 20];

	if (c->state == CONN_HANDSHAKE) {
		METRIC_INC(c->env->metrics, refused_tls);
		METRIC_INC(c->env->metrics, connection_errors);
	}
	snprintf(text, sizeof(text), "TLS failed: %s", tls_failure());
	conn_log(c, LOG_INFO, EV_TLS_FAILED, NULL, text);
}

/* Nothing came: not yet, or the peer's side is at its end. */
static void conn_read_nothing(struct conn *c, ssize_t result)
{
	c->can_read = false;
	if (result == -EAGAIN)
		return;
	if (result == -EPROTO)
		conn_report_tls(c);
	conn_feed_end(c);
}

/* A short read empties the socket, unless the peer's end is behind the bytes. */
static bool conn_has_read_all(const struct conn *c, size_t n)
{
	return n < c->env->read_buffer_bytes && !c->has_hup && !transport_has_more(&c->transport);
}

static void count_barren(struct conn *c)
{
	unsigned n = c->state == CONN_OPEN ? transport_take_barren(&c->transport) : 0;

	if (WB_UNLIKELY(n > 0))
		conn_take_barren(c, n);
}

/* One read buffer full, at most. */
static void conn_receive(struct conn *c)
{
	struct conn_env *env = c->env;
	ssize_t n = transport_recv(&c->transport, env->read_buffer, env->read_buffer_bytes);

	if (n <= 0) {
		conn_read_nothing(c, n);
		count_barren(c);
		return;
	}
	/* Before the bytes are looked at, since they may end the connection. */
	if (conn_has_read_all(c, (size_t)n))
		c->can_read = false;
	else
		conn_want_read(c);
	conn_feed(c, env->read_buffer, (size_t)n);
	/* Behind what came with them: it may be closed for them. */
	count_barren(c);
	/* An echo goes out while it is in the processor's cache. */
	if (c->is_echo && c->state == CONN_OPEN && c->can_write && !conn_is_drained(c))
		conn_flush(c);
}

/*
 * Goes on with what came earlier, in its order: the message that is under work, then
 * what was parked behind it. True when nothing is left of it, and new bytes may be read.
 */
static bool conn_read_on(struct conn *c)
{
	if (conn_must_wait(c))
		return false;
	if (!conn_work_on(c))
		return false;
	/* The message may have filled its own queue, or a ring that takes no more. */
	if (conn_must_wait(c))
		return false;
	if (!conn_feed_parked(c))
		return false;
	return c->state != CONN_DEAD && !conn_must_wait(c);
}

/* What came earlier, then what is there now. */
static void conn_read_all(struct conn *c)
{
	if (!conn_read_on(c) || !c->can_read)
		return;
	if (turn_client_is_over(&c->env->turn)) {
		conn_want_read(c);
		return;
	}
	if (c->awaits_proxy && !conn_take_proxy(c))
		return;
	conn_receive(c);
}

void conn_read(struct conn *c)
{
	struct turn *turn = &c->env->turn;

	list_del(&c->read_node);
	if (c->state == CONN_DEAD)
		return;
	turn_begin_client(turn, c->is_busy ? TURN_CLIENT_NS : TURN_FIRST_NS);
	c->env->work_left = WORK_PER_TURN;
	conn_read_all(c);
	/* From here on it stands behind those that say little. */
	if (turn_client_is_over(turn))
		c->is_busy = true;
}

/* --------------------------------------------------------------------------------- events */

/* What TLS has kept goes out first; its handshake may wait for either direction. */
static uint32_t conn_layered_events(struct conn *c, uint32_t events)
{
	int r;

	if (!(events & EPOLLOUT))
		return events;
	r = transport_flush(&c->transport);
	if (r == 0)
		return events | EPOLLIN;
	conn_blocked(c, r);
	return (events & ~(uint32_t)EPOLLOUT) | EPOLLIN;
}

/*
 * There is something to read: at once where nobody waits for that, else behind who does. Who is
 * busy, opens or ends comes behind all of those.
 */
static void conn_read_in_turn(struct conn *c)
{
	struct conn_env *env = c->env;
	bool is_opening = c->state == CONN_HANDSHAKE;

	if (is_opening || c->is_busy)
		conn_want_read(c);
	else if (list_is_empty(&env->to_read) && !turn_is_over(&env->turn))
		conn_read(c);
	else if (c->has_hup)
		conn_want_read(c); /* an end is in no hurry, and a thousand may come at once */
	else if (list_is_empty(&c->read_node))
		list_add_tail(&env->to_read, &c->read_node);
}

void conn_event(struct reactor_source *s, uint32_t events)
{
	struct conn *c = CONTAINER_OF(s, struct conn, source);

	if (transport_is_layered(&c->transport)) {
		events = conn_layered_events(c, events);
		if (c->state == CONN_DEAD)
			return;
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->has_hup = true;
	/*
	 * Reading comes first, if it is its turn: it may be the end, and nothing is written then.
	 */
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		c->can_read = true;
		/* Bytes that may not be processed now are a sign of life all the same. */
		if (c->state == CONN_OPEN && conn_is_paused(c))
			c->last_sign_ns = c->env->reactor->now_ns;
		conn_read_in_turn(c);
	}
	if (c->state != CONN_DEAD && events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && !c->can_write) {
		c->can_write = true;
		conn_want_write(c);
	}
}
