/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Who may come in, made of the configuration and of the files that it names: TLS
 * certificates, keys of tokens, origins, proxies that are believed. Frozen and counted:
 * a reload reads all of it again and gives every worker the new one; when anything is
 * wrong with a file, the one before stays.
 */

#include "base/ip.h"
#include "io/tls_context.h"
#include "model/config.h"
#include "wire/http.h"
#include "wire/token_keys.h"

#define POLICY_WHY_MAX (TLS_WHY_MAX + 100)

struct WB_SHARED policy {
	_Atomic unsigned refs;
	struct tls_server *tls WB_FROZEN;    /* NULL: off */
	struct token_keys *keys WB_FROZEN;   /* NULL: nobody needs a token */
	struct ip_prefix *trusted WB_FROZEN; /* proxies */
	size_t n_trusted WB_FROZEN;
	const char *origins WB_FROZEN;   /* of the configuration below; "" or "*": any */
	struct config *config WB_FROZEN; /* all of this was made of */
};

/**
 * policy_new() - read what the configuration names
 * @before:  the one in force, or NULL
 * @ret_key: on failure: the key of the configuration that is to blame; NULL: none is
 * @why:     on failure: what is wrong
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    *@ret is the caller's reference; it keeps one of @config.
 * Thread:  main; reads files.
 */
int policy_new(struct config *config, const struct policy *before, struct policy **ret,
	       const char **ret_key, char why[POLICY_WHY_MAX]) WB_NODISCARD;

WB_ANY_THREAD struct policy *policy_ref(struct policy *p);
/* NULL is fine. Return: NULL. */
WB_ANY_THREAD struct policy *policy_unref(struct policy *p);

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
