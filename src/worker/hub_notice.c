/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

#include <string.h>

#include "base/text.h"

/* A notice that waits: whom it is about, in which channel. */
struct pending_notice {
	struct list node;
	struct member *about; /* of a join: leaving takes the notice back; else NULL */
	Websocket__ControlType type;
	uint8_t id[16];
	uint8_t name_len;
	char name[DIRECTORY_NAME_MAX + 1];
};

static struct frame *notice_frame(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
				  const char *name)
{
	struct msg_builder b;
	struct frame *f;
	char text[37];

	/* The lobby has no name: its notices name no channel, as its messages do. */
	uuid4_format(text, id);
	msg_init_control(&b, type);
	msg_set_session_id(&b, text);
	if (name[0])
		msg_set_channel(&b, name);
	f = frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
	if (f)
		f->flags |= FRAME_NOTICE;
	return f;
}

static bool notices_are_on(const struct hub *h, struct directory_entry *e)
{
	uint32_t members = atomic_load_explicit(&e->members, memory_order_relaxed);

	return members > 0 && members <= h->env.config->notice_limit &&
	       !conn_env_is_paused(&h->env, CONN_PAUSE_STOPPING) && !h->env.is_restoring;
}

static void pending_free(struct hub *h, struct pending_notice *p)
{
	list_del(&p->node);
	h->notices.n--;
	free(p);
}

/* Takes back a notice that still waits; false when there is none. */
static bool cancel_pending(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
			   const struct directory_entry *e)
{
	LIST_FOREACH_SAFE (node, next, &h->notices.pending) {
		struct pending_notice *p = CONTAINER_OF(node, struct pending_notice, node);

		if (p->type != type || memcmp(p->id, id, sizeof(p->id)) != 0 ||
		    strcmp(p->name, e->name) != 0)
			continue;
		pending_free(h, p);
		return true;
	}
	return false;
}

static void keep_pending(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
			 const struct directory_entry *e, struct member *about)
{
	struct pending_notice *p =
		h->notices.n < HUB_PENDING_NOTICES ? calloc(1, sizeof(*p)) : NULL;

	/* Past the bound it is lost like one that a log sheds, and counted like it. */
	if (!p) {
		METRIC_INC(h->env.metrics, notices_skipped);
		return;
	}
	p->type = type;
	p->about = about;
	memcpy(p->id, id, sizeof(p->id));
	/* By its name: the entry isn't held, the channel may be gone when the notice is sent. */
	memcpy(p->name, e->name, e->name_len);
	p->name_len = e->name_len;
	list_add_tail(&h->notices.pending, &p->node);
	h->notices.n++;
}

static void send_notice(struct hub *h, struct directory_entry *e, Websocket__ControlType type,
			const uint8_t id[16], struct member *about)
{
	struct frame *f;

	/* Asked anew also for one that has waited: the channel may have grown past notice_limit. */
	if (!notices_are_on(h, e))
		return;
	if (conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED)) {
		keep_pending(h, type, id, e, about);
		return;
	}
	/* The channel is behind already: what may be left out is. */
	if (directory_full(e)) {
		METRIC_INC(h->env.metrics, notices_skipped);
		return;
	}
	f = notice_frame(h, type, id, e->name);
	if (!f)
		return;
	METRIC_INC(h->env.metrics, notices_sent);
	hub_publish(h, e, f, about);
}

void hub_notices_send(struct hub *h)
{
	while (!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) &&
	       !list_is_empty(&h->notices.pending)) {
		struct pending_notice *p =
			CONTAINER_OF(list_first(&h->notices.pending), struct pending_notice, node);
		/* A channel that is gone has nobody who wants to know. */
		struct directory_entry *e =
			directory_pin(&h->shared->directory, p->name, p->name_len);

		if (e) {
			send_notice(h, e, p->type, p->id, p->about);
			directory_unpin(&h->shared->directory, e);
		}
		pending_free(h, p);
	}
}

void hub_notices_fini(struct hub *h)
{
	while (!list_is_empty(&h->notices.pending))
		pending_free(h, CONTAINER_OF(list_first(&h->notices.pending), struct pending_notice,
					     node));
}

void hub_notice_joined(struct hub *h, struct member *m)
{
	struct directory_entry *e = m->channel->entry;

	/* It left, and nobody was told yet: then it was here all the time. */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__DISCONNECT, m->conn->id, e))
		return;
	/* With the newcomer alone there is nobody to tell. */
	if (atomic_load_explicit(&e->members, memory_order_relaxed) > 1)
		send_notice(h, e, WEBSOCKET__CONTROL_TYPE__CONNECT, m->conn->id, m);
}

void hub_leave(struct hub *h, struct member *m, bool tell)
{
	struct channel *ch = m->channel;
	struct conn *c = m->conn;

	/*
	 * It came, and nobody was told yet: then it was never here. In any case before it leaves,
	 * since the notice points to the membership.
	 */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__CONNECT, c->id, ch->entry))
		tell = false;
	hub_end_membership(h, m);
	/* The entry is still held by the channel, which goes last. */
	if (tell)
		send_notice(h, ch->entry, WEBSOCKET__CONTROL_TYPE__DISCONNECT, c->id, NULL);
	hub_close_channel_if_empty(h, ch);
}
