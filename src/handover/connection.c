/* SPDX-License-Identifier: MIT */
#include "handover/connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_restore.h"
#include "handover/record_ids.h"
#include "worker/hub.h"
#include "worker/transfer.h"

/*
 * Flags of a connection that travel: name, bit of Record__Connection.flags, member of struct
 * conn. A bit is never used for anything else, not even when its row has gone.
 */
#define SAVED_FLAGS(X)                   \
	X(UNIX, 0, peer.is_unix)         \
	X(ECHO, 1, is_echo)              \
	X(DEAF, 2, is_deaf)              \
	X(GOT_CLOSE, 3, got_close)       \
	X(WAS_OPEN, 4, was_open)         \
	X(AWAITS_PROXY, 6, awaits_proxy) \
	X(AWAITS_TLS, 7, awaits_tls)     \
	X(TOO_MANY, 8, is_too_many)      \
	X(HUP, 9, has_hup)               \
	X(POSITIONS, 10, has_positions)  \
	X(MAY_RESUME, 11, may_resume)

/* Members that travel as they are, by the same name. */
#define SAVED_NUMBERS(X)  \
	X(serial)         \
	X(messages_in)    \
	X(messages_out)   \
	X(last_sign_ns)   \
	X(rate_second_ms) \
	X(rate_frames)    \
	X(close_code)

enum saved_flag {
	SAVED_THROTTLED = 1u << 5, /* CONN_PAUSE_THROTTLED; other reasons to pause are found anew */
#define SAVED_FLAG(name, bit, member) SAVED_##name = 1u << (bit),
	SAVED_FLAGS(SAVED_FLAG)
#undef SAVED_FLAG
};

/* What it was refused for at accept, as Record__Connection.refuse_status has it. */
static const uint16_t refuse_status[] = {
	[CONN_ADMITTED] = 0,
	[CONN_E_FULL] = 503,
	[CONN_E_ADDRESS_FULL] = 429,
};

/* The generated initializers cast a const away, their functions do it out of sight. */
#define NEW_RECORD(arena, Type, init)                            \
	({                                                       \
		Type *new_ = arena_alloc((arena), sizeof(Type)); \
		if (new_)                                        \
			init(new_);                              \
		new_;                                            \
	})

static ProtobufCBinaryData bytes_of(const void *p, size_t n)
{
	return (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)p};
}

static ProtobufCBinaryData text_of(const char *text)
{
	return bytes_of(text, text ? strlen(text) : 0);
}

/* ------------------------------------------------------------------------ saving */

static uint32_t flags_of(const struct conn *c)
{
	uint32_t flags = c->pauses & CONN_PAUSE_THROTTLED ? SAVED_THROTTLED : 0;

#define SAVED_FLAG(name, bit, member) flags |= c->member ? SAVED_##name : 0;
	SAVED_FLAGS(SAVED_FLAG)
#undef SAVED_FLAG
	return flags;
}

/* Four lists of one length: a message for each membership would cost more than it holds. */
static bool save_members(const struct conn *c, Record__Connection *s,
			 const struct channels_out *channels, struct arena *a)
{
	bool has_marks = false;
	size_t n = 0;

	s->channel = arena_alloc(a, c->n_members * sizeof(*s->channel));
	s->next = arena_alloc(a, c->n_members * sizeof(*s->next));
	s->own = arena_alloc(a, c->n_members * sizeof(*s->own));
	s->lags = arena_alloc(a, c->n_members * sizeof(*s->lags));
	s->replay = arena_alloc(a, c->n_members * sizeof(*s->replay));
	s->gap = arena_alloc(a, c->n_members * sizeof(*s->gap));
	if (!s->channel || !s->next || !s->own || !s->lags || !s->replay || !s->gap)
		return false;
	for (const struct member *m = c->members; m; m = m->sibling, n++) {
		s->channel[n] = channels->id_by_slot[m->channel->entry->slot];
		s->next[n] = m->next;
		s->own[n] = channel_last_own(m);
		s->lags[n] = m->is_lagging;
		channel_get_mark(m, &s->replay[n], &s->gap[n]);
		has_marks |= m->has_mark;
		if (m == &c->path_member)
			s->path_member = (uint32_t)n + 1;
	}
	s->n_channel = s->n_next = s->n_own = s->n_lags = n;
	s->n_replay = s->n_gap = has_marks ? n : 0;
	/* It may come back to the channel that its path named, so that has to be known. */
	if (!c->path_member.channel)
		s->path_channel = text_of(conn_left_path_channel(c));
	return true;
}

static bool save_grant(const struct conn *c, Record__Connection *s, struct arena *a)
{
	const struct grant *g = c->grant;

	s->grant = NEW_RECORD(a, Record__Grant, record__grant__init);
	if (!s->grant)
		return false;
	/* What the token or certificate allowed: nobody shows them again. */
	s->grant->user_id = (char *)(uintptr_t)g->user_id;
	s->grant->expires_s = g->expires_s;
	s->grant->key_id = g->key_id;
	s->grant->may_publish = g->may_publish;
	s->grant->any_channel = g->any_channel;
	s->grant->pattern = (char **)(uintptr_t)g->pattern;
	s->grant->n_pattern = g->n_patterns;
	return true;
}

static bool save_input(const struct conn *c, Record__Connection *s, struct arena *a)
{
	uint8_t *head = arena_alloc(a, WS_MAX_HEAD);

	s->input = NEW_RECORD(a, Record__Input, record__input__init);
	if (!s->input || !head)
		return false;
	conn_save_input(c, s->input, head);
	return true;
}

static bool save_queue(const struct conn *c, Record__Output *out, struct arena *a)
{
	size_t n = 0;

	for (const struct frame *f = c->out->queue; f; f = f->next)
		n++;
	out->queue = arena_alloc(a, n * sizeof(Record__Frame *));
	if (!out->queue)
		return false;
	/* Nobody else waits for these messages, so they stand in the record itself. */
	for (const struct frame *f = c->out->queue; f; f = f->next) {
		Record__Frame *record = frame_to_record(f, 0, a);

		if (!record)
			return false;
		out->queue[out->n_queue++] = record;
	}
	return true;
}

static bool save_output(const struct conn *c, Record__Connection *s,
			const struct frames_out *frames, struct arena *a)
{
	const struct conn_output *out = c->out;

	s->output = NEW_RECORD(a, Record__Output, record__output__init);
	if (!s->output || !save_queue(c, s->output, a))
		return false;
	s->output->head_sent = out->head_sent;
	/* The message itself has a record of its own: others may wait for it as well. */
	if (out->transit) {
		s->output->transit = frames_out_id(frames, out->transit);
		s->output->transit_variant = frame_variant_id(out->transit, out->transit_bytes);
		s->output->transit_at = out->transit_at;
	}
	return true;
}

static bool save_transfer(const struct conn *c, Record__Connection *s, struct arena *a)
{
	const struct spool_unfinished *u = transfer_unfinished(&hub_of_const(c)->transfers, c);

	/* The file stays on the disk; what travels is how to go on with it. */
	if (!u)
		return true;
	s->transfer = NEW_RECORD(a, Record__Transfer, record__transfer__init);
	if (!s->transfer)
		return false;
	s->transfer->next_sequence = u->next_sequence;
	s->transfer->is_broken = u->is_broken;
	s->transfer->bytes = u->bytes;
	s->transfer->name = (char *)(uintptr_t)u->name;
	s->transfer->part = (char *)(uintptr_t)u->part;
	s->transfer->sequence = u->sequence;
	s->transfer->request_id = bytes_of(u->request_id, u->request_id_len);
	return true;
}

static bool save_chunk(const struct conn *c, Record__Connection *s, struct arena *a)
{
	const struct spool_chunk *chunk = transfer_waiting_chunk(&hub_of_const(c)->transfers, c);

	/* The spool had no room for it; its client is not read until it was taken. */
	if (!chunk)
		return true;
	s->chunk = NEW_RECORD(a, Record__Chunk, record__chunk__init);
	if (!s->chunk)
		return false;
	s->chunk->sequence = chunk->sequence;
	s->chunk->is_last = chunk->is_last;
	s->chunk->compression = (uint32_t)chunk->kind;
	s->chunk->data = bytes_of(chunk->data, chunk->n);
	s->chunk->request_id = bytes_of(chunk->request_id, chunk->request_id_len);
	return true;
}

/* All that hangs off a connection, as far as there is any. */
static bool save_parts(const struct conn *c, Record__Connection *s,
		       const struct channels_out *channels, const struct frames_out *frames,
		       struct arena *a)
{
	return save_members(c, s, channels, a) && (!c->grant || save_grant(c, s, a)) &&
	       (!c->input || save_input(c, s, a)) &&
	       (c->out == &conn_no_output || save_output(c, s, frames, a)) &&
	       save_transfer(c, s, a) && save_chunk(c, s, a);
}

Record__Connection *connection_to_record(const struct conn *c, uint64_t cookie,
					 const struct channels_out *channels,
					 const struct frames_out *frames, struct arena *a)
{
	Record__Connection *s = NEW_RECORD(a, Record__Connection, record__connection__init);
	uint64_t now = c->env->reactor->now_ns;

	if (!s || !save_parts(c, s, channels, frames, a))
		return NULL;
#define SAVED_NUMBER(member) s->member = c->member;
	SAVED_NUMBERS(SAVED_NUMBER)
#undef SAVED_NUMBER
	s->connected_ms = (uint64_t)c->connected_s * 1000;
	s->ping_ns = c->ping_tick ? conn_tick_ns(c->ping_tick, now) : 0;
	s->over_ns = c->over_tick ? conn_tick_ns(c->over_tick, now) : 0;
	s->cookie = cookie;
	s->state = c->state;
	s->flags = flags_of(c);
	s->id = bytes_of(c->id, sizeof(c->id));
	s->ip = bytes_of(c->peer.ip, sizeof(c->peer.ip));
	s->port = c->peer.port;
	/* Of an open one it says nothing: there the deadlines are found anew. */
	s->deadline_ns = c->timer.deadline_ns;
	s->refuse_status = refuse_status[c->refusal];
	s->caps = c->caps;
	s->deflate_window = c->deflate_window;
	s->session_id = text_of(conn_session_id(c));
	s->user_id = text_of(conn_earlier_user_id(c));
	return s;
}

/* --------------------------------------------------------------------- restoring */

static void restore_flags(struct conn *c, uint32_t flags)
{
#define SAVED_FLAG(name, bit, member) c->member = flags & SAVED_##name;
	SAVED_FLAGS(SAVED_FLAG)
#undef SAVED_FLAG
	if (flags & SAVED_THROTTLED)
		conn_pause(c, CONN_PAUSE_THROTTLED);
}

static int restore_grant(struct conn *c, const Record__Grant *s)
{
	const struct grant like = {
		.user_id = s->user_id,
		.expires_s = s->expires_s,
		.key_id = s->key_id,
		.may_publish = s->may_publish,
		.any_channel = s->any_channel,
		.pattern = (const char **)(uintptr_t)s->pattern,
		.n_patterns = s->n_pattern,
	};

	/* It may have expired meanwhile; then the timer ends the connection, as at any time. */
	c->grant = grant_restore(&like);
	return c->grant ? 0 : -ENOMEM;
}

/* A name that a client gave, to be freed: text without NUL. NULL: it has none, or no memory. */
static char *restore_text(const ProtobufCBinaryData *s, size_t max)
{
	if (s->len == 0 || s->len > max || !utf8_valid(s->data, s->len) ||
	    memchr(s->data, 0, s->len))
		return NULL;
	return strndup((const char *)s->data, s->len);
}

static void restore_session_id(struct conn *c, const ProtobufCBinaryData *s)
{
	WB_CLEANUP(ptr_freep) char *id = restore_text(s, CONN_SESSION_MAX);

	if (id)
		conn_set_session_id(c, id);
}

/* Without memory it is called by its address. */
static void restore_user_id(struct conn *c, const ProtobufCBinaryData *s)
{
	WB_CLEANUP(ptr_freep) char *id = restore_text(s, GRANT_USER_MAX);

	if (id && grant_is_user_id(id))
		(void)!conn_set_user_id(c, id);
}

static void restore_left_path_channel(struct conn *c, const ProtobufCBinaryData *s)
{
	WB_CLEANUP(ptr_freep) char *name = restore_text(s, DIRECTORY_NAME_MAX);

	/* Whoever is open has a path channel; one that the record doesn't name is the lobby. */
	if (name)
		conn_set_left_path_channel(c, name);
	else if (s->len == 0 && c->state == CONN_OPEN && !c->is_echo)
		conn_set_left_path_channel(c, "");
}

/* One membership, whose channel and log the hub may have to make first. */
static int restore_member(struct conn *c, const Record__Connection *s, size_t i,
			  const struct channels_in *channels)
{
	const struct hub_log *log;
	const struct hub_place place = {
		.next = s->next[i],
		.own = s->own[i],
		.lags = s->n_lags == 0 || s->lags[i],
		.replay_to = s->n_replay ? s->replay[i] : UINT64_MAX,
		.gap_from = s->n_gap ? s->gap[i] : UINT64_MAX,
	};
	int error = channels_in_get(channels, s->channel[i], &log);

	if (error)
		return error;
	error = hub_rejoin(hub_of(c), c, s->path_member == i + 1, log, &place);
	return error > 0 ? RESTORE_E_UNFIT : error;
}

static int restore_members(struct conn *c, const Record__Connection *s,
			   const struct channels_in *channels)
{
	int error = 0;

	if (s->n_next != s->n_channel || s->n_own != s->n_channel ||
	    (s->n_lags > 0 && s->n_lags != s->n_channel) || s->path_member > s->n_channel ||
	    (s->n_replay > 0 && s->n_replay != s->n_channel) || s->n_gap != s->n_replay ||
	    s->n_channel > UINT16_MAX ||
	    (s->n_channel > 0 && (c->state != CONN_OPEN || c->is_echo)))
		return RESTORE_E_UNFIT;
	/* The latest stands first in the record, and is the last to join. */
	for (size_t i = s->n_channel; i-- > 0 && error == 0;)
		error = restore_member(c, s, i, channels);
	if (!error && !c->path_member.channel)
		restore_left_path_channel(c, &s->path_channel);
	return error;
}

/* The connection judges it itself: it alone knows what it can be in the middle of. */
static int restore_input(struct conn *c, const Record__Input *s)
{
	int r = conn_restore_input(c, s);

	return r > 0 ? RESTORE_E_UNFIT : r;
}

static int restore_output(struct conn *c, const Record__Output *s, const struct frames_in *frames)
{
	const struct frame_bytes *bytes = NULL;
	struct frame *transit = NULL;

	for (size_t i = 0; i < s->n_queue; i++) {
		struct frame *f = frame_from_record(s->queue[i], NULL, c->env->frame_account);

		if (!f)
			return RESTORE_E_UNFIT;
		if (!conn_restore_queued(c, f))
			return -ENOMEM;
	}
	/* The rest of what it has a part of must come from the very same bytes. */
	if (s->transit) {
		transit = frames_in_get(frames, s->transit);
		bytes = transit ? frame_variant_of_id(transit, s->transit_variant) : NULL;
		if (!bytes)
			return RESTORE_E_UNFIT;
	}
	return conn_restore_output(c, s->head_sent, transit, bytes, s->transit_at)
		       ? 0
		       : RESTORE_E_UNFIT;
}

static int restore_transfer(struct conn *c, const Record__Transfer *s)
{
	struct spool_unfinished u = {
		.next_sequence = s->next_sequence,
		.is_broken = s->is_broken,
		.bytes = s->bytes,
		.sequence = s->sequence,
	};

	if (c->state != CONN_OPEN || s->request_id.len > sizeof(u.request_id))
		return RESTORE_E_UNFIT;
	u.request_id_len = (uint8_t)s->request_id.len;
	if (u.request_id_len > 0)
		memcpy(u.request_id, s->request_id.data, u.request_id_len);
	/* They come from a file: the spool sees to it that they don't lead out of its folder. */
	snprintf(u.name, sizeof(u.name), "%s", s->name);
	snprintf(u.part, sizeof(u.part), "%s", s->part);
	return transfer_resume(&hub_of(c)->transfers, c, &u);
}

static int restore_chunk(struct conn *c, const Record__Chunk *s)
{
	struct spool_chunk chunk = {
		.sequence = s->sequence,
		.is_last = s->is_last,
		.kind = (enum zip_kind)s->compression,
		.data = s->data.data,
		.n = s->data.len,
	};

	if (c->state != CONN_OPEN || s->request_id.len > sizeof(chunk.request_id))
		return RESTORE_E_UNFIT;
	/* How it is packed is judged when it is unpacked, as with any other from a client. */
	chunk.request_id_len = (uint8_t)s->request_id.len;
	if (chunk.request_id_len > 0)
		memcpy(chunk.request_id, s->request_id.data, chunk.request_id_len);
	return transfer_resume_waiting(&hub_of(c)->transfers, c, &chunk);
}

/* What needs no memory, and no other record. */
static void restore_plain(struct conn *c, const Record__Connection *s)
{
#define SAVED_NUMBER(member) c->member = (__typeof__(c->member))s->member;
	SAVED_NUMBERS(SAVED_NUMBER)
#undef SAVED_NUMBER
	c->connected_s = (uint32_t)(s->connected_ms / 1000);
	c->ping_tick = s->ping_ns ? conn_tick(s->ping_ns) : 0;
	c->over_tick = s->over_ns ? conn_tick(s->over_ns) : 0;
	restore_flags(c, s->flags);
	/* What a later version may have agreed to with its client this one cannot do. */
	c->caps = (uint8_t)(s->caps & MSG_CAPS_ALL);
	c->deflate_window =
		s->deflate_window < DEFLATE_N_WINDOWS ? s->deflate_window & 3 : DEFLATE_NONE;
	memcpy(c->id, s->id.data, sizeof(c->id));
	restore_session_id(c, &s->session_id);
	restore_user_id(c, &s->user_id);
	if (c->may_resume)
		c->may_resume = registry_adopt(&hub_of(c)->shared->registry, c->id, c->serial, c,
					       hub_of(c)->index);
}

/* CONN_N_REFUSALS: it is refused for nothing that was ever decided at accept. */
static enum conn_refusal refusal_of(const Record__Connection *s)
{
	for (size_t i = 0; i < ARRAY_LEN(refuse_status); i++)
		if (refuse_status[i] == s->refuse_status)
			return (enum conn_refusal)i;
	return CONN_N_REFUSALS;
}

bool connection_peer(const Record__Connection *s, struct sock_peer *ret)
{
	if (s->state >= CONN_DEAD || s->id.len != 16 || s->ip.len != 16 || s->port > UINT16_MAX ||
	    refusal_of(s) == CONN_N_REFUSALS)
		return false;
	/* Asked for before there is a connection: whose address it is decides about its place. */
	*ret = (struct sock_peer){.port = (uint16_t)s->port, .is_unix = s->flags & SAVED_UNIX};
	memcpy(ret->ip, s->ip.data, sizeof(ret->ip));
	return true;
}

/* All that hangs off a connection. What comes later may need what came before. */
static int restore_parts(struct conn *c, const Record__Connection *s,
			 const struct channels_in *channels, const struct frames_in *frames)
{
	int error = s->grant ? restore_grant(c, s->grant) : 0;

	if (!error)
		error = restore_members(c, s, channels);
	if (!error && s->input)
		error = restore_input(c, s->input);
	if (!error && s->output)
		error = restore_output(c, s->output, frames);
	if (!error && s->transfer)
		error = restore_transfer(c, s->transfer);
	/* Behind the file that it is a part of. */
	if (!error && s->chunk)
		error = restore_chunk(c, s->chunk);
	return error;
}

int connection_restore(struct conn *c, struct conn_env *env, const Record__Connection *s,
		       const struct channels_in *channels, const struct frames_in *frames)
{
	struct sock_peer peer;
	int error;

	WB_ASSERT(connection_peer(s, &peer));
	conn_init(c, env, &peer, s->serial, refusal_of(s));
	restore_plain(c, s);
	/* Its state is set before its parts, which are right in some states only. */
	c->state = (uint8_t)s->state;
	if (c->state == CONN_OPEN)
		METRIC_INC(env->metrics, connections_active);
	/* Its first bytes will be TLS, and this process has no certificate any more. */
	if (c->awaits_tls && !env->policy->tls)
		return RESTORE_E_UNFIT;
	error = restore_parts(c, s, channels, frames);
	if (error)
		return error;
	/* The timer of an open one looks at all its deadlines, and arms itself for the next. */
	conn_arm(c, c->state == CONN_OPEN ? env->reactor->now_ns : s->deadline_ns);
	/* No edge of epoll may come for what it can be sent at once. */
	if (c->n_lagging > 0)
		conn_want_write(c);
	return 0;
}
