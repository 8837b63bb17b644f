/* SPDX-License-Identifier: MIT */
#pragma once

/* `wsbind client` as one run of it; for client.c and its test alone. */

#include "client/client_file.h"
#include "client/client_receive.h"
#include "client/lines.h"
#include "client/session.h"
#include "model/options.h"

/* What the command line says. */
struct WB_FROZEN client_options {
	const char *url;
	const char *send_file;   /* NULL: none */
	const char *receive_dir; /* NULL: files of others are not kept */
	const char *channel;     /* NULL: the URL's */
	const char *user;        /* NULL: user-ADDRESS:PORT */
	struct target_security security;
	const char *since; /* NULL: nowhere in particular */
	uint64_t clients;
	uint64_t interval_ms;
	uint64_t rewind;
};

extern const struct option_table client_option_table;

enum client_mode {
	CLIENT_CHAT,     /* lines of standard input */
	CLIENT_INTERVAL, /* by itself */
	CLIENT_FILE,
	CLIENT_RECEIVE, /* sends nothing */
};

struct WB_OWNER(loop) client {
	struct endpoint_loop loop;
	struct target target;
	struct client_options options;
	struct config *config;
	enum client_mode mode;
	struct position start; /* of each session */
	struct session_group group;
	struct session *sessions; /* n_sessions of them */
	size_t n_sessions, n_done;
	bool shows_messages; /* prints what arrives */
	int status;          /* exit status so far */
	bool is_stopping;    /* told to; everyone closes politely */
	bool is_killed;      /* told twice */

	enum client_input {
		CLIENT_INPUT_OFF,     /* there is nobody to send to */
		CLIENT_INPUT_WATCHED, /* input_source tells */
		CLIENT_INPUT_FULL,    /* there was no room for more */
		CLIENT_INPUT_FILE,    /* read on in each turn */
		CLIENT_INPUT_ENDED,   /* all of it is sent, or queued */
	} input;
	struct reactor_source input_source;
	struct lines *lines;

	uint64_t tick_from_ns; /* when the first message was due; 0: nobody was open yet */
	uint64_t ticks;        /* messages that were due since */
	struct wheel_timer summary;

	struct client_file *file;       /* NULL: none to send */
	struct client_receive *receive; /* NULL: files of others are not kept */
};

/* ----------------------------------------------------------------- client_input.c */

/* Lines are read from here on, also where they are already; and no more. */
void client_input_start(struct client *c);
void client_input_stop(struct client *c);

/* Whether client_input_turn() has something to do at once, and to do it: after each turn. */
bool client_input_is_due(const struct client *c);
void client_input_turn(struct client *c);

/* -------------------------------------------------------------------- client.c */

/* What the sessions tell the command; for the group of a client that was made by hand. */
extern const struct session_ops client_session_ops;

/* Fills in the group from mode, options and config; the loop is there. */
void client_init_group(struct client *c, size_t message_bytes);
