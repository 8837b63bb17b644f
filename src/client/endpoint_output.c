/* SPDX-License-Identifier: MIT */
/* What goes out: a queue of masked frames, sent once a turn. */
#include "client/endpoint_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/system.h"
#include "io/tls.h"

/* RFC 6455 section 5.3 wants keys that nobody can predict; one system call serves a thousand. */
static const uint8_t *endpoint_next_key(struct endpoint_loop *l)
{
	if (l->keys_left < 4) {
		system_random_bytes(l->keys, sizeof(l->keys));
		l->keys_left = sizeof(l->keys);
	}
	l->keys_left -= 4;
	return l->keys + l->keys_left;
}

/* Room for @n bytes behind the queue, and a place among those that are sent at the turn's end. */
static int endpoint_make_room(struct endpoint *e, size_t n)
{
	/* Moved only when that is half of it at least: so each byte is moved once on average. */
	if (e->out_sent > 0 && e->out_sent >= e->out.len / 2) {
		buf_consume(&e->out, e->out_sent);
		e->out_sent = 0;
	}
	if (list_is_empty(&e->in_unsent))
		list_add_tail(&e->loop->unsent, &e->in_unsent);
	return buf_reserve(&e->out, n, BUF_NO_LIMIT);
}

int endpoint_queue(struct endpoint *e, const void *data, size_t n)
{
	int r = endpoint_make_room(e, n);

	return r < 0 ? r : buf_append(&e->out, data, n, BUF_NO_LIMIT);
}

/* Writes a frame's head; its payload of @n bytes is to be written behind it, then masked. */
static int endpoint_begin_frame(struct endpoint *e, uint8_t opcode, size_t n,
				const uint8_t **ret_key)
{
	int r = endpoint_make_room(e, WS_MAX_HEAD + n);

	if (r < 0)
		return r;
	*ret_key = endpoint_next_key(e->loop);
	/* Head and payload are written straight into the queue, which has room for both. */
	e->out.len += ws_encode_head(e->out.data + e->out.len, true, 0, opcode, n, *ret_key);
	return 0;
}

static void endpoint_end_frame(struct endpoint *e, size_t n, const uint8_t *key)
{
	ws_mask(e->out.data + e->out.len, n, key, 0);
	e->out.len += n;
}

/* Whether a message of @n bytes may be queued. One alone always may. */
static int endpoint_admit(struct endpoint *e, size_t n)
{
	size_t queued = endpoint_queued(e), limit = e->loop->limits.queue_bytes;

	reactor_assert_here(&e->loop->reactor);
	if (e->state != ENDPOINT_OPEN)
		return ENDPOINT_E_NOT_OPEN;
	if (queued == 0 || (queued <= limit && n + WS_MAX_HEAD <= limit - queued))
		return 0;
	/* Whoever was refused is told by writable() once the queue is empty again. */
	e->was_refused_room = true;
	return ENDPOINT_E_FULL;
}

int endpoint_send(struct endpoint *e, uint8_t opcode, const void *data, size_t n)
{
	const uint8_t *key;
	int r = endpoint_admit(e, n);

	if (r == 0)
		r = endpoint_begin_frame(e, opcode, n, &key);
	if (r != 0)
		return r;
	if (n > 0)
		memcpy(e->out.data + e->out.len, data, n);
	endpoint_end_frame(e, n, key);
	return 0;
}

int endpoint_send_msg(struct endpoint *e, const struct msg_builder *b)
{
	size_t n = msg_size(b);
	const uint8_t *key;
	int r = endpoint_admit(e, n);

	if (r == 0)
		r = endpoint_begin_frame(e, WS_BINARY, n, &key);
	if (r != 0)
		return r;
	msg_pack(b, e->out.data + e->out.len);
	endpoint_end_frame(e, n, key);
	return 0;
}

void endpoint_queue_control(struct endpoint *e, uint8_t opcode, const void *data, size_t n)
{
	const uint8_t *key;

	/* A server that pings and does not read gets no more pongs than the queue may hold. */
	if (opcode == WS_PONG && endpoint_queued(e) > e->loop->limits.queue_bytes)
		return;
	if (endpoint_begin_frame(e, opcode, n, &key) < 0)
		return;
	if (n > 0)
		memcpy(e->out.data + e->out.len, data, n);
	endpoint_end_frame(e, n, key);
}

void endpoint_save_tls_failure(struct endpoint *e)
{
	snprintf(e->end.reason, sizeof(e->end.reason), "%s", tls_failure());
}

/*
 * The other may have sent a Close that says why before it stopped to listen: the end
 * is left to the reading, which finds that first.
 */
static void endpoint_send_failed(struct endpoint *e, int error)
{
	e->send_error = error;
	if (error == -EPROTO)
		endpoint_save_tls_failure(e);
	/* Nothing is sent any more; reading goes on as if EPOLLIN had been reported. */
	e->is_send_blocked = true;
	buf_clear(&e->out);
	e->out_sent = 0;
	if (list_is_empty(&e->in_unread))
		list_add_tail(&e->loop->unread, &e->in_unread);
}

void endpoint_flush(struct endpoint *e)
{
	while (endpoint_queued(e) > 0 && !e->is_send_blocked && e->transport.fd >= 0) {
		const struct iovec iov = {e->out.data + e->out_sent, endpoint_queued(e)};
		ssize_t sent = transport_send(&e->transport, &iov, 1);

		/* The next report of EPOLLOUT puts it among the unsent again. */
		if (sent == -EAGAIN) {
			e->is_send_blocked = true;
			return;
		}
		if (sent < 0) {
			endpoint_send_failed(e, (int)sent);
			return;
		}
		e->out_sent += (size_t)sent;
	}
	if (endpoint_queued(e) > 0)
		return;
	buf_clear(&e->out);
	e->out_sent = 0;
	/* Cleared before the call, in which the queue may fill and refuse anew. */
	if (e->was_refused_room && e->state == ENDPOINT_OPEN) {
		e->was_refused_room = false;
		if (e->ops->writable)
			e->ops->writable(e);
	}
}
