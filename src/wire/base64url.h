/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * base64url without padding (RFC 4648 section 5, RFC 7515 section 2), as tokens have it.
 * OpenSSL's decoder knows the other alphabet alone, and passes over what is no digit.
 */

#include "base/base.h"

struct buf;

/**
 * base64url_decode() - read a text of digits
 * @cap:    bytes that @out has room for
 *
 * Each run of bytes has one text: bits behind the last byte have to be zero, and nothing but
 * digits may stand in it.
 *
 * Return:  false: no such text, or it stands for more than @cap bytes; @out may be written to.
 * Thread:  any.
 */
WB_ANY_THREAD bool base64url_decode(const char *p, size_t n, uint8_t *out, size_t cap,
				    size_t *ret_n) WB_NODISCARD;

/* Appends the text of @n bytes. Return: 0 | -ENOMEM, with a part of it appended. */
WB_ANY_THREAD int base64url_append(struct buf *b, const void *p, size_t n) WB_NODISCARD;
