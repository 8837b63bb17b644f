/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the files of admin share. Each calls those before it: admin_request.c has who holds a
 * request and its answer, admin_query.c reads what it asks for, admin_peer.c has who is
 * connected, admin_http.c finds the route,
 * admin_listen.c opens sockets, admin.c has the life of the listeners.
 */

#include <microhttpd.h>
#include <sys/stat.h>

#include "base/base.h"
#include "containers/buf.h"
#include "containers/list.h"
#include "service/admin.h"

#define ADMIN_STOPPING "the daemon is stopping\n"

/* One listener and the connections that it took. */
struct WB_OWNER(main) admin_side {
	struct admin *admin;
	struct MHD_Daemon *daemon; /* NULL: not there */
	int listen_fd;
	struct list peers; /* whose request is due for longest first */
	unsigned n_ending; /* peers that were ended, and that libmicrohttpd has not closed yet */
	bool is_control;
	bool is_listening; /* in epoll; not while no more connections can be taken */
};

struct WB_OWNER(main) admin {
	struct admin_side metrics;
	struct admin_side control;
	struct list waiting; /* of admin_request: those that are handed out */
	admin_answer_fn *const *answers;
	void *ctx;
	size_t max_body;
	bool is_loopback; /* the TCP listener is on an address of this host alone */
	bool is_closing;  /* nothing is handed out any more */
	bool has_resumed; /* a request goes on, of which no descriptor and no timeout tells */
	int epoll_fd;     /* watches the descriptors of both listeners and daemons */
	uint16_t port;
	char *control_path; /* NULL: no socket file is ours */
	dev_t control_dev;  /* tells our socket file from another one of the same name */
	ino_t control_ino;
};

/*
 * One HTTP request. libmicrohttpd holds it until the connection is done with it, and the owner
 * of the answer until they reply; whoever lets go last frees.
 */
struct WB_OWNER(main) admin_request {
	struct list node; /* in admin.waiting while it is handed out; else alone */
	struct admin *admin;
	struct MHD_Connection *connection;
	const struct admin_route *route;
	struct buf body;
	size_t max_body;  /* of this request */
	size_t discarded; /* bytes that came past it */
	uint64_t offset;  /* of /clients */
	struct MHD_Response *response;
	unsigned status;
	bool is_too_big;
	bool is_replied; /* with no response: out of memory, the connection is dropped */
	bool is_suspended;
	bool is_held_by_http;
	bool is_held_by_owner;
};

/* Frees when nobody holds it any more. */
void admin_request_release(struct admin_request *req);

/* From here on the request waits for one of the admin_reply functions. */
void admin_request_hand_out(struct admin_request *req);

/* Sets the answer, which the handler sends; takes @body. Again is a no-op. */
void admin_request_answer(struct admin_request *req, unsigned status, const char *type,
			  struct buf *body);

/* The same with a plain text, copied. */
void admin_request_answer_text(struct admin_request *req, unsigned status, const char *text);

/* Has libmicrohttpd go on with a request that was suspended; others are left alone. */
void admin_request_resume(struct admin_request *req);

/* Somebody came to a listener, the admin_side @cls, or is gone. */
void admin_peer_notify(void *cls, struct MHD_Connection *connection, void **context,
		       enum MHD_ConnectionNotificationCode code);

/* It waits for an answer, so nothing is due from it; or it gets it, and may ask for more. */
void admin_peer_set_waiting(struct MHD_Connection *connection, bool is_waiting);

/*
 * Ends the one whose request is due for longest, unless one that was ended has still to be closed;
 * false: all there are wait for answers.
 */
bool admin_peers_end_first(struct admin_side *side);

/* Ends those whose request took longer than ADMIN_REQUEST_S. */
void admin_peers_end_late(struct admin_side *side);

/* The handler of both daemons; @cls is an admin_side. */
enum MHD_Result admin_http_handle(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_size, void **state);

/* libmicrohttpd is done with a request. */
void admin_http_completed(void *cls, struct MHD_Connection *connection, void **state,
			  enum MHD_RequestTerminationCode how);

/**
 * admin_listen_tcp() - open a listening socket that nobody shares
 *
 * Return:  0 | -EINVAL no numeric address | -errno of socket, bind or listen.
 */
int admin_listen_tcp(const char *host, uint16_t port, int *ret_fd) WB_NODISCARD;

/**
 * admin_listen_unix() - open a control socket, mode 0660
 * @ret_file: device and inode of the socket file
 *
 * Return:  0 | -EADDRINUSE someone listens there | -EEXIST not a socket | -ENAMETOOLONG
 *          | -errno of socket, bind, chmod, listen.
 */
int admin_listen_unix(const char *path, int *ret_fd, struct stat *ret_file) WB_NODISCARD;
