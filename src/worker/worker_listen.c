/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/worker_private.h"

/*
 * A port has a socket for each worker (SO_REUSEPORT), so that the kernel spreads connections
 * and no worker waits for another. What there is only once, a unix socket or one of systemd's,
 * is in all workers' epoll by copies, and whoever is idle takes what comes.
 */

/* What there is before the first socket is opened. Those that were used become -1. */
struct inherited {
	struct worker_socket *socket;
	unsigned n;
};

/* One socket for all workers, by copies; or several, each with as many as others. */
static int share_out(struct worker_pool *p, const int *fds, unsigned n_fds,
		     enum worker_listener_kind kind)
{
	unsigned n = MAX(n_fds, p->n);

	/* Around the longer of the two, so that each socket and each worker comes at least once. */
	for (unsigned i = 0; i < n; i++) {
		int fd = fcntl(fds[i % n_fds], F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		if (!worker_add_listener(p->workers[i % p->n], fd, kind)) {
			fd_closep(&fd);
			return -E2BIG;
		}
	}
	return 0;
}

/* Those of socket activation; they are copied. Return: how many | -errno. */
static int add_activated(struct worker_pool *p, const struct inherited *inherited)
{
	int fds[WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS];
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < inherited->n && n < ARRAY_LEN(fds); i++)
		if (inherited->socket[i].kind == LISTENER_ACTIVATED)
			fds[n++] = inherited->socket[i].fd;
	if (n == 0)
		return 0;
	/* Copies in any case: what is left of the list is closed. */
	r = share_out(p, fds, n, LISTENER_ACTIVATED);
	p->port = sock_port(fds[0]);
	return r ? r : (int)n;
}

/* Those from before that are where the configuration wants them. Return: how many. */
static unsigned add_inherited(struct worker_pool *p, struct inherited *inherited, const char *host,
			      uint64_t wanted, enum worker_listener_kind kind, uint16_t *port)
{
	unsigned n = 0;

	*port = (uint16_t)wanted;
	for (unsigned i = 0; i < inherited->n; i++) {
		struct worker_socket *s = &inherited->socket[i];

		/* Port 0 is any: the first that fits says which one the others must have. */
		if (s->fd < 0 || s->kind != kind || !sock_is_at(s->fd, host, *port) ||
		    !worker_add_listener(p->workers[n % p->n], s->fd, kind))
			continue;
		*port = sock_port(s->fd);
		s->fd = -1;
		n++;
	}
	return n;
}

/* A listener from before, at another address, still has the port: it is shared until it goes. */
static bool inherited_has_port(const struct inherited *inherited, uint16_t port)
{
	for (unsigned i = 0; i < inherited->n; i++) {
		const struct worker_socket *s = &inherited->socket[i];

		if (s->fd >= 0 && port && sock_port(s->fd) == port)
			return true;
	}
	return false;
}

/* As many for each worker as for the others, and at least one, all on one port. */
static int open_port(struct worker_pool *p, struct inherited *inherited, const char *host,
		     uint64_t wanted, enum worker_listener_kind kind, uint16_t *ret_port)
{
	uint16_t port;
	unsigned n = add_inherited(p, inherited, host, wanted, kind, &port);
	/* Of a group only the first finds out that another program has the port. */
	bool is_first = n == 0 && !inherited_has_port(inherited, port);

	for (; n == 0 || n % p->n; n++, is_first = false) {
		struct worker *w = p->workers[n % p->n];
		int fd, error = sock_listen(host, port, SOMAXCONN, is_first, &fd);

		if (error)
			return error;
		port = sock_port(fd);
		if (!worker_add_listener(w, fd, kind)) {
			fd_closep(&fd);
			break; /* one less than others have, of very many */
		}
	}
	*ret_port = port;
	return 0;
}

static int take_inherited_unix(struct inherited *inherited, const char *path)
{
	char there[SOCK_PATH_MAX];

	for (unsigned i = 0; i < inherited->n; i++) {
		struct worker_socket *s = &inherited->socket[i];

		if (s->fd >= 0 && s->kind == LISTENER_UNIX &&
		    strcmp(sock_path(there, s->fd), path) == 0 && access(path, F_OK) == 0)
			return TAKE_FD(s->fd);
	}
	return -1;
}

static int open_unix(struct worker_pool *p, struct inherited *inherited,
		     const struct config *config)
{
	mode_t mode = (mode_t)config->listen_unix_mode;
	WB_CLEANUP(ptr_freep) char *path = NULL;
	WB_CLEANUP(fd_closep) int fd = -1;
	int r = config_path_runtime(config->listen_unix, &path);

	if (r)
		return r;
	/* One from before at the same path is used on, or clients would find nothing meanwhile. */
	fd = take_inherited_unix(inherited, path);
	if (fd < 0)
		r = sock_listen_unix(path, mode, SOMAXCONN, &fd);
	else if (chmod(path, mode) < 0)
		r = -errno;
	if (r)
		return r;
	p->unix_path = TAKE_PTR(path);
	return share_out(p, &fd, 1, LISTENER_UNIX);
}

/* The file of a socket that goes, unless another one has taken its place. */
static void remove_path(const struct worker_pool *p, int fd)
{
	char path[SOCK_PATH_MAX];

	if (sock_path(path, fd)[0] && (!p->unix_path || strcmp(path, p->unix_path) != 0))
		(void)unlink(path); /* perhaps somebody has removed it */
}

void worker_pool_drain(struct worker_pool *p, struct worker_socket *inherited, unsigned n_inherited)
{
	for (unsigned i = 0; i < n_inherited; i++) {
		struct worker_socket *s = &inherited[i];

		/* Systemd goes on listening at those of activation: nobody waits there in vain. */
		if (s->fd >= 0 && s->kind != LISTENER_ACTIVATED)
			worker_drain_listener(p->workers[i % p->n], s->fd, s->kind);
		if (s->fd >= 0 && s->kind == LISTENER_UNIX)
			remove_path(p, s->fd);
		fd_closep(&s->fd);
	}
}

static const char *key_to_blame(int error, const char *port_key)
{
	return error == -EINVAL || error == -EADDRNOTAVAIL ? "host" : port_key;
}

int worker_pool_listen(struct worker_pool *p, const struct config *config,
		       struct worker_socket *sockets, unsigned n, const char **ret_key)
{
	struct inherited inherited = {sockets, n};
	/* Who has sockets from systemd doesn't open a port beside them; TLS has one in any case. */
	int used = add_activated(p, &inherited), r = MIN(used, 0);

	if (used == 0 && config->port != CONFIG_PORT_OFF) {
		r = open_port(p, &inherited, config->host, config->port, LISTENER_PLAIN, &p->port);
		*ret_key = r ? key_to_blame(r, "port") : NULL;
	}
	if (!r && config->tls_port != CONFIG_PORT_OFF) {
		r = open_port(p, &inherited, config->host, config->tls_port, LISTENER_TLS,
			      &p->tls_port);
		*ret_key = r ? key_to_blame(r, "tls_port") : NULL;
	}
	if (!r && config->listen_unix[0]) {
		r = open_unix(p, &inherited, config);
		*ret_key = r ? "listen_unix" : NULL;
	}
	return r;
}

static bool is_known(const ino_t *inode, unsigned n, ino_t which)
{
	for (unsigned i = 0; i < n; i++)
		if (inode[i] == which)
			return true;
	return false;
}

unsigned worker_pool_sockets(const struct worker_pool *p, struct worker_socket *ret, unsigned max)
{
	ino_t inode[WORKER_MAX_LISTENERS * DIRECTORY_MAX_WORKERS];
	unsigned n = 0;

	for (unsigned i = 0; i < p->n; i++) {
		const struct worker *w = p->workers[i];

		for (unsigned k = 0; k < w->n_listeners && n < MIN(max, ARRAY_LEN(inode)); k++) {
			const struct worker_listener *l = &w->listeners[k];
			struct stat st;

			/* Copies of one socket have one inode: the next process makes its own. */
			if (fstat(l->fd, &st) < 0 || is_known(inode, n, st.st_ino))
				continue;
			inode[n] = st.st_ino;
			ret[n++] = (struct worker_socket){l->fd, l->kind};
		}
	}
	return n;
}
