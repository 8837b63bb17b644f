/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A message as JSON, as protobuf maps it: names in lowerCamelCase, 64-bit numbers as text, bytes in
 * base64, enums by name. Members at their default are left out, but every `type`, and what is
 * known to be set. One line: what would break it is escaped.
 *
 * Source: "ProtoJSON Format", protobuf.dev; RFC 8259; RFC 4648 section 4.
 */

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"
#include "containers/buf.h"

/**
 * json_write_message() - append a message as an object
 * @m:     unpacked; its strings are UTF-8
 * @limit: of @b's bytes
 *
 * Return: 0 | -EMSGSIZE past @limit | -ENOMEM; then @b has a part of it.
 * Thread: any.
 */
WB_ANY_THREAD int json_write_message(struct buf *b, const ProtobufCMessage *m, size_t limit)
	WB_NODISCARD;

/* Appends a text of @n bytes in quotes. @p is UTF-8. Return: as json_write_message(). */
WB_ANY_THREAD int json_write_text(struct buf *b, const char *p, size_t n, size_t limit)
	WB_NODISCARD;
