/* SPDX-License-Identifier: MIT */
#include "worker/connection_log.h"

#include <inttypes.h>

#include "base/text.h"

void connection_log_tick(struct connection_log *l, uint64_t now_ns)
{
	if (now_ns < l->second_began_ns + NS_PER_S)
		return;
	if (l->n_left_out > 0)
		log_line(LOG_INFO,
			 "%" PRIu64 " more lines about connections left out in the last second",
			 l->n_left_out);
	*l = (struct connection_log){.second_began_ns = now_ns};
}

void connection_log_write(struct connection_log *l, const struct conn *c, unsigned n_workers,
			  enum log_event_id event, const char *text)
{
	char peer[SOCK_ADDRESS_MAX], id[37];

	if (!c->env->config->log_connections)
		return;
	/* Also here, since the timer's tick may come behind thousands of lines of one turn. */
	connection_log_tick(l, c->env->reactor->now_ns);
	if (l->n_written >= CONNECTION_LOG_LINES / n_workers) {
		l->n_left_out++;
		return;
	}
	l->n_written++;
	uuid4_format(id, c->id);
	log_event(LOG_INFO, event,
		  LOG_FIELDS(LOG_TEXT("PEER", sock_format_peer(peer, &c->peer)),
			     LOG_TEXT("CLIENT_ID", id),
			     LOG_TEXT("CHANNEL", c->env->ops->path_channel(c)),
			     LOG_NUM("CLOSE_CODE", c->close_code)),
		  "%s %s (client %s)", peer, text, id);
}
