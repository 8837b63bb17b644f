/* SPDX-License-Identifier: MIT */
/* How far a session has got in its channels, and how each of its connections goes on from there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "client/session_private.h"
#include "client/system.h"

#define ID_PREFIX ((size_t)12) /* bytes of a request_id before the number */
#define CHANNELS_BESIDE(s) ((s)->group->n_positions - 1) /* the home is the first */

/* ------------------------------------------------------------------------ requests */

/* All of a session begin with the same bytes: so it knows its own, whichever connection sent it. */
void session_init_id(struct session *s)
{
	char text[SESSION_UUID_TEXT];
	uint8_t random[16];

	system_random_bytes(random, sizeof(random));
	uuid4_format(text, random);
	(void)!uuid_parse(text, s->id); /* it is one */
	memset(s->id + ID_PREFIX, 0, sizeof(s->id) - ID_PREFIX);
}

void session_next_id(struct session *s, uint8_t ret[16])
{
	/* A number of four bytes, the last of which counts fastest. */
	for (size_t i = sizeof(s->id); i > ID_PREFIX && ++s->id[i - 1] == 0; i--) {
	}
	memcpy(ret, s->id, sizeof(s->id));
}

bool session_is_own(const struct session *s, const Websocket__WebSocketMessage *m)
{
	return m->request_id.len == sizeof(s->id) &&
	       memcmp(m->request_id.data, s->id, ID_PREFIX) == 0;
}

bool session_is_answer_to(const Websocket__WebSocketMessage *m, const uint8_t id[16])
{
	return m->request_id.len == 16 && memcmp(m->request_id.data, id, 16) == 0;
}

/* ----------------------------------------------------------------------- positions */

static void session_subscribe_due(struct wheel_timer *t)
{
	struct session *s = CONTAINER_OF(t, struct session, subscribe_again);

	if (session_subscribe(s) < 0)
		session_fail(s, "out of memory");
}

int session_init_positions(struct session *s)
{
	const struct session_group *g = s->group;

	wheel_timer_init(&s->subscribe_again, session_subscribe_due);
	if (g->n_positions == 0)
		return 0;
	s->positions = calloc(g->n_positions, sizeof(*s->positions));
	if (!s->positions)
		return -ENOMEM;
	memcpy(s->positions, g->positions, g->n_positions * sizeof(*s->positions));
	return 0;
}

void session_bring_position(struct session *s)
{
	char at[POSITION_QUERY] = "";

	if (s->group->n_positions > 0)
		position_format_query(at, &s->positions[0]);
	/* Each attempt counts: the answer to the one before may be lost. */
	if (s->resume_token[0])
		snprintf(s->query, sizeof(s->query), "%s%sresume=%s&attempt=%u", at,
			 at[0] ? "&" : "", s->resume_token, ++s->attempts_with_it);
	else
		snprintf(s->query, sizeof(s->query), "%s", at);
	endpoint_set_query(&s->endpoint, s->query);
}

void session_take_token(struct session *s, const Websocket__ControlMessage *control)
{
	const ProtobufCBinaryData *token = &control->resume_token;

	/* One that is too long is none of this protocol's. */
	if (!s->group->keeps_identity || token->len == 0 || token->len >= sizeof(s->resume_token))
		return;
	memcpy(s->resume_token, token->data, token->len);
	s->resume_token[token->len] = '\0';
	s->attempts_with_it = 0;
}

void session_drop_token(struct session *s)
{
	s->resume_token[0] = '\0';
	s->attempts_with_it = 0;
}

void session_leave_all(struct session *s)
{
	wheel_del(&s->group->loop->reactor.wheel, &s->subscribe_again);
	for (size_t i = 0; i < s->group->n_positions; i++)
		position_leave(&s->positions[i]);
}

/* ---------------------------------------------------------------------- what is asked */

static struct msg_builder *control_init(struct session *s, struct msg_builder *b,
					Websocket__ControlType type, uint8_t id[16])
{
	session_next_id(s, id);
	msg_init_control(b, type);
	msg_set_request_id(b, id, 16);
	return b;
}

int session_subscribe(struct session *s)
{
	size_t n = s->group->n_positions ? CHANNELS_BESIDE(s) : 0, n_names = 0, n_places = 0;
	WB_CLEANUP(ptr_freep) Websocket__Position *place = NULL;
	WB_CLEANUP(ptr_freep) Websocket__Position **places = NULL;
	WB_CLEANUP(ptr_freep) char **names = NULL;
	struct msg_builder b;
	int r;

	if (n == 0)
		return 0;
	place = calloc(n, sizeof(*place));
	places = calloc(n, sizeof(*places));
	names = calloc(n, sizeof(*names));
	if (!place || !places || !names)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (position_fill(&s->positions[1 + i], &place[n_places])) {
			places[n_places] = &place[n_places];
			n_places++;
		} else {
			names[n_names++] = place[n_places].channel;
		}
	}
	control_init(s, &b, WEBSOCKET__CONTROL_TYPE__SUBSCRIBE, s->subscribe_id);
	msg_set_channels(&b, names, n_names);
	msg_set_positions(&b, places, n_places);
	r = endpoint_send_msg(&s->endpoint, &b);
	return r < 0 ? r : 0; /* the first messages of a connection always have room */
}

/*
 * Whoever asks for its positions takes part from then on: it is told of gaps, also where it came
 * without a position; and of a channel that has had no history so far it learns whether it has one.
 */
static void session_ask_positions(struct session *s)
{
	struct msg_builder b;
	uint8_t id[16];

	control_init(s, &b, WEBSOCKET__CONTROL_TYPE__POSITION, id);
	/* Where there is no room, or no memory, the answers to the joins are what is known. */
	(void)!endpoint_send_msg(&s->endpoint, &b);
}

/* ----------------------------------------------------------------- what is answered */

static const Websocket__Position *said_of(const Websocket__ControlMessage *control,
					  const char *channel)
{
	for (size_t i = 0; i < control->n_positions; i++)
		if (strcmp(control->positions[i]->channel, channel) == 0)
			return control->positions[i];
	return NULL;
}

static void session_join(struct session *s, struct position *p, const Websocket__Position *said)
{
	enum position_answer answer = position_take_join(p, said);

	if (answer != POSITION_UNCHANGED)
		s->group->ops->joined(s, p, answer);
}

void session_take_config(struct session *s, const Websocket__WebSocketMessage *m)
{
	const Websocket__ControlMessage *control = m->control;
	unsigned caps = msg_caps_parse(control->capabilities, control->n_capabilities);

	if (s->group->n_positions == 0)
		return;
	/* Of the home alone: it names what it joined, whatever we call it. */
	session_join(s, &s->positions[0], control->n_positions ? control->positions[0] : NULL);
	/* Behind the channels of a SUBSCRIBE it asks for all of them at once. */
	if (caps & MSG_CAP_RESUME && CHANNELS_BESIDE(s) == 0)
		session_ask_positions(s);
}

/* Only what passes may be asked for again: ERROR 429 and 503. */
static void session_take_refusal(struct session *s, const Websocket__ControlMessage *control)
{
	bool may_pass = control->code == 429 || control->code == 503;
	uint64_t delay_ns = 0;
	char reason[256];
	uint32_t random;

	text_escape(reason, sizeof(reason), control->reason, strlen(control->reason));
	system_random_bytes(&random, sizeof(random));
	if (!may_pass || !backoff_next(&s->backoff, random, &delay_ns)) {
		session_fail(s, "the server refuses to subscribe: %s (%u)", reason, control->code);
		return;
	}
	delay_ns = MAX(delay_ns, control->reconnect_after_ms * NS_PER_MS);
	delay_ns = MIN(delay_ns, BACKOFF_MAX_NS);
	session_report(s, "the server refuses to subscribe: %s (%u); again in %.1f s", reason,
		       control->code, (double)delay_ns / NS_PER_S);
	wheel_add(&s->group->loop->reactor.wheel, &s->subscribe_again, clock_now_ns() + delay_ns);
}

bool session_take_join(struct session *s, const Websocket__WebSocketMessage *m)
{
	const Websocket__ControlMessage *control = m->control;

	if (s->group->n_positions < 2 || !session_is_answer_to(m, s->subscribe_id))
		return false;
	if (control->type == WEBSOCKET__CONTROL_TYPE__ERROR) {
		session_take_refusal(s, control);
		return true;
	}
	backoff_reset(&s->backoff);
	for (size_t i = 1; i < s->group->n_positions; i++)
		session_join(s, &s->positions[i], said_of(control, s->positions[i].channel));
	session_ask_positions(s);
	return true;
}

/* ---------------------------------------------------------------- while it lasts */

static struct position *session_position(struct session *s, const Websocket__WebSocketMessage *m)
{
	return position_find(s->positions, s->group->n_positions, m);
}

void session_take_gap(struct session *s, const Websocket__WebSocketMessage *m)
{
	struct position *p = session_position(s, m);

	if (p && position_take_gap(p, m->control))
		s->group->ops->missed(s, p, m->control);
}

void session_take_position(struct session *s, const Websocket__WebSocketMessage *m)
{
	struct position *p = session_position(s, m);

	if (p)
		position_take(p, m->control);
}

void session_take_sequence(struct session *s, const Websocket__WebSocketMessage *m)
{
	struct position *p = session_position(s, m);

	if (p)
		position_take_message(p, m);
}
