/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Bytes that people read, and back: UTF-8, hexadecimal, percent-encoding, UUIDs, and
 * the values of a configuration file.
 *
 * Everything here is pure: no state, no allocation, no locale. Whatever the input,
 * no function reads or writes past the lengths it was given.
 */

#include "base/base.h"

/* States of utf8_feed(). Any other value: inside a character that may yet become valid. */
#define UTF8_ACCEPT 0u
#define UTF8_REJECT 6u

/**
 * utf8_feed() - check the next piece of a text
 * @state: UTF8_ACCEPT at the start of a text, then what the last call returned
 *
 * Overlong forms, surrogates and what lies past U+10FFFF are invalid. A text is valid
 * when the state after its last piece is UTF8_ACCEPT.
 *
 * Return: the state after the piece. UTF8_REJECT as soon as no continuation could make
 *         the text valid (RFC 6455 section 8.1 asks for no more), and from then on.
 * Thread: any.
 * Cost:   ASCII goes 16 bytes a step, the rest one table look-up a byte.
 * Source: Unicode 15, table 3-7; the shift-based automaton is Per Vognsen's idea.
 */
WB_ANY_THREAD uint32_t utf8_feed(uint32_t state, const void *p, size_t n) WB_NODISCARD;

/* Whether the @n bytes are a whole UTF-8 text. */
WB_ANY_THREAD bool utf8_valid(const void *p, size_t n) WB_NODISCARD;

/* What a hexadecimal digit stands for, of either case; -1: it is none. */
WB_ANY_THREAD int hex_value(char c);

/**
 * hex_encode() - write bytes as lower-case hexadecimal digits
 * @out: 2 * @n digits and a NUL
 *
 * Thread: any.
 */
WB_ANY_THREAD void hex_encode(char *out, const void *p, size_t n);

/**
 * hex_decode() - read bytes written as hexadecimal digits of either case
 * @out: @n bytes; undefined on failure
 * @hex: 2 * @n digits; what follows is not looked at, and reading stops at a non-digit
 * @n:   bytes wanted
 *
 * Return: 0 | -EINVAL when a digit is something else.
 * Thread: any.
 */
WB_ANY_THREAD int hex_decode(void *out, const char *hex, size_t n) WB_NODISCARD;

/**
 * percent_decode() - undo the percent-encoding of a URI component
 * @out:   up to @cap bytes, no NUL added; may be @in itself; undefined on failure
 * @ret_n: bytes written
 *
 * "+" stays "+". The result may hold any byte, NUL too.
 *
 * Return: 0 | -EINVAL for a "%" without two hexadecimal digits | -ENOBUFS past @cap.
 * Thread: any.
 * Source: RFC 3986 section 2.1.
 */
WB_ANY_THREAD int percent_decode(char *out, size_t cap, const char *in, size_t n, size_t *ret_n)
	WB_NODISCARD;

/*
 * text_parse_*() - read the value of a setting
 *
 * The whole text has to be the value: no sign, no space around, nothing behind.
 *
 * Return: 0 | -EINVAL when it isn't one | -ERANGE when it doesn't fit the type.
 * Thread: any.
 */

/* "1500", "64K", "16M", "2G", "1T": bytes in steps of 1024; either case. */
WB_ANY_THREAD int text_parse_size(const char *s, uint64_t *ret_bytes) WB_NODISCARD;

/*
 * "30", "0.5s", "1500ms", "2m", "1h", also "us", "ns" and "d": a bare number is seconds, a
 * fraction has as many digits as one likes and is cut to whole nanoseconds. Either case.
 */
WB_ANY_THREAD int text_parse_duration(const char *s, uint64_t *ret_ns) WB_NODISCARD;

/* Decimal digits. */
WB_ANY_THREAD int text_parse_count(const char *s, uint64_t *ret_count) WB_NODISCARD;

/* yes no true false on off 1 0, in any case. */
WB_ANY_THREAD int text_parse_bool(const char *s, bool *ret_value) WB_NODISCARD;

/* "0.25", "10": digits and at most one point, whatever the locale; never negative or infinite. */
WB_ANY_THREAD int text_parse_real(const char *s, double *ret_value) WB_NODISCARD;

/**
 * text_format_size() - write bytes so that text_parse_size() reads the same number
 * @cap: 24 always suffices; a longer text is cut
 *
 * The largest unit that divides it: "16M", "1500", "0".
 *
 * Return: @out.
 * Thread: any.
 */
WB_ANY_THREAD char *text_format_size(char *out, size_t cap, uint64_t bytes);

/**
 * text_format_duration() - write nanoseconds so that text_parse_duration() reads the same number
 * @cap: 24 always suffices; a longer text is cut
 *
 * The largest unit up to hours that divides it: "2m", "30s", "1500ms", "0s".
 *
 * Return: @out.
 * Thread: any.
 */
WB_ANY_THREAD char *text_format_duration(char *out, size_t cap, uint64_t ns);

/**
 * text_escape() - make foreign bytes fit to be shown on a terminal or in a log
 * @cap: bytes of @out, NUL included; 4 * @n + 1 always suffices
 *
 * Printable ASCII and UTF-8 stay. Controls (C1 too), what breaks or turns the line around
 * (U+2028..202E, U+2066..2069), backslashes and invalid bytes become \xNN, byte by byte, so
 * that the original can be told from the result. What does not fit is cut between two
 * characters and ends in "...".
 *
 * Return: bytes written without the NUL, which is always there when @cap > 0.
 * Thread: any.
 */
WB_ANY_THREAD size_t text_escape(char *out, size_t cap, const char *in, size_t n);

/* What @cap of text_json() has to be for @n bytes of any kind. */
#define TEXT_JSON_CAP(n) (6 * (n) + 1)

/**
 * text_json() - write a text as the inside of a JSON string, without the quotes
 * @cap: bytes of @out, NUL included; TEXT_JSON_CAP(@n) always suffices
 *
 * Invalid UTF-8 becomes U+FFFD. What does not fit is left out from a character on, so that
 * the result is valid all the same.
 *
 * Return: bytes written without the NUL, which is always there when @cap > 0.
 * Thread: any.
 * Source: RFC 8259 section 7.
 */
WB_ANY_THREAD size_t text_json(char *out, size_t cap, const char *in, size_t n);

/*
 * Random bytes as the text of a version-4 UUID: version and variant are set, the other 122 bits
 * are @id's. RFC 9562 section 5.4.
 */
WB_ANY_THREAD void uuid4_format(char out[37], const uint8_t id[16]);

/* 0, or -EINVAL when @s is not 8-4-4-4-12 hexadecimal digits. Any version, either case. */
WB_ANY_THREAD int uuid_parse(const char *s, uint8_t ret_id[16]) WB_NODISCARD;

/**
 * text_next_word() - walk the words of a list that spaces or commas separate
 * @at: a place in a text that ends with NUL; moved behind the word
 *
 * Return: the word's length, *@at - that being its beginning; 0: there are no more.
 * Thread: any.
 */
WB_ANY_THREAD size_t text_next_word(const char **at);

/**
 * text_matches() - whether a name is one of those that a pattern means
 *
 * `*` stands for anything within a segment (up to the next "/"), `**` for anything at all;
 * everything else for itself.
 *
 * Thread: any.
 * Cost:   O(text * pattern).
 */
WB_ANY_THREAD bool text_matches(const char *pattern, const char *text) WB_NODISCARD;
