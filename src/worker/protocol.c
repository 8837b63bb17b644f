/* SPDX-License-Identifier: MIT */
#include "worker/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "base/text.h"
#include "io/log.h"
#include "wire/upgrade.h"
#include "wire/ws.h"
#include "worker/transfer.h"

typedef Websocket__WebSocketMessage message;

/* -------------------------------------------------------------------- answering */

void protocol_error(struct conn *c, const message *request, uint32_t code, const char *reason)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	if (request)
		msg_set_request_of(&b, request);
	msg_set_code(&b, code);
	msg_set_reason(&b, reason);
	METRIC_INC(c->env->metrics, errors_sent);
	conn_send_msg(c, &b);
}

static void answer_ack(struct conn *c, const message *request)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_of(&b, request);
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

const char *protocol_path_channel(const struct conn *c)
{
	return c->path_member.channel ? c->path_member.channel->entry->name
				      : conn_left_path_channel(c);
}

/* Refuses a message; the connection stays unless the outcome says how to close it. */
static void refuse(struct conn *c, const message *m, enum msg_result r, uint32_t code)
{
	uint16_t close_code = msg_result_close_code(r);
	char text[160];

	METRIC_INC(c->env->metrics, message_errors);
	snprintf(text, sizeof(text), "sent a message that is not valid: %s", msg_result_text(r));
	conn_log(c, LOG_INFO, EV_MESSAGE_ERROR, NULL, text);
	protocol_error(c, m, code, msg_result_text(r));
	if (close_code)
		conn_close(c, close_code, msg_result_text(r));
}

static void refuse_text(struct conn *c, const message *m, uint32_t code, const char *reason)
{
	char text[160];

	METRIC_INC(c->env->metrics, message_errors);
	snprintf(text, sizeof(text), "sent a message that is refused: %s", reason);
	conn_log(c, LOG_INFO, EV_MESSAGE_ERROR, NULL, text);
	protocol_error(c, m, code, reason);
}

static void refuse_for_limit(struct conn *c, const message *m, uint32_t code, const char *setting)
{
	char reason[64], text[160];

	METRIC_INC(c->env->metrics, message_errors);
	/* The client learns the setting's name; the log says the same about the client. */
	snprintf(reason, sizeof(reason), "past %s", setting);
	snprintf(text, sizeof(text), "sent a message that is refused: %s", reason);
	conn_log(c, LOG_INFO, EV_LIMIT_EXCEEDED, setting, text);
	protocol_error(c, m, code, reason);
}

/* ------------------------------------------------------------------- delivering */

/* The membership of its path's channel, which may have been left and joined again, or NULL. */
static struct member *path_membership(struct conn *c)
{
	const char *left = conn_left_path_channel(c);

	if (c->path_member.channel)
		return &c->path_member;
	return left ? hub_membership(hub_of(c), c, left, strlen(left)) : NULL;
}

static bool may_publish(struct conn *c, const message *m)
{
	if (!c->grant || c->grant->may_publish)
		return true;
	refuse_text(c, m, 403, "not allowed to publish");
	return false;
}

/* The membership that a message goes through, or NULL after it was refused. */
static struct member *route(struct conn *c, const message *m)
{
	struct member *through;

	if (m->has_channel_case == WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL)
		through = hub_membership(hub_of(c), c, m->channel, strlen(m->channel));
	else
		through = path_membership(c);
	if (!through)
		refuse_text(c, m, 404, "not a member of the channel");
	return through && may_publish(c, m) ? through : NULL;
}

static void set_packing(struct frame *f, const struct config *config, const message *m)
{
	size_t n;

	n = m->binary->data.len;
	if (m->binary->compression == WEBSOCKET__COMPRESSION_TYPE__NONE) {
		if (config->enable_compression && n > 0 && n >= config->compression_threshold &&
		    n <= config->compression_max_size)
			f->flags |= FRAME_CAN_PACK;
	} else if (zip_is_codec(m->binary->compression)) {
		f->flags |= FRAME_IS_PACKED;
		f->packed_with = (uint8_t)m->binary->compression;
	}
}

/* Notes whether its receivers may need different variants of it; @m: NULL for text. */
static void set_variants(struct frame *f, const struct hub *h, const message *m)
{
	if (m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		set_packing(f, h->env.config, m);
	if (f->flags & FRAME_IS_PACKED || frame_can_deflate(&h->maker, frame_payload_len(f)))
		f->flags |= FRAME_CAN_DEFLATE;
}

/* Publishes the bytes as they came, with the channel's name where it has to be added. */
static bool publish(struct conn *c, const message *m, struct member *through, const uint8_t *p,
		    size_t n)
{
	struct directory_entry *e = through->channel->entry;
	uint8_t suffix[MSG_SUFFIX_MAX];
	size_t more = 0;
	struct frame *f;

	if (m->has_channel_case != WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL &&
	    e->name_len > 0)
		more = msg_channel_suffix(suffix, sizeof(suffix), e->name, e->name_len);
	f = frame_new(WS_BINARY, n + more, c->env->config->max_frame_size, c->env->frame_account);
	if (!f) {
		refuse_text(c, m, 503, "out of memory");
		return false;
	}
	frame_write(f, 0, p, n);
	if (more)
		frame_write(f, n, suffix, more);
	set_variants(f, hub_of(c), m);
	hub_publish(hub_of(c), e, f, through);
	return true;
}

/* The same of a client that has to be who it is: its user id in the place of what it says. */
static bool publish_stamped(struct conn *c, const message *m, struct member *through)
{
	struct directory_entry *e = through->channel->entry;
	struct msg_builder b;
	struct frame *f;

	msg_init_stamp(&b, m, c->grant->user_id);
	if (m->has_channel_case != WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL &&
	    e->name_len > 0)
		msg_set_channel(&b, e->name);
	f = frame_from_msg(&b, c->env->config->max_frame_size, c->env->frame_account);
	if (!f) {
		refuse_text(c, m, 503, "out of memory");
		return false;
	}
	set_variants(f, hub_of(c), m);
	hub_publish(hub_of(c), e, f, through);
	return true;
}

static bool needs_stamp(const struct conn *c, const message *m)
{
	return c->grant && strcmp(m->chat->user_id, c->grant->user_id) != 0;
}

static void take_chat(struct conn *c, const message *m, const uint8_t *p, size_t n)
{
	struct member *through = route(c, m);
	enum msg_result r = msg_check_chat(m);

	if (!through)
		return;
	if (r != MSG_OK) {
		refuse(c, m, r, 403);
		return;
	}
	if ((needs_stamp(c, m) ? publish_stamped(c, m, through) : publish(c, m, through, p, n)) &&
	    c->caps & MSG_CAP_ACK)
		answer_ack(c, m);
}

static void take_binary(struct conn *c, const message *m, const uint8_t *p, size_t n)
{
	struct member *through = route(c, m);
	bool is_spooled = transfers_are_on(&hub_of(c)->transfers);
	enum msg_result r;

	if (!through)
		return;
	r = msg_check_binary(m);
	if (r != MSG_OK) {
		refuse(c, m, r, 422);
		return;
	}
	if (!publish(c, m, through, p, n) || c->state != CONN_OPEN)
		return;
	if (is_spooled)
		transfer_take_chunk(&hub_of(c)->transfers, c, m);
	if (c->state != CONN_OPEN)
		return;
	/* The last chunk of a file is acknowledged once the file is there. */
	if (c->caps & MSG_CAP_ACK && !(is_spooled && m->binary->is_last))
		answer_ack(c, m);
}

/* ------------------------------------------------------------- coming and going */

static void log_connection(struct conn *c, enum log_event_id event, const char *text)
{
	struct hub *h = hub_of(c);

	connection_log_write(&h->log, c, h->shared->n_hubs, event, text);
}

static bool is_echo_path(const struct conn *c, const struct upgrade *u)
{
	const char *path = c->env->config->echo_path;

	return path[0] == '/' && strcmp(path + 1, u->channel) == 0;
}

enum conn_refusal protocol_admit(struct conn *c, const struct upgrade *u)
{
	int r;

	if (is_echo_path(c, u)) {
		c->is_echo = true;
		return CONN_ADMITTED;
	}
	if (c->grant && !grant_allows(c->grant, u->channel))
		return CONN_E_CHANNEL_DENIED;
	r = hub_join(hub_of(c), c, &c->path_member, u->channel, u->channel_len);
	return r ? CONN_E_NO_CHANNEL : CONN_ADMITTED;
}

/* The welcome text with its placeholders filled in. */
static void format_welcome(char *out, size_t cap, const char *text, const char *user,
			   const char *id)
{
	size_t n = 0;

	while (*text && n + 1 < cap) {
		const char *value = strncmp(text, "{user}", 6) == 0 ? user
				    : strncmp(text, "{id}", 4) == 0 ? id
								    : NULL;
		int put;

		if (!value) {
			out[n++] = *text++;
			continue;
		}
		put = snprintf(out + n, cap - n, "%s", value);
		n += MIN((size_t)put, cap - n - 1);
		text += value == user ? 6 : 4;
	}
	out[n] = '\0';
}

static void send_welcome(struct conn *c, const char *id)
{
	char user[CONN_USER_MAX], content[2048], message_id[37];
	struct msg_builder b;
	sd_id128_t random;

	if (!c->env->config->welcome[0])
		return;
	format_welcome(content, sizeof(content), c->env->config->welcome, conn_format_user(user, c),
		       id);
	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	uuid4_format(message_id, random.bytes);
	msg_init_chat(&b, message_id, "system", content, (int64_t)(clock_wall_ms() / 1000));
	conn_send_msg(c, &b);
}

static void send_config(struct conn *c, const char *id)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONFIG);
	msg_set_session_id(&b, id);
	msg_set_max_size(&b, (int32_t)MIN(c->env->config->max_message_size, (uint64_t)INT32_MAX));
	msg_set_capabilities(&b, MSG_CAPS_ALL);
	conn_send_msg(c, &b);
}

void protocol_opened(struct conn *c)
{
	sd_id128_t random;
	char id[37];

	c->connected_ms = clock_wall_ms();
	if (sd_id128_randomize(&random) < 0) {
		conn_close(c, WS_CODE_INTERNAL_ERROR, "no random numbers");
		return;
	}
	memcpy(c->id, random.bytes, sizeof(c->id));
	log_connection(c, EV_CONNECTED, c->is_echo ? "connected to echo_path" : "connected");
	if (c->is_echo)
		return;
	uuid4_format(id, c->id);
	send_welcome(c, id);
	send_config(c, id);
	if (c->path_member.channel)
		hub_notice_joined(hub_of(c), &c->path_member);
}

void protocol_left(struct conn *c)
{
	char text[64];

	snprintf(text, sizeof(text), "disconnected with %u", c->close_code);
	log_connection(c, EV_DISCONNECTED, text);
	while (c->members) {
		struct member *m = c->members;

		hub_leave(hub_of(c), m, true);
		if (m != &c->path_member)
			free(m);
	}
	transfer_drop(&hub_of(c)->transfers, c);
}

void protocol_say_goodbye(struct conn *c)
{
	uint64_t window_ms = c->env->config->reconnect_window / NS_PER_MS;
	struct msg_builder b;
	uint32_t random = 0;
	char id[37];

	if (!c->is_echo) {
		sd_id128_t bits;

		if (window_ms && sd_id128_randomize(&bits) >= 0)
			memcpy(&random, bits.bytes, sizeof(random));
		uuid4_format(id, c->id);
		msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
		msg_set_session_id(&b, id);
		msg_set_reason(&b, "server is stopping");
		msg_set_reconnect_after_ms(&b, (uint32_t)(random % (window_ms + 1)));
		conn_send_msg(c, &b);
	}
	conn_close(c, WS_CODE_SERVICE_RESTART, NULL);
}

/* ---------------------------------------------------------------------- control */

static void take_connect(struct conn *c, const message *m)
{
	const Websocket__ControlMessage *control = m->control;
	struct msg_builder b;

	if (strlen(control->session_id) > CONN_SESSION_MAX) {
		refuse_text(c, m, 413, "session_id is longer than 64 bytes");
		return;
	}
	conn_set_session_id(c, control->session_id);
	c->caps = (uint8_t)(msg_caps_parse(control->capabilities, control->n_capabilities) &
			    MSG_CAPS_ALL);
	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_of(&b, m);
	msg_set_capabilities(&b, c->caps);
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

static bool check_names(struct conn *c, const message *m)
{
	if (m->control->n_channels == 0) {
		refuse_text(c, m, 400, "channels is empty");
		return false;
	}
	for (size_t i = 0; i < m->control->n_channels; i++) {
		if (strlen(m->control->channels[i]) > DIRECTORY_NAME_MAX) {
			refuse_text(c, m, 413, "a channel's name is longer than 255 bytes");
			return false;
		}
	}
	return true;
}

static bool check_allowed(struct conn *c, const message *m)
{
	for (size_t i = 0; c->grant && i < m->control->n_channels; i++) {
		if (!grant_allows(c->grant, m->control->channels[i])) {
			refuse_text(c, m, 403, "not allowed to join the channel");
			return false;
		}
	}
	return true;
}

/* Return: 0, also when it is a member already; else as hub_join(). */
static int join_one(struct conn *c, const char *name)
{
	struct member *m;
	int r;

	if (hub_membership(hub_of(c), c, name, strlen(name)))
		return 0;
	m = calloc(1, sizeof(*m));
	r = m ? hub_join(hub_of(c), c, m, name, strlen(name)) : -ENOMEM;
	if (r)
		free(m);
	return r;
}

static void leave_one(struct conn *c, struct member *m, bool tell)
{
	/* The channel may go with its last member; its name is needed after that. */
	if (m == &c->path_member)
		conn_set_left_path_channel(c, m->channel->entry->name);
	hub_leave(hub_of(c), m, tell);
	if (m != &c->path_member)
		free(m);
}

static void take_subscribe(struct conn *c, const message *m)
{
	struct member *before = c->members;
	int r = 0;

	if (!check_names(c, m) || !check_allowed(c, m))
		return;
	for (size_t i = 0; i < m->control->n_channels && r == 0; i++)
		r = join_one(c, m->control->channels[i]);
	if (r) {
		/* The list is taken whole or not at all; new memberships stand first. */
		while (c->members != before)
			leave_one(c, c->members, false);
		if (r == HUB_E_TOO_MANY)
			refuse_for_limit(c, m, 429, "max_channels_per_client");
		else if (r == HUB_E_FULL)
			refuse_for_limit(c, m, 503, "max_channels");
		else
			refuse_text(c, m, 503, "out of memory");
		return;
	}
	answer_ack(c, m);
	if (c->state != CONN_OPEN)
		return; /* without memory for the answer, and without its memberships */
	for (struct member *joined = c->members; joined != before; joined = joined->sibling)
		hub_notice_joined(hub_of(c), joined);
}

static void take_unsubscribe(struct conn *c, const message *m)
{
	struct hub *h = hub_of(c);

	if (!check_names(c, m))
		return;
	for (size_t i = 0; i < m->control->n_channels; i++) {
		const char *name = m->control->channels[i];

		if (!hub_membership(h, c, name, strlen(name))) {
			refuse_text(c, m, 404, "not a member of the channel");
			return;
		}
	}
	for (size_t i = 0; i < m->control->n_channels; i++) {
		const char *name = m->control->channels[i];
		struct member *left = hub_membership(h, c, name, strlen(name));

		if (left) /* unless the list names it twice */
			leave_one(c, left, true);
	}
	answer_ack(c, m);
}

static void take_control(struct conn *c, const message *m)
{
	switch (m->control->type) {
	case WEBSOCKET__CONTROL_TYPE__CONNECT:
		take_connect(c, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__DISCONNECT:
		conn_close(c, WS_CODE_NORMAL, "");
		break;
	case WEBSOCKET__CONTROL_TYPE__SUBSCRIBE:
		take_subscribe(c, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE:
		take_unsubscribe(c, m);
		break;
	default:
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL,
			 "sent ACKNOWLEDGE, ERROR or CONFIG; noted");
		break;
	}
}

/* --------------------------------------------------------------------- messages */

static void take_text(struct conn *c, const uint8_t *p, size_t n)
{
	struct member *through;
	struct frame *f;

	if (c->env->config->text_messages != TEXT_RELAY) {
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL, "sent a text message; noted");
		return;
	}
	through = path_membership(c);
	if (!through) {
		refuse_text(c, NULL, 404, "not a member of the channel");
		return;
	}
	if (!may_publish(c, NULL))
		return;
	f = frame_new(WS_TEXT, n, c->env->config->max_frame_size, c->env->frame_account);
	if (!f) {
		refuse_text(c, NULL, 503, "out of memory");
		return;
	}
	frame_write(f, 0, p, n);
	set_variants(f, hub_of(c), NULL);
	hub_publish(hub_of(c), through->channel->entry, f, through);
}

void protocol_message(struct conn *c, uint8_t opcode, uint8_t *p, size_t n)
{
	struct hub *h = hub_of(c);
	message *m = NULL;
	enum msg_result r;

	if (opcode == WS_TEXT) {
		take_text(c, p, n);
		return;
	}
	arena_reset(&h->arena);
	r = msg_decode(&h->arena, p, n, &m);
	if (r != MSG_OK) {
		refuse(c, m, r, r == MSG_TOO_BIG ? 413 : 400);
		return;
	}
	switch (m->type) {
	case WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE:
		take_chat(c, m, p, n);
		break;
	case WEBSOCKET__MESSAGE_TYPE__BINARY_DATA:
		take_binary(c, m, p, n);
		break;
	case WEBSOCKET__MESSAGE_TYPE__CONTROL:
		take_control(c, m);
		break;
	default:
		break; /* HEARTBEAT: the frame itself was the sign of life */
	}
}

/* ------------------------------------------------------------- for the administrator */

static struct frame *system_chat(struct hub *h, const char *channel, const uint8_t *p, size_t n)
{
	WB_CLEANUP(ptr_freep) char *content = strndup((const char *)p, n);
	struct msg_builder b;
	sd_id128_t random;
	char id[37];

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

/* The administrator's own message, with the channel's name where it has to be added. */
static struct frame *given_message(struct hub *h, const message *m, const char *channel,
				   const uint8_t *p, size_t n)
{
	uint8_t suffix[MSG_SUFFIX_MAX];
	size_t more = 0;
	struct frame *f;

	if (m->has_channel_case != WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL && channel[0])
		more = msg_channel_suffix(suffix, sizeof(suffix), channel, strlen(channel));
	f = frame_new(WS_BINARY, n + more, h->env.config->max_frame_size, h->env.frame_account);
	if (!f)
		return NULL;
	frame_write(f, 0, p, n);
	frame_write(f, n, suffix, more);
	set_variants(f, h, m);
	return f;
}

static const char *check_given(const message *m, const char *channel)
{
	if (m->type != WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE &&
	    m->type != WEBSOCKET__MESSAGE_TYPE__BINARY_DATA)
		return "only CHAT_MESSAGE and BINARY_DATA can be published";
	if (m->has_channel_case == WEBSOCKET__WEB_SOCKET_MESSAGE__HAS_CHANNEL_CHANNEL &&
	    strcmp(m->channel, channel) != 0)
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
		f = system_chat(h, channel, p, n);
	} else {
		enum msg_result result;
		message *m = NULL;

		arena_reset(&h->arena);
		result = msg_decode(&h->arena, p, n, &m);
		if (result == MSG_OK)
			result = msg_check_binary(m);
		done.reason = result == MSG_OK ? check_given(m, channel) : msg_result_text(result);
		if (done.reason)
			return done;
		f = given_message(h, m, channel, p, n);
	}
	if (!f)
		return (struct protocol_published){.status = 503, .reason = "out of memory"};
	r = hub_publish_name(h, channel, strlen(channel), f, &done.members);
	if (r == 0)
		return (struct protocol_published){.status = 200, .members = done.members};
	frame_unref(f);
	if (r == HUB_E_CONGESTED)
		return (struct protocol_published){.status = 503, .reason = "busy, try again"};
	return (struct protocol_published){.status = 404, .reason = "the channel has no members"};
}
