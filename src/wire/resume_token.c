/* SPDX-License-Identifier: MIT */
#include "wire/resume_token.h"

#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

#include "containers/buf.h"
#include "wire/base64url.h"

#define MAC_BYTES 32
#define HEAD_BYTES (1 + 16 + 8)
#define BYTES_MAX (HEAD_BYTES + GRANT_USER_MAX + MAC_BYTES)
#define VERSION 0x10U
#define IS_SUBJECT 0x01U

int resume_key_draw(struct resume_key *ret)
{
	/* So few bytes come whole, once the kernel has any at all: it waits for that. */
	ssize_t n = getrandom(ret->byte, sizeof(ret->byte), 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)sizeof(ret->byte) ? 0 : -EIO;
}

bool resume_key_from(struct resume_key *ret, const void *secret, size_t n)
{
	unsigned len = 0;

	return EVP_Digest(secret, n, ret->byte, &len, EVP_sha256(), NULL) == 1 &&
	       len == sizeof(ret->byte);
}

static bool sign_bytes(const struct resume_key *key, const uint8_t *p, size_t n,
		       uint8_t out[MAC_BYTES])
{
	unsigned mac_n = MAC_BYTES;

	return HMAC(EVP_sha256(), key->byte, sizeof(key->byte), p, n, out, &mac_n) &&
	       mac_n == MAC_BYTES;
}

size_t resume_token_write(const struct resume_key *key, const struct resume_token *t,
			  char out[RESUME_TOKEN_TEXT])
{
	size_t user_n = strlen(t->user_id), n = HEAD_BYTES + user_n;
	WB_CLEANUP(buf_fini) struct buf text = {0};
	uint64_t number = htobe64(t->number);
	uint8_t bytes[BYTES_MAX];

	bytes[0] = (uint8_t)(VERSION | (t->is_subject ? IS_SUBJECT : 0));
	memcpy(bytes + 1, t->id, sizeof(t->id));
	memcpy(bytes + 17, &number, sizeof(number));
	memcpy(bytes + HEAD_BYTES, t->user_id, user_n);
	if (!sign_bytes(key, bytes, n, bytes + n) || base64url_append(&text, bytes, n + MAC_BYTES))
		return 0;
	memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	return text.len;
}

bool resume_token_read(const struct resume_key *key, const char *p, size_t n,
		       struct resume_token *ret)
{
	uint8_t bytes[BYTES_MAX], mac[MAC_BYTES];
	uint64_t number;
	size_t len;

	if (!base64url_decode(p, n, bytes, sizeof(bytes), &len) || len <= HEAD_BYTES + MAC_BYTES)
		return false;
	len -= MAC_BYTES;
	if ((bytes[0] & ~IS_SUBJECT) != VERSION || !sign_bytes(key, bytes, len, mac) ||
	    CRYPTO_memcmp(mac, bytes + len, MAC_BYTES) != 0)
		return false;
	*ret = (struct resume_token){.is_subject = bytes[0] & IS_SUBJECT};
	memcpy(ret->id, bytes + 1, sizeof(ret->id));
	memcpy(&number, bytes + 17, sizeof(number));
	ret->number = be64toh(number);
	/* Signed, and so written by us: but a key may be shared with who writes others. */
	memcpy(ret->user_id, bytes + HEAD_BYTES, len - HEAD_BYTES);
	return grant_is_user_id(ret->user_id) && strlen(ret->user_id) == len - HEAD_BYTES;
}
