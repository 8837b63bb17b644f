/* SPDX-License-Identifier: MIT */
#include "io/tls_tickets.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"

#define KEY_LIFE_NS (12 * 3600 * NS_PER_S) /* as the younger one, and again as the older one */

struct WB_VALUE ticket_key {
	uint8_t name[16];
	uint8_t cipher[32]; /* AES-256-CBC */
	uint8_t mac[32];    /* HMAC-SHA-256 */
	uint64_t made_ns;   /* 0: there is none */
};

struct WB_SHARED tls_tickets {
	_Atomic unsigned refs;
	pthread_mutex_t lock; /* held for a copy: once in a handshake */
	struct ticket_key young, old;
};

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
	if (t)
		atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

struct tls_tickets *tls_tickets_unref(struct tls_tickets *t)
{
	/* Release: this thread's use comes first. Acquire: pairs with those of all others. */
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	pthread_mutex_destroy(&t->lock);
	/* What is left in freed memory would open every ticket, and so every resumed session. */
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
	return NULL;
}

static bool ticket_key_make(struct ticket_key *k)
{
	k->made_ns = clock_now_ns();
	return RAND_bytes(k->name, sizeof(k->name)) == 1 &&
	       RAND_bytes(k->cipher, sizeof(k->cipher)) == 1 &&
	       RAND_bytes(k->mac, sizeof(k->mac)) == 1;
}

/* The key that makes tickets now; false when there is none, for want of random bytes. */
static bool tickets_key_now(struct tls_tickets *t, struct ticket_key *ret)
{
	bool is_good = true;

	pthread_mutex_lock(&t->lock);
	if (!t->young.made_ns || clock_now_ns() - t->young.made_ns >= KEY_LIFE_NS) {
		struct ticket_key fresh = {0};

		/* Made beside the others: without random bytes the keys that are there stay. */
		is_good = ticket_key_make(&fresh);
		if (is_good) {
			t->old = t->young;
			t->young = fresh;
		}
	}
	*ret = t->young;
	pthread_mutex_unlock(&t->lock);
	return is_good;
}

/* The key that a ticket names; @ret_is_old: its client is to be given a new ticket. */
static bool tickets_key_named(struct tls_tickets *t, const uint8_t name[16], struct ticket_key *ret,
			      bool *ret_is_old)
{
	uint64_t age;

	pthread_mutex_lock(&t->lock);
	*ret = memcmp(t->young.name, name, sizeof(t->young.name)) == 0 ? t->young : t->old;
	pthread_mutex_unlock(&t->lock);
	/*
	 * Nothing takes keys away where no tickets are made any more, so a key's age is looked at
	 * here, too. A key that was never made has the name of zeros, which anybody can write.
	 */
	age = clock_now_ns() - ret->made_ns;
	*ret_is_old = age >= KEY_LIFE_NS;
	return ret->made_ns && memcmp(ret->name, name, sizeof(ret->name)) == 0 &&
	       age < 2 * KEY_LIFE_NS;
}

static int context_index; /* of the keys, in an SSL_CTX; < 0: OpenSSL has no memory for one */

/*
 * OpenSSL's question: with which key is this ticket made or opened?
 * See SSL_CTX_set_tlsext_ticket_key_evp_cb(3). Return: 1 with this one | 2 with this one, and
 * the client gets a new ticket | 0 with none: a full handshake | -1 nothing works.
 */
static int ticket_key_wanted(SSL *ssl, unsigned char name[16], unsigned char *iv,
			     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int is_making)
{
	struct tls_tickets *t = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_index);
	struct ticket_key key;
	OSSL_PARAM params[3];
	char digest[] = "SHA256";
	bool is_old = false;
	int r;

	if (is_making ? !tickets_key_now(t, &key) : !tickets_key_named(t, name, &key, &is_old))
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
	/* OpenSSL has its own copies by now; the one on the stack would outlive the key. */
	OPENSSL_cleanse(&key, sizeof(key));
	return !r ? -1 : is_old ? 2 : 1;
}

static void context_index_make(void)
{
	context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

int tls_tickets_use(struct tls_tickets *t, struct ssl_ctx_st *c)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, context_index_make);
	if (context_index < 0 || SSL_CTX_set_ex_data(c, context_index, t) != 1 ||
	    SSL_CTX_set_tlsext_ticket_key_evp_cb(c, ticket_key_wanted) != 1)
		return -ENOMEM;
	return 0;
}
