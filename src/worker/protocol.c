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
#include "worker/resume.h"

#define ARENA_FIRST_BYTES ((size_t)4096)
#define DECODE_STEP ((size_t)64 * 1024) /* bytes between two looks at the clock … */
#define TOKEN_FRAMES 16                 /* that a token in a CONNECT counts as */
#define DECODED_PER_WORK 8              /* … so many of which count as one that is worked on */

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

/* Decimal digits and nothing else. */
static bool parse_number(struct http_text t, uint64_t max, uint64_t *ret)
{
	uint64_t n = 0;

	for (size_t i = 0; i < t.n; i++) {
		uint64_t digit = (uint64_t)(t.p[i] - '0');

		if (t.p[i] < '0' || t.p[i] > '9' || n > (max - digit) / 10)
			return false;
		n = 10 * n + digit;
	}
	*ret = n;
	return t.n > 0;
}

/* What somebody asks for in the query of the handshake; of what stands twice the last counts. */
struct query {
	struct history_since since;
	struct resume_asked resume;
};

/* since=EPOCH.SEQUENCE */
static bool parse_since(struct http_text text, struct history_since *ret)
{
	struct http_text epoch;

	ret->has_position = true;
	return http_cut(&text, '.', &epoch) && parse_number(epoch, UINT64_MAX, &ret->epoch) &&
	       parse_number(text, UINT64_MAX, &ret->sequence);
}

static bool parse_pair(struct http_text name, struct http_text value, struct query *q)
{
	uint64_t n = 0;

	if (http_text_is(name, "since"))
		return parse_since(value, &q->since);
	if (http_text_is(name, "rewind")) {
		if (!parse_number(value, UINT32_MAX, &n))
			return false;
		q->since.rewind = (uint32_t)n;
		q->since.has_rewind = true;
	} else if (http_text_is(name, "resume")) {
		q->resume.wants_token = true;
		q->resume.token = value;
	} else if (http_text_is(name, "attempt")) {
		/* What is no number is the attempt of nobody. */
		q->resume.attempt = parse_number(value, UINT32_MAX, &n) ? (uint32_t)n : 0;
	}
	return true;
}

/* False: a position or a number of messages is none. */
static bool parse_query(const struct upgrade *u, struct query *ret)
{
	struct http_text query = u->query, pair, name;

	*ret = (struct query){.resume.attempt = 1};
	if (u->resume.p) {
		ret->resume.wants_token = true;
		ret->resume.token = u->resume;
	}
	while (query.n > 0) {
		if (!http_cut(&query, '&', &pair)) {
			pair = query;
			query.n = 0;
		}
		if (!http_cut(&pair, '=', &name)) {
			name = pair;
			pair = (struct http_text){"", 0};
		}
		if (!parse_pair(name, pair, ret))
			return false;
	}
	return true;
}

enum conn_refusal protocol_admit(struct conn *c, const struct upgrade *u)
{
	struct hub *h = hub_of(c);
	struct query query;
	int r;

	/* The echo is no channel: nothing of it is in a grant, and no limit of channels holds. */
	if (is_echo_path(c, u)) {
		c->is_echo = true;
		return CONN_ADMITTED;
	}
	if (c->grant && !grant_allows(c->grant, u->channel))
		return CONN_E_CHANNEL_DENIED;
	if (!parse_query(u, &query))
		return CONN_E_BAD_POSITION;
	/* Told in protocol_opened(), before anybody else is let in. */
	if (resume_begin(h, c, &query.resume) == RESUME_WAITS)
		r = resume_wait(h, c, u->channel, &query.since);
	else
		r = hub_join_path(h, c, u->channel, u->channel_len, &query.since, &h->home);
	/* It is nobody's successor then. */
	if (r)
		resume_left(c);
	return r ? CONN_E_NO_CHANNEL : CONN_ADMITTED;
}

/* It is a member of its channel, and learns of everything. */
static void introduce_conn(struct conn *c, const struct hub_coming *coming)
{
	char id[37], user[CONN_USER_MAX];

	uuid4_format(id, c->id);
	conn_format_user(user, c);
	if (!coming->is_resumed)
		protocol_send_welcome(c, id, user);
	if (c->path_member.channel)
		protocol_send_config(c, id, user, &hub_of(c)->home, coming->wants_token);
	/* Either may have closed it for want of memory; then it is a member of nothing any more. */
	if (c->path_member.channel)
		hub_notice_joined(hub_of(c), &c->path_member);
}

/* The connection that it had is over. */
static void arrive_late(struct conn *c, const char *channel, const struct history_since *since)
{
	static const struct hub_coming resumed = {.wants_token = true, .is_resumed = true};
	struct hub *h = hub_of(c);

	/*
	 * Its handshake was answered already: this is said with the status that it would have had.
	 */
	if (hub_join_path(h, c, channel, strlen(channel), since, &h->home))
		conn_close(c, WS_CODE_REFUSED_FULL, NULL);
	else
		introduce_conn(c, &resumed);
}

void protocol_opened(struct conn *c)
{
	struct hub *h = hub_of(c);
	bool is_resumed = !c->is_echo && h->coming.is_resumed;
	sd_id128_t random;

	/* Its id is what others know it by: drawn at random, so that none can be guessed. */
	c->connected_s = (uint32_t)(clock_wall_ms() / 1000);
	if (!is_resumed) {
		if (sd_id128_randomize(&random) < 0) {
			conn_close(c, WS_CODE_INTERNAL_ERROR, "no random numbers");
			return;
		}
		memcpy(c->id, random.bytes, sizeof(c->id));
		conn_take_serial(c);
	}
	log_connection(c, EV_CONNECTED,
		       c->is_echo   ? "connected to echo_path"
		       : is_resumed ? "connected again"
				    : "connected");
	if (c->is_echo)
		return;
	if (h->coming.waits)
		resume_take_over(c, arrive_late);
	else
		introduce_conn(c, &h->coming);
}

/* Whether it has left as somebody does who means to; or was thrown out. */
static bool is_clean_end(uint16_t code)
{
	switch (code) {
	case WS_CODE_NORMAL:
	case WS_CODE_NO_STATUS:
	case WS_CODE_PROTOCOL_ERROR:
	case WS_CODE_UNSUPPORTED_DATA:
	case WS_CODE_INVALID_DATA:
	case WS_CODE_POLICY:
	case WS_CODE_TOO_BIG:
	case WS_CODE_AUTH_EXPIRED:
		return true;
	default:
		return false;
	}
}

void protocol_left(struct conn *c)
{
	enum hub_telling tell =
		c->may_resume && !is_clean_end(c->close_code) ? HUB_TELL_LATER : HUB_TELL;
	char text[64];

	/* The line names the channel, and so comes before the memberships end. */
	snprintf(text, sizeof(text), "disconnected with %u", c->close_code);
	log_connection(c, EV_DISCONNECTED, text);
	turn_charge(&c->env->turn, (size_t)c->n_members * TURN_FRAME);
	while (c->members)
		hub_leave(hub_of(c), c->members, tell);
	transfer_drop(&hub_of(c)->transfers, c);
	/* Last: until here nobody else can have its id. */
	resume_left(c);
}

/* ---------------------------------------------------------------- what is published */

static bool may_publish(struct conn *c, const message *m, const struct member *through)
{
	if (!c->grant || c->grant->may_publish)
		return true;
	protocol_refuse_in(c, m, 403, "not allowed to publish", through->channel->entry->name);
	return false;
}

static void refuse_stranger(struct conn *c, const message *m)
{
	const char *channel = m && message_names_channel(m) ? m->channel : protocol_path_channel(c);

	protocol_refuse_in(c, m, 404,
			   channel && channel[0] == '/'
				   ? "not a member of the channel, whose name begins with \"/\""
				   : "not a member of the channel",
			   channel);
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
		refuse_stranger(c, m);
	return through && may_publish(c, m, through) ? through : NULL;
}

/* It was published through this membership. */
static void acknowledge_message(struct member *through, const message *m, bool is_chunk,
				const struct publication *pub)
{
	struct hub *h = hub_of(through->conn);

	/* It was the last that was published. */
	hub_acknowledge(
		h, through, m->request_id.data, m->request_id.len, is_chunk,
		(struct acks_place){
			.sequence = pub->said.is_numbered ? h->sequence : 0,
			.is_duplicate = pub->is_once && pub->once.outcome == HISTORY_DUPLICATE,
		});
}

/* Each of these returns false where the message takes more than a share of a turn. */

static bool take_chat(struct conn *c, struct publication *pub, const message *m, const uint8_t *p,
		      size_t n)
{
	struct member *through = route_message(c, m);
	enum msg_result r = msg_check_chat(m);
	enum publication_result done;

	if (!through)
		return true;
	/* Nobody may speak as the server does. */
	if (r != MSG_OK) {
		protocol_refuse_result(c, m, 403, r);
		return true;
	}
	done = protocol_publish_run(c, pub, m, through, p, n);
	if (done == PUBLICATION_DONE && c->caps & MSG_CAP_ACK)
		acknowledge_message(through, m, false, pub);
	return done != PUBLICATION_MORE;
}

static bool take_binary(struct conn *c, struct publication *pub, const message *m, const uint8_t *p,
			size_t n)
{
	struct member *through = route_message(c, m);
	bool is_spooled = transfers_are_on(&hub_of(c)->transfers);
	enum publication_result done;

	if (!through)
		return true;
	/* Others get it at once, whatever becomes of the file. */
	done = protocol_publish_run(c, pub, m, through, p, n);
	if (done == PUBLICATION_MORE)
		return false;
	if (done == PUBLICATION_REFUSED || c->state != CONN_OPEN)
		return true;
	if (is_spooled)
		transfer_take_chunk(&hub_of(c)->transfers, c, m);
	if (c->state != CONN_OPEN)
		return true;
	/* The last chunk of a file is acknowledged once the file is there. */
	if (c->caps & MSG_CAP_ACK && !(is_spooled && m->binary->is_last))
		acknowledge_message(through, m, true, pub);
	return true;
}

static bool take_text(struct conn *c, struct publication *pub, const uint8_t *p, size_t n)
{
	struct member *through;

	if (c->env->config->text_messages != TEXT_RELAY) {
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL, "sent a text message; noted");
		/* Once: whoever goes on has seen it, or doesn't read what comes. */
		if (!c->was_told_of_text)
			protocol_send_error(c, NULL, 400,
					    "text messages are not passed on here: send binary "
					    "ones, each a serialized WebSocketMessage "
					    "(text_messages = log)");
		c->was_told_of_text = true;
		return true;
	}
	through = route_message(c, NULL);
	/* Where it is refused, that says so itself. */
	return !through || protocol_publish_run(c, pub, NULL, through, p, n) != PUBLICATION_MORE;
}

/* ---------------------------------------------------------------------- control */

/* Publishers to its channels are to know what it reads from now on. */
static void change_caps(struct conn *c, unsigned caps)
{
	unsigned before = c->caps;

	c->caps = (uint8_t)(caps & MSG_CAPS_ALL);
	for (struct member *m = c->caps == before ? NULL : c->members; m; m = m->sibling) {
		directory_add_reader(m->channel->entry, c->caps, c->deflate_window);
		directory_drop_reader(m->channel->entry, before, c->deflate_window);
	}
}

/* A fresh token in the place of the one that let it in. False: refused, and nothing changed. */
static bool renew_grant(struct conn *c, const message *m)
{
	const char *token = m->control->token;
	struct grant *grant = NULL;
	enum token_result r;
	char reason[160];

	/* Where nobody is asked for one, there is nothing to be prolonged. */
	if (!token[0] || !c->env->policy->keys)
		return true;
	/* A signature is as much work as many frames. */
	conn_charge_frames(c, TOKEN_FRAMES);
	r = policy_verify_token(c->env->policy, token, strlen(token), &grant);
	if (r != TOKEN_OK) {
		snprintf(reason, sizeof(reason), "its token is refused: %s", token_result_text(r));
		protocol_refuse_quietly(c, m, 401, reason, "the token is not valid");
		return false;
	}
	if (c->grant && strcmp(grant->user_id, c->grant->user_id) != 0) {
		free(grant);
		protocol_refuse(c, m, 403, "the token is of another user");
		return false;
	}
	conn_set_grant(c, grant);
	return true;
}

static void take_connect(struct conn *c, const message *m)
{
	const Websocket__ControlMessage *control = m->control;

	static_assert(CONN_SESSION_MAX == 64, "the reason says so");
	if (strlen(control->session_id) > CONN_SESSION_MAX) {
		protocol_refuse(c, m, 413, "session_id is longer than 64 bytes");
		return;
	}
	if (!renew_grant(c, m))
		return;
	conn_set_session_id(c, control->session_id);
	/* What both know is in force; the answer is the first that may make use of it. */
	if (control->n_capabilities > 0)
		change_caps(c, msg_caps_parse(control->capabilities, control->n_capabilities));
	protocol_send_capabilities(c, m, control->n_capabilities > 0 && c->caps & MSG_CAP_RESUME);
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
	case WEBSOCKET__CONTROL_TYPE__POSITION:
		protocol_position(c, m);
		break;
	case WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE:
	case WEBSOCKET__CONTROL_TYPE__ERROR:
	case WEBSOCKET__CONTROL_TYPE__CONFIG:
		/* They answer something, and nothing here is waiting for an answer. */
		conn_log(c, LOG_DEBUG, EV_CLIENT_MESSAGE, NULL,
			 "sent ACKNOWLEDGE, ERROR or CONFIG; noted");
		break;
	default:
		protocol_refuse_result(c, m, 400, MSG_UNKNOWN_TYPE);
		break;
	}
}

/* ---------------------------------------------------------------- all that comes */

static bool take_message(struct conn *c, struct publication *pub, const message *m,
			 const uint8_t *p, size_t n)
{
	switch (m->type) {
	case WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE:
		return take_chat(c, pub, m, p, n);
	case WEBSOCKET__MESSAGE_TYPE__BINARY_DATA:
		return take_binary(c, pub, m, p, n);
	case WEBSOCKET__MESSAGE_TYPE__CONTROL:
		take_control(c, m);
		return true;
	default:
		/* HEARTBEAT: the frame itself was the sign of life. */
		if (c->caps & MSG_CAP_HEARTBEAT)
			protocol_send_heartbeat(c, m);
		return true;
	}
}

/* Not a message that can be acted on: says so. */
static void refuse_undecoded(struct conn *c, const message *m, enum msg_result r)
{
	if (r == MSG_LONG_LIST)
		protocol_refuse_for_limit(c, m, 429, "max_channels_per_client", NULL);
	else
		protocol_refuse_result(c, m, r == MSG_TOO_BIG ? 413 : 400, r);
}

bool protocol_message(struct conn *c, uint8_t opcode, uint8_t *p, size_t n)
{
	struct hub *h = hub_of(c);
	struct publication pub;
	size_t budget = SIZE_MAX; /* that nothing of this size uses up */
	struct msg_decoder d;
	message *m = NULL;
	enum msg_result r;
	bool is_done;

	if (n > PROTOCOL_AT_ONCE_BYTES)
		return false;
	publication_init(&pub);
	if (opcode == WS_TEXT) {
		is_done = take_text(c, &pub, p, n);
	} else {
		/*
		 * The message before is done with: all of it was copied where it is needed longer.
		 */
		arena_reset(&h->arena);
		r = msg_decoder_begin(&d, &h->arena, p, n, protocol_max_list(c));
		if (r == MSG_OK)
			r = msg_decoder_run(&d, &budget, &m);
		pub.spots = &d.spots;
		if (r != MSG_OK)
			refuse_undecoded(c, m, r);
		else if (d.spots.n_cuts)
			msg_drop_cuts(m, &d.spots);
		is_done = r != MSG_OK || take_message(c, &pub, m, p, n);
	}
	/* What is not done within a share begins anew: its bytes are somewhere else then. */
	publication_fini(&pub);
	return is_done;
}

/* ---------------------------------------------------------------- over several turns */

struct WB_OWNER(worker) work {
	struct conn_work base; /* first */
	struct publication pub;
	struct arena arena; /* of what was decoded */
	struct msg_decoder decoder;
	message *m; /* once it is decoded; NULL: not yet, or a text */
};

void protocol_free_work(struct conn_env *env, struct conn_work *base)
{
	struct work *w = CONTAINER_OF(base, struct work, base);

	(void)env;
	if (!base)
		return;
	publication_fini(&w->pub);
	arena_fini(&w->arena);
	free(w);
}

/* NULL: there is no memory for it, which the client was told. */
static struct work *work_new(struct conn *c, uint8_t opcode, const uint8_t *p, size_t n)
{
	struct work *w = calloc(1, sizeof(*w));

	if (!w) {
		protocol_refuse(c, NULL, 503, "out of memory");
		return NULL;
	}
	/* As in hub_configure(): its structs and strings take more room than its bytes. */
	arena_init(&w->arena, ARENA_FIRST_BYTES, 2 * c->env->config->max_message_size + 64 * 1024);
	if (opcode == WS_TEXT)
		return w;
	if (msg_decoder_begin(&w->decoder, &w->arena, p, n, protocol_max_list(c)) == MSG_OK) {
		/* It goes on as it came: nobody here reads what is in a chat. */
		w->decoder.drops_content = true;
		return w;
	}
	protocol_refuse(c, NULL, 503, "out of memory");
	protocol_free_work(c->env, &w->base);
	return NULL;
}

/* The message is decoded. Return: as msg_decoder_run(). */
static enum msg_result decode_on(struct conn *c, struct work *w, message **ret)
{
	enum msg_result r = MSG_UNFINISHED;

	while (r == MSG_UNFINISHED && conn_may_work(c->env)) {
		size_t budget = DECODE_STEP;

		r = msg_decoder_run(&w->decoder, &budget, ret);
		conn_charge_work(c->env, (DECODE_STEP - budget) / DECODED_PER_WORK);
	}
	return r;
}

/* True: the message is done with. */
static bool work_on(struct conn *c, struct work *w, uint8_t opcode, const uint8_t *p, size_t n)
{
	message *m = NULL;
	enum msg_result r;

	if (opcode == WS_TEXT)
		return take_text(c, &w->pub, p, n);
	if (!w->m) {
		r = decode_on(c, w, &m);
		if (r == MSG_UNFINISHED)
			return false;
		if (r != MSG_OK) {
			refuse_undecoded(c, m, r);
			return true;
		}
		if (w->decoder.spots.n_cuts)
			msg_drop_cuts(m, &w->decoder.spots);
		w->m = m;
		w->pub.spots = &w->decoder.spots;
	}
	return take_message(c, &w->pub, w->m, p, n);
}

bool protocol_work(struct conn *c, struct conn_work **base, uint8_t opcode, uint8_t *p, size_t n)
{
	struct work *w = *base ? CONTAINER_OF(*base, struct work, base) : work_new(c, opcode, p, n);
	bool is_done;

	if (!w)
		return true;
	*base = &w->base;
	is_done = work_on(c, w, opcode, p, n);
	w->base.bytes = sizeof(*w) + w->arena.held_bytes + publication_bytes(&w->pub);
	return is_done;
}
