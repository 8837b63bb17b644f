/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>

#include "handover/handover.h"
#include "io/tls.h"
#include "wire/ws.h"

#define FIRST_CAP ((size_t)256)
#define LEFTOVER_READS 64 /* of unread bytes, 64 KiB each, before a goodbye */

/* One descriptor of a parcel. */
struct handover_socket {
	uint64_t cookie;
	int fd; /* -1: claimed */
	uint8_t mark;
};

/* ------------------------------------------------------------------ into the parcel */

/* The keys of a TLS session are in this process, inside of OpenSSL: it can't travel. */
static uint64_t socket_cookie(void *ctx, const struct conn *c)
{
	(void)ctx;
	return transport_is_tls(&c->transport) ? 0 : sock_cookie(c->transport.fd);
}

/* Whether anybody could send it whole frames now, without knowing more. */
static uint8_t mark_of(const struct conn *c)
{
	bool is_clean = c->state == CONN_OPEN && !c->out->transit && c->out->head_sent == 0;

	return is_clean ? HANDOVER_CLEAN : HANDOVER_OTHER;
}

int handover_fill_parcel(struct worker_pool *p, struct parcel *parcel)
{
	for (unsigned i = 0; i < p->n; i++) {
		LIST_FOREACH (node, &p->workers[i]->hub.env.all) {
			const struct conn *c = CONTAINER_OF(node, struct conn, node);
			int r;

			/* The same that handover_save() writes records of. */
			if (c->state == CONN_DEAD || socket_cookie(NULL, c) == 0)
				continue;
			r = parcel_put(parcel, c->transport.fd, mark_of(c));
			if (r)
				return r;
		}
	}
	/* Descriptors are borrowed until here: nothing may be closed before it is full. */
	return parcel_seal(parcel);
}

/* ---------------------------------------------------------------- out of the parcel */

static int add_socket(void *ctx, int fd, uint8_t mark)
{
	struct handover_sockets *s = ctx;

	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : FIRST_CAP;
		struct handover_socket *more = realloc(s->socket, cap * sizeof(*more));

		/* The parcel holds it still; its client sees the end when that goes. */
		if (!more) {
			(void)close(fd);
			return -ENOMEM;
		}
		s->socket = more;
		s->cap = cap;
	}
	s->socket[s->n++] = (struct handover_socket){sock_cookie(fd), fd, mark};
	return 0;
}

int handover_open_parcel(struct handover_sockets *s, int end)
{
	return parcel_look(end, add_socket, s);
}

static int compare_cookies(const void *a, const void *b)
{
	const struct handover_socket *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

void handover_sort_sockets(struct handover_sockets *s)
{
	if (s->n > 0)
		qsort(s->socket, s->n, sizeof(*s->socket), compare_cookies);
}

static bool socket_claim(void *ctx, uint64_t cookie, struct transport *ret)
{
	const struct handover_sockets *s = ctx;
	const struct handover_socket key = {.cookie = cookie};
	struct handover_socket *found =
		s->n ? bsearch(&key, s->socket, s->n, sizeof(key), compare_cookies) : NULL;

	if (!found || found->fd < 0)
		return false;
	/* What is left here belongs to nobody: handover_say_goodbye() sees it. */
	transport_init_plain(ret, TAKE_FD(found->fd));
	return true;
}

static int socket_attach(void *ctx, struct worker *w, struct conn *c)
{
	(void)ctx;
	return worker_attach(w, c);
}

const struct handover_ops handover_ops = {
	.cookie = socket_cookie,
	.claim = socket_claim,
	.attach = socket_attach,
};

/* --------------------------------------------------------------------- goodbyes */

/* CONTROL/DISCONNECT and Close 1012, as they are sent. Return: their length. */
static size_t format_goodbye(uint8_t *out, size_t cap, uint64_t window_ms)
{
	uint8_t payload[WS_MAX_CONTROL];
	struct msg_builder b;
	sd_id128_t id = SD_ID128_NULL;
	uint32_t random;
	size_t n, len;

	/* They shall not all come back at one moment; without entropy, at once has to do. */
	(void)sd_id128_randomize(&id);
	memcpy(&random, id.bytes, sizeof(random));
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
	msg_set_own_request_id(&b, id.bytes);
	msg_set_reason(&b, "server is restarting");
	msg_set_reconnect_after_ms(&b, (uint32_t)(random % (window_ms + 1)));
	len = msg_size(&b);
	WB_ASSERT(cap >= 2 * WS_MAX_HEAD + len + WS_MAX_CONTROL);
	n = ws_encode_head(out, true, 0, WS_BINARY, len, NULL);
	msg_pack(&b, out + n);
	n += len;
	len = ws_format_close(payload, WS_CODE_SERVICE_RESTART, "server is restarting");
	n += ws_encode_head(out + n, true, 0, WS_CLOSE, len, NULL);
	memcpy(out + n, payload, len);
	return n + len;
}

/* Bytes that nobody reads would turn the end into a reset, which overtakes what was sent. */
static void drain_socket(int fd)
{
	static uint8_t waste[65536];

	for (int i = 0; i < LEFTOVER_READS; i++)
		if (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
			return;
}

static void say_goodbye(const struct handover_socket *s, uint64_t window_ms)
{
	uint8_t goodbye[512];
	size_t len;

	/* In the middle of a message nothing can be said that its client would understand. */
	if (s->mark == HANDOVER_CLEAN) {
		len = format_goodbye(goodbye, sizeof(goodbye), window_ms);
		(void)!send(s->fd, goodbye, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	/* The parcel holds copies of it, so closing ours would end nothing. */
	(void)shutdown(s->fd, SHUT_WR);
	drain_socket(s->fd);
}

size_t handover_say_goodbye(struct handover_sockets *s, uint64_t reconnect_window_ms)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (s->socket[i].fd < 0)
			continue;
		say_goodbye(&s->socket[i], reconnect_window_ms);
		fd_closep(&s->socket[i].fd);
		n++;
	}
	return n;
}

void handover_sockets_fini(struct handover_sockets *s)
{
	for (size_t i = 0; i < s->n; i++)
		fd_closep(&s->socket[i].fd);
	free(s->socket);
	*s = (struct handover_sockets){0};
}
