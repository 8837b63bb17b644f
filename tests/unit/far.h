/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The far end of an endpoint's connection: a server by hand, over a socket pair, that blocks with
 * a deadline. Nothing here is clever, so that what a test sends and sees is what it says.
 */

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

#include "client/endpoint.h"
#include "wire/http.h"

#define FAR_BYTES 65536
#define FAR_WAIT_MS 5000

struct WB_VALUE far {
	int fd;
	struct ws_decoder *decoder;
	uint8_t bytes[FAR_BYTES]; /* read and not taken yet */
	size_t n;
	uint8_t opcode; /* of the last frame */
	uint8_t payload[FAR_BYTES];
	size_t payload_n;
};

/* A frame of @far has been read: what the loop has to do in between is one turn. */
static inline void far_turn(struct endpoint_loop *l)
{
	CHECK_EQ(endpoint_loop_turn(l, NS_PER_MS), 0);
}

/* More bytes, or false at the end. The loop turns while nothing comes. */
static inline bool far_fill(struct far *f, struct endpoint_loop *l)
{
	for (int i = 0; i < FAR_WAIT_MS; i++) {
		ssize_t got;

		far_turn(l);
		got = recv(f->fd, f->bytes + f->n, FAR_BYTES - f->n, MSG_DONTWAIT);
		if (got > 0)
			f->n += (size_t)got;
		if (got >= 0)
			return got > 0;
	}
	fail_msg("nothing came");
	return false;
}

static inline void far_send_bytes(struct far *f, const void *p, size_t n)
{
	CHECK_EQ(send(f->fd, p, n, MSG_NOSIGNAL), n);
}

static inline void far_send_frame(struct far *f, bool fin, uint8_t opcode, const void *p, size_t n)
{
	uint8_t head[WS_MAX_HEAD];

	far_send_bytes(f, head, ws_encode_head(head, fin, 0, opcode, n, NULL));
	if (n > 0)
		far_send_bytes(f, p, n);
}

static inline void far_send_msg(struct far *f, const struct msg_builder *b)
{
	uint8_t packed[4096];

	CHECK(msg_size(b) <= sizeof(packed));
	far_send_frame(f, true, WS_BINARY, packed, msg_pack(b, packed));
}

static inline void far_drop(struct far *f, size_t n)
{
	memmove(f->bytes, f->bytes + n, f->n - n);
	f->n -= n;
}

/*
 * Starts the endpoint over a socket pair and answers its handshake with the text; NULL: properly.
 */
static inline void far_answer(struct far *f, struct endpoint *e, const char *answer)
{
	struct http_request request;
	struct upgrade upgrade;
	char text[512];
	size_t head;
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	f->fd = fds[1];
	f->n = 0;
	f->decoder = ws_decoder_new(WS_SERVER, 0);
	endpoint_connect_fd(e, fds[0]);
	do
		CHECK(far_fill(f, e->loop));
	while (http_parse_request((char *)f->bytes, f->n, HTTP_MAX_HEAD, &request, &head));
	CHECK_EQ(upgrade_check(&request, &upgrade), 0);
	if (!answer) {
		CHECK(upgrade_format_ok(text, sizeof(text), &upgrade, NULL) > 0);
		answer = text;
	}
	far_drop(f, head);
	far_send_bytes(f, answer, strlen(answer));
}

static inline void far_open(struct far *f, struct endpoint *e)
{
	far_answer(f, e, NULL);
	for (int i = 0; i < FAR_WAIT_MS && e->state == ENDPOINT_HANDSHAKE; i++)
		far_turn(e->loop);
	CHECK_EQ(e->state, ENDPOINT_OPEN);
}

/* The next frame, which has to be a whole masked one; false at the end of the connection. */
static inline bool far_read(struct far *f, struct endpoint_loop *l)
{
	f->payload_n = 0;
	for (;;) {
		struct ws_piece piece;
		uint16_t code;
		size_t used;
		enum ws_result r =
			ws_decoder_feed(f->decoder, f->bytes, f->n, &used, &piece, &code);

		CHECK(r != WS_BROKEN);
		if (r == WS_PIECE) {
			memcpy(f->payload + f->payload_n, piece.data, piece.len);
			f->payload_n += piece.len;
			f->opcode = piece.opcode;
		}
		far_drop(f, used);
		if (r == WS_PIECE && piece.ends)
			return true;
		if (r == WS_MORE && !far_fill(f, l))
			return false;
	}
}

/* The next frame is this. */
static inline void far_expect(struct far *f, struct endpoint_loop *l, uint8_t opcode, const void *p,
			      size_t n)
{
	CHECK(far_read(f, l));
	CHECK_EQ(f->opcode, opcode);
	CHECK_EQ(f->payload_n, n);
	if (n > 0)
		CHECK_MEM(f->payload, p, n);
}

static inline void far_close(struct far *f)
{
	f->decoder = ws_decoder_free(f->decoder);
	fd_closep(&f->fd);
}
