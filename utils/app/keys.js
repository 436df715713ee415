// Keys of the Label tab, for what the box editor has none for. They use the editor's own dialog,
// which changes the text and the color of the selected box.
(() => {
  const SCORE = / [01]\.\d\d\?$/, DIFFICULT = " (difficult)";
  const BUTTONS = { A: "accept-all", n: "next", ArrowRight: "next", p: "previous", ArrowLeft: "previous", s: "save" };
  const editor = () => document.querySelector("#editor .annotator-container");
  const dialog = () => document.getElementById("model-box-edit");
  const classes = () => JSON.parse(document.getElementById("classes").dataset.classes);
  const press = (key) => editor().dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const send = (input, value, ...events) => {
    input.value = value;
    for (const name of events) input.dispatchEvent(new Event(name, { bubbles: name !== "blur" }));
  };

  // The color of a class, with the low bits of the old one, which say what object the box is.
  function recolor(old, color) {
    const parts = [1, 3, 5].map((at) => (parseInt(color.substr(at, 2), 16) & 0xf0) | (parseInt(old.substr(at, 2), 16) & 15));
    return "#" + parts.map((part) => part.toString(16).padStart(2, "0")).join("");
  }

  async function retype(change) {
    if (!dialog()) press("e");
    for (let tries = 0; !dialog() && tries < 100; tries++) await new Promise((done) => setTimeout(done, 20));
    if (!dialog()) return;  // no box is selected
    const text = dialog().querySelector("input[role=listbox]"), color = dialog().querySelector("input[type=color]");
    const { names, colors } = classes(), changed = change(text.value);
    const index = names.indexOf(changed.replace(DIFFICULT, ""));
    send(text, changed, "input", "blur");
    if (index >= 0) send(color, recolor(color.value, colors[index]), "input", "change");
    await new Promise((done) => setTimeout(done, 50));
    [...dialog().querySelectorAll("button")].at(-1).click();  // OK
  }

  const accept = (text) => text.replace(SCORE, "");
  const toggle = (text) => {
    const name = text.replace(SCORE, "").replace(DIFFICULT, "");
    return (text.includes(DIFFICULT) ? name : name + DIFFICULT) + (SCORE.exec(text)?.[0] ?? "");
  };

  function act(key) {
    const name = /^[1-9]$/.test(key) && classes().names[key - 1];
    if (name) retype((text) => name + (text.includes(DIFFICULT) ? DIFFICULT : ""));
    else if (key === "a") retype(accept);
    else if (key === "f") retype(toggle);
    else if (key in BUTTONS) document.getElementById(BUTTONS[key]).click();
    else if (key === "Delete" || key === "Backspace") press("Delete");
    else if ("cde".includes(key)) press(key);
    else return false;
    return true;
  }

  // What is changed while an event is on its way would be lost with its answer.
  const freeze = (is_frozen) => { document.getElementById("editor").inert = is_frozen; };

  // The editor keeps the number of the selected box when another image comes: select none.
  function deselect() {
    const canvas = editor()?.querySelector("canvas");
    if (!canvas) return;
    canvas.setPointerCapture = canvas.releasePointerCapture = () => {};  // there is no such pointer
    for (const name of ["pointerdown", "pointerup"])
      canvas.dispatchEvent(new PointerEvent(name, { clientX: -1e6, clientY: -1e6, bubbles: true }));
    delete canvas.setPointerCapture;
    delete canvas.releasePointerCapture;
  }

  document.addEventListener("keydown", (event) => {
    if (document.getElementById("editor")?.inert || !event.isTrusted || event.ctrlKey || event.metaKey || event.altKey || !editor()?.offsetParent) return;
    // In the dialog only a number, and not one that is part of a name.
    if (dialog() ? dialog().dataset.typed || !/^[1-9]$/.test(event.key)
                 : event.target.closest("input, textarea, select, [contenteditable=true]")) return;
    if (act(event.key)) { event.preventDefault(); event.stopPropagation(); }
  }, true);
  document.addEventListener("input", (event) => {
    if (event.isTrusted && dialog()?.contains(event.target)) dialog().dataset.typed = "yes";
  }, true);
  window.labelKeys = { act, deselect, freeze };
})();
