/* SPDX-License-Identifier: MIT */
/*
 * Every counter a worker keeps: one row each, included wherever rows are needed
 * (the struct in metrics.h, the rendering in metrics.c), so no #pragma once.
 *
 *   COUNTER(field, name, labels, help)         only grows; summed over the workers
 *   GAUGE(field, name, labels, help)           goes up and down; summed over the workers
 *   HISTOGRAM(field, name, labels, help)       nanoseconds; rendered as seconds, summed
 *   WORKER_COUNTER(field, name, labels, help)  as COUNTER, one series for each worker
 *   WORKER_SECONDS(field, name, labels, help)  the same, nanoseconds rendered as seconds
 *   WORKER_VIEW(field, name, labels, help)     a GAUGE of a row above, again for each worker
 *
 * Rows of one name make one family: one HELP (the first row's) and one TYPE,
 * wherever the rows stand. Names end as Prometheus has it (_total, _bytes,
 * _seconds); websocket_total_connections is the one name that was given.
 */
#ifndef COUNTER
#define COUNTER(field, name, labels, help)
#endif
#ifndef GAUGE
#define GAUGE(field, name, labels, help)
#endif
#ifndef HISTOGRAM
#define HISTOGRAM(field, name, labels, help)
#endif
#ifndef WORKER_COUNTER
#define WORKER_COUNTER(field, name, labels, help)
#endif
#ifndef WORKER_SECONDS
#define WORKER_SECONDS(field, name, labels, help)
#endif
#ifndef WORKER_VIEW
#define WORKER_VIEW(field, name, labels, help)
#endif

/* clang-format off */
GAUGE(connections_active, "websocket_active_connections", "", "Connections that are open now.")
COUNTER(connections_total, "websocket_total_connections", "", "Connections whose handshake succeeded.")
COUNTER(messages_received, "websocket_messages_received_total", "", "Messages received, text and binary.")
COUNTER(messages_sent, "websocket_messages_sent_total", "", "Messages sent, one for each receiver.")
COUNTER(binary_messages, "websocket_binary_messages_total", "", "Binary messages received.")
COUNTER(text_messages, "websocket_text_messages_total", "", "Text messages received.")
COUNTER(connection_errors, "websocket_connection_errors_total", "", "Connections that ended by an error of the network or of the protocol, refused handshakes included.")
COUNTER(message_errors, "websocket_message_errors_total", "", "Messages that were refused: unreadable, of unknown type, or with a wrong checksum.")
COUNTER(bytes_received, "websocket_received_bytes_total", "", "Bytes read from clients.")
COUNTER(bytes_sent, "websocket_sent_bytes_total", "", "Bytes handed to the kernel for clients.")
COUNTER(frames_received, "websocket_frames_received_total", "", "WebSocket frames received, control frames included.")
COUNTER(frames_sent, "websocket_frames_sent_total", "", "WebSocket frames sent, control frames included.")
HISTOGRAM(loop_turn, "websocket_loop_turn_seconds", "", "How long turns of the event loops worked.")
HISTOGRAM(latency, "websocket_message_latency_seconds", "", "From the last byte of a message read to its last copy handed to the kernel; sampled.")

#define NAME "websocket_handshakes_refused_total"
#define HELP "Handshakes refused, by reason."
COUNTER(refused_bad_request, NAME, "reason=\"bad_request\"", HELP)
COUNTER(refused_method, NAME, "reason=\"method\"", HELP)
COUNTER(refused_version, NAME, "reason=\"version\"", HELP)
COUNTER(refused_no_upgrade, NAME, "reason=\"no_upgrade\"", HELP)
COUNTER(refused_path, NAME, "reason=\"path\"", HELP)
COUNTER(refused_head_too_large, NAME, "reason=\"head_too_large\"", HELP)
COUNTER(refused_max_connections, NAME, "reason=\"max_connections\"", HELP)
COUNTER(refused_per_ip, NAME, "reason=\"per_ip\"", HELP)
COUNTER(refused_max_channels, NAME, "reason=\"max_channels\"", HELP)
COUNTER(refused_timeout, NAME, "reason=\"timeout\"", HELP)
COUNTER(refused_origin, NAME, "reason=\"origin\"", HELP)
COUNTER(refused_auth, NAME, "reason=\"auth\"", HELP)
COUNTER(refused_tls, NAME, "reason=\"tls\"", HELP)
COUNTER(refused_proxy, NAME, "reason=\"proxy\"", HELP)
#undef NAME
#undef HELP

#define NAME "websocket_closes_total"
#define HELP "Connections ended, by close code; 1006 is an end without a Close frame."
#define CLOSE_CODE(name, counter, ...) COUNTER(counter, NAME, "code=\"" WS_CODE_TEXT(name) "\"", HELP)
#define CLOSE_CODE_UNCOUNTED(...)
#include "model/close_codes_table.h"
COUNTER(closed_other, NAME, "code=\"other\"", HELP)
#undef NAME
#undef HELP

COUNTER(slow_disconnects, "websocket_slow_consumer_actions_total", "action=\"disconnect\"", "Times a slow consumer was closed or lost its oldest messages.")
COUNTER(slow_skips, "websocket_slow_consumer_actions_total", "action=\"skip\"", "Times a slow consumer was closed or lost its oldest messages.")
COUNTER(skipped_messages, "websocket_messages_skipped_total", "", "Messages that slow consumers did not get.")
COUNTER(history_recovered, "websocket_history_resumes_total", "recovered=\"true\"", "Times that a client came back with a position, by whether all behind it was still kept.")
COUNTER(history_not_recovered, "websocket_history_resumes_total", "recovered=\"false\"", "Times that a client came back with a position, by whether all behind it was still kept.")
COUNTER(resumes, "websocket_resumes_total", "taken=\"true\"", "Resume tokens that were brought, by whether their client was taken for the one that it had been.")
COUNTER(resumes_refused, "websocket_resumes_total", "taken=\"false\"", "Resume tokens that were brought, by whether their client was taken for the one that it had been.")
COUNTER(history_gaps, "websocket_history_gaps_total", "", "GAP messages sent: of a channel with history something was passed over for a member.")
COUNTER(history_duplicates, "websocket_history_duplicates_total", "", "Messages that were sent again and had been published before.")
COUNTER(history_unknown, "websocket_history_unknown_total", "", "Messages that were sent again and refused, because it was not known any more whether they had been published.")
COUNTER(throttles, "websocket_throttles_total", "", "Times a client was not read because it sent too many frames a second.")
COUNTER(channel_pauses, "websocket_channel_pauses_total", "", "Times a client was not read because a channel it published to was behind.")
COUNTER(pongs_missed, "websocket_pongs_missed_total", "", "Pings that were not answered within pong_timeout.")
COUNTER(heartbeat_expired, "websocket_heartbeat_expired_total", "", "Connections closed because they gave no sign of life.")
COUNTER(pings_sent, "websocket_pings_sent_total", "", "Pings sent.")
COUNTER(notices_sent, "websocket_notices_total", "result=\"sent\"", "Notices of members who come and go, by what became of them.")
COUNTER(notices_skipped, "websocket_notices_total", "result=\"skipped\"", "Notices of members who come and go, by what became of them.")
GAUGE(queue_bytes, "websocket_queue_bytes", "", "Bytes that wait for clients.")
GAUGE(queue_messages, "websocket_queue_messages", "", "Messages that wait for clients.")
GAUGE(reassembly_bytes, "websocket_reassembly_bytes", "", "Bytes of messages received in part.")
COUNTER(accept_errors, "websocket_accept_errors_total", "", "Connections that could not be accepted, for lack of descriptors for instance.")
COUNTER(pack_in_bytes, "websocket_compression_input_bytes_total", "operation=\"compress\"", "Bytes that went into compression or decompression.")
COUNTER(unpack_in_bytes, "websocket_compression_input_bytes_total", "operation=\"decompress\"", "Bytes that went into compression or decompression.")
COUNTER(deflate_in_bytes, "websocket_compression_input_bytes_total", "operation=\"deflate\"", "Bytes that went into compression or decompression.")
COUNTER(inflate_in_bytes, "websocket_compression_input_bytes_total", "operation=\"inflate\"", "Bytes that went into compression or decompression.")
COUNTER(pack_out_bytes, "websocket_compression_output_bytes_total", "operation=\"compress\"", "Bytes that came out of compression or decompression.")
COUNTER(unpack_out_bytes, "websocket_compression_output_bytes_total", "operation=\"decompress\"", "Bytes that came out of compression or decompression.")
COUNTER(deflate_out_bytes, "websocket_compression_output_bytes_total", "operation=\"deflate\"", "Bytes that came out of compression or decompression.")
COUNTER(inflate_out_bytes, "websocket_compression_output_bytes_total", "operation=\"inflate\"", "Bytes that came out of compression or decompression.")
COUNTER(compression_errors, "websocket_compression_errors_total", "", "Payloads that could not be unpacked or were too large unpacked.")
COUNTER(work_bytes, "websocket_message_work_bytes_total", "", "Work on messages beside reading them, done in shares of loop turns: bytes that were compressed, decompressed, checked or copied, by what they cost.")
COUNTER(handovers, "websocket_handovers_total", "", "Times that a new process took over from the one before.")
COUNTER(history_recoveries, "websocket_history_crash_recoveries_total", "", "Starts behind a process that ended without handing over, with what channels keep still there.")
COUNTER(history_recovered_channels, "websocket_history_recovered_channels_total", "result=\"whole\"", "Channels at such a start, by what became of what they keep: it is whole, older messages of it are gone, or they begin anew.")
COUNTER(history_torn_channels, "websocket_history_recovered_channels_total", "result=\"torn\"", "Channels at such a start, by what became of what they keep: it is whole, older messages of it are gone, or they begin anew.")
COUNTER(history_lost_channels, "websocket_history_recovered_channels_total", "result=\"lost\"", "Channels at such a start, by what became of what they keep: it is whole, older messages of it are gone, or they begin anew.")
COUNTER(handover_kept, "websocket_handover_connections_total", "result=\"kept\"", "Connections at a restart, by what became of them: they went on, were told to come back since TLS cannot travel, or were lost.")
COUNTER(handover_tls, "websocket_handover_connections_total", "result=\"tls\"", "Connections at a restart, by what became of them: they went on, were told to come back since TLS cannot travel, or were lost.")
COUNTER(handover_lost, "websocket_handover_connections_total", "result=\"lost\"", "Connections at a restart, by what became of them: they went on, were told to come back since TLS cannot travel, or were lost.")
COUNTER(acks_sent, "websocket_acknowledgements_sent_total", "", "ACKNOWLEDGE messages sent.")
COUNTER(acks_late, "websocket_acknowledgements_delayed_total", "", "ACKNOWLEDGE messages that waited for a member with much to catch up.")
GAUGE(acks_waiting, "websocket_acknowledgements_waiting", "", "ACKNOWLEDGE messages that wait for such a member now.")
COUNTER(errors_sent, "websocket_errors_sent_total", "", "ERROR messages sent.")
COUNTER(spool_files, "websocket_spool_files_total", "", "Transfers written to spool_dir completely.")
COUNTER(spool_bytes, "websocket_spool_bytes_total", "", "Bytes written to spool_dir.")
COUNTER(spool_errors, "websocket_spool_errors_total", "", "Transfers that left no file: broken, not writable or refused.")
COUNTER(spool_refused_file_size, "websocket_spool_refused_total", "reason=\"spool_max_file_size\"", "Transfers refused for a bound, by which one; they count as errors, too.")
COUNTER(spool_refused_size, "websocket_spool_refused_total", "reason=\"spool_max_size\"", "Transfers refused for a bound, by which one; they count as errors, too.")
COUNTER(spool_refused_free, "websocket_spool_refused_total", "reason=\"spool_min_free\"", "Transfers refused for a bound, by which one; they count as errors, too.")
COUNTER(spool_refused_open, "websocket_spool_refused_total", "reason=\"open\"", "Transfers refused for a bound, by which one; they count as errors, too.")
COUNTER(spool_refused_rate, "websocket_spool_refused_total", "reason=\"rate\"", "Transfers refused for a bound, by which one; they count as errors, too.")

WORKER_VIEW(connections_active, "websocket_worker_connections", "", "Connections that are open now, for each worker.")
WORKER_COUNTER(loop_turns, "websocket_worker_loop_turns_total", "", "Turns of the event loop.")
WORKER_SECONDS(loop_busy_ns, "websocket_worker_loop_busy_seconds_total", "", "Time the event loop spent working, not waiting.")
WORKER_COUNTER(ring_posts, "websocket_worker_ring_posts_total", "", "Posts to the rings of other workers.")
WORKER_COUNTER(ring_overflows, "websocket_worker_ring_overflows_total", "", "Posts that found the ring of another worker full and waited.")
/* clang-format on */

#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef WORKER_COUNTER
#undef WORKER_SECONDS
#undef WORKER_VIEW
