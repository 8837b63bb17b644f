/* SPDX-License-Identifier: MIT */
/*
 * `wsbind benchmark` for a NATS server: the same command line, clients, accounts and result, in
 * NATS' protocol over WebSocket (docs.nats.io, "Client Protocol"): a stream of lines in binary
 * messages, whose borders mean nothing. Everybody subscribes to one subject and wants no message
 * of his own back.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/bench.h"

#define SUBJECT "room"

static const char hello[] = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false,"
			    "\"protocol\":1,\"lang\":\"c\",\"version\":\"1\"}\r\n"
			    "SUB " SUBJECT " 1\r\n";

/* Where one connection is in the stream. */
struct WB_OWNER(loop) reader {
	char line[128]; /* so far; of a longer one, its beginning */
	size_t line_n;
	size_t left; /* bytes of a payload and its CRLF that are still to come */
	uint8_t *data;
	size_t data_n;
};

static struct reader *readers;
static uint8_t *payloads;

static int make(struct bench_template *t, size_t size, uint64_t seed)
{
	struct bench_template noise;
	char head[64];
	int n = snprintf(head, sizeof(head), "PUB " SUBJECT " %zu\r\n", size);
	int r = bench_template_init(&noise, size, seed);

	*t = (struct bench_template){.data_offset = (size_t)n};
	if (r == 0)
		r = buf_append(&t->message, head, (size_t)n, BUF_NO_LIMIT);
	if (r == 0)
		r = buf_append(&t->message, noise.message.data + noise.data_offset, size,
			       BUF_NO_LIMIT);
	if (r == 0)
		r = buf_append(&t->message, "\r\n", 2, BUF_NO_LIMIT);
	buf_fini(&noise.message);
	return r;
}

static void say(struct bench_member *m, const char *text)
{
	if (endpoint_send(&m->endpoint, WS_BINARY, text, strlen(text)) != 0)
		endpoint_abort(&m->endpoint, ENOMEM);
}

static void opened(struct bench_member *m)
{
	const struct bench_options *o = &m->bench->options;

	if (!readers) {
		readers = calloc(o->clients, sizeof(*readers));
		payloads = malloc(o->clients * o->message_size);
		if (!readers || !payloads) {
			fputs("nats: no memory\n", stderr);
			exit(EXIT_FAILURE);
		}
		for (size_t i = 0; i < o->clients; i++)
			readers[i].data = payloads + i * o->message_size;
	}
	say(m, hello);
}

/* A line came to its end: MSG room 1 SIZE announces a payload. */
static void take_line(struct bench_member *m, struct reader *r)
{
	size_t size;

	r->line[r->line_n] = '\0';
	r->line_n = 0;
	if (sscanf(r->line, "MSG " SUBJECT " 1 %zu", &size) == 1) {
		r->left = size + 2;
		r->data_n = 0;
	} else if (strncmp(r->line, "PING", 4) == 0) {
		say(m, "PONG\r\n");
	} else if (strncmp(r->line, "-ERR", 4) == 0) {
		fprintf(stderr, "nats: %s\n", r->line);
		endpoint_abort(&m->endpoint, EPROTO);
	}
}

static bool message(struct bench_member *m, const uint8_t *p, size_t n)
{
	struct reader *r = &readers[m->index];
	size_t size = (size_t)m->bench->options.message_size;
	bool was_ours = false;

	while (n > 0) {
		size_t part = MIN(r->left, n);
		const uint8_t *end;

		if (r->left > 0) {
			size_t keep = MIN(part, size - r->data_n);

			memcpy(r->data + r->data_n, p, keep);
			r->data_n += keep;
			r->left -= part;
			if (r->left == 0)
				was_ours |= bench_arrived(m, r->data, r->data_n);
		} else {
			size_t keep;

			end = memchr(p, '\n', n);
			part = end ? (size_t)(end - p) + 1 : n;
			keep = MIN(part, sizeof(r->line) - 1 - r->line_n);
			memcpy(r->line + r->line_n, p, keep);
			r->line_n += keep;
			if (end)
				take_line(m, r);
		}
		p += part;
		n -= part;
	}
	return was_ours;
}

int main(int argc, char **argv)
{
	static const struct bench_dialect nats = {make, opened, message};

	(void)argc;
	return bench_command(argv, &nats);
}
