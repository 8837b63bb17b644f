/* SPDX-License-Identifier: MIT */
#include "wire/token.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "base/ip.h"
#include "base/text.h"
#include "containers/buf.h"

#define KEYS_MAX 16
#define KID_MAX 128
#define FILE_MAX 65536
#define RSA_MIN_BITS 2048
#define ES256_PART 32 /* bytes of r, and of s: RFC 7518 section 3.4 */
#define SIGNATURE_MAX 1024

enum algorithm { HS256, RS256, ES256, EDDSA, N_ALGORITHMS };

static const char *const algorithm_name[N_ALGORITHMS] = {"HS256", "RS256", "ES256", "EdDSA"};

struct WB_FROZEN token_key {
	char kid[KID_MAX]; /* "": none */
	enum algorithm algorithm;
	EVP_PKEY *pkey; /* but for HS256 */
	uint8_t *secret;
	size_t secret_n;
};

struct WB_FROZEN token_keys {
	struct token_key key[KEYS_MAX];
	size_t n;
};

/* --------------------------------------------------------------------------- keys */

static int wrong(char why[TOKEN_WHY_MAX], const char *file, const char *what)
{
	snprintf(why, TOKEN_WHY_MAX, "%s: %s", file, what);
	ERR_clear_error();
	return -EINVAL;
}

static bool is_p256(const EVP_PKEY *pkey)
{
	char group[64] = "";

	return EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, group,
					      sizeof(group), NULL) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

static int take_pem(struct token_key *k, const char *file, const uint8_t *p, size_t n,
		    char why[TOKEN_WHY_MAX])
{
	BIO *bio = BIO_new_mem_buf(p, (int)n);

	if (!bio)
		return -ENOMEM;
	k->pkey = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	if (!k->pkey) {
		(void)BIO_reset(bio);
		k->pkey = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	}
	BIO_free(bio);
	if (!k->pkey)
		return wrong(why, file, "no PEM key that can be read");
	if (EVP_PKEY_is_a(k->pkey, "RSA")) {
		k->algorithm = RS256;
		if (EVP_PKEY_get_bits(k->pkey) < RSA_MIN_BITS)
			return wrong(why, file, "an RSA key needs 2048 bits");
	} else if (EVP_PKEY_is_a(k->pkey, "EC")) {
		k->algorithm = ES256;
		if (!is_p256(k->pkey))
			return wrong(why, file, "an EC key has to be on the curve P-256");
	} else if (EVP_PKEY_is_a(k->pkey, "ED25519")) {
		k->algorithm = EDDSA;
	} else {
		return wrong(why, file, "not a key for RS256, ES256 or EdDSA");
	}
	return 0;
}

/* A SEQUENCE that begins with another or with a number: so do keys, certificates, bundles. */
static bool is_der(const uint8_t *p, size_t n)
{
	ASN1_SEQUENCE_ANY *parts = d2i_ASN1_SEQUENCE_ANY(NULL, &p, (long)n);
	int first = V_ASN1_UNDEF;

	if (sk_ASN1_TYPE_num(parts) > 1)
		first = sk_ASN1_TYPE_value(parts, 0)->type;
	sk_ASN1_TYPE_pop_free(parts, ASN1_TYPE_free);
	ERR_clear_error();
	return first == V_ASN1_SEQUENCE || first == V_ASN1_INTEGER;
}

/* What is left of PEM without its first and last line. */
static bool is_base64_of_der(const uint8_t *p, size_t n)
{
	EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
	uint8_t *der = malloc(n + 1);
	int len = 0, rest = 0;
	bool is_one = false;

	if (ctx && der) {
		EVP_DecodeInit(ctx);
		is_one = EVP_DecodeUpdate(ctx, der, &len, p, (int)n) >= 0 &&
			 EVP_DecodeFinal(ctx, der + len, &rest) == 1 &&
			 is_der(der, (size_t)len + (size_t)rest);
	}
	if (der)
		OPENSSL_cleanse(der, n + 1);
	free(der);
	EVP_ENCODE_CTX_free(ctx);
	return is_one;
}

/* A JSON Web Key (RFC 7517), a set of them or a list. */
static bool is_json(const uint8_t *p, size_t n)
{
	json_t *v = json_loadb((const char *)p, n, JSON_DISABLE_EOF_CHECK, NULL);
	bool is_one = json_object_size(v) > 0 || json_object_size(json_array_get(v, 0)) > 0;

	json_decref(v);
	return is_one;
}

static bool begins_with(const uint8_t *p, size_t n, const char *word)
{
	return n >= strlen(word) && memcmp(p, word, strlen(word)) == 0;
}

/* A public key of SSH: a line of OpenSSH ("ssh-rsa AAAA…"), or RFC 4716. */
static bool is_ssh(const uint8_t *p, size_t n)
{
	return begins_with(p, n, "---- BEGIN ") ||
	       ((begins_with(p, n, "ssh-") || begins_with(p, n, "ecdsa-") ||
		 begins_with(p, n, "sk-")) &&
		memmem(p, n, " AAAA", 5));
}

/* The form of a key that is not in PEM; NULL: it is none. As a secret, others would know it. */
static const char *form_of(const uint8_t *p, size_t n)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";

	if (is_der(p, n))
		return "DER";
	if (begins_with(p, n, byte_order_mark)) {
		p += strlen(byte_order_mark);
		n -= strlen(byte_order_mark);
	}
	while (n > 0 && isspace(*p)) {
		p++;
		n--;
	}
	if (is_base64_of_der(p, n))
		return "DER in base64";
	return is_json(p, n) ? "JSON" : is_ssh(p, n) ? "that of SSH" : NULL;
}

static int take_secret(struct token_key *k, const char *file, const uint8_t *p, size_t n,
		       char why[TOKEN_WHY_MAX])
{
	const char *form = form_of(p, n);

	if (form) {
		char what[100];

		snprintf(what, sizeof(what),
			 "a key in another form (%s): PEM is expected, or a raw secret", form);
		return wrong(why, file, what);
	}
	if (n > 0 && p[n - 1] == '\n')
		n--;
	if (n < TOKEN_SECRET_MIN)
		return wrong(why, file, "a secret needs 32 bytes");
	k->algorithm = HS256;
	k->secret = malloc(n);
	if (!k->secret)
		return -ENOMEM;
	memcpy(k->secret, p, n);
	k->secret_n = n;
	return 0;
}

static int take_file(struct token_key *k, const char *file, char why[TOKEN_WHY_MAX])
{
	static const char pem[] = "-----BEGIN ";
	uint8_t *content = malloc(FILE_MAX + 1);
	FILE *f = content ? fopen(file, "re") : NULL;
	size_t n = f ? fread(content, 1, FILE_MAX + 1, f) : 0;
	int r;

	if (!content)
		r = -ENOMEM;
	else if (!f || ferror(f))
		r = wrong(why, file, strerror(errno));
	else if (n > FILE_MAX)
		r = wrong(why, file, "too large for a key");
	else if (n >= strlen(pem) && memmem(content, n, pem, strlen(pem)))
		r = take_pem(k, file, content, n, why);
	else
		r = take_secret(k, file, content, n, why);
	if (f)
		(void)fclose(f);
	if (content)
		OPENSSL_cleanse(content, n);
	free(content);
	return r;
}

/* [KID=]FILE */
static int take_word(struct token_keys *keys, const char *word, size_t n, char why[TOKEN_WHY_MAX])
{
	WB_CLEANUP(ptr_freep) char *text = strndup(word, n);
	struct token_key *k = &keys->key[keys->n];
	const char *file = text;
	char *equals;

	if (!text)
		return -ENOMEM;
	if (keys->n == KEYS_MAX)
		return wrong(why, text, "more than 16 keys");
	equals = text[0] == '/' ? NULL : strchr(text, '=');
	if (equals) {
		*equals = '\0';
		file = equals + 1;
		if (strlen(text) >= sizeof(k->kid))
			return wrong(why, file, "its kid is too long");
		memcpy(k->kid, text, strlen(text) + 1);
	}
	keys->n++;
	for (size_t i = 0; k->kid[0] && i + 1 < keys->n; i++)
		if (strcmp(keys->key[i].kid, k->kid) == 0)
			return wrong(why, file, "another key has this kid");
	return take_file(k, file, why);
}

int token_keys_new(const char *files, struct token_keys **ret, char why[TOKEN_WHY_MAX])
{
	struct token_keys *keys = calloc(1, sizeof(*keys));
	int r = keys ? 0 : -ENOMEM;
	size_t n;

	snprintf(why, TOKEN_WHY_MAX, "out of memory");
	for (const char *at = files; r == 0 && (n = text_next_word(&at)) > 0;)
		r = take_word(keys, at - n, n, why);
	if (r == 0 && keys->n == 0)
		r = wrong(why, "jwt_key_file", "names no file");
	if (r) {
		token_keys_free(keys);
		return r;
	}
	*ret = keys;
	return 0;
}

struct token_keys *token_keys_free(struct token_keys *keys)
{
	for (size_t i = 0; keys && i < keys->n; i++) {
		struct token_key *k = &keys->key[i];

		EVP_PKEY_free(k->pkey);
		if (k->secret)
			OPENSSL_cleanse(k->secret, k->secret_n);
		free(k->secret);
	}
	free(keys);
	return NULL;
}

/* ---------------------------------------------------------------------- base64url */

static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* RFC 4648 section 5, without padding. False: not such a text, or longer than @cap. */
static bool base64url_decode(const char *p, size_t n, uint8_t *out, size_t cap, size_t *ret_n)
{
	uint32_t bits = 0;
	unsigned have = 0;
	size_t at = 0;

	if (n % 4 == 1)
		return false;
	for (size_t i = 0; i < n; i++) {
		int digit = digit_of(p[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (at == cap)
			return false;
		out[at++] = (uint8_t)(bits >> have);
		bits &= (1u << have) - 1;
	}
	*ret_n = at;
	return bits == 0; /* one text for each run of bytes */
}

static int base64url_append(struct buf *b, const void *p, size_t n)
{
	static const char digit[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *at = p;
	uint32_t bits = 0;
	unsigned have = 0;

	for (size_t i = 0; i < n; i++) {
		bits = bits << 8 | at[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			if (buf_append(b, &digit[bits >> have & 63], 1, BUF_NO_LIMIT))
				return -ENOMEM;
		}
	}
	return have ? buf_append(b, &digit[bits << (6 - have) & 63], 1, BUF_NO_LIMIT) : 0;
}

/* ---------------------------------------------------------------------- signature */

/* ES256 has two numbers side by side where OpenSSL wants DER, and the other way round. */
static int es256_to_der(const uint8_t *raw, uint8_t **ret)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(raw, ES256_PART, NULL);
	BIGNUM *s = BN_bin2bn(raw + ES256_PART, ES256_PART, NULL);
	int n = -1;

	if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
		n = i2d_ECDSA_SIG(sig, ret);
	} else {
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(sig);
	return n;
}

static bool es256_from_der(const uint8_t *der, size_t n, uint8_t raw[2 * ES256_PART])
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
	bool is_good =
		sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, ES256_PART) == ES256_PART &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + ES256_PART, ES256_PART) == ES256_PART;

	ECDSA_SIG_free(sig);
	return is_good;
}

static const EVP_MD *digest_of(enum algorithm a)
{
	return a == EDDSA ? NULL : EVP_sha256();
}

static bool verify_with(const struct token_key *k, const char *text, size_t n, const uint8_t *sig,
			size_t sig_n)
{
	uint8_t mac[32], *der = NULL;
	unsigned mac_n = sizeof(mac);
	EVP_MD_CTX *ctx;
	bool is_good;

	if (k->algorithm == HS256)
		return sig_n == sizeof(mac) &&
		       HMAC(EVP_sha256(), k->secret, (int)k->secret_n, (const uint8_t *)text, n,
			    mac, &mac_n) &&
		       CRYPTO_memcmp(mac, sig, sizeof(mac)) == 0;
	if (k->algorithm == ES256) {
		int der_n = sig_n == 2 * (size_t)ES256_PART ? es256_to_der(sig, &der) : -1;

		if (der_n <= 0)
			return false;
		sig = der;
		sig_n = (size_t)der_n;
	}
	ctx = EVP_MD_CTX_new();
	is_good = ctx &&
		  EVP_DigestVerifyInit(ctx, NULL, digest_of(k->algorithm), NULL, k->pkey) == 1 &&
		  EVP_DigestVerify(ctx, sig, sig_n, (const uint8_t *)text, n) == 1;
	EVP_MD_CTX_free(ctx);
	OPENSSL_free(der);
	ERR_clear_error();
	return is_good;
}

/* Return: bytes of the signature, 0 when there can be none. */
static size_t sign_with(const struct token_key *k, const uint8_t *text, size_t n,
			uint8_t out[SIGNATURE_MAX])
{
	size_t len = SIGNATURE_MAX;
	unsigned mac_n = SIGNATURE_MAX;
	uint8_t der[SIGNATURE_MAX];
	EVP_MD_CTX *ctx;
	bool is_good;

	if (k->algorithm == HS256)
		return HMAC(EVP_sha256(), k->secret, (int)k->secret_n, text, n, out, &mac_n) ? mac_n
											     : 0;
	ctx = EVP_MD_CTX_new();
	is_good = ctx &&
		  EVP_DigestSignInit(ctx, NULL, digest_of(k->algorithm), NULL, k->pkey) == 1 &&
		  EVP_DigestSign(ctx, der, &len, text, n) == 1;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	if (!is_good)
		return 0;
	if (k->algorithm == ES256)
		return es256_from_der(der, len, out) ? 2 * (size_t)ES256_PART : 0;
	memcpy(out, der, len);
	return len;
}

/* ------------------------------------------------------------------------- claims */

static json_t *load_part(const char *p, size_t n)
{
	uint8_t text[TOKEN_MAX];
	size_t len;

	if (!base64url_decode(p, n, text, sizeof(text), &len))
		return NULL;
	return json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, NULL);
}

/* A NumericDate (RFC 7519 section 2); @dflt without the claim. False: it is of another type. */
static bool take_date(const json_t *claims, const char *name, uint64_t dflt, uint64_t *ret)
{
	const json_t *v = json_object_get(claims, name);
	double seconds;

	*ret = dflt;
	if (!v)
		return true;
	if (!json_is_number(v))
		return false;
	seconds = json_number_value(v);
	*ret = seconds <= 0 ? 0 : seconds >= 1e15 ? (uint64_t)1e15 : (uint64_t)seconds;
	return true;
}

bool token_is_user_id(const char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if ((uint8_t)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return n > 0 && n <= TOKEN_USER_MAX && strcmp(text, "system") != 0;
}

static struct grant *grant_alloc(const char *user_id, size_t n_patterns, size_t text_bytes)
{
	size_t user_n = strlen(user_id) + 1;
	size_t texts = user_n + text_bytes;
	size_t offset = (sizeof(struct grant) + texts + sizeof(char *) - 1) & ~(sizeof(char *) - 1);
	struct grant *g = calloc(1, offset + n_patterns * sizeof(char *));

	if (!g)
		return NULL;
	g->expires_s = UINT64_MAX;
	g->may_publish = true;
	g->any_channel = true;
	g->pattern = (const char **)(void *)((char *)g + offset);
	memcpy(g->text, user_id, user_n);
	g->user_id = g->text;
	return g;
}

struct grant *grant_new(const char *user_id)
{
	return grant_alloc(user_id, 0, 0);
}

struct grant *grant_restore(const struct grant *like)
{
	struct grant *g;
	size_t bytes = 0;
	char *at;

	if (!token_is_user_id(like->user_id))
		return NULL;
	for (size_t i = 0; i < like->n_patterns; i++)
		bytes += strlen(like->pattern[i]) + 1;
	g = grant_alloc(like->user_id, like->n_patterns, bytes);
	if (!g)
		return NULL;
	g->expires_s = like->expires_s;
	g->may_publish = like->may_publish;
	g->any_channel = like->any_channel;
	at = g->text + strlen(g->user_id) + 1;
	while (g->n_patterns < like->n_patterns) {
		g->pattern[g->n_patterns] = at;
		at = stpcpy(at, like->pattern[g->n_patterns++]) + 1;
	}
	return g;
}

static bool measure_patterns(const json_t *channels, size_t *ret_bytes)
{
	size_t i;
	json_t *v;

	*ret_bytes = 0;
	if (channels && !json_is_array(channels))
		return false;
	json_array_foreach(channels, i, v)
	{
		if (!json_is_string(v))
			return false;
		*ret_bytes += json_string_length(v) + 1;
	}
	return true;
}

static enum token_result read_claims(const json_t *claims, uint64_t now_s, struct grant **ret)
{
	const json_t *sub = json_object_get(claims, "sub"), *v;
	const json_t *channels = json_object_get(claims, "channels");
	const json_t *publish = json_object_get(claims, "publish");
	uint64_t expires, not_before;
	struct grant *g;
	size_t bytes, i;
	char *at;

	if (!json_is_object(claims) || !sub || !json_is_string(sub) ||
	    !token_is_user_id(json_string_value(sub)) || !measure_patterns(channels, &bytes) ||
	    (publish && !json_is_boolean(publish)) ||
	    !take_date(claims, "exp", UINT64_MAX - TOKEN_LEEWAY_S, &expires) ||
	    !take_date(claims, "nbf", 0, &not_before))
		return TOKEN_E_CLAIMS;
	if (now_s >= expires + TOKEN_LEEWAY_S)
		return TOKEN_E_EXPIRED;
	if (now_s + TOKEN_LEEWAY_S < not_before)
		return TOKEN_E_EARLY;
	g = grant_alloc(json_string_value(sub), json_array_size(channels), bytes);
	if (!g)
		return TOKEN_E_MEMORY;
	g->expires_s = json_object_get(claims, "exp") ? expires + TOKEN_LEEWAY_S : UINT64_MAX;
	g->may_publish = !publish || json_is_true(publish);
	g->any_channel = !channels;
	at = g->text + strlen(g->user_id) + 1;
	json_array_foreach(channels, i, v)
	{
		memcpy(at, json_string_value(v), json_string_length(v) + 1);
		g->pattern[g->n_patterns++] = at;
		at += json_string_length(v) + 1;
	}
	*ret = g;
	return TOKEN_OK;
}

/* ------------------------------------------------------------------------- tokens */

static const char *string_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* Whether a key is meant; what the token says of its algorithm has to be the key's. */
static enum token_result check_signature(const struct token_keys *keys, const json_t *header,
					 const char *text, size_t n, const uint8_t *sig,
					 size_t sig_n)
{
	const char *algorithm = string_of(header, "alg"), *kid = string_of(header, "kid");
	enum token_result r = kid ? TOKEN_E_KEY : TOKEN_E_ALGORITHM;

	/* What is critical and not understood: RFC 7515 section 4.1.11. */
	if (!algorithm || json_object_get(header, "crit") ||
	    (json_object_get(header, "kid") && !kid))
		return TOKEN_E_MALFORMED;
	for (size_t i = 0; i < keys->n; i++) {
		const struct token_key *k = &keys->key[i];

		if (kid && k->kid[0] && strcmp(kid, k->kid) != 0)
			continue;
		if (kid && !k->kid[0] && keys->n > 1)
			continue; /* of several, that one has no name */
		if (strcmp(algorithm, algorithm_name[k->algorithm]) != 0) {
			r = r == TOKEN_E_SIGNATURE ? r : TOKEN_E_ALGORITHM;
			continue;
		}
		if (verify_with(k, text, n, sig, sig_n))
			return TOKEN_OK;
		r = TOKEN_E_SIGNATURE;
	}
	return r;
}

enum token_result token_verify(const struct token_keys *keys, const char *p, size_t n,
			       uint64_t now_s, struct grant **ret)
{
	const char *first = n ? memchr(p, '.', n) : NULL;
	const char *second = first ? memchr(first + 1, '.', n - (size_t)(first + 1 - p)) : NULL;
	uint8_t sig[SIGNATURE_MAX];
	json_t *header, *claims;
	enum token_result r;
	size_t sig_n;

	if (!second || n > TOKEN_MAX ||
	    !base64url_decode(second + 1, n - (size_t)(second + 1 - p), sig, sizeof(sig), &sig_n))
		return TOKEN_E_MALFORMED;
	header = load_part(p, (size_t)(first - p));
	r = json_is_object(header)
		    ? check_signature(keys, header, p, (size_t)(second - p), sig, sig_n)
		    : TOKEN_E_MALFORMED;
	json_decref(header);
	if (r != TOKEN_OK)
		return r;
	claims = load_part(first + 1, (size_t)(second - first - 1));
	r = claims ? read_claims(claims, now_s, ret) : TOKEN_E_MALFORMED;
	json_decref(claims);
	return r;
}

const char *token_result_text(enum token_result r)
{
	switch (r) {
	case TOKEN_OK:
		return "valid";
	case TOKEN_E_MALFORMED:
		return "it is no signed token";
	case TOKEN_E_ALGORITHM:
		return "its algorithm is not that of the key";
	case TOKEN_E_KEY:
		return "its kid names no key";
	case TOKEN_E_SIGNATURE:
		return "its signature is wrong";
	case TOKEN_E_EXPIRED:
		return "it has expired";
	case TOKEN_E_EARLY:
		return "it is not valid yet";
	case TOKEN_E_CLAIMS:
		return "its claims cannot be used";
	case TOKEN_E_MEMORY:
		break;
	}
	return "out of memory";
}

static int append_json(struct buf *b, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	int r = text ? base64url_append(b, text, strlen(text)) : -ENOMEM;

	free(text);
	json_decref(object);
	return r;
}

static json_t *json_of(const struct token_claims *claims)
{
	json_t *object = json_pack("{s:s}", "sub", claims->sub);
	json_t *channels = claims->channels ? json_array() : NULL;
	size_t n;

	for (const char *at = claims->channels; channels && (n = text_next_word(&at)) > 0;)
		(void)json_array_append_new(channels, json_stringn(at - n, n));
	if (channels)
		(void)json_object_set_new(object, "channels", channels);
	if (claims->expires_s)
		(void)json_object_set_new(object, "exp",
					  json_integer((json_int_t)claims->expires_s));
	if (!claims->may_publish)
		(void)json_object_set_new(object, "publish", json_false());
	return object;
}

char *token_make(const struct token_keys *keys, const struct token_claims *claims)
{
	const struct token_key *k = &keys->key[0];
	json_t *header = json_pack("{s:s,s:s}", "alg", algorithm_name[k->algorithm], "typ", "JWT");
	uint8_t sig[SIGNATURE_MAX];
	struct buf b = {0};
	size_t sig_n;
	int r;

	if (header && k->kid[0])
		(void)json_object_set_new(header, "kid", json_string(k->kid));
	r = append_json(&b, header);
	if (r == 0)
		r = buf_append(&b, ".", 1, BUF_NO_LIMIT);
	if (r == 0)
		r = append_json(&b, json_of(claims));
	sig_n = r == 0 ? sign_with(k, b.data, b.len, sig) : 0;
	if (sig_n == 0 || buf_append(&b, ".", 1, BUF_NO_LIMIT) ||
	    base64url_append(&b, sig, sig_n) || buf_append(&b, "", 1, BUF_NO_LIMIT)) {
		buf_fini(&b);
		return NULL;
	}
	return (char *)b.data;
}

/* ----------------------------------------------------------------------- patterns */

static bool matches(const char *pattern, const char *text)
{
	const char *star = NULL, *star_text = NULL; /* where the last `*` may take more */
	const char *wide = NULL, *wide_text = NULL; /* the same of the last `**` */

	for (;;) {
		if (pattern[0] == '*' && pattern[1] == '*') {
			wide = pattern += 2;
			wide_text = text;
			star = NULL;
		} else if (pattern[0] == '*') {
			star = ++pattern;
			star_text = text;
		} else if (*pattern == *text) {
			if (!*text)
				return true;
			pattern++;
			text++;
		} else if (star && *star_text && *star_text != '/') {
			pattern = star;
			text = ++star_text;
		} else if (wide && *wide_text) {
			pattern = wide;
			text = ++wide_text;
			star = NULL;
		} else {
			return false;
		}
	}
}

bool grant_allows(const struct grant *g, const char *channel)
{
	for (size_t i = 0; i < g->n_patterns; i++)
		if (matches(g->pattern[i], channel))
			return true;
	return g->any_channel;
}
