/* SPDX-License-Identifier: MIT */
/*
 * The life of the listeners. Accepting is our own work: libmicrohttpd would try again at once
 * when there is no descriptor left, and burn a processor with it.
 */
#include "service/admin.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/ip.h"
#include "io/sock.h"
#include "service/admin_private.h"

#define ACCEPT_PAUSE_MS 100

/*
 * All of it is the main thread's. Where libmicrohttpd is not told, from 0.9.77 on, it counts a
 * connection that is handed to it only at its next run, and refuses those that are too many then.
 */
#if MHD_VERSION >= 0x00097707
#define ONE_THREAD_ALONE MHD_USE_NO_THREAD_SAFETY
#else
#define ONE_THREAD_ALONE 0
#endif

static int admin_watch(struct admin *a, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* No more can be taken now: admin_run() tries again, after ACCEPT_PAUSE_MS at the latest. */
static void side_pause(struct admin_side *side)
{
	(void)epoll_ctl(side->admin->epoll_fd, EPOLL_CTL_DEL, side->listen_fd, NULL);
	side->is_listening = false;
}

static bool side_is_full(const struct admin_side *side)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(side->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info && info->num_connections >= ADMIN_MAX_CONNECTIONS;
}

static void side_accept(struct admin_side *side)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd;

	/* Paused: there may be room again, which only trying can show. */
	if (!side->is_listening && admin_watch(side->admin, side->listen_fd))
		return;
	side->is_listening = true;
	for (int i = 0; i < ADMIN_MAX_CONNECTIONS; i++) {
		/*
		 * Looked at each time: an accepted one counts at once, and libmicrohttpd refuses
		 * more.
		 */
		if (side_is_full(side)) {
			if (!admin_peers_end_first(side))
				side_pause(side);
			return;
		}
		len = sizeof(addr);
		fd = accept4(side->listen_fd, (struct sockaddr *)&addr, &len,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) /* which is closed when there is no memory for it */
			(void)MHD_add_connection(side->daemon, fd, (struct sockaddr *)&addr, len);
		else if (errno == EAGAIN)
			return;
		/* Other errors are those of the one connection that was to be accepted. */
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			 errno == ENOMEM) {
			side_pause(side);
			return;
		}
	}
}

/* Takes @fd. */
static int side_start(struct admin *a, struct admin_side *side, int fd)
{
	const union MHD_DaemonInfo *info;
	int r;

	side->admin = a;
	side->is_control = side == &a->control;
	side->listen_fd = fd;
	list_init(&side->peers);
	side->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
			ONE_THREAD_ALONE,
		0, NULL, NULL, admin_http_handle, side, MHD_OPTION_CONNECTION_LIMIT,
		ADMIN_MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, ADMIN_IDLE_S,
		MHD_OPTION_NOTIFY_COMPLETED, admin_http_completed, side,
		MHD_OPTION_NOTIFY_CONNECTION, admin_peer_notify, side, MHD_OPTION_END);
	if (!side->daemon)
		return -ENOMEM;
	/*
	 * One epoll inside another: the caller's loop watches ours, ours watches libmicrohttpd's.
	 */
	info = MHD_get_daemon_info(side->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -ENOTSUP;
	r = admin_watch(a, info->epoll_fd);
	if (!r)
		r = admin_watch(a, fd);
	side->is_listening = r == 0;
	return r;
}

static void side_stop(struct admin_side *side)
{
	if (side->daemon)
		MHD_stop_daemon(side->daemon);
	side->daemon = NULL;
	fd_closep(&side->listen_fd);
}

static int admin_open_metrics(struct admin *a, const struct admin_options *options)
{
	uint8_t ip[IP_BYTES];
	int fd, r;

	if (!options->metrics_host)
		return 0;
	r = admin_listen_tcp(options->metrics_host, options->metrics_port, &fd);
	if (r < 0)
		return r;
	a->port = sock_port(fd);
	a->is_loopback = ip_parse(options->metrics_host, strlen(options->metrics_host), ip) == 0 &&
			 ip_is_loopback(ip);
	return side_start(a, &a->metrics, fd);
}

/* The path is copied first: without memory for it nothing has to be removed again. */
static int admin_open_control(struct admin *a, const struct admin_options *options)
{
	WB_CLEANUP(ptr_freep) char *path = NULL;
	struct stat st;
	int fd, r;

	if (!options->control_path)
		return 0;
	path = strdup(options->control_path);
	if (!path)
		return -ENOMEM;
	r = admin_listen_unix(path, &fd, &st);
	if (r < 0)
		return r;
	/* Ours to remove from here on, whatever fails later. */
	a->control_path = TAKE_PTR(path);
	a->control_dev = st.st_dev;
	a->control_ino = st.st_ino;
	return side_start(a, &a->control, fd);
}

static int admin_open(struct admin *a, const struct admin_options *options,
		      enum admin_listener *failed)
{
	int r;

	/* Said before each step, so that an early return needs no more. */
	*failed = ADMIN_METRICS;
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (a->epoll_fd < 0)
		return -errno;
	r = admin_open_metrics(a, options);
	if (r < 0)
		return r;
	*failed = ADMIN_CONTROL;
	return admin_open_control(a, options);
}

int admin_new(const struct admin_options *options, enum admin_listener *failed, struct admin **ret)
{
	struct admin *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	list_init(&a->waiting);
	a->epoll_fd = a->metrics.listen_fd = a->control.listen_fd = -1;
	a->answers = options->answers;
	a->ctx = options->ctx;
	a->max_body = options->max_body;
	r = admin_open(a, options, failed);
	if (r < 0) {
		admin_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

/*
 * libmicrohttpd aborts when it is stopped with suspended connections: they are
 * answered first. So are requests that it reads only while it does that.
 */
static void admin_turn_away(struct admin *a)
{
	struct list *node;

	a->is_closing = true;
	while ((node = list_pop(&a->waiting))) {
		struct admin_request *req = CONTAINER_OF(node, struct admin_request, node);

		admin_request_answer_text(req, MHD_HTTP_SERVICE_UNAVAILABLE, ADMIN_STOPPING);
		admin_request_resume(req);
	}
	admin_run(a);
}

struct admin *admin_free(struct admin *a)
{
	struct stat st;

	if (!a)
		return NULL;
	/* First of all, so that who looks for the socket from now on does not find it. */
	if (a->control_path && lstat(a->control_path, &st) == 0 && st.st_dev == a->control_dev &&
	    st.st_ino == a->control_ino)
		(void)unlink(a->control_path); /* gone or not, there is nothing more to do */
	/* Only then the daemons, which must not have a suspended connection any more. */
	admin_turn_away(a);
	side_stop(&a->metrics);
	side_stop(&a->control);
	fd_closep(&a->epoll_fd);
	free(a->control_path);
	free(a);
	return NULL;
}

int admin_fd(const struct admin *a)
{
	return a->epoll_fd;
}

/* A paused listener has to be tried again, whatever libmicrohttpd has to wait for. */
static int side_timeout_ms(const struct admin_side *side)
{
	MHD_UNSIGNED_LONG_LONG ms;

	int longest = side->daemon && !side->is_listening ? ACCEPT_PAUSE_MS : -1;

	if (!side->daemon || MHD_get_timeout(side->daemon, &ms) != MHD_YES)
		return longest;
	ms = MIN(ms, (MHD_UNSIGNED_LONG_LONG)INT32_MAX);
	return longest < 0 ? (int)ms : MIN((int)ms, longest);
}

int admin_timeout_ms(const struct admin *a)
{
	int metrics = side_timeout_ms(&a->metrics);
	int control = side_timeout_ms(&a->control);

	/* libmicrohttpd up to 0.9.75 forgets resumed connections in its timeout. */
	if (a->has_resumed)
		return 0;
	if (metrics < 0 || control < 0)
		return MAX(metrics, control);
	return MIN(metrics, control);
}

static void side_run(struct admin_side *side)
{
	if (!side->daemon)
		return;
	admin_peers_end_late(side);
	if (!side->admin->is_closing)
		side_accept(side);
	(void)MHD_run(side->daemon); /* fails only for a daemon with threads */
}

void admin_run(struct admin *a)
{
	a->has_resumed = false;
	side_run(&a->metrics);
	side_run(&a->control);
}

uint16_t admin_port(const struct admin *a)
{
	return a->port;
}

void admin_set_max_body(struct admin *a, size_t max_body)
{
	a->max_body = max_body;
}
