/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One key of tokens: what it is, read from the bytes of a file, and signatures by it
 * (RFC 7515; RFC 7518 section 3; RFC 8037).
 *
 * The algorithm is the key's, never what a token says: HS256 with a secret, RS256, ES256 or
 * EdDSA (Ed25519) with a key in PEM, public or private, or with that of an X.509 certificate.
 * What is neither PEM nor meant to be a secret, a key in DER, in JSON or of SSH, is refused:
 * as a secret it would be one that others know.
 */

#include "base/base.h"

#define TOKEN_KEY_SECRET_MIN 32      /* bytes of a secret: RFC 7518 section 3.2 */
#define TOKEN_KEY_SIGNATURE_MAX 1024 /* bytes: RSA of 8192 bits */

struct evp_pkey_st;

enum token_algorithm {
	TOKEN_HS256,
	TOKEN_RS256,
	TOKEN_ES256,
	TOKEN_EDDSA,
	TOKEN_N_ALGORITHMS,
};

/* All-zero is none. */
struct WB_FROZEN token_key {
	enum token_algorithm algorithm;
	struct evp_pkey_st *pkey; /* but for HS256 */
	uint8_t *secret;
	size_t secret_n;
	uint64_t id;          /* of the key, wherever it was read from; never 0 */
	uint64_t not_after_s; /* of a certificate: Unix time; else UINT64_MAX */
	bool is_secret;       /* who has it can sign: a secret or a private key */
	bool has_blank_end;   /* a secret in text that begins or ends with a blank */
};

enum token_key_result {
	TOKEN_KEY_OK,
	TOKEN_KEY_E_PEM,        /* PEM, but no key that OpenSSL reads */
	TOKEN_KEY_E_LOCKED,     /* PEM that needs a passphrase */
	TOKEN_KEY_E_REQUEST,    /* PEM of a certificate that is only asked for (PKCS #10) */
	TOKEN_KEY_E_MANY,       /* more keys than there is room */
	TOKEN_KEY_E_RSA_BITS,   /* RSA with less than 2048 bits: RFC 7518 section 3.3 */
	TOKEN_KEY_E_CURVE,      /* of another curve than P-256 */
	TOKEN_KEY_E_ALGORITHM,  /* for none of the four */
	TOKEN_KEY_E_DER,        /* a key, but not in PEM … */
	TOKEN_KEY_E_DER_BASE64, /* … (PEM without its first and last line) … */
	TOKEN_KEY_E_JSON,       /* … (RFC 7517) … */
	TOKEN_KEY_E_SSH,        /* … */
	TOKEN_KEY_E_UTF16,      /* text that no other program would read as the secret it shows */
	TOKEN_KEY_E_SHORT,      /* a secret of less than TOKEN_KEY_SECRET_MIN bytes */
	TOKEN_KEY_E_MEMORY,
	TOKEN_KEY_N_RESULTS,
};

/**
 * token_key_load() - make keys of what a file holds
 * @p:      PEM, of which every key is one; or a secret
 * @k:      room for @max; all-zero
 * @ret_n:  how many there are
 *
 * Of a secret neither a byte order mark in front is part nor one end of a line behind it.
 *
 * Owns:    token_key_fini() frees what each of the @max holds, whatever the result is.
 */
enum token_key_result token_key_load(struct token_key *k, size_t max, const uint8_t *p, size_t n,
				     size_t *ret_n) WB_NODISCARD;
void token_key_fini(struct token_key *k);

/* What is wrong with it, in words. */
WB_ANY_THREAD const char *token_key_result_text(enum token_key_result r);

/* "HS256": as the header of a token names it. */
WB_ANY_THREAD const char *token_key_algorithm(const struct token_key *k);

/* Whether a signature of @text is right. Thread: any. Cost: that of the algorithm. */
WB_ANY_THREAD bool token_key_verify(const struct token_key *k, const char *text, size_t n,
				    const uint8_t *sig, size_t sig_n) WB_NODISCARD;

/* Signs @text. Return: bytes of the signature; 0: the key has no private part. */
size_t token_key_sign(const struct token_key *k, const uint8_t *text, size_t n,
		      uint8_t out[TOKEN_KEY_SIGNATURE_MAX]) WB_NODISCARD;
