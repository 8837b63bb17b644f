/* SPDX-License-Identifier: MIT */
#include "io/tls_context.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "io/tls_files.h"
#include "io/tls_tickets.h"

#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20" /* with forward secrecy, authenticated */

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

/* Puts together what is wrong with a file, in @what or in OpenSSL's words. Return: -EINVAL. */
static int file_is_wrong(char why[TLS_WHY_MAX], const char *file, const char *what)
{
	unsigned long code = ERR_peek_error(); /* the first is the cause of the others */
	const char *words = code ? ERR_reason_error_string(code) : NULL;

	/* "No such file or directory" is a code of the system, for which there are no words. */
	if (!what)
		what = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : words;
	snprintf(why, TLS_WHY_MAX, "%s: %s", file, what ? what : "cannot be used");
	/* An error that stays in the thread's queue would be told as the next one's cause. */
	ERR_clear_error();
	return -EINVAL;
}

bool tls_may_use_ktls(void)
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
	/*
	 * Renegotiation costs the server much and the client little; compression tells secrets
	 * by their length. Many peers go without a close_notify: messages have their own length,
	 * so an end that was cut off is an end like any other.
	 */
	SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
				       SSL_OP_IGNORE_UNEXPECTED_EOF);
	if (tls_may_use_ktls())
		SSL_CTX_set_options(c, SSL_OP_ENABLE_KTLS);
	else
		SSL_CTX_clear_options(c, SSL_OP_ENABLE_KTLS); /* openssl.cnf may have set it */
	/*
	 * An idle connection gives its buffers back. A write ends with the record that went out,
	 * and may be tried again from a copy at another address.
	 */
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* Sessions lie with the clients, in tickets: a cache here would be one for each thread. */
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	/* Else each record costs two reads: five bytes of its head, then the rest. */
	SSL_CTX_set_read_ahead(c, 1);
	return c;
}

static SSL *context_open(SSL_CTX *c, int fd)
{
	SSL *ssl = SSL_new(c);

	if (ssl && SSL_set_fd(ssl, fd) == 1)
		return ssl;
	SSL_free(ssl);
	ERR_clear_error();
	return NULL;
}

/* The pair whose certificate is for this name; a name that nobody has gets the first. */
static int server_name_wanted(SSL *ssl, int *alert, void *arg)
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

static int server_file_is_wrong(struct tls_fault *fault, enum tls_file kind, const char *file,
				const char *what)
{
	fault->file = kind;
	return file_is_wrong(fault->why, file, what);
}

static int context_load_certificates(SSL_CTX *c, const char *path, struct file_set *files,
				     struct tls_fault *fault)
{
	STACK_OF(X509) *chain = NULL;
	const char *why;
	bool good;
	int r = tls_read_certificates(files, path, &chain, &why);

	if (r == -EINVAL)
		return server_file_is_wrong(fault, TLS_FILE_CERTIFICATE, path, why);
	if (r)
		return r;
	/* The first is the server's own, the others are those that vouch for it. */
	good = SSL_CTX_use_certificate(c, sk_X509_value(chain, 0)) == 1;
	for (int i = 1; good && i < sk_X509_num(chain); i++)
		good = SSL_CTX_add1_chain_cert(c, sk_X509_value(chain, i)) == 1;
	sk_X509_pop_free(chain, X509_free);
	/* OpenSSL's words: too weak a key, a digest that is not to be trusted any more. */
	return good ? 0 : server_file_is_wrong(fault, TLS_FILE_CERTIFICATE, path, NULL);
}

static int context_load_pair(SSL_CTX *c, const struct tls_pair *p, struct file_set *files,
			     struct tls_fault *fault)
{
	static const char mismatch[] = "this key does not belong to the certificate";
	EVP_PKEY *key = NULL;
	const char *why;
	bool good;
	int r;

	ERR_clear_error();
	r = context_load_certificates(c, p->certificate, files, fault);
	if (r)
		return r;
	r = tls_read_key(files, p->key, &key, &why);
	if (r == -EINVAL)
		return server_file_is_wrong(fault, TLS_FILE_KEY, p->key, why);
	if (r)
		return r;
	good = SSL_CTX_use_PrivateKey(c, key) == 1;
	EVP_PKEY_free(key);
	if (!good) {
		bool is_other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;

		return server_file_is_wrong(fault, TLS_FILE_KEY, p->key,
					    is_other ? mismatch : NULL);
	}
	/* Where the two are of different kinds, taking the key does not compare them. */
	if (SSL_CTX_check_private_key(c) != 1)
		return server_file_is_wrong(fault, TLS_FILE_KEY, p->key, mismatch);
	return 0;
}

/* Lets only those in who have a certificate that one of @ca's signed. */
static int context_want_certificate(SSL_CTX *c, const char *ca, struct file_set *files,
				    struct tls_fault *fault)
{
	X509_STORE *store = SSL_CTX_get_cert_store(c);
	STACK_OF(X509) *all = NULL;
	const char *why;
	bool good = true;
	int r = tls_read_certificates(files, ca, &all, &why);

	if (r == -EINVAL)
		return server_file_is_wrong(fault, TLS_FILE_CLIENT_CA, ca, why);
	if (r)
		return r;
	/* The names go to the client, which chooses one of its certificates by them. */
	for (int i = 0; good && i < sk_X509_num(all); i++)
		good = X509_STORE_add_cert(store, sk_X509_value(all, i)) == 1 &&
		       SSL_CTX_add_client_CA(c, sk_X509_value(all, i)) == 1;
	sk_X509_pop_free(all, X509_free);
	if (!good)
		return server_file_is_wrong(fault, TLS_FILE_CLIENT_CA, ca, NULL);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	/*
	 * A session that a ticket resumes has its client's certificate from before, though it may
	 * have expired, or be of an authority that a reload took away: no tickets, then.
	 */
	SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(c, 0);
	return 0;
}

static int server_add_pair(struct tls_server *s, const struct tls_pair *p, const char *client_ca,
			   struct file_set *files, struct tls_fault *fault)
{
	SSL_CTX *c = context_new(TLS_server_method());
	int r;

	if (!c)
		return -ENOMEM;
	s->pair[s->n_pairs++] = c; /* at once: whatever fails below, it goes with the server */
	SSL_CTX_set_num_tickets(c, 1);
	r = tls_tickets_use(s->tickets, c);
	if (r)
		return r;
	SSL_CTX_set_tlsext_servername_callback(c, server_name_wanted);
	SSL_CTX_set_tlsext_servername_arg(c, s);
	r = context_load_pair(c, p, files, fault);
	if (r == 0 && client_ca)
		r = context_want_certificate(c, client_ca, files, fault);
	return r;
}

int tls_server_new(const struct tls_server_options *o, struct file_set *files,
		   struct tls_server *before, struct tls_server **ret, struct tls_fault *fault)
{
	struct tls_server *s = calloc(1, sizeof(*s));
	int r = 0;

	WB_ASSERT(o->n_pairs > 0 && o->n_pairs <= TLS_MAX_PAIRS);
	*fault =
		(struct tls_fault){.why = "out of memory"}; /* until a file turns out to be wrong */
	if (!s)
		return -ENOMEM;
	atomic_init(&s->refs, 1);
	s->tickets = before ? tls_tickets_ref(before->tickets) : tls_tickets_new();
	if (!s->tickets)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < o->n_pairs; i++)
		r = server_add_pair(s, &o->pair[i], o->client_ca, files, fault);
	if (r) {
		tls_server_unref(s);
		return r;
	}
	*ret = s;
	return 0;
}

static int64_t unix_time_of(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

void tls_server_validity(const struct tls_server *s, size_t i, int64_t *ret_not_before_s,
			 int64_t *ret_not_after_s)
{
	const X509 *x = SSL_CTX_get0_certificate(s->pair[i]);

	*ret_not_before_s = unix_time_of(X509_get0_notBefore(x));
	*ret_not_after_s = unix_time_of(X509_get0_notAfter(x));
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct tls_server *tls_server_unref(struct tls_server *s)
{
	/* Release: this thread's use comes first. Acquire: pairs with those of all others. */
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < s->n_pairs; i++)
		SSL_CTX_free(s->pair[i]);
	tls_tickets_unref(s->tickets); /* behind the contexts, which ask it */
	free(s);
	return NULL;
}

struct ssl_st *tls_server_open(struct tls_server *s, int fd)
{
	SSL *ssl = context_open(s->pair[0], fd);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
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
	ERR_clear_error(); /* what is found in the queue below is of these calls */
	c->accepts_any_certificate = accepts_any_certificate;
	if (ca_file && SSL_CTX_load_verify_file(c->context, ca_file) != 1)
		r = file_is_wrong(why, ca_file, NULL);
	else if (!ca_file && SSL_CTX_set_default_verify_paths(c->context) != 1)
		r = file_is_wrong(why, "certificates of the system", NULL);
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

/* Has the certificate compared with @host, and asks for it by name. Return: false no memory. */
static bool session_expect_host(SSL *ssl, const char *host)
{
	/* An address is no name to ask for (RFC 6066 section 3); certificates list it apart. */
	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1)
		return true;
	ERR_clear_error();
	return SSL_set_tlsext_host_name(ssl, (uintptr_t)host) == 1 && SSL_set1_host(ssl, host) == 1;
}

struct ssl_st *tls_client_open(struct tls_client *c, int fd, const char *host)
{
	SSL *ssl = context_open(c->context, fd);

	if (!ssl)
		return NULL;
	SSL_set_connect_state(ssl);
	SSL_set_verify(ssl, c->accepts_any_certificate ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	if (session_expect_host(ssl, host))
		return ssl;
	SSL_free(ssl);
	ERR_clear_error();
	return NULL;
}
