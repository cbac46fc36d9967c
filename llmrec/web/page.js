"use strict";
// A conversation: what it knows so far lies in `session`, here and nowhere else. Text only ever becomes text.

const $ = (id) => document.getElementById(id);
let session = null;

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

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
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
    why.addEventListener("click", () => say(`why the ${ordinal(item.number)}?`));
    line.append(element("span", "number", item.number), element("span", "title", item.title),
      element("span", "more", about), why);
    made.append(line);
  }
  return made;
}

function show(className, lines, items = []) {
  const made = element("div", className);
  for (const line of lines) made.append(element("p", "line", line));
  if (items.length) {  // only of the list that was shown last can "why the 2nd?" be asked
    for (const old of document.querySelectorAll("button.why")) old.remove();
    made.append(list(items));
  }
  $("talk").append(made);
  made.scrollIntoView({ block: "end" });
}

async function say(message) {
  $("send").disabled = true;
  const waiting = element("div", "waiting", "…");
  $("talk").append(element("div", "said", message), waiting);
  waiting.scrollIntoView({ block: "end" });
  try {
    const answer = await ask("/chat", { say: message, session });
    session = answer.reply.ends ? null : answer.session;
    show("reply", answer.reply.text, answer.reply.items);
  } catch (error) {
    show("reply wrong", [error.message]);
  } finally {
    waiting.remove();
    $("send").disabled = false;
    $("say").focus();
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const message = $("say").value.trim();
  if (!message || $("send").disabled) return;
  $("say").value = "";
  say(message);
});

$("new").addEventListener("click", () => {
  session = null;
  $("talk").replaceChildren();
  $("say").focus();
});

ask("/health").then((found) => {
  $("domain").textContent = found.domain;
  $("about").textContent = `${found.items.toLocaleString()} ${found.noun}; “help” shows what can be said`;
  document.title = `${found.domain} · llmrec`;
}, (error) => show("reply wrong", [error.message]));
