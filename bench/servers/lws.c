/* SPDX-License-Identifier: MIT */
/*
 * A broadcast as one writes it with libwebsockets: the last messages are kept once for all, and
 * each client writes the next one whenever it may. What one client sends goes to all others. Who
 * falls too far behind is disconnected. Prints its port.
 */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES (256 << 10)
#define KEPT 1024 /* messages */
#define MAX_CLIENTS 19000

struct message {
	const void *from;     /* its client */
	unsigned char *bytes; /* LWS_PRE bytes of room for the head, then the data */
	size_t len, cap;
};

/* lws makes one for each connection, all zero. */
struct client {
	size_t written;    /* messages, from the first ever */
	struct message in; /* being put together */
};

static struct message kept[KEPT];
static size_t n_messages; /* ever */

static void append(struct message *m, const void *p, size_t n)
{
	if (m->cap < m->len + n) {
		m->cap = 2 * (m->len + n);
		m->bytes = realloc(m->bytes, LWS_PRE + m->cap);
		if (!m->bytes)
			exit(1);
	}
	memcpy(m->bytes + LWS_PRE + m->len, p, n);
	m->len += n;
}

/* A whole message takes the place of the oldest, whose memory is used again. */
static void keep(struct client *c)
{
	struct message *m = &kept[n_messages++ % KEPT], oldest = *m;

	*m = c->in;
	m->from = c;
	c->in = oldest;
	c->in.len = 0;
}

static int write_next(struct lws *wsi, struct client *c)
{
	const struct message *m;

	if (n_messages - c->written > KEPT)
		return -1;
	while (c->written < n_messages && kept[c->written % KEPT].from == c)
		c->written++;
	if (c->written == n_messages)
		return 0;
	m = &kept[c->written++ % KEPT];
	if (lws_write(wsi, m->bytes + LWS_PRE, m->len, LWS_WRITE_BINARY) < (int)m->len)
		return -1;
	if (c->written < n_messages)
		lws_callback_on_writable(wsi);
	return 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *data,
		    size_t n)
{
	struct client *c = user;

	switch (reason) {
	case LWS_CALLBACK_ESTABLISHED:
		c->written = n_messages;
		break;
	case LWS_CALLBACK_RECEIVE:
		append(&c->in, data, n);
		if (!lws_is_final_fragment(wsi) || lws_remaining_packet_payload(wsi) > 0)
			break;
		keep(c);
		lws_callback_on_writable_all_protocol(lws_get_context(wsi), lws_get_protocol(wsi));
		break;
	case LWS_CALLBACK_SERVER_WRITEABLE:
		return write_next(wsi, c);
	case LWS_CALLBACK_CLOSED:
		free(c->in.bytes);
		break;
	default:
		break;
	}
	return 0;
}

int main(void)
{
	static const struct lws_protocols protocols[] = {
		{"", on_event, sizeof(struct client), READ_BYTES, 0, NULL, 0},
		{NULL, NULL, 0, 0, 0, NULL, 0},
	};
	struct lws_context_creation_info info = {
		.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DISABLE_IPV6,
		.protocols = protocols,
		.iface = "127.0.0.1",
		.fd_limit_per_thread = MAX_CLIENTS + 100,
		.pt_serv_buf_size = READ_BYTES,
	};
	struct lws_context *context;
	struct lws_vhost *vhost;

	lws_set_log_level(LLL_ERR, NULL);
	context = lws_create_context(&info);
	vhost = context ? lws_create_vhost(context, &info) : NULL;
	if (!vhost)
		return 1;
	printf("port %d\n", lws_get_vhost_listen_port(vhost));
	fflush(stdout);
	while (lws_service(context, 0) >= 0) {
	}
	lws_context_destroy(context);
	return 0;
}
