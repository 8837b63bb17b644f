/* SPDX-License-Identifier: MIT */

/*
 * Every route of the administrators' HTTP, one row each:
 *
 *   ROUTE(name, METHOD, path, flags, parameters)
 *
 * The rows make enum admin_route_id, admin_routes[], and the daemon's table of functions; the
 * commands that ask through the control socket name them, too. GET means HEAD as well. Flags:
 * ADMIN_CONTROL_ONLY, not on the TCP port; ADMIN_HAS_BODY, what comes with the request counts.
 * Of the control socket's routes the parameters are all that a query may have, each once: one
 * that is misspelled would say something else than what was meant.
 *
 * This file has no include guard: define ROUTE, include it, and find it undefined again.
 */

#ifndef ROUTE
#define ROUTE(...)
#endif

/* clang-format off */
ROUTE(metrics,    GET,  "/metrics",    0, "")
ROUTE(healthz,    GET,  "/healthz",    0, "")
ROUTE(readyz,     GET,  "/readyz",     0, "")
ROUTE(clients,    GET,  "/clients",    ADMIN_CONTROL_ONLY, "offset limit sort channel user")
ROUTE(channels,   GET,  "/channels",   ADMIN_CONTROL_ONLY, "offset limit sort")
ROUTE(reload,     POST, "/reload",     ADMIN_CONTROL_ONLY, "")
ROUTE(publish,    POST, "/publish",    ADMIN_CONTROL_ONLY | ADMIN_HAS_BODY, "channel")
ROUTE(disconnect, POST, "/disconnect", ADMIN_CONTROL_ONLY, "id user")
/* clang-format on */

#undef ROUTE
