/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * TLS 1.2 and 1.3 as a transport beside the plain one (io/transport), by OpenSSL.
 *
 * The server's side is one frozen, counted object: its certificates, chosen by the
 * name that a client asks for (SNI; the first pair is for everybody else), and whom
 * it lets in. A reload makes a new one; connections keep the one that they began with.
 * The keys of session tickets pass from each to the next, so that all threads, before
 * and after a reload, take the same tickets.
 *
 * What is sent is gathered into records of full size, whatever pieces it comes in. A
 * record that the kernel does not take counts as sent, and is kept, at most one for a
 * connection: who sends calls transport_flush() when the socket can be written to.
 * An idle connection has no buffers. What a peer sends beside data, as often as it likes,
 * costs it the connection: records without data are counted, and those with little of it
 * are read a share at a time.
 *
 * The kernel does the encryption where it can (kernel TLS, with OpenSSL 3.0 and 3.1); the
 * log says once whether.
 */

#include "base/base.h"
#include "io/transport.h"

#define TLS_MAX_PAIRS 32
#define TLS_WHY_MAX 400  /* text of what is wrong, its NUL included */
#define TLS_NAME_MAX 129 /* common name of a client's certificate, its NUL included */

/* A certificate with its chain, and its key: PEM files. */
struct WB_VALUE tls_pair {
	const char *certificate;
	const char *key;
};

struct WB_VALUE tls_server_options {
	struct tls_pair pair[TLS_MAX_PAIRS];
	size_t n_pairs;
	const char
		*client_ca; /* PEM file: clients need a certificate of it; NULL: they need none */
};

struct tls_server; /* WB_SHARED: any thread may hold references */

/**
 * tls_server_new() - read certificates and keys
 * @o:      at least one pair
 * @before: whose ticket keys it takes over; or NULL
 * @why:    on failure: which file, and what is wrong with it
 *
 * Return:  0 | -EINVAL a file is no good, or a key is of another certificate | -ENOMEM.
 * Owns:    *@ret is the caller's reference.
 * Thread:  any; reads files.
 */
int tls_server_new(const struct tls_server_options *o, struct tls_server *before,
		   struct tls_server **ret, char why[TLS_WHY_MAX]) WB_NODISCARD;

/* One more reference, one less; NULL is fine. Return: @s; NULL. Thread: any. */
WB_ANY_THREAD struct tls_server *tls_server_ref(struct tls_server *s);
WB_ANY_THREAD struct tls_server *tls_server_unref(struct tls_server *s);

/**
 * transport_init_tls() - the server's end of a TLS connection
 * @fd:     non-blocking stream socket
 *
 * The handshake happens while bytes are read: reading returns -EAGAIN until it is done.
 *
 * Return:  0, @fd is the transport's | -ENOMEM, nothing has changed.
 */
int transport_init_tls(struct transport *t, int fd, struct tls_server *s) WB_NODISCARD;

struct tls_client;

/**
 * tls_client_new() - what the client's side of connections needs
 * @ca_file:   PEM file of who may sign the server's certificate; NULL: whom the system trusts
 * @accepts_any_certificate: take any certificate
 *
 * Return:  0 | -EINVAL, @why says | -ENOMEM.
 */
int tls_client_new(const char *ca_file, bool accepts_any_certificate, struct tls_client **ret,
		   char why[TLS_WHY_MAX]) WB_NODISCARD;
struct tls_client *tls_client_free(struct tls_client *c);

/* The client's end. @host: the name or address that the server's certificate has to be for. */
int transport_init_tls_client(struct transport *t, int fd, struct tls_client *c, const char *host)
	WB_NODISCARD;

/**
 * transport_client_name() - who the client's certificate says that it is
 * @out:    the subject's common name
 *
 * Return:  false: no TLS, no certificate, no common name or one that is no UTF-8 or too long.
 */
bool transport_client_name(const struct transport *t, char out[TLS_NAME_MAX]) WB_NODISCARD;

/* Whether this is TLS; and whether its handshake is done. */
bool transport_is_tls(const struct transport *t);
bool transport_is_secured(const struct transport *t);

/* Why the last call on this thread failed with -EPROTO, in words. */
const char *tls_failure(void);
