/* SPDX-License-Identifier: MIT */
#include "wire/token.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/text.h"
#include "containers/buf.h"
#include "wire/base64url.h"

/* Seconds of the largest date that is taken as it is; it has room for the leeway behind it. */
#define DATE_MAX_S UINT64_C(1000000000000000)

/* ------------------------------------------------------------------------- claims */

/* Two members of one name: readers differ in which of them counts, so there is no such part. */
static json_t *part_load(const char *p, size_t n)
{
	uint8_t text[TOKEN_MAX];
	size_t len;

	if (!base64url_decode(p, n, text, sizeof(text), &len))
		return NULL;
	return json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, NULL);
}

/* A NumericDate (RFC 7519 section 2); @dflt without the claim. False: it is of another type. */
static bool claim_date(const json_t *claims, const char *name, uint64_t dflt, uint64_t *ret)
{
	const json_t *v = json_object_get(claims, name);
	double seconds;

	*ret = dflt;
	if (!v)
		return true;
	if (!json_is_number(v))
		return false;
	/* Compared before it is converted: a double that doesn't fit has no defined result. */
	seconds = json_number_value(v);
	if (seconds <= 0)
		*ret = 0;
	else
		*ret = seconds >= (double)DATE_MAX_S ? DATE_MAX_S : (uint64_t)seconds;
	return true;
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
		if (!json_is_string(v))
			return false;
		*ret_bytes += json_string_length(v) + 1;
	}
	return true;
}

/* A claim of a wrong type refuses the token: to pass over it would grant more than was meant. */
static enum token_result claims_read(const json_t *claims, uint64_t now_s, struct grant **ret)
{
	const json_t *sub = json_object_get(claims, "sub"), *v;
	const json_t *channels = json_object_get(claims, "channels");
	const json_t *publish = json_object_get(claims, "publish");
	uint64_t expires, not_before;
	struct grant *g;
	size_t bytes, i;

	if (!json_is_object(claims) || !sub || !json_is_string(sub) ||
	    !grant_is_user_id(json_string_value(sub)) ||
	    !claim_measure_channels(channels, &bytes) || (publish && !json_is_boolean(publish)) ||
	    !claim_date(claims, "exp", UINT64_MAX - TOKEN_LEEWAY_S, &expires) ||
	    !claim_date(claims, "nbf", 0, &not_before))
		return TOKEN_E_CLAIMS;
	if (now_s >= expires + TOKEN_LEEWAY_S)
		return TOKEN_E_EXPIRED;
	if (now_s + TOKEN_LEEWAY_S < not_before)
		return TOKEN_E_EARLY;
	g = grant_new(json_string_value(sub), json_array_size(channels), bytes);
	if (!g)
		return TOKEN_E_MEMORY;
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

static const char *member_text(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* Whether a token with this kid may be signed with @k, as far as names tell. */
static bool kid_fits(const struct token_keys *keys, const struct token_named_key *k,
		     const char *kid)
{
	if (!kid)
		return true;
	/* A key without a name is meant only where it is the only one. */
	return k->kid[0] ? strcmp(kid, k->kid) == 0 : keys->n == 1;
}

/* Whether a key is meant; what the token says of its algorithm has to be the key's. */
static enum token_result signature_check(const struct token_keys *keys, const json_t *header,
					 const char *text, size_t n, const uint8_t *sig,
					 size_t sig_n)
{
	const char *algorithm = member_text(header, "alg"), *kid = member_text(header, "kid");
	enum token_result r = kid ? TOKEN_E_KEY : TOKEN_E_ALGORITHM;

	/* What is critical and not understood: RFC 7515 section 4.1.11. */
	if (!algorithm || json_object_get(header, "crit") ||
	    (json_object_get(header, "kid") && !kid))
		return TOKEN_E_MALFORMED;
	for (size_t i = 0; i < keys->n; i++) {
		const struct token_key *k = &keys->at[i].key;

		if (!kid_fits(keys, &keys->at[i], kid))
			continue;
		/* Before anything is computed: RFC 8725 section 3.1. */
		if (strcmp(algorithm, token_key_algorithm(k)) != 0) {
			r = r == TOKEN_E_SIGNATURE ? r : TOKEN_E_ALGORITHM;
			continue;
		}
		if (token_key_verify(k, text, n, sig, sig_n))
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
	uint8_t sig[TOKEN_KEY_SIGNATURE_MAX];
	json_t *header, *claims;
	enum token_result r;
	size_t sig_n;

	if (!second || n > TOKEN_MAX ||
	    !base64url_decode(second + 1, n - (size_t)(second + 1 - p), sig, sizeof(sig), &sig_n))
		return TOKEN_E_MALFORMED;
	header = part_load(p, (size_t)(first - p));
	r = json_is_object(header)
		    ? signature_check(keys, header, p, (size_t)(second - p), sig, sig_n)
		    : TOKEN_E_MALFORMED;
	json_decref(header);
	/* Claims are read once somebody vouches for them. */
	if (r != TOKEN_OK)
		return r;
	claims = part_load(first + 1, (size_t)(second - first - 1));
	r = claims ? claims_read(claims, now_s, ret) : TOKEN_E_MALFORMED;
	json_decref(claims);
	return r;
}

const char *token_result_text(enum token_result r)
{
	/* For the log alone: the client learns that it is refused, and no more. */
	static const char *const text[TOKEN_N_RESULTS] = {
		[TOKEN_OK] = "valid",
		[TOKEN_E_MALFORMED] = "it is no signed token",
		[TOKEN_E_ALGORITHM] = "its algorithm is not that of the key",
		[TOKEN_E_KEY] = "its kid names no key",
		[TOKEN_E_SIGNATURE] = "its signature is wrong",
		[TOKEN_E_EXPIRED] = "it has expired",
		[TOKEN_E_EARLY] = "it is not valid yet",
		[TOKEN_E_CLAIMS] = "its claims cannot be used",
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
