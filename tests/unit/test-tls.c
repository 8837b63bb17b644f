/* SPDX-License-Identifier: MIT */
/* Both ends of TLS connections over socket pairs: every byte arrives, whatever the kernel takes. */
#include "io/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "test.h"

#define TURNS 10000

/* A certificate and its key, in files in memory. */
struct identity {
	EVP_PKEY *pkey;
	X509 *certificate;
	int fds[2];
	char certificate_file[64], key_file[64];
};

static int file_of(void (*write_pem)(BIO *, const struct identity *), const struct identity *id,
		   char path[64])
{
	int fd = memfd_create("pem", MFD_CLOEXEC);
	BIO *bio = BIO_new_fd(fd, BIO_NOCLOSE);

	CHECK(fd >= 0 && bio);
	write_pem(bio, id);
	BIO_free(bio);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

static void write_certificate(BIO *bio, const struct identity *id)
{
	CHECK_EQ(PEM_write_bio_X509(bio, id->certificate), 1);
}

static void write_key(BIO *bio, const struct identity *id)
{
	CHECK_EQ(PEM_write_bio_PrivateKey(bio, id->pkey, NULL, NULL, 0, NULL, NULL), 1);
}

/* @issuer: NULL signs itself. @days: until it expires. */
static struct identity *identity_new(const char *name, const char *alt, struct identity *issuer,
				     int days)
{
	struct identity *id = calloc(1, sizeof(*id));
	X509_NAME *subject;
	X509_EXTENSION *e;

	CHECK(id != NULL);
	id->pkey = EVP_EC_gen("P-256");
	id->certificate = X509_new();
	X509_set_version(id->certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id->certificate), issuer ? 2 : 1);
	X509_gmtime_adj(X509_getm_notBefore(id->certificate), -86400L * 10);
	X509_gmtime_adj(X509_getm_notAfter(id->certificate), 86400L * days);
	X509_set_pubkey(id->certificate, id->pkey);
	subject = X509_get_subject_name(id->certificate);
	if (name)
		X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const uint8_t *)name, -1,
					   -1, 0);
	else
		X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, (const uint8_t *)"none", -1,
					   -1, 0);
	X509_set_issuer_name(id->certificate,
			     issuer ? X509_get_subject_name(issuer->certificate) : subject);
	if (!issuer) {
		e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
		X509_add_ext(id->certificate, e, -1);
		X509_EXTENSION_free(e);
	}
	if (alt) {
		e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
		X509_add_ext(id->certificate, e, -1);
		X509_EXTENSION_free(e);
	}
	CHECK(X509_sign(id->certificate, issuer ? issuer->pkey : id->pkey, EVP_sha256()) > 0);
	id->fds[0] = file_of(write_certificate, id, id->certificate_file);
	id->fds[1] = file_of(write_key, id, id->key_file);
	return id;
}

static void identity_free(struct identity *id)
{
	close(id->fds[0]);
	close(id->fds[1]);
	X509_free(id->certificate);
	EVP_PKEY_free(id->pkey);
	free(id);
}

static struct tls_server *server_of(struct identity **ids, size_t n, const char *client_ca,
				    struct tls_server *before)
{
	struct tls_server_options o = {.client_ca = client_ca};
	struct tls_server *s = NULL;
	char why[TLS_WHY_MAX];

	for (size_t i = 0; i < n; i++)
		o.pair[o.n_pairs++] = (struct tls_pair){ids[i]->certificate_file, ids[i]->key_file};
	if (tls_server_new(&o, before, &s, why))
		fail_msg("%s", why);
	return s;
}

static struct tls_client *client_of(const char *ca, bool is_careless)
{
	struct tls_client *c = NULL;
	char why[TLS_WHY_MAX];

	if (tls_client_new(ca, is_careless, &c, why))
		fail_msg("%s", why);
	return c;
}

/* Two ends of a connection: [0] the server's, [1] the client's. */
struct pair {
	struct transport end[2];
};

static struct pair pair_new(struct tls_server *s, struct tls_client *c, const char *host, int room)
{
	struct pair p;
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	for (int i = 0; i < 2 && room; i++)
		CHECK_EQ(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	CHECK_EQ(transport_init_tls(&p.end[0], fds[0], s), 0);
	CHECK_EQ(transport_init_tls_client(&p.end[1], fds[1], c, host), 0);
	return p;
}

static void pair_close(struct pair *p)
{
	transport_close(&p->end[0], true);
	transport_close(&p->end[1], true);
}

/* Until both have finished the handshake. Return: 0, or the first error. */
static ssize_t shake_hands(struct pair *p)
{
	uint8_t byte;

	for (int i = 0; i < TURNS; i++) {
		ssize_t r = transport_recv(&p->end[1], &byte, 1);

		if (r != -EAGAIN)
			return r;
		r = transport_recv(&p->end[0], &byte, 1);
		if (r != -EAGAIN)
			return r;
		if (transport_is_secured(&p->end[0]) && transport_is_secured(&p->end[1]))
			return 0;
	}
	return -ETIMEDOUT;
}

/* One identity, one server, one client that trusts it, for most tests. */
struct stage {
	struct identity *id;
	struct tls_server *server;
	struct tls_client *client;
	struct pair pair;
};

static struct stage stage_new(int room)
{
	struct stage s = {.id = identity_new("localhost", "DNS:localhost,IP:127.0.0.1", NULL, 10)};

	s.server = server_of(&s.id, 1, NULL, NULL);
	s.client = client_of(s.id->certificate_file, false);
	s.pair = pair_new(s.server, s.client, "localhost", room);
	return s;
}

static void stage_free(struct stage *s)
{
	pair_close(&s->pair);
	tls_client_free(s->client);
	tls_server_unref(s->server);
	identity_free(s->id);
}

TEST(tls_handshake_and_a_few_bytes)
{
	struct stage s = stage_new(0);
	static char hello[] = "hello";
	struct iovec iov = {hello, 5};
	uint8_t got[16];

	CHECK(transport_is_tls(&s.pair.end[0]) && !transport_is_secured(&s.pair.end[0]));
	CHECK_EQ(shake_hands(&s.pair), 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(transport_send(&s.pair.end[i], &iov, 1), 5);
		CHECK_EQ(transport_recv(&s.pair.end[!i], got, sizeof(got)), 5);
		CHECK_MEM(got, "hello", 5);
		CHECK_EQ(transport_recv(&s.pair.end[!i], got, sizeof(got)), -EAGAIN);
	}
	transport_shutdown(&s.pair.end[1]);
	CHECK_EQ(transport_recv(&s.pair.end[0], got, sizeof(got)), 0);
	stage_free(&s);
}

/* Sends pieces of random sizes into a small socket, reads now and then; nothing may differ. */
static void pump(struct transport *from, struct transport *to, uint64_t *seed, size_t total)
{
	uint8_t *sent = malloc(total), *got = malloc(total + 1);
	size_t at = 0, have = 0;

	CHECK(sent && got);
	for (size_t i = 0; i < total; i++)
		sent[i] = (uint8_t)test_random(seed);
	for (int turn = 0; have < total; turn++) {
		CHECK(turn < 1000000);
		if (test_random(seed) % 3 && at < total) {
			struct iovec iov[8];
			size_t offset = at;
			int n = 0;
			ssize_t r;

			for (; n < 8 && offset < total; n++) {
				size_t len = MIN((size_t)(test_random(seed) % 4
								  ? test_random(seed) % 300
								  : test_random(seed) % 40000),
						 total - offset);

				iov[n] = (struct iovec){sent + offset, len};
				offset += len;
			}
			r = transport_send(from, iov, n);
			CHECK(r >= 0 || r == -EAGAIN);
			CHECK(r <= (ssize_t)(offset - at));
			at += r > 0 ? (size_t)r : 0;
		} else if (at == total || test_random(seed) % 4 == 0) {
			int r = transport_flush(from);

			CHECK(r == 0 || r == -EAGAIN);
		}
		if (test_random(seed) % 2) {
			ssize_t r = transport_recv(
				to, got + have,
				MIN((size_t)(1 + test_random(seed) % 50000), total + 1 - have));

			CHECK(r > 0 || r == -EAGAIN);
			have += r > 0 ? (size_t)r : 0;
		}
	}
	CHECK_EQ(have, total);
	CHECK_MEM(sent, got, total);
	free(sent);
	free(got);
}

TEST(tls_bytes_arrive_whatever_the_kernel_takes)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < 6; round++) {
		struct stage s = stage_new(round % 2 ? 4608 : 30000);

		CHECK_EQ(shake_hands(&s.pair), 0);
		pump(&s.pair.end[0], &s.pair.end[1], &seed, 600000);
		pump(&s.pair.end[1], &s.pair.end[0], &seed, 300000);
		stage_free(&s);
	}
}

/* What was taken counts as sent: the caller may show other bytes next, or none at all. */
TEST(tls_a_record_that_the_kernel_does_not_take_is_kept)
{
	struct stage s = stage_new(4608);
	static uint8_t big[100000], got[200000];
	size_t accepted = 0, have = 0;
	struct iovec iov = {big, sizeof(big)};
	ssize_t r;

	memset(big, 'a', sizeof(big));
	CHECK_EQ(shake_hands(&s.pair), 0);
	r = transport_send(&s.pair.end[0], &iov, 1);
	CHECK(r > 0 && r < (ssize_t)sizeof(big));
	accepted = (size_t)r;
	CHECK_EQ(transport_send(&s.pair.end[0], &iov, 1), -EAGAIN);
	CHECK_EQ(transport_flush(&s.pair.end[0]), -EAGAIN);
	/* The end of sending waits behind it, too. */
	transport_shutdown(&s.pair.end[0]);
	for (int i = 0; i < TURNS && r != 0; i++) {
		(void)transport_flush(&s.pair.end[0]);
		r = transport_recv(&s.pair.end[1], got + have, sizeof(got) - have);
		CHECK(r >= 0 || r == -EAGAIN);
		have += r > 0 ? (size_t)r : 0;
	}
	CHECK_EQ(r, 0);
	CHECK_EQ(have, accepted);
	CHECK_MEM(got, big, have);
	stage_free(&s);
}

/* Small pieces fill records: 1,000 of them are no thousand records. */
TEST(tls_a_batch_goes_in_records_of_full_size)
{
	struct stage s = stage_new(0);
	static uint8_t piece[100], wire[300000];
	struct iovec iov[600];
	ssize_t n;

	for (size_t i = 0; i < ARRAY_LEN(iov); i++)
		iov[i] = (struct iovec){piece, sizeof(piece)};
	CHECK_EQ(shake_hands(&s.pair), 0);
	while (recv(s.pair.end[1].fd, wire, sizeof(wire), 0) > 0) {
	}
	CHECK_EQ(transport_send(&s.pair.end[0], iov, (int)ARRAY_LEN(iov)), 60000);
	n = recv(s.pair.end[1].fd, wire, sizeof(wire), 0);
	/* Four records of at most 16,384 bytes; each costs 22 more. */
	CHECK_EQ(n, 60000 + 4 * 22);
	stage_free(&s);
}

TEST(tls_certificate_is_chosen_by_name)
{
	struct identity *a = identity_new("a", "DNS:a.example,DNS:*.a.example", NULL, 10);
	struct identity *b = identity_new("b", "DNS:b.example", NULL, 10);
	struct identity *both[] = {a, b};
	struct tls_server *s = server_of(both, 2, NULL, NULL);
	struct tls_client *trusts_a = client_of(a->certificate_file, false);
	struct tls_client *trusts_b = client_of(b->certificate_file, false);
	const struct {
		struct tls_client *client;
		const char *host;
		ssize_t result;
	} row[] = {
		{trusts_a, "a.example", 0},       {trusts_b, "b.example", 0},
		{trusts_a, "x.a.example", 0},     {trusts_b, "a.example", -EPROTO},
		{trusts_a, "b.example", -EPROTO}, {trusts_a, "c.example", -EPROTO},
		{trusts_a, "127.0.0.1", -EPROTO},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct pair p = pair_new(s, row[i].client, row[i].host, 0);

		CHECK_EQ(shake_hands(&p), row[i].result);
		pair_close(&p);
	}
	tls_client_free(trusts_a);
	tls_client_free(trusts_b);
	tls_server_unref(s);
	identity_free(a);
	identity_free(b);
}

static void check_refused(struct tls_server *s, struct tls_client *c, const char *host,
			  const char *words)
{
	struct pair p = pair_new(s, c, host, 0);

	CHECK_EQ(shake_hands(&p), -EPROTO);
	if (!strstr(tls_failure(), words))
		fail_msg("%s has no %s", tls_failure(), words);
	pair_close(&p);
}

TEST(tls_client_refuses_what_it_cannot_trust)
{
	struct identity *good = identity_new("localhost", "DNS:localhost", NULL, 10);
	struct identity *expired = identity_new("localhost", "DNS:localhost", NULL, -1);
	struct tls_server *s = server_of(&good, 1, NULL, NULL);
	struct tls_server *s_expired = server_of(&expired, 1, NULL, NULL);
	struct tls_client *trusting = client_of(good->certificate_file, false);
	struct tls_client *of_system = client_of(NULL, false);
	struct tls_client *trusts_expired = client_of(expired->certificate_file, false);
	struct tls_client *careless = client_of(NULL, true);
	struct pair p;

	check_refused(s, of_system, "localhost", "self-signed certificate");
	check_refused(s, trusting, "elsewhere", "hostname mismatch");
	check_refused(s_expired, trusts_expired, "localhost", "certificate has expired");
	p = pair_new(s_expired, careless, "elsewhere", 0);
	CHECK_EQ(shake_hands(&p), 0);
	pair_close(&p);
	tls_client_free(trusting);
	tls_client_free(of_system);
	tls_client_free(trusts_expired);
	tls_client_free(careless);
	tls_server_unref(s);
	tls_server_unref(s_expired);
	identity_free(good);
	identity_free(expired);
}

TEST(tls_what_is_no_tls_is_an_error_in_words)
{
	struct stage s = stage_new(0);
	uint8_t byte;

	CHECK_EQ(send(s.pair.end[1].fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	CHECK_EQ(transport_recv(&s.pair.end[0], &byte, 1), -EPROTO);
	CHECK_STR(tls_failure(), "http request");
	CHECK_EQ(transport_recv(&s.pair.end[0], &byte, 1), 0); /* and that is the end */
	stage_free(&s);
	s = stage_new(0);
	CHECK_EQ(send(s.pair.end[1].fd, "\x16\x03\x01\xff\xff garbage garbage garbage", 28, 0), 28);
	CHECK_EQ(transport_recv(&s.pair.end[0], &byte, 1), -EPROTO);
	stage_free(&s);
}

/* A ClientHello that stops in the middle is waited for, and its end is no error of ours. */
TEST(tls_handshake_that_is_cut_off)
{
	struct stage s = stage_new(0);
	uint8_t hello[2000], byte;
	ssize_t n;

	CHECK_EQ(transport_recv(&s.pair.end[1], &byte, 1), -EAGAIN);
	n = recv(s.pair.end[0].fd, hello, sizeof(hello), 0);
	CHECK(n > 100);
	for (ssize_t i = 0; i < n - 1; i++) {
		CHECK_EQ(send(s.pair.end[1].fd, hello + i, 1, 0), 1);
		CHECK_EQ(transport_recv(&s.pair.end[0], &byte, 1), -EAGAIN);
	}
	CHECK_EQ(shutdown(s.pair.end[1].fd, SHUT_WR), 0);
	CHECK(transport_recv(&s.pair.end[0], &byte, 1) <= 0);
	stage_free(&s);
}

static void check_no_server(const char *certificate, const char *key, const char *ca,
			    const char *words)
{
	const struct tls_server_options o = {
		.pair = {{certificate, key}}, .n_pairs = 1, .client_ca = ca};
	struct tls_server *s = NULL;
	char why[TLS_WHY_MAX];

	CHECK_EQ(tls_server_new(&o, NULL, &s, why), -EINVAL);
	if (!strstr(why, words))
		fail_msg("%s has no %s", why, words);
}

TEST(tls_server_names_the_file_that_is_wrong)
{
	struct identity *a = identity_new("a", NULL, NULL, 10),
			*b = identity_new("b", NULL, NULL, 10);

	check_no_server("/no/such", a->key_file, NULL, "/no/such: No such file or directory");
	check_no_server(a->certificate_file, "/no/such", NULL, "/no/such: No such file");
	check_no_server("/dev/null", a->key_file, NULL, "/dev/null: ");
	check_no_server(a->certificate_file, b->key_file, NULL,
			"this key does not belong to the certificate");
	check_no_server(a->certificate_file, a->certificate_file, NULL, a->certificate_file);
	check_no_server(a->certificate_file, a->key_file, "/no/such", "/no/such: No such file");
	identity_free(a);
	identity_free(b);
}

/* ---------------------------------------------------------- certificates of clients */

/* Our client has none to show; OpenSSL's own end does what it lacks. */
static SSL *openssl_client(int fd, SSL_CTX *context)
{
	SSL *ssl = SSL_new(context);

	CHECK(ssl && SSL_set_fd(ssl, fd) == 1);
	SSL_set_connect_state(ssl);
	return ssl;
}

/* Return: what the server's end came to: bytes, -EAGAIN or an error. */
static ssize_t drive(struct transport *server, SSL *ssl)
{
	uint8_t byte;
	ssize_t r = -EAGAIN;

	for (int i = 0; i < 20 && r == -EAGAIN; i++) {
		(void)SSL_write(ssl, "x", 1);
		r = transport_recv(server, &byte, 1);
	}
	ERR_clear_error();
	return r;
}

static ssize_t with_certificate(struct tls_server *s, const struct identity *id, char *name)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	struct transport t;
	ssize_t r;
	int fds[2];
	SSL *ssl;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	if (id) {
		CHECK_EQ(SSL_CTX_use_certificate(context, id->certificate), 1);
		CHECK_EQ(SSL_CTX_use_PrivateKey(context, id->pkey), 1);
	}
	CHECK_EQ(transport_init_tls(&t, fds[0], s), 0);
	ssl = openssl_client(fds[1], context);
	r = drive(&t, ssl);
	strcpy(name, "-");
	if (r == 1)
		(void)!transport_client_name(&t, name);
	SSL_free(ssl);
	SSL_CTX_free(context);
	transport_close(&t, true);
	close(fds[1]);
	return r;
}

TEST(tls_clients_show_who_they_are)
{
	struct identity *id = identity_new("server", "DNS:localhost", NULL, 10);
	struct identity *ca = identity_new("authority", NULL, NULL, 10);
	struct identity *alice = identity_new("alice", NULL, ca, 10);
	struct identity *nobody = identity_new(NULL, NULL, ca, 10);
	struct identity *late = identity_new("late", NULL, ca, -1);
	struct identity *stranger = identity_new("stranger", NULL, NULL, 10);
	struct tls_server *s = server_of(&id, 1, ca->certificate_file, NULL);
	char name[TLS_NAME_MAX];

	CHECK_EQ(with_certificate(s, alice, name), 1);
	CHECK_STR(name, "alice");
	CHECK_EQ(with_certificate(s, nobody, name), 1);
	CHECK_STR(name, "-");
	CHECK_EQ(with_certificate(s, NULL, name), -EPROTO);
	CHECK(strstr(tls_failure(), "peer did not return a certificate"));
	CHECK_EQ(with_certificate(s, stranger, name), -EPROTO);
	CHECK_EQ(with_certificate(s, late, name), -EPROTO);
	CHECK(strstr(tls_failure(), "certificate has expired"));
	tls_server_unref(s);
	identity_free(late);
	identity_free(nobody);
	identity_free(alice);
	identity_free(stranger);
	identity_free(ca);
	identity_free(id);
}

/* ------------------------------------------------------------------------- tickets */

/* One connection that tries a session and hands out the newest. Return: whether it was resumed. */
static bool visit(struct tls_server *s, SSL_CTX *context, SSL_SESSION **session)
{
	static char y[] = "y";
	struct iovec iov = {y, 1};
	struct transport t;
	bool was_resumed;
	int fds[2];
	char byte;
	SSL *ssl;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	CHECK_EQ(transport_init_tls(&t, fds[0], s), 0);
	ssl = openssl_client(fds[1], context);
	if (*session)
		CHECK_EQ(SSL_set_session(ssl, *session), 1);
	CHECK_EQ(drive(&t, ssl), 1);
	CHECK_EQ(transport_send(&t, &iov, 1), 1);
	CHECK_EQ(SSL_read(ssl, &byte, 1), 1); /* and the tickets before it */
	was_resumed = SSL_session_reused(ssl);
	SSL_SESSION_free(*session);
	*session = SSL_get1_session(ssl);
	SSL_shutdown(ssl);
	SSL_free(ssl);
	transport_close(&t, true);
	close(fds[1]);
	return was_resumed;
}

TEST(tls_tickets_outlive_a_reload_and_the_change_of_keys)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct identity *id = identity_new("localhost", "DNS:localhost", NULL, 10);

	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		struct tls_server *s = server_of(&id, 1, NULL, NULL), *next, *stranger;
		SSL_CTX *context = SSL_CTX_new(TLS_client_method());
		SSL_SESSION *session = NULL;
		uint64_t now = 1000 * NS_PER_S;

		SSL_CTX_set_min_proto_version(context, versions[i]);
		SSL_CTX_set_max_proto_version(context, versions[i]);
		clock_set_for_test(now);
		CHECK(!visit(s, context, &session));
		CHECK(visit(s, context, &session));
		next = server_of(&id, 1, NULL, s);
		tls_server_unref(s);
		CHECK(visit(next, context, &session));
		clock_set_for_test(now += 13 * 3600 * NS_PER_S);
		CHECK(visit(next, context, &session)); /* the old key still opens it */
		clock_set_for_test(now += 13 * 3600 * NS_PER_S);
		CHECK(visit(next, context, &session)); /* it got a new one then */
		clock_set_for_test(now += 30 * 3600 * NS_PER_S);
		CHECK(!visit(next, context, &session)); /* both are too old */
		stranger = server_of(&id, 1, NULL, NULL);
		CHECK(!visit(stranger, context, &session));
		clock_set_for_test(0);
		SSL_SESSION_free(session);
		SSL_CTX_free(context);
		tls_server_unref(next);
		tls_server_unref(stranger);
	}
	identity_free(id);
}

TEST(tls_old_protocols_are_refused)
{
	struct identity *id = identity_new("localhost", "DNS:localhost", NULL, 10);
	struct tls_server *s = server_of(&id, 1, NULL, NULL);
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	struct transport t;
	int fds[2];
	SSL *ssl;

	SSL_CTX_set_security_level(context, 0);
	SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	CHECK_EQ(transport_init_tls(&t, fds[0], s), 0);
	ssl = openssl_client(fds[1], context);
	CHECK_EQ(drive(&t, ssl), -EPROTO);
	CHECK_STR(tls_failure(), "unsupported protocol");
	SSL_free(ssl);
	SSL_CTX_free(context);
	transport_close(&t, true);
	close(fds[1]);
	tls_server_unref(s);
	identity_free(id);
}
