/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"
#include "wire/ws.h"
#include "worker/hub.h"
#include "worker/protocol.h"
#include "worker/protocol_private.h"

static_assert(MSG_SUFFIX_MAX == DIRECTORY_NAME_MAX + 4, "any channel's name, its tag and length");

/* -------------------------------------------------------------------- what varies */

static void set_packing(struct frame *f, const struct config *config,
			const Websocket__BinaryData *binary)
{
	size_t n = binary->data.len;

	if (binary->compression == WEBSOCKET__COMPRESSION_TYPE__NONE) {
		if (config->enable_compression && n > 0 && n >= config->compression_threshold &&
		    n <= config->compression_max_size)
			f->flags |= FRAME_CAN_PACK;
	} else if (zip_is_codec(binary->compression)) {
		/* What an unknown codec has packed goes to all as it is. */
		f->flags |= FRAME_IS_PACKED;
		f->packed_with = (uint8_t)binary->compression;
	}
}

/*
 * Says in its flags whether receivers may need different variants of it; @m: NULL for text. Before
 * the frame is published: its flags are frozen from there on.
 */
static void set_variants(struct frame *f, const struct hub *h, const message *m)
{
	if (m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		set_packing(f, h->env.config, m->binary);
	if (f->flags & FRAME_IS_PACKED || frame_can_deflate(&h->maker, frame_payload_len(f)))
		f->flags |= FRAME_CAN_DEFLATE;
}

/* The bytes as they came, with the channel's name where it has to be added. */
static struct frame *frame_as_it_came(struct hub *h, const message *m, const char *channel,
				      const uint8_t *p, size_t n)
{
	uint8_t suffix[MSG_SUFFIX_MAX];
	size_t more = 0;
	struct frame *f;

	/* The lobby has no name, so there is nothing to add. */
	if (!message_names_channel(m) && channel[0])
		more = msg_channel_suffix(suffix, sizeof(suffix), channel, strlen(channel));
	f = frame_new(WS_BINARY, n + more, h->env.config->max_frame_size, h->env.frame_account);
	if (!f)
		return NULL;
	frame_write(f, 0, p, n);
	frame_write(f, n, suffix, more);
	set_variants(f, h, m);
	return f;
}

/* The same of a client that has to be who it is: its user id in the place of what it says. */
static struct frame *frame_stamped(struct hub *h, const message *m, const char *channel,
				   const char *user_id)
{
	struct msg_builder b;
	struct frame *f;

	msg_init_stamp(&b, m, user_id);
	if (!message_names_channel(m) && channel[0])
		msg_set_channel(&b, channel);
	f = frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
	if (f)
		set_variants(f, h, m);
	return f;
}

/* ------------------------------------------------------------------------ of clients */

static bool needs_stamp(const struct conn *c, const message *m)
{
	return m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE && c->grant &&
	       strcmp(m->chat->user_id, c->grant->user_id) != 0;
}

/* @f: NULL when there was no memory; @m: NULL for text. */
static bool publish_through(struct conn *c, const message *m, struct member *through,
			    struct frame *f)
{
	if (!f) {
		protocol_refuse(c, m, 503, "out of memory");
		return false;
	}
	hub_publish(hub_of(c), through->channel->entry, f, through);
	return true;
}

bool protocol_publish_message(struct conn *c, const message *m, struct member *through,
			      const uint8_t *p, size_t n)
{
	const char *channel = through->channel->entry->name;
	struct hub *h = hub_of(c);

	return publish_through(c, m, through,
			       needs_stamp(c, m) ? frame_stamped(h, m, channel, c->grant->user_id)
						 : frame_as_it_came(h, m, channel, p, n));
}

bool protocol_publish_text(struct conn *c, struct member *through, const uint8_t *p, size_t n)
{
	struct frame *f =
		frame_new(WS_TEXT, n, c->env->config->max_frame_size, c->env->frame_account);

	if (f) {
		frame_write(f, 0, p, n);
		set_variants(f, hub_of(c), NULL);
	}
	return publish_through(c, NULL, through, f);
}

/* ------------------------------------------------------------- of the administrator */

static struct frame *frame_of_system(struct hub *h, const char *channel, const uint8_t *p, size_t n)
{
	WB_CLEANUP(ptr_freep) char *content = strndup((const char *)p, n);
	struct msg_builder b;
	sd_id128_t random;
	char id[37];

	/* Its user id is `system`, which no client may use. */
	if (!content)
		return NULL;
	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	uuid4_format(id, random.bytes);
	msg_init_chat(&b, id, "system", content, (int64_t)(clock_wall_ms() / 1000));
	if (channel[0])
		msg_set_channel(&b, channel);
	return frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
}

/* Why a message of the administrator's cannot be published; NULL: it can. */
static const char *message_flaw(const message *m, const char *channel)
{
	enum msg_result result = msg_check_binary(m);

	if (result != MSG_OK)
		return msg_result_text(result);
	if (m->type != WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE &&
	    m->type != WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		return "only CHAT_MESSAGE and BINARY_DATA can be published";
	if (message_names_channel(m) && strcmp(m->channel, channel) != 0)
		return "the message names another channel";
	return NULL;
}

struct protocol_published protocol_publish(struct hub *h, const char *channel, bool is_text,
					   const uint8_t *p, size_t n)
{
	struct protocol_published done = {.status = 400};
	struct frame *f;
	int r;

	if (is_text) {
		if (n > 0 && memchr(p, 0, n)) {
			done.reason = "the text has a NUL";
			return done;
		}
		f = frame_of_system(h, channel, p, n);
	} else {
		enum msg_result result;
		message *m = NULL;

		/* No client's message is being looked at: this is a task, between two of them. */
		arena_reset(&h->arena);
		result = msg_decode(&h->arena, p, n, &m);
		done.reason = result == MSG_OK ? message_flaw(m, channel) : msg_result_text(result);
		if (done.reason)
			return done;
		f = frame_as_it_came(h, m, channel, p, n);
	}
	if (!f)
		return (struct protocol_published){.status = 503, .reason = "out of memory"};
	r = hub_publish_by_name(h, channel, strlen(channel), f, &done.members);
	if (r == 0)
		return (struct protocol_published){.status = 200, .members = done.members};
	frame_unref(f);
	if (r == HUB_E_CONGESTED)
		return (struct protocol_published){.status = 503, .reason = "busy, try again"};
	return (struct protocol_published){.status = 404, .reason = "the channel has no members"};
}
