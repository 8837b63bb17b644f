/* SPDX-License-Identifier: MIT */
#include "service/admin_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

#define DISCARD_MAX ((size_t)1 << 20)

/* A path, what may be done with it, and the function that does it once the body is there. */
struct admin_route {
	const char *path;
	bool is_post; /* else GET and HEAD */
	bool is_control_only;
	bool has_body;
	void (*run)(struct admin_request *req);
};

static void answer(struct admin_request *req, unsigned status, const char *text)
{
	struct buf body = {0};

	/* Without memory for the text the status alone has to do. */
	(void)!buf_append(&body, text, strlen(text), BUF_NO_LIMIT);
	admin_request_answer(req, status, NULL, &body);
}

/* From here on the request is owned by ops as well. */
static struct admin_request *hand_over(struct admin_request *req)
{
	req->is_held_by_ops = true;
	list_add_tail(&req->admin->waiting, &req->node);
	return req;
}

static const char *argument(struct admin_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

static void run_metrics(struct admin_request *req)
{
	struct buf text = {0};

	if (req->admin->ops->metrics(req->admin->ctx, &text) < 0) {
		buf_fini(&text);
		answer(req, MHD_HTTP_INTERNAL_SERVER_ERROR, "the metrics cannot be rendered\n");
		return;
	}
	admin_request_answer(req, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &text);
}

static void answer_state(struct admin_request *req, bool is_good, const char *reason)
{
	struct buf text = {0};

	/* Without memory for the text the status alone has to do. */
	(void)!buf_printf(&text, "%s\n", is_good ? "ok" : reason);
	admin_request_answer(req, is_good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, NULL,
			     &text);
}

static void run_healthz(struct admin_request *req)
{
	char reason[ADMIN_REASON_MAX] = "";

	answer_state(req, req->admin->ops->is_healthy(req->admin->ctx, reason), reason);
}

static void run_readyz(struct admin_request *req)
{
	char reason[ADMIN_REASON_MAX] = "";

	answer_state(req, req->admin->ops->is_ready(req->admin->ctx, reason), reason);
}

static void run_clients(struct admin_request *req)
{
	const char *offset = argument(req, "offset");
	const char *limit = argument(req, "limit");

	req->offset = 0;
	req->limit = ADMIN_CLIENTS_DEFAULT;
	if ((offset && text_parse_count(offset, &req->offset) < 0) ||
	    (limit && text_parse_count(limit, &req->limit) < 0) || req->limit == 0) {
		answer(req, MHD_HTTP_BAD_REQUEST,
		       "offset is a number from 0 on, limit one from 1 on\n");
		return;
	}
	req->limit = MIN(req->limit, (uint64_t)ADMIN_CLIENTS_MAX);
	req->admin->ops->clients(req->admin->ctx, hand_over(req), req->offset, req->limit);
}

static void run_reload(struct admin_request *req)
{
	req->admin->ops->reload(req->admin->ctx, hand_over(req));
}

/* Is @type the media type @name, with or without parameters behind it? */
static bool is_media_type(const char *type, const char *name)
{
	size_t n = strcspn(type, "; \t");

	return n == strlen(name) && strncasecmp(type, name, n) == 0;
}

/* 0, or the status to refuse the content type with. */
static unsigned parse_content_type(struct admin_request *req, bool *ret_is_text)
{
	static const char *const packed[] = {"application/x-protobuf", "application/protobuf",
					     "application/vnd.google.protobuf",
					     "application/octet-stream"};
	const char *type = MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_TYPE);

	if (!type)
		return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
	if (is_media_type(type, "text/plain")) {
		*ret_is_text = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(packed); i++) {
		if (is_media_type(type, packed[i])) {
			*ret_is_text = false;
			return 0;
		}
	}
	return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
}

/* The channel of the query, or NULL when it is none. A NUL in it shows in the length. */
static const char *parse_channel(struct admin_request *req)
{
	const char *channel = NULL;
	size_t n = 0;

	if (MHD_lookup_connection_value_n(req->connection, MHD_GET_ARGUMENT_KIND, "channel",
					  strlen("channel"), &channel, &n) != MHD_YES ||
	    !channel)
		return "";
	if (n > ADMIN_CHANNEL_MAX || n != strlen(channel) || !utf8_valid(channel, n))
		return NULL;
	return channel;
}

static void run_publish(struct admin_request *req)
{
	struct admin_publication p = {
		.channel = parse_channel(req), .body = req->body.data, .n = req->body.len};

	if (parse_content_type(req, &p.is_text) != 0) {
		answer(req, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
		       "Content-Type has to be text/plain or application/x-protobuf\n");
		return;
	}
	if (!p.channel) {
		answer(req, MHD_HTTP_BAD_REQUEST,
		       "channel is at most 255 bytes of UTF-8 without NUL\n");
		return;
	}
	if (p.is_text && !utf8_valid(p.body, p.n)) {
		answer(req, MHD_HTTP_BAD_REQUEST, "the text is not valid UTF-8\n");
		return;
	}
	req->admin->ops->publish(req->admin->ctx, hand_over(req), &p);
}

static void run_disconnect(struct admin_request *req)
{
	const char *id = argument(req, "id");
	uint8_t bytes[16];

	if (!id || uuid_parse(id, bytes) < 0) {
		answer(req, MHD_HTTP_BAD_REQUEST, "id has to be the id of a client, a UUID\n");
		return;
	}
	req->admin->ops->disconnect(req->admin->ctx, hand_over(req), id);
}

static const struct admin_route routes[] = {
	{.path = "/metrics", .run = run_metrics},
	{.path = "/healthz", .run = run_healthz},
	{.path = "/readyz", .run = run_readyz},
	{.path = "/clients", .is_control_only = true, .run = run_clients},
	{.path = "/reload", .is_control_only = true, .is_post = true, .run = run_reload},
	{.path = "/publish",
	 .is_control_only = true,
	 .is_post = true,
	 .has_body = true,
	 .run = run_publish},
	{.path = "/disconnect", .is_control_only = true, .is_post = true, .run = run_disconnect},
};

static const struct admin_route *route_find(const struct admin_side *side, const char *path)
{
	for (size_t i = 0; i < ARRAY_LEN(routes); i++)
		if (strcmp(routes[i].path, path) == 0 &&
		    (side->is_control || !routes[i].is_control_only))
			return &routes[i];
	return NULL;
}

static bool route_allows(const struct admin_route *route, const char *method)
{
	if (route->is_post)
		return strcmp(method, MHD_HTTP_METHOD_POST) == 0;
	return strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
	       strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

/* What is announced and too long is refused before it is sent. */
static bool announces_too_much(struct admin_request *req)
{
	const char *text = MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_LENGTH);
	uint64_t n;

	return text && (text_parse_count(text, &n) < 0 || n > req->max_body);
}

static void answer_too_big(struct admin_request *req)
{
	answer(req, MHD_HTTP_CONTENT_TOO_LARGE,
	       req->route->has_body ? "longer than max_message_size\n" : "no body is expected\n");
}

/* The head is there: refuse at once what is no use reading. */
static void request_begin(struct admin_request *req, const struct admin_side *side,
			  const char *path, const char *method)
{
	req->route = route_find(side, path);
	if (!req->route) {
		answer(req, MHD_HTTP_NOT_FOUND, "no such page\n");
		return;
	}
	if (!route_allows(req->route, method)) {
		const char *allow = req->route->is_post ? "POST" : "GET, HEAD";

		answer(req, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed\n");
		/* Fails for lack of memory only; the status alone has to do then. */
		if (req->response)
			(void)MHD_add_response_header(req->response, MHD_HTTP_HEADER_ALLOW, allow);
		return;
	}
	req->max_body = req->route->has_body ? req->admin->max_body : ADMIN_SMALL_BODY;
	if (announces_too_much(req))
		answer_too_big(req);
}

static enum MHD_Result request_send(struct admin_request *req)
{
	if (!req->response)
		return MHD_NO;
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
	if (req->is_too_big || more > req->max_body - req->body.len)
		return request_discard(req, more);
	return buf_append(&req->body, data, more, req->max_body) < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result request_run(struct admin_request *req)
{
	if (req->is_too_big)
		answer_too_big(req);
	else if (req->admin->is_closing)
		answer(req, MHD_HTTP_SERVICE_UNAVAILABLE, ADMIN_STOPPING);
	else
		req->route->run(req);
	if (req->is_replied)
		return request_send(req);
	MHD_suspend_connection(req->connection);
	req->is_suspended = true;
	return MHD_YES;
}

enum MHD_Result admin_http_handle(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_size, void **state)
{
	struct admin_side *side = cls;
	struct admin_request *req = *state;

	(void)version;
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
		return req->is_replied ? request_send(req) : MHD_YES;
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
	(void)connection;
	(void)how;
	if (!req)
		return;
	*state = NULL;
	req->connection = NULL;
	req->is_held_by_http = false;
	/* Still held by ops only after admin_turn_away(), which has taken it out of the list. */
	admin_request_release(req);
}
