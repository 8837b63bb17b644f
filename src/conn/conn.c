/* SPDX-License-Identifier: MIT */
#include "conn/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "io/log.h"
#include "wire/upgrade.h"
#include "wire/ws.h"

#define READ_BUFFER_BYTES (128 * 1024)
#define CLOSE_TIMEOUT_NS (5 * NS_PER_S)  /* for our Close to go and the peer's to come */
#define LINGER_TIMEOUT_NS (2 * NS_PER_S) /* for the peer to end its side */
#define STOP_TIMEOUT_NS (1 * NS_PER_S)   /* for either, while the daemon stops */

enum conn_input_kind {
	IN_UPGRADED, /* the handshake was answered with 101 */
	IN_CLOSE,    /* a Close or a refusal was queued */
	IN_DRAINED,  /* all that was queued is out, the last of it included */
	IN_BROKEN,   /* the transport is gone, or has to be */
	IN_N
};

/* Empty is 0 = CONN_HANDSHAKE, which nobody re-enters: ignore the input. */
/* clang-format off */
static const uint8_t transition[CONN_N_STATES][IN_N] = {
	[CONN_HANDSHAKE][IN_UPGRADED] = CONN_OPEN,
	[CONN_HANDSHAKE][IN_CLOSE]    = CONN_CLOSING,
	[CONN_HANDSHAKE][IN_BROKEN]   = CONN_DEAD,
	[CONN_OPEN][IN_CLOSE]         = CONN_CLOSING,
	[CONN_OPEN][IN_BROKEN]        = CONN_DEAD,
	[CONN_CLOSING][IN_DRAINED]       = CONN_LINGERING,
	[CONN_CLOSING][IN_BROKEN]     = CONN_DEAD,
	[CONN_LINGERING][IN_BROKEN]   = CONN_DEAD,
};
/* clang-format on */

int conn_env_init(struct conn_env *env)
{
	list_init(&env->all);
	list_init(&env->to_read);
	list_init(&env->to_write);
	list_init(&env->stalled);
	list_init(&env->unsent);
	list_init(&env->partial_inputs);
	env->read_buffer_bytes = READ_BUFFER_BYTES;
	env->read_buffer = malloc(env->read_buffer_bytes);
	return env->read_buffer ? 0 : -ENOMEM;
}

void conn_env_fini(struct conn_env *env)
{
	while (env->n_decoders > 0)
		ws_decoder_free(env->decoders[--env->n_decoders]);
	while (env->n_outputs > 0)
		free(env->outputs[--env->n_outputs]);
	env->inflater = inflater_free(env->inflater);
	free(env->read_buffer);
	env->read_buffer = NULL;
}

static void conn_die(struct reactor_deferred *d)
{
	struct conn *c = CONTAINER_OF(d, struct conn, death);

	c->env->ops->dead(c);
}

/* ----------------------------------------------------------------------- names */

const char *conn_session_id(const struct conn *c)
{
	return c->names ? c->names->session_id : "";
}

const char *conn_left_path_channel(const struct conn *c)
{
	return c->names ? c->names->left_path_channel : NULL;
}

/* Both at once; @channel is the connection's from here on. */
static void conn_set_names(struct conn *c, const char *session_id, char *channel)
{
	size_t n = strlen(session_id) + 1;
	struct conn_names *names = n > 1 || channel ? malloc(sizeof(*names) + n) : NULL;

	if (names) {
		names->left_path_channel = channel;
		memcpy(names->session_id, session_id, n);
	} else {
		free(channel);
	}
	free(c->names);
	c->names = names;
}

void conn_set_session_id(struct conn *c, const char *id)
{
	conn_set_names(c, id, c->names ? c->names->left_path_channel : NULL);
}

void conn_set_left_path_channel(struct conn *c, const char *channel)
{
	if (c->names)
		free(c->names->left_path_channel);
	conn_set_names(c, conn_session_id(c), strdup(channel));
}

static void conn_drop_names(struct conn *c)
{
	if (c->names)
		free(c->names->left_path_channel);
	free(c->names);
	c->names = NULL;
}

/* Lets go of everything that is not the struct itself. */
static void conn_release(struct conn *c)
{
	wheel_del(&c->env->reactor->wheel, &c->timer);
	list_del(&c->node);
	c->env->n_all--;
	list_del(&c->read_node);
	list_del(&c->write_node);
	list_del(&c->unsent_node);
	conn_drop_input(c);
	conn_drop_output(c);
	conn_drop_names(c);
	free(c->grant);
	c->grant = NULL;
}

void conn_arm(struct conn *c, uint64_t deadline_ns)
{
	if (c->state == CONN_DEAD)
		return; /* in the timer's place is what will free it */
	if (wheel_is_armed(&c->timer) && c->timer.deadline_ns <= deadline_ns)
		return;
	wheel_add(&c->env->reactor->wheel, &c->timer, deadline_ns);
}

/* The last steps of a connection have their deadlines anew. */
static void rearm(struct conn *c, uint64_t timeout_ns)
{
	if (c->env->is_stopping)
		timeout_ns = MIN(timeout_ns, STOP_TIMEOUT_NS);
	wheel_del(&c->env->reactor->wheel, &c->timer);
	conn_arm(c, c->env->reactor->now_ns + timeout_ns);
}

static bool conn_step(struct conn *c, enum conn_input_kind in)
{
	enum conn_state from = c->state, to = transition[from][in];
	const struct conn_env *env = c->env;

	if (to == CONN_HANDSHAKE)
		return false;
	c->state = to;
	if (from == CONN_OPEN) {
		METRIC_SUB(env->metrics, connections_active, 1);
		metrics_count_close(env->metrics, c->close_code);
	}
	if (from == CONN_OPEN || (to == CONN_DEAD && c->members))
		env->ops->left(c);
	switch (to) {
	case CONN_CLOSING:
		rearm(c, CLOSE_TIMEOUT_NS);
		conn_want_read(c); /* what it held may have the peer's Close in it */
		break;
	case CONN_LINGERING:
		transport_shutdown(&c->transport);
		rearm(c, LINGER_TIMEOUT_NS);
		conn_want_read(c); /* the peer may have ended its side already */
		break;
	case CONN_DEAD:
		reactor_del(env->reactor, &c->source, c->transport.fd);
		transport_close(&c->transport, from != CONN_LINGERING);
		conn_release(c);
		c->death = (struct reactor_deferred){0};
		reactor_defer(env->reactor, &c->death, conn_die);
		break;
	default:
		break;
	}
	return true;
}

static void ping(struct conn *c, uint64_t now)
{
	conn_send_control(c, WS_PING, NULL, 0);
	c->ping_ns = now;
	METRIC_INC(c->env->metrics, pings_sent);
}

/* Signs of life: closes, pings or does nothing; returns when to look again. */
static uint64_t check_heartbeat(struct conn *c, uint64_t now)
{
	const struct config *config = c->env->config;
	uint64_t expiry = c->last_sign_ns + config->heartbeat_timeout;
	uint64_t next;

	if (now >= expiry) {
		METRIC_INC(c->env->metrics, heartbeat_expired);
		conn_log(c, LOG_INFO, EV_HEARTBEAT_EXPIRED, "heartbeat_timeout",
			 "gave no sign of life for heartbeat_timeout; "
			 "closing with " WS_CODE_TEXT(HEARTBEAT_TIMEOUT));
		conn_close(c, WS_CODE_HEARTBEAT_TIMEOUT, NULL);
		return UINT64_MAX;
	}
	if (c->ping_ns && c->last_sign_ns >= c->ping_ns)
		c->ping_ns = 0;
	if (c->ping_ns && now >= c->ping_ns + config->pong_timeout) {
		METRIC_INC(c->env->metrics, pongs_missed);
		ping(c, now);
	} else if (!c->ping_ns && now >= c->last_sign_ns + config->ping_interval) {
		ping(c, now);
	}
	next = c->ping_ns ? c->ping_ns + config->pong_timeout
			  : c->last_sign_ns + config->ping_interval;
	return MIN(next, expiry);
}

/* Authorization that ends, by the wall clock. */
static uint64_t check_grant(struct conn *c, uint64_t now)
{
	uint64_t wall_ms = clock_wall_ms(), expires_ms;

	if (!c->grant || c->grant->expires_s == UINT64_MAX)
		return UINT64_MAX;
	expires_ms = c->grant->expires_s * 1000;
	if (wall_ms < expires_ms)
		return now + (expires_ms - wall_ms) * NS_PER_MS;
	conn_log(c, LOG_INFO, EV_AUTH_EXPIRED, NULL,
		 "had a token until now; closing with " WS_CODE_TEXT(AUTH_EXPIRED));
	conn_close(c, WS_CODE_AUTH_EXPIRED, NULL);
	return UINT64_MAX;
}

static uint64_t check_message_timeout(struct conn *c, uint64_t now)
{
	uint64_t deadline;

	if (!c->input || !c->input->started_ns)
		return UINT64_MAX;
	deadline = c->input->started_ns + c->env->config->message_timeout;
	if (now < deadline)
		return deadline;
	if (conn_is_paused(c)) { /* it is ours to go on */
		c->input->started_ns = now;
		return now + c->env->config->message_timeout;
	}
	conn_log(c, LOG_NOTICE, EV_LIMIT_EXCEEDED, "message_timeout",
		 "did not complete a message within message_timeout; "
		 "closing with " WS_CODE_TEXT(POLICY));
	conn_close(c, WS_CODE_POLICY, "message timeout");
	return UINT64_MAX;
}

static uint64_t check_throttle(struct conn *c, uint64_t now)
{
	if (!c->is_throttled)
		return UINT64_MAX;
	if (!conn_rate_second_is_over(c, now))
		return now + conn_rate_left_ns(c, now);
	c->is_throttled = false;
	conn_want_read(c);
	return UINT64_MAX;
}

static uint64_t check_send_limits(struct conn *c, uint64_t now)
{
	uint64_t deadline;

	if (!c->over_ns)
		return UINT64_MAX;
	deadline = c->over_ns + c->env->config->slow_consumer_grace;
	if (now < deadline)
		return deadline;
	c->env->ops->check_limits(c);
	return UINT64_MAX;
}

static void handshake_expired(struct conn *c)
{
	METRIC_INC(c->env->metrics, refused_timeout);
	METRIC_INC(c->env->metrics, connection_errors);
	conn_log(c, LOG_NOTICE, EV_HANDSHAKE_TIMEOUT, "handshake_timeout",
		 "did not complete its handshake within handshake_timeout; dropped");
	conn_abort(c);
}

/*
 * The one timer of a connection: armed for the earliest of all its deadlines, it
 * looks at each and re-arms for what is next. Traffic only stores times.
 */
static void conn_timer_due(struct wheel_timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, timer);
	uint64_t (*const check[])(struct conn *, uint64_t) = {check_heartbeat, check_grant,
							      check_message_timeout, check_throttle,
							      check_send_limits};
	uint64_t now = c->env->reactor->now_ns, next = UINT64_MAX;

	if (c->state == CONN_HANDSHAKE) {
		handshake_expired(c);
		return;
	}
	if (c->state != CONN_OPEN) {
		conn_abort(c);
		return;
	}
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
	c->refusal = (uint16_t)refusal;
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

void conn_upgraded(struct conn *c)
{
	struct conn_env *env = c->env;

	if (!conn_step(c, IN_UPGRADED))
		return;
	c->was_open = true;
	c->last_sign_ns = env->reactor->now_ns;
	METRIC_INC(env->metrics, connections_total);
	METRIC_INC(env->metrics, connections_active);
	wheel_del(&env->reactor->wheel, &c->timer);
	conn_arm(c,
		 c->last_sign_ns + MIN(env->config->ping_interval, env->config->heartbeat_timeout));
	if (c->grant)
		conn_arm(c, check_grant(c, c->last_sign_ns));
	env->ops->opened(c);
}

void conn_drained(struct conn *c)
{
	conn_step(c, IN_DRAINED);
}

void conn_abort(struct conn *c)
{
	conn_step(c, IN_BROKEN);
}

void conn_close(struct conn *c, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];
	size_t n;

	if (c->state != CONN_OPEN)
		return;
	c->close_code = code;
	if (close_code_is_fault(code))
		c->is_deaf = c->got_close = true;
	if (close_code_find(code)->by == CLOSE_BY_VIOLATION)
		METRIC_INC(c->env->metrics, connection_errors);
	conn_step(c, IN_CLOSE);
	n = ws_format_close(payload, code, reason);
	conn_send_close(c, payload, n);
}

void conn_refuse(struct conn *c, int status, _Atomic uint64_t *counter, const char *setting,
		 const char *why)
{
	char answer[UPGRADE_MAX_REFUSAL];
	char text[200];
	size_t n;

	if (c->state != CONN_HANDSHAKE)
		return;
	metric_add(counter, 1);
	METRIC_INC(c->env->metrics, connection_errors);
	snprintf(text, sizeof(text), "was refused: handshake answered with %d %s%s%s%s%s", status,
		 http_status_text(status), setting && !why ? ", past " : "",
		 setting && !why ? setting : "", why ? ": " : "", why ? why : "");
	conn_log(c, LOG_NOTICE, EV_REFUSED, setting, text);
	n = upgrade_format_refusal(answer, sizeof(answer), status, 1);
	conn_step(c, IN_CLOSE);
	c->is_deaf = true;
	c->got_close = true;
	conn_send_raw(c, answer, n);
}

void conn_want_read(struct conn *c)
{
	if (list_is_empty(&c->read_node))
		list_add_tail(&c->env->to_read, &c->read_node);
}

void conn_want_write(struct conn *c)
{
	if (list_is_empty(&c->write_node))
		list_add_tail(&c->env->to_write, &c->write_node);
}

/* What TLS has kept goes out first; its handshake may wait for either direction. */
static uint32_t layered_events(struct conn *c, uint32_t events)
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

void conn_event(struct reactor_source *s, uint32_t events)
{
	struct conn *c = CONTAINER_OF(s, struct conn, source);

	if (transport_is_layered(&c->transport)) {
		events = layered_events(c, events);
		if (c->state == CONN_DEAD)
			return;
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->has_hup = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		c->can_read = true;
		/* Bytes that may not be processed now are a sign of life all the same. */
		if (c->state == CONN_OPEN && conn_is_paused(c))
			c->last_sign_ns = c->env->reactor->now_ns;
		conn_read(c);
	}
	if (c->state != CONN_DEAD && events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && !c->can_write) {
		c->can_write = true;
		conn_want_write(c);
	}
}

char *conn_format_user(char *out, const struct conn *c)
{
	char peer[SOCK_ADDRESS_MAX];

	if (c->grant)
		snprintf(out, CONN_USER_MAX, "%s", c->grant->user_id);
	else
		snprintf(out, CONN_USER_MAX, "user-%s", sock_format_peer(peer, &c->peer));
	return out;
}

char *conn_format_setting(char *out, size_t cap, const struct conn *c, const char *setting)
{
	const struct config_key *key = setting ? config_key_find(setting, strlen(setting)) : NULL;
	WB_CLEANUP(ptr_freep) char *value = NULL;

	out[0] = '\0';
	if (key && config_format(c->env->config, key, &value) == 0)
		snprintf(out, cap, " (%s = %s)", setting, value);
	return out;
}

void conn_log(const struct conn *c, int priority, enum log_event_id event, const char *setting,
	      const char *text)
{
	/* One for each kind of event, so that a noisy kind silences no other. */
	static struct log_site sites[EV_N] = {
		[0 ... EV_N - 1] = {__FILE__, "conn_log", __LINE__, true, 0, 0, false, NULL}};
	char peer[SOCK_ADDRESS_MAX], id[37], value[CONN_SETTING_MAX];

	if (!log_is_on(priority))
		return;
	uuid4_format(id, c->id);
	sock_format_peer(peer, &c->peer);
	conn_format_setting(value, sizeof(value), c, setting);
	log_write(&sites[event], priority, event,
		  LOG_FIELDS(LOG_TEXT("PEER", peer), LOG_TEXT("CLIENT_ID", c->was_open ? id : NULL),
			     LOG_TEXT("CHANNEL", c->was_open ? c->env->ops->path_channel(c) : NULL),
			     LOG_TEXT("SETTING", setting)),
		  "%s %s%s", peer, text, value);
}
