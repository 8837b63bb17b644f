/* SPDX-License-Identifier: MIT */
#include "wire/token_key.h"

#include <ctype.h>
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
#include <openssl/x509.h>
#include <string.h>
#include <time.h>

#define RSA_MIN_BITS 2048
#define ES256_PART 32 /* bytes of r, and of s: RFC 7518 section 3.4 */
#define HS256_BYTES 32

/* ------------------------------------------------------------------------ PEM keys */

static bool pkey_is_on_p256(const EVP_PKEY *pkey)
{
	char group[64] = "";

	return EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, group,
					      sizeof(group), NULL) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

/* The type of the key decides the algorithm, once and for all. */
static enum token_key_result key_take_pkey(struct token_key *k, EVP_PKEY *pkey)
{
	k->pkey = pkey;
	/* RFC 7518 sections 3.3 and 3.4 say which keys are long enough, and on which curve. */
	if (!pkey)
		return TOKEN_KEY_E_PEM;
	if (EVP_PKEY_is_a(pkey, "RSA")) {
		k->algorithm = TOKEN_RS256;
		return EVP_PKEY_get_bits(pkey) < RSA_MIN_BITS ? TOKEN_KEY_E_RSA_BITS : TOKEN_KEY_OK;
	}
	if (EVP_PKEY_is_a(pkey, "EC")) {
		k->algorithm = TOKEN_ES256;
		return pkey_is_on_p256(pkey) ? TOKEN_KEY_OK : TOKEN_KEY_E_CURVE;
	}
	k->algorithm = TOKEN_EDDSA;
	return EVP_PKEY_is_a(pkey, "ED25519") ? TOKEN_KEY_OK : TOKEN_KEY_E_ALGORITHM;
}

static uint64_t unix_time_of(const ASN1_TIME *t)
{
	struct tm tm;
	time_t s = ASN1_TIME_to_tm(t, &tm) == 1 ? timegm(&tm) : 0;

	return s > 0 ? (uint64_t)s : 0;
}

/* One block of PEM, already out of its base64. */
struct WB_VALUE pem_block {
	char *name, *header;
	uint8_t *der;
	long n;
};

static bool pem_is(const struct pem_block *b, const char *name)
{
	return strcmp(b->name, name) == 0;
}

static enum token_key_result key_load_certificate(struct token_key *k, const struct pem_block *b)
{
	const uint8_t *p = b->der;
	X509 *x = d2i_X509(NULL, &p, b->n);
	EVP_PKEY *pkey = x ? X509_get_pubkey(x) : NULL;

	if (x)
		k->not_after_s = unix_time_of(X509_get0_notAfter(x));
	X509_free(x);
	return key_take_pkey(k, pkey);
}

/* A private key has its public one in it: `wsbind token` signs with it, the server verifies. */
static enum token_key_result key_load_block(struct token_key *k, const struct pem_block *b)
{
	const uint8_t *p = b->der;

	k->not_after_s = UINT64_MAX;
	/* Nobody is there to be asked for a passphrase. */
	if (pem_is(b, "ENCRYPTED PRIVATE KEY") || strstr(b->header, "ENCRYPTED"))
		return TOKEN_KEY_E_LOCKED;
	if (pem_is(b, "CERTIFICATE") || pem_is(b, "X509 CERTIFICATE"))
		return key_load_certificate(k, b);
	if (strstr(b->name, "CERTIFICATE REQUEST"))
		return TOKEN_KEY_E_REQUEST;
	if (pem_is(b, "PUBLIC KEY"))
		return key_take_pkey(k, d2i_PUBKEY(NULL, &p, b->n));
	if (pem_is(b, "RSA PUBLIC KEY"))
		return key_take_pkey(k, d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, b->n));
	if (!pem_is(b, "PRIVATE KEY") && !pem_is(b, "RSA PRIVATE KEY") &&
	    !pem_is(b, "EC PRIVATE KEY"))
		return TOKEN_KEY_E_PEM;
	k->is_secret = true;
	return key_take_pkey(k, d2i_AutoPrivateKey(NULL, &p, b->n));
}

static enum token_key_result key_load_pem(struct token_key *k, size_t max, const uint8_t *p,
					  size_t n, size_t *ret_n)
{
	BIO *bio = BIO_new_mem_buf(p, (int)n);
	enum token_key_result r = bio ? TOKEN_KEY_OK : TOKEN_KEY_E_MEMORY;
	struct pem_block b;
	size_t count = 0;

	while (r == TOKEN_KEY_OK && PEM_read_bio(bio, &b.name, &b.header, &b.der, &b.n) == 1) {
		/* `openssl ecparam -genkey` writes the name of the curve in front of the key. */
		if (!pem_is(&b, "EC PARAMETERS"))
			r = count == max ? TOKEN_KEY_E_MANY : key_load_block(&k[count++], &b);
		OPENSSL_clear_free(b.der, (size_t)b.n);
		OPENSSL_free(b.name);
		OPENSSL_free(b.header);
	}
	/* What stands behind the last good one and was not read would be a key that is missing. */
	if (r == TOKEN_KEY_OK &&
	    (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		r = TOKEN_KEY_E_PEM;
	BIO_free(bio);
	*ret_n = count;
	return r;
}

/* ------------------------------------------------------------------------- secrets */

/* A SEQUENCE that begins with another or with a number: so do keys, certificates, bundles. */
static bool is_der(const uint8_t *p, size_t n)
{
	ASN1_SEQUENCE_ANY *parts = d2i_ASN1_SEQUENCE_ANY(NULL, &p, (long)n);
	int first = V_ASN1_UNDEF;

	/* Of random bytes few are a SEQUENCE to their very end; of these, fewer begin so. */
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
	/* It may be a secret after all, that only looked like base64. */
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

/* Bytes of a file have no NUL behind them. */
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

/* Whether it is a key in another form than PEM, which others may know. TOKEN_KEY_OK: no. */
static enum token_key_result key_other_form(const uint8_t *p, size_t n)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";

	if (is_der(p, n))
		return TOKEN_KEY_E_DER;
	/* Text may have something in front that its readers pass over. */
	if (begins_with(p, n, byte_order_mark)) {
		p += strlen(byte_order_mark);
		n -= strlen(byte_order_mark);
	}
	while (n > 0 && isspace(*p)) {
		p++;
		n--;
	}
	if (is_base64_of_der(p, n))
		return TOKEN_KEY_E_DER_BASE64;
	if (is_json(p, n))
		return TOKEN_KEY_E_JSON;
	return is_ssh(p, n) ? TOKEN_KEY_E_SSH : TOKEN_KEY_OK;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Whether it is text, and begins or ends with what no editor shows. */
static bool has_blank_end(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_blank(p[i]) && (p[i] < ' ' || p[i] == 0x7f))
			return false;
	return is_blank(p[0]) || is_blank(p[n - 1]);
}

static enum token_key_result key_load_secret(struct token_key *k, const uint8_t *p, size_t n)
{
	enum token_key_result r = key_other_form(p, n);

	if (r != TOKEN_KEY_OK)
		return r;
	if (begins_with(p, n, "\xff\xfe") || begins_with(p, n, "\xfe\xff"))
		return TOKEN_KEY_E_UTF16;
	/* What editors add, and nobody means: a mark in front, the end of a line behind. */
	if (begins_with(p, n, "\xef\xbb\xbf")) {
		p += 3;
		n -= 3;
	}
	/* Who wants one in the secret writes two. */
	if (n > 0 && p[n - 1] == '\n')
		n -= n > 1 && p[n - 2] == '\r' ? 2 : 1;
	if (n < TOKEN_KEY_SECRET_MIN)
		return TOKEN_KEY_E_SHORT;
	k->algorithm = TOKEN_HS256;
	k->not_after_s = UINT64_MAX;
	k->is_secret = true;
	k->has_blank_end = has_blank_end(p, n);
	k->secret = malloc(n);
	if (!k->secret)
		return TOKEN_KEY_E_MEMORY;
	memcpy(k->secret, p, n);
	k->secret_n = n;
	return TOKEN_KEY_OK;
}

/* ------------------------------------------------------------------------- the key */

/*
 * Of the secret, or of the public key: a private key and its public one are the same. Nothing
 * about a secret can be told from 64 bits of its digest.
 */
static enum token_key_result key_name(struct token_key *k)
{
	uint8_t *der = NULL, digest[EVP_MAX_MD_SIZE];
	int n = k->pkey ? i2d_PUBKEY(k->pkey, &der) : (int)k->secret_n;
	bool good = n > 0 && EVP_Digest(k->pkey ? der : k->secret, (size_t)n, digest, NULL,
					EVP_sha256(), NULL) == 1;

	OPENSSL_free(der);
	memcpy(&k->id, digest, sizeof(k->id));
	k->id |= 1;
	return good ? TOKEN_KEY_OK : TOKEN_KEY_E_MEMORY;
}

enum token_key_result token_key_load(struct token_key *k, size_t max, const uint8_t *p, size_t n,
				     size_t *ret_n)
{
	static const char pem[] = "-----BEGIN ";
	enum token_key_result r;

	ERR_clear_error();
	if (n > 0 && memmem(p, n, pem, strlen(pem))) {
		r = key_load_pem(k, max, p, n, ret_n);
	} else {
		*ret_n = MIN(max, (size_t)1);
		r = max == 0 ? TOKEN_KEY_E_MANY : key_load_secret(k, p, n);
	}
	for (size_t i = 0; r == TOKEN_KEY_OK && i < *ret_n; i++)
		r = key_name(&k[i]);
	/* What OpenSSL complained of would be taken for the failure of something later. */
	ERR_clear_error();
	return r;
}

void token_key_fini(struct token_key *k)
{
	/* Memory that is given back may be read by whoever gets it next. */
	EVP_PKEY_free(k->pkey);
	if (k->secret)
		OPENSSL_cleanse(k->secret, k->secret_n);
	free(k->secret);
	*k = (struct token_key){0};
}

const char *token_key_result_text(enum token_key_result r)
{
#define OTHER_FORM(name) "a key in another form (" name "): PEM is expected, or a raw secret"
	/* For an administrator, behind the file's name. */
	static const char *const text[TOKEN_KEY_N_RESULTS] = {
		[TOKEN_KEY_OK] = "a key",
		[TOKEN_KEY_E_PEM] = "no PEM key or certificate that can be read",
		[TOKEN_KEY_E_LOCKED] = "a key with a passphrase, which nobody is asked for",
		[TOKEN_KEY_E_REQUEST] = "a certificate signing request, and no certificate yet",
		[TOKEN_KEY_E_MANY] = "more than 32 keys in all",
		[TOKEN_KEY_E_RSA_BITS] = "an RSA key needs 2048 bits",
		[TOKEN_KEY_E_CURVE] = "an EC key has to be on the curve P-256",
		[TOKEN_KEY_E_ALGORITHM] = "not a key for RS256, ES256 or EdDSA",
		[TOKEN_KEY_E_DER] = OTHER_FORM("DER"),
		[TOKEN_KEY_E_DER_BASE64] = OTHER_FORM("DER in base64"),
		[TOKEN_KEY_E_JSON] = OTHER_FORM("JSON"),
		[TOKEN_KEY_E_SSH] = OTHER_FORM("that of SSH"),
		[TOKEN_KEY_E_UTF16] = "text in UTF-16, which is not the secret that it shows",
		[TOKEN_KEY_E_SHORT] = "a secret needs 32 bytes",
		[TOKEN_KEY_E_MEMORY] = "out of memory",
	};

	return text[r];
}

const char *token_key_algorithm(const struct token_key *k)
{
	static const char *const name[TOKEN_N_ALGORITHMS] = {
		[TOKEN_HS256] = "HS256",
		[TOKEN_RS256] = "RS256",
		[TOKEN_ES256] = "ES256",
		[TOKEN_EDDSA] = "EdDSA",
	};

	return name[k->algorithm];
}

/* ---------------------------------------------------------------------- signatures */

/* ES256 has two numbers side by side where OpenSSL wants DER, and the other way round. */
static int es256_to_der(const uint8_t *raw, uint8_t **ret)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(raw, ES256_PART, NULL);
	BIGNUM *s = BN_bin2bn(raw + ES256_PART, ES256_PART, NULL);
	int n = -1;

	/* The signature takes both numbers, or neither. */
	if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
		n = i2d_ECDSA_SIG(sig, ret);
	} else {
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(sig);
	return n;
}

/* Both numbers filled up with zeros in front: one of 256 begins with a zero byte. */
static bool es256_from_der(const uint8_t *der, size_t n, uint8_t raw[2 * ES256_PART])
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);
	bool is_good =
		sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, ES256_PART) == ES256_PART &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + ES256_PART, ES256_PART) == ES256_PART;

	ECDSA_SIG_free(sig);
	return is_good;
}

/* Ed25519 hashes by itself (RFC 8032 section 5.1); the others sign a digest. */
static const EVP_MD *key_digest(const struct token_key *k)
{
	return k->algorithm == TOKEN_EDDSA ? NULL : EVP_sha256();
}

/* What isn't right for any reason is no good signature; the reason is nobody's business. */
static bool key_verify_pkey(const struct token_key *k, const char *text, size_t n,
			    const uint8_t *sig, size_t sig_n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool is_good = ctx && EVP_DigestVerifyInit(ctx, NULL, key_digest(k), NULL, k->pkey) == 1 &&
		       EVP_DigestVerify(ctx, sig, sig_n, (const uint8_t *)text, n) == 1;

	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return is_good;
}

bool token_key_verify(const struct token_key *k, const char *text, size_t n, const uint8_t *sig,
		      size_t sig_n)
{
	uint8_t mac[HS256_BYTES], *der = NULL;
	unsigned mac_n = sizeof(mac);
	bool is_good;
	int der_n;

	/* In a time that doesn't tell how much of a guess was right. */
	if (k->algorithm == TOKEN_HS256)
		return sig_n == sizeof(mac) &&
		       HMAC(EVP_sha256(), k->secret, (int)k->secret_n, (const uint8_t *)text, n,
			    mac, &mac_n) &&
		       CRYPTO_memcmp(mac, sig, sizeof(mac)) == 0;
	if (k->algorithm != TOKEN_ES256)
		return key_verify_pkey(k, text, n, sig, sig_n);
	if (sig_n != 2 * (size_t)ES256_PART)
		return false;
	der_n = es256_to_der(sig, &der);
	is_good = der_n > 0 && key_verify_pkey(k, text, n, der, (size_t)der_n);
	OPENSSL_free(der);
	return is_good;
}

size_t token_key_sign(const struct token_key *k, const uint8_t *text, size_t n,
		      uint8_t out[TOKEN_KEY_SIGNATURE_MAX])
{
	size_t len = TOKEN_KEY_SIGNATURE_MAX;
	unsigned mac_n = TOKEN_KEY_SIGNATURE_MAX;
	uint8_t sig[TOKEN_KEY_SIGNATURE_MAX];
	EVP_MD_CTX *ctx;
	bool is_good;

	if (k->algorithm == TOKEN_HS256)
		return HMAC(EVP_sha256(), k->secret, (int)k->secret_n, text, n, out, &mac_n) ? mac_n
											     : 0;
	/* Of a public key alone it fails, and OpenSSL says so in a queue that nobody reads. */
	ctx = EVP_MD_CTX_new();
	is_good = ctx && EVP_DigestSignInit(ctx, NULL, key_digest(k), NULL, k->pkey) == 1 &&
		  EVP_DigestSign(ctx, sig, &len, text, n) == 1;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	if (!is_good)
		return 0;
	if (k->algorithm == TOKEN_ES256)
		return es256_from_der(sig, len, out) ? 2 * (size_t)ES256_PART : 0;
	memcpy(out, sig, len);
	return len;
}
