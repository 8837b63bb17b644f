/* SPDX-License-Identifier: MIT */
#include "worker/client_list.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "channel/channel.h"

uint64_t client_list_count(const struct hub *h)
{
	uint64_t n = 0;

	LIST_FOREACH (node, &h->env.all)
		n += CONTAINER_OF(node, struct conn, node)->state == CONN_OPEN;
	return n;
}

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

	for (const struct member *m = c->members; m && !r; m = m->sibling) {
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

int client_list_append(struct hub *h, uint64_t *offset, uint64_t *limit, struct buf *out)
{
	/* Both are counted down, so that the list goes on with the next worker. */
	LIST_FOREACH (node, &h->env.all) {
		const struct conn *c = CONTAINER_OF(node, struct conn, node);
		int error;

		if (*limit == 0)
			return 0;
		if (c->state != CONN_OPEN)
			continue;
		if (*offset > 0) {
			(*offset)--;
			continue;
		}
		error = list_one(out, c);
		if (error)
			return error;
		(*limit)--;
	}
	return 0;
}
