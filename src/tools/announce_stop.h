/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * `wsbind announce-stop UNIT`: ExecStop= of the service. Asks systemd whether the stop is a
 * part of a restart, and tells the daemon then (SYSTEMD_SIGNAL_RESTART to $MAINPID). When
 * that can't be found out, nothing is told, and the SIGTERM that follows is a stop.
 */

/* Return: the exit status, 0 also when there was nothing to tell. */
int announce_stop_main(int argc, char **argv);
