/* SPDX-License-Identifier: MIT */
/*
 * Who is connected to a listener, those first whose request is due for longest. Bytes that
 * trickle in keep libmicrohttpd's own timeout from ending anybody: so there is a time for the whole
 * of a request, and who has had most of it makes room for whoever comes.
 */
#include <sys/socket.h>

#include "base/clock.h"
#include "service/admin_private.h"

struct admin_peer {
	struct list node; /* in admin_side.peers, but while it waits for an answer */
	struct admin_side *side;
	uint64_t since_ns; /* when it came, or had its last answer */
	int fd;
	bool is_ending;
};

static void peer_wait_for(struct admin_peer *p)
{
	p->since_ns = clock_now_ns();
	list_add_tail(&p->side->peers, &p->node);
}

void admin_peer_notify(void *cls, struct MHD_Connection *connection, void **context,
		       enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info;
	struct admin_peer *p = *context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (p) {
			list_del(&p->node);
			p->side->n_ending -= p->is_ending;
		}
		free(p);
		*context = NULL;
		return;
	}
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	p = info ? calloc(1, sizeof(*p)) : NULL;
	/* Without memory it is one that nobody ends but libmicrohttpd. */
	if (!p)
		return;
	p->side = cls;
	p->fd = info->connect_fd;
	list_init(&p->node);
	peer_wait_for(p);
	*context = p;
}

void admin_peer_set_waiting(struct MHD_Connection *connection, bool is_waiting)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct admin_peer *p = info ? info->socket_context : NULL;

	if (!p)
		return;
	list_del(&p->node);
	if (!is_waiting)
		peer_wait_for(p);
}

/* Its end: libmicrohttpd finds it at its next look, and counts one less then. */
static void peer_end(struct admin_peer *p)
{
	list_del(&p->node);
	p->is_ending = true;
	p->side->n_ending++;
	(void)shutdown(p->fd, SHUT_RDWR);
}

bool admin_peers_end_first(struct admin_side *side)
{
	/* One makes room for one: until it is closed, whoever just came would be the next. */
	if (side->n_ending > 0)
		return true;
	if (list_is_empty(&side->peers))
		return false;
	peer_end(CONTAINER_OF(list_first(&side->peers), struct admin_peer, node));
	return true;
}

void admin_peers_end_late(struct admin_side *side)
{
	uint64_t now = clock_now_ns();

	while (!list_is_empty(&side->peers)) {
		struct admin_peer *p =
			CONTAINER_OF(list_first(&side->peers), struct admin_peer, node);

		if (now - p->since_ns < ADMIN_REQUEST_S * NS_PER_S)
			break;
		peer_end(p);
	}
}
