/* SPDX-License-Identifier: MIT */
#include "base/version.h"

/* The one file that is compiled with it, and compiled again when it changes. */
const char wb_version[] = WB_VERSION;
