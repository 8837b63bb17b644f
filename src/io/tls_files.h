/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Certificates and keys in PEM, read for OpenSSL out of a set of files, with words for an
 * administrator where there are none: OpenSSL's are about its own parts.
 */

#include "base/base.h"
#include "base/file_set.h"

struct evp_pkey_st;
struct stack_st_X509;

/**
 * tls_read_certificates() - every certificate in a file, in its order
 * @ret_why: on failure: what is wrong with it
 *
 * Return:  0, at least one | -EINVAL | -ENOMEM.
 * Owns:    *@ret is the caller's, by sk_X509_pop_free(3).
 */
int tls_read_certificates(struct file_set *files, const char *path, struct stack_st_X509 **ret,
			  const char **ret_why) WB_NODISCARD;

/**
 * tls_read_key() - the private key in a file
 *
 * Nobody is asked for a passphrase: a key that needs one is named as such.
 *
 * Return:  0 | -EINVAL | -ENOMEM.
 * Owns:    *@ret is the caller's, by EVP_PKEY_free(3).
 */
int tls_read_key(struct file_set *files, const char *path, struct evp_pkey_st **ret,
		 const char **ret_why) WB_NODISCARD;
