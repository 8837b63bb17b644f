/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "worker/protocol.h"
#include "worker/protocol_private.h"

/*
 * The channel of its path is where a client's messages go that name none. It may be left like
 * any other: then only its name is kept, and once it is joined again they go there again.
 */
const char *protocol_path_channel(const struct conn *c)
{
	return c->path_member.channel ? c->path_member.channel->entry->name
				      : conn_left_path_channel(c);
}

struct member *protocol_path_membership(struct conn *c)
{
	const char *left = conn_left_path_channel(c);

	if (c->path_member.channel)
		return &c->path_member;
	/* Joined again by its name it has a membership like any other. */
	return left ? hub_membership(hub_of(c), c, left, strlen(left)) : NULL;
}

/* --------------------------------------------------------------- lists of channels */

/* Those that it names, by themselves or with a position: a position comes first. */
static size_t n_names(const message *m)
{
	return m->control->n_positions + m->control->n_channels;
}

static const char *name_at(const message *m, size_t i)
{
	return i < m->control->n_positions ? m->control->positions[i]->channel
					   : m->control->channels[i - m->control->n_positions];
}

static bool check_names(struct conn *c, const message *m)
{
	static_assert(DIRECTORY_NAME_MAX == 255, "the reason says so");

	if (n_names(m) == 0) {
		protocol_refuse(c, m, 400, "channels is empty");
		return false;
	}
	if (n_names(m) > c->env->config->max_channels_per_client) {
		protocol_refuse_for_limit(c, m, 429, "max_channels_per_client", NULL);
		return false;
	}
	/* Each is work like a frame; the first is what the frame itself was counted for. */
	conn_charge_frames(c, n_names(m) - 1);
	/* That they are UTF-8 without NUL was seen to when the message was decoded. */
	for (size_t i = 0; i < n_names(m); i++) {
		if (strlen(name_at(m, i)) > DIRECTORY_NAME_MAX) {
			protocol_refuse(c, m, 413, "a channel's name is longer than 255 bytes");
			return false;
		}
	}
	return true;
}

static bool check_allowed(struct conn *c, const message *m)
{
	for (size_t i = 0; c->grant && i < n_names(m); i++) {
		if (!grant_allows(c->grant, name_at(m, i))) {
			protocol_refuse_in(c, m, 403, "not allowed to join the channel",
					   name_at(m, i));
			return false;
		}
	}
	return true;
}

/*
 * "/room/7" is what the path of the channel "room/7" looks like, and as a name another channel,
 * in which nobody would ever be met. Who means that one has its path, "//room/7".
 */
static bool check_slashes(struct conn *c, const message *m)
{
	for (size_t i = 0; i < n_names(m); i++) {
		if (name_at(m, i)[0] != '/')
			continue;
		protocol_refuse_in(c, m, 400,
				   "a channel's name has no \"/\" in front: leave it out",
				   name_at(m, i));
		return false;
	}
	return true;
}

/* What is said of where each begins, in one list. */
struct answer {
	Websocket__Position *position;
	Websocket__Position **list;
	size_t n;
};

static void answer_fini(struct answer *a)
{
	free(a->position);
	free(a->list);
}

/* Whatever it returns, answer_fini() comes next. */
static int answer_init(struct answer *a, size_t n)
{
	*a = (struct answer){.position = calloc(n, sizeof(*a->position)),
			     .list = calloc(n, sizeof(*a->list))};
	return a->position && a->list ? 0 : -ENOMEM;
}

/* An epoch is never 0: without one there is no position, unless nothing else was asked for. */
static struct history_since since_of(const message *m, size_t i)
{
	const Websocket__Position *p =
		i < m->control->n_positions ? m->control->positions[i] : NULL;
	struct history_since since = {0};

	if (!p)
		return since;
	since.has_rewind = p->rewind > 0;
	since.rewind = p->rewind;
	since.has_position = p->epoch || p->sequence || !since.has_rewind;
	since.epoch = p->epoch;
	since.sequence = p->sequence;
	return since;
}

/* Return: 0, also when it is a member already; else as hub_join(). */
static int join_channel(struct conn *c, const message *m, size_t i, struct answer *answer)
{
	const struct history_since since = since_of(m, i);
	const char *name = name_at(m, i);
	struct hub_joined joined;
	int r = hub_join(hub_of(c), c, name, strlen(name), &since, &joined);

	if (r == HUB_E_MEMBER)
		return 0;
	if (r == 0 && protocol_joined_position(&joined, name, &answer->position[answer->n])) {
		answer->list[answer->n] = &answer->position[answer->n];
		answer->n++;
	}
	return r;
}

static void leave_channel(struct conn *c, struct member *m, enum hub_telling tell)
{
	/* The channel may go with its last member; its name is needed after that. */
	if (m == &c->path_member)
		conn_set_left_path_channel(c, m->channel->entry->name);
	hub_leave(hub_of(c), m, tell);
}

static void refuse_subscription(struct conn *c, const message *m, int r, const char *channel)
{
	switch (r) {
	case HUB_E_TOO_MANY:
		protocol_refuse_for_limit(c, m, 429, "max_channels_per_client", channel);
		break;
	case HUB_E_FULL:
		protocol_refuse_for_limit(c, m, 503, "max_channels", channel);
		break;
	default:
		protocol_refuse(c, m, 503, "out of memory");
		break;
	}
}

void protocol_subscribe(struct conn *c, const message *m)
{
	struct member *before = c->members;
	WB_CLEANUP(answer_fini) struct answer answer = {0};
	const char *last = NULL;
	int r;

	if (!check_names(c, m) || !check_slashes(c, m) || !check_allowed(c, m))
		return;
	c->has_positions |= m->control->n_positions > 0;
	r = answer_init(&answer, n_names(m));
	for (size_t i = 0; i < n_names(m) && r == 0; i++) {
		last = name_at(m, i);
		r = join_channel(c, m, i, &answer);
	}
	if (r) {
		/* The list is taken whole or not at all; new memberships stand first. */
		while (c->members != before)
			leave_channel(c, c->members, HUB_TELL_NOBODY);
		refuse_subscription(c, m, r, last);
		return;
	}
	/* Who asked has its answer before others learn of it, and say something to it. */
	protocol_send_positions(c, m, answer.list, answer.n);
	if (c->state != CONN_OPEN)
		return; /* without memory for the answer, and without its memberships */
	for (struct member *joined = c->members; joined != before; joined = joined->sibling)
		hub_notice_joined(hub_of(c), joined);
}

static bool check_memberships(struct conn *c, const message *m)
{
	for (size_t i = 0; i < n_names(m); i++) {
		const char *name = name_at(m, i);

		if (!hub_membership(hub_of(c), c, name, strlen(name))) {
			protocol_refuse_in(c, m, 404, "not a member of the channel", name);
			return false;
		}
	}
	return true;
}

void protocol_position(struct conn *c, const message *m)
{
	const void *id = m->request_id.data;
	size_t n = m->request_id.len;

	/* Whoever asks knows what it is told. */
	c->has_positions = true;
	if (n_names(m) == 0) {
		conn_charge_frames(c, c->n_members);
		for (struct member *in = c->members; in && c->state == CONN_OPEN; in = in->sibling)
			channel_send_position(in, id, n);
		return;
	}
	if (!check_names(c, m) || !check_memberships(c, m))
		return;
	for (size_t i = 0; i < n_names(m) && c->state == CONN_OPEN; i++)
		channel_send_position(
			hub_membership(hub_of(c), c, name_at(m, i), strlen(name_at(m, i))), id, n);
}

void protocol_unsubscribe(struct conn *c, const message *m)
{
	struct hub *h = hub_of(c);

	/* All are looked at before the first is left: this list is whole or nothing, too. */
	if (!check_names(c, m) || !check_memberships(c, m))
		return;
	for (size_t i = 0; i < n_names(m); i++) {
		const char *name = name_at(m, i);
		struct member *left = hub_membership(h, c, name, strlen(name));

		if (left) /* unless the list names it twice */
			leave_channel(c, left, HUB_TELL);
	}
	protocol_send_ack(c, m);
}
