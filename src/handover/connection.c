/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "handover/handover_private.h"
#include "worker/hub.h"
#include "worker/transfer.h"

/* Of Record__Connection.flags: never renumbered. */
enum conn_saved {
	SAVED_UNIX = 1 << 0,
	SAVED_ECHO = 1 << 1,
	SAVED_DEAF = 1 << 2,
	SAVED_GOT_CLOSE = 1 << 3,
	SAVED_WAS_OPEN = 1 << 4,
	SAVED_THROTTLED = 1 << 5,
	SAVED_AWAITS_PROXY = 1 << 6,
	SAVED_AWAITS_TLS = 1 << 7,
	SAVED_TOO_MANY = 1 << 8,
	SAVED_HUP = 1 << 9,
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
	return (c->peer.is_unix ? SAVED_UNIX : 0u) | (c->is_echo ? SAVED_ECHO : 0u) |
	       (c->is_deaf ? SAVED_DEAF : 0u) | (c->got_close ? SAVED_GOT_CLOSE : 0u) |
	       (c->was_open ? SAVED_WAS_OPEN : 0u) | (c->is_throttled ? SAVED_THROTTLED : 0u) |
	       (c->awaits_proxy ? SAVED_AWAITS_PROXY : 0u) |
	       (c->awaits_tls ? SAVED_AWAITS_TLS : 0u) | (c->is_too_many ? SAVED_TOO_MANY : 0u) |
	       (c->has_hup ? SAVED_HUP : 0u);
}

static bool save_members(const struct conn *c, Record__Connection *s, const struct numbers *numbers,
			 struct arena *a)
{
	size_t n = 0;

	s->channel = arena_alloc(a, c->n_members * sizeof(*s->channel));
	s->next = arena_alloc(a, c->n_members * sizeof(*s->next));
	s->own = arena_alloc(a, c->n_members * sizeof(*s->own));
	if (!s->channel || !s->next || !s->own)
		return false;
	for (const struct member *m = c->members; m; m = m->sibling, n++) {
		s->channel[n] = numbers->channel[m->channel->entry->slot];
		s->next[n] = m->next;
		s->own[n] = m->last_own;
		if (m == &c->path_member)
			s->path_member = (uint32_t)n + 1;
	}
	s->n_channel = s->n_next = s->n_own = n;
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
	s->grant->user_id = (char *)(uintptr_t)g->user_id;
	s->grant->expires_s = g->expires_s;
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
	for (const struct frame *f = c->out->queue; f; f = f->next) {
		Record__Frame *record = frame_record(f, 0, a);

		if (!record)
			return false;
		out->queue[out->n_queue++] = record;
	}
	return true;
}

static bool save_output(const struct conn *c, Record__Connection *s, const struct numbers *numbers,
			struct arena *a)
{
	const struct conn_output *out = c->out;

	s->output = NEW_RECORD(a, Record__Output, record__output__init);
	if (!s->output || !save_queue(c, s->output, a))
		return false;
	s->output->head_sent = out->head_sent;
	if (out->transit) {
		s->output->transit = numbers_find(numbers, out->transit)->number;
		s->output->transit_variant = frame_variant_of(out->transit, out->transit_bytes);
		s->output->transit_at = out->transit_at;
	}
	return true;
}

static bool save_transfer(const struct conn *c, Record__Connection *s, struct arena *a)
{
	const struct spool_unfinished *k = transfer_unfinished(&hub_of_const(c)->transfers, c);

	if (!k)
		return true;
	s->transfer = NEW_RECORD(a, Record__Transfer, record__transfer__init);
	if (!s->transfer)
		return false;
	s->transfer->next_sequence = k->next_sequence;
	s->transfer->is_broken = k->is_broken;
	s->transfer->bytes = k->bytes;
	s->transfer->name = (char *)(uintptr_t)k->name;
	s->transfer->part = (char *)(uintptr_t)k->part;
	s->transfer->sequence = k->sequence;
	s->transfer->request_id = bytes_of(k->request_id, k->request_id_len);
	return true;
}

static bool save_chunk(const struct conn *c, Record__Connection *s, struct arena *a)
{
	const struct spool_chunk *job = transfer_waiting_chunk(&hub_of_const(c)->transfers, c);

	if (!job)
		return true;
	s->chunk = NEW_RECORD(a, Record__Chunk, record__chunk__init);
	if (!s->chunk)
		return false;
	s->chunk->sequence = job->sequence;
	s->chunk->is_last = job->is_last;
	s->chunk->compression = (uint32_t)job->kind;
	s->chunk->data = bytes_of(job->data, job->n);
	s->chunk->request_id = bytes_of(job->request_id, job->request_id_len);
	return true;
}

Record__Connection *conn_save(const struct conn *c, uint64_t cookie, const struct numbers *numbers,
			      struct arena *a)
{
	Record__Connection *s = NEW_RECORD(a, Record__Connection, record__connection__init);

	if (!s || !save_members(c, s, numbers, a) || (c->grant && !save_grant(c, s, a)) ||
	    (c->input && !save_input(c, s, a)) ||
	    (c->out != &conn_no_output && !save_output(c, s, numbers, a)) ||
	    !save_transfer(c, s, a) || !save_chunk(c, s, a))
		return NULL;
	s->cookie = cookie;
	s->serial = c->serial;
	s->state = c->state;
	s->flags = flags_of(c);
	s->id = bytes_of(c->id, sizeof(c->id));
	s->ip = bytes_of(c->peer.ip, sizeof(c->peer.ip));
	s->port = c->peer.port;
	s->connected_ms = c->connected_ms;
	s->last_sign_ns = c->last_sign_ns;
	s->ping_ns = c->ping_ns;
	s->over_ns = c->over_ns;
	s->deadline_ns = c->timer.deadline_ns;
	s->rate_second_ms = c->rate_second_ms;
	s->rate_frames = c->rate_frames;
	s->refuse_status = (uint32_t)conn_refusals[c->refusal].status;
	s->close_code = c->close_code;
	s->caps = c->caps;
	s->deflate_window = c->deflate_window;
	s->session_id = text_of(conn_session_id(c));
	return s;
}

/* --------------------------------------------------------------------- restoring */

static void restore_flags(struct conn *c, uint32_t flags)
{
	c->is_echo = flags & SAVED_ECHO;
	c->is_deaf = flags & SAVED_DEAF;
	c->got_close = flags & SAVED_GOT_CLOSE;
	c->was_open = flags & SAVED_WAS_OPEN;
	c->is_throttled = flags & SAVED_THROTTLED;
	c->awaits_proxy = flags & SAVED_AWAITS_PROXY;
	c->awaits_tls = flags & SAVED_AWAITS_TLS;
	c->is_too_many = flags & SAVED_TOO_MANY;
	c->has_hup = flags & SAVED_HUP;
}

static int restore_grant(struct conn *c, const Record__Grant *s)
{
	const struct grant like = {
		.user_id = s->user_id,
		.expires_s = s->expires_s,
		.may_publish = s->may_publish,
		.any_channel = s->any_channel,
		.pattern = (const char **)(uintptr_t)s->pattern,
		.n_patterns = s->n_pattern,
	};

	c->grant = grant_restore(&like);
	return c->grant ? 0 : -ENOMEM;
}

/* A name that a client gave: text without NUL. NULL: it has none, or no memory. */
static char *restore_text(const ProtobufCBinaryData *s, size_t max)
{
	if (s->len == 0 || s->len > max || !utf8_valid(s->data, s->len) ||
	    memchr(s->data, 0, s->len))
		return NULL;
	return strndup((const char *)s->data, s->len);
}

/* One membership, whose channel and log the hub may have to make first. */
static int restore_member(struct conn *c, const Record__Connection *s, size_t i,
			  const struct restored *r)
{
	const struct hub_log *log;
	bool is_path = s->path_member == i + 1;
	struct member *m = &c->path_member;
	int error;

	if (s->channel[i] == 0 || s->channel[i] > r->n_channels)
		return -EINVAL;
	log = &r->channel[s->channel[i] - 1];
	if (!log->entry)
		return -ENOMEM;
	if (!is_path)
		m = calloc(1, sizeof(*m));
	error = m ? hub_rejoin(hub_of(c), c, m, log, s->next[i]) : -ENOMEM;
	/* What it says of the future would be looked for in the log. */
	if (error == 0)
		m->last_own = MIN(s->own[i], directory_next_seq(log->entry));
	else if (!is_path)
		free(m);
	return error > 0 ? -EINVAL : error;
}

static int restore_members(struct conn *c, const Record__Connection *s, const struct restored *r)
{
	int error = 0;

	if (s->n_next != s->n_channel || s->n_own != s->n_channel ||
	    s->path_member > s->n_channel || s->n_channel > UINT16_MAX ||
	    (s->n_channel > 0 && (c->state != CONN_OPEN || c->is_echo)))
		return -EINVAL;
	/* The latest stands first in the record, and is the last to join. */
	for (size_t i = s->n_channel; i-- > 0 && error == 0;)
		error = restore_member(c, s, i, r);
	return error;
}

static const struct frame_bytes *variant_of(const struct frame *f, uint32_t variant)
{
	if (variant == 0)
		return &f->body;
	return variant <= FRAME_N_VARIANTS
		       ? atomic_load_explicit(&f->variant[variant - 1], memory_order_relaxed)
		       : NULL;
}

static int restore_output(struct conn *c, const Record__Output *s, const struct restored *r)
{
	const struct frame_bytes *bytes = NULL;
	struct frame *transit = NULL;

	for (size_t i = 0; i < s->n_queue; i++) {
		struct frame *f = frame_of_record(s->queue[i], c->env->frame_account);

		if (!f || !conn_restore_queued(c, f))
			return -ENOMEM;
	}
	if (s->transit > r->n_frames)
		return -EINVAL;
	if (s->transit) {
		transit = r->frame[s->transit - 1];
		bytes = transit ? variant_of(transit, s->transit_variant) : NULL;
		if (!bytes)
			return -EINVAL;
	}
	return conn_restore_output(c, s->head_sent, transit, bytes, s->transit_at) ? 0 : -EINVAL;
}

static int restore_transfer(struct conn *c, const Record__Transfer *s)
{
	struct spool_unfinished k = {
		.next_sequence = s->next_sequence,
		.is_broken = s->is_broken,
		.bytes = s->bytes,
		.sequence = s->sequence,
	};

	if (c->state != CONN_OPEN || s->request_id.len > sizeof(k.request_id))
		return -EINVAL;
	k.request_id_len = (uint8_t)s->request_id.len;
	if (k.request_id_len > 0)
		memcpy(k.request_id, s->request_id.data, k.request_id_len);
	snprintf(k.name, sizeof(k.name), "%s", s->name);
	snprintf(k.part, sizeof(k.part), "%s", s->part);
	return transfer_resume(&hub_of(c)->transfers, c, &k);
}

static int restore_chunk(struct conn *c, const Record__Chunk *s)
{
	struct spool_chunk job = {
		.sequence = s->sequence,
		.is_last = s->is_last,
		.kind = (enum zip_kind)s->compression,
		.data = s->data.data,
		.n = s->data.len,
	};

	if (c->state != CONN_OPEN || s->request_id.len > sizeof(job.request_id))
		return -EINVAL;
	job.request_id_len = (uint8_t)s->request_id.len;
	if (job.request_id_len > 0)
		memcpy(job.request_id, s->request_id.data, job.request_id_len);
	return transfer_resume_waiting(&hub_of(c)->transfers, c, &job);
}

static void restore_names(struct conn *c, const Record__Connection *s)
{
	WB_CLEANUP(ptr_freep) char *session_id = restore_text(&s->session_id, CONN_SESSION_MAX);
	WB_CLEANUP(ptr_freep) char *left = restore_text(&s->path_channel, DIRECTORY_NAME_MAX);

	if (session_id)
		conn_set_session_id(c, session_id);
	if (left)
		conn_set_left_path_channel(c, left);
}

static void restore_plain(struct conn *c, const Record__Connection *s)
{
	restore_flags(c, s->flags);
	c->serial = s->serial;
	c->connected_ms = s->connected_ms;
	c->last_sign_ns = s->last_sign_ns;
	c->ping_ns = s->ping_ns;
	c->over_ns = s->over_ns;
	c->rate_second_ms = s->rate_second_ms;
	c->rate_frames = s->rate_frames;
	c->close_code = (uint16_t)s->close_code;
	c->caps = (uint8_t)(s->caps & MSG_CAPS_ALL);
	c->deflate_window =
		s->deflate_window < DEFLATE_N_WINDOWS ? s->deflate_window & 3 : DEFLATE_NONE;
	memcpy(c->id, s->id.data, sizeof(c->id));
	restore_names(c, s);
}

/* What it was refused for at accept; CONN_N_REFUSALS: for nothing of that kind. */
static enum conn_refusal refusal_of(const Record__Connection *s)
{
	enum conn_refusal r = CONN_ADMITTED;

	while (r <= CONN_E_ADDRESS_FULL && (uint32_t)conn_refusals[r].status != s->refuse_status)
		r++;
	return r <= CONN_E_ADDRESS_FULL ? r : CONN_N_REFUSALS;
}

bool conn_saved_peer(const Record__Connection *s, struct sock_peer *ret)
{
	if (s->state >= CONN_DEAD || s->id.len != 16 || s->ip.len != 16 || s->port > UINT16_MAX ||
	    refusal_of(s) == CONN_N_REFUSALS)
		return false;
	*ret = (struct sock_peer){.port = (uint16_t)s->port, .is_unix = s->flags & SAVED_UNIX};
	memcpy(ret->ip, s->ip.data, sizeof(ret->ip));
	return true;
}

int conn_restore(struct conn *c, struct conn_env *env, const Record__Connection *s,
		 const struct restored *r)
{
	struct sock_peer peer;
	int error;

	WB_ASSERT(conn_saved_peer(s, &peer));
	conn_init(c, env, &peer, s->serial, refusal_of(s));
	restore_plain(c, s);
	c->state = (uint8_t)s->state;
	if (c->state == CONN_OPEN)
		METRIC_INC(env->metrics, connections_active);
	if (c->awaits_tls && !env->policy->tls)
		return -EINVAL;
	error = s->grant ? restore_grant(c, s->grant) : 0;
	if (!error)
		error = restore_members(c, s, r);
	if (!error && s->input)
		error = conn_restore_input(c, s->input);
	if (!error && s->output)
		error = restore_output(c, s->output, r);
	if (!error && s->transfer)
		error = restore_transfer(c, s->transfer);
	if (!error && s->chunk)
		error = restore_chunk(c, s->chunk);
	if (error)
		return error;
	/* The timer of an open one looks at all its deadlines. */
	conn_arm(c, c->state == CONN_OPEN ? env->reactor->now_ns : s->deadline_ns);
	if (c->n_lagging > 0)
		conn_want_write(c);
	return 0;
}
