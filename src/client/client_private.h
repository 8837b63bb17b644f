/* SPDX-License-Identifier: MIT */
#pragma once

/* What the parts of `wsbind client` share; for them and their tests alone. */

#include <stdio.h>

#include "client/backoff.h"
#include "client/endpoint.h"
#include "client/lines.h"
#include "containers/mem.h"
#include "model/options.h"

#define CLIENT_UUID_TEXT 37
#define CLIENT_USER_TEXT 128

/* What the command line says. */
struct WB_FROZEN client_options {
	const char *url;
	const char *send_file; /* NULL: none */
	const char *channel;   /* NULL: the URL's */
	const char *user;      /* NULL: user-ADDRESS:PORT */
	struct target_security security;
	uint64_t clients;
	uint64_t interval_ms;
};

extern const struct option_table client_option_table;

enum client_mode {
	CLIENT_CHAT,     /* lines typed on the terminal */
	CLIENT_INTERVAL, /* by itself */
	CLIENT_FILE,
};

struct client;

/* One client: its connections one after another. */
struct WB_OWNER(loop) client_session {
	struct endpoint endpoint;
	struct client *client;
	unsigned index; /* from 1 */
	bool is_done;
	bool is_greeted; /* the server answered our CONNECT */
	struct backoff backoff;
	struct wheel_timer retry, heartbeat;
	uint64_t wish_ns;              /* how long the server asks to stay away; 0: it doesn't */
	uint64_t sent;                 /* messages, for their text */
	uint8_t connect_id[16];        /* request_id of our CONNECT */
	char own_id[CLIENT_UUID_TEXT]; /* as the server's CONFIG says; "" before */
	char user[CLIENT_USER_TEXT];
};

struct client_file;

struct WB_OWNER(loop) client {
	struct endpoint_loop loop;
	struct target target;
	struct client_options options;
	struct config *config;
	enum client_mode mode;
	struct client_session *sessions;
	size_t n_sessions, n_done;
	int status;       /* exit status so far */
	bool is_stopping; /* told to; everyone closes politely */
	bool is_killed;   /* told twice */
	struct arena arena;

	int terminal_fd; /* -1: not read now */
	struct reactor_source terminal_source;
	struct lines *lines;

	uint64_t tick_from_ns; /* when the first message was due; 0: nobody was open yet */
	uint64_t ticks;        /* messages that were due since */
	struct wheel_timer summary;
	uint64_t sent, received; /* since the last summary line */
	uint64_t said_ns;        /* second in which lines were said, and how many */
	unsigned said;

	struct client_file *file;
};

/* client_show.c: what arrived, for people. */

/**
 * client_show() - print a message
 * @own_id: our client id, or "": so that a DISCONNECT can be told from a notice
 *
 * One line; texts of others are escaped. An ACKNOWLEDGE prints nothing.
 */
void client_show(FILE *out, const Websocket__WebSocketMessage *m, const char *own_id);

/* The same for a text message. */
void client_show_text(FILE *out, const char *text, size_t n);

/* Whether a DISCONNECT says that we shall go, not that someone else left. */
bool client_is_dismissal(const Websocket__WebSocketMessage *m, const char *own_id);

/* client_session.c: the life of a session. */

/* Starts a session: it connects. */
void session_start(struct client_session *s, struct client *c, unsigned index);

/* Closes politely, or ends the waiting for another attempt. */
void session_stop(struct client_session *s);

/* Ends for good with a message and exit status 1. */
void session_fail(struct client_session *s, const char *format, ...) WB_PRINTF(2, 3);

/* Frees what an ended session has. */
void session_fini(struct client_session *s);

/* Sends a chat message. Return: as endpoint_send(). */
int session_chat(struct client_session *s, const char *text) WB_NODISCARD;

/* A line to standard error, at most some a second; with the session's number if there are several.
 */
void session_say(struct client_session *s, const char *format, ...) WB_PRINTF(2, 3);

/* client.c: what a session tells the command. */

void client_opened(struct client_session *s);
void client_greeted(struct client_session *s);
void client_lost(struct client_session *s);
void client_done(struct client_session *s, int status);
void client_stop(struct client *c);

/* client_file.c: sending a file. */

#define CLIENT_CHUNK 16384
#define CLIENT_WINDOW 16 /* chunks on their way */

/**
 * client_file_open() - get ready to send a file
 *
 * Return:  0 | -errno of open or fstat | -EINVAL no regular file | -EFBIG too many chunks.
 * Owns:    *@ret is the caller's, by client_file_free().
 */
int client_file_open(const char *path, struct client_file **ret) WB_NODISCARD;
struct client_file *client_file_free(struct client_file *f);

/* From the first chunk; again after another connection. */
void client_file_start(struct client_file *f, struct client_session *s);

/* Sends what the window allows. */
void client_file_go_on(struct client_file *f, struct client_session *s);

/* Takes an answer of the server: ACKNOWLEDGE or ERROR. True when it was about the file. */
bool client_file_answer(struct client_file *f, struct client_session *s,
			const Websocket__WebSocketMessage *m);

/* Takes a pong to a ping that followed a chunk. */
void client_file_pong(struct client_file *f, struct client_session *s, const uint8_t *data,
		      size_t n);

/* Whether the last chunk was acknowledged. */
bool client_file_is_done(const struct client_file *f);
