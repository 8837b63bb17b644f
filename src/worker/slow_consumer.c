/* SPDX-License-Identifier: MIT */
#include "worker/slow_consumer.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "channel/channel.h"
#include "io/log.h"

#define AT_ONCE 4           /* times a limit */
#define ACTIONS_PER_TURN 16 /* of slow_consumer_enforce_memory() */

/* Of bytes a single message may have more than the limit: it is what one is there to send. */
static bool is_past(const struct config *config, uint64_t bytes, uint64_t messages, uint64_t times)
{
	return messages > times * config->message_queue_size ||
	       (bytes > times * config->max_send_buffer && messages > 1);
}

static void log_slow(const struct conn *c, uint64_t bytes, uint64_t messages, const char *setting,
		     const char *what)
{
	char peer[SOCK_ADDRESS_MAX], id[37], value[CONN_SETTING_MAX];

	/* In the one case memory is short, in the other a client is slow. */
	uuid4_format(id, c->id);
	log_event_limited(
		LOG_NOTICE, strcmp(setting, "log_memory") == 0 ? EV_LOG_MEMORY : EV_SLOW_CONSUMER,
		LOG_FIELDS(LOG_TEXT("PEER", sock_format_peer(peer, &c->peer)),
			   LOG_TEXT("CLIENT_ID", id),
			   LOG_TEXT("CHANNEL", c->env->ops->path_channel(c)),
			   LOG_NUM("QUEUED_BYTES", bytes), LOG_TEXT("SETTING", setting)),
		"%s reads too slowly: %" PRIu64 " messages, %" PRIu64 " bytes wait; %s%s", peer,
		messages, bytes, what, conn_format_setting(value, sizeof(value), c, setting));
}

static void end_slow_consumer(struct conn *c)
{
	METRIC_INC(c->env->metrics, slow_disconnects);
	/* Else its Close would stand behind what it doesn't read. */
	conn_drop_queue(c);
	conn_close(c, WS_CODE_TRY_AGAIN, NULL);
}

static uint64_t remainder_of(uint64_t whole, uint64_t part)
{
	return whole > part ? whole - part : 0;
}

/* Skips down to @bytes and @messages in all; false when that takes nothing away. */
static bool skip_oldest(struct conn *c, uint64_t bytes, uint64_t messages, const char *setting)
{
	uint64_t had_bytes, had_messages, bytes_left, messages_left, skipped;

	channel_backlog(c, &had_bytes, &had_messages);
	/* What the private queue holds stays, so the channels get what is left of the limit. */
	skipped = channel_skip(c, remainder_of(bytes, c->out->queue_bytes),
			       remainder_of(messages, c->out->queue_count));
	channel_backlog(c, &bytes_left, &messages_left);
	if (bytes_left == had_bytes && messages_left == had_messages)
		return false;
	log_slow(c, had_bytes, had_messages, setting, "its oldest messages are skipped");
	METRIC_INC(c->env->metrics, slow_skips);
	METRIC_ADD(c->env->metrics, skipped_messages, skipped);
	c->over_tick = 0;
	return true;
}

/* Brings a connection down to @bytes and @messages, or ends it. */
static void bring_down(struct conn *c, uint64_t bytes, uint64_t messages, const char *setting)
{
	const struct config *config = c->env->config;
	uint64_t had_bytes, had_messages;

	/*
	 * The private queue is never skipped: where it alone is too much, skipping doesn't help.
	 * Of channels those give up something whose policy that is.
	 */
	if (!is_past(config, c->out->queue_bytes, c->out->queue_count, 1) &&
	    skip_oldest(c, bytes, messages, setting))
		return;
	channel_backlog(c, &had_bytes, &had_messages);
	log_slow(c, had_bytes, had_messages, setting, "closing with " WS_CODE_TEXT(TRY_AGAIN));
	end_slow_consumer(c);
}

static bool is_past_half(const struct config *config, uint64_t bytes, uint64_t messages)
{
	return bytes > config->max_send_buffer / 2 || messages > config->message_queue_size / 2;
}

/*
 * More than half of its limits waits that it has to get: acknowledgements wait for it. @bytes and
 * @messages: of all, so that what can't be too much is not added up again.
 */
static void judge_slow(struct conn *c, uint64_t bytes, uint64_t messages)
{
	const struct config *config = c->env->config;
	bool is_slow = is_past_half(config, bytes, messages);

	if (is_slow) {
		channel_backlog_kept(c, &bytes, &messages);
		is_slow = is_past_half(config, bytes, messages);
	}
	if (is_slow != c->is_slow)
		channel_set_slow(c, is_slow);
}

void slow_consumer_check(struct conn *c)
{
	const struct config *config = c->env->config;
	uint64_t now = c->env->reactor->now_ns;
	uint64_t bytes, messages;

	if (c->state != CONN_OPEN)
		return;
	channel_backlog(c, &bytes, &messages);
	judge_slow(c, bytes, messages);
	/* Who takes all that it is sent, and waits for more, does not read too slowly. */
	if (c->is_owed || !is_past(config, bytes, messages, 1)) {
		c->over_tick = 0;
		return;
	}
	/* The grace begins; the timer looks again at its end, should nothing else do it before. */
	if (!c->over_tick) {
		c->over_tick = conn_tick(now);
		conn_arm(c, now + config->slow_consumer_grace);
	}
	if (now < conn_deadline(c, conn_tick_ns(c->over_tick, now), config->slow_consumer_grace) &&
	    !is_past(config, bytes, messages, AT_ONCE))
		return;
	bring_down(c, config->max_send_buffer / 2, config->message_queue_size / 2,
		   messages > config->message_queue_size ? "message_queue_size"
							 : "max_send_buffer");
}

static size_t in_transit(const struct conn *c)
{
	return c->out->transit ? c->out->transit_bytes->len : 0;
}

static struct conn *worst_of(struct conn_env *env, uint64_t *ret_bytes)
{
	struct conn *worst = NULL;

	*ret_bytes = 0;
	LIST_FOREACH (node, &env->unsent) {
		struct conn *c = CONTAINER_OF(node, struct conn, unsent_node);
		uint64_t bytes, messages;

		if (c->state != CONN_OPEN)
			continue;
		channel_backlog_bound(c, &bytes, &messages);
		/* It counts in no limit, but it does in memory. */
		bytes += in_transit(c);
		if (bytes > *ret_bytes) {
			*ret_bytes = bytes;
			worst = c;
		}
	}
	return worst;
}

/* Half of the worst is enough: numbers of others may be old, and each would wait for another. */
static bool is_worst_anywhere(struct slow_consumer_lags *lags, unsigned worker, uint64_t bytes)
{
	for (unsigned i = 0; i < ARRAY_LEN(lags->worst_bytes); i++)
		if (i != worker &&
		    atomic_load_explicit(&lags->worst_bytes[i], memory_order_relaxed) / 2 > bytes)
			return false;
	return true;
}

/* log_memory: the connection that @bytes wait for has to give some back. */
static void take_memory_back(struct conn *c, uint64_t bytes)
{
	if (in_transit(c) <= bytes / 2) {
		bring_down(c, bytes / 2 - in_transit(c), UINT64_MAX, "log_memory");
		return;
	}
	/* A polite Close would keep what is in transit, which is most of it. */
	log_slow(c, bytes, 1, "log_memory", "dropped");
	METRIC_INC(c->env->metrics, slow_disconnects);
	c->close_code = WS_CODE_TRY_AGAIN;
	conn_abort(c);
}

static bool is_past_memory(const struct channel_env *channels)
{
	const struct conn_env *env = channels->conn;
	uint64_t bytes = atomic_load_explicit(env->frame_account, memory_order_relaxed);

	return bytes > env->config->log_memory &&
	       remainder_of(bytes, channels->backlog_bytes) > env->config->log_memory;
}

void slow_consumer_enforce_memory(const struct channel_env *channels,
				  struct slow_consumer_lags *lags)
{
	_Atomic uint64_t *mine = &lags->worst_bytes[channels->worker];
	uint64_t bytes = 0;

	for (int i = 0; i < ACTIONS_PER_TURN; i++) {
		struct conn *c;

		if (!is_past_memory(channels))
			break;
		/* Said before it is compared, so that the others can compare with it, too. */
		c = worst_of(channels->conn, &bytes);
		atomic_store_explicit(mine, bytes, memory_order_relaxed);
		if (!c || !is_worst_anywhere(lags, channels->worker, bytes))
			return;
		take_memory_back(c, bytes);
	}
	/* Enough, or enough for this turn: a number that stays would hold the others back. */
	if (atomic_load_explicit(mine, memory_order_relaxed))
		atomic_store_explicit(mine, 0, memory_order_relaxed);
}
