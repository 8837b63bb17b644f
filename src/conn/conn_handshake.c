/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "io/tls.h"
#include "wire/proxy.h"
#include "wire/token.h"
#include "wire/upgrade.h"
#include "wire/ws.h"

#define RETRY_AFTER_S 1
#define ORIGIN_SHOWN ((size_t)100) /* bytes of one that is refused, in the log */

/* ---------------------------------------------------------------------------- refusals */

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
	[CONN_E_BAD_POSITION]   = {400, offsetof(struct metrics, refused_bad_request),
				   NULL, "since or rewind in its query is no position"},
};
/* clang-format on */

/* The last that is sent to it. */
static void conn_end_handshake(struct conn *c, const char *answer, size_t n)
{
	conn_step(c, CONN_ON_CLOSE);
	/* No WebSocket frame is to come from it, so no Close is waited for. */
	c->is_deaf = c->got_close = true;
	conn_send_raw(c, answer, n);
}

/* ERROR and Close, in the place of a status. Return: their length. */
static size_t format_closing(uint8_t *out, size_t cap, int status)
{
	uint8_t payload[WS_MAX_CONTROL];
	char reason[UPGRADE_MAX_REFUSAL];
	struct msg_builder b;
	sd_id128_t id = SD_ID128_NULL;
	size_t n, len;

	/* Its line, without the end. */
	snprintf(reason, sizeof(reason), "%s", upgrade_refusal_text(status));
	reason[strcspn(reason, "\n")] = '\0';
	(void)sd_id128_randomize(&id);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_own_request_id(&b, id.bytes);
	msg_set_code(&b, (uint32_t)status);
	msg_set_reason(&b, reason);
	if (status == 429 || status == 503)
		msg_set_reconnect_after_ms(&b, RETRY_AFTER_S * 1000);
	len = msg_size(&b);
	WB_ASSERT(cap >= 2 * WS_MAX_HEAD + len + WS_MAX_CONTROL);
	n = ws_encode_head(out, true, 0, WS_BINARY, len, NULL);
	n += msg_pack(&b, out + n);
	len = ws_format_close(payload, (uint16_t)(WS_CODES_REFUSED + status), reason);
	n += ws_encode_head(out + n, true, 0, WS_CLOSE, len, NULL);
	memcpy(out + n, payload, len);
	return n + len;
}

/* @u: of a handshake that is right in itself, which may be answered so; else NULL. */
static size_t format_refusal(const struct conn *c, const struct upgrade *u, int status, char *out,
			     size_t cap)
{
	size_t n;

	if (!u || !c->env->config->refuse_by_close)
		return upgrade_format_refusal(out, cap, status, RETRY_AFTER_S);
	n = upgrade_format_ok(out, cap, u, NULL);
	return n + format_closing((uint8_t *)out + n, cap - n, status);
}

/*
 * Refuses the handshake and ends the connection. @counter is of the metrics; @setting names the
 * key whose limit was reached, or is NULL; @why is for the log alone, or NULL.
 */
static void conn_refuse(struct conn *c, const struct upgrade *u, int status,
			_Atomic uint64_t *counter, const char *setting, const char *why)
{
	char answer[1024];
	char text[360];
	size_t n;

	if (c->state != CONN_HANDSHAKE)
		return;
	metric_add(counter, 1);
	METRIC_INC(c->env->metrics, connection_errors);
	snprintf(text, sizeof(text), "was refused: handshake answered with %d %s%s%s%s%s", status,
		 http_status_text(status), setting && !why ? ", past " : "",
		 setting && !why ? setting : "", why ? ": " : "", why ? why : "");
	conn_log(c, LOG_NOTICE, EV_REFUSED, setting, text);
	n = format_refusal(c, u, status, answer, sizeof(answer));
	conn_end_handshake(c, answer, n);
}

/* True when there is nothing to refuse it for; else it has its answer. */
static bool conn_is_admitted(struct conn *c, const struct upgrade *u, enum conn_refusal refusal)
{
	const struct conn_refusal_row *row = &conn_refusals[refusal];

	if (refusal == CONN_ADMITTED)
		return true;
	conn_refuse(c, u, row->status, metrics_counter(c->env->metrics, row->counter), row->setting,
		    row->why);
	return false;
}

/* False: it came as one too many, and was refused. */
static bool conn_has_place(struct conn *c, const struct upgrade *u)
{
	return conn_is_admitted(c, u, c->is_too_many ? CONN_E_ADDRESS_FULL : c->refusal);
}

/*
 * Refuses a request for what it is; @request: NULL when it could not be read; @u: NULL, or of one
 * that only asks for what there can't be.
 */
static void conn_refuse_request(struct conn *c, int status, const struct http_request *request,
				const struct upgrade *u, const char *why)
{
	struct metrics *m = c->env->metrics;
	_Atomic uint64_t *counter = &m->refused_bad_request;

	if (status == 404)
		counter = &m->refused_path;
	else if (status == 405)
		counter = &m->refused_method;
	else if (status == 431)
		counter = &m->refused_head_too_large;
	else if (status == 426) /* with an Upgrade, it is the version that is wrong */
		counter = request && http_find(request, "Upgrade") ? &m->refused_version
								   : &m->refused_no_upgrade;
	conn_refuse(c, u, status, counter, NULL, why);
}

/* ---------------------------------------------------------------------------- who it is */

static bool is_trusted(const uint8_t ip[IP_BYTES], const void *policy)
{
	return policy_trusts(policy, ip);
}

/* The client behind a proxy that speaks HTTP. */
static bool conn_take_forwarded(struct conn *c, const struct http_request *request,
				const struct upgrade *u)
{
	const struct policy *policy = c->env->policy;
	struct sock_peer peer = {0};

	/* A PROXY header has named the client already, whose own header may say anything. */
	if (c->env->config->proxy_protocol)
		return true;
	if (!c->peer.is_unix && !policy_trusts(policy, c->peer.ip))
		return true;
	if (!proxy_forwarded_for(&request->headers, is_trusted, policy, peer.ip))
		return true;
	c->is_too_many = c->env->ops->move(c, &peer) != CONN_ADMITTED;
	return conn_has_place(c, u);
}

static void conn_end_proxy(struct conn *c)
{
	METRIC_INC(c->env->metrics, refused_proxy);
	METRIC_INC(c->env->metrics, connection_errors);
	conn_log(c, LOG_NOTICE, EV_REFUSED, "proxy_protocol",
		 "sent no PROXY protocol header; dropped");
	conn_abort(c);
}

/* Reads the header whole, and nothing behind it. False: not yet, or the connection is gone. */
static bool conn_read_proxy(struct conn *c, struct proxy_header *ret)
{
	uint8_t head[PROXY_MAX];
	size_t used = 0;
	ssize_t n = transport_peek(&c->transport, head, sizeof(head));
	int r = n > 0 ? proxy_parse(head, (size_t)n, ret, &used) : PROXY_MORE;

	/* What there is of it stays in the kernel: more bytes are another edge. */
	if (n == -EAGAIN || (n > 0 && r == PROXY_MORE && !c->has_hup)) {
		c->can_read = false;
		return false;
	}
	/* It ended, or broke, before its header was whole. */
	if (r == PROXY_MORE) {
		c->can_read = false;
		conn_feed_end(c);
		return false;
	}
	/* Only now the header is taken out of the kernel: behind it TLS may begin. */
	if (r || transport_recv(&c->transport, head, used) != (ssize_t)used) {
		conn_end_proxy(c);
		return false;
	}
	return true;
}

bool conn_take_proxy(struct conn *c)
{
	struct proxy_header header = {0};
	struct sock_peer peer = {0};

	if (!conn_read_proxy(c, &header))
		return false;
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

/* -------------------------------------------------------------------------- what it may */

/* Behind "access_token=" in the query; p is NULL: none. */
static struct http_text find_query_token(struct http_text query)
{
	while (query.n > 0) {
		struct http_text pair, name;

		if (!http_cut(&query, '&', &pair)) {
			pair = query;
			query.n = 0;
		}
		if (http_cut(&pair, '=', &name) && http_text_is(name, "access_token"))
			return pair;
	}
	return (struct http_text){0};
}

/* Of Authorization; p is NULL: none. Another scheme, and nothing at all, is no token. */
static struct http_text find_header_token(const struct http_request *request)
{
	const struct http_headers *all = &request->headers;

	for (size_t i = 0; i < all->count; i++) {
		struct http_text rest = all->at[i].value, scheme;

		if (!http_text_is_nocase(all->at[i].name, "Authorization") ||
		    !http_cut(&rest, ' ', &scheme) || !http_text_is_nocase(scheme, "Bearer"))
			continue;
		rest = http_trim(rest);
		if (rest.n > 0)
			return rest;
	}
	return (struct http_text){0};
}

/* The token: from the header, else the subprotocols, else the query. p is NULL: none. */
static struct http_text find_token(const struct http_request *request, const struct upgrade *u)
{
	struct http_text token = find_header_token(request);

	if (!token.p)
		token = u->bearer;
	return token.p ? token : find_query_token(request->query);
}

static bool conn_refuse_auth(struct conn *c, const struct upgrade *u, const char *why)
{
	conn_refuse(c, u, 403, &c->env->metrics->refused_auth, NULL, why);
	return false;
}

static bool conn_take_certificate(struct conn *c, const struct upgrade *u)
{
	char name[TLS_NAME_MAX];

	if (!transport_client_name(&c->transport, name) || !grant_is_user_id(name))
		return conn_refuse_auth(c, u, "its certificate has no name that can be used");
	c->grant = grant_new(name, 0, 0);
	return c->grant || conn_refuse_auth(c, u, "out of memory");
}

static bool conn_take_token(struct conn *c, const struct http_request *request,
			    const struct upgrade *u)
{
	struct http_text token = find_token(request, u);
	enum token_result r;
	struct grant *grant;
	char why[160];

	if (!token.p)
		return conn_refuse_auth(c, u, "it has no token");
	r = policy_verify_token(c->env->policy, token.p, token.n, &grant);
	if (r != TOKEN_OK) {
		snprintf(why, sizeof(why), "its token is refused: %s", token_result_text(r));
		return conn_refuse_auth(c, u, why);
	}
	free(c->grant);
	c->grant = grant;
	return true;
}

/* The certificate of a client says who it is; a token, where one is asked for, overrules it. */
static bool conn_authorize(struct conn *c, const struct http_request *request,
			   const struct upgrade *u)
{
	if (transport_is_tls(&c->transport) && c->env->config->tls_client_ca[0] &&
	    !conn_take_certificate(c, u))
		return false;
	return !c->env->policy->keys || conn_take_token(c, request, u);
}

static bool conn_may_enter(struct conn *c, const struct http_request *request,
			   const struct upgrade *u)
{
	char origin[4 * ORIGIN_SHOWN + 1], why[sizeof(origin) + 60];

	/* What costs least is asked first. Last comes what would have to be undone: joining. */
	if (!conn_has_place(c, u) || !conn_take_forwarded(c, request, u))
		return false;
	if (!policy_allows_origin(c->env->policy, u->origin)) {
		text_escape(origin, sizeof(origin), u->origin.p, MIN(u->origin.n, ORIGIN_SHOWN));
		snprintf(why, sizeof(why), "pages of its origin may not connect: %s%s",
			 u->origin.n ? origin : "an empty one",
			 u->origin.n > ORIGIN_SHOWN ? "..." : "");
		conn_refuse(c, u, 403, &c->env->metrics->refused_origin, "allowed_origins", why);
		return false;
	}
	return conn_authorize(c, request, u) && conn_is_admitted(c, u, c->env->ops->admit(c, u));
}

/* ------------------------------------------------------------------------ the answer is 101 */

/* The 101 is queued: from here on, frames come. */
static void conn_open(struct conn *c)
{
	struct conn_env *env = c->env;
	const struct config *config = env->config;
	uint64_t now = env->reactor->now_ns;

	if (!conn_step(c, CONN_ON_UPGRADED))
		return;
	c->was_open = true;
	c->last_sign_ns = now;
	METRIC_INC(env->metrics, connections_total);
	METRIC_INC(env->metrics, connections_active);
	conn_rearm(c, now + MIN(config->ping_interval, config->heartbeat_timeout));
	conn_arm(c, conn_grant_deadline(c, now));
	env->ops->opened(c);
}

static void conn_upgrade(struct conn *c, const struct http_request *request)
{
	char answer[1024], extension[DEFLATE_ANSWER_MAX];
	enum deflate_window window = DEFLATE_NONE;
	struct upgrade u;
	int status;
	size_t n;

	/* All that makes a request wrong is looked at before who sends it, and what it may. */
	status = upgrade_check(request, &u);
	if (status) {
		conn_refuse_request(c, status, request, status == 404 ? &u : NULL, u.why);
		return;
	}
	status = deflate_negotiate(&request->headers, extension, &window);
	if (status) {
		conn_refuse_request(c, status, request, NULL,
				    "Sec-WebSocket-Extensions is no list of extensions");
		return;
	}
	if (!c->env->config->permessage_deflate)
		window = DEFLATE_NONE;
	/* Before it is a member of anything: its channel counts what members can read. */
	c->deflate_window = window;
	if (!conn_may_enter(c, request, &u))
		return;
	n = upgrade_format_ok(answer, sizeof(answer), &u, window ? extension : NULL);
	/* The answer is the first of the queue: what opened() sends stands behind it. */
	conn_send_raw(c, answer, n);
	conn_open(c);
}

/* Of a balancer in front, which knows this port alone; a channel may be called so, too. */
static bool is_health_check(const struct http_request *request)
{
	return http_text_is(request->path, "/healthz") && !http_find(request, "Upgrade") &&
	       (http_text_is(request->method, "GET") || http_text_is(request->method, "HEAD"));
}

/* That the worker answers says it all; it comes every few seconds, and nobody logs it. */
static void conn_answer_health(struct conn *c, const struct http_request *request)
{
	static const char body[] = "ok\n";
	char answer[200];
	size_t n = http_format_response(answer, sizeof(answer), 200, NULL, body);

	if (http_text_is(request->method, "HEAD"))
		n -= sizeof(body) - 1;
	conn_end_handshake(c, answer, n);
}

/* The head so far, and then @p; false without memory. */
static bool conn_keep_head(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = conn_input_of(c);

	return in && buf_append(&in->message, p, n, CONN_HEAD_LIMIT + 1) == 0;
}

size_t conn_feed_head(struct conn *c, const uint8_t *p, size_t n)
{
	size_t before = c->input ? c->input->message.len : 0;
	/* One byte past the limit is enough to see that the head is too long. */
	size_t more = MIN(n, CONN_HEAD_LIMIT + 1 - before);
	const uint8_t *head = p;
	struct http_request request;
	size_t head_bytes = 0;
	int r;

	/* A head that comes whole, as nearly all do, is read where it lies. */
	if (before > 0) {
		if (!conn_keep_head(c, p, more)) {
			conn_abort(c);
			return n;
		}
		head = c->input->message.data;
	}
	r = http_parse_request((const char *)head, before > 0 ? before + more : n, CONN_HEAD_LIMIT,
			       &request, &head_bytes);
	if (r == HTTP_MORE) {
		if (before == 0 && !conn_keep_head(c, p, more))
			conn_abort(c);
		return n;
	}
	if (r != 0) {
		conn_refuse_request(c, r, NULL, NULL, request.why);
		return n;
	}
	if (is_health_check(&request))
		conn_answer_health(c, &request);
	else
		conn_upgrade(c, &request);
	conn_drop_input(c);
	/* What stands behind the head is frames already, and the caller's. */
	return head_bytes - before;
}
