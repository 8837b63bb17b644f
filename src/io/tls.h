/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * TLS 1.2 and 1.3 as a transport beside the plain one (io/transport), over sessions that
 * io/tls_context opens.
 *
 * What is sent is gathered into records of full size, whatever pieces it comes in. A
 * record that the kernel does not take counts as sent, and is kept, at most one for a
 * connection: who sends calls transport_flush() when the socket can be written to.
 * An idle connection has no buffers. What a peer sends beside data, as often as it likes,
 * costs it the connection: records without data are counted, and those with little of it
 * are read a share at a time.
 *
 * The kernel does the encryption where it can (kernel TLS); the log says once whether.
 */

#include "base/base.h"
#include "io/tls_context.h"
#include "io/transport.h"

#define TLS_NAME_MAX 129 /* common name of a client's certificate, its NUL included */

/**
 * transport_init_tls() - the server's end of a TLS connection
 * @fd:     non-blocking stream socket
 *
 * The handshake happens while bytes are read: reading returns -EAGAIN until it is done.
 *
 * Return:  0, @fd is the transport's | -ENOMEM, nothing has changed.
 * Thread:  the loop's.
 */
int transport_init_tls(struct transport *t, int fd, struct tls_server *s) WB_NODISCARD;

/**
 * transport_init_tls_client() - the client's end of a TLS connection
 * @host:   the name or address that the server's certificate has to be for
 *
 * Return, Thread: as transport_init_tls().
 */
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
