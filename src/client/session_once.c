/* SPDX-License-Identifier: MIT */
/*
 * What a session has said and nobody has answered: said again on its next connection, under the
 * same request_id, which the server publishes once. wsbind-protocol(7), "Publish once".
 */
#include <errno.h>
#include <string.h>

#include "client/session_private.h"

/* With what one more read of input can bring it fits into an empty queue, on every connection. */
#define MAX_PENDING ((size_t)1000)
#define MAX_PENDING_BYTES ((size_t)512 << 10)

/* A message, as it was sent, and what was known of its channel then. */
struct session_said {
	struct session_said *next;
	uint64_t epoch, sequence;
	uint8_t id[16];
	size_t n;
	/* The message, and room for what marks a resend behind it. */
	uint8_t bytes[];
};

static void said_drop(struct session *s, struct session_said **at)
{
	struct session_said *said = *at;

	*at = said->next;
	if (!*at)
		s->said_end = at;
	s->n_said--;
	s->said_bytes -= said->n;
	free(said);
}

void session_note_said(struct session *s, const struct msg_builder *b, const uint8_t id[16])
{
	const struct position *home = session_home(s);
	size_t n = msg_size(b);
	struct session_said *said;

	/* A channel without history recognises nothing; some servers acknowledge nothing. */
	if (!s->group->keeps_identity || !home || home->epoch == 0 ||
	    (s->is_accepted && !s->is_once))
		return;
	said = malloc(sizeof(*said) + n + MSG_NUMBER_FIELD);
	/* Without memory it is said once, as by a client that knows nothing of this. */
	if (!said)
		return;
	*said = (struct session_said){.epoch = home->epoch, .sequence = home->sequence, .n = n};
	memcpy(said->id, id, sizeof(said->id));
	msg_pack(b, said->bytes);
	if (!s->said)
		s->said_end = &s->said;
	*s->said_end = said;
	s->said_end = &said->next;
	s->n_said++;
	s->said_bytes += n;
}

bool session_may_say(const struct session *s)
{
	return s->n_said < MAX_PENDING && s->said_bytes < MAX_PENDING_BYTES;
}

bool session_take_said(struct session *s, const Websocket__WebSocketMessage *m)
{
	struct session_said **at = &s->said;

	while (*at && !session_is_answer_to(m, (*at)->id))
		at = &(*at)->next;
	if (!*at)
		return false;
	if (m->control->type == WEBSOCKET__CONTROL_TYPE__ERROR && m->control->code == 409)
		session_report(s, "whether a message was published before the connection was lost "
				  "is not known: it is not sent again");
	said_drop(s, at);
	return true;
}

int session_say_again(struct session *s)
{
	const struct position *home = session_home(s);
	size_t lost = 0;
	int r = 0;

	for (struct session_said **at = &s->said; *at && r == 0;) {
		struct session_said *said = *at;

		/* Its numbers mean nothing in another epoch. */
		if (!home || said->epoch != home->epoch) {
			lost++;
			said_drop(s, at);
			continue;
		}
		msg_number_field(said->bytes + said->n, said->sequence);
		r = endpoint_send(&s->endpoint, WS_BINARY, said->bytes, said->n + MSG_NUMBER_FIELD);
		at = &said->next;
	}
	if (lost > 0)
		session_report(s,
			       "%zu messages were not acknowledged before the channel began "
			       "anew: whether they were published is not known",
			       lost);
	/* What finds no room now comes on the next connection, or is acknowledged on this one. */
	return r == ENDPOINT_E_FULL ? 0 : r;
}

void session_forget_said(struct session *s)
{
	while (s->said)
		said_drop(s, &s->said);
}
