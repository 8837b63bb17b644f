/* SPDX-License-Identifier: MIT */
#include "client/target.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* All addresses in numbers, in the order of gai.conf(5); 0 when there is none. */
static unsigned target_resolve(struct target *t, const char *host)
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
	/* Each reason stands ready before the step that may fail for it. */
	*ret_why = "the URL is too long";
	strcpy(t->request_path, url->path);
	if (ws_url_format_host(t->host, sizeof(t->host), url) == 0)
		return -EINVAL;
	*ret_why = "no host has this name";
	t->n_addresses = target_resolve(t, url->host);
	return t->n_addresses ? 0 : -EHOSTUNREACH;
}

/* The first line of a file. Return: NULL | what is wrong with it. */
static const char *target_read_token(const char *file, char ret[TOKEN_MAX + 2])
{
	FILE *f = fopen(file, "re");
	const char *why = NULL;
	size_t n;

	/* Two bytes more than the longest: one shows that it is too long, one is the NUL. */
	ret[0] = '\0';
	if (!f || !fgets(ret, TOKEN_MAX + 2, f))
		why = f && !ferror(f) ? "is empty" : strerror(errno);
	n = strcspn(ret, "\r\n");
	ret[n] = '\0';
	/* A line break or a blank in it would make another header of the rest. */
	for (size_t i = 0; !why && i < n; i++)
		if (ret[i] <= ' ' || ret[i] > '~')
			why = "is no token";
	if (!why && n > TOKEN_MAX)
		why = "is too long for a token";
	if (f)
		(void)fclose(f);
	return why;
}

/* As a header. Return: NULL | what is wrong with it. */
static const char *target_take_token(struct target *t)
{
	static const char name[] = "Authorization: Bearer ";
	char header[sizeof(t->headers)];
	const char *why;

	static_assert(sizeof(header) >= sizeof(name) + TOKEN_MAX + 2, "has room for the longest");
	strcpy(header, name);
	why = target_read_token(t->token_file, header + strlen(name));
	if (!why) {
		strcat(header, "\r\n");
		t->n_tokens += strcmp(header, t->headers) != 0;
		strcpy(t->headers, header);
	}
	explicit_bzero(header, sizeof(header));
	return why;
}

void target_refresh_token(struct target *t)
{
	/* Whoever writes it may be in the middle of that: then the one from before still counts. */
	if (t->token_file)
		(void)target_take_token(t);
}

int target_secure(struct target *t, const struct target_security *security, const char *command,
		  FILE *err)
{
	char why[TLS_WHY_MAX];
	const char *wrong = NULL;
	int r;

	/*
	 * Read whether TLS is used or not: behind a proxy that has it, ws:// is all that is left.
	 */
	t->token_file = security->token_file;
	if (t->token_file)
		wrong = target_take_token(t);
	if (wrong)
		fprintf(err, "wsbind %s: %s: %s\n", command, t->token_file, wrong);
	if (wrong || !t->is_secure)
		return wrong ? -EINVAL : 0;
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
