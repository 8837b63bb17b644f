/* SPDX-License-Identifier: MIT */
/* HTTP: which route, which method, how much of a body; then whoever answers the route. */
#include "service/admin_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/ip.h"
#include "base/text.h"

#define DISCARD_MAX ((size_t)1 << 20)

const struct admin_route admin_routes[ADMIN_N_ROUTES] = {
#define ROUTE(name, method_, path_, flags_, parameters_) \
	[ADMIN_ROUTE_##name] = {.method = #method_,      \
				.path = (path_),         \
				.flags = (flags_),       \
				.parameters = (parameters_)},
#include "service/admin_table.h"
};

/* NULL: there is no such page, at least not here. */
static const struct admin_route *route_find(const struct admin_side *side, const char *path)
{
	for (size_t i = 0; i < ADMIN_N_ROUTES; i++)
		/* What is not for this listener is as unknown as what does not exist. */
		if (strcmp(admin_routes[i].path, path) == 0 &&
		    (side->is_control || !(admin_routes[i].flags & ADMIN_CONTROL_ONLY)))
			return &admin_routes[i];
	return NULL;
}

static bool route_allows(const struct admin_route *route, const char *method)
{
	bool is_get = strcmp(route->method, MHD_HTTP_METHOD_GET) == 0;

	/* libmicrohttpd leaves the body of an answer to HEAD out by itself. */
	return strcmp(method, route->method) == 0 ||
	       (is_get && strcmp(method, MHD_HTTP_METHOD_HEAD) == 0);
}

/* What is announced and too long is refused before it is sent. */
static bool request_announces_too_much(struct admin_request *req)
{
	const char *text = MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_LENGTH);
	uint64_t n;

	return text && (text_parse_count(text, &n) < 0 || n > req->max_body);
}

static void request_refuse_body(struct admin_request *req)
{
	admin_request_answer_text(req, MHD_HTTP_CONTENT_TOO_LARGE,
				  req->route->flags & ADMIN_HAS_BODY
					  ? "longer than max_message_size\n"
					  : "no body is expected\n");
}

/* What a query has that its route doesn't. */
struct parameters {
	const char *allowed;
	char wrong[100]; /* the first that is none, or stands twice; "": all are good */
	unsigned seen;   /* bits by their place in @allowed */
	bool is_twice;
};

static enum MHD_Result check_parameter(void *cls, enum MHD_ValueKind kind, const char *name,
				       const char *value)
{
	struct parameters *p = cls;
	unsigned bit = 1;
	size_t n;

	(void)kind;
	(void)value;
	for (const char *at = p->allowed; (n = text_next_word(&at)) > 0; bit <<= 1) {
		if (strlen(name) != n || memcmp(name, at - n, n) != 0)
			continue;
		p->is_twice = p->seen & bit;
		if (p->is_twice)
			break;
		p->seen |= bit;
		return MHD_YES;
	}
	text_escape(p->wrong, sizeof(p->wrong), name, strlen(name));
	return MHD_NO;
}

/* False: it was refused. */
static bool request_has_good_parameters(struct admin_request *req)
{
	struct parameters p = {.allowed = req->route->parameters};
	char text[300];

	if (!(req->route->flags & ADMIN_CONTROL_ONLY))
		return true;
	(void)MHD_get_connection_values(req->connection, MHD_GET_ARGUMENT_KIND, check_parameter,
					&p);
	if (!p.wrong[0])
		return true;
	snprintf(text, sizeof(text), "%s: %s; allowed: %s\n", p.wrong,
		 p.is_twice ? "stands twice" : "no such parameter",
		 p.allowed[0] ? p.allowed : "none");
	admin_request_answer_text(req, MHD_HTTP_BAD_REQUEST, text);
	return false;
}

/* Its host without the port: an address, or the name that every host has for itself. */
static bool is_own_host(const char *host)
{
	const char *end = host[0] == '[' ? strchr(host, ']') : strrchr(host, ':');
	char name[64];
	size_t n = end ? (size_t)(end - host) : strlen(host);
	uint8_t ip[IP_BYTES];

	if (host[0] == '[') {
		host++;
		n -= n > 0;
	}
	if (n >= sizeof(name))
		return false;
	memcpy(name, host, n);
	name[n] = '\0';
	return strcasecmp(name, "localhost") == 0 || ip_parse(name, n, ip) == 0;
}

/* False: it was refused. Without a Host it is of no browser. */
static bool request_names_this_host(struct admin_request *req, const struct admin_side *side)
{
	const char *host =
		MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);

	if (side->is_control || !req->admin->is_loopback || !host || is_own_host(host))
		return true;
	admin_request_answer_text(req, MHD_HTTP_MISDIRECTED_REQUEST,
				  "Host has to be an address or localhost, since metrics_host is "
				  "one of this host alone\n");
	return false;
}

/* The head is there: refuse at once what is no use reading. */
static void request_begin(struct admin_request *req, const struct admin_side *side,
			  const char *path, const char *method)
{
	if (!request_names_this_host(req, side))
		return;
	req->route = route_find(side, path);
	if (!req->route) {
		admin_request_answer_text(req, MHD_HTTP_NOT_FOUND, "no such page\n");
		return;
	}
	if (!route_allows(req->route, method)) {
		bool is_get = strcmp(req->route->method, MHD_HTTP_METHOD_GET) == 0;
		const char *allow = is_get ? "GET, HEAD" : req->route->method;

		admin_request_answer_text(req, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed\n");
		/* Fails for lack of memory only; the status alone has to do then. */
		if (req->response)
			(void)MHD_add_response_header(req->response, MHD_HTTP_HEADER_ALLOW, allow);
		return;
	}
	if (!request_has_good_parameters(req))
		return;
	req->max_body =
		req->route->flags & ADMIN_HAS_BODY ? req->admin->max_body : ADMIN_SMALL_BODY;
	if (request_announces_too_much(req))
		request_refuse_body(req);
}

static enum MHD_Result request_send(struct admin_request *req)
{
	/* No memory for an answer: the connection is dropped, which the client sees. */
	if (!req->response)
		return MHD_NO;
	admin_peer_set_waiting(req->connection, false);
	return MHD_queue_response(req->connection, req->status, req->response);
}

/*
 * A body without announced length is read on past its limit, so that the client
 * gets its answer instead of a reset, but not for ever.
 */
static enum MHD_Result request_discard(struct admin_request *req, size_t n)
{
	buf_fini(&req->body);
	req->is_too_big = true;
	req->discarded += n;
	return req->discarded <= DISCARD_MAX ? MHD_YES : MHD_NO;
}

static enum MHD_Result request_collect(struct admin_request *req, const char *data, size_t *n)
{
	size_t more = *n;

	*n = 0;
	/* It has its answer, and only has to say all that it has to say. */
	if (req->is_replied)
		return (req->discarded += more) <= DISCARD_MAX ? MHD_YES : MHD_NO;
	if (req->is_too_big || more > req->max_body - req->body.len)
		return request_discard(req, more);
	return buf_append(&req->body, data, more, req->max_body) < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result request_run(struct admin_request *req)
{
	struct admin *a = req->admin;

	if (req->is_too_big) {
		request_refuse_body(req);
	} else if (a->is_closing) {
		admin_request_answer_text(req, MHD_HTTP_SERVICE_UNAVAILABLE, ADMIN_STOPPING);
	} else {
		/* Before the call, in which the answer may be given already. */
		admin_peer_set_waiting(req->connection, true);
		admin_request_hand_out(req);
		a->answers[req->route - admin_routes](a->ctx, req);
	}
	if (req->is_replied)
		return request_send(req);
	/* The answer comes turns later: until then libmicrohttpd leaves the connection alone. */
	MHD_suspend_connection(req->connection);
	req->is_suspended = true;
	return MHD_YES;
}

static const char *request_header(const struct admin_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

/*
 * Whether a body is on its way, whatever the answer will be: who is answered and closed in the
 * middle of sending it meets a reset, and never sees why. Who has asked first waits for an answer.
 */
static bool request_is_sending(const struct admin_request *req)
{
	const char *length = request_header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);
	size_t most = MIN(req->max_body ? req->max_body : (size_t)ADMIN_SMALL_BODY, DISCARD_MAX);

	if (request_header(req, MHD_HTTP_HEADER_EXPECT))
		return false;
	if (request_header(req, MHD_HTTP_HEADER_TRANSFER_ENCODING))
		return true;
	/* Nobody has to send more than could be taken to be told so. */
	return length && strcmp(length, "0") != 0 && strtoull(length, NULL, 10) <= most;
}

enum MHD_Result admin_http_handle(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_size, void **state)
{
	struct admin_side *side = cls;
	struct admin_request *req = *state;

	(void)version;
	/*
	 * The first call comes with the head alone, the next with the body, the last without any.
	 */
	if (!req) {
		req = calloc(1, sizeof(*req));
		if (!req)
			return MHD_NO;
		list_init(&req->node);
		req->admin = side->admin;
		req->connection = connection;
		req->is_held_by_http = true;
		*state = req;
		request_begin(req, side, url, method);
		return req->is_replied && !request_is_sending(req) ? request_send(req) : MHD_YES;
	}
	if (*data_size > 0)
		return request_collect(req, data, data_size);
	return req->is_replied ? request_send(req) : request_run(req);
}

void admin_http_completed(void *cls, struct MHD_Connection *connection, void **state,
			  enum MHD_RequestTerminationCode how)
{
	struct admin_request *req = *state;

	(void)cls;
	(void)how;
	if (!req)
		return;
	admin_peer_set_waiting(connection, false);
	*state = NULL;
	req->connection = NULL;
	req->is_held_by_http = false;
	/* Still held by ops only after admin_turn_away(), which has taken it out of the list. */
	admin_request_release(req);
}
