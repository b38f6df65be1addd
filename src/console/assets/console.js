// Keys and local times. Every page works without this file.
"use strict";
(() => {
  const typing = (target) => target.closest("input, textarea, select") !== null;
  let waits = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (waits) {
      waits = false;
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "g") { waits = true; return; }
    const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!target) return;
    event.preventDefault();
    if (target.matches("input")) target.focus(); else target.click();
  });
  // The demo's link has the token behind `#`, which is never sent to a server.
  const field = document.querySelector('form[action="/sign-in"] input[name="token"]');
  if (field && location.hash.length > 1) {
    field.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname + location.search);
    field.form.requestSubmit();
  }
})();
