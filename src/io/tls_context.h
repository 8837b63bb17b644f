/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What TLS connections of one kind have in common, by OpenSSL: certificates and keys, the
 * versions and ciphers that are good enough, whom to trust.
 *
 * The server's is one frozen, counted object: its certificates, chosen by the name that a
 * client asks for (SNI; the first pair is for everybody else), and whom it lets in. A
 * reload makes a new one; connections keep the one that they began with. The keys of
 * session tickets pass from each to the next, so that all threads, before and after a
 * reload, take the same tickets.
 */

#include "base/base.h"
#include "base/file_set.h"

#define TLS_MAX_PAIRS 32
#define TLS_WHY_MAX 400 /* text of what is wrong, its NUL included */

struct ssl_st; /* OpenSSL's SSL */

/* A certificate with its chain, and its key: PEM files. */
struct WB_VALUE tls_pair {
	const char *certificate;
	const char *key;
};

struct WB_VALUE tls_server_options {
	struct tls_pair pair[TLS_MAX_PAIRS];
	size_t n_pairs;
	/* PEM file: clients need a certificate that it signed; NULL: they need none */
	const char *client_ca;
};

/* Which of a server's files is to blame, and what for. */
enum tls_file {
	TLS_FILE_CERTIFICATE,
	TLS_FILE_KEY,
	TLS_FILE_CLIENT_CA,
};

struct WB_VALUE tls_fault {
	enum tls_file file;    /* where the world is to blame, any */
	char why[TLS_WHY_MAX]; /* its name, and what is wrong with it */
};

struct tls_server; /* WB_SHARED: any thread may hold references */

/**
 * tls_server_new() - read certificates and keys
 * @o:      at least one pair
 * @files:  where they are read from
 * @before: whose ticket keys it takes over; or NULL
 * @fault:  on failure: which file, and what is wrong with it
 *
 * Return:  0 | -EINVAL a file is no good, or a key is of another certificate | -ENOMEM.
 * Owns:    *@ret is the caller's reference.
 * Thread:  any; reads files.
 */
int tls_server_new(const struct tls_server_options *o, struct file_set *files,
		   struct tls_server *before, struct tls_server **ret, struct tls_fault *fault)
	WB_NODISCARD;

/* When the certificate of pair @i begins and ceases to be valid: Unix time. Thread: any. */
WB_ANY_THREAD void tls_server_validity(const struct tls_server *s, size_t i,
				       int64_t *ret_not_before_s, int64_t *ret_not_after_s);

/* One more reference, one less; NULL is fine. Return: @s; NULL. Thread: any. */
WB_ANY_THREAD struct tls_server *tls_server_ref(struct tls_server *s);
WB_ANY_THREAD struct tls_server *tls_server_unref(struct tls_server *s);

/**
 * tls_server_open() - the server's end of a session over a socket
 * @fd:     borrowed
 *
 * Return:  the session, its handshake yet to come | NULL without memory.
 * Owns:    the caller, by SSL_free(3); it keeps its reference to @s as long.
 * Thread:  any.
 */
struct ssl_st *tls_server_open(struct tls_server *s, int fd) WB_NODISCARD;

/*
 * Whether the kernel is asked to encrypt. OpenSSL from 3.2 on (3.5.9 still does) loses what it
 * has read ahead when keys change, if it tries kernel TLS for the new ones and the kernel
 * refuses; what it does where the kernel takes them is untried. So there it is not asked for.
 * The library that runs decides: one that is built with 3.0 runs with 3.5.
 */
WB_ANY_THREAD bool tls_may_use_ktls(void);

struct tls_client; /* WB_FROZEN */

/**
 * tls_client_new() - what the client's side of connections needs
 * @ca_file: PEM file of who may sign the server's certificate; NULL: whom the system trusts
 * @accepts_any_certificate: whoever signed it, and whomever it is for
 *
 * Return:  0 | -EINVAL, @why says | -ENOMEM.
 * Owns:    *@ret is the caller's, by tls_client_free().
 * Thread:  any; reads files.
 */
int tls_client_new(const char *ca_file, bool accepts_any_certificate, struct tls_client **ret,
		   char why[TLS_WHY_MAX]) WB_NODISCARD;

/* Frees it; sessions that it opened live on. NULL is fine. Return: NULL. */
struct tls_client *tls_client_free(struct tls_client *c);

/**
 * tls_client_open() - the client's end of a session over a socket
 * @host:   name or address that the server's certificate has to be for
 *
 * Return, Owns, Thread: as tls_server_open().
 */
struct ssl_st *tls_client_open(struct tls_client *c, int fd, const char *host) WB_NODISCARD;
