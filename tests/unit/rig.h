/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Workers without threads and clients without sockets, for tests of conn/, channel/, worker/ and
 * handover/.
 *
 * A rig is a pool of workers that the test itself drives, turn by turn, under a
 * clock that stands still until the test moves it. A guest is the client's end of
 * a connection: two buffers. What it writes comes as one edge; what the server
 * writes is taken as far as the guest has room, so a reader that stops, a short
 * write at any byte and a full kernel are one number.
 *
 * Each check ends the test, so nothing here returns errors. rig_free() sees to it
 * that everything is gone: connections, channels, frames, what was counted.
 */

#include <stdbool.h>

#include "test.h"

#include "handover/handover.h"
#include "wire/ws.h"
#include "worker/worker.h"

#define RIG_MAX_GUESTS 4096
#define RIG_START_NS (1000 * NS_PER_S)
#define ROOM_FOR_ALL SIZE_MAX

struct WB_OWNER(test) rig {
	struct worker_pool *pool;
	int history_fd; /* the file with what channels keep */
	struct worker *w[DIRECTORY_MAX_WORKERS];
	unsigned n;          /* workers */
	struct reactor main; /* is woken when a task is done */
	struct policy *policy;
	struct config *config; /* policy->config */
	struct arena arena;    /* of the message that was looked at last */
	uint64_t now_ns;
	bool has_lines; /* handshakes wait for their place in a turn, also what comes outside one */
	struct spool *spool; /* of the next pool that records are restored to; the test's own */
	struct guest *guests[RIG_MAX_GUESTS];
	unsigned n_guests;
};

struct WB_OWNER(test) guest {
	struct rig *rig;
	struct worker *worker;
	struct conn *conn; /* NULL once the server closed it */
	unsigned index;
	struct buf in; /* written, and not read by the server yet */
	size_t in_at;
	struct buf out; /* what the server sent, and nobody looked at yet */
	size_t out_at;
	size_t room;     /* bytes that the server may still send */
	uint64_t sent;   /* bytes that it did send */
	unsigned sends;  /* calls that took something */
	unsigned calls;  /* calls at all */
	int error;       /* what recv and send answer, unless 0 */
	unsigned barren; /* records without data that were read, and nobody asked for */
	bool is_mute;    /* what comes is counted and not kept */
	bool is_blocked; /* the server met the end of the room */
	bool has_ended;  /* wrote all that it will */
	bool is_shut;    /* the server will write no more */
	bool is_closed;
	bool is_left;                       /* on its way from one pool to the next */
	bool was_reset;                     /* by closing */
	bool may_deflate;                   /* offered permessage-deflate: RSV1 may come */
	char extension[DEFLATE_ANSWER_MAX]; /* that the server agreed to; "": none */
	struct ws_decoder *decoder;
	struct buf payload; /* of the frame or message that was looked at last */
};

/* A frame or a message that came; @p lives until the next one is looked at. */
struct WB_VALUE guest_frame {
	uint8_t opcode;
	bool fin;
	bool rsv1; /* of the first frame of a message */
	const uint8_t *p;
	size_t n;
};

/* Beside the opcode of a frame to send: RSV1, where the first byte of a frame has it. */
#define GUEST_RSV1 0x40

/* @config: lines of a configuration file, on top of defaults that keep a test small. */
struct rig *rig_new(unsigned workers, const char *config);

/* All guests go; asserts that nothing of them is left. */
void rig_free(struct rig *r);

/* The defaults of a rig with these lines on top. Owns: the caller's reference. */
struct config *rig_config(const char *lines);

/* The same, as workers want it. */
struct policy *rig_policy(const char *lines);

/* One turn of every worker, or of one. */
void rig_turn(struct rig *r);
void rig_turn_one(struct rig *r, unsigned worker);

/*
 * Turns until no worker has anything to do. With WB_HANDOVER in the environment, all of it is
 * then handed over to a new pool, and turns again: tests that hold on to none of its objects
 * (but guests) see no difference.
 */
void rig_settle(struct rig *r);

/* Moves the clock, then one turn. */
void rig_pass(struct rig *r, uint64_t ns);

/* Moves the clock within the turn that was last: nobody has seen that time. */
void rig_stand_still(struct rig *r, uint64_t ns);

/* As rig_pass() in steps of at most @step. */
void rig_pass_in_steps(struct rig *r, uint64_t ns, uint64_t step);

/* What records are written to. Owns: data is the caller's, by free(). */
struct record_writer rig_writer(void);

/* A copy of the file with what channels keep, which is the caller's. */
int rig_copy_history(const struct rig *r);

/* The records of all workers, as a process that ends would leave them. */
struct record_writer rig_save(struct rig *r);

/*
 * Everything goes on in a new pool, as if in another process, with a configuration of its own
 * (as rig_new() has it; NULL: the same). Guests notice nothing. Return: the result of reading
 * @records, which nobody changes; what was left of guests that they don't bring is closed.
 */
int rig_restore(struct rig *r, unsigned workers, const char *config,
		const struct record_writer *records, struct handover_report *ret);

/* Both, when all is well. */
void rig_hand_over(struct rig *r, unsigned workers, const char *config);

/* Asserts what holds in every worker between turns. */
void rig_check(struct rig *r);

/* A channel of a worker by its name, or NULL. */
struct channel *rig_channel(struct rig *r, unsigned worker, const char *name);

/* Sum of a counter over all workers. */
#define RIG_SUM(r, field) rig_sum((r), offsetof(struct metrics, field))
uint64_t rig_sum(const struct rig *r, size_t offset);

/* Runs a task on a worker; true when it was answered in that turn. */
bool rig_run(struct rig *r, unsigned worker, worker_task_fn *fn);

/* A connection that was accepted and has said nothing. NULL: the worker had no room for it. */
struct guest *guest_accept(struct rig *r, unsigned worker);
struct guest *guest_accept_from(struct rig *r, unsigned worker, const struct sock_peer *peer);

/* One that is open in the channel of @path; what greeted it was thrown away. */
struct guest *guest_open(struct rig *r, unsigned worker, const char *path);

/* The same with an offer for Sec-WebSocket-Extensions. */
struct guest *guest_open_offering(struct rig *r, unsigned worker, const char *path,
				  const char *offer);

/* The bytes of an opening handshake, NUL-terminated. Return: their number. */
size_t guest_handshake(char *out, size_t cap, const char *path);
size_t guest_handshake_offering(char *out, size_t cap, const char *path, const char *offer);

/* Bytes to the server, as one edge. */
void guest_write(struct guest *g, const void *p, size_t n);

/* One masked frame; guest_encode() only lays it out, behind what is in @out. */
void guest_encode(struct buf *out, bool fin, uint8_t opcode, const void *p, size_t n);
void guest_send(struct guest *g, bool fin, uint8_t opcode, const void *p, size_t n);

/* A message of wire/msg. */
void guest_send_msg(struct guest *g, const struct msg_builder *b);

/* A chat message; @channel may be NULL. */
void guest_chat(struct guest *g, const char *content, const char *channel);

/* SUBSCRIBE or UNSUBSCRIBE to one channel. */
void guest_subscribe(struct guest *g, const char *channel);
void guest_unsubscribe(struct guest *g, const char *channel);

/* The client writes nothing more. */
void guest_end(struct guest *g);

/* How much the server may send from now on; an edge if it waits for that. */
void guest_set_room(struct guest *g, size_t room);

/* Status of the answer to the handshake, which is taken; 0 when there is none yet. */
int guest_status(struct guest *g);

/* The next whole frame, or the next message with control frames passed over. */
bool guest_next_frame(struct guest *g, struct guest_frame *ret);
bool guest_next_message(struct guest *g, struct guest_frame *ret);

/* The next message, which is a WebSocketMessage, until the next call; NULL: there is none. */
const Websocket__WebSocketMessage *guest_next_msg(struct guest *g);

/* Throws away what came; returns the number of messages. */
size_t guest_drop(struct guest *g);

/* The code of the Close that came, after whatever else; 0: none came. */
unsigned guest_close_code(struct guest *g);

/* Chats whose contents are the numbers from @from up to @to, sent; and expected next, in order. */
void guest_send_numbers(struct guest *g, unsigned from, unsigned to);
void guest_expect_numbers(struct guest *g, unsigned from, unsigned to);
