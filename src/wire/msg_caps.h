/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Capabilities: what a client says that it can do, words on the wire and bits in here.
 *
 * Each codec of wire/zip.h is one, whose bit is 1u << its CompressionType; MSG_CAPS has the
 * others beside them. Masks, names, counts and the sets by which receivers are told apart
 * follow from these rows.
 *
 * A hand-over carries the bits: a bit keeps its meaning for ever, and one that is given up is
 * not used again.
 */

#include <assert.h>

#include "base/base.h"
#include "wire/zip.h"

/* X(NAME, name, bit): MSG_CAP_NAME is 1u << bit. In the order in which the server names them. */
#define MSG_CAPS(X)                \
	ZIP_CODECS(X)              \
	X(ACK, ack, 0)             \
	X(HEARTBEAT, heartbeat, 4) \
	X(ONCE, once, 5)           \
	X(RESUME, resume, 6)

#define MSG_CAP_BIT(NAME, name, bit) MSG_CAP_##NAME = 1u << (bit),
#define MSG_CAP_OR(NAME, name, bit) | 1u << (bit)
#define MSG_CAP_COUNT(NAME, name, bit) +1

enum msg_cap { MSG_CAPS(MSG_CAP_BIT) };

enum {
	MSG_N_CAPS = 0 MSG_CAPS(MSG_CAP_COUNT),
	MSG_CAPS_ALL = 0 MSG_CAPS(MSG_CAP_OR),
	MSG_CAPS_CODECS = 0 ZIP_CODECS(MSG_CAP_OR),
	MSG_CAPS_CODEC_LOWEST = MSG_CAPS_CODECS & -MSG_CAPS_CODECS,
	MSG_N_CODEC_SETS = MSG_CAPS_CODECS / MSG_CAPS_CODEC_LOWEST + 1,
};

static_assert(MSG_CAP_ACK == 1 && MSG_CAP_GZIP == 2 && MSG_CAP_ZSTD == 4 && MSG_CAP_LZ4 == 8,
	      "the bits that version 0.1.0 has left in states");

/* Whether who has @caps reads data that is packed so; @kind is a codec's. */
static inline bool msg_caps_read(unsigned caps, enum zip_kind kind)
{
	return caps & 1u << kind;
}

/* The codecs among @caps as a number below MSG_N_CODEC_SETS; equal sets, equal numbers. */
static inline unsigned msg_caps_codec_set(unsigned caps)
{
	return (caps & MSG_CAPS_CODECS) / MSG_CAPS_CODEC_LOWEST;
}

/* The capabilities that make up such a set. */
static inline unsigned msg_caps_of_codec_set(unsigned set)
{
	return set * MSG_CAPS_CODEC_LOWEST;
}

/*
 * The known ones among @names as MSG_CAP_ bits, with those that they imply; the others are passed
 * over.
 */
WB_ANY_THREAD unsigned msg_caps_parse(char *const *names, size_t n);

/* Writes the names of @caps (at most @n) to @ret_names (constant texts). Return: how many. */
WB_ANY_THREAD size_t msg_caps_names(unsigned caps, const char **ret_names, size_t n);
