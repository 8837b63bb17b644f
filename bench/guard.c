/* SPDX-License-Identifier: MIT */
/*
 * Work for guard.py to count instructions of: one worker, driven turn by turn in memory, whose
 * connections end in a sink that takes everything. guard CASE N does a thing N times; what N
 * and 2 N cost differs by what N cost, without the start.
 *
 *   delivery   one message of 64 B to 1,000 members: 1,000 - 1 deliveries for each N
 *   batch      16 messages in one turn to 1,000 members: 16 * 999 for each N
 *   echo       one message of 64 B back to where it came from
 *   echoes     32 of them that come in one read: 32 for each N
 *   handshake  one connection, its opening handshake, the greeting, and its end
 *   ingest     one message of 64 KiB from one member to another
 */
#include "rig.h"

#include <errno.h>
#include <malloc.h>

#define MEMBERS 1000

static ssize_t sink_recv(struct transport *t, void *p, size_t n)
{
	(void)t, (void)p, (void)n;
	return -EAGAIN;
}

static ssize_t sink_send(struct transport *t, const struct iovec *iov, int count)
{
	ssize_t n = 0;

	(void)t;
	for (int i = 0; i < count; i++)
		n += (ssize_t)iov[i].iov_len;
	return n;
}

static void sink_shutdown(struct transport *t)
{
	(void)t;
}

static void sink_close(struct transport *t, bool reset)
{
	(void)t, (void)reset;
}

static const struct transport_ops sink = {
	.recv = sink_recv,
	.send = sink_send,
	.shutdown = sink_shutdown,
	.close = sink_close,
};

static struct conn *come(struct rig *r)
{
	const struct transport transport = {.ops = &sink, .fd = -1};
	const struct sock_peer peer = {.is_unix = true};
	struct conn *c = worker_accept_conn(r->w[0], &transport, &peer);

	CHECK(c != NULL);
	return c;
}

static struct conn *enter(struct rig *r, const char *path)
{
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), path);
	struct conn *c = come(r);

	conn_feed(c, (uint8_t *)request, n);
	rig_turn(r);
	CHECK_EQ(c->state, CONN_OPEN);
	return c;
}

/* @count times a BINARY_DATA message of @n bytes, as frames. What is fed is unmasked in place, so
 * it is copied before each time. */
static void lay_out(struct buf *out, size_t count, size_t n)
{
	uint8_t *p = calloc(1, n);
	struct msg_builder b;
	uint8_t *raw;
	size_t len;

	CHECK(p != NULL);
	memset(p, 'x', n);
	msg_init_binary(&b, p, n, 0, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	len = msg_size(&b);
	raw = malloc(len);
	CHECK(raw != NULL);
	CHECK_EQ(msg_pack(&b, raw), len);
	for (size_t i = 0; i < count; i++)
		guest_encode(out, true, WS_BINARY, raw, len);
	free(raw);
	free(p);
}

/* Messages from the first of @members in one channel, in one turn each. */
static void broadcast(unsigned long times, unsigned members, size_t count, size_t n)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n");
	struct conn **c = calloc(members, sizeof(*c));
	struct buf frames = {0};
	uint8_t *work;

	CHECK(c != NULL);
	for (unsigned i = 0; i < members; i++)
		c[i] = enter(r, "/room");
	lay_out(&frames, count, n);
	work = malloc(frames.len);
	CHECK(work != NULL);
	for (unsigned long i = 0; i < times; i++) {
		memcpy(work, frames.data, frames.len);
		conn_feed(c[0], work, frames.len);
		rig_turn(r);
	}
	CHECK_EQ(RIG_SUM(r, messages_received), times * count);
	for (unsigned i = 0; i < members; i++)
		conn_abort(c[i]);
	rig_settle(r);
	rig_free(r);
	buf_fini(&frames);
	free(work);
	free(c);
}

static void echo(unsigned long times, size_t count)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 0\necho_path = /echo\n");
	struct conn *c = enter(r, "/echo");
	struct buf frames = {0};
	uint8_t work[4096];

	lay_out(&frames, count, 64);
	CHECK(frames.len <= sizeof(work));
	for (unsigned long i = 0; i < times; i++) {
		memcpy(work, frames.data, frames.len);
		conn_feed(c, work, frames.len);
		rig_turn(r);
	}
	CHECK_EQ(RIG_SUM(r, messages_received), times * count);
	conn_abort(c);
	rig_settle(r);
	rig_free(r);
	buf_fini(&frames);
}

static void handshake(unsigned long times)
{
	struct rig *r = rig_new(1, "notice_limit = 0\nlog_connections = no\n");

	for (unsigned long i = 0; i < times; i++) {
		conn_abort(enter(r, "/room"));
		rig_turn(r);
	}
	CHECK_EQ(RIG_SUM(r, connections_total), times);
	rig_free(r);
}

static void guard(void **state)
{
	const char **argv = *state;
	unsigned long times = strtoul(argv[2], NULL, 10);

	if (strcmp(argv[1], "delivery") == 0)
		broadcast(times, MEMBERS, 1, 64);
	else if (strcmp(argv[1], "batch") == 0)
		broadcast(times, MEMBERS, 16, 64);
	else if (strcmp(argv[1], "ingest") == 0)
		broadcast(times, 2, 1, 65536);
	else if (strcmp(argv[1], "echo") == 0)
		echo(times, 1);
	else if (strcmp(argv[1], "echoes") == 0)
		echo(times, 32);
	else if (strcmp(argv[1], "handshake") == 0)
		handshake(times);
	else
		fail_msg("no such case: %s", argv[1]);
}

int main(int argc, char **argv)
{
	(void)mallopt(M_MXFAST, 0); /* as the daemon */
	const struct CMUnitTest tests[] = {{"guard", guard, NULL, NULL, argv}};

	return argc == 3 ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
