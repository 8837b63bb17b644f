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
#include "io/tls_tickets.h"

#define RECORD_BYTES 16384   /* the most that one carries: RFC 8446 section 5.1 */
#define RECORDS_PER_CALL 256 /* that reading takes; what is behind them waits for the next turn */
#define BARREN_RECORDS 64    /* in a row without data: more than any handshake has */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20" /* with forward secrecy, authenticated */
#ifndef SSL_R_RECORD_LAYER_FAILURE
#define SSL_R_RECORD_LAYER_FAILURE 313 /* the headers of 3.0 have no name for what 3.2 may say */
#endif

/* ----------------------------------------------------------------------- failures */

static _Thread_local char failure[TLS_WHY_MAX];

const char *tls_failure(void)
{
	return failure;
}

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
	words = code ? ERR_reason_error_string(code) : NULL;
	if (words)
		return words;
	return ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : "unknown error";
}

static int wrong(char why[TLS_WHY_MAX], const char *file, const char *what)
{
	unsigned long code = ERR_peek_error(); /* the first is the cause of the others */
	const char *words = code ? ERR_reason_error_string(code) : NULL;

	if (!what)
		what = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : words;
	snprintf(why, TLS_WHY_MAX, "%s: %s", file, what ? what : "cannot be used");
	ERR_clear_error();
	return -EINVAL;
}

/* ----------------------------------------------------------------------- contexts */

struct WB_SHARED tls_server {
	_Atomic unsigned refs;
	struct tls_tickets *tickets WB_FROZEN;
	SSL_CTX *pair[TLS_MAX_PAIRS] WB_FROZEN;
	size_t n_pairs WB_FROZEN;
};

struct WB_FROZEN tls_client {
	SSL_CTX *context;
	bool accepts_any_certificate;
};

/*
 * OpenSSL from 3.2 on (3.5.9 still does) loses what it has read ahead when keys change, if it tries
 * kernel TLS for the new ones and the kernel refuses. What it does where the kernel takes them is
 * untried. So there it is not asked for. The library that runs decides: one that is built with 3.0
 * runs with 3.5.
 */
static bool may_use_ktls(void)
{
	return OpenSSL_version_num() < 0x30200000;
}

static SSL_CTX *context_new(const SSL_METHOD *method)
{
	SSL_CTX *c = SSL_CTX_new(method);

	if (!c)
		return NULL;
	SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
	SSL_CTX_set_cipher_list(c, CIPHERS_1_2);
	SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
				       SSL_OP_IGNORE_UNEXPECTED_EOF);
	if (may_use_ktls())
		SSL_CTX_set_options(c, SSL_OP_ENABLE_KTLS);
	else
		SSL_CTX_clear_options(c, SSL_OP_ENABLE_KTLS); /* openssl.cnf may have set it */
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(c, 1);
	return c;
}

/* The pair whose certificate is for this name; a name that nobody has gets the first. */
static int name_wanted(SSL *ssl, int *alert, void *arg)
{
	const struct tls_server *s = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	(void)alert;
	for (size_t i = 0; name && i < s->n_pairs; i++) {
		X509 *certificate = SSL_CTX_get0_certificate(s->pair[i]);

		if (X509_check_host(certificate, name, 0, 0, NULL) == 1) {
			SSL_set_SSL_CTX(ssl, s->pair[i]);
			break;
		}
	}
	return SSL_TLSEXT_ERR_OK;
}

static int load_pair(SSL_CTX *c, const struct tls_pair *p, char why[TLS_WHY_MAX])
{
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(c, p->certificate) != 1)
		return wrong(why, p->certificate, NULL);
	if (SSL_CTX_use_PrivateKey_file(c, p->key, SSL_FILETYPE_PEM) != 1) {
		bool is_other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;

		return wrong(why, p->key,
			     is_other ? "this key does not belong to the certificate" : NULL);
	}
	if (SSL_CTX_check_private_key(c) != 1)
		return wrong(why, p->key, "this key does not belong to the certificate");
	return 0;
}

/* A session that a ticket resumes has its client's certificate from before: none, then. */
static int want_client(SSL_CTX *c, const char *ca, char why[TLS_WHY_MAX])
{
	STACK_OF(X509_NAME) * names;

	if (SSL_CTX_load_verify_file(c, ca) != 1)
		return wrong(why, ca, NULL);
	names = SSL_load_client_CA_file(ca);
	if (!names)
		return wrong(why, ca, NULL);
	SSL_CTX_set_client_CA_list(c, names);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(c, 0);
	return 0;
}

static int add_pair(struct tls_server *s, const struct tls_pair *p, const char *client_ca,
		    char why[TLS_WHY_MAX])
{
	SSL_CTX *c = context_new(TLS_server_method());
	int r;

	if (!c)
		return -ENOMEM;
	s->pair[s->n_pairs++] = c;
	SSL_CTX_set_num_tickets(c, 1);
	r = tls_tickets_use(s->tickets, c);
	if (r)
		return r;
	SSL_CTX_set_tlsext_servername_callback(c, name_wanted);
	SSL_CTX_set_tlsext_servername_arg(c, s);
	r = load_pair(c, p, why);
	if (r == 0 && client_ca)
		r = want_client(c, client_ca, why);
	return r;
}

int tls_server_new(const struct tls_server_options *o, struct tls_server *before,
		   struct tls_server **ret, char why[TLS_WHY_MAX])
{
	struct tls_server *s = calloc(1, sizeof(*s));
	int r = 0;

	WB_ASSERT(o->n_pairs > 0 && o->n_pairs <= TLS_MAX_PAIRS);
	snprintf(why, TLS_WHY_MAX, "out of memory");
	if (!s)
		return -ENOMEM;
	atomic_init(&s->refs, 1);
	s->tickets = before ? tls_tickets_ref(before->tickets) : tls_tickets_new();
	if (!s->tickets)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < o->n_pairs; i++)
		r = add_pair(s, &o->pair[i], o->client_ca, why);
	if (r) {
		tls_server_unref(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct tls_server *tls_server_unref(struct tls_server *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < s->n_pairs; i++)
		SSL_CTX_free(s->pair[i]);
	tls_tickets_unref(s->tickets);
	free(s);
	return NULL;
}

int tls_client_new(const char *ca_file, bool accepts_any_certificate, struct tls_client **ret,
		   char why[TLS_WHY_MAX])
{
	struct tls_client *c = calloc(1, sizeof(*c));
	int r = 0;

	snprintf(why, TLS_WHY_MAX, "out of memory");
	if (c)
		c->context = context_new(TLS_client_method());
	if (!c || !c->context) {
		tls_client_free(c);
		return -ENOMEM;
	}
	ERR_clear_error();
	c->accepts_any_certificate = accepts_any_certificate;
	if (ca_file && SSL_CTX_load_verify_file(c->context, ca_file) != 1)
		r = wrong(why, ca_file, NULL);
	else if (!ca_file && SSL_CTX_set_default_verify_paths(c->context) != 1)
		r = wrong(why, "certificates of the system", NULL);
	if (r) {
		tls_client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct tls_client *tls_client_free(struct tls_client *c)
{
	if (c)
		SSL_CTX_free(c->context);
	free(c);
	return NULL;
}

/* --------------------------------------------------------------------- connection */

/*
 * What a TLS connection has beside its transport. The transport's table of functions is
 * a copy inside it: from the pointer to the one the other is found, and a plain
 * connection pays nothing for what it doesn't have.
 */
struct WB_OWNER(loop) tls_link {
	struct transport_ops ops;
	SSL *ssl;
	struct tls_server *server; /* reference; NULL: the client's end */
	uint8_t *kept;             /* data of records that the kernel has not taken */
	size_t kept_n;
	size_t kept_at;  /* of @kept, what it has */
	char *why;       /* how reading ended behind data that came first, until that is told */
	unsigned barren; /* records read since the last data */
	bool has_more;   /* the last reading left something: bytes, or the end */
	bool is_shut;    /* nothing follows what is kept */
	bool is_broken;  /* OpenSSL may not be called any more */
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
	if (++l->barren > BARREN_RECORDS)
		SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

static int broken(struct tls_link *l, const char *what, const char *more)
{
	l->is_broken = true;
	snprintf(failure, sizeof(failure), "%s%s%s", what, more ? ": " : "", more ? more : "");
	ERR_clear_error();
	return -EPROTO;
}

/* What a call that did not work means: 0 the end | -EAGAIN | -errno. */
static int outcome(struct tls_link *l, int result)
{
	long verified;
	int error = errno;

	if (l->barren > BARREN_RECORDS)
		return broken(l, "too many records without data", NULL);
	switch (SSL_get_error(l->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		l->is_broken = true;
		return error ? -error : 0;
	default:
		break;
	}
	verified = SSL_get_verify_result(l->ssl);
	return broken(l, openssl_words(),
		      verified == X509_V_OK ? NULL : X509_verify_cert_error_string(verified));
}

/* One line in the life of the daemon: whether the kernel encrypts. */
static void report_ktls(const struct tls_link *l)
{
	static atomic_flag was_said = ATOMIC_FLAG_INIT;
	const char *by = "by wsbind: this kernel has no TLS";

	if (!l->server || atomic_flag_test_and_set(&was_said))
		return;
	if (BIO_get_ktls_send(SSL_get_wbio(l->ssl)))
		by = "by the kernel";
	else if (!may_use_ktls())
		by = "by wsbind: kernel TLS is left alone with OpenSSL 3.2 and later";
	log_line(LOG_INFO, "TLS: %s, %s; encrypted %s", SSL_get_version(l->ssl),
		 SSL_get_cipher_name(l->ssl), by);
}

/* Nothing can be read any more; what went wrong behind data is told once. */
static ssize_t read_broken(struct tls_link *l)
{
	WB_CLEANUP(ptr_freep) char *why = TAKE_PTR(l->why);

	l->has_more = false;
	if (!why)
		return 0;
	snprintf(failure, sizeof(failure), "%s", why);
	return -EPROTO;
}

/* Data comes first, then what was met behind it. */
static ssize_t read_outcome(struct tls_link *l, size_t total, int end)
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
	size_t total = 0, got;
	int end = -EAGAIN;

	if (l->is_broken)
		return read_broken(l);
	ERR_clear_error();
	l->has_more = false;
	/* Record by record, so that less than was asked for means that no more is there. */
	for (unsigned records = 0; total < n && !l->has_more; records++) {
		int r;

		errno = 0;
		r = SSL_read_ex(l->ssl, (uint8_t *)p + total, n - total, &got);
		if (r != 1) {
			end = outcome(l, r);
			break;
		}
		l->barren = 0;
		total += got;
		l->has_more = records + 1 == RECORDS_PER_CALL;
	}
	if (!was_secured && SSL_is_init_finished(l->ssl))
		report_ktls(l);
	return read_outcome(l, total, end);
}

static bool tls_has_more(const struct transport *t)
{
	return link_of(t)->has_more;
}

/* Keeps a copy of a record's data: OpenSSL wants to see it again. */
static int keep(struct tls_link *l, const uint8_t *p, size_t n)
{
	l->kept = malloc(n);
	if (!l->kept)
		return -ENOMEM;
	memcpy(l->kept, p, n);
	l->kept_n = n;
	l->kept_at = 0;
	return 0;
}

/* Return: 0 nothing is kept any more | -EAGAIN | -errno. */
static int send_kept(struct tls_link *l)
{
	ERR_clear_error();
	/* A client may have asked for small records (RFC 6066 section 4): one each time. */
	while (l->kept_at < l->kept_n) {
		size_t taken;
		int r;

		errno = 0;
		r = SSL_write_ex(l->ssl, l->kept + l->kept_at, l->kept_n - l->kept_at, &taken);
		if (r != 1) {
			r = outcome(l, r);
			return r == 0 ? -EPIPE : r;
		}
		l->kept_at += taken;
	}
	free(TAKE_PTR(l->kept));
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
		r = keep(l, p, n);
		if (r == 0)
			r = send_kept(l);
		return r == 0 || r == -EAGAIN ? (ssize_t)n : r;
	}
	errno = 0;
	r = SSL_write_ex(l->ssl, p, n, &taken);
	if (r == 1)
		return (ssize_t)taken;
	r = outcome(l, r);
	if (r == 0)
		return -EPIPE;
	if (r == -EAGAIN && SSL_want_write(l->ssl))
		return keep(l, p, n) == 0 ? (ssize_t)n : -ENOMEM;
	return r;
}

static void end_sending(struct transport *t, struct tls_link *l)
{
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

	if (!l->kept)
		return 0;
	r = l->is_broken ? -EPIPE : send_kept(l);
	if (r == 0 && l->is_shut)
		end_sending(t, l);
	return r;
}

/* Where the sender's pieces are, as one run of bytes. */
struct WB_VALUE run {
	const struct iovec *iov;
	int count;
	size_t at; /* in the first */
};

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

	if (r)
		return r;
	ERR_clear_error();
	run_skip(&run, 0);
	while (run.count > 0 && !l->kept) {
		size_t n;
		const uint8_t *p = run_record(&run, room, &n);

		r = write_record(l, p, n);
		if (r <= 0)
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
	if (!l->kept)
		end_sending(t, l);
}

static void tls_close(struct transport *t, bool reset)
{
	struct tls_link *l = link_of(t);
	struct transport plain;

	transport_init_plain(&plain, t->fd);
	if (t->fd < 0)
		return;
	if (!reset && !l->is_shut)
		end_sending(t, l);
	SSL_free(l->ssl);
	tls_server_unref(l->server);
	free(l->kept);
	free(l->why);
	free(l);
	*t = plain;
	transport_close(t, reset);
}

static const struct transport_ops tls_ops = {
	.recv = tls_recv,
	.has_more = tls_has_more,
	.send = tls_send,
	.flush = tls_flush,
	.shutdown = tls_shutdown,
	.close = tls_close,
};

static int init(struct transport *t, int fd, SSL_CTX *context, struct tls_link **ret)
{
	struct tls_link *l = calloc(1, sizeof(*l));
	SSL *ssl = l ? SSL_new(context) : NULL;

	if (!ssl || SSL_set_fd(ssl, fd) != 1) {
		SSL_free(ssl);
		free(l);
		ERR_clear_error();
		return -ENOMEM;
	}
	SSL_set_msg_callback(ssl, record_seen);
	SSL_set_msg_callback_arg(ssl, l);
	l->ops = tls_ops;
	l->ssl = ssl;
	t->ops = &l->ops;
	t->fd = fd;
	*ret = l;
	return 0;
}

int transport_init_tls(struct transport *t, int fd, struct tls_server *s)
{
	struct tls_link *l;
	int r = init(t, fd, s->pair[0], &l);

	if (r)
		return r;
	l->server = tls_server_ref(s);
	SSL_set_accept_state(l->ssl);
	return 0;
}

/* Return: whether the certificate will be compared with @host. */
static bool expect_host(SSL *ssl, const char *host)
{
	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1)
		return true;
	ERR_clear_error();
	return SSL_set_tlsext_host_name(ssl, (uintptr_t)host) == 1 && SSL_set1_host(ssl, host) == 1;
}

int transport_init_tls_client(struct transport *t, int fd, struct tls_client *c, const char *host)
{
	struct tls_link *l;
	int r = init(t, fd, c->context, &l);

	if (r)
		return r;
	SSL_set_connect_state(l->ssl);
	SSL_set_verify(l->ssl, c->accepts_any_certificate ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
		       NULL);
	if (expect_host(l->ssl, host))
		return 0;
	ERR_clear_error();
	SSL_free(l->ssl);
	free(l);
	transport_init_plain(t, fd);
	return -ENOMEM;
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
