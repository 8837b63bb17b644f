/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One client of `wsbind client` or `wsbind subscribe`: its connections one after another. A session
 * connects, sends CONNECT, keeps alive, and connects again as the code of the close has it
 * (model/close_codes), until its attempts are used up, the server sends it away for good, or it is
 * stopped. Each ends in exactly one call of done().
 *
 * It may keep its positions: then each connection goes on in all of its channels where the one
 * before ended. The first channel is the home, the one of the target's path. It may be the same
 * client each time, with a resume token, and then says again what nobody has answered.
 *
 * What the client is for is the command's: it hears of what happens through session_ops.
 */

#include "base/base.h"
#include "client/backoff.h"
#include "client/endpoint.h"
#include "client/position.h"
#include "containers/mem.h"
#include "wire/msg.h"
#include "wire/resume_token.h"

#define SESSION_UUID_TEXT 37
#define SESSION_USER_TEXT 128

struct session;
struct session_said;

/* What a session tells the command; all are required. Any may call any function of this file. */
struct WB_FROZEN session_ops {
	/* A connection is open, CONNECT is queued. */
	void (*opened)(struct session *s);
	/* The server answered CONNECT, and can what session_group asks for. */
	void (*accepted)(struct session *s);
	/* An ACKNOWLEDGE or ERROR that is no answer to CONNECT. */
	void (*answered)(struct session *s, const Websocket__WebSocketMessage *m);
	/*
	 * A message of any kind came. Of a channel with history those of this session's earlier
	 * connections are left out: it has sent them itself.
	 */
	void (*message)(struct session *s, const Websocket__WebSocketMessage *m);
	/* A text message. */
	void (*text)(struct session *s, const char *text, size_t n);
	/* The join of one of the positions' channels was answered. */
	void (*joined)(struct session *s, const struct position *p, enum position_answer answer);
	/* Messages were passed over: control is that of the GAP. */
	void (*missed)(struct session *s, const struct position *p,
		       const Websocket__ControlMessage *control);
	/* There is room again after ENDPOINT_E_FULL; not before accepted(). */
	void (*writable)(struct session *s);
	/* The connection is gone; another one may follow. */
	void (*closed)(struct session *s);
	/* The last call. @status: exit status that the command owes to this session. */
	void (*done)(struct session *s, int status);
};

/* What the sessions of a command share, filled in before the first one starts. */
struct WB_OWNER(loop) session_group {
	struct endpoint_loop *loop;
	struct target *target; /* the loop's: each connection brings the token that it has then */
	const struct session_ops *ops WB_FROZEN;
	const char *command WB_FROZEN; /* "client": for what is printed */
	const char *user WB_FROZEN;    /* NULL: user-ADDRESS:PORT */
	/* As each session begins, the home first, which has a name if it isn't alone; none: … */
	const struct position *positions WB_FROZEN;
	size_t n_positions WB_FROZEN;     /* … it goes on nowhere */
	struct backoff backoff WB_FROZEN; /* as each session begins */
	size_t n WB_FROZEN;               /* sessions */
	/* The server has to acknowledge, and a Close before session_stop() is a failure. */
	bool delivers_file WB_FROZEN;
	/* Comes back as the same client, and says again what nobody has answered. */
	bool keeps_identity WB_FROZEN;
	struct arena arena;      /* of the message that is being looked at */
	uint64_t sent, received; /* messages, since who shows them set them to 0 */
	uint64_t lines_since_ns; /* when the second began in which lines were reported */
	unsigned lines;          /* in that second */
};

struct WB_OWNER(loop) session {
	struct endpoint endpoint;
	struct session_group *group;
	unsigned index; /* from 1 */
	bool is_done;
	bool is_stopping; /* the next end of a connection is a good one */
	bool is_accepted; /* the server answered our CONNECT */
	bool is_once;     /* and recognises what it has published */
	struct backoff backoff;
	struct wheel_timer retry, heartbeat;
	uint64_t opened_ns;                   /* when the connection was open; 0: it wasn't */
	uint64_t attempts_before;             /* that there had been then */
	unsigned token;                       /* which of the target's tokens it has brought */
	uint64_t stay_away_ns;                /* how long the server asks for; 0: it doesn't */
	uint64_t error_ns;                    /* the same, of the last ERROR that says so */
	uint64_t sent;                        /* messages, for their text */
	struct position *positions;           /* the group's n_positions; NULL: none */
	char query[ENDPOINT_QUERY];           /* of the connection being made */
	char resume_token[RESUME_TOKEN_TEXT]; /* of who it was; "": a newcomer */
	unsigned attempts_with_it;
	struct session_said *said, **said_end; /* not answered yet, oldest first */
	size_t n_said, said_bytes;
	struct wheel_timer subscribe_again;
	uint8_t id[16];                 /* of the last request: its last four bytes are a number */
	uint8_t connect_id[16];         /* request_id of our CONNECT */
	uint8_t subscribe_id[16];       /* likewise */
	char own_id[SESSION_UUID_TEXT]; /* as the server's CONFIG says; "" before */
	char user[SESSION_USER_TEXT];
};

/* Starts a session (all-zero memory): it connects. */
void session_start(struct session *s, struct session_group *group, unsigned index);

/* Closes politely, or ends the waiting for another attempt; done() says 0 then. */
void session_stop(struct session *s);

/* Ends for good with a message and exit status 1. */
void session_fail(struct session *s, const char *format, ...) WB_PRINTF(2, 3);

/* The position of its home, or NULL where it keeps none. */
static inline const struct position *session_home(const struct session *s)
{
	return s->positions;
}

/* Frees what an ended session has. */
void session_fini(struct session *s);

/* Sends a chat message. Return: as endpoint_send(). */
int session_chat(struct session *s, const char *text) WB_NODISCARD;

/* Whether that is wise: false while too much is not acknowledged that would be said again. */
bool session_may_say(const struct session *s);

/*
 * Prints a line to standard error, with the session's number if there are several; more than
 * SESSION_LINES in a second are left out.
 */
#define SESSION_LINES 10
void session_report(struct session *s, const char *format, ...) WB_PRINTF(2, 3);
