// Keeps a page up to date: it asks for the page again when something happens, and every few seconds, and patches what
// differs. Focus, scrolling, what was typed and what was opened stay as they are.
'use strict';
(() => {
  const main = document.getElementById('main');
  const search = document.getElementById('q');
  document.addEventListener('keydown', (e) => {
    if (e.key === '/' && search && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.nodeName)) {
      e.preventDefault();
      search.focus();
    }
  });
  if (!('live' in main.dataset)) return;

  const live = document.getElementById('live'), age = document.getElementById('age'), pause = document.getElementById('pause');
  const SLOW = 10000, FAST = 3000, STALE = 15000;
  let shift = Number(live.dataset.now) - Date.now(); // of the server's clock
  let good = Date.now(), failed = false, paused = false, asking = false, again = false, stream = null, timer = 0, streaming = false;

  function say(text) { if (live.textContent !== text) live.textContent = text; }
  function words(t) {
    const d = (t - Date.now() - shift) / 1000;
    const s = d > 0 ? Math.ceil(d) : Math.floor(-d);
    const n = s < 100 ? s + ' s' : s < 6000 ? Math.floor(s / 60) + ' min' : s < 172800 ? Math.floor(s / 3600) + ' h' : Math.floor(s / 86400) + ' d';
    return d > 0 ? 'in ' + n : n + ' ago';
  }
  function tick() {
    const old = Date.now() - good, stale = !paused && (failed || old > STALE);
    document.documentElement.classList.toggle('stale', stale);
    say(paused ? '‖ paused' : stale ? '✖ stale' : '● live');
    age.textContent = stale || paused ? Math.round(old / 1000) + ' s old' : '';
    for (const t of document.querySelectorAll('time[data-rel]')) {
      const text = words(Date.parse(t.dateTime));
      if (t.textContent !== text) t.textContent = text;
    }
  }

  const key = (n) => (n.nodeType === 1 && n.id) || '';
  function attributes(a, b) {
    for (const { name, value } of b.attributes) {
      if (name === 'open') continue;
      if (name === 'data-open' && a.getAttribute(name) !== value) a.open = value === '1'; // the server has changed its mind
      if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    }
    for (const { name } of [...a.attributes]) if (name !== 'open' && !b.hasAttribute(name)) a.removeAttribute(name);
  }
  function patch(a, b) {
    if (a.nodeType === 3) { if (a.data !== b.data) a.data = b.data; return; }
    if (a.nodeType !== 1) return;
    attributes(a, b);
    const keyed = new Map([...a.children].filter(key).map((n) => [key(n), n]));
    const wanted = new Set([...b.children].filter(key).map(key));
    const hold = 'order' in a.dataset && (a.matches(':hover') || a.contains(document.activeElement)); // nothing moves under the pointer
    let at = a.firstChild;
    for (const n of [...b.childNodes]) {
      const k = key(n);
      while (at && key(at) && !wanted.has(key(at))) { const gone = at; at = at.nextSibling; gone.remove(); }
      let old = k ? keyed.get(k) : at && !key(at) && at.nodeName === n.nodeName ? at : null;
      if (old && old.nodeName !== n.nodeName) old = null;
      if (!old) { a.insertBefore(document.importNode(n, true), at); continue; }
      patch(old, n);
      if (old === at) at = at.nextSibling;
      else if (!hold) a.insertBefore(old, at);
    }
    if (hold) { for (const [k, n] of keyed) if (!wanted.has(k)) n.remove(); return; }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(10000) });
      if (!answer.ok && answer.status !== 404) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (!paused) {
        const fresh = page.getElementById('main'), now = page.getElementById('now');
        const done = document.getElementById('done'); // what an action has done stays, as does its way back
        if (done && !page.getElementById('done')) fresh.prepend(document.importNode(done, true));
        patch(main, fresh);
        attributes(document.getElementById('now'), now);
        document.getElementById('now').textContent = now.textContent;
        document.title = page.title;
        const stamp = page.getElementById('live');
        if (stamp) shift = Number(stamp.dataset.now) - Date.now();
      }
      good = Date.now();
      failed = false;
    } catch {
      failed = true;
    }
    asking = false;
    tick();
    timer = setTimeout(refresh, failed ? 1000 : again ? 300 : streaming ? SLOW : FAST);
    again = false;
  }
  function soon() {
    if (paused || document.hidden) return;
    if (asking) { again = true; return; }
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(0, 300 - (Date.now() - good)));
  }
  function connect() {
    if (stream || document.hidden || paused || !window.EventSource) return;
    stream = new EventSource('v1/runtime/events');
    stream.onopen = () => { streaming = true; soon(); };
    for (const name of ['registry', 'audit', 'lost']) stream.addEventListener(name, soon);
    stream.onerror = () => {
      streaming = false;
      if (stream.readyState === 2) { stream = null; setTimeout(connect, 5000); } // refused: pages are polled meanwhile
      soon();
    };
  }
  function rest() {
    if (stream) stream.close();
    stream = null;
    streaming = false;
    clearTimeout(timer);
  }
  document.addEventListener('visibilitychange', () => { // an unseen page leaves its connection to others
    if (document.hidden) rest();
    else { connect(); refresh(); }
  });
  window.addEventListener('pagehide', rest);
  window.addEventListener('pageshow', (e) => { if (e.persisted) { connect(); refresh(); } });
  pause.hidden = false;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    if (paused) rest(); else { connect(); refresh(); }
    tick();
  });
  setInterval(tick, 1000);
  timer = setTimeout(refresh, SLOW);
  connect();
  tick();
})();
