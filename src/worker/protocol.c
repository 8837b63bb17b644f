/* SPDX-License-Identifier: MIT */
#include "worker/protocol.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"
#include "io/log.h"
#include "wire/upgrade.h"
#include "wire/ws.h"
#include "worker/protocol_private.h"

/* ------------------------------------------------------------- coming and going */

static void log_connection(struct conn *c, enum log_event_id event, const char *text)
{
	struct hub *h = hub_of(c);

	connection_log_write(&h->log, c, h->shared->n_hubs, event, text);
}

static bool is_echo_path(const struct conn *c, const struct upgrade *u)
{
	const char *path = c->env->config->echo_path;

	/* Without its slash the path is the name of a channel. Empty: there is no echo. */
	return path[0] == '/' && strcmp(path + 1, u->channel) == 0;
}

enum conn_refusal protocol_admit(struct conn *c, const struct upgrade *u)
{
	int r;

	/* The echo is no channel: nothing of it is in a grant, and no limit of channels holds. */
	if (is_echo_path(c, u)) {
		c->is_echo = true;
		return CONN_ADMITTED;
	}
	if (c->grant && !grant_allows(c->grant, u->channel))
		return CONN_E_CHANNEL_DENIED;
	r = hub_join_path(hub_of(c), c, u->channel, u->channel_len);
	return r ? CONN_E_NO_CHANNEL : CONN_ADMITTED;
}

void protocol_opened(struct conn *c)
{
	sd_id128_t random;
	char id[37];

	/* Its id is what others know it by: drawn at random, so that none can be guessed. */
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
	protocol_send_welcome(c, id);
	protocol_send_config(c, id);
	/* Either may have closed it for want of memory; then it is a member of nothing any more. */
	if (c->path_member.channel)
		hub_notice_joined(hub_of(c), &c->path_member);
}

void protocol_left(struct conn *c)
{
	char text[64];

	/* The line names the channel, and so comes before the memberships end. */
	snprintf(text, sizeof(text), "disconnected with %u", c->close_code);
	log_connection(c, EV_DISCONNECTED, text);
	turn_charge(&c->env->turn, (size_t)c->n_members * TURN_FRAME);
	while (c->members)
		hub_leave(hub_of(c), c->members, true);
	transfer_drop(&hub_of(c)->transfers, c);
}

/* ---------------------------------------------------------------- what is published */

static bool may_publish(struct conn *c, const message *m)
{
	if (!c->grant || c->grant->may_publish)
		return true;
	protocol_refuse(c, m, 403, "not allowed to publish");
	return false;
}

/* The membership that a message goes through, or NULL after it was refused; @m: NULL for text. */
static struct member *route_message(struct conn *c, const message *m)
{
	struct member *through;

	if (m && message_names_channel(m))
		through = hub_membership(hub_of(c), c, m->channel, strlen(m->channel));
	else
		through = protocol_path_membership(c);
	if (!through)
		protocol_refuse(c, m, 404, "not a member of the channel");
	return through && may_publish(c, m) ? through : NULL;
}

static void take_chat(struct conn *c, const message *m, const uint8_t *p, size_t n)
{
	struct member *through = route_message(c, m);
	enum msg_result r = msg_check_chat(m);

	if (!through)
		return;
	/* Nobody may speak as the server does. */
	if (r != MSG_OK) {
		protocol_refuse_result(c, m, 403, r);
		return;
	}
	if (protocol_publish_message(c, m, through, p, n) && c->caps & MSG_CAP_ACK)
		protocol_send_ack(c, m);
}

static void take_binary(struct conn *c, const message *m, const uint8_t *p, size_t n)
{
	struct member *through = route_message(c, m);
	bool is_spooled = transfers_are_on(&hub_of(c)->transfers);
	enum msg_result r;

	if (!through)
		return;
	/* The checksum costs a walk through all bytes, so it comes behind what costs nothing. */
	r = msg_check_binary(m);
	if (r != MSG_OK) {
		protocol_refuse_result(c, m, 422, r);
		return;
	}
	/* Others get it at once, whatever becomes of the file. */
	if (!protocol_publish_message(c, m, through, p, n) || c->state != CONN_OPEN)
		return;
	if (is_spooled)
		transfer_take_chunk(&hub_of(c)->transfers, c, m);
	if (c->state != CONN_OPEN)
		return;
	/* The last chunk of a file is acknowledged once the file is there. */
	if (c->caps & MSG_CAP_ACK && !(is_spooled && m->binary->is_last))
		protocol_send_ack(c, m);
}

static void take_text(struct conn *c, const uint8_t *p, size_t n)
{
	struct member *through;

	if (c->env->config->text_messages != TEXT_RELAY) {
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL, "sent a text message; noted");
		return;
	}
	through = route_message(c, NULL);
	if (through)
		(void)protocol_publish_text(c, through, p, n); /* it says so itself */
}

/* ---------------------------------------------------------------------- control */

static void take_connect(struct conn *c, const message *m)
{
	const Websocket__ControlMessage *control = m->control;

	static_assert(CONN_SESSION_MAX == 64, "the reason says so");
	if (strlen(control->session_id) > CONN_SESSION_MAX) {
		protocol_refuse(c, m, 413, "session_id is longer than 64 bytes");
		return;
	}
	conn_set_session_id(c, control->session_id);
	/* What both know is in force; the answer is the first that may make use of it. */
	c->caps = (uint8_t)(msg_caps_parse(control->capabilities, control->n_capabilities) &
			    MSG_CAPS_ALL);
	protocol_send_capabilities(c, m);
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
		protocol_subscribe(c, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE:
		protocol_unsubscribe(c, m);
		break;
	default:
		/* They answer something, and nothing here is waiting for an answer. */
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL,
			 "sent ACKNOWLEDGE, ERROR or CONFIG; noted");
		break;
	}
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
	/* The message before is done with: all of it was copied where it is needed longer. */
	arena_reset(&h->arena);
	r = msg_decode_bounded(&h->arena, p, n, protocol_max_list(c), &m);
	if (r == MSG_LONG_LIST) {
		protocol_refuse_for_limit(c, m, 429, "max_channels_per_client");
		return;
	}
	if (r != MSG_OK) {
		protocol_refuse_result(c, m, r == MSG_TOO_BIG ? 413 : 400, r);
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
