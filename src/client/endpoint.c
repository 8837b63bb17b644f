/* SPDX-License-Identifier: MIT */
/* The life of a connection: its turn to connect, TCP, handshake, reading, a polite end. */
#include "client/endpoint.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "client/endpoint_private.h"
#include "client/system.h"
#include "io/sock.h"
#include "io/tls.h"

#define READS_PER_TURN 4
#define ANSWER_MAX (ENDPOINT_READ_BYTES + 16384) /* of the handshake, with the frames behind it */

/* -------------------------------------------------------------------- handshake */

static void endpoint_opened(struct endpoint *e, size_t head_bytes)
{
	/* From here on e->in is for messages; what came with the answer is fed to it below. */
	struct buf answer = e->in;

	e->in = (struct buf){0};
	e->loop->opening--;
	e->state = ENDPOINT_OPEN;
	wheel_del(&e->loop->reactor.wheel, &e->timer);
	/*
	 * The owner hears that it is open before the first message, which may lie behind the head.
	 */
	if (e->ops->opened)
		e->ops->opened(e);
	if (e->state != ENDPOINT_ENDED && answer.len > head_bytes)
		endpoint_feed(e, answer.data + head_bytes, answer.len - head_bytes);
	buf_fini(&answer);
}

/* The first line of the text that came with a refusal, if it did with the head; else "". */
static void endpoint_take_refusal(struct endpoint *e)
{
	const char *begin = (const char *)e->in.data;
	const char *text = memmem(begin, e->in.len, "\r\n\r\n", 4);
	size_t n = 0, left;

	/* A proxy's page in HTML says nothing that fits a line. */
	if (!text || !memmem(begin, (size_t)(text - begin), "text/plain", 10))
		return;
	text += 4;
	left = MIN(e->in.len - (size_t)(text - begin), sizeof(e->end.reason) - 1);
	while (n < left && text[n] && text[n] != '\n' && text[n] != '\r')
		n++;
	memcpy(e->end.reason, text, n);
	e->end.reason[n] = '\0';
}

static void endpoint_take_answer(struct endpoint *e, const uint8_t *bytes, size_t n)
{
	size_t head_bytes;
	int r = buf_append(&e->in, bytes, n, ANSWER_MAX);

	/* What talks for so long without an end of its head is no WebSocket server. */
	if (r < 0) {
		endpoint_end(e, r == -ENOMEM ? ENDPOINT_END_LOST : ENDPOINT_END_NOT_WS, r);
		return;
	}
	r = upgrade_check_response((char *)e->in.data, e->in.len, e->key, &head_bytes,
				   &e->end.status);
	if (r == 0) {
		endpoint_opened(e, head_bytes);
	} else if (r == UPGRADE_E_REFUSED) {
		endpoint_take_refusal(e);
		endpoint_end(e, ENDPOINT_END_REFUSED, 0);
	} else if (r != HTTP_MORE) {
		endpoint_end(e, ENDPOINT_END_NOT_WS, 0);
	}
}

/* The target's path with what this connection has to say beside; NULL: no memory. */
static char *endpoint_new_path(const struct endpoint *e)
{
	const char *path = e->loop->target->request_path;
	const char *query = e->query ? e->query : "";
	const char *separator = !query[0] ? "" : strchr(path, '?') ? "&" : "?";
	char *out;

	WB_ASSERT(strlen(query) <= ENDPOINT_QUERY);
	return asprintf(&out, "%s%s%s", path, separator, query) < 0 ? NULL : out;
}

static void endpoint_send_request(struct endpoint *e)
{
	const struct sock_options options = {.nodelay = true, .keepalive_s = 60};
	const struct target *target = e->loop->target;
	WB_CLEANUP(ptr_freep) char *path = endpoint_new_path(e);
	char request[sizeof(target->request_path) + ENDPOINT_QUERY + sizeof(target->host) +
		     sizeof(target->headers) + 512];
	uint8_t random[16];
	size_t n;
	int r;

	/* A socket that takes no options still carries messages: nothing here depends on them. */
	sock_set_options(e->transport.fd, &options);
	if (!path) {
		endpoint_end(e, ENDPOINT_END_LOST, -ENOMEM);
		return;
	}
	system_random_bytes(random, sizeof(random));
	upgrade_format_key(e->key, random);
	n = upgrade_format_request(request, sizeof(request), target->host, path, e->key,
				   target->headers);
	WB_ASSERT(n > 0); /* @request has room for the longest of all its parts */
	e->state = ENDPOINT_HANDSHAKE;
	r = endpoint_queue(e, request, n);
	if (r < 0)
		endpoint_end(e, ENDPOINT_END_LOST, r);
}

/* ---------------------------------------------------------------------- reading */

static void endpoint_take_bytes(struct endpoint *e, uint8_t *bytes, size_t n)
{
	/* An answer is put together in e->in; frames are taken from where they lie. */
	if (e->state == ENDPOINT_HANDSHAKE)
		endpoint_take_answer(e, bytes, n);
	else
		endpoint_feed(e, bytes, n);
}

/* Of TLS, the words are those of the call that failed just now, or were saved then. */
static void endpoint_end_lost(struct endpoint *e, int error)
{
	if (error == -EPROTO && !e->end.reason[0])
		endpoint_save_tls_failure(e);
	endpoint_end(e, error == -EPROTO ? ENDPOINT_END_TLS : ENDPOINT_END_LOST, error);
}

void endpoint_read(struct endpoint *e, bool to_the_end)
{
	struct endpoint_loop *l = e->loop;

	for (int i = 0; i < READS_PER_TURN; i++) {
		ssize_t got = transport_recv(&e->transport, l->read_buffer, ENDPOINT_READ_BYTES);

		if (got == -EAGAIN && !e->send_error)
			return;
		if (got <= 0) {
			/* A send that failed knows more than a read that found only the end. */
			endpoint_end_lost(e, e->send_error && got >= -EAGAIN ? e->send_error
									     : (int)got);
			return;
		}
		/*
		 * One look at the clock serves all messages of a read: latencies are counted from
		 * it.
		 */
		l->read_ns = clock_now_ns();
		e->last_read_ns = l->read_ns;
		endpoint_take_bytes(e, l->read_buffer, (size_t)got);
		if (e->state == ENDPOINT_ENDED)
			return;
		/*
		 * Reports are edge-triggered: all has to be read, which a read that leaves room in
		 * the buffer shows, unless the other's end is to be read as well, or TLS holds
		 * more.
		 */
		if ((size_t)got < ENDPOINT_READ_BYTES && !to_the_end &&
		    !transport_has_more(&e->transport))
			return;
	}
	/* So much comes that others have to have their turn first. */
	if (list_is_empty(&e->in_unread))
		list_add_tail(&l->unread, &e->in_unread);
}

/* ------------------------------------------------------------------- connecting */

static bool endpoint_try_address(struct endpoint *e);

/* The address didn't answer: the next one, or the end. */
static void endpoint_address_failed(struct endpoint *e, int error)
{
	if (e->transport.fd >= 0) {
		reactor_del(&e->loop->reactor, &e->source, e->transport.fd);
		transport_close(&e->transport, false);
	}
	e->end.error = error;
	e->address++;
	if (!endpoint_try_address(e))
		endpoint_end(e, ENDPOINT_END_UNREACHABLE, e->end.error);
}

static void endpoint_ready(struct reactor_source *s, uint32_t events)
{
	struct endpoint *e = CONTAINER_OF(s, struct endpoint, source);

	/*
	 * The first report of a socket that connects says how that went, whatever the events are.
	 */
	if (e->state == ENDPOINT_CONNECTING) {
		int error = sock_error(e->transport.fd);

		if (error) {
			endpoint_address_failed(e, error);
			return;
		}
		endpoint_send_request(e);
	}
	/* TLS may have waited for either, whichever it is that it does. */
	if (transport_is_layered(&e->transport) && transport_flush(&e->transport) == 0)
		events |= EPOLLIN | EPOLLOUT;
	/* Not sent from here: at the turn's end, with what reading adds below. */
	if (events & EPOLLOUT && e->is_send_blocked) {
		e->is_send_blocked = false;
		if (list_is_empty(&e->in_unsent))
			list_add_tail(&e->loop->unsent, &e->in_unsent);
	}
	if (e->state != ENDPOINT_ENDED && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		endpoint_read(e, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

/* The connection over @fd belongs to the loop from here on; after a failure it is to be closed. */
static int endpoint_watch(struct endpoint *e, int fd)
{
	const struct target *target = e->loop->target;

	if (!target->tls) {
		transport_init_plain(&e->transport, fd);
	} else if (transport_init_tls_client(&e->transport, fd, target->tls, target->name)) {
		/* Without TLS it must not be used, but a transport is what closes a descriptor. */
		transport_init_plain(&e->transport, fd);
		return -ENOMEM;
	}
	return reactor_add(&e->loop->reactor, &e->source, fd,
			   EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, endpoint_ready);
}

/* False when none is left; e->end.error says what was wrong with the last. */
static bool endpoint_try_address(struct endpoint *e)
{
	const struct target *target = e->loop->target;

	/* What fails at once is passed over here, what fails later by endpoint_address_failed(). */
	for (; e->address < target->n_addresses; e->address++) {
		int fd, error = sock_connect(target->address[e->address], target->port, &fd);

		if (!error)
			error = endpoint_watch(e, fd);
		if (!error)
			return true;
		if (e->transport.fd >= 0)
			transport_close(&e->transport, false);
		e->end.error = error;
	}
	return false;
}

static void endpoint_timer_due(struct wheel_timer *t)
{
	endpoint_end(CONTAINER_OF(t, struct endpoint, timer), ENDPOINT_END_TIMEOUT, -ETIMEDOUT);
}

/* True, or the connection has ended. */
static bool endpoint_prepare(struct endpoint *e)
{
	int r = 0;

	/* Counted as opening before anything can fail, since its end counts it down. */
	e->state = ENDPOINT_CONNECTING;
	e->loop->opening++;
	if (!e->decoder)
		e->decoder = ws_decoder_new(WS_CLIENT, 0);
	else
		r = ws_decoder_reset(e->decoder, 0);
	if (!e->decoder || r < 0) {
		endpoint_end(e, ENDPOINT_END_UNREACHABLE, -ENOMEM);
		return false;
	}
	/* One deadline for all addresses and the handshake together. */
	wheel_add(&e->loop->reactor.wheel, &e->timer, clock_now_ns() + ENDPOINT_HANDSHAKE_NS);
	return true;
}

/* All about the last connection is forgotten; what it owned went when its end was reported. */
static void endpoint_clear(struct endpoint *e)
{
	WB_ASSERT(e->state == ENDPOINT_IDLE);
	e->end = (struct endpoint_end){.code = WS_CODE_NO_STATUS};
	e->transport.fd = -1;
	e->address = 0;
	e->opcode = 0;
	e->control_n = 0;
	e->send_error = 0;
	e->was_refused_room = false;
	e->is_send_blocked = false;
}

void endpoint_connect(struct endpoint *e)
{
	reactor_assert_here(&e->loop->reactor);
	endpoint_clear(e);
	/* The loop calls endpoint_begin() once fewer than ENDPOINT_MAX_OPENING shake hands. */
	e->state = ENDPOINT_WAITING;
	list_add_tail(&e->loop->waiting, &e->in_waiting);
}

void endpoint_begin(struct endpoint *e)
{
	if (endpoint_prepare(e) && !endpoint_try_address(e))
		endpoint_end(e, ENDPOINT_END_UNREACHABLE, e->end.error);
}

void endpoint_connect_fd(struct endpoint *e, int fd)
{
	int r;

	reactor_assert_here(&e->loop->reactor);
	endpoint_clear(e);
	/*
	 * It doesn't wait for its turn: it is connected already, and the backlog has no part in
	 * it.
	 */
	if (!endpoint_prepare(e)) {
		fd_closep(&fd);
		return;
	}
	r = endpoint_watch(e, fd);
	if (r)
		endpoint_end(e, ENDPOINT_END_UNREACHABLE, r);
	else
		endpoint_send_request(e);
}

/* ------------------------------------------------------------------- from outside */

void endpoint_close(struct endpoint *e, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];

	if (e->state == ENDPOINT_OPEN) {
		endpoint_queue_control(e, WS_CLOSE, payload,
				       ws_format_close(payload, code, reason));
		/* A server that does not close in its turn is not waited for for ever. */
		e->state = ENDPOINT_CLOSING;
		wheel_add(&e->loop->reactor.wheel, &e->timer, clock_now_ns() + ENDPOINT_CLOSE_NS);
	} else if (e->state == ENDPOINT_WAITING || endpoint_is_opening(e)) {
		/* There is nobody yet to agree with: it ends as if both had. */
		e->end.code = code;
		endpoint_end(e, ENDPOINT_END_CLOSED, 0);
	}
}

void endpoint_abort(struct endpoint *e, int error)
{
	endpoint_end(e, ENDPOINT_END_TIMEOUT, error);
}

void endpoint_init(struct endpoint *e, struct endpoint_loop *l, const struct endpoint_ops *ops)
{
	e->loop = l;
	e->ops = ops;
	e->transport.fd = -1;
	list_init(&e->in_unsent);
	list_init(&e->in_unread);
	list_init(&e->in_waiting);
	wheel_timer_init(&e->timer, endpoint_timer_due);
}

void endpoint_fini(struct endpoint *e)
{
	WB_ASSERT(e->state == ENDPOINT_IDLE);
	e->decoder = ws_decoder_free(e->decoder);
	buf_fini(&e->in);
	buf_fini(&e->out);
}

char *endpoint_format_local(char out[TARGET_ADDRESS_TEXT + 8], const struct endpoint *e)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	char host[TARGET_ADDRESS_TEXT], port[8];

	out[0] = '\0';
	/* Over a unix socket, or a pair in a test, there is no address that a server would name. */
	if (e->transport.fd < 0 ||
	    getsockname(e->transport.fd, (struct sockaddr *)&addr, &len) < 0 ||
	    (addr.ss_family != AF_INET && addr.ss_family != AF_INET6) ||
	    getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return out;
	snprintf(out, TARGET_ADDRESS_TEXT + 8, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		 host, port);
	return out;
}
