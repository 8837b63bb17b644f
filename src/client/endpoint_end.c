/* SPDX-License-Identifier: MIT */
/* How a connection ends: once, whatever happens, and in words for the user. */
#include "client/endpoint_private.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

static void endpoint_report_end(struct reactor_deferred *d)
{
	struct endpoint *e = CONTAINER_OF(d, struct endpoint, ending);
	const struct endpoint_end end =
		e->end; /* closed() may connect anew, or free the endpoint */

	/* A connection may end with megabytes queued: none of it is for the next one. */
	e->state = ENDPOINT_IDLE;
	buf_fini(&e->in);
	buf_fini(&e->out);
	e->out_sent = 0;
	e->ops->closed(e, &end);
}

void endpoint_end(struct endpoint *e, enum endpoint_end_kind kind, int error)
{
	/* The first end is the one that counts; all that follows from it would only hide it. */
	if (e->state == ENDPOINT_IDLE || e->state == ENDPOINT_ENDED)
		return;
	e->end.kind = kind;
	e->end.error = error;
	e->end.was_open = e->state == ENDPOINT_OPEN || e->state == ENDPOINT_CLOSING;
	e->loop->opening -= endpoint_is_opening(e);
	e->state = ENDPOINT_ENDED;
	/* Out of all that could still call into it before its end is reported. */
	list_del(&e->in_unsent);
	list_del(&e->in_unread);
	list_del(&e->in_waiting);
	wheel_del(&e->loop->reactor.wheel, &e->timer);
	if (e->transport.fd >= 0) {
		reactor_del(&e->loop->reactor, &e->source, e->transport.fd);
		transport_close(&e->transport, kind == ENDPOINT_END_TIMEOUT);
	}
	/*
	 * Callers up the stack still look at the endpoint: who may free it hears when they are
	 * done.
	 */
	reactor_defer(&e->loop->reactor, &e->ending, endpoint_report_end);
}

void endpoint_violation(struct endpoint *e, uint16_t code, const char *reason)
{
	uint8_t payload[WS_MAX_CONTROL];

	e->end.code = code;
	strcpy(e->end.reason, reason);
	if (e->state == ENDPOINT_OPEN)
		endpoint_queue_control(e, WS_CLOSE, payload,
				       ws_format_close(payload, code, reason));
	/* No turn's end comes for this connection any more: what can be sent goes now. */
	endpoint_flush(e);
	endpoint_end(e, ENDPOINT_END_VIOLATION, 0);
}

/* ------------------------------------------------------------------- coming back */

/* A status of HTTP that has no code of its own: whether it is about the request itself. */
static enum close_return endpoint_status_return(int status)
{
	bool is_passing = status == 408 || status == 425;

	return status >= 400 && status < 500 && !is_passing ? CLOSE_RETURN_NOT : CLOSE_RETURN_LATER;
}

enum close_return endpoint_end_return(const struct endpoint_end *end)
{
	const struct close_code *row;

	switch (end->kind) {
	case ENDPOINT_END_CLOSED:
	case ENDPOINT_END_VIOLATION:
		return close_code_find(end->code)->client;
	case ENDPOINT_END_REFUSED:
		row = close_code_find((uint16_t)(WS_CODES_REFUSED + end->status));
		return row->code ? row->client : endpoint_status_return(end->status);
	default:
		return CLOSE_RETURN_LATER;
	}
}

/* ------------------------------------------------------------------------ words */

/* What the administrator of the server would look at. */
static const char *endpoint_status_hint(int status)
{
	switch (status) {
	case 401:
	case 403:
		return ": not allowed (origin or authentication)";
	case 404:
		return ": no channel can have that name";
	case 426:
		return ": no WebSocket server, or another version";
	case 429:
		return ": too many connections from this address (max_connections_per_ip)";
	case 503:
		return ": no room (max_connections or max_channels), or it is stopping";
	default:
		return "";
	}
}

static void endpoint_end_format_close(char *out, size_t cap, const struct endpoint_end *end)
{
	char reason[4 * sizeof(end->reason) + 1];
	int n;

	/* The reason is the server's and may act on a terminal. */
	text_escape(reason, sizeof(reason), end->reason, strlen(end->reason));
	if (end->code == WS_CODE_NO_STATUS)
		n = snprintf(out, cap, "closed by the server without a code");
	else
		n = snprintf(out, cap, "closed by the server with %u", end->code);
	if (reason[0] && n > 0 && (size_t)n < cap)
		snprintf(out + n, cap - (size_t)n, " (%s)", reason);
}

char *endpoint_end_format(char *out, size_t cap, const struct endpoint_end *end)
{
	char reason[4 * sizeof(end->reason) + 1];

	/* Reasons of our own, of violations and of TLS, need no escaping. */
	switch (end->kind) {
	case ENDPOINT_END_CLOSED:
		endpoint_end_format_close(out, cap, end);
		break;
	case ENDPOINT_END_UNREACHABLE:
		snprintf(out, cap, "cannot connect: %s", strerror(-end->error));
		break;
	case ENDPOINT_END_REFUSED:
		text_escape(reason, sizeof(reason), end->reason, strlen(end->reason));
		snprintf(out, cap, "the server answered %d%s%s%s%s", end->status,
			 endpoint_status_hint(end->status), reason[0] ? " (" : "", reason,
			 reason[0] ? ")" : "");
		break;
	case ENDPOINT_END_NOT_WS:
		snprintf(out, cap, "the answer is not that of a WebSocket server");
		break;
	case ENDPOINT_END_LOST:
		if (end->error)
			snprintf(out, cap, "connection lost: %s", strerror(-end->error));
		else
			snprintf(out, cap, "connection lost: the server went away");
		break;
	case ENDPOINT_END_TIMEOUT:
		snprintf(out, cap, "the server does not answer");
		break;
	case ENDPOINT_END_VIOLATION:
		snprintf(out, cap, "the server broke the protocol: %s", end->reason);
		break;
	case ENDPOINT_END_TLS:
		snprintf(out, cap, "no secure connection: %s", end->reason);
		break;
	}
	return out;
}
