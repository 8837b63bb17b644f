/* SPDX-License-Identifier: MIT */
#pragma once

/* The version of wsbind, "0.2.0": the Makefile takes it from systemd/debian/changelog. */
extern const char wb_version[];
