/* SPDX-License-Identifier: MIT */

/*
 * Every configuration key, one row each:
 *
 *   GROUP(heading)
 *   KEY(name, KIND, default, min, max, RELOAD, help)
 *
 * The rows make the members of struct config, the parser's table, the ranges,
 * `wsbind check-config --dump`, the commented conf/wsbind.conf and the check of
 * wsbind.conf(5). Default and bounds are text that goes through the parser of
 * KIND, so a default cannot be invalid and a bound reads as an administrator
 * would write it. A minimum "0|X" allows zero beside what lies from X up. The
 * bounds of texts are lengths in bytes; choices have none.
 *
 * RELOAD: LIVE, open connections follow; NEW_CONN, from the next handshake on;
 * RESTART, a reload reports the change and does not apply it.
 *
 * CHANNEL_KEY is a KEY that can be set for some channels alone, in a section. Those are numbers
 * and choices, and LIVE.
 *
 * This file has no include guard: define KEY (and CHANNEL_KEY and GROUP, if wanted), include it,
 * and find all of them undefined again.
 */

#ifndef KEY
#define KEY(...)
#endif
#ifndef CHANNEL_KEY
#define CHANNEL_KEY(...) KEY(__VA_ARGS__)
#endif
#ifndef GROUP
#define GROUP(heading)
#endif

/* clang-format off */

GROUP("Listening")
KEY(host, ADDRESS, "0.0.0.0", "", "", RESTART,
    "Address to listen on, IPv4 or IPv6, in numbers. 0.0.0.0 means every IPv4 address, :: every "
    "address of both kinds.")
KEY(port, PORT, "8080", "", "", RESTART,
    "TCP port to listen on for ws://. 0 takes any free port and names it in the log; off listens "
    "on none, where tls_port or listen_unix is set.")
KEY(worker_threads, WORKERS, "auto", "1", "64", RESTART,
    "Threads that serve connections. auto means one for each CPU that the process may run on.")
KEY(tcp_nodelay, BOOL, "yes", "", "", NEW_CONN,
    "Send small messages at once (TCP_NODELAY) instead of waiting to fill a segment.")
KEY(tcp_keepalive, DURATION, "60", "0|1s", "9h", NEW_CONN,
    "Silence on a TCP connection after which the kernel probes the peer. 0 turns probing off.")
KEY(tcp_notsent_lowat, SIZE, "128K", "4K", "1G", NEW_CONN,
    "Unsent bytes that the kernel may hold for one client; the rest waits in wsbind, where "
    "slow_consumer = skip can still act on it.")

GROUP("TLS")
KEY(tls_port, PORT, "off", "", "", RESTART,
    "TCP port to listen on for wss://: off, 0 for any free one, or a number.")
KEY(tls_certificate, TEXT, "", "0", "4000", NEW_CONN,
    "PEM file with the certificate and its chain. Several, with spaces between: a client gets the "
    "one for the name that it asks for, the first when there is none. A reload reads it again.")
KEY(tls_key, TEXT, "", "0", "4000", NEW_CONN,
    "PEM file with the certificate's private key; as many as certificates, in their order. Empty: "
    "the key is in the same file. A reload reads it again.")
KEY(tls_client_ca, TEXT, "", "0", "4000", NEW_CONN,
    "PEM file with those who sign certificates of clients. When set, every client on tls_port "
    "needs one, and its common name is the user id.")

GROUP("Who may come in")
KEY(allowed_origins, ORIGINS, "*", "0", "4000", NEW_CONN,
    "Web pages that may connect, with spaces between, as browsers name them: https://example.org, "
    "*.example.org for all below it, * for any. Clients that are no browsers are not asked.")
KEY(auth, AUTH, "none", "", "", NEW_CONN,
    "none: everybody may connect. jwt: only who has a JSON Web Token signed with a key of "
    "jwt_key_file; see wsbind(8).")
KEY(jwt_key_file, TEXT, "", "0", "4000", NEW_CONN,
    "File with the key that tokens are verified with: a secret of at least 32 bytes (HS256), or a "
    "PEM public key or certificate (RS256, ES256, EdDSA). Several, in one file or with spaces "
    "between files, each perhaps as KID=FILE, so that keys can be replaced. A reload reads them "
    "again, and ends the connections that a key let in which is gone.")
KEY(jwt_audience, TEXT, "", "0", "1024", NEW_CONN,
    "What a token's aud has to be or to hold. Empty: a token that has an aud is refused, for it "
    "was made for somebody else.")
KEY(jwt_issuer, TEXT, "", "0", "1024", NEW_CONN,
    "What a token's iss has to be. Empty: it is not looked at.")
KEY(proxy_protocol, BOOL, "no", "", "", NEW_CONN,
    "Connections begin with a PROXY protocol header (version 1 or 2) that names the client. "
    "Whoever is not in trusted_proxies is dropped.")
KEY(trusted_proxies, PREFIXES, "", "0", "4000", NEW_CONN,
    "Addresses and prefixes (10.0.0.0/8) of reverse proxies, with spaces between. Of what comes "
    "from these, X-Forwarded-For names the client, or the PROXY protocol where that is on. "
    "Connections through listen_unix are trusted.")
KEY(listen_unix, TEXT, "", "0", "107", RESTART,
    "Path of a unix socket to listen on, too, for a reverse proxy on this host. A relative path is "
    "below $RUNTIME_DIRECTORY.")
KEY(listen_unix_mode, MODE, "0660", "0", "777", RESTART,
    "Permissions of that socket.")

GROUP("Connections")
KEY(max_connections, COUNT, "10000", "1", "1000000", NEW_CONN,
    "Connections at a time; past it a handshake is answered with 503 and Retry-After.")
KEY(max_connections_per_ip, COUNT, "0", "0", "1000000", NEW_CONN,
    "Connections at a time from one address, of IPv6 from one /64; past it a handshake is answered "
    "with 429. 0 means no limit.")
KEY(handshake_timeout, DURATION, "10", "50ms", "10m", NEW_CONN,
    "A handshake that is not complete after this time is dropped.")
KEY(refuse_by_close, BOOL, "no", "", "", LIVE,
    "Who may not connect is let through the handshake, told why in an ERROR, and closed with 4000 "
    "and the status of HTTP: scripts in a page see nothing of a status.")
KEY(welcome, TEXT, "Welcome {user}! Your connection ID: {id}", "0", "1024", NEW_CONN,
    "Text of the first message to a new client. {user} stands for its user id, {id} for its "
    "connection id. Empty: no such message.")
KEY(echo_path, URL_PATH, "", "0", "255", NEW_CONN,
    "Connections on this path get every text and binary message back unchanged, for conformance "
    "suites and latency probes. Empty: there is no such path.")

GROUP("Heartbeat")
KEY(ping_interval, DURATION, "30", "50ms", "1h", LIVE,
    "A connection that was silent for this time gets a Ping.")
KEY(pong_timeout, DURATION, "10", "50ms", "1h", LIVE,
    "A Ping without any sign of life after this time is counted as missed and sent again.")
KEY(heartbeat_timeout, DURATION, "120", "50ms", "24h", LIVE,
    "A connection without a sign of life for this time is closed with code 4001.")

GROUP("Messages")
KEY(max_message_size, SIZE, "16M", "1K", "256M", LIVE,
    "Largest message, its fragments together, also after decompression; past it the connection "
    "is closed with code 1009.")
KEY(max_frame_size, SIZE, "4M", "1K", "256M", LIVE,
    "Largest frame that a client may send, and that the server sends; past it the connection is "
    "closed with code 1009.")
KEY(message_timeout, DURATION, "60", "50ms", "1h", LIVE,
    "A fragmented message that is not complete after this time closes the connection with "
    "code 1008.")
KEY(reassembly_memory, SIZE, "256M", "1M", "1T", LIVE,
    "Memory for what has arrived of the incomplete messages of all clients of one worker; past "
    "it the client whose message has stood still longest is closed with code 1013.")
KEY(max_incoming_frames_per_second, COUNT, "1000", "0", "10000000", LIVE,
    "Frames that one connection may send in a second, each name in a SUBSCRIBE counting as one; "
    "past it rate_limit_action applies. 0 means no limit.")
KEY(rate_limit_action, RATE_ACTION, "throttle", "", "", LIVE,
    "What happens to a connection that sends too many frames: throttle does not read it until "
    "its next second, close closes it with code 1008.")
KEY(text_messages, TEXT_MESSAGES, "log", "", "", LIVE,
    "What happens to text messages: log counts them and logs them at debug, relay delivers them "
    "to the channel as text, reject closes the connection with code 1003.")

GROUP("Channels")
KEY(max_channels, COUNT, "100000", "1", "10000000", RESTART,
    "Channels at a time; past it joining a new one is refused. One address can make four times as "
    "many as are left for others.")
KEY(max_channels_per_client, COUNT, "64", "1", "10000", LIVE,
    "Channels that one client may be a member of; past it SUBSCRIBE is answered with ERROR.")
CHANNEL_KEY(notice_limit, COUNT, "500", "0", "1000000", LIVE,
    "Joins and leaves are announced while a channel has at most this many members. "
    "0 turns announcements off.")

CHANNEL_KEY(stamp_sender, STAMP, "auto", "", "", LIVE,
    "Whether a delivered message carries the client id of who published it (field sender): yes or "
    "no. auto is yes in channels with history, else no.")

KEY(flush_delay, DURATION, "0", "0|1ms", "10ms", LIVE,
    "How long messages of a channel are held back, so that those that come meanwhile go with "
    "them: fewer and larger sends, at the price of that latency.")

GROUP("Slow consumers")
KEY(message_queue_size, COUNT, "1000", "1", "1000000", LIVE,
    "Messages that may wait for one client; past it slow_consumer applies.")
KEY(max_send_buffer, SIZE, "1M", "4K", "1G", LIVE,
    "Bytes that may wait for one client, though one message alone may be larger; past it "
    "slow_consumer applies.")
CHANNEL_KEY(slow_consumer, SLOW_CONSUMER, "disconnect", "", "", LIVE,
    "What happens to a client that reads too slowly: disconnect closes it with code 1013, skip "
    "drops its oldest waiting channel messages down to half the limit, history does so with those "
    "alone that the channel keeps no more, and counts no others.")
KEY(slow_consumer_grace, DURATION, "5", "0|50ms", "1h", LIVE,
    "How long a client may be past those limits before slow_consumer applies; at four times a "
    "limit it applies at once, and with 0 always at once.")
KEY(log_memory, SIZE, "256M", "1M", "1T", LIVE,
    "Memory for all messages that wait for any client; past it the clients that lag most meet "
    "slow_consumer until it fits.")

GROUP("History")
CHANNEL_KEY(history_messages, COUNT, "0", "0", "1000000", LIVE,
    "Messages that a channel keeps for those who come back or are new, also without members. 0: "
    "it has no history.")
CHANNEL_KEY(history_bytes, SIZE, "1M", "1K", "1T", LIVE,
    "Bytes of messages that a channel keeps. One that is larger alone is not kept.")
CHANNEL_KEY(history_age, DURATION, "10m", "1s", "8760h", LIVE,
    "How long a channel keeps a message.")
KEY(history_memory, SIZE, "256M", "1M", "12G", LIVE,
    "Memory for what all channels keep; past it those without members lose theirs first, then the "
    "one that keeps most its oldest.")

KEY(resume_window, DURATION, "2m", "1s", "24h", LIVE,
    "How long after the end of its connection a client that asked for a resume token may come back "
    "as the same client.")
KEY(resume_key_file, TEXT, "", "0", "4000", RESTART,
    "File with at least 32 bytes, a secret that resume tokens are signed with: with it they are good "
    "on other hosts that have it, too. Empty: one drawn at random, which goes on through restarts "
    "and crashes with what channels keep.")
KEY(leave_grace, DURATION, "15s", "0", "1h", LIVE,
    "How long the others of its channels are not told that such a client has left, if it did not "
    "say so itself: once it is back nobody has noticed.")

GROUP("Compression")
KEY(enable_compression, BOOL, "yes", "", "", LIVE,
    "Compress binary payloads for the clients that can read it.")
KEY(compression_level, COUNT, "6", "1", "9", LIVE,
    "Level on the scale of zstd and zlib: 1 is the fastest, 9 the smallest.")
KEY(compression_threshold, SIZE, "1K", "0", "256M", LIVE,
    "Payloads smaller than this go as they are.")
KEY(compression_max_size, SIZE, "256K", "0", "256M", LIVE,
    "Payloads larger than this go as they are, so that no worker is held up.")
KEY(permessage_deflate, BOOL, "yes", "", "", NEW_CONN,
    "Agree to permessage-deflate (RFC 7692) with clients that offer it, always without context "
    "takeover.")

GROUP("Metrics and control")
KEY(enable_metrics, BOOL, "yes", "", "", RESTART,
    "Serve /metrics, /healthz and /readyz over HTTP.")
KEY(metrics_host, ADDRESS, "127.0.0.1", "", "", RESTART,
    "Address that metrics are served on, IPv4 or IPv6, in numbers.")
KEY(metrics_port, COUNT, "9090", "0", "65535", RESTART,
    "TCP port that metrics are served on. 0 takes any free port and names it in the log.")
KEY(control_socket, TEXT, "", "0", "107", RESTART,
    "Unix socket for wsbind status, clients, reload, publish and disconnect. A relative path is "
    "taken under $RUNTIME_DIRECTORY. Empty: control.sock there, or none when that is not set. "
    "none: no such socket.")

KEY(control_group, TEXT, "", "0", "32", RESTART,
    "Group of the control socket, by name or number, whose members may use it: a back end that "
    "publishes. The daemon has to be a member. Empty: the daemon's own.")

GROUP("Files")
KEY(spool_dir, TEXT, "", "0", "1024", RESTART,
    "Directory that received binary transfers are written to. A relative path is taken under "
    "$STATE_DIRECTORY. Empty: transfers are not written.")
KEY(spool_max_size, SIZE, "0", "0", "1000T", LIVE,
    "Size of all files in spool_dir together; a transfer for which there is no room is refused. 0 "
    "means no limit.")
KEY(spool_max_file_size, SIZE, "1G", "0", "1000T", LIVE,
    "Size of one file in spool_dir, its chunks unpacked; a larger transfer is refused. 0 means no "
    "limit.")
KEY(spool_min_free, PERCENT, "5%", "0", "99", LIVE,
    "What has to stay free of the disk that spool_dir is on; transfers that would leave less are "
    "refused. 0 means that it may be filled up.")

GROUP("Logging")
KEY(log_level, LOG_LEVEL, "info", "", "", LIVE,
    "Least important lines that are still logged.")
KEY(log_connections, BOOL, "yes", "", "", LIVE,
    "Log a line for each connection that opens or closes, at most 1000 a second; what is more "
    "is counted.")

GROUP("Stopping")
KEY(on_stop, ON_STOP, "auto", "", "", LIVE,
    "What a SIGTERM means for open connections. auto asks systemd: a restart hands them over to the "
    "next process, where they go on; a stop says goodbye and closes them. keep always hands over, "
    "close never does.")
KEY(shutdown_timeout, DURATION, "10", "0|50ms", "10m", LIVE,
    "How long a stop may take to send what is queued and to say goodbye. 0 means not at all.")
KEY(reconnect_window, DURATION, "30", "0|50ms", "1h", LIVE,
    "At a stop each client is told to come back after a random time within this window, so "
    "that not all come at once. 0 means at once.")

GROUP("Clients (wsbind client and wsbind benchmark)")
KEY(reconnect_attempts, COUNT, "5", "0", "1000000", RESTART,
    "Attempts to reconnect in a row before the client gives up. 0 means none.")
KEY(reconnect_delay_ms, COUNT, "1000", "1", "3600000", RESTART,
    "Delay before the first attempt to reconnect, in milliseconds.")
KEY(reconnect_backoff, REAL, "1.5", "1", "10", RESTART,
    "Factor by which the delay grows with each further attempt; some jitter is added.")

/* clang-format on */

#undef CHANNEL_KEY
#undef KEY
#undef GROUP
