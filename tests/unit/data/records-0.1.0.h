/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What is in records-0.1.0.bin: shared by write-records-0.1.0.c, which wsbind 0.1.0 wrote it
 * with, and tests/unit/test-records-0.1.0.c, which expects it. Plain numbers and texts alone,
 * no constant of either version: what travels must not follow a constant that has changed.
 */

#include <stdint.h>

/* Clients, in the order in which they came: their cookies are one more. */
enum saved_client {
	SAVED_HALF_A_REQUEST,
	SAVED_REFUSED_429,
	SAVED_REFUSED_503,
	SAVED_AWAITS_PROXY,
	SAVED_AWAITS_TLS,
	SAVED_TOO_MANY,
	SAVED_ECHO,
	SAVED_DEAF,
	SAVED_THROTTLED,
	SAVED_HUP,
	SAVED_UNIX,
	SAVED_CAPS_ACK,
	SAVED_CAPS_GZIP,
	SAVED_CAPS_ZSTD,
	SAVED_CAPS_LZ4,
	SAVED_WINDOW_512,
	SAVED_WINDOW_4K,
	SAVED_WINDOW_32K,
	SAVED_TRANSIT_BODY,
	SAVED_TRANSIT_PACKED,
	SAVED_TRANSIT_UNPACKED,
	SAVED_TRANSIT_512,
	SAVED_TRANSIT_4K,
	SAVED_TRANSIT_32K,
	SAVED_GRANTED,
	SAVED_LEFT_PATH,
	SAVED_MEMBER_OF_THREE,
	SAVED_HALF_TEXT,
	SAVED_HALF_FRAME,
	SAVED_HALF_PING,
	SAVED_HALF_DEFLATED,
	SAVED_QUEUE,
	SAVED_CLOSING,
	SAVED_LINGERING,
	SAVED_TRANSFER,
	SAVED_BROKEN_TRANSFER,
	SAVED_CHUNK_PLAIN,
	SAVED_CHUNK_GZIP,
	SAVED_CHUNK_ZSTD,
	SAVED_CHUNK_LZ4,
	SAVED_LAGGARD,
	SAVED_INFLATING,
	SAVED_N_CLIENTS,
};

#define SAVED_CONFIG                                                                \
	"echo_path = /echo\nnotice_limit = 0\nmax_incoming_frames_per_second = 0\n" \
	"max_connections_per_ip = 0\n"

/* Numbers of the next messages, before the log of SAVED_ROOM was written. */
#define SAVED_ROOM "room"
#define SAVED_ROOM_SEQ 5000000000ULL
#define SAVED_HALL "s\xc3\xa4lon/1"
#define SAVED_HALL_SEQ 42ULL
#define SAVED_LOBBY_SEQ 700ULL

/* Messages in the log of SAVED_ROOM, from SAVED_ROOM_SEQ on; flags as records number them. */
struct saved_message {
	uint8_t flags;
	uint8_t packed_with;
	const char *payload;
};

static const struct saved_message saved_log[] = {
	{0, 0, "no flag"},          {1 << 0, 0, "a notice"},     {1 << 2, 0, "can be packed"},
	{1 << 3, 1, "is gzip"},     {1 << 3, 2, "is zstd"},      {1 << 3, 3, "is lz4"},
	{1 << 5, 0, "can deflate"}, {0, 0, "nobody needs this"}, {0, 0, "the last"},
};
#define SAVED_N_LOG (sizeof(saved_log) / sizeof(saved_log[0]))
#define SAVED_HOLE 7 /* of saved_log: its message is gone */

static inline uint64_t saved_sender(unsigned k)
{
	return 4711 + k;
}
static inline uint64_t saved_received_ns(unsigned k)
{
	return 900000000000ULL + k;
}

/* Bytes of a message in transit, of which 3 are out: which encoding follows the client. */
static const char *const saved_transit[] = {"the body",     "the packed",  "the unpacked",
					    "deflated 512", "deflated 4K", "deflated 32K"};

/* A file that is being received. */
#define SAVED_FILE "20260101T120000Z-CLIENT-7"
#define SAVED_PART "." SAVED_FILE ".part"
#define SAVED_FILE_BYTES "0123456789"

#define SAVED_FROZEN_NS 1000500000000ULL
#define SAVED_NEXT_SERIAL 7777ULL

/* What each client has of its own, told from @i, its number. */
static inline uint64_t saved_serial(unsigned i)
{
	return 1000 + i;
}
static inline uint64_t saved_connected_ms(unsigned i)
{
	return 1767268800000ULL + i;
}
static inline uint64_t saved_last_sign_ns(unsigned i)
{
	return 1000000000000ULL + i;
}
static inline uint64_t saved_ping_ns(unsigned i)
{
	return 1000100000000ULL + i;
}
static inline uint64_t saved_over_ns(unsigned i)
{
	return 1000200000000ULL + i;
}
static inline uint64_t saved_deadline_ns(unsigned i)
{
	return 1009000000000ULL + i;
}
static inline uint32_t saved_rate_second_ms(unsigned i)
{
	return 999000 + i;
}
static inline uint32_t saved_rate_frames(unsigned i)
{
	return 10 + i;
}
static inline uint16_t saved_close_code(unsigned i)
{
	return (uint16_t)(4000 + i);
}
static inline uint8_t saved_id_byte(unsigned i, unsigned k)
{
	return (uint8_t)(16 * i + k);
}
