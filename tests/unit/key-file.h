/* SPDX-License-Identifier: MIT */
#pragma once

/* Files of keys for tests: in memory, with a path that others can open. */

#include <openssl/pem.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test.h"

struct key_file {
	int fd;
	char path[64];
};

static inline struct key_file key_file_of(const void *content, size_t n)
{
	struct key_file f = {.fd = memfd_create("key", MFD_CLOEXEC)};

	CHECK(f.fd >= 0);
	CHECK_EQ(write(f.fd, content, n), n);
	snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
	return f;
}

static inline struct key_file key_file_of_pkey(EVP_PKEY *pkey, bool is_private)
{
	BIO *bio = BIO_new(BIO_s_mem());
	struct key_file f;
	char *text;
	long n;

	CHECK_EQ(is_private ? PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL)
			    : PEM_write_bio_PUBKEY(bio, pkey),
		 1);
	n = BIO_get_mem_data(bio, &text);
	f = key_file_of(text, (size_t)n);
	BIO_free(bio);
	return f;
}
