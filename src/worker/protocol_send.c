/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>

#include "base/text.h"
#include "io/log.h"
#include "worker/protocol.h"
#include "worker/protocol_private.h"
#include "worker/resume.h"

#define WELCOME_MAX 2048 /* with its placeholders filled in */

/* What answers nothing has an id all the same: there are clients that read one in each message. */
static void set_own_request_id(struct msg_builder *b)
{
	sd_id128_t random;

	/* Nobody refers to it: without random numbers it is a bad one. */
	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	msg_set_own_request_id(b, random.bytes);
}

/* ---------------------------------------------------------------------- at first */

/* The welcome text with its placeholders filled in. */
static void format_welcome(char *out, size_t cap, const char *text, const char *user,
			   const char *id)
{
	size_t n = 0;

	/* What doesn't fit is cut; the value of a placeholder is not looked at for others. */
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

void protocol_send_welcome(struct conn *c, const char *id, const char *user)
{
	char content[WELCOME_MAX], message_id[37];
	struct msg_builder b;
	sd_id128_t random;

	if (!c->env->config->welcome[0])
		return;
	format_welcome(content, sizeof(content), c->env->config->welcome, user, id);
	/* Nobody refers to the welcome by its id: without random numbers it has a bad one. */
	if (sd_id128_randomize(&random) < 0)
		random = SD_ID128_NULL;
	uuid4_format(message_id, random.bytes);
	msg_init_chat(&b, message_id, "system", content, (int64_t)(clock_wall_ms() / 1000));
	set_own_request_id(&b);
	conn_send_msg(c, &b);
}

bool protocol_joined_position(const struct hub_joined *joined, const char *channel,
			      Websocket__Position *ret)
{
	websocket__position__init(ret);
	ret->channel = (char *)(uintptr_t)channel;
	ret->epoch = joined->epoch;
	ret->sequence = joined->sequence;
	ret->earliest = joined->earliest;
	if (joined->recovered != HISTORY_NOT_ASKED) {
		ret->has_recovered_case = WEBSOCKET__POSITION__HAS_RECOVERED_RECOVERED;
		ret->recovered = joined->recovered == HISTORY_RECOVERED;
	}
	return joined->epoch || joined->recovered != HISTORY_NOT_ASKED;
}

void protocol_send_config(struct conn *c, const char *id, const char *user,
			  const struct hub_joined *home, bool with_token)
{
	const char *channel = c->path_member.channel->entry->name;
	const struct config *config = c->env->config;
	Websocket__Position position, *one[] = {&position};
	char token[RESUME_TOKEN_TEXT];
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONFIG);
	set_own_request_id(&b);
	if (with_token)
		msg_set_resume_token(&b, token, resume_issue(c, token));
	msg_set_channel(&b, channel);
	if (protocol_joined_position(home, channel, &position))
		msg_set_positions(&b, one, 1);
	msg_set_user_id(&b, user);
	msg_set_max_frames_per_second(&b, (uint32_t)config->max_incoming_frames_per_second);
	msg_set_session_id(&b, id);
	/* The field is signed; no configuration goes further than that, but a number could. */
	msg_set_max_size(&b, (int32_t)MIN(config->max_message_size, (uint64_t)INT32_MAX));
	msg_set_capabilities(&b, MSG_CAPS_ALL);
	msg_add_capability(&b, PROTOCOL_VERSION);
	conn_send_msg(c, &b);
}

/* --------------------------------------------------------------------- as answers */

void protocol_send_heartbeat(struct conn *c, const message *request)
{
	struct msg_builder b;

	msg_init_heartbeat(&b);
	msg_set_request_of(&b, request);
	conn_send_msg(c, &b);
}

void protocol_send_ack(struct conn *c, const message *request)
{
	acks_send(c, request->request_id.data, request->request_id.len);
}

void protocol_send_positions(struct conn *c, const message *request, Websocket__Position **list,
			     size_t n)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_of(&b, request);
	msg_set_positions(&b, list, n);
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

void protocol_send_capabilities(struct conn *c, const message *request, bool with_token)
{
	char token[RESUME_TOKEN_TEXT];
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	msg_set_request_of(&b, request);
	msg_set_capabilities(&b, c->caps);
	if (with_token)
		msg_set_resume_token(&b, token, resume_issue(c, token));
	METRIC_INC(c->env->metrics, acks_sent);
	conn_send_msg(c, &b);
}

static void send_error(struct conn *c, const message *request, uint32_t code, const char *reason,
		       const char *channel)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	if (request)
		msg_set_request_of(&b, request);
	else
		set_own_request_id(&b);
	if (channel)
		msg_set_channel(&b, channel);
	msg_set_code(&b, code);
	msg_set_reason(&b, reason);
	METRIC_INC(c->env->metrics, errors_sent);
	conn_send_msg(c, &b);
}

void protocol_send_error(struct conn *c, const message *request, uint32_t code, const char *reason)
{
	send_error(c, request, code, reason, NULL);
}

/* Counted, and in the log under the event that an administrator looks for. */
static void report_refusal(struct conn *c, enum log_event_id event, const char *setting,
			   const char *what, const char *reason)
{
	char text[240];

	METRIC_INC(c->env->metrics, message_errors);
	snprintf(text, sizeof(text), "sent a message that is %s: %s", what, reason);
	conn_log(c, LOG_INFO, event, setting, text);
}

void protocol_refuse_in(struct conn *c, const message *m, uint32_t code, const char *reason,
			const char *channel)
{
	report_refusal(c, EV_MESSAGE_ERROR, NULL, "refused", reason);
	send_error(c, m, code, reason, channel);
}

void protocol_refuse(struct conn *c, const message *m, uint32_t code, const char *reason)
{
	protocol_refuse_in(c, m, code, reason, NULL);
}

void protocol_refuse_quietly(struct conn *c, const message *m, uint32_t code, const char *reason,
			     const char *shown)
{
	report_refusal(c, EV_MESSAGE_ERROR, NULL, "refused", reason);
	send_error(c, m, code, shown, NULL);
}

void protocol_refuse_result(struct conn *c, const message *m, uint32_t code, enum msg_result r)
{
	uint16_t close_code = msg_result_close_code(r);

	report_refusal(c, EV_MESSAGE_ERROR, NULL, "not valid", msg_result_text(r));
	/* The reason goes out before the Close: a Close has no room for the request it is about. */
	protocol_send_error(c, m, code, msg_result_text(r));
	if (close_code)
		conn_close(c, close_code, msg_result_text(r));
}

void protocol_refuse_for_limit(struct conn *c, const message *m, uint32_t code, const char *setting,
			       const char *channel)
{
	char reason[64];

	/* The client learns the setting's name; the log says the same about the client. */
	snprintf(reason, sizeof(reason), "past %s", setting);
	report_refusal(c, EV_LIMIT_EXCEEDED, setting, "refused", reason);
	send_error(c, m, code, reason, channel);
}

void protocol_throttled(struct conn *c)
{
	protocol_send_error(c, NULL, 429,
			    "past max_incoming_frames_per_second: what comes is read a second "
			    "later, and so on");
}

/* ------------------------------------------------------------------------ at last */

void protocol_say_goodbye(struct conn *c)
{
	uint64_t spread_ms = c->env->config->reconnect_window / NS_PER_MS;
	struct msg_builder b;
	uint32_t random = 0;
	char id[37];

	acks_release_conn(&hub_of(c)->acks, c);
	/* An echo connection understands WebSocket only: the Close says it all. */
	if (!c->is_echo) {
		sd_id128_t bits;

		/* Each client at another time, or all of them would be back at once. */
		if (spread_ms && sd_id128_randomize(&bits) >= 0)
			memcpy(&random, bits.bytes, sizeof(random));
		uuid4_format(id, c->id);
		msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__DISCONNECT);
		set_own_request_id(&b);
		msg_set_session_id(&b, id);
		msg_set_reason(&b, "server is stopping");
		msg_set_reconnect_after_ms(&b, (uint32_t)(random % (spread_ms + 1)));
		conn_send_msg(c, &b);
	}
	conn_close(c, WS_CODE_SERVICE_RESTART, NULL);
}
