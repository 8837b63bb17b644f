/* SPDX-License-Identifier: MIT */
#include "conn/policy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

/* ------------------------------------------------------------------------- making */

/* The list was checked with the configuration: whatever is no prefix is no word of it. */
static int policy_read_proxies(struct policy *p, const char *list)
{
	size_t n, count = 0;

	for (const char *at = list; text_next_word(&at) > 0;)
		count++;
	/* Room for one at least, so that NULL means no memory. */
	p->trusted = calloc(MAX(count, (size_t)1), sizeof(*p->trusted));
	if (!p->trusted)
		return -ENOMEM;
	for (const char *at = list; (n = text_next_word(&at)) > 0;)
		if (ip_prefix_parse(at - n, n, &p->trusted[p->n_trusted]) == 0)
			p->n_trusted++;
	return 0;
}

/* The words of a list as texts of their own, in @room. Return: how many, or -E2BIG. */
static int list_split(const char *list, char *room, const char **ret, size_t max)
{
	size_t n, count = 0;

	for (const char *at = list; (n = text_next_word(&at)) > 0; room += n + 1) {
		if (count == max)
			return -E2BIG;
		memcpy(room, at - n, n);
		room[n] = '\0';
		ret[count++] = room;
	}
	return (int)count;
}

static int policy_fail(char why[POLICY_WHY_MAX], const char **ret_key, const char *key,
		       const char *format, ...) WB_PRINTF(4, 5);

/* Says which key is to blame, and for what. Return: -EINVAL. */
static int policy_fail(char why[POLICY_WHY_MAX], const char **ret_key, const char *key,
		       const char *format, ...)
{
	va_list args;

	*ret_key = key;
	va_start(args, format);
	vsnprintf(why, POLICY_WHY_MAX, format, args);
	va_end(args);
	return -EINVAL;
}

/* Makes the server's side of TLS of files whose names go together, one pair a place. */
static int policy_make_tls(struct policy *p, const struct policy *before,
			   const struct tls_server_options *o, const char **ret_key,
			   char why[POLICY_WHY_MAX])
{
	static const char *const key[] = {
		[TLS_FILE_CERTIFICATE] = "tls_certificate",
		[TLS_FILE_KEY] = "tls_key",
		[TLS_FILE_CLIENT_CA] = "tls_client_ca",
	};
	struct tls_fault fault;
	int r = tls_server_new(o, &p->files, before ? before->tls : NULL, &p->tls, &fault);

	if (r != -EINVAL)
		return r;
	/* Without tls_key it's the certificate's file that has no good key in it. */
	if (fault.file == TLS_FILE_KEY && o->pair[0].key == o->pair[0].certificate)
		fault.file = TLS_FILE_CERTIFICATE;
	return policy_fail(why, ret_key, key[fault.file], "%s", fault.why);
}

static int policy_read_tls(struct policy *p, const struct policy *before, const char **ret_key,
			   char why[POLICY_WHY_MAX])
{
	/* The copies are cut into words; options point into them until the files are read. */
	const struct config *c = p->config;
	const char *certificate[TLS_MAX_PAIRS], *key[TLS_MAX_PAIRS];
	WB_CLEANUP(ptr_freep) char *certificates = strdup(c->tls_certificate);
	WB_CLEANUP(ptr_freep) char *keys = strdup(c->tls_key);
	struct tls_server_options o = {.client_ca = c->tls_client_ca[0] ? c->tls_client_ca : NULL};
	int n, n_keys;

	if (!certificates || !keys)
		return -ENOMEM;
	/* Keys go with certificates by their place; without keys, each is in its certificate. */
	n = list_split(c->tls_certificate, certificates, certificate, TLS_MAX_PAIRS);
	n_keys = list_split(c->tls_key, keys, key, TLS_MAX_PAIRS);
	if (n < 0)
		return policy_fail(why, ret_key, "tls_certificate", "more than 32 certificates");
	if (n == 0)
		return policy_fail(why, ret_key, "tls_certificate", "tls_port needs a certificate");
	if (n_keys != n && n_keys != 0)
		return policy_fail(why, ret_key, "tls_key", "%d keys for %d certificates",
				   MAX(n_keys, 0), n);
	for (int i = 0; i < n; i++)
		o.pair[o.n_pairs++] =
			(struct tls_pair){certificate[i], n_keys ? key[i] : certificate[i]};
	return policy_make_tls(p, before, &o, ret_key, why);
}

/*
 * What is no reason to refuse the configuration, but for a word to the administrator. Lines are
 * cut off at their NULs.
 */
static int policy_note(struct policy *p, const char *key, const char *file, const char *format, ...)
	WB_PRINTF(4, 5);

static int policy_note(struct policy *p, const char *key, const char *file, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (buf_printf(&p->notes, "%s: %s: %s", key, file, text))
		return -ENOMEM;
	return buf_append(&p->notes, "", 1, BUF_NO_LIMIT) ? -ENOMEM : 0;
}

static int note_validity(struct policy *p, const char *key, const char *file, int64_t not_before_s,
			 int64_t not_after_s)
{
	int64_t now = (int64_t)(clock_wall_ms() / 1000);
	time_t when = now < not_before_s ? not_before_s : not_after_s;
	char date[40] = "?";
	struct tm tm;

	if (now >= not_before_s && now <= not_after_s)
		return 0;
	if (gmtime_r(&when, &tm))
		(void)strftime(date, sizeof(date), "%F %R UTC", &tm);
	return policy_note(p, key, file, "the certificate %s %s; continuing with it",
			   now < not_before_s ? "is not valid before" : "has expired on", date);
}

/* A file that holds a secret, and that anybody on the host may read. */
static int note_readers(struct policy *p, const char *key, const char *file)
{
	struct stat st;

	/* Asked of the disk: what was handed over from a process before has no permissions. */
	if (p->files.is_closed || stat(file, &st) < 0 || !(st.st_mode & S_IROTH))
		return 0;
	return policy_note(p, key, file,
			   "everybody on this host may read this secret; continuing, "
			   "take that away with chmod o-r");
}

static int note_tls(struct policy *p)
{
	const char *certificates = p->config->tls_certificate, *keys = p->config->tls_key;
	int r = 0;
	size_t n, i = 0;

	for (const char *at = certificates; r == 0 && (n = text_next_word(&at)) > 0; i++) {
		WB_CLEANUP(ptr_freep) char *file = strndup(at - n, n);
		int64_t from, to;

		tls_server_validity(p->tls, i, &from, &to);
		r = file ? note_validity(p, "tls_certificate", file, from, to) : -ENOMEM;
	}
	/* Without keys of their own they are in the files of the certificates. */
	for (const char *at = keys[0] ? keys : certificates;
	     r == 0 && (n = text_next_word(&at)) > 0;) {
		WB_CLEANUP(ptr_freep) char *file = strndup(at - n, n);

		r = file ? note_readers(p, keys[0] ? "tls_key" : "tls_certificate", file) : -ENOMEM;
	}
	return r;
}

static int note_token_keys(struct policy *p)
{
	static const char name[] = "jwt_key_file";
	int r = 0;

	for (size_t i = 0; r == 0 && i < p->keys->n; i++) {
		const struct token_named_key *k = &p->keys->at[i];

		if (k->key.has_blank_end)
			r = policy_note(p, name, k->file,
					"the secret begins or ends with a blank or an empty line, "
					"which is part of it; continuing");
		if (r == 0 && k->key.not_after_s != UINT64_MAX)
			r = note_validity(p, name, k->file, 0, (int64_t)k->key.not_after_s);
		/* Once for a file, however many keys are in it. */
		if (r == 0 && k->key.is_secret && (i == 0 || strcmp(k[-1].file, k->file) != 0))
			r = note_readers(p, name, k->file);
	}
	return r;
}

static int policy_take_notes(struct policy *p)
{
	int r = p->tls ? note_tls(p) : 0;

	return r == 0 && p->keys ? note_token_keys(p) : r;
}

const char *policy_next_note(const struct policy *p, size_t *at)
{
	const char *note = (const char *)p->notes.data + *at;

	if (*at >= p->notes.len)
		return NULL;
	*at += strlen(note) + 1;
	return note;
}

/* A secret of any length from 32 bytes up: what is made of it has the length of a key. */
static int policy_read_resume_key(struct policy *p, const char **ret_key, char why[POLICY_WHY_MAX])
{
	static const char name[] = "resume_key_file";
	const char *file = p->config->resume_key_file;
	const uint8_t *content;
	size_t n;
	int r = file_set_read(&p->files, file, &content, &n);

	if (r)
		return r == -ENOMEM ? r
				    : policy_fail(why, ret_key, name, "%s: %s", file,
						  file_result_text(r));
	if (n < RESUME_KEY_BYTES)
		return policy_fail(why, ret_key, name, "%s: a secret has at least %d bytes", file,
				   RESUME_KEY_BYTES);
	if (!resume_key_from(&p->resume_key, content, n))
		return -ENOMEM;
	p->has_resume_key = true;
	return note_readers(p, name, file);
}

int policy_new(struct config *config, const struct policy *before, struct file_set *files,
	       struct policy **ret, const char **ret_key, char why[POLICY_WHY_MAX])
{
	struct policy *p = calloc(1, sizeof(*p));
	int r;

	/* Nothing in the configuration is to blame for a lack of memory. */
	*ret_key = NULL;
	snprintf(why, POLICY_WHY_MAX, "out of memory");
	if (!p)
		return -ENOMEM;
	atomic_init(&p->refs, 1);
	/* Texts of the configuration are used as they are, so it lives as long as this. */
	p->config = config_ref(config);
	p->origins = config->allowed_origins;
	if (files)
		p->files = *files;
	if (files)
		*files = (struct file_set){0};
	r = policy_read_proxies(p, config->trusted_proxies);
	if (r == 0 && config->tls_port != CONFIG_PORT_OFF)
		r = policy_read_tls(p, before, ret_key, why);
	if (r == 0 && config->auth == AUTH_JWT) {
		r = token_keys_new(config->jwt_key_file, &p->files, &p->keys, why);
		if (r == -EINVAL)
			*ret_key = "jwt_key_file";
	}
	if (r == 0 && config->resume_key_file[0])
		r = policy_read_resume_key(p, ret_key, why);
	if (r == 0)
		r = policy_take_notes(p);
	if (r) {
		policy_unref(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct policy *policy_ref(struct policy *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

struct policy *policy_unref(struct policy *p)
{
	/* Release: this thread's reads come first. Acquire: pairs with those of all others. */
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	tls_server_unref(p->tls);
	token_keys_free(p->keys);
	free(p->trusted);
	file_set_fini(&p->files);
	buf_fini(&p->notes);
	config_unref(p->config);
	free(p);
	return NULL;
}

/* ----------------------------------------------------------------------- questions */

enum token_result policy_verify_token(const struct policy *p, const char *token, size_t n,
				      struct grant **ret)
{
	const struct token_rules rules = {p->config->jwt_audience, p->config->jwt_issuer};

	return token_verify(p->keys, &rules, token, n, clock_wall_ms() / 1000, ret);
}

bool policy_stands_by(const struct policy *p, const struct grant *g)
{
	/* Where nobody is asked for a token any more, none has to be good. */
	return !g->key_id || !p->keys || token_keys_have(p->keys, g->key_id);
}

bool policy_trusts(const struct policy *p, const uint8_t ip[IP_BYTES])
{
	/* A handful: who has hundreds of proxies names their networks. */
	for (size_t i = 0; i < p->n_trusted; i++)
		if (ip_prefix_has(&p->trusted[i], ip))
			return true;
	return false;
}

/* An origin in its parts. @scheme is empty where there is none, @port where it's the default. */
struct WB_VALUE origin {
	struct http_text scheme, host, port;
};

static struct origin origin_parse(struct http_text text)
{
	struct origin o = {.host = text};
	const char *bracket;

	/* RFC 6454 section 6.2: scheme "://" host, and ":" port where it isn't the default one. */
	for (size_t i = 0; i + 2 < text.n; i++) {
		if (memcmp(text.p + i, "://", 3) != 0)
			continue;
		o.scheme = (struct http_text){text.p, i};
		o.host = (struct http_text){text.p + i + 3, text.n - i - 3};
		break;
	}
	/* The colons of an IPv6 address stand in brackets; that of a port behind them. */
	bracket = o.host.n ? memrchr(o.host.p, ']', o.host.n) : NULL;
	for (size_t i = bracket ? (size_t)(bracket - o.host.p) : 0; i < o.host.n; i++) {
		if (o.host.p[i] != ':')
			continue;
		o.port = (struct http_text){o.host.p + i + 1, o.host.n - i - 1};
		o.host.n = i;
		break;
	}
	/* RFC 6454 section 4, item 5: a default port is none. */
	if ((http_text_is_nocase(o.scheme, "https") && http_text_is(o.port, "443")) ||
	    (http_text_is_nocase(o.scheme, "http") && http_text_is(o.port, "80")))
		o.port = (struct http_text){0};
	return o;
}

static bool text_is_same(struct http_text a, struct http_text b)
{
	return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

static bool origin_matches(const struct origin *allowed, const struct origin *o)
{
	struct http_text host = allowed->host;

	/* A bare host allows both schemes, and so any port that isn't said. */
	if (allowed->scheme.n > 0 && !text_is_same(allowed->scheme, o->scheme))
		return false;
	if ((allowed->scheme.n > 0 || allowed->port.n > 0) && !text_is_same(allowed->port, o->port))
		return false;
	if (host.n < 2 || host.p[0] != '*' || host.p[1] != '.')
		return text_is_same(host, o->host);
	host.p++; /* ".example.org" ends what is below it */
	host.n--;
	return o->host.n > host.n &&
	       text_is_same(host, (struct http_text){o->host.p + o->host.n - host.n, host.n});
}

/* Whether it is a host and no more: what stands behind a "/" would match a wildcard, too. */
static bool origin_has_host(struct http_text host)
{
	for (size_t i = 0; i < host.n; i++)
		if (strchr("/\\@?#", host.p[i]))
			return false;
	return host.n > 0;
}

bool policy_allows_origin(const struct policy *p, struct http_text origin)
{
	struct origin o;
	size_t n;

	/* No browser, then, which a page of somebody else could make connect. */
	if (!origin.p || !p->origins[0])
		return true;
	o = origin_parse(origin);
	for (const char *at = p->origins; (n = text_next_word(&at)) > 0;) {
		const struct http_text word = {at - n, n};
		struct origin allowed;
		bool is_word;

		if (http_text_is(word, "*"))
			return true;
		allowed = origin_parse(word);
		/* "null" and other things that are no origin: only the very same word. */
		is_word = o.scheme.n == 0 || !origin_has_host(o.host) || http_text_is(word, "null");
		if (is_word ? text_is_same(word, origin) : origin_matches(&allowed, &o))
			return true;
	}
	return false;
}
