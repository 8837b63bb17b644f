/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1).
 *
 * One counted object for as long as the daemon runs: each server of io/tls takes it over from the
 * one before, so that all threads, before and after a reload, take the same tickets. Keys are
 * drawn at random and change every 12 hours; a ticket opens until the key after its own has
 * gone, too. They are never written anywhere.
 */

#include <openssl/ssl.h>

#include "base/base.h"

struct tls_tickets; /* WB_SHARED: any thread may hold references */

/* Return: a reference that is the caller's | NULL: no memory. Thread: any. */
WB_ANY_THREAD struct tls_tickets *tls_tickets_new(void) WB_NODISCARD;

/* One more reference, one less; unref takes NULL. Return: @t; NULL. Thread: any. */
WB_ANY_THREAD struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
WB_ANY_THREAD struct tls_tickets *tls_tickets_unref(struct tls_tickets *t);

/**
 * tls_tickets_use() - let the connections of a context make and take these tickets
 * @context: borrows @t, which has to outlive it
 *
 * Return:  0 | -ENOMEM.
 */
int tls_tickets_use(struct tls_tickets *t, SSL_CTX *context) WB_NODISCARD;
