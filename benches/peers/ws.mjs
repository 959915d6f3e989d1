// usage: node ws.mjs PORT [PER_MESSAGE_DEFLATE]
//
// Echo and broadcast by `ws`, as its README has them: several servers behind one HTTP server, its way to send to
// all clients, and `bufferutil`, which it names for speed on this side of Node.js 26. Its option `perMessageDeflate` is
// given as JSON; without, it does not compress, which is its default.

import { createServer } from 'node:http';
import WebSocket, { WebSocketServer } from 'ws';

const perMessageDeflate = JSON.parse(process.argv[3] ?? 'false');

const echo = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate });
echo.on('connection', (ws) => {
  ws.on('error', () => {});
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
});

const broadcast = new WebSocketServer({ noServer: true, perMessageDeflate });
broadcast.on('connection', (ws) => {
  ws.on('error', () => {});
  ws.on('message', (data, isBinary) => {
    broadcast.clients.forEach((client) => {
      if (client.readyState === WebSocket.OPEN) client.send(data, { binary: isBinary });
    });
  });
});

const routes = { '/echo': echo, '/broadcast': broadcast };
const server = createServer();
server.on('upgrade', (request, socket, head) => {
  const route = routes[request.url];
  if (!route) return socket.destroy();
  route.handleUpgrade(request, socket, head, (ws) => route.emit('connection', ws, request));
});
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 }, () => {
  console.log(`ws listening on http://127.0.0.1:${server.address().port}/`);
});
