/* SPDX-License-Identifier: MIT */
/* Tokens: what is granted by good ones, and every way in which bad ones are tried. */
#include "wire/token.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>

#include "key-file.h"
#include "test.h"

#define NOW 1700000000ULL
#define SECRET "0123456789abcdef0123456789abcdef"

static struct token_keys *keys_of(const char *files)
{
	char why[TOKEN_KEYS_WHY_MAX];
	struct token_keys *keys = NULL;
	struct file_set set = {0};

	if (token_keys_new(files, &set, &keys, why))
		fail_msg("%s", why);
	file_set_fini(&set);
	return keys;
}

static struct token_keys *keys_of_secret(void)
{
	struct key_file f = key_file_of(SECRET "\n", strlen(SECRET) + 1);
	struct token_keys *keys = keys_of(f.path);

	close(f.fd);
	return keys;
}

static struct token_rules rules = {"", ""};

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
	r = token_verify(keys, &rules, copy, n, NOW, ret);
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
		struct key_file private = key_file_of_pkey(pkeys[i], true);
		struct key_file public = key_file_of_pkey(pkeys[i], false);
		struct token_keys *signing = keys_of(private.path);
		struct token_keys *verifying = keys_of(public.path);
		const struct token_claims claims = {
			.sub = "alice", .audience = "", .issuer = "", .expires_s = NOW + 10};

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
	struct key_file public = key_file_of_pkey(rsa, false);
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
		{"{\"sub\":\"a\",\"exp\":1e300}", TOKEN_E_MILLISECONDS},
		{"{\"sub\":\"a\",\"exp\":1700000000.5}", TOKEN_OK},
		{"{\"sub\":\"a\",\"nbf\":1700000060}", TOKEN_OK},
		{"{\"sub\":\"a\",\"nbf\":1700000061}", TOKEN_E_EARLY},
		{"{\"sub\":\"a\",\"nbf\":1e300}", TOKEN_E_MILLISECONDS},
		{"{\"sub\":\"a\",\"exp\":1800000000000}", TOKEN_E_MILLISECONDS},
		{"{\"sub\":\"a\",\"exp\":9223372036854775808}", TOKEN_E_MILLISECONDS},
		{"{\"sub\":\"a\",\"exp\":99999999999}", TOKEN_OK},
		{"{\"sub\":\"a\",\"exp\":\"1800000000\"}", TOKEN_E_EXP},
		{"{\"sub\":\"a\",\"exp\":null}", TOKEN_E_EXP},
		{"{\"sub\":\"a\",\"nbf\":true}", TOKEN_E_NBF},
	};
	struct token_keys *keys = keys_of_secret();

	for (size_t i = 0; i < ARRAY_LEN(row); i++)
		CHECK_EQ(judge(keys, sign(row[i].claims)), row[i].result);
	token_keys_free(keys);
}

TEST(token_with_claims_that_mean_nothing_is_refused)
{
	static const struct {
		const char *claims;
		enum token_result result;
	} wrong[] = {
		{"{}", TOKEN_E_SUB},
		{"{\"sub\":\"\"}", TOKEN_E_SUB},
		{"{\"sub\":7}", TOKEN_E_SUB},
		{"{\"sub\":\"system\"}", TOKEN_E_SUB},
		{"{\"sub\":\"a\\nb\"}", TOKEN_E_SUB},
		{"{\"sub\":\"a\",\"channels\":\"room\"}", TOKEN_E_CHANNELS},
		{"{\"sub\":\"a\",\"channels\":[1]}", TOKEN_E_CHANNELS},
		{"{\"sub\":\"a\",\"channels\":{\"a\":1}}", TOKEN_E_CHANNELS},
		{"{\"sub\":\"a\",\"publish\":\"false\"}", TOKEN_E_PUBLISH},
		{"{\"sub\":\"a\",\"publish\":0}", TOKEN_E_PUBLISH},
		{"[]", TOKEN_E_CLAIMS},
		{"\"a\"", TOKEN_E_MALFORMED},
	};
	struct token_keys *keys = keys_of_secret();
	char claims[300];

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		CHECK_EQ(judge(keys, sign(wrong[i].claims)), wrong[i].result);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"a\",\"sub\":\"b\"}")), TOKEN_E_MALFORMED);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"a\\u0000b\"}")), TOKEN_E_SUB);
	CHECK_EQ(judge(keys, sign("{\"sub\":\"a\",\"channels\":[\"\\u0000\"]}")), TOKEN_E_CHANNELS);
	CHECK_EQ(judge(keys, sign("not JSON")), TOKEN_E_MALFORMED);
	snprintf(claims, sizeof(claims), "{\"sub\":\"%0*d\"}", GRANT_USER_MAX, 0);
	CHECK_EQ(judge(keys, sign(claims)), TOKEN_OK);
	snprintf(claims, sizeof(claims), "{\"sub\":\"%0*d\"}", GRANT_USER_MAX + 1, 0);
	CHECK_EQ(judge(keys, sign(claims)), TOKEN_E_SUB);
	token_keys_free(keys);
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

	for (size_t n = 5900; n < 6200; n++) {
		snprintf(claims, sizeof(claims), "{\"sub\":\"a\",\"x\":\"%0*d\"}", (int)n, 0);
		token = sign(claims);
		CHECK_EQ(judge(keys, strdup(token)),
			 strlen(token) <= TOKEN_MAX ? TOKEN_OK : TOKEN_E_LONG);
		free(token);
	}
	token_keys_free(keys);
}

TEST(token_names_its_key_where_there_are_several)
{
	struct key_file a = key_file_of(SECRET, 32),
			b = key_file_of("fedcba9876543210fedcba9876543210", 32);
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

/* Claims as those make them whose tokens are about: what isn't looked at may be anything. */
TEST(token_of_an_identity_provider_is_for_one_audience)
{
	static const char cognito[] =
		"{\"sub\":\"5f6c\",\"iss\":\"https://cognito-idp.eu-west-1.amazonaws.com/pool\","
		"\"aud\":\"client\",\"token_use\":\"id\",\"exp\":1700000100,\"auth_time\":1}";
	static const char keycloak[] =
		"{\"sub\":\"f:1:ann\",\"iss\":\"https://id.example/realms/a\","
		"\"aud\":[\"account\",\"client\"],\"exp\":1700000100,\"acr\":\"1\","
		"\"realm_access\":{\"roles\":[\"a\"]},\"big\":18446744073709551615}";
	static const char azure[] = "{\"sub\":\"AAAA-_\",\"iss\":\"https://sts/v2.0\",\"aud\":"
				    "\"api://client\",\"exp\":1700000100,\"nul\":\"\\u0000\"}";
	static const struct {
		const char *claims;
		struct token_rules rules;
		enum token_result result;
	} row[] = {
		{cognito, {"client", ""}, TOKEN_OK},
		{cognito, {"", ""}, TOKEN_E_AUDIENCE_UNASKED},
		{cognito, {"Client", ""}, TOKEN_E_AUDIENCE},
		{cognito, {"client", "https://cognito-idp.eu-west-1.amazonaws.com/pool"}, TOKEN_OK},
		{cognito,
		 {"client", "https://cognito-idp.eu-west-1.amazonaws.com/other"},
		 TOKEN_E_ISSUER},
		{keycloak, {"client", ""}, TOKEN_OK},
		{keycloak, {"clien", ""}, TOKEN_E_AUDIENCE},
		{azure, {"api://client", "https://sts/v2.0"}, TOKEN_OK},
		{"{\"sub\":\"a\"}", {"client", ""}, TOKEN_E_AUDIENCE},
		{"{\"sub\":\"a\",\"aud\":[]}", {"client", ""}, TOKEN_E_AUDIENCE},
		{"{\"sub\":\"a\",\"aud\":[]}", {"", ""}, TOKEN_E_AUDIENCE_UNASKED},
		{"{\"sub\":\"a\",\"aud\":null}", {"", ""}, TOKEN_E_AUDIENCE_UNASKED},
		{"{\"sub\":\"a\",\"aud\":\"client\\u0000x\"}", {"client", ""}, TOKEN_E_AUDIENCE},
		{"{\"sub\":\"a\"}", {"", "https://id.example"}, TOKEN_E_ISSUER},
		{"{\"sub\":\"a\",\"iss\":[\"x\"]}", {"", "x"}, TOKEN_E_ISSUER},
		{"{\"sub\":\"a\",\"iss\":\"x\"}", {"", ""}, TOKEN_OK},
	};
	struct token_keys *keys = keys_of_secret();

	for (size_t i = 0; i < ARRAY_LEN(row); i++) {
		rules = row[i].rules;
		if (judge(keys, sign(row[i].claims)) != row[i].result)
			FAIL("row %zu", i);
	}
	rules = (struct token_rules){"", ""};
	token_keys_free(keys);
}

TEST(token_remembers_its_key)
{
	struct key_file a = key_file_of(SECRET, 32), b = key_file_of(SECRET "b", 33);
	char both[200];
	struct token_keys *keys, *one;
	struct grant *g = granted("{\"sub\":\"a\"}");

	snprintf(both, sizeof(both), "%s %s", b.path, a.path);
	keys = keys_of(both);
	one = keys_of(b.path);
	CHECK(g->key_id != 0);
	CHECK(token_keys_have(keys, g->key_id));
	CHECK(!token_keys_have(one, g->key_id));
	free(g);
	token_keys_free(keys);
	token_keys_free(one);
	close(a.fd);
	close(b.fd);
}
