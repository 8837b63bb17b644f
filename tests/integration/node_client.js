// SPDX-License-Identifier: MIT
// A chat client on the `ws` package: node_client.js URL [deflate]. It says CONNECT, sends each line of its
// input as a chat message, and prints one line of JSON for each message that it gets. The few
// protobuf fields that it needs are written and read by hand.
"use strict";

const crypto = require("crypto");
const readline = require("readline");
const WebSocket = require("ws");

const CHAT_MESSAGE = 1, CONTROL = 3, CONNECT = 0;

function varint(n) {
	const out = [];
	for (; n > 127; n = Math.floor(n / 128))
		out.push((n % 128) | 128);
	out.push(n);
	return Buffer.from(out);
}

function field(number, value) {
	if (typeof value === "number")
		return Buffer.concat([varint(number * 8), varint(value)]);
	const bytes = Buffer.isBuffer(value) ? value : Buffer.from(value, "utf8");
	return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

function parse(bytes) {
	const fields = {};
	let at = 0;

	function number() {
		let value = 0, scale = 1, byte;
		do {
			byte = bytes[at++];
			value += (byte & 127) * scale;
			scale *= 128;
		} while (byte & 128);
		return value;
	}

	while (at < bytes.length) {
		const key = number();
		if (key % 8 === 0) {
			fields[key >> 3] = number();
		} else if (key % 8 === 2) {
			const n = number();
			fields[key >> 3] = bytes.subarray(at, at + n);
			at += n;
		} else {
			throw new Error(`wire type ${key % 8}`);
		}
	}
	return fields;
}

function chat(content) {
	return Buffer.concat([
		field(1, CHAT_MESSAGE),
		field(3, Buffer.concat([
			field(1, crypto.randomUUID()),
			field(2, "node"),
			field(3, content),
			field(4, Math.floor(Date.now() / 1000)),
		])),
	]);
}

function connect() {
	return Buffer.concat([
		field(1, CONTROL),
		field(2, crypto.randomBytes(16)),
		field(5, Buffer.concat([field(1, CONNECT), field(4, "ack")])),
	]);
}

function report(object) {
	process.stdout.write(JSON.stringify(object) + "\n");
}

const socket = new WebSocket(process.argv[2], {
	perMessageDeflate: process.argv[3] === "deflate" ? { threshold: 0 } : false,
});

socket.on("open", () => {
	socket.send(connect());
	readline.createInterface({ input: process.stdin })
		.on("line", (line) => socket.send(chat(line)))
		.on("close", () => socket.close(1000));
});
socket.on("message", (bytes, isBinary) => {
	if (!isBinary) {
		report({ text: bytes.toString() });
		return;
	}
	const message = parse(bytes);
	if (message[3]) {
		const body = parse(message[3]);
		report({ chat: String(body[3]), user: String(body[2] || "") });
	} else if (message[5]) {
		const body = parse(message[5]);
		report({ control: body[1] || 0, session: String(body[2] || "") });
	}
});
socket.on("close", (code) => {
	report({ closed: code });
	process.stdin.destroy();
});
socket.on("error", (error) => {
	report({ error: error.message });
	process.exitCode = 1;
});
