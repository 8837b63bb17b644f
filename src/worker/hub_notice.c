/* SPDX-License-Identifier: MIT */
#include "worker/hub_private.h"

#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"

#define NOTICES_AT_ONCE 64 /* of one channel: in one send to each member */

/* Who came, or left. */
struct WB_VALUE notice {
	Websocket__ControlType type;
	uint8_t id[16];
	const char *user_id; /* borrowed */
};

/* Those of one channel that wait. */
struct notice_group {
	struct table_node node;        /* in hub_notices.groups, by the entry's slot */
	struct list turn_node;         /* in hub_notices.turns */
	struct directory_entry *entry; /* pinned: the channel may have no members here any more */
	struct list pending;           /* oldest first */
	uint32_t n;
};

/* A notice that waits: whom it is about. */
struct pending_notice {
	struct table_node node; /* in hub_notices.pending, by whom and where */
	struct list group_node;
	struct notice_group *group;
	struct member *about; /* of a join: leaving takes the notice back; else NULL */
	struct notice what;
	char user_id[]; /* of @what */
};

static struct frame *notice_frame(struct hub *h, const struct notice *what, const char *name)
{
	struct msg_builder b;
	sd_id128_t random;
	struct frame *f;
	char text[37];

	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	/* The lobby has no name: its notices name no channel, as its messages do. */
	uuid4_format(text, what->id);
	msg_init_control(&b, what->type);
	msg_set_own_request_id(&b, random.bytes);
	msg_set_session_id(&b, text);
	msg_set_user_id(&b, what->user_id);
	if (name[0])
		msg_set_channel(&b, name);
	f = frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
	if (f)
		f->flags |= FRAME_NOTICE;
	return f;
}

/* Of a channel that has members here, or had just now. */
static uint64_t notice_limit_of(struct hub *h, const struct directory_entry *e)
{
	const struct channel *ch = hub_channel_at(h, e->slot, e->generation);
	struct config_channel is;

	if (WB_LIKELY(ch))
		return ch->notice_limit;
	config_for_channel(h->env.config, e->name, &is);
	return is.notice_limit;
}

static bool notices_are_on(struct hub *h, struct directory_entry *e)
{
	uint32_t members = atomic_load_explicit(&e->members, memory_order_relaxed);

	return members > 0 && members <= notice_limit_of(h, e) &&
	       !conn_env_is_paused(&h->env, CONN_PAUSE_STOPPING) && !h->env.is_restoring;
}

/* ------------------------------------------------------------------- those that wait */

static struct notice_group *group_find(const struct hub *h, const struct directory_entry *e)
{
	struct table_node *node = table_find(&h->notices.groups, e->slot);

	/* A slot is pinned as long as its group is there: no two channels have the same. */
	return node ? CONTAINER_OF(node, struct notice_group, node) : NULL;
}

static struct notice_group *group_new(struct hub *h, struct directory_entry *e)
{
	struct notice_group *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->entry = e;
	directory_pin_entry(&h->shared->directory, e);
	list_init(&g->pending);
	list_add_tail(&h->notices.turns, &g->turn_node);
	table_insert(&h->notices.groups, &g->node, e->slot);
	return g;
}

static void group_free(struct hub *h, struct notice_group *g)
{
	list_del(&g->turn_node);
	table_remove(&h->notices.groups, &g->node);
	directory_unpin(&h->shared->directory, g->entry);
	free(g);
}

static uint64_t pending_hash(const struct hub *h, const uint8_t id[16], uint32_t slot)
{
	uint8_t whom[16 + sizeof(slot)];

	memcpy(whom, id, 16);
	memcpy(whom + 16, &slot, sizeof(slot));
	return siphash(&h->shared->directory.key, whom, sizeof(whom));
}

static struct pending_notice *pending_find(const struct hub *h, const uint8_t id[16],
					   const struct directory_entry *e)
{
	struct table_node *node = table_find(&h->notices.pending, pending_hash(h, id, e->slot));

	for (; node; node = table_find_next(node)) {
		struct pending_notice *p = CONTAINER_OF(node, struct pending_notice, node);

		if (p->group->entry == e && memcmp(p->what.id, id, sizeof(p->what.id)) == 0)
			return p;
	}
	return NULL;
}

/* The group goes with its last one, and the entry may go with that. */
static void pending_free(struct hub *h, struct pending_notice *p)
{
	struct notice_group *g = p->group;

	table_remove(&h->notices.pending, &p->node);
	list_del(&p->group_node);
	free(p);
	if (--g->n == 0)
		group_free(h, g);
}

/* Takes back a notice that still waits; false when there is none. */
static bool cancel_pending(struct hub *h, Websocket__ControlType type, const uint8_t id[16],
			   const struct directory_entry *e)
{
	struct pending_notice *p = h->notices.pending.n ? pending_find(h, id, e) : NULL;

	if (!p || p->what.type != type)
		return false;
	pending_free(h, p);
	return true;
}

static void keep_pending(struct hub *h, const struct notice *what, struct directory_entry *e,
			 struct member *about)
{
	size_t user_n = strlen(what->user_id) + 1;
	struct pending_notice *p =
		h->notices.pending.n < HUB_PENDING_NOTICES ? calloc(1, sizeof(*p) + user_n) : NULL;
	struct notice_group *g = group_find(h, e);

	if (p && !g)
		g = group_new(h, e);
	/* Past the bound it is lost like one that a log sheds, and counted like it. */
	if (!p || !g) {
		free(p);
		METRIC_INC(h->env.metrics, notices_skipped);
		return;
	}
	p->group = g;
	p->what = *what;
	p->what.user_id = memcpy(p->user_id, what->user_id, user_n);
	p->about = about;
	list_add_tail(&g->pending, &p->group_node);
	g->n++;
	table_insert(&h->notices.pending, &p->node, pending_hash(h, what->id, e->slot));
}

/* ------------------------------------------------------------------------- telling */

static void publish_notice(struct hub *h, struct directory_entry *e, const struct notice *what,
			   struct member *about)
{
	struct frame *f = notice_frame(h, what, e->name);

	if (!f)
		return;
	METRIC_INC(h->env.metrics, notices_sent);
	turn_charge(&h->env.turn, TURN_FRAME);
	hub_reserve_number(h, e);
	(void)hub_publish(h, e, f, about, NULL);
}

/* Notices of one channel cost each member a send, however many they are, and all their bytes. */
static void charge_notices(struct hub *h, const struct directory_entry *e, uint32_t n)
{
	uint32_t members = atomic_load_explicit(&e->members, memory_order_relaxed);
	uint32_t cost = 1 + members + (members + 4) * n / 16;

	h->notices.left -= MIN(cost, h->notices.left);
}

static void send_notice(struct hub *h, struct directory_entry *e, const struct notice *what,
			struct member *about)
{
	/* Where some wait already, those of their channels among them, it waits behind them. */
	if (conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) || h->notices.left == 0 ||
	    h->notices.pending.n > 0) {
		keep_pending(h, what, e, about);
		return;
	}
	charge_notices(h, e, 1);
	publish_notice(h, e, what, about);
}

/* That a connection has come or gone. */
static void send_notice_of(struct hub *h, struct directory_entry *e, Websocket__ControlType type,
			   const struct conn *c, struct member *about)
{
	char user[CONN_USER_MAX];
	struct notice what = {.type = type};

	/* Before anything is formatted that nobody will read. */
	if (!notices_are_on(h, e))
		return;
	memcpy(what.id, c->id, sizeof(what.id));
	what.user_id = conn_format_user(user, c);
	send_notice(h, e, &what, about);
}

/* Sends some of the first channel's; it stands last then, or is gone with its last one. */
static void group_send(struct hub *h, struct notice_group *g)
{
	/* Asked anew: the channel may have grown past notice_limit, or have nobody left. */
	bool is_on = notices_are_on(h, g->entry);
	uint32_t n = is_on ? MIN(g->n, (uint32_t)NOTICES_AT_ONCE) : g->n;

	charge_notices(h, g->entry, n);
	list_del(&g->turn_node);
	list_add_tail(&h->notices.turns, &g->turn_node);
	while (n-- > 0 && !conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED)) {
		struct pending_notice *p =
			CONTAINER_OF(list_first(&g->pending), struct pending_notice, group_node);

		if (is_on)
			publish_notice(h, g->entry, &p->what, p->about);
		pending_free(h, p);
	}
}

void hub_notices_send(struct hub *h, bool all)
{
	while ((all || (h->notices.left > 0 && !turn_is_over(&h->env.turn))) &&
	       !list_is_empty(&h->notices.turns) &&
	       !conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED))
		group_send(h, CONTAINER_OF(list_first(&h->notices.turns), struct notice_group,
					   turn_node));
}

void hub_notices_init(struct hub *h)
{
	list_init(&h->absences);
	list_init(&h->notices.turns);
	table_init(&h->notices.groups);
	table_init(&h->notices.pending);
	hub_notices_begin_turn(h);
}

void hub_notice_joined(struct hub *h, struct member *m)
{
	struct directory_entry *e = m->channel->entry;

	/* It is back within its grace, and has never been away. */
	if (m->conn->may_resume &&
	    registry_end_absence(&h->shared->registry, m->conn->id, e->name, 0))
		return;
	/* It left, and nobody was told yet: then it was here all the time. */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__DISCONNECT, m->conn->id, e))
		return;
	/* With the newcomer alone there is nobody to tell. */
	if (atomic_load_explicit(&e->members, memory_order_relaxed) > 1)
		send_notice_of(h, e, WEBSOCKET__CONTROL_TYPE__CONNECT, m->conn, m);
}

/* ------------------------------------------------------------------ telling it later */

/* Somebody who may come back has left a channel. */
struct absence {
	struct list node; /* in the hub's absences */
	struct wheel_timer timer;
	struct hub *hub;
	uint8_t id[16];
	const char *user_id; /* behind the channel's name */
	char channel[];
};

static void absence_tell(struct hub *h, const struct absence *a)
{
	struct notice what = {.type = WEBSOCKET__CONTROL_TYPE__DISCONNECT, .user_id = a->user_id};
	struct directory_entry *e =
		directory_pin(&h->shared->directory, a->channel, strlen(a->channel));

	/* It was the last one there. */
	if (!e)
		return;
	memcpy(what.id, a->id, sizeof(what.id));
	if (notices_are_on(h, e))
		send_notice(h, e, &what, NULL);
	directory_unpin(&h->shared->directory, e);
}

static void absence_over(struct wheel_timer *t)
{
	struct absence *a = CONTAINER_OF(t, struct absence, timer);
	struct hub *h = a->hub;

	list_del(&a->node);
	if (registry_end_absence(&h->shared->registry, a->id, a->channel, t->deadline_ns))
		absence_tell(h, a);
	free(a);
}

/* Return: NULL without memory. Its timer runs. */
static struct absence *absence_new(struct hub *h, const uint8_t id[16], const char *user_id,
				   const char *channel, uint64_t due_ns)
{
	size_t n = strlen(channel) + 1, user_n = strlen(user_id) + 1;
	struct absence *a = calloc(1, sizeof(*a) + n + user_n);

	if (!a)
		return NULL;
	a->hub = h;
	memcpy(a->id, id, sizeof(a->id));
	memcpy(a->channel, channel, n);
	a->user_id = memcpy(a->channel + n, user_id, user_n);
	list_add_tail(&h->absences, &a->node);
	wheel_timer_init(&a->timer, absence_over);
	wheel_add(&h->env.reactor->wheel, &a->timer, due_ns);
	return a;
}

static void absence_free(struct absence *a)
{
	list_del(&a->node);
	wheel_del(&a->hub->env.reactor->wheel, &a->timer);
	free(a);
}

/* False: others are to be told now. */
static bool begin_absence(struct hub *h, const struct conn *c, const char *channel)
{
	uint64_t due_ns = h->env.reactor->now_ns + h->env.config->leave_grace;
	char user[CONN_USER_MAX];
	struct absence *a;

	if (h->env.config->leave_grace == 0)
		return false;
	a = absence_new(h, c->id, conn_format_user(user, c), channel, due_ns);
	if (a && registry_begin_absence(&h->shared->registry, c->id, channel, due_ns))
		return true;
	if (a)
		absence_free(a);
	return false;
}

void hub_restore_absence(struct hub *h, const uint8_t id[16], const char *user_id,
			 const char *channel, uint64_t due_ns)
{
	/* Without memory it is one that nobody is ever told of, like a notice that is shed. */
	if (!absence_new(h, id, user_id, channel, due_ns))
		METRIC_INC(h->env.metrics, notices_skipped);
}

void hub_leave(struct hub *h, struct member *m, enum hub_telling tell)
{
	struct channel *ch = m->channel;
	struct conn *c = m->conn;
	uint8_t state = c->state;

	/*
	 * What was said through it is acknowledged first, and for want of memory that may end it.
	 */
	if (c->has_late_acks)
		acks_release_member(&h->acks, m);
	if (c->state != state)
		return;
	/*
	 * It came, and nobody was told yet: then it was never here. In any case before it leaves,
	 * since the notice points to the membership.
	 */
	if (cancel_pending(h, WEBSOCKET__CONTROL_TYPE__CONNECT, c->id, ch->entry))
		tell = HUB_TELL_NOBODY;
	hub_end_membership(h, m);
	/* The entry is still held by the channel, which goes last. */
	if (tell == HUB_TELL_LATER && begin_absence(h, c, ch->entry->name))
		tell = HUB_TELL_NOBODY;
	if (tell != HUB_TELL_NOBODY)
		send_notice_of(h, ch->entry, WEBSOCKET__CONTROL_TYPE__DISCONNECT, c, NULL);
	hub_close_channel_if_empty(h, ch);
}

void hub_notices_fini(struct hub *h)
{
	struct table_node *node;
	struct list *first;

	while ((first = list_first(&h->absences)))
		absence_free(CONTAINER_OF(first, struct absence, node));
	while ((node = table_next(&h->notices.pending, NULL)))
		pending_free(h, CONTAINER_OF(node, struct pending_notice, node));
	table_fini(&h->notices.pending);
	table_fini(&h->notices.groups);
}
