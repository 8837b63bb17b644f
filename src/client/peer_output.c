/* SPDX-License-Identifier: MIT */
/* What goes out: a queue of masked frames, sent once a turn. */
#include "client/peer_private.h"

#include <errno.h>
#include <string.h>

/* RFC 6455 section 5.3 wants keys that nobody can predict; one system call serves a thousand. */
static const uint8_t *peer_next_key(struct peer_loop *l)
{
	if (l->keys_left < 4) {
		peer_random(l->keys, sizeof(l->keys));
		l->keys_left = sizeof(l->keys);
	}
	l->keys_left -= 4;
	return l->keys + l->keys_left;
}

/* Room for @n bytes behind the queue, and a place among those that are sent at the turn's end. */
static int peer_make_room(struct peer *p, size_t n)
{
	if (p->out_sent > 0 && p->out_sent >= p->out.len / 2) {
		buf_consume(&p->out, p->out_sent);
		p->out_sent = 0;
	}
	if (list_is_empty(&p->in_unsent))
		list_add_tail(&p->loop->unsent, &p->in_unsent);
	return buf_reserve(&p->out, n, BUF_NO_LIMIT);
}

int peer_queue(struct peer *p, const void *data, size_t n)
{
	int r = peer_make_room(p, n);

	return r < 0 ? r : buf_append(&p->out, data, n, BUF_NO_LIMIT);
}

/* Writes a frame's head; its payload of @n bytes is to be written behind it, then masked. */
static int peer_begin_frame(struct peer *p, uint8_t opcode, size_t n, const uint8_t **ret_key)
{
	int r = peer_make_room(p, WS_MAX_HEAD + n);

	if (r < 0)
		return r;
	*ret_key = peer_next_key(p->loop);
	p->out.len += ws_encode_head(p->out.data + p->out.len, true, 0, opcode, n, *ret_key);
	return 0;
}

static void peer_end_frame(struct peer *p, size_t n, const uint8_t *key)
{
	ws_mask(p->out.data + p->out.len, n, key, 0);
	p->out.len += n;
}

/* Whether a message of @n bytes may be queued. One alone always may. */
static int peer_admit(struct peer *p, size_t n)
{
	size_t queued = peer_queued(p), limit = p->loop->limits.queue_bytes;

	reactor_assert_here(&p->loop->reactor);
	if (p->state != PEER_OPEN)
		return PEER_E_NOT_OPEN;
	if (queued == 0 || (queued <= limit && n + WS_MAX_HEAD <= limit - queued))
		return 0;
	p->was_refused_room = true;
	return PEER_E_FULL;
}

int peer_send(struct peer *p, uint8_t opcode, const void *data, size_t n)
{
	const uint8_t *key;
	int r = peer_admit(p, n);

	if (r == 0)
		r = peer_begin_frame(p, opcode, n, &key);
	if (r != 0)
		return r;
	if (n > 0)
		memcpy(p->out.data + p->out.len, data, n);
	peer_end_frame(p, n, key);
	return 0;
}

int peer_send_msg(struct peer *p, const struct msg_builder *b)
{
	size_t n = msg_size(b);
	const uint8_t *key;
	int r = peer_admit(p, n);

	if (r == 0)
		r = peer_begin_frame(p, WS_BINARY, n, &key);
	if (r != 0)
		return r;
	msg_pack(b, p->out.data + p->out.len);
	peer_end_frame(p, n, key);
	return 0;
}

void peer_queue_control(struct peer *p, uint8_t opcode, const void *data, size_t n)
{
	const uint8_t *key;

	/* A server that pings and does not read gets no more pongs than the queue may hold. */
	if (opcode == WS_PONG && peer_queued(p) > p->loop->limits.queue_bytes)
		return;
	if (peer_begin_frame(p, opcode, n, &key) < 0)
		return;
	if (n > 0)
		memcpy(p->out.data + p->out.len, data, n);
	peer_end_frame(p, n, key);
}

/*
 * The other may have sent a Close that says why before it stopped to listen: the end
 * is left to the reading, which finds that first.
 */
static void peer_send_failed(struct peer *p, int error)
{
	p->send_error = error;
	if (error == -EPROTO)
		peer_keep_failure(p);
	p->is_send_blocked = true;
	buf_clear(&p->out);
	p->out_sent = 0;
	if (list_is_empty(&p->in_unread))
		list_add_tail(&p->loop->unread, &p->in_unread);
}

void peer_flush(struct peer *p)
{
	while (peer_queued(p) > 0 && !p->is_send_blocked && p->transport.fd >= 0) {
		const struct iovec iov = {p->out.data + p->out_sent, peer_queued(p)};
		ssize_t sent = transport_send(&p->transport, &iov, 1);

		if (sent == -EAGAIN) {
			p->is_send_blocked = true;
			return;
		}
		if (sent < 0) {
			peer_send_failed(p, (int)sent);
			return;
		}
		p->out_sent += (size_t)sent;
	}
	if (peer_queued(p) > 0)
		return;
	buf_clear(&p->out);
	p->out_sent = 0;
	if (p->was_refused_room && p->state == PEER_OPEN) {
		p->was_refused_room = false;
		if (p->ops->writable)
			p->ops->writable(p);
	}
}
