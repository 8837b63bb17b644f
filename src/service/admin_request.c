/* SPDX-License-Identifier: MIT */
/* One request: who holds it, and its answer. */
#include "service/admin_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PLAIN_TEXT "text/plain; charset=utf-8"
#define PROMETHEUS_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define JSON "application/json"

void admin_request_release(struct admin_request *req)
{
	/* Whichever of the two ends first leaves the rest to the other. */
	if (req->is_held_by_http || req->is_held_by_owner)
		return;
	if (req->response)
		MHD_destroy_response(req->response);
	buf_fini(&req->body);
	free(req);
}

void admin_request_hand_out(struct admin_request *req)
{
	req->is_held_by_owner = true;
	list_add_tail(&req->admin->waiting, &req->node);
}

void admin_request_answer(struct admin_request *req, unsigned status, const char *type,
			  struct buf *body)
{
	struct MHD_Response *response;

	/* Who waited while the admin was freed got 503; the answer that was due comes too late. */
	if (req->is_replied) {
		buf_fini(body);
		return;
	}
	req->is_replied = true;
	req->status = status;
	response = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		buf_fini(body);
		return;
	}
	*body = (struct buf){0};
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
				    type ? type : PLAIN_TEXT) == MHD_YES &&
	    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_YES)
		req->response = response;
	else
		MHD_destroy_response(response);
}

void admin_request_answer_text(struct admin_request *req, unsigned status, const char *text)
{
	struct buf body = {0};

	/* Without memory for the text the status alone has to do. */
	(void)!buf_append(&body, text, strlen(text), BUF_NO_LIMIT);
	admin_request_answer(req, status, NULL, &body);
}

void admin_request_resume(struct admin_request *req)
{
	if (!req->is_suspended)
		return;
	/*
	 * libmicrohttpd tells of it neither by a descriptor nor, in some versions, by its timeout.
	 */
	req->is_suspended = false;
	req->admin->has_resumed = true;
	MHD_resume_connection(req->connection);
}

void admin_reply_buf(struct admin_request *req, unsigned status, const char *type, struct buf *body)
{
	WB_ASSERT(req->is_held_by_owner);
	list_del(&req->node);
	req->is_held_by_owner = false;
	admin_request_answer(req, status, type, body);
	/*
	 * While libmicrohttpd holds it, the handler sends the answer; else its client has hung up.
	 */
	if (req->is_held_by_http)
		admin_request_resume(req);
	else
		admin_request_release(req);
}

void admin_reply(struct admin_request *req, unsigned status, const char *type, const char *body)
{
	struct buf text = {0};

	/* Without memory for the text the status alone has to do. */
	(void)!buf_append(&text, body, strlen(body), BUF_NO_LIMIT);
	admin_reply_buf(req, status, type, &text);
}

void admin_reply_metrics(struct admin_request *req, struct buf *text, int error)
{
	if (!error) {
		admin_reply_buf(req, MHD_HTTP_OK, PROMETHEUS_TEXT, text);
		return;
	}
	buf_fini(text);
	admin_reply(req, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, "the metrics cannot be rendered\n");
}

void admin_reply_state(struct admin_request *req, bool is_good, const char *reason)
{
	struct buf text = {0};

	(void)!buf_printf(&text, "%s\n", is_good ? "ok" : reason); /* see admin_reply() */
	admin_reply_buf(req, is_good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, NULL, &text);
}

/* The pieces are put together here, so that workers need to know nothing of pages. */
void admin_reply_list(struct admin_request *req, const char *name, struct buf *objects,
		      uint64_t listed, uint64_t total)
{
	uint64_t next = req->offset + listed;
	struct buf text = {0};
	int r;

	r = buf_printf(&text, "{\"%s\":[", name);
	if (r == 0)
		r = buf_append(&text, objects->data, objects->len, BUF_NO_LIMIT);
	buf_fini(objects);
	/* Where there was nothing to list any more nothing follows, whatever has gone meanwhile. */
	if (r == 0 && next < total && next > req->offset)
		r = buf_printf(&text, "],\"total\":%" PRIu64 ",\"next\":%" PRIu64 "}\n", total,
			       next);
	else if (r == 0)
		r = buf_printf(&text, "],\"total\":%" PRIu64 ",\"next\":null}\n", total);
	if (r < 0) {
		buf_fini(&text);
		admin_reply(req, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, "out of memory\n");
		return;
	}
	admin_reply_buf(req, MHD_HTTP_OK, JSON, &text);
}

void admin_reply_members(struct admin_request *req, uint64_t members)
{
	struct buf text = {0};

	(void)!buf_printf(&text, "{\"members\":%" PRIu64 "}\n", members); /* see admin_reply() */
	admin_reply_buf(req, MHD_HTTP_OK, JSON, &text);
}

void admin_reply_ended(struct admin_request *req, const struct admin_target *target, uint64_t n)
{
	char text[64];

	snprintf(text, sizeof(text), "closing %" PRIu64 " connection%s\n", n, n == 1 ? "" : "s");
	if (n > 0)
		admin_reply(req, MHD_HTTP_OK, NULL, text);
	else
		admin_reply(req, MHD_HTTP_NOT_FOUND, NULL,
			    target->by_user ? "no client of this user\n"
					    : "no client with this id\n");
}
