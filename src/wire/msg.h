/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The WebSocketMessage of proto/message.proto: reading what came, building what goes.
 *
 * msg_decode() fills the structs that protoc-c generated, guided by their descriptors, in one
 * walk over the bytes, which msg_decoder cuts into steps. It is not protobuf-c's own unpack, for
 * three reasons:
 *
 *   - What clients send goes on to every other member byte for byte, so it has to be something
 *     that every protobuf implementation reads. protobuf-c checks no UTF-8, shows strings as
 *     char * (an embedded NUL hides what follows), takes field number 0 and varints that
 *     overflow; others refuse these, and one hostile client would break all the others.
 *   - Fields of type bytes and unknown fields point into the input instead of being copied.
 *   - A payload that appears twice is merged, as the protobuf specification says.
 *
 * Where both accept an input, the outcome is the same as protobuf-c's; a test compares them. What
 * others pass over and protobuf-c refuses is passed over: groups, and a field that is known but
 * comes with another wire type. Everything is bounded by the arena; the nesting is that of the four
 * known messages, and MSG_GROUPS_MAX of groups.
 *
 * A builder makes the server's and the client's own messages on the caller's stack. It borrows
 * every text and byte that it is given until the last msg_size() or msg_pack(), may not be
 * copied or moved (it points into itself), and needs no fini.
 */

#include "base/base.h"
#include "message.pb-c.h"
#include "wire/msg_caps.h"

struct arena;
struct buf;

/* Longest request_id that an answer repeats [bytes]; a longer one is left out. A UUID has 16. */
#define MSG_REQUEST_ID_MAX 64

#define MSG_CHANNEL_MAX 255 /* bytes of a channel's name */

#define MSG_SENDER_BYTES 16 /* a client id */

#define MSG_NUMBER_BYTES 8                      /* of `sequence`: as many whatever its value … */
#define MSG_NUMBER_FIELD (MSG_NUMBER_BYTES + 2) /* … and with its tag */

/* Room for msg_suffix() of any channel name: a tag and a length of two bytes each. */
#define MSG_SUFFIX_MAX (MSG_CHANNEL_MAX + 4 + MSG_SENDER_BYTES + 3 + 12 + MSG_NUMBER_FIELD)

enum msg_result {
	MSG_OK = 0,
	MSG_NOT_A_MESSAGE, /* not protobuf */
	MSG_BAD_UTF8,      /* a string field is not UTF-8 */
	MSG_BAD_TEXT,      /* a NUL in channel, channels, session_id, user_id or checksum */
	MSG_LONG_LIST,     /* msg_decode_bounded() only: past its bound */
	MSG_TWO_PAYLOADS,  /* of different kinds: readers differ on which counts */
	MSG_UNKNOWN_TYPE,  /* MessageType UNKNOWN or either type not in its enum */
	MSG_WRONG_PAYLOAD, /* payload missing, or of another kind than the type says */
	MSG_BAD_CHECKSUM,  /* msg_check_binary() only */
	MSG_RESERVED_USER, /* msg_check_chat() only: user_id is "system" */
	MSG_TOO_BIG,       /* the arena's limit is reached */
	MSG_N_RESULTS,
	MSG_UNFINISHED = MSG_N_RESULTS, /* msg_decoder_run() only: the budget is used up */
};

/* One message to send; `m.payload_case` says which of the union's members is in use. */
struct WB_VALUE msg_builder {
	Websocket__WebSocketMessage m;
	union {
		Websocket__ChatMessage chat;
		Websocket__BinaryData binary;
		Websocket__ControlMessage control;
	};
	char *capabilities[MSG_N_CAPS + 1];
	uint8_t own_id[16];
	char checksum[9];
};

/**
 * msg_decode() - read one WebSocketMessage
 * @a:    holds the structs and the strings (NUL-terminated copies) of the result
 * @p:    the message's bytes; `bytes` fields and unknown fields of the result point into them
 * @ret:  the message
 *
 * Several payloads of one kind on the wire are merged. A HEARTBEAT's payload is not looked at. Enum
 * values of CompressionType are not checked: a message with an unknown one can be passed on, but
 * not unpacked.
 *
 * Return: MSG_OK, or the first of MSG_NOT_A_MESSAGE, MSG_TOO_BIG, MSG_BAD_UTF8, MSG_BAD_TEXT,
 *         MSG_UNKNOWN_TYPE, MSG_WRONG_PAYLOAD that applies. After all but the first two @ret is
 *         set as well, so that an answer can repeat the request_id.
 * Owns:   nothing to free; the result lives until the arena is reset or @p changes.
 * Thread: any, with its own arena.
 * Cost:   O(n) without reading `bytes` fields; one arena allocation for each struct and string.
 * Source: protobuf.dev, Encoding; spec, Wire protocol.
 */
WB_ANY_THREAD enum msg_result msg_decode(struct arena *a, const uint8_t *p, size_t n,
					 Websocket__WebSocketMessage **ret) WB_NODISCARD;

/**
 * msg_decode_bounded() - the same for a message from somebody who has limits
 * @max_list: most that a list may have, mentions left out; what is past it is not looked at
 *
 * Return: as msg_decode(), and behind MSG_BAD_TEXT in order MSG_LONG_LIST: @ret is set.
 */
WB_ANY_THREAD enum msg_result msg_decode_bounded(struct arena *a, const uint8_t *p, size_t n,
						 size_t max_list, Websocket__WebSocketMessage **ret)
	WB_NODISCARD;

#define MSG_CUTS 4 /* of fields that are the server's alone; who sends more wants trouble */

/* A field of a message that came, with its tag. */
struct WB_VALUE msg_cut {
	const uint8_t *p, *end;
};

/*
 * Where in a message that came stands what a stamp replaces. All of it points into the message.
 */
struct WB_VALUE msg_spots {
	const uint8_t *length; /* of the payload, behind its tag */
	const uint8_t *body, *end;
	unsigned n_payloads; /* more than one: they are merged, and this is the last */
	unsigned n_user_ids; /* of a chat; most have one */
	unsigned n_cuts;     /* what a client may not say: sender, sequence, sent_ms, number 17 */
	struct msg_cut user_id[2], cut[MSG_CUTS]; /* in the order in which they came */
	bool is_resend;                           /* set by msg_drop_cuts(): it names … */
	uint64_t known; /* … what its client knew of the channel when it sent it first */
};

#define MSG_DEPTH_MAX 3    /* messages inside each other, in message.proto */
#define MSG_GROUPS_MAX 100 /* inside each other: the limit that protobuf has for messages */

struct WB_VALUE msg_level {
	ProtobufCMessage *m;
	const uint8_t *p, *end; /* what is still to be read of it */
};

struct WB_VALUE msg_string {
	char *to;
	const uint8_t *from;
	size_t left; /* 0: none is under way */
	uint32_t utf8;
	bool forbids_nul, has_nul;
};

/* The same over several steps. For others are @drops_content, from the beginning on, and @spots. */
struct WB_OWNER(holder) msg_decoder {
	struct arena *arena;
	Websocket__WebSocketMessage *m;
	size_t max_list;
	size_t budget;      /* of the step under way */
	bool drops_content; /* that of a chat is checked; a long one is left out of the result */
	enum msg_result complaint; /* about the content so far, of what is well formed */
	unsigned depth, n_groups;
	struct msg_level level[MSG_DEPTH_MAX];
	struct msg_string string;
	struct msg_spots spots;                 /* for who has decoded */
	const uint8_t *group_tag, *group_start; /* of the outermost */
	uint32_t group[MSG_GROUPS_MAX];         /* their fields' numbers */
};

/* As msg_decode_bounded(), of bytes that stay where they are. Return: MSG_OK | MSG_TOO_BIG. */
WB_ANY_THREAD enum msg_result msg_decoder_begin(struct msg_decoder *d, struct arena *a,
						const uint8_t *p, size_t n, size_t max_list)
	WB_NODISCARD;

/**
 * msg_decoder_run() - goes on with a message
 * @budget: about as many bytes of it; counted down
 *
 * Return: as msg_decode_bounded() | MSG_UNFINISHED. After anything but MSG_UNFINISHED it has come
 * to its end.
 */
WB_ANY_THREAD enum msg_result msg_decoder_run(struct msg_decoder *d, size_t *budget,
					      Websocket__WebSocketMessage **ret) WB_NODISCARD;

/**
 * msg_check_chat() - what a chat message from a client must meet beyond its form
 *
 * Return: MSG_OK (also for other kinds of message) | MSG_RESERVED_USER.
 */
WB_ANY_THREAD enum msg_result msg_check_chat(const Websocket__WebSocketMessage *m) WB_NODISCARD;

/**
 * msg_check_binary() - compare the checksum, where there is one, with the data as carried
 *
 * Return: MSG_OK (also for other kinds of message) | MSG_BAD_CHECKSUM.
 * Cost:   O(size of data) when a checksum is present.
 */
WB_ANY_THREAD enum msg_result msg_check_binary(const Websocket__WebSocketMessage *m) WB_NODISCARD;

/* The reason in words, for the ERROR that answers it and for the log. Never NULL. */
WB_ANY_THREAD const char *msg_result_text(enum msg_result result);

/* The WebSocket close code that follows the ERROR (1007, 1009); 0: the connection stays. */
WB_ANY_THREAD uint16_t msg_result_close_code(enum msg_result result);

/* CRC-32 (IEEE, as in zlib). */
WB_ANY_THREAD uint32_t msg_crc32(const void *p, size_t n);

/* The same of bytes behind those of which @crc is the checksum; 0 where there are none. */
WB_ANY_THREAD uint32_t msg_crc32_on(uint32_t crc, const void *p, size_t n);

/* Compares as a number: leading zeros may be missing, case does not matter. Not hex: false. */
WB_ANY_THREAD bool msg_checksum_matches(const char *hex, uint32_t crc);

/* What the server says of a message behind what its sender wrote. */
struct WB_VALUE msg_said {
	const char *channel;   /* at most MSG_CHANNEL_MAX bytes; NULL: nothing is said of it */
	const uint8_t *sender; /* MSG_SENDER_BYTES; NULL: likewise */
	bool is_numbered;      /* it has a number, which is written once it is known … */
	int64_t sent_ms;       /* … and this was its time, in Unix ms */
};

static inline bool msg_says(const struct msg_said *said)
{
	return said->channel || said->sender || said->is_numbered;
}

/**
 * msg_suffix() - the bytes which, appended to a message, say that
 *
 * The number comes last: MSG_NUMBER_FIELD bytes, msg_number_field() of it.
 *
 * Return: bytes written.
 * Source: protobuf.dev, Encoding: the last one of a field counts that isn't repeated.
 */
WB_ANY_THREAD size_t msg_suffix(uint8_t out[MSG_SUFFIX_MAX], const struct msg_said *said);

/* `sequence` with its tag, the tag first. */
WB_ANY_THREAD void msg_number_field(uint8_t out[MSG_NUMBER_FIELD], uint64_t number);

/* Begin a message; every setter below is optional. NULL texts count as empty. */
void msg_init_heartbeat(struct msg_builder *b);
void msg_init_control(struct msg_builder *b, Websocket__ControlType type);
void msg_init_chat(struct msg_builder *b, const char *id, const char *user_id, const char *content,
		   int64_t timestamp_s);

/* A chunk of data as carried, with its checksum. */
void msg_init_binary(struct msg_builder *b, const void *data, size_t n, uint32_t sequence,
		     bool is_last, Websocket__CompressionType compression);

/*
 * A chunk of a file: its name without folders, its length and an id of the transfer, all
 * borrowed. Behind msg_init_binary() alone.
 */
void msg_set_file(struct msg_builder *b, const char *name, uint64_t size, const void *transfer,
		  size_t n);

/**
 * msg_init_repack() - the same BINARY_DATA with its data packed in another way
 * @m:  a BINARY_DATA message; borrowed with all that it points to
 *
 * Everything else stays: request_id, channel, sequence, unknown fields. The checksum is computed
 * anew if @m has one.
 */
void msg_init_repack(struct msg_builder *b, const Websocket__WebSocketMessage *m, const void *data,
		     size_t n, Websocket__CompressionType compression);

/**
 * msg_drop_cuts() - take out of a message what its sender may not say
 *
 * From here on it carries neither sender, sent_ms, sequence nor number 17. That it had a sequence,
 * which marks a resend, is noted in @spots.
 */
void msg_drop_cuts(Websocket__WebSocketMessage *m, struct msg_spots *spots);

/**
 * msg_init_stamp() - the same message, a CHAT_MESSAGE perhaps with another user_id
 * @m:  borrowed with all that it points to
 * @user_id: of a CHAT_MESSAGE; NULL: what it says
 *
 * Everything else stays: request_id, channel, unknown fields.
 */
void msg_init_stamp(struct msg_builder *b, const Websocket__WebSocketMessage *m,
		    const char *user_id);

#define MSG_USER_MAX 128                /* bytes of a user id that is put in */
#define MSG_STAMP_PIECES (5 + MSG_CUTS) /* of the message that came, at most */

/* A piece of a message that came, and where it goes in the new one. */
struct WB_VALUE msg_piece {
	const uint8_t *p;
	size_t n, at;
};

/* How the same is made of the bytes that came, without packing them again. */
struct WB_VALUE msg_stamp {
	struct msg_piece piece[MSG_STAMP_PIECES];
	unsigned n_pieces;
	uint8_t length[10], user_id[MSG_USER_MAX + 4]; /* between them */
	size_t length_n, length_at, user_id_n, user_id_at;
	size_t bytes; /* of the new message */
};

/**
 * msg_stamp_init() - the same message without its cuts, of its bytes
 * @p:        @n bytes, in which @spots were found
 * @user_id:  of a CHAT_MESSAGE, in the place of its own, at most MSG_USER_MAX bytes; or NULL
 *
 * Whatever else there is stays as it is, byte for byte.
 *
 * Return:  false: the payload, its user_id or a cut is there more often than anybody needs; see
 *          msg_init_stamp().
 */
bool msg_stamp_init(struct msg_stamp *s, const struct msg_spots *spots, const uint8_t *p, size_t n,
		    const char *user_id) WB_NODISCARD;

/* Any message. A request_id longer than MSG_REQUEST_ID_MAX is left out. */
void msg_set_request_id(struct msg_builder *b, const void *id, size_t n);
void msg_set_request_of(struct msg_builder *b, const Websocket__WebSocketMessage *request);
void msg_set_channel(struct msg_builder *b, const char *channel);
/* Copied: of a message that answers nothing. */
void msg_set_own_request_id(struct msg_builder *b, const uint8_t id[16]);

/* Control messages only. */
void msg_set_session_id(struct msg_builder *b, const char *session_id);
void msg_set_max_size(struct msg_builder *b, int32_t max_size);
void msg_set_capabilities(struct msg_builder *b, unsigned caps);
/* One word more, behind msg_set_capabilities(). */
void msg_add_capability(struct msg_builder *b, const char *name);
void msg_set_user_id(struct msg_builder *b, const char *user_id);
void msg_set_max_frames_per_second(struct msg_builder *b, uint32_t n);
void msg_set_reason(struct msg_builder *b, const char *reason);
void msg_set_code(struct msg_builder *b, uint32_t code);
void msg_set_channels(struct msg_builder *b, char **channels, size_t n);
void msg_set_reconnect_after_ms(struct msg_builder *b, uint32_t ms);
void msg_set_positions(struct msg_builder *b, Websocket__Position **positions, size_t n);
/* Borrowed. */
void msg_set_resume_token(struct msg_builder *b, const char *token, size_t n);
void msg_set_duplicate(struct msg_builder *b, bool is_duplicate);

/* Chat messages only. */
void msg_set_mentions(struct msg_builder *b, char **mentions, size_t n);

/**
 * msg_pack_repacked() - a BINARY_DATA with other data, but for the data itself
 * @m:    a BINARY_DATA message
 * @said: what msg_suffix() says of it, but for the number, which goes behind the data
 * @n:    bytes of the data, which follow right behind @out; protobuf lets a field stand last
 * @crc:  their checksum, for a message that has one
 * @out:  appended to
 *
 * As msg_init_repack(), for data that is to be copied in steps.
 *
 * Return: 0 | -ENOMEM.
 */
int msg_pack_repacked(const Websocket__WebSocketMessage *m, const struct msg_said *said, size_t n,
		      uint32_t crc, Websocket__CompressionType compression, struct buf *out)
	WB_NODISCARD;

/* Serialized size [bytes], and the serialized message: exactly msg_size() bytes; returns them. */
size_t msg_size(const struct msg_builder *b);
size_t msg_pack(const struct msg_builder *b, uint8_t *out);
