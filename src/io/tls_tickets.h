/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1). Whoever comes back
 * with a ticket is spared the costly half of a handshake.
 *
 * One counted object for as long as the daemon runs: each server of io/tls_context takes it
 * over from the one before, so that all threads, before and after a reload, take the same
 * tickets. There are two keys, drawn at random: the younger one makes tickets for 12 hours,
 * the older one opens those that it made for 12 more. They are never written anywhere.
 */

#include "base/base.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

struct tls_tickets; /* WB_SHARED: any thread may hold references */

/* Without a key: the first ticket makes one. Return: NULL without memory. */
struct tls_tickets *tls_tickets_new(void) WB_NODISCARD;

/* One more reference, one less; NULL is fine. Return: @t; NULL. Thread: any. */
WB_ANY_THREAD struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
WB_ANY_THREAD struct tls_tickets *tls_tickets_unref(struct tls_tickets *t);

/**
 * tls_tickets_use() - let a context make and open tickets with these keys
 * @t: borrowed for the life of @c
 *
 * Return: 0 | -ENOMEM.
 * Thread: any, before @c serves connections.
 */
int tls_tickets_use(struct tls_tickets *t, struct ssl_ctx_st *c) WB_NODISCARD;
