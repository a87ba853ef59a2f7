// What gradio does not do. app.py fills in MAX_BYTES and MAX_FILES.
(() => {
  // Gradio chooses the language of its own words by the browser's, and has no translation of some of them. The page is
  // in English.
  for (const [name, value] of Object.entries({ language: "en", languages: ["en"] }))
    Object.defineProperty(navigator, name, { get: () => value });

  // Files that are too large or too many are reported before they are sent, and the others are sent. The server would
  // refuse them too, but together with everything in the same drop.
  const max = MAX_BYTES, most = MAX_FILES, ours = new WeakSet();
  const size = bytes => `${(bytes / 2**20).toFixed(1)} MB`;
  const report = (box, large, count) => {
    const lines = large.map(f => `${f.name}: ${size(f.size)}, at most ${size(max)} can be uploaded: make it smaller`);
    if (count > most) lines.push(`${count} photos are too many: at most ${most} at once`);
    document.querySelector(`.too-large[data-box="${box.id}"]`).textContent = lines.join("; ");
  };
  const check = event => {
    const dropped = event.type === "drop", box = event.target.closest?.(".uploads");
    const input = dropped ? box?.querySelector("input[type=file]") : event.target;
    if (!box || input?.type !== "file" || ours.has(event)) return;
    const files = [...(dropped ? event.dataTransfer : input).files];
    let accepted = files.filter(f => f.size <= max);
    report(box, files.filter(f => f.size > max), accepted.length);
    if (accepted.length > most) accepted = [];
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

  // A photo that is dropped beside a box does not replace the page.
  const stay = event => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); };
  for (const name of ["dragover", "drop"]) window.addEventListener(name, stay);

  // A message that something is missing does not stay when it is there.
  const outdate = event => {
    if (!event.target.closest?.("#class-name, #class-photos")) return;
    document.querySelectorAll("#said .message.wrong").forEach(message => message.classList.add("outdated"));
  };
  for (const name of ["input", "change", "drop"]) window.addEventListener(name, outdate);

  // The buttons in the classes and in the answers. What was pressed is shown anew by gradio: the keyboard finds it again.
  const fire = (box, button, text) => {
    const input = document.querySelector(`#${box} textarea, #${box} input`);
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    setTimeout(() => document.querySelector(`#${button}, #${button} button`).click());
  };
  let pressed;
  window.addEventListener("click", event => {
    const button = event.target.closest?.("[data-act], [data-show]");
    if (!button) return;
    if (button.dataset.act) {
      const all = [...document.querySelectorAll("[data-act]")];
      pressed = { act: button.dataset.act, place: all.indexOf(button), part: button.closest("#said, #classes, #answer")?.id };
      fire("acted", "act", button.dataset.act);
    } else {
      document.querySelectorAll("[data-show]").forEach(one => one.ariaPressed = String(one === button));
      wanted = button.dataset.show;
      fire("chosen", "show", wanted);
    }
  });
  let wanted;
  new MutationObserver(() => {
    if (wanted && document.querySelector(`.answer[data-of="${wanted}"]`)) {
      document.querySelector("#answer").scrollIntoView({ block: "nearest" });
      wanted = undefined;
    }
    if (!pressed || document.activeElement !== document.body) return;
    const all = [...document.querySelectorAll("[data-act]")];
    const same = all.find(one => one.dataset.act === pressed.act);
    const near = all.filter(one => one.closest("#said, #classes, #answer")?.id === pressed.part);
    (same ?? near.find(one => all.indexOf(one) >= pressed.place - 1) ?? near.at(-1))?.focus({ preventScroll: true });
  }).observe(document, { childList: true, subtree: true });
  for (const name of ["pointerdown", "keydown"]) window.addEventListener(name, () => { pressed = undefined; }, true);

  // Photos that were left when the page was loaded again are classified. Gradio can lose an event that comes while the
  // answer to the one before ends, so only a page that has such photos asks, and not at once.
  let resumed;
  new MutationObserver(() => {
    const left = document.querySelector("[data-resume]");
    if (!left || left === resumed) return;
    resumed = left;
    setTimeout(() => document.querySelector("#resume, #resume button").click(), 500);
  }).observe(document, { childList: true, subtree: true });

  // Who has the page open is not forgotten.
  setInterval(() => fetch("./here", { method: "POST" }).catch(() => 0), 120_000);

  // The two boxes have the same words on them: screen readers need a name for each.
  const names = { "class-photos": "Photos of the class", "queries": "Photos to classify" };
  new MutationObserver(() => {
    for (const [id, name] of Object.entries(names)) {
      const button = document.querySelector(`#${id} button[aria-label^="Click"]`);
      if (button) button.ariaLabel = `${name}: choose files, or drop them here`;
    }
  }).observe(document, { childList: true, subtree: true });
})();
