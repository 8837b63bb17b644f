/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conn/conn_private.h"
#include "wire/proxy.h"
#include "wire/token.h"
#include "wire/upgrade.h"

/* clang-format off */
const struct conn_refusal_row conn_refusals[CONN_N_REFUSALS] = {
	[CONN_E_FULL]           = {503, offsetof(struct metrics, refused_max_connections),
				   "max_connections", NULL},
	[CONN_E_ADDRESS_FULL]   = {429, offsetof(struct metrics, refused_per_ip),
				   "max_connections_per_ip", NULL},
	[CONN_E_NO_CHANNEL]     = {503, offsetof(struct metrics, refused_max_channels),
				   "max_channels", NULL},
	[CONN_E_CHANNEL_DENIED] = {403, offsetof(struct metrics, refused_auth),
				   NULL, "its token does not allow the channel"},
};
/* clang-format on */

/* False: it was refused, and has its answer. */
static bool pass_or_refuse(struct conn *c, enum conn_refusal refusal)
{
	const struct conn_refusal_row *row = &conn_refusals[refusal];

	if (refusal == CONN_ADMITTED)
		return true;
	conn_refuse(c, row->status, metrics_counter(c->env->metrics, row->counter), row->setting,
		    row->why);
	return false;
}

/* Refuses a request for what it is; @request: NULL when it could not be read. */
static void refuse_request(struct conn *c, int status, const struct http_request *request)
{
	struct metrics *m = c->env->metrics;
	_Atomic uint64_t *counter = &m->refused_bad_request;

	if (status == 404)
		counter = &m->refused_path;
	else if (status == 405)
		counter = &m->refused_method;
	else if (status == 431)
		counter = &m->refused_head_too_large;
	else if (status == 426)
		counter = request && http_find(request, "Upgrade") ? &m->refused_version
								   : &m->refused_no_upgrade;
	conn_refuse(c, status, counter, NULL, NULL);
}

/* False: it came as one too many, and was refused. */
static bool has_place(struct conn *c)
{
	return pass_or_refuse(c, c->is_too_many ? CONN_E_ADDRESS_FULL : c->refusal);
}

/* True when it is a member of its path's channel now; else it was refused. */
static bool find_room(struct conn *c, const struct upgrade *u)
{
	return pass_or_refuse(c, c->env->ops->admit(c, u));
}

/* ---------------------------------------------------------------- who it is */

static bool is_trusted(const uint8_t ip[IP_BYTES], const void *policy)
{
	return policy_trusts(policy, ip);
}

/* The client behind a proxy that speaks HTTP. */
static bool take_forwarded(struct conn *c, const struct http_request *request)
{
	const struct policy *policy = c->env->policy;
	struct sock_peer peer = {0};

	if (c->env->config->proxy_protocol ||
	    (!c->peer.is_unix && !policy_trusts(policy, c->peer.ip)) ||
	    !proxy_forwarded_for(&request->headers, is_trusted, policy, peer.ip))
		return true;
	c->is_too_many = c->env->ops->move(c, &peer) != CONN_ADMITTED;
	return has_place(c);
}

static bool proxy_failed(struct conn *c, const char *what)
{
	METRIC_INC(c->env->metrics, refused_proxy);
	METRIC_INC(c->env->metrics, connection_errors);
	conn_log(c, LOG_NOTICE, EV_REFUSED, "proxy_protocol", what);
	conn_abort(c);
	return false;
}

bool conn_take_proxy(struct conn *c)
{
	struct proxy_header header = {0};
	struct sock_peer peer = {0};
	uint8_t head[PROXY_MAX];
	size_t used = 0;
	ssize_t n = transport_peek(&c->transport, head, sizeof(head));
	int r = n > 0 ? proxy_parse(head, (size_t)n, &header, &used) : PROXY_MORE;

	if (n == -EAGAIN || (n > 0 && r == PROXY_MORE && !c->has_hup)) {
		c->can_read = false; /* more bytes are another edge */
		return false;
	}
	if (r == PROXY_MORE) {
		c->can_read = false;
		conn_feed_end(c);
		return false;
	}
	if (r || transport_recv(&c->transport, head, used) != (ssize_t)used)
		return proxy_failed(c, "sent no PROXY protocol header; dropped");
	c->awaits_proxy = false;
	if (c->awaits_tls &&
	    transport_init_tls(&c->transport, c->transport.fd, c->env->policy->tls)) {
		conn_abort(c);
		return false;
	}
	c->awaits_tls = false;
	if (!header.has_address)
		return true;
	memcpy(peer.ip, header.ip, sizeof(peer.ip));
	peer.port = header.port;
	/* Its handshake has to be read before it can be answered. */
	c->is_too_many = !c->refusal && c->env->ops->move(c, &peer) != CONN_ADMITTED;
	return true;
}

/* ---------------------------------------------------------------- what it may */

/* The token: from the header, else the subprotocols, else the query. p is NULL: none. */
static struct http_text find_token(const struct http_request *request, struct upgrade *u)
{
	const struct http_header *h = http_find(request, "Authorization");
	struct http_text rest = h ? h->value : (struct http_text){0}, word;
	struct http_list pos = {0};

	if (h)
		return http_cut(&rest, ' ', &word) && http_text_is_nocase(word, "Bearer")
			       ? http_trim(rest)
			       : (struct http_text){"", 0};
	while (http_list_next(&request->headers, "Sec-WebSocket-Protocol", &pos, &word)) {
		if (!http_text_is(word, "bearer"))
			continue;
		u->selected = word;
		return http_list_next(&request->headers, "Sec-WebSocket-Protocol", &pos, &word)
			       ? word
			       : (struct http_text){"", 0};
	}
	rest = request->query;
	while (rest.n > 0) {
		struct http_text pair, name;

		if (!http_cut(&rest, '&', &pair)) {
			pair = rest;
			rest.n = 0;
		}
		if (http_cut(&pair, '=', &name) && http_text_is(name, "access_token"))
			return pair;
	}
	return (struct http_text){0};
}

static bool refuse_auth(struct conn *c, const char *why)
{
	conn_refuse(c, 403, &c->env->metrics->refused_auth, NULL, why);
	return false;
}

/* The certificate of a client says who it is; a token, where one is asked for, overrules it. */
static bool authorize(struct conn *c, const struct http_request *request, struct upgrade *u)
{
	const struct config *config = c->env->config;
	char name[TLS_NAME_MAX];

	if (transport_is_tls(&c->transport) && config->tls_client_ca[0]) {
		if (!transport_client_name(&c->transport, name) || !grant_is_user_id(name))
			return refuse_auth(c, "its certificate has no name that can be used");
		c->grant = grant_new(name, 0, 0);
		if (!c->grant)
			return refuse_auth(c, "out of memory");
	}
	if (c->env->policy->keys) {
		struct http_text token = find_token(request, u);
		enum token_result r;
		struct grant *grant;

		if (!token.p)
			return refuse_auth(c, "it has no token");
		r = token_verify(c->env->policy->keys, token.p, token.n, clock_wall_ms() / 1000,
				 &grant);
		if (r != TOKEN_OK) {
			char why[100];

			snprintf(why, sizeof(why), "its token is refused: %s",
				 token_result_text(r));
			return refuse_auth(c, why);
		}
		free(c->grant);
		c->grant = grant;
	}
	return true;
}

static bool may_come_in(struct conn *c, const struct http_request *request, struct upgrade *u)
{
	if (!has_place(c) || !take_forwarded(c, request))
		return false;
	if (!policy_allows_origin(c->env->policy, u->origin)) {
		conn_refuse(c, 403, &c->env->metrics->refused_origin, "allowed_origins",
			    "pages of its origin may not connect");
		return false;
	}
	return authorize(c, request, u) && find_room(c, u);
}

static void upgrade_now(struct conn *c, const struct http_request *request)
{
	char answer[1024], extension[DEFLATE_ANSWER_MAX];
	enum deflate_window window = DEFLATE_NONE;
	struct upgrade u;
	int status;
	size_t n;

	status = upgrade_check(request, &u);
	if (!status)
		status = deflate_negotiate(&request->headers, extension, &window);
	if (status) {
		refuse_request(c, status, request);
		return;
	}
	if (!may_come_in(c, request, &u))
		return;
	if (!c->env->config->permessage_deflate)
		window = DEFLATE_NONE;
	c->deflate_window = window;
	n = upgrade_format_ok(answer, sizeof(answer), &u, window ? extension : NULL);
	conn_send_raw(c, answer, n);
	conn_upgraded(c);
}

size_t conn_feed_head(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = c->input;
	size_t before = in ? in->message.len : 0;
	size_t more = MIN(n, CONN_HEAD_LIMIT + 1 - before);
	struct http_request request;
	size_t head_bytes = 0;
	int r;

	if (before == 0) {
		r = http_parse_request((const char *)p, n, CONN_HEAD_LIMIT, &request, &head_bytes);
	} else {
		if (buf_append(&in->message, p, more, CONN_HEAD_LIMIT + 1)) {
			conn_abort(c);
			return n;
		}
		r = http_parse_request((const char *)in->message.data, in->message.len,
				       CONN_HEAD_LIMIT, &request, &head_bytes);
	}
	if (r == 0) {
		upgrade_now(c, &request);
		if (c->input)
			conn_drop_input(c);
		return head_bytes - before;
	}
	if (r != HTTP_MORE) {
		refuse_request(c, r, NULL);
		return n;
	}
	if (before == 0 &&
	    (!conn_input_of(c) || buf_append(&c->input->message, p, more, CONN_HEAD_LIMIT + 1)))
		conn_abort(c);
	return n;
}
