/* SPDX-License-Identifier: MIT */
/* What a session says of itself, and how it ends. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "client/session_private.h"

/* ------------------------------------------------------------------------ words */

static void WB_PRINTF(2, 0) session_print(const struct session *s, const char *format, va_list args)
{
	(void)fflush(stdout); /* so that both streams keep their order on a terminal */
	fprintf(stderr, "wsbind %s: ", s->group->command);
	if (s->group->n > 1)
		fprintf(stderr, "client %u: ", s->index);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void session_report(struct session *s, const char *format, ...)
{
	struct session_group *g = s->group;
	uint64_t now = clock_now_ns();
	va_list args;

	/* When the server of a thousand sessions goes, ten lines say it as well as a thousand. */
	if (now - g->lines_since_ns >= NS_PER_S) {
		g->lines_since_ns = now;
		g->lines = 0;
	}
	if (g->lines++ >= SESSION_LINES)
		return;
	va_start(args, format);
	session_print(s, format, args);
	va_end(args);
}

/* ------------------------------------------------------------------------- ends */

void session_finish(struct session *s, int status)
{
	struct wheel *wheel = &s->group->loop->reactor.wheel;

	/* A session that failed still closes its connection, whose end leads here once more. */
	if (s->is_done)
		return;
	s->is_done = true;
	wheel_del(wheel, &s->retry);
	wheel_del(wheel, &s->heartbeat);
	wheel_del(wheel, &s->subscribe_again);
	s->group->ops->done(s, status);
}

void session_stop(struct session *s)
{
	s->is_stopping = true;
	if (s->endpoint.state == ENDPOINT_IDLE)
		session_finish(s, 0);
	else
		endpoint_close(&s->endpoint, WS_CODE_NORMAL, "");
}

void session_fail(struct session *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	session_print(s, format, args);
	va_end(args);
	/*
	 * Done before the connection is: what its end says can no longer turn this into a success.
	 */
	session_finish(s, 1);
	if (s->endpoint.state != ENDPOINT_IDLE)
		endpoint_close(&s->endpoint, WS_CODE_NORMAL, "");
}
