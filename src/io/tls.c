/* SPDX-License-Identifier: MIT */
#include "io/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"
#include "io/log.h"

#define RECORD_BYTES 16384   /* the most that one carries: RFC 8446 section 5.1 */
#define RECORDS_PER_CALL 256 /* that reading takes; what is behind them waits for the next turn */
#define BARREN_PER_CALL 8    /* of those without data, that ends it: behind the next data */
#define BARREN_RECORDS 64    /* in a row without data: more than any handshake has */
#ifndef SSL_R_RECORD_LAYER_FAILURE
#define SSL_R_RECORD_LAYER_FAILURE 313 /* the headers of 3.0 have no name for what 3.2 may say */
#endif

static _Thread_local char failure[TLS_WHY_MAX];

const char *tls_failure(void)
{
	return failure;
}

/* --------------------------------------------------------- beside the transport */

/*
 * What a TLS connection has beside its transport. The transport's table of functions is
 * a copy inside it: from the pointer to the one the other is found, and a plain
 * connection pays nothing for what it doesn't have.
 */
struct WB_OWNER(loop) tls_link {
	struct transport_ops ops;
	SSL *ssl;
	struct tls_server *server; /* reference; NULL: the client's end */
	uint8_t *unsent;           /* a record's data, which the kernel has not taken all */
	size_t unsent_n;
	size_t unsent_at;  /* of @unsent, what it has taken */
	char *why;         /* how reading ended behind data that came first, until that is told */
	unsigned barren;   /* records read since the last data */
	unsigned n_barren; /* without data, that nobody asked for yet; not those of the handshake */
	bool has_more;     /* the last reading left something: bytes, or the end */
	bool is_shut;      /* nothing follows what is unsent */
	bool is_broken;    /* OpenSSL may not be called any more */
};

static struct tls_link *link_of(const struct transport *t)
{
	return CONTAINER_OF((struct transport_ops *)(uintptr_t)t->ops, struct tls_link, ops);
}

/*
 * OpenSSL reads on by itself behind what is no data: changes of keys, attempts to renegotiate.
 * Each costs, and nothing here would see them. So records are counted; past BARREN_RECORDS the
 * peer counts as gone, which ends any reading.
 */
static void record_seen(int is_written, int version, int type, const void *p, size_t n, SSL *ssl,
			void *arg)
{
	struct tls_link *l = arg;

	(void)version;
	(void)p;
	(void)n;
	if (is_written || type != SSL3_RT_HEADER)
		return;
	l->n_barren += SSL_is_init_finished(ssl) != 0;
	/* Being told of the end is the one thing that makes it stop in the middle of a call. */
	if (++l->barren > BARREN_RECORDS)
		SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

/* ----------------------------------------------------------------------- failures */

/*
 * OpenSSL's own words for what went wrong last on this thread; empties its list of errors.
 * From 3.2 on "record layer failure" is put on top of what it was.
 */
static const char *openssl_words(void)
{
	unsigned long code = ERR_get_error(), next;
	const char *words;

	while ((next = ERR_get_error()))
		if (ERR_GET_LIB(next) != ERR_LIB_SSL ||
		    ERR_GET_REASON(next) != SSL_R_RECORD_LAYER_FAILURE)
			code = next;
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && (ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST ||
						 ERR_GET_REASON(code) == SSL_R_HTTPS_PROXY_REQUEST))
		return "plain HTTP, on a port with TLS: wss:// in the place of ws://";
	words = code ? ERR_reason_error_string(code) : NULL;
	if (words)
		return words;
	/* Errors of the system have a number of their own kind, and no text with it. */
	return ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : "unknown error";
}

/* Ends the session for good, and remembers why: @more may be NULL. Return: -EPROTO. */
static int link_break(struct tls_link *l, const char *what, const char *more)
{
	l->is_broken = true;
	snprintf(failure, sizeof(failure), "%s%s%s", what, more ? ": " : "", more ? more : "");
	ERR_clear_error();
	return -EPROTO;
}

/*
 * What a call that did not work means: 0 the end | -EAGAIN | -errno. Asked right after the
 * call: SSL_get_error(3) looks at the thread's queue of errors, which was empty before, and
 * errno is the socket's, if it was 0 before.
 */
static int link_outcome(struct tls_link *l, int result)
{
	long verified;
	int error = errno;

	/* First, for to OpenSSL this looks like an end: see record_seen(). */
	if (l->barren > BARREN_RECORDS)
		return link_break(l, "too many records without data", NULL);
	switch (SSL_get_error(l->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		/* The network's doing. SSL_shutdown(3) has to be left alone after it, too. */
		l->is_broken = true;
		return error ? -error : 0;
	default:
		break;
	}
	/* "certificate verify failed" alone would leave the administrator to guess. */
	verified = SSL_get_verify_result(l->ssl);
	return link_break(l, openssl_words(),
			  verified == X509_V_OK ? NULL : X509_verify_cert_error_string(verified));
}

/* ------------------------------------------------------------------------ reading */

/* One line in the life of the daemon: whether the kernel encrypts. */
static void report_ktls(const struct tls_link *l)
{
	static atomic_flag was_said = ATOMIC_FLAG_INIT;
	const char *by = "by wsbind: this kernel has no TLS";

	if (!l->server || atomic_flag_test_and_set(&was_said))
		return;
	if (BIO_get_ktls_send(SSL_get_wbio(l->ssl)))
		by = "by the kernel";
	else if (!tls_may_use_ktls())
		by = "by wsbind: kernel TLS is left alone with OpenSSL 3.2 and later";
	log_line(LOG_INFO, "TLS: %s, %s; encrypted %s", SSL_get_version(l->ssl),
		 SSL_get_cipher_name(l->ssl), by);
}

/* Nothing can be read any more; what went wrong behind data is told once, and then the end. */
static ssize_t link_read_end(struct tls_link *l)
{
	WB_CLEANUP(ptr_freep) char *why = TAKE_PTR(l->why);

	l->has_more = false;
	if (!why)
		return 0;
	snprintf(failure, sizeof(failure), "%s", why);
	return -EPROTO;
}

/*
 * Data comes first, then what was met behind it: no event of the socket would announce that
 * again, so has_more does. The words are put by, since @failure is the whole thread's; without
 * memory for them it is an end like any other.
 */
static ssize_t link_read_result(struct tls_link *l, size_t total, int end)
{
	if (total == 0)
		return end;
	l->has_more |= end != -EAGAIN;
	if (end == -EPROTO)
		l->why = strdup(failure);
	return (ssize_t)total;
}

static ssize_t tls_recv(struct transport *t, void *p, size_t n)
{
	struct tls_link *l = link_of(t);
	bool was_secured = SSL_is_init_finished(l->ssl);
	unsigned n_barren = l->n_barren;
	size_t total = 0, got;
	int end = -EAGAIN;

	if (l->is_broken)
		return link_read_end(l);
	ERR_clear_error();
	l->has_more = false;
	/*
	 * A call gives one record at most, and OpenSSL has read ahead of it: going on until it has
	 * none is what lets "less than was asked for" mean that the socket is empty. A peer that
	 * sends a byte a record would keep the loop here, so that ends, and has_more says that no
	 * event will come.
	 */
	for (unsigned records = 0; total < n && !l->has_more; records++) {
		int r;

		errno = 0;
		r = SSL_read_ex(l->ssl, (uint8_t *)p + total, n - total, &got);
		if (r != 1) {
			end = link_outcome(l, r);
			break;
		}
		/* The last of them was the one with the data, unless that is the rest of one. */
		l->n_barren -= l->barren > 0 && l->n_barren > 0;
		l->barren = 0;
		total += got;
		l->has_more = records + 1 == RECORDS_PER_CALL ||
			      l->n_barren - n_barren >= BARREN_PER_CALL;
	}
	/* The handshake is done by reading, so here is where it ends. */
	if (!was_secured && SSL_is_init_finished(l->ssl))
		report_ktls(l);
	return link_read_result(l, total, end);
}

static unsigned tls_take_barren(struct transport *t)
{
	struct tls_link *l = link_of(t);
	unsigned n = l->n_barren;

	l->n_barren = 0;
	return n;
}

static bool tls_has_more(const struct transport *t)
{
	return link_of(t)->has_more;
}

/* ------------------------------------------------------------------------ writing */

/*
 * Keeps a copy of a record's data. OpenSSL has encrypted it and wants to see the same bytes
 * again when it is called to go on; the sender would have to hold them back, and to know that.
 */
static int unsent_keep(struct tls_link *l, const uint8_t *p, size_t n)
{
	l->unsent = malloc(n);
	if (!l->unsent)
		return -ENOMEM;
	memcpy(l->unsent, p, n);
	l->unsent_n = n;
	l->unsent_at = 0;
	return 0;
}

/* Return: 0 nothing is unsent any more | -EAGAIN | -errno. */
static int unsent_send(struct tls_link *l)
{
	ERR_clear_error();
	/* A client may have asked for small records (RFC 6066 section 4): one each time. */
	while (l->unsent_at < l->unsent_n) {
		size_t taken;
		int r;

		errno = 0;
		r = SSL_write_ex(l->ssl, l->unsent + l->unsent_at, l->unsent_n - l->unsent_at,
				 &taken);
		if (r != 1) {
			r = link_outcome(l, r);
			return r == 0 ? -EPIPE
				      : r; /* an end is no end of writing, but in its way */
		}
		l->unsent_at += taken;
	}
	free(TAKE_PTR(l->unsent));
	return 0;
}

/*
 * One record. Return: bytes that it took over | -EAGAIN | -errno.
 *
 * Where the kernel encrypts, OpenSSL 3 keeps no copy of a record that the kernel did not take:
 * it goes on from the address that it was given first, whatever the next call says. There the
 * copy is made before.
 */
static ssize_t write_record(struct tls_link *l, const uint8_t *p, size_t n)
{
	size_t taken;
	int r;

	n = MIN(n, (size_t)RECORD_BYTES);
	if (BIO_get_ktls_send(SSL_get_wbio(l->ssl))) {
		r = unsent_keep(l, p, n);
		if (r == 0)
			r = unsent_send(l);
		return r == 0 || r == -EAGAIN ? (ssize_t)n : r;
	}
	errno = 0;
	r = SSL_write_ex(l->ssl, p, n, &taken);
	if (r == 1)
		return (ssize_t)taken;
	r = link_outcome(l, r);
	if (r == 0)
		return -EPIPE;
	/*
	 * The record is made, and the kernel has a part of it or nothing: it counts as sent. Where
	 * OpenSSL wants to read instead, the handshake is not done and it has taken nothing.
	 */
	if (r == -EAGAIN && SSL_want_write(l->ssl))
		return unsent_keep(l, p, n) == 0 ? (ssize_t)n : -ENOMEM;
	return r;
}

/* Says close_notify, where there is a session to say it in, then the end of the stream. */
static void link_end_sending(struct transport *t, struct tls_link *l)
{
	/* In the middle of a handshake SSL_shutdown(3) is an error, and so it is after one. */
	if (!l->is_broken && SSL_is_init_finished(l->ssl)) {
		ERR_clear_error();
		(void)SSL_shutdown(l->ssl); /* the other end may be gone already */
		ERR_clear_error();
	}
	(void)shutdown(t->fd, SHUT_WR);
}

static int tls_flush(struct transport *t)
{
	struct tls_link *l = link_of(t);
	int r;

	if (!l->unsent)
		return 0;
	r = l->is_broken ? -EPIPE : unsent_send(l);
	if (r == 0 && l->is_shut) /* which had to wait for this */
		link_end_sending(t, l);
	return r;
}

/* Where the sender's pieces are, as one run of bytes. */
struct WB_VALUE run {
	const struct iovec *iov;
	int count;
	size_t at; /* in the first */
};

/* Moves on by @n bytes, and past pieces that are empty: what is left begins with a byte. */
static void run_skip(struct run *r, size_t n)
{
	r->at += n;
	while (r->count > 0 && r->at >= r->iov->iov_len) {
		r->at -= r->iov->iov_len;
		r->iov++;
		r->count--;
	}
}

/* What the next record carries: as it lies where that fills one, else put together. */
static const uint8_t *run_record(const struct run *r, uint8_t room[RECORD_BYTES], size_t *ret_n)
{
	const uint8_t *first = (const uint8_t *)r->iov->iov_base + r->at;
	size_t n = r->iov->iov_len - r->at;

	/*
	 * Each record costs 22 bytes and a call, so that copying small pieces is the cheaper way.
	 */
	if (n >= RECORD_BYTES || r->count == 1) {
		*ret_n = MIN(n, (size_t)RECORD_BYTES);
		return first;
	}
	memcpy(room, first, n);
	for (int i = 1; i < r->count && n < RECORD_BYTES; i++) {
		size_t part = MIN(r->iov[i].iov_len, RECORD_BYTES - n);

		memcpy(room + n, r->iov[i].iov_base, part);
		n += part;
	}
	*ret_n = n;
	return room;
}

static ssize_t tls_send(struct transport *t, const struct iovec *iov, int count)
{
	static _Thread_local uint8_t room[RECORD_BYTES];
	struct run run = {iov, count, 0};
	struct tls_link *l = link_of(t);
	ssize_t total = 0, r = l->is_broken ? -EPIPE : tls_flush(t);

	/* What was taken before goes out before. */
	if (r)
		return r;
	ERR_clear_error();
	run_skip(&run, 0);
	while (run.count > 0 && !l->unsent) {
		size_t n;
		const uint8_t *p = run_record(&run, room, &n);

		r = write_record(l, p, n);
		if (r <= 0) /* behind records that went out, the next call will tell */
			return total > 0 ? total : r;
		total += r;
		run_skip(&run, (size_t)r);
	}
	return total;
}

static void tls_shutdown(struct transport *t)
{
	struct tls_link *l = link_of(t);

	l->is_shut = true;
	if (!l->unsent) /* else tls_flush() does it, when that is out */
		link_end_sending(t, l);
}

/* ---------------------------------------------------------------- beginning and end */

static void tls_close(struct transport *t, bool reset)
{
	struct tls_link *l = link_of(t);
	struct transport plain;

	transport_init_plain(&plain, t->fd);
	if (t->fd < 0)
		return;
	if (!reset && !l->is_shut)
		link_end_sending(t, l);
	SSL_free(l->ssl);
	tls_server_unref(l->server); /* behind the session, which uses its certificates */
	free(l->unsent);
	free(l->why);
	free(l);
	/* The table of functions is gone with the link: the plain one closes what is left. */
	*t = plain;
	transport_close(t, reset);
}

static const struct transport_ops tls_ops = {
	.recv = tls_recv,
	.has_more = tls_has_more,
	.take_barren = tls_take_barren,
	.send = tls_send,
	.flush = tls_flush,
	.shutdown = tls_shutdown,
	.close = tls_close,
};

/* @ssl becomes the transport's, also when there is no memory; NULL: there was none for it. */
static int link_new(struct transport *t, int fd, SSL *ssl, struct tls_server *server)
{
	struct tls_link *l = ssl ? calloc(1, sizeof(*l)) : NULL;

	if (!l) {
		SSL_free(ssl);
		return -ENOMEM;
	}
	SSL_set_msg_callback(ssl, record_seen);
	SSL_set_msg_callback_arg(ssl, l);
	l->ops = tls_ops;
	l->ssl = ssl;
	l->server = tls_server_ref(server);
	t->ops = &l->ops;
	t->fd = fd;
	return 0;
}

int transport_init_tls(struct transport *t, int fd, struct tls_server *s)
{
	return link_new(t, fd, tls_server_open(s, fd), s);
}

int transport_init_tls_client(struct transport *t, int fd, struct tls_client *c, const char *host)
{
	return link_new(t, fd, tls_client_open(c, fd, host), NULL);
}

/* ---------------------------------------------------------------------- questions */

bool transport_is_tls(const struct transport *t)
{
	return t->ops->recv == tls_recv;
}

bool transport_is_secured(const struct transport *t)
{
	return transport_is_tls(t) && SSL_is_init_finished(link_of(t)->ssl);
}

bool transport_client_name(const struct transport *t, char out[TLS_NAME_MAX])
{
	unsigned char *text = NULL;
	X509 *certificate;
	X509_NAME *subject;
	int at, n;

	if (!transport_is_secured(t))
		return false;
	certificate = SSL_get0_peer_certificate(link_of(t)->ssl);
	if (!certificate)
		return false;
	subject = X509_get_subject_name(certificate);
	at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0)
		return false;
	n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	/* A NUL inside would let "admin\0.example" pass for "admin" wherever texts are compared. */
	if (n > 0 && n < TLS_NAME_MAX && !memchr(text, 0, (size_t)n) &&
	    utf8_valid((const char *)text, (size_t)n)) {
		memcpy(out, text, (size_t)n);
		out[n] = '\0';
	} else {
		n = 0;
	}
	OPENSSL_free(text);
	return n > 0;
}
