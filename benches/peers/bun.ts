// usage: bun bun.ts PORT
//
// Echo and broadcast by Bun, whose server is µWebSockets inside: its own publish and subscribe, messages passed on
// as they came.

const TOPIC = 'broadcast';

const server = Bun.serve<{ everybody: boolean }>({
  port: Number(process.argv[2]),
  hostname: '127.0.0.1',
  fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (pathname !== '/echo' && pathname !== '/broadcast') return new Response(null, { status: 404 });
    if (server.upgrade(request, { data: { everybody: pathname === '/broadcast' } })) return;
    return new Response('a WebSocket is expected', { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    open(ws) {
      if (ws.data.everybody) ws.subscribe(TOPIC);
    },
    message(ws, message) {
      if (ws.data.everybody) server.publish(TOPIC, message);
      else ws.send(message);
    },
  },
});
console.log(`bun listening on http://127.0.0.1:${server.port}/`);
