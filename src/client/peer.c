/* SPDX-License-Identifier: MIT */
/* The life of a connection: its turn, TCP, handshake, end. Frames are in the other two files. */
#include "client/peer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "client/peer_private.h"
#include "io/sock.h"

#define READS_PER_TURN 4
#define ANSWER_MAX (PEER_READ_BYTES + 16384) /* of the handshake, with the frames behind it */

static struct peer_loop *loop_of(struct reactor *r)
{
	return CONTAINER_OF(r, struct peer_loop, reactor);
}

static bool is_opening(const struct peer *p)
{
	return p->state == PEER_CONNECTING || p->state == PEER_HANDSHAKE;
}

static void peer_tell_end(struct reactor_deferred *d)
{
	struct peer *p = CONTAINER_OF(d, struct peer, ending);
	const struct peer_end end = p->end; /* closed() may connect anew, or free the peer */

	p->state = PEER_IDLE;
	buf_fini(&p->in);
	buf_fini(&p->out);
	p->out_sent = 0;
	p->ops->closed(p, &end);
}

void peer_end(struct peer *p, enum peer_end_kind kind, int error)
{
	if (p->state == PEER_IDLE || p->state == PEER_ENDED)
		return;
	p->end.kind = kind;
	p->end.error = error;
	p->end.was_open = p->state == PEER_OPEN || p->state == PEER_CLOSING;
	p->loop->opening -= is_opening(p);
	p->state = PEER_ENDED;
	list_del(&p->in_unsent);
	list_del(&p->in_unread);
	list_del(&p->in_waiting);
	wheel_del(&p->loop->reactor.wheel, &p->timer);
	if (p->transport.fd >= 0) {
		reactor_del(&p->loop->reactor, &p->source, p->transport.fd);
		transport_close(&p->transport, kind == PEER_END_TIMEOUT);
	}
	reactor_defer(&p->loop->reactor, &p->ending, peer_tell_end);
}

void peer_keep_failure(struct peer *p)
{
	snprintf(p->end.reason, sizeof(p->end.reason), "%s", tls_failure());
}

void peer_violation(struct peer *p, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];

	p->end.code = code;
	strcpy(p->end.reason, reason);
	if (p->state == PEER_OPEN)
		peer_queue_control(p, WS_CLOSE, payload, ws_format_close(payload, code, reason));
	peer_flush(p);
	peer_end(p, PEER_END_VIOLATION, 0);
}

/* -------------------------------------------------------------------- handshake */

static void peer_opened(struct peer *p, size_t head_bytes)
{
	struct buf answer = p->in;

	p->in = (struct buf){0};
	p->loop->opening--;
	p->state = PEER_OPEN;
	wheel_del(&p->loop->reactor.wheel, &p->timer);
	if (p->ops->opened)
		p->ops->opened(p);
	if (p->state != PEER_ENDED && answer.len > head_bytes)
		peer_feed(p, answer.data + head_bytes, answer.len - head_bytes);
	buf_fini(&answer);
}

/* The first line of the text that came with a refusal, if it did with the head; else "". */
static void peer_take_refusal(struct peer *p)
{
	const char *begin = (const char *)p->in.data;
	const char *text = memmem(begin, p->in.len, "\r\n\r\n", 4);
	size_t n = 0, left;

	if (!text || !memmem(begin, (size_t)(text - begin), "text/plain", 10))
		return;
	text += 4;
	left = MIN(p->in.len - (size_t)(text - begin), sizeof(p->end.reason) - 1);
	while (n < left && text[n] && text[n] != '\n' && text[n] != '\r')
		n++;
	memcpy(p->end.reason, text, n);
	p->end.reason[n] = '\0';
}

static void peer_take_answer(struct peer *p, const uint8_t *bytes, size_t n)
{
	size_t head_bytes;
	int r = buf_append(&p->in, bytes, n, ANSWER_MAX);

	if (r < 0) {
		peer_end(p, r == -ENOMEM ? PEER_END_LOST : PEER_END_NOT_WS, r);
		return;
	}
	r = upgrade_check_response((char *)p->in.data, p->in.len, p->key, &head_bytes,
				   &p->end.status);
	if (r == 0) {
		peer_opened(p, head_bytes);
	} else if (r == UPGRADE_E_REFUSED) {
		peer_take_refusal(p);
		peer_end(p, PEER_END_REFUSED, 0);
	} else if (r != HTTP_MORE) {
		peer_end(p, PEER_END_NOT_WS, 0);
	}
}

static void peer_send_request(struct peer *p)
{
	const struct sock_options options = {.nodelay = true, .keepalive_s = 60};
	const struct peer_target *target = p->loop->target;
	char request[sizeof(target->request_path) + sizeof(target->host) + sizeof(target->headers) +
		     512];
	uint8_t random[16];
	size_t n;
	int r;

	sock_set_options(p->transport.fd, &options);
	peer_random(random, sizeof(random));
	upgrade_format_key(p->key, random);
	n = upgrade_format_request(request, sizeof(request), target->host, target->request_path,
				   p->key, target->headers);
	WB_ASSERT(n > 0);
	p->state = PEER_HANDSHAKE;
	r = peer_queue(p, request, n);
	if (r < 0)
		peer_end(p, PEER_END_LOST, r);
}

/* ---------------------------------------------------------------------- reading */

static void peer_take(struct peer *p, uint8_t *bytes, size_t n)
{
	if (p->state == PEER_HANDSHAKE)
		peer_take_answer(p, bytes, n);
	else
		peer_feed(p, bytes, n);
}

/* Of TLS, the words are those of the call that failed just now, or were kept then. */
static void peer_lost(struct peer *p, int error)
{
	if (error == -EPROTO && !p->end.reason[0])
		peer_keep_failure(p);
	peer_end(p, error == -EPROTO ? PEER_END_TLS : PEER_END_LOST, error);
}

/*
 * Reports are edge-triggered: all has to be read, which a read that leaves room in
 * the buffer shows, unless the other's end is to be read as well.
 */
static void peer_read(struct peer *p, bool to_the_end)
{
	struct peer_loop *l = p->loop;

	for (int i = 0; i < READS_PER_TURN; i++) {
		ssize_t got = transport_recv(&p->transport, l->read_buffer, PEER_READ_BYTES);

		if (got == -EAGAIN && !p->send_error)
			return;
		if (got <= 0) {
			peer_lost(p, p->send_error && got >= -EAGAIN ? p->send_error : (int)got);
			return;
		}
		l->read_ns = clock_now_ns();
		p->last_read_ns = l->read_ns;
		peer_take(p, l->read_buffer, (size_t)got);
		if (p->state == PEER_ENDED || ((size_t)got < PEER_READ_BYTES && !to_the_end &&
					       !transport_has_more(&p->transport)))
			return;
	}
	if (list_is_empty(&p->in_unread))
		list_add_tail(&l->unread, &p->in_unread);
}

/* ------------------------------------------------------------------- connecting */

static bool peer_try_address(struct peer *p);

/* The address didn't answer: the next one, or the end. */
static void peer_unreachable(struct peer *p, int error)
{
	if (p->transport.fd >= 0) {
		reactor_del(&p->loop->reactor, &p->source, p->transport.fd);
		transport_close(&p->transport, false);
	}
	p->end.error = error;
	p->address++;
	if (!peer_try_address(p))
		peer_end(p, PEER_END_UNREACHABLE, p->end.error);
}

static void peer_ready(struct reactor_source *s, uint32_t events)
{
	struct peer *p = CONTAINER_OF(s, struct peer, source);

	if (p->state == PEER_CONNECTING) {
		int error = sock_error(p->transport.fd);

		if (error) {
			peer_unreachable(p, error);
			return;
		}
		peer_send_request(p);
	}
	/* TLS may have waited for either, whichever it is that it does. */
	if (transport_is_layered(&p->transport) && transport_flush(&p->transport) == 0)
		events |= EPOLLIN | EPOLLOUT;
	if (events & EPOLLOUT && p->is_send_blocked) {
		p->is_send_blocked = false;
		if (list_is_empty(&p->in_unsent))
			list_add_tail(&p->loop->unsent, &p->in_unsent);
	}
	if (p->state != PEER_ENDED && events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		peer_read(p, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

static int peer_watch(struct peer *p, int fd)
{
	const struct peer_target *target = p->loop->target;

	if (!target->tls) {
		transport_init_plain(&p->transport, fd);
	} else if (transport_init_tls_client(&p->transport, fd, target->tls, target->name)) {
		transport_init_plain(&p->transport, fd); /* to be closed */
		return -ENOMEM;
	}
	return reactor_add(&p->loop->reactor, &p->source, fd,
			   EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, peer_ready);
}

/* False when none is left; p->end.error says what was wrong with the last. */
static bool peer_try_address(struct peer *p)
{
	const struct peer_target *target = p->loop->target;

	for (; p->address < target->n_addresses; p->address++) {
		int fd, error = sock_connect(target->address[p->address], target->port, &fd);

		if (!error)
			error = peer_watch(p, fd);
		if (!error)
			return true;
		if (p->transport.fd >= 0)
			transport_close(&p->transport, false);
		p->end.error = error;
	}
	return false;
}

static void peer_timer_due(struct wheel_timer *t)
{
	peer_end(CONTAINER_OF(t, struct peer, timer), PEER_END_TIMEOUT, -ETIMEDOUT);
}

/* True, or the connection has ended. */
static bool peer_prepare(struct peer *p)
{
	int r = 0;

	p->state = PEER_CONNECTING;
	p->loop->opening++;
	if (!p->decoder)
		p->decoder = ws_decoder_new(WS_CLIENT, 0);
	else
		r = ws_decoder_reset(p->decoder, 0);
	if (!p->decoder || r < 0) {
		peer_end(p, PEER_END_UNREACHABLE, -ENOMEM);
		return false;
	}
	wheel_add(&p->loop->reactor.wheel, &p->timer, clock_now_ns() + PEER_HANDSHAKE_NS);
	return true;
}

/* All about the last connection is forgotten. */
static void peer_clear(struct peer *p)
{
	WB_ASSERT(p->state == PEER_IDLE);
	p->end = (struct peer_end){.code = WS_CODE_NO_STATUS};
	p->transport.fd = -1;
	p->address = 0;
	p->opcode = 0;
	p->control_n = 0;
	p->send_error = 0;
	p->was_refused_room = false;
	p->is_send_blocked = false;
}

void peer_connect(struct peer *p)
{
	reactor_assert_here(&p->loop->reactor);
	peer_clear(p);
	p->state = PEER_WAITING;
	list_add_tail(&p->loop->waiting, &p->in_waiting);
}

void peer_connect_fd(struct peer *p, int fd)
{
	int error;

	reactor_assert_here(&p->loop->reactor);
	peer_clear(p);
	if (!peer_prepare(p)) {
		fd_closep(&fd);
		return;
	}
	error = peer_watch(p, fd);
	if (error)
		peer_end(p, PEER_END_UNREACHABLE, error);
	else
		peer_send_request(p);
}

void peer_close(struct peer *p, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];

	if (p->state == PEER_OPEN) {
		peer_queue_control(p, WS_CLOSE, payload, ws_format_close(payload, code, reason));
		p->state = PEER_CLOSING;
		wheel_add(&p->loop->reactor.wheel, &p->timer, clock_now_ns() + PEER_CLOSE_NS);
	} else if (p->state == PEER_WAITING || is_opening(p)) {
		p->end.code = code;
		peer_end(p, PEER_END_CLOSED, 0);
	}
}

void peer_abort(struct peer *p, int error)
{
	peer_end(p, PEER_END_TIMEOUT, error);
}

void peer_init(struct peer *p, struct peer_loop *l, const struct peer_ops *ops)
{
	p->loop = l;
	p->ops = ops;
	p->transport.fd = -1;
	list_init(&p->in_unsent);
	list_init(&p->in_unread);
	list_init(&p->in_waiting);
	wheel_timer_init(&p->timer, peer_timer_due);
}

void peer_fini(struct peer *p)
{
	WB_ASSERT(p->state == PEER_IDLE);
	p->decoder = ws_decoder_free(p->decoder);
	buf_fini(&p->in);
	buf_fini(&p->out);
}

/* ------------------------------------------------------------------------- loop */

static bool peer_loop_has_work(struct reactor *r)
{
	const struct peer_loop *l = loop_of(r);

	return !list_is_empty(&l->unread) || !list_is_empty(&l->unsent) ||
	       (!list_is_empty(&l->waiting) && l->opening < PEER_MAX_OPENING);
}

static void peer_loop_work(struct reactor *r)
{
	struct peer_loop *l = loop_of(r);
	struct list unread, *node;

	list_init(&unread);
	list_splice_tail(&unread, &l->unread); /* what goes on unread is for the next turn */
	while ((node = list_pop(&unread)))
		peer_read(CONTAINER_OF(node, struct peer, in_unread), true);
	while (l->opening < PEER_MAX_OPENING && (node = list_pop(&l->waiting))) {
		struct peer *p = CONTAINER_OF(node, struct peer, in_waiting);

		if (peer_prepare(p) && !peer_try_address(p))
			peer_end(p, PEER_END_UNREACHABLE, p->end.error);
	}
	while ((node = list_pop(&l->unsent)))
		peer_flush(CONTAINER_OF(node, struct peer, in_unsent));
}

int peer_loop_init(struct peer_loop *l, const struct peer_target *target,
		   const struct peer_limits *limits)
{
	static const struct reactor_ops ops = {
		.has_work = peer_loop_has_work,
		.work = peer_loop_work,
	};
	int r;

	list_init(&l->unsent);
	list_init(&l->unread);
	list_init(&l->waiting);
	l->signal_fd = -1;
	l->target = target;
	l->limits = *limits;
	l->read_buffer = malloc(PEER_READ_BYTES);
	if (!l->read_buffer)
		return -ENOMEM;
	r = reactor_init(&l->reactor, &ops);
	if (r < 0) {
		freep(&l->read_buffer);
		l->read_buffer = NULL;
		return r;
	}
	reactor_own(&l->reactor);
	return 0;
}

static void signal_ready(struct reactor_source *source, uint32_t events)
{
	struct peer_loop *l = CONTAINER_OF(source, struct peer_loop, signal_source);
	struct signalfd_siginfo info;

	(void)events;
	if (read(l->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		l->on_signal(l);
}

int peer_loop_on_signal(struct peer_loop *l, void (*fn)(struct peer_loop *l))
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	(void)signal(SIGPIPE, SIG_IGN);
	l->on_signal = fn;
	l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (l->signal_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	return reactor_add(&l->reactor, &l->signal_source, l->signal_fd, EPOLLIN, signal_ready);
}

void peer_loop_fini(struct peer_loop *l)
{
	if (!l->read_buffer)
		return;
	fd_closep(&l->signal_fd);
	reactor_fini(&l->reactor);
	freep(&l->read_buffer);
	l->read_buffer = NULL;
}

int peer_loop_turn(struct peer_loop *l, uint64_t longest_ns)
{
	return reactor_turn(&l->reactor, longest_ns);
}
