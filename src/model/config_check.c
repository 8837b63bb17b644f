/* SPDX-License-Identifier: MIT */
#include "model/config_private.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "model/config_kind.h"

#define ROW(name) (&config_keys[CONFIG_KEY_##name])

/* "FILE:LINE: key = value: what is wrong; other = value (origin)", so that either can be mended. */
static int config_disagree(const struct config *c, const struct config_key *key,
			   const struct config_key *other, const char *wrong,
			   struct config_errors *errors)
{
	WB_CLEANUP(ptr_freep) char *value = NULL;
	WB_CLEANUP(ptr_freep) char *other_value = NULL;

	if (config_format(c, key, &value) < 0 || config_format(c, other, &other_value) < 0)
		return -ENOMEM;
	config_errors_add(errors, "%s: %s = %s: %s; %s is %s (%s)", config_origin(c, key),
			  key->name, value, wrong, other->name, other_value,
			  config_origin(c, other));
	return 0;
}

/*
 * Two keys that somebody has set against each other. A default never stands
 * against a key that was set: whoever sets max_message_size = 1M means just that,
 * and frames are bounded by it too.
 */
static int config_need_at_most(const struct config *c, const struct config_key *low,
			       const struct config_key *high, struct config_errors *errors)
{
	char wrong[100];

	if (!c->origin[low - config_keys] || !c->origin[high - config_keys] ||
	    config_value_get(c, low).number <= config_value_get(c, high).number)
		return 0;
	snprintf(wrong, sizeof(wrong), "has to be at most %s", high->name);
	return config_disagree(c, low, high, wrong, errors);
}

static bool config_is_wildcard(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static int config_check_ports(const struct config *c, struct config_errors *errors)
{
	if (!c->enable_metrics || c->port == 0 || c->port != c->metrics_port)
		return 0;
	/* On two addresses one port is two; a wildcard is on every address. */
	if (strcmp(c->host, c->metrics_host) != 0 && !config_is_wildcard(c->host) &&
	    !config_is_wildcard(c->metrics_host))
		return 0;
	return config_disagree(c, ROW(metrics_port), ROW(port),
			       "has to differ from port on the same address", errors);
}

int config_check(const struct config *c, struct config_errors *errors)
{
	int r = config_need_at_most(c, ROW(max_frame_size), ROW(max_message_size), errors);

	/* Of what is switched off any value will do: it waits there for the switch. */
	if (r == 0 && c->enable_compression)
		r = config_need_at_most(c, ROW(compression_threshold), ROW(compression_max_size),
					errors);
	return r < 0 ? r : config_check_ports(c, errors);
}

/* Whether each word of @list is one of @among, or "*" stands there. */
static bool has_all_words(const char *among, const char *list)
{
	size_t n, m;

	for (const char *at = list; (n = text_next_word(&at)) > 0;) {
		bool found = false;

		for (const char *in = among; !found && (m = text_next_word(&in)) > 0;)
			found = (m == 1 && in[-1] == '*') ||
				(m == n && strncasecmp(in - m, at - n, n) == 0);
		if (!found)
			return false;
	}
	return true;
}

bool config_opens(const struct config *was, const struct config *is, const struct config_key *key)
{
	switch ((enum config_key_index)(key - config_keys)) {
	case CONFIG_KEY_auth:
		return was->auth != AUTH_NONE && is->auth == AUTH_NONE;
	case CONFIG_KEY_allowed_origins:
		return !has_all_words(was->allowed_origins, is->allowed_origins);
	case CONFIG_KEY_tls_client_ca:
		return was->tls_client_ca[0] && !is->tls_client_ca[0];
	case CONFIG_KEY_jwt_audience:
		return was->jwt_audience[0] && strcmp(was->jwt_audience, is->jwt_audience) != 0;
	case CONFIG_KEY_jwt_issuer:
		return was->jwt_issuer[0] && strcmp(was->jwt_issuer, is->jwt_issuer) != 0;
	case CONFIG_KEY_trusted_proxies:
		return !has_all_words(was->trusted_proxies, is->trusted_proxies);
	default:
		return false;
	}
}
