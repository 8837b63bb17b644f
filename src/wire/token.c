/* SPDX-License-Identifier: MIT */
#include "wire/token.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/text.h"
#include "containers/buf.h"
#include "wire/base64url.h"

/* The year 5138 in seconds, 1973 in milliseconds: whoever says more counts those. */
#define DATE_MAX_S 1e11

/* ------------------------------------------------------------------------- claims */

/*
 * Two members of one name: readers differ in which of them counts, so there is no such part.
 * Other claims may be anything that JSON has: numbers past 2^63, texts with a NUL.
 */
static json_t *part_load(const char *p, size_t n)
{
	uint8_t text[TOKEN_MAX];
	size_t len;

	if (!base64url_decode(p, n, text, sizeof(text), &len))
		return NULL;
	return json_loadb((const char *)text, len,
			  JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
}

/* A text without a NUL in it, or NULL. */
static const char *text_value(const json_t *v)
{
	const char *text = json_string_value(v);

	return text && strlen(text) == json_string_length(v) ? text : NULL;
}

static const char *member_text(const json_t *object, const char *name)
{
	return text_value(json_object_get(object, name));
}

/* A NumericDate (RFC 7519 section 2); @dflt without the claim. @wrong: for another type. */
static enum token_result claim_date(const json_t *claims, const char *name, uint64_t dflt,
				    enum token_result wrong, uint64_t *ret)
{
	const json_t *v = json_object_get(claims, name);
	double seconds;

	*ret = dflt;
	if (!v)
		return TOKEN_OK;
	if (!json_is_number(v))
		return wrong;
	/* Compared before it is converted: a double that doesn't fit has no defined result. */
	seconds = json_number_value(v);
	if (seconds >= DATE_MAX_S)
		return TOKEN_E_MILLISECONDS;
	*ret = seconds <= 0 ? 0 : (uint64_t)seconds;
	return TOKEN_OK;
}

static enum token_result claims_check_dates(const json_t *claims, uint64_t now_s,
					    uint64_t *ret_expires)
{
	uint64_t not_before;
	enum token_result r =
		claim_date(claims, "exp", UINT64_MAX - TOKEN_LEEWAY_S, TOKEN_E_EXP, ret_expires);

	if (r == TOKEN_OK)
		r = claim_date(claims, "nbf", 0, TOKEN_E_NBF, &not_before);
	if (r != TOKEN_OK)
		return r;
	if (now_s >= *ret_expires + TOKEN_LEEWAY_S)
		return TOKEN_E_EXPIRED;
	return now_s + TOKEN_LEEWAY_S < not_before ? TOKEN_E_EARLY : TOKEN_OK;
}

/* Whether @v, a text or a list of texts, holds @wanted. */
static bool audience_has(const json_t *v, const char *wanted)
{
	const json_t *one;
	size_t i;

	if (json_is_string(v))
		return text_value(v) && strcmp(text_value(v), wanted) == 0;
	json_array_foreach (v, i, one)
		if (text_value(one) && strcmp(text_value(one), wanted) == 0)
			return true;
	return false;
}

/* Whom it is for, and from: what was made for another service is no key to this one. */
static enum token_result claims_check_parties(const json_t *claims, const struct token_rules *rules)
{
	const json_t *aud = json_object_get(claims, "aud");
	const char *iss = member_text(claims, "iss");

	if (!rules->audience[0] && aud)
		return TOKEN_E_AUDIENCE_UNASKED;
	if (rules->audience[0] && !audience_has(aud, rules->audience))
		return TOKEN_E_AUDIENCE;
	if (rules->issuer[0] && (!iss || strcmp(iss, rules->issuer) != 0))
		return TOKEN_E_ISSUER;
	return TOKEN_OK;
}

/* Bytes of the patterns with their NULs. False: the claim is no list of texts. */
static bool claim_measure_channels(const json_t *channels, size_t *ret_bytes)
{
	size_t i;
	json_t *v;

	/* All of them first: the grant is one allocation. */
	*ret_bytes = 0;
	if (channels && !json_is_array(channels))
		return false;
	json_array_foreach (channels, i, v) {
		if (!text_value(v))
			return false;
		*ret_bytes += json_string_length(v) + 1;
	}
	return true;
}

/* A claim of a wrong type refuses the token: to pass over it would grant more than was meant. */
static enum token_result claims_check(const json_t *claims, const struct token_rules *rules,
				      uint64_t now_s, uint64_t *ret_expires, size_t *ret_bytes)
{
	const json_t *publish = json_object_get(claims, "publish");
	const char *sub = member_text(claims, "sub");
	enum token_result r;

	if (!json_is_object(claims))
		return TOKEN_E_CLAIMS;
	if (!sub || !grant_is_user_id(sub))
		return TOKEN_E_SUB;
	if (!claim_measure_channels(json_object_get(claims, "channels"), ret_bytes))
		return TOKEN_E_CHANNELS;
	if (publish && !json_is_boolean(publish))
		return TOKEN_E_PUBLISH;
	r = claims_check_dates(claims, now_s, ret_expires);
	return r == TOKEN_OK ? claims_check_parties(claims, rules) : r;
}

static enum token_result claims_read(const json_t *claims, const struct token_rules *rules,
				     uint64_t now_s, uint64_t key_id, struct grant **ret)
{
	const json_t *channels = json_object_get(claims, "channels"), *v;
	const json_t *publish = json_object_get(claims, "publish");
	uint64_t expires = 0;
	size_t bytes = 0, i;
	struct grant *g;
	enum token_result r = claims_check(claims, rules, now_s, &expires, &bytes);

	if (r != TOKEN_OK)
		return r;
	g = grant_new(member_text(claims, "sub"), json_array_size(channels), bytes);
	if (!g)
		return TOKEN_E_MEMORY;
	g->key_id = key_id;
	g->expires_s = json_object_get(claims, "exp") ? expires + TOKEN_LEEWAY_S : UINT64_MAX;
	g->may_publish = !publish || json_is_true(publish);
	/* An empty list is a list: it allows no channel at all. */
	g->any_channel = !channels;
	json_array_foreach (channels, i, v)
		grant_add_pattern(g, json_string_value(v));
	*ret = g;
	return TOKEN_OK;
}

/* ---------------------------------------------------------------------- verifying */

/* Whether a key is meant; what the token says of its algorithm has to be the key's. */
static enum token_result signature_check(const struct token_keys *keys, const json_t *header,
					 const char *text, size_t n, const uint8_t *sig,
					 size_t sig_n, uint64_t *ret_key_id)
{
	const char *algorithm = member_text(header, "alg"), *kid = member_text(header, "kid");
	enum token_result r = kid ? TOKEN_E_KEY : TOKEN_E_ALGORITHM;

	/* What is critical and not understood: RFC 7515 section 4.1.11. */
	if (!algorithm || json_object_get(header, "crit") ||
	    (json_object_get(header, "kid") && !kid))
		return TOKEN_E_MALFORMED;
	for (size_t i = 0; i < keys->n; i++) {
		const struct token_key *k = &keys->at[i].key;

		/* A key that has no name is meant by any. */
		if (kid && keys->at[i].kid[0] && strcmp(kid, keys->at[i].kid) != 0)
			continue;
		/* Before anything is computed: RFC 8725 section 3.1. */
		if (strcmp(algorithm, token_key_algorithm(k)) != 0) {
			r = r == TOKEN_E_SIGNATURE ? r : TOKEN_E_ALGORITHM;
			continue;
		}
		*ret_key_id = k->id;
		if (token_key_verify(k, text, n, sig, sig_n))
			return TOKEN_OK;
		r = TOKEN_E_SIGNATURE;
	}
	return r;
}

enum token_result token_verify(const struct token_keys *keys, const struct token_rules *rules,
			       const char *p, size_t n, uint64_t now_s, struct grant **ret)
{
	const char *first = n ? memchr(p, '.', n) : NULL;
	const char *second = first ? memchr(first + 1, '.', n - (size_t)(first + 1 - p)) : NULL;
	uint8_t sig[TOKEN_KEY_SIGNATURE_MAX];
	json_t *header, *claims;
	uint64_t key_id = 0;
	enum token_result r;
	size_t sig_n;

	if (n > TOKEN_MAX)
		return TOKEN_E_LONG;
	if (!second ||
	    !base64url_decode(second + 1, n - (size_t)(second + 1 - p), sig, sizeof(sig), &sig_n))
		return TOKEN_E_MALFORMED;
	header = part_load(p, (size_t)(first - p));
	r = json_is_object(header)
		    ? signature_check(keys, header, p, (size_t)(second - p), sig, sig_n, &key_id)
		    : TOKEN_E_MALFORMED;
	json_decref(header);
	/* Claims are read once somebody vouches for them. */
	if (r != TOKEN_OK)
		return r;
	claims = part_load(first + 1, (size_t)(second - first - 1));
	r = claims ? claims_read(claims, rules, now_s, key_id, ret) : TOKEN_E_MALFORMED;
	json_decref(claims);
	return r;
}

const char *token_result_text(enum token_result r)
{
	/* For the log alone: the client learns that it is refused, and no more. */
	static const char *const text[TOKEN_N_RESULTS] = {
		[TOKEN_OK] = "valid",
		[TOKEN_E_MALFORMED] = "it is no signed token",
		[TOKEN_E_LONG] = "it has more than 8192 bytes",
		[TOKEN_E_ALGORITHM] = "its algorithm is not that of the key",
		[TOKEN_E_KEY] = "its kid names no key",
		[TOKEN_E_SIGNATURE] = "its signature is wrong",
		[TOKEN_E_EXPIRED] = "it has expired",
		[TOKEN_E_EARLY] = "it is not valid yet",
		[TOKEN_E_CLAIMS] = "its claims are no JSON object",
		[TOKEN_E_SUB] = "its sub is no text of 1 to 128 bytes that can be a user id",
		[TOKEN_E_CHANNELS] = "its channels are no list of texts",
		[TOKEN_E_PUBLISH] = "its publish is neither true nor false",
		[TOKEN_E_EXP] = "its exp is no number",
		[TOKEN_E_NBF] = "its nbf is no number",
		[TOKEN_E_MILLISECONDS] = "its exp or nbf is no time in seconds; milliseconds?",
		[TOKEN_E_AUDIENCE] = "its aud does not hold jwt_audience",
		[TOKEN_E_AUDIENCE_UNASKED] = "it has an aud, and jwt_audience is not set",
		[TOKEN_E_ISSUER] = "its iss is not jwt_issuer",
		[TOKEN_E_MEMORY] = "out of memory",
	};

	return text[r];
}

/* ------------------------------------------------------------------------- making */

/* Appends one of the first two parts; @object is given away. */
static int part_append(struct buf *b, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	int r = text ? base64url_append(b, text, strlen(text)) : -ENOMEM;

	free(text);
	json_decref(object);
	return r;
}

static json_t *header_make(const struct token_named_key *k)
{
	json_t *header = json_pack("{s:s,s:s}", "alg", token_key_algorithm(&k->key), "typ", "JWT");

	/* Without memory jansson leaves a member out, and the token says less. */
	if (header && k->kid[0])
		(void)json_object_set_new(header, "kid", json_string(k->kid));
	return header;
}

static json_t *claims_make(const struct token_claims *claims)
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
	if (claims->audience[0])
		(void)json_object_set_new(object, "aud", json_string(claims->audience));
	if (claims->issuer[0])
		(void)json_object_set_new(object, "iss", json_string(claims->issuer));
	/* What is the default without the claim is not said. */
	if (!claims->may_publish)
		(void)json_object_set_new(object, "publish", json_false());
	return object;
}

char *token_make(const struct token_keys *keys, const struct token_claims *claims)
{
	uint8_t sig[TOKEN_KEY_SIGNATURE_MAX];
	struct buf b = {0};
	size_t sig_n;
	int r;

	r = part_append(&b, header_make(&keys->at[0]));
	if (r == 0)
		r = buf_append(&b, ".", 1, BUF_NO_LIMIT);
	if (r == 0)
		r = part_append(&b, claims_make(claims));
	/* Signed is the text, dot and all, and not what it stands for: RFC 7515 section 5.1. */
	sig_n = r == 0 ? token_key_sign(&keys->at[0].key, b.data, b.len, sig) : 0;
	if (sig_n == 0 || buf_append(&b, ".", 1, BUF_NO_LIMIT) ||
	    base64url_append(&b, sig, sig_n) || buf_append(&b, "", 1, BUF_NO_LIMIT)) {
		buf_fini(&b);
		return NULL;
	}
	return (char *)b.data;
}
