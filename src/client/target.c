/* SPDX-License-Identifier: MIT */
/* What a connection needs of the system, and its end in words. */
#include "client/endpoint.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/text.h"

#define OTHER_DESCRIPTORS 16 /* standard streams, epoll, signals, the file to send, … */

void system_random(void *out, size_t n)
{
	uint8_t *at = out;

	while (n > 0) {
		ssize_t got = getrandom(at, n, 0);

		if (got < 0 && errno != EINTR) {
			perror("wsbind: no random numbers");
			exit(EXIT_FAILURE);
		}
		if (got > 0) {
			at += got;
			n -= (size_t)got;
		}
	}
}

static unsigned endpoint_resolve(struct target *t, const char *host)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	unsigned n = 0;

	if (getaddrinfo(host, NULL, &hints, &found) != 0)
		return 0;
	for (const struct addrinfo *a = found; a && n < TARGET_MAX_ADDRESSES; a = a->ai_next)
		n += getnameinfo(a->ai_addr, a->ai_addrlen, t->address[n], TARGET_ADDRESS_TEXT,
				 NULL, 0, NI_NUMERICHOST) == 0;
	freeaddrinfo(found);
	return n;
}

int target_init(struct target *t, const struct ws_url *url, const char **ret_why)
{
	*t = (struct target){.port = url->port};
	t->is_secure = url->secure;
	strcpy(t->name, url->host);
	*ret_why = "the URL is too long";
	strcpy(t->request_path, url->path);
	if (ws_url_format_host(t->host, sizeof(t->host), url) == 0)
		return -EINVAL;
	*ret_why = "no host has this name";
	t->n_addresses = endpoint_resolve(t, url->host);
	return t->n_addresses ? 0 : -EHOSTUNREACH;
}

/* The first line of a file, as a header. */
static int read_token(struct target *t, const char *file, const char *command, FILE *err)
{
	FILE *f = fopen(file, "re");
	char token[TOKEN_MAX + 2] = "";
	const char *why = NULL;
	size_t n;

	if (!f || !fgets(token, sizeof(token), f))
		why = f && !ferror(f) ? "is empty" : strerror(errno);
	n = strcspn(token, "\r\n");
	token[n] = '\0';
	for (size_t i = 0; !why && i < n; i++)
		if (token[i] <= ' ' || token[i] > '~')
			why = "is no token";
	if (!why && n > TOKEN_MAX)
		why = "is too long for a token";
	if (f)
		(void)fclose(f);
	if (why) {
		fprintf(err, "wsbind %s: %s: %s\n", command, file, why);
		return -EINVAL;
	}
	snprintf(t->headers, sizeof(t->headers), "Authorization: Bearer %s\r\n", token);
	return 0;
}

int target_secure(struct target *t, const struct target_security *security, const char *command,
		  FILE *err)
{
	char why[TLS_WHY_MAX];
	int r = 0;

	if (security->token_file)
		r = read_token(t, security->token_file, command, err);
	if (r || !t->is_secure)
		return r;
	if (security->accepts_any_certificate)
		fprintf(err, "wsbind %s: --insecure: whoever answers is taken for the server\n",
			command);
	r = tls_client_new(security->ca, security->accepts_any_certificate, &t->tls, why);
	if (r)
		fprintf(err, "wsbind %s: %s\n", command, why);
	return r;
}

void target_fini(struct target *t)
{
	t->tls = tls_client_free(t->tls);
	explicit_bzero(t->headers, sizeof(t->headers));
}

size_t system_raise_descriptors(size_t wanted)
{
	struct rlimit limit;
	rlim_t need = wanted + OTHER_DESCRIPTORS;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return wanted;
	if (limit.rlim_cur < need) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			(void)getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur >= need)
		return wanted;
	return limit.rlim_cur > OTHER_DESCRIPTORS ? limit.rlim_cur - OTHER_DESCRIPTORS : 0;
}

char *endpoint_format_local(char out[TARGET_ADDRESS_TEXT + 8], const struct endpoint *e)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	char host[TARGET_ADDRESS_TEXT], port[8];

	out[0] = '\0';
	if (e->transport.fd < 0 ||
	    getsockname(e->transport.fd, (struct sockaddr *)&addr, &len) < 0 ||
	    (addr.ss_family != AF_INET && addr.ss_family != AF_INET6) ||
	    getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return out;
	snprintf(out, TARGET_ADDRESS_TEXT + 8, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
		 host, port);
	return out;
}

/* What the administrator of the server would look at. */
static const char *status_hint(int status)
{
	switch (status) {
	case 401:
	case 403:
		return ": not allowed (origin or authentication)";
	case 404:
		return ": no channel can have that name";
	case 426:
		return ": no WebSocket server, or another version";
	case 429:
		return ": too many connections from this address (max_connections_per_ip)";
	case 503:
		return ": no room (max_connections or max_channels), or it is stopping";
	default:
		return "";
	}
}

static void format_close(char *out, size_t cap, const struct endpoint_end *end)
{
	char reason[4 * sizeof(end->reason) + 1];
	int n;

	text_escape(reason, sizeof(reason), end->reason, strlen(end->reason));
	if (end->code == WS_CODE_NO_STATUS)
		n = snprintf(out, cap, "closed by the server without a code");
	else
		n = snprintf(out, cap, "closed by the server with %u", end->code);
	if (reason[0] && n > 0 && (size_t)n < cap)
		snprintf(out + n, cap - (size_t)n, " (%s)", reason);
}

char *endpoint_end_format(char *out, size_t cap, const struct endpoint_end *end)
{
	char reason[4 * sizeof(end->reason) + 1];

	switch (end->kind) {
	case ENDPOINT_END_CLOSED:
		format_close(out, cap, end);
		break;
	case ENDPOINT_END_UNREACHABLE:
		snprintf(out, cap, "cannot connect: %s", strerror(-end->error));
		break;
	case ENDPOINT_END_REFUSED:
		text_escape(reason, sizeof(reason), end->reason, strlen(end->reason));
		snprintf(out, cap, "the server answered %d%s%s%s%s", end->status,
			 status_hint(end->status), reason[0] ? " (" : "", reason,
			 reason[0] ? ")" : "");
		break;
	case ENDPOINT_END_NOT_WS:
		snprintf(out, cap, "the answer is not that of a WebSocket server");
		break;
	case ENDPOINT_END_LOST:
		if (end->error)
			snprintf(out, cap, "connection lost: %s", strerror(-end->error));
		else
			snprintf(out, cap, "connection lost: the server went away");
		break;
	case ENDPOINT_END_TIMEOUT:
		snprintf(out, cap, "the server does not answer");
		break;
	case ENDPOINT_END_VIOLATION:
		snprintf(out, cap, "the server broke the protocol: %s", end->reason);
		break;
	case ENDPOINT_END_TLS:
		snprintf(out, cap, "no secure connection: %s", end->reason);
		break;
	}
	return out;
}
