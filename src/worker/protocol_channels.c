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

static bool check_names(struct conn *c, const message *m)
{
	static_assert(DIRECTORY_NAME_MAX == 255, "the reason says so");

	if (m->control->n_channels == 0) {
		protocol_refuse(c, m, 400, "channels is empty");
		return false;
	}
	if (m->control->n_channels > c->env->config->max_channels_per_client) {
		protocol_refuse_for_limit(c, m, 429, "max_channels_per_client", NULL);
		return false;
	}
	/* Each is work like a frame; the first is what the frame itself was counted for. */
	conn_charge_frames(c, m->control->n_channels - 1);
	/* That they are UTF-8 without NUL was seen to when the message was decoded. */
	for (size_t i = 0; i < m->control->n_channels; i++) {
		if (strlen(m->control->channels[i]) > DIRECTORY_NAME_MAX) {
			protocol_refuse(c, m, 413, "a channel's name is longer than 255 bytes");
			return false;
		}
	}
	return true;
}

static bool check_allowed(struct conn *c, const message *m)
{
	for (size_t i = 0; c->grant && i < m->control->n_channels; i++) {
		if (!grant_allows(c->grant, m->control->channels[i])) {
			protocol_refuse_in(c, m, 403, "not allowed to join the channel",
					   m->control->channels[i]);
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
	for (size_t i = 0; i < m->control->n_channels; i++) {
		if (m->control->channels[i][0] != '/')
			continue;
		protocol_refuse_in(c, m, 400,
				   "a channel's name has no \"/\" in front: leave it out",
				   m->control->channels[i]);
		return false;
	}
	return true;
}

/* Return: 0, also when it is a member already; else as hub_join(). */
static int join_channel(struct conn *c, const char *name)
{
	int r = hub_join(hub_of(c), c, name, strlen(name));

	return r == HUB_E_MEMBER ? 0 : r;
}

static void leave_channel(struct conn *c, struct member *m, bool tell)
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
	const char *last = NULL;
	int r = 0;

	if (!check_names(c, m) || !check_slashes(c, m) || !check_allowed(c, m))
		return;
	for (size_t i = 0; i < m->control->n_channels && r == 0; i++) {
		last = m->control->channels[i];
		r = join_channel(c, last);
	}
	if (r) {
		/* The list is taken whole or not at all; new memberships stand first. */
		while (c->members != before)
			leave_channel(c, c->members, false);
		refuse_subscription(c, m, r, last);
		return;
	}
	/* Who asked has its answer before others learn of it, and say something to it. */
	protocol_send_ack(c, m);
	if (c->state != CONN_OPEN)
		return; /* without memory for the answer, and without its memberships */
	for (struct member *joined = c->members; joined != before; joined = joined->sibling)
		hub_notice_joined(hub_of(c), joined);
}

void protocol_unsubscribe(struct conn *c, const message *m)
{
	struct hub *h = hub_of(c);

	if (!check_names(c, m))
		return;
	/* All are looked at before the first is left: this list is whole or nothing, too. */
	for (size_t i = 0; i < m->control->n_channels; i++) {
		const char *name = m->control->channels[i];

		if (!hub_membership(h, c, name, strlen(name))) {
			protocol_refuse_in(c, m, 404, "not a member of the channel", name);
			return;
		}
	}
	for (size_t i = 0; i < m->control->n_channels; i++) {
		const char *name = m->control->channels[i];
		struct member *left = hub_membership(h, c, name, strlen(name));

		if (left) /* unless the list names it twice */
			leave_channel(c, left, true);
	}
	protocol_send_ack(c, m);
}
