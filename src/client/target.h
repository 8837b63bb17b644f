/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Where the connections of a command lead: addresses, the lines of the request, TLS and token.
 * All is found out once, at the start; but the token, which expires sooner than a command ends, is
 * read anew for later connections.
 */

#include <stdio.h>

#include "base/base.h"
#include "client/ws_url.h"
#include "io/tls_context.h"
#include "wire/token.h"

#define TARGET_MAX_ADDRESSES 8
#define TARGET_ADDRESS_TEXT 64 /* an address in numbers, with its NUL */

struct WB_OWNER(loop) target {
	char request_path[sizeof(((struct ws_url *)0)->path)];
	char host[300]; /* value of the Host header */
	char address[TARGET_MAX_ADDRESSES][TARGET_ADDRESS_TEXT];
	unsigned n_addresses; /* tried one after another */
	uint16_t port;
	bool is_secure;               /* wss */
	char name[256];               /* that the server's certificate has to be for */
	struct tls_client *tls;       /* NULL: plain */
	const char *token_file;       /* NULL: none; borrowed */
	unsigned n_tokens;            /* different ones that were read from it */
	char headers[TOKEN_MAX + 64]; /* more lines of the request, each with its CRLF */
};

/* What the command line says of TLS and authentication. */
struct WB_FROZEN target_security {
	const char *ca;         /* PEM file of who signs certificates; NULL: as the system has it */
	const char *token_file; /* NULL: no token */
	bool accepts_any_certificate;
};

/* Rows of a command's options, as OPTION_ROW(); its struct @type has @security. */
/* clang-format off */
#define TARGET_OPTIONS(type, security) \
	OPTION_ROW(type, 0, "ca", TEXT, security.ca, 0, 0, "FILE", NULL, \
		   "PEM file of who may sign a wss:// server's certificate"), \
	OPTION_ROW(type, 0, "insecure", FLAG, security.accepts_any_certificate, 0, 0, NULL, NULL, \
		   "take any certificate"), \
	OPTION_ROW(type, 0, "token-file", TEXT, security.token_file, 0, 0, "FILE", NULL, \
		   "send the token in it")
/* clang-format on */

/**
 * target_init() - find out where a URL leads
 * @ret_why: on failure a text that says what is wrong, constant
 *
 * Resolves the name, once: a server that moves is found again only by a new start.
 *
 * Return:  0 | -EINVAL a path too long | -EHOSTUNREACH no such name.
 * Thread:  any; blocks while the name is resolved.
 */
int target_init(struct target *t, const struct ws_url *url, const char **ret_why) WB_NODISCARD;

/**
 * target_secure() - read what TLS and authentication need
 * @command: "client": for a warning to @err, and for what is wrong
 *
 * Return:  0 | -EINVAL | -ENOMEM, said to @err.
 * Owns:    @t, until target_fini().
 */
int target_secure(struct target *t, const struct target_security *security, const char *command,
		  FILE *err) WB_NODISCARD;

/*
 * Reads the token's file again: n_tokens grows where it has another one now. What can't be read, or
 * is no token, changes nothing. May block on the disk.
 */
void target_refresh_token(struct target *t);

/* Frees what target_secure() made; the token is wiped out. All-zero is allowed. */
void target_fini(struct target *t);
