/* SPDX-License-Identifier: MIT */
#include "core/conn_private.h"
#include "wire/upgrade.h"

#define HEAD_LIMIT (8 * 1024)

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
	conn_refuse(c, status, counter, NULL);
}

/* True when there is room for the connection; else it was refused. */
static bool find_room(struct conn *c, const struct upgrade *u)
{
	struct metrics *m = c->env->metrics;
	int status;

	if (c->refuse_status == 429) {
		conn_refuse(c, 429, &m->refused_per_ip, "max_connections_per_ip");
		return false;
	}
	if (c->refuse_status) {
		conn_refuse(c, c->refuse_status, &m->refused_max_connections, "max_connections");
		return false;
	}
	status = c->env->ops->admit(c, u);
	if (status)
		conn_refuse(c, status, &m->refused_max_channels, "max_channels");
	return status == 0;
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
	if (!find_room(c, &u))
		return;
	if (!c->env->config->permessage_deflate)
		window = DEFLATE_NONE;
	c->window = window;
	n = upgrade_format_ok(answer, sizeof(answer), &u, window ? extension : NULL);
	conn_send_raw(c, answer, n);
	conn_upgraded(c);
}

size_t conn_feed_head(struct conn *c, const uint8_t *p, size_t n)
{
	struct conn_input *in = c->input;
	size_t before = in ? in->message.len : 0;
	size_t more = MIN(n, HEAD_LIMIT + 1 - before);
	struct http_request request;
	size_t head_bytes = 0;
	int r;

	if (before == 0) {
		r = http_parse_request((const char *)p, n, HEAD_LIMIT, &request, &head_bytes);
	} else {
		if (buf_append(&in->message, p, more, HEAD_LIMIT + 1)) {
			conn_abort(c);
			return n;
		}
		r = http_parse_request((const char *)in->message.data, in->message.len, HEAD_LIMIT,
				       &request, &head_bytes);
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
	    (!conn_input_of(c) || buf_append(&c->input->message, p, more, HEAD_LIMIT + 1)))
		conn_abort(c);
	return n;
}
