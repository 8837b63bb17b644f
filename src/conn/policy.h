/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Who may come in, made of the configuration and of the files that it names: TLS
 * certificates, keys of tokens, origins, proxies that are believed. Frozen and counted:
 * a reload reads all of it again and gives every worker the new one; when anything is
 * wrong with a file, the one before stays.
 */

#include "base/file_set.h"
#include "base/ip.h"
#include "containers/buf.h"
#include "io/tls_context.h"
#include "model/config.h"
#include "wire/http.h"
#include "wire/resume_token.h"
#include "wire/token.h"
#include "wire/token_keys.h"

#define POLICY_WHY_MAX (TLS_WHY_MAX + 100)

struct WB_SHARED policy {
	_Atomic unsigned refs;
	struct tls_server *tls WB_FROZEN;    /* NULL: off */
	struct token_keys *keys WB_FROZEN;   /* NULL: nobody needs a token */
	struct ip_prefix *trusted WB_FROZEN; /* proxies */
	size_t n_trusted WB_FROZEN;
	const char *origins WB_FROZEN;   /* of the configuration below; "" or "*": any */
	struct config *config WB_FROZEN; /* all of this was made of … */
	struct file_set files WB_FROZEN; /* … and of these */
	struct buf notes WB_FROZEN;      /* policy_next_note() */
	bool has_resume_key WB_FROZEN;   /* of resume_key_file; else one is drawn */
	struct resume_key resume_key WB_FROZEN;
};

/**
 * policy_new() - read what the configuration names
 * @before:  the one in force, or NULL
 * @files:   NULL, read them | what a process before has read, which is taken out of it
 * @ret_key: on failure: the key of the configuration that is to blame; NULL: none is
 * @why:     on failure: what is wrong
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    *@ret is the caller's reference; it keeps one of @config.
 * Thread:  main; reads files.
 */
int policy_new(struct config *config, const struct policy *before, struct file_set *files,
	       struct policy **ret, const char **ret_key, char why[POLICY_WHY_MAX]) WB_NODISCARD;

/**
 * policy_next_note() - what is odd about the files, though they will do
 * @at:     0 at first; moved on
 *
 * A certificate that has expired, a secret that everybody may read.
 *
 * Return:  "KEY: FILE: what", borrowed | NULL, no more.
 */
WB_ANY_THREAD const char *policy_next_note(const struct policy *p, size_t *at);

WB_ANY_THREAD struct policy *policy_ref(struct policy *p);
/* NULL is fine. Return: NULL. */
WB_ANY_THREAD struct policy *policy_unref(struct policy *p);

/* token_verify() by the wall clock, where tokens are asked for. */
WB_ANY_THREAD enum token_result policy_verify_token(const struct policy *p, const char *token,
						    size_t n, struct grant **ret) WB_NODISCARD;

/* Whether what let somebody in would still do so: a key that was taken out takes it along. */
WB_ANY_THREAD bool policy_stands_by(const struct policy *p, const struct grant *g);

/* Whether an address is that of a proxy which may be believed. */
WB_ANY_THREAD bool policy_trusts(const struct policy *p, const uint8_t ip[IP_BYTES]);

/**
 * policy_allows_origin() - whether pages of an origin may connect
 * @origin: value of the Origin header; p is NULL when there is none: no browser, which may
 *
 * Each of allowed_origins is `*`, an origin (RFC 6454 section 6.2: compared without regard
 * to case, a default port may be left out), a host, or `*.` and a host for all below it,
 * with or without a scheme.
 */
WB_ANY_THREAD bool policy_allows_origin(const struct policy *p, struct http_text origin);
