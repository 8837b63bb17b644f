/* SPDX-License-Identifier: MIT */
/*
 * Lines of standard input, sent as chat: what somebody types, or what a program writes. It is
 * read only while there is someone to send to, room in the queue, and not too much that nobody has
 * acknowledged; meanwhile it waits where it is. A terminal or a pipe tells when there is more; a
 * file has it all at once, and epoll knows none: of it a piece is read in each turn.
 */
#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "client/client_private.h"

#define READ_BYTES 4096                 /* so many lines of one letter … */
#define ROOM_BYTES ((size_t)512 * 1024) /* … are less than this as messages */

static void client_send_line(void *ctx, const char *line, size_t n)
{
	struct client *c = ctx;
	struct session *s = c->sessions;
	int r;

	/* The server would take neither, and its refusal could not show which line it means. */
	if (n == 0)
		return;
	if (strlen(line) != n || !utf8_valid(line, n)) {
		session_report(s, "not sent: the line is not UTF-8 text");
		return;
	}
	r = session_chat(s, line);
	if (r != 0)
		session_report(s, "not sent: %s",
			       r == ENDPOINT_E_FULL ? "the server takes nothing now"
						    : "not connected");
}

static void client_read_input(struct client *c)
{
	char bytes[READ_BYTES];
	ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0) {
		lines_feed(c->lines, bytes, (size_t)n, client_send_line, c);
		return;
	}
	/* An end behind words sends them, too. */
	lines_end(c->lines, client_send_line, c);
	client_input_stop(c);
	c->input = CLIENT_INPUT_ENDED;
}

static bool has_room(const struct client *c)
{
	return endpoint_queued(&c->sessions->endpoint) < ROOM_BYTES && session_may_say(c->sessions);
}

static void input_ready(struct reactor_source *source, uint32_t events)
{
	struct client *c = CONTAINER_OF(source, struct client, input_source);

	(void)events;
	if (has_room(c)) {
		client_read_input(c);
		return;
	}
	client_input_stop(c);
	c->input = CLIENT_INPUT_FULL;
}

void client_input_start(struct client *c)
{
	int r;

	if (c->input != CLIENT_INPUT_OFF)
		return;
	r = reactor_add(&c->loop.reactor, &c->input_source, STDIN_FILENO, EPOLLIN, input_ready);
	if (r == 0)
		c->input = CLIENT_INPUT_WATCHED;
	else if (r == -EPERM)
		c->input = CLIENT_INPUT_FILE;
	else
		session_report(c->sessions, "standard input cannot be read: %s", strerror(-r));
}

void client_input_stop(struct client *c)
{
	/* Called at every end of a connection, whether anything was read or not. */
	if (c->input == CLIENT_INPUT_WATCHED)
		reactor_del(&c->loop.reactor, &c->input_source, STDIN_FILENO);
	c->input = CLIENT_INPUT_OFF;
}

bool client_input_is_due(const struct client *c)
{
	return (c->input == CLIENT_INPUT_FILE || c->input == CLIENT_INPUT_FULL) && has_room(c);
}

void client_input_turn(struct client *c)
{
	if (!client_input_is_due(c))
		return;
	if (c->input == CLIENT_INPUT_FILE) {
		client_read_input(c);
		return;
	}
	c->input = CLIENT_INPUT_OFF;
	client_input_start(c);
}
