// Keeps the page up to date without reloading it. Everything also works without this file.
//
// Every few seconds the part that changes is fetched and compared with what the server sent before. Only what differs
// is exchanged, so that open details, the keyboard focus and half-typed filters stay as they are.
"use strict";

(() => {
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const pulseText = document.getElementById("pulse-text");
  const news = document.getElementById("news");
  if (!live || !window.fetch) return;

  const period = Number(live.dataset.every) * 1000;
  const slowest = 30_000;
  let failures = 0;
  let tag = null;
  let timer = 0;

  // What the server last sent, by element id or part name; what people do to the page does not count as a change.
  const sent = new Map();

  const parts = (root) => root.querySelectorAll("[data-part]");
  const lists = (root) => root.querySelectorAll("[data-list]");
  const frames = (root) => root.querySelectorAll("[data-frame]");

  function remember(root) {
    for (const part of parts(root)) sent.set(`part ${part.dataset.part}`, part.outerHTML);
    for (const list of lists(root)) for (const item of list.children) sent.set(item.id, item.outerHTML);
  }

  function carryOver(before, after) {
    const opened = before.querySelectorAll("details");
    after.querySelectorAll("details").forEach((details, place) => {
      if (opened[place]) details.open = opened[place].open;
    });
  }

  function exchange(before, after) {
    const focused = before.contains(document.activeElement) ? document.activeElement.id : "";
    carryOver(before, after);
    before.replaceWith(after);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function updateList(list, fresh) {
    let arrived = 0;
    const kept = new Set();
    let place = list.firstElementChild;
    for (const item of [...fresh.children]) {
      kept.add(item.id);
      const html = item.outerHTML;
      let present = document.getElementById(item.id);
      if (!present) {
        present = document.importNode(item, true);
        list.insertBefore(present, place);
        present.classList.add("is-new");
        arrived += 1;
      } else if (sent.get(item.id) !== html) {
        const replacement = document.importNode(item, true);
        if (place === present) place = replacement;
        exchange(present, replacement);
        present = replacement;
      }
      sent.set(item.id, html);
      if (present !== place) list.insertBefore(present, place);
      place = present.nextElementSibling;
    }
    for (const item of [...list.children]) {
      if (!kept.has(item.id)) {
        sent.delete(item.id);
        item.remove();
      }
    }
    return arrived;
  }

  function update(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    for (const part of parts(fresh)) {
      const key = `part ${part.dataset.part}`;
      const present = live.querySelector(`[data-part="${part.dataset.part}"]`);
      const markup = part.outerHTML;
      if (present && sent.get(key) !== markup) exchange(present, document.importNode(part, true));
      sent.set(key, markup);
    }
    for (const frame of frames(fresh)) {
      live.querySelector(`[data-frame="${frame.dataset.frame}"]`)?.setAttribute("class", frame.className);
    }
    for (const list of lists(fresh)) {
      const present = live.querySelector(`[data-list="${list.dataset.list}"]`);
      if (!present) continue;
      present.className = list.className;
      const arrived = updateList(present, list);
      if (arrived && list.dataset.list === "alerts") announce(arrived);
    }
  }

  function announce(count) {
    news.textContent = count === 1 ? news.dataset.one : news.dataset.many.replace("{count}", String(count));
  }

  function show(working) {
    pulse.hidden = false;
    pulse.classList.toggle("stopped", !working);
    pulseText.textContent = working ? pulse.dataset.live : pulse.dataset.stopped;
  }

  async function refresh() {
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), 10_000);
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const response = await fetch(live.dataset.url, { headers, signal: abort.signal, cache: "no-store" });
      if (response.status === 200) {
        update(await response.text());
        tag = response.headers.get("ETag");
      } else if (response.status !== 304) {
        throw new Error(`status ${response.status}`);
      }
      failures = 0;
    } catch {
      failures += 1;
    } finally {
      clearTimeout(limit);
    }
    if (failures !== 1) show(failures === 0); // one miss is no news
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, Math.min(period * (failures + 1), slowest));
  }

  remember(live);
  show(true);
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
  schedule();
})();
