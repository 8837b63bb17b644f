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
	uint64_t clients;
	uint64_t interval_ms;
};

extern const struct option_table client_option_table;

enum client_mode {
	CLIENT_CHAT,     /* lines typed on the terminal */
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
	struct session_group group;
	struct session *sessions; /* n_sessions of them */
	size_t n_sessions, n_done;
	int status;       /* exit status so far */
	bool is_stopping; /* told to; everyone closes politely */
	bool is_killed;   /* told twice */

	int terminal_fd; /* -1: not read now */
	struct reactor_source terminal_source;
	struct lines *lines;

	uint64_t tick_from_ns; /* when the first message was due; 0: nobody was open yet */
	uint64_t ticks;        /* messages that were due since */
	struct wheel_timer summary;

	struct client_file *file;       /* NULL: none to send */
	struct client_receive *receive; /* NULL: files of others are not kept */
};

/* What the sessions tell the command; for the group of a client that was made by hand. */
extern const struct session_ops client_session_ops;

/* Fills in the group from mode, options and config; the loop is there. */
void client_init_group(struct client *c, size_t message_bytes);
