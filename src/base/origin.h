/* SPDX-License-Identifier: MIT */
#pragma once

/* Origins (RFC 6454) as an administrator writes them into a list of those that are allowed. */

#include "base/base.h"

/**
 * origin_flaw() - why no browser's Origin header can match a word of such a list
 *
 * A word is `*`, `null`, an origin (SCHEME://HOST, with :PORT where it isn't the default), a
 * host, or either with `*.` before its host. Browsers send hosts in punycode, addresses in
 * their shortest form, and neither path nor "/" (RFC 6454 section 6.2; WHATWG URL, "host
 * serializing").
 *
 * Return:  NULL, one can | a static text to stand behind the word.
 * Thread:  any.
 */
const char *origin_flaw(const char *p, size_t n);
