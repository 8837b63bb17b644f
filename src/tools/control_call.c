/* SPDX-License-Identifier: MIT */
/* A call of the daemon, and all that can go wrong with it, in words for the administrator. */
#include "tools/control_private.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "tools/control_print.h"

#define RUNTIME_DIR "/run/wsbind"

int control_fail(const struct control_call *c, const char *format, ...)
{
	va_list args;

	fprintf(c->io->err, "wsbind %s: ", c->command->options.command);
	va_start(args, format);
	vfprintf(c->io->err, format, args);
	va_end(args);
	fputc('\n', c->io->err);
	return EXIT_FAILURE;
}

int control_fail_usage(const struct control_call *c, const char *what, const char *argument)
{
	(void)control_fail(c, "%s%s", what, argument);
	options_print_synopsis(&c->command->options, c->io->err);
	return OPTIONS_EXIT_USAGE;
}

int control_fail_answer(const struct control_call *c, const struct control_answer *a)
{
	fprintf(c->io->err, "wsbind %s: ", c->command->options.command);
	if (a->body.len == 0)
		fprintf(c->io->err, "the daemon answered with status %d\n", a->status);
	control_print_text(c->io->err, control_answer_text(a));
	return EXIT_FAILURE;
}

int control_fail_nonsense(const struct control_call *c)
{
	return control_fail(c, "%s: the answer is not what %s gives", c->socket_path,
			    c->command->route->path);
}

/* Who may use the socket, as its owner and mode say. */
static int control_fail_permission(const struct control_call *c)
{
	const struct passwd *user;
	const struct group *group;
	struct stat st;

	if (stat(c->socket_path, &st) < 0)
		return control_fail(
			c, "%s: permission denied already for its directory; run this as root",
			c->socket_path);
	/*
	 * Numbers will do where a name is not known: in a container, or after a user was removed.
	 */
	user = getpwuid(st.st_uid);
	group = getgrgid(st.st_gid);
	if (!group)
		return control_fail(c,
				    "%s: permission denied: mode %04o, group %u; run this as root",
				    c->socket_path, st.st_mode & 07777u, st.st_gid);
	return control_fail(
		c,
		"%s: permission denied: it belongs to %s:%s, mode %04o; run this as root or "
		"as a member of the group %s",
		c->socket_path, user ? user->pw_name : "?", group->gr_name, st.st_mode & 07777u,
		group->gr_name);
}

static int control_fail_talk(const struct control_call *c, int r)
{
	/*
	 * What to do about it stands beside what is wrong: who reads this has a daemon to look
	 * after.
	 */
	switch (r) {
	case -ENOENT:
	case -ENOTDIR:
	case -ECONNREFUSED:
		return control_fail(
			c,
			"no daemon listens on %s: it is not running, or its control_socket "
			"is another one (--control-socket=PATH)",
			c->socket_path);
	case -EACCES:
	case -EPERM:
		return control_fail_permission(c);
	case -ETIMEDOUT:
		return control_fail(c, "%s: no answer within %d s", c->socket_path,
				    c->timeout_ms / 1000);
	case -EAGAIN:
		return control_fail(c, "%s: the daemon takes no more connections now",
				    c->socket_path);
	case CONTROL_HTTP_E_BROKEN:
		return control_fail(c, "%s: the answer broke off or is not HTTP", c->socket_path);
	default:
		return control_fail(c, "%s: %s", c->socket_path, strerror(-r));
	}
}

int control_ask(const struct control_call *c, const struct admin_route *route, const char *query,
		const void *body, size_t n, struct control_answer *ret)
{
	struct control_request request = {
		.socket_path = c->socket_path,
		.method = route->method,
		.type = body ? "text/plain; charset=utf-8" : NULL,
		.body = body,
		.body_n = n,
		.timeout_ms = c->timeout_ms,
	};
	struct buf target = {0};
	int r = buf_printf(&target, "%s%s", route->path, query);

	if (r < 0)
		return control_fail(c, "%s", strerror(-r));
	request.target = (const char *)target.data;
	r = control_http_ask(&request, ret);
	buf_fini(&target);
	return r == 0 ? 0 : control_fail_talk(c, r);
}

int control_finish(const struct control_call *c)
{
	/*
	 * A full disk or a reader that went away shows only here: exit status 0 must mean
	 * "printed".
	 */
	if (fflush(c->io->out) != 0 || ferror(c->io->out))
		return control_fail(c, "cannot write: %s", strerror(errno));
	return EXIT_SUCCESS;
}

/* What the command line alone has wrong is a matter of its usage. */
static int control_check_command_line(struct control_call *c)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	WB_CLEANUP(config_unrefp) struct config *config = NULL;
	struct config_source alone = c->source;
	int r;

	/* Without any file, so that all that is found is wrong in the arguments themselves. */
	alone.file = "/dev/null";
	r = config_load(&alone, &config, &errors);
	if (r < 0)
		return control_fail(c, "%s", strerror(-r));
	config_errors_print(&errors, "", c->io->err);
	return r == 0 ? 0 : OPTIONS_EXIT_USAGE;
}

/* Errors in files are shown, but a socket that can be known in spite of them is used. */
int control_find_socket(struct control_call *c)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	int r = control_check_command_line(c);

	if (r != 0)
		return r;
	r = config_find_control_socket(&c->source, RUNTIME_DIR, &c->socket_path, &errors);
	/*
	 * A daemon may run on with the settings it had: what is wrong in the files now doesn't
	 * stop us.
	 */
	config_errors_print(&errors, "", c->io->err);
	if (r < 0)
		return control_fail(c, "%s", strerror(-r));
	if (r == CONFIG_E_INVALID)
		return EX_CONFIG;
	if (!c->socket_path)
		return control_fail(c, "control_socket is none: the daemon can't be reached");
	return 0;
}
