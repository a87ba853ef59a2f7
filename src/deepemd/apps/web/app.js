// Two things that gradio leaves open. MOST_BYTES is filled in by web.py.
(() => {
  // What is too large is told before it is sent, and the rest of what was chosen or dropped goes on. The server refuses
  // it anyway, but with all that came in the same drop.
  const most = MOST_BYTES, ours = new WeakSet();
  const size = bytes => `${(bytes / 2**20).toFixed(1)} MB`;
  const tell = (box, large) => {
    const lines = large.map(f => `${f.name}: ${size(f.size)}, at most ${size(most)} can be uploaded: make it smaller`);
    document.querySelector(`.too-large[data-box="${box.id}"]`).textContent = lines.join("; ");
  };
  const look = event => {
    const dropped = event.type === "drop", box = event.target.closest?.(".uploads");
    const input = dropped ? box?.querySelector("input[type=file]") : event.target;
    if (!box || input?.type !== "file" || ours.has(event)) return;
    const files = [...(dropped ? event.dataTransfer : input).files], kept = files.filter(f => f.size <= most);
    tell(box, files.filter(f => f.size > most));
    if (kept.length === files.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const rest = new DataTransfer();
    kept.forEach(f => rest.items.add(f));
    input.files = rest.files;
    if (!kept.length) return;
    const again = new Event("change", { bubbles: true });
    ours.add(again);
    input.dispatchEvent(again);
  };
  for (const name of ["change", "drop"]) window.addEventListener(name, look, true);

  // The two boxes have the same words on them: a screen reader is told which is which.
  const names = { "class-photos": "Photos of the class", "queries": "Photos to classify" };
  new MutationObserver(() => {
    for (const [id, name] of Object.entries(names)) {
      const button = document.querySelector(`#${id} button[aria-label^="Click"]`);
      if (button) button.ariaLabel = `${name}: choose files, or drop them here`;
    }
  }).observe(document, { childList: true, subtree: true });
})();
