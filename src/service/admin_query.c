/* SPDX-License-Identifier: MIT */
/* What a request asks for: arguments, type and body, checked before anybody acts on them. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "service/admin_private.h"

#include "base/text.h"

#define ADMIN_BAD_CHANNEL "channel is at most 255 bytes of UTF-8 without NUL\n"

static const char *request_argument(struct admin_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

static bool request_refuse(struct admin_request *req, unsigned status, const char *text)
{
	admin_reply(req, status, NULL, text);
	return false;
}

/*
 * A text without NUL of at most @max bytes of UTF-8; @ret NULL: it isn't there. False: it is
 * none.
 */
static bool request_parse_text(struct admin_request *req, const char *name, size_t max,
			       const char **ret)
{
	const char *text = NULL;
	size_t n = 0;

	*ret = NULL;
	if (MHD_lookup_connection_value_n(req->connection, MHD_GET_ARGUMENT_KIND, name,
					  strlen(name), &text, &n) != MHD_YES)
		return true;
	/* A name alone, without "=", is an empty text; a NUL in one shows in the length. */
	*ret = text ? text : "";
	return !text || (n <= max && n == strlen(text) && utf8_valid(text, n));
}

bool admin_read_page(struct admin_request *req, struct admin_page *ret)
{
	const char *offset = request_argument(req, "offset");
	const char *limit = request_argument(req, "limit");
	struct admin_page p = {.limit = ADMIN_CLIENTS_DEFAULT};

	if ((offset && text_parse_count(offset, &p.offset) < 0) ||
	    (limit && text_parse_count(limit, &p.limit) < 0) || p.limit == 0)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "offset is a number from 0 on, limit one from 1 on\n");
	if (!request_parse_text(req, "channel", ADMIN_CHANNEL_MAX, &p.channel))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST, ADMIN_BAD_CHANNEL);
	if (!request_parse_text(req, "user", ADMIN_USER_MAX, &p.user))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "user is at most 128 bytes of UTF-8 without NUL\n");
	/* The request keeps it: admin_reply_list() says from it where the next page begins. */
	req->offset = p.offset;
	p.limit = MIN(p.limit, (uint64_t)ADMIN_CLIENTS_MAX);
	*ret = p;
	return true;
}

bool admin_read_order(struct admin_request *req, const char *const *names, unsigned n,
		      unsigned *ret)
{
	const char *sort = request_argument(req, "sort");
	char text[256] = "sort is one of:";
	size_t len = strlen(text);

	*ret = 0;
	for (unsigned i = 0; sort && i < n; i++) {
		if (!names[i])
			continue;
		if (strcmp(sort, names[i]) == 0) {
			*ret = i;
			return true;
		}
		len += (size_t)snprintf(text + len, sizeof(text) - len, " %s", names[i]);
		WB_ASSERT(len + 1 < sizeof(text));
	}
	if (!sort)
		return true;
	text[len++] = '\n';
	text[len] = '\0';
	return request_refuse(req, MHD_HTTP_BAD_REQUEST, text);
}

/* Is @type the media type @name, with or without parameters behind it? */
static bool is_media_type(const char *type, const char *name)
{
	size_t n = strcspn(type, "; \t");

	return n == strlen(name) && strncasecmp(type, name, n) == 0;
}

/* 0, or the status to refuse the content type with. */
static unsigned request_parse_type(struct admin_request *req, bool *ret_is_text)
{
	static const char *const packed[] = {"application/x-protobuf", "application/protobuf",
					     "application/vnd.google.protobuf",
					     "application/octet-stream"};
	/* Every name under which protobuf goes, since none of them is registered. */
	const char *type = MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND,
						       MHD_HTTP_HEADER_CONTENT_TYPE);

	if (!type)
		return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
	if (is_media_type(type, "text/plain")) {
		*ret_is_text = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(packed); i++) {
		if (is_media_type(type, packed[i])) {
			*ret_is_text = false;
			return 0;
		}
	}
	return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
}

bool admin_read_publication(struct admin_request *req, struct admin_publication *ret)
{
	struct admin_publication p = {.body = req->body.data, .n = req->body.len};

	/* The type first: it says how the body, and so what is wrong with it, is to be read. */
	if (request_parse_type(req, &p.is_text) != 0)
		return request_refuse(
			req, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
			"Content-Type has to be text/plain or application/x-protobuf\n");
	if (!request_parse_text(req, "channel", ADMIN_CHANNEL_MAX, &p.channel))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST, ADMIN_BAD_CHANNEL);
	if (!p.channel)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "channel is missing; ?channel= is the lobby\n");
	/* Others get it as chat, which a client may refuse whole when it is not UTF-8. */
	if (p.is_text && !utf8_valid(p.body, p.n))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST, "the text is not valid UTF-8\n");
	*ret = p;
	return true;
}

bool admin_read_target(struct admin_request *req, struct admin_target *ret)
{
	const char *id = request_argument(req, "id"), *user = request_argument(req, "user");

	*ret = (struct admin_target){.by_user = user != NULL};
	if (!id == !user)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "either id or user has to say who is meant\n");
	if (id && uuid_parse(id, ret->id) < 0)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "id has to be the id of a client, a UUID\n");
	if (user && (!user[0] || strlen(user) > ADMIN_USER_MAX))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST, "user is no user's id\n");
	snprintf(ret->user, sizeof(ret->user), "%s", user ? user : "");
	return true;
}
