/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "conn/conn_private.h"
#include "handover/handover_private.h"

#define FIRST_CAP ((size_t)256)
#define LEFTOVER_READS 64 /* of unread bytes, 64 KiB each, before a goodbye */

/* One descriptor of a parcel. */
struct handover_socket {
	uint64_t cookie;
	int fd; /* -1: claimed */
	uint8_t mark;
};

/* ------------------------------------------------------------------ into the parcel */

static uint64_t real_cookie(void *ctx, const struct conn *c)
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

			if (c->state == CONN_DEAD || real_cookie(NULL, c) == 0)
				continue;
			r = parcel_put(parcel, c->transport.fd, mark_of(c));
			if (r)
				return r;
		}
	}
	return parcel_seal(parcel);
}

/* ---------------------------------------------------------------- out of the parcel */

static int take_one(void *ctx, int fd, uint8_t mark)
{
	struct handover_sockets *s = ctx;

	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : FIRST_CAP;
		struct handover_socket *more = realloc(s->socket, cap * sizeof(*more));

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
	return parcel_look(end, take_one, s);
}

static int compare(const void *a, const void *b)
{
	const struct handover_socket *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

void handover_sort(struct handover_sockets *s)
{
	if (s->n > 0)
		qsort(s->socket, s->n, sizeof(*s->socket), compare);
}

static bool real_claim(void *ctx, uint64_t cookie, struct transport *ret)
{
	const struct handover_sockets *s = ctx;
	const struct handover_socket key = {.cookie = cookie};
	struct handover_socket *found =
		s->n ? bsearch(&key, s->socket, s->n, sizeof(key), compare) : NULL;

	if (!found || found->fd < 0)
		return false;
	transport_init_plain(ret, TAKE_FD(found->fd));
	return true;
}

static int real_attach(void *ctx, struct worker *w, struct conn *c)
{
	(void)ctx;
	return worker_attach(w, c);
}

const struct handover_ops handover_ops = {
	.cookie = real_cookie,
	.claim = real_claim,
	.attach = real_attach,
};

/* --------------------------------------------------------------------- goodbyes */

/* CONTROL/DISCONNECT and Close 1012, as they are sent. Return: their length. */
static size_t format_goodbye(uint8_t *out, size_t cap, uint64_t window_ms)
{
	uint8_t payload[WS_MAX_CONTROL];
	struct msg_builder b;
	uint32_t random = 0;
	size_t n, len;

	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
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
static void read_rest(int fd)
{
	static uint8_t waste[65536];

	for (int i = 0; i < LEFTOVER_READS; i++)
		if (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
			return;
}

size_t handover_say_goodbye(struct handover_sockets *s, uint64_t reconnect_window_ms)
{
	uint8_t goodbye[512];
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct handover_socket *one = &s->socket[i];
		size_t len;

		if (one->fd < 0)
			continue;
		n++;
		if (one->mark == HANDOVER_CLEAN) {
			len = format_goodbye(goodbye, sizeof(goodbye), reconnect_window_ms);
			(void)!send(one->fd, goodbye, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
		/* Others hold copies of it: closing alone would end nothing. */
		(void)shutdown(one->fd, SHUT_WR);
		read_rest(one->fd);
		fd_closep(&one->fd);
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
