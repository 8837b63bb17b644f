/* SPDX-License-Identifier: MIT */
#include "worker/client_list.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "channel/channel.h"

#define VISITS_AT_ONCE 256              /* connections of a piece */
#define TEXT_AT_ONCE ((size_t)16 << 10) /* bytes of a piece, and at least one client */
#define CHANNELS_SHOWN 256              /* of one client */

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
	unsigned left = CHANNELS_SHOWN;

	for (const struct member *m = c->members; m && !r && left > 0; m = m->sibling, left--) {
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
	char session[TEXT_JSON_CAP(CONN_SESSION_MAX)] = "";
	const char *caps[MSG_N_CAPS];
	uint64_t bytes, messages;
	int r;

	/* A user id is plain; what the client made itself may need escaping. */
	uuid4_format(id, c->id);
	text_json(session, sizeof(session), conn_session_id(c), strlen(conn_session_id(c)));
	channel_backlog(c, &bytes, &messages);
	r = buf_printf(
		out,
		"%s{\"id\":\"%s\",\"user_id\":\"%s\",\"address\":\"%s\","
		"\"session_id\":\"%s\",\"connected_at\":%" PRIu64 ",\"last_heartbeat\":%" PRIu64 ","
		"\"worker\":%u,\"queued_bytes\":%" PRIu64 ",\"queued_messages\":%" PRIu64,
		out->len ? "," : "", id, conn_format_user(user, c),
		sock_format_peer(peer, &c->peer), session, c->connected_ms / 1000,
		(clock_wall_ms() - silent_ms) / 1000, hub_of_const(c)->index, bytes, messages);
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
	if (!list_is_filtered(l))
		l->total += client_list_count(h);
	list_del(&l->place.node);
	l->is_begun = false;
	return r;
}

int client_list_append(struct hub *h, struct client_list *l)
{
	size_t end = l->out.len + TEXT_AT_ONCE;
	int r = 0;

	if (!l->is_begun)
		list_begin(l, h);
	for (unsigned i = 0; l->place.at != &h->env.all && !r; i++) {
		struct conn *c = CONTAINER_OF(l->place.at, struct conn, node);

		if (l->limit == 0 && !list_is_filtered(l))
			break;
		if (i == VISITS_AT_ONCE || l->out.len >= end)
			return CLIENT_LIST_E_MORE;
		l->place.at = l->place.at->next;
		if (c->state != CONN_OPEN || !list_wants(l, h, c))
			continue;
		l->total += list_is_filtered(l);
		if (l->offset > 0) {
			l->offset--;
			continue;
		}
		if (l->limit == 0)
			continue;
		r = list_one(&l->out, c);
		l->listed++;
		l->limit = l->out.len < CLIENT_LIST_BYTES ? l->limit - 1 : 0;
	}
	return list_end(l, h, r);
}
