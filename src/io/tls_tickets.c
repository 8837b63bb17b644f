/* SPDX-License-Identifier: MIT */
#include "io/tls_tickets.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define TICKET_KEY_NS (12 * 3600 * NS_PER_S)

struct WB_VALUE ticket_key {
	uint8_t name[16];
	uint8_t cipher[32]; /* AES-256-CBC */
	uint8_t mac[32];    /* HMAC-SHA-256 */
	uint64_t made_ns;   /* 0: there is none */
};

/* Two keys: the younger one makes tickets, the older one still opens them. */
struct WB_SHARED tls_tickets {
	_Atomic unsigned refs;
	pthread_mutex_t lock; /* held for a copy: once in a handshake */
	struct ticket_key young, old;
};

struct tls_tickets *tls_tickets_unref(struct tls_tickets *t)
{
	if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
		return NULL;
	pthread_mutex_destroy(&t->lock);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
	return NULL;
}

struct tls_tickets *tls_tickets_new(void)
{
	struct tls_tickets *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	atomic_init(&t->refs, 1);
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
	atomic_fetch_add(&t->refs, 1);
	return t;
}

static bool make_key(struct ticket_key *k)
{
	k->made_ns = clock_now_ns();
	return RAND_bytes(k->name, sizeof(k->name)) == 1 &&
	       RAND_bytes(k->cipher, sizeof(k->cipher)) == 1 &&
	       RAND_bytes(k->mac, sizeof(k->mac)) == 1;
}

/* The key that makes tickets now. */
static bool ticket_key_now(struct tls_tickets *t, struct ticket_key *ret)
{
	bool is_good = true;

	pthread_mutex_lock(&t->lock);
	if (!t->young.made_ns || clock_now_ns() - t->young.made_ns >= TICKET_KEY_NS) {
		struct ticket_key fresh = {0};

		is_good = make_key(&fresh);
		if (is_good) {
			t->old = t->young;
			t->young = fresh;
		}
	}
	*ret = t->young;
	pthread_mutex_unlock(&t->lock);
	return is_good;
}

/* The key of a ticket; @ret_is_old: it is time for a new ticket. */
static bool ticket_key_named(struct tls_tickets *t, const uint8_t name[16], struct ticket_key *ret,
			     bool *ret_is_old)
{
	uint64_t age;

	pthread_mutex_lock(&t->lock);
	*ret = memcmp(t->young.name, name, sizeof(t->young.name)) == 0 ? t->young : t->old;
	pthread_mutex_unlock(&t->lock);
	age = clock_now_ns() - ret->made_ns;
	*ret_is_old = age >= TICKET_KEY_NS;
	return ret->made_ns && memcmp(ret->name, name, sizeof(ret->name)) == 0 &&
	       age < 2 * TICKET_KEY_NS;
}

static int tickets_index; /* of the tickets in an SSL_CTX */

static void make_index(void)
{
	tickets_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

/* See SSL_CTX_set_tlsext_ticket_key_evp_cb(3). */
static int ticket_key_wanted(SSL *ssl, unsigned char name[16], unsigned char *iv,
			     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int is_making)
{
	struct tls_tickets *t = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tickets_index);
	struct ticket_key key;
	OSSL_PARAM params[3];
	char digest[] = "SHA256";
	bool is_old = false;
	int r;

	if (is_making ? !ticket_key_now(t, &key) : !ticket_key_named(t, name, &key, &is_old))
		return 0;
	params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac, sizeof(key.mac));
	params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
	params[2] = OSSL_PARAM_construct_end();
	if (is_making) {
		memcpy(name, key.name, sizeof(key.name));
		r = RAND_bytes(iv, 16) == 1 &&
		    EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher, iv) == 1;
	} else {
		r = EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher, iv) == 1;
	}
	r = r && EVP_MAC_CTX_set_params(mac, params) == 1;
	OPENSSL_cleanse(&key, sizeof(key));
	return !r ? -1 : is_old ? 2 : 1;
}

int tls_tickets_use(struct tls_tickets *t, SSL_CTX *context)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, make_index);
	if (tickets_index < 0 || SSL_CTX_set_ex_data(context, tickets_index, t) != 1 ||
	    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_key_wanted) != 1)
		return -ENOMEM;
	return 0;
}
