/* SPDX-License-Identifier: MIT */

/*
 * Every command that asks a running daemon through its control socket, one row each:
 *
 *   CONTROL(name, help, operand, options, route, timeout_ms)
 *
 * The rows make the parser's table, the usage lines, the program's --help and the names that
 * main.c knows; completion and the check of wsbind(8) read --help. What a command prints is in
 * control_commands.c, the route that it asks in service/admin_table.h.
 *
 * operand: what stands behind the options, or NULL; in brackets it may be left out. options: rows
 * of control.c.
 *
 * This file has no include guard: define CONTROL, include it, and find it undefined again.
 */

#ifndef CONTROL
#define CONTROL(...)
#endif

/* clang-format off */
CONTROL(status,     "show how the daemon does",           NULL,     no_options,      metrics,    CONTROL_TIMEOUT_MS)
CONTROL(clients,    "list the clients of the daemon",     NULL,     client_options,  clients,    CONTROL_TIMEOUT_MS)
CONTROL(channels,   "list the channels, busiest first",   NULL,     channels_options, channels,  CONTROL_TIMEOUT_MS)
CONTROL(reload,     "read the configuration again",       NULL,     no_options,      reload,     CONTROL_RELOAD_MS)
CONTROL(publish,    "send a chat message to a channel",   "TEXT|-", channel_options, publish,    CONTROL_TIMEOUT_MS)
CONTROL(disconnect, "close a client's connection",        "[ID]",   user_options,    disconnect, CONTROL_TIMEOUT_MS)
/* clang-format on */

#undef CONTROL
