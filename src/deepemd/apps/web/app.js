// Two things that gradio does not do. app.py fills in MAX_BYTES.
(() => {
  // Files that are too large are reported before they are sent, and the others are sent. The server would refuse
  // them too, but together with everything in the same drop.
  const max = MAX_BYTES, ours = new WeakSet();
  const size = bytes => `${(bytes / 2**20).toFixed(1)} MB`;
  const report = (box, large) => {
    const lines = large.map(f => `${f.name}: ${size(f.size)}, at most ${size(max)} can be uploaded: make it smaller`);
    document.querySelector(`.too-large[data-box="${box.id}"]`).textContent = lines.join("; ");
  };
  const check = event => {
    const dropped = event.type === "drop", box = event.target.closest?.(".uploads");
    const input = dropped ? box?.querySelector("input[type=file]") : event.target;
    if (!box || input?.type !== "file" || ours.has(event)) return;
    const files = [...(dropped ? event.dataTransfer : input).files], accepted = files.filter(f => f.size <= max);
    report(box, files.filter(f => f.size > max));
    if (accepted.length === files.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const rest = new DataTransfer();
    accepted.forEach(f => rest.items.add(f));
    input.files = rest.files;
    if (!accepted.length) return;
    const again = new Event("change", { bubbles: true });
    ours.add(again);
    input.dispatchEvent(again);
  };
  for (const name of ["change", "drop"]) window.addEventListener(name, check, true);

  // The two boxes have the same words on them: screen readers need a name for each.
  const names = { "class-photos": "Photos of the class", "queries": "Photos to classify" };
  new MutationObserver(() => {
    for (const [id, name] of Object.entries(names)) {
      const button = document.querySelector(`#${id} button[aria-label^="Click"]`);
      if (button) button.ariaLabel = `${name}: choose files, or drop them here`;
    }
  }).observe(document, { childList: true, subtree: true });
})();
