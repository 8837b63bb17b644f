/* SPDX-License-Identifier: MIT */
#include "io/tls_files.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/file.h"

/* What somebody put there instead of @wanted ("CERTIFICATE" or "PRIVATE KEY"). */
static const char *words_for(const uint8_t *p, size_t n, const char *wanted)
{
	bool wants_key = strcmp(wanted, "PRIVATE KEY") == 0;
	char begin[40];

	/* All that is written in DER begins with a SEQUENCE of some length, PKCS #12 as well. */
	if (n > 2 && p[0] == 0x30 && p[1] >= 0x80)
		return "is in DER or PKCS #12: PEM is expected";
	if (!memmem(p, n, "-----BEGIN ", 11))
		return n == 0 ? "is empty" : "is not in PEM";
	snprintf(begin, sizeof(begin), "%s-----", wanted);
	if (memmem(p, n, begin, strlen(begin)))
		return wants_key ? "has a private key that cannot be read"
				 : "has a certificate that cannot be read";
	if (memmem(p, n, "CERTIFICATE REQUEST-----", 24))
		return "has a certificate signing request, which is no certificate yet";
	if (wants_key)
		return memmem(p, n, "CERTIFICATE-----", 16)
			       ? "has a certificate and no private key; exchanged?"
			       : "has no private key";
	return memmem(p, n, "PRIVATE KEY-----", 16) ? "has a private key and no certificate; "
						      "exchanged?"
						    : "has no certificate";
}

static int no_good(const char **ret_why, const char *why)
{
	/* An error that stays in the thread's queue would be told as the next one's cause. */
	ERR_clear_error();
	*ret_why = why;
	return -EINVAL;
}

/* A file of the set as something that OpenSSL reads from, to be freed. */
static int file_open(struct file_set *files, const char *path, BIO **ret, const uint8_t **ret_data,
		     size_t *ret_n, const char **ret_why)
{
	int r = file_set_read(files, path, ret_data, ret_n);

	if (r == -ENOMEM)
		return r;
	if (r)
		return no_good(ret_why, file_result_text(r));
	ERR_clear_error();
	*ret = BIO_new_mem_buf(*ret_data, (int)*ret_n);
	return *ret ? 0 : -ENOMEM;
}

int tls_read_certificates(struct file_set *files, const char *path, struct stack_st_X509 **ret,
			  const char **ret_why)
{
	STACK_OF(X509) *all = sk_X509_new_null();
	const uint8_t *p;
	BIO *bio = NULL;
	X509 *x;
	size_t n;
	int r = all ? file_open(files, path, &bio, &p, &n, ret_why) : -ENOMEM;

	if (r == 0) {
		while ((x = PEM_read_bio_X509_AUX(bio, NULL, NULL, (void *)(uintptr_t) "")))
			if (sk_X509_push(all, x) <= 0)
				X509_free(x);
		/* What follows the last good one and cannot be read would be missing in a chain. */
		if (sk_X509_num(all) == 0 ||
		    ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
			r = no_good(ret_why, words_for(p, n, "CERTIFICATE"));
		ERR_clear_error();
	}
	BIO_free(bio);
	if (r)
		sk_X509_pop_free(all, X509_free);
	else
		*ret = all;
	return r;
}

/* Asked for a passphrase by OpenSSL, which would turn to the terminal without it. */
static int has_no_passphrase(char *out, int cap, int is_writing, void *was_asked)
{
	(void)out;
	(void)cap;
	(void)is_writing;
	*(bool *)was_asked = true;
	return -1;
}

int tls_read_key(struct file_set *files, const char *path, struct evp_pkey_st **ret,
		 const char **ret_why)
{
	bool was_asked = false;
	const uint8_t *p;
	BIO *bio = NULL;
	EVP_PKEY *key;
	size_t n;
	int r = file_open(files, path, &bio, &p, &n, ret_why);

	if (r)
		return r;
	key = PEM_read_bio_PrivateKey(bio, NULL, has_no_passphrase, &was_asked);
	BIO_free(bio);
	if (!key && was_asked)
		return no_good(ret_why, "needs a passphrase, which nobody is asked for; write it "
					"without one: openssl pkey -in FILE -out FILE");
	if (!key)
		return no_good(ret_why, words_for(p, n, "PRIVATE KEY"));
	ERR_clear_error();
	*ret = key;
	return 0;
}
