// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Asks for the page again every two seconds and changes what differs, so that a selection, the focus and the place
// on the page stay. There is one source of what is shown: the server's page.
const every = 2000; // ms
const live = document.getElementById("live");
let paused = false;
let timer;

// attributes makes those of old equal to those of fresh.
function attributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
}

// key says what an element is about, if it says so.
function key(node) {
  return node.dataset?.key ?? (node.id || undefined);
}

// kin says whether old can become fresh: two texts, or two elements of one kind about one thing.
function kin(old, fresh) {
  return old.nodeName === fresh.nodeName && key(old) === key(fresh);
}

// morph makes the children of old equal to those of fresh and keeps every node that can stay.
function morph(old, fresh) {
  let at = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    let have = at;
    if (key(want) !== undefined) { // what stood before it may be gone
      while (have && !kin(have, want)) have = have.nextSibling;
    }
    if (!have || !kin(have, want)) {
      old.insertBefore(document.importNode(want, true), at);
      continue;
    }
    while (at !== have) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
    at = have.nextSibling;
    if (have.nodeType === Node.ELEMENT_NODE) {
      attributes(have, want);
      morph(have, want);
    } else if (have.data !== want.data) {
      have.data = want.data;
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

async function refresh() {
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`the edge answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    fresh.getElementById("live").replaceWith(live.cloneNode(true)); // ours, the server knows nothing of it
    morph(document.getElementById("head"), fresh.getElementById("head"));
    morph(document.getElementById("main"), fresh.getElementById("main"));
    morph(document.querySelector("footer"), fresh.querySelector("footer"));
    document.title = fresh.title;
    say();
  } catch (err) {
    say(err.name === "TimeoutError" ? "the edge does not answer" : err.message);
  }
}

// say shows whether what is on the page is fresh. It touches the page only when that changes.
function say(trouble) {
  const text = paused ? "paused" : trouble ? "stale: " + trouble : "live, every 2 s";
  if (word.textContent !== text) word.textContent = text;
  document.body.classList.toggle("stale", Boolean(trouble) && !paused);
}

async function loop() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  await refresh();
  clearTimeout(timer); // another loop may have begun meanwhile
  timer = setTimeout(loop, every);
}

const word = document.createElement("span");
word.setAttribute("role", "status");
const button = document.createElement("button");
button.type = "button";
button.textContent = "Pause";
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Go on" : "Pause";
  say();
  loop();
});
live.replaceChildren(word, " ", button);
document.addEventListener("visibilitychange", loop);
say();
timer = setTimeout(loop, every);
