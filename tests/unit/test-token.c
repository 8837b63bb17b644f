/* SPDX-License-Identifier: MIT */
/* Tokens: what is granted by good ones, and every way in which bad ones are tried. */
#include "wire/token.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test.h"

#define NOW 1700000000ULL
#define SECRET "0123456789abcdef0123456789abcdef"

/* A file in memory, with a path that others can open. */
struct file {
	int fd;
	char path[64];
};

static struct file file_of(const void *content, size_t n)
{
	struct file f = {.fd = memfd_create("key", MFD_CLOEXEC)};

	CHECK(f.fd >= 0);
	CHECK_EQ(write(f.fd, content, n), n);
	snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
	return f;
}

static struct file file_of_key(EVP_PKEY *pkey, bool is_private)
{
	BIO *bio = BIO_new(BIO_s_mem());
	struct file f;
	char *text;
	long n;

	CHECK_EQ(is_private ? PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL)
			    : PEM_write_bio_PUBKEY(bio, pkey),
		 1);
	n = BIO_get_mem_data(bio, &text);
	f = file_of(text, (size_t)n);
	BIO_free(bio);
	return f;
}

static struct token_keys *keys_of(const char *files)
{
	char why[TOKEN_WHY_MAX];
	struct token_keys *keys = NULL;

	if (token_keys_new(files, &keys, why))
		fail_msg("%s", why);
	return keys;
}

static struct token_keys *keys_of_secret(void)
{
	struct file f = file_of(SECRET "\n", strlen(SECRET) + 1);
	struct token_keys *keys = keys_of(f.path);

	close(f.fd);
	return keys;
}

static char *base64url(const void *p, size_t n)
{
	char *out = malloc(n * 4 / 3 + 5);
	int len;

	CHECK(out != NULL);
	len = EVP_EncodeBlock((uint8_t *)out, p, (int)n);
	while (len > 0 && out[len - 1] == '=')
		out[--len] = '\0';
	for (char *c = out; *c; c++)
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
	return out;
}

/* A token as anybody could write one, with an HMAC under any key. */
static char *forge(const char *header, const char *claims, const void *secret, size_t secret_n)
{
	char *h = base64url(header, strlen(header)), *c = base64url(claims, strlen(claims)), *s;
	uint8_t mac[32];
	unsigned mac_n = sizeof(mac);
	char *token = NULL, *body = NULL;

	CHECK(asprintf(&body, "%s.%s", h, c) > 0);
	CHECK(HMAC(EVP_sha256(), secret, (int)secret_n, (const uint8_t *)body, strlen(body), mac,
		   &mac_n) != NULL);
	s = base64url(mac, mac_n);
	CHECK(asprintf(&token, "%s.%s", body, s) > 0);
	free(h);
	free(c);
	free(s);
	free(body);
	return token;
}

static char *sign(const char *claims)
{
	return forge("{\"alg\":\"HS256\",\"typ\":\"JWT\"}", claims, SECRET, strlen(SECRET));
}

static enum token_result verify(const struct token_keys *keys, const char *token,
				struct grant **ret)
{
	size_t n = strlen(token);
	char *copy = malloc(n ? n : 1); /* without a NUL behind it */
	enum token_result r;

	CHECK(copy != NULL);
	memcpy(copy, token, n);
	r = token_verify(keys, copy, n, NOW, ret);
	free(copy);
	return r;
}

/* The verdict about a token that is freed. */
static enum token_result judge(const struct token_keys *keys, char *token)
{
	struct grant *g = NULL;
	enum token_result r = verify(keys, token, &g);

	CHECK_EQ(r == TOKEN_OK, g != NULL);
	free(g);
	free(token);
	return r;
}

static struct grant *granted(const char *claims)
{
	struct token_keys *keys = keys_of_secret();
	char *token = sign(claims);
	struct grant *g = NULL;

	CHECK_EQ(verify(keys, token, &g), TOKEN_OK);
	free(token);
	token_keys_free(keys);
	return g;
}

TEST(token_grants_what_its_claims_say)
{
	struct grant *g = granted("{\"sub\":\"alice\",\"exp\":1700000100,\"nbf\":1699999999,"
				  "\"channels\":[\"room/*\",\"news\"],\"publish\":false}");

	CHECK_STR(g->user_id, "alice");
	CHECK_EQ(g->expires_s, 1700000100 + TOKEN_LEEWAY_S);
	CHECK(!g->may_publish && !g->any_channel);
	CHECK_EQ(g->n_patterns, 2);
	CHECK(grant_allows(g, "room/7") && grant_allows(g, "news"));
	CHECK(!grant_allows(g, "room") && !grant_allows(g, "room/7/8") && !grant_allows(g, ""));
	free(g);
	g = granted("{\"sub\":\"bob\"}");
	CHECK_EQ(g->expires_s, UINT64_MAX);
	CHECK(g->may_publish && g->any_channel);
	CHECK(grant_allows(g, "anything/at/all") && grant_allows(g, ""));
	free(g);
	g = granted("{\"sub\":\"carol\",\"channels\":[]}");
	CHECK(!grant_allows(g, "") && !grant_allows(g, "room"));
	free(g);
}

TEST(token_that_wsbind_makes_is_good_for_each_kind_of_key)
{
	EVP_PKEY *pkeys[] = {EVP_RSA_gen(2048), EVP_EC_gen("P-256"),
			     EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};

	for (size_t i = 0; i < ARRAY_LEN(pkeys); i++) {
		struct file private = file_of_key(pkeys[i], true);
		struct file public = file_of_key(pkeys[i], false);
		struct token_keys *signing = keys_of(private.path);
		struct token_keys *verifying = keys_of(public.path);
		const struct token_claims claims = {.sub = "alice", .expires_s = NOW + 10};

		/* Signatures of ECDSA begin with zeros now and then. */
		for (int round = 0; round < 300; round++) {
			char *token = token_make(signing, &claims);

			CHECK(token != NULL);
			CHECK_EQ(judge(verifying, token), TOKEN_OK);
			if (i != 1)
				break;
		}
		CHECK(token_make(verifying, &claims) == NULL); /* nothing to sign with */
		token_keys_free(signing);
		token_keys_free(verifying);
		close(private.fd);
		close(public.fd);
		EVP_PKEY_free(pkeys[i]);
	}
}

TEST(token_of_another_algorithm_than_the_keys_is_refused)
{
	EVP_PKEY *rsa = EVP_RSA_gen(2048);
	struct file public = file_of_key(rsa, false);
	struct token_keys *keys = keys_of(public.path), *secret = keys_of_secret();
	char pem[2048];
	ssize_t n = pread(public.fd, pem, sizeof(pem), 0);
	static const char *const others[] = {"none", "None", "HS384", "RS256", "hs256", ""};

	/* What everybody knows, the public key, used as a secret. */
	CHECK(n > 0);
	CHECK_EQ(judge(keys, forge("{\"alg\":\"HS256\"}", "{\"sub\":\"eve\"}", pem, (size_t)n)),
		 TOKEN_E_ALGORITHM);
	CHECK_EQ(judge(keys, forge("{\"alg\":\"RS256\"}", "{\"sub\":\"eve\"}", pem, (size_t)n)),
		 TOKEN_E_SIGNATURE);
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		char header[64];

		snprintf(header, sizeof(header), "{\"alg\":\"%s\"}", others[i]);
		CHECK_EQ(judge(secret, forge(header, "{\"sub\":\"eve\"}", SECRET, strlen(SECRET))),
			 TOKEN_E_ALGORITHM);
	}
	token_keys_free(keys);
	token_keys_free(secret);
	close(public.fd);
	EVP_PKEY_free(rsa);
}

TEST(token_without_a_signature_is_none)
{
	struct token_keys *keys = keys_of_secret();
	char *h = base64url("{\"alg\":\"none\"}", 14), *c = base64url("{\"sub\":\"eve\"}", 13);
	char *token = NULL;

	CHECK(asprintf(&token, "%s.%s.", h, c) > 0);
	CHECK_EQ(judge(keys, token), TOKEN_E_ALGORITHM);
	CHECK(asprintf(&token, "%s.%s", h, c) > 0);
	CHECK_EQ(judge(keys, token), TOKEN_E_MALFORMED);
	free(h);
	h = base64url("{\"alg\":\"HS256\"}", 15);
	CHECK(asprintf(&token, "%s.%s.", h, c) > 0);
	CHECK_EQ(judge(keys, token), TOKEN_E_SIGNATURE);
	free(h);
	free(c);
	token_keys_free(keys);
}

TEST(token_with_any_character_changed_is_refused)
{
	struct token_keys *keys = keys_of_secret();
	char *token = sign("{\"sub\":\"alice\"}");

	for (size_t i = 0; token[i]; i++) {
		char *changed = strdup(token);

		changed[i] = changed[i] == 'A' ? 'B' : 'A';
		CHECK(judge(keys, changed) != TOKEN_OK);
	}
	for (size_t n = 0; n < strlen(token); n++)
		CHECK(judge(keys, strndup(token, n)) != TOKEN_OK);
	free(token);
	token_keys_free(keys);
}

TEST(token_is_good_in_its_time_and_a_minute_around)
{
	static const struct {
		const char *claims;
		enum token_result result;
	} row[] = {
		{"{\"sub\":\"a\",\"exp\":1699999941}", TOKEN_OK},
		{"{\"sub\":\"a\",\"exp\":1699999940}", TOKEN_E_EXPIRED},
		{"{\"sub\":\"a\",\"exp\":1}", TOKEN_E_EXPIRED},
		{"{\"sub\":\"a\",\"exp\":-5}", TOKEN_E_EXPIRED},
		{"{\"sub\":\"a\",\"exp\":1e300}", TOKEN_OK},
		{"{\"sub\":\"a\",\"exp\":1700000000.5}", TOKEN_OK},
		{"{\"sub\":\"a\",\"nbf\":1700000060}", TOKEN_OK},
		{"{\"sub\":\"a\",\"nbf\":1700000061}", TOKEN_E_EARLY},
		{"{\"sub\":\"a\",\"nbf\":1e300}", TOKEN_E_EARLY},
		{"{\"sub\":\"a\",\"exp\":\"1800000000\"}", TOKEN_E_CLAIMS},
		{"{\"sub\":\"a\",\"exp\":null}", TOKEN_E_CLAIMS},
		{"{\"sub\":\"a\",\"nbf\":true}", TOKEN_E_CLAIMS},
	};
	struct token_keys *keys = keys_of_secret();

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		CHECK_EQ(judge(keys, sign(row[i].claims)), row[i].result);
	token_keys_free(keys);
}

TEST(token_with_claims_that_mean_nothing_is_refused)
{
	static const char *const wrong[] = {
		"{}",
		"{\"sub\":\"\"}",
		"{\"sub\":7}",
		"{\"sub\":\"system\"}",
		"{\"sub\":\"a\\nb\"}",
		"{\"sub\":\"a\",\"channels\":\"room\"}",
		"{\"sub\":\"a\",\"channels\":[1]}",
		"{\"sub\":\"a\",\"channels\":{\"a\":1}}",
		"{\"sub\":\"a\",\"publish\":\"false\"}",
		"{\"sub\":\"a\",\"publish\":0}",
		"[]",
	};
	struct token_keys *keys = keys_of_secret();
	char claims[300];

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK_EQ(judge(keys, sign(wrong[i])), TOKEN_E_CLAIMS);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"a\",\"sub\":\"b\"}")), TOKEN_E_MALFORMED);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"a\\u0000b\"}")), TOKEN_E_MALFORMED);
	CHECK_EQ(judge(keys, sign("not JSON")), TOKEN_E_MALFORMED);
	snprintf(claims, sizeof(claims), "{\"sub\":\"%0*d\"}", TOKEN_USER_MAX, 0);
	CHECK_EQ(judge(keys, sign(claims)), TOKEN_OK);
	snprintf(claims, sizeof(claims), "{\"sub\":\"%0*d\"}", TOKEN_USER_MAX + 1, 0);
	CHECK_EQ(judge(keys, sign(claims)), TOKEN_E_CLAIMS);
	token_keys_free(keys);
}

TEST(token_user_ids)
{
	static const char *const good[] = {"a",       "alice",  "Alice B.",
					   "system2", "System", "\xc3\xa4"};
	static const char *const wrong[] = {"",        "system", "\n",    "alice\n", "a\tb",
					    "\x1b[2J", "a\r\nb", "a\x7f", "\x01"};
	char text[TOKEN_USER_MAX + 2] = "";

	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		CHECK(token_is_user_id(good[i]));
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK(!token_is_user_id(wrong[i]));
	memset(text, 'x', TOKEN_USER_MAX);
	CHECK(token_is_user_id(text));
	text[TOKEN_USER_MAX] = 'x';
	CHECK(!token_is_user_id(text));
}

TEST(token_with_a_header_that_means_nothing_is_refused)
{
	static const struct {
		const char *header;
		enum token_result result;
	} row[] = {
		{"{\"alg\":\"HS256\"}", TOKEN_OK},
		{"{}", TOKEN_E_MALFORMED},
		{"[]", TOKEN_E_MALFORMED},
		{"{\"alg\":7}", TOKEN_E_MALFORMED},
		{"{\"alg\":\"HS256\",\"alg\":\"none\"}", TOKEN_E_MALFORMED},
		{"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", TOKEN_E_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":7}", TOKEN_E_MALFORMED},
		{"{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}", TOKEN_OK},
	};
	struct token_keys *keys = keys_of_secret();

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		CHECK_EQ(judge(keys,
			       forge(row[i].header, "{\"sub\":\"a\"}", SECRET, strlen(SECRET))),
			 row[i].result);
	token_keys_free(keys);
}

TEST(token_past_its_size_is_refused)
{
	struct token_keys *keys = keys_of_secret();
	char claims[8192];
	char *token;

	for (size_t n = 2800; n < 3200; n++) {
		snprintf(claims, sizeof(claims), "{\"sub\":\"a\",\"x\":\"%0*d\"}", (int)n, 0);
		token = sign(claims);
		CHECK_EQ(judge(keys, strdup(token)),
			 strlen(token) <= TOKEN_MAX ? TOKEN_OK : TOKEN_E_MALFORMED);
		free(token);
	}
	token_keys_free(keys);
}

TEST(token_names_its_key_where_there_are_several)
{
	struct file a = file_of(SECRET, 32), b = file_of("fedcba9876543210fedcba9876543210", 32);
	char files[200];
	struct token_keys *keys, *one;
	static const char *const tricks[] = {"c", "", "a b", "../../dev/null", "a\\u0000", "A"};

	snprintf(files, sizeof(files), "a=%s b=%s", a.path, b.path);
	keys = keys_of(files);
	CHECK_EQ(judge(keys,
		       forge("{\"alg\":\"HS256\",\"kid\":\"a\"}", "{\"sub\":\"x\"}", SECRET, 32)),
		 TOKEN_OK);
	CHECK_EQ(judge(keys, forge("{\"alg\":\"HS256\",\"kid\":\"b\"}", "{\"sub\":\"x\"}",
				   "fedcba9876543210fedcba9876543210", 32)),
		 TOKEN_OK);
	CHECK_EQ(judge(keys,
		       forge("{\"alg\":\"HS256\",\"kid\":\"b\"}", "{\"sub\":\"x\"}", SECRET, 32)),
		 TOKEN_E_SIGNATURE);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"x\"}")), TOKEN_OK); /* without one: any of them */
	for (size_t i = 0; i < ARRAY_LEN(tricks); i++) {
		char header[100];

		snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"kid\":\"%s\"}", tricks[i]);
		CHECK(judge(keys, forge(header, "{\"sub\":\"x\"}", SECRET, 32)) != TOKEN_OK);
	}
	one = keys_of(a.path);
	CHECK_EQ(judge(one,
		       forge("{\"alg\":\"HS256\",\"kid\":\"any\"}", "{\"sub\":\"x\"}", SECRET, 32)),
		 TOKEN_OK); /* the only one there is has no name */
	token_keys_free(keys);
	token_keys_free(one);
	close(a.fd);
	close(b.fd);
}

TEST(token_keys_that_are_no_good_are_named)
{
	EVP_PKEY *weak = EVP_RSA_gen(1024), *curve = EVP_EC_gen("P-384");
	struct file files[] = {file_of("short", 5), file_of("", 0), file_of_key(weak, false),
			       file_of_key(curve, false),
			       file_of("-----BEGIN PUBLIC KEY-----\nno\n", 30)};
	struct token_keys *keys = NULL;
	char why[TOKEN_WHY_MAX], both[200];

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CHECK_EQ(token_keys_new(files[i].path, &keys, why), -EINVAL);
		CHECK(strncmp(why, files[i].path, strlen(files[i].path)) == 0);
	}
	CHECK_EQ(token_keys_new("/no/such/file", &keys, why), -EINVAL);
	CHECK_STR(why, "/no/such/file: No such file or directory");
	CHECK_EQ(token_keys_new("  ", &keys, why), -EINVAL);
	CHECK_EQ(write(files[0].fd, SECRET, 32), 32);
	snprintf(both, sizeof(both), "a=%s a=%s", files[0].path, files[0].path);
	CHECK_EQ(token_keys_new(both, &keys, why), -EINVAL);
	CHECK(strstr(why, "another key has this kid"));
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		close(files[i].fd);
	EVP_PKEY_free(weak);
	EVP_PKEY_free(curve);
}

/* ------------------------------------------------------------------- forms of keys */

static int load_file(const void *content, size_t n, char why[TOKEN_WHY_MAX])
{
	struct file f = file_of(content, n);
	struct token_keys *keys = NULL;
	int r = token_keys_new(f.path, &keys, why);

	CHECK_EQ(r == 0, keys != NULL);
	token_keys_free(keys);
	close(f.fd);
	return r;
}

static void check_form(const void *content, size_t n, const char *form)
{
	char why[TOKEN_WHY_MAX], words[100];

	snprintf(words, sizeof(words),
		 ": a key in another form (%s): PEM is expected, or a raw secret", form);
	CHECK_EQ(load_file(content, n, why), -EINVAL);
	if (!strstr(why, words))
		fail_msg("%s has no %s", why, words);
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

TEST(token_keys_in_der_are_no_secrets)
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

TEST(token_keys_in_json_and_of_ssh_are_no_secrets)
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
	char why[TOKEN_WHY_MAX];

	if (load_file(content, n, why))
		fail_msg("%s", why);
}

TEST(token_secrets_that_only_look_like_keys_are_secrets)
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
		check_secret(random, TOKEN_SECRET_MIN + 1 + (size_t)round % 68); /* perhaps \n */
	}
}

/* ----------------------------------------------------------------------- patterns */

static bool allows(const char *pattern, const char *channel)
{
	char claims[300];
	struct grant *g;
	bool r;

	snprintf(claims, sizeof(claims), "{\"sub\":\"a\",\"channels\":[\"%s\"]}", pattern);
	g = granted(claims);
	r = grant_allows(g, channel);
	free(g);
	return r;
}

TEST(token_patterns)
{
	static const struct {
		const char *pattern, *yes, *no;
	} row[] = {
		{"", "", "a"},
		{"*", "room", "a/b"},
		{"*", "", "/"},
		{"**", "a/b/c", NULL},
		{"room/*", "room/7", "room/7/8"},
		{"room/*", "room/", "room"},
		{"room/**", "room/7/8", "rooms"},
		{"*/7", "room/7", "a/room/7"},
		{"**/7", "a/room/7", "7"},
		{"a*c", "abbc", "ab/c"},
		{"a**c", "ab/c", "ab/d"},
		{"a*b*c", "a1b2b3c", "a1c2b"},
		{"**a*", "x/y/ab", "x/a/b"},
		{"**/a/*", "x/a/b/a/c", "x/a/b/c"},
		{"*a*a*a*", "bababa", "baba"},
		{"room.7", "room.7", "roomx7"},
	};

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		CHECK(allows(row[i].pattern, row[i].yes));
		CHECK(!row[i].no || !allows(row[i].pattern, row[i].no));
	}
}

/* The same by trying everything. */
static bool naive(const char *p, const char *t)
{
	bool is_wide = p[0] == '*' && p[1] == '*';

	if (!*p)
		return !*t;
	if (*p != '*')
		return *p == *t && naive(p + 1, t + 1);
	for (;; t++) {
		if (naive(p + 1 + is_wide, t))
			return true;
		if (!*t || (!is_wide && *t == '/'))
			return false;
	}
}

TEST(token_patterns_agree_with_trying_everything)
{
	uint64_t seed = test_seed();

	for (int round = 0; round < 3000; round++) {
		char pattern[9] = "", text[9] = "";
		size_t p = test_random(&seed) % 8, t = test_random(&seed) % 8;

		for (size_t i = 0; i < p; i++)
			pattern[i] = "ab/**"[test_random(&seed) % 5];
		for (size_t i = 0; i < t; i++)
			text[i] = "ab/"[test_random(&seed) % 3];
		/* Three stars in a row are a wide one and a narrow one: as the matcher reads them.
		 */
		if (allows(pattern, text) != naive(pattern, text))
			fail_msg("pattern %s, channel %s", pattern, text);
	}
}
