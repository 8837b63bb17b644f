// SPDX-License-Identifier: MIT

// A broadcast as one writes it with gorilla/websocket: a hub that knows the clients, and for each
// client a goroutine that reads and one that writes what is queued for it. What one client sends
// goes to all others; below /echo it goes back. Prints its port.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
)

const queueLength = 256

type client struct {
	conn  *websocket.Conn
	queue chan []byte
}

type message struct {
	from *client
	data []byte
}

type hub struct {
	join, leave chan *client
	broadcast   chan message
}

func (h *hub) run() {
	clients := map[*client]struct{}{}
	forget := func(c *client) {
		if _, isThere := clients[c]; isThere {
			delete(clients, c)
			close(c.queue)
		}
	}
	for {
		select {
		case c := <-h.join:
			clients[c] = struct{}{}
		case c := <-h.leave:
			forget(c)
		case m := <-h.broadcast:
			for c := range clients {
				if c == m.from {
					continue
				}
				select {
				case c.queue <- m.data:
				default:
					forget(c)
				}
			}
		}
	}
}

func (c *client) write() {
	defer c.conn.Close()
	for data := range c.queue {
		if c.conn.WriteMessage(websocket.BinaryMessage, data) != nil {
			return
		}
	}
}

func (c *client) read(h *hub) {
	defer c.conn.Close()
	for {
		_, data, err := c.conn.ReadMessage()
		if err != nil {
			h.leave <- c
			return
		}
		h.broadcast <- message{c, data}
	}
}

func echo(conn *websocket.Conn) {
	defer conn.Close()
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, data) != nil {
			return
		}
	}
}

func main() {
	h := &hub{make(chan *client), make(chan *client), make(chan message, queueLength)}
	upgrader := websocket.Upgrader{}
	go h.run()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if strings.HasPrefix(r.URL.Path, "/echo") {
			go echo(conn)
			return
		}
		c := &client{conn, make(chan []byte, queueLength)}
		h.join <- c
		go c.write()
		go c.read(h)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
