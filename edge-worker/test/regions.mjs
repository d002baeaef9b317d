// Region policies, and the hosts of other regions, which note all that they are sent.

import { once } from 'node:events';
import http from 'node:http';

import { Tenant, json, newSource, signed } from './server.mjs';

/** A tenant with a region policy. */
export class PolicyTenant extends Tenant {
  version = 1;

  constructor(number, policy, options) {
    super(number, options);
    this.policy = policy;
  }

  /** The policy document. */
  document({ policy = this.policy, tenant = this.id, version = this.version, kind = 'policy' } = {}) {
    return signed(this.key, 'policy', JSON.stringify({ kind, tenant, version, issued: Date.now(), body: policy }));
  }

  lease(now) {
    return { ...super.lease(now), documents: this.policy ? [this.document()] : [] };
  }
}

/** The host of a region: it answers like a first hop, and keeps what it was sent. */
export class RegionHost {
  requests = [];
  /** Answers that are due before the ordinary ones. */
  plans = [];

  static async start() {
    const host = new RegionHost();
    host.http = http.createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks);
      host.requests.push({ method: request.method, path: request.url, headers: request.headers, body });
      const plan = host.plans.shift();
      if (plan) return plan(response, body);
      if (request.url === '/v1/f') return json(response, 200, { source: newSource(), batch: 0, first: 0, count: 1, stored: 1, duplicate: 0, conflict: 0 });
      return json(response, 200, { success: true }, { 'firsthop-receipt': 'stored=1, duplicate=0, conflict=0, quarantined=0' });
    });
    host.http.listen(0, '127.0.0.1');
    await once(host.http, 'listening');
    host.url = `http://127.0.0.1:${host.http.address().port}`;
    return host;
  }

  async stop() {
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, 'close');
  }
}
