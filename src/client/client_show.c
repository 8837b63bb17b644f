/* SPDX-License-Identifier: MIT */
#include "client/client_show.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "wire/zip.h"

#define SHOWN_MAX 4096 /* bytes of a text that are shown; the rest becomes "..." */

typedef Websocket__WebSocketMessage message;

/* Foreign text, made fit for a terminal: neither its colours nor another line can be faked. */
static void show_escaped(FILE *out, const char *text, size_t n)
{
	char escaped[SHOWN_MAX];

	text_escape(escaped, sizeof(escaped), text, n);
	fputs(escaped, out);
}

static void show_string(FILE *out, const char *text)
{
	show_escaped(out, text, strlen(text));
}

void client_show_text(FILE *out, const char *text, size_t n)
{
	fputs("* text: ", out);
	show_escaped(out, text, n);
	fputc('\n', out);
}

/* The names that a message mentions stand behind it, where they can't be taken for its text. */
static void show_chat(FILE *out, const message *m)
{
	const Websocket__ChatMessage *chat = m->chat;

	show_string(out, chat->user_id[0] ? chat->user_id : "(nobody)");
	fputs(": ", out);
	show_string(out, chat->content);
	for (size_t i = 0; i < chat->n_mentions; i++) {
		fputs(i == 0 ? "  @" : " @", out);
		show_string(out, chat->mentions[i]);
	}
	fputc('\n', out);
}

static void show_binary(FILE *out, const message *m)
{
	const Websocket__BinaryData *b = m->binary;
	/* Not unpacked: it is shown by its size alone, whoever packed it. */
	const char *codec = zip_kind_name((unsigned)b->compression);

	fprintf(out, "* binary data: %zu bytes, chunk %" PRIu32 "%s%s%s%s\n", b->data.len,
		b->sequence, b->is_last ? ", the last" : "", codec && !codec[0] ? "" : ", ",
		codec ? codec : "packed in an unknown way",
		b->checksum[0] && !msg_checksum_matches(b->checksum,
							msg_crc32(b->data.data, b->data.len))
			? ", CHECKSUM WRONG"
			: "");
}

/* Whatever the server adds to a control message: why, which code, when to come back. */
static void show_with_reason(FILE *out, const char *what, const Websocket__ControlMessage *control)
{
	fprintf(out, "* %s", what);
	if (control->reason[0]) {
		fputs(": ", out);
		show_string(out, control->reason);
	}
	if (control->code)
		fprintf(out, " (%" PRIu32 ")", control->code);
	if (control->reconnect_after_ms)
		fprintf(out, "; come back after %.1f s", control->reconnect_after_ms / 1000.0);
	fputc('\n', out);
}

static void show_config(FILE *out, const Websocket__ControlMessage *control)
{
	char size[24];

	fputs("* your client id is ", out);
	show_string(out, control->session_id);
	/* Servers other than wsbind may leave out any of these. */
	if (control->has_max_size_case && control->max_size >= 0)
		fprintf(out, "; messages of up to %s",
			text_format_size(size, sizeof(size), (uint64_t)control->max_size));
	for (size_t i = 0; i < control->n_capabilities; i++) {
		fputs(i == 0 ? "; the server speaks " : " ", out);
		show_string(out, control->capabilities[i]);
	}
	fputc('\n', out);
}

/* A notice: somebody came or went, here or in another channel. */
static void show_notice(FILE *out, const message *m, const char *what)
{
	/* By name where it has one; an older server tells ids alone. */
	fputs("* ", out);
	show_string(out, m->control->user_id[0] ? m->control->user_id : m->control->session_id);
	fprintf(out, " %s", what);
	if (m->has_channel_case && m->channel[0]) {
		fputs(" ", out);
		show_string(out, m->channel);
	}
	fputc('\n', out);
}

/* Without an id it is for whoever gets it; with another one it is a notice of who left. */
bool client_is_own_disconnect(const message *m, const char *own_id)
{
	return m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL &&
	       m->control->type == WEBSOCKET__CONTROL_TYPE__DISCONNECT &&
	       (!m->control->session_id[0] || strcmp(m->control->session_id, own_id) == 0);
}

static void show_control(FILE *out, const message *m, const char *own_id)
{
	/* An ACKNOWLEDGE is for who sent the request, not for who reads the chat. */
	switch (m->control->type) {
	case WEBSOCKET__CONTROL_TYPE__CONNECT:
		show_notice(out, m, "joined");
		break;
	case WEBSOCKET__CONTROL_TYPE__DISCONNECT:
		if (client_is_own_disconnect(m, own_id))
			show_with_reason(out, "the server says goodbye", m->control);
		else
			show_notice(out, m, "left");
		break;
	case WEBSOCKET__CONTROL_TYPE__CONFIG:
		show_config(out, m->control);
		break;
	case WEBSOCKET__CONTROL_TYPE__ERROR:
		show_with_reason(out, "error", m->control);
		break;
	default:
		break;
	}
}

void client_show(FILE *out, const message *m, const char *own_id)
{
	/* Heartbeats, and what a newer server may send, show nothing. */
	switch (m->type) {
	case WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE:
		show_chat(out, m);
		break;
	case WEBSOCKET__MESSAGE_TYPE__BINARY_DATA:
		show_binary(out, m);
		break;
	case WEBSOCKET__MESSAGE_TYPE__CONTROL:
		show_control(out, m, own_id);
		break;
	default:
		break;
	}
}
