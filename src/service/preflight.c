/* SPDX-License-Identifier: MIT */
#include "service/preflight.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "io/sock.h"

struct flight {
	const struct config *config;
	const struct preflight_options *o;
	struct config_errors *errors;
};

static const char *words_for(int error)
{
	switch (error) {
	case -EADDRINUSE:
		return "another program has this port";
	case -EADDRNOTAVAIL:
		return "no address of this host";
	case -EACCES:
		return "a port below 1024 needs the capability CAP_NET_BIND_SERVICE";
	default:
		return strerror(-error);
	}
}

static void flight_fails(struct flight *f, enum config_key_index at, const char *what)
{
	const struct config_key *key = &config_keys[at];
	WB_CLEANUP(ptr_freep) char *value = NULL;

	if (config_format(f->config, key, &value) < 0)
		f->errors->n_lost++;
	else
		config_errors_add(f->errors, "%s: %s = %s: %s", config_origin(f->config, key),
				  key->name, value, what);
}

static void try_port(struct flight *f, const char *host, uint64_t port, enum config_key_index key,
		     enum config_key_index host_key)
{
	int r;

	if (port == CONFIG_PORT_OFF)
		return;
	r = sock_try_bind(host, (uint16_t)port);
	if (r == -EADDRNOTAVAIL && f->o->is_start)
		return;
	if (r == -EADDRINUSE && f->o->is_ours && f->o->is_ours(f->o->ctx, (uint16_t)port))
		return;
	if (r)
		flight_fails(f, r == -EADDRNOTAVAIL || r == -EINVAL ? host_key : key, words_for(r));
}

static void try_ports(struct flight *f)
{
	const struct config *c = f->config;

	if (!f->o->has_sockets)
		try_port(f, c->host, c->port, CONFIG_KEY_port, CONFIG_KEY_host);
	try_port(f, c->host, c->tls_port, CONFIG_KEY_tls_port, CONFIG_KEY_host);
	if (!c->enable_metrics)
		return;
	if (c->metrics_port != PREFLIGHT_METRICS_PORT ||
	    sock_try_bind(c->metrics_host, PREFLIGHT_METRICS_PORT) != -EADDRINUSE)
		try_port(f, c->metrics_host, c->metrics_port, CONFIG_KEY_metrics_port,
			 CONFIG_KEY_metrics_host);
}

/* The folder that a path lies in has to be there, and to be one that can be written to. */
static const char *parent_flaw(const char *path)
{
	WB_CLEANUP(ptr_freep) char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	struct stat st;

	if (!folder)
		return strerror(ENOMEM);
	if (slash)
		slash[slash == folder] = '\0';
	else
		strcpy(folder, ".");
	if (stat(folder, &st) < 0)
		return errno == ENOENT ? "its folder is not there" : strerror(errno);
	if (!S_ISDIR(st.st_mode))
		return "its folder is none";
	return access(folder, W_OK | X_OK) < 0 ? "its folder cannot be written to" : NULL;
}

static void try_socket(struct flight *f, const char *path, enum config_key_index key)
{
	const char *flaw = parent_flaw(path);
	struct stat st;

	if (!flaw && strlen(path) >= SOCK_PATH_MAX - 1)
		flaw = strerror(ENAMETOOLONG);
	if (!flaw && lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		flaw = "something that is no socket is there";
	if (flaw)
		flight_fails(f, key, flaw);
}

int preflight_find_group(const char *name, gid_t *ret)
{
	const struct group *g;
	uint64_t number;

	if (text_parse_count(name, &number) == 0 && number <= INT32_MAX) {
		*ret = (gid_t)number;
		return 0;
	}
	errno = 0;
	g = getgrnam(name);
	if (!g)
		return errno ? -errno : -ENOENT;
	*ret = g->gr_gid;
	return 0;
}

/* Root may give a file to any group, others to their own. */
static bool may_give_to(gid_t group)
{
	return geteuid() == 0 || getegid() == group || group_member(group);
}

static void try_group(struct flight *f, const char *socket)
{
	WB_CLEANUP(ptr_freep) char *folder = strdup(socket);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	struct stat st;
	gid_t group;

	if (!f->config->control_group[0])
		return;
	if (preflight_find_group(f->config->control_group, &group)) {
		flight_fails(f, CONFIG_KEY_control_group, "there is no such group");
		return;
	}
	/* A folder may give its group to what is made in it. */
	if (slash)
		slash[slash == folder] = '\0';
	if (slash && stat(folder, &st) == 0 && st.st_gid == group && st.st_mode & S_ISGID)
		return;
	if (!may_give_to(group))
		flight_fails(f, CONFIG_KEY_control_group,
			     "this process is not in the group: SupplementaryGroups= of the unit "
			     "puts it there");
}

static void try_sockets(struct flight *f)
{
	WB_CLEANUP(ptr_freep) char *control = NULL;
	WB_CLEANUP(ptr_freep) char *path = NULL;

	/* Below $RUNTIME_DIRECTORY, which the unit alone has, nothing is known outside of it. */
	if (f->config->listen_unix[0] && config_path_runtime(f->config->listen_unix, &path) == 0 &&
	    path[0] == '/')
		try_socket(f, path, CONFIG_KEY_listen_unix);
	if (config_control_socket_path(f->config, NULL, &control) == 0 && control &&
	    control[0] == '/') {
		try_socket(f, control, CONFIG_KEY_control_socket);
		try_group(f, control);
	}
}

/* It is made where it is missing, but not the folder around it. */
static void try_spool(struct flight *f)
{
	WB_CLEANUP(ptr_freep) char *dir = NULL;
	const char *flaw = NULL;
	struct stat st;

	if (!f->config->spool_dir[0] || config_path_state(f->config->spool_dir, &dir) < 0 ||
	    dir[0] != '/')
		return;
	if (stat(dir, &st) < 0)
		flaw = errno == ENOENT ? parent_flaw(dir) : strerror(errno);
	else if (!S_ISDIR(st.st_mode))
		flaw = "is no folder";
	else if (access(dir, W_OK | X_OK) < 0)
		flaw = strerror(errno);
	if (flaw)
		flight_fails(f, CONFIG_KEY_spool_dir, flaw);
}

int preflight(const struct policy *policy, const struct preflight_options *o,
	      struct config_errors *errors)
{
	struct flight f = {.config = policy->config, .o = o, .errors = errors};
	size_t before = errors->n + errors->n_lost;

	try_ports(&f);
	try_sockets(&f);
	try_spool(&f);
	return errors->n + errors->n_lost == before ? 0 : CONFIG_E_INVALID;
}
