// Live parts, local times and keys. Every page works without this file.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const setting = (name, value) => {
    try {
      if (value === undefined) return localStorage.getItem(name);
      localStorage.setItem(name, value);
    } catch { /* The browser keeps nothing: the setting lasts as long as the page. */ }
    return null;
  };

  // Times: all at once in the reader's own zone, or in UTC. Copies are RFC 3339 (the title).
  let isLocal = setting("zone") === "local";
  const showTimes = () => all("time[datetime]").forEach((time) => {
    time.dataset.server ??= time.textContent;
    const at = new Date(time.dateTime);
    time.textContent = isLocal && !Number.isNaN(at.valueOf())
      ? at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" })
      : time.dataset.server;
  });

  // Live: the server names the versions of the page's parts; those that differ are read again.
  const policy = window.trustedTypes
    ? trustedTypes.createPolicy("dispatch", { createHTML: (text) => text })
    : { createHTML: (text) => text };
  const versionsOf = (text) => new Map(text.split(" ").filter(Boolean).map((pair) => {
    const at = pair.lastIndexOf(":");
    return [pair.slice(0, at), pair.slice(at + 1)];
  }));
  let known = versionsOf(document.body.dataset.versions ?? "");
  let isLive = known.size > 0 && setting("live") !== "off";
  let stream = null, poll = null, reads = false, fails = 0;
  const part = (name, within = document) => within.querySelector(`[data-part="${CSS.escape(name)}"]`);
  // Who types, chooses or has opened something there keeps it, and is told.
  const isChanged = (field) => ["checkbox", "radio"].includes(field.type)
    ? field.checked !== field.defaultChecked : field.value !== field.defaultValue;
  const isBusy = (element) => element.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")
    || all("input:not([type=hidden]), textarea", element).some(isChanged);
  const swap = (name, fresh) => {
    const old = part(name);
    if (!old || !fresh) return false;
    if (isBusy(old)) { old.dataset.stale = "changed"; return false; }
    const open = new Set(all("details[open][id]", old).map((details) => details.id));
    const focus = old.contains(document.activeElement) ? document.activeElement : null;
    const again = focus && (focus.id ? `#${CSS.escape(focus.id)}` : focus.getAttribute("href") && `a[href="${CSS.escape(focus.getAttribute("href"))}"]`);
    old.replaceWith(fresh);
    open.forEach((id) => { const details = fresh.querySelector(`#${CSS.escape(id)}`); if (details) details.open = true; });
    if (again) fresh.querySelector(again)?.focus();
    return true;
  };
  const away = (title, hint) => {
    document.body.classList.toggle("away", title !== null);
    all("main button").forEach((button) => { button.disabled = title !== null; });
    const bar = one("#live");
    bar.textContent = title === null ? (isLive ? "Live" : "Not live") : `${title}. The page is as of ${one("[data-part=as-of] time")?.textContent ?? "before"}. ${hint}`;
    bar.classList.toggle("problem", title !== null);
  };
  const read = async () => {
    if (reads) return;
    reads = true;
    try {
      const answer = await fetch(location.href, { headers: { "If-None-Match": document.body.dataset.tag ?? "", "X-By-Itself": "1" }, cache: "no-store" });
      if (answer.redirected) { location.reload(); return; }
      if (answer.status === 503) { away("The servers are not available", "It continues by itself."); return; }
      if (answer.status !== 304 && answer.ok) {
        const page = new DOMParser().parseFromString(policy.createHTML(await answer.text()), "text/html");
        const now = versionsOf(page.body.dataset.versions ?? "");
        // Other parts than before: the page is another one.
        if (String([...now.keys()]) !== String([...known.keys()]) && !isBusy(document.body)) { location.reload(); return; }
        let isWhole = true;
        for (const [name, version] of now) {
          if (known.get(name) === version) continue;
          if (swap(name, part(name, page))) known.set(name, version); else isWhole = false;
        }
        swap("as-of", part("as-of", page));
        if (isWhole) document.body.dataset.tag = answer.headers.get("ETag") ?? "";
        showTimes();
      }
      away(null);
    } catch {
      away("The console does not answer", "The page looks again every 5 s.");
    } finally { reads = false; }
  };
  const stop = () => { stream?.close(); stream = null; clearInterval(poll); poll = null; };
  const start = () => {
    stop();
    if (!isLive || document.visibilityState !== "visible") return;
    stream = new EventSource(`/events?page=${encodeURIComponent(location.pathname + location.search)}`);
    stream.addEventListener("versions", (event) => {
      fails = 0;
      const now = versionsOf(event.data);
      if ([...now].some(([name, version]) => known.get(name) !== version)) read(); else away(null);
    });
    stream.addEventListener("away", (event) => { const why = JSON.parse(event.data); away(why.title, why.hint); });
    stream.addEventListener("error", () => {
      // A stream that ends is opened again by the browser; a refused one is not: then the page looks itself.
      if (stream?.readyState === EventSource.CLOSED) { stop(); poll = setInterval(read, 5000); }
      else if (++fails > 2) away("The console does not answer", "It is asked again every second.");
    });
  };
  if (known.size > 0) {
    document.addEventListener("visibilitychange", start);
    away(null);
    start();
  }

  // Keys. They can be switched off, since some readers of screens use single letters.
  const typing = (target) => target.closest("input:not([type=checkbox]), textarea, select") !== null;
  const rows = () => all("main tbody tr").filter((row) => row.querySelector("a"));
  const move = (step) => {
    const list = rows(), at = list.indexOf(document.activeElement?.closest("tr"));
    const next = list[Math.min(Math.max(at + step, 0), list.length - 1)];
    next?.querySelector("a").focus();
  };
  const actions = {
    j: () => move(1),
    k: () => move(-1),
    x: () => document.activeElement?.closest("tr")?.querySelector("input[type=checkbox]")?.click(),
    t: () => { isLocal = !isLocal; setting("zone", isLocal ? "local" : "utc"); showTimes(); },
    ".": () => { isLive = !isLive; setting("live", isLive ? "on" : "off"); away(null); start(); },
    "?": () => one("#keys").showModal(),
  };
  let waits = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (setting("keys") === "off" && event.key !== "?") return;
    const key = CSS.escape(event.key);
    if (waits) {
      waits = false;
      const link = one(`[data-go="${key}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "g") { waits = true; return; }
    const target = one(`[data-key="${key}"]`);
    if (!target && !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    if (!target) actions[event.key]();
    else if (target.matches("input")) target.focus();
    else target.click();
  });
  const keys = one("#keys input");
  if (keys) {
    keys.checked = setting("keys") !== "off";
    keys.addEventListener("change", () => setting("keys", keys.checked ? "on" : "off"));
  }
  showTimes();

  // The demo's link has the token behind `#`, which is never sent to a server.
  const field = one('form[action="/sign-in"] input[name="token"]');
  if (field && location.hash.length > 1 && ["127.0.0.1", "localhost"].includes(location.hostname)) {
    field.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname + location.search);
    field.form.requestSubmit();
  }
})();
