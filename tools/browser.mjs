// What tests and the demo show a browser, and the browser.

import { once } from 'node:events';
import http from 'node:http';

import { chromium } from 'playwright-core';
import sirv from 'sirv';

/** Serves folders as any static host would, each below its prefix: `{ '/shop/': folder, '/': folder }`. Returns its `url` and `dispose`. */
export async function servePages(folders, port = 0) {
  const roots = Object.entries(folders).map(([prefix, folder]) => ({ prefix, serve: sirv(folder, { dev: true }) }));
  const server = http.createServer((request, response) => {
    const nothing = () => response.writeHead(404, { 'content-type': 'text/plain' }).end('not found');
    const root = roots.find(({ prefix }) => request.url.startsWith(prefix));
    if (!root) return nothing();
    request.url = request.url.slice(root.prefix.length - 1);
    root.serve(request, response, nothing);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    async dispose() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Chromium that asks nobody but the test for anything. */
export async function launchBrowser(options) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ...options,
  });
}
