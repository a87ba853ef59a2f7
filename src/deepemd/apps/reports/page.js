// Steps to the next or previous article by the keys that readers of mail and news know.
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const all = [...document.querySelectorAll("article")], now = all.indexOf(document.activeElement.closest("article"));
  if (!step || !all.length || (now < 0 && event.key.startsWith("Arrow"))) return;
  const next = now < 0 ? all[0] : all[now + step];
  if (next) { event.preventDefault(); next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
});
