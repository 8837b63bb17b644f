/* SPDX-License-Identifier: MIT */
/* Both ends of TLS connections over socket pairs: every byte arrives, whatever the kernel takes. */
#include "io/tls.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
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
	struct file_set files = {0};
	struct tls_server *s = NULL;
	struct tls_fault fault;

	for (size_t i = 0; i < n; i++)
		o.pair[o.n_pairs++] = (struct tls_pair){ids[i]->certificate_file, ids[i]->key_file};
	if (tls_server_new(&o, &files, before, &s, &fault))
		fail_msg("%s", fault.why);
	file_set_fini(&files);
	return s;
}

static struct tls_client *client_of(const char *ca, bool accepts_any_certificate)
{
	struct tls_client *c = NULL;
	char why[TLS_WHY_MAX];

	if (tls_client_new(ca, accepts_any_certificate, &c, why))
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
	struct tls_client *unchecking = client_of(NULL, true);
	struct pair p;

	check_refused(s, of_system, "localhost", "self-signed certificate");
	check_refused(s, trusting, "elsewhere", "hostname mismatch");
	check_refused(s_expired, trusts_expired, "localhost", "certificate has expired");
	p = pair_new(s_expired, unchecking, "elsewhere", 0);
	CHECK_EQ(shake_hands(&p), 0);
	pair_close(&p);
	tls_client_free(trusting);
	tls_client_free(of_system);
	tls_client_free(trusts_expired);
	tls_client_free(unchecking);
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
	CHECK_STR(tls_failure(), "plain HTTP, on a port with TLS: wss:// in the place of ws://");
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
			    enum tls_file blamed, const char *words)
{
	const struct tls_server_options o = {
		.pair = {{certificate, key}}, .n_pairs = 1, .client_ca = ca};
	struct file_set files = {0};
	struct tls_server *s = NULL;
	struct tls_fault fault;

	CHECK_EQ(tls_server_new(&o, &files, NULL, &s, &fault), -EINVAL);
	file_set_fini(&files);
	CHECK_EQ(fault.file, blamed);
	if (!strstr(fault.why, words))
		fail_msg("%s has no %s", fault.why, words);
}

TEST(tls_server_names_the_file_that_is_wrong)
{
	struct identity *a = identity_new("a", NULL, NULL, 10),
			*b = identity_new("b", NULL, NULL, 10);

	check_no_server("/no/such", a->key_file, NULL, TLS_FILE_CERTIFICATE,
			"/no/such: No such file or directory");
	check_no_server(a->certificate_file, "/no/such", NULL, TLS_FILE_KEY,
			"/no/such: No such file");
	check_no_server("/dev/null", a->key_file, NULL, TLS_FILE_CERTIFICATE, "/dev/null: ");
	check_no_server(a->certificate_file, b->key_file, NULL, TLS_FILE_KEY,
			"this key does not belong to the certificate");
	check_no_server(a->certificate_file, a->certificate_file, NULL, TLS_FILE_KEY,
			"has a certificate and no private key; exchanged?");
	check_no_server(a->key_file, a->key_file, NULL, TLS_FILE_CERTIFICATE,
			"has a private key and no certificate; exchanged?");
	check_no_server(a->certificate_file, a->key_file, "/no/such", TLS_FILE_CLIENT_CA,
			"/no/such: No such file");
	identity_free(a);
	identity_free(b);
}

/* One file of the set is something else than PEM of what is wanted there. */
static void check_words(const struct identity *id, const void *p, size_t n, bool is_key,
			const char *words)
{
	const struct tls_server_options o = {
		.pair = {{is_key ? id->certificate_file : "/x", is_key ? "/x" : id->key_file}},
		.n_pairs = 1};
	struct file_set files = {0};
	struct tls_server *s = NULL;
	struct tls_fault fault;

	CHECK_EQ(file_set_add(&files, "/x", p, n), 0);
	CHECK_EQ(tls_server_new(&o, &files, NULL, &s, &fault), -EINVAL);
	if (!strstr(fault.why, words))
		fail_msg("%s has no %s", fault.why, words);
	file_set_fini(&files);
}

static void check_pem(const struct identity *id, BIO *bio, bool is_key, const char *words)
{
	uint8_t *text;
	long n = BIO_get_mem_data(bio, &text);

	check_words(id, text, (size_t)n, is_key, words);
	CHECK_EQ(BIO_reset(bio), 1);
}

TEST(tls_server_says_what_a_file_has_instead)
{
	static char pass[] = "pass";
	struct identity *a = identity_new("a", NULL, NULL, 10);
	X509_REQ *request = X509_to_X509_REQ(a->certificate, a->pkey, EVP_sha256());
	BIO *bio = BIO_new(BIO_s_mem());

	CHECK_EQ(PEM_write_bio_PrivateKey(bio, a->pkey, EVP_aes_128_cbc(), NULL, 0, NULL, pass), 1);
	check_pem(a, bio, true, "needs a passphrase");
	CHECK_EQ(PEM_write_bio_PrivateKey_traditional(bio, a->pkey, EVP_aes_128_cbc(), NULL, 0,
						      NULL, pass),
		 1);
	check_pem(a, bio, true, "needs a passphrase");
	CHECK_EQ(PEM_write_bio_X509_REQ(bio, request), 1);
	check_pem(a, bio, false, "a certificate signing request");
	CHECK_EQ(i2d_X509_bio(bio, a->certificate), 1);
	check_pem(a, bio, false, "is in DER or PKCS #12");
	CHECK_EQ(i2d_PrivateKey_bio(bio, a->pkey), 1);
	check_pem(a, bio, true, "not in PEM");
	CHECK_EQ(PEM_write_bio_PUBKEY(bio, a->pkey), 1);
	check_pem(a, bio, true, "has no private key");
	check_words(a, "", 0, false, "is empty");
	check_words(a, "hello", 5, false, "is not in PEM");
	check_words(a, "-----BEGIN CERTIFICATE-----\nAAAA\n", 33, false,
		    "has a certificate that cannot be read");
	check_words(a, "-----BEGIN PRIVATE KEY-----\nAAAA\n", 33, true,
		    "has a private key that cannot be read");
	BIO_free(bio);
	X509_REQ_free(request);
	identity_free(a);
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

/* ------------------------------------------------------- what a peer may make of records */

#define RENEGOTIABLE "ECDHE-ECDSA-AES128-GCM-SHA256" /* what ask_to_renegotiate() speaks */

/* A server's end, and a client whose records wait in memory until the test delivers them. */
struct guest {
	struct identity *id;
	struct tls_server *server;
	struct transport t;
	int fd; /* the client's */
	SSL_CTX *context;
	SSL *ssl;
	BIO *records;
};

/* Both are past the handshake, and the client has said nothing yet. */
static struct guest guest_new(int version, uint8_t fragment, int room)
{
	struct guest g = {.id = identity_new("localhost", "DNS:localhost", NULL, 10)};
	uint8_t byte;
	int fds[2];

	g.server = server_of(&g.id, 1, NULL, NULL);
	g.context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(g.context, version);
	SSL_CTX_set_max_proto_version(g.context, version);
	CHECK_EQ(SSL_CTX_set_cipher_list(g.context, RENEGOTIABLE), 1);
	CHECK_EQ(SSL_CTX_set_tlsext_max_fragment_length(g.context, fragment), 1);
	SSL_CTX_set_options(g.context, SSL_OP_IGNORE_UNEXPECTED_EOF);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	if (room)
		CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	CHECK_EQ(transport_init_tls(&g.t, fds[0], g.server), 0);
	g.fd = fds[1];
	g.ssl = openssl_client(g.fd, g.context);
	for (int i = 0; i < TURNS; i++) {
		(void)SSL_do_handshake(g.ssl);
		CHECK_EQ(transport_recv(&g.t, &byte, 1), -EAGAIN);
		if (SSL_is_init_finished(g.ssl) && transport_is_secured(&g.t))
			break;
	}
	CHECK(SSL_is_init_finished(g.ssl));
	g.records = BIO_new(BIO_s_mem());
	SSL_set0_wbio(g.ssl, g.records);
	return g;
}

static void guest_free(struct guest *g)
{
	SSL_free(g->ssl);
	SSL_CTX_free(g->context);
	close(g->fd);
	transport_close(&g->t, true);
	tls_server_unref(g->server);
	identity_free(g->id);
	ERR_clear_error();
}

/* All that waits goes into the server's socket, at once. */
static void deliver(struct guest *g)
{
	char *p;
	long n = BIO_get_mem_data(g->records, &p);

	CHECK_EQ(send(g->fd, p, (size_t)n, 0), n);
	(void)BIO_reset(g->records);
}

static void say(struct guest *g, const char *text)
{
	CHECK_EQ(SSL_write(g->ssl, text, (int)strlen(text)), strlen(text));
}

static void update_keys(struct guest *g, int times)
{
	for (int i = 0; i < times; i++) {
		CHECK_EQ(SSL_key_update(g->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		CHECK_EQ(SSL_do_handshake(g->ssl), 1);
	}
}

static void spoil(struct guest *g)
{
	CHECK_EQ(BIO_write(g->records, "\x17\x03\x03\0\x20zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", 37),
		 37);
}

/* What the client of a TLS 1.2 connection encrypts with: key and salt (RFC 5246 section 6.3). */
static void client_keys(const struct guest *g, uint8_t key[16], uint8_t salt[4])
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
	uint8_t master[48], seed[13 + 64] = "key expansion", block[2 * (16 + 4)];
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, sizeof(master)),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed)),
		OSSL_PARAM_construct_end(),
	};

	CHECK_EQ(SSL_SESSION_get_master_key(SSL_get_session(g->ssl), master, sizeof(master)), 48);
	CHECK_EQ(SSL_get_server_random(g->ssl, seed + 13, 32), 32);
	CHECK_EQ(SSL_get_client_random(g->ssl, seed + 45, 32), 32);
	CHECK_EQ(EVP_KDF_derive(ctx, block, sizeof(block), params), 1);
	memcpy(key, block, 16);
	memcpy(salt, block + 32, 4);
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
}

/*
 * The beginning of a ClientHello as record number @seq. OpenSSL's client asks once and waits for
 * an answer, so these are put together here (RFC 5246 section 6.2.3.3, RFC 5288).
 */
static void ask_to_renegotiate(struct guest *g, const uint8_t key[16], const uint8_t salt[4],
			       uint8_t seq)
{
	static const uint8_t hello[4] = {1};
	uint8_t record[5 + 8 + 4 + 16] = {22, 3, 3, 0, 8 + 4 + 16, [12] = seq};
	uint8_t about[13] = {[7] = seq, 22, 3, 3, 0, 4}, nonce[12] = {[11] = seq};
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	memcpy(nonce, salt, 4);
	CHECK_EQ(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, key, nonce), 1);
	CHECK_EQ(EVP_EncryptUpdate(ctx, NULL, &n, about, sizeof(about)), 1);
	CHECK_EQ(EVP_EncryptUpdate(ctx, record + 13, &n, hello, sizeof(hello)), 1);
	CHECK_EQ(EVP_EncryptFinal_ex(ctx, record + 17, &n), 1);
	CHECK_EQ(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, record + 17), 1);
	CHECK_EQ(BIO_write(g->records, record, sizeof(record)), sizeof(record));
	EVP_CIPHER_CTX_free(ctx);
}

/* Nothing can be read; the reason is given once. */
static void check_broken(struct guest *g, const char *words)
{
	uint8_t byte;

	CHECK_EQ(transport_recv(&g->t, &byte, 1), -EPROTO);
	CHECK_STR(tls_failure(), words);
	CHECK(!transport_has_more(&g->t));
	CHECK_EQ(transport_recv(&g->t, &byte, 1), 0);
}

TEST(tls_a_client_that_wants_small_records_and_reads_late_gets_every_byte)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	static uint8_t sent[100000], got[200000];
	uint64_t seed = test_seed();

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)test_random(&seed);
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		struct guest g = guest_new(versions[i], TLSEXT_max_fragment_length_512, 4608);
		struct iovec iov = {sent, sizeof(sent)};
		ssize_t accepted = transport_send(&g.t, &iov, 1);
		size_t have = 0;

		CHECK(accepted > 0 && accepted < (ssize_t)sizeof(sent));
		CHECK_EQ(transport_flush(&g.t), -EAGAIN);
		transport_shutdown(&g.t);
		for (int turn = 0; turn < TURNS; turn++) {
			int n = SSL_read(g.ssl, got + have, (int)(sizeof(got) - have));
			int r = transport_flush(&g.t);

			CHECK(r == 0 || r == -EAGAIN);
			if (SSL_get_shutdown(g.ssl) & SSL_RECEIVED_SHUTDOWN)
				break;
			have += n > 0 ? (size_t)n : 0;
		}
		CHECK(SSL_get_shutdown(g.ssl) & SSL_RECEIVED_SHUTDOWN);
		CHECK_EQ(have, accepted);
		CHECK_MEM(got, sent, have);
		guest_free(&g);
	}
}

TEST(tls_many_records_without_data_end_the_connection)
{
	struct guest g = guest_new(TLS1_3_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	uint8_t key[16], salt[4];

	update_keys(&g, 100);
	deliver(&g);
	check_broken(&g, "too many records without data");
	guest_free(&g);

	g = guest_new(TLS1_2_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	client_keys(&g, key, salt);
	for (uint8_t seq = 1; seq <= 100; seq++) /* 0 was Finished */
		ask_to_renegotiate(&g, key, salt, seq);
	deliver(&g);
	check_broken(&g, "too many records without data");
	guest_free(&g);
}

/* As many in all, but with data in between: nothing is held against it. */
TEST(tls_records_without_data_between_data_are_fine)
{
	struct guest g = guest_new(TLS1_3_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	uint8_t key[16], salt[4], got[100];

	for (int i = 0; i < 10; i++) {
		update_keys(&g, 50);
		say(&g, "data");
	}
	deliver(&g);
	/* But they count, and a call that met some goes no further than to the next data. */
	for (int call = 0; call < 10; call++) {
		CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), 4);
		CHECK(transport_has_more(&g.t));
		CHECK_EQ(transport_take_barren(&g.t), 50);
		CHECK_EQ(transport_take_barren(&g.t), 0);
	}
	CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), -EAGAIN);
	CHECK(!transport_has_more(&g.t));
	guest_free(&g);

	/* That the flood of these is refused for their number and not for what they are. */
	g = guest_new(TLS1_2_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	client_keys(&g, key, salt);
	for (uint8_t seq = 1; seq <= 50; seq++)
		ask_to_renegotiate(&g, key, salt, seq);
	deliver(&g);
	CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), -EAGAIN);
	guest_free(&g);
}

/* OpenSSL from 3.2 on drops these if it tries kernel TLS for the new keys in vain. */
TEST(tls_records_read_together_with_a_change_of_keys_arrive)
{
	struct guest g = guest_new(TLS1_3_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	uint8_t got[100];

	say(&g, "before");
	update_keys(&g, 1);
	for (int i = 0; i < 10; i++)
		say(&g, "behind");
	deliver(&g);
	CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), 66);
	CHECK_MEM(got + 60, "behind", 6);
	CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), -EAGAIN);
	guest_free(&g);
}

/* A client's first data may come in one packet with the end of its handshake. */
TEST(tls_records_read_together_with_the_end_of_the_handshake_arrive)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		struct stage s = stage_new(0);
		struct guest g = {.fd = s.pair.end[1].fd, .records = BIO_new(BIO_s_mem())};
		uint8_t got[16];

		g.context = SSL_CTX_new(TLS_client_method());
		CHECK_EQ(SSL_CTX_set_max_proto_version(g.context, versions[i]), 1);
		g.ssl = openssl_client(g.fd, g.context);
		SSL_set0_wbio(g.ssl, g.records);
		for (int turn = 0; SSL_do_handshake(g.ssl) != 1; turn++) {
			CHECK(turn < TURNS);
			if (BIO_pending(g.records) > 0)
				deliver(&g);
			CHECK_EQ(transport_recv(&s.pair.end[0], got, sizeof(got)), -EAGAIN);
		}
		say(&g, "hello");
		deliver(&g);
		CHECK_EQ(transport_recv(&s.pair.end[0], got, sizeof(got)), 5);
		CHECK_MEM(got, "hello", 5);
		SSL_free(g.ssl);
		SSL_CTX_free(g.context);
		stage_free(&s);
	}
}

TEST(tls_tiny_records_are_read_a_share_at_a_time)
{
	static const struct {
		ssize_t n;
		bool has_more;
	} share[] = {{256, true}, {256, true}, {256, true}, {232, false}, {-EAGAIN, false}};
	struct guest g = guest_new(TLS1_3_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
	uint8_t got[2000];
	size_t have = 0;

	for (int i = 0; i < 1000; i++)
		say(&g, (char[2]){(char)('a' + i % 26), '\0'});
	deliver(&g);
	for (size_t i = 0; i < ARRAY_LEN(share); i++) {
		CHECK_EQ(transport_recv(&g.t, got + have, sizeof(got) - have), share[i].n);
		CHECK_EQ(transport_has_more(&g.t), share[i].has_more);
		have += share[i].n > 0 ? (size_t)share[i].n : 0;
	}
	CHECK_EQ(have, 1000);
	for (size_t i = 0; i < have; i++)
		CHECK_EQ(got[i], 'a' + i % 26);
	guest_free(&g);
}

/* In one read with data: that comes first, then the end and its reason. */
TEST(tls_an_end_behind_data_is_told_after_it)
{
	static const char *const words[] = {NULL, "decryption failed or bad record mac",
					    "too many records without data"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct guest g = guest_new(TLS1_3_VERSION, TLSEXT_max_fragment_length_DISABLED, 0);
		uint8_t got[16];

		say(&g, "hello");
		if (i == 0)
			CHECK_EQ(SSL_shutdown(g.ssl), 0);
		else if (i == 1)
			spoil(&g);
		else
			update_keys(&g, 100);
		deliver(&g);
		CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), 5);
		CHECK_MEM(got, "hello", 5);
		CHECK(transport_has_more(&g.t));
		if (words[i])
			check_broken(&g, words[i]);
		else
			CHECK_EQ(transport_recv(&g.t, got, sizeof(got)), 0);
		guest_free(&g);
	}
}
