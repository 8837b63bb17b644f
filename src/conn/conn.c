/* SPDX-License-Identifier: MIT */
#include "conn/conn.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "io/log.h"

#define CLOSE_TIMEOUT_NS (5 * NS_PER_S)  /* for our Close to go and the peer's to come */
#define LINGER_TIMEOUT_NS (2 * NS_PER_S) /* for the peer to end its side */
#define STOP_TIMEOUT_NS (1 * NS_PER_S)   /* for either, while the daemon stops */
#define GRANT_LOOK_NS (60 * NS_PER_S)    /* after which the wall clock may have been set */

/* ------------------------------------------------------------------------- turns to come */

void conn_want_read(struct conn *c)
{
	struct conn_env *env = c->env;

	if (!list_is_empty(&c->read_node))
		return;
	list_add_tail(c->state == CONN_HANDSHAKE ? &env->to_open : &env->to_read_next,
		      &c->read_node);
}

void conn_resume(struct conn *c, enum conn_pause why)
{
	if (!(c->pauses & why))
		return;
	c->pauses &= (uint8_t)~why;
	/* What pauses the whole worker is looked at when it comes to be read. */
	if (!(c->pauses & ~CONN_PAUSE_WORK) && c->state != CONN_DEAD && conn_has_input(c))
		conn_want_read(c);
}

void conn_env_resume(struct conn_env *env, enum conn_pause why)
{
	env->pauses &= (uint16_t)~why;
	if (!env->pauses)
		list_splice_tail(&env->to_read, &env->stalled);
}

void conn_want_write(struct conn *c)
{
	if (list_is_empty(&c->write_node))
		list_add_tail(c->n_lagging ? &c->env->to_catch_up : &c->env->to_write,
			      &c->write_node);
}

void conn_note_unsent(struct conn *c)
{
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
}

void conn_arm(struct conn *c, uint64_t deadline_ns)
{
	if (c->state == CONN_DEAD)
		return; /* in the timer's place is what will free it */
	if (wheel_is_armed(&c->timer) && c->timer.deadline_ns <= deadline_ns)
		return;
	wheel_add(&c->env->reactor->wheel, &c->timer, deadline_ns);
}

void conn_rearm(struct conn *c, uint64_t deadline_ns)
{
	wheel_del(&c->env->reactor->wheel, &c->timer);
	conn_arm(c, deadline_ns);
}

uint64_t conn_grant_deadline(const struct conn *c, uint64_t now)
{
	uint64_t wall_ms, expires_s;

	if (!c->grant || c->grant->expires_s == UINT64_MAX)
		return UINT64_MAX;
	/* A token ends by the wall clock, which may be set; our deadlines are on another one. */
	wall_ms = clock_wall_ms();
	expires_s = c->grant->expires_s;
	/* A state from before may say any number: what is ages ahead would leave 64 bits. */
	if (expires_s > wall_ms / 1000 + GRANT_LOOK_NS / NS_PER_S)
		return now + GRANT_LOOK_NS;
	return expires_s * 1000 > wall_ms ? now + (expires_s * 1000 - wall_ms) * NS_PER_MS : now;
}

void conn_set_grant(struct conn *c, struct grant *grant)
{
	free(c->grant);
	c->grant = grant;
	conn_arm(c, conn_grant_deadline(c, c->env->reactor->now_ns));
}

/* --------------------------------------------------------------------------------- names */

const char *conn_session_id(const struct conn *c)
{
	return c->names ? c->names->session_id : "";
}

const char *conn_left_path_channel(const struct conn *c)
{
	return c->names ? c->names->left_path_channel : NULL;
}

static void conn_drop_names(struct conn *c)
{
	if (c->names) {
		free(c->names->left_path_channel);
		free(c->names->user_id);
	}
	free(c->names);
	c->names = NULL;
}

/* With another session id, and all else that it has. NULL: there is none of it, or no memory. */
static struct conn_names *conn_rename(struct conn *c, const char *session_id)
{
	size_t n = strlen(session_id) + 1;
	struct conn_names *names = malloc(sizeof(*names) + n), *before = c->names;

	if (!names) {
		conn_drop_names(c);
		return NULL;
	}
	*names = (struct conn_names){.left_path_channel = before ? before->left_path_channel : NULL,
				     .user_id = before ? before->user_id : NULL};
	memcpy(names->session_id, session_id, n);
	free(before);
	c->names = names;
	return names;
}

void conn_set_session_id(struct conn *c, const char *id)
{
	if (c->names || id[0])
		(void)conn_rename(c, id);
}

void conn_set_left_path_channel(struct conn *c, const char *channel)
{
	struct conn_names *names = c->names ? c->names : conn_rename(c, "");

	if (!names)
		return;
	free(names->left_path_channel);
	names->left_path_channel = strdup(channel);
}

const char *conn_earlier_user_id(const struct conn *c)
{
	return c->names ? c->names->user_id : NULL;
}

bool conn_set_user_id(struct conn *c, const char *user_id)
{
	struct conn_names *names = c->names ? c->names : conn_rename(c, "");

	if (!names)
		return false;
	free(names->user_id);
	names->user_id = strdup(user_id);
	return names->user_id;
}

/* -------------------------------------------------------------------------- life and end */

/* Empty is 0 = CONN_HANDSHAKE, which nobody re-enters: ignore the trigger. */
/* clang-format off */
static const uint8_t transition[CONN_N_STATES][CONN_N_TRIGGERS] = {
	[CONN_HANDSHAKE][CONN_ON_UPGRADED] = CONN_OPEN,
	[CONN_HANDSHAKE][CONN_ON_CLOSE]    = CONN_CLOSING,
	[CONN_HANDSHAKE][CONN_ON_BROKEN]   = CONN_DEAD,
	[CONN_OPEN][CONN_ON_CLOSE]         = CONN_CLOSING,
	[CONN_OPEN][CONN_ON_BROKEN]        = CONN_DEAD,
	[CONN_CLOSING][CONN_ON_DRAINED]    = CONN_LINGERING,
	[CONN_CLOSING][CONN_ON_BROKEN]     = CONN_DEAD,
	[CONN_LINGERING][CONN_ON_BROKEN]   = CONN_DEAD,
};
/* clang-format on */

/* End of the turn in which it died: nobody up the stack looks at it any more. */
static void conn_die(struct reactor_deferred *d)
{
	struct conn *c = CONTAINER_OF(d, struct conn, death);

	c->env->ops->dead(c);
}

/* Gives back everything that is not the struct itself. */
static void conn_release(struct conn *c)
{
	/* The timer first: in its place is what will free the connection. */
	wheel_del(&c->env->reactor->wheel, &c->timer);
	LIST_FOREACH (node, &c->env->walkers) {
		struct conn_walker *w = CONTAINER_OF(node, struct conn_walker, node);

		if (w->at == &c->node)
			w->at = c->node.next;
	}
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

/* The last steps of a connection have their deadlines anew. */
static void conn_rearm_end(struct conn *c, uint64_t timeout_ns)
{
	if (conn_env_is_paused(c->env, CONN_PAUSE_STOPPING))
		timeout_ns = MIN(timeout_ns, STOP_TIMEOUT_NS);
	conn_rearm(c, c->env->reactor->now_ns + timeout_ns);
}

/* What entering a state does. */
static void conn_enter(struct conn *c, enum conn_state from, enum conn_state to)
{
	const struct conn_env *env = c->env;

	switch (to) {
	case CONN_OPEN:
		/* What it has said behind its handshake doesn't wait for handshakes of others. */
		if (list_is_empty(&c->read_node))
			break;
		list_del(&c->read_node);
		conn_want_read(c);
		break;
	case CONN_CLOSING:
		conn_rearm_end(c, CLOSE_TIMEOUT_NS);
		/* What it held may have the peer's Close in it: nothing pauses it any more. */
		list_del(&c->read_node);
		conn_want_read(c);
		break;
	case CONN_LINGERING:
		transport_shutdown(&c->transport);
		conn_rearm_end(c, LINGER_TIMEOUT_NS);
		conn_want_read(c); /* the peer may have ended its side already */
		break;
	case CONN_DEAD:
		/* epoll forgets the descriptor before its number can be another connection's. */
		reactor_del(env->reactor, &c->source, c->transport.fd);
		transport_close(&c->transport, from != CONN_LINGERING);
		conn_release(c);
		c->death = (struct reactor_deferred){0};
		reactor_defer(env->reactor, &c->death, conn_die);
		break;
	default:
		break;
	}
}

bool conn_step(struct conn *c, enum conn_trigger on)
{
	enum conn_state from = c->state, to = transition[from][on];
	const struct conn_env *env = c->env;

	if (to == CONN_HANDSHAKE)
		return false;
	c->state = to;
	if (from == CONN_OPEN) {
		METRIC_SUB(env->metrics, connections_active, 1);
		metrics_count_close(env->metrics, c->close_code);
	}
	/*
	 * It leaves its channels while all that hangs off it is still there, and in its new state:
	 * nobody sends to it meanwhile. One whose handshake was let in, but whose answer found no
	 * memory, dies with a membership, or on the way to one, and was never open.
	 */
	if (from == CONN_OPEN ||
	    (to == CONN_DEAD && (c->members || c->pauses & CONN_PAUSE_RESUMING)))
		env->ops->left(c);
	/* Hundreds may end at once: to leave and to be told so is half a step each. */
	if (from == CONN_OPEN)
		turn_charge(&c->env->turn, TURN_STEP / 2);
	conn_enter(c, from, to);
	return true;
}

void conn_abort(struct conn *c)
{
	conn_step(c, CONN_ON_BROKEN);
}

void conn_feed_end(struct conn *c)
{
	if (c->state == CONN_OPEN) {
		METRIC_INC(c->env->metrics, connection_errors);
		c->close_code = WS_CODE_ABNORMAL;
	}
	if (c->state == CONN_CLOSING && c->got_close && !conn_is_drained(c)) {
		c->can_read = true; /* it still reads what we say; its end is met again then */
		return;
	}
	conn_abort(c);
}

/* ------------------------------------------------------------------------ for log lines */

char *conn_format_user(char *out, const struct conn *c)
{
	static const char prefix[] = "user-";
	char *end;

	if (c->grant)
		return strcpy(out, c->grant->user_id);
	if (conn_earlier_user_id(c))
		return strcpy(out, conn_earlier_user_id(c));
	memcpy(out, prefix, sizeof(prefix) - 1);
	end = out + sizeof(prefix) - 1;
	sock_format_peer(end, &c->peer);
	if (c->peer.port)
		return out;
	/* A proxy names an address for many, and no port: its client id tells it from others. */
	end += strlen(end);
	*end++ = '-';
	/* Of its text the first two groups, which have 48 bits. */
	hex_encode(end, c->id, 4);
	end[8] = '-';
	hex_encode(end + 9, c->id + 4, 2);
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
