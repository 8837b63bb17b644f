/* SPDX-License-Identifier: MIT */
/* clang-format off */

/*
 * Events that an administrator may search for: EVENT(name, MESSAGE_ID, subject).
 * No `#pragma once`: the file is included wherever the rows are needed. An id is
 * drawn once at random and never reused; the journal's catalog has an entry for
 * each that explains cause, effect and the setting to look at.
 */

EVENT(START, "6cc107b1668bb8a851dd4ed404ecaec2", "The daemon starts")
EVENT(READY, "b8718a4ae97d7b0dc857fd35cc5f065d", "The daemon is ready")
EVENT(STOP, "ee4c28f1209d372c21199833334ae685", "The daemon stops")
EVENT(STOPPED, "bab42a8d6104b4eed68ca6e9a264ceca", "The daemon has stopped")
EVENT(HANDED_OVER, "8e04d02f26d1af67db15988454c32f5f", "The connections were handed over")
EVENT(TAKEN_OVER, "13c7fbf1fa60e104997d5fcdc1a2efb8", "The connections were taken over")
EVENT(HISTORY_RECOVERED, "db0d561e32de43abaf61c3000e56d6b0", "What channels keep was found again")
EVENT(HISTORY_LOST, "c894413cb5434c86a05ecfd301e50e40", "What channels keep is given up")
EVENT(HANDOVER_FAILED, "83e3e999eb7eaeea067c216b611a3c30", "Connections could not be handed over")
EVENT(CONFIG_ERROR, "1b2779471ba72b0f3e01db5a4084a36a", "The configuration has an error")
EVENT(NOT_OPENED, "c38c7180602648d58340ccd6e5ce4182", "Something that the configuration names cannot be opened")
EVENT(CONFIG_KEPT, "43d2d7a93c534618ae5e3ba3a553ba82", "The settings of the process before are kept")
EVENT(CONFIG_ODD, "8010e2106ffe499a86975f0b6e3ac4ed", "Something about the configuration is odd")
EVENT(RELOAD, "0c2f98af19dc998bb57e48f25f8b2057", "The configuration was reloaded")
EVENT(RELOAD_FAILED, "4b925949371015a342f8c5986c24d4a2", "The configuration was not reloaded")
EVENT(OPEN_TO_ALL, "cb90525c888e3be90104fd911d48ca2c", "The daemon is open to everyone")
EVENT(NO_CERTIFICATE_NEEDED, "3790de1574f549319266cd06703a7c77", "A port asks for no certificates of clients")
EVENT(LIMITS_LOW, "8f2bcace323de27d0513ca4bb1e01a13", "A limit of the system is too low")
EVENT(CONNECTED, "49a5ae827e974f213d91698fa6022da8", "A client connected")
EVENT(DISCONNECTED, "3b022ed3e69846602d05d9e4b08df508", "A client's connection ended")
EVENT(REFUSED, "9bff04c4941edb3da711a5d7da93dcaf", "A handshake was refused")
EVENT(TLS_FAILED, "1adf1b6a753da1b658393edec17cb39a", "A TLS handshake failed")
EVENT(AUTH_EXPIRED, "f9b6a4ed8b046a54693a09d8c249c9a2", "A client's authorization has expired")
EVENT(PROTOCOL_ERROR, "d9492545aba0b6c84a78a47e1b48f820", "A client broke the WebSocket protocol")
EVENT(LIMIT_EXCEEDED, "1c0064ce6783e6a58c25befd61c8a3ef", "A client went past a limit")
EVENT(MESSAGE_ERROR, "a31afebd8d1e132e5b0f56a088419cf5", "A client sent a message that is not valid")
EVENT(SLOW_CONSUMER, "1a2f97ed65a21e6a26791e97fccfe011", "A client reads too slowly")
EVENT(CHANNEL_BEHIND, "8e9f65c785614346ac15ad83cda0b6b8", "A client publishes faster than its channel can be sent")
EVENT(THROTTLED, "93d035bfedba13d3ec03caa082aaee63", "A client sends too fast")
EVENT(HEARTBEAT_EXPIRED, "6a92783ddd25f845b8c72ef08390f6bd", "A client gave no sign of life")
EVENT(HANDSHAKE_TIMEOUT, "874a9d4e5db4ad64a55ed1cbd91ce8d7", "A handshake took too long")
EVENT(ACCEPT_FAILED, "7d2b7bb61434cc000bacb425846c19db", "Connections cannot be accepted")
EVENT(SPOOLED, "489db04073e776453062ac97a21297b9", "A transfer was written to a file")
EVENT(SPOOL_FAILED, "967287de1faf82ef98c160a768adae87", "A transfer could not be written to a file")
EVENT(LOG_MEMORY, "e5437217bdcdd84465b8331e110617fd", "Waiting messages use up their memory")
EVENT(CLIENT_MESSAGE, "04f52d07274f2c9b938eac40287c62ae", "A client sent a message that is only noted")
EVENT(WORKER_STALLED, "62057fc0e31aa616b1dc422b7827c38d", "A worker does not answer")
EVENT(LOG_DROPPED, "6e4ef32f1ed2cf7bdda90b03f3a97019", "Log lines were lost")

/* clang-format on */
