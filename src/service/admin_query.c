/* SPDX-License-Identifier: MIT */
/* What a request asks for: arguments, type and body, checked before anybody acts on them. */
#include <string.h>
#include <strings.h>

#include "service/admin_private.h"

#include "base/text.h"

static const char *request_argument(struct admin_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->connection, MHD_GET_ARGUMENT_KIND, name);
}

static bool request_refuse(struct admin_request *req, unsigned status, const char *text)
{
	admin_reply(req, status, NULL, text);
	return false;
}

bool admin_read_page(struct admin_request *req, uint64_t *ret_offset, uint64_t *ret_limit)
{
	const char *offset = request_argument(req, "offset");
	const char *limit = request_argument(req, "limit");

	req->offset = 0;
	req->limit = ADMIN_CLIENTS_DEFAULT;
	if ((offset && text_parse_count(offset, &req->offset) < 0) ||
	    (limit && text_parse_count(limit, &req->limit) < 0) || req->limit == 0)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "offset is a number from 0 on, limit one from 1 on\n");
	/*
	 * The request keeps both: admin_reply_clients() says from them where the next page begins.
	 */
	req->limit = MIN(req->limit, (uint64_t)ADMIN_CLIENTS_MAX);
	*ret_offset = req->offset;
	*ret_limit = req->limit;
	return true;
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

/* The channel of the query, or NULL when it is none. A NUL in it shows in the length. */
static const char *request_parse_channel(struct admin_request *req)
{
	const char *channel = NULL;
	size_t n = 0;

	if (MHD_lookup_connection_value_n(req->connection, MHD_GET_ARGUMENT_KIND, "channel",
					  strlen("channel"), &channel, &n) != MHD_YES ||
	    !channel)
		return "";
	if (n > ADMIN_CHANNEL_MAX || n != strlen(channel) || !utf8_valid(channel, n))
		return NULL;
	return channel;
}

bool admin_read_publication(struct admin_request *req, struct admin_publication *ret)
{
	/* The type first: it says how the body, and so what is wrong with it, is to be read. */
	struct admin_publication p = {
		.channel = request_parse_channel(req), .body = req->body.data, .n = req->body.len};

	if (request_parse_type(req, &p.is_text) != 0)
		return request_refuse(
			req, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
			"Content-Type has to be text/plain or application/x-protobuf\n");
	if (!p.channel)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "channel is at most 255 bytes of UTF-8 without NUL\n");
	/* Others get it as chat, which a client may refuse whole when it is not UTF-8. */
	if (p.is_text && !utf8_valid(p.body, p.n))
		return request_refuse(req, MHD_HTTP_BAD_REQUEST, "the text is not valid UTF-8\n");
	*ret = p;
	return true;
}

bool admin_read_client_id(struct admin_request *req, uint8_t ret_id[16])
{
	const char *id = request_argument(req, "id");

	if (!id || uuid_parse(id, ret_id) < 0)
		return request_refuse(req, MHD_HTTP_BAD_REQUEST,
				      "id has to be the id of a client, a UUID\n");
	return true;
}
