"use strict";
// A conversation: what it knows so far lies in `session`, here and nowhere else. Text only ever becomes text.

const $ = (id) => document.getElementById(id);
let session = null;
let conversation = 0; // what belongs to an earlier one is dropped
let leaves = new AbortController(); // ends what it still asks when another begins
let busy = false; // one message at a time: each goes on from the session that the last one left

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text ?? "";
  return made;
}

function ordinal(n) {
  const teen = n % 100 > 10 && n % 100 < 14;
  return n + ((!teen && { 1: "st", 2: "nd", 3: "rd" }[n % 10]) || "th");
}

// Paths are relative: a proxy may serve all of this below a path of its own.
async function ask(path, body, signal) {
  const options = body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function list(items) {
  const made = element("ol", "list");
  for (const item of items) {
    const line = element("li", "item");
    const about = [item.year, item.categories.join(", ")].filter(Boolean).join("  ·  ");
    const why = element("button", "why", "why?");
    why.type = "button";
    why.setAttribute("aria-label", `why ${item.title}?`);
    why.dataset.number = item.number;
    why.dataset.item = item.item_id;
    why.addEventListener("click", () => say(`why the ${ordinal(item.number)}?`));
    line.append(element("span", "number", item.number), element("span", "title", item.title),
      element("span", "more", about), why);
    made.append(line);
  }
  return made;
}

// A place can be asked about while the conversation's own list has the same item there.
function hideStale() {
  const shown = session?.state.shown ?? [];
  for (const why of document.querySelectorAll("button.why")) {
    why.hidden = shown[why.dataset.number - 1] !== why.dataset.item;
  }
}

function show(className, lines, items = []) {
  const made = element("div", className);
  for (const line of lines) made.append(element("p", "line", line));
  if (items.length) made.append(list(items));
  $("talk").append(made);
  made.scrollIntoView({ block: "nearest" });
}

async function say(message) {
  if (busy) return;
  wait(true);
  const mine = conversation;
  const waiting = element("div", "waiting", "…");
  $("talk").append(element("div", "said", message), waiting);
  waiting.scrollIntoView({ block: "nearest" });
  try {
    const answer = await ask("chat", { say: message, session }, leaves.signal);
    if (mine !== conversation) return;
    session = answer.reply.ends ? null : answer.session;
    waiting.remove();
    show("reply", answer.reply.text, answer.reply.items);
    hideStale();
  } catch (error) {
    if (mine !== conversation) return;
    waiting.remove();
    show("reply wrong", [error.message]);
    $("say").value ||= message; // to be sent again
  } finally {
    if (mine === conversation) settle();
  }
}

function wait(on) {
  busy = $("send").disabled = on;
  for (const why of document.querySelectorAll("button.why")) why.disabled = on;
}

function settle() {
  wait(false);
  $("say").focus();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("say").value.trim();
  if (!message || busy) return;
  $("say").value = "";
  say(message);
});

$("new").addEventListener("click", () => {
  session = null;
  conversation += 1;
  leaves.abort();
  leaves = new AbortController();
  $("talk").replaceChildren();
  settle();
});

ask("health").then((found) => {
  $("domain").textContent = found.domain;
  $("about").textContent = `${found.items.toLocaleString()} ${found.noun}; “help” shows what can be said`;
  document.title = `${found.domain} · llmrec`;
}, (error) => show("reply wrong", [error.message]));
