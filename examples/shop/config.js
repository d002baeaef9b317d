// Where the shop sends its events. Edit these two lines for your own endpoint.
window.SHOP_CONFIG = {
  endpoint: 'http://localhost:8787', // the edge, or the server itself
  writeKey: '', // `firsthop tenant list` shows it; it is public, like every key on a page
};

// On a developer's own machine, ?endpoint=…&writeKey=… overrides them, so that `make demo` can print one URL. The values are kept for the
// tab and taken out of the address bar. Nowhere else: the endpoint is where a script comes from, and a link must not get to choose that.
(function (config) {
  'use strict';
  if (!/^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname)) return;

  var url = new URL(location.href);
  ['endpoint', 'writeKey'].forEach(function (name) {
    var key = 'shop.' + name;
    var value = url.searchParams.get(name);
    url.searchParams.delete(name);
    try {
      if (value === null) value = sessionStorage.getItem(key);
      else sessionStorage.setItem(key, value);
    } catch (e) {
      // Storage is switched off: the override then holds for this page load only.
    }
    if (value !== null) config[name] = value;
  });
  if (url.href !== location.href) history.replaceState(history.state, '', url.href);
  config.endpoint = config.endpoint.replace(/\/+$/, '');
})(window.SHOP_CONFIG);
