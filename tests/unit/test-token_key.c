/* SPDX-License-Identifier: MIT */
/* What is a key, and what is a key in a form that must not be taken for a secret. */
#include "wire/token_key.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "test.h"

static enum token_key_result load(const void *content, size_t n)
{
	struct token_key k = {0};
	uint8_t *copy = malloc(n ? n : 1); /* without anything behind it */
	enum token_key_result r;
	size_t n_keys;

	CHECK(copy);
	memcpy(copy, content, n);
	r = token_key_load(&k, 1, copy, n, &n_keys);
	CHECK_EQ(r == TOKEN_KEY_OK, k.secret != NULL);
	token_key_fini(&k);
	free(copy);
	return r;
}

static void check_form(const void *content, size_t n, const char *form)
{
	char words[100];

	snprintf(words, sizeof(words),
		 "a key in another form (%s): PEM is expected, or a raw secret", form);
	CHECK_STR(token_key_result_text(load(content, n)), words);
}

/* What OpenSSL wrote to *@p, which is freed: as it is, with a newline behind it, in base64. */
static void check_der(uint8_t **p, int n)
{
	uint8_t *der = *p;
	uint8_t *text = malloc((size_t)n * 2 + 10), *lines = malloc((size_t)n * 2 + 100);
	EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
	int len, rest;

	CHECK(n > 0 && text && lines);
	check_form(der, (size_t)n, "DER");
	memcpy(text, der, (size_t)n);
	text[n] = '\n';
	check_form(text, (size_t)n + 1, "DER");
	len = EVP_EncodeBlock(text, der, n);
	check_form(text, (size_t)len, "DER in base64");
	EVP_EncodeInit(ctx);
	CHECK_EQ(EVP_EncodeUpdate(ctx, lines, &len, der, n), 1);
	EVP_EncodeFinal(ctx, lines + len, &rest);
	check_form(lines, (size_t)len + (size_t)rest, "DER in base64");
	EVP_ENCODE_CTX_free(ctx);
	free(text);
	free(lines);
	OPENSSL_free(der);
	*p = NULL;
}

static X509 *certificate_of(EVP_PKEY *pkey)
{
	X509 *x = X509_new();

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, pkey);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
				   (const uint8_t *)"issuer", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	CHECK(X509_sign(x, pkey, EVP_PKEY_is_a(pkey, "ED25519") ? NULL : EVP_sha256()) > 0);
	return x;
}

TEST(token_key_in_der_are_no_secrets)
{
	EVP_PKEY *pkeys[] = {EVP_RSA_gen(2048), EVP_EC_gen("P-256"), EVP_EC_gen("P-521"),
			     EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};

	for (size_t i = 0; i < ARRAY_LEN(pkeys); i++) {
		PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(pkeys[i]);
		X509_SIG *locked =
			PKCS8_encrypt(-1, EVP_aes_256_cbc(), "pass", 4, NULL, 0, 0, info);
		X509 *certificate = certificate_of(pkeys[i]);
		uint8_t *der = NULL;

		check_der(&der, i2d_PUBKEY(pkeys[i], &der));
		check_der(&der, i2d_X509(certificate, &der));
		check_der(&der, i2d_PKCS8_PRIV_KEY_INFO(info, &der));
		check_der(&der, i2d_X509_SIG(locked, &der));
		check_der(&der, i2d_PrivateKey(pkeys[i], &der)); /* of its own type */
		if (i == 0)
			check_der(&der, i2d_PublicKey(pkeys[i], &der)); /* PKCS #1 */
		X509_SIG_free(locked);
		PKCS8_PRIV_KEY_INFO_free(info);
		X509_free(certificate);
		EVP_PKEY_free(pkeys[i]);
	}
}

TEST(token_key_in_json_and_of_ssh_are_no_secrets)
{
	static const char *const json[] = {
		"{\"kty\":\"RSA\",\"n\":\"public-public-public\",\"e\":\"AQAB\"}",
		"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}\n",
		" \r\n\t{ \"kty\" : \"OKP\", \"crv\" : \"Ed25519\", \"x\" : \"AAAA\" }\n\n",
		"[{\"kty\":\"oct\",\"k\":\"0123456789abcdef0123456789abcdef\"}]",
		"\xef\xbb\xbf{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AA\",\"e\":\"AQAB\"}]}",
		"{\"kty\":\"RSA\",\"n\":\"AA\",\"e\":\"AQAB\"}\n{\"kty\":\"RSA\",\"n\":\"BB\"}\n",
	};
	static const char *const ssh[] = {
		"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 alice@example.org\n",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0k\n",
		"\nssh-dss AAAAB3NzaC1kc3MAAACBAKF\n",
		"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI alice\n",
		"sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9w\n",
		"---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2E\n---- END SSH2 PUBLIC KEY ----\n",
	};

	for (size_t i = 0; i < ARRAY_LEN(json); i++)
		check_form(json[i], strlen(json[i]), "JSON");
	for (size_t i = 0; i < ARRAY_LEN(ssh); i++)
		check_form(ssh[i], strlen(ssh[i]), "that of SSH");
}

static void check_secret(const void *content, size_t n)
{
	CHECK_STR(token_key_result_text(load(content, n)), token_key_result_text(TOKEN_KEY_OK));
}

TEST(token_key_secrets_that_only_look_like_keys_are_secrets)
{
	static const char *const text[] = {
		"{0123456789abcdef0123456789abcdef}",
		"{}0123456789abcdef0123456789abcdef",
		"[]0123456789abcdef0123456789abcdef",
		"[1,2]3456789abcdef0123456789abcdef",
		"\"0123456789abcdef0123456789abcdef\"",
		"ssh-0123456789abcdef0123456789abcdef",
		"ecdsa-and-ssh-have-nothing-to-do-with-it",
		"secret AAAA0123456789abcdef0123456789",
		"----BEGIN 0123456789abcdef0123456789",
		"MIIB0123456789abcdef0123456789abcdef",
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
		"dGhpcyBpcyBhIHNlY3JldCBpbiBiYXNlNjQgYXMgb3BlbnNzbCByYW5kIG1ha2VzIGl0",
		"000000000000000000000000000000000000000000000000000000000000",
		"                                                                ",
		"\x30\x22\x04\x10 2 octet strings\x04\x0e" /* fills its SEQUENCE, but is no key */
		"0123456789abcd",
		"\x30\x27\x30\x25 one alone is no key either, so there",
	};
	static const uint8_t zeros[64];
	uint64_t seed = 1; /* the same ones each time: one of millions may well be DER */

	for (size_t i = 0; i < ARRAY_LEN(text); i++)
		check_secret(text[i], strlen(text[i]));
	check_secret(zeros, sizeof(zeros));
	for (int round = 0; round < 3000; round++) {
		uint8_t random[100];

		for (size_t i = 0; i < sizeof(random); i++)
			random[i] = (uint8_t)(test_random(&seed) >> 32);
		random[0] = round % 2 ? 0x30 : random[0];
		check_secret(random,
			     TOKEN_KEY_SECRET_MIN + 1 + (size_t)round % 68); /* perhaps \n */
	}
}

TEST(token_key_results_have_a_text_each)
{
	for (int i = 0; i < TOKEN_KEY_N_RESULTS; i++)
		for (int k = 0; k < i; k++)
			CHECK(strcmp(token_key_result_text((enum token_key_result)i),
				     token_key_result_text((enum token_key_result)k)) != 0);
}

static enum token_key_result load_pem(void (*write)(BIO *, void *), void *what, struct token_key *k)
{
	BIO *bio = BIO_new(BIO_s_mem());
	enum token_key_result r;
	uint8_t *text;
	size_t n_keys;
	long n;

	write(bio, what);
	n = BIO_get_mem_data(bio, &text);
	*k = (struct token_key){0};
	r = token_key_load(k, 1, text, (size_t)n, &n_keys);
	BIO_free(bio);
	return r;
}

static void write_certificate(BIO *bio, void *x)
{
	CHECK_EQ(PEM_write_bio_X509(bio, x), 1);
}

static char pass[] = "pass";

static void write_locked(BIO *bio, void *pkey)
{
	CHECK_EQ(PEM_write_bio_PrivateKey(bio, pkey, EVP_aes_128_cbc(), NULL, 0, NULL, pass), 1);
}

static void write_locked_traditional(BIO *bio, void *pkey)
{
	CHECK_EQ(PEM_write_bio_PrivateKey_traditional(bio, pkey, EVP_aes_128_cbc(), NULL, 0, NULL,
						      pass),
		 1);
}

static void write_private(BIO *bio, void *pkey)
{
	CHECK_EQ(BIO_puts(bio, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
			       "-----END EC PARAMETERS-----\n") > 0,
		 1);
	CHECK_EQ(PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
}

static void write_request(BIO *bio, void *pkey)
{
	X509_REQ *q = X509_REQ_new();

	X509_REQ_set_pubkey(q, pkey);
	CHECK(X509_REQ_sign(q, pkey, EVP_sha256()) > 0);
	CHECK_EQ(PEM_write_bio_X509_REQ(bio, q), 1);
	X509_REQ_free(q);
}

TEST(token_key_is_read_of_every_pem_that_has_one)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x = certificate_of(pkey);
	struct token_key certificate, private, none;

	CHECK_EQ(load_pem(write_certificate, x, &certificate), TOKEN_KEY_OK);
	CHECK_EQ(load_pem(write_private, pkey, &private), TOKEN_KEY_OK);
	CHECK(!certificate.is_secret && private.is_secret);
	CHECK(certificate.id != 0);
	CHECK_EQ(certificate.id, private.id);
	CHECK(certificate.not_after_s > 1700000000 && certificate.not_after_s < UINT64_MAX);
	CHECK_EQ(private.not_after_s, UINT64_MAX);
	CHECK_EQ(load_pem(write_locked, pkey, &none), TOKEN_KEY_E_LOCKED);
	token_key_fini(&none);
	CHECK_EQ(load_pem(write_locked_traditional, pkey, &none), TOKEN_KEY_E_LOCKED);
	token_key_fini(&none);
	CHECK_EQ(load_pem(write_request, pkey, &none), TOKEN_KEY_E_REQUEST);
	token_key_fini(&none);
	token_key_fini(&certificate);
	token_key_fini(&private);
	X509_free(x);
	EVP_PKEY_free(pkey);
}

TEST(token_key_secrets_lose_what_an_editor_adds)
{
	static const char plain[] = "0123456789abcdef0123456789abcdef";
	static const struct {
		const char *content;
		bool same, has_blank_end;
	} row[] = {
		{"0123456789abcdef0123456789abcdef\n", true, false},
		{"0123456789abcdef0123456789abcdef\r\n", true, false},
		{"\xef\xbb\xbf"
		 "0123456789abcdef0123456789abcdef\r\n",
		 true, false},
		{"0123456789abcdef0123456789abcdef\n\n", false, true},
		{"0123456789abcdef0123456789abcdef ", false, true},
		{" 0123456789abcdef0123456789abcdef", false, true},
		{"0123456789abcdef0123456789abcdef\t\n", false, true},
		{"\x01"
		 "123456789abcdef0123456789abcdef ",
		 false, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		struct token_key k = {0};
		size_t n_keys;

		CHECK_EQ(token_key_load(&k, 1, (const uint8_t *)row[i].content,
					strlen(row[i].content), &n_keys),
			 TOKEN_KEY_OK);
		CHECK_EQ(k.has_blank_end, row[i].has_blank_end);
		CHECK_EQ(k.secret_n == strlen(plain) && memcmp(k.secret, plain, k.secret_n) == 0,
			 row[i].same);
		token_key_fini(&k);
	}
	CHECK_EQ(load("\xff\xfes\0e\0c\0r\0e\0t\0.\0.\0.\0.\0.\0.\0.\0.\0.\0.\0", 34),
		 TOKEN_KEY_E_UTF16);
}
