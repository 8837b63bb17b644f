/* SPDX-License-Identifier: MIT */
#include "worker/acks.h"

#include <stdlib.h>
#include <string.h>

#include "wire/msg.h"

/* A client for which some wait. */
struct WB_OWNER(worker) acks_sender {
	struct table_node node; /* in acks.senders */
	struct conn *conn;
	struct list waiting; /* of struct ack, oldest first */
	uint32_t n;
};

struct WB_OWNER(worker) ack {
	struct list sender_node;
	struct list channel_node; /* in channel.late_acks, oldest first */
	struct acks_sender *sender;
	struct member *through;
	uint64_t since_ns;
	struct acks_place place;
	size_t id_len;
	uint8_t id[];
};

void acks_init(struct acks *a)
{
	table_init(&a->senders);
}

void acks_fini(struct acks *a)
{
	WB_ASSERT(a->senders.n == 0);
	table_fini(&a->senders);
}

void acks_send(struct conn *c, const void *id, size_t n)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_id(&b, id, n);
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

void acks_send_through(struct member *through, const void *id, size_t n, struct acks_place place)
{
	Websocket__Position position, *one[] = {&position};
	struct conn *c = through->conn;
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_id(&b, id, n);
	msg_set_duplicate(&b, place.is_duplicate);
	if (place.sequence) {
		channel_position(through, &position);
		position.sequence = place.sequence;
		/* Its history may have been turned off meanwhile. */
		msg_set_positions(&b, one, position.epoch != 0);
	}
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

/* ---------------------------------------------------------------------- who has some */

/* Serials are the server's own: nobody chooses them. */
static struct acks_sender *sender_of(const struct acks *a, const struct conn *c)
{
	struct table_node *node = c->has_late_acks ? table_find(&a->senders, c->serial) : NULL;

	return node ? CONTAINER_OF(node, struct acks_sender, node) : NULL;
}

static struct acks_sender *sender_new(struct acks *a, struct conn *c)
{
	struct acks_sender *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->conn = c;
	list_init(&s->waiting);
	table_insert(&a->senders, &s->node, c->serial);
	c->has_late_acks = true;
	return s;
}

/* They are bounded like what waits in its own queue, and more so: no account has them. */
static void sender_judge(struct acks_sender *s)
{
	if (s->n > MIN(s->conn->env->config->message_queue_size / 2, (uint64_t)ACKS_WAITING_MAX))
		conn_pause(s->conn, CONN_PAUSE_ACKS);
	else
		conn_resume(s->conn, CONN_PAUSE_ACKS);
}

static struct ack *first_of(const struct acks_sender *s)
{
	return CONTAINER_OF(list_first(&s->waiting), struct ack, sender_node);
}

/*
 * It goes out, if its client is still to be spoken to. That may close the connection, for want of
 * memory, and with it release all others of it: whoever releases several looks anew each time.
 */
static void ack_release(struct acks *a, struct ack *k)
{
	struct acks_sender *s = k->sender;
	struct conn *c = s->conn;

	list_del(&k->sender_node);
	list_del(&k->channel_node);
	METRIC_SUB(c->env->metrics, acks_waiting, 1);
	if (--s->n == 0) {
		c->has_late_acks = false;
		table_remove(&a->senders, &s->node);
		conn_resume(c, CONN_PAUSE_ACKS);
		free(s);
	} else {
		sender_judge(s);
	}
	if (c->state == CONN_OPEN)
		acks_send_through(k->through, k->id, k->id_len, k->place);
	turn_charge(&c->env->turn, TURN_FRAME);
	free(k);
}

/* ---------------------------------------------------------------------------- waiting */

/* From the newest: mostly it is of the same channel. */
static struct ack *last_through(const struct acks_sender *s, const struct member *through)
{
	for (struct list *node = s->waiting.prev; node != &s->waiting; node = node->prev) {
		struct ack *k = CONTAINER_OF(node, struct ack, sender_node);

		if (k->through == through)
			return k;
	}
	return NULL;
}

bool acks_has(const struct acks *a, const struct member *through)
{
	const struct acks_sender *s = sender_of(a, through->conn);

	return s && last_through(s, through);
}

void acks_wait(struct acks *a, struct member *through, const void *id, size_t n,
	       struct acks_place place)
{
	size_t len = n <= MSG_REQUEST_ID_MAX ? n : 0;
	struct ack *k = calloc(1, sizeof(*k) + len);
	struct conn *c = through->conn;
	struct acks_sender *s = sender_of(a, c);

	if (k && !s)
		s = sender_new(a, c);
	if (!k || !s) {
		free(k);
		conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
		return;
	}
	k->sender = s;
	k->through = through;
	k->place = place;
	k->since_ns = c->env->reactor->now_ns;
	k->id_len = len;
	if (len)
		memcpy(k->id, id, len);
	list_add_tail(&s->waiting, &k->sender_node);
	list_add_tail(&through->channel->late_acks, &k->channel_node);
	METRIC_INC(c->env->metrics, acks_late);
	METRIC_ADD(c->env->metrics, acks_waiting, 1);
	if (++s->n == 1)
		conn_arm(c, k->since_ns + c->env->config->slow_consumer_grace);
	sender_judge(s);
}

void acks_send_behind(struct acks *a, struct conn *c, const void *id, size_t n)
{
	const struct acks_sender *s = sender_of(a, c);

	if (s)
		acks_wait(a, CONTAINER_OF(s->waiting.prev, struct ack, sender_node)->through, id, n,
			  (struct acks_place){0});
	else
		acks_send(c, id, n);
}

/* -------------------------------------------------------------------------- releasing */

bool acks_release_channel(struct acks *a, struct channel *ch)
{
	const struct turn *turn = &ch->env->conn->turn;

	/* One at least, so that it comes to an end. */
	while (!list_is_empty(&ch->late_acks)) {
		ack_release(a, CONTAINER_OF(list_first(&ch->late_acks), struct ack, channel_node));
		if (turn_is_over(turn))
			break;
	}
	return list_is_empty(&ch->late_acks);
}

static struct ack *first_through(const struct acks_sender *s, const struct member *through)
{
	LIST_FOREACH (node, &s->waiting) {
		struct ack *k = CONTAINER_OF(node, struct ack, sender_node);

		if (k->through == through)
			return k;
	}
	return NULL;
}

void acks_release_member(struct acks *a, struct member *m)
{
	struct conn *c = m->conn; /* @m may be gone before the last */
	struct acks_sender *s;
	struct ack *k;

	while ((s = sender_of(a, c)) && (k = first_through(s, m)))
		ack_release(a, k);
}

uint64_t acks_release_due(struct acks *a, struct conn *c, uint64_t now)
{
	struct acks_sender *s;

	while ((s = sender_of(a, c))) {
		uint64_t due = conn_deadline(c, first_of(s)->since_ns,
					     c->env->config->slow_consumer_grace);

		if (now < due)
			return due;
		ack_release(a, first_of(s));
	}
	return UINT64_MAX;
}

void acks_release_conn(struct acks *a, struct conn *c)
{
	struct acks_sender *s;

	while ((s = sender_of(a, c)))
		ack_release(a, first_of(s));
}

void acks_release_all(struct acks *a)
{
	struct table_node *node;

	while ((node = table_next(&a->senders, NULL)))
		acks_release_conn(a, CONTAINER_OF(node, struct acks_sender, node)->conn);
}
