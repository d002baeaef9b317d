// The floor: what the platform itself costs.
export default {
  fetch: () => new Response('{}', { headers: { 'content-type': 'application/json' } }),
};
