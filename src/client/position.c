/* SPDX-License-Identifier: MIT */
#include "client/position.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

int position_parse(const char *text, size_t n, struct position *ret)
{
	char copy[POSITION_TEXT];
	uint64_t epoch, sequence;
	char *dot;

	if (n >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, n);
	copy[n] = '\0';
	dot = strchr(copy, '.');
	if (!dot)
		return -EINVAL;
	*dot = '\0';
	/* Epoch 0 is none: what a channel without history is said to have. */
	if (text_parse_count(copy, &epoch) < 0 || text_parse_count(dot + 1, &sequence) < 0 ||
	    !epoch)
		return -EINVAL;
	ret->epoch = epoch;
	ret->sequence = sequence;
	return 0;
}

char *position_format(char out[POSITION_TEXT], const struct position *p)
{
	out[0] = '\0';
	if (p->epoch)
		snprintf(out, POSITION_TEXT, "%" PRIu64 ".%" PRIu64, p->epoch, p->sequence);
	return out;
}

char *position_format_query(char out[POSITION_QUERY], const struct position *p)
{
	char text[POSITION_TEXT], rewind[24] = "";

	position_format(text, p);
	if (p->rewind)
		snprintf(rewind, sizeof(rewind), "%srewind=%" PRIu32, text[0] ? "&" : "",
			 p->rewind);
	snprintf(out, POSITION_QUERY, "%s%s%s", text[0] ? "since=" : "", text, rewind);
	return out;
}

bool position_fill(const struct position *p, Websocket__Position *ret)
{
	websocket__position__init(ret);
	ret->channel = (char *)(uintptr_t)p->channel;
	ret->epoch = p->epoch;
	ret->sequence = p->sequence;
	ret->rewind = p->rewind;
	return p->epoch || p->rewind;
}

struct position *position_find(struct position *list, size_t n,
			       const Websocket__WebSocketMessage *m)
{
	/* One of the lobby may say so, or leave it out. */
	const char *channel = m->has_channel_case ? m->channel : "";

	for (size_t i = 0; i < n; i++)
		if (!list[i].channel || strcmp(list[i].channel, channel) == 0)
			return &list[i];
	return NULL;
}

static void position_set(struct position *p, uint64_t epoch, uint64_t sequence)
{
	p->epoch = epoch;
	p->sequence = epoch ? sequence : 0;
}

enum position_answer position_take_join(struct position *p, const Websocket__Position *said)
{
	bool was_joined = p->is_joined, had_one = p->epoch;

	if (was_joined && !said)
		return POSITION_UNCHANGED;
	p->is_joined = true;
	position_set(p, said ? said->epoch : 0, said ? said->sequence : 0);
	/* A server that knows nothing of histories has recovered nothing, and says nothing. */
	if (had_one && (!said || !said->has_recovered_case || !said->recovered)) {
		p->has_missed = true;
		return POSITION_LOST;
	}
	return had_one ? POSITION_RECOVERED : POSITION_BEGUN;
}

void position_take_message(struct position *p, const Websocket__WebSocketMessage *m)
{
	/* Without a place of the channel there is nothing that the number could count from. */
	if (p->is_joined && p->epoch && m->has_sequence_case)
		p->sequence = m->sequence;
}

bool position_take_gap(struct position *p, const Websocket__ControlMessage *control)
{
	if (!p->is_joined || control->n_positions < 2)
		return false;
	p->has_missed = true;
	/* Also another epoch, and a place in it: what comes from here on has its numbers. */
	position_set(p, control->positions[1]->epoch, control->positions[1]->sequence);
	return true;
}

void position_take(struct position *p, const Websocket__ControlMessage *control)
{
	if (p->is_joined && control->n_positions == 1)
		position_set(p, control->positions[0]->epoch, control->positions[0]->sequence);
}
