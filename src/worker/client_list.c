/* SPDX-License-Identifier: MIT */
#include "worker/client_list.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "channel/channel.h"

#define VISITS_AT_ONCE 256                /* connections of a piece */
#define TEXT_AT_ONCE ((size_t)16 << 10)   /* bytes of a piece, and at least one client */
#define ENDS_AT_ONCE 16                   /* each leaves its channels */
#define CHANNELS_SHOWN 256                /* of one client … */
#define CHANNELS_BYTES ((size_t)16 << 10) /* … or fewer, with long names */

struct conn *client_list_find(struct hub *h, const uint8_t id[16])
{
	/* Others have no id yet, or none any more. An index would cost every client something. */
	LIST_FOREACH (node, &h->env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (c->state == CONN_OPEN && memcmp(c->id, id, sizeof(c->id)) == 0)
			return c;
	}
	return NULL;
}

/* Each of these appends a piece; the first that finds no memory is the last that is tried. */
static int list_names(struct buf *out, const char *key, const char *const *names, size_t n)
{
	int r = buf_printf(out, ",\"%s\":[", key);

	for (size_t i = 0; i < n && !r; i++)
		r = buf_printf(out, "%s\"%s\"", i ? "," : "", names[i]);
	return r ? r : buf_printf(out, "]");
}

static int list_channels(struct buf *out, const struct conn *c)
{
	char name[TEXT_JSON_CAP(DIRECTORY_NAME_MAX)];
	int r = buf_printf(out, ",\"channels\":[");
	size_t end = out->len + CHANNELS_BYTES;
	unsigned left = CHANNELS_SHOWN;

	for (const struct member *m = c->members; m && !r && left > 0 && out->len < end;
	     m = m->sibling, left--) {
		const struct directory_entry *e = m->channel->entry;

		text_json(name, sizeof(name), e->name, e->name_len);
		r = buf_printf(out, "%s\"%s\"", m == c->members ? "" : ",", name);
	}
	return r ? r : buf_printf(out, "]");
}

static int list_one(struct buf *out, const struct conn *c)
{
	/* The loop's clock knows no date, but how long ago a sign of life was. */
	uint64_t silent_ms = (c->env->reactor->now_ns - c->last_sign_ns) / NS_PER_MS;
	char id[37], user[CONN_USER_MAX], peer[SOCK_ADDRESS_MAX];
	char user_json[TEXT_JSON_CAP(CONN_USER_MAX)];
	char session[TEXT_JSON_CAP(CONN_SESSION_MAX)] = "";
	const char *caps[MSG_N_CAPS];
	uint64_t bytes, messages;
	int r;

	/* Whoever signs tokens chooses user ids, and the client its session: neither is plain. */
	conn_format_user(user, c);
	text_json(user_json, sizeof(user_json), user, strlen(user));
	uuid4_format(id, c->id);
	text_json(session, sizeof(session), conn_session_id(c), strlen(conn_session_id(c)));
	channel_backlog(c, &bytes, &messages);
	r = buf_printf(out,
		       "%s{\"id\":\"%s\",\"user_id\":\"%s\",\"address\":\"%s\","
		       "\"session_id\":\"%s\",\"connected_at\":%" PRIu32
		       ",\"last_heartbeat\":%" PRIu64 ","
		       "\"worker\":%u,\"queued_bytes\":%" PRIu64 ",\"queued_messages\":%" PRIu64
		       ",\"messages_in\":%" PRIu32 ",\"messages_out\":%" PRIu64,
		       out->len ? "," : "", id, user_json, sock_format_peer(peer, &c->peer),
		       session, c->connected_s, (clock_wall_ms() - silent_ms) / 1000,
		       hub_of_const(c)->index, bytes, messages, c->messages_in, c->messages_out);
	if (!r)
		r = list_names(out, "capabilities", caps,
			       msg_caps_names(c->caps, caps, MSG_N_CAPS));
	if (!r)
		r = list_channels(out, c);
	return r ? r : buf_printf(out, "}");
}

static bool list_is_filtered(const struct client_list *l)
{
	return l->channel || l->user;
}

static bool list_wants(const struct client_list *l, struct hub *h, struct conn *c)
{
	char user[CONN_USER_MAX];

	if (l->channel && !hub_membership(h, c, l->channel, strlen(l->channel)))
		return false;
	return !l->user || strcmp(l->user, conn_format_user(user, c)) == 0;
}

static void list_begin(struct client_list *l, struct hub *h)
{
	l->place.at = h->env.all.next;
	list_add_tail(&h->env.walkers, &l->place.node);
	l->is_begun = true;
}

static int list_end(struct client_list *l, const struct hub *h, int r)
{
	/* Without a filter they need not be walked through to be counted. */
	if (!list_is_filtered(l) && !l->picks)
		l->total += client_list_count(h);
	list_del(&l->place.node);
	l->is_begun = false;
	return r;
}

/* One that is wanted, in the only walk: those before the page are passed over. */
static int list_visit(struct client_list *l, const struct conn *c)
{
	int r;

	if (l->offset > 0) {
		l->offset--;
		return 0;
	}
	if (l->limit == 0)
		return 0;
	r = list_one(&l->out, c);
	l->listed++;
	l->limit = l->out.len < CLIENT_LIST_BYTES ? l->limit - 1 : 0;
	return r;
}

/* ---------------------------------------------------------------------- in an order */

const char *const client_order_name[CLIENTS_N_ORDERS] = {
	[CLIENTS_BY_CONNECTED_AT] = "connected_at",
	[CLIENTS_BY_LAST_HEARTBEAT] = "last_heartbeat",
	[CLIENTS_BY_QUEUED_BYTES] = "queued_bytes",
	[CLIENTS_BY_QUEUED_MESSAGES] = "queued_messages",
	[CLIENTS_BY_MESSAGES_IN] = "messages_in",
	[CLIENTS_BY_MESSAGES_OUT] = "messages_out",
};

static uint64_t weight_of(const struct conn *c, enum client_order order)
{
	uint64_t bytes, messages;

	if (order == CLIENTS_BY_CONNECTED_AT)
		return UINT64_MAX - c->connected_s;
	if (order == CLIENTS_BY_LAST_HEARTBEAT)
		return UINT64_MAX - c->last_sign_ns;
	if (order == CLIENTS_BY_MESSAGES_IN)
		return c->messages_in;
	if (order == CLIENTS_BY_MESSAGES_OUT)
		return c->messages_out;
	channel_backlog(c, &bytes, &messages);
	return order == CLIENTS_BY_QUEUED_BYTES ? bytes : messages;
}

/* The first walk. */
static int list_note(struct client_list *l, const struct conn *c)
{
	struct client_key key = {.weight = weight_of(c, l->order)};

	memcpy(key.id, c->id, sizeof(key.id));
	return buf_append(&l->keys, &key, sizeof(key), BUF_NO_LIMIT);
}

static int compare_ids(const void *a, const void *b)
{
	const struct client_pick *pick_a = a, *pick_b = b;

	return memcmp(pick_a->id, pick_b->id, sizeof(pick_a->id));
}

/* The second walk: one of those that were picked is appended, as it comes. */
static int list_show(struct client_list *l, const struct conn *c)
{
	struct client_pick wanted, *pick;
	int r;

	memcpy(wanted.id, c->id, sizeof(wanted.id));
	pick = bsearch(&wanted, l->picks, l->n_picks, sizeof(wanted), compare_ids);
	if (!pick)
		return 0;
	pick->at = l->out.len;
	r = list_one(&l->out, c);
	/* Without the comma that stands before all but the first. */
	pick->at += pick->at > 0;
	pick->n = l->out.len - pick->at;
	l->n_shown++;
	return r;
}

static int compare_keys(const void *a, const void *b)
{
	const struct client_key *key_a = a, *key_b = b;

	if (key_a->weight != key_b->weight)
		return key_a->weight > key_b->weight ? -1 : 1;
	return memcmp(key_a->id, key_b->id, sizeof(key_a->id));
}

int client_list_pick(struct client_list *l)
{
	size_t n = l->keys.len / sizeof(struct client_key);
	struct client_key *keys = (struct client_key *)(void *)l->keys.data;
	uint64_t shown = l->offset < n ? MIN(n - l->offset, l->limit) : 0;

	l->picks = calloc(MAX(shown, (uint64_t)1), sizeof(*l->picks));
	if (!l->picks)
		return -ENOMEM;
	if (n > 0)
		qsort(keys, n, sizeof(*keys), compare_keys);
	for (; l->n_picks < shown; l->n_picks++) {
		struct client_pick *pick = &l->picks[l->n_picks];

		memcpy(pick->id, keys[l->offset + l->n_picks].id, sizeof(pick->id));
		pick->rank = l->n_picks;
	}
	qsort(l->picks, l->n_picks, sizeof(*l->picks), compare_ids);
	buf_fini(&l->keys);
	return 0;
}

static int compare_ranks(const void *a, const void *b)
{
	const struct client_pick *pick_a = a, *pick_b = b;

	return pick_a->rank < pick_b->rank ? -1 : 1;
}

int client_list_arrange(struct client_list *l)
{
	struct buf found = l->out;
	int r = 0;

	l->out = (struct buf){0};
	qsort(l->picks, l->n_picks, sizeof(*l->picks), compare_ranks);
	for (uint32_t i = 0; i < l->n_picks && !r; i++) {
		const struct client_pick *pick = &l->picks[i];

		/* Also those that have gone: the next page begins behind them. */
		l->listed++;
		if (pick->n == 0)
			continue;
		if (l->out.len > 0)
			r = buf_append(&l->out, ",", 1, BUF_NO_LIMIT);
		if (!r)
			r = buf_append(&l->out, found.data + pick->at, pick->n, BUF_NO_LIMIT);
		if (l->out.len >= CLIENT_LIST_BYTES)
			break;
	}
	buf_fini(&found);
	return r;
}

void client_list_fini(struct client_list *l)
{
	buf_fini(&l->out);
	buf_fini(&l->keys);
	free(l->picks);
}

/* ----------------------------------------------------------------------------- the walk */

/* Nobody who comes later is looked for, or counted. */
static bool list_has_all(const struct client_list *l)
{
	if (l->picks)
		return l->n_shown == l->n_picks;
	return l->limit == 0 && !l->order && !list_is_filtered(l);
}

int client_list_append(struct hub *h, struct client_list *l)
{
	size_t end = l->out.len + TEXT_AT_ONCE;
	int r = 0;

	if (!l->is_begun)
		list_begin(l, h);
	for (unsigned i = 0; l->place.at != &h->env.all && !r; i++) {
		struct conn *c = CONTAINER_OF(l->place.at, struct conn, node);

		if (list_has_all(l))
			break;
		if (i == VISITS_AT_ONCE || l->out.len >= end)
			return CLIENT_LIST_E_MORE;
		l->place.at = l->place.at->next;
		if (c->state != CONN_OPEN || !list_wants(l, h, c))
			continue;
		if (l->picks) {
			r = list_show(l, c);
			continue;
		}
		l->total += list_is_filtered(l);
		r = l->order ? list_note(l, c) : list_visit(l, c);
	}
	return list_end(l, h, r);
}

/* ------------------------------------------------------------------------------ ending */

void client_list_end(struct conn *c)
{
	conn_close(c, WS_CODE_NORMAL, "disconnected by the administrator");
}

int client_list_end_user(struct hub *h, struct client_ending *e)
{
	unsigned ends = 0;

	if (!e->is_begun) {
		e->place.at = h->env.all.next;
		list_add_tail(&h->env.walkers, &e->place.node);
		e->is_begun = true;
	}
	for (unsigned i = 0; e->place.at != &h->env.all; i++) {
		struct conn *c = CONTAINER_OF(e->place.at, struct conn, node);
		char user[CONN_USER_MAX];

		if (i == VISITS_AT_ONCE || ends == ENDS_AT_ONCE)
			return CLIENT_LIST_E_MORE;
		e->place.at = e->place.at->next;
		if (c->state != CONN_OPEN || strcmp(e->user, conn_format_user(user, c)) != 0)
			continue;
		client_list_end(c);
		ends++;
		e->n++;
	}
	list_del(&e->place.node);
	e->is_begun = false;
	return 0;
}
