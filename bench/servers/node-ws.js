// SPDX-License-Identifier: MIT
// A broadcast as one writes it first with the `ws` package: what one client sends goes to all
// others. Prints its port.
"use strict";

const {WebSocketServer, WebSocket} = require("ws");

const server = new WebSocketServer({host: "127.0.0.1", port: 0, perMessageDeflate: false}, () => {
	console.log(`port ${server.address().port}`);
});
server.on("connection", (client, request) => {
	const echoes = request.url.startsWith("/echo");

	client.on("error", () => {});
	client.on("message", (data, isBinary) => {
		if (echoes) {
			client.send(data, {binary: isBinary});
			return;
		}
		for (const other of server.clients)
			if (other !== client && other.readyState === WebSocket.OPEN)
				other.send(data, {binary: isBinary});
	});
});
